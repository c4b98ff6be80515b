//! Previews of web pages: fetched for users who look at a link, once for all, and kept for a while with their pictures.

mod address;
mod charset;
mod page;
mod web;

use std::time::Duration;

use bytes::Bytes;
use chappe_store::{
    Direction, Json, Tx,
    media::{Media as Table, MediaByHash, Medium, PreviewsByAge, UrlPreview, UrlPreviews},
};
use chappe_world::Body;
use image::ImageFormat;
use ring::digest::{SHA256, digest};

pub use self::{
    address::{Address, is_host_pattern},
    page::Properties,
};
use self::{
    page::Page,
    web::{Found, Web, beginning},
};
use crate::{
    Error, Media,
    blobs::Received,
    picture,
    upload::{BLOB_LENGTH, ID_LENGTH},
};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// How long a page that could not be had is not asked again, in milliseconds.
pub(crate) const FAILED_MS: u64 = MINUTE_MS;
/// What a preview counts for besides its picture, in bytes.
const ROW_BYTES: u64 = 4 << 10;
/// Previews looked at in one round trip when old ones are removed.
const SOME: usize = 100;

/// What is asked for.
const ACCEPT: &str = "text/html, application/xhtml+xml, image/*;q=0.8, */*;q=0.1";
const ACCEPT_PICTURE: &str = "image/webp, image/png, image/jpeg, image/gif, image/*;q=0.5";

/// A picture that may be shown.
struct Picture {
    bytes: Vec<u8>,
    format: ImageFormat,
    width: u32,
    height: u32,
    hash: [u8; 32],
}

impl Media {
    /// The address that a client asks about. [`Error::PreviewsOff`], [`Error::NotAWebAddress`], [`Error::HostNotAllowed`].
    pub fn web_address(&self, text: &str) -> Result<Address, Error> {
        let rules = &self.config().previews;
        if !rules.enabled {
            return Err(Error::PreviewsOff);
        }
        Address::parse(text, rules)
    }

    /// What is known of a page and not yet old. (`GET /preview_url`)
    pub async fn kept_preview(&self, address: &Address) -> Result<Option<Properties>, Error> {
        let found = self.0.store.read().get::<UrlPreviews>(&address.key()).await?;
        let fresh_since = self.0.world.now().saturating_sub(self.config().previews.fresh_minutes * MINUTE_MS);
        Ok(found.filter(|Json(kept)| kept.made > fresh_since).map(|Json(kept)| kept.properties))
    }

    /// What a page says of itself, names as in OpenGraph; its picture is kept as a medium of this server. Asked once for all
    /// who want to know, and to the end, whether they wait for it or not. [`Error::PageFailed`], [`Error::Busy`].
    pub async fn preview(&self, address: &Address) -> Result<Properties, Error> {
        let (media, address) = (self.clone(), address.clone());
        let work = async move { media.preview_in_turn(address).await };
        self.0.world.spawn("preview", work).await.map_err(|_| Error::Stopping)?
    }

    async fn preview_in_turn(&self, address: Address) -> Result<Properties, Error> {
        let key = address.key();
        let _turn = self.turn(&turn_of(&key)).await;
        if let Some(kept) = self.kept_preview(&address).await? {
            return Ok(kept);
        }
        let now = self.0.world.now();
        if self.0.failures.get(&key, now).is_some() {
            return Err(Error::PageFailed);
        }
        let rules = &self.config().previews;
        let limit = Duration::from_secs(rules.timeout_seconds);
        let place = self.0.world.timeout(limit, self.0.previewing.acquire()).await;
        let _place = place.ok_or(Error::Busy)?.map_err(|_| Error::Stopping)?;
        let until = self.0.world.instant() + limit;
        let web = Web { world: &self.0.world, rules, until };
        match self.look_at(web, address).await {
            Ok((properties, picture)) => self.keep_preview(key, properties, picture).await,
            Err(error) => {
                self.0.failures.put(key, (), self.0.world.now());
                Err(error)
            }
        }
    }

    /// Fetches a page and its picture.
    async fn look_at(&self, web: Web<'_>, address: Address) -> Result<(Properties, Option<Picture>), Error> {
        let Found { address, kind, body } = web.get(address, ACCEPT).await?;
        let Some(kind) = kind else { return Ok(Default::default()) };
        match (kind.type_().as_str(), kind.subtype().as_str(), kind.suffix().map(|suffix| suffix.as_str())) {
            ("text", "html", _) | ("application", "xhtml", Some("xml")) => {}
            ("image", _, _) => return Ok((Properties::new(), self.picture(body).await?)),
            _ => return Ok(Default::default()),
        }
        let (bytes, _) = beginning(body, web.rules.max_page_bytes).await?;
        let charset = kind.get_param(mime::CHARSET).map(|charset| charset.as_str().to_owned());
        let read = move || page::read(&charset::decode(&bytes, charset.as_deref()));
        let page = self.0.world.spawn_blocking(read).await.map_err(|_| Error::PageFailed)?;
        let picture = self.picture_of(web, &address, &page).await;
        let mut properties = page.properties;
        if let Some(says) = page.picture_says.filter(|_| picture.is_some()) {
            properties.insert("og:image:alt".to_owned(), says.into());
        }
        Ok((properties, picture))
    }

    /// The picture of a page; a page without it is better than none.
    async fn picture_of(&self, web: Web<'_>, address: &Address, page: &Page) -> Option<Picture> {
        let link = page.picture.as_deref()?;
        let address = address.linked(page.base.as_deref(), link, web.rules).ok()?;
        let found = web.get(address, ACCEPT_PICTURE).await.ok()?;
        self.picture(found.body).await.ok()?
    }

    /// A picture, if it is one: told by its bytes, of a format that runs nowhere, and of no more pixels than others.
    async fn picture(&self, body: Body) -> Result<Option<Picture>, Error> {
        let (bytes, whole) = beginning(body, self.config().previews.max_image_bytes).await?;
        let seen = picture::seen(&bytes, self.config().max_pixels).ok().filter(|_| whole);
        let Some(picture::Seen { format, width, height }) = seen else { return Ok(None) };
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        Ok(Some(Picture { bytes, format, width, height, hash }))
    }

    /// Keeps a preview together with its picture, if there is room for it; one that is still the same keeps its address.
    async fn keep_preview(
        &self,
        key: [u8; 32],
        mut properties: Properties,
        picture: Option<Picture>,
    ) -> Result<Properties, Error> {
        let (made, own) = (self.0.world.now(), &self.0.server_name);
        let old = self.0.store.read().get::<UrlPreviews>(&key).await?;
        let mut tx = Tx::new();
        let (mut id, mut received) = (None, None);
        if let Some(picture) = picture {
            id = self.same_picture(old.as_ref(), &picture).await?;
            let fits = id.is_some() || self.has_room_for(picture.bytes.len());
            if fits {
                describe(&mut properties, &picture);
            }
            if fits && id.is_none() {
                let new = self.0.world.token(ID_LENGTH);
                let (format, bytes) = (picture.format, picture.bytes);
                let arrived = self.receive_picture(bytes).await?;
                let medium = medium_of(&arrived, format, made);
                tx.put::<MediaByHash>(&(arrived.sha256, own.clone(), new.clone()), &());
                tx.put::<Table>(&(own.clone(), new.clone()), &Json(medium));
                (id, received) = (Some(new), Some(arrived));
            }
        }
        if let Some(id) = &id {
            properties.insert("og:image".to_owned(), format!("mxc://{own}/{id}").into());
        }
        if let Some(Json(old)) = &old
            && (old.picture.is_none() || old.picture == id)
        {
            tx.delete::<PreviewsByAge>(&(old.made, key));
        }
        tx.put::<PreviewsByAge>(&(made, key), &id.clone().unwrap_or_default());
        let preview = UrlPreview { made, properties: properties.clone(), picture: id };
        tx.put::<UrlPreviews>(&key, &Json(preview));
        self.previews_grew(received.as_ref().map_or(0, |received| received.size));
        let store = self.0.store.clone();
        let commit = async move { Ok(store.commit(tx).await.map(drop)?) };
        match received {
            Some(received) => self.keep(received, commit).await?,
            None => commit.await?,
        }
        Ok(properties)
    }

    async fn same_picture(
        &self,
        old: Option<&Json<UrlPreview>>,
        picture: &Picture,
    ) -> Result<Option<String>, Error> {
        let Some(id) = old.and_then(|Json(old)| old.picture.clone()) else { return Ok(None) };
        let medium = self.known(&self.0.server_name, &id).await?;
        Ok(medium.is_some_and(|medium| medium.sha256 == Some(picture.hash)).then_some(id))
    }

    async fn receive_picture(&self, bytes: Vec<u8>) -> Result<Received, Error> {
        let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]);
        self.0.blobs.receive(self.0.world.token(BLOB_LENGTH), pieces, u64::MAX).await
    }

    /// Whether a picture may be kept. Where there is no room, upkeep makes some: until then previews have none.
    fn has_room_for(&self, bytes: usize) -> bool {
        let (most, taken) = (self.config().previews.space_bytes, self.0.preview_space.lock().unwrap_or(0));
        most == 0 || taken.saturating_add(ROW_BYTES + bytes as u64) <= most
    }

    fn previews_grew(&self, picture: u64) {
        if let Some(taken) = self.0.preview_space.lock().as_mut() {
            *taken = taken.saturating_add(ROW_BYTES + picture);
        }
    }

    /// Removes the oldest previews until the others take up nine tenths of their space; gives how many.
    pub(crate) async fn make_room_for_previews(&self) -> Result<usize, Error> {
        let most = self.config().previews.space_bytes;
        let enough = most - most / 10;
        if most == 0 || self.0.preview_space.lock().is_some_and(|taken| taken <= enough) {
            return Ok(0);
        }
        let mut taken = 0_u64;
        let rows = self.0.store.read().scan_all::<PreviewsByAge>(&()).await?;
        for (_, picture) in &rows {
            taken += self.bytes_of_preview(picture).await?;
        }
        let mut removed = 0;
        for (row, picture) in rows {
            if taken <= enough {
                break;
            }
            taken = taken.saturating_sub(self.bytes_of_preview(&picture).await?);
            self.remove_preview(row, &picture).await?;
            removed += 1;
        }
        *self.0.preview_space.lock() = Some(taken);
        Ok(removed)
    }

    async fn bytes_of_preview(&self, picture: &str) -> Result<u64, Error> {
        if picture.is_empty() {
            return Ok(ROW_BYTES);
        }
        let medium = self.known(&self.0.server_name, picture).await?;
        Ok(ROW_BYTES + medium.map_or(0, |medium| medium.size))
    }

    /// Removes previews that are too old, with their pictures; gives how many.
    pub(crate) async fn remove_old_previews(&self) -> Result<usize, Error> {
        let age = self.config().previews.keep_days.saturating_mul(DAY_MS);
        let before = self.0.world.now().saturating_sub(age);
        let mut removed = 0;
        loop {
            let rows = self.0.store.read().scan::<PreviewsByAge>(&(), Direction::Forward, SOME).await?;
            let old: Vec<_> = rows.into_iter().take_while(|((made, _), _)| *made < before).collect();
            if old.is_empty() {
                return Ok(removed);
            }
            for (row, picture) in old {
                self.remove_preview(row, &picture).await?;
                removed += 1;
            }
        }
    }

    async fn remove_preview(&self, row: (u64, [u8; 32]), picture: &str) -> Result<(), Error> {
        let _turn = self.turn(&turn_of(&row.1)).await;
        let reader = self.0.store.read();
        if reader.get::<PreviewsByAge>(&row).await?.is_none() {
            return Ok(());
        }
        let kept = reader.get::<UrlPreviews>(&row.1).await?;
        drop(reader);
        if !picture.is_empty() {
            match self.delete(&self.0.server_name, picture).await {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let mut tx = Tx::new();
        tx.delete::<PreviewsByAge>(&row);
        if kept.is_some_and(|Json(kept)| kept.made == row.0) {
            tx.delete::<UrlPreviews>(&row.1);
        }
        self.0.store.commit(tx).await?;
        Ok(())
    }
}

fn medium_of(received: &Received, format: ImageFormat, created: u64) -> Medium {
    Medium {
        blob: Some(received.blob.clone()),
        size: received.size,
        content_type: Some(format.to_mime_type().to_owned()),
        filename: None,
        uploader: None,
        created,
        expires: None,
        sha256: Some(received.sha256),
        quarantined_by: None,
        protected: false,
    }
}

/// What is known of a picture from its bytes; what the page said of its size is not believed.
fn describe(properties: &mut Properties, picture: &Picture) {
    properties.insert("matrix:image:size".to_owned(), picture.bytes.len().into());
    properties.insert("og:image:type".to_owned(), picture.format.to_mime_type().into());
    properties.insert("og:image:width".to_owned(), picture.width.into());
    properties.insert("og:image:height".to_owned(), picture.height.into());
}

fn turn_of(key: &[u8; 32]) -> String {
    format!("preview {key:?}")
}

#[cfg(test)]
mod tests;
