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

/// Area under the ROC curve of pairs, and its standard error: `own[i]` and `swapped[i]` are scores of one subject (the
/// same image with its own caption and with another's). (0.5, 0.5) of fewer than two subjects. O(n log n).
///
/// With V_i the share of `swapped` that `own[i]` is above and W_i the share of `own` that is above `swapped[i]` (ties
/// count half), AUC is the mean of V, and
///
/// SE² = sum over i of (V_i + W_i - 2 AUC)² / (n (n - 1)),
///
/// the variance for clustered data (Obuchowski 1997, Biometrics 53, 567-578) where each cluster has one score of either
/// kind. Of independent scores it is that of DeLong, DeLong and Clarke-Pearson (1988); the two scores of an image are
/// not independent, and treating them so would be wrong by what they have in common. It is 1 / (2 n) at least, a
/// subject's weight: n subjects that are told apart without a mistake are no proof that there is none.
pub fn paired_auc(own: &[f32], swapped: &[f32]) -> (f64, f64) {
    let n = own.len().min(swapped.len());
    if n < 2 {
        return (0.5, 0.5);
    }
    let number = |x: &f32| if x.is_nan() { f32::NEG_INFINITY } else { *x };
    let sorted = |scores: &[f32]| {
        let mut scores: Vec<f32> = scores[..n].iter().map(number).collect();
        scores.sort_unstable_by(f32::total_cmp);
        scores
    };
    let (sorted_own, sorted_swapped) = (sorted(own), sorted(swapped));
    // Share of `sorted` below `x`.
    let below = |sorted: &[f32], x: f32| {
        (sorted.partition_point(|&y| y < x) + sorted.partition_point(|&y| y <= x)) as f64 / (2 * n) as f64
    };
    let placed =
        |i: usize| (below(&sorted_swapped, number(&own[i])), 1.0 - below(&sorted_own, number(&swapped[i])));
    let area = (0..n).map(|i| placed(i).0).sum::<f64>() / n as f64;
    let squares: f64 = (0..n).map(placed).map(|(v, w)| (v + w - 2.0 * area).powi(2)).sum();
    let error = (squares / (n as f64 * (n - 1) as f64)).sqrt();
    (area, error.max(0.5 / n as f64))
}

/// Normalised mutual information of two labellings of the same points, in [0, 1], by the arithmetic
/// mean of their entropies (as scikit-learn). 1 where neither tells anything apart. What one has more
/// than the other is skipped. O(n log n).
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
    use crate::hash::{Purpose, Rng};

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

    /// Scores of images: what an image and a caption have in common, what is the image's own, and `skill`.
    fn scores(n: usize, seed: u64, shared: f64, skill: f64) -> (Vec<f32>, Vec<f32>) {
        let mut rng = Rng::new(seed, Purpose::Synth, 31);
        let mut own = vec![];
        let mut swapped = vec![];
        for _ in 0..n {
            let image = shared * rng.normal();
            own.push((image + rng.normal() + skill) as f32);
            swapped.push((image + rng.normal()) as f32);
        }
        (own, swapped)
    }

    #[test]
    fn the_error_of_an_auc_is_how_far_it_scatters() {
        // 400 samples of 150 subjects: the standard deviation of a standard deviation is 1 / sqrt(800), 3.5%; the
        // bound is four of these.
        for (shared, skill) in [(0.0, 0.0), (0.0, 1.0), (2.0, 0.0), (2.0, 0.8)] {
            let samples = 400u64;
            let found: Vec<(f64, f64)> = (0..samples)
                .map(|seed| {
                    let (own, swapped) = scores(150, seed, shared, skill);
                    paired_auc(&own, &swapped)
                })
                .collect();
            let mean = |of: fn(&(f64, f64)) -> f64| found.iter().map(of).sum::<f64>() / samples as f64;
            let centre = mean(|x| x.0);
            let scatter =
                (found.iter().map(|x| (x.0 - centre).powi(2)).sum::<f64>() / (samples - 1) as f64).sqrt();
            let said = mean(|x| x.1);
            assert!((said / scatter - 1.0).abs() < 0.14, "{shared} {skill}: {said} for {scatter}");
        }
    }

    #[test]
    fn a_paired_auc_is_the_auc_and_its_error_that_of_hanley_and_mcneil_where_scores_are_independent() {
        let (own, swapped) = scores(3000, 5, 0.0, 1.0);
        let (area, error) = paired_auc(&own, &swapped);
        assert!((area - auc(&own, &swapped)).abs() < 1e-12);
        // Hanley and McNeil 1982, Radiology 143: of equal numbers of either kind, n.
        let n = 3000.0;
        let (q1, q2) = (area / (2.0 - area), 2.0 * area * area / (1.0 + area));
        let known = ((area * (1.0 - area) + (n - 1.0) * (q1 + q2 - 2.0 * area * area)) / (n * n)).sqrt();
        assert!((error / known - 1.0).abs() < 0.05, "{error} for {known}");
        // Nothing of the image in it, or nothing of the caption: chance, whatever the scores.
        assert!((paired_auc(&own, &own).0 - 0.5).abs() < 1e-9);
        assert_eq!(paired_auc(&[2.0, 3.0, 4.0, 5.0], &[1.0, 0.0, -1.0, f32::NAN]), (1.0, 0.125));
        assert_eq!(paired_auc(&[1.0], &[0.0]), (0.5, 0.5));
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
