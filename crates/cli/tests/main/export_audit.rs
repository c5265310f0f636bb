//! Promise: what is exported is what a loader yields, named as the shards name it; an audit of a real
//! ledger holds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{self, StubCaptioner, builder, clusters, corpus, epoch, wait};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use tldr_loader::config::{Gate, Priority, Quota, Selection};
use tldr_loader::jobs::{AuditJob, DecisionsJob, ExportBy, ExportJob, audit, export, plan};
use tldr_loader::ledger::Ledger;
use tldr_loader::model::Identity;
use tldr_loader::select::Policy;

fn policy() -> Policy {
    let selection = Selection {
        keep_ratio: Some(0.25.into()),
        gate: Some(Gate::top(0.5)),
        quota: Some(Quota::Proportional),
        ..Selection::default()
    };
    Policy { ..Policy::new(selection, 0) }
}

/// A corpus, its ledger after an epoch with generated captions, and what that epoch yielded: the
/// caption of each key.
struct Run {
    folder: tempfile::TempDir,
    urls: String,
    yielded: BTreeMap<String, String>,
}

impl Run {
    fn new(shards: usize, per_shard: usize) -> Self {
        Self::of(shards, per_shard, false)
    }

    /// Of a loader that thins its stream, where `thin` is on.
    fn of(shards: usize, per_shard: usize, thin: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), shards, per_shard);
        let ledger = Ledger::open(folder.path().join("ledger"), None).unwrap();
        let builder = builder(&urls).captioner(StubCaptioner::new(), clusters()).ledger(ledger);
        // One lane: what it yields is the beginning of its kept samples.
        let builder = builder.thin(thin);
        let loader = builder.lanes(1).batch_size(2).fuse("generated".parse().unwrap()).build().unwrap();
        let yielded = epoch(&loader).into_iter().flatten().map(|row| (row.key, row.caption)).collect();
        Self { folder, urls, yielded }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn job(&self, by: ExportBy, out: &str) -> ExportJob {
        ExportJob::new(DecisionsJob::new(self.path("ledger"), by), self.path(out))
    }
}

/// The rows of a Parquet file, by column name.
pub(crate) fn table(path: &Path) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_column_iter().map(|(n, v)| (n.clone(), v.clone())).collect()).collect()
}

fn text(field: &Field) -> &str {
    match field {
        Field::Str(text) => text,
        other => panic!("{other:?}"),
    }
}

fn cli(arguments: &[&str]) -> Output {
    wait::output(Command::new(env!("CARGO_BIN_EXE_tldr-loader-core")).args(arguments))
}

#[test]
fn a_policy_exports_what_a_loader_yields() {
    let run = Run::new(4, 150);
    let by = ExportBy::Policy(Box::new(policy()), Some(clusters()));
    let summary = export(&run.job(by.clone(), "kept.parquet"), &mut |_, _| Ok(())).unwrap();
    let rows = table(&run.path("kept.parquet"));
    assert_eq!(rows.len() as u64, summary.samples);
    let keys: BTreeSet<&str> = rows.iter().map(|row| text(&row["key"])).collect();
    let yielded: BTreeSet<&str> = run.yielded.keys().map(String::as_str).collect();
    assert!(yielded.len() > 100 && yielded.is_subset(&keys), "{} of {}", yielded.len(), keys.len());
    // What the epoch did not reach to yield is its surplus: a few samples.
    assert!(keys.len() - yielded.len() < 20, "{} of {}", yielded.len(), keys.len());
    let mut captions = 0;
    for row in &rows {
        let number: usize = text(&row["key"]).parse().unwrap();
        assert_eq!(text(&row["shard"]), format!("{:05}.tar", number / 150));
        assert_eq!(text(&row["source"]), "test");
        let (Field::Float(pi), Field::Float(weight)) = (&row["pi"], &row["weight"]) else {
            panic!("{row:?}")
        };
        assert!((pi - 0.5).abs() < 1e-6 && (weight - 2.0).abs() < 1e-5);
        assert!(matches!(row["alignment"], Field::Float(alignment) if alignment >= 0.5));
        if let (Field::Str(caption), Some(expected)) = (&row["caption"], run.yielded.get(text(&row["key"]))) {
            assert_eq!(caption, expected);
            captions += 1;
        }
    }
    assert_eq!(captions, yielded.len());
    assert!(summary.captions >= captions as u64);
    export(&run.job(by, "kept.txt"), &mut |_, _| Ok(())).unwrap();
    let lines = fs::read_to_string(run.path("kept.txt")).unwrap();
    assert_eq!(lines.lines().collect::<BTreeSet<_>>(), keys);
}

#[test]
fn a_list_of_samples_is_left_out() {
    let run = Run::new(4, 150);
    let by = ExportBy::Policy(Box::new(policy()), Some(clusters()));
    export(&run.job(by.clone(), "kept.parquet"), &mut |_, _| Ok(())).unwrap();
    let kept = table(&run.path("kept.parquet"));
    let (first, second) = (text(&kept[0]["key"]), &kept[1]["id"]);
    let Field::ULong(id) = second else { panic!("{second:?}") };
    let lists = [
        ("keys.jsonl", format!("{{\"key\": \"{first}\"}}\n")),
        ("ids.jsonl", format!("{{\"id\": {id}, \"source\": \"test\", \"shard\": \"00000.tar\"}}\n")),
    ];
    for (at, (name, content)) in lists.iter().enumerate() {
        fs::write(run.path(name), content).unwrap();
        let job = ExportJob { exclude: Some(run.path(name)), ..run.job(by.clone(), "rest.parquet") };
        let summary = export(&job, &mut |_, _| Ok(())).unwrap();
        assert_eq!(summary.samples as usize, kept.len() - 1);
        let mut expected = kept.clone();
        expected.remove(at);
        assert_eq!(table(&run.path("rest.parquet")), expected, "{name}");
    }
    fs::write(run.path("none.jsonl"), "{\"key\": \"nobody\"}\n").unwrap();
    let job = ExportJob { exclude: Some(run.path("none.jsonl")), ..run.job(by, "rest.parquet") };
    let error = export(&job, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("invalid exclude=") && error.contains("its first key is \"nobody\""), "{error}");
}

#[test]
fn of_a_thinned_ledger_only_what_is_known_is_exported() {
    let run = Run::of(4, 150, true);
    let by = |thin| {
        ExportBy::Policy(
            Box::new(Policy { selection: Selection { thin, ..policy().selection.clone() }, ..policy() }),
            Some(clusters()),
        )
    };
    export(&run.job(by(true), "kept.parquet"), &mut |_, _| Ok(())).unwrap();
    let kept = table(&run.path("kept.parquet"));
    let keys: BTreeSet<&str> = kept.iter().map(|row| text(&row["key"])).collect();
    let yielded: BTreeSet<&str> = run.yielded.keys().map(String::as_str).collect();
    assert!(yielded.len() > 100 && yielded.is_subset(&keys) && keys.len() < yielded.len() + 40);
    assert!(kept.iter().all(|row| matches!(row["pi"], Field::Float(pi) if (pi - 0.5).abs() < 1e-6)));
    let refused = export(&run.job(by(false), "kept.parquet"), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(refused.contains(" lacks signals of ") && refused.contains("without thin"), "{refused}");
    let refused = audit(&AuditJob::new(run.path("ledger"), policy()), Some(&clusters()), &mut |_, _| Ok(()));
    assert!(refused.unwrap_err().to_string().contains("in some window of all"));
    // What was dropped is there without signals.
    export(&run.job(ExportBy::All, "all.parquet"), &mut |_, _| Ok(())).unwrap();
    let all = table(&run.path("all.parquet"));
    let unknown = all.iter().filter(|row| row["cluster"] == Field::Null && row["alignment"] == Field::Null);
    assert!(all.len() == 600 && (250..350).contains(&unknown.count()));
    // A plan needs all, completes the ledger, and is that of another.
    let planned = |ledger: &str| {
        let job = support::plan_job(&run.urls, run.path(ledger), policy());
        let stub = StubCaptioner::new();
        let encoded = stub.encoded.clone();
        let plan = plan(&job, stub, clusters(), &mut |_, _, _| Ok(())).unwrap().plan.unwrap();
        (plan, encoded.load(std::sync::atomic::Ordering::Relaxed))
    };
    let ((plan, rest), (expected, whole)) = (planned("ledger"), planned("other"));
    assert_eq!(plan, expected);
    assert!(whole == 600 && (250..350).contains(&rest), "{rest} of {whole}");
    assert_eq!(planned("ledger").1, 0);
    assert!(export(&run.job(by(false), "kept.parquet"), &mut |_, _| Ok(())).is_ok());
}

#[test]
fn a_plan_exports_its_samples() {
    let run = Run::new(4, 150);
    let job = support::plan_job(&run.urls, run.path("ledger"), policy());
    let file = plan(&job, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap().plan.unwrap();
    file.save(run.path("plan")).unwrap();
    let by = ExportBy::Plan(run.path("plan"));
    let summary = export(&run.job(by.clone(), "kept.parquet"), &mut |_, _| Ok(())).unwrap();
    assert_eq!(summary.samples, 150);
    let found: BTreeSet<u64> = table(&run.path("kept.parquet"))
        .iter()
        .map(|row| if let Field::ULong(id) = row["id"] { id } else { panic!("{row:?}") })
        .collect();
    assert_eq!(found, file.plan.kept().map(|kept| kept.id.0).collect());
    // By the command line the same bytes.
    let [from, out, ledger] =
        ["plan", "again.parquet", "ledger"].map(|name| run.path(name).display().to_string());
    let output = cli(&["export", &from, "--ledger", &ledger, "--out", &out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("150 samples"));
    assert_eq!(fs::read(out).unwrap(), fs::read(run.path("kept.parquet")).unwrap());
    // A ledger that lacks a shard.
    let signals = fs::read_dir(run.path("ledger/signals")).unwrap().next().unwrap().unwrap().path();
    let shard = fs::read_dir(signals).unwrap().next().unwrap().unwrap().path();
    fs::remove_dir_all(shard).unwrap();
    let error = export(&run.job(by, "kept.parquet"), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("the ledger that the plan was made with"), "{error}");
}

#[test]
fn a_ledger_alone_exports_every_usable_sample() {
    let run = Run::new(2, 100);
    let [from, out] = ["ledger", "all.txt"].map(|name| run.path(name).display().to_string());
    let output = cli(&["export", &from, "--out", &out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 200);
    for (arguments, part) in [
        (vec!["export", &from, "--out", "all.csv"], "invalid out=\"all.csv\""),
        (vec!["export", &from, "--out", &out, "--ledger", &from], "invalid from="),
        (vec!["export", &from, "--out", &out, "--window", "32"], "windows of 64"),
        (vec!["export", &from, "--out", &out, "--generation", "17"], "invalid generation=0000000000000017"),
        (vec!["export", &out, "--out", &out], "invalid from="),
    ] {
        let output = cli(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_audit_of_a_real_ledger_holds() {
    let run = Run::new(6, 200);
    for quota in ["proportional", "cap", "random"] {
        let policy = Policy {
            selection: Selection { quota: Some(quota.parse().unwrap()), ..policy().selection.clone() },
            ..policy()
        };
        let job = AuditJob { seeds: 200, ..AuditJob::new(run.path("ledger"), policy) };
        let found = audit(&job, Some(&clusters()), &mut |_, _| Ok(())).unwrap();
        assert_eq!(found.broken().count(), 0, "{quota}\n{found}");
        // How far a run is off is promised where it has one rate.
        let least = if quota == "cap" { 5 } else { 6 };
        assert!(found.checks.iter().filter(|check| check.holds.is_some()).count() >= least, "{found}");
    }
    // Windows of no policy's own: nothing to test against, and said so.
    let longest = Policy {
        selection: Selection { priority: Priority::Longest, ..policy().selection.clone() },
        ..policy()
    };
    let found =
        audit(&AuditJob::new(run.path("ledger"), longest), Some(&clusters()), &mut |_, _| Ok(())).unwrap();
    assert!(found.to_string().contains("no pi is stated"), "{found}");
    for (job, part) in [
        (AuditJob { seeds: 3, ..AuditJob::new(run.path("ledger"), policy()) }, "invalid seeds=3"),
        (AuditJob { windows: 0, ..AuditJob::new(run.path("ledger"), policy()) }, "invalid windows=0"),
        (AuditJob::new(run.path("absent"), policy()), "invalid ledger="),
    ] {
        let error = audit(&job, Some(&clusters()), &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_command_line_prints_the_table() {
    let run = Run::new(4, 200);
    let captioner = run.path("captioner");
    fs::create_dir(&captioner).unwrap();
    clusters().save(captioner.join("clusters.safetensors")).unwrap();
    Identity::save(&StubCaptioner::new(), None, 0, &captioner).unwrap();
    let [ledger, captioner] = [run.path("ledger"), captioner].map(|path| path.display().to_string());
    let output = cli(&["audit", &ledger, "--captioner", &captioner, "--seeds", "200"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    // Two lines say what is audited and what the gate is worth, nine are promises.
    assert!(table.starts_with("audited: ") && table.contains("\ngate: not measured"), "{table}");
    assert!(table.lines().count() == 11 && table.contains("holds") && !table.contains("BROKEN"), "{table}");
}

#[test]
fn other_reading_options_beside_are_not_meant() {
    let run = Run::new(3, 150);
    let ledger = Ledger::open(run.path("ledger"), None).unwrap();
    let other = builder(&run.urls).captioner(StubCaptioner::new(), clusters()).ledger(ledger.clone());
    epoch(&other.max_image_pixels(999_999).build().unwrap());
    assert_eq!(ledger.recordings().unwrap().len(), 2);
    let summary = export(&run.job(ExportBy::All, "all.parquet"), &mut |_, _| Ok(())).unwrap();
    assert_eq!(summary.samples, 450);
    // Two that are both meant by no name.
    epoch(
        &builder(&run.urls)
            .captioner(StubCaptioner::new(), clusters())
            .ledger(ledger)
            .window(32)
            .build()
            .unwrap(),
    );
    let message = export(&run.job(ExportBy::All, "all.parquet"), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.contains("several that fit"), "{message}");
}
