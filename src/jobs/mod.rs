//! Whole runs, composed of the parts below: inspect shards, train a captioner on a stream, fit it to
//! a corpus, plan what to keep of it.

#[cfg(feature = "tch")]
mod fit;
mod inspect;
mod plan;
#[cfg(feature = "tch")]
mod train;

#[cfg(feature = "tch")]
pub use fit::{FitJob, FitSummary, fit};
pub use inspect::{Fault, InspectJob, Inspection, MetadataInspection, ShardInspection, Spread, inspect};
pub use plan::{PlanEstimate, PlanJob, PlanStage, PlanSummary, estimate, plan};
#[cfg(feature = "tch")]
pub use train::{TrainJob, TrainProgress, TrainSummary, train};
