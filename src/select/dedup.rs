//! Near-duplicates within one window.
//!
//! Of two images whose embeddings have a cosine of at least the threshold, the one with the larger
//! hash goes, unless the other is gone itself. So each dropped image has a near-duplicate that is kept,
//! no two kept ones are near-duplicates, and neither depends on the order of arrival. Copies in
//! different windows stay: a plan is for those.

use ndarray::{Array2, ArrayView2, Axis, s};

/// Rows compared by one matrix product.
const BLOCK: usize = 128;

/// Marks near-duplicates: item `i` is true where row `i` of `embeddings` has a cosine of at least
/// `threshold` with an earlier row that is not marked itself.
///
/// `embeddings` `[candidates, dim]`, of unit length, in the order in which they may stay: by hash.
/// Rows that hold anything but numbers are never copies. O(candidates * kept * dim), as matrix
/// products.
pub fn near_duplicates(embeddings: ArrayView2<'_, f32>, threshold: f32) -> Vec<bool> {
    let (n, dim) = embeddings.dim();
    let mut copies = vec![false; n];
    let mut kept = Array2::<f32>::zeros((n, dim));
    let mut count = 0;
    for start in (0..n).step_by(BLOCK) {
        let block = embeddings.slice(s![start..(start + BLOCK).min(n), ..]);
        let with_kept = block.dot(&kept.slice(s![..count, ..]).t());
        let within = block.dot(&block.t());
        for (i, row) in block.axis_iter(Axis(0)).enumerate() {
            let copies_earlier = with_kept.row(i).iter().any(|&cosine| cosine >= threshold)
                || (0..i).any(|j| !copies[start + j] && within[[i, j]] >= threshold);
            copies[start + i] = copies_earlier;
            if !copies_earlier {
                kept.row_mut(count).assign(&row);
                count += 1;
            }
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::hash::{Purpose, Rng};

    #[test]
    fn blocks_agree_with_brute_force() {
        let mut rng = Rng::new(0, Purpose::Synth, 0);
        // Angles on a circle: with 400 of them, chains of near-duplicates are common.
        let angles: Vec<f64> = (0..400).map(|_| rng.range(0.0, std::f64::consts::TAU)).collect();
        let points = Array2::from_shape_fn((400, 2), |(i, d)| {
            (if d == 0 { angles[i].cos() } else { angles[i].sin() }) as f32
        });
        let threshold = 0.999f32;
        let mut expected: Vec<bool> = Vec::new();
        for i in 0..400 {
            let copy = (0..i).any(|j| !expected[j] && points.row(i).dot(&points.row(j)) >= threshold);
            expected.push(copy);
        }
        assert_eq!(near_duplicates(points.view(), threshold), expected);
        let kept = expected.iter().filter(|copy| !**copy).count();
        assert!((50..150).contains(&kept), "{kept}");
    }

    #[test]
    fn a_copy_of_a_copy_stays_where_the_first_is_far() {
        let points = array![[1.0, 0.0], [0.8, 0.6], [0.28, 0.96]];
        assert_eq!(near_duplicates(points.view(), 0.79), [false, true, false]);
    }

    #[test]
    fn what_is_not_a_number_is_no_copy() {
        let points = array![[f32::NAN, 0.0], [1.0, 0.0], [f32::NAN, 0.0], [1.0, 0.0]];
        assert_eq!(near_duplicates(points.view(), 0.9), [false, false, false, true]);
        assert!(near_duplicates(Array2::zeros((0, 4)).view(), 0.9).is_empty());
    }
}
