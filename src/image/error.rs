//! Why an image cannot be used.

use crate::error::FailReason;

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

    /// Bytes of no format that is read.
    pub(super) fn unknown(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::undecodable("the image is empty (0 bytes)");
        }
        let other = OTHERS.iter().find(|(at, magic, _)| {
            bytes.get(*at..).is_some_and(|from| {
                from.get(..magic.len()).is_some_and(|start| start.eq_ignore_ascii_case(magic))
            })
        });
        Self::undecodable(format!(
            "expected JPEG, PNG or WebP, found {}{} bytes that start with {:02x?}",
            other.map(|(_, _, name)| format!("{name}: ")).unwrap_or_default(),
            bytes.len(),
            &bytes[..bytes.len().min(8)]
        ))
    }
}

/// Formats that are not read: where what they are known by stands, and their names.
const OTHERS: [(usize, &[u8], &str); 17] = [
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftypavis", "an AVIF"),
    (4, b"ftypheic", "a HEIC"),
    (4, b"ftypmif1", "a HEIF"),
    (0, b"\xFF\x0A", "a JPEG XL"),
    (4, b"JXL \r\n", "a JPEG XL"),
    (4, b"jP  \r\n", "a JPEG 2000"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"%PDF", "a PDF"),
    (0, b"<svg", "an SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<html", "an HTML page"),
    (0, b"<!doctype html", "an HTML page"),
];
