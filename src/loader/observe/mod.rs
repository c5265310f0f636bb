//! Observing: what became of every sample, what every thread is doing, and which of them hangs.

mod begin;
mod joins;
pub(crate) mod recorder;
pub(crate) mod stats;
pub(crate) mod watchdog;

pub use stats::{
    Activity, Counts, Failure, GateStats, HANDED_WARNINGS, Joined, LengthMismatch, SourceStats, Stats,
};
