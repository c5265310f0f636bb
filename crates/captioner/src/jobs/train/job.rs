//! What a training run is asked for.

use std::path::PathBuf;

use crate::jobs::train::Resume;
use crate::{Augment, CodebookStart, CodebookUpdate, Decay, Precision};
use tldr_loader::config::Source;
use tldr_loader::image::DecodeOptions;

/// What to train, on what, and where to put it.
#[derive(Debug, Clone)]
pub struct TrainJob {
    /// The corpus, and how it is read.
    pub source: Source,
    /// How its images are decoded.
    pub decode: DecodeOptions,
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
    /// Parts that a batch is worked on in, one after the other, to save memory.
    pub accumulate: usize,
    /// Numbers that matrix products are computed in; bf16 on a GPU and f32 on a CPU where `None`.
    pub precision: Option<Precision>,
    /// Highest learning rate; the preset's own where `None`.
    pub learning_rate: Option<f64>,
    /// What the learning rate does after the warm-up.
    pub schedule: Decay,
    /// Steps of linear warm-up; a tenth of all steps at most.
    pub warmup: u64,
    /// Where the codes stand before the first step.
    pub codebook_start: CodebookStart,
    /// How codes follow their patches.
    pub codebook_update: CodebookUpdate,
    /// Weight of the commitment loss.
    pub commitment: f64,
    /// What is validated on instead of trained on: a share of the shards below 1 (of the samples, by hash(seed, id),
    /// where that is less than one shard), or a count of shards; 0 for nothing. `None`: about 2,048 pairs, but at most
    /// a tenth of the corpus, in whole shards where that can be, and nothing of a corpus of fewer than 160 pairs.
    pub validate: Option<f64>,
    /// Steps between two checkpoints, each with a validation; 0 for none.
    pub checkpoint_every: u64,
    /// What to do with a checkpoint that is there.
    pub resume: Resume,
    /// What is done to previews.
    pub augment: Augment,
    /// Seed of weights, order, dropped images and what is held out.
    pub seed: u64,
    /// Threads that train, on a CPU; 0 is one per core. Sums of gradients, and with them the weights,
    /// depend on it in the last digits.
    pub threads: usize,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Train on fold `.0` of `.1` only: see [`train_folds`](crate::jobs::train_folds).
    pub fold: Option<(usize, usize)>,
}

impl TrainJob {
    /// The defaults: preset `small` for 10 epochs of batches of 32 on the CPU.
    pub fn new(urls: Vec<String>, out: impl Into<PathBuf>) -> Self {
        Self {
            source: Source::new(urls),
            decode: DecodeOptions::default(),
            out: out.into(),
            preset: "small".into(),
            tokenizer: None,
            vocab_size: 2000,
            epochs: 10,
            batch_size: 32,
            accumulate: 1,
            precision: None,
            learning_rate: None,
            schedule: Decay::Cosine,
            warmup: 3000,
            codebook_start: CodebookStart::default(),
            codebook_update: CodebookUpdate::default(),
            commitment: 0.25,
            validate: None,
            checkpoint_every: 1000,
            resume: Resume::Auto,
            augment: Augment::None,
            seed: 0,
            threads: 0,
            device: "cpu".into(),
            fold: None,
        }
    }
}
