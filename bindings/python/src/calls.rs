//! Calls into Python from the threads of a loader, and the end of Python that they must not outlive.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ndarray::ArrayView4;
use pyo3::prelude::*;
use tldr_loader::{Error, Result, SampleId};
use tldr_python::array::Array;
use tldr_python::errors;

/// Set once Python is about to end: nothing calls into it any more.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Calls into Python that are under way.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Wait after which it is said.
const NOTICE: Duration = Duration::from_secs(5);

/// Keeps the threads of loaders out of Python from now on, and waits for those that are in it: a thread that asks for
/// Python's lock while Python ends would take the process with it. Registered with `atexit`. A forked child has none of
/// the threads.
///
/// # Errors
/// What a signal handler raises.
#[pyfunction]
pub(crate) fn _end(py: Python<'_>, process: u32) -> PyResult<()> {
    ENDING.store(true, Ordering::SeqCst);
    if process != std::process::id() {
        return Ok(());
    }
    let (since, mut said) = (Instant::now(), false);
    while CALLS.load(Ordering::SeqCst) > 0 {
        py.detach(|| std::thread::sleep(Duration::from_millis(5)));
        py.check_signals()?;
        if !said && since.elapsed() > NOTICE {
            said = true;
            eprintln!("tldr_loader: waiting for a model to finish its batch before Python ends");
        }
    }
    Ok(())
}

/// Runs `work` with Python's lock, unless Python ends.
pub(crate) fn in_python<T>(work: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T> {
    struct Call;
    impl Drop for Call {
        fn drop(&mut self) {
            CALLS.fetch_sub(1, Ordering::SeqCst);
        }
    }
    CALLS.fetch_add(1, Ordering::SeqCst);
    let _call = Call;
    if ENDING.load(Ordering::SeqCst) {
        return Err(Error::captioner("Python is ending"));
    }
    let done = Python::try_attach(|py| work(py).map_err(|error| of_exception(py, error)));
    done.unwrap_or_else(|| Err(Error::captioner("Python has ended")))
}

/// The error of an exception that a model raised: its text, and of one that is not this package's the type as well. The
/// exception is its cause, with its traceback.
fn of_exception(py: Python<'_>, error: PyErr) -> Error {
    let name = error.get_type(py).fully_qualified_name().map(|name| name.to_string()).unwrap_or_default();
    let text = error.value(py).to_string();
    let message = match name.strip_prefix("tldr_loader.") {
        Some(_) => text.strip_prefix("captioner: ").unwrap_or(&text).to_owned(),
        None => format!("{name}: {text}"),
    };
    errors::caused(message.clone(), error);
    Error::captioner(message)
}

/// Previews as an array of Python's. They are copied: whoever takes them may keep them.
pub(crate) fn array<'py>(py: Python<'py>, previews: ArrayView4<'_, u8>) -> PyResult<Bound<'py, Array>> {
    let shape = previews.shape().to_vec();
    // At once where they are contiguous, as the loader's are: pixel by pixel takes many times as long.
    let pixels = previews.as_slice().map_or_else(|| previews.iter().copied().collect(), <[u8]>::to_vec);
    Bound::new(py, Array::from_vec(pixels, &shape))
}

/// What `caption` of `model`, a scorer or captioner, writes for the samples `ids`.
pub(crate) fn caption(
    model: &Py<PyAny>,
    previews: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, Array>>,
    ids: &[SampleId],
) -> Result<Vec<String>> {
    in_python(|py| {
        let ids: Vec<u64> = ids.iter().map(|id| id.0).collect();
        model.bind(py).call_method1("caption", (previews(py)?, ids))?.extract()
    })
}
