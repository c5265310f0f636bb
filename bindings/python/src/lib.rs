//! Native part of the Python package `tldr_loader`: the types of the crate `tldr-loader` under the
//! same names, and nothing of its own. It needs no torch; with torch, batches are its tensors.
//!
//! Python's lock is released wherever Rust works or waits.

mod batch;
mod batches;
mod calls;
mod describe;
mod embedder;
mod explain;
mod frame;
mod jobs;
mod ledger;
mod loader;
mod options;
mod ranks;
mod running;
mod scorer;
mod synth;
mod tokens;

/// Runs the command `tldr-loader` without the captioner; `words` begin with the program's name. Returns the exit code.
#[pyo3::pyfunction]
fn _command(py: pyo3::Python<'_>, words: Vec<std::ffi::OsString>) -> u8 {
    tldr_python::log::to_stderr();
    py.detach(|| tldr_cli::main(words))
}

/// Documentation is in `_native.pyi`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::_command;
    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::batches::Batches;
    #[pymodule_export]
    use crate::calls::_end;
    #[pymodule_export]
    use crate::describe::_describe;
    #[pymodule_export]
    use crate::explain::{_explain, _export, _report};
    #[pymodule_export]
    use crate::frame::_hand_over;
    #[pymodule_export]
    use crate::jobs::{_audit, _fit, _fitted, _inspect, _plan};
    #[pymodule_export]
    use crate::ledger::Ledger;
    #[pymodule_export]
    use crate::loader::Loader;
    #[pymodule_export]
    use crate::synth::synth;
    #[pymodule_export]
    use crate::tokens::_token_ids;
    #[pymodule_export]
    use tldr_python::array::Array;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Whether this module was compiled with optimisation.
    #[pymodule_export]
    const _OPTIMISED: bool = matches!(env!("TLDR_OPT_LEVEL").as_bytes(), b"2" | b"3");

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        tldr_python::log::install();
        Ok(())
    }
}
