//! Long work that Ctrl-C can end.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tldr_loader::{Error, ErrorKind, Result};

use crate::errors::OrRaise;
use crate::log;

/// Time between two looks at Python's signals.
pub const LOOK: Duration = Duration::from_millis(50);

/// Longest wait for work that an exception ends.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a long job tells its caller.
enum Word<P, T> {
    Progress(P),
    Done(Result<T>),
}

/// Runs `work` on a thread of its own, and Python's signal handlers and `progress` on this one.
///
/// `work` gets a function to report progress with; it fails once nobody listens, after an exception
/// here, and `work` is to end then. The exception waits a while for that.
///
/// # Errors
/// The exception of a signal handler or of `progress`, or what `work` fails with.
pub fn interruptible<P: Send + 'static, T: Send + 'static>(
    py: Python<'_>,
    stage: &'static str,
    work: impl FnOnce(&mut dyn FnMut(P) -> Result<()>) -> Result<T> + Send + 'static,
    mut progress: impl FnMut(P) -> PyResult<()>,
) -> PyResult<T> {
    let (send, mut receive) = channel();
    let stopped = move |detail: &str| Error::from(ErrorKind::Stage { stage, detail: detail.into() });
    let thread = std::thread::Builder::new()
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
        log::hand_over(py)?;
        let heard = match word {
            Ok(Word::Progress(p)) => progress(p),
            Ok(Word::Done(result)) => return result.or_raise(py),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(stopped("its thread panicked, which is a bug")).or_raise(py);
            }
        };
        if let Err(exception) = heard.and_then(|()| py.check_signals()) {
            drop(receive);
            farewell(py, &thread);
            return Err(exception);
        }
    }
}

/// Waits until the thread has ended, which may leave a checkpoint first: for [`FAREWELL`], or until another
/// signal comes.
fn farewell(py: Python<'_>, thread: &JoinHandle<()>) {
    let since = Instant::now();
    while !thread.is_finished() && since.elapsed() < FAREWELL {
        py.detach(|| std::thread::sleep(LOOK));
        if py.check_signals().is_err() {
            return;
        }
    }
}
