//! Metadata beside a shard: the columns of the Parquet file that img2dataset writes for each.
//!
//! `00000.parquet` lies beside `00000.tar`. It has a row per URL that was tried; the column `key`
//! holds the sample's key, and `status` is `success` where there is one in the shard.

mod columns;
mod parquet;
mod rows;

pub(super) use columns::{Cell, Columns};
pub(super) use parquet::json;
pub use rows::ShardMetadata;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::shard::beside::Sidecar;

/// Files that are read into memory at a time where only their lengths are wanted.
const FILES: usize = 16;

impl ShardMetadata {
    /// Reads those of `columns` that are there, for all samples whose download succeeded; `None`
    /// where no Parquet file with a column `key` lies beside `shard`, or the shard is a Parquet file itself. Numbers, texts
    /// and booleans come as such, lists with their entries, whatever else as the text that shows it, other nested values as
    /// null.
    ///
    /// # Errors
    /// A file that is there and cannot be read or is damaged; a key that stands there twice; a
    /// store that fails.
    pub fn beside(shard: &Shard, columns: &[&str]) -> Result<Option<Self>> {
        if shard.has_rows() {
            return Ok(None); // all of them are in the shard itself
        }
        let file = Sidecar::beside(shard, &name(shard))?;
        let content = Sidecar::read(std::slice::from_ref(&file))?.pop().flatten();
        content.map_or(Ok(None), |content| read(file.name(), content, columns))
    }

    /// Where the file of a local shard is, or would be.
    pub(super) fn local_file(shard: &Shard) -> Option<PathBuf> {
        (shard.is_local() && !shard.has_rows()).then(|| Path::new(&*shard.url).with_file_name(name(shard)))
    }
}

/// Number of samples in each of `shards`, by the Parquet file beside it, and that file; `None` where there is
/// none, or none with the columns `key` and `status`: another tool's rows may be no samples.
pub(super) fn successes(shards: &[&Shard]) -> Result<Vec<Option<(u64, String)>>> {
    let mut counts = Vec::with_capacity(shards.len());
    for shards in shards.chunks(FILES) {
        let files: Vec<Sidecar> =
            shards.iter().map(|shard| Sidecar::beside(shard, &name(shard))).collect::<Result<_>>()?;
        for (file, content) in files.iter().zip(Sidecar::read(&files)?) {
            let metadata = match content {
                Some(content) => read(file.name(), content, &[]).unwrap_or_else(|error| {
                    warn_of_skipped(&error);
                    None
                }),
                None => None,
            };
            let has_status = |m: &ShardMetadata| m.columns().iter().any(|column| column == "status");
            let metadata = metadata.filter(has_status).filter(|m| !m.is_empty());
            counts.push(metadata.map(|m| (m.len() as u64, file.name())));
        }
    }
    Ok(counts)
}

/// Name of the file with the metadata of `shard`.
fn name(shard: &Shard) -> String {
    format!("{}.parquet", shard.stem())
}

fn read(file: String, content: Vec<u8>, columns: &[&str]) -> Result<Option<ShardMetadata>> {
    parquet::read(file, content, columns)
}

/// What img2dataset left beside a shard is a by-product: where it is damaged, the shard itself tells.
pub(super) fn warn_of_skipped(error: &Error) {
    tracing::warn!("{error}; it is skipped, and the samples of its shard are counted");
}
