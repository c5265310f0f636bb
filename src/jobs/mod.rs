//! Whole runs, composed of the parts below: inspect shards, plan what to keep of a corpus, export and audit
//! what is kept.

mod audit;
mod checksums;
mod corpus;
mod decisions;
mod explain;
mod export;
mod fit;
mod inspect;
mod pairs;
mod plan;
mod recorded;
mod sample;

pub use audit::{Audit, AuditJob, Check, audit};
pub use checksums::Checksums;
pub use corpus::{Corpus, listed, nothing_in};
pub use decisions::{DecidedWindow, Decisions, DecisionsJob, ExportBy};
pub use explain::{Epochs, ExplainJob, Explained, GateCut, NearDuplicate, QuotaPlace, explain};
pub use export::{ExportJob, ExportSummary, export};
pub use fit::{FitScorerJob, ScorerFit, fit_scorer, swaps};
pub use inspect::{Fault, InspectJob, Inspection, MetadataInspection, ShardInspection, Spread, inspect};
pub use pairs::write_pairs;
pub use plan::{
    PlanEstimate, PlanJob, PlanStage, PlanSummary, estimate, missing_parts, plan, plan_by_scores,
};
pub use recorded::Wanted;
pub use sample::{Sampled, SampledBatch};
