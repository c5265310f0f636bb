//! Work on many shards, several at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::shard::location::Location;

/// Remote shards that are read at a time. Each holds what its reader may hold.
const REMOTE_SCANS: usize = 8;

/// What `work` makes of each of the `wanted` ones of `shards`, by number and in that order: one at a time per core, or 8
/// where some are remote. `progress(done, of)` is called, on this thread, once for each.
///
/// # Errors
/// Of several faults that of the first shard in the list, whichever thread is faster.
pub(super) fn each<T: Send>(
    shards: &[Shard],
    wanted: &[usize],
    work: &(dyn Fn(usize) -> Result<T> + Sync),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<T>> {
    let is_remote = |i: &usize| shards[*i].location != Location::Local;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = if wanted.iter().any(is_remote) { REMOTE_SCANS } else { cores };
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (out, results) = channel();
    let mut found: Vec<Option<T>> = wanted.iter().map(|_| None).collect();
    let mut failed: Option<(usize, Error)> = None;
    std::thread::scope(|scope| {
        for _ in 0..most.min(wanted.len()) {
            let (out, next, stop) = (out.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&i) = wanted.get(at) else { return };
                    let result = work(i);
                    if result.is_err() {
                        // Shards before this one are being read already: their faults come first.
                        stop.store(true, Ordering::Relaxed);
                    }
                    if out.send((at, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(out);
        for (done, (at, result)) in results.iter().enumerate() {
            match result {
                Ok(value) => found[at] = Some(value),
                Err(error) if failed.as_ref().is_none_or(|(first, _)| at < *first) => {
                    failed = Some((at, error));
                }
                Err(_) => {}
            }
            progress(done + 1, wanted.len());
        }
    });
    match failed {
        Some((_, error)) => Err(error),
        // Without a failure every thread went on until all were done.
        None => Ok(found.into_iter().flatten().collect()),
    }
}
