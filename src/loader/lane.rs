//! Lanes: how an epoch is cut into canonical streams.
//!
//! The samples of a source, pass after pass, are an endless line of positions ([`Line`]): pass p has every
//! sample once, its shards in the order of hash(seed, p, shard). An epoch takes the next stretch of the line,
//! and that is cut at sample positions into a piece for each lane, all of them equal. By default a stretch is one pass:
//! epoch e is pass e. A lane is a property of data and configuration, not of ranks: a rank
//! owns the lanes whose index is its own modulo the world size. A window that straddles a cut
//! belongs to both sides: each decides the whole window (a decision is pure) and yields its part.

use std::ops::Range;

use crate::hash::{self, Purpose};

/// The part of one window that belongs to one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of the shard in the list.
    pub(crate) shard: usize,
    /// Pass over its source.
    pub(crate) pass: u64,
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

/// The part of one shard that belongs to one lane in one pass: at least one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    shard: usize,
    pass: u64,
    start: u64,
    end: u64,
    /// Whether the shard ends with the part.
    last: bool,
}

impl Part {
    /// The part's windows, in order, made as they are asked for: the length of a shard may be wrong
    /// by any factor.
    pub(crate) fn segments(self, window: usize) -> impl Iterator<Item = Segment> {
        let window = window.max(1) as u64;
        (self.start / window..self.end.div_ceil(window)).map(move |w| Segment {
            shard: self.shard,
            pass: self.pass,
            window: w,
            start: self.start.max(w * window),
            end: self.end.min((w + 1) * window),
            tail: self.last && w == (self.end - 1) / window,
        })
    }
}

/// A shard of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineShard {
    /// Index in the list.
    pub(crate) index: usize,
    /// Its identity.
    pub(crate) hash: u64,
    /// Samples in it.
    pub(crate) samples: u64,
}

/// The samples of a source, pass after pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    shards: Vec<LineShard>,
    /// What decides their order in a pass; as listed where `None`.
    seed: Option<u64>,
    samples: u64,
    stretch: u64,
}

impl Line {
    /// The line of `shards`, of which an epoch takes one pass.
    pub(crate) fn new(shards: Vec<LineShard>, seed: Option<u64>) -> Self {
        let samples = shards.iter().map(|shard| shard.samples).sum();
        Self { shards, seed, samples, stretch: samples }
    }

    /// With another number of positions that an epoch takes.
    pub(crate) fn taking(mut self, stretch: u64) -> Self {
        // A line without samples has no position to take.
        self.stretch = if self.samples == 0 { 0 } else { stretch };
        self
    }

    /// Samples of one pass.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Positions that an epoch takes.
    pub(crate) fn stretch(&self) -> u64 {
        self.stretch
    }

    /// Passes that an epoch makes: below 1 where it takes a part of one.
    pub(crate) fn passes(&self) -> f64 {
        self.stretch as f64 / self.samples.max(1) as f64
    }

    /// Where the part `n` of `of` equal parts of a stretch begins.
    pub(crate) fn cut(&self, n: u64, of: u64) -> u64 {
        (u128::from(self.stretch) * u128::from(n.min(of)) / u128::from(of.max(1))) as u64
    }

    /// What a piece of the stretch of `epoch` has of each shard, in order, made as it is asked for: passes
    /// may be many. O(shards log shards) for each pass.
    pub(crate) fn parts(&self, epoch: u64, piece: Range<u64>) -> impl Iterator<Item = Part> + '_ {
        let (stretch, samples) = (u128::from(self.stretch), u128::from(self.samples.max(1)));
        let at = |position: u64| u128::from(epoch) * stretch + u128::from(position);
        let (first, last) = (at(piece.start), at(piece.end));
        (first / samples..last.div_ceil(samples)).flat_map(move |pass| {
            let mut base = pass * samples;
            // Passes beyond 2^64 begin again at 0.
            let pass = pass as u64;
            self.pass(pass).into_iter().filter_map(move |shard| {
                let (from, next) = (base, base + u128::from(shard.samples));
                base = next;
                let (start, end) = (first.max(from), last.min(next));
                (start < end).then(|| Part {
                    shard: shard.index,
                    pass,
                    start: (start - from) as u64,
                    end: (end - from) as u64,
                    last: end == next,
                })
            })
        })
    }

    /// The shards in the order of a pass: by hash(seed, pass, shard).
    fn pass(&self, pass: u64) -> Vec<LineShard> {
        let mut shards = self.shards.clone();
        if let Some(seed) = self.seed {
            shards.sort_by_key(|shard| {
                let place = hash::combine(&[pass, shard.hash]);
                (hash::hash(seed, Purpose::ShardOrder, place), shard.index)
            });
        }
        shards
    }
}

/// How many windows leave together: 1, 2, 4, ... at an epoch's start, so that the first batch
/// comes soon, then `shuffle_windows`.
pub(crate) fn group_size(group: u32, shuffle_windows: usize) -> usize {
    1usize.checked_shl(group).unwrap_or(usize::MAX).min(shuffle_windows.max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    fn line(lengths: &[u64], seed: u64) -> Line {
        let shard = |(index, &samples): (usize, &u64)| LineShard { index, hash: 100 + index as u64, samples };
        Line::new(lengths.iter().enumerate().map(shard).collect(), Some(seed))
    }

    fn segments(line: &Line, epoch: u64, lanes: usize, lane: usize, window: usize) -> Vec<Segment> {
        let cut = |lane| line.cut(lane as u64, lanes as u64);
        line.parts(epoch, cut(lane)..cut(lane + 1)).flat_map(|part| part.segments(window)).collect()
    }

    proptest! {
        /// Lanes partition the stretch of an epoch: every position is in exactly one segment, in the segment
        /// of its own window and pass, and lanes differ by at most one in length. The truth is the line laid
        /// out position by position.
        #[test]
        fn lanes_partition_the_stretch(
            lengths in proptest::collection::vec(0u64..50, 1..12),
            lanes in 1usize..9,
            window in 1usize..20,
            seed in 0u64..100,
            epoch in 0u64..5,
            stretch in 0u64..700,
        ) {
            let line = line(&lengths, seed).taking(stretch);
            let total = lengths.iter().sum::<u64>();
            let stretch = if total == 0 { 0 } else { stretch };
            let mut truth = vec![];
            let mut pass = 0;
            while (truth.len() as u64) < (epoch + 1) * stretch {
                for shard in line.pass(pass) {
                    truth.extend((0..shard.samples).map(|p| (shard.index, pass, p)));
                }
                pass += 1;
            }
            let truth = &truth[(epoch * stretch) as usize..((epoch + 1) * stretch) as usize];
            let mut found = vec![];
            let mut sizes = vec![];
            for lane in 0..lanes {
                let before = found.len();
                for s in segments(&line, epoch, lanes, lane, window) {
                    prop_assert!(s.start < s.end && s.end <= lengths[s.shard]);
                    for p in s.start..s.end {
                        prop_assert_eq!(p / window as u64, s.window);
                        found.push((s.shard, s.pass, p));
                    }
                }
                sizes.push(found.len() - before);
            }
            prop_assert_eq!(&found[..], truth);
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }

        /// After any number of epochs every sample was used as often as any other, or once more.
        #[test]
        fn coverage_is_even_over_epochs(
            lengths in proptest::collection::vec(1u64..30, 1..8),
            lanes in 1usize..5,
            stretch in 1u64..400,
        ) {
            let line = line(&lengths, 1).taking(stretch);
            let mut used: HashMap<(usize, u64), u64> = HashMap::new();
            let total: u64 = lengths.iter().sum();
            for epoch in 0..6 {
                for lane in 0..lanes {
                    for s in segments(&line, epoch, lanes, lane, 7) {
                        (s.start..s.end).for_each(|p| *used.entry((s.shard, p)).or_default() += 1);
                    }
                }
                let mean = (epoch + 1) * stretch / total;
                for (shard, &samples) in lengths.iter().enumerate() {
                    for p in 0..samples {
                        let times = used.get(&(shard, p)).copied().unwrap_or_default();
                        prop_assert!(times == mean || times == mean + 1, "{} times, mean {}", times, mean);
                    }
                }
            }
        }

        /// In every pass exactly one segment of a non-empty shard is its tail.
        #[test]
        fn every_shard_has_one_tail_in_a_pass(
            lengths in proptest::collection::vec(0u64..50, 1..12),
            lanes in 1usize..9,
            window in 1usize..20,
            passes in 1u64..4,
        ) {
            let total: u64 = lengths.iter().sum();
            let line = line(&lengths, 0).taking(passes * total);
            let mut tails: HashMap<(usize, u64), u64> = HashMap::new();
            for lane in 0..lanes {
                for s in segments(&line, 1, lanes, lane, window).into_iter().filter(|s| s.tail) {
                    *tails.entry((s.shard, s.pass)).or_default() += 1;
                }
            }
            for (shard, &length) in lengths.iter().enumerate() {
                for pass in passes..2 * passes {
                    let tails = tails.get(&(shard, pass)).copied().unwrap_or_default();
                    prop_assert_eq!(tails, u64::from(length > 0));
                }
            }
        }
    }

    /// Whatever the epoch: positions are counted in 128 bits.
    #[test]
    fn the_last_epoch_of_all_is_an_epoch() {
        let line = line(&[3, 4], 0).taking(u64::MAX);
        assert!(line.parts(u64::MAX, u64::MAX - 1..u64::MAX).next().is_some());
        let line = Line::new(vec![], Some(0)).taking(5);
        assert_eq!(line.parts(u64::MAX, 0..line.cut(1, 1)).count(), 0);
    }

    #[test]
    fn order_is_a_permutation_that_changes_with_the_pass() {
        let line = line(&[1; 40], 0);
        let order = |pass| -> Vec<usize> { line.pass(pass).iter().map(|shard| shard.index).collect() };
        let mut sorted = order(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
        assert_ne!(order(0), order(1));
        assert_eq!(order(0), order(0));
        let listed = Line::new(line.shards.clone(), None);
        assert!(listed.pass(3).iter().map(|shard| shard.index).eq(0..40));
    }

    #[test]
    fn groups_grow_to_the_limit() {
        let sizes: Vec<usize> = (0..6).map(|g| group_size(g, 8)).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 8, 8]);
        assert_eq!(group_size(200, 8), 8);
        assert_eq!(group_size(3, 0), 1);
    }
}
