//! A model of another Python package, as the loader's threads use it.
//!
//! What it has to have is written down in `tldr_loader/_models.py`. Arrays go to and from it by DLPack. A call takes
//! Python's lock; a model that computes for long gives it up while it does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array2, ArrayView4};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tldr_loader::cluster::{Clusters, Fitted};
use tldr_loader::model::{
    Identity, PreviewFilter, Recaptioner, Recorded, SEMANTIC_HASH_BITS, Scorer, Signals,
};
use tldr_loader::{Error, Result, SampleId};
use tldr_python::arguments::must_exist;
use tldr_python::array::read_shaped;
use tldr_python::errors::OrRaise;
use tldr_python::given::FromPython;

use crate::calls::{self, array, in_python};
use crate::embedder::PythonEmbedder;

/// A model of another package, with what does not change of it.
struct PythonModel {
    model: Arc<Py<PyAny>>,
    dim: usize,
    preview_size: usize,
    preview_filter: PreviewFilter,
    batch_size: usize,
    clusters: usize,
    fingerprint: u64,
    compute: String,
    captions: Option<(usize, u64)>,
}

impl PythonModel {
    fn new(model: &Bound<'_, PyAny>) -> PyResult<Self> {
        let filter: String = model.getattr("preview_filter")?.extract()?;
        let captions: Option<u64> = model.getattr("caption_fingerprint")?.extract()?;
        let rows = |_| model.getattr("caption_batch_size")?.extract();
        Ok(Self {
            dim: model.getattr("dim")?.extract()?,
            preview_size: model.getattr("preview_size")?.extract()?,
            preview_filter: PreviewFilter::from_name(&filter).or_raise(model.py())?,
            batch_size: model.getattr("batch_size")?.extract()?,
            clusters: model.getattr("clusters")?.extract()?,
            fingerprint: model.getattr("fingerprint")?.extract()?,
            compute: model.getattr("compute")?.extract()?,
            captions: captions.map(|fingerprint| PyResult::Ok((rows(())?, fingerprint))).transpose()?,
            model: Arc::new(model.clone().unbind()),
        })
    }
}

impl Scorer for PythonModel {
    fn dim(&self) -> usize {
        self.dim
    }

    fn preview_size(&self) -> usize {
        self.preview_size
    }

    fn preview_filter(&self) -> PreviewFilter {
        self.preview_filter
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn clusters(&self) -> usize {
        self.clusters
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn compute(&self) -> String {
        self.compute.clone()
    }

    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        const WORDS: usize = SEMANTIC_HASH_BITS / 64;
        let (rows, dim) = (captions.len(), self.dim);
        in_python(|py| {
            let found =
                self.model.bind(py).call_method1("signals", (array(py, previews)?, captions.to_vec()))?;
            let found = found.cast::<PyTuple>()?;
            let of = |at| found.get_item(at);
            let hashes = read_shaped::<u64>("semantic_hash", &of(3)?, &[rows, WORDS])?;
            let embedding = read_shaped("embedding", &of(2)?, &[rows, dim])?;
            let embedding = Array2::from_shape_vec((rows, dim), embedding)
                .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
            Ok(Signals {
                cluster: read_shaped("cluster", &of(0)?, &[rows])?,
                alignment: read_shaped("alignment", &of(1)?, &[rows])?,
                embedding,
                semantic_hash: hashes
                    .chunks_exact(WORDS)
                    .map(|words| std::array::from_fn(|at| words[at]))
                    .collect(),
            })
        })
    }

    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        self.captions.is_some().then_some(self)
    }
}

impl Recaptioner for PythonModel {
    fn caption_batch_size(&self) -> usize {
        self.captions.map_or(1, |(rows, _)| rows)
    }

    fn caption_fingerprint(&self) -> u64 {
        self.captions.map_or(0, |(_, fingerprint)| fingerprint)
    }

    fn caption(&mut self, previews: ArrayView4<'_, u8>, ids: &[SampleId]) -> Result<Vec<String>> {
        calls::caption(&self.model, |py| array(py, previews), ids)
    }
}

/// What the options `captioner` and `judge` take: a directory, or a model that is loaded.
pub(crate) enum Source {
    /// A directory.
    Directory(PathBuf),
    /// A `Captioner` or `Matcher`: whatever has a `path` and makes scorers.
    Loaded(PathBuf, Py<PyAny>),
}

impl<'py> FromPython<'py> for Source {
    const ACCEPTED: &'static str = "a captioner directory (a path), a `Captioner`, or a `FittedScorer`, as `tldr.fit` \
                                    makes one of a CLIP or of a scorer of your own";

    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self> {
        if value.hasattr("_scorer").ok()? {
            return Some(Self::Loaded(value.getattr("path").ok()?.extract().ok()?, value.clone().unbind()));
        }
        value.extract().ok().map(Self::Directory)
    }
}

/// What a judge may be.
pub(crate) const JUDGE: &str =
    "a directory of a captioner or a matcher (a path), a `Captioner`, or a `Matcher`";

impl Source {
    fn path(&self) -> &PathBuf {
        match self {
            Self::Directory(path) | Self::Loaded(path, _) => path,
        }
    }

    /// Whether it is loaded from a directory here, onto a device that this loader's options name.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// The model, for one loader, which owns it. `device` is used for a plain directory. Where the captioner is not
    /// installed, a stand-in: `has_ledger` says whether there is one that can answer for it.
    ///
    /// # Errors
    /// Nothing at the path; what loading raises; no captioner, and nothing to stand in for it.
    fn open(
        &self,
        py: Python<'_>,
        option: &'static str,
        device: &str,
        has_ledger: bool,
    ) -> PyResult<Box<dyn Scorer>> {
        let directory = self.path();
        must_exist(option, directory, "a captioner directory, as `Captioner.train` writes it")
            .or_raise(py)?;
        let scorer = match self {
            Self::Directory(path) => {
                py.import("tldr_loader._models")?.call_method1("scorer", (option, path, device))?
            }
            Self::Loaded(_, model) => model.bind(py).call_method0("_scorer")?,
        };
        if scorer.hasattr("score")? {
            let clusters = clusters(option, directory).or_raise(py)?;
            return Ok(Box::new(Fitted::new(PythonEmbedder::new(&scorer)?, clusters)));
        }
        let Ok(reason) = scorer.extract::<String>() else { return Ok(Box::new(PythonModel::new(&scorer)?)) };
        match Identity::load(directory).or_raise(py)? {
            Some(identity) if has_ledger && option == "judge" => {
                Ok(Box::new(Recorded::judge(identity, directory)))
            }
            Some(identity) if has_ledger => Ok(Box::new(Recorded::new(identity, directory))),
            _ => {
                let accepted = format!(
                    "a directory that can be loaded here: {reason}; or, under any torch, one that was fitted by this \
                     version, beside a `ledger` that was recorded with it where the captioner is (docs/captioner.md)"
                );
                Err(Error::option(option, format!("{:?}", directory.display()), accepted)).or_raise(py)
            }
        }
    }

    /// The model and its clusters, for the option `captioner`.
    ///
    /// # Errors
    /// What cannot be loaded; a captioner that was not fitted.
    pub(crate) fn captioner(
        &self,
        py: Python<'_>,
        device: &str,
        has_ledger: bool,
    ) -> PyResult<(Box<dyn Scorer>, Arc<Clusters>)> {
        let model = self.open(py, "captioner", device, has_ledger)?;
        Ok((model, clusters("captioner", self.path()).or_raise(py)?))
    }

    /// The model, for the option `judge`.
    ///
    /// # Errors
    /// What cannot be loaded; a captioner that was not fitted.
    pub(crate) fn judge(&self, py: Python<'_>, device: &str, has_ledger: bool) -> PyResult<Box<dyn Scorer>> {
        let model = self.open(py, "judge", device, has_ledger)?;
        // An image-text matching model has one cluster of its own. A captioner needs its quantiles.
        if model.clusters() == 0 {
            clusters("judge", self.path()).or_raise(py)?;
        }
        Ok(model)
    }
}

/// The clusters of a captioner directory.
pub(crate) fn clusters(option: &'static str, directory: &Path) -> Result<Arc<Clusters>> {
    let path = directory.join(Clusters::FILE);
    if directory.is_dir() && !path.exists() {
        let accepted = "one with clusters: run `Captioner.fit` or `tldr-loader fit` first";
        return Err(Error::option(option, "a directory without clusters.safetensors", accepted));
    }
    Clusters::load(path).map(Arc::new)
}
