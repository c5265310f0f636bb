//! A dataloader for vision-language pre-training that compresses the stream while training
//! reads it.

pub mod cluster;
pub mod error;
pub mod hash;
pub mod image;
pub mod model;
pub mod sample;
pub mod text;

pub use error::{Error, ErrorKind, FailReason, Result};
pub use sample::{DropReason, Outcome, Sample, SampleId};
