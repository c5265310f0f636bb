//! The recorder of an epoch that begins.

use std::sync::{Arc, Mutex};

use crate::loader::observe::recorder::{Inner, Joins, Recorder};
use crate::loader::spec::Spec;
use crate::shard::JoinBy;

impl Recorder {
    /// As [`new`](Self::new), of an epoch of `spec`.
    pub(crate) fn of(spec: &Spec, epoch: u64) -> Self {
        let mut reads = spec.reads.clone();
        reads.dedup_by(|a, b| a == b);
        // Of several tables the entries of all.
        let all = |tables: Vec<(JoinBy, usize)>| {
            let entries = tables.iter().map(|(_, entries)| *entries as u64).sum();
            tables.first().map(|(by, _)| (*by, entries))
        };
        let subsets = reads.iter().filter_map(|read| read.subset.as_ref());
        let captions = reads.iter().filter_map(|read| read.captions.as_ref());
        let joins = Joins {
            subset: all(subsets.map(|subset| (subset.by(), subset.len())).collect()),
            captions: all(captions.map(|captions| (captions.by(), captions.len())).collect()),
            samples: spec.lengths.iter().sum(),
        };
        let empty = spec.shards.iter().zip(&spec.lengths).filter(|(_, length)| **length == 0);
        let empty_shards = empty.map(|(shard, _)| Arc::clone(&shard.url)).collect();
        let inner = Mutex::new(Inner { empty_shards, ..Inner::default() });
        let excluded_by = spec.excluded_by();
        Self { joins, inner, excluded_by, lane_count: spec.lanes, ..Self::new(epoch, spec.mix.sources.len()) }
    }
}
