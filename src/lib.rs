//! A dataloader for vision-language pre-training that compresses the stream while training reads
//! it: TL;DR ("Too Large; Data Reduction for Vision-Language Pre-Training", arXiv 2305.20087),
//! online.
//!
//! # From the top
//!
//! A [`Loader`] reads image-text pairs from WebDataset tar shards or Parquet files, decides window by window which
//! of them are kept, and yields the kept samples as [`Batch`](loader::Batch)es. Nothing reduced is
//! written, and no rank talks to another to decide.
//!
//! ```
//! use tldr_synth::{SynthOptions, write_corpus};
//! use tldr_loader::{Loader, Result};
//!
//! # fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().map_err(|e| tldr_loader::Error::io("make a folder", e))?;
//! // A small corpus of drawn scenes, to have something to read.
//! let options = SynthOptions { samples: 400, shards: 4, test_samples: 0, ..SynthOptions::default() };
//! write_corpus(folder.path(), &options, &mut |_, _| {})?;
//!
//! let shards = folder.path().join("train").display().to_string();
//! let loader = Loader::builder(shards).keep_ratio(0.25).batch_size(16).image_size(32).build()?;
//! for batch in loader.iter()? {
//!     let batch = batch?;
//!     assert_eq!(batch.images.shape(), [16, 3, 32, 32]);
//!     assert_eq!(batch.captions.len(), 16);
//! }
//! assert_eq!(loader.stats().counts.read, 400);
//! # Ok(())
//! # }
//! ```
//!
//! Without a captioner the selection is plain random. With one, captions that do not fit their
//! image are gated out and each cluster of similar images keeps its share:
//!
//! * [`model`] has the two traits of models, [`LoaderBuilder::captioner`](loader::LoaderBuilder::captioner)
//!   takes one. The crate `tldr-captioner` has the project's own, in libtorch; this crate needs none.
//! * [`select`] is the policy: gate, dedup, quota, priority; a pure function of a window's signals.
//! * [`ledger`] remembers signals and captions: a second epoch, or another `keep_ratio`, needs no
//!   captioner.
//! * [`text::Fuse`] says which caption a kept sample carries.
//! * [`Error`] names shard, key, option or tensor; a bad sample costs itself only and is counted
//!   in [`Loader::stats`].
//!
//! The same inputs give the same kept samples and the same batches, whatever the threads, ranks or
//! machine load. `docs/architecture.md` follows one sample through the threads and names the test
//! of every promise.

pub mod aside;
pub mod cluster;
pub mod config;
pub mod error;
pub mod hash;
pub mod image;
pub mod jobs;
pub mod json;
pub mod ledger;
pub mod loader;
pub mod model;
pub mod names;
pub mod options;
pub mod sample;
pub mod select;
pub mod shard;
pub mod text;

pub use error::{Error, ErrorKind, FailReason, Result};
pub use loader::Loader;
pub use sample::{DropReason, FailedSample, Outcome, Sample, SampleId};
pub use shard::Shard;

/// The code of docs/mixing.md.
#[cfg(doctest)]
#[doc = include_str!("../docs/mixing.md")]
struct MixingPage;
