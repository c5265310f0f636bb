//! Near-copies in a whole corpus, by semantic hash.
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

use crate::model::{SEMANTIC_HASH_BITS, SemanticHash, UNKNOWN_HASH};

/// Most bits that near hashes may differ in.
pub(super) const MAX_DISTANCE: u32 = 31;

/// Bits of a band, and bands of a hash.
const BAND: usize = 16;
pub(crate) const BANDS: usize = SEMANTIC_HASH_BITS / BAND;

/// Marks near-copies: item `i` of `0..n` is true where an earlier item that is not marked itself has
/// a hash that differs in at most `distance` bits, and is `alike`, which is asked of such pairs only
/// (earlier, later).
///
/// An item whose hash is not known is never a copy. Items stand in the order in which they may stay. `distance` above [`MAX_DISTANCE`] counts as that.
/// O(n * bands) plus the pairs that share a band (with r = 1: nearly share one): for even hashes about
/// n² * distance / 2^17 (n² * distance / 2^14) comparisons of a few ns. 41 bytes an item, at the peak.
pub(super) fn near_copies(
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
    while !open.is_empty() {
        for band in 0..bands {
            let table = Table::new(&open, &hash, band);
            table.groups(flips, |earlier, later| {
                earlier.mark(later, &mut waits, |_| true, distance, &alike, |_| true);
            });
        }
        if open.iter().any(|&i| waits[i as usize]) {
            for band in 0..bands {
                let table = Table::new(&open, &hash, band);
                table.groups(flips, |earlier, later| {
                    let stays = |i: u32| !waits[i as usize];
                    earlier.mark(later, &mut copies, stays, distance, &alike, |i| waits[i as usize]);
                });
            }
        }
        open.retain(|&i| waits[i as usize] && !copies[i as usize]);
        open.iter().for_each(|&i| waits[i as usize] = false);
    }
    copies
}

/// Items sorted by the value of a band; those of one value ascend.
struct Table {
    band: usize,
    items: Vec<u32>,
    hashes: Vec<SemanticHash>,
    /// Where the items of each value begin, `[2^16 + 1]`.
    starts: Vec<u32>,
}

/// The items of one value.
#[derive(Clone, Copy)]
struct Group<'a> {
    items: &'a [u32],
    hashes: &'a [SemanticHash],
    band: usize,
}

impl Table {
    fn new(items: &[u32], hash: &impl Fn(u32) -> SemanticHash, band: usize) -> Self {
        let value = |hash: &SemanticHash| value(hash, band);
        let mut starts = vec![0u32; (1 << BAND) + 1];
        items.iter().for_each(|&i| starts[value(&hash(i)) + 1] += 1);
        (0..1 << BAND).for_each(|v| starts[v + 1] += starts[v]);
        let mut next = starts.clone();
        let mut sorted = vec![0; items.len()];
        let mut hashes = vec![UNKNOWN_HASH; items.len()];
        for &i in items {
            let hash = hash(i);
            let at = &mut next[value(&hash)];
            sorted[*at as usize] = i;
            hashes[*at as usize] = hash;
            *at += 1;
        }
        Self { band, items: sorted, hashes, starts }
    }

    fn group(&self, value: usize) -> Group<'_> {
        let range = self.starts[value] as usize..self.starts[value + 1] as usize;
        Group { items: &self.items[range.clone()], hashes: &self.hashes[range], band: self.band }
    }

    /// Calls `work` with each group and itself, and with `flips` with each two groups whose values
    /// differ in one bit, either first.
    fn groups(&self, flips: bool, mut work: impl FnMut(Group<'_>, Group<'_>)) {
        let mut at = 0;
        while let Some(hash) = self.hashes.get(at) {
            let value = value(hash, self.band);
            let group = self.group(value);
            at += group.items.len();
            work(group, group);
            for bit in (0..BAND).filter(|_| flips) {
                work(self.group(value ^ (1 << bit)), group);
            }
        }
    }
}

impl Group<'_> {
    /// Sets the mark of those items of `later` that `may` have one and have none, where an item of
    /// this group that `counts` and comes before is near and alike.
    fn mark(
        self,
        later: Group<'_>,
        marks: &mut [bool],
        counts: impl Fn(u32) -> bool,
        distance: u32,
        alike: &impl Fn(u32, u32) -> bool,
        may: impl Fn(u32) -> bool,
    ) {
        for (&j, hash) in later.items.iter().zip(later.hashes) {
            if marks[j as usize] || !may(j) {
                continue;
            }
            let before = self.items.iter().zip(self.hashes).take_while(|&(&i, _)| i < j);
            let mut near = before.filter(|(_, other)| is_near(other, hash, distance, self.band));
            marks[j as usize] = near.any(|(&i, _)| counts(i) && alike(i, j));
        }
    }
}

/// The bits of a hash in `band`.
pub(crate) fn value(hash: &SemanticHash, band: usize) -> usize {
    let bit = band * BAND;
    (hash[bit / 64] >> (bit % 64)) as usize & ((1 << BAND) - 1)
}

/// Whether two hashes that share `band` differ in at most `distance` bits.
pub(crate) fn is_near(a: &SemanticHash, b: &SemanticHash, distance: u32, band: usize) -> bool {
    // The word of the band itself, which says least, comes last.
    let first = band * BAND / 64 + 1;
    let mut differing = 0;
    for word in first..first + a.len() {
        let word = word % a.len();
        differing += (a[word] ^ b[word]).count_ones();
        if differing > distance {
            return false;
        }
    }
    true
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

    fn differing(a: &SemanticHash, b: &SemanticHash) -> u32 {
        a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
    }

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
            let found = near_copies(n, hash, distance, |_, _| true);
            assert_eq!(found, reference(&hashes, distance, |_, _| true), "distance {distance}");
            let some = found.iter().filter(|copy| **copy).count();
            assert!((20..580).contains(&some), "distance {distance}: {some} copies test nothing");
            let alike = |i: u32, j: u32| !(i ^ j).is_multiple_of(3);
            let found = near_copies(n, hash, distance, alike);
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
            let copies = |distance: usize| near_copies(2, |i| pair[i as usize], distance as u32, |_, _| true);
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
        let copies = near_copies(21, |i| chain[i as usize], 8, |_, _| true);
        assert!(copies.iter().enumerate().all(|(i, &copy)| copy == (i % 2 == 1)), "{copies:?}");
        // A million pairs of pairs would be 2 * 10^10.
        let copies = near_copies(200_000, |_| [7; 4], 15, |_, _| true);
        assert_eq!(copies.iter().filter(|copy| !**copy).count(), 1);
        assert!(!near_copies(9, |_| UNKNOWN_HASH, 15, |_, _| true).contains(&true));
        assert!(near_copies(0, |_| UNKNOWN_HASH, 15, |_, _| true).is_empty());
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
