//! Which normalisation of the alignment a gate should use, and what a captioner that is trained from
//! scratch makes of a corpus: measured where the truth is known.
//!
//! ```sh
//! cargo run -p tldr-captioner --example alignment_study                       # the synthetic corpus
//! cargo run -p tldr-captioner --example alignment_study -- --shards ../shared/data/emoji-train --swap 0.4
//! ```
//!
//! On the synthetic corpus the captioner is trained on noisy pairs and measured on new ones with the
//! same noise: for every normalisation, the AUC of clean pairs against each kind of noise, and how
//! much a gate of one half depends on what it should not, length and class, among clean pairs. On
//! shards, captions are swapped first, captioners are trained, each on all pairs but those of one fold, and
//! every pair is scored by each.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Parser;
use clap::builder::TypedValueParser;
use ndarray::{Array2, Array4, Axis, s};
use tldr_captioner::{Augment, Captioner, CaptionerConfig, TrainOptions, Trainer, parse_device};
use tldr_loader::cluster::agreement::{auc, nmi, purity};
use tldr_loader::cluster::alignment::passes_gate;
use tldr_loader::cluster::{AlignmentNorm, AlignmentTable, FitOptions, FitPoints, RawAlignment, fit};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{DecodeOptions, Scratch, preview};
use tldr_loader::model::PreviewFilter;
use tldr_loader::model::Scorer;
use tldr_loader::shard::{self, ReadOptions, ShardReader, Store};
use tldr_loader::text::Tokenizer;
use tldr_loader::{Error, Result, SampleId};
use tldr_synth::{Corpus, Noise, SynthOptions};

/// What to train, and on how much.
#[derive(Debug, Parser)]
struct Options {
    /// Folder of shards with ground truth (`group`, `concept`) instead of the synthetic corpus.
    #[arg(long)]
    shards: Option<PathBuf>,
    /// Share of captions that are swapped, with --shards.
    #[arg(long, default_value_t = 0.4)]
    swap: f64,
    /// Training samples of the synthetic corpus; as many are measured on.
    #[arg(long, default_value_t = 5000)]
    samples: usize,
    /// Passes over the samples.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Preset of the captioner.
    #[arg(long, default_value = "small")]
    preset: String,
    /// Captioners, with --shards: each is trained on all parts of the pairs but one.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=20).map(|n| n as usize))]
    folds: usize,
    /// What is done to previews: none, shift or shift-flip.
    #[arg(long, default_value = "none")]
    augment: String,
    /// Threads to train with.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seed of corpus, swaps and training.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A tiny captioner and a few steps: does it run?
    #[arg(long)]
    smoke: bool,
}

/// Pairs in memory.
#[derive(Default)]
struct Pairs {
    pixels: Vec<u8>,
    captions: Vec<String>,
    /// What is wrong with the caption.
    noise: Vec<&'static str>,
    /// Class, or group.
    classes: Vec<u32>,
    /// Concept, where there is one.
    concepts: Vec<u32>,
}

/// What a captioner says of pairs.
struct Scored {
    sum: Vec<f32>,
    tokens: Vec<u32>,
    codes: Array2<u32>,
}

const BATCH: usize = 32;

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.smoke {
        (options.samples, options.epochs, options.preset) = (640, 1, "tiny".into());
    }
    match options.shards.clone() {
        Some(dir) => study_shards(&options, dir),
        None => study_synthetic(&options),
    }
}

fn study_synthetic(options: &Options) -> Result<()> {
    let size = CaptionerConfig::preset(&options.preset, 4)?.preview_size;
    // Another seed draws other scenes.
    let train = synthetic(options.samples, options.seed, size)?;
    let test = synthetic(options.samples, options.seed + 1, size)?;
    let rows: Vec<usize> = (0..options.samples).collect();
    let mut captioner = trained(options, &train, &rows, size)?;
    let seen = score(&mut captioner, &train, size)?;
    let fresh = score(&mut captioner, &test, size)?;
    println!("pairs that training has seen:");
    table(&train, &seen, &captioner)?;
    println!("new pairs with the same noise:");
    table(&test, &fresh, &captioner)
}

fn study_shards(options: &Options, dir: PathBuf) -> Result<()> {
    let size = CaptionerConfig::preset(&options.preset, 4)?.preview_size;
    let mut pairs = read(&dir, size, if options.smoke { 400 } else { usize::MAX })?;
    swap(&mut pairs, options.swap, options.seed);
    let count = pairs.captions.len();
    let swapped = pairs.noise.iter().filter(|n| **n != "none").count();
    println!("{count} pairs, {swapped} of them swapped");
    let fold = |i: usize| Rng::new(options.seed, Purpose::Fit, i as u64).below(options.folds);
    let (mut scored, mut captioners) = (vec![], vec![]);
    for held_out in 0..options.folds {
        let seen: Vec<usize> = (0..count).filter(|&i| fold(i) != held_out).collect();
        let mut captioner = trained(options, &pairs, &seen, size)?;
        scored.push(score(&mut captioner, &pairs, size)?);
        captioners.push(captioner);
    }
    for (name, other) in [("that has seen it", 1), ("that has not seen it", 0)] {
        let own = |norm: AlignmentNorm, noise: &str| -> Vec<f32> {
            let rows = (0..count).filter(|&i| pairs.noise[i] == noise);
            let by = |i: usize| &scored[(fold(i) + other) % options.folds];
            rows.map(|i| match norm {
                AlignmentNorm::Mean => by(i).sum[i] / by(i).tokens[i].max(1) as f32,
                _ => by(i).sum[i],
            })
            .collect()
        };
        for norm in [AlignmentNorm::Sum, AlignmentNorm::Mean] {
            let found = auc(&own(norm, "none"), &own(norm, "swapped"));
            println!("AUC by the captioner {name}, {}: {found:.3}", norm.name());
        }
    }
    // Clusters of all pairs, by the codes of the first.
    let groups = pairs.classes.iter().collect::<BTreeSet<_>>().len();
    let concepts = pairs.concepts.iter().collect::<BTreeSet<_>>().len();
    for clusters in [groups, (count / 100).max(2), (count / 3).max(2)] {
        let options = FitOptions { clusters, runs: 16, seed: options.seed, ..Default::default() };
        let (_, report) = fit(&points(&scored[0], &captioners[0]), &options)?;
        println!(
            "{clusters} clusters: NMI {:.3} with {groups} groups, purity {:.3} with {concepts} concepts",
            nmi(&report.assignment, &pairs.classes),
            purity(&report.assignment, &pairs.concepts)
        );
    }
    Ok(())
}

fn synthetic(count: usize, seed: u64, size: usize) -> Result<Pairs> {
    let corpus = Corpus::new(&SynthOptions {
        samples: count as u64,
        test_samples: 0,
        misaligned: 0.5,
        seed,
        ..Default::default()
    })?;
    let mut pairs = Pairs::default();
    let mut scratch = Scratch::default();
    for i in 0..count {
        let pair = corpus.sample(i as u64)?;
        pairs.push(&pair.jpeg, pair.caption, size, &mut scratch)?;
        pairs.noise.push(pair.truth.noise.name());
        pairs.classes.push(pair.truth.class);
    }
    Ok(pairs)
}

fn read(dir: &std::path::Path, size: usize, most: usize) -> Result<Pairs> {
    let (mut pairs, mut scratch) = (Pairs::default(), Scratch::default());
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    for shard in shard::list(&[dir.to_string_lossy().into_owned()], None, &Store::default())? {
        let mut reader = ShardReader::open(&shard, &ReadOptions::default())?;
        while let Some(group) = reader.next_group()? {
            let Ok(sample) = group else { continue };
            if pairs.captions.len() == most {
                return Ok(pairs);
            }
            let json: serde_json::Value =
                serde_json::from_slice(sample.json.as_deref().unwrap_or_default()).unwrap_or_default();
            let mut number = |field: &str| {
                let next = numbers.len() as u32;
                *numbers.entry(format!("{field} {}", json[field])).or_insert(next)
            };
            let (group, concept) = (number("group"), number("concept"));
            pairs.push(&sample.image, sample.caption, size, &mut scratch)?;
            pairs.noise.push("none");
            pairs.classes.push(group);
            pairs.concepts.push(concept);
        }
    }
    Ok(pairs)
}

impl Pairs {
    fn push(&mut self, image: &[u8], caption: String, size: usize, scratch: &mut Scratch) -> Result<()> {
        let mut pixels = vec![0u8; 3 * size * size];
        preview(image, size, PreviewFilter::Bilinear, &DecodeOptions::default(), scratch, &mut pixels)
            .map_err(|e| Error::format("preview", "a picture", e))?;
        self.pixels.extend(pixels);
        self.captions.push(caption);
        Ok(())
    }

    fn previews(&self, size: usize) -> Result<Array4<u8>> {
        Array4::from_shape_vec((self.captions.len(), 3, size, size), self.pixels.clone())
            .map_err(|e| Error::format("previews", "whole pictures", e))
    }
}

/// Gives a share of the pairs the caption of another one among them.
fn swap(pairs: &mut Pairs, share: f64, seed: u64) {
    let mut rows: Vec<usize> = (0..pairs.captions.len()).collect();
    Rng::new(seed, Purpose::Shuffle, 0).shuffle(&mut rows);
    rows.truncate((share * pairs.captions.len() as f64) as usize);
    let captions: Vec<String> = rows.iter().map(|&i| pairs.captions[i].clone()).collect();
    for (place, &row) in rows.iter().enumerate() {
        let other = (1..captions.len()).map(|d| &captions[(place + d) % captions.len()]);
        if let Some(caption) = other.into_iter().find(|caption| **caption != captions[place]) {
            pairs.captions[row] = caption.clone();
            pairs.noise[row] = "swapped";
        }
    }
}

fn trained(options: &Options, pairs: &Pairs, rows: &[usize], size: usize) -> Result<Captioner> {
    let tokenizer = Tokenizer::train(rows.iter().map(|&i| pairs.captions[i].as_str()), 2000)?;
    let config = CaptionerConfig::preset(&options.preset, tokenizer.vocab_size())?;
    let captioner = Captioner::new(config, tokenizer, parse_device("cpu")?, options.seed)?;
    let steps = (rows.len() / BATCH * options.epochs) as u64;
    let settings = TrainOptions {
        learning_rate: options.learning_rate,
        seed: options.seed,
        threads: options.threads,
        augment: Augment::from_name(&options.augment)?,
        ..TrainOptions::small(steps)
    };
    let mut trainer = Trainer::new(captioner, settings)?;
    let previews = pairs.previews(size)?;
    for epoch in 0..options.epochs {
        let mut order = rows.to_vec();
        Rng::new(options.seed, Purpose::ShardOrder, epoch as u64).shuffle(&mut order);
        let mut last = None;
        for rows in order.chunks_exact(BATCH) {
            let captions: Vec<&str> = rows.iter().map(|&i| pairs.captions[i].as_str()).collect();
            let ids: Vec<SampleId> = rows.iter().map(|&i| SampleId(i as u64)).collect();
            last = Some(trainer.step(previews.select(Axis(0), rows).view(), &captions, &ids)?);
        }
        if let Some(r) = last {
            println!("  epoch {:2}: caption loss {:.3}, {} codes used", epoch + 1, r.lm_loss, r.used_codes);
        }
    }
    Ok(trainer.into_captioner())
}

fn score(captioner: &mut Captioner, pairs: &Pairs, size: usize) -> Result<Scored> {
    let (batch, count) = (captioner.batch_size(), pairs.captions.len());
    let previews = pairs.previews(size)?;
    let (mut sum, mut tokens, mut codes) = (vec![], vec![], vec![]);
    for start in (0..count).step_by(batch) {
        let rows = batch.min(count - start);
        let mut full = Array4::zeros((batch, 3, size, size));
        full.slice_mut(s![..rows, .., .., ..]).assign(&previews.slice(s![start..start + rows, .., .., ..]));
        let mut captions: Vec<&str> =
            pairs.captions[start..start + rows].iter().map(String::as_str).collect();
        captions.resize(batch, "");
        let raw = captioner.encode_raw(full.view(), &captions)?;
        sum.extend_from_slice(&raw.alignment_sum[..rows]);
        tokens.extend_from_slice(&raw.tokens[..rows]);
        codes.extend(raw.codes.slice(s![..rows, ..]).iter().copied());
    }
    let codes = Array2::from_shape_vec((count, captioner.config().patches()), codes)
        .map_err(|e| Error::format("codes", "one row per pair", e))?;
    Ok(Scored { sum, tokens, codes })
}

fn points(scored: &Scored, captioner: &Captioner) -> FitPoints {
    FitPoints {
        codes: scored.codes.clone(),
        codebook: captioner.config().codes(),
        alignment: scored.sum.clone(),
        tokens: scored.tokens.clone(),
    }
}

/// AUC by kind of noise, and among clean pairs what a gate of one half passes by length and class.
fn table(pairs: &Pairs, scored: &Scored, captioner: &Captioner) -> Result<()> {
    let clusters = FitOptions { clusters: 50, runs: 16, ..Default::default() };
    let (clusters, report) = fit(&points(scored, captioner), &clusters)?;
    let raw: Vec<RawAlignment> = (0..scored.sum.len())
        .map(|i| RawAlignment {
            sum: scored.sum[i],
            tokens: scored.tokens[i],
            run: clusters.runs[report.assignment[i] as usize],
        })
        .collect();
    let mut lengths: Vec<u32> = clean(pairs).map(|i| scored.tokens[i]).collect();
    lengths.sort_unstable();
    let (short, long) = (lengths[lengths.len() / 4], lengths[lengths.len() * 3 / 4]);
    println!(
        "  norm     swapped generic attribute same-class   all | clean passed: <= {short} tokens, >= {long} \
         tokens | 4 commonest classes, rest | rank correlation with length"
    );
    for norm in [AlignmentNorm::Sum, AlignmentNorm::Mean, AlignmentNorm::Matched] {
        let table = AlignmentTable::fit(norm, &raw, clusters.run_count());
        let quantiles: Vec<f32> = raw.iter().map(|&r| table.quantile(r)).collect();
        let own: Vec<f32> = clean(pairs).map(|i| quantiles[i]).collect();
        let of = |wanted: &dyn Fn(&str) -> bool| -> f64 {
            let noisy = (0..quantiles.len()).filter(|&i| wanted(pairs.noise[i]));
            auc(&own, &noisy.map(|i| quantiles[i]).collect::<Vec<_>>())
        };
        let kinds: Vec<f64> = Noise::ALL[1..].iter().map(|kind| of(&|noise| noise == kind.name())).collect();
        let rate = |wanted: &dyn Fn(usize) -> bool| -> f64 {
            let rows: Vec<usize> = clean(pairs).filter(|&i| wanted(i)).collect();
            let passed = rows.iter().filter(|&&i| passes_gate(quantiles[i], 0.5)).count();
            100.0 * passed as f64 / rows.len().max(1) as f64
        };
        let tokens: Vec<f32> = clean(pairs).map(|i| scored.tokens[i] as f32).collect();
        println!(
            "  {:8} {:7.3} {:7.3} {:9.3} {:10.3} {:5.3} | {:5.1}% {:5.1}% | {:5.1}% {:5.1}% | {:+.2}",
            norm.name(),
            kinds[0],
            kinds[1],
            kinds[2],
            kinds[3],
            of(&|noise| noise != "none"),
            rate(&|i| scored.tokens[i] <= short),
            rate(&|i| scored.tokens[i] >= long),
            rate(&|i| pairs.classes[i] < 4),
            rate(&|i| pairs.classes[i] >= 4),
            correlation(&ranks(&own), &ranks(&tokens)),
        );
    }
    Ok(())
}

fn clean(pairs: &Pairs) -> impl Iterator<Item = usize> + '_ {
    (0..pairs.noise.len()).filter(|&i| pairs.noise[i] == "none")
}

/// Mean rank of each value.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank =
        |v: &f32| (sorted.partition_point(|x| x < v) + sorted.partition_point(|x| x <= v)) as f64 / 2.0;
    values.iter().map(rank).collect()
}

/// Pearson's, of ranks Spearman's.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().max(1) as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let product = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    product(a, ma, b, mb) / (product(a, ma, a, ma) * product(b, mb, b, mb)).sqrt().max(f64::MIN_POSITIVE)
}
