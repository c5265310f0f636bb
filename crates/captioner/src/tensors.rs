//! Batches as torch tensors: a loader makes them in memory that torch allocated, so that nothing is copied.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use half::bf16;
use tch::{Device, Kind, Tensor};
use tldr_loader::Loader;
use tldr_loader::loader::{Batch, Batches, Dtype, Element, HostArray, Images, Lent};

use crate::error::Result;

/// A batch whose pixels and tokens are tensors on the CPU.
#[derive(Debug)]
pub struct TensorBatch {
    /// Pixels, `[batch, 3, height, width]`, in the type of the loader's `pixels`.
    pub images: Tensor,
    /// Token ids, int64 `[batch, context_length]`; `None` without a tokenizer.
    pub tokens: Option<Tensor>,
    /// All else; its own images and tokens are empty.
    pub rest: Batch,
}

/// The batches of one epoch, as [`Loader::iter`] yields them, in tensors.
pub struct TensorBatches<'l> {
    loader: &'l Loader,
    batches: Batches,
}

impl<'l> TensorBatches<'l> {
    /// The epoch that `loader` is in.
    ///
    /// # Errors
    /// As [`Loader::iter`].
    pub fn of(loader: &'l Loader) -> Result<Self> {
        Ok(Self { loader, batches: loader.iter()? })
    }

    /// Fills the stock up to what can be under way.
    fn restock(&self) -> Result<()> {
        let (arrays, under_way) = self.loader.arrays();
        for (dtype, shape) in arrays {
            let elements = shape.iter().product();
            for _ in self.loader.stock().count(dtype, elements)..under_way {
                let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                let tensor = Tensor::f_empty(size, (kind(dtype), Device::Cpu))?;
                let Some(address) = NonNull::new(tensor.data_ptr().cast::<u8>()) else { continue };
                // SAFETY: a new contiguous tensor of that type and size, aligned by torch, which nobody else has; any
                // bytes are pixels or ids.
                self.loader
                    .stock()
                    .put(unsafe { Lent::new(address, dtype, elements, Box::new(Mutex::new(tensor))) });
            }
        }
        Ok(())
    }

    fn tensors(&self, mut batch: Batch) -> Result<TensorBatch> {
        let nothing = Images::U8(HostArray::zeros(&[0])?);
        let images = match std::mem::replace(&mut batch.images, nothing) {
            Images::F32(array) => tensor(array)?,
            Images::Bf16(array) => tensor::<bf16>(array)?,
            Images::U8(array) => tensor(array)?,
        };
        let tokens = batch.tokens.take().map(tensor).transpose()?;
        Ok(TensorBatch { images, tokens, rest: batch })
    }
}

impl Iterator for TensorBatches<'_> {
    type Item = Result<TensorBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.restock() {
            return Some(Err(error));
        }
        let batch = self.batches.next()?;
        Some(batch.map_err(Into::into).and_then(|batch| self.tensors(batch)))
    }
}

/// The tensor that an array was made in; a copy of one that was not.
fn tensor<T: Element>(array: HostArray<T>) -> Result<Tensor> {
    let shape: Vec<i64> = array.shape().iter().map(|&n| n as i64).collect();
    match array.into_owner::<Mutex<Tensor>>() {
        Ok(owner) => {
            let tensor = owner.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(tensor.f_narrow(0, 0, shape[0])?)
        }
        Err(array) => {
            let bytes = array.as_slice();
            // SAFETY: numbers without padding, read as their bytes.
            let bytes =
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), size_of_val(bytes)) };
            Ok(Tensor::f_from_data_size(bytes, &shape, kind(T::DTYPE))?)
        }
    }
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::U8 => Kind::Uint8,
        Dtype::I64 => Kind::Int64,
        Dtype::Bool => Kind::Bool,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tldr_synth::{SynthOptions, write_corpus};

    use super::*;
    use tldr_loader::config::Mode;

    #[test]
    fn the_tensor_shares_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            SynthOptions { samples: 48, shards: 1, test_samples: 0, size: 32, ..SynthOptions::default() };
        write_corpus(folder.path(), &options, &mut |_, _| {}).unwrap();
        let urls = folder.path().join("train").display().to_string();
        let loader = Loader::builder(urls).mode(Mode::Eval).batch_size(16).image_size(8).build().unwrap();
        let mut found = TensorBatches::of(&loader).unwrap();
        found.restock().unwrap();
        let mut batches = 0;
        while let Some(batch) = found.batches.next() {
            let batch = batch.unwrap();
            let address = batch.images.as_f32().unwrap().as_ptr().addr();
            let tensor = found.tensors(batch).unwrap().images;
            assert_eq!(tensor.data_ptr().addr(), address, "batch {batches}");
            batches += 1;
        }
        assert_eq!(batches, 3);
    }
}
