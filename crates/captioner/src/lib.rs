//! The codebook captioner: says which cluster an image belongs to, how well its caption fits, and
//! what a better caption would be (TL;DR, arXiv 2305.20087, section 3.1).
//!
//! A ViT turns a preview into patch tokens, a codebook replaces each by its nearest code, and a
//! BERT-style decoder that cross-attends to the codes predicts the caption. Trained on
//! image-caption pairs, the codes come to hold what captions speak of; a bag of codes is then a
//! signature to cluster by.
//!
//! | file | job |
//! | --- | --- |
//! | [`config`](CaptionerConfig) | sizes, presets, validation |
//! | `weights` | named tensors: drawn from a seed, or read from a file and checked |
//! | `layers` | linear, layer norm, attention |
//! | `vit` | preview to patch tokens |
//! | `codebook` | nearest codes, EMA updates, dead codes |
//! | `bert` | text that attends to an image: embeddings, blocks, cache |
//! | `decoder` | caption likelihood, one step of decoding |
//! | `matcher` | [`Matcher`]: whether a text belongs to an image |
//! | `model` | [`Captioner`]: the parts together |
//! | `descriptor`, `copies` | what tells images apart: [`CopySample`] |
//! | `encode` | [`Scorer`](tldr_loader::model::Scorer) and [`RawSignals`] |
//! | [`generation`](GenerationConfig) | how captions are written |
//! | `generate` | [`Recaptioner`](tldr_loader::model::Recaptioner): greedy and drawn captions |
//! | `beam` | captions by beam search |
//! | `rules` | what every way of decoding obeys: lengths, banned tokens, repetition penalty |
//! | `blip` | [`Captioner::load_blip`], [`Matcher::load_blip`] |
//! | `fitted` | a codebook for a model that was trained without one |
//! | `learn` | learns it: [`Captioner::learn_codebook`] |
//! | `checkpoint`, `files` | the captioner directory, fingerprints |
//! | `train_options` | [`TrainOptions`]: schedule, precision |
//! | `start` | where the codes of a new codebook stand |
//! | `adamw`, `augment`, `autocast`, `train` | [`Trainer`] |
//! | `resume` | a training run on disk |
//! | `tensors` | [`TensorBatches`]: a loader's batches in torch tensors |
//! | `score` | [`Validation`](tldr_loader::cluster::Validation) on pairs that it was not trained on |
//! | `folds` | [`Folds`]: captioners that have seen different shards |
//!
//! # Threads
//!
//! A `Captioner` belongs to one thread at a time. On a CPU it encodes and writes captions with one
//! intra-op thread, whatever the process uses elsewhere: its results are then bit-identical for the
//! same sample wherever it stands in a batch. The calling thread gets its own number back after
//! every batch. On a GPU encoder and decoder compute in bf16 ([`Precision`]); training does not.
//!
//! # Waiting
//!
//! The host queues work for a GPU and never asks it anything in between: shapes do not depend on what a
//! batch holds, no loop looks whether captions have ended (on a CPU it does), and every batch ends in
//! one copy, of packed signals (`encode`) or token ids (`rules`).

mod adamw;
mod augment;
mod autocast;
mod beam;
mod bert;
mod blip;
mod checkpoint;
mod codebook;
mod config;
mod copies;
mod decoder;
mod descriptor;
mod device;
mod encode;
mod error;
mod files;
mod fitted;
mod folds;
mod generate;
mod generation;
pub mod jobs;
mod layers;
mod learn;
mod matcher;
mod model;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod parity;
mod projections;
mod resume;
mod rules;
mod score;
mod start;
mod tensors;
mod train;
mod train_options;
mod vit;
mod weights;

pub use augment::Augment;
pub use blip::{BlipKind, BlipOptions};
pub use checkpoint::set_generation;
pub use config::{
    Activation, CaptionerConfig, CodebookConfig, CodebookUpdate, DecodeFrom, DecoderConfig, LearnedBy,
    Specials, VisionConfig,
};
pub use descriptor::CopySample;
pub use device::{Precision, device_name, parse_device};
pub use encode::RawSignals;
pub use error::{Error, Result};
pub(crate) use files::{MODEL, TOKENIZER, lock, write};
pub use folds::{Fold, Folds};
pub use generation::{Decoding, GenerationChange, GenerationConfig};
pub use learn::{CodebookReport, PatchSample};
pub use matcher::{Matcher, MatcherConfig};
pub use model::Captioner;
pub use score::Scores;
pub use start::CodebookStart;
pub use tensors::{TensorBatch, TensorBatches};
pub use train::{StepReport, Trainer};
pub use train_options::{Decay, TrainOptions};

/// The code of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The code of docs/captioner.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/captioner.md")]
struct CaptionerPage;
