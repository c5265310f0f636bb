//! `Ledger`: what is remembered of samples.

use pyo3::prelude::*;

/// Signals and captions seen so far.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Ledger(pub(crate) tldr_loader::ledger::Ledger);

#[pymethods]
impl Ledger {
    #[new]
    fn new() -> Self {
        Self(tldr_loader::ledger::Ledger::new())
    }

    #[getter]
    fn windows(&self) -> usize {
        self.0.windows()
    }

    #[getter]
    fn captions(&self) -> usize {
        self.0.captions()
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn __repr__(&self) -> String {
        format!("Ledger(windows={}, captions={}, bytes={})", self.windows(), self.captions(), self.bytes())
    }
}
