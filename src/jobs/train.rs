//! Trains a captioner from scratch on a stream of shards (TL;DR, section 3.1).
//!
//! Reads with the project's own loader in mode `Full`, trains a tokenizer on the captions first
//! if none is given, and writes the captioner directory with its loss curve (`train.csv`).

use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::ArrayView4;

use crate::captioner::{Captioner, CaptionerConfig, StepReport, TrainOptions, Trainer, parse_device};
use crate::error::{Error, Result};
use crate::hash::{self, Purpose};
use crate::image::ImageTransform;
use crate::loader::{Batch, Loader, Mode, PixelType};
use crate::shard::{self, ReadOptions, ShardReader, StoreOptions};
use crate::text::Tokenizer;

/// Captions that a tokenizer is trained on: more change little, and reading them takes time.
const TOKENIZER_CAPTIONS: usize = 200_000;

/// What to train, on what, and where to put it.
#[derive(Debug, Clone)]
pub struct TrainJob {
    /// Shards, as for [`Loader::builder`].
    pub urls: Vec<String>,
    /// Folder of the captioner directory; made if missing.
    pub out: PathBuf,
    /// Preset of sizes: `tiny`, `small` or `base`.
    pub preset: String,
    /// A tokenizer to use; trained on the captions where there is none.
    pub tokenizer: Option<PathBuf>,
    /// Entries of a tokenizer that is trained.
    pub vocab_size: usize,
    /// Passes over the corpus.
    pub epochs: u64,
    /// Pairs per step.
    pub batch_size: usize,
    /// Highest learning rate; the preset's own where `None`.
    pub learning_rate: Option<f64>,
    /// Steps of linear warm-up; a tenth of all steps at most.
    pub warmup: u64,
    /// Seed of weights, order and dropped images.
    pub seed: u64,
    /// Threads that train, on a CPU; 0 is one per core. Sums of gradients, and with them the weights,
    /// depend on it in the last digits.
    pub threads: usize,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Field of the json member that holds the caption; the txt member where a sample lacks it.
    pub caption_key: Option<String>,
    /// How remote shards are read.
    pub stores: StoreOptions,
    /// Samples per shard, in the order of the list, where they are known; else they are looked up
    /// or counted.
    pub lengths: Option<Vec<u64>>,
}

impl TrainJob {
    /// The defaults: preset `small` for 10 epochs of batches of 32 on the CPU.
    pub fn new(urls: Vec<String>, out: impl Into<PathBuf>) -> Self {
        Self {
            urls,
            out: out.into(),
            preset: "small".into(),
            tokenizer: None,
            vocab_size: 2000,
            epochs: 10,
            batch_size: 32,
            learning_rate: None,
            warmup: 3000,
            seed: 0,
            threads: 0,
            device: "cpu".into(),
            caption_key: None,
            stores: StoreOptions::default(),
            lengths: None,
        }
    }
}

/// Where a training run stands.
#[derive(Debug, Clone, Copy)]
pub struct TrainProgress {
    /// Steps of the whole run.
    pub steps: u64,
    /// What the last step did.
    pub report: StepReport,
}

/// How a training run ended.
#[derive(Debug, Clone, Copy)]
pub struct TrainSummary {
    /// Steps done.
    pub steps: u64,
    /// Pairs seen, repeats included.
    pub pairs: u64,
    /// What the last step did.
    pub last: StepReport,
    /// Trained numbers in the captioner.
    pub weights: usize,
    /// Seconds of the whole run, reading included.
    pub seconds: f64,
}

/// Runs the job. `progress` is called after every step; an error from it ends the run.
///
/// # Errors
/// Options by name; a corpus smaller than a batch; a loss that is not finite.
pub fn train(job: &TrainJob, progress: &mut dyn FnMut(&TrainProgress) -> Result<()>) -> Result<TrainSummary> {
    let started = std::time::Instant::now();
    if job.epochs == 0 {
        return Err(Error::option("epochs", job.epochs, "at least 1"));
    }
    let device = parse_device(&job.device)?;
    let tokenizer = match &job.tokenizer {
        Some(path) => Tokenizer::from_file(path)?,
        None => train_tokenizer(job)?,
    };
    let config = CaptionerConfig::preset(&job.preset, tokenizer.vocab_size())?;
    let loader = stream(job, config.preview_size)?;
    let steps = loader.num_batches() * job.epochs;
    let base = if job.preset == "base" { TrainOptions::new(steps) } else { TrainOptions::small(steps) };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if job.threads == 0 { cores() } else { job.threads };
    let mut options = TrainOptions { seed: job.seed, warmup: job.warmup, threads, ..base };
    if let Some(rate) = job.learning_rate {
        options.learning_rate = rate;
    }
    let mut trainer = Trainer::new(Captioner::new(config, tokenizer, device, job.seed)?, options)?;
    std::fs::create_dir_all(&job.out).map_err(|e| Error::io(format!("make {}", job.out.display()), e))?;
    let mut curve = Curve::create(&job.out.join("train.csv"))?;
    let (mut last, mut pairs) = (None, 0);
    for _ in 0..job.epochs {
        for batch in loader.iter()? {
            let batch = batch?;
            let captions: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
            let report = trainer.step(previews(&batch)?, &captions, &batch.ids)?;
            curve.push(&report)?;
            progress(&TrainProgress { steps, report })?;
            pairs += batch.len() as u64;
            last = Some(report);
        }
    }
    let captioner = trainer.into_captioner();
    captioner.save(&job.out)?;
    let last =
        last.ok_or_else(|| Error::option("urls", job.urls.join(" "), "shards with samples to train on"))?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(TrainSummary { steps, pairs, last, weights: captioner.weights(), seconds })
}

/// Every sample with its original caption as a preview of `size` pixels.
fn stream(job: &TrainJob, size: usize) -> Result<Loader> {
    let mut builder = Loader::builder(job.urls.clone())
        .stores(job.stores.clone())
        .mode(Mode::Full)
        .transform(ImageTransform::Preview)
        .pixels(PixelType::U8)
        .image_size(size)
        .batch_size(job.batch_size)
        .lanes(largest_divisor(job.batch_size, 4))
        .seed(job.seed)
        .rank(0)
        .world_size(1);
    if let Some(key) = &job.caption_key {
        builder = builder.caption_key(key);
    }
    if let Some(lengths) = &job.lengths {
        builder = builder.lengths(lengths.clone());
    }
    builder.build()
}

/// The largest divisor of `n` that is at most `most`.
pub(super) fn largest_divisor(n: usize, most: usize) -> usize {
    (1..=most.max(1)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

/// The pixels of a batch as previews, `[batch, 3, size, size]`.
pub(super) fn previews(batch: &Batch) -> Result<ArrayView4<'_, u8>> {
    let shape = batch.images.shape();
    let dims = (shape[0], shape[1], shape[2], shape[3]);
    let pixels = batch.images.as_u8().unwrap_or_default();
    ArrayView4::from_shape(dims, pixels)
        .map_err(|e| Error::format("previews", "u8 [batch, 3, size, size]", format!("{shape:?}: {e}")))
}

/// A tokenizer for the captions of the corpus, from shards in hash order until there are enough.
fn train_tokenizer(job: &TrainJob) -> Result<Tokenizer> {
    let mut shards = shard::list(&job.urls, None, &job.stores)?;
    shards.sort_by_key(|s| hash::hash(job.seed, Purpose::Fit, s.hash));
    let options = ReadOptions { caption_key: job.caption_key.clone() };
    let mut captions: Vec<String> = vec![];
    'shards: for shard in &shards {
        let mut reader = ShardReader::open(shard, &options)?;
        while let Some(group) = reader.next_group()? {
            captions.extend(group.ok().map(|sample| sample.caption));
            if captions.len() >= TOKENIZER_CAPTIONS {
                break 'shards;
            }
        }
    }
    if captions.is_empty() {
        return Err(Error::option("urls", job.urls.join(" "), "shards with readable captions"));
    }
    Tokenizer::train(captions.iter().map(String::as_str), job.vocab_size)
}

/// The loss curve on disk.
struct Curve {
    path: PathBuf,
    file: std::fs::File,
}

impl Curve {
    fn create(path: &Path) -> Result<Self> {
        let file =
            std::fs::File::create(path).map_err(|e| Error::io(format!("write {}", path.display()), e))?;
        let mut curve = Self { path: path.into(), file };
        curve.line("step,loss,lm_loss,vq_loss,perplexity,used_codes,learning_rate,images_per_s")?;
        Ok(curve)
    }

    fn push(&mut self, r: &StepReport) -> Result<()> {
        self.line(&format!(
            "{},{:.5},{:.5},{:.5},{:.2},{},{:.3e},{:.1}",
            r.step, r.loss, r.lm_loss, r.vq_loss, r.perplexity, r.used_codes, r.learning_rate, r.images_per_s
        ))
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.file, "{text}").map_err(|e| Error::io(format!("write {}", self.path.display()), e))
    }
}
