//! The one map from the crate's errors to the package's exceptions.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyType};
use tldr_loader::{Error, ErrorKind};

/// The exception of an error, with its place as attributes.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(value) => PyErr::from_value(value),
        Err(failed) => failed,
    }
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let place = [
        ("shard", error.shard.as_deref().into_pyobject(py)?.into_any()),
        ("key", error.key.as_deref().into_pyobject(py)?.into_any()),
        ("offset", error.offset.into_pyobject(py)?.into_any()),
    ];
    class(py, &error.kind)?.call((error.to_string(),), Some(&place.into_py_dict(py)?))
}

fn class<'py>(py: Python<'py>, kind: &ErrorKind) -> PyResult<&'py Bound<'py, PyType>> {
    /// A class of `_errors`, looked up once.
    macro_rules! named {
        ($name:literal) => {{
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            (&CLASS, $name)
        }};
    }
    let (cell, name) = match kind {
        ErrorKind::Option { .. } | ErrorKind::UnknownOption { .. } | ErrorKind::Ranks(_) => {
            named!("ConfigError")
        }
        ErrorKind::Io { .. }
        | ErrorKind::Format { .. }
        | ErrorKind::Shard { .. }
        | ErrorKind::Sample { .. }
        | ErrorKind::TooManyErrors { .. } => named!("DataError"),
        ErrorKind::NoSamples { .. } => named!("NoSamplesError"),
        ErrorKind::Ledger { .. } | ErrorKind::NotRecorded { .. } => named!("LedgerError"),
        ErrorKind::OutOfMemory { .. } => named!("OutOfMemoryError"),
        ErrorKind::Locked { .. } => named!("LockedError"),
        ErrorKind::Captioner(_) => named!("CaptionerError"),
        ErrorKind::State(_) => named!("StateError"),
        _ => named!("TldrError"),
    };
    cell.import(py, "tldr_loader._errors", name)
}

/// `?` for results of the crate.
pub trait OrRaise<T> {
    /// The value, or the exception of the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T, E: Into<Error>> OrRaise<T> for Result<T, E> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| to_python(py, &error.into()))
    }
}
