//! `synth`: the synthetic corpus.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_loader::synth::{SynthOptions, write_corpus};

use crate::errors::OrRaise;
use crate::options::{Whole, whole};

/// Draws a synthetic web-like corpus with ground truth: `out/train` and a clean `out/test`.
///
/// The truth of a sample stands in its json: `scene`, `class`, `caption_truth`, `noise` and more.
/// The same options give the same bytes.
///
/// Args:
///     out: Folder to write to; its `train` and `test` must be empty or absent.
///     samples: Training samples.
///     test_samples: Clean test samples, whose captions are distinct and unseen.
///     shards: Training shards.
///     size: Side of the square images, in pixels.
///     misaligned: Share of training captions that are noise.
///     duplicates: Near-copies of each scene; 1 draws every scene once.
///     zipf: Exponent of Zipf's law for the classes.
///     seed: Seed of every random choice.
///     threads: Threads that draw; they change nothing but the time.
///
/// Returns:
///     `samples`, `scenes`, `shards`, `test_samples`, `bytes`, and `noise` with a count by kind.
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
    samples: Whole,
    test_samples: Whole,
    shards: Whole,
    size: Whole,
    misaligned: f64,
    duplicates: Whole,
    zipf: f64,
    seed: Whole,
    threads: Option<Whole>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = SynthOptions {
        samples: whole("samples", samples).or_raise(py)?,
        test_samples: whole("test_samples", test_samples).or_raise(py)?,
        shards: whole("shards", shards).or_raise(py)?,
        size: whole("size", size).or_raise(py)?,
        misaligned,
        duplicates: whole("duplicates", duplicates).or_raise(py)?,
        zipf,
        seed: whole("seed", seed).or_raise(py)?,
        threads: whole("threads", threads.unwrap_or(0)).or_raise(py)?,
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
