//! A line on which similar clusters are neighbours, and its cut into runs of about equal share.
//!
//! The quota keeps an even share of any stretch of that line, so neighbours should look alike. A
//! greedy chain of nearest neighbours leaves long jumps at its end; 2-opt (Croes 1958) takes most
//! of them out by turning stretches around.

use ndarray::ArrayView2;

/// Most passes of 2-opt; it converges in fewer on what was seen, and each pass costs O(clusters²).
const PASSES: usize = 16;

/// Least gain of a turn, in cosine: above f32 noise, so that the passes end.
const GAIN: f32 = 1e-5;

/// Order in which similar centroids are neighbours: item `i` is the index of the centroid that
/// comes `i`-th. `centroids` `[clusters, codes]`, of unit length.
///
/// Deterministic. O(clusters² * codes) time in one matrix product, O(clusters²) memory: 36 MB for
/// 3,000 clusters.
pub fn similarity_order(centroids: ArrayView2<'_, f32>) -> Vec<usize> {
    let n = centroids.nrows();
    if n < 3 {
        return (0..n).collect();
    }
    let similarity = centroids.dot(&centroids.t());
    // Start from the centroid that has least in common with all others: an end of the line.
    let start = lowest(n, |i| similarity.row(i).sum());
    let mut order = vec![start];
    let mut left: Vec<usize> = (0..n).filter(|&i| i != start).collect();
    let mut last = start;
    while !left.is_empty() {
        let nearest = lowest(left.len(), |i| -similarity[[last, left[i]]]);
        // `remove`, not `swap_remove`: ties go to the lowest index.
        last = left.remove(nearest);
        order.push(last);
    }
    let near = |a: usize, b: usize| similarity[[a, b]];
    for _ in 0..PASSES {
        let mut turned = false;
        for i in 0..n - 1 {
            for j in i + 1..n {
                // Turning i..=j around changes the link into i and the link out of j.
                let into =
                    if i > 0 { near(order[i - 1], order[j]) - near(order[i - 1], order[i]) } else { 0.0 };
                let out =
                    if j + 1 < n { near(order[i], order[j + 1]) - near(order[j], order[j + 1]) } else { 0.0 };
                if into + out > GAIN {
                    order[i..=j].reverse();
                    turned = true;
                }
            }
        }
        if !turned {
            break;
        }
    }
    order
}

/// First of `0..n` with the lowest value.
fn lowest(n: usize, value: impl Fn(usize) -> f32) -> usize {
    let mut best = (0, f32::INFINITY);
    for i in 0..n {
        let v = value(i);
        if v < best.1 {
            best = (i, v);
        }
    }
    best.0
}

/// Cuts clusters, in similarity order, into about `target` runs of about equal share: run of each
/// cluster, `[clusters]`, from 0, rising by 0 or 1.
///
/// A run's share differs from `1 / target` by at most its largest cluster; there are never more
/// runs than clusters, and fewer than `target` where single clusters are larger than a run.
/// Shares that are all zero count as equal. O(clusters).
pub fn runs(shares: &[f64], target: usize) -> Vec<u32> {
    let total: f64 = shares.iter().sum();
    let equal = total <= 0.0 || !total.is_finite();
    let total = if equal { shares.len() as f64 } else { total };
    let target = target.clamp(1, shares.len().max(1));
    let mut runs = Vec::with_capacity(shares.len());
    let (mut before, mut run, mut slot) = (0.0, 0u32, None);
    for &share in shares {
        let share = if equal { 1.0 } else { share };
        // The slot of `1 / target` in which the cluster's middle lies; empty slots are skipped.
        let middle = ((before + share / 2.0) / total * target as f64) as usize;
        if slot.is_some_and(|slot| slot != middle) {
            run += 1;
        }
        slot = Some(middle);
        before += share;
        runs.push(run);
    }
    runs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ndarray::Array2;

    use super::*;
    use crate::hash::{Purpose, Rng};

    fn neighbours(centroids: &Array2<f32>, order: &[usize]) -> f32 {
        order.windows(2).map(|w| centroids.row(w[0]).dot(&centroids.row(w[1]))).sum::<f32>()
    }

    #[test]
    fn a_shuffled_arc_is_put_in_order() {
        let mut angles: Vec<usize> = (0..60).collect();
        Rng::new(1, Purpose::KMeans, 0).shuffle(&mut angles);
        let arc = |i: usize, d: usize| {
            let angle = angles[i] as f32 * 0.02;
            if d == 0 { angle.cos() } else { angle.sin() }
        };
        let centroids = Array2::from_shape_fn((60, 2), |(i, d)| arc(i, d));
        let mut found: Vec<usize> =
            similarity_order(centroids.view()).into_iter().map(|i| angles[i]).collect();
        if found[0] != 0 {
            found.reverse();
        }
        assert_eq!(found, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn groups_are_visited_one_after_the_other() {
        // 12 groups of 8 centroids: a perfect line changes group 11 times.
        let mut rng = Rng::new(2, Purpose::KMeans, 0);
        let centres: Vec<Vec<f64>> = (0..12).map(|_| (0..24).map(|_| rng.normal()).collect()).collect();
        let mut rows = Array2::zeros((96, 24));
        for (i, mut row) in rows.outer_iter_mut().enumerate() {
            row.iter_mut().zip(&centres[i % 12]).for_each(|(v, c)| *v = (c + 0.3 * rng.normal()) as f32);
            crate::cluster::signature::normalise(row.as_slice_mut().unwrap());
        }
        let order = similarity_order(rows.view());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..96).collect::<Vec<_>>());
        let changes = order.windows(2).filter(|w| w[0] % 12 != w[1] % 12).count();
        assert!(changes <= 12, "{changes}");
        let shuffled: Vec<usize> = (0..96).collect();
        assert!(neighbours(&rows, &order) > 2.0 * neighbours(&rows, &shuffled));
    }

    #[test]
    fn runs_have_about_equal_shares() {
        let shares: Vec<f64> = (0..3000).map(|i| 1.0 / (1.0 + f64::from(i * 7919 % 3000))).collect();
        let total: f64 = shares.iter().sum();
        let largest = 1.0 / total;
        let runs = runs(&shares, 64);
        let count = *runs.last().unwrap() as usize + 1;
        assert!((50..=64).contains(&count), "{count}");
        assert!(runs.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1));
        let mut sums = vec![0.0; count];
        runs.iter().zip(&shares).for_each(|(&run, share)| sums[run as usize] += share / total);
        for sum in sums {
            assert!((sum - 1.0 / 64.0).abs() <= largest + 1e-9, "{sum}");
        }
    }

    #[test]
    fn never_more_runs_than_clusters() {
        assert_eq!(runs(&[0.5, 0.5], 64), [0, 1]);
        assert_eq!(runs(&[0.0; 4], 2), [0, 0, 1, 1]);
        assert_eq!(runs(&[1.0], 64), [0]);
        assert_eq!(runs(&[0.98, 0.01, 0.01], 2), [0, 1, 1]);
        assert!(runs(&[], 64).is_empty());
    }
}
