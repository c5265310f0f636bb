//! Whole runs, composed of the parts below: inspect shards, train a captioner on a stream, fit it to
//! a corpus, plan what to keep of it, export and audit what is kept.

#[cfg(feature = "parquet")]
mod audit;
#[cfg(feature = "parquet")]
mod export;
#[cfg(feature = "tch")]
mod fit;
mod inspect;
mod plan;
#[cfg(feature = "tch")]
mod previews;
#[cfg(feature = "parquet")]
mod recorded;
#[cfg(feature = "tch")]
mod train;

#[cfg(feature = "parquet")]
pub use audit::{Audit, AuditJob, Check, audit};
#[cfg(feature = "parquet")]
pub use export::{ExportBy, ExportJob, ExportSummary, export};
#[cfg(feature = "tch")]
pub use fit::{CaptionSample, FitJob, FitSummary, SourcePass, fit};
pub use inspect::{Fault, InspectJob, Inspection, MetadataInspection, ShardInspection, Spread, inspect};
pub use plan::{PlanEstimate, PlanJob, PlanStage, PlanSummary, estimate, plan};
#[cfg(feature = "parquet")]
pub use recorded::Wanted;
#[cfg(feature = "tch")]
pub use train::{Resume, TrainJob, TrainProgress, TrainSummary, train, train_folds, worth_of_training};
