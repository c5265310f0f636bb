//! Promise: a thinned stream is a fair and even share of it, of which a lower keep_ratio takes a part and
//! rotating epochs take others; the rest is not encoded, and what a ledger says of it is not
//! believed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::select_stream::{Held, stream};
use crate::support::{Altered, Row, StubCaptioner, builder, clusters, corpus, epoch, rows};
use tldr_loader::config::{Gate, Priority, Quota, Selection};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder, Stats};
use tldr_loader::model::Scorer;
use tldr_loader::select::{Policy, Selector};
use tldr_loader::shard::ShardWriter;
use tldr_loader::{DropReason, FailReason, Outcome};

fn policy(keep_ratio: f64) -> Policy {
    Policy {
        selection: Selection {
            keep_ratio: Some(keep_ratio.into()),
            gate: Some(Gate::top(0.5)),
            thin: true,
            ..Selection::default()
        },
        seed: 3,
        ..Policy::default()
    }
}

#[test]
fn the_share_is_even_nested_and_all_of_it_that_passes_is_kept() {
    let stream = stream(60, 3, 512, 0.05, 2);
    for quota in [Quota::Proportional, Quota::Random] {
        for (keep_ratio, gate) in
            [(0.05, Gate::top(0.5)), (0.25, Gate::top(0.5).within_cluster()), (0.45, Gate::top(0.5))]
        {
            let with = |policy: Policy| {
                policy.but(|selection| {
                    selection.quota = Some(quota);
                    selection.gate = Some(gate.clone());
                })
            };
            let policy = with(policy(keep_ratio));
            let selector = Selector::new(policy, Some(stream.clusters.clone())).unwrap();
            let all = Selector::new(with(self::policy(0.5)), Some(stream.clusters.clone()));
            let all = all.unwrap();
            assert!(
                all.thin_share(stream.windows[0].id, &stream.windows[0].failed, 0)
                    .unwrap()
                    .iter()
                    .all(|&s| s)
            );
            for held in &stream.windows {
                let share = selector.thin_share(held.id, &held.failed, 0).unwrap();
                let size = share.iter().filter(|&&s| s).count() as f64;
                assert!((size - 2.0 * keep_ratio * 512.0).abs() <= 2.0, "{size}");
                // Any stretch of it too.
                for from in (0..512).step_by(64) {
                    let part = share[from..from + 64].iter().filter(|&&s| s).count() as f64;
                    assert!((part - 2.0 * keep_ratio * 64.0).abs() <= 3.0, "{part}");
                }
                let passes = all.decide(&held.window(), 0).unwrap();
                let found = selector.decide(&held.window(), 0).unwrap();
                for row in 0..512 {
                    let expected = match (held.failed[row], share[row]) {
                        // Whether a picture can be decoded is not known of the rest.
                        (Some(reason), true) => Outcome::Failed(reason),
                        (_, false) => Outcome::Dropped(DropReason::Thin),
                        (None, true) if passes[row].is_kept() => {
                            Outcome::Kept { pi: Some(2.0 * keep_ratio as f32) }
                        }
                        (None, true) => Outcome::Dropped(DropReason::Gate),
                    };
                    assert_eq!(found[row], expected);
                }
            }
        }
    }
}

#[test]
fn what_is_left_out_may_have_any_signals_and_faults() {
    let stream = stream(60, 2, 300, 0.1, 2);
    let selector = Selector::new(policy(0.2), Some(stream.clusters.clone())).unwrap();
    for held in &stream.windows {
        let share = selector.thin_share(held.id, &held.failed, 0).unwrap();
        let mut other: Held = held.clone();
        for row in (0..300).filter(|&row| !share[row]) {
            other.signals.cluster[row] = u32::MAX;
            other.signals.alignment[row] = f32::NAN;
            other.failed[row] =
                [None, Some(FailReason::UndecodableImage), Some(FailReason::ImageTooLarge)][row % 3];
        }
        let decide = |held: &Held| selector.decide(&held.window(), 0).unwrap();
        assert_eq!(decide(held), decide(&other));
        // What could not be read is counted as that, wherever it is; it moves no other.
        let row = share.iter().position(|share| !share).unwrap();
        other.failed[row] = Some(FailReason::MissingCaption);
        let found = decide(&other);
        assert_eq!(found[row], Outcome::Failed(FailReason::MissingCaption));
        assert_eq!(found.iter().zip(decide(held)).filter(|(a, b)| **a != *b).count(), 1);
    }
}

#[test]
fn every_sample_is_in_the_share_with_probability_pi() {
    // In each window samples are spread more evenly than independent draws: their bound holds a fortiori
    // for a group of them, 6 deviations of a mean over seeds.
    let stream = stream(60, 4, 256, 0.0, 2);
    let seeds = 2000;
    let mut times = vec![0u32; 4 * 256];
    for seed in 0..seeds {
        let selector = Selector::new(Policy { seed, ..policy(0.15) }, Some(stream.clusters.clone())).unwrap();
        for (w, held) in stream.windows.iter().enumerate() {
            let share = selector.thin_share(held.id, &held.failed, 0).unwrap();
            share.iter().enumerate().for_each(|(row, &s)| times[w * 256 + row] += u32::from(s));
        }
    }
    let n = f64::from(seeds as u32);
    let deviation = (0.3 * 0.7 / n).sqrt();
    for (row, &times) in times.iter().enumerate() {
        let found = f64::from(times) / n;
        assert!((found - 0.3).abs() < 6.0 * deviation, "row {row}: {found}");
    }
    let mean = times.iter().map(|&t| f64::from(t)).sum::<f64>() / n / times.len() as f64;
    assert!((mean - 0.3).abs() < 6.0 * deviation / 2.0, "{mean}");
}

#[test]
fn lower_ratios_are_nested_and_rotating_epochs_take_turns() {
    let stream = stream(60, 2, 400, 0.05, 2);
    let kept = |policy: Policy, held: &Held, epoch| -> BTreeSet<usize> {
        let selector = Selector::new(policy, Some(stream.clusters.clone())).unwrap();
        let outcomes = selector.decide(&held.window(), epoch).unwrap();
        (0..outcomes.len()).filter(|&row| outcomes[row].is_kept()).collect()
    };
    for held in &stream.windows {
        let mut before = BTreeSet::new();
        for ratio in [0.01, 0.1, 0.2, 0.37, 0.5] {
            let now = kept(policy(ratio), held, 0);
            assert!(before.is_subset(&now), "{ratio}");
            before = now;
        }
        assert_eq!(kept(policy(0.2), held, 0), kept(policy(0.2), held, 9), "without rotation all are alike");
        // Everything in epoch 2; before and after it, all that passes comes round in turn.
        let rotating = policy(0.1).but(|selection| {
            selection.rotate = true;
            selection.keep_ratio = Some([(0, 0.1), (2, 1.0), (3, 0.15)].into());
        });
        let mut times = vec![0; 400];
        for epoch in 0..20 {
            for row in kept(rotating.clone(), held, epoch) {
                times[row] += 1;
            }
            let own: Vec<i32> = before.iter().map(|&row| times[row]).collect();
            let (least, most) = (own.iter().min().unwrap(), own.iter().max().unwrap());
            assert!(most - least <= 1, "epoch {epoch}: {least} to {most}");
        }
    }
}

#[test]
fn what_cannot_be_thinned_is_refused() {
    let stream = stream(10, 1, 10, 0.0, 1);
    type Change = fn(&mut Selection);
    let changes: [(Change, &str); 5] = [
        (
            |p| p.quota = Some(Quota::Cap),
            "invalid thin=true: expected false with quota=cap: its rates differ by cluster",
        ),
        (|p| p.quota = Some(Quota::Tempered(0.5)), "quota=tempered(0.5)"),
        (|p| p.priority = Priority::Diverse, "false with priority=diverse: it chooses among"),
        (|p| p.dedup = Some(0.9), "false with dedup=0.9: near-duplicates"),
        (|p| p.keep_ratio = Some(0.6.into()), "invalid keep_ratio=0.6: expected at most 0.5"),
    ];
    for (change, part) in changes {
        let error =
            Selector::new(policy(0.25).but(change), Some(stream.clusters.clone())).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let error = support::with_judge(&urls).thin(true).build().err().unwrap().to_string();
    assert!(error.contains("invalid rescue=true: expected false with thin"), "{error}");
    let prints = [true, false].map(|thin| support::with_stub(&urls).thin(thin).build().unwrap().state());
    assert!(prints[0] != prints[1], "it is part of the policy");
}

/// What an epoch gave, and what was encoded for it.
struct Run {
    batches: Vec<Vec<Row>>,
    encoded: usize,
    stats: Stats,
}

fn make(urls: &str, ledger: &Ledger) -> (LoaderBuilder, Arc<AtomicUsize>) {
    let stub = StubCaptioner::new();
    let encoded = stub.encoded.clone();
    let builder = builder(urls).captioner(stub, clusters()).fuse("concat".parse().unwrap());
    (builder.ledger(ledger.clone()).lanes(2).keep_ratio(0.1), encoded)
}

fn run(urls: &str, ledger: &Ledger, change: impl Fn(LoaderBuilder) -> LoaderBuilder) -> Run {
    let (builder, encoded) = make(urls, ledger);
    let loader: Loader = change(builder).build().unwrap();
    let batches = epoch(&loader);
    Run { batches, encoded: encoded.load(Ordering::Relaxed), stats: loader.stats() }
}

/// A corpus of which one in ten pictures is damaged.
fn faulty(folder: &std::path::Path) -> String {
    let urls = corpus(folder, 3, 192);
    let mut writer = ShardWriter::create(folder.join("00003.tar")).unwrap();
    for i in 0..192u32 {
        let mut image = support::png([i as u8, 17, 200]);
        if i % 10 == 0 {
            image.truncate(40);
        }
        let caption = format!("of shard 3, {i}");
        let members: &[(&str, &[u8])] = &[("png", &image), ("txt", caption.as_bytes())];
        writer.write(&format!("f{i:05}"), if i == 33 { &members[..1] } else { members }).unwrap();
    }
    writer.finish().unwrap();
    format!("{urls}::{}", folder.join("00003.tar").display())
}

#[test]
fn batches_are_packed() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 192);
    // 12 windows of 64 samples in batches of 16; shares of 12 to 14 of each.
    for (thin, expected) in [(false, 48), (true, 12)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&calls);
        let captioner = Altered::new(StubCaptioner::new()).encode(move |stub, previews, captions| {
            counts.fetch_add(1, Ordering::Relaxed);
            stub.signals(previews, captions)
        });
        let loader = builder(&urls).captioner(captioner, clusters()).keep_ratio(0.1).lanes(1).thin(thin);
        epoch(&loader.build().unwrap());
        assert_eq!(calls.load(Ordering::Relaxed), expected);
    }
}

#[test]
fn only_the_share_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 192);
    let thin = run(&urls, &Ledger::new(), |b| b.thin(true));
    let counts = &thin.stats.counts;
    assert!(counts.conserved() && counts.dropped_quota == 0);
    // 12 windows of 64, whose shares are off by 2 at most.
    assert!((counts.dropped_thin as f64 - 0.8 * 768.0).abs() <= 24.0, "{counts:?}");
    assert_eq!(thin.encoded as u64, 768 - counts.dropped_thin);
    assert!(thin.encoded as u64 == counts.kept + counts.dropped_gate);
    assert_eq!(thin.stats.encoded, thin.encoded as u64, "and no blank rows are counted");
    let whole = run(&urls, &Ledger::new(), |b| b);
    assert_eq!(whole.encoded, 768);
    assert_eq!(thin.batches.len(), whole.batches.len(), "as many are expected");
    // A wider gate lets more of the share through.
    assert!(run(&urls, &Ledger::new(), |b| b.thin(true).gate(Gate::OFF)).encoded < thin.encoded * 6 / 10);
}

/// With `open`, the same ledger as another process sees it.
fn check_ledger(open: &dyn Fn() -> Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    let changes: [fn(LoaderBuilder) -> LoaderBuilder; 7] = [
        |b| b.thin(true),
        |b| b.thin(true),
        |b| b.thin(true).seed(5),
        |b| b.thin(true).keep_ratio(0.2),
        |b| b,
        |b| b.thin(true).seed(6),
        |b| b.dedup(0.9999),
    ];
    let mut encoded = vec![];
    for (number, change) in changes.into_iter().enumerate() {
        let (cold, warm) = (run(&urls, &Ledger::new(), change), run(&urls, &open(), change));
        assert_eq!(cold.batches, warm.batches, "run {number}");
        assert_eq!(cold.stats.counts, warm.stats.counts, "run {number}");
        let named = |run: &Run| run.stats.failures.iter().map(|f| f.key.to_string()).collect::<BTreeSet<_>>();
        assert_eq!(named(&cold), named(&warm), "run {number}");
        encoded.push(warm.encoded);
    }
    assert!(encoded[0] > 0 && encoded[1] == 0, "{encoded:?}");
    assert!(encoded[2] > 0 && encoded[2] < encoded[0], "another seed adds its own: {encoded:?}");
    assert!(encoded[3] > 0 && encoded[3] < encoded[0] * 2, "{encoded:?}");
    // All of 768 are known then, but for those that have no caption, or straddle two lanes.
    assert!(encoded[4] > 0 && encoded[4] < 768 - encoded[0], "{encoded:?}");
    assert_eq!(encoded[5], 0, "{encoded:?}");
}

#[test]
fn a_ledger_in_memory_is_completed_and_changes_nothing() {
    let ledger = Ledger::new();
    check_ledger(&|| ledger.clone());
}

#[test]
fn a_ledger_in_a_folder_is_completed_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    check_ledger(&|| Ledger::open(folder.path(), None).unwrap());
}

#[test]
fn ranks_epochs_and_states_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    let make =
        || make(&urls, &Ledger::new()).0.thin(true).rotate(true).keep_ratio([(0, 0.2), (1, 1.0), (2, 0.1)]);
    for number in 0..3 {
        let whole = make().build().unwrap();
        whole.set_epoch(number);
        let expected = epoch(&whole);
        for ranks in [1, 2] {
            let mut all: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); expected.len()];
            for rank in 0..ranks {
                let loader = make().batch_size(16 / ranks).rank(rank).world_size(ranks).build().unwrap();
                loader.set_epoch(number);
                for (all, rows) in all.iter_mut().zip(epoch(&loader)) {
                    all.extend(rows.into_iter().map(|row| row.id));
                }
            }
            let ids = |rows: &Vec<Row>| rows.iter().map(|row| row.id).collect::<BTreeSet<_>>();
            assert_eq!(all, expected.iter().map(ids).collect::<Vec<_>>());
        }
        let at = expected.len() / 2;
        let first = make().build().unwrap();
        first.set_epoch(number);
        let taken: Vec<_> = first.iter().unwrap().take(at).map(|b| rows(&b.unwrap())).collect();
        let second = make().build().unwrap();
        second.load_state(&first.state()).unwrap();
        assert_eq!([taken, epoch(&second)].concat(), expected);
    }
}
