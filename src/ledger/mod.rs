//! What the loader remembers of samples it has seen: signals, captions, what a judge says of them, and scores
//! that the corpus has.
//!
//! A ledger is a cache. Deleting it changes nothing but the time: signals are a function of the
//! sample and the captioner, captions of the sample and the generation settings. It is in memory, or
//! in a folder of Parquet files, local or in a bucket: `columns` says what stands in
//! them, `files` and `root` how they come there.

mod cache;
mod captions;
mod columns;
mod contents;
mod files;
#[allow(clippy::module_inception, reason = "the type that the module is named for")]
mod ledger;
mod parquet_table;
mod record;
mod root;
mod stored;

pub use captions::WindowCaptions;
pub use contents::{RecordedShard, Recording};
pub use ledger::Ledger;
pub(crate) use parquet_table::{Column, Table};
pub use record::{CaptionKey, CorpusScores, ScoreKey, Scores, WindowKey, WindowRecord};
