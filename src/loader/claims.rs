//! Windows that are being encoded: of the lanes of a rank that share one the first encodes it, and the others wait for
//! what it finds.
//!
//! Whoever has a window waits for models and for the pool of pixels only, never for another lane: nobody waits in a
//! circle. Without this a short corpus in many lanes would be encoded as often as lanes meet in a window.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::ledger::WindowKey;
use crate::loader::lane::Stream;
use crate::loader::observe::watchdog::{Doing, Post, Slot};

/// How often one that waits looks whether the run is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Which stream has which window.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<HashMap<WindowKey, Stream>>,
    freed: Condvar,
}

/// A window that is one's own until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    key: WindowKey,
}

impl Claims {
    /// Waits until no other stream has the window, and takes it; `None` where the run is to stop.
    pub(crate) fn take(
        &self,
        key: WindowKey,
        stream: Stream,
        slot: &Slot,
        stop: &AtomicBool,
    ) -> Option<Claim<'_>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(&other) = held.get(&key) {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let _mark = slot.mark(Doing::Await(Post::Select(other)));
            held = self.freed.wait_timeout(held, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        held.insert(key, stream);
        Some(Claim { claims: self, key })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.claims.freed.notify_all();
    }
}
