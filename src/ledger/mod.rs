//! What the loader remembers of samples it has seen: signals, captions, what a judge says of them, and scores
//! that the corpus has.
//!
//! A ledger is a cache. Deleting it changes nothing but the time: signals are a function of the
//! sample and the captioner, captions of the sample and the generation settings. It is in memory, or
//! in a folder of Parquet files, local or in a bucket (feature `parquet`): `columns` says what stands in
//! them, `files` and `root` how they come there.

mod cache;
mod captions;
#[cfg(feature = "parquet")]
mod columns;
#[cfg(feature = "parquet")]
mod contents;
#[cfg(feature = "parquet")]
mod files;
#[allow(clippy::module_inception, reason = "the type that the module is named for")]
mod ledger;
mod record;
#[cfg(feature = "parquet")]
mod root;
#[cfg(feature = "parquet")]
mod stored;
#[cfg(feature = "parquet")]
mod table;

pub use captions::Captions;
#[cfg(feature = "parquet")]
pub use contents::{RecordedShard, Recording};
pub use ledger::Ledger;
pub use record::{CaptionKey, CorpusScores, ScoreKey, Scores, WindowKey, WindowRecord};
#[cfg(feature = "parquet")]
pub(crate) use root::place;
#[cfg(feature = "parquet")]
pub(crate) use table::{Column, Table};
