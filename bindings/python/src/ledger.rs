//! `Ledger`: what is remembered of samples.

use pyo3::prelude::*;

/// Signals and captions seen so far, shared by any number of loaders.
///
/// Loaders that differ in keep_ratio, gate, policy or seed share one, so that a sweep runs the
/// captioner once. It grows with the corpus.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Ledger(pub(crate) tldr_loader::ledger::Ledger);

#[pymethods]
impl Ledger {
    #[new]
    fn new() -> Self {
        Self(tldr_loader::ledger::Ledger::new())
    }

    /// Number of windows on record.
    #[getter]
    fn windows(&self) -> usize {
        self.0.windows()
    }

    /// Number of captions on record.
    #[getter]
    fn captions(&self) -> usize {
        self.0.captions()
    }

    /// Approximate size in memory.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn __repr__(&self) -> String {
        format!("Ledger(windows={}, captions={}, bytes={})", self.windows(), self.captions(), self.bytes())
    }
}
