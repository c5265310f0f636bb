//! Byte ranges: which to ask for in one request, and how requests are cut.

use std::collections::VecDeque;
use std::ops::Range;

/// Bytes between two wanted ranges that are read through rather than asked around: about what a
/// connection delivers in the time of a round trip.
pub(crate) const MAX_GAP: u64 = 256 << 10;

/// The ranges that cover `wanted`, in order, with gaps of at least `max_gap` bytes between them.
/// Empty ranges ask for nothing.
pub(crate) fn merge(wanted: impl IntoIterator<Item = Range<u64>>, max_gap: u64) -> Vec<Range<u64>> {
    let mut wanted: Vec<Range<u64>> = wanted.into_iter().filter(|range| range.start < range.end).collect();
    wanted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(wanted.len());
    for range in wanted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end || range.start - last.end < max_gap => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// `ranges`, cut where those of `kept`, which are sorted by their starts, begin and end: each piece lies in one of them, or
/// in none.
pub(super) fn cut(ranges: impl IntoIterator<Item = Range<u64>>, kept: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut cut = Vec::new();
    for range in ranges {
        let mut at = range.start;
        for kept in kept.iter().skip(kept.partition_point(|kept| kept.start < range.start).saturating_sub(1))
        {
            if kept.start >= range.end {
                break;
            }
            if kept.end <= at {
                continue;
            }
            if kept.start > at {
                cut.push(at..kept.start);
                at = kept.start;
            }
            let end = kept.end.min(range.end);
            cut.push(at..end);
            at = end;
        }
        if at < range.end {
            cut.push(at..range.end);
        }
    }
    cut
}

/// The bytes of `ranges`, in order, in pieces of at most `most` bytes.
#[derive(Debug)]
pub(super) struct Pieces {
    ranges: VecDeque<Range<u64>>,
    most: u64,
}

impl Pieces {
    pub(super) fn new(ranges: impl IntoIterator<Item = Range<u64>>, most: usize) -> Self {
        let ranges = ranges.into_iter().filter(|range| range.start < range.end).collect();
        Self { ranges, most: most.max(1) as u64 }
    }
}

impl Iterator for Pieces {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let first = self.ranges.front_mut()?;
        let end = first.end.min(first.start.saturating_add(self.most));
        let piece = first.start..end;
        first.start = end;
        if first.start == first.end {
            self.ranges.pop_front();
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
        proptest::collection::vec((0u64..2000, 0u64..200).prop_map(|(start, len)| start..start + len), 0..40)
    }

    proptest! {
        #[test]
        fn merged_ranges_cover_what_is_wanted_and_read_through_small_gaps_only(
            wanted in ranges(), gap in 0u64..300,
        ) {
            let merged = merge(wanted.clone(), gap);
            for pair in merged.windows(2) {
                prop_assert!(pair[0].end < pair[1].start && pair[1].start - pair[0].end >= gap);
            }
            let inside = |all: &[Range<u64>], byte: u64| all.iter().any(|range| range.contains(&byte));
            let mut gap_length = 0;
            for byte in 0..2400 {
                let (is_wanted, is_merged) = (inside(&wanted, byte), inside(&merged, byte));
                prop_assert!(is_merged || !is_wanted, "byte {byte} is wanted");
                gap_length = if is_merged && !is_wanted { gap_length + 1 } else { 0 };
                prop_assert!(gap_length < gap.max(1), "a gap of {gap_length} bytes is read through");
            }
            for range in &merged {
                prop_assert!(inside(&wanted, range.start) && inside(&wanted, range.end - 1));
            }
        }

        #[test]
        fn cut_ranges_are_the_same_bytes_each_kept_or_not(wanted in ranges(), mut kept in ranges()) {
            kept.retain(|range| range.start < range.end);
            kept.sort_by_key(|range| (range.start, range.end));
            let bytes = |all: Vec<Range<u64>>| all.into_iter().flatten().collect::<Vec<u64>>();
            let pieces = cut(wanted.clone(), &kept);
            for piece in &pieces {
                let is_kept = kept.iter().any(|kept| kept.start <= piece.start && piece.end <= kept.end);
                let touches = kept.iter().any(|kept| kept.start < piece.end && piece.start < kept.end);
                // What overlaps another range is read from the store at the worst.
                prop_assert!(is_kept || !touches || kept.windows(2).any(|pair| pair[1].start < pair[0].end));
            }
            prop_assert_eq!(bytes(pieces), bytes(wanted));
        }

        #[test]
        fn pieces_are_the_same_bytes_in_the_same_order(wanted in ranges(), most in 1usize..300) {
            let bytes = |all: Vec<Range<u64>>| all.into_iter().flatten().collect::<Vec<u64>>();
            let pieces: Vec<_> = Pieces::new(wanted.clone(), most).collect();
            prop_assert!(pieces.iter().all(|p| p.start < p.end && p.end - p.start <= most as u64));
            prop_assert_eq!(bytes(pieces), bytes(wanted));
        }
    }
}
