//! `Matcher`: load.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use tch::Device;
use tldr_captioner::device_name;
use tldr_loader::Result;
use tldr_python::arguments::must_exist;
use tldr_python::errors::OrRaise;
use tldr_python::given::{Given, read};

use crate::options;
use crate::scorer::Scorer;

/// A matcher directory that was found to be sound: it tells whether a text belongs to an image.
///
/// It writes no captions, so it may be the `judge` of a loader, whatever writes them.
#[pyclass(frozen, module = "tldr_loader_captioner")]
pub(crate) struct Matcher {
    path: PathBuf,
    device: Device,
    weights: usize,
    preview_size: usize,
}

impl Matcher {
    fn open(path: PathBuf, device: Device) -> Result<Self> {
        let model = tldr_captioner::Matcher::load(&path, device)?;
        Ok(Self { device, weights: model.weights(), preview_size: model.config().preview_size, path })
    }
}

#[pymethods]
impl Matcher {
    /// Makes a matcher of a Hugging Face BLIP for image-text retrieval and saves it in the folder `path`.
    ///
    /// Reads the files that `Captioner.load_blip` reads. Its scores are probabilities of a match.
    ///
    /// Args:
    ///     source: Folder of the BLIP model.
    ///     path: The matcher directory to write; made if missing.
    ///     preview_size: Side of the previews. Default: the model's own; for another size the
    ///         position embeddings are interpolated.
    ///     batch_size: Rows of every batch.
    ///     device: `cpu` (the default), `cuda` or `cuda:N`.
    ///
    /// Raises:
    ///     ConfigError: An option cannot work.
    ///     DataError: A file is missing or not what it should be; names file and tensor.
    #[classmethod]
    #[pyo3(
        signature = (source, path, **options),
        text_signature = "($cls, source, path, *, preview_size=None, batch_size=32, device=None)"
    )]
    fn load_blip(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        path: &Bound<'_, PyAny>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (source, path): (PathBuf, PathBuf) = (read("source", source)?, read("path", path)?);
        let given = Given::new(py, "load_blip", options);
        let device = options::device_or_cpu(&given)?;
        let options = options::blip(&given)?;
        given.end()?;
        let work = || {
            let accepted = "a folder with a Hugging Face BLIP, as `save_pretrained` writes it";
            must_exist("source", &source, accepted)?;
            tldr_captioner::Matcher::load_blip(&source, &options, device)?.save(&path)?;
            Self::open(path, device)
        };
        py.detach(work).or_raise(py)
    }

    /// Opens a matcher directory and checks it.
    ///
    /// Raises:
    ///     DataError: A file is missing or not what it should be.
    #[classmethod]
    #[pyo3(
        signature = (path, **options),
        text_signature = "($cls, path, *, device=None)"
    )]
    fn load(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let path = read("path", path)?;
        let given = Given::new(py, "load", options);
        let device = options::device_or_cpu(&given)?;
        given.end()?;
        py.detach(|| Self::open(path, device)).or_raise(py)
    }

    /// The model, loaded for one loader: `tldr_loader` asks for it.
    fn _scorer(&self, py: Python<'_>) -> PyResult<Scorer> {
        py.detach(|| Scorer::load("judge", &self.path, self.device)).or_raise(py)
    }

    /// The matcher directory.
    #[getter(path)]
    fn python_path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Where it runs.
    #[getter(device)]
    fn python_device(&self) -> String {
        device_name(self.device)
    }

    /// Number of trained weights.
    #[getter]
    fn weights(&self) -> usize {
        self.weights
    }

    /// Side of the square previews it takes, in pixels.
    #[getter]
    fn preview_size(&self) -> usize {
        self.preview_size
    }

    fn __repr__(&self) -> String {
        format!("Matcher({:?}, device={:?}, weights={})", self.path, device_name(self.device), self.weights)
    }
}
