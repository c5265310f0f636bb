//! Lanes: how an epoch is cut into canonical streams.
//!
//! The epoch's permutation of shards, laid end to end, is cut at sample positions into `lanes`
//! pieces of equal length. A lane is a property of data and configuration, not of ranks: a rank
//! owns the lanes whose index is its own modulo the world size. A window that straddles a cut
//! belongs to both lanes: each decides the whole window (a decision is pure) and yields its part.

use crate::hash::{self, Purpose};

/// The part of one window that belongs to one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of the shard in the list.
    pub(crate) shard: usize,
    /// Index of the window in the shard.
    pub(crate) window: u64,
    /// First position in the shard that belongs to the lane.
    pub(crate) start: u64,
    /// One past the last such position.
    pub(crate) end: u64,
    /// Whether this is the lane that holds the shard's end: samples beyond the length in the
    /// table, should there be any, are its own.
    pub(crate) tail: bool,
}

/// The order of the shards in an epoch: by hash(seed, epoch, shard).
pub(crate) fn shard_order(shard_hashes: &[u64], seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..shard_hashes.len()).collect();
    order.sort_by_key(|&s| {
        (hash::hash(seed, Purpose::ShardOrder, hash::combine(&[epoch, shard_hashes[s]])), s)
    });
    order
}

/// The part of one shard that belongs to one lane: never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    shard: usize,
    length: u64,
    start: u64,
    end: u64,
}

impl Part {
    /// Its windows, in order. They are made as they are asked for: a length may be wrong by any factor.
    pub(crate) fn segments(self, window: usize) -> impl Iterator<Item = Segment> {
        let Self { shard, length, start, end } = self;
        let window = window.max(1) as u64;
        (start / window..end.div_ceil(window)).map(move |w| Segment {
            shard,
            window: w,
            start: start.max(w * window),
            end: end.min((w + 1) * window),
            tail: end == length && w == (end - 1) / window,
        })
    }
}

/// The parts of shards that make one lane, in order.
///
/// `lengths` are samples per shard, `order` the epoch's order of shards.
pub(crate) fn parts<'a>(
    lengths: &'a [u64],
    order: &'a [usize],
    lanes: usize,
    lane: usize,
) -> impl Iterator<Item = Part> + use<'a> {
    let total: u64 = lengths.iter().sum();
    let cut = |l: usize| (u128::from(total) * l as u128 / lanes.max(1) as u128) as u64;
    let (first, last) = (cut(lane), cut(lane + 1));
    let bases = order.iter().scan(0u64, move |next, &shard| {
        let base = *next;
        *next += lengths[shard];
        Some((shard, base))
    });
    bases.filter_map(move |(shard, base)| {
        let length = lengths[shard];
        let start = first.clamp(base, base + length) - base;
        let end = last.clamp(base, base + length) - base;
        (start < end).then_some(Part { shard, length, start, end })
    })
}

/// How many windows leave together: 1, 2, 4, ... at an epoch's start, so that the first batch
/// comes soon, then `shuffle_windows`.
pub(crate) fn group_size(group: u32, shuffle_windows: usize) -> usize {
    1usize.checked_shl(group).unwrap_or(usize::MAX).min(shuffle_windows.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Lanes partition the corpus: every position is in exactly one segment, in the segment
        /// of its own window, and lanes differ by at most one in length.
        #[test]
        fn lanes_partition_the_corpus(
            lengths in proptest::collection::vec(0u64..50, 1..12),
            lanes in 1usize..9,
            window in 1usize..20,
            seed in 0u64..100,
        ) {
            let hashes: Vec<u64> = (0..lengths.len() as u64).collect();
            let order = shard_order(&hashes, seed, 3);
            let mut seen = std::collections::HashMap::new();
            let mut sizes = vec![];
            for lane in 0..lanes {
                let mut size = 0;
                for s in parts(&lengths, &order, lanes, lane).flat_map(|part| part.segments(window)) {
                    prop_assert!(s.start < s.end && s.end <= lengths[s.shard]);
                    for p in s.start..s.end {
                        prop_assert_eq!(p / window as u64, s.window);
                        prop_assert!(seen.insert((s.shard, p), lane).is_none());
                    }
                    size += s.end - s.start;
                }
                sizes.push(size);
            }
            prop_assert_eq!(seen.len() as u64, lengths.iter().sum::<u64>());
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }

        /// Exactly one segment of a non-empty shard is its tail.
        #[test]
        fn every_shard_has_one_tail(
            lengths in proptest::collection::vec(0u64..50, 1..12),
            lanes in 1usize..9,
            window in 1usize..20,
        ) {
            let order: Vec<usize> = (0..lengths.len()).collect();
            let mut tails = vec![0; lengths.len()];
            for lane in 0..lanes {
                for s in parts(&lengths, &order, lanes, lane).flat_map(|part| part.segments(window)) {
                    tails[s.shard] += usize::from(s.tail);
                }
            }
            for (tails, length) in tails.iter().zip(&lengths) {
                prop_assert_eq!(*tails, usize::from(*length > 0));
            }
        }
    }

    #[test]
    fn order_is_a_permutation_that_changes_with_the_epoch() {
        let hashes: Vec<u64> = (100..140).collect();
        let (a, b) = (shard_order(&hashes, 0, 0), shard_order(&hashes, 0, 1));
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
        assert_ne!(a, b);
        assert_eq!(a, shard_order(&hashes, 0, 0));
    }

    #[test]
    fn groups_grow_to_the_limit() {
        let sizes: Vec<usize> = (0..6).map(|g| group_size(g, 8)).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 8, 8]);
        assert_eq!(group_size(200, 8), 8);
        assert_eq!(group_size(3, 0), 1);
    }
}
