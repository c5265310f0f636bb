//! `Ledger`: what is remembered of samples.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_loader::Error;
use tldr_loader::shard::Store;

use tldr_python::errors::OrRaise;
use tldr_python::from_python;
use tldr_python::given::{Given, read};

from_python! {
    LedgerSource: "a `Ledger`, or the folder of one (a path, or a URL of a bucket)";
}

/// Signals and captions seen so far, shared by any number of loaders.
///
/// Loaders that differ in keep_ratio, gate, policy or seed share one, so that a sweep runs the
/// captioner once. In memory it grows with the corpus; in a folder it outlives the run, for the next
/// one to begin with. It is a cache: without it everything is the same, and slower.
///
/// Args:
///     path: Folder of Parquet files to keep it in, local or of a bucket (`s3://BUCKET/FOLDER`); begun
///         where nothing is. Default: memory.
///     cache_bytes: Bytes of a folder's contents that may be in memory. Default: 512 MiB.
///     endpoint: URL of a server that speaks S3, as for `Loader`.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Ledger(pub(crate) tldr_loader::ledger::Ledger);

#[pymethods]
impl Ledger {
    #[new]
    #[pyo3(
        signature = (path=None, **options),
        text_signature = "(path=None, *, cache_bytes=None, endpoint=None)"
    )]
    fn new(
        py: Python<'_>,
        path: Option<Bound<'_, PyAny>>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let path: Option<PathBuf> = path.map(|path| read("path", &path)).transpose()?;
        let given = Given::new(py, "Ledger", options);
        let cache_bytes: Option<u64> = given.take_whole("cache_bytes")?;
        let endpoint: Option<String> = given.take("endpoint")?;
        given.end()?;
        let open = || match path {
            None if cache_bytes.is_some() => {
                let accepted = "without a path, since a ledger in memory keeps everything";
                Err(Error::unused("cache_bytes", "a number", accepted))
            }
            path if endpoint.is_some() && !path.as_ref().is_some_and(|path| path.starts_with("s3:")) => {
                let accepted = "without a path in a bucket (s3://), whose server it is";
                Err(Error::unused("endpoint", endpoint.unwrap_or_default(), accepted))
            }
            None => Ok(tldr_loader::ledger::Ledger::new()),
            Some(path) => {
                let stores = Store { endpoint, ..Store::default() };
                tldr_loader::ledger::Ledger::open_with(path, cache_bytes, &stores)
            }
        };
        py.detach(open).map(Self).or_raise(py)
    }

    /// The folder it is in, a path or a URL; None in memory.
    #[getter]
    fn path(&self) -> Option<String> {
        self.0.location()
    }

    /// Number of windows in memory.
    #[getter]
    fn windows(&self) -> usize {
        self.0.windows()
    }

    /// Number of captions in memory.
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

/// A ledger, or the folder of one.
#[derive(FromPyObject)]
pub(crate) enum LedgerSource {
    /// A ledger.
    Open(Py<Ledger>),
    /// A folder.
    Folder(PathBuf),
}
