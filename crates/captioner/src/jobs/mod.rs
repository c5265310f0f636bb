//! Whole runs: train a captioner on a stream, fit it to a corpus.

mod fit;
mod previews;
mod train;

pub use fit::{CaptionSample, FitJob, FitSummary, SourcePass, fit};
pub use train::{Resume, TrainJob, TrainProgress, TrainSummary, train, train_folds, worth_of_training};
