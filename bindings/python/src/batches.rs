//! `Batches`, the iterator over one epoch.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use tldr_loader::loader::Next;

use tldr_python::errors::OrRaise;
use tldr_python::interrupt::LOOK;
use tldr_python::log;

use crate::batch::Batch;
use crate::frame::Sent;
use crate::loader::Loader;

/// How long the end of an epoch's threads is awaited: half of the second that Ctrl-C may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// The batches of one epoch, which begins with the first. Dropping it stops the epoch's threads.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Batches {
    phase: Mutex<Phase>,
    /// Whether the ranks may go on: asked before the first batch.
    joined: AtomicBool,
    /// The arrays of the next batch, whose copies to another device have begun.
    ahead: Mutex<Option<Sent>>,
    loader: Py<Loader>,
}

/// How far an iterator is.
enum Phase {
    /// Nothing was asked of it: it has had no effect.
    Before,
    /// The epoch is running.
    During(tldr_loader::loader::Batches),
    /// The epoch is over.
    Over,
}

impl Batches {
    pub(crate) fn new(loader: Py<Loader>) -> Self {
        Self {
            phase: Mutex::new(Phase::Before),
            joined: AtomicBool::new(false),
            ahead: Mutex::new(None),
            loader,
        }
    }
}

#[pymethods]
impl Batches {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// The next batch. Ctrl-C ends the wait.
    ///
    /// The first call starts the epoch. `RuntimeWarning`s say that an epoch which was broken off starts
    /// again, what a wait of a minute and more is for, and with the last batch what was odd.
    ///
    /// Raises:
    ///     ConfigError: The rank is not known, or the loaders of some ranks differ or were not started; names
    ///         them.
    ///     TldrError: The first error of any stage; the epoch is over after it.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let loader = self.loader.get();
        if !self.joined.load(Ordering::Acquire) {
            loader.join_once(py)?;
            loader.frame().restock(py, None)?;
            self.joined.store(true, Ordering::Release);
        }
        loop {
            let (found, warnings) = py
                .detach(|| -> tldr_loader::Result<_> {
                    let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
                    if matches!(*phase, Phase::Before) {
                        *phase = Phase::During(loader.loader().iter()?);
                    }
                    let Phase::During(batches) = &mut *phase else { return Ok((Next::End, vec![])) };
                    let found = batches.next_within(LOOK)?;
                    let warnings = batches.warnings();
                    if matches!(found, Next::End) {
                        *phase = Phase::Over;
                    }
                    Ok((found, warnings))
                })
                .or_raise(py)?;
            log::hand_over(py)?;
            for warning in warnings {
                let text = CString::new(warning).unwrap_or_default();
                PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)?;
            }
            match found {
                Next::Batch(batch) => return self.handed(py, *batch).map(Some),
                Next::End => return Ok(None),
                Next::Waiting => py.check_signals()?,
            }
        }
    }
}

impl Batches {
    /// A batch for Python; where batches are copied to another device, the next one's copies begin.
    fn handed(&self, py: Python<'_>, mut batch: tldr_loader::loader::Batch) -> PyResult<Batch> {
        let loader = self.loader.get();
        let frame = loader.frame();
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sent = ahead.map_or_else(|| frame.send(py, &mut batch), Ok)?;
        frame.restock(py, Some(1))?;
        if frame.copies()
            && let Phase::During(batches) = &mut *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(next) = batches.ahead()
        {
            let sent = frame.send(py, next)?;
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
        }
        Ok(Batch::new(frame.receive(py, sent)?, batch, frame, loader.validity()))
    }
}

impl Drop for Batches {
    /// Stops the epoch's threads and gives them [`FAREWELL`] to end. One that hangs in a read of a
    /// dead disk ends on its own, or with the process: Ctrl-C does not wait for it.
    fn drop(&mut self) {
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Phase::During(batches) = std::mem::replace(phase, Phase::Over) else { return };
        let (said, heard) = channel();
        let joining = std::thread::Builder::new().name("tldr-stop".into()).spawn(move || {
            drop(batches);
            let _ = said.send(()); // after the farewell nobody listens
        });
        if joining.is_ok() {
            Python::attach(|py| py.detach(move || heard.recv_timeout(FAREWELL).ok()));
        }
    }
}
