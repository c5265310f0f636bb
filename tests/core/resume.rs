//! Promise: a state taken at any batch resumes, in any world size, to exactly the rest of the
//! epoch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use crate::support::{Row, builder, corpus, epoch, full, rows, with_stub};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::loader::{Loader, LoaderBuilder, LoaderState};

fn take(loader: &tldr_loader::Loader, n: usize) -> Vec<Vec<Row>> {
    loader.iter().unwrap().take(n).map(|b| rows(&b.unwrap())).collect()
}

fn check(make: impl Fn() -> LoaderBuilder) {
    let whole = make().build().unwrap();
    whole.set_epoch(3);
    let expected = epoch(&whole);
    let mut rng = Rng::new(1, Purpose::Fit, 0);
    for _ in 0..10 {
        let at = rng.below(expected.len() + 1);
        let first = make().build().unwrap();
        first.set_epoch(3);
        assert_eq!(take(&first, at), expected[..at]);
        let state = serde_json::to_string(&first.state()).unwrap();
        let state: LoaderState = serde_json::from_str(&state).unwrap();
        assert_eq!((state.epoch, state.step), (3, at as u64));
        let second = make().build().unwrap();
        second.load_state(&state).unwrap();
        second.set_epoch(3); // naming the epoch, as training loops do, keeps the place
        assert_eq!(epoch(&second), expected[at..], "resumed at {at}");
        let stats = second.stats();
        let given = stats.yielded + stats.replayed;
        assert_eq!(given, stats.counts.kept + stats.repeats - stats.surplus);
        assert_eq!(second.state().epoch, 4);
    }
}

#[test]
fn at_ten_random_batches() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 5, 130);
    check(|| with_stub(&urls));
}

#[test]
fn in_full_mode_and_with_images_that_fail_late() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 50);
    let mut writer = tldr_loader::shard::ShardWriter::create(folder.path().join("00004.tar")).unwrap();
    for i in 0..40 {
        let mut image = support::png([9, 9, i]);
        if i % 4 == 0 {
            image.truncate(40);
        }
        writer.write(&format!("bad{i:03}"), &[("png", &image), ("txt", b"a caption")]).unwrap();
    }
    writer.finish().unwrap();
    let urls = format!("{urls}::{}", folder.path().join("00004.tar").display());
    check(|| full(&urls));
    check(|| builder(&urls).keep_ratio(0.5));
}

#[test]
fn in_another_world_size() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 5, 130);
    let ranks = |world: usize, state: Option<&LoaderState>, n: usize| {
        let mut all: Vec<Vec<Row>> = vec![];
        let mut last = None;
        for rank in 0..world {
            let loader =
                with_stub(&urls).batch_size(16 / world).rank(rank).world_size(world).build().unwrap();
            if let Some(state) = state {
                loader.load_state(state).unwrap();
            }
            let own = take(&loader, n);
            all.resize_with(own.len(), Vec::new);
            all.iter_mut().zip(own).for_each(|(a, r)| a.extend(r));
            last = Some(loader.state());
        }
        all.iter_mut().for_each(|b| b.sort_by_key(|r| r.id));
        (all, last.unwrap())
    };
    let (whole, _) = ranks(1, None, usize::MAX);
    let (_, state) = ranks(4, None, 3);
    for world in [1, 2, 4] {
        assert_eq!(ranks(world, Some(&state), usize::MAX).0, whole[3..], "resumed on {world} ranks");
    }
}

#[test]
fn states_of_other_configurations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let state = with_stub(&urls).build().unwrap().state();
    let refused = |other: LoaderBuilder| other.build().unwrap().load_state(&state).unwrap_err().to_string();
    for (change, expected) in [
        (with_stub(&urls).keep_ratio(0.3), "keep_ratio: this loader has 0.3, the state 0.25"),
        (with_stub(&urls).seed(8), "seed: this loader has 8, the state 0"),
        (with_stub(&urls).image_size(48), "image_size: this loader has 48, the state 8"),
        (with_stub(&urls).fuse("original".parse().unwrap()), "fuse: this loader has original, the state"),
    ] {
        let message = refused(change);
        let (_, differences) = message.split_once("configuration: ").unwrap();
        assert!(differences.starts_with(expected) && !differences.contains(';'), "only that: {message}");
    }
    assert!(refused(with_stub(&urls).batch_size(8)).contains("global batch"));
    assert!(refused(with_stub(&urls).lanes(4)).contains("build the loader with lanes=8"));
    assert!(refused(with_stub(&support::pattern(folder.path(), 3))).contains("shards: this loader has 3 of"));
}

#[test]
fn an_iterator_that_nothing_was_asked_of_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let make = || with_stub(&urls).build().unwrap();
    let loader = make();
    let whole = take(&loader, usize::MAX);
    let state = LoaderState { epoch: 0, step: 3, ..make().state() };
    loader.load_state(&state).unwrap();
    let before = loader.stats();
    drop(loader.iter().unwrap());
    let waiting = loader.iter().unwrap();
    assert_eq!((loader.state().epoch, loader.state().step), (0, 3));
    assert_eq!((loader.stats().epoch, loader.stats().yielded), (before.epoch, before.yielded));
    assert_eq!(take(&loader, usize::MAX), whole[3..], "the loaded place is still there");
    // It begins where the loader is when the first batch is asked for.
    loader.set_epoch(0);
    let begun: Vec<Vec<Row>> = waiting.map(|b| rows(&b.unwrap())).collect();
    assert_eq!(begun, whole);
}

#[test]
fn an_iterator_ends_where_its_loader_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let loader = with_stub(&urls).build().unwrap();
    let whole = take(&loader, usize::MAX);
    loader.set_epoch(0);
    take(&loader, 2);
    let state = loader.state();
    loader.set_epoch(1);
    type Move<'a> = &'a dyn Fn(&Loader);
    let moves: [Move<'_>; 2] = [&|loader| loader.load_state(&state).unwrap(), &|loader| loader.set_epoch(7)];
    for moved in moves {
        loader.set_epoch(3);
        let mut running = loader.iter().unwrap();
        running.next().unwrap().unwrap();
        // The epoch that it is in already moves nothing.
        loader.set_epoch(3);
        running.next().unwrap().unwrap();
        moved(&loader);
        let place = loader.state();
        let error = running.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("over epoch 3") && error.contains("take a new one"), "{error}");
        assert!(running.next().is_none(), "it is over");
        assert_eq!(loader.state(), place, "and moved nothing itself");
    }
    loader.load_state(&state).unwrap();
    assert_eq!(take(&loader, usize::MAX), whole[2..]);
}

#[test]
fn a_new_iterator_without_a_state_starts_the_epoch_anew() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let loader = with_stub(&urls).build().unwrap();
    assert_eq!(take(&loader, 2), take(&loader, 2));
}
