//! Trains a captioner on the synthetic corpus and measures what it is good for: whether its
//! alignment tells true captions from swapped ones, how its codes are used, and what it writes.
//!
//! ```sh
//! cargo run -p tldr-captioner --example captioner_quality -- --samples 5000 --epochs 8
//! ```
//!
//! All measures are on the clean test split, whose scenes and captions training never saw.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use ndarray::{Array2, Array4, Axis, s};
use tldr_captioner::{Captioner, CaptionerConfig, TrainOptions, Trainer, parse_device};
use tldr_loader::cluster::{FitOptions, FitPoints, fit};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{DecodeOptions, Scratch, preview};
use tldr_loader::model::{PreviewFilter, Recaptioner, Scorer};
use tldr_loader::text::Tokenizer;
use tldr_loader::{Error, Result, SampleId};
use tldr_synth::{CLASSES, Corpus, SynthOptions, SynthSample};

/// What to train, and on how much.
#[derive(Debug, Parser)]
struct Options {
    /// Training samples.
    #[arg(long, default_value_t = 5000)]
    samples: usize,
    /// Share of training captions that do not fit their image.
    #[arg(long, default_value_t = 0.5)]
    misaligned: f64,
    /// Passes over the samples.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Samples of a step.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Share of images replaced by the null image.
    #[arg(long, default_value_t = 0.1)]
    null_probability: f64,
    /// Preset of the captioner.
    #[arg(long, default_value = "small")]
    preset: String,
    /// Threads to train with.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// A tiny captioner and a few steps: does it run?
    #[arg(long)]
    smoke: bool,
    /// Seed of corpus and training.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Pairs in memory.
struct Pairs {
    previews: Array4<u8>,
    captions: Vec<String>,
    /// Pictures of one scene are near-duplicates.
    scenes: Vec<u64>,
    classes: Vec<u32>,
}

/// Clean pairs to measure on; a multiple of the presets' batches.
const TEST: usize = 768;
/// Pairs of the test split that are scored after every epoch.
const PROBE: usize = 256;

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.smoke {
        (options.samples, options.epochs, options.preset) = (320, 1, "tiny".into());
    }
    let corpus = Corpus::new(&SynthOptions {
        samples: options.samples as u64,
        test_samples: TEST as u64,
        misaligned: options.misaligned,
        seed: options.seed,
        ..Default::default()
    })?;
    let started = Instant::now();
    let mut config = CaptionerConfig::preset(&options.preset, 4)?;
    let train = draw(options.samples, config.preview_size, |i| corpus.sample(i))?;
    let test = draw(TEST, config.preview_size, |i| corpus.test_sample(i))?;
    println!("drew {} samples in {:.1} s", options.samples + TEST, started.elapsed().as_secs_f64());

    let tokenizer = Tokenizer::train(train.captions.iter().map(String::as_str), 1000)?;
    config.decoder.vocab = tokenizer.vocab_size();
    let captioner = Captioner::new(config, tokenizer, parse_device(&options.device)?, options.seed)?;
    println!("{} weights, {} tokens", captioner.weights(), captioner.tokenizer().vocab_size());

    let mut captioner = run(captioner, &options, &train, &test)?;
    measure(&mut captioner, &test)?;
    measure_clusters(&mut captioner, &train)
}

fn draw(count: usize, size: usize, sample: impl Fn(u64) -> Result<SynthSample>) -> Result<Pairs> {
    let mut pixels = vec![0u8; count * 3 * size * size];
    let (limits, mut scratch) = (DecodeOptions::default(), Scratch::default());
    let (mut captions, mut scenes, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    for (i, out) in pixels.chunks_exact_mut(3 * size * size).enumerate() {
        let pair = sample(i as u64)?;
        preview(&pair.jpeg, size, PreviewFilter::Bilinear, &limits, &mut scratch, out)
            .map_err(|e| Error::format("preview", "a picture", e))?;
        captions.push(pair.caption);
        scenes.push(pair.truth.scene);
        classes.push(pair.truth.class);
    }
    let previews = Array4::from_shape_vec((count, 3, size, size), pixels)
        .map_err(|e| Error::format("previews", "whole pictures", e))?;
    Ok(Pairs { previews, captions, scenes, classes })
}

fn run(captioner: Captioner, options: &Options, train: &Pairs, test: &Pairs) -> Result<Captioner> {
    let per_epoch = options.samples / options.batch_size;
    let steps = (per_epoch * options.epochs) as u64;
    let mut trainer = Trainer::new(
        captioner,
        TrainOptions {
            learning_rate: options.learning_rate,
            null_probability: options.null_probability,
            seed: options.seed,
            threads: options.threads,
            ..TrainOptions::small(steps)
        },
    )?;
    let started = Instant::now();
    for epoch in 0..options.epochs {
        let mut order: Vec<usize> = (0..options.samples).collect();
        Rng::new(options.seed, Purpose::ShardOrder, epoch as u64).shuffle(&mut order);
        let mut last = None;
        for rows in order.chunks_exact(options.batch_size) {
            let previews = train.previews.select(Axis(0), rows);
            let captions: Vec<&str> = rows.iter().map(|&i| train.captions[i].as_str()).collect();
            let ids: Vec<SampleId> = rows.iter().map(|&i| SampleId(i as u64)).collect();
            last = Some(trainer.step(previews.view(), &captions, &ids)?);
        }
        if let Some(r) = last {
            let seconds = started.elapsed().as_secs_f64();
            let own = encode(trainer.captioner_mut(), test, PROBE, 0)?;
            let swapped = encode(trainer.captioner_mut(), test, PROBE, PROBE / 2)?;
            println!(
                "epoch {:2}: {seconds:5.1} s, caption loss {:.3}, code loss {:.5}, perplexity {:.0}, {} codes \
                 used, AUC {:.3}, {:.0} images/s",
                epoch + 1,
                r.lm_loss,
                r.vq_loss,
                r.perplexity,
                r.used_codes,
                auc(&own.alignment_sum, &swapped.alignment_sum),
                r.images_per_s,
            );
        }
    }
    Ok(trainer.into_captioner())
}

fn measure(captioner: &mut Captioner, test: &Pairs) -> Result<()> {
    let started = Instant::now();
    let own = encode(captioner, test, TEST, 0)?;
    let swapped = encode(captioner, test, TEST, TEST / 2)?;
    let rate = 2.0 * TEST as f64 / started.elapsed().as_secs_f64();
    let auc = auc(&own.alignment_sum, &swapped.alignment_sum);
    println!("alignment: AUC {auc:.3} of {TEST} true against swapped captions; {rate:.0} images/s");

    let mut counts = vec![0f64; captioner.config().codes()];
    own.codes.iter().for_each(|&code| counts[code as usize] += 1.0);
    let used = counts.iter().filter(|&&n| n > 0.0).count();
    println!("codes: {used} of {} used, perplexity {:.0}", counts.len(), entropy(&counts).exp());

    let batch = captioner.caption_batch_size();
    let ids: Vec<SampleId> = (0..batch as u64).map(SampleId).collect();
    let started = Instant::now();
    let mut exact = 0;
    for start in (0..TEST).step_by(batch) {
        let previews = test.previews.slice(s![start..start + batch, .., .., ..]);
        for (i, caption) in captioner.caption(previews, &ids)?.into_iter().enumerate() {
            exact += usize::from(caption == test.captions[start + i]);
            if start + i < 5 {
                println!("  {}\n    -> {caption}", test.captions[i]);
            }
        }
    }
    let rate = TEST as f64 / started.elapsed().as_secs_f64();
    println!("captions: {:.1}% exact; {rate:.0}/s", 100.0 * exact as f64 / TEST as f64);
    Ok(())
}

/// What clusters and embeddings are worth, on the first training samples: the test split has no
/// copies.
fn measure_clusters(captioner: &mut Captioner, train: &Pairs) -> Result<()> {
    let count = train.captions.len().min(2048) / captioner.batch_size() * captioner.batch_size();
    let raw = encode(captioner, train, count, 0)?;
    let embedding = Array2::from_shape_vec((count, captioner.dim()), raw.mean_patch)
        .map_err(|e| Error::format("embeddings", "one row per sample", e))?;
    let similarity = embedding.dot(&embedding.t());
    let (mut copies, mut others) = (Vec::new(), Vec::new());
    for i in 0..count {
        for j in 0..i {
            let same = train.scenes[i] == train.scenes[j];
            if same { &mut copies } else { &mut others }.push(similarity[[i, j]]);
        }
    }
    println!(
        "mean patch: AUC {:.4} of near-duplicates against other pairs, by cosine",
        auc(&copies, &others)
    );

    let patches = captioner.config().patches();
    let codes = Array2::from_shape_vec((count, patches), raw.codes)
        .map_err(|e| Error::format("codes", "one row per sample", e))?;
    let points = FitPoints {
        codes,
        codebook: captioner.config().codes(),
        alignment: raw.alignment_sum,
        tokens: raw.tokens,
    };
    let (clusters, _) = fit(&points, &FitOptions { clusters: CLASSES, runs: 8, ..Default::default() })?;
    captioner.set_clusters(Some(Arc::new(clusters)))?;
    let batch = captioner.batch_size();
    let mut found = Vec::new();
    for start in (0..count).step_by(batch) {
        let previews = train.previews.slice(s![start..start + batch, .., .., ..]);
        let captions: Vec<&str> = train.captions[start..start + batch].iter().map(String::as_str).collect();
        found.extend(captioner.signals(previews, &captions)?.cluster);
    }
    println!("clusters: NMI {:.3} with the true classes", nmi(&found, &train.classes[..count]));
    Ok(())
}

/// Raw signals of many batches, end to end.
#[derive(Default)]
struct Encoded {
    codes: Vec<u32>,
    alignment_sum: Vec<f32>,
    tokens: Vec<u32>,
    mean_patch: Vec<f32>,
}

/// Encodes the first `count` images, each with the caption `shift` places further on.
fn encode(captioner: &mut Captioner, pairs: &Pairs, count: usize, shift: usize) -> Result<Encoded> {
    let batch = captioner.batch_size();
    let mut all = Encoded::default();
    for start in (0..count).step_by(batch) {
        let previews = pairs.previews.slice(s![start..start + batch, .., .., ..]);
        let captions: Vec<&str> =
            (start..start + batch).map(|i| pairs.captions[(i + shift) % count].as_str()).collect();
        let raw = captioner.encode_raw(previews, &captions)?;
        all.codes.extend(raw.codes);
        all.alignment_sum.extend(raw.alignment_sum);
        all.tokens.extend(raw.tokens);
        all.mean_patch.extend(raw.mean_patch);
    }
    Ok(all)
}

/// Entropy of counts, in nats.
fn entropy(counts: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    counts.iter().filter(|&&n| n > 0.0).map(|n| -n / total * (n / total).ln()).sum()
}

/// Normalised mutual information of two labellings (arithmetic mean of the entropies).
fn nmi(a: &[u32], b: &[u32]) -> f64 {
    let counts = |labels: &mut dyn Iterator<Item = u64>| -> Vec<f64> {
        let mut counts = BTreeMap::new();
        labels.for_each(|label| *counts.entry(label).or_insert(0.0) += 1.0);
        counts.into_values().collect()
    };
    let (first, second) =
        (|&x: &u32| u64::from(x), |(&x, &y): (&u32, &u32)| u64::from(x) << 32 | u64::from(y));
    let a_entropy = entropy(&counts(&mut a.iter().map(first)));
    let b_entropy = entropy(&counts(&mut b.iter().map(first)));
    let joint = entropy(&counts(&mut a.iter().zip(b).map(second)));
    2.0 * (a_entropy + b_entropy - joint) / (a_entropy + b_entropy)
}

/// Chance that a draw of `high` is above a draw of `low`.
fn auc(high: &[f32], low: &[f32]) -> f64 {
    let mut low = low.to_vec();
    low.sort_by(f32::total_cmp);
    let below: usize = high.iter().map(|x| low.partition_point(|y| y < x)).sum();
    below as f64 / (high.len() * low.len()) as f64
}
