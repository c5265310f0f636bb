//! Shards in object stores and on HTTP servers.
//!
//! [`Stores`] turns URLs into [`Object`]s, [`RemoteReader`] reads one object as a stream of
//! bytes: several range requests at a time, ahead of whoever reads, each with its own retries
//! (`fetch`, `fault`). Credentials and regions come from the variables that `object_store` reads.
//! Nothing here knows what a shard holds.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

mod address;
mod advice;
mod answer;
mod bucket;
mod cache;
mod chosen;
mod fault;
#[cfg(test)]
#[path = "../../../tests/core/fault_server/mod.rs"]
mod fault_server;
mod hub;
mod identity;
mod listing;
mod ranges;
mod reader;
mod retry;
mod store;
mod trust;
mod web;

pub(super) use address::Address;
pub(crate) use bucket::Bucket;
pub(super) use chosen::ChosenReader;
pub(super) use identity::Identity;
pub(super) use listing::read_small;
pub(super) use reader::RemoteReader;
pub(super) use retry::version_now;
pub(crate) use store::Object;
pub(super) use store::{Stores, several_servers};

/// Threads that wait for sockets. They copy bytes and nothing else.
const THREADS: usize = 2;

/// The runtime of this process, made when it is first needed.
///
/// # Errors
/// Its threads cannot be started, or were left behind in a parent process.
fn runtime() -> io::Result<Handle> {
    static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match &*runtime {
        Some((owner, runtime)) if *owner == process => Ok(runtime.handle().clone()),
        // Threads do not survive a fork: whoever waits for them would wait for ever.
        Some(_) => Err(io::Error::other(
            "this process was forked from one that reads remote shards; make the loader in the \
             process that uses it, or start processes with `spawn`",
        )),
        None => {
            let made = Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("tldr-store")
                .enable_all()
                .build()?;
            let handle = made.handle().clone();
            *runtime = Some((process, made));
            Ok(handle)
        }
    }
}
