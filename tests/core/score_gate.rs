//! Promise: a score that the corpus has gates, at a share or at a threshold, without a captioner or with one. What
//! was measured of it is part of the policy; nothing is encoded for its sake; a sample without a score fails no run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::support::{Row, StubCaptioner, builder, clusters, epoch, png, with_judge};
use tldr_loader::config::{Gate, Priority, Quota};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::shard::ShardWriter;

const SHARDS: usize = 5;
const PER_SHARD: usize = 200;

/// Scores of a corpus, by key; not a number where a sample has none.
type Scores = BTreeMap<String, f32>;

/// Shards whose json has a score, as a number or as text, no number, or no json at all.
fn corpus(folder: &Path) -> (String, Scores) {
    let mut rng = Rng::new(11, Purpose::Synth, 0);
    let mut scores = Scores::new();
    for shard in 0..SHARDS {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for i in 0..PER_SHARD {
            let key = format!("{:05}", shard * PER_SHARD + i);
            let score = (rng.unit() * 1e4).round() / 1e4;
            let (json, score) = match rng.below(20) {
                0 => (r#"{"similarity": null, "n": 1}"#.to_owned(), f32::NAN),
                1 => (r#"{"similarity": nan}"#.to_owned(), f32::NAN),
                2 => (r#"{"similarity": "high"}"#.to_owned(), f32::NAN),
                3 => (String::new(), f32::NAN),
                4 => (format!(r#"{{"similarity": "{score}", "other": 0.5}}"#), score as f32),
                _ => (format!(r#"{{"similarity": {score}, "other": {}}}"#, 1.0 - score), score as f32),
            };
            let picture = png([0, 1, 2].map(|_| rng.below(256) as u8));
            let caption = format!("picture number {key}");
            let mut members: Vec<(&str, &[u8])> = vec![("png", &picture), ("txt", caption.as_bytes())];
            if !json.is_empty() {
                members.push(("json", json.as_bytes()));
            }
            writer.write(&key, &members).unwrap();
            scores.insert(key, score);
        }
        writer.finish().unwrap();
    }
    (support::pattern(folder, SHARDS), scores)
}

/// Gated by similarity, without a captioner.
fn scored(urls: &str) -> LoaderBuilder {
    builder(urls).gate(Gate::top(0.5).by("similarity")).lanes(1)
}

fn keys(loader: &Loader) -> BTreeSet<String> {
    epoch(loader).into_iter().flatten().map(|row| row.key).collect()
}

fn at_least(scores: &Scores, least: f32) -> BTreeSet<String> {
    scores.iter().filter(|(_, score)| **score >= least).map(|(key, _)| key.clone()).collect()
}

#[test]
fn a_threshold_passes_what_reaches_it() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, scores) = corpus(folder.path());
    let passing = at_least(&scores, 0.7);
    let rate = passing.len() as f64 / scores.len() as f64;
    let loader = scored(&urls)
        .gate(Gate::at_least(0.7).by("similarity"))
        .keep_ratio(rate)
        .batch_size(1)
        .build()
        .unwrap();
    assert_eq!(loader.num_batches(), passing.len() as u64, "the corpus is small enough to be measured whole");
    assert_eq!(keys(&loader), passing);
    let stats = loader.stats();
    assert_eq!((stats.counts.dropped_gate, stats.counts.failures()), (1000 - passing.len() as u64, 0));
    assert_eq!(stats.unscored, scores.values().filter(|score| score.is_nan()).count() as u64);
    assert_eq!((stats.encoded, stats.repeats), (0, 0));
    let half =
        scored(&urls).gate(Gate::at_least(0.7).by("similarity")).keep_ratio(rate / 2.0).build().unwrap();
    let kept = keys(&half);
    assert!(kept.is_subset(&passing) && kept.len().abs_diff(passing.len() / 2) <= 16, "{}", kept.len());
}

#[test]
fn a_share_is_cut_at_the_scores_own_quantile() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, scores) = corpus(folder.path());
    for gate in [0.2, 0.5] {
        let loader = scored(&urls)
            .gate(Gate::top(gate).by("similarity"))
            .keep_ratio(gate)
            .batch_size(1)
            .build()
            .unwrap();
        let kept = keys(&loader);
        // Exact: 1,000 different scores or none are cut to a sample, near enough.
        let mut sorted: Vec<f32> = scores.values().copied().filter(|score| !score.is_nan()).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted[(1000.0 * gate) as usize - 1];
        assert_eq!(kept, at_least(&scores, least), "gate {gate}");
    }
    let error = scored(&urls).keep_ratio(0.6).build().err().unwrap().to_string();
    assert!(
        error.contains("invalid keep_ratio=0.6: expected at most 0.5") && error.contains("gate=top(0.5, by"),
        "{error}"
    );
}

#[test]
fn the_same_for_any_threads_ranks_and_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, _) = corpus(folder.path());
    let backwards: Vec<String> =
        (0..SHARDS).rev().map(|i| folder.path().join(format!("{i:05}.tar")).display().to_string()).collect();
    let with_captioner = |b: LoaderBuilder| b.captioner(StubCaptioner::new(), clusters());
    for make in [(|b| b) as fn(LoaderBuilder) -> LoaderBuilder, with_captioner] {
        let of = |b: LoaderBuilder| make(b.gate(Gate::top(0.4).by("similarity")).keep_ratio(0.3).lanes(4));
        let one = epoch(&of(builder(&urls)).build().unwrap());
        assert!(one.len() > 10);
        assert_eq!(one, epoch(&of(builder(&urls).threads(1)).build().unwrap()));
        let other = tldr_loader::Loader::builder(backwards.clone());
        let other = other.name("test").batch_size(16).image_size(8).window(64).rank(0).world_size(1);
        let other = epoch(&of(other.dtype(tldr_loader::config::PixelType::U8)).build().unwrap());
        assert_eq!(one, other, "in any order of the list");
        let mut ranks: Vec<Vec<Row>> = vec![vec![]; one.len()];
        for rank in 0..2 {
            let own = of(builder(&urls).rank(rank).world_size(2).batch_size(8)).build().unwrap();
            ranks.iter_mut().zip(epoch(&own)).for_each(|(all, rows)| all.extend(rows));
        }
        let sorted = |mut batches: Vec<Vec<Row>>| {
            batches.iter_mut().for_each(|batch| batch.sort_by_key(|row| row.id));
            batches
        };
        assert_eq!(sorted(one.clone()), sorted(ranks));
        // A second epoch, from the ledger.
        let loader = of(builder(&urls)).build().unwrap();
        epoch(&loader);
        let counts = (loader.stats().counts, loader.stats().unscored);
        loader.set_epoch(0);
        assert_eq!(epoch(&loader), one);
        assert_eq!((loader.stats().counts, loader.stats().unscored), counts);
    }
}

#[test]
fn a_state_is_of_its_key_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, _) = corpus(folder.path());
    let state = scored(&urls).build().unwrap().state();
    scored(&urls).build().unwrap().load_state(&state).unwrap();
    let first = format!("{}/00000.tar", folder.path().display());
    for (other, named) in [
        (
            scored(&urls).gate(Gate::top(0.4).by("similarity")),
            "gate: this loader has top(0.4, by=similarity)",
        ),
        (
            scored(&urls).gate(Gate::at_least(0.3).by("similarity")),
            "gate: this loader has at_least(0.3, by=similarity)",
        ),
        (
            builder(&urls).gate(Gate::top(0.5).by("other")).lanes(1),
            "gate: this loader has top(0.5, by=other)",
        ),
        (builder(&urls).lanes(1), "gate: this loader has top(1)"),
    ] {
        let error = other.build().unwrap().load_state(&state).unwrap_err().to_string();
        assert!(error.contains(named) && !error.contains("lengths"), "{error}");
    }
    // Another corpus has another cut.
    let error = scored(&first).build().unwrap().load_state(&state).unwrap_err().to_string();
    assert!(error.contains("what the gate lets pass") && error.contains("lengths of the shards"), "{error}");
}

#[test]
fn signals_serve_every_score() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, scores) = corpus(folder.path());
    let ledger = Ledger::new();
    let run = |change: fn(LoaderBuilder) -> LoaderBuilder| {
        let stub = StubCaptioner::new();
        let encoded = stub.encoded.clone();
        let builder =
            builder(&urls).lanes(1).captioner(stub, clusters()).keep_ratio(0.3).ledger(ledger.clone());
        let kept = keys(&change(builder).build().unwrap());
        (encoded.load(Ordering::SeqCst), kept)
    };
    assert_eq!(run(|b| b).0, 1000);
    let (encoded, kept) = run(|b| b.gate(Gate::at_least(0.6).by("similarity")));
    assert_eq!(encoded, 0, "scores are read, and nothing is encoded for them");
    assert!(kept.len() > 200 && kept.is_subset(&at_least(&scores, 0.6)));
    let (encoded, other) = run(|b| b.gate(Gate::top(0.5).by("other")));
    // `other` is 1 - similarity, or 0.5 for one in twenty: half of the corpus is cut at about 0.4.
    assert!(encoded == 0 && other.iter().all(|key| !scores[key].is_nan()));
    assert!(other.len() > 200 && other.iter().filter(|key| scores[*key] >= 0.65).count() <= 60);
    assert_eq!(run(|b| b.gate(Gate::at_least(0.6).by("similarity"))), (0, kept));
}

/// Scores in the ledger make later runs need no json of what is dropped.
#[test]
fn what_is_dropped_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, _) = corpus(folder.path());
    let ledger = folder.path().join("ledger");
    let make = || {
        let ledger = Ledger::open(&ledger, None).unwrap();
        scored(&urls).gate(Gate::at_least(0.8).by("similarity")).keep_ratio(0.1).ledger(ledger).build()
    };
    let loader = make().unwrap();
    let first = epoch(&loader);
    assert!(first.len() > 3);
    for shard in 0..SHARDS {
        let path = folder.path().join(format!("{shard:05}.tar"));
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let field = b"\"similarity\"";
        for at in 0..bytes.len() - field.len() {
            if bytes[at..].starts_with(field) {
                bytes[at + 1] = b'x';
            }
        }
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
    }
    // The field is gone, and a loader that is made now sees it; one that was made before needs it no more.
    loader.set_epoch(0);
    assert_eq!(epoch(&loader), first);
    let error = make().err().unwrap().to_string();
    assert!(error.contains("by=similarity") && error.contains("their fields are n, other, xim"), "{error}");
}

#[test]
fn a_damaged_json_is_a_score_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, scores) = corpus(folder.path());
    // It is a fault where a field of it is needed for more than the score.
    let loader = scored(&urls).where_n_is_null().build().unwrap();
    epoch(&loader);
    assert!(loader.stats().counts.failures() > 0);
    let loader = scored(&urls).build().unwrap();
    epoch(&loader);
    assert_eq!(loader.stats().counts.failures(), 0);
    assert_eq!(loader.stats().unscored, scores.values().filter(|score| score.is_nan()).count() as u64);
}

trait Filtered {
    fn where_n_is_null(self) -> Self;
}

impl Filtered for LoaderBuilder {
    fn where_n_is_null(self) -> Self {
        self.filter("n is null".parse().unwrap())
    }
}

#[test]
fn priorities_go_by_the_score() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, scores) = corpus(folder.path());
    let by = |priority| {
        let builder =
            scored(&urls).gate(Gate::OFF.by("similarity")).keep_ratio(0.25).window(200).priority(priority);
        builder.quota(Quota::Random).batch_size(1).build().unwrap()
    };
    for (priority, sign) in [(Priority::Score, -1.0), (Priority::Hard, 1.0)] {
        let loader = by(priority);
        let kept = keys(&loader);
        let counts = loader.stats().shards;
        for (shard, of_shard) in (0..SHARDS).zip(counts.values()) {
            let own = (shard * PER_SHARD..(shard + 1) * PER_SHARD).map(|number| format!("{number:05}"));
            let mut order: Vec<(f32, String)> =
                own.filter(|key| !scores[key].is_nan()).map(|key| (sign * scores[&key], key)).collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0));
            let first: BTreeSet<String> =
                order.into_iter().take(of_shard.kept as usize).map(|(_, key)| key).collect();
            let of_kept: BTreeSet<String> = kept
                .iter()
                .filter(|key| key.parse::<usize>().unwrap() / PER_SHARD == shard)
                .cloned()
                .collect();
            // What is left over at the end of the epoch is of the lane's last window.
            assert!(
                of_kept.is_subset(&first) && of_kept.len() + 2 >= first.len(),
                "{priority:?}, shard {shard}"
            );
        }
    }
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, _) = corpus(folder.path());
    let error = |builder: LoaderBuilder| builder.build().err().unwrap().to_string();
    for (builder, expected) in [
        (
            builder(&urls).gate(Gate::at_least(0.3)),
            "invalid gate=at_least(0.3): expected at_least(SCORE, by=FIELD)",
        ),
        (scored(&urls).gate(Gate::at_least(f64::NAN).by("similarity")), "at_least(SCORE) with a number"),
        (
            scored(&urls).gate(Gate::at_least(9.0).by("similarity")).keep_ratio(0.1),
            "at most 0, the share that gate=at_least(9, by=similarity) lets through",
        ),
        (
            scored(&urls).gate(Gate::OFF.by("similarity")),
            "invalid gate=top(1, by=similarity): expected a share below 1",
        ),
        (scored(&urls).gate(Gate::top(0.5).by("similarity").within_cluster()), "within=corpus"),
        (builder(&urls).gate(Gate::top(0.5).by("")), "by=FIELD, the name"),
        (builder(&urls).gate(Gate::top(0.5).by("similarty")), "their fields are n, other, similarity"),
        (
            with_judge(&urls).gate(Gate::top(0.5).by("similarity")),
            "invalid rescue=true: expected false with a gate by a score",
        ),
    ] {
        let found = error(builder);
        assert!(found.contains(expected), "{found}");
    }
}

/// The column beside a shard serves as the field.
#[test]
fn a_column_beside_the_shard_is_a_score() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path().join("00000.tar")).unwrap();
    // The file says 0.31, 0.28, nothing and 0.5.
    for key in ["000000000", "000000002", "000000003", "000000005"] {
        writer.write(key, &[("png", &png([1, 2, 3])), ("txt", b"text")]).unwrap();
    }
    writer.finish().unwrap();
    fs::write(folder.path().join("00000.parquet"), include_bytes!("../golden/metadata.parquet")).unwrap();
    let urls = support::pattern(folder.path(), 1);
    let of = |builder: LoaderBuilder| keys(&builder.batch_size(1).build().unwrap());
    let expected = BTreeSet::from(["000000000".to_owned(), "000000005".to_owned()]);
    assert_eq!(of(scored(&urls).gate(Gate::at_least(0.3).by("similarity")).keep_ratio(0.5)), expected);
    assert_eq!(of(scored(&urls).gate(Gate::top(0.5).by("similarity")).keep_ratio(0.5)), expected);
}

mod plans {
    use super::*;
    use tldr_loader::config::Selection;
    use tldr_loader::jobs::{AuditJob, DecisionsJob, ExportBy, ExportJob, PlanJob, audit, export, plan};
    use tldr_loader::select::Policy;

    #[test]
    fn a_plan_goes_by_scores_and_an_export_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let (urls, scores) = corpus(folder.path());
        let gate = Gate::top(0.5).by("similarity");
        let policy = Policy::new(Selection { gate: Some(gate.clone()), ..Selection::default() }, 0);
        let job = |name: &str| support::plan_job(&urls, folder.path().join(name), policy.clone());
        let made =
            |job: &PlanJob| plan(job, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap();
        let whole = made(&job("ledger")).plan.unwrap();
        assert_eq!(*whole.plan.policy().gate(), gate);
        let cut = whole.plan.policy().cut.unwrap();
        assert_eq!((cut.pass_rate, cut.points), (0.5, 1000));
        assert_eq!(whole.plan.counts().kept, 250);
        // In parts, and over signals that were recorded for another policy.
        for part in 0..2 {
            made(&PlanJob { part: Some((part, 2)), ..job("parts") });
        }
        assert_eq!(made(&job("parts")).encoded, 0);
        made(&support::with_policy(job("other"), Policy::default()));
        let again = made(&job("other"));
        assert_eq!((again.encoded, again.plan.unwrap()), (0, whole.clone()));
        let path = folder.path().join("plan.parquet");
        whole.save(&path).unwrap();
        let ledger = Ledger::open(folder.path().join("ledger"), None).unwrap();
        let loader = builder(&urls).plan(&path).ledger(ledger).lanes(1).batch_size(1);
        let kept = keys(&loader.build().unwrap());
        assert_eq!(kept.len(), 250);
        assert!(kept.is_subset(&at_least(&scores, cut.least.unwrap())));
        let refused =
            builder(&urls).plan(&path).gate(Gate::top(0.5).by("other")).build().err().unwrap().to_string();
        assert!(
            refused.contains("gate is top(0.5, by=other), and top(0.5, by=similarity) in the plan"),
            "{refused}"
        );
        // The export of the plan, and of the whole ledger.
        for (by, count) in [(ExportBy::Plan(path.clone()), 250), (ExportBy::All, 1000)] {
            let job = |by, field: &str| {
                let decisions = DecisionsJob::new(folder.path().join("ledger"), by);
                let decisions = DecisionsJob { score_field: Some(field.into()), ..decisions };
                ExportJob::new(decisions, folder.path().join("out.parquet"))
            };
            let written = export(&job(by, "similarity"), &mut |_, _| Ok(())).unwrap();
            assert_eq!(written.samples, count);
            let unknown = job(ExportBy::All, "x");
            let error = export(&unknown, &mut |_, _| Ok(())).unwrap_err().to_string();
            assert!(error.contains("invalid gate=by=x"), "{error}");
        }
        // The promises of selection hold behind the gate.
        let policy = Policy { seed: 5, ..job("ledger").policy(true).unwrap() };
        let audited = AuditJob { seeds: 200, ..AuditJob::new(folder.path().join("ledger"), policy) };
        let found = audit(&audited, Some(&clusters()), &mut |_, _| Ok(())).unwrap();
        assert_eq!(found.broken().count(), 0, "{found}");
        assert!(found.checks.iter().any(|check| check.accepted.contains("0.5000, by the scores")), "{found}");
        // What was written reads back as a subset of this corpus.
        let subset = builder(&urls).subset(folder.path().join("out.parquet")).gate(Gate::OFF).keep_ratio(0.5);
        let loader = subset.build().unwrap();
        epoch(&loader);
        assert_eq!(loader.stats().subset.map(|joined| (joined.by, joined.matched)), Some(("id", 1000)));
    }
}
