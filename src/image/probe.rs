//! What an image's header says, without decoding it.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use tldr_jpeg::Jpeg;

use super::error::ImageError;

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// JPEG of any kind that libjpeg-turbo decodes.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossy or lossless.
    Webp,
}

impl ImageFormat {
    /// The format by its first bytes: names are not trusted.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ => None,
        }
    }

    /// `jpeg`, `png` or `webp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }
}

/// What a header promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// Format, by content.
    pub format: ImageFormat,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Reads the header of an image.
///
/// # Errors
/// Another format, or a header that cannot be read.
pub fn probe(bytes: &[u8]) -> Result<ImageHeader, ImageError> {
    let format = ImageFormat::of(bytes).ok_or_else(|| ImageError::unknown(bytes))?;
    let undecodable = |error: &dyn std::fmt::Display| ImageError::undecodable(error.to_string());
    let (width, height) = match format {
        ImageFormat::Jpeg => {
            let jpeg = Jpeg::open(bytes)?;
            (jpeg.width(), jpeg.height())
        }
        ImageFormat::Png => PngDecoder::new(Cursor::new(bytes)).map_err(|e| undecodable(&e))?.dimensions(),
        ImageFormat::Webp => WebPDecoder::new(Cursor::new(bytes)).map_err(|e| undecodable(&e))?.dimensions(),
    };
    Ok(ImageHeader { format, width, height })
}
