//! Names of devices, and libtorch's errors as this crate's.

use tch::{Cuda, Device, TchError};

use crate::error::{Error, Result};

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        let message = match error {
            TchError::Torch(message) | TchError::Kind(message) | TchError::Shape(message) => message,
            other => other.to_string(),
        };
        // The first line says what is wrong; a C++ stack trace follows.
        Error::captioner(message.lines().next().unwrap_or_default())
    }
}

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
    fn absent_gpu_is_named() {
        let message = parse_device("cuda:999").unwrap_err().to_string();
        assert!(message.starts_with("device = cuda:999: "), "{message}");
    }
}
