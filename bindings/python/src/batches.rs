//! `Batches`, the iterator over one epoch.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyException;
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use tldr_loader::loader::Next;

use tldr_python::errors::OrRaise;
use tldr_python::interrupt::LOOK;
use tldr_python::log;

use crate::batch::Batch;
use crate::frame::{Moved, Sent};
use crate::running::{Running, leave};

/// The batches of one epoch, which begins with the first. Dropping it stops the epoch's threads.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Batches {
    phase: Mutex<Phase>,
    /// Whether the ranks may go on: asked before the first batch.
    joined: AtomicBool,
    /// Held for a whole call of `__next__`: threads that share an iterator take turns.
    turn: Mutex<Turn>,
    loader: Arc<Running>,
}

/// What a call leaves to the next one.
#[derive(Default)]
struct Turn {
    /// A batch that was taken and could not be handed over, since something was raised.
    held: Option<tldr_loader::loader::Batch>,
    /// Its arrays, or those of the next batch: moved out of it, and on their way where that went well.
    ahead: Option<(Moved, Option<Sent>)>,
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
    pub(crate) fn new(loader: Arc<Running>) -> Self {
        Self {
            phase: Mutex::new(Phase::Before),
            joined: AtomicBool::new(false),
            turn: Mutex::default(),
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
        let mut turn = self.turn.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let loader = &self.loader;
        if !self.joined.load(Ordering::Acquire) {
            loader.join_once(py)?;
            self.joined.store(true, Ordering::Release);
        }
        loader.frame().restock(py)?;
        if turn.held.is_some() {
            return self.handed(py, &mut turn);
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
            let is_over = matches!(found, Next::End);
            if let Next::Batch(batch) = found {
                turn.held = Some(*batch);
            }
            log::hand_over(py)?;
            for warning in warnings {
                let text = CString::new(warning).unwrap_or_default();
                PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)?;
            }
            if turn.held.is_some() {
                return self.handed(py, &mut turn);
            }
            if is_over {
                return Ok(None);
            }
            py.check_signals()?;
        }
    }
}

impl Batches {
    /// The batch that is held, for Python; where batches are copied to another device, the next one's copies begin.
    ///
    /// # Errors
    /// What torch raises: the batch stays held, for the next call.
    fn handed(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<Option<Batch>> {
        let loader = &self.loader;
        let frame = loader.frame();
        let Some(batch) = &mut turn.held else { return Ok(None) };
        if turn.ahead.is_none() {
            turn.ahead = Some((frame.arrays(py, batch)?, None));
        }
        if let Some((moved, sent @ None)) = &mut turn.ahead {
            *sent = Some(frame.send(py, moved)?);
        }
        let (Some(batch), Some((_, Some(sent)))) = (turn.held.take(), turn.ahead.take()) else {
            return Ok(None);
        };
        let arrays = frame.receive(py, sent)?;
        if frame.copies()
            && let Phase::During(batches) = &mut *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(next) = batches.ahead()
            && let Ok(moved) = frame.arrays(py, next)
        {
            // What fails here is tried again when the batch is asked for.
            let sent = match frame.send(py, &moved) {
                Ok(sent) => Some(sent),
                Err(error) => {
                    if !error.is_instance_of::<PyException>(py) {
                        // Ctrl-C, for whatever runs next.
                        py.import("_thread")?.call_method0("interrupt_main")?;
                    }
                    None
                }
            };
            turn.ahead = Some((moved, sent));
        }
        Ok(Some(Batch::new(arrays, batch, frame, loader.validity())))
    }
}

impl Drop for Batches {
    /// Stops the epoch's threads and gives them half a second to end. One that hangs in a read of a
    /// dead disk ends on its own, or with the process: Ctrl-C does not wait for it.
    fn drop(&mut self) {
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Phase::During(batches) = std::mem::replace(phase, Phase::Over) else { return };
        leave(batches);
    }
}
