//! Promise: corpora are mixed by the stated proportion, exactly and evenly, an epoch has the stated size, and
//! every promise of a loader holds: purity, resume, equal steps, conservation, independent epochs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::HashMap;
use std::path::Path;

use crate::support::{Row, StubCaptioner, clusters, corpus, epoch, rows};
use tldr_loader::config::{Mode, PixelType};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder, LoaderState};
use tldr_loader::shard::ShardWriter;
use tldr_loader::{ErrorKind, SampleId};

/// Three corpora of 5 x 90, 1 x 70 and 2 x 100 samples, in folders of their own.
struct Corpora {
    folder: tempfile::TempDir,
    urls: Vec<String>,
}

const SIZES: [(&str, usize, usize); 3] = [("a", 5, 90), ("b", 1, 70), ("c", 2, 100)];

impl Corpora {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let make = |(name, shards, per_shard): (&str, usize, usize)| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            corpus(&path, shards, per_shard)
        };
        let urls = SIZES.into_iter().map(make).collect();
        Self { folder, urls }
    }

    /// The source of every id.
    fn truth(&self) -> HashMap<u64, usize> {
        let mut truth = HashMap::new();
        for (source, (name, shards, per_shard)) in SIZES.into_iter().enumerate() {
            for number in 0..shards * per_shard {
                let shard = SampleId::shard_hash(name, &format!("{:05}.tar", number / per_shard));
                truth.insert(SampleId::new(shard, &format!("{number:07}")).0, source);
            }
        }
        truth
    }

    /// All three, with these weights.
    fn mix(&self, weights: [f64; 3]) -> LoaderBuilder {
        small(Loader::mix(self.urls.iter().cloned().zip(weights)))
    }

    /// As [`mix`](Self::mix), with the stub captioner.
    fn with_stub(&self, weights: [f64; 3]) -> LoaderBuilder {
        self.mix(weights).captioner(StubCaptioner::new(), clusters()).fuse("concat".parse().unwrap())
    }
}

fn small(builder: LoaderBuilder) -> LoaderBuilder {
    builder.batch_size(16).image_size(8).dtype(PixelType::U8).window(64).threads(2).rank(0).world_size(1)
}

const WEIGHTS: [f64; 3] = [0.5, 0.2, 0.3];

fn option_of(builder: LoaderBuilder) -> (&'static str, String) {
    let error = builder.build().err().expect("it must be refused");
    match error.kind {
        ErrorKind::Option { option, .. } => (option, error.to_string()),
        _ => panic!("{error}"),
    }
}

#[test]
fn every_batch_has_the_stated_proportion_and_the_epoch_has_it_exactly() {
    let corpora = Corpora::new();
    let truth = corpora.truth();
    type Make = fn(&Corpora) -> LoaderBuilder;
    let makes: [(&str, Make); 3] = [
        ("reduced", |c| c.with_stub(WEIGHTS).samples_per_epoch(800)),
        ("full", |c| c.mix(WEIGHTS).mode(Mode::Full).samples_per_epoch(800)),
        ("by default", |c| c.with_stub(WEIGHTS).keep_ratio(0.4)),
    ];
    for (name, make) in makes {
        let loader = make(&corpora).lanes(4).build().unwrap();
        let batches = epoch(&loader);
        assert_eq!(batches.len() as u64, loader.num_batches(), "{name}");
        assert!(batches.len() > 10, "{name}");
        let mut sums = [0; 3];
        for batch in &batches {
            for lane in batch.chunks(4) {
                let mut counts = [0; 3];
                lane.iter().for_each(|row| counts[truth[&row.id]] += 1);
                for (source, &n) in counts.iter().enumerate() {
                    assert!((n as f64 - 4.0 * WEIGHTS[source]).abs() < 1.0 + 1e-9, "{name}: {counts:?}");
                    sums[source] += n;
                }
            }
        }
        let all = loader.num_samples() as f64;
        let stats = loader.stats();
        assert!(stats.counts.conserved(), "{name}");
        assert_eq!(stats.yielded, stats.counts.kept + stats.repeats - stats.surplus, "{name}");
        assert_eq!(stats.sources.len(), 3);
        for (source, &n) in sums.iter().enumerate() {
            assert!((n as f64 - all * WEIGHTS[source]).abs() < 1.0, "{name}: {sums:?} of {all}");
            let own = stats.sources.iter().find(|own| *own.name == *corpora.urls[source]).unwrap();
            assert_eq!(own.yielded, n as u64, "{name}");
            assert!((own.share - WEIGHTS[source]).abs() < 0.01, "{name}: {own:?}");
            let (.., shards, per_shard) = SIZES[source];
            let read = own.passes * (shards * per_shard) as f64;
            assert!((own.read as f64 - read).abs() < 1e-6, "{name}: {own:?}");
        }
        let sum =
            |of: fn(&tldr_loader::loader::SourceStats) -> u64| stats.sources.iter().map(of).sum::<u64>();
        assert_eq!((sum(|s| s.read), sum(|s| s.kept)), (stats.counts.read, stats.counts.kept));
    }
    let loader = corpora.mix(WEIGHTS).mode(Mode::Full).build().unwrap();
    assert_eq!(loader.num_samples(), 720, "as many as there are");
}

/// The global batches that `world_size` ranks yield together from `state` on, each sorted.
fn global(make: &dyn Fn() -> LoaderBuilder, world: usize, state: Option<&LoaderState>) -> Vec<Vec<Row>> {
    let mut batches: Vec<Vec<Row>> = vec![];
    for rank in 0..world {
        let loader = make().batch_size(32 / world).rank(rank).world_size(world).lanes(4).build().unwrap();
        if let Some(state) = state {
            loader.load_state(state).unwrap();
        }
        let own = epoch(&loader);
        let step = state.map_or(0, |state| state.step);
        assert_eq!(own.len() as u64, loader.num_batches() - step, "rank {rank}: equal steps");
        batches.resize_with(own.len(), Vec::new);
        batches.iter_mut().zip(own).for_each(|(all, rows)| all.extend(rows));
    }
    batches.iter_mut().for_each(|b| b.sort_by_key(|r| (r.id, r.pixels)));
    batches
}

#[test]
fn ranks_change_nothing_and_a_state_resumes_on_any_number_of_them() {
    let corpora = Corpora::new();
    let makes: [&dyn Fn() -> LoaderBuilder; 3] = [
        &|| corpora.with_stub(WEIGHTS).samples_per_epoch(700),
        &|| corpora.mix(WEIGHTS).mode(Mode::Full).samples_per_epoch(400),
        &|| corpora.with_stub(WEIGHTS).samples_per_epoch(500).rotate(true),
    ];
    for make in makes {
        let one = global(make, 1, None);
        assert!(one.len() > 5);
        for world in [2, 4] {
            assert_eq!(one, global(make, world, None), "{world} ranks");
        }
        let loader = make().batch_size(8).rank(0).world_size(4).lanes(4).build().unwrap();
        let mut batches = loader.iter().unwrap();
        (0..4).for_each(|_| drop(batches.next().unwrap().unwrap()));
        drop(batches);
        for world in [1, 2] {
            assert_eq!(global(make, world, Some(&loader.state())), one[4..], "resumed on {world} ranks");
        }
    }
}

#[test]
fn a_state_resumes_at_any_step_without_a_history() {
    let corpora = Corpora::new();
    let make = || corpora.with_stub(WEIGHTS).samples_per_epoch(300).build().unwrap();
    let history = make();
    (0..3).for_each(|_| drop(epoch(&history)));
    let expected = epoch(&history);
    let mut rng = Rng::new(3, Purpose::Fit, 0);
    for _ in 0..6 {
        let at = rng.below(expected.len() + 1);
        let first = make();
        first.set_epoch(3);
        let begun: Vec<Vec<Row>> = first.iter().unwrap().take(at).map(|b| rows(&b.unwrap())).collect();
        assert_eq!(begun, expected[..at]);
        let second = make();
        second.load_state(&first.state()).unwrap();
        assert_eq!(epoch(&second), expected[at..], "resumed at {at}");
        let stats = second.stats();
        assert_eq!(stats.yielded + stats.replayed, stats.counts.kept + stats.repeats - stats.surplus);
    }
}

#[test]
fn threads_ledger_and_the_order_of_sources_change_nothing() {
    let corpora = Corpora::new();
    let run = |builder: LoaderBuilder| epoch(&builder.samples_per_epoch(600).build().unwrap());
    let expected = run(corpora.with_stub(WEIGHTS));
    assert_eq!(expected, run(corpora.with_stub(WEIGHTS).threads(1)));
    let ledger = Ledger::new();
    let warm = corpora.with_stub([1.0, 1.0, 1.0]).samples_per_epoch(1000).ledger(ledger.clone());
    epoch(&warm.build().unwrap());
    assert_eq!(expected, run(corpora.with_stub(WEIGHTS).ledger(ledger)));
    let other = [2, 0, 1].map(|source| (corpora.urls[source].clone(), 10.0 * WEIGHTS[source]));
    let other = small(Loader::mix(other)).captioner(StubCaptioner::new(), clusters());
    assert_eq!(expected, run(other.fuse("concat".parse().unwrap())));
}

/// Nothing fails here and nothing is dropped: what is yielded is what is read.
#[test]
fn every_sample_of_a_source_is_used_evenly_over_epochs() {
    let corpora = Corpora::new();
    let truth = corpora.truth();
    let loader = corpora.mix([1.0, 1.5, 0.5]).mode(Mode::Full).samples_per_epoch(240).build().unwrap();
    let mut used: HashMap<u64, u64> = HashMap::new();
    let mut sums = [0; 3];
    for number in 0..7 {
        for row in epoch(&loader).into_iter().flatten() {
            *used.entry(row.id).or_default() += 1;
            sums[truth[&row.id]] += 1;
        }
        let stats = loader.stats();
        assert_eq!((stats.repeats, stats.surplus), (0, 0), "epoch {number}");
        for (id, &source) in &truth {
            let (.., shards, per_shard) = SIZES[source];
            let mean = sums[source] / (shards * per_shard) as u64;
            let times = used.get(id).copied().unwrap_or_default();
            assert!(times == mean || times == mean + 1, "epoch {number}: {times} times, mean {mean}");
        }
    }
    assert_eq!(sums, [560, 840, 280]);
}

#[test]
fn one_corpus_has_epochs_of_any_size() {
    let corpora = Corpora::new();
    let one = |samples| small(Loader::builder(&*corpora.urls[0])).samples_per_epoch(samples);
    // Three epochs of a third of a pass are the pass.
    let parts = one(144).mode(Mode::Full).lanes(1).build().unwrap();
    let mut seen: Vec<u64> = vec![];
    (0..3).for_each(|_| seen.extend(epoch(&parts).into_iter().flatten().map(|row| row.id)));
    assert_eq!(parts.stats().sources[0].passes, 0.32);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 432, "of 450, none twice");
    // An epoch of four passes that rotate goes round the pool once.
    let rotating = one(450).keep_ratio(0.25).rotate(true).build().unwrap();
    let mut seen: Vec<u64> = epoch(&rotating).into_iter().flatten().map(|row| row.id).collect();
    let stats = rotating.stats();
    let all = seen.len() as u64;
    assert_eq!(all, 448);
    seen.sort_unstable();
    seen.dedup();
    assert!(all - seen.len() as u64 <= stats.repeats, "{} of {all}, {} repeats", seen.len(), stats.repeats);
    assert!(stats.repeats < 10);
    // The whole of it by one name or the other.
    let (sized, plain) = (
        one(448).mode(Mode::Full).build().unwrap(),
        small(Loader::builder(&*corpora.urls[0])).mode(Mode::Full),
    );
    assert_eq!(sized.num_batches(), plain.build().unwrap().num_batches());
}

#[test]
fn every_pass_conserves_samples_that_fail() {
    let corpora = Corpora::new();
    let bad = corpora.folder.path().join("bad");
    std::fs::create_dir(&bad).unwrap();
    let mut writer = ShardWriter::create(bad.join("00000.tar")).unwrap();
    for i in 0..20u8 {
        // Half an image: its header is sound, so that it fails only when its batch is made.
        let png = support::png([i; 3]);
        let png = if i % 5 == 4 { &png[..png.len() - 40] } else { &png[..] };
        let caption: &[u8] = if i == 7 { b" " } else { b"a caption" };
        writer.write(&format!("{i:03}"), &[("png", png), ("txt", caption)]).unwrap();
    }
    writer.finish().unwrap();
    let sources = [(corpora.urls[0].clone(), 0.5), (bad.display().to_string(), 0.5)];
    // 160 places for 20 samples: eight passes.
    let loader =
        small(Loader::mix(sources)).mode(Mode::Full).samples_per_epoch(320).max_errors(1e9).build().unwrap();
    let batches = epoch(&loader);
    assert_eq!(batches.len(), 20);
    let stats = loader.stats();
    let own = &stats.shards[&*format!("{}/00000.tar", bad.display())];
    assert!(stats.counts.conserved() && own.conserved());
    assert_eq!((own.read, own.kept, own.failures()), (160, 8 * 15, 8 * 5), "{own:?}");
    assert_eq!(stats.yielded, stats.counts.kept + stats.repeats - stats.surplus);
}

/// A lane that has no kept sample of a small source takes another source's.
#[test]
fn a_source_too_small_for_its_lanes_does_not_end_the_run() {
    let corpora = Corpora::new();
    let tiny = corpora.folder.path().join("tiny");
    std::fs::create_dir(&tiny).unwrap();
    let tiny = corpus(&tiny, 1, 5);
    let make = |world: usize| {
        let sources = [(corpora.urls[0].clone(), 0.97), (tiny.clone(), 0.03)];
        small(Loader::mix(sources)).samples_per_epoch(160).keep_ratio(0.2).lanes(16).world_size(world)
    };
    let loader = make(1).build().unwrap();
    let batches = epoch(&loader);
    assert_eq!(batches.len(), 10);
    assert!(loader.stats().repeats > 0);
    assert_eq!(batches, epoch(&make(1).threads(1).build().unwrap()));
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let corpora = Corpora::new();
    let mix = |weights| corpora.mix(weights).keep_ratio(0.25);
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let (option, message) = option_of(mix([0.5, weight, 0.5]));
        assert!(option == "weight" && message.contains("/b/"), "{message}");
    }
    let (option, message) = option_of(mix([1.0, 1e-9, 1.0]));
    assert!(option == "weight" && message.contains("raise the weight"), "{message}");
    assert_eq!(option_of(mix(WEIGHTS).mode(Mode::Eval)).0, "weight");
    assert_eq!(option_of(mix(WEIGHTS).samples_per_epoch(15)).0, "samples_per_epoch");
    assert_eq!(option_of(mix(WEIGHTS).samples_per_epoch(u64::MAX)).0, "samples_per_epoch");
    let eval = small(Loader::builder(&*corpora.urls[0])).mode(Mode::Eval).samples_per_epoch(32);
    assert_eq!(option_of(eval).0, "samples_per_epoch");
    let nothing = small(Loader::builder(&*corpora.urls[1])).keep_ratio(0.001).samples_per_epoch(32);
    let (option, message) = option_of(nothing);
    assert!(option == "samples_per_epoch" && message.contains("raise keep_ratio"), "{message}");
    assert_eq!(option_of(Loader::mix(Vec::<(String, f64)>::new())).0, "sources");
    let (option, message) =
        option_of(small(Loader::mix([(&*corpora.urls[0], 1.0), ("no/such/folder", 1.0)])).keep_ratio(0.25));
    assert!(option == "urls" && message.contains("no/such/folder"), "{message}");
    // One name for two, and names that are equal: samples could not be told apart.
    let (option, message) = option_of(mix(WEIGHTS).name("test"));
    assert!(option == "urls" && message.contains("give each source a name= of its own"), "{message}");
    let twin = corpora.folder.path().join("elsewhere/a");
    std::fs::create_dir_all(&twin).unwrap();
    let twin = corpus(&twin, 1, 20);
    let (option, message) =
        option_of(small(Loader::mix([(&*corpora.urls[0], 1.0), (&*twin, 1.0)])).keep_ratio(0.25));
    assert!(option == "urls" && message.contains("each with a name= of its own"), "{message}");
    let (option, message) =
        option_of(small(Loader::mix([(&*corpora.urls[0], 1.0), (&*corpora.urls[0], 1.0)])).keep_ratio(0.25));
    assert!(option == "urls" && message.contains("listed twice"), "{message}");
    // How much an epoch yields is said twice.
    let schedule = [(0, 0.25), (3, 1.0)];
    for builder in [
        corpora.with_stub(WEIGHTS).keep_ratio(schedule),
        support::with_stub(&corpora.urls[0]).samples_per_epoch(64).keep_ratio(schedule),
    ] {
        let (option, message) = option_of(builder);
        assert!(option == "keep_ratio" && message.contains("samples_per_epoch"), "{message}");
    }
}

#[test]
fn states_of_other_mixes_are_refused() {
    let corpora = Corpora::new();
    let make = |weights, samples| corpora.with_stub(weights).samples_per_epoch(samples).build().unwrap();
    let state = make(WEIGHTS, 320).state();
    // As many batches, by the same proportion.
    assert!(make(WEIGHTS.map(|weight| 3.0 * weight), 327).load_state(&state).is_ok());
    let others = [
        (make([0.5, 0.3, 0.2], 320), "shares of the sources: this loader has"),
        (make(WEIGHTS, 640), "samples of an epoch: this loader has 640, the state 320"),
    ];
    for (other, named) in others {
        let message = other.load_state(&state).unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
    let names = |path: &Path| format!("{}", path.display());
    let list: Vec<String> = SIZES.iter().map(|(name, ..)| names(&corpora.folder.path().join(name))).collect();
    let plain = small(Loader::builder(list)).captioner(StubCaptioner::new(), clusters());
    assert!(plain.fuse("concat".parse().unwrap()).build().unwrap().load_state(&state).is_err());
}
