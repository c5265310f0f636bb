//! Writes WebDataset shards.
use std::path::Path;

use crate::error::Result;

/// Writes one WebDataset shard.
pub struct ShardWriter {}

impl ShardWriter {
    /// Starts a shard at `path`; `.tar`, `.tar.gz`, `.tgz` or `.tar.zst` by name.
    pub fn create(_path: impl AsRef<Path>) -> Result<Self> {
        unimplemented!()
    }

    /// Appends one group: `(extension, bytes)` of each member.
    pub fn write(&mut self, _key: &str, _members: &[(&str, &[u8])]) -> Result<()> {
        unimplemented!()
    }

    /// Completes the shard and renames it into place.
    pub fn finish(self) -> Result<()> {
        unimplemented!()
    }
}
