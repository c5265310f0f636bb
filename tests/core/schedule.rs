//! Promise: a keep_ratio that changes by epoch keeps what each of its ratios keeps; 1 keeps everything,
//! through the same captions; steps stay equal, and nothing depends on the epochs before.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Row, corpus, epoch, judged, rows, with_judge, with_stub};
use tldr_loader::loader::{Loader, LoaderBuilder, LoaderState};

/// A quarter for two epochs, then everything, then a tenth.
const STEPS: [(u64, f64); 3] = [(0, 0.25), (2, 1.0), (3, 0.1)];

fn at(loader: &Loader, number: u64) -> Vec<Vec<Row>> {
    loader.set_epoch(number);
    epoch(loader)
}

#[test]
fn each_epoch_has_its_own_number_of_batches_and_kept_samples() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 160);
    let make = || with_stub(&urls).dedup(0.999);
    let loader = make().keep_ratio(STEPS).build().unwrap();
    for (number, ratio, batches) in [(0, 0.25, 10), (1, 0.25, 10), (2, 1.0, 40), (3, 0.1, 4), (9, 0.1, 4)] {
        assert_eq!(loader.num_batches_of(number), batches);
        let found = at(&loader, number);
        assert_eq!(found.len() as u64, batches);
        let stats = loader.stats();
        assert!(stats.counts.conserved());
        assert_eq!(stats.yielded + stats.replayed, stats.counts.kept + stats.repeats - stats.surplus);
        if ratio < 1.0 {
            let alone = make().keep_ratio(ratio).build().unwrap();
            assert_eq!(alone.num_batches(), batches);
            assert_eq!(at(&alone, number), found, "epoch {number} is that of {ratio} alone");
        } else {
            assert_eq!((stats.counts.kept, stats.repeats, stats.surplus), (640, 0, 0));
            let ids: BTreeSet<u64> = found.iter().flatten().map(|row| row.id).collect();
            assert_eq!(ids.len(), 640, "every sample once");
        }
    }
    // The length is the current epoch's, which moves on by itself.
    loader.set_epoch(1);
    assert_eq!((loader.num_batches(), loader.num_samples()), (10, 160));
    epoch(&loader);
    assert_eq!((loader.epoch(), loader.num_batches(), loader.num_samples()), (2, 40, 640));
}

/// An epoch of everything has the captions that the samples have when they are selected.
#[test]
fn everything_comes_through_the_same_captions() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 160);
    let captions = |loader: &Loader, number| -> BTreeMap<u64, String> {
        at(loader, number).into_iter().flatten().map(|row| (row.id, row.caption)).collect()
    };
    for make in [with_stub as fn(&str) -> LoaderBuilder, |u| with_judge(u).fuse("concat".parse().unwrap())] {
        let loader = make(&urls).keep_ratio([(0, 0.4), (1, 1.0)]).build().unwrap();
        let (some, all) = (captions(&loader, 0), captions(&loader, 1));
        assert!(some.len() > 200 && all.len() == 640);
        for (id, caption) in some {
            assert_eq!(all[&id], caption);
        }
    }
    // What a judge lets come back is there with its generated caption, and what it does not by itself.
    let loader = with_judge(&urls).fuse("original".parse().unwrap()).keep_ratio([(0, 0.4), (1, 1.0)]);
    let loader = loader.build().unwrap();
    loader.set_epoch(1);
    let mut found = [0; 2];
    for batch in loader.iter().unwrap() {
        let batch = batch.unwrap();
        for row in 0..batch.len() {
            assert_eq!(batch.pi[row], Some(1.0));
            if batch.alignment[row].unwrap() < 0.5 {
                let generated = batch.generated[row].as_deref();
                let back = batch.rescued[row];
                assert_eq!(back, generated.is_some_and(|caption| judged(caption) >= 0.5));
                let expected = if back { generated.unwrap() } else { &*batch.original[row] };
                assert_eq!(batch.captions[row], expected);
                found[usize::from(back)] += 1;
            }
        }
    }
    assert!(found.iter().all(|&n| n > 50), "{found:?}");
}

#[test]
fn ranks_and_resumption_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 5, 150);
    let make = || with_stub(&urls).keep_ratio(STEPS).rotate(true).lanes(4);
    let whole = make().batch_size(16).build().unwrap();
    for number in [1, 2, 3] {
        let expected = at(&whole, number);
        let ranks: Vec<_> = (0..2)
            .map(|rank| at(&make().batch_size(8).rank(rank).world_size(2).build().unwrap(), number))
            .collect();
        for (step, all) in expected.iter().enumerate() {
            let ids = |rows: &[Row]| rows.iter().map(|row| row.id).collect::<BTreeSet<_>>();
            let halves: BTreeSet<u64> = ids(&ranks[0][step]).union(&ids(&ranks[1][step])).copied().collect();
            assert_eq!(ids(all), halves, "epoch {number}, step {step}");
        }
        let first = make().batch_size(16).build().unwrap();
        first.set_epoch(number);
        let taken: Vec<_> = first.iter().unwrap().take(3).map(|b| rows(&b.unwrap())).collect();
        assert_eq!(taken, expected[..3]);
        let second = make().batch_size(16).build().unwrap();
        second.load_state(&first.state()).unwrap();
        assert_eq!(epoch(&second), expected[3..]);
    }
    // Steps are checked against their own epoch, and the schedule is part of the policy.
    let state = LoaderState { epoch: 3, step: 5, ..whole.state() };
    assert!(whole.load_state(&state).unwrap_err().to_string().contains("step 5: an epoch has 4 batches"));
    let other = with_stub(&urls).keep_ratio([(0, 0.25), (2, 1.0)]).rotate(true).build().unwrap();
    assert!(other.load_state(&whole.state()).unwrap_err().to_string().contains("keep_ratio: "));
}

#[test]
fn every_ratio_is_checked_at_construction() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 40);
    let refused =
        |ratio: Vec<(u64, f64)>| with_stub(&urls).keep_ratio(ratio).build().err().unwrap().to_string();
    let above = refused(vec![(0, 0.25), (5, 0.7)]);
    for part in ["invalid keep_ratio=0.7 (from epoch 5 on)", "at most 0.5", "or 1 to keep everything"] {
        assert!(above.contains(part), "{above}");
    }
    assert!(refused(vec![(1, 0.25)]).contains("begins with epoch 0"));
    assert!(refused(vec![(0, 0.25), (4, 0.0)]).contains("in (0, 1]"));
    let few = refused(vec![(0, 0.25), (4, 0.05)]);
    assert!(few.contains("batch_size") && few.contains("epoch 4"), "{few}");
    // One number is a share of what there is, as ever.
    assert!(refused(vec![(0, 1.0)]).contains("invalid keep_ratio=1: expected at most 0.5"));
    assert!(with_stub(&urls).keep_ratio([(0, 1.0), (1, 0.25)]).build().is_ok());
}
