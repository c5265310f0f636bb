//! Shards: tar files of image-text pairs, listed, measured, read and written.
//!
//! [`list`] turns what users write into [`Shard`]s, [`lengths`] counts their groups,
//! [`ShardReader`] turns one shard into [`Sample`](crate::Sample)s, [`ShardWriter`] writes one.
//! Local files only: `store` is the one place that opens them.

use std::sync::Arc;

mod lengths;
mod list;
mod members;
mod patterns;
mod reader;
mod store;
mod writer;

pub use lengths::lengths;
pub use list::list;
pub use reader::{Group, ReadOptions, ShardReader};
pub use writer::ShardWriter;

/// One shard of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Where it is: a local path, as the caller wrote it.
    pub url: Arc<str>,
    /// Name of the source: by default the name of the folder that holds the shard.
    pub source: Arc<str>,
    /// Path below the source's root: the file name.
    pub path: Arc<str>,
    /// Hash of (source, path): [`SampleId::shard_hash`](crate::SampleId::shard_hash).
    pub hash: u64,
}
