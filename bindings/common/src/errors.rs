//! The one map from the crate's errors to the package's exceptions.

use std::sync::{Mutex, PoisonError};

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

/// The last exception that a model raised on a thread of the loader, and the message of the error it became: for the
/// traceback. Its frames hold what the model worked on, so it is given away once.
static CAUSE: Mutex<Option<(String, PyErr)>> = Mutex::new(None);

/// Remembers that `cause` became the captioner's error of this `message`.
pub fn caused(message: String, cause: PyErr) {
    *CAUSE.lock().unwrap_or_else(PoisonError::into_inner) = Some((message, cause));
}

/// The exception that became the error of this `message`.
fn cause_of(message: &str) -> Option<PyErr> {
    let mut cause = CAUSE.lock().unwrap_or_else(PoisonError::into_inner);
    cause.take_if(|(own, _)| own == message).map(|(_, cause)| cause)
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let place = [
        ("shard", error.shard.as_deref().into_pyobject(py)?.into_any()),
        ("key", error.key.as_deref().into_pyobject(py)?.into_any()),
        ("offset", error.offset.into_pyobject(py)?.into_any()),
    ];
    let exception = class(py, &error.kind)?.call((error.to_string(),), Some(&place.into_py_dict(py)?))?;
    if let ErrorKind::Captioner(message) = &error.kind
        && let Some(cause) = cause_of(message)
    {
        exception.setattr("__cause__", cause.into_value(py))?;
    }
    Ok(exception)
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
