//! Lanes: how an epoch is cut into canonical streams.
//!
//! The samples of a source that count, pass after pass, are an endless line of positions ([`Line`]): pass p has every
//! one once, its shards in the order of hash(seed, p, shard). An epoch takes the next stretch of the line,
//! and that is cut into a piece for each lane, all of them equal. By default a stretch is one pass:
//! epoch e is pass e. A lane is a property of data and configuration, not of ranks: a rank
//! owns the lanes whose index is its own modulo the world size.
//!
//! Inside a shard a cut is a rank among the samples that count. It lies behind the sample of that rank: what follows,
//! up to the next that counts, does not count and belongs to the next piece ([`Part::place`]). Where all samples count,
//! a rank is a position. A window that straddles a cut
//! belongs to both sides: each decides the whole window (a decision is pure) and yields its part.

use std::fmt;
use std::ops::Range;

use crate::error::Result;
use crate::hash::{self, Purpose};

/// What one lane has of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stream {
    pub(crate) lane: usize,
    pub(crate) source: usize,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            0 => write!(f, "lane {}", self.lane),
            source => write!(f, "lane {} (source {source})", self.lane),
        }
    }
}

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

/// The part of one shard that belongs to one lane in one pass: its samples by their ranks among those that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranks {
    pub(crate) shard: LineShard,
    pass: u64,
    start: u64,
    end: u64,
}

impl Ranks {
    /// The part with positions in the place of ranks. `cut(rank)` says where the shard is cut behind that many samples
    /// that count, from its start; it is asked only where a cut lies inside of a shard that has samples that do
    /// not count.
    ///
    /// # Errors
    /// Those of `cut`.
    pub(crate) fn place(self, mut cut: impl FnMut(u64) -> Result<u64>) -> Result<Part> {
        let LineShard { index, samples, counted, is_estimated, .. } = self.shard;
        let mut at = |rank: u64| match rank {
            // Of an estimate nobody can say which samples it is of.
            rank if is_estimated || counted == samples => {
                Ok((u128::from(rank) * u128::from(samples) / u128::from(counted)) as u64)
            }
            rank => cut(rank),
        };
        let last = self.end == counted;
        let start = if self.start == 0 { 0 } else { at(self.start)? };
        // With what follows the last one that counts.
        let end = if last { samples } else { at(self.end)? };
        // Where the shard is longer than it is said to be, the last part has the rest.
        let least = start + u64::from(last && start > 0);
        Ok(Part { shard: index, pass: self.pass, start, end: end.max(least), last })
    }
}

/// The part of one shard that belongs to one lane in one pass, by positions.
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
    /// by any factor. None where it has no samples.
    pub(crate) fn segments(self, window: usize) -> impl Iterator<Item = Segment> {
        let window = window.max(1) as u64;
        let windows =
            if self.start < self.end { self.start / window..self.end.div_ceil(window) } else { 0..0 };
        windows.map(move |w| Segment {
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
    /// Of these, those that count: its positions in the line.
    pub(crate) counted: u64,
    /// Whether that is an estimate.
    pub(crate) is_estimated: bool,
}

/// The samples of a source that count, pass after pass.
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
        let samples = shards.iter().map(|shard| shard.counted).sum();
        Self { shards, seed, samples, stretch: samples }
    }

    /// With another number of positions that an epoch takes.
    pub(crate) fn taking(mut self, stretch: u64) -> Self {
        // A line without samples has no position to take.
        self.stretch = if self.samples == 0 { 0 } else { stretch };
        self
    }

    /// Samples of one pass that count.
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
    /// may be many. O(shards log shards) for each pass. A shard of which nothing counts is of the piece that has the
    /// next one that does, and behind the last such one of the pass of that one's: every sample is in one piece.
    pub(crate) fn parts(&self, epoch: u64, piece: Range<u64>) -> impl Iterator<Item = Ranks> + '_ {
        let (stretch, samples) = (u128::from(self.stretch), u128::from(self.samples.max(1)));
        let at = |position: u64| u128::from(epoch) * stretch + u128::from(position);
        let (first, last) = (at(piece.start), at(piece.end));
        (first / samples..last.div_ceil(samples)).flat_map(move |pass| {
            let mut base = pass * samples;
            let end_of_pass = base + samples;
            // Passes beyond 2^64 begin again at 0.
            let pass = pass as u64;
            self.pass(pass).into_iter().filter_map(move |shard| {
                let (from, next) = (base, base + u128::from(shard.counted));
                base = next;
                let (start, end) = (first.max(from), last.min(next));
                let is_in = if shard.counted > 0 {
                    start < end
                } else {
                    let follows = from.min(end_of_pass - 1);
                    shard.samples > 0 && first <= follows && follows < last
                };
                is_in.then(|| Ranks {
                    shard,
                    pass,
                    start: start.saturating_sub(from) as u64,
                    end: end.saturating_sub(from) as u64,
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
        counted(&lengths.iter().map(|&samples| (samples, samples, false)).collect::<Vec<_>>(), seed)
    }

    /// Of shards with (samples, those that count, whether that is an estimate).
    fn counted(shards: &[(u64, u64, bool)], seed: u64) -> Line {
        let shard = |(index, &(samples, counted, is_estimated)): (usize, &(u64, u64, bool))| LineShard {
            index,
            hash: 100 + index as u64,
            samples,
            counted,
            is_estimated,
        };
        Line::new(shards.iter().enumerate().map(shard).collect(), Some(seed))
    }

    /// The segments of a lane, where `flags` say of each shard which samples count.
    fn placed(
        line: &Line,
        flags: &[Vec<bool>],
        epoch: u64,
        (lanes, lane): (usize, usize),
        window: usize,
    ) -> Vec<Segment> {
        let cut = |lane| line.cut(lane as u64, lanes as u64);
        let place = |ranks: Ranks| {
            let flags = &flags[ranks.shard.index];
            let behind = |rank: u64| {
                let mut of_rank = flags.iter().enumerate().filter(|(_, counts)| **counts);
                Ok(of_rank.nth(rank as usize - 1).map_or(flags.len(), |(at, _)| at + 1) as u64)
            };
            ranks.place(behind).unwrap()
        };
        line.parts(epoch, cut(lane)..cut(lane + 1)).flat_map(|r| place(r).segments(window)).collect()
    }

    fn segments(line: &Line, epoch: u64, lanes: usize, lane: usize, window: usize) -> Vec<Segment> {
        let cut = |lane| line.cut(lane as u64, lanes as u64);
        let never = |_| panic!("where all samples count, nobody has to look for a cut");
        let place = |ranks: Ranks| ranks.place(never).unwrap();
        line.parts(epoch, cut(lane)..cut(lane + 1)).flat_map(|r| place(r).segments(window)).collect()
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

        /// Where some samples count: every sample is still in exactly one segment of its pass, every lane has as many that
        /// count as any other, give or take one, and no shard is skipped.
        #[test]
        fn lanes_have_equally_many_that_count(
            flags in proptest::collection::vec(proptest::collection::vec(proptest::bool::weighted(0.2), 0..60), 1..9),
            lanes in 1usize..9,
            window in 1usize..20,
            seed in 0u64..100,
            epoch in 0u64..4,
            passes in 1u64..3,
        ) {
            let counts = |of: &[bool]| of.iter().filter(|counts| **counts).count() as u64;
            let shards: Vec<_> = flags.iter().map(|of| (of.len() as u64, counts(of), false)).collect();
            let all: u64 = shards.iter().map(|(_, counted, _)| counted).sum();
            prop_assume!(all > 0);
            let line = counted(&shards, seed).taking(passes * all);
            let mut found: HashMap<(usize, u64, u64), usize> = HashMap::new();
            let mut sizes = vec![];
            for lane in 0..lanes {
                let mut size = 0;
                for s in placed(&line, &flags, epoch, (lanes, lane), window) {
                    prop_assert!(s.start < s.end && s.end <= flags[s.shard].len() as u64);
                    for p in s.start..s.end {
                        *found.entry((s.shard, s.pass, p)).or_default() += 1;
                        size += u64::from(flags[s.shard][p as usize]);
                    }
                }
                sizes.push(size);
            }
            prop_assert!(found.values().all(|&times| times == 1));
            let samples: u64 = flags.iter().map(|of| of.len() as u64).sum();
            prop_assert_eq!(found.len() as u64, passes * samples);
            prop_assert_eq!(sizes.iter().sum::<u64>(), passes * all);
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }

        /// An estimate is shared out by positions: every sample is in one segment, whatever it says.
        #[test]
        fn estimates_are_shared_out_by_position(
            shards in proptest::collection::vec((1u64..80, 0u64..80), 1..9),
            lanes in 1usize..9,
            window in 1usize..20,
        ) {
            let shards: Vec<_> = shards.iter().map(|&(n, counted)| (n, counted.min(n), true)).collect();
            prop_assume!(shards.iter().any(|(_, counted, _)| *counted > 0));
            let line = counted(&shards, 3);
            let flags: Vec<Vec<bool>> = vec![vec![]; shards.len()];
            let mut found: Vec<(usize, u64)> = vec![];
            for lane in 0..lanes {
                let own = placed(&line, &flags, 1, (lanes, lane), window);
                found.extend(own.iter().flat_map(|s| (s.start..s.end).map(|p| (s.shard, p))));
            }
            found.sort_unstable();
            let truth = shards.iter().enumerate().flat_map(|(shard, &(n, ..))| (0..n).map(move |p| (shard, p)));
            prop_assert_eq!(found, truth.collect::<Vec<_>>());
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

    /// The lane that has a shard's end has what lies beyond its length, also where its cut does.
    #[test]
    fn the_last_part_has_what_a_wrong_length_leaves() {
        let line = counted(&[(10, 15, false)], 0);
        let parts: Vec<Ranks> = line.parts(0, 12..15).collect();
        let part = parts[0].place(|rank| Ok(rank + 5)).unwrap();
        let segments: Vec<Segment> = part.segments(8).collect();
        assert_eq!(segments.len(), 1);
        assert!(segments[0].tail && (segments[0].window, segments[0].start) == (2, 17), "{segments:?}");
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
