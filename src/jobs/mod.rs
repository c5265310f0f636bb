//! Whole runs, composed of the parts below: inspect shards, plan what to keep of a corpus, export and audit
//! what is kept.

mod audit;
mod export;
mod inspect;
mod plan;
mod recorded;

pub use audit::{Audit, AuditJob, Check, audit};
pub use export::{ExportBy, ExportJob, ExportSummary, export};
pub use inspect::{Fault, InspectJob, Inspection, MetadataInspection, ShardInspection, Spread, inspect};
pub use plan::{PlanEstimate, PlanJob, PlanStage, PlanSummary, estimate, missing_parts, plan};
pub use recorded::Wanted;
