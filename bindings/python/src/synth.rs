//! `synth`: the synthetic corpus.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_loader::synth::{SynthOptions, write_corpus};

use crate::errors::OrRaise;

#[pyfunction]
#[pyo3(signature = (
    out, *, samples=12_000, test_samples=1000, shards=12, size=64, misaligned=0.5, duplicates=4, zipf=1.0,
    seed=0, threads=None
))]
// Python's keyword-only arguments: nobody calls this from Rust.
#[allow(clippy::too_many_arguments)]
pub(crate) fn synth<'py>(
    py: Python<'py>,
    out: PathBuf,
    samples: u64,
    test_samples: u64,
    shards: u64,
    size: u32,
    misaligned: f64,
    duplicates: u64,
    zipf: f64,
    seed: u64,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = SynthOptions {
        samples,
        test_samples,
        shards,
        size,
        misaligned,
        duplicates,
        zipf,
        seed,
        threads: threads.unwrap_or(0),
        ..SynthOptions::default()
    };
    let summary = py.detach(|| write_corpus(&out, &options, &mut |_, _| {})).or_raise(py)?;
    let said = PyDict::new(py);
    said.set_item("samples", summary.samples)?;
    said.set_item("scenes", summary.scenes)?;
    said.set_item("shards", summary.shards)?;
    said.set_item("test_samples", summary.test_samples)?;
    said.set_item("bytes", summary.bytes)?;
    let noise = PyDict::new(py);
    for (kind, count) in summary.noise {
        noise.set_item(kind.name(), count)?;
    }
    said.set_item("noise", noise)?;
    Ok(said)
}
