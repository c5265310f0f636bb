//! Whole runs, composed of the parts below: train a captioner on a stream, fit it to a corpus.

#[cfg(feature = "tch")]
mod fit;
#[cfg(feature = "tch")]
mod train;

#[cfg(feature = "tch")]
pub use fit::{FitJob, FitSummary, fit};
#[cfg(feature = "tch")]
pub use train::{TrainJob, TrainProgress, TrainSummary, train};
