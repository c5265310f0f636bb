//! Names of devices, and libtorch's errors as this crate's.

use tch::{Cuda, Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Reads `cpu`, `cuda` or `cuda:N`, and checks that the device is there.
///
/// # Errors
/// Another name, or a GPU that libtorch does not see.
pub fn parse_device(name: &str) -> Result<Device> {
    let device = match name.split_once(':') {
        None if name == "cpu" => Device::Cpu,
        None if name == "cuda" => Device::Cuda(0),
        Some(("cuda", index)) => {
            Device::Cuda(index.parse().map_err(|_| Error::option("device", name, "cpu, cuda or cuda:N"))?)
        }
        _ => return Err(Error::option("device", name, "cpu, cuda or cuda:N")),
    };
    check_device(device)?;
    Ok(device)
}

/// The name that [`parse_device`] reads.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Fails when libtorch cannot use the device.
pub(super) fn check_device(device: Device) -> Result<()> {
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(index) => {
            let seen = if Cuda::is_available() { Cuda::device_count() } else { 0 };
            if (index as u64) < seen.max(0) as u64 {
                return Ok(());
            }
            let remedy = if seen > 0 {
                format!("one of cuda:0 to cuda:{}", seen - 1)
            } else {
                "cpu: libtorch sees no CUDA device (check nvidia-smi, and that this PyTorch was built with CUDA)"
                    .into()
            };
            Err(Error::option("device", device_name(device), remedy))
        }
        _ => Err(Error::option("device", device_name(device), "cpu, cuda or cuda:N")),
    }
}

/// Number type of a model's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    Float32,
    /// 16 bits with the range of 32: what GPUs multiply fastest. Norms, probabilities, codes and
    /// everything that follows them stay in 32 bits.
    Bfloat16,
}

tldr_loader::names!(Precision { Float32 => "float32", Bfloat16 => "bfloat16" }, option "precision");

impl Precision {
    /// What a model runs in unless it is told otherwise: bf16 on a GPU.
    pub fn of(device: Device) -> Self {
        if device.is_cuda() { Self::Bfloat16 } else { Self::Float32 }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }
}

/// How a model computes, in words: kind of device, number type, torch, and on a GPU whether TF32 is on.
/// Results of two descriptions may differ in their last bits.
pub(super) fn describe(device: Device, precision: Precision) -> String {
    let kind = if device.is_cuda() { "cuda" } else { "cpu" };
    let torch = concat!("torch ", env!("TLDR_TORCH"));
    let mut said = format!("{kind}, {}, {torch}", precision.name());
    if device.is_cuda() {
        // A device that fails here fails in the first batch, too.
        let on = rounds_to_tf32(device).unwrap_or(false);
        said.push_str(if on { ", TF32 on" } else { ", TF32 off" });
    }
    said
}

/// Whether products of f32 matrices on `device` lose the bits that TF32 does not have. libtorch's switch
/// cannot be read from here; what it does can.
fn rounds_to_tf32(device: Device) -> Result<bool> {
    const SIDE: i64 = 256;
    let options = (Kind::Float, device);
    // 1 + 2^-12 needs 12 bits behind the point; TF32 has 10.
    let long = Tensor::f_full([SIDE, SIDE], 1.0 + 2f64.powi(-12), options)?;
    let product = long.f_mm(&Tensor::f_ones([SIDE, SIDE], options)?)?;
    Ok(product.f_double_value(&[0, 0])? < SIDE as f64 * (1.0 + 2f64.powi(-13)))
}

/// While it lives, libtorch keeps no gradients on this thread and, on a CPU, uses one intra-op
/// thread: results are then bit-identical at every position of a batch. Dropping it gives the thread
/// its own number back, which may be the training loop's.
pub(super) struct Inference {
    _no_grad: tch::NoGradGuard,
    threads: Option<i32>,
}

impl Inference {
    pub(super) fn on(device: Device) -> Self {
        let threads = (device == Device::Cpu).then(tch::get_num_threads);
        if threads.is_some() {
            tch::set_num_threads(1);
        }
        Self { _no_grad: tch::no_grad_guard(), threads }
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!(parse_device("cpu").unwrap(), Device::Cpu);
        assert_eq!(device_name(Device::Cuda(1)), "cuda:1");
        for bad in ["", "gpu", "cuda:x", "cpu:0", "cuda:-1"] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_description_names_what_changes_the_last_bits() {
        let cpu = describe(Device::Cpu, Precision::Float32);
        assert!(cpu.starts_with("cpu, float32, torch 2."), "{cpu}");
        assert_ne!(cpu, describe(Device::Cpu, Precision::Bfloat16));
        assert!(!rounds_to_tf32(Device::Cpu).unwrap());
        for precision in [Precision::Float32, Precision::Bfloat16] {
            assert_eq!(Precision::from_name(precision.name()).unwrap(), precision);
        }
    }

    #[test]
    fn absent_gpu_is_named() {
        let message = parse_device("cuda:999").unwrap_err().to_string();
        assert!(message.starts_with("invalid device=cuda:999: expected "), "{message}");
    }
}
