//! One shard, read group by group.
use std::io::Read;

use crate::error::Result;
use crate::sample::{FailedSample, Sample};
use crate::shard::Shard;

/// How samples are made of members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Field of the json member that holds the caption; where it is absent or null, the `.txt`
    /// or `.caption` member is used, as it is when this is `None`.
    pub caption_key: Option<String>,
}

/// A sample, or what is known of a group that cannot be used.
pub type Group = std::result::Result<Sample, FailedSample>;

/// Reads one shard, group by group.
pub struct ShardReader {}

impl ShardReader {
    /// Opens `shard`.
    pub fn open(_shard: &Shard, _options: &ReadOptions) -> Result<Self> {
        unimplemented!()
    }

    /// Reads `shard` from any reader of its bytes.
    pub fn over(_shard: &Shard, _bytes: impl Read + Send + 'static, _options: &ReadOptions) -> Result<Self> {
        unimplemented!()
    }

    /// Reads the next group; `None` at the end.
    pub fn next_group(&mut self) -> Result<Option<Group>> {
        unimplemented!()
    }

    /// Passes over the next group without reading its bytes; `false` at the end.
    pub fn skip_group(&mut self) -> Result<bool> {
        unimplemented!()
    }

    /// Index of the next group, counting unusable groups too.
    pub fn position(&self) -> u64 {
        unimplemented!()
    }

    /// Bytes lost to damaged tar headers so far.
    pub fn skipped_bytes(&self) -> u64 {
        unimplemented!()
    }
}
