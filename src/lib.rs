//! A dataloader for vision-language pre-training that compresses the stream while training
//! reads it.

#[cfg(feature = "tch")]
pub mod captioner;
pub mod cluster;
pub mod error;
pub mod hash;
pub mod image;
pub mod model;
pub mod sample;
pub mod shard;
pub mod synth;
pub mod text;

pub use error::{Error, ErrorKind, FailReason, Result};
pub use sample::{DropReason, FailedSample, Outcome, Sample, SampleId};
pub use shard::Shard;
