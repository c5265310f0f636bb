//! How well labels and scores agree with what is true: for tests, validation and studies.

use std::collections::BTreeMap;

/// Chance that a draw of `high` is above a draw of `low`, ties counting half: the area under the
/// ROC curve. 0.5 where either is empty. Scores that are not a number count as lowest.
/// O((h + l) log l).
pub fn auc(high: &[f32], low: &[f32]) -> f64 {
    if high.is_empty() || low.is_empty() {
        return 0.5;
    }
    let number = |x: &f32| if x.is_nan() { f32::NEG_INFINITY } else { *x };
    let mut low: Vec<f32> = low.iter().map(number).collect();
    low.sort_unstable_by(f32::total_cmp);
    let above: f64 = high
        .iter()
        .map(number)
        .map(|x| {
            let (below, not_above) = (low.partition_point(|&y| y < x), low.partition_point(|&y| y <= x));
            (below + not_above) as f64 / 2.0
        })
        .sum();
    above / (high.len() as f64 * low.len() as f64)
}

/// Normalised mutual information of two labellings of the same points, in [0, 1], by the arithmetic
/// mean of their entropies (as scikit-learn). 1 where neither tells anything apart. What one has more
/// than the other is left out. O(n log n).
pub fn nmi(a: &[u32], b: &[u32]) -> f64 {
    let n = a.len().min(b.len());
    let of = |labels: &[u32]| entropy(labels[..n].iter().map(|&x| u64::from(x)));
    let (own, other) = (of(a), of(b));
    let joint = entropy(a.iter().zip(b).map(|(&x, &y)| u64::from(x) << 32 | u64::from(y)));
    if own + other <= 0.0 { 1.0 } else { (2.0 * (own + other - joint) / (own + other)).clamp(0.0, 1.0) }
}

/// Share of points that have the commonest `truth` of their cluster, in (0, 1]; 1 of no points.
/// Rises with the number of clusters. O(n log n).
pub fn purity(clusters: &[u32], truth: &[u32]) -> f64 {
    let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    clusters.iter().zip(truth).for_each(|(&c, &t)| *counts.entry((c, t)).or_default() += 1);
    let mut best: BTreeMap<u32, u64> = BTreeMap::new();
    for (&(cluster, _), &count) in &counts {
        let most = best.entry(cluster).or_default();
        *most = count.max(*most);
    }
    let n = clusters.len().min(truth.len());
    if n == 0 { 1.0 } else { best.values().sum::<u64>() as f64 / n as f64 }
}

/// Entropy of labels, in nats.
fn entropy(labels: impl Iterator<Item = u64>) -> f64 {
    let mut counts: BTreeMap<u64, f64> = BTreeMap::new();
    labels.for_each(|label| *counts.entry(label).or_default() += 1.0);
    let total: f64 = counts.values().sum();
    counts.values().map(|n| -n / total * (n / total).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs() {
        let brute = |high: &[f32], low: &[f32]| -> f64 {
            let pairs = high.iter().flat_map(|h| low.iter().map(move |l| (h, l)));
            let won: f64 = pairs
                .map(|(h, l)| {
                    if h > l {
                        1.0
                    } else if h == l {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum();
            won / (high.len() * low.len()) as f64
        };
        let (high, low) = ([3.0, 1.0, 2.0, 2.0, -5.0], [2.0, 0.5, 1.0, -7.0]);
        assert!((auc(&high, &low) - brute(&high, &low)).abs() < 1e-12);
        assert_eq!((auc(&[1.0], &[0.0]), auc(&[0.0], &[1.0]), auc(&[1.0], &[1.0])), (1.0, 0.0, 0.5));
        assert_eq!((auc(&[], &[1.0]), auc(&[f32::NAN], &[0.0])), (0.5, 0.0));
    }

    #[test]
    fn nmi_by_hand() {
        assert!((nmi(&[0, 0, 1, 1], &[5, 5, 3, 3]) - 1.0).abs() < 1e-12);
        assert!(nmi(&[0, 0, 1, 1], &[0, 1, 0, 1]).abs() < 1e-12);
        // H(a) = ln 2, H(b) = 1.5 ln 2, H(a, b) = 1.5 ln 2: 2 ln 2 / (2.5 ln 2).
        assert!((nmi(&[0, 0, 1, 1], &[0, 0, 1, 2]) - 0.8).abs() < 1e-12);
        assert_eq!(nmi(&[1, 1], &[2, 2]), 1.0);
    }

    #[test]
    fn purity_by_hand() {
        assert_eq!(purity(&[0, 0, 0, 1], &[7, 7, 8, 9]), 0.75);
        assert_eq!(purity(&[0, 1, 2], &[4, 4, 4]), 1.0);
        assert_eq!(purity(&[], &[]), 1.0);
    }
}
