//! The tables that samples are joined with, and what statistics say of them.

use std::sync::Arc;

use crate::loader::observe::stats::Joined;
use crate::shard::JoinBy;

/// What samples are joined with: by what, and entries.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    pub(super) subset: Option<Table>,
    pub(super) captions: Option<Table>,
    /// Shards of sources without a subset.
    pub(super) without_subset: Vec<Arc<str>>,
}

/// Tables of the sources that have one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) by: JoinBy,
    pub(super) entries: u64,
    /// Samples of these sources.
    pub(super) samples: u64,
}

impl Table {
    pub(super) fn joined(self, matched: u64) -> Joined {
        Joined { by: self.by.name(), entries: self.entries, matched, corpus: self.samples }
    }
}
