//! Promise: every sample's outcome has its reason, under a plan too; the numbers are those of the plan, and the reasons
//! hold when they are checked by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::export_audit::table;
use crate::support::{StubCaptioner, clusters, corpus, plan_job, wait};
use parquet::record::Field;
use tldr_loader::config::{Gate, Quota, Selection};
use tldr_loader::jobs::{DecisionsJob, ExplainJob, Explained, ExportBy, ExportJob, explain, export, plan};
use tldr_loader::loader::PlanFile;
use tldr_loader::model::Identity;
use tldr_loader::select::Policy;

const SAMPLES: usize = 600;

fn policy(dedup: Option<f32>, rotate: bool) -> Policy {
    let selection = Selection {
        keep_ratio: Some(0.25.into()),
        gate: Some(Gate::top(0.5)),
        quota: Some(Quota::Proportional),
        dedup,
        rotate,
        window: 64,
        ..Selection::default()
    };
    Policy::new(selection, 5)
}

/// A corpus with one damaged image in each shard, its ledger, and a plan.
struct Run {
    folder: tempfile::TempDir,
    plan: PlanFile,
}

impl Run {
    fn new(dedup: Option<f32>, embeddings: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), 4, SAMPLES / 4);
        for shard in 0..4 {
            // The end of the first image's data.
            let path = folder.path().join(format!("{shard:05}.tar"));
            let mut bytes = fs::read(&path).unwrap();
            bytes[512 + 40..512 + 60].fill(0);
            fs::write(&path, bytes).unwrap();
        }
        let mut job = plan_job(&urls, folder.path().join("ledger"), policy(dedup, false));
        job.embeddings = embeddings;
        let made = plan(&job, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap();
        let plan = made.plan.unwrap();
        plan.save(folder.path().join("plan.parquet")).unwrap();
        Self { folder, plan }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn decisions(&self, by: ExportBy) -> DecisionsJob {
        DecisionsJob::new(self.path("ledger"), by)
    }

    fn by_plan(&self) -> DecisionsJob {
        let by = ExportBy::Plan(self.path("plan.parquet"));
        DecisionsJob { clusters: Some(clusters()), ..self.decisions(by) }
    }

    fn all(&self, decisions: DecisionsJob) -> Vec<BTreeMap<String, Field>> {
        let out = self.path("all.parquet");
        export(&ExportJob { all: true, ..ExportJob::new(decisions, &out) }, &mut |_, _| Ok(())).unwrap();
        table(&out)
    }

    fn explain(&self, decisions: DecisionsJob, key: &Field) -> Explained {
        let job = ExplainJob::new(decisions, vec![string(key)]);
        explain(&job, &mut |_, _| Ok(())).unwrap().remove(0)
    }
}

fn string(field: &Field) -> String {
    match field {
        Field::Str(text) => text.clone(),
        Field::ULong(id) => id.to_string(),
        Field::Null => "none".into(),
        other => panic!("{other:?}"),
    }
}

fn number(field: &Field) -> f32 {
    if let Field::Float(number) = field { *number } else { panic!("{field:?}") }
}

/// How many rows have each outcome and reason.
fn counts(rows: &[BTreeMap<String, Field>]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(format!("{} {}", string(&row["outcome"]), string(&row["reason"]))).or_default() += 1;
    }
    counts
}

#[test]
fn under_a_plan_every_reason_is_found_again() {
    for embeddings in [false, true] {
        let run = Run::new(Some(0.9999), embeddings);
        let rows = run.all(run.by_plan());
        let (found, planned) = (counts(&rows), run.plan.plan.counts());
        let of = |name: &str| found.get(name).copied().unwrap_or(0);
        assert_eq!(rows.len(), SAMPLES);
        assert_eq!(of("kept none"), planned.kept);
        assert_eq!(of("dropped gate"), planned.gated);
        assert_eq!(of("dropped near-duplicate"), planned.copies - planned.refilled);
        assert_eq!(of("failed undecodable-image"), 4);
        assert_eq!(of("dropped quota"), planned.candidates - planned.copies - planned.kept);
        assert!(of("dropped near-duplicate") > if embeddings { 2 } else { 50 }, "{found:?}");
        let by_id: BTreeMap<String, &BTreeMap<String, Field>> =
            rows.iter().map(|row| (string(&row["id"]), row)).collect();
        for row in &rows {
            let is_duplicate = string(&row["reason"]) == "near-duplicate";
            assert_eq!(is_duplicate, row["near_id"] != Field::Null);
            if let Field::ULong(id) = &row["near_id"] {
                // The other stays: the gate lets it pass, and it is no near-duplicate itself.
                let other = by_id[&id.to_string()];
                assert!(["none", "quota"].contains(&&*string(&other["reason"])), "{other:?}");
                assert!(number(&other["alignment"]) >= 0.5);
                assert!(matches!(row["near_bits"], Field::Int(0..=8)), "{row:?}");
                assert_eq!(embeddings, row["near_cosine"] != Field::Null);
                if embeddings {
                    assert!(number(&row["near_cosine"]) > 0.998);
                }
            }
            if string(&row["reason"]) == "gate" {
                assert!(number(&row["alignment"]) < 0.5);
            }
        }
    }
}

#[test]
fn one_sentence_says_why() {
    let run = Run::new(Some(0.9999), true);
    let rows = run.all(run.by_plan());
    let first = |reason: &str| rows.iter().find(|row| string(&row["reason"]) == reason).unwrap();
    let say = |reason: &str| run.explain(run.by_plan(), &first(reason)["key"]);
    let gated = say("gate");
    assert!(gated.sentence.contains("is dropped by the gate: its alignment 0."), "{}", gated.sentence);
    assert!(gated.sentence.ends_with(" is below 0.5, the least that passes."), "{}", gated.sentence);
    let copy = say("near-duplicate");
    let near = copy.near.clone().unwrap();
    assert!(copy.sentence.contains(&format!("near-duplicate of {} in {}", near.key.unwrap(), near.shard)));
    assert!(copy.sentence.contains("of 256 bits differ"), "{}", copy.sentence);
    let quota = say("quota");
    let place = quota.quota.unwrap();
    assert!(place.place > place.slots && place.place <= place.left, "{place:?}");
    let kept = run.explain(run.by_plan(), &first("none")["id"]);
    let place = kept.quota.unwrap();
    assert!(kept.outcome == "kept" && place.place <= place.slots && kept.pi.is_some(), "{kept:?}");
    let failed = say("undecodable-image");
    assert!(failed.sentence.contains("failed (undecodable-image): "), "{}", failed.sentence);
    // Of a cluster the first places are kept, and there are as many as its quota has slots.
    let keys = rows.iter().map(|row| string(&row["key"])).collect();
    let all = explain(&ExplainJob::new(run.by_plan(), keys), &mut |_, _| Ok(())).unwrap();
    let mut kept_of: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for one in all.iter().filter(|one| one.outcome == "kept") {
        kept_of.entry(one.cluster.unwrap()).or_default().push(one.quota.unwrap().place.unwrap());
    }
    for one in all.iter().filter_map(|one| Some((one.cluster?, one.quota?))) {
        let mut places = kept_of.get(&one.0).cloned().unwrap_or_default();
        places.sort_unstable();
        assert_eq!(places, (1..=one.1.slots.unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn a_policy_says_the_same_as_its_export() {
    let run = Run::new(None, false);
    for rotate in [false, true] {
        let by = ExportBy::Policy(Box::new(policy(None, rotate)), Some(clusters()));
        let rows = run.all(run.decisions(by.clone()));
        let out = run.path("kept.parquet");
        let job = ExportJob::new(run.decisions(by.clone()), &out);
        export(&job, &mut |_, _| Ok(())).unwrap();
        let kept = rows.iter().filter(|row| string(&row["outcome"]) == "kept");
        let ids: Vec<String> = kept.map(|row| string(&row["id"])).collect();
        assert_eq!(ids, table(&out).iter().map(|row| string(&row["id"])).collect::<Vec<_>>());
        let keys: Vec<String> = rows.iter().map(|row| string(&row["key"])).collect();
        let all = explain(&ExplainJob::new(run.decisions(by), keys), &mut |_, _| Ok(())).unwrap();
        for one in all.iter().filter(|one| one.quota.is_some()) {
            let place = one.quota.unwrap();
            assert!((place.rate.unwrap() - 0.5).abs() < 1e-6);
            assert_eq!(place.draw < place.rate.unwrap(), one.outcome == "kept", "{one:?}");
            // A rate of one half: every candidate is kept in every other epoch.
            let kept = one.epochs.as_ref().map(|epochs| (epochs.kept.len(), epochs.of));
            assert_eq!(kept, rotate.then_some((8, 16)));
        }
        assert!(all.iter().any(|one| one.quota.is_some()));
    }
}

#[test]
fn a_plan_without_its_captioner_says_what_it_can() {
    let run = Run::new(None, false);
    let alone = || run.decisions(ExportBy::Plan(run.path("plan.parquet")));
    assert_eq!(counts(&run.all(alone())), counts(&run.all(run.by_plan())));
    let run = Run::new(Some(0.9999), false);
    let alone = run.decisions(ExportBy::Plan(run.path("plan.parquet")));
    let error = explain(&ExplainJob::new(alone, vec!["0000001".into()]), &mut |_, _| Ok(())).unwrap_err();
    assert!(
        error.to_string().contains("invalid captioner=none: expected the captioner directory"),
        "{error}"
    );
}

fn cli(arguments: &[&str]) -> Output {
    wait::output(Command::new(env!("CARGO_BIN_EXE_tldr-loader-core")).args(arguments))
}

#[test]
fn the_command_line_explains() {
    let run = Run::new(Some(0.9999), false);
    let captioner = run.path("captioner");
    fs::create_dir(&captioner).unwrap();
    clusters().save(captioner.join("clusters.safetensors")).unwrap();
    Identity::save(&StubCaptioner::new(), None, 0, &captioner).unwrap();
    let [ledger, captioner, plan, out] = ["ledger", "captioner", "plan.parquet", "all.parquet"]
        .map(|name| run.path(name).display().to_string());
    let by_plan = ["--ledger", &ledger, "--plan", &plan, "--captioner", &captioner];
    let output = cli(&[&["explain", "0000001", "some/folder/00001.tar/0000151"], &by_plan[..]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("0000001 in 00000.tar is ")
            && lines[1].starts_with("0000151 in ")
    );
    let output = cli(&[&["explain", "0000001", "--json"], &by_plan[..]].concat());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["key"], &json["sentence"]), (&"0000001".into(), &lines[0].into()));
    let output = cli(&["explain", "0000001", "--ledger", &ledger]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("is usable, and no plan or policy was given"));
    let arguments = ["export", &plan, "--all", "--ledger", &ledger, "--captioner", &captioner, "--out", &out];
    let output = cli(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kept = run.plan.plan.counts().kept;
    assert!(text.contains(&format!("{SAMPLES} samples, of which {kept} are kept")), "{text}");
    for (arguments, part) in [
        (vec!["explain", "nobody", "--ledger", &ledger], "invalid keys=\"nobody\""),
        (
            vec!["explain", "0000001", "--ledger", &ledger, "--keep-ratio", "0.25", "--gate", "top(0.5)"],
            "invalid gate=top(0.5)",
        ),
        (vec!["explain", "0000001", "--ledger", &ledger, "--plan", &plan], "invalid captioner=none"),
        (vec!["export", &ledger, "--all", "--out", "all.txt"], "invalid out=\"all.txt\""),
    ] {
        let output = cli(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_command_line_reports() {
    let run = Run::new(Some(0.9999), false);
    let captioner = run.path("captioner");
    fs::create_dir(&captioner).unwrap();
    clusters().save(captioner.join("clusters.safetensors")).unwrap();
    Identity::save(&StubCaptioner::new(), None, 0, &captioner).unwrap();
    let [ledger, captioner, plan, out] = ["ledger", "captioner", "plan.parquet", "a report.html"]
        .map(|name| run.path(name).display().to_string());
    let urls = format!("{}/{{00000..00003}}.tar", run.folder.path().display());
    let by_plan = ["--name", "test", "--ledger", &ledger, "--plan", &plan, "--captioner", &captioner];
    let output = cli(&[&["report", &urls, "--out", &out], &by_plan[..]].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts = run.plan.plan.counts();
    assert!(said.contains(&format!("{SAMPLES} samples, {} of them kept", counts.kept)), "{said}");
    let model = fs::read(run.path("a report.json")).unwrap();
    let model: serde_json::Value = serde_json::from_slice(&model).unwrap();
    let funnel = &model["funnel"];
    let found = ["kept", "gate", "dedup", "failed"].map(|name| funnel[name].as_u64().unwrap());
    assert_eq!(found, [counts.kept, counts.gated, counts.copies - counts.refilled, counts.failed]);
    // The command can be pasted into a shell.
    let command = model["head"]["command"].as_str().unwrap();
    assert!(
        command.starts_with("tldr-loader report '/") && command.contains("a report.html' --name test"),
        "{command}"
    );
    let page = fs::read_to_string(&out).unwrap();
    assert!(page.contains("<h2>Funnel</h2>") && page.len() < 15_000_000);
    assert!(run.path("a report.pairs.parquet").is_file());
    for (arguments, part) in [
        (vec!["report", &urls, "--out", "x.html"], "invalid ledger=none"),
        (
            vec![
                "report", &urls, "--ledger", &ledger, "--plan", &plan, "--out", "x.html", "--gate",
                "top(0.3)",
            ],
            "gate=top(0.3)",
        ),
        (vec!["report", &urls, "--ledger", &ledger, "--out", "x.html"], "shards that the ledger has"),
    ] {
        let output = cli(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(part), "{error}");
    }
}
