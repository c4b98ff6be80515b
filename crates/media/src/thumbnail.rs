//! Thumbnails: a few fixed sizes, made on demand from four formats, within limits of pixels and memory.

use std::{io::Cursor, time::Duration};

use bytes::Bytes;
use chappe_store::{
    Json, Tx,
    media::{Medium, Thumbnail, Thumbnails},
};
use image::{DynamicImage, ImageFormat, ImageReader, Limits, imageops::FilterType};
use ruma::ServerName;

use crate::{Content, Error, Media, Reach, upload::BLOB_LENGTH};

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
}

/// The sizes that are made: those the specification recommends.
const SIZES: [(u32, u32, Method); 5] = [
    (32, 32, Method::Crop),
    (96, 96, Method::Crop),
    (320, 240, Method::Scale),
    (640, 480, Method::Scale),
    (800, 600, Method::Scale),
];

/// Memory one picture may take while it is decoded, in bytes.
const MEMORY: u64 = 256 << 20;

impl Wanted {
    /// The smallest size made that is no smaller than wanted; the method yields to the size.
    fn made(self) -> Self {
        let fits = |size: &&(u32, u32, Method)| size.0 >= self.width && size.1 >= self.height;
        let same = SIZES.iter().find(|size| fits(size) && size.2 == self.method);
        let (width, height, method) =
            *same.or_else(|| SIZES.iter().find(fits)).unwrap_or(&SIZES[SIZES.len() - 1]);
        Self { width, height, method }
    }

    fn key(self) -> String {
        let method = if self.method == Method::Crop { 'c' } else { 's' };
        format!("{}x{}{method}", self.width, self.height)
    }
}

impl Media {
    /// A thumbnail; the picture itself where it is small enough already.
    pub async fn thumbnail(
        &self,
        server: &ServerName,
        id: &str,
        wanted: Wanted,
        reach: Reach,
        wait: Duration,
    ) -> Result<Content, Error> {
        let medium = self.find(server, id, reach, wait).await?;
        self.saw(server, id);
        let size = wanted.made();
        let key = (server.to_owned(), id.to_owned(), size.key());
        let _turn = self.turn(&format!("{server}/{id}/{}", key.2)).await;
        if let Some(Json(made)) = self.0.store.read().get::<Thumbnails>(&key).await? {
            return self.opened(made).await;
        }
        let blob = medium.blob.as_deref().ok_or(Error::NotFound)?;
        let Some((bytes, format)) = self.make(&medium, blob, size).await? else {
            let file = self.0.blobs.read(blob).await?;
            let Medium { content_type, filename, size, .. } = medium;
            return Ok(Content { content_type, filename, size, file });
        };
        let made = self.keep(bytes, format).await?;
        let mut tx = Tx::new();
        tx.put::<Thumbnails>(&key, &Json(made.clone()));
        self.0.store.commit(tx).await?;
        self.opened(made).await
    }

    /// Makes a thumbnail; `None` where the picture is no larger than that.
    async fn make(
        &self,
        medium: &Medium,
        blob: &str,
        size: Wanted,
    ) -> Result<Option<(Vec<u8>, ImageFormat)>, Error> {
        if medium.size > self.0.config.max_upload_bytes.max(self.0.config.max_remote_bytes) {
            return Err(Error::NoThumbnail);
        }
        // Each takes hundreds of megabytes at worst: the others wait.
        let Ok(_place) = self.0.making.acquire().await else { return Err(Error::Stopping) };
        let (bytes, max_pixels) = (self.0.blobs.whole(blob).await?, self.0.config.max_pixels);
        let made = self.0.world.spawn_blocking(move || shrink(&bytes, size, max_pixels)).await;
        made.map_err(|_| Error::NoThumbnail)?
    }

    async fn keep(&self, bytes: Vec<u8>, format: ImageFormat) -> Result<Thumbnail, Error> {
        let blob = self.0.world.token(BLOB_LENGTH);
        let piece = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]);
        let size = self.0.blobs.write(&blob, piece, u64::MAX).await?.size;
        Ok(Thumbnail { blob, size, content_type: format.to_mime_type().to_owned() })
    }

    async fn opened(&self, made: Thumbnail) -> Result<Content, Error> {
        let file = self.0.blobs.read(&made.blob).await?;
        Ok(Content { content_type: Some(made.content_type), filename: None, size: made.size, file })
    }
}

/// The format is told by the first bytes alone, never by what the uploader said.
fn shrink(bytes: &[u8], size: Wanted, max_pixels: u64) -> Result<Option<(Vec<u8>, ImageFormat)>, Error> {
    let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let format = reader()?.format().ok_or(Error::NoThumbnail)?;
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP];
    if !known.contains(&format) {
        return Err(Error::NoThumbnail);
    }
    let (width, height) = reader()?.into_dimensions().map_err(|_| Error::NoThumbnail)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Error::NoThumbnail);
    }
    if width <= size.width && height <= size.height {
        return Ok(None);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY);
    let mut reader = reader()?;
    reader.limits(limits);
    let picture = reader.decode().map_err(|_| Error::NoThumbnail)?;
    let small = match size.method {
        // Cut before it is made small: a strip one pixel high would first be blown up to a giant.
        Method::Crop => cut(&picture, size).resize_exact(size.width, size.height, FilterType::Triangle),
        Method::Scale => picture.resize(size.width, size.height, FilterType::Triangle),
    };
    encode(&small, format).map(Some)
}

/// The middle of a picture, in the shape of `size`.
fn cut(picture: &DynamicImage, size: Wanted) -> DynamicImage {
    let (width, height) = (u64::from(picture.width()), u64::from(picture.height()));
    let (wide, high) = (u64::from(size.width), u64::from(size.height));
    let kept_width = width.min(height * wide / high).max(1);
    let kept_height = height.min(width * high / wide).max(1);
    let number = |length: u64| u32::try_from(length).unwrap_or(u32::MAX);
    let (x, y) = ((width - kept_width) / 2, (height - kept_height) / 2);
    picture.crop_imm(number(x), number(y), number(kept_width), number(kept_height))
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
