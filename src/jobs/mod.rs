//! Whole runs, composed of the parts below: inspect shards, train a captioner on a stream, fit it to
//! a corpus.

#[cfg(feature = "tch")]
mod fit;
mod inspect;
#[cfg(feature = "tch")]
mod previews;
#[cfg(feature = "tch")]
mod train;

#[cfg(feature = "tch")]
pub use fit::{FitJob, FitSummary, SourcePass, fit};
pub use inspect::{Fault, InspectJob, Inspection, MetadataInspection, ShardInspection, Spread, inspect};
#[cfg(feature = "tch")]
pub use train::{Resume, TrainJob, TrainProgress, TrainSummary, train, train_folds};
