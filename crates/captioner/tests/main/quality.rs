//! Promise: a trained captioner is good for what the loader uses it for. Its codes are in use, its
//! alignment tells true captions from swapped ones, and its clusters follow what pictures show.
//!
//! One `small` captioner is trained for all tests, on a synthetic corpus; measured is on pictures
//! that it has not seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::{Array2, Array4, s};
use tldr_captioner::jobs::{FitJob, TrainJob, TrainSummary, fit as fit_job, train};
use tldr_captioner::{Captioner, RawSignals, parse_device};
use tldr_loader::cluster::agreement::{auc, nmi};
use tldr_loader::cluster::kmeans::kmeans;
use tldr_loader::cluster::raw_index::Whitening;
use tldr_loader::cluster::signature::Signatures;
use tldr_loader::cluster::{FitOptions, FitPoints, fit};
use tldr_loader::config::{Gate, Mode, Selection};
use tldr_loader::image::{DecodeOptions, Scratch, preview};
use tldr_loader::jobs::{PlanJob, plan};
use tldr_loader::loader::Loader;
use tldr_loader::model::{PreviewFilter, Scorer};
use tldr_loader::sample::SampleId;
use tldr_synth::{CLASSES, Corpus, SynthOptions, write_corpus};

/// Pairs to train on: with a fifth of them noise, six epochs of 93 steps are enough.
const TRAINING: u64 = 3000;
const EPOCHS: u64 = 6;
/// Held-out pairs: a multiple of the captioner's batch of 64, and 48 for each class. With fewer, any two
/// labellings agree by chance, and differences between them are small.
const TEST: usize = 3072;

/// The captioner directory, and what its training said.
fn trained() -> &'static (PathBuf, TrainSummary) {
    static TRAINED: OnceLock<(PathBuf, TrainSummary)> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quality");
        let _ = std::fs::remove_dir_all(&dir); // of an earlier run, if any
        write_corpus(&dir.join("data"), &options(), &mut |_, _| {}).unwrap();
        let pattern = dir.join("data/train/{00000..00005}.tar").to_string_lossy().into_owned();
        let job = TrainJob {
            vocab_size: 1000,
            epochs: EPOCHS,
            // Sums of gradients, and with them the bounds below, depend on their number.
            threads: 2,
            validate: Some(0.0),
            checkpoint_every: 0,
            ..TrainJob::new(vec![pattern], dir.join("captioner"))
        };
        let summary = train(&job, &mut |_| Ok(())).unwrap();
        (job.out, summary)
    })
}

fn options() -> SynthOptions {
    SynthOptions {
        samples: TRAINING,
        shards: 6,
        test_samples: TEST as u64,
        misaligned: 0.2,
        ..Default::default()
    }
}

struct Pairs {
    previews: Array4<u8>,
    captions: Vec<String>,
    classes: Vec<u32>,
}

/// Clean pairs of scenes that training never saw.
fn held_out(size: usize) -> Pairs {
    let corpus = Corpus::new(&options()).unwrap();
    let mut pixels = vec![0u8; TEST * 3 * size * size];
    let (mut captions, mut classes, mut scratch) = (vec![], vec![], Scratch::default());
    for (i, out) in pixels.chunks_exact_mut(3 * size * size).enumerate() {
        let pair = corpus.test_sample(i as u64).unwrap();
        preview(&pair.jpeg, size, PreviewFilter::Bilinear, &DecodeOptions::default(), &mut scratch, out)
            .unwrap();
        captions.push(pair.caption);
        classes.push(pair.truth.class);
    }
    let previews = Array4::from_shape_vec((TEST, 3, size, size), pixels).unwrap();
    Pairs { previews, captions, classes }
}

/// Every picture with the caption `shift` places further on.
fn encode(captioner: &mut Captioner, pairs: &Pairs, shift: usize) -> RawSignals {
    let batch = captioner.batch_size();
    let mut all: Vec<RawSignals> = vec![];
    for start in (0..TEST).step_by(batch) {
        let captions: Vec<&str> =
            (start..start + batch).map(|i| pairs.captions[(i + shift) % TEST].as_str()).collect();
        let previews = pairs.previews.slice(s![start..start + batch, .., .., ..]);
        all.push(captioner.encode_raw(previews, &captions).unwrap());
    }
    let rows = |part: &dyn Fn(&RawSignals) -> Array2<f32>| -> Array2<f32> {
        let parts: Vec<Array2<f32>> = all.iter().map(part).collect();
        ndarray::concatenate(ndarray::Axis(0), &parts.iter().map(|p| p.view()).collect::<Vec<_>>()).unwrap()
    };
    RawSignals {
        codes: rows(&|raw| raw.codes.mapv(|c| c as f32)).mapv(|c| c as u32),
        mean_patch: rows(&|raw| raw.mean_patch.clone()),
        alignment_sum: all.iter().flat_map(|raw| raw.alignment_sum.clone()).collect(),
        tokens: all.iter().flat_map(|raw| raw.tokens.clone()).collect(),
    }
}

fn measured() -> &'static (Pairs, RawSignals, RawSignals, usize) {
    static MEASURED: OnceLock<(Pairs, RawSignals, RawSignals, usize)> = OnceLock::new();
    MEASURED.get_or_init(|| {
        let mut captioner = Captioner::load(&trained().0, parse_device("cpu").unwrap()).unwrap();
        let pairs = held_out(captioner.preview_size());
        let own = encode(&mut captioner, &pairs, 0);
        let swapped = encode(&mut captioner, &pairs, TEST / 2);
        (pairs, own, swapped, captioner.config().codes())
    })
}

#[test]
fn codes_are_in_use() {
    let (_, own, _, codes) = measured();
    let mut counts = vec![0f64; *codes];
    own.codes.iter().for_each(|&code| counts[code as usize] += 1.0);
    let used = counts.iter().filter(|&&n| n > 0.0).count();
    let total: f64 = counts.iter().sum();
    let entropy: f64 = counts.iter().filter(|&&n| n > 0.0).map(|n| -n / total * (n / total).ln()).sum();
    println!(
        "{used} of {codes} codes used, perplexity {:.1}; in training {:?}",
        entropy.exp(),
        trained().1.last
    );
    assert!(used as f64 >= 0.8 * *codes as f64, "{used} of {codes} codes are used");
    assert!(entropy.exp() >= *codes as f64 / 4.0, "perplexity {:.1} of {codes} codes", entropy.exp());
}

#[test]
fn alignment_tells_true_captions_from_swapped_ones() {
    let (_, own, swapped, _) = measured();
    // Captions of the test split all differ. The standard error of an AUC near 0.95 of 3,072 against
    // 3,072 is below 0.004.
    let found = auc(&own.alignment_sum, &swapped.alignment_sum);
    println!("AUC {found:.4}");
    assert!(found >= 0.95, "AUC {found:.3}");
}

#[test]
fn clusters_follow_classes_as_continuous_features_do_and_raw_indices_do_not() {
    let (pairs, own, _, codes) = measured();
    let seeds = 0..5u64;
    let mean = |found: &dyn Fn(u64) -> Vec<u32>| -> f64 {
        seeds.clone().map(|seed| nmi(&found(seed), &pairs.classes)).sum::<f64>() / 5.0
    };
    let points = FitPoints {
        codes: own.codes.clone(),
        codebook: *codes,
        alignment: own.alignment_sum.clone(),
        tokens: own.tokens.clone(),
    };
    let options = |seed| FitOptions { clusters: CLASSES, runs: 8, seed, ..Default::default() };
    let bags = mean(&|seed| fit(&points, &options(seed)).unwrap().1.assignment);
    let of_rows = |rows: &Array2<f32>, seed| {
        kmeans(&Signatures::from_dense(rows.view()), CLASSES, 25, seed).unwrap().assignment
    };
    let continuous = mean(&|seed| of_rows(&own.mean_patch, seed));
    let whitened = Whitening::fit(own.codes.view()).apply(own.codes.view());
    let raw_index = mean(&|seed| of_rows(&whitened, seed));
    println!(
        "NMI: bags of codes {bags:.3}, mean continuous feature {continuous:.3}, raw indices {raw_index:.3}"
    );
    assert!(bags >= continuous - 0.05, "bags {bags:.3}, continuous {continuous:.3}");
    assert!(bags >= raw_index + 0.15, "bags {bags:.3}, raw indices {raw_index:.3}");
}

/// What a plan is for, since near-duplicates lie in different shards: four copies of each of 750 scenes, a fifth of
/// the captions wrong, a quarter to keep.
#[test]
fn a_planned_quarter_of_a_corpus_with_four_copies_is_distinct_scenes() {
    let (captioner, _) = trained();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quality-plan");
    let _ = std::fs::remove_dir_all(&dir); // of an earlier run, if any
    let urls = vec![captioner.with_file_name("data/train").to_string_lossy().into_owned()];
    let own = dir.join("captioner");
    Captioner::load(captioner, parse_device("cpu").unwrap()).unwrap().save(&own).unwrap();
    // Measured where it is fitted: a captioner that tells true captions is told as one.
    let worth = fit_job(&FitJob::new(urls.clone(), &own), &mut |_, _| Ok(())).unwrap().worth.unwrap();
    assert!(worth.warning().is_none() && worth.validation.auc > 0.8, "{worth}");
    assert!((500..=1100).contains(&worth.validation.pairs), "{worth}");
    let fitted = Captioner::load(&own, parse_device("cpu").unwrap()).unwrap();
    let selection = Selection { gate: Some(Gate::top(0.8)), dedup: Some(0.94), ..Selection::default() };
    let mut job = PlanJob { fill_with_copies: true, ..PlanJob::new(urls.clone(), dir.join("ledger")) };
    job.config.selection = selection;
    let clusters = Arc::clone(fitted.clusters().unwrap());
    let planned = plan(&job, fitted, clusters, &mut |_, _, _| Ok(())).unwrap().plan.unwrap();

    let truth: HashMap<u64, (u64, bool)> = Loader::builder(urls)
        .mode(Mode::Eval)
        .build()
        .unwrap()
        .iter()
        .unwrap()
        .flat_map(|batch| {
            let batch = batch.unwrap();
            let truth = |(id, json): (&SampleId, &Option<Vec<u8>>)| {
                let json: serde_json::Value = serde_json::from_slice(json.as_ref().unwrap()).unwrap();
                (id.0, (json["scene"].as_u64().unwrap(), json["noise"] == "none"))
            };
            batch.ids.iter().zip(&batch.json).map(truth).collect::<Vec<_>>()
        })
        .collect();
    let kept: Vec<u64> = planned.plan.kept().map(|kept| truth[&kept.id.0].0).collect();
    let distinct: BTreeSet<u64> = kept.iter().copied().collect();
    let clean: BTreeSet<u64> = truth.values().filter(|(_, clean)| *clean).map(|(scene, _)| *scene).collect();
    let (share, covered) = (
        distinct.len() as f64 / kept.len() as f64,
        clean.intersection(&distinct).count() as f64 / clean.len() as f64,
    );
    println!("{} kept, distinct {share:.3}, scenes with a clean pair covered {covered:.3}", kept.len());
    assert_eq!(kept.len() as u64, TRAINING / 4, "the quota is full");
    assert!(share >= 0.93 && covered >= 0.9, "distinct {share:.3}, covered {covered:.3}");
}
