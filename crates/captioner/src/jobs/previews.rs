//! Batches of a loader as a captioner takes them.

use ndarray::{Array4, ArrayView4, CowArray, Ix4, s};

use crate::Captioner;
use tldr_loader::error::{Error, Result};
use tldr_loader::loader::Batch;
use tldr_loader::model::Scorer;

/// The pixels of a batch as previews, `[batch, 3, size, size]`.
pub(super) fn previews(batch: &Batch) -> Result<ArrayView4<'_, u8>> {
    let shape = batch.images.shape();
    let dims = (shape[0], shape[1], shape[2], shape[3]);
    let pixels = batch.images.as_u8().unwrap_or_default();
    ArrayView4::from_shape(dims, pixels)
        .map_err(|e| Error::format("previews", "u8 [batch, 3, size, size]", format!("{shape:?}: {e}")))
}

/// The previews of a batch of at most the encoder's rows, filled with blanks to its shape.
pub(super) fn padded<'b>(captioner: &Captioner, batch: &'b Batch) -> Result<CowArray<'b, u8, Ix4>> {
    let (rows, full, size) = (batch.len(), captioner.batch_size(), captioner.preview_size());
    if rows == full {
        return Ok(previews(batch)?.into());
    }
    let mut padded = Array4::zeros((full, 3, size, size));
    padded.slice_mut(s![..rows, .., .., ..]).assign(&previews(batch)?);
    Ok(padded.into())
}

/// The largest divisor of `n` that is at most `most`.
pub(super) fn largest_divisor(n: usize, most: usize) -> usize {
    (1..=most.max(1)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}
