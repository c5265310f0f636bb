//! A training run on disk: weights, codebook statistics and the optimizer's moments, so that it goes
//! on as if it had never stopped.
//!
//! Everything else that a step depends on is a function of its number, the options and the data. The
//! file is f32 and safetensors: model tensors under their names, moments below `adamw.`.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::files::serialised;
use crate::train::Trainer;
use crate::weights::NamedTensors;
use tldr_loader::aside::Aside;
use tldr_loader::hash;

/// Before the names of the first and second moments.
const MEAN: &str = "adamw.mean.";
const SQUARE: &str = "adamw.square.";

impl Trainer {
    /// Writes everything that training has changed so far to `path`, aside first and then renamed.
    /// Says the hash of the file's content.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save_state(&self, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        let bytes = serialised(&self.state())?;
        let written = Aside::of(path, &bytes).and_then(|aside| {
            aside.file().sync_all()?;
            aside.place()
        });
        written.map_err(|e| Error::io(format!("write {}", path.display()), e))?;
        Ok(hash::hash_bytes(&bytes))
    }

    /// Goes on from a file of [`save_state`](Self::save_state) with that hash, after `steps` steps.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or belongs to a model of other sizes, with the tensor
    /// that differs. The trainer must not be used after an error.
    pub fn load_state(&mut self, path: impl AsRef<Path>, content: u64, steps: u64) -> Result<()> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| Error::io(format!("read {file}"), e))?;
        let found = hash::hash_bytes(&bytes);
        if found != content {
            let expected = format!("the {content:016x} that was written");
            return Err(Error::format(format!("{file}: content hash"), expected, format!("{found:016x}")));
        }
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::format(&file, "a complete safetensors file", e))?;
        let _guard = tch::no_grad_guard();
        let own = self.state();
        for (name, mut own) in own {
            let place = || format!("{file}: tensor {name}");
            let expected = format!("F32 of shape {:?}", own.size());
            let saved = tensors.tensor(&name).map_err(|e| Error::format(place(), expected.clone(), e))?;
            let shape: Vec<i64> = saved.shape().iter().map(|&n| n as i64).collect();
            if saved.dtype() != Dtype::F32 || shape != own.size() {
                let found = format!("{:?} of shape {shape:?}", saved.dtype());
                return Err(Error::format(place(), expected, found));
            }
            own.f_copy_(&Tensor::f_from_data_size(saved.data(), &shape, Kind::Float)?)?;
        }
        let steps_i32 = i32::try_from(steps)
            .map_err(|_| Error::option("steps", steps, format!("at most {}", i32::MAX)))?;
        self.optimizer.resume_at(steps_i32);
        self.step = steps;
        self.captioner.weights_hash.take();
        Ok(())
    }

    /// Everything that training changes, by name, sharing its memory.
    fn state(&self) -> NamedTensors {
        let mut state: NamedTensors = self
            .captioner
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        for (name, mean, square) in self.optimizer.moments().1 {
            state.insert(format!("{MEAN}{name}"), mean);
            state.insert(format!("{SQUARE}{name}"), square);
        }
        state
    }
}
