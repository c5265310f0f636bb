//! The loader: lanes, a pipeline of threads, batches, state and statistics.
//!
//! [`Loader::builder`] takes the options, [`Loader::iter`] yields an epoch. By folder:
//!
//! * `build`: from options to a loader, once: checks, the list of shards, counts, the mix of sources.
//! * `read`: a thread per lane and source reads windows of encoded samples.
//! * `decide`: a thread per lane and source decides them; captioner and judge have threads of their own.
//! * `batch`: one thread assembles batches, whose pixels a pool decodes.
//! * `observe`: statistics, and a watch over threads that hang.
//!
//! What stages share is beside the folders: the configuration (`spec`), what travels between them (`window`, `kept`,
//! `channel`), and the cut into lanes (`lane`). Nothing of that imports a stage but for its types.

mod batch;
mod batches;
mod buffer;
mod build;
mod channel;
mod claims;
mod decide;
mod decider;
mod duplicates;
mod fingerprints;
mod kept;
mod ladder;
mod lane;
mod model_thread;
mod moment;
mod observe;
mod pipeline;
mod plan;
mod progress;
mod ranks;
mod read;
mod settings;
mod shared;
mod spec;
mod stage;
mod state;
mod stream;
mod urls;
mod window;

pub use batch::{Batch, Dtype, Element, HostArray, Images, Lent, Rows, Stock};
pub use batches::{Batches, Next};
pub(crate) use build::{Listing, included, measured, readings};
pub use build::{LoaderBuilder, Parts, check_tables};
pub use fingerprints::reading_fingerprint;
pub(crate) use fingerprints::{scores_version, version_hash};
pub(crate) use ladder::gated_out;
pub use moment::Moment;
pub use observe::{
    Activity, Counts, Failure, GateStats, HANDED_WARNINGS, Joined, LengthMismatch, SourceStats, Stats,
};
pub use plan::{PlanFile, PlannedShard};
pub use stage::Stage;
pub use state::LoaderState;
pub use stream::Loader;
