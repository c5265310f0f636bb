//! Native part of the Python package `tldr_loader_captioner`: training, fitting and running of models in libtorch.
//!
//! The package imports torch before this module, so that both share one libtorch, its allocator and its GPU context.
//! Python's lock is released wherever Rust works or waits.

mod captioner;
mod matcher;
mod options;
mod report;
mod scorer;

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;
use tldr_python::errors::OrRaise;

/// Runs the command `tldr-loader`; `words` begin with the program's name. Returns the exit code.
#[pyfunction]
fn _command(py: Python<'_>, words: Vec<OsString>) -> u8 {
    tldr_python::log::to_stderr();
    py.detach(|| tldr_captioner_cli::main(words))
}

/// The model in the directory `path`, for the option `captioner` or `judge` of a loader, on `device`.
#[pyfunction]
fn _scorer(py: Python<'_>, option: &str, path: PathBuf, device: &str) -> PyResult<scorer::Scorer> {
    let option = if option == "judge" { "judge" } else { "captioner" };
    let device = options::device("captioner_device", device).or_raise(py)?;
    py.detach(|| scorer::Scorer::load(option, &path, device)).or_raise(py)
}

/// Documentation is in `_captioner.pyi`.
#[pymodule]
mod _captioner {
    #[pymodule_export]
    use crate::_command;
    #[pymodule_export]
    use crate::_scorer;
    #[pymodule_export]
    use crate::captioner::Captioner;
    #[pymodule_export]
    use crate::matcher::Matcher;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        tldr_python::log::install();
        Ok(())
    }
}
