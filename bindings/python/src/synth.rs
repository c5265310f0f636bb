//! `synth`: the synthetic corpus.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_synth::{SynthOptions, write_corpus};

use tldr_python::errors::OrRaise;
use tldr_python::given::{Given, read};

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
///     duplicates: Near-duplicates of each scene; 1 draws every scene once.
///     zipf: Exponent of Zipf's law for the classes.
///     seed: Seed of every random choice.
///     threads: Threads that draw; they change nothing but the time.
///
/// Returns:
///     `samples`, `scenes`, `shards`, `test_samples`, `bytes`, and `noise` with a count by kind.
#[pyfunction]
#[pyo3(
    signature = (out, **options),
    text_signature = "(out, *, samples=12000, test_samples=1000, shards=12, size=64, misaligned=0.5, \
        duplicates=4, zipf=1.0, seed=0, threads=None)"
)]
pub(crate) fn synth<'py>(
    py: Python<'py>,
    out: &Bound<'py, PyAny>,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let out: PathBuf = read("out", out)?;
    let given = Given::new(py, "synth", options);
    let default = SynthOptions::default();
    let options = SynthOptions {
        samples: given.take_whole("samples")?.unwrap_or(default.samples),
        test_samples: given.take_whole("test_samples")?.unwrap_or(default.test_samples),
        shards: given.take_whole("shards")?.unwrap_or(default.shards),
        size: given.take_whole("size")?.unwrap_or(default.size),
        misaligned: given.take("misaligned")?.unwrap_or(default.misaligned),
        duplicates: given.take_whole("duplicates")?.unwrap_or(default.duplicates),
        zipf: given.take("zipf")?.unwrap_or(default.zipf),
        seed: given.take_whole("seed")?.unwrap_or(default.seed),
        threads: given.take_whole("threads")?.unwrap_or(default.threads),
        ..default
    };
    given.end()?;
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
