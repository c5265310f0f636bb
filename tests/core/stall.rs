//! Promise: a stage that hangs is named, with its shard, instead of a hang; and once it goes on, everything
//! that was left behind ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::OpenOptions;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::support::{Altered, StubCaptioner, builder, clusters, corpus, full, wait};
use tldr_loader::model::Scorer;
use tldr_loader::{ErrorKind, Loader};

const SHORT: Duration = Duration::from_millis(500);

/// Waits until every thread has ended and the last one has let the model go.
fn await_end(gone: &Receiver<()>) {
    assert_eq!(
        gone.recv_timeout(wait::DEADLINE),
        Err(RecvTimeoutError::Disconnected),
        "a thread does not end"
    );
}

/// A captioner that hangs in its first batch until the test lets it go. `alive` is closed when it is dropped.
fn hanging(go: Receiver<()>, alive: Sender<()>) -> Altered<StubCaptioner> {
    Altered::new(StubCaptioner::new()).encode(move |stub, previews, captions| {
        let _alive = &alive;
        let _ = go.recv(); // closed: it may go on
        stub.signals(previews, captions)
    })
}

fn stalled(loader: &Loader) -> (tldr_loader::Error, &'static str) {
    let mut batches = loader.iter().unwrap();
    let error = batches.next().unwrap().unwrap_err();
    assert!(batches.next().is_none(), "the epoch is over");
    let ErrorKind::Stall { stage, seconds, .. } = error.kind else { panic!("{error}") };
    assert!(seconds > 0.0);
    (error, stage)
}

/// A loader whose captioner hangs, what lets it go, what is closed when it is dropped, and the corpus.
fn stuck(timeout: Option<Duration>) -> (Loader, Sender<()>, Receiver<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let (let_go, go) = channel();
    let (alive, gone) = channel();
    let loader = builder(&urls).captioner(hanging(go, alive), clusters());
    let loader = timeout.into_iter().fold(loader, |loader, timeout| loader.stall_timeout(timeout));
    (loader.build().unwrap(), let_go, gone, folder)
}

#[test]
fn a_captioner_that_hangs_is_named() {
    wait::within("the captioner to be named", || {
        let (loader, let_go, gone, _folder) = stuck(Some(SHORT));
        let (error, stage) = stalled(&loader);
        assert_eq!(stage, "encode");
        for part in ["lane", "waits for the captioner", "encodes images", "stall_timeout=0.5"] {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }
        let activity = loader.stats().activity;
        let busy = activity.iter().find(|activity| activity.stage == "the captioner").unwrap();
        assert!(busy.doing == "encodes images" && busy.seconds > 0.0, "{busy:?}");
        assert!(activity.iter().any(|activity| activity.doing.contains("waits for the captioner")));
        drop(let_go);
        drop(loader);
        await_end(&gone);
    });
}

#[test]
fn a_recording_pass_that_hangs_is_named() {
    wait::within("the captioner to be named", || {
        let (loader, let_go, gone, _folder) = stuck(Some(SHORT));
        let error = loader.record(&mut |_| Ok(())).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Stall { stage: "encode", .. }), "{error}");
        drop(let_go);
        drop(loader);
        await_end(&gone);
    });
}

#[test]
fn a_dropped_epoch_joins_once_its_stage_goes_on() {
    wait::within("the epoch to end", || {
        let (loader, let_go, gone, _folder) = stuck(None);
        let mut batches = loader.iter().unwrap();
        let found = batches.next_within(Duration::from_millis(10)).unwrap();
        assert!(matches!(found, tldr_loader::loader::Next::Waiting), "without a timeout it is waited for");
        drop(let_go);
        drop(batches);
        drop(loader);
        await_end(&gone);
    });
}

/// A named pipe stands for a dead disk: it cannot be opened before somebody writes.
#[test]
fn a_shard_that_cannot_be_read_is_named() {
    wait::within("the shard to be named", || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000.tar");
        let made = wait::started(std::process::Command::new("mkfifo").arg(&path));
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("skipped: there is no mkfifo here");
            return;
        }
        let urls = path.display().to_string();
        let loader = full(&urls).lengths(vec![64]).lanes(1).stall_timeout(SHORT).build().unwrap();
        let (error, stage) = stalled(&loader);
        assert_eq!((stage, error.shard.as_deref()), ("read", Some(&*urls)));
        assert!(error.to_string().contains("reads a window of shard"), "{error}");
        drop(loader);
        // What waits for the pipe is let go.
        drop(OpenOptions::new().write(true).open(&path).unwrap());
    });
}

#[test]
fn no_time_at_all_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 1, 100);
    let error = builder(&urls).stall_timeout(Duration::ZERO).build().err().unwrap();
    assert!(matches!(error.kind, ErrorKind::Option { option: "stall_timeout", .. }), "{error}");
}
