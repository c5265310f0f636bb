//! What the ranks agree on before the first batch.

use std::sync::OnceLock;

use pyo3::prelude::*;
use tldr_loader::loader::Loader;

use tldr_python::errors::OrRaise;
use tldr_python::plain;

const MODULE: &str = "tldr_loader._ranks";

/// Rank and number of processes of torch.distributed's process group, where one is initialised.
pub(crate) fn group(py: Python<'_>) -> PyResult<Option<(usize, usize)>> {
    py.import(MODULE)?.call_method0("group")?.extract()
}

/// Compares this rank's loader with the process group that there is by now, and with the other ranks' loaders.
///
/// False where there is none. `number` identifies the loader among those of its world; it is taken the first time.
///
/// # Errors
/// `ConfigError` that names what differs, or who did not come.
pub(crate) fn join(py: Python<'_>, loader: &Loader, number: &OnceLock<u64>) -> PyResult<bool> {
    let Some((rank, world_size)) = group(py)? else { return Ok(false) };
    loader.process_group(rank, world_size).or_raise(py)?;
    let module = py.import(MODULE)?;
    if number.get().is_none() {
        let next = module.call_method1("number", (loader.world_size(),))?.extract()?;
        let _ = number.set(next); // another thread's is as good
    }
    let state = loader.state();
    let fields = plain::to_python(py, &plain::of(&state.settings)?)?;
    for (name, number) in [
        ("epoch", state.epoch),
        ("step", state.step),
        ("global batch", state.global_batch),
        ("lanes", state.lanes),
        ("num_batches", loader.num_batches()),
    ] {
        fields.set_item(name, number)?;
    }
    module.call_method1("compare", (fields, loader.rank(), loader.world_size(), number.get()))?;
    Ok(true)
}
