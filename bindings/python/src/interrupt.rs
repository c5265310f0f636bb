//! Long work that Ctrl-C can end.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;
use tldr_loader::{Error, ErrorKind, Result};

use crate::errors::OrRaise;

/// Time between two looks at Python's signals.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What a long job tells its caller.
enum Word<P, T> {
    Progress(P),
    Done(Result<T>),
}

/// Runs `work` on a thread of its own, and Python's signal handlers and `progress` on this one.
///
/// `work` gets a function to report progress with; it fails once nobody listens, after an exception
/// here, and `work` is to end then. The exception does not wait for that.
///
/// # Errors
/// The exception of a signal handler or of `progress`, or what `work` fails with.
pub(crate) fn interruptible<P: Send + 'static, T: Send + 'static>(
    py: Python<'_>,
    stage: &'static str,
    work: impl FnOnce(&mut dyn FnMut(P) -> Result<()>) -> Result<T> + Send + 'static,
    mut progress: impl FnMut(P) -> PyResult<()>,
) -> PyResult<T> {
    let (send, mut receive) = channel();
    let stopped = move |detail: &str| Error::from(ErrorKind::Stage { stage, detail: detail.into() });
    std::thread::Builder::new()
        .name(format!("tldr-{stage}"))
        .spawn(move || {
            let mut report =
                |p| send.send(Word::Progress(p)).map_err(|_| stopped("interrupted by its caller"));
            let done = work(&mut report);
            let _ = send.send(Word::Done(done)); // nobody listens any more: no one to tell
        })
        .map_err(|e| Error::io(format!("start the {stage} thread"), e))
        .or_raise(py)?;
    loop {
        // The receiver goes in and out: `detach` takes nothing by reference that is not `Sync`.
        let word;
        (word, receive) = py.detach(move || (receive.recv_timeout(LOOK), receive));
        match word {
            Ok(Word::Progress(p)) => progress(p)?,
            Ok(Word::Done(result)) => return result.or_raise(py),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(stopped("its thread panicked, which is a bug")).or_raise(py);
            }
        }
        py.check_signals()?;
    }
}
