//! Which samples are kept: gate, dedup, quota, reservoir, in that order.
//!
//! A decision is a pure function of one window's signals, the [`Policy`] and the epoch. It does
//! not depend on other windows, on their order, or on anything that runs beside it; one bad sample
//! can change decisions in its own window only.
//!
//! 1. [`gate`] drops what is badly aligned with its caption, or has a low [`score`].
//! 2. [`dedup`] drops near-duplicates within the window.
//! 3. [`quota`] gives each cluster its rate pi.
//! 4. [`reservoir`] draws with exactly these rates, evenly over similar clusters; with another
//!    priority ([`diverse`], hard, longest) it says how many to keep, and the priority says which.
//!
//! [`plan`] decides for a whole corpus at once: exact quotas, and no near-duplicates across shards.
//!
//! No I/O, threads or tensors here.

pub mod dedup;
pub mod diverse;
pub mod gate;
pub mod plan;
pub(crate) mod plan_copies;
mod plan_counts;
mod plan_quota;
mod policy;
pub mod quota;
pub mod reservoir;
mod schedule;
pub mod score;
pub mod selector;

pub use plan::{Duplicate, Fate, Fates, InCluster, NearDuplicates, Plan, Planner};
pub use plan_copies::hash_duplicates;
pub use plan_counts::PlanCounts;
pub use policy::Policy;
pub(crate) use policy::is_ratio;
pub use quota::Rates;
pub(crate) use schedule::Schedule;
pub use score::ScoreCut;
pub use selector::{Near, Place, Selector, Window};
