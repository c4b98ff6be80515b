//! Thumbnails: a few fixed sizes, made on demand from four formats, within limits of pixels, memory and time.

use std::{io::Cursor, time::Duration};

use bytes::Bytes;
use chappe_store::{
    Json, Tx,
    media::{Media as Table, Medium, Thumbnail, Thumbnails},
};
use image::{DynamicImage, ImageFormat};
use ruma::{OwnedServerName, ServerName};

use crate::{
    Content, Error, Media, Reach,
    animation::{Bounds, moves, shrunk},
    picture::{Seen, decoded, fitted_upright, seen},
    quarantine::again,
    upload::BLOB_LENGTH,
};

/// How a picture is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Cut to the shape.
    Crop,
    /// Whole, within the shape.
    Scale,
}

/// The thumbnail a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How it is fitted.
    pub method: Method,
    /// Whether it may move. If not, it never does.
    pub animated: bool,
}

/// The sizes that are made: those the specification recommends.
const SIZES: [(u32, u32, Method); 5] = [
    (32, 32, Method::Crop),
    (96, 96, Method::Crop),
    (320, 240, Method::Scale),
    (640, 480, Method::Scale),
    (800, 600, Method::Scale),
];

/// How long making one that moves may take, and how many times the pixels of a single picture it may have.
const ANIMATING: (Duration, u64) = (Duration::from_secs(10), 4);

/// For how long it is remembered that there is none to be made, in milliseconds.
pub(crate) const UNMADE_MS: u64 = 600_000;

/// Server, media id, size.
pub(crate) type Key = (OwnedServerName, String, String);

/// What came of making one.
enum Made {
    /// The picture is small enough as it is.
    Same,
    /// A picture that does not move, and its format.
    Still(Vec<u8>, ImageFormat),
    /// A WebP that moves.
    Moving(Vec<u8>),
    /// Made small it would take more bytes than it does as it is.
    Whole(ImageFormat),
}

impl Wanted {
    /// The smallest size made that is no smaller than wanted; the method yields to the size.
    fn made(self) -> Self {
        let fits = |size: &&(u32, u32, Method)| size.0 >= self.width && size.1 >= self.height;
        let same = SIZES.iter().find(|size| fits(size) && size.2 == self.method);
        let (width, height, method) =
            *same.or_else(|| SIZES.iter().find(fits)).unwrap_or(&SIZES[SIZES.len() - 1]);
        Self { width, height, method, animated: self.animated }
    }

    fn key(self) -> String {
        let method = if self.method == Method::Crop { 'c' } else { 's' };
        format!("{}x{}{method}{}", self.width, self.height, if self.animated { "a" } else { "" })
    }
}

impl Media {
    /// A thumbnail; the picture itself where it is small enough already. `asker` is a user, an address or a server: each has
    /// so many made at a time. [`Error::Busy`].
    pub async fn thumbnail(
        &self,
        server: &ServerName,
        id: &str,
        wanted: Wanted,
        (reach, asker): (Reach, &str),
        wait: Duration,
    ) -> Result<Content, Error> {
        let medium = self.find(server, id, reach, wait).await?;
        self.inspect(server, id, &medium).await?;
        let content = self.small((server, id), medium, wanted, asker).await?;
        self.saw(server, id);
        Ok(content)
    }

    async fn small(
        &self,
        (server, id): (&ServerName, &str),
        medium: Medium,
        wanted: Wanted,
        asker: &str,
    ) -> Result<Content, Error> {
        let size = wanted.made();
        let key = |size: Wanted| (server.to_owned(), id.to_owned(), size.key());
        let (key, still) = (key(size), key(Wanted { animated: false, ..size }));
        let _turn = self.turn(&format!("{server}/{id}/{}", still.2)).await;
        if let Some(made) = self.made_before(&key).await? {
            return self.opened(made).await;
        }
        let blob = medium.blob.as_deref().ok_or(Error::NotFound)?;
        let (bytes, format, keys) = match self.make(&medium, blob, size, asker).await? {
            Made::Same => return self.open_content(medium).await,
            Made::Whole(format) => {
                let content_type = format.to_mime_type().to_owned();
                let made = Thumbnail { blob: blob.to_owned(), size: medium.size, content_type };
                self.name(blob, &[key], &made).await?;
                return self.opened(made).await;
            }
            Made::Moving(bytes) => (bytes, ImageFormat::WebP, vec![key]),
            // One for those who want it to move and those who do not.
            Made::Still(bytes, format) => {
                if let Some(made) = self.made_before(&still).await? {
                    self.name(blob, &[key], &made).await?;
                    return self.opened(made).await;
                }
                (bytes, format, vec![key, still])
            }
        };
        self.opened(self.keep_made(blob.to_owned(), (bytes, format), keys).await?).await
    }

    /// A thumbnail that is here. Where its file is gone it is made anew, and its row replaced.
    async fn made_before(&self, key: &Key) -> Result<Option<Thumbnail>, Error> {
        let row = self.0.store.read().get::<Thumbnails>(key).await?;
        let Some(Json(made)) = row else { return Ok(None) };
        Ok(self.0.blobs.is_there(&made.blob).await?.then_some(made))
    }

    /// Makes a thumbnail, unless it is known already that there is none to be made.
    async fn make(&self, medium: &Medium, blob: &str, size: Wanted, asker: &str) -> Result<Made, Error> {
        let config = self.config();
        if medium.size > config.max_upload_bytes.max(config.max_remote_bytes) {
            return Err(Error::NoThumbnail);
        }
        let about = (blob.to_owned(), size.key());
        match self.0.unmade.get(&about, self.0.world.now()) {
            Some(true) => return Ok(Made::Same),
            Some(false) => return Err(Error::NoThumbnail),
            None => {}
        }
        let places = self.places_to_make(asker).await?;
        let (bytes, max_pixels) = (self.0.blobs.whole(blob).await?, config.max_pixels);
        let (world, until) = (self.0.world.clone(), self.0.world.instant() + ANIMATING.0);
        let bounds = Bounds {
            pixels: max_pixels.saturating_mul(ANIMATING.1),
            is_late: move || world.instant() >= until,
        };
        // Each takes hundreds of megabytes at worst, and goes on when whoever asked hangs up: the places go with it.
        let work = move || {
            let _places = places;
            shrink(&bytes, size, max_pixels, &bounds)
        };
        let made = self.0.world.spawn_blocking(work).await.map_err(|_| Error::NoThumbnail)?;
        match &made {
            Ok(Made::Same) => self.0.unmade.put(about, true, self.0.world.now()),
            Err(Error::NoThumbnail) => self.0.unmade.put(about, false, self.0.world.now()),
            _ => {}
        }
        made
    }

    /// Keeps a thumbnail that was made of a blob.
    pub(crate) async fn keep_made(
        &self,
        of: String,
        (bytes, format): (Vec<u8>, ImageFormat),
        keys: Vec<Key>,
    ) -> Result<Thumbnail, Error> {
        let blob = self.0.world.token(BLOB_LENGTH);
        let piece = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]);
        let received = self.0.blobs.receive(blob.clone(), piece, u64::MAX).await?;
        let content_type = format.to_mime_type().to_owned();
        let made = Thumbnail { blob, size: received.size, content_type };
        let (media, named) = (self.clone(), made.clone());
        let commit = async move {
            media.name(&of, &keys, &named).await?;
            if keys.iter().any(|(server, ..)| !media.is_local(server)) {
                media.remote_grew(named.size);
            }
            Ok(())
        };
        self.keep(received, commit).await?;
        Ok(made)
    }

    /// Gives a thumbnail of a blob its names, unless the medium has gone meanwhile: [`Error::NotFound`].
    async fn name(&self, of: &str, keys: &[Key], made: &Thumbnail) -> Result<(), Error> {
        again(async || {
            let mut tx = Tx::new();
            for key in keys {
                let medium = (key.0.clone(), key.1.clone());
                let found = self.0.store.read().get::<Table>(&medium).await?;
                let found = found.filter(|Json(medium)| medium.blob.as_deref() == Some(of));
                tx.expect::<Table>(&medium, Some(&found.ok_or(Error::NotFound)?));
                tx.put::<Thumbnails>(key, &Json(made.clone()));
            }
            self.0.store.commit(tx).await?;
            Ok(())
        })
        .await
    }

    async fn opened(&self, made: Thumbnail) -> Result<Content, Error> {
        let file = self.0.blobs.read(&made.blob).await?;
        Ok(Content { content_type: Some(made.content_type), filename: None, size: made.size, file })
    }
}

/// The format is told by the first bytes alone, never by what the uploader said.
fn shrink(
    bytes: &[u8],
    size: Wanted,
    max_pixels: u64,
    bounds: &Bounds<impl Fn() -> bool>,
) -> Result<Made, Error> {
    let seen = seen(bytes, max_pixels)?;
    let Seen { format, width, height } = seen;
    let is_small = width <= size.width && height <= size.height;
    if is_small && (size.animated || !moves(bytes, seen)) {
        return Ok(Made::Same);
    }
    if size.animated
        && let Some(moving) = shrunk(bytes, seen, size, bounds)
    {
        return Ok(if moving.len() < bytes.len() { Made::Moving(moving) } else { Made::Whole(format) });
    }
    let (picture, held) = decoded(bytes)?;
    let small = if is_small { picture } else { fitted_upright(&picture, held, size) };
    let (bytes, format) = encode(&small, format)?;
    Ok(Made::Still(bytes, format))
}

/// JPEG; PNG where there is transparency, and for what was one: drawings and pictures of screens.
fn encode(picture: &DynamicImage, from: ImageFormat) -> Result<(Vec<u8>, ImageFormat), Error> {
    let is_png = from == ImageFormat::Png || picture.color().has_alpha();
    let format = if is_png { ImageFormat::Png } else { ImageFormat::Jpeg };
    let mut bytes = Cursor::new(Vec::new());
    let written = match format {
        ImageFormat::Jpeg => picture.to_rgb8().write_to(&mut bytes, format),
        _ => picture.to_rgba8().write_to(&mut bytes, format),
    };
    written.map_err(|_| Error::NoThumbnail)?;
    Ok((bytes.into_inner(), format))
}
