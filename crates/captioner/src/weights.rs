//! Named tensors of a model: drawn from a seed, or read from a safetensors file and checked.
//!
//! Every part of the model asks for its tensors by name, shape and initial distribution. The same
//! code thus builds a new model and loads one, and the names it asks for are the file's format.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use tldr_loader::hash::{self, Purpose, Rng};

/// How a tensor of a new model is filled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Init {
    /// The same value everywhere.
    Constant(f64),
    /// Independent normal numbers with this standard deviation.
    Normal(f64),
    /// Normal numbers, each row divided by its norm.
    UnitRows,
}

/// Standard deviation of a linear layer's initial weights (Glorot and Bengio, 2010).
pub(super) fn glorot(input: i64, output: i64) -> Init {
    Init::Normal((2.0 / (input + output) as f64).sqrt())
}

enum Source {
    Seed(u64),
    File { name: String, tensors: HashMap<String, Tensor> },
    Shared(NamedTensors),
}

/// Hands out the tensors of a model under construction.
pub(super) struct Weights {
    source: Source,
    device: Device,
    /// Number type of what is handed out.
    kind: Kind,
    taken: NamedTensors,
}

/// The tensors of a model, by name.
pub(super) type NamedTensors = BTreeMap<String, Tensor>;

impl Weights {
    /// A new model: every tensor is a function of (`seed`, its name, its shape).
    pub(super) fn seeded(seed: u64, device: Device) -> Self {
        Self { source: Source::Seed(seed), device, kind: Kind::Float, taken: BTreeMap::new() }
    }

    /// A model that shares the memory of another's tensors, but not their gradients.
    pub(super) fn shared(tensors: &NamedTensors, device: Device) -> Self {
        let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        Self { source: Source::Shared(tensors), device, kind: Kind::Float, taken: BTreeMap::new() }
    }

    /// A model with copies of another's tensors in the number type `kind`.
    pub(super) fn converted(tensors: &NamedTensors, device: Device, kind: Kind) -> Self {
        Self { kind, ..Self::shared(tensors, device) }
    }

    /// A model read from a safetensors file; f16 and bf16 are widened to f32.
    ///
    /// # Errors
    /// An unreadable, damaged or truncated file; a tensor that is not floating point; a pickle, which
    /// is never read.
    pub(super) fn from_file(path: &Path, device: Device) -> Result<Self> {
        let name = path.display().to_string();
        refuse_pickle(path)?;
        let bytes = std::fs::read(path).map_err(|e| Error::io(format!("read {name}"), e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| {
            Error::format(
                &name,
                "a complete safetensors file (no pickle is ever read)",
                format!("{} bytes: {e}", bytes.len()),
            )
        })?;
        let mut tensors = HashMap::new();
        for (tensor, view) in file.iter() {
            // 0, 1, 2, ..: older versions of transformers stored them.
            if tensor.ends_with(".position_ids") {
                continue;
            }
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                other => {
                    return Err(Error::format(
                        format!("{name}: tensor {tensor}"),
                        "F32, F16 or BF16",
                        format!("{other:?}"),
                    ));
                }
            };
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            // Deserialisation has checked that the bytes are as many as dtype and shape need.
            let value = Tensor::f_from_data_size(view.data(), &shape, kind)?;
            let value = value.f_to_kind(Kind::Float)?;
            // A number that is none would be found far from here, in a sample's signals.
            if !bool::try_from(value.f_isfinite()?.f_all()?)? {
                let found = "numbers that are infinite or none";
                return Err(Error::format(format!("{name}: tensor {tensor}"), "finite numbers", found));
            }
            tensors.insert(tensor.to_owned(), value);
        }
        Ok(Self { source: Source::File { name, tensors }, device, kind: Kind::Float, taken: BTreeMap::new() })
    }

    /// A tensor that training changes by its gradient.
    ///
    /// # Errors
    /// The file does not hold it, or in another shape.
    pub(super) fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        Ok(self.buffer(name, shape, init)?.f_set_requires_grad(true)?)
    }

    /// A tensor without a gradient.
    ///
    /// # Errors
    /// As [`parameter`](Self::parameter).
    pub(super) fn buffer(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let value = match &mut self.source {
            Source::Seed(seed) => draw(*seed, name, shape, init)?,
            Source::Shared(tensors) => tensors
                .remove(name)
                .ok_or_else(|| Error::captioner(format!("no tensor {name} to share")))?
                .f_detach()?,
            Source::File { name: file, tensors } => {
                let value = tensors.remove(name).ok_or_else(|| {
                    Error::format(
                        format!("{file}: tensor {name}"),
                        format!("shape {shape:?}"),
                        "no tensor of that name",
                    )
                })?;
                if value.size() != shape {
                    return Err(Error::format(
                        format!("{file}: tensor {name}"),
                        format!("shape {shape:?}, as config.json says"),
                        format!("shape {:?}", value.size()),
                    ));
                }
                value
            }
        };
        let value = value.f_to_device(self.device)?.f_to_kind(self.kind)?;
        self.taken.insert(name.to_owned(), value.shallow_clone());
        Ok(value)
    }

    /// Takes a tensor out of the file before the model asks for it.
    pub(super) fn take(&mut self, name: &str) -> Option<Tensor> {
        match &mut self.source {
            Source::File { tensors, .. } => tensors.remove(name),
            _ => None,
        }
    }

    /// Puts a tensor where the model will ask for it.
    pub(super) fn put(&mut self, name: &str, tensor: Tensor) {
        if let Source::File { tensors, .. } = &mut self.source {
            tensors.insert(name.to_owned(), tensor);
        }
    }

    /// All tensors handed out.
    ///
    /// # Errors
    /// The file holds tensors that the model has no place for.
    pub(super) fn finish(self) -> Result<NamedTensors> {
        if let Source::File { name, tensors } = &self.source
            && let Some(first) = tensors.keys().min()
        {
            return Err(Error::format(
                format!("{name}: tensor {first}"),
                "no tensor of that name, as config.json says",
                format!("{} unknown tensors, this one of shape {:?}", tensors.len(), tensors[first].size()),
            ));
        }
        Ok(self.taken)
    }
}

/// Names of PyTorch's pickles, in the order in which transformers looks for them.
const PICKLES: [&str; 3] = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt"];

/// Fails where `path`, a safetensors file, is a pickle, is split, or is missing beside a pickle.
fn refuse_pickle(path: &Path) -> Result<()> {
    let remedy = "save it as safetensors where you trust its origin: \
                  BlipForConditionalGeneration.from_pretrained(DIR).save_pretrained(OUT)";
    let refuse = |found: &Path| {
        Error::format(
            path.display().to_string(),
            "a safetensors file",
            format!(
                "{}, a pickle, which is never read, since that could run code; {remedy}",
                found.display()
            ),
        )
    };
    if path.extension().is_some_and(|e| ["bin", "pt", "pth", "pkl", "ckpt"].iter().any(|p| e == *p)) {
        return Err(refuse(path));
    }
    if path.exists() {
        return Ok(());
    }
    let split = path.with_extension("safetensors.index.json");
    if split.exists() {
        let found = format!("{}: weights that are split into several files; {remedy}", split.display());
        return Err(Error::format(path.display().to_string(), "one safetensors file", found));
    }
    match PICKLES.iter().map(|name| path.with_file_name(name)).find(|pickle| pickle.exists()) {
        Some(pickle) => Err(refuse(&pickle)),
        None => Ok(()),
    }
}

/// Draws a tensor of a new model on the host.
fn draw(seed: u64, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
    let sd = match init {
        Init::Constant(value) => return Ok(Tensor::f_full(shape, value, (Kind::Float, Device::Cpu))?),
        Init::Normal(sd) => sd,
        Init::UnitRows => 1.0,
    };
    let mut rng = Rng::new(seed, Purpose::Train, hash::hash_str(name));
    let count: i64 = shape.iter().product();
    let mut values = Vec::new();
    values
        .try_reserve_exact(count as usize)
        .map_err(|e| Error::captioner(format!("tensor {name} of shape {shape:?}: {e}")))?;
    values.extend((0..count).map(|_| (sd * rng.normal()) as f32));
    let value = Tensor::f_from_slice(&values)?.f_view(shape)?;
    match init {
        Init::UnitRows => unit_rows(&value),
        _ => Ok(value),
    }
}

/// The bytes of a tensor as little-endian f32, copied from its device.
pub(super) fn to_f32(tensor: &Tensor) -> Result<Vec<f32>> {
    let host = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0f32; host.numel()];
    let count = values.len();
    host.f_copy_data(&mut values, count)?;
    Ok(values)
}

/// Divides every vector along the last dimension by its Euclidean norm; a zero vector stays zero.
pub(super) fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let norm = x.f_square()?.f_sum_dim_intlist([-1i64].as_slice(), true, x.f_kind()?)?.f_sqrt()?;
    Ok(x.f_div(&norm.f_clamp_min(1e-12)?)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_a_function_of_seed_and_name() {
        let draw = |seed, name: &str| {
            let mut weights = Weights::seeded(seed, Device::Cpu);
            // What was asked for before must not matter.
            let _ = weights.parameter("before", &[seed as i64 + 1], Init::Normal(1.0)).unwrap();
            to_f32(&weights.parameter(name, &[50, 40], Init::Normal(0.5)).unwrap()).unwrap()
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        // Standard deviation of n normal numbers: relative standard error 1/sqrt(2n); 5 sigma.
        let values = draw(1, "a");
        let sd = (values.iter().map(|v| f64::from(v * v)).sum::<f64>() / 2000.0).sqrt();
        assert!((sd / 0.5 - 1.0).abs() < 5.0 / 4000f64.sqrt(), "{sd}");
    }

    #[test]
    fn unit_rows_have_norm_one() {
        let mut weights = Weights::seeded(1, Device::Cpu);
        let values = to_f32(&weights.buffer("codes", &[9, 8], Init::UnitRows).unwrap()).unwrap();
        for row in values.chunks(8) {
            assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
