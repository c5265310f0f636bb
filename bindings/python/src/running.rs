//! A loader and what its iterators share of it.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;

use crate::batch::Validity;
use crate::frame::Frame;
use crate::ranks;

/// How long the end of an epoch's threads is awaited: half of the second that Ctrl-C may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// A loader of Rust, where its batches are, and whether its rank has joined the others.
pub(crate) struct Running {
    /// Taken when it is dropped, and only then.
    loader: ManuallyDrop<tldr_loader::loader::Loader>,
    /// Where the arrays of its batches are.
    frame: Arc<Frame>,
    /// How its batches are used.
    validity: Arc<Validity>,
    /// Whether the ranks of a process group have compared their loaders.
    joined: AtomicBool,
    /// Its number among the loaders that the ranks compare.
    number: OnceLock<u64>,
}

impl Running {
    pub(crate) fn new(loader: tldr_loader::loader::Loader, frame: Arc<Frame>) -> Self {
        Self {
            loader: ManuallyDrop::new(loader),
            frame,
            validity: Arc::default(),
            joined: AtomicBool::new(false),
            number: OnceLock::new(),
        }
    }

    pub(crate) fn loader(&self) -> &tldr_loader::loader::Loader {
        &self.loader
    }

    /// Joins the other ranks where there is a process group, and that was not done yet.
    ///
    /// # Errors
    /// `ConfigError`: the loader is not that of its rank, or the loaders of some ranks differ, or were not
    /// started.
    pub(crate) fn join_once(&self, py: Python<'_>) -> PyResult<()> {
        if !self.joined.load(Ordering::Acquire) {
            let joined = ranks::join(py, &self.loader, &self.number)?;
            self.joined.store(joined, Ordering::Release);
        }
        Ok(())
    }

    /// How its batches are used.
    pub(crate) fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    /// Where the arrays of its batches are.
    pub(crate) fn frame(&self) -> &Arc<Frame> {
        &self.frame
    }
}

impl Drop for Running {
    /// Ends the threads of its models without Python's lock, which they may be waiting for. One that is in a long
    /// call is not waited for longer than half a second.
    fn drop(&mut self) {
        // SAFETY: nobody uses it after this, its only drop.
        let loader = unsafe { ManuallyDrop::take(&mut self.loader) };
        leave(loader);
    }
}

/// Drops what may have threads to join, without Python's lock, and waits [`FAREWELL`] for it.
pub(crate) fn leave<T: Send + 'static>(what: T) {
    let (said, heard) = channel();
    let leaving = std::thread::Builder::new().name("tldr-stop".into()).spawn(move || {
        drop(what);
        let _ = said.send(()); // after the farewell nobody listens
    });
    if leaving.is_ok() {
        Python::attach(|py| py.detach(move || heard.recv_timeout(FAREWELL).ok()));
    }
}
