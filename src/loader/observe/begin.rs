//! The recorder of an epoch that begins.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::loader::observe::joins::{Joins, Table};
use crate::loader::observe::recorder::{Inner, Recorder};
use crate::loader::spec::Spec;
use crate::shard::{JoinBy, ReadOptions};

impl Recorder {
    /// As [`new`](Self::new), of an epoch of `spec`.
    pub(crate) fn of(spec: &Spec, epoch: u64) -> Self {
        // Of several tables the entries of all.
        let all = |table: &dyn Fn(&ReadOptions) -> Option<(JoinBy, usize)>| {
            let mut reads = spec.reads.clone();
            reads.dedup_by(|a, b| a == b);
            let tables: Vec<(JoinBy, usize)> = reads.iter().filter_map(|read| table(read)).collect();
            let shards = spec.reads.iter().zip(&spec.lengths).filter(|(read, _)| table(read).is_some());
            tables.first().map(|(by, _)| Table {
                by: *by,
                entries: tables.iter().map(|(_, entries)| *entries as u64).sum(),
                samples: shards.map(|(_, length)| length).sum(),
            })
        };
        // A shard that two sources share counts for the one with a subset.
        let listed = spec.shards.iter().zip(&spec.reads);
        let (with, without): (Vec<_>, Vec<_>) = listed.partition(|(_, read)| read.subset.is_some());
        let with: BTreeSet<&str> = with.into_iter().map(|(shard, _)| &*shard.url).collect();
        let without = without.into_iter().filter(|(shard, _)| !with.contains(&*shard.url));
        let of_captions = |name: &Arc<str>| {
            let of =
                |read: &ReadOptions| read.captions.as_ref()?.of(name).map(|table| (table.by(), table.len()));
            Some((Arc::clone(name), all(&of)?))
        };
        let named = spec.reads.iter().filter_map(|read| read.captions.as_deref());
        let names: BTreeSet<&Arc<str>> =
            named.flat_map(|captions| captions.iter().map(|(name, _)| name)).collect();
        let joins = Joins {
            subset: all(&|read| read.subset.as_ref().map(|subset| (subset.by(), subset.len()))),
            captions: names.into_iter().filter_map(of_captions).collect(),
            counts: Mutex::default(),
            without_subset: without.map(|(shard, _)| Arc::clone(&shard.url)).collect(),
        };
        let empty = spec.shards.iter().zip(&spec.lengths).filter(|(_, length)| **length == 0);
        let empty_shards = empty.map(|(shard, _)| Arc::clone(&shard.url)).collect();
        let inner = Mutex::new(Inner { empty_shards, ..Inner::default() });
        let excluded_by = spec.excluded_by();
        Self { joins, inner, excluded_by, lane_count: spec.lanes, ..Self::new(epoch, spec.mix.sources.len()) }
    }
}
