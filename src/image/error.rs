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
        Self::undecodable(format!(
            "expected JPEG, PNG or WebP, found {} bytes that start with {:02x?}",
            bytes.len(),
            &bytes[..bytes.len().min(8)]
        ))
    }
}
