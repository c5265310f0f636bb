//! Previews for a model: decoded on the pool, straight into the slots of its batch.

use std::cell::RefCell;

use ndarray::Array4;
use rayon::prelude::*;

use crate::error::Result;
use crate::image::{self, ImageError, Scratch};
use crate::loader::buffer::Encoded;
use crate::loader::model_thread::ModelThread;
use crate::loader::observe::recorder::Recorder;
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;

thread_local! {
    /// Buffers of the pool's threads, used again for every picture.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs `work` with this thread's image buffers.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}

/// Decodes previews for `model` into the first slots of `[rows, 3, size, size]`, on the pool; the other
/// slots are blanked. Returns the error of each image, in order.
///
/// # Errors
/// Images that wait in files cannot be read back.
pub(crate) fn decode_previews(
    spec: &Spec,
    recorder: &Recorder,
    model: &ModelThread,
    images: &[Option<&Encoded>],
    previews: &mut Array4<u8>,
) -> Result<Vec<Option<ImageError>>> {
    let size = model.preview_size;
    let slot = 3 * size * size;
    let Some(pixels) = previews.as_slice_mut() else {
        return Err(Stage::Preview.died("buffer is not contiguous"));
    };
    let (used, blank) = pixels.split_at_mut(images.len() * slot);
    blank.fill(0);
    spec.pool.install(|| {
        used.par_chunks_mut(slot)
            .zip(images.par_iter())
            .map(|(out, image)| {
                let Some(image) = image else {
                    out.fill(0);
                    return Ok(None);
                };
                let bytes = image.bytes()?;
                let result = recorder.time(Stage::Preview, || {
                    with_scratch(|scratch| {
                        image::preview(&bytes, size, model.preview_filter, &spec.decode, scratch, out)
                    })
                });
                if result.is_err() {
                    out.fill(0);
                }
                Ok(result.err())
            })
            .collect()
    })
}
