//! The tables that samples are joined with, and what statistics say of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::loader::observe::stats::Joined;
use crate::shard::JoinBy;

/// What samples are joined with: by what, and entries.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    pub(super) subset: Option<Table>,
    /// By name.
    pub(super) captions: BTreeMap<Arc<str>, Table>,
    /// Shards of sources without a subset.
    pub(super) without_subset: Vec<Arc<str>>,
    /// Of each table of captions the kept samples that it has, and those that were looked for.
    pub(super) counts: Mutex<BTreeMap<Arc<str>, (u64, u64)>>,
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
    /// Of so many `samples` that were looked for, those that `matched`.
    pub(super) fn joined(self, matched: u64, samples: u64) -> Joined {
        Joined { by: self.by.name(), entries: self.entries, matched, samples, corpus: self.samples }
    }
}

impl Joins {
    /// Counts kept samples that were looked for in the table of captions `name`, and those that it has.
    pub(super) fn add(&self, name: &Arc<str>, matched: u64, samples: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(Arc::clone(name)).or_default();
        *count = (count.0 + matched, count.1 + samples);
    }

    /// How each table of captions fits.
    pub(super) fn captions(&self) -> BTreeMap<Arc<str>, Joined> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let joined = |(name, table): (&Arc<str>, &Table)| {
            let (matched, samples) = counts.get(name).copied().unwrap_or_default();
            (Arc::clone(name), table.joined(matched, samples))
        };
        self.captions.iter().map(joined).collect()
    }
}
