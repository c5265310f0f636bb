//! Promise: the same kept samples, captions, pixels and batches for any number of threads and ranks,
//! with a ledger or without.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support::{
    Row, StubCaptioner, builder, clusters, corpus, cut_off, epoch, full, with_judge, with_stub,
};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::LoaderBuilder;

/// The global batches that `world_size` ranks yield together, each sorted by id: which rank gives
/// which rows of a batch depends on the world size, the batch does not.
fn global(urls: &str, world_size: usize, make: impl Fn(&str) -> LoaderBuilder) -> Vec<Vec<Row>> {
    let mut batches: Vec<Vec<Row>> = vec![];
    for rank in 0..world_size {
        let loader = make(urls)
            .batch_size(32 / world_size)
            .rank(rank)
            .world_size(world_size)
            .lanes(4)
            .build()
            .unwrap();
        let own = epoch(&loader);
        assert_eq!(own.len() as u64, loader.num_batches(), "rank {rank} yields exactly num_batches");
        batches.resize_with(own.len(), Vec::new);
        batches.iter_mut().zip(own).for_each(|(all, rows)| all.extend(rows));
    }
    batches.iter_mut().for_each(|b| b.sort_by_key(|r| (r.id, r.pixels)));
    batches
}

#[test]
fn threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 5, 150);
    let runs: Vec<_> =
        [1, 2, 4].map(|threads| epoch(&with_stub(&urls).threads(threads).build().unwrap())).into();
    assert!(runs[0].len() > 5);
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2]);
    let judged = [1, 3].map(|threads| epoch(&with_judge(&urls).threads(threads).build().unwrap()));
    assert!(judged[0].len() > 5);
    assert_eq!(judged[0], judged[1]);
}

/// Whether images wait in memory, in files, or in both.
#[test]
fn the_buffer_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 5, 150);
    for make in [with_stub as fn(&str) -> LoaderBuilder, full] {
        let mut runs = vec![];
        for bytes in [u64::MAX, 10_000, 0] {
            let loader = make(&urls).buffer_bytes(bytes).spill_dir(folder.path()).build().unwrap();
            let first = epoch(&loader);
            assert_eq!(loader.stats().spilled_bytes > 0, bytes < u64::MAX, "{bytes} bytes");
            runs.push((first, epoch(&loader)));
        }
        assert!(runs[0].0.len() > 5);
        assert_eq!(runs[0], runs[1]);
        assert_eq!(runs[0], runs[2]);
    }
    let builder = with_stub(&urls).spill_dir(folder.path().join("absent"));
    assert!(builder.build().err().unwrap().to_string().contains("spill_dir"));
}

#[test]
fn ranks_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // 5 shards over 4 lanes: cuts fall inside shards and inside windows.
    let urls = corpus(folder.path(), 5, 210);
    let rotating = |u: &str| with_stub(u).rotate(true);
    for make in [with_stub as fn(&str) -> LoaderBuilder, full, rotating, with_judge] {
        let one = global(&urls, 1, make);
        assert!(one.len() > 5);
        assert_eq!(one, global(&urls, 2, make));
        assert_eq!(one, global(&urls, 4, make));
    }
}

#[test]
fn the_order_in_which_shards_are_listed_changes_no_decision() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path(), 4, 128);
    let list = |order: [usize; 4]| -> Vec<String> {
        order.iter().map(|i| folder.path().join(format!("{i:05}.tar")).display().to_string()).collect()
    };
    let kept = |urls: Vec<String>| {
        let loader = with_stub(&urls.join("::")).shuffle_windows(1).build().unwrap();
        epoch(&loader)
    };
    assert_eq!(kept(list([0, 1, 2, 3])), kept(list([3, 1, 0, 2])));
}

#[test]
fn a_second_epoch_needs_no_captioner_and_keeps_the_same_samples() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 128);
    let stub = StubCaptioner::new();
    let (encoded, captioned) = (stub.encoded.clone(), stub.captioned.clone());
    // Lanes so long that few kept samples are left over.
    let builder = builder(&urls).lanes(4);
    let loader = builder.captioner(stub, clusters()).fuse("concat".parse().unwrap()).build().unwrap();
    let keys = |e: Vec<Vec<Row>>| {
        let mut keys: Vec<(String, String)> = e.into_iter().flatten().map(|r| (r.key, r.caption)).collect();
        keys.sort();
        keys
    };
    let first = epoch(&loader);
    let (runs, captions) = (
        encoded.load(std::sync::atomic::Ordering::SeqCst),
        captioned.load(std::sync::atomic::Ordering::SeqCst),
    );
    assert_eq!(runs, 4 * 128);
    let second = epoch(&loader);
    assert_eq!(encoded.load(std::sync::atomic::Ordering::SeqCst), runs, "the scorer ran again");
    assert_eq!(loader.stats().encoded, 0);
    assert_eq!(loader.epoch(), 2);
    assert_ne!(first, second, "another epoch has another order");
    // Surplus and repeats differ between epochs; without them the kept samples are the same.
    let differing = keys(first).iter().zip(&keys(second)).filter(|(a, b)| a != b).count();
    assert!(differing <= 16, "{differing} of the kept samples differ");
    assert!(captioned.load(std::sync::atomic::Ordering::SeqCst) <= captions + 16);
}

#[test]
fn a_shared_ledger_changes_nothing_but_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    let ledger = Ledger::new();
    let warm = with_stub(&urls).keep_ratio(0.4).ledger(ledger.clone()).build().unwrap();
    epoch(&warm);
    let (cold, hot) = (with_stub(&urls).build().unwrap(), with_stub(&urls).ledger(ledger).build().unwrap());
    assert_eq!(epoch(&cold), epoch(&hot));
    assert_eq!(hot.stats().encoded, 0);
    let captioned = hot.stats().captioned as usize;
    assert!(captioned <= cut_off(&warm), "kept samples at 0.25 are among those at 0.4: {captioned}");
    assert_eq!(cold.stats().counts, hot.stats().counts);
}

#[test]
fn another_seed_or_epoch_gives_other_batches() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    let run = |seed, e| {
        let loader = with_stub(&urls).seed(seed).build().unwrap();
        loader.set_epoch(e);
        epoch(&loader)
    };
    assert_eq!(run(0, 0), run(0, 0));
    assert_ne!(run(0, 0), run(1, 0));
    assert_ne!(run(0, 0), run(0, 1));
}
