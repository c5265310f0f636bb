//! Promise: a training run that stops goes on exactly where it was, says what it learned of pairs it
//! has not seen, and names what went wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use tldr_captioner::jobs::{FitJob, Resume, TrainJob, TrainSummary, fit, train, train_folds};
use tldr_captioner::{Captioner, CodebookStart, CodebookUpdate, Decay, Folds, Precision, parse_device};
use tldr_loader::cluster::{Features, signature::Signatures};
use tldr_loader::model::Scorer;
use tldr_loader::{Error, Result, shard};
use tldr_synth::{SynthOptions, write_corpus};

/// 96 pairs in 6 shards: 9 steps of 10 an epoch, or 6 where two shards are held out.
fn corpus(dir: &Path) -> Vec<String> {
    let options = SynthOptions {
        samples: 96,
        shards: 6,
        test_samples: 0,
        size: 32,
        misaligned: 0.0,
        duplicates: 1,
        ..SynthOptions::default()
    };
    write_corpus(dir, &options, &mut |_, _| {}).unwrap();
    vec![dir.join("train").join("{00000..00005}.tar").to_string_lossy().into_owned()]
}

fn job(urls: &[String], out: &Path) -> TrainJob {
    TrainJob {
        preset: "tiny".into(),
        vocab_size: 300,
        epochs: 3,
        batch_size: 10,
        threads: 1,
        checkpoint_every: 4,
        ..TrainJob::new(urls.to_vec(), out)
    }
}

/// Runs until `stop` steps are done, if there are as many, and is then killed: nothing more is written.
fn run(job: &TrainJob, stop: u64) -> Result<TrainSummary> {
    killed(|| {
        train(job, &mut |at| match at.report.step {
            step if step >= stop => kill(),
            _ => Ok(()),
        })
    })
}

fn kill<T>() -> T {
    std::panic::resume_unwind(Box::new("killed by the test"))
}

fn killed<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::captioner("stopped by the test")))
}

fn model(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).unwrap()
}

fn beside(out: &Path) -> PathBuf {
    out.with_file_name(format!("{}.checkpoint", out.file_name().unwrap().to_string_lossy()))
}

/// Columns of train.csv but the last measured speed.
fn curve(out: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(out.join("train.csv")).unwrap();
    let fields = |line: &str| -> Vec<String> {
        line.split(',').enumerate().filter(|(i, _)| *i != 7).map(|(_, field)| field.to_owned()).collect()
    };
    text.lines().map(fields).collect()
}

#[test]
fn a_run_that_stops_goes_on_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    // Every way of updating has state of its own; two threads and two parts have replicas.
    for (name, update, threads) in [("ema", CodebookUpdate::Ema, 1), ("loss", CodebookUpdate::Loss, 2)] {
        let with = |out: &Path| TrainJob {
            codebook_update: update,
            codebook_start: CodebookStart::Keywords,
            threads,
            accumulate: threads,
            validate: Some(0.3),
            ..job(&urls, out)
        };
        let whole = dir.path().join(format!("{name}-whole"));
        let summary = run(&with(&whole), u64::MAX).unwrap();
        assert_eq!((summary.steps, summary.resumed_at, summary.pairs), (18, 0, 180));
        assert!(!beside(&whole).exists(), "checkpoints outlive the run");
        // Stopped in the first epoch, then in the second, then once before anything new was saved.
        let cut = dir.path().join(format!("{name}-cut"));
        let mut resumed = vec![];
        for stop in [5, 13, 13, u64::MAX] {
            match run(&with(&cut), stop) {
                Err(error) => assert!(error.to_string().contains("stopped by the test"), "{error}"),
                Ok(summary) => resumed.push((summary.resumed_at, summary.pairs)),
            }
        }
        assert_eq!(resumed, [(12, 180)], "{name}");
        assert!(model(&whole) == model(&cut), "{name}: other weights");
        assert_eq!(curve(&whole), curve(&cut), "{name}");
    }
}

#[test]
fn a_checkpoint_at_the_end_of_an_epoch_starts_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let with = |out: &Path| TrainJob { checkpoint_every: 9, ..job(&urls, out) };
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    run(&with(&whole), u64::MAX).unwrap();
    run(&with(&cut), 10).unwrap_err();
    assert_eq!(run(&with(&cut), u64::MAX).unwrap().resumed_at, 9);
    assert!(model(&whole) == model(&cut));
}

#[test]
fn checkpoints_of_other_settings_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    run(&job(&urls, &out), 5).unwrap_err();
    let other = TrainJob { batch_size: 8, schedule: Decay::Step, ..job(&urls, &out) };
    let message = run(&other, 1).unwrap_err().to_string();
    for part in ["batch_size was 10 and is 8", "schedule was cosine and is step", "resume = never"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("seed"), "{message}");
    // Fewer shards: the stream's own state says so.
    let fewer = vec![urls[0].replace("00005", "00004")];
    let message = run(&job(&fewer, &out), 1).unwrap_err().to_string();
    assert!(message.contains("shards: this loader has 5 of"), "{message}");
    // A file that was tampered with.
    let state = beside(&out).join("step-000000004.safetensors");
    let mut bytes = std::fs::read(&state).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&state, &bytes).unwrap();
    let message = run(&job(&urls, &out), 1).unwrap_err().to_string();
    assert!(message.contains("content hash"), "{message}");
    // Starting anew asks for nothing, and there is nothing to go on from elsewhere.
    let anew = TrainJob { resume: Resume::Never, ..other };
    assert_eq!(run(&anew, u64::MAX).unwrap().resumed_at, 0);
    let must = TrainJob { resume: Resume::Must, ..job(&urls, &out) };
    assert!(run(&must, 1).unwrap_err().to_string().contains("to resume from it"));
}

#[test]
fn a_run_that_is_told_to_stop_leaves_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let stopped = |job: &TrainJob| {
        train(job, &mut |at| if at.report.step == 6 { Err(Error::captioner("told to stop")) } else { Ok(()) })
    };
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    run(&job(&urls, &whole), u64::MAX).unwrap();
    assert!(stopped(&job(&urls, &cut)).unwrap_err().to_string().contains("told to stop"));
    assert_eq!(run(&job(&urls, &cut), u64::MAX).unwrap().resumed_at, 6);
    assert!(model(&whole) == model(&cut));
    assert_eq!(curve(&whole), curve(&cut));
    // Who wants no checkpoints gets none.
    let without = dir.path().join("without");
    stopped(&TrainJob { checkpoint_every: 0, ..job(&urls, &without) }).unwrap_err();
    assert!(!beside(&without).exists());
}

#[test]
fn a_captioner_that_is_whole_is_not_trained_again_nor_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    let first = run(&job(&urls, &out), u64::MAX).unwrap();
    fit(&FitJob { clusters: Some(4), ..FitJob::new(urls.clone(), &out) }, &mut |_, _| Ok(())).unwrap();
    let before = model(&out);
    let again = run(&job(&urls, &out), 0).unwrap();
    assert_eq!((again.resumed_at, again.steps, again.pairs), (first.steps, first.steps, first.pairs));
    assert_eq!((again.last.step, again.weights), (first.last.step, first.weights));
    assert!((again.last.loss - first.last.loss).abs() < 1e-12);
    let other = TrainJob { seed: 1, commitment: 0.5, ..job(&urls, &out) };
    let message = run(&other, 0).unwrap_err().to_string();
    for part in ["seed was 0 and is 1", "commitment was 0.25 and is 0.5", "resume = never"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("sizes"), "{message}");
    let fewer = vec![urls[0].replace("00005", "00004")];
    let message = run(&job(&fewer, &out), 0).unwrap_err().to_string();
    assert!(message.contains("shards: this loader has 5 of"), "{message}");
    // One that came from elsewhere, as far as can be told.
    let note = std::fs::read_to_string(out.join("trained.json")).unwrap();
    for text in [None, Some("{}".to_owned()), Some(note.replace("\"model\":\"", "\"model\":\"0"))] {
        match text {
            None => std::fs::remove_file(out.join("trained.json")).unwrap(),
            Some(text) => std::fs::write(out.join("trained.json"), text).unwrap(),
        }
        let message = run(&job(&urls, &out), 0).unwrap_err().to_string();
        assert!(message.contains("was not trained here"), "{message}");
    }
    assert!(model(&out) == before && out.join("clusters.safetensors").exists());
    run(&TrainJob { resume: Resume::Never, ..other }, u64::MAX).unwrap();
    assert!(model(&out) != before && !out.join("clusters.safetensors").exists());
}

#[test]
fn two_runs_do_not_work_on_one_captioner() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    let mut messages = vec![];
    train(&job(&urls, &out), &mut |_| {
        if messages.is_empty() {
            messages.push(run(&job(&urls, &out), 1).unwrap_err().to_string());
        }
        Ok(())
    })
    .unwrap();
    fit(&FitJob::new(urls.clone(), &out), &mut |_, _| {
        if messages.len() == 1 {
            messages.push(fit(&FitJob::new(urls.clone(), &out), &mut |_, _| Ok(())).unwrap_err().to_string());
        }
        Ok(())
    })
    .unwrap();
    assert!(messages.iter().all(|message| message.contains("another run trains or fits")), "{messages:?}");
    assert_eq!(messages.len(), 2);
}

#[test]
fn what_holds_nothing_usable_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    // An empty shard among others is skipped.
    let empty = dir.path().join("data/train/00006.tar");
    std::fs::write(&empty, [0; 1024]).unwrap();
    let with_empty = vec![urls[0].replace("00005", "00006")];
    let lengths = Some(vec![16, 16, 16, 16, 16, 16, 0]);
    let mut some = job(&with_empty, &out);
    some.source.lengths = lengths;
    run(&some, u64::MAX).unwrap();
    let only = vec![empty.to_string_lossy().into_owned()];
    let mut nothing = job(&only, &dir.path().join("other"));
    nothing.source.lengths = Some(vec![0]);
    let message = run(&nothing, 1).unwrap_err().to_string();
    assert!(message.starts_with("invalid urls=") && message.contains("shards with samples"), "{message}");
    let mut fitting = FitJob::new(only, &out);
    fitting.source.lengths = Some(vec![0]);
    let message = fit(&fitting, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.starts_with("invalid urls=") && message.contains("usable samples"), "{message}");
    let mut nobody = FitJob::new(urls.clone(), &out);
    nobody.source.filter = Some("key = 'nobody'".parse().unwrap());
    let message = fit(&nobody, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.contains("`where`"), "{message}");
    let none = FitJob { samples: Some(0), ..FitJob::new(urls, &out) };
    assert!(
        fit(&none, &mut |_, _| Ok(())).unwrap_err().to_string().starts_with("invalid samples=0: expected ")
    );
}

#[test]
fn a_loss_that_is_not_finite_names_step_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let wild = TrainJob { learning_rate: Some(1e30), ..job(&urls, &dir.path().join("wild")) };
    let message = run(&wild, u64::MAX).unwrap_err().to_string();
    assert!(message.contains("training stopped at step 2:"), "{message}");
    assert!(message.contains("keys of batch 1 of epoch 0: "), "{message}");
    let keys = message.split("epoch 0: ").nth(1).unwrap();
    assert_eq!(keys.split(", ").count(), 10, "{message}");
    assert!(keys.split(", ").all(|key| key.len() == 9), "{message}");
}

#[test]
fn parts_of_a_batch_add_up_to_its_gradient() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let first_step = |name: &str, accumulate: usize| {
        let job = TrainJob { accumulate, ..job(&urls, &dir.path().join(name)) };
        let mut first = None;
        train(&job, &mut |at| {
            first.get_or_insert(at.report);
            Err(Error::captioner("enough"))
        })
        .unwrap_err();
        first.unwrap()
    };
    let whole = first_step("whole", 1);
    // 10 rows: 3 uneven parts; more parts than rows.
    for accumulate in [3, 64] {
        let parts = first_step(&format!("parts-{accumulate}"), accumulate);
        assert!((whole.lm_loss - parts.lm_loss).abs() < 1e-5, "{whole:?} {parts:?}");
        assert!((whole.gradient_norm - parts.gradient_norm).abs() < 1e-4, "{whole:?} {parts:?}");
        assert_eq!(whole.used_codes, parts.used_codes);
    }
}

#[test]
fn every_start_update_schedule_and_precision_learns() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let base = |name: &str| job(&urls, &dir.path().join(name));
    let jobs = [
        TrainJob { codebook_start: CodebookStart::KMeans, ..base("kmeans") },
        TrainJob { codebook_start: CodebookStart::Uniform, ..base("uniform") },
        TrainJob { codebook_start: CodebookStart::Keywords, ..base("keywords") },
        TrainJob { codebook_update: CodebookUpdate::Loss, ..base("loss") },
        TrainJob { schedule: Decay::Step, ..base("step") },
        TrainJob { precision: Some(Precision::Bfloat16), ..base("bf16") },
    ];
    for mut job in jobs {
        (job.epochs, job.learning_rate) = (6, Some(3e-3));
        let (mut first, mut last) = (f64::NAN, f64::NAN);
        let summary = train(&job, &mut |at| {
            if at.report.step == 1 {
                first = at.report.lm_loss;
            }
            last = at.report.lm_loss;
            Ok(())
        })
        .unwrap();
        assert!(last < 0.8 * first, "{:?}: {first} to {last}", job.out);
        assert!(summary.last.used_codes >= 8, "{:?}: {summary:?}", job.out);
        assert_eq!(summary.keywords.is_some(), job.codebook_start == CodebookStart::Keywords);
        Captioner::load(&job.out, parse_device("cpu").unwrap()).unwrap();
    }
}

#[test]
fn held_out_shards_are_validated_on_and_never_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    let job = TrainJob { validate: Some(2.0), epochs: 20, learning_rate: Some(3e-3), ..job(&urls, &out) };
    let mut measured = vec![];
    let summary = train(&job, &mut |at| {
        measured.extend(at.validation.filter(|_| at.report.step % 4 == 0).map(|v| v.lm_loss.unwrap()));
        Ok(())
    })
    .unwrap();
    let validation = summary.validation.unwrap();
    assert_eq!(validation.pairs, 32);
    // 64 pairs are left: 6 steps of 10 an epoch.
    assert_eq!(summary.steps, 120);
    assert_eq!(measured.len(), 30);
    assert!(measured[29] < 0.8 * measured[0], "{measured:?}");
    assert!((0.0..=1.0).contains(&validation.auc));
    // The loss of a guess among all tokens is ln(vocabulary).
    assert!(validation.lm_loss.is_some_and(|loss| loss > 0.0 && loss < 300f64.ln()), "{validation:?}");
    let message = run(&TrainJob { validate: Some(6.0), ..job.clone() }, 1).unwrap_err().to_string();
    assert!(message.starts_with("invalid validate=6: expected "), "{message}");
}

#[test]
fn folds_are_trained_on_different_shards_and_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioners");
    let job = TrainJob { epochs: 2, ..job(&urls, &out) };
    // Stopped in the second fold: the first is not trained again.
    let stopped = train_folds(&job, 2, &mut |at| match (at.fold, at.report.step) {
        ((1, 2), 5) => Err(Error::captioner("stopped by the test")),
        _ => Ok(()),
    });
    assert!(stopped.is_err() && Folds::load(&out).is_err());
    let first = model(&out.join("fold-0"));
    let mut trained = vec![];
    let summaries = train_folds(&job, 2, &mut |at| {
        trained.push(at.fold.0);
        Ok(())
    })
    .unwrap();
    assert_eq!(
        (summaries.len(), summaries[0].resumed_at, summaries[1].resumed_at),
        (2, 8, 5),
        "the second goes on where it was stopped"
    );
    assert!(trained.iter().all(|&fold| fold == 1));
    assert!(first == model(&out.join("fold-0")));
    let folds = Folds::load(&out).unwrap();
    for directory in folds.directories(&out) {
        Captioner::load(&directory, parse_device("cpu").unwrap()).unwrap();
        assert!(!beside(&directory).exists());
    }
    let shards = shard::list(&urls, None, &Default::default()).unwrap();
    assert_eq!(folds.folds().iter().map(|fold| fold.shards.len()).sum::<usize>(), shards.len());
    for shard in &shards {
        let seen = folds.seen_by(shard.hash).expect("every shard is in a fold");
        assert_eq!(folds.judge_of(shard.hash), 1 - seen);
    }
    let three = train_folds(&job, 3, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(three.starts_with("invalid folds=3: expected "), "{three}");
}

#[test]
fn a_fit_whose_caller_has_gone_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    run(&job(&urls, &out), u64::MAX).unwrap();
    let fitting = FitJob { clusters: Some(4), ..FitJob::new(urls, &out) };
    let mut whole = 0;
    let stopped = fit(&fitting, &mut |done, total| {
        whole += u32::from(done == total);
        // All points are in the first time.
        if whole > 1 { Err(Error::captioner("gone")) } else { Ok(()) }
    });
    assert!(stopped.unwrap_err().to_string().contains("gone"));
    assert!(!out.join("clusters.safetensors").exists());
    fit(&fitting, &mut |_, _| Ok(())).unwrap();
    assert!(out.join("clusters.safetensors").exists());
}

#[test]
fn folds_that_are_trained_anew_are_no_pair_until_both_are() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioners");
    let job = TrainJob { epochs: 1, checkpoint_every: 2, ..job(&urls, &out) };
    train_folds(&job, 2, &mut |_| Ok(())).unwrap();
    // A job that is refused has changed nothing.
    let mut refused = job.clone();
    refused.source.urls = vec!["nowhere/{0..3}.tar".into()];
    assert!(train_folds(&refused, 2, &mut |_| Ok(())).is_err());
    let must = TrainJob { resume: Resume::Must, ..job.clone() };
    let message = train_folds(&must, 2, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(
        message.starts_with("invalid resume=must: expected ") && message.contains("no fold below"),
        "{message}"
    );
    Folds::load(&out).unwrap();
    // Both are whole: nothing is trained again.
    train_folds(&job, 2, &mut |_| Err(Error::captioner("trained again"))).unwrap();
    // The first fold is new, the second still the old one.
    let job = TrainJob { seed: 1, ..job };
    let must = TrainJob { resume: Resume::Must, ..job.clone() };
    let never = TrainJob { resume: Resume::Never, ..job.clone() };
    let stopped = killed(|| {
        train_folds(&never, 2, &mut |at| match at.fold {
            (1, 2) => kill(),
            _ => Ok(()),
        })
    });
    assert!(stopped.is_err() && Folds::load(&out).is_err());
    // The second fold has no checkpoint yet, and needs none.
    let summaries = train_folds(&must, 2, &mut |_| Ok(())).unwrap();
    assert!(summaries[0].resumed_at > 0 && summaries[1].resumed_at == 0, "{summaries:?}");
    Folds::load(&out).unwrap();
}

#[test]
fn a_checkpoint_leaves_the_tokenizer_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    run(&job(&urls, &out), 5).unwrap_err();
    let tokenizer = beside(&out).join("tokenizer.json");
    let marked = std::fs::read_to_string(&tokenizer).unwrap() + "\n\n";
    std::fs::write(&tokenizer, &marked).unwrap();
    run(&job(&urls, &out), 9).unwrap_err();
    assert!(beside(&out).join("step-000000008.safetensors").exists());
    assert_eq!(std::fs::read_to_string(&tokenizer).unwrap(), marked);
}

#[test]
fn a_fit_says_what_it_found_and_encoding_agrees_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(&dir.path().join("data"));
    let out = dir.path().join("captioner");
    run(&job(&urls, &out), u64::MAX).unwrap();
    for features in [Features::BagOfCodes, Features::RawIndex] {
        let fitting = FitJob { clusters: Some(4), features, ..FitJob::new(urls.clone(), &out) };
        let summary = fit(&fitting, &mut |_, _| Ok(())).unwrap();
        assert_eq!((summary.points, summary.failed, summary.clusters), (96, 0, 4));
        assert_eq!((summary.report.errors.len(), summary.report.assignment.len()), (4, 96));
        let source = &summary.pass_by_source[0];
        assert_eq!((source.source.as_str(), source.points), ("train", 96));
        assert!((source.rate - summary.report.pass_rate).abs() < 1e-9);
        assert!(summary.report.warnings[0].contains("(samples=400)"), "{:?}", summary.report.warnings);

        let mut captioner = Captioner::load(&out, parse_device("cpu").unwrap()).unwrap();
        assert_eq!(summary.fingerprint, Scorer::fingerprint(&captioner));
        let previews = ndarray::Array4::from_shape_fn((8, 3, 16, 16), |(i, c, y, x)| {
            (37 * i + 91 * c + 13 * (y / 4) * (i + 1) + 29 * (x / 4)) as u8
        });
        let codes = captioner.encode_raw(previews.view(), &[""; 8]).unwrap().codes;
        let found = captioner.signals(previews.view(), &[""; 8]).unwrap().cluster;
        let clusters = captioner.clusters().unwrap();
        let expected = match &clusters.raw_index {
            Some(raw) => raw.nearest(codes.view()),
            None => {
                let rows = Signatures::from_codes(codes.view(), &clusters.idf).unwrap();
                let mut dense = ndarray::Array2::zeros((8, clusters.idf.len()));
                (0..8).for_each(|i| rows.row(i).for_each(|(code, value)| dense[[i, code]] = value));
                clusters.nearest(dense.view()).unwrap()
            }
        };
        assert_eq!(clusters.raw_index.is_some(), features == Features::RawIndex);
        assert_eq!(found, expected);
    }
    // A part of the corpus, from many places of it.
    let part = FitJob { clusters: Some(4), samples: Some(64), ..FitJob::new(urls, &out) };
    let points = fit(&part, &mut |_, _| Ok(())).unwrap().points;
    assert!((64..=96).contains(&points), "{points}");
}
