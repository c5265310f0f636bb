//! Native part of the Python package `tldr_loader`: the types of the crate `tldr-loader` under the
//! same names, and nothing of its own.
//!
//! The package imports torch before this module, so that both share one libtorch, its allocator and
//! its GPU context. Python's lock is released wherever Rust works or waits.

mod batch;
mod batches;
mod captioner;
mod errors;
mod given;
mod hand_over;
mod interrupt;
mod ledger;
mod loader;
mod log;
mod matcher;
mod options;
mod plain;
mod ranks;
mod report;
mod synth;

/// Documentation is in `_native.pyi`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::batches::Batches;
    #[pymodule_export]
    use crate::captioner::Captioner;
    #[pymodule_export]
    use crate::hand_over::_hand_over;
    #[pymodule_export]
    use crate::ledger::Ledger;
    #[pymodule_export]
    use crate::loader::Loader;
    #[pymodule_export]
    use crate::matcher::Matcher;
    #[pymodule_export]
    use crate::synth::synth;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        crate::log::install();
        Ok(())
    }
}
