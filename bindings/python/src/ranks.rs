//! What the ranks compare before they start.

use pyo3::prelude::*;
use tldr_loader::loader::Loader;

use crate::plain;

/// Compares this rank's loader with those of the others, where there are any.
///
/// # Errors
/// `ConfigError` that names what differs, or who did not come.
pub(crate) fn compare(py: Python<'_>, loader: &Loader) -> PyResult<()> {
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
    let module = py.import("tldr_loader._ranks")?;
    module.call_method1("compare", (fields, loader.rank(), loader.world_size())).map(drop)
}
