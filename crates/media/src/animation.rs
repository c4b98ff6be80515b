//! Animated thumbnails: GIF, WebP and PNG that move become a small WebP that moves.
//!
//! The `image` crate writes single WebP pictures; several make an animation when they are put into one container
//! (<https://developers.google.com/speed/webp/docs/riff_container>, "Animation").

use std::io::Cursor;

use image::{
    AnimationDecoder, DynamicImage, Frame, Frames, ImageDecoder, ImageFormat, ImageResult,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
};

use crate::{
    Wanted,
    picture::{Seen, fitted, limits},
};

/// What making one may cost.
pub(crate) struct Bounds<L> {
    /// Pixels of all frames together, before they are made small.
    pub(crate) pixels: u64,
    /// Whether the time is over.
    pub(crate) is_late: L,
}

/// Frames of an animation that is made small.
const FRAMES: usize = 500;
/// Bytes of what is made.
const BYTES: usize = 10 << 20;

/// Whether a picture moves: it has more than one frame.
pub(crate) fn moves(bytes: &[u8], seen: Seen) -> bool {
    let count = || Ok::<_, image::ImageError>(frames(bytes, seen)?.take(2).flatten().count());
    count().is_ok_and(|count| count > 1)
}

/// A small animation; `None` where the picture does not move or where it would cost too much.
pub(crate) fn shrunk(
    bytes: &[u8],
    seen: Seen,
    size: Wanted,
    bounds: &Bounds<impl Fn() -> bool>,
) -> Option<Vec<u8>> {
    if !moves(bytes, seen) {
        return None;
    }
    let pixels = u64::from(seen.width) * u64::from(seen.height);
    let most = usize::try_from(bounds.pixels / pixels.max(1)).unwrap_or(FRAMES).min(FRAMES);
    let mut animation = Animation::default();
    for (index, frame) in frames(bytes, seen).ok()?.enumerate() {
        // A file that breaks off is shown as far as it goes, as everywhere.
        let Ok(frame) = frame else { break };
        if index >= most || animation.frames.len() > BYTES || (bounds.is_late)() {
            return None;
        }
        animation.push(frame, size)?;
    }
    animation.finished()
}

fn frames(bytes: &[u8], seen: Seen) -> ImageResult<Frames<'_>> {
    let cursor = Cursor::new(bytes);
    let none = || Frames::new(Box::new(std::iter::empty()));
    Ok(match seen.format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(cursor)?;
            decoder.set_limits(limits())?;
            decoder.into_frames()
        }
        ImageFormat::WebP => {
            let mut decoder = WebPDecoder::new(cursor)?;
            decoder.set_limits(limits())?;
            if decoder.has_animation() { decoder.into_frames() } else { none() }
        }
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(cursor, limits())?;
            if decoder.is_apng()? { decoder.apng()?.into_frames() } else { none() }
        }
        _ => none(),
    })
}

#[derive(Default)]
struct Animation {
    width: u32,
    height: u32,
    /// `ANMF` chunks.
    frames: Vec<u8>,
}

impl Animation {
    fn push(&mut self, frame: Frame, size: Wanted) -> Option<()> {
        let duration = shown_for(&frame);
        let small = fitted(&DynamicImage::ImageRgba8(frame.into_buffer()), size).to_rgba8();
        (self.width, self.height) = small.dimensions();
        let mut single = Cursor::new(Vec::new());
        small.write_to(&mut single, ImageFormat::WebP).ok()?;
        // What follows the header of the container is the picture itself, in a chunk of its own.
        let single = single.into_inner();
        let picture = single.get(12..).filter(|rest| rest.starts_with(b"VP8L"))?;
        let mut head = [0; 16];
        put24(&mut head[6..9], self.width - 1);
        put24(&mut head[9..12], self.height - 1);
        put24(&mut head[12..15], duration);
        // Each frame replaces the one before, transparency included.
        head[15] = 0b10;
        chunk(&mut self.frames, *b"ANMF", &[&head, picture])
    }

    fn finished(self) -> Option<Vec<u8>> {
        let mut extended = [0; 10];
        // It moves and may be transparent.
        extended[0] = 0b1_0010;
        put24(&mut extended[4..7], self.width.checked_sub(1)?);
        put24(&mut extended[7..10], self.height.checked_sub(1)?);
        let mut chunks = b"WEBP".to_vec();
        chunk(&mut chunks, *b"VP8X", &[&extended])?;
        // A transparent background, and for ever.
        chunk(&mut chunks, *b"ANIM", &[&[0; 6]])?;
        chunks.extend_from_slice(&self.frames);
        let mut file = Vec::with_capacity(chunks.len() + 8);
        chunk(&mut file, *b"RIFF", &[&chunks])?;
        Some(file)
    }
}

/// Milliseconds; as browsers do it, hardly any time means that nothing was said.
fn shown_for(frame: &Frame) -> u32 {
    let (numerator, denominator) = frame.delay().numer_denom_ms();
    let duration = numerator / denominator.max(1);
    if duration <= 10 { 100 } else { duration.min(0xff_ffff) }
}

/// Adds a chunk: name, length, content, one more byte where the length is odd.
fn chunk(to: &mut Vec<u8>, name: [u8; 4], parts: &[&[u8]]) -> Option<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    to.extend_from_slice(&name);
    to.extend_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    for part in parts {
        to.extend_from_slice(part);
    }
    to.extend(std::iter::repeat_n(0, length % 2));
    Some(())
}

fn put24(to: &mut [u8], number: u32) {
    to.copy_from_slice(&number.to_le_bytes()[..3]);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{cell::Cell, io::Cursor};

    use image::{
        AnimationDecoder, Delay, Frame, ImageFormat, Rgba, RgbaImage,
        codecs::{
            gif::{GifEncoder, Repeat},
            webp::WebPDecoder,
        },
    };

    use super::{Bounds, moves, shrunk};
    use crate::{Method, Wanted, picture::seen};

    const SIZE: Wanted = Wanted { width: 32, height: 32, method: Method::Crop, animated: true };

    /// A GIF of one colour after the other, the first frame red.
    pub(crate) fn gif(width: u32, height: u32, frames: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
        encoder.set_repeat(Repeat::Infinite).unwrap();
        for number in 0..frames {
            let colour = Rgba([255 - number, number.wrapping_mul(40), 0, 255]);
            let picture = RgbaImage::from_pixel(width, height, colour);
            let delay = Delay::from_numer_denom_ms(if number == 0 { 0 } else { 200 }, 1);
            encoder.encode_frame(Frame::from_parts(picture, 0, 0, delay)).unwrap();
        }
        drop(encoder);
        bytes
    }

    fn made(bytes: &[u8], pixels: u64, is_late: impl Fn() -> bool) -> Option<Vec<u8>> {
        shrunk(bytes, seen(bytes, u64::MAX).unwrap(), SIZE, &Bounds { pixels, is_late })
    }

    fn frames(webp: &[u8]) -> Vec<Frame> {
        let decoder = WebPDecoder::new(Cursor::new(webp)).unwrap();
        assert!(decoder.has_animation());
        decoder.into_frames().collect_frames().unwrap()
    }

    #[test]
    fn what_moves_still_moves_when_it_is_small() {
        let small = made(&gif(200, 100, 5), u64::MAX, || false).unwrap();
        let frames = frames(&small);
        let times: Vec<_> = frames.iter().map(|frame| frame.delay().numer_denom_ms().0).collect();
        assert_eq!(times, [100, 200, 200, 200, 200]);
        for (number, frame) in (0..).zip(&frames) {
            assert_eq!(frame.buffer().dimensions(), (32, 32));
            let Rgba([red, green, ..]) = *frame.buffer().get_pixel(16, 16);
            let near = |a: u8, b: u8| a.abs_diff(b) < 8;
            assert!(near(red, 255 - number) && near(green, number * 40), "{number}: {red} {green}");
        }
        // What was made is understood as what it was made of.
        let again = made(&small, u64::MAX, || false).unwrap();
        assert_eq!(self::frames(&again).len(), 5);
    }

    #[test]
    fn what_does_not_move_or_costs_too_much_is_left() {
        assert!(made(&gif(200, 100, 1), u64::MAX, || false).is_none());
        let bytes = gif(200, 100, 5);
        assert!(made(&bytes, 4 * 200 * 100, || false).is_none(), "too many pixels together");
        assert!(made(&bytes, 5 * 200 * 100, || false).is_some());
        let asked = Cell::new(0);
        let late = || asked.replace(asked.get() + 1) > 2;
        assert!(made(&bytes, u64::MAX, late).is_none(), "too long");
        let mut png = Cursor::new(Vec::new());
        RgbaImage::new(9, 9).write_to(&mut png, ImageFormat::Png).unwrap();
        let png = png.into_inner();
        assert!(!moves(&png, seen(&png, 100).unwrap()));
        let broken = &bytes[..bytes.len() / 2];
        assert!(made(broken, u64::MAX, || false).is_none_or(|small| frames(&small).len() < 5));
    }
}
