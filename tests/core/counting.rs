//! Promise: lanes are cut by what counts. Whatever filter, subset, score or plan says which samples do, and however
//! unevenly they lie, every lane has as many of them as any other: none is repeated, and less than a global batch is
//! left over. The cut is a function of the corpus and the options, so that ranks, resumed runs and ledgers agree.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::fault_server;
use crate::support;
use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{Row, StubCaptioner, builder, clusters, epoch, eval, full, png, rows};
use tldr_loader::ErrorKind;
use tldr_loader::config::{Gate, Selection};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{LoaderBuilder, LoaderState, Stats};
use tldr_loader::shard::ShardWriter;

const LANES: usize = 4;

/// A corpus whose samples say in their json whether they are good, and their keys, all and good ones.
struct Corpus {
    _folder: tempfile::TempDir,
    urls: String,
    all: usize,
    good: BTreeSet<String>,
}

/// Writes a shard for each of `shards`; sample i of shard s is good where `is_good(s, i)`.
fn write(shards: &[usize], mut is_good: impl FnMut(usize, usize) -> bool) -> Corpus {
    let folder = tempfile::tempdir().unwrap();
    let mut good = BTreeSet::new();
    for (shard, &samples) in shards.iter().enumerate() {
        let mut writer = ShardWriter::create(folder.path().join(format!("{shard:05}.tar"))).unwrap();
        for i in 0..samples {
            let key = format!("{shard:02}{i:04}");
            let is_good = is_good(shard, i);
            let json = format!("{{\"good\": {is_good}, \"score\": {}}}", if is_good { 0.9 } else { 0.1 });
            let picture = png([shard as u8, i as u8, (i / 256) as u8]);
            let caption = format!("picture {key}");
            let members: [(&str, &[u8]); 3] =
                [("png", &picture), ("txt", caption.as_bytes()), ("json", json.as_bytes())];
            writer.write(&key, &members).unwrap();
            if is_good {
                good.insert(key);
            }
        }
        writer.finish().unwrap();
    }
    let urls = support::pattern(folder.path(), shards.len());
    Corpus { _folder: folder, urls, all: shards.iter().sum(), good }
}

/// Corpora in which good samples lie in one shard, in a few stretches, or thinly in some shards.
fn corpora() -> Vec<Corpus> {
    let mut rng = Rng::new(3, Purpose::Synth, 0);
    let thin: Vec<f64> = (0..6).map(|shard| [0.0, 0.02, 0.6, 0.1, 0.0, 0.9][shard]).collect();
    vec![
        write(&[120; 4], |shard, _| shard == 2),
        write(&[200, 64, 1, 130, 300], |shard, i| (i / 40 + shard).is_multiple_of(3)),
        write(&[150; 6], move |shard, _| rng.unit() < thin[shard]),
    ]
}

fn filtered(corpus: &Corpus) -> LoaderBuilder {
    full(&corpus.urls).lanes(LANES).batch_size(8).filter("good = true".parse().unwrap())
}

fn scored(corpus: &Corpus) -> LoaderBuilder {
    let share = corpus.good.len() as f64 / corpus.all as f64;
    builder(&corpus.urls).lanes(LANES).batch_size(8).gate(Gate::at_least(0.5).by("score")).keep_ratio(share)
}

fn subset(corpus: &Corpus) -> LoaderBuilder {
    let list = Path::new(corpus.urls.rsplit_once('/').unwrap().0).join("good.txt");
    std::fs::write(&list, corpus.good.iter().map(|key| format!("{key}\n")).collect::<String>()).unwrap();
    full(&corpus.urls).lanes(LANES).batch_size(8).subset(list)
}

type Make = fn(&Corpus) -> LoaderBuilder;
const KINDS: [(&str, Make); 3] = [("where", filtered), ("score_key", scored), ("subset", subset)];

/// Every good sample once but for less than a batch, and nothing else.
fn check(name: &str, corpus: &Corpus, batches: &[Vec<Row>], stats: &Stats, global: usize) {
    let keys: Vec<&String> = batches.iter().flatten().map(|row| &row.key).collect();
    let distinct: BTreeSet<&String> = keys.iter().copied().collect();
    assert_eq!(keys.len(), corpus.good.len() / global * global, "{name}");
    assert_eq!(distinct.len(), keys.len(), "{name}: nothing comes twice");
    assert!(distinct.iter().all(|key| corpus.good.contains(*key)), "{name}");
    assert_eq!((stats.repeats, stats.surplus), (0, (corpus.good.len() % global) as u64), "{name}");
    assert!(stats.counts.conserved());
    assert_eq!(stats.counts.read, corpus.all as u64, "{name}: every sample is in one lane");
    assert_eq!(stats.counts.kept, corpus.good.len() as u64, "{name}");
}

#[test]
fn nothing_is_repeated_and_less_than_a_batch_is_left_over() {
    for corpus in corpora() {
        for (name, make) in KINDS {
            let loader = make(&corpus).build().unwrap();
            for _ in 0..3 {
                let batches = epoch(&loader);
                assert_eq!(batches.len() as u64, loader.num_batches(), "{name}");
                check(name, &corpus, &batches, &loader.stats(), 8);
            }
            assert!(loader.stats().warnings(8).is_empty(), "{name}: {:?}", loader.stats().warnings(8));
        }
    }
}

#[test]
fn in_several_passes_too() {
    let corpus = &corpora()[1];
    let n = corpus.good.len();
    for (name, make) in KINDS {
        // Two and a half passes, in whole batches.
        let samples = (5 * n / 2 / 8 * 8) as u64;
        let loader = make(corpus).samples_per_epoch(samples).build().unwrap();
        let keys: Vec<String> = epoch(&loader).into_iter().flatten().map(|row| row.key).collect();
        assert_eq!((keys.len() as u64, loader.stats().repeats), (samples, 0), "{name}");
        let times = |key: &String| keys.iter().filter(|other| *other == key).count();
        assert!(corpus.good.iter().all(|key| (2..=3).contains(&times(key))), "{name}");
    }
}

/// The global batches of `world` ranks, from `state` on, and the state behind the first `take`.
fn ranks(
    make: &dyn Fn() -> LoaderBuilder,
    world: usize,
    state: Option<&LoaderState>,
    take: usize,
) -> (Vec<Vec<Row>>, LoaderState) {
    let mut all: Vec<Vec<Row>> = vec![];
    let mut last = None;
    for rank in 0..world {
        let loader = make().batch_size(8 / world).rank(rank).world_size(world).build().unwrap();
        if let Some(state) = state {
            loader.load_state(state).unwrap();
        }
        let own: Vec<Vec<Row>> = loader.iter().unwrap().take(take).map(|b| rows(&b.unwrap())).collect();
        all.resize_with(own.len().max(all.len()), Vec::new);
        all.iter_mut().zip(own).for_each(|(batch, own)| batch.extend(own));
        last = Some(loader.state());
    }
    all.iter_mut().for_each(|batch| batch.sort_by_key(|row| row.id));
    (all, last.unwrap())
}

#[test]
fn ranks_and_resumed_runs_agree() {
    for corpus in corpora().iter().take(2) {
        for (name, kind) in KINDS {
            let make = || kind(corpus);
            let (whole, _) = ranks(&make, 1, None, usize::MAX);
            for world in [2, 4] {
                assert_eq!(ranks(&make, world, None, usize::MAX).0, whole, "{name} on {world} ranks");
            }
            for at in [1, whole.len() / 2, whole.len()] {
                let (first, state) = ranks(&make, 2, None, at);
                assert_eq!(first, whole[..at], "{name}");
                for world in [1, 4] {
                    let rest = ranks(&make, world, Some(&state), usize::MAX).0;
                    // A state at the very end may begin the next epoch.
                    if at < whole.len() {
                        assert_eq!(rest, whole[at..], "{name}: resumed at {at} on {world} ranks");
                    }
                }
            }
        }
    }
}

#[test]
fn signals_windows_and_ledgers_agree() {
    let corpus = &corpora()[1];
    let ledger = Ledger::new();
    let make = |ledger: Ledger| {
        let stub = builder(&corpus.urls).captioner(StubCaptioner::new(), clusters()).gate(Gate::OFF);
        stub.lanes(LANES).batch_size(8).keep_ratio(0.5).filter("good = true".parse().unwrap()).ledger(ledger)
    };
    let loader = make(ledger.clone()).build().unwrap();
    let first = epoch(&loader);
    assert_eq!(first.len() as u64, loader.num_batches());
    assert_eq!(loader.num_batches(), corpus.good.len() as u64 / 2 / 8);
    let stats = loader.stats();
    assert_eq!((stats.counts.read, stats.counts.conserved()), (corpus.all as u64, true));
    // From the ledger alone, and with a part of it lacking.
    let again = make(ledger).build().unwrap();
    assert_eq!(epoch(&again), first);
    assert_eq!(again.stats().encoded, 0);
    assert_eq!(again.stats().counts, stats.counts);
}

#[test]
fn evaluation_is_shared_out_by_what_counts() {
    for corpus in &corpora() {
        let mut seen = vec![];
        let mut sizes = vec![];
        for rank in 0..3 {
            let counted = eval(&corpus.urls).batch_size(8).filter("good = true".parse().unwrap());
            let loader = counted.rank(rank).world_size(3).build().unwrap();
            assert_eq!(loader.num_samples(), corpus.good.len() as u64);
            let mut keys = vec![];
            for batch in loader.iter().unwrap() {
                let batch = batch.unwrap();
                // Rows that make ranks equally long are no samples.
                let real = rows(&batch).into_iter().zip(batch.valid.as_slice()).filter(|(_, valid)| **valid);
                keys.extend(real.map(|(row, _)| row.key));
            }
            sizes.push(keys.len());
            seen.extend(keys);
        }
        let distinct: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!((distinct.len(), &distinct), (seen.len(), &corpus.good), "complete, and each once");
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
    }
}

/// In an epoch of a schedule that keeps everything, the score says nothing: lanes are cut by what filter and subset let
/// pass.
#[test]
fn epochs_that_keep_everything_are_cut_by_all() {
    let corpus = &corpora()[2];
    let loader = builder(&corpus.urls).lanes(LANES).batch_size(8).gate(Gate::at_least(0.5).by("score"));
    let share = corpus.good.len() as f64 / corpus.all as f64;
    let loader = loader.keep_ratio(vec![(0, share), (1, 1.0)]).build().unwrap();
    check("schedule", corpus, &epoch(&loader), &loader.stats(), 8);
    let whole: Vec<String> = epoch(&loader).into_iter().flatten().map(|row| row.key).collect();
    assert_eq!(whole.len(), corpus.all / 8 * 8);
    assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), whole.len());
    assert_eq!(loader.stats().repeats, 0);
}

#[test]
fn a_state_of_other_counts_is_refused() {
    // As long, and as many in all, but elsewhere.
    let one = write(&[120; 4], |shard, _| shard == 2);
    let other = write(&[120; 4], |shard, _| shard == 1);
    let state = filtered(&one).build().unwrap().state();
    let refused = filtered(&other).build().unwrap().load_state(&state).unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::State(_)));
    let message = refused.to_string();
    assert!(message.contains("samples that count in each shard: this loader has content"), "{message}");
    assert!(!message.contains("samples that count: "), "their sum is the same: {message}");
    let more = write(&[120; 4], |shard, _| shard < 2);
    let message = filtered(&more).build().unwrap().load_state(&state).unwrap_err().to_string();
    assert!(message.contains("samples that count: this loader has 240, the state 120"), "{message}");
}

/// What counts and cannot be used is known only when it is read: the lane repeats, and the warning says which it is.
#[test]
fn a_lane_that_runs_short_is_named_with_its_numbers() {
    let corpus = write(&[100; 4], |_, i| i < 60);
    let folder = Path::new(corpus.urls.rsplit_once('/').unwrap().0);
    let mut writer = ShardWriter::create(folder.join("00001.tar")).unwrap();
    for i in 0..100 {
        let json = format!("{{\"good\": {}}}", i < 60);
        let members: [(&str, &[u8]); 3] =
            [("png", &png([1, i, 0])), ("json", json.as_bytes()), ("txt", b" ")];
        writer.write(&format!("01{i:04}"), &members).unwrap();
    }
    writer.finish().unwrap();
    let loader = filtered(&corpus).max_errors(1e9).build().unwrap();
    let result: Result<Vec<_>, _> = loader.iter().unwrap().collect();
    let stats = loader.stats();
    match result {
        // A lane may have nothing else.
        Err(error) => {
            assert!(matches!(error.kind, ErrorKind::NoSamples { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("60 failed (60 empty-caption)"), "{message}");
            assert!(message.contains("excluded by where = \"good = true\""), "{message}");
        }
        Ok(_) => {
            let warning = stats.warnings(8).into_iter().find(|w| w.contains("repeating")).unwrap();
            assert!(warning.contains("the shortest of this rank is lane "), "{warning}");
            assert!(warning.contains("of 4, with ") && warning.contains("empty-caption"), "{warning}");
            assert!(warning.contains("excluded by where = \"good = true\""), "{warning}");
        }
    }
}

#[test]
fn a_plan_is_yielded_whole_but_for_less_than_a_batch() {
    use tldr_loader::jobs::plan;
    use tldr_loader::select::Policy;

    let folder = tempfile::tempdir().unwrap();
    // The second half of the corpus is kept twice as often: its captions pass the gate.
    let urls = support::corpus(folder.path(), 5, 208);
    let policy = Policy {
        selection: Selection { gate: Some(Gate::top(0.5)), ..Selection::default() },
        ..Policy::default()
    };
    let ledger = folder.path().join("ledger");
    let job = support::plan_job(&urls, &ledger, policy);
    let file = plan(&job, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap().plan.unwrap();
    let kept: BTreeSet<u64> = file.plan.kept().map(|kept| kept.id.0).collect();
    assert_eq!(kept.len(), 260);
    let path = folder.path().join("plan.parquet");
    file.save(&path).unwrap();
    let check = |ledger: Option<Ledger>| {
        let loader = builder(&urls).plan(&path).lanes(LANES).batch_size(8);
        let loader = ledger.into_iter().fold(loader, LoaderBuilder::ledger).build().unwrap();
        for _ in 0..3 {
            let ids: Vec<u64> = epoch(&loader).into_iter().flatten().map(|row| row.id).collect();
            let distinct: BTreeSet<u64> = ids.iter().copied().collect();
            assert_eq!((ids.len(), distinct.len()), (256, 256));
            assert!(distinct.is_subset(&kept));
            let stats = loader.stats();
            assert_eq!((stats.repeats, stats.surplus, stats.counts.kept), (0, 4, 260));
            assert_eq!((stats.counts.read, stats.counts.conserved()), (1040, true));
        }
    };
    check(None);
    check(Some(Ledger::open(&ledger, None).unwrap()));
    let make = || builder(&urls).plan(&path).lanes(LANES);
    let (whole, _) = ranks(&make, 1, None, usize::MAX);
    let (_, state) = ranks(&make, 4, None, 5);
    assert_eq!(ranks(&make, 2, Some(&state), usize::MAX).0, whole[5..]);
}

/// More remote shards than are read through for it, without Parquet files: their counts are estimates, which shift the
/// cuts, and lose nothing.
#[test]
fn many_remote_shards_are_estimated() {
    use fault_server::{Reply, Server};

    let corpus = write(&[12; 70], |shard, i| (i + shard).is_multiple_of(2));
    let folder = Path::new(corpus.urls.rsplit_once('/').unwrap().0);
    let mut sizes = vec![];
    let mut files: Vec<(String, Vec<u8>)> = vec![];
    for shard in 0..70 {
        let name = format!("{shard:05}.tar");
        files.push((format!("/data/{name}"), std::fs::read(folder.join(&name)).unwrap()));
        sizes.push(format!("{name:?}: 12"));
    }
    files.push(("/data/sizes.json".into(), format!("{{{}}}", sizes.join(", ")).into_bytes()));
    let server = Server::start(files, |_| Reply::default());
    let urls = server.url("/data/{00000..00069}.tar");
    let loader = full(&urls).lanes(LANES).batch_size(8).filter("good = true".parse().unwrap());
    let loader = loader.build().unwrap();
    let of_shards = || server.requests().iter().filter(|r| r.target.ends_with(".tar")).count();
    assert!(of_shards() <= 16, "a look into 16 of them");
    let batches = epoch(&loader);
    assert_eq!(batches.len() as u64, loader.num_batches());
    let stats = loader.stats();
    assert_eq!((stats.counts.read, stats.counts.excluded), (840, 420));
    assert_eq!(stats.yielded, stats.counts.kept + stats.repeats - stats.surplus);
    let counted = loader.state().settings.get("samples that count").cloned();
    assert_eq!(counted.as_deref(), Some("420"), "half of each");
}
