//! Promise: what a gate by a captioner's alignment is worth is measured, stored and told by every command.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wait;
use tldr_captioner::jobs::{FitJob, FitSummary, TrainJob, fit, train, worth_of_training};
use tldr_captioner::{BlipOptions, Captioner, Decoding, GenerationConfig, Matcher};
use tldr_loader::cluster::{Clusters, MeasuredOn};
use tldr_synth::{NoiseShares, SynthOptions, write_corpus};

/// `samples` pairs in two shards whose captions have nothing to do with their pictures: nothing can be learned.
fn noise(folder: &Path, samples: u64) -> String {
    let options = SynthOptions {
        samples,
        shards: 2,
        test_samples: 0,
        size: 32,
        misaligned: 1.0,
        noise: NoiseShares { swapped: 1.0, generic: 0.0, attribute: 0.0, same_class: 0.0 },
        duplicates: 1,
        ..SynthOptions::default()
    };
    write_corpus(folder, &options, &mut |_, _| {}).unwrap();
    folder.join("train").display().to_string()
}

fn job(urls: &str, out: &Path) -> TrainJob {
    let preset = "tiny".into();
    TrainJob {
        preset,
        vocab_size: 300,
        epochs: 1,
        batch_size: 20,
        threads: 1,
        ..TrainJob::new(vec![urls.into()], out)
    }
}

fn fitted(urls: &str, dir: &Path) -> FitSummary {
    let job = FitJob { clusters: Some(4), ..FitJob::new(vec![urls.into()], dir) };
    fit(&job, &mut |_, _| Ok(())).unwrap()
}

fn warns_of(summary: &FitSummary, what: &str) -> bool {
    summary.report.warnings.iter().any(|warning| warning.contains(what))
}

#[test]
fn a_captioner_that_learned_nothing_is_told_as_noise_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let urls = noise(&dir.path().join("data"), 240);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (captioner, ledger, planned) = (path("captioner"), path("ledger"), path("plan.parquet"));
    let run = |words: &[&str]| {
        let done = wait::output(Command::new(env!("CARGO_BIN_EXE_tldr-loader")).args(words));
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let sizes = ["--preset", "tiny", "--vocab-size", "300", "--epochs", "1", "--batch-size", "20"];
    let train = run(&[&["train", &urls, "--out", &captioner][..], &sizes].concat());
    let fit = run(&["fit", &urls, "--captioner", &captioner, "--clusters", "4"]);
    let at = ["--captioner", &captioner, "--gate", "top(0.5)"];
    let plan = run(&[&["plan", &urls, "--ledger", &ledger, "--out", &planned][..], &at].concat());
    let audit = run(&[&["audit", &ledger, "--seeds", "200"][..], &at].concat());
    for said in [&train, &fit, &plan, &audit] {
        assert!(
            said.contains("held out of the training: in ") && said.contains("guessing gets 50"),
            "{said}"
        );
        assert!(said.contains("warning: the gate is close to chance"), "{said}");
    }
    assert!(audit.starts_with("audited: the sampling"), "{audit}");
    assert!(plan.contains("near-duplicates stay: --dedup 0.95 would drop "), "{plan}");
    // It is in the directory, and of what was held out: a tenth.
    let known = Clusters::load(dir.path().join("captioner/clusters.safetensors")).unwrap();
    let worth = known.worth.unwrap();
    assert_eq!(worth.on, MeasuredOn::HeldOut);
    assert!((12..=36).contains(&worth.validation.pairs), "{worth:?}");
    assert_eq!(worth_of_training(&dir.path().join("captioner")).unwrap(), Some(worth));
    assert!(worth.validation.perplexity().is_some_and(|p| p > 1.0) && worth.validation.auc_error > 0.0);
    assert_eq!(known.trained_on.len(), 4, "two marks of each shard");
    // By parts, as a job array records it: of options on the command line, and of a file.
    let (parts, file) = (path("parts"), path("run.toml"));
    let recorded = |options: &[&str]| run(&[&["plan", &urls, "--ledger", &parts][..], &at, options].concat());
    assert!(recorded(&["--status", "2"]).contains("2 of 2 parts are not recorded: --array=0-1"));
    recorded(&["--part=0/2"]);
    assert!(recorded(&["--status", "2"]).contains("1 of 2 parts are not recorded: --array=1"));
    let options = format!(
        "captioner = {captioner:?}\nledger = {parts:?}\n[selection]\ngate = \"top(0.5)\"\n[[sources]]\nurls = [{urls:?}]\n"
    );
    std::fs::write(&file, options).unwrap();
    run(&["plan", "--config", &file, "--part=1/2"]);
    assert!(run(&["plan", "--config", &file, "--status", "2"]).contains("all 2 parts are recorded"));
    // Without a gate nobody needs to know.
    let plan = run(&[
        "plan",
        &urls,
        "--ledger",
        &ledger,
        "--out",
        &planned,
        "--captioner",
        &captioner,
        "--gate",
        "top(1)",
    ]);
    assert!(!plan.contains("AUC"), "{plan}");
}

#[test]
fn captions_that_are_all_alike_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let urls = noise(&dir.path().join("data"), 200);
    let out = dir.path().join("captioner");
    train(&job(&urls, &out), &mut |_| Ok(())).unwrap();
    let summary = fitted(&urls, &out);
    let captions = &summary.captions;
    assert_eq!(captions.sampled, 64, "a bounded number");
    // After ten steps it writes one text, whatever the picture.
    assert!(2 * (captions.empty + captions.repetitive + captions.equal) > 64, "{captions:?}");
    assert!(warns_of(&summary, "of 64 captions that were generated"), "{:?}", summary.report.warnings);
}

#[test]
fn what_a_fit_does_not_know_of_the_training_it_measures_itself_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let urls = noise(&dir.path().join("data"), 200);
    // Of the same folder and file names, as corpora are that one tool has written.
    let other = noise(&dir.path().join("data/other"), 202);
    let out = dir.path().join("captioner");
    // Nothing is held out: the pairs of the training are all there are.
    let none = TrainJob { validate: Some(0.0), ..job(&urls, &out) };
    let summary = train(&none, &mut |_| Ok(())).unwrap();
    assert!(summary.validation.is_none() && summary.pairs == 200);
    assert_eq!(worth_of_training(&out).unwrap(), None);
    let summary = fitted(&urls, &out);
    let worth = summary.worth.unwrap();
    assert_eq!((worth.on, worth.validation.pairs), (MeasuredOn::Trained, 200));
    assert!(worth.to_string().contains("that it was trained on, so that new pairs will do worse"));
    // What a fit knew of the training comes along with a copy.
    let copy = dir.path().join("copy");
    Captioner::load(&out, tch::Device::Cpu).unwrap().save(&copy).unwrap();
    assert_eq!(fitted(&urls, &copy).worth.unwrap().on, MeasuredOn::Trained);
    // Of shards that were not trained on, alone or among others, those are measured.
    let beside = Path::new(&other).with_file_name("more");
    std::fs::create_dir(&beside).unwrap();
    for shard in ["00000.tar", "00001.tar"] {
        std::fs::copy(Path::new(&other).join(shard), beside.join(shard)).unwrap();
    }
    for urls in [other.clone(), format!("{urls}::{}", beside.display())] {
        let worth = fitted(&urls, &out).worth.unwrap();
        assert_eq!((worth.on, worth.validation.pairs), (MeasuredOn::Sample, 202), "{urls}");
    }
    // Damaged, of another model, or gone: named.
    let note = std::fs::read_to_string(out.join("trained.json")).unwrap();
    for (text, why) in [
        (Some("{\"format\": 1".to_owned()), "trained.json is not what `train`"),
        (Some(note.replace("\"model\":\"", "\"model\":\"0")), "trained.json is of another model"),
        (None, "trained.json cannot be read"),
    ] {
        std::fs::remove_file(out.join("clusters.safetensors")).unwrap();
        match text {
            Some(text) => std::fs::write(out.join("trained.json"), text).unwrap(),
            None => std::fs::remove_file(out.join("trained.json")).unwrap(),
        }
        let summary = fitted(&urls, &out);
        assert!(warns_of(&summary, why), "{:?}", summary.report.warnings);
        assert_eq!(summary.worth.unwrap().on, MeasuredOn::Sample);
        assert!(Clusters::load(out.join("clusters.safetensors")).unwrap().trained_on.is_empty());
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[test]
fn a_loaded_blip_and_a_matcher_are_measured_when_they_are_fitted() {
    let dir = tempfile::tempdir().unwrap();
    let urls = noise(&dir.path().join("data"), 48);
    let out = dir.path().join("captioner");
    let generation = GenerationConfig { decoding: Decoding::Greedy, ..GenerationConfig::greedy(4, 2, 8) };
    let options = BlipOptions { batch_size: 8, generation, ..BlipOptions::default() };
    let mut captioner = Captioner::load_blip(golden("blip/base"), &options, tch::Device::Cpu).unwrap();
    captioner.save(&out).unwrap();
    let fitting = || {
        let job = FitJob { clusters: Some(4), codes: Some(12), ..FitJob::new(vec![urls.clone()], &out) };
        fit(&job, &mut |_, _| Ok(())).unwrap()
    };
    // Its weights are drawn: chance.
    let plain = fitting();
    let worth = plain.worth.unwrap();
    assert_eq!((worth.on, worth.validation.pairs), (MeasuredOn::Sample, 48));
    assert!(worth.validation.is_close_to_chance() && warns_of(&plain, "close to chance"), "{worth:?}");
    assert!(!warns_of(&plain, "trained.json"), "{:?}", plain.report.warnings);
    assert_eq!(plain.captions.sampled, 48);
    let matcher = Matcher::load_blip(golden("blip_matcher/model"), &options, tch::Device::Cpu).unwrap();
    captioner.set_matcher(Some(matcher)).unwrap();
    captioner.save(&out).unwrap();
    let matched = fitting().worth.unwrap();
    assert_eq!((matched.on, matched.validation.pairs), (MeasuredOn::Sample, 48));
    assert_ne!(
        matched.validation.auc, worth.validation.auc,
        "it is the matcher's alignment that is measured"
    );
    assert!(
        (matched.validation.lm_loss.unwrap() - worth.validation.lm_loss.unwrap()).abs() < 1e-9,
        "of the captioner's own decoder"
    );
}
