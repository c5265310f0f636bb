//! What a loader shares with its iterators.

use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::loader::observe::recorder::Recorder;
use crate::loader::progress::Progress;

/// What a loader shares with its iterators.
pub(crate) struct Shared {
    pub(crate) progress: Progress,
    /// Of the epoch that was started last.
    pub(crate) recorder: Mutex<Arc<Recorder>>,
}

/// Of a fork only the calling thread lives on: whoever waits for the others hangs.
pub(crate) fn check_process(maker: u32) -> Result<()> {
    let here = std::process::id();
    if here == maker {
        return Ok(());
    }
    Err(Error::from(ErrorKind::State(format!(
        "the loader was made in process {maker}, and its threads did not come along to process {here}, a fork \
         of it: make the loader after the fork (it has threads of its own: a torch DataLoader around it \
         needs num_workers=0)"
    ))))
}
