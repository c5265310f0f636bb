//! Farthest-first traversal (Gonzalez 1985): each next candidate is the one least like those
//! before it.

use ndarray::{Array2, ArrayView2};

/// First `count` rows of `embeddings` in farthest-first order, starting at the first.
///
/// `embeddings` `[candidates, dim]`, of unit length; rows in order of hash, so that ties and the
/// start go to the smallest. Rows that hold anything but numbers come last. Every shorter order is
/// the beginning of a longer one. O(candidates * count * dim).
pub fn farthest_first(embeddings: ArrayView2<'_, f32>, count: usize) -> Vec<usize> {
    let n = embeddings.nrows();
    // Contiguous rows, whatever the caller sliced.
    let rows: Array2<f32> = embeddings.as_standard_layout().into_owned();
    let mut order = Vec::with_capacity(count.min(n));
    // Highest cosine with any row chosen so far; chosen rows leave the race.
    let mut nearest: Vec<f32> = rows
        .outer_iter()
        .map(|row| if row.iter().all(|v| v.is_finite()) { f32::NEG_INFINITY } else { f32::INFINITY })
        .collect();
    let mut waiting: Vec<usize> = (0..n).collect();
    while order.len() < count && !waiting.is_empty() {
        let mut best = 0;
        for at in 1..waiting.len() {
            if nearest[waiting[at]] < nearest[waiting[best]] {
                best = at;
            }
        }
        // `remove`, not `swap_remove`: ties go to the smallest hash.
        let chosen = waiting.remove(best);
        order.push(chosen);
        for &row in &waiting {
            let cosine = rows.row(row).dot(&rows.row(chosen));
            nearest[row] = nearest[row].max(cosine);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::hash::{Purpose, Rng};

    fn random(n: usize, dim: usize) -> Array2<f32> {
        let mut rng = Rng::new(4, Purpose::Synth, 0);
        let mut rows = Array2::from_shape_fn((n, dim), |_| rng.normal() as f32);
        for mut row in rows.outer_iter_mut() {
            let norm = row.dot(&row).sqrt();
            row /= norm;
        }
        rows
    }

    #[test]
    fn each_next_is_the_farthest_from_those_before() {
        let rows = random(120, 6);
        let order = farthest_first(rows.view(), 120);
        assert_eq!(order[0], 0);
        for k in 1..120 {
            let nearest = |i: usize| {
                order[..k].iter().map(|&j| rows.row(i).dot(&rows.row(j))).fold(f32::NEG_INFINITY, f32::max)
            };
            let chosen = nearest(order[k]);
            assert!(order[k..].iter().all(|&i| nearest(i) >= chosen - 1e-6), "step {k}");
        }
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..120).collect::<Vec<_>>());
    }

    #[test]
    fn shorter_orders_begin_longer_ones() {
        let rows = random(60, 4);
        let all = farthest_first(rows.view(), 60);
        for count in [0, 1, 7, 59, 99] {
            assert_eq!(farthest_first(rows.view(), count), all[..count.min(60)]);
        }
    }

    #[test]
    fn copies_and_rubbish_come_last() {
        let rows = array![[f32::NAN, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]];
        assert_eq!(farthest_first(rows.view(), 5), [1, 4, 3, 2, 0]);
    }
}
