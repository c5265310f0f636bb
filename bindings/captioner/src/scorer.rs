//! A loaded model, as `tldr_loader` asks it: signals and captions of batches.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ndarray::Array4;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tch::Device;
use tldr_captioner::{Captioner, Matcher};
use tldr_loader::model::{self, SEMANTIC_HASH_BITS};
use tldr_loader::{Error, Result, SampleId};
use tldr_python::array::{Array, read_shaped};
use tldr_python::errors::OrRaise;

/// A captioner or matcher in memory, for one loader. `tldr_loader._models.Model` says what its methods do.
///
/// Python's lock is given up while it computes.
#[pyclass(frozen, module = "tldr_loader_captioner")]
pub(crate) struct Scorer {
    model: Mutex<Box<dyn model::Scorer>>,
    #[pyo3(get)]
    dim: usize,
    #[pyo3(get)]
    preview_size: usize,
    #[pyo3(get)]
    preview_filter: &'static str,
    #[pyo3(get)]
    batch_size: usize,
    #[pyo3(get)]
    clusters: usize,
    #[pyo3(get)]
    fingerprint: u64,
    #[pyo3(get)]
    compute: String,
    #[pyo3(get)]
    caption_batch_size: usize,
    #[pyo3(get)]
    caption_fingerprint: Option<u64>,
}

impl Scorer {
    /// The model in the directory `path`, of either kind.
    pub(crate) fn load(option: &'static str, path: &Path, device: Device) -> Result<Self> {
        if option == "judge" && Matcher::is_at(path) {
            return Ok(Self::of(Box::new(Matcher::load(path, device)?)));
        }
        Ok(Self::of(Box::new(Captioner::load(path, device)?)))
    }

    fn of(mut model: Box<dyn model::Scorer>) -> Self {
        let captions =
            model.recaptioner().map(|writer| (writer.caption_batch_size(), writer.caption_fingerprint()));
        Self {
            dim: model.dim(),
            preview_size: model.preview_size(),
            preview_filter: model.preview_filter().name(),
            batch_size: model.batch_size(),
            clusters: model.clusters(),
            fingerprint: model.fingerprint(),
            compute: model.compute(),
            caption_batch_size: captions.map_or(0, |(rows, _)| rows),
            caption_fingerprint: captions.map(|(_, fingerprint)| fingerprint),
            model: Mutex::new(model),
        }
    }

    fn previews(&self, previews: &Bound<'_, PyAny>, rows: usize) -> PyResult<Array4<u8>> {
        let shape = [rows, 3, self.preview_size, self.preview_size];
        let pixels = read_shaped("previews", previews, &shape)?;
        Array4::from_shape_vec(shape, pixels).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

#[pymethods]
impl Scorer {
    /// Clusters, alignments, embeddings and semantic hashes of previews with their captions.
    fn signals(
        &self,
        py: Python<'_>,
        previews: &Bound<'_, PyAny>,
        captions: Vec<String>,
    ) -> PyResult<(Array, Array, Array, Array)> {
        let previews = self.previews(previews, self.batch_size)?;
        let signals = py
            .detach(|| {
                let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
                let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
                model.signals(previews.view(), &captions)
            })
            .or_raise(py)?;
        let (rows, dim) = signals.embedding.dim();
        let embedding = signals.embedding.iter().copied().collect();
        let hashes = signals.semantic_hash.iter().flatten().copied().collect();
        Ok((
            Array::from_vec(signals.cluster, &[rows]),
            Array::from_vec(signals.alignment, &[rows]),
            Array::from_vec(embedding, &[rows, dim]),
            Array::from_vec(hashes, &[rows, SEMANTIC_HASH_BITS / 64]),
        ))
    }

    /// Captions of previews, of which the first are those of the samples `ids`.
    fn caption(&self, py: Python<'_>, previews: &Bound<'_, PyAny>, ids: Vec<u64>) -> PyResult<Vec<String>> {
        let previews = self.previews(previews, self.caption_batch_size)?;
        let ids: Vec<SampleId> = ids.into_iter().map(SampleId).collect();
        py.detach(|| {
            let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let writer =
                model.recaptioner().ok_or_else(|| Error::captioner("this model writes no captions"))?;
            writer.caption(previews.view(), &ids)
        })
        .or_raise(py)
    }
}
