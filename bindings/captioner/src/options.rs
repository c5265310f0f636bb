//! Arguments of models.

use pyo3::prelude::*;
use tch::Device;
use tldr_captioner::{BlipOptions, Decoding, GenerationChange, parse_device};
use tldr_loader::{Error, ErrorKind, Result};
use tldr_python::arguments::DeviceName;
use tldr_python::errors::OrRaise;
use tldr_python::given::Given;

/// `cuda` is the GPU that torch uses, as everywhere in torch: ranks that chose theirs by
/// `torch.cuda.set_device` do not share the first.
fn with_index(name: &str) -> String {
    let current = |py: Python<'_>| -> PyResult<Option<i32>> {
        let cuda = py.import("torch.cuda")?;
        let there: bool = cuda.call_method0("is_available")?.extract()?;
        there.then(|| cuda.call_method0("current_device")?.extract()).transpose()
    };
    // What torch cannot say, libtorch will.
    let index = if name == "cuda" { Python::attach(current).ok().flatten() } else { None };
    index.map_or_else(|| name.to_owned(), |index| format!("cuda:{index}"))
}

/// The device of that name, where it is there; `option` is what it was given for.
pub(crate) fn device(option: &'static str, name: &str) -> Result<Device> {
    parse_device(&with_index(name)).map_err(|error| match tldr_loader::Error::from(error).kind {
        ErrorKind::Option { given, problem, .. } => Error::refused(option, given, problem),
        kind => kind.into(),
    })
}

/// The device that was given, or the CPU.
pub(crate) fn device_or_cpu(given: &Given<'_>) -> PyResult<Device> {
    let name: Option<DeviceName> = given.take("device")?;
    name.map_or(Ok(Device::Cpu), |name| device("device", &name.0)).or_raise(given.py())
}

/// Sizes of a loaded BLIP.
pub(crate) fn blip(given: &Given<'_>) -> PyResult<BlipOptions> {
    let default = BlipOptions::default();
    Ok(BlipOptions {
        preview_size: given.take_whole("preview_size")?,
        batch_size: given.take_whole("batch_size")?.unwrap_or(default.batch_size),
        ..default
    })
}

/// How captions are to be written from now on.
pub(crate) fn generation(given: &Given<'_>) -> PyResult<GenerationChange> {
    Ok(GenerationChange {
        batch_size: given.take_whole("batch_size")?,
        min_tokens: given.take_whole("min_tokens")?,
        max_tokens: given.take_whole("max_tokens")?,
        decoding: given.take_name("decoding", Decoding::from_name)?,
        beams: given.take_whole("beams")?,
        length_penalty: given.take("length_penalty")?,
        top_p: given.take("top_p")?,
        temperature: given.take("temperature")?,
        seed: given.take_whole("seed")?,
        prompt: given.take("prompt")?,
        repetition_penalty: given.take("repetition_penalty")?,
    })
}
