//! Promise: a plan is a function of the corpus, the captioner and the policy, however it is made; a
//! loader that takes one yields exactly its samples, under every promise of a loader; what it was not
//! made for is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::support::with_policy;
use crate::support::{Altered, Row, StubCaptioner, builder, clusters, corpus, epoch, rows};
use tldr_loader::Error;
use tldr_loader::config::{Gate, Mode, PixelType, Selection};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::Alpha;
use tldr_loader::jobs::{PlanJob, PlanSummary, estimate, plan};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder, LoaderState, PlanFile};
use tldr_loader::select::Policy;

fn job(urls: &str, ledger: &Path) -> PlanJob {
    let policy = Policy {
        selection: Selection { gate: Some(Gate::top(0.5)), ..Selection::default() },
        ..Policy::default()
    };
    support::plan_job(urls, ledger, policy)
}

/// Runs `job` and says how many rows the stub was asked for.
fn run(job: &PlanJob) -> (PlanSummary, usize) {
    let stub = StubCaptioner::new();
    let encoded = stub.encoded.clone();
    let summary = plan(job, stub, clusters(), &mut |_, _, _| Ok(())).unwrap();
    let encoded = encoded.load(Ordering::SeqCst);
    (summary, encoded)
}

/// A corpus, its plan and the ledger it was made with.
struct Planned {
    folder: tempfile::TempDir,
    urls: String,
    path: PathBuf,
    file: PlanFile,
}

impl Planned {
    fn new(shards: usize, per_shard: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), shards, per_shard);
        let file = run(&job(&urls, &folder.path().join("ledger"))).0.plan.unwrap();
        let path = folder.path().join("plan.parquet");
        file.save(&path).unwrap();
        Self { folder, urls, path, file }
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.folder.path().join("ledger"), None).unwrap()
    }

    fn builder(&self) -> LoaderBuilder {
        builder(&self.urls).plan(&self.path)
    }

    fn kept(&self) -> BTreeSet<u64> {
        self.file.plan.kept().map(|kept| kept.id.0).collect()
    }

    fn refusal(&self, change: impl Fn(LoaderBuilder) -> LoaderBuilder) -> String {
        change(self.builder()).build().err().unwrap().to_string()
    }
}

#[test]
fn the_same_bytes_for_any_order_and_any_parts() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 5, 150);
    let path = |name: &str| folder.path().join(name);
    let written = |file: &PlanFile, name: &str| {
        file.save(path(name)).unwrap();
        fs::read(path(name)).unwrap()
    };
    let (summary, encoded) = run(&job(&urls, &path("one")));
    let file = summary.plan.unwrap();
    let expected = written(&file, "one.parquet");
    assert_eq!((encoded, summary.recorded), (750, 5));
    assert_eq!(file.plan.counts().samples, 750);
    assert_eq!(PlanFile::load(path("one.parquet")).unwrap(), file);
    // Again, from the ledger alone.
    let (summary, encoded) = run(&job(&urls, &path("one")));
    assert_eq!((encoded, summary.recorded, summary.encoded), (0, 0, 0));
    assert_eq!(written(&summary.plan.unwrap(), "again.parquet"), expected);
    // Shards in another order.
    let reversed: Vec<String> =
        (0..5).rev().map(|i| path(&format!("{i:05}.tar")).display().to_string()).collect();
    let (summary, encoded) = run(&job(&reversed.join("::"), &path("one")));
    assert_eq!(encoded, 0);
    assert_eq!(written(&summary.plan.unwrap(), "reversed.parquet"), expected);
    // In parts, one of them twice, into a ledger of their own.
    let mut total = 0;
    for part in [(1, 3), (0, 3), (1, 3), (2, 3)] {
        let (summary, encoded) = run(&PlanJob { part: Some(part), ..job(&urls, &path("parts")) });
        assert!(summary.plan.is_none());
        total += encoded;
    }
    let (summary, encoded) = run(&job(&urls, &path("parts")));
    assert_eq!((total, encoded), (750, 0), "no sample is encoded twice");
    assert_eq!(written(&summary.plan.unwrap(), "parts.parquet"), expected);
}

#[test]
fn signals_of_a_run_are_used_and_another_policy_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 128);
    let ledger = folder.path().join("ledger");
    let warm = builder(&urls).captioner(StubCaptioner::new(), clusters());
    epoch(&warm.ledger(Ledger::open(&ledger, None).unwrap()).build().unwrap());
    let (summary, encoded) = run(&job(&urls, &ledger));
    assert_eq!(encoded, 0);
    assert_eq!(summary.plan.unwrap().plan.counts().kept, 128);
    for policy in [
        Policy {
            selection: Selection { keep_ratio: Some(0.1.into()), ..Selection::default() },
            ..Policy::default()
        },
        Policy {
            selection: Selection { gate: Some(Gate::top(0.5)), ..Selection::default() },
            seed: 3,
            ..Policy::default()
        },
        Policy {
            selection: Selection { quota: Some("cap(9)".parse().unwrap()), ..Selection::default() },
            ..Policy::default()
        },
        Policy { selection: Selection { dedup: Some(0.9999), ..Selection::default() }, ..Policy::default() },
    ] {
        let (summary, encoded) = run(&with_policy(job(&urls, &ledger), policy.clone()));
        let counts = summary.plan.unwrap().plan.counts().clone();
        assert_eq!(encoded, 0, "{policy:?}");
        assert!(counts.kept > 40 && counts.kept <= counts.slots);
        assert_eq!(counts.copies > 0, policy.selection.dedup.is_some());
    }
    // Embeddings were not kept: windows without are encoded again, once.
    let policy =
        Policy { selection: Selection { dedup: Some(0.9999), ..Selection::default() }, ..Policy::default() };
    let job = PlanJob { embeddings: true, ..with_policy(job(&urls, &ledger), policy) };
    let (first, encoded) = run(&job);
    assert_eq!(encoded, 512);
    let (second, encoded) = run(&job);
    assert_eq!(encoded, 0);
    assert_eq!(first.plan, second.plan);
    assert!(first.distance > Some(1), "with a margin, since embeddings tell in the end");
}

#[test]
fn a_loader_yields_the_plan() {
    let planned = Planned::new(5, 150);
    let counts = planned.file.plan.counts().clone();
    assert_eq!(counts.kept, (0.25 * 750.0f64).round() as u64);
    // Without and with the ledger, with and without a captioner.
    let with_captioner = |builder: LoaderBuilder| builder.captioner(StubCaptioner::new(), clusters());
    let mut runs = vec![];
    for (name, builder) in [
        ("plan alone", planned.builder()),
        ("and ledger", planned.builder().ledger(planned.ledger())),
        ("and captioner", with_captioner(planned.builder())),
        ("and both", with_captioner(planned.builder()).ledger(planned.ledger())),
    ] {
        let loader = builder.batch_size(4).build().unwrap();
        assert_eq!(loader.num_batches(), counts.kept / 4);
        for _ in 0..2 {
            let batches = epoch(&loader);
            assert_eq!(batches.len() as u64, counts.kept / 4);
            let stats = loader.stats();
            assert!(stats.counts.conserved());
            assert_eq!(
                (stats.counts.read, stats.counts.kept, stats.encoded),
                (750, counts.kept, 0),
                "{name}"
            );
            assert_eq!(stats.yielded, stats.counts.kept + stats.repeats - stats.surplus);
            let yielded: BTreeSet<u64> = batches.iter().flatten().map(|row| row.id).collect();
            assert!(yielded.is_subset(&planned.kept()));
            assert_eq!(yielded.len() as u64, stats.yielded - stats.repeats);
            runs.push(batches);
        }
    }
    for pair in runs.chunks(2) {
        assert_eq!(pair, &runs[..2]);
    }
    let shares: Vec<Option<f32>> =
        planned.builder().build().unwrap().iter().unwrap().flat_map(|batch| batch.unwrap().rows.pi).collect();
    assert!(shares.iter().all(|pi| pi.is_some_and(|pi| (pi - 0.5).abs() < 0.1)), "half of the gated half");
}

#[test]
fn corpora_of_a_plan_are_mixed_by_weight() {
    let folder = tempfile::tempdir().unwrap();
    let make = |(name, shards, per_shard): (&str, usize, usize)| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        corpus(&path, shards, per_shard)
    };
    let urls = [("a", 3, 100), ("b", 1, 120)].map(make);
    let ledger = folder.path().join("ledger");
    let mut job = job(&urls.join("::"), &ledger);
    job.config.sources[0].name = None;
    let file = run(&job).0.plan.unwrap();
    let path = folder.path().join("plan.parquet");
    file.save(&path).unwrap();
    let hashes = |source: &str| -> BTreeSet<u64> {
        file.shards.iter().filter(|shard| shard.source == source).map(|shard| shard.hash).collect()
    };
    let loader = Loader::mix(urls.clone().map(|urls| (urls, 2.0)))
        .plan(&path)
        .ledger(Ledger::open(&ledger, None).unwrap())
        .samples_per_epoch(320)
        .batch_size(8)
        .image_size(8)
        .dtype(PixelType::U8)
        .window(64)
        .rank(0)
        .world_size(1)
        .build()
        .unwrap();
    let kept: BTreeSet<u64> = file.plan.kept().map(|kept| kept.id.0).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let batches = epoch(&loader);
        assert_eq!(batches.len(), 40);
        seen.extend(batches.into_iter().flatten().map(|row| row.id));
        let stats = loader.stats();
        assert!(stats.counts.conserved());
        for (source, name) in [(0, "a"), (1, "b")] {
            let own = stats.sources.iter().find(|own| *own.name == *urls[source]).unwrap();
            let hashes = hashes(name);
            let planned = file.plan.kept().filter(|kept| hashes.contains(&kept.shard)).count();
            // Lanes are cut by what the plan keeps: nothing is left over, and nothing repeated.
            assert_eq!((own.yielded, own.kept), (160, 160), "{name}");
            assert!((own.passes - 160.0 / planned as f64).abs() < 1e-9, "{name}");
        }
        assert_eq!((stats.repeats, stats.surplus), (0, 0));
    }
    assert_eq!(seen, kept, "all of it in a few passes, and nothing else");
}

#[test]
fn ranks_and_threads_change_nothing() {
    let planned = Planned::new(5, 210);
    let global = |world_size: usize, threads: usize| {
        let mut batches: Vec<Vec<Row>> = vec![];
        for rank in 0..world_size {
            let of_rank = planned.builder().batch_size(32 / world_size).rank(rank).world_size(world_size);
            let own = epoch(&of_rank.lanes(4).threads(threads).ledger(planned.ledger()).build().unwrap());
            batches.resize_with(own.len(), Vec::new);
            batches.iter_mut().zip(own).for_each(|(all, rows)| all.extend(rows));
        }
        batches.iter_mut().for_each(|batch| batch.sort_by_key(|row| (row.id, row.pixels)));
        batches
    };
    let one = global(1, 1);
    assert!(one.len() > 5);
    assert_eq!(one, global(2, 2));
    assert_eq!(one, global(4, 1));
}

#[test]
fn a_state_resumes_with_its_plan_only() {
    let planned = Planned::new(5, 130);
    let whole = planned.builder().build().unwrap();
    whole.set_epoch(2);
    let expected = epoch(&whole);
    let mut rng = Rng::new(1, Purpose::Fit, 0);
    let mut state: Option<LoaderState> = None;
    for _ in 0..4 {
        let at = rng.below(expected.len() + 1);
        let first = planned.builder().build().unwrap();
        first.set_epoch(2);
        let taken: Vec<Vec<Row>> = first.iter().unwrap().take(at).map(|b| rows(&b.unwrap())).collect();
        assert_eq!(taken, expected[..at]);
        let second = planned.builder().ledger(planned.ledger()).build().unwrap();
        second.load_state(&first.state()).unwrap();
        // Naming the epoch keeps the place, also where it is over.
        second.set_epoch(2);
        assert_eq!(epoch(&second), expected[at..], "resumed at {at}");
        state = Some(first.state());
    }
    // Another seed of the plan: the same number of samples, but others.
    let mut job = job(&planned.urls, &planned.folder.path().join("ledger"));
    job.config.seed = 9;
    let other = planned.folder.path().join("other.parquet");
    run(&job).0.plan.unwrap().save(&other).unwrap();
    let loader = builder(&planned.urls).plan(&other).build().unwrap();
    let error = loader.load_state(&state.unwrap()).unwrap_err().to_string();
    assert!(error.contains("seed of the plan: this loader has 9"), "{error}");
}

#[test]
fn what_it_was_not_made_for_is_refused() {
    let planned = Planned::new(4, 100);
    type Change = fn(LoaderBuilder) -> LoaderBuilder;
    let refusals: [(Change, &str); 9] = [
        (|b| b.keep_ratio(0.3), "keep_ratio is 0.3, and 0.25 in the plan"),
        (|b| b.gate(Gate::OFF), "gate is top(1), and top(0.5) in the plan"),
        (|b| b.quota("cap".parse().unwrap()), "quota is cap, and proportional"),
        (|b| b.dedup(0.99), "dedup is 0.99, and none"),
        (|b| b.rotate(true), "rotate is true"),
        (|b| b.window(128), "window is 128, and 64"),
        (|b| b.caption_key("text"), "caption_key, where, subset, captions, max_image_pixels"),
        (|b| b.alpha(Alpha::Drop), "max_image_pixels, exif_orientation, alpha and decoder"),
        (|b| b.lengths(vec![100, 100, 99, 100]), "99 samples for 00002.tar, where it found 100"),
    ];
    for (change, expected) in refusals {
        let error = planned.refusal(change);
        assert!(error.starts_with("invalid plan=") && error.contains(expected), "{error}");
    }
    let full = planned.refusal(|b| b.mode(Mode::Full));
    assert!(full.contains("it has no effect with mode=full"), "{full}");
    // Another corpus: fewer shards, more, or other names.
    let with_plan = |urls: &str| {
        let builder = builder(urls).plan(&planned.path);
        builder.build().err().map(|error| error.to_string()).unwrap_or_default()
    };
    let fewer = with_plan(&support::pattern(planned.folder.path(), 3));
    assert!(fewer.contains("1 more, 00003.tar"), "{fewer}");
    corpus(planned.folder.path(), 5, 100);
    let more = with_plan(&support::pattern(planned.folder.path(), 5));
    assert!(more.contains("00004.tar of the source \"test\" is not in it"), "{more}");
    assert!(planned.refusal(|b| b.name("elsewhere")).contains("is not in it"));
    // Another captioner.
    let error =
        planned.refusal(|b| b.captioner(Altered::new(StubCaptioner::new()).fingerprint(77), clusters()));
    assert!(error.contains("captioner's fingerprint is 000000000000004d"), "{error}");
}

#[test]
fn a_shard_that_changed_since_is_an_error_that_names_it() {
    let planned = Planned::new(3, 100);
    // Other samples under the same name.
    let (a, b) = (planned.folder.path().join("00000.tar"), planned.folder.path().join("00001.tar"));
    fs::copy(b, a).unwrap();
    let loader = planned.builder().build().unwrap();
    let error: Error = loader.iter().unwrap().find_map(Result::err).unwrap();
    let text = error.to_string();
    assert!(text.contains("has the shard changed") && text.contains("00000.tar"), "{text}");
}

#[test]
fn a_damaged_plan_is_refused() {
    let planned = Planned::new(2, 100);
    let whole = fs::read(&planned.path).unwrap();
    let path = planned.folder.path().join("damaged.parquet");
    let mut refused = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        // What can be damaged without notice says nothing of decisions: a digit of the policy.
        match PlanFile::load(&path) {
            Ok(file) => assert_eq!(file.fingerprint(), planned.file.fingerprint(), "byte {at}"),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("plan again"), "{error}");
            }
        }
    }
    assert!(refused > whole.len() / 14, "{refused} of {}", whole.len() / 7);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(PlanFile::load(&path).is_err());
    let text = builder(&planned.urls).plan(planned.folder.path().join("absent")).build().err().unwrap();
    assert!(text.to_string().contains("absent"), "{text}");
}

#[test]
fn an_estimate_says_what_is_missing_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 100);
    let ledger = folder.path().join("ledger");
    let estimated = || {
        let mut stub = StubCaptioner::new();
        let found = estimate(&job(&urls, &ledger), &mut stub, &mut |_, _, _| Ok(())).unwrap();
        (found, stub.encoded.load(Ordering::SeqCst))
    };
    let (found, encoded) = estimated();
    assert_eq!((found.samples, found.missing), (400, 400));
    assert!(encoded > 0 && found.seconds() > 0.0 && !ledger.exists());
    // Each sample costs s to encode; a quarter kept saves 3/4 of 1/rate in each epoch.
    let s = found.seconds_per_sample;
    assert!((found.break_even(0.25, 100.0) - s / (0.75 / 100.0)).abs() < 1e-9);
    run(&PlanJob { part: Some((0, 4)), ..job(&urls, &ledger) });
    assert_eq!(estimated().0.missing, 300);
    run(&job(&urls, &ledger));
    let (found, encoded) = estimated();
    assert_eq!((found.missing, encoded, found.seconds()), (0, 0, 0.0));
}

#[test]
fn a_recording_pass_can_be_stopped_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 100);
    let job = job(&urls, &folder.path().join("ledger"));
    let stop = |_, _, _| Err(Error::captioner("stopped by the caller"));
    let error = plan(&job, StubCaptioner::new(), clusters(), &mut { stop }).unwrap_err().to_string();
    assert!(error.contains("stopped by the caller"), "{error}");
    let first = run(&job).0.plan;
    let mut fresh = job;
    fresh.config.ledger = Some(folder.path().join("fresh").display().to_string());
    assert_eq!(first, run(&fresh).0.plan);
    let given = PlanJob { part: Some((3, 3)), ..PlanJob::new(vec![urls], folder.path().join("ledger")) };
    let error = plan(&given, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("invalid part=3/3"), "{error}");
}

/// A shard of which the filter lets nothing pass is recorded like any other, also as a part of its own, and
/// is no part of what keep_ratio is a share of. Where no gate drops anything, all of the shares pass,
/// whatever their sum is in floating point.
#[test]
fn a_filter_may_leave_nothing_of_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(1, Purpose::Synth, 0);
    for shard in 0..2 {
        let path = folder.path().join(format!("{shard:05}.tar"));
        let mut writer = tldr_loader::shard::ShardWriter::create(path).unwrap();
        for i in 0..120 {
            let image = support::png([0, 1, 2].map(|_| rng.below(256) as u8));
            let json: &[u8] = if shard == 0 { br#"{"ok": true}"# } else { br#"{"ok": false}"# };
            let members: [(&str, &[u8]); 3] = [("png", &image), ("txt", b"a picture"), ("json", json)];
            writer.write(&format!("{shard}{i:03}"), &members).unwrap();
        }
        writer.finish().unwrap();
    }
    let urls = support::pattern(folder.path(), 2);
    let policy = Policy {
        selection: Selection { gate: Some(Gate::OFF), ..Selection::default() },
        ..Policy::default()
    };
    let mut whole = with_policy(job(&urls, &folder.path().join("ledger")), policy);
    whole.config.sources[0].filter = Some("ok = true".parse().unwrap());
    let (summary, encoded) = run(&PlanJob { part: Some((1, 2)), ..whole.clone() });
    assert_eq!((summary.recorded, encoded), (1, 0), "nothing to encode in it");
    let (summary, encoded) = run(&whole);
    let file = summary.plan.unwrap();
    let counts = file.plan.counts();
    assert_eq!((counts.samples, counts.excluded, counts.failed, counts.readable()), (240, 120, 0, 120));
    assert_eq!((counts.kept, encoded), (30, 120));
    let path = folder.path().join("plan.parquet");
    file.save(&path).unwrap();
    let loader = builder(&urls).plan(&path).filter("ok = true".parse().unwrap()).lanes(1).build().unwrap();
    assert_eq!(loader.num_batches(), 30 / 16);
    assert!(epoch(&loader).iter().flatten().all(|row| row.key.starts_with('0')));
    assert_eq!(loader.stats().counts.excluded, 120);
    // What nothing passes is no corpus.
    let mut none = whole;
    none.config.sources[0].filter = Some("OK = true".parse().unwrap());
    let error = plan(&none, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("of 240 where and subset exclude 240, and 0 cannot be read"), "{error}");
}
