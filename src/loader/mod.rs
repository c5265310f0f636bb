//! The loader: lanes, a pipeline of threads, batches, state and statistics.
//!
//! [`Loader::builder`] takes the options and checks them; [`Loader::iter`] yields an epoch. Per
//! lane and corpus one thread reads windows of encoded samples and one decides them; the captioner has a
//! thread of its own; one thread assembles batches, whose pixels a pool decodes.

mod alike;
mod assemble;
mod batch;
mod batches;
mod buffer;
mod build;
mod builder;
mod captions;
mod checks;
mod claims;
mod completing;
mod decider;
mod deciding;
mod deferring;
mod effects;
mod evaluating;
mod filling;
mod gate;
mod lane;
mod listing;
mod locating;
mod look;
mod memory;
mod mix;
mod model_thread;
mod pipeline;
mod plan;
mod planned;
mod previews;
mod progress;
mod raw;
mod reading;
mod recorder;
mod settings;
mod shares;
mod spec;
mod state;
mod stats;
mod stream;
mod urls;
mod watchdog;
mod world;

pub use batch::{Batch, Images};
pub use batches::{Batches, Next};
pub use builder::{LoaderBuilder, Parts};
pub(crate) use listing::{Listing, readings};
pub use look::check_tables;
pub(crate) use look::{included, measured};
pub use memory::{Dtype, Element, HostArray, Lent, Stock};
pub use plan::{PlanFile, PlannedShard};
pub use spec::reading_fingerprint;
pub(crate) use spec::version_hash;
pub use state::LoaderState;
pub use stats::{
    Activity, Counts, Failure, GateStats, HANDED_WARNINGS, Joined, LengthMismatch, SourceStats, Stage, Stats,
};
pub use stream::Loader;
pub use urls::IntoUrls;
