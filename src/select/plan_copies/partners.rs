//! Of each near-duplicate the one that it fell to, for people who want to see the two beside each other.

use crate::model::SemanticHash;

use super::{BAND, BANDS, MAX_DISTANCE, Table, differing, expected_distance, near_duplicates, value};

/// Of each item that is marked in `copies`, as [`near_duplicates`](super::near_duplicates) marks them with the same
/// arguments, one of the earlier items that are not marked and that it is near: by the least `rank`, then the fewest
/// bits, then the first. `None` of the others, `[n]`.
///
/// O(n * bands), and the pairs of a marked and an unmarked item that share a band (with r = 1: nearly share one).
pub(in crate::select) fn partners(
    hash: impl Fn(u32) -> SemanticHash,
    distance: u32,
    copies: &[bool],
    rank: impl Fn(u32) -> u32,
    alike: impl Fn(u32, u32) -> bool,
) -> Vec<Option<u32>> {
    let distance = distance.min(MAX_DISTANCE);
    let flips = distance as usize >= BANDS;
    let bands = distance as usize / if flips { 2 } else { 1 } + 1;
    let of = |marked: bool| -> Vec<u32> {
        (0..copies.len() as u32).filter(|&i| copies[i as usize] == marked).collect()
    };
    let (marked, unmarked) = (of(true), of(false));
    let mut best: Vec<Option<(u32, u32, u32)>> = vec![None; copies.len()];
    for band in 0..if marked.is_empty() { 0 } else { bands } {
        let table = Table::new(&unmarked, &hash, band);
        for &j in &marked {
            let (own, of_j) = (value(&hash(j), band), hash(j));
            let neighbours = (0..BAND).filter(|_| flips).map(|bit| own ^ (1 << bit));
            for group in std::iter::once(own).chain(neighbours) {
                let earlier = table.items[table.range(group)].iter().take_while(|&&i| i < j);
                for &i in earlier {
                    let bits = differing(&hash(i), &of_j);
                    let found = (rank(i), bits, i);
                    if bits <= distance && best[j as usize].is_none_or(|best| found < best) && alike(i, j) {
                        best[j as usize] = Some(found);
                    }
                }
            }
        }
    }
    best.into_iter().map(|best| best.map(|(_, _, i)| i)).collect()
}

/// Of each hash the earlier one that a deduplication by `cosine` would drop it for, and the bits in which they differ;
/// `None` of what would stay. Also the most bits that are near. As a plan finds them: O(n log n) and the pairs that share a band.
pub fn hash_duplicates(hashes: &[SemanticHash], cosine: f32) -> (Vec<Option<(u32, u32)>>, u32) {
    let distance = (expected_distance(cosine).round() as u32).min(MAX_DISTANCE);
    let of = |i: u32| hashes[i as usize];
    let copies = near_duplicates(hashes.len() as u32, of, distance, |_, _| true);
    let found = partners(of, distance, &copies, |_| 0, |_, _| true);
    let bits = |(j, i): (usize, Option<u32>)| i.map(|i| (i, differing(&of(i), &hashes[j])));
    (found.into_iter().enumerate().map(bits).collect(), distance)
}

#[cfg(test)]
mod tests {
    use super::super::near_duplicates;
    use super::*;
    use crate::hash::{Purpose, Rng};

    #[test]
    fn every_copy_has_the_nearest_of_the_earlier_that_stay() {
        for distance in [0, 9, 15, 16, 31] {
            let mut rng = Rng::new(u64::from(distance), Purpose::Synth, 0);
            let mut hashes: Vec<SemanticHash> = vec![];
            for i in 0..600 {
                let mut hash = [0; 4].map(|_| rng.next_u64());
                if i > 0 && rng.unit() < 0.6 {
                    hash = hashes[rng.below(hashes.len())];
                    for _ in 0..rng.below(distance as usize + 4) {
                        let bit = rng.below(256);
                        hash[bit / 64] ^= 1 << (bit % 64);
                    }
                }
                hashes.push(hash);
            }
            let (hash, alike) = (|i: u32| hashes[i as usize], |i: u32, j: u32| !(i + j).is_multiple_of(7));
            let rank = |i: u32| i % 2;
            let copies = near_duplicates(600, hash, distance, alike);
            let found = partners(hash, distance, &copies, rank, alike);
            let mut pairs = 0;
            for j in 0..600u32 {
                let earlier = (0..j).filter(|&i| !copies[i as usize] && alike(i, j));
                let near = earlier
                    .map(|i| (rank(i), differing(&hash(i), &hash(j)), i))
                    .filter(|of| of.1 <= distance);
                let expected = near.min().map(|(_, _, i)| i).filter(|_| copies[j as usize]);
                assert_eq!(found[j as usize], expected, "{distance}: {j}");
                assert_eq!(expected.is_some(), copies[j as usize]);
                pairs += usize::from(expected.is_some());
            }
            assert!(pairs > 50, "{distance}: {pairs}");
        }
    }
}
