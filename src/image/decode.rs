//! Decodes JPEG, PNG and WebP, recognised by content, to 8-bit RGB.
//!
//! Every colour type comes out as RGB: grey is repeated, palettes are looked up, CMYK is
//! converted as PIL does (Adobe's inverted convention), 16-bit samples keep their high byte,
//! and alpha is composited on white. ICC profiles and EXIF orientation are ignored, as CLIP
//! trainers do. Of an animation the first frame is taken.
//!
//! A truncated image is an error, although most decoders would fill the rest with grey: half a
//! picture under a whole caption is noise that nobody would notice.

use std::any::Any;
use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, Limits};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::error::FailReason;

/// Pixels of an image: `u8` RGB, `[height, width, 3]`, rows from the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// A black image.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; width * height * 3] }
    }
}

/// What an image may cost. Checked against its header, before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most pixels (width times height) of an image that is decoded. Memory while decoding is
    /// up to 12 bytes per pixel (progressive JPEG).
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// 100 megapixels.
    fn default() -> Self {
        Self { max_pixels: 100_000_000 }
    }
}

/// Why an image cannot be used. It costs one sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct ImageError {
    /// [`FailReason::UndecodableImage`] or [`FailReason::ImageTooLarge`].
    pub reason: FailReason,
    /// What the decoder said.
    pub detail: String,
}

impl ImageError {
    pub(super) fn undecodable(detail: impl Into<String>) -> Self {
        Self { reason: FailReason::UndecodableImage, detail: detail.into() }
    }
}

/// Decodes `bytes` into `out`, whose buffer is re-used.
///
/// After an error `out` holds nothing of use. A panic inside a decoder is reported as an error.
///
/// # Errors
/// [`FailReason::ImageTooLarge`] when the header promises more than `limits` allow;
/// [`FailReason::UndecodableImage`] for anything else: another format, damage, truncation.
pub fn decode(bytes: &[u8], limits: &DecodeLimits, out: &mut RgbImage) -> Result<(), ImageError> {
    // `out` is overwritten whole by the next call, so no broken invariant can outlive a panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| match bytes {
        [0xFF, 0xD8, 0xFF, ..] => decode_jpeg(bytes, limits, out),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => decode_png(bytes, limits, out),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => decode_webp(bytes, limits, out),
        [] => Err(ImageError::undecodable("the image is empty (0 bytes)")),
        _ => Err(ImageError::undecodable(format!(
            "expected JPEG, PNG or WebP, found {} bytes that start with {:02x?}",
            bytes.len(),
            &bytes[..bytes.len().min(8)]
        ))),
    }));
    decoded.unwrap_or_else(|panic| Err(ImageError::undecodable(panic_message(&*panic))))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| Cow::Borrowed(*s));
    let text = text.or_else(|| panic.downcast_ref::<String>().map(|s| Cow::Borrowed(s.as_str())));
    format!("the decoder panicked: {}", text.unwrap_or_default())
}

/// Refuses an image by the size its header promises.
fn check_size(width: u64, height: u64, limits: &DecodeLimits) -> Result<(), ImageError> {
    let pixels = width.saturating_mul(height);
    if pixels == 0 {
        return Err(ImageError::undecodable(format!("the header says {width}x{height} pixels")));
    }
    if pixels > limits.max_pixels {
        return Err(ImageError {
            reason: FailReason::ImageTooLarge,
            detail: format!(
                "the header promises {width}x{height} pixels, more than max_image_pixels = {}",
                limits.max_pixels
            ),
        });
    }
    Ok(())
}

fn decode_jpeg(bytes: &[u8], limits: &DecodeLimits, out: &mut RgbImage) -> Result<(), ImageError> {
    match decode_jpeg_strictly(bytes, limits, out, true) {
        // Stray bytes between header segments harm nothing, and libjpeg skips them too.
        Err(error) if error.detail.contains("Extra bytes between headers") => {
            decode_jpeg_strictly(bytes, limits, out, false)
        }
        decoded => decoded,
    }
}

/// `strict` makes damage an error where the decoder would otherwise fill in grey.
fn decode_jpeg_strictly(
    bytes: &[u8],
    limits: &DecodeLimits,
    out: &mut RgbImage,
    strict: bool,
) -> Result<(), ImageError> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_strict_mode(strict)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let failed = |error| ImageError::undecodable(format!("JPEG: {error}"));
    decoder.decode_headers().map_err(failed)?;
    let (width, height) =
        decoder.dimensions().ok_or_else(|| ImageError::undecodable("JPEG without a frame header"))?;
    check_size(width as u64, height as u64, limits)?;
    if !ends_with_jpeg_eoi(bytes) {
        return Err(ImageError::undecodable("JPEG: truncated: its data end before the end marker"));
    }
    // Every byte is written by the decoder, so old contents need no clearing.
    out.data.resize(width * height * 3, 0);
    decoder.decode_into(&mut out.data).map_err(failed)?;
    (out.width, out.height) = (width, height);
    Ok(())
}

/// Whether the marker segments and scans of a JPEG lead to its end-of-image marker.
///
/// Decoders notice a cut only when it costs whole rows of blocks. Linear in the file's length,
/// at the speed of a byte search. What follows the marker does not matter.
fn ends_with_jpeg_eoi(bytes: &[u8]) -> bool {
    const SOS: u8 = 0xDA;
    const EOI: u8 = 0xD9;
    let mut at = 2;
    let mut in_scan = false;
    loop {
        // In a scan, everything up to the next marker is entropy-coded data; between segments
        // stray bytes are skipped the same way.
        let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF)) else {
            return false;
        };
        at += found + 1;
        let Some(&marker) = bytes.get(at) else { return false };
        match marker {
            EOI => return true,
            // Fill byte: the next byte may be the marker.
            0xFF => continue,
            // A stuffed 0xFF of a scan, restart markers, and markers without a length.
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            _ if in_scan && !(0xC0..=0xFE).contains(&marker) => at += 1,
            _ => {
                let Some(length) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                in_scan = marker == SOS;
            }
        }
    }
}

fn decode_png(bytes: &[u8], limits: &DecodeLimits, out: &mut RgbImage) -> Result<(), ImageError> {
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), Limits::no_limits())
        .map_err(|error| ImageError::undecodable(error.to_string()))?;
    decode_with(decoder, limits, out)
}

fn decode_webp(bytes: &[u8], limits: &DecodeLimits, out: &mut RgbImage) -> Result<(), ImageError> {
    let decoder =
        WebPDecoder::new(Cursor::new(bytes)).map_err(|error| ImageError::undecodable(error.to_string()))?;
    decode_with(decoder, limits, out)
}

fn decode_with(
    mut decoder: impl ImageDecoder,
    limits: &DecodeLimits,
    out: &mut RgbImage,
) -> Result<(), ImageError> {
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), limits)?;
    // The pixels were admitted above; what remains bounds side data (profiles, text chunks):
    // 8 bytes a pixel is RGBA with 16 bits, 64 MB the rest.
    let mut memory = Limits::no_limits();
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(64 << 20));
    let failed = |error: image::ImageError| ImageError::undecodable(error.to_string());
    decoder.set_limits(memory).map_err(failed)?;
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    (out.width, out.height) = (width as usize, height as usize);
    to_rgb(image, &mut out.data)
}

/// Converts any colour type to RGB: see the top of this file.
fn to_rgb(image: DynamicImage, out: &mut Vec<u8>) -> Result<(), ImageError> {
    fn high(sample: u16) -> u8 {
        (sample >> 8) as u8
    }
    fn on_white(sample: u8, alpha: u8) -> u8 {
        let (sample, alpha) = (u32::from(sample), u32::from(alpha));
        ((sample * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    }
    if let DynamicImage::ImageRgb8(image) = image {
        *out = image.into_raw();
        return Ok(());
    }
    out.clear();
    out.reserve(image.width() as usize * image.height() as usize * 3);
    match image {
        DynamicImage::ImageLuma8(image) => out.extend(image.iter().flat_map(|&y| [y; 3])),
        DynamicImage::ImageLumaA8(image) => {
            out.extend(image.pixels().flat_map(|p| [on_white(p.0[0], p.0[1]); 3]));
        }
        DynamicImage::ImageRgba8(image) => {
            out.extend(image.pixels().flat_map(|p| {
                let [r, g, b, a] = p.0;
                [on_white(r, a), on_white(g, a), on_white(b, a)]
            }));
        }
        DynamicImage::ImageLuma16(image) => out.extend(image.iter().flat_map(|&y| [high(y); 3])),
        DynamicImage::ImageLumaA16(image) => {
            out.extend(image.pixels().flat_map(|p| [on_white(high(p.0[0]), high(p.0[1])); 3]));
        }
        DynamicImage::ImageRgb16(image) => out.extend(image.iter().map(|&s| high(s))),
        DynamicImage::ImageRgba16(image) => {
            out.extend(image.pixels().flat_map(|p| {
                let [r, g, b, a] = p.0.map(high);
                [on_white(r, a), on_white(g, a), on_white(b, a)]
            }));
        }
        other => {
            return Err(ImageError::undecodable(format!(
                "expected 8 or 16 bits per sample, found {:?}",
                other.color()
            )));
        }
    }
    Ok(())
}
