//! Promise: an epoch is over with its last batch. The next iterator then yields the next epoch, whether or not anybody
//! asked for one batch more, also from a state; what is repeated is asked for, or said.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::time::Duration;

use crate::support::{Row, builder, corpus, epoch, full, rows, with_stub};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Batches, Loader, LoaderBuilder, Next};

/// The first `n` batches of a new iterator.
fn take(loader: &Loader, n: usize) -> Vec<Vec<Row>> {
    loader.iter().unwrap().take(n).map(|b| rows(&b.unwrap())).collect()
}

/// Exactly as many batches as the epoch has.
fn exactly(loader: &Loader) -> Vec<Vec<Row>> {
    take(loader, loader.num_batches() as usize)
}

fn ids(batches: &[Vec<Row>]) -> Vec<u64> {
    batches.iter().flatten().map(|row| row.id).collect()
}

/// All batches of an iterator and what was warned of with each, and behind the last.
fn told(mut batches: Batches) -> Vec<Vec<String>> {
    let mut told = vec![];
    loop {
        match batches.next_within(Duration::from_secs(60)).unwrap() {
            Next::Batch(_) => told.push(batches.warnings()),
            Next::Waiting => {}
            Next::End => {
                told.push(batches.warnings());
                return told;
            }
        }
    }
}

/// What becomes of three epochs for one who asks for one batch more, and for one who does not.
#[test]
fn a_loop_of_exactly_as_many_batches_goes_through_the_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    type Make<'a> = &'a dyn Fn() -> LoaderBuilder;
    let makes: [Make<'_>; 3] =
        [&|| with_stub(&urls), &|| builder(&urls).keep_ratio(0.3).rotate(true), &|| {
            full(&urls).samples_per_epoch(96)
        }];
    for make in makes {
        let (whole, exact, mixed) =
            (make().build().unwrap(), make().build().unwrap(), make().build().unwrap());
        for number in 0..4 {
            let expected = epoch(&whole);
            assert_eq!(exactly(&exact), expected, "epoch {number}");
            assert_eq!(exact.state().epoch, number, "the state is that of the last batch");
            assert_eq!(exact.state().step, exact.num_batches_of(number));
            assert_eq!(exact.epoch(), number + 1);
            let n = if number % 2 == 0 { usize::MAX } else { expected.len() };
            assert_eq!(take(&mixed, n), expected);
        }
    }
}

#[test]
fn rotation_goes_through_the_pool_in_such_a_loop() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 256);
    let loader = builder(&urls).keep_ratio(0.25).rotate(true).lanes(4).build().unwrap();
    let mut seen: Vec<u64> = (0..4).flat_map(|_| ids(&exactly(&loader))).collect();
    assert_eq!(seen.len(), 4 * 256);
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 1000, "{} of 1,024: each epoch has another quarter", seen.len());
}

#[test]
fn the_number_of_batches_is_that_of_the_epoch_that_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let loader = builder(&urls).keep_ratio([(0, 0.25), (1, 1.0)]).build().unwrap();
    assert_eq!((loader.num_batches(), exactly(&loader).len()), (8, 8));
    assert_eq!((loader.num_batches(), exactly(&loader).len()), (32, 32));
}

#[test]
fn an_epoch_that_is_named_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let loader = with_stub(&urls).build().unwrap();
    let n = loader.num_batches() as usize;
    loader.set_epoch(2);
    let expected = exactly(&loader);
    for taken in [n, usize::MAX, 3, n] {
        loader.set_epoch(2);
        let found = take(&loader, taken);
        assert_eq!(found, expected[..taken.min(n)]);
    }
    loader.set_epoch(2);
    let mut batches = loader.iter().unwrap();
    for _ in 0..n {
        batches.next().unwrap().unwrap();
    }
    loader.set_epoch(2);
    assert!(batches.next().is_none(), "the old one is at its end");
    assert_eq!((loader.state().epoch, loader.state().step), (2, 0), "and moves nothing");
    loader.set_epoch(7);
    assert!(batches.next().is_none());
    assert_eq!(loader.epoch(), 7);
}

#[test]
fn a_state_of_the_last_batch_goes_on_with_the_next_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let make = || with_stub(&urls).build().unwrap();
    let first = make();
    let epochs: Vec<_> = (0..4).map(|_| exactly(&first)).collect();
    let stopped = make();
    stopped.set_epoch(1);
    exactly(&stopped);
    let state = stopped.state();
    // A loop without numbers.
    let plain = make();
    plain.load_state(&state).unwrap();
    assert_eq!(plain.num_batches(), plain.num_batches_of(2));
    assert_eq!((exactly(&plain), exactly(&plain)), (epochs[2].clone(), epochs[3].clone()));
    // `for e in state.epoch..`, by whichever way an epoch is gone through.
    for way in [exactly as fn(&Loader) -> _, epoch] {
        let named = make();
        named.load_state(&state).unwrap();
        let found: Vec<_> = (state.epoch..4)
            .map(|e| {
                named.set_epoch(e);
                way(&named)
            })
            .collect();
        assert_eq!(found, [vec![], epochs[2].clone(), epochs[3].clone()]);
    }
    let named = make();
    named.load_state(&state).unwrap();
    named.set_epoch(1);
    assert!(epoch(&named).is_empty());
    assert_eq!(named.stats().counts.read, 0, "nothing is read for nothing");
    assert_eq!(epoch(&named), epochs[2]);
    // A state before the last batch is one of the middle.
    let late = make();
    late.set_epoch(1);
    take(&late, epochs[1].len() - 1);
    plain.load_state(&late.state()).unwrap();
    assert_eq!(exactly(&plain)[..1], epochs[1][epochs[1].len() - 1..]);
    assert_eq!(exactly(&plain), epochs[2]);
}

#[test]
fn with_the_last_batch_everything_is_counted_recorded_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    let (asked, exact) = (Ledger::new(), Ledger::new());
    // Twice as many are kept as the lengths let expect: half of the windows are left over.
    let make = |ledger: &Ledger| {
        with_stub(&urls).lengths(vec![75; 4]).ledger(ledger.clone()).keep_ratio(0.4).build().unwrap()
    };
    let more = make(&asked);
    epoch(&more);
    let loader = make(&exact);
    let all = loader.num_batches() as usize;
    assert_eq!(take(&loader, all).len(), all);
    let (stats, expected) = (loader.stats(), more.stats());
    assert_eq!((&stats.counts, stats.surplus), (&expected.counts, expected.surplus));
    assert_eq!(stats.counts.read, 600);
    assert_eq!(exact.windows(), asked.windows(), "what was left over is recorded too");
    let told = told(make(&Ledger::new()).iter().unwrap());
    assert_eq!(told.len(), all + 1);
    assert!(told[..all - 1].iter().all(Vec::is_empty), "{told:?}");
    assert!(told[all - 1].iter().any(|w| w.contains("left over")), "{told:?}");
    assert!(told[all].is_empty(), "once");
}

#[test]
fn an_epoch_that_was_broken_off_says_once_that_it_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 130);
    let said = |loader: &Loader| -> Vec<String> {
        let mut batches = loader.iter().unwrap();
        assert!(batches.warnings().is_empty());
        batches.next_within(Duration::from_secs(60)).unwrap();
        batches.warnings().into_iter().filter(|warning| warning.contains("broken off")).collect()
    };
    let loader = with_stub(&urls).lanes(4).build().unwrap();
    let expected = take(&loader, 3);
    let found = said(&loader);
    let [warning] = &found[..] else { panic!("{found:?}") };
    for part in ["epoch 0 was broken off after 3 of 8 batches", "set_epoch(1)", "set_epoch(0)"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert!(said(&loader).is_empty(), "once");
    assert_eq!(take(&loader, 3), expected);
    // Where it was asked for, nothing is said.
    for number in [0, 1] {
        let loader = with_stub(&urls).build().unwrap();
        take(&loader, 3);
        loader.set_epoch(number);
        assert!(said(&loader).is_empty());
    }
    let loader = with_stub(&urls).build().unwrap();
    take(&loader, 3);
    loader.load_state(&loader.state()).unwrap();
    assert!(said(&loader).is_empty());
    let eval = support::eval(&urls).build().unwrap();
    take(&eval, 3);
    assert!(said(&eval).is_empty(), "a part is evaluated again and again");
}
