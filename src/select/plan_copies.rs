//! Near-duplicates in a whole corpus, by semantic hash.
//!
//! Two hashes are near where they differ in at most `distance` bits. They are found by multi-index
//! hashing (Norouzi, Punjani and Fleet 2012): the hash is cut into bands of 16 bits, and of two
//! hashes that differ in less than (r + 1) bits per band, one band differs in at most r bits. With
//! r = 0, `distance + 1` bands find every pair up to 15 bits apart; with r = 1, `distance / 2 + 1` bands
//! find every pair up to 31. No pair is missed, whatever the hashes.
//!
//! What goes is what [`dedup`](crate::select::dedup) would drop of a window that holds all: an item
//! goes where an earlier one is near that has not gone itself. The items without an earlier near one
//! stay; those near them go; what is left is asked again. That needs no list of pairs, of which a
//! corpus with many copies of one picture has as many as the square of their number.

mod partners;

use crate::model::{SEMANTIC_HASH_BITS, SemanticHash, UNKNOWN_HASH};

pub use partners::hash_duplicates;
pub(super) use partners::partners;

/// Most bits that near hashes may differ in.
pub(super) const MAX_DISTANCE: u32 = 31;

/// Bits of a band, and bands of a hash.
const BAND: usize = 16;
pub(crate) const BANDS: usize = SEMANTIC_HASH_BITS / BAND;

/// Marks near-duplicates: item `i` of `0..n` is true where an earlier item that is not marked itself has
/// a hash that differs in at most `distance` bits, and is `alike`, which is asked of such pairs only
/// (earlier, later).
///
/// An item whose hash is not known is never a copy. Items stand in the order in which they may stay. `distance` above [`MAX_DISTANCE`] counts as that.
/// O(n * bands) plus the pairs that share a band (with r = 1: nearly share one): for even hashes about
/// n² * distance / 2^17 (n² * distance / 2^14) comparisons of about 1 ns. 26 bytes an item, at the peak.
pub(super) fn near_duplicates(
    n: u32,
    hash: impl Fn(u32) -> SemanticHash,
    distance: u32,
    alike: impl Fn(u32, u32) -> bool,
) -> Vec<bool> {
    let distance = distance.min(MAX_DISTANCE);
    let flips = distance as usize >= BANDS;
    let bands = distance as usize / if flips { 2 } else { 1 } + 1;
    let mut copies = vec![false; n as usize];
    let mut open: Vec<u32> = (0..n).filter(|&i| hash(i) != UNKNOWN_HASH).collect();
    // Whether an earlier item is near that may stay.
    let mut waits = vec![false; n as usize];
    let near = |i: u32, j: u32| differing(&hash(i), &hash(j)) <= distance && alike(i, j);
    while !open.is_empty() {
        for band in 0..bands {
            let table = Table::new(&open, &hash, band);
            table.mark(flips, distance, &mut waits, |_| true, near);
        }
        if open.iter().any(|&i| waits[i as usize]) {
            for band in 0..bands {
                let table = Table::new(&open, &hash, band);
                let stays = |i: u32, j: u32| !waits[i as usize] && near(i, j);
                table.mark(flips, distance, &mut copies, |j| waits[j as usize], stays);
            }
        }
        open.retain(|&i| waits[i as usize] && !copies[i as usize]);
        open.iter().for_each(|&i| waits[i as usize] = false);
    }
    copies
}

/// Half of a hash: two hashes whose halves differ in more bits than they may need no second look, and of
/// unlike hashes about one in a billion needs one.
type Half = [u64; 2];

/// Items sorted by the value of a band; those of one value ascend.
struct Table {
    items: Vec<u32>,
    /// Of each item the half of its hash that the band is not in.
    halves: Vec<Half>,
    /// Where the items of each value begin, `[2^16 + 1]`.
    starts: Vec<u32>,
}

impl Table {
    fn new(items: &[u32], hash: &impl Fn(u32) -> SemanticHash, band: usize) -> Self {
        let value = |hash: &SemanticHash| value(hash, band);
        let mut starts = vec![0u32; (1 << BAND) + 1];
        items.iter().for_each(|&i| starts[value(&hash(i)) + 1] += 1);
        (0..1 << BAND).for_each(|v| starts[v + 1] += starts[v]);
        let mut next = starts.clone();
        let mut sorted = vec![0; items.len()];
        let mut halves = vec![[0; 2]; items.len()];
        for &i in items {
            let hash = hash(i);
            let at = &mut next[value(&hash)];
            sorted[*at as usize] = i;
            halves[*at as usize] = half(&hash, band);
            *at += 1;
        }
        Self { items: sorted, halves, starts }
    }

    fn range(&self, value: usize) -> std::ops::Range<usize> {
        self.starts[value] as usize..self.starts[value + 1] as usize
    }

    /// Sets the mark of each item that `may` have one and has none, where an earlier one in its group, or with
    /// `flips` in a group whose value differs in one bit, is `near`: asked of pairs (earlier, later) whose
    /// halves differ in at most `distance` bits.
    fn mark(
        &self,
        flips: bool,
        distance: u32,
        marks: &mut [bool],
        may: impl Fn(u32) -> bool,
        near: impl Fn(u32, u32) -> bool,
    ) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor has the instruction.
            return unsafe { self.mark_by_popcnt(flips, distance, marks, may, near) };
        }
        self.mark_by(flips, distance, marks, may, near);
    }

    /// As [`mark`](Self::mark), with the processor's instruction for counting bits, which the compiler may not
    /// assume of every x86-64: most of the time goes there.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt")]
    fn mark_by_popcnt(
        &self,
        flips: bool,
        distance: u32,
        marks: &mut [bool],
        may: impl Fn(u32) -> bool,
        near: impl Fn(u32, u32) -> bool,
    ) {
        self.mark_by(flips, distance, marks, may, near);
    }

    #[inline(always)]
    fn mark_by(
        &self,
        flips: bool,
        distance: u32,
        marks: &mut [bool],
        may: impl Fn(u32) -> bool,
        near: impl Fn(u32, u32) -> bool,
    ) {
        for value in 0..1 << BAND {
            let group = self.range(value);
            if group.is_empty() {
                continue;
            }
            let neighbours = (0..BAND).filter(|_| flips).map(|bit| value ^ (1 << bit));
            for earlier in std::iter::once(value).chain(neighbours).map(|value| self.range(value)) {
                for at in group.clone() {
                    let j = self.items[at];
                    if marks[j as usize] || !may(j) {
                        continue;
                    }
                    let before = self.items[earlier.clone()].partition_point(|&i| i < j);
                    let before = earlier.start..earlier.start + before;
                    marks[j as usize] = self.any_near(before, &self.halves[at], distance, |i| near(i, j));
                }
            }
        }
    }

    /// Whether one of the items in `range`, of those whose half is near `half`, is near.
    #[inline(always)]
    fn any_near(
        &self,
        range: std::ops::Range<usize>,
        half: &Half,
        distance: u32,
        near: impl Fn(u32) -> bool,
    ) -> bool {
        let (halves, items) = (&self.halves[range.clone()], &self.items[range]);
        for (halves, items) in halves.chunks(CHUNK).zip(items.chunks(CHUNK)) {
            // Without a branch for each.
            let least = halves.iter().fold(u32::MAX, |least, other| least.min(differing_halves(other, half)));
            if least > distance {
                continue;
            }
            let mut pairs = halves.iter().zip(items);
            if pairs.any(|(other, &i)| differing_halves(other, half) <= distance && near(i)) {
                return true;
            }
        }
        false
    }
}

/// Halves that are looked at together.
const CHUNK: usize = 8;

/// The words of a hash that `band` is not in, but for one.
fn half(hash: &SemanticHash, band: usize) -> Half {
    let word = band * BAND / 64;
    [hash[(word + 1) % hash.len()], hash[(word + 2) % hash.len()]]
}

#[inline(always)]
fn differing_halves(a: &Half, b: &Half) -> u32 {
    (a[0] ^ b[0]).count_ones() + (a[1] ^ b[1]).count_ones()
}

/// Bits in which two hashes differ.
pub(crate) fn differing(a: &SemanticHash, b: &SemanticHash) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// The bits of a hash in `band`.
pub(crate) fn value(hash: &SemanticHash, band: usize) -> usize {
    let bit = band * BAND;
    (hash[bit / 64] >> (bit % 64)) as usize & ((1 << BAND) - 1)
}

/// Bits in which the hashes of two embeddings of this cosine differ, in expectation: each bit is the
/// side of a random hyperplane, which parts them with probability angle / pi (Charikar 2002).
pub(super) fn expected_distance(cosine: f32) -> f64 {
    f64::from(cosine.clamp(-1.0, 1.0)).acos() / std::f64::consts::PI * SEMANTIC_HASH_BITS as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Purpose, Rng};

    /// By definition, all pairs.
    fn reference(hashes: &[SemanticHash], distance: u32, alike: impl Fn(u32, u32) -> bool) -> Vec<bool> {
        let mut copies: Vec<bool> = vec![];
        for (j, hash) in hashes.iter().enumerate() {
            let copy = *hash != UNKNOWN_HASH
                && (0..j).any(|i| {
                    !copies[i]
                        && hashes[i] != UNKNOWN_HASH
                        && differing(&hashes[i], hash) <= distance
                        && alike(i as u32, j as u32)
                });
            copies.push(copy);
        }
        copies
    }

    /// Families of hashes, each with members up to `spread` bits from its first or from another.
    fn families(n: usize, spread: usize, seed: u64) -> Vec<SemanticHash> {
        let mut rng = Rng::new(seed, Purpose::Synth, 0);
        let mut hashes: Vec<SemanticHash> = vec![];
        while hashes.len() < n {
            if hashes.is_empty() || rng.unit() < 0.3 {
                hashes.push([0; 4].map(|_| rng.next_u64()));
                continue;
            }
            let mut hash = hashes[rng.below(hashes.len())];
            for _ in 0..rng.below(spread + 1) {
                let bit = rng.below(SEMANTIC_HASH_BITS);
                hash[bit / 64] ^= 1 << (bit % 64);
            }
            hashes.push(hash);
        }
        rng.shuffle(&mut hashes);
        hashes
    }

    #[test]
    fn marks_are_those_of_the_definition() {
        for distance in [0, 1, 7, 15, 16, 24, 31] {
            let hashes = families(600, distance as usize + 4, u64::from(distance));
            let n = hashes.len() as u32;
            let hash = |i: u32| hashes[i as usize];
            let found = near_duplicates(n, hash, distance, |_, _| true);
            assert_eq!(found, reference(&hashes, distance, |_, _| true), "distance {distance}");
            let some = found.iter().filter(|copy| **copy).count();
            assert!((20..580).contains(&some), "distance {distance}: {some} copies test nothing");
            let alike = |i: u32, j: u32| !(i ^ j).is_multiple_of(3);
            let found = near_duplicates(n, hash, distance, alike);
            assert_eq!(found, reference(&hashes, distance, alike), "distance {distance}, checked");
        }
    }

    #[test]
    fn bits_that_differ_may_lie_anywhere() {
        // As unkind to bands as can be: one bit in each of the first bands, then two.
        let base: SemanticHash = [0x0123_4567_89ab_cdef; 4];
        for distance in 1..=MAX_DISTANCE as usize {
            let mut other = base;
            for bit in 0..distance {
                let bit = bit % BANDS * BAND + bit / BANDS;
                other[bit / 64] ^= 1 << (bit % 64);
            }
            let pair = [base, other];
            let copies =
                |distance: usize| near_duplicates(2, |i| pair[i as usize], distance as u32, |_, _| true);
            assert_eq!(copies(distance), [false, true], "{distance} bits");
            assert_eq!(copies(distance - 1), [false, false], "{distance} bits");
        }
    }

    #[test]
    fn chains_are_cut_and_many_copies_cost_little() {
        // Each is 8 bits from the one before: every second stays.
        let mut chain = vec![[1u64; 4]];
        for link in 0..20 {
            let mut next = chain[link];
            (0..8).for_each(|bit| next[link / 8] ^= 1 << (link % 8 * 8 + bit));
            chain.push(next);
        }
        let copies = near_duplicates(21, |i| chain[i as usize], 8, |_, _| true);
        assert!(copies.iter().enumerate().all(|(i, &copy)| copy == (i % 2 == 1)), "{copies:?}");
        // A million pairs of pairs would be 2 * 10^10.
        let copies = near_duplicates(200_000, |_| [7; 4], 15, |_, _| true);
        assert_eq!(copies.iter().filter(|copy| !**copy).count(), 1);
        assert!(!near_duplicates(9, |_| UNKNOWN_HASH, 15, |_, _| true).contains(&true));
        assert!(near_duplicates(0, |_| UNKNOWN_HASH, 15, |_, _| true).is_empty());
    }

    #[test]
    fn hashes_of_a_cosine_differ_as_expected() {
        assert_eq!(expected_distance(1.0), 0.0);
        assert!((expected_distance(0.0) - 128.0).abs() < 1e-9);
        // Random hyperplanes in the plane of the two: the mean of 256 bits over 200 pairs has a
        // standard deviation of sqrt(256 p (1 - p) / 200) < 0.4 for p = 0.144.
        let mut rng = Rng::new(5, Purpose::Synth, 0);
        let angle = 0.9f64.acos();
        let parted = (0..200 * SEMANTIC_HASH_BITS)
            .filter(|_| {
                let at = rng.range(0.0, std::f64::consts::TAU);
                (at.cos() >= 0.0) != ((at - angle).cos() >= 0.0)
            })
            .count();
        assert!((parted as f64 / 200.0 - expected_distance(0.9)).abs() < 2.0);
    }
}
