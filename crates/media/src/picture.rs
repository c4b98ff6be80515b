//! Pictures: told by their first bytes, within limits of pixels and memory, put the right way up.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, imageops::FilterType, metadata::Orientation,
};

use crate::{Error, Method, Wanted};

/// Memory one picture may take while it is decoded, in bytes.
const MEMORY: u64 = 256 << 20;

/// A picture before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) format: ImageFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// What a picture is. Never what the uploader said it is.
pub(crate) fn seen(bytes: &[u8], max_pixels: u64) -> Result<Seen, Error> {
    let reader = reader(bytes)?;
    let format = reader.format().ok_or(Error::NoThumbnail)?;
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP];
    if !known.contains(&format) {
        return Err(Error::NoThumbnail);
    }
    let (width, height) = reader.into_dimensions().map_err(|_| Error::NoThumbnail)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Error::NoThumbnail);
    }
    Ok(Seen { format, width, height })
}

/// The picture, the first one if it moves, and how it was held.
pub(crate) fn decoded(bytes: &[u8]) -> Result<(DynamicImage, Orientation), Error> {
    let mut reader = reader(bytes)?;
    reader.limits(limits());
    let decode = || {
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok::<_, image::ImageError>((DynamicImage::from_decoder(decoder)?, orientation))
    };
    decode().map_err(|_| Error::NoThumbnail)
}

/// What a decoder may take.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY);
    limits
}

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, Error> {
    Ok(ImageReader::new(Cursor::new(bytes)).with_guessed_format()?)
}

/// Makes a picture as small as wanted.
pub(crate) fn fitted(picture: &DynamicImage, size: Wanted) -> DynamicImage {
    match size.method {
        // Cut before it is made small: a strip one pixel high would first be blown up to a giant.
        Method::Crop => cut(picture, size).resize_exact(size.width, size.height, FilterType::Triangle),
        Method::Scale => picture.resize(size.width, size.height, FilterType::Triangle),
    }
}

/// The same, turned as it was held: when it is small already.
pub(crate) fn fitted_upright(picture: &DynamicImage, held: Orientation, size: Wanted) -> DynamicImage {
    let mut small = fitted(picture, if lies(held) { lying(size) } else { size });
    small.apply_orientation(held);
    small
}

/// Whether width and height change places.
fn lies(held: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(held, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn lying(size: Wanted) -> Wanted {
    Wanted { width: size.height, height: size.width, ..size }
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
