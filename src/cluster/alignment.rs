//! Quantiles of the alignment score, so that a gate of 0.5 means "the better half".
//!
//! The raw score is a sum of log-likelihood ratios and prefers long captions and rare classes.
//! Matched quantiles compare a caption only with captions of similar length in similar clusters,
//! which takes both tastes away. The price: every cell of that comparison passes the same share,
//! so a cell in which most captions are bad ("photo 0123.jpg" is always four tokens) still passes
//! its better half, and a cell of good ones loses its worse half. `Matched` is right where
//! quality does not depend on length; where it does, `Mean` or a filter on the caption's text
//! serves better. [`fit`](crate::cluster::fit()) prints the pass rates that show which it is.

use ndarray::{Array3, s};

/// How raw scores are made comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlignmentNorm {
    /// The sum over tokens as it is: one distribution for all.
    Sum,
    /// The mean over tokens: one distribution for all.
    Mean,
    /// The sum, compared within bins of caption length and groups of neighbouring runs.
    Matched,
}

crate::names!(AlignmentNorm { Sum => "sum", Mean => "mean", Matched => "matched" }, option "alignment_norm");

/// The raw alignment of one pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawAlignment {
    /// Sum over caption tokens of log p(token | image) - log p(token | no image), in nats.
    pub sum: f32,
    /// Caption tokens that were scored.
    pub tokens: u32,
    /// Run of the sample's cluster.
    pub run: u32,
}

/// Distribution of raw alignments, measured at fit time.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignmentTable {
    /// Normalisation in force.
    pub norm: AlignmentNorm,
    /// Upper edges (exclusive, in tokens) of all length bins but the last, ascending.
    pub length_edges: Vec<u32>,
    /// Group of each run, `[runs]`, non-decreasing from 0.
    pub run_groups: Vec<u32>,
    /// Score at evenly spaced quantiles 0..=1, `[length bins, run groups, knots]`.
    pub knots: Array3<f32>,
}

/// Knots of a fitted table: one per percent, so that every gate in percents is a knot.
pub const KNOTS: usize = 101;

/// Points a (length bin, run group) cell has at least: its median is then within 0.035 quantiles
/// (one standard deviation, 0.5 / sqrt(200)) of the true one.
pub const CELL_POINTS: usize = 200;

/// Most length bins of a matched table: captions have 4 to 30 tokens, mostly.
const MAX_LENGTH_BINS: usize = 12;

impl AlignmentTable {
    /// Measures the distribution on `points`, whose runs are below `runs`. O(n log n).
    ///
    /// `Matched` starts from bins of caption length of about equal size (at most 12, and few enough
    /// to leave half as many run groups: length is the stronger taste), then merges neighbouring
    /// runs until each cell has [`CELL_POINTS`] points. Below that number of points in all, there is one cell. Points
    /// with a score that is not finite are skipped; without any other, every quantile of a
    /// positive score is 1 and of a negative one 0.
    pub fn fit(norm: AlignmentNorm, points: &[RawAlignment], runs: usize) -> Self {
        let points: Vec<RawAlignment> = points.iter().copied().filter(|p| p.sum.is_finite()).collect();
        let length_edges = match norm {
            AlignmentNorm::Matched => {
                let cells = points.len() / CELL_POINTS;
                let lengths: Vec<u32> = points.iter().map(|p| p.tokens).collect();
                length_edges(&lengths, (2 * cells).isqrt().min(MAX_LENGTH_BINS), CELL_POINTS)
            }
            AlignmentNorm::Sum | AlignmentNorm::Mean => Vec::new(),
        };
        let bins = length_edges.len() + 1;
        let mut counts = vec![vec![0usize; bins]; runs.max(1)];
        for p in &points {
            if let Some(run) = counts.get_mut(p.run as usize) {
                run[length_bin(&length_edges, p.tokens)] += 1;
            }
        }
        let run_groups = match norm {
            AlignmentNorm::Matched => group_runs(&counts),
            AlignmentNorm::Sum | AlignmentNorm::Mean => vec![0; counts.len()],
        };
        let groups = run_groups.last().map_or(1, |&g| g as usize + 1);
        let mut table = Self { norm, length_edges, run_groups, knots: Array3::zeros((bins, groups, KNOTS)) };
        let mut scores = vec![Vec::new(); bins * groups];
        for p in &points {
            let (bin, group) = table.cell(p);
            scores[bin * groups + group].push(table.score(p));
        }
        for (cell, scores) in scores.iter_mut().enumerate() {
            scores.sort_unstable_by(f32::total_cmp);
            for k in 0..KNOTS {
                table.knots[[cell / groups, cell % groups, k]] = order_statistic(scores, k);
            }
        }
        table
    }

    /// Share of the fitted points that align worse than `raw`, in [0, 1]: a gate `g` passes
    /// quantiles of at least `1 - g`.
    ///
    /// Linear between knots and non-decreasing in `raw.sum`. Equal scores cannot be told apart, so
    /// they pass or fail together; they get the middle of their stretch of quantiles, which passes
    /// them where more than half of them ought to pass. A score that is not a number has
    /// quantile 0. O(log knots).
    pub fn quantile(&self, raw: RawAlignment) -> f32 {
        let (bin, group) = self.cell(&raw);
        let score = self.score(&raw);
        let (bins, groups, knots) = self.knots.dim();
        if score.is_nan() || bin >= bins || group >= groups || knots < 2 {
            return 0.0;
        }
        let row = self.knots.slice(s![bin, group, ..]);
        let below = partition_point(knots, |k| row[k] < score);
        let not_above = partition_point(knots, |k| row[k] <= score);
        let place = if below < not_above {
            (below + not_above - 1) as f32 / 2.0
        } else if below == 0 {
            0.0
        } else if below == knots {
            (knots - 1) as f32
        } else {
            let (low, high) = (row[below - 1], row[below]);
            (below - 1) as f32 + (score - low) / (high - low)
        };
        (place / (knots - 1) as f32).clamp(0.0, 1.0)
    }

    /// The number that is compared within a cell.
    fn score(&self, raw: &RawAlignment) -> f32 {
        match self.norm {
            AlignmentNorm::Sum | AlignmentNorm::Matched => raw.sum,
            AlignmentNorm::Mean => raw.sum / raw.tokens.max(1) as f32,
        }
    }

    /// Length bin and run group; runs beyond the fitted ones count as the last.
    fn cell(&self, raw: &RawAlignment) -> (usize, usize) {
        let run = (raw.run as usize).min(self.run_groups.len().saturating_sub(1));
        let group = self.run_groups.get(run).map_or(0, |&g| g as usize);
        (length_bin(&self.length_edges, raw.tokens), group)
    }
}

/// Index of the bin that holds `length`; `edges` are exclusive upper edges.
pub(crate) fn length_bin(edges: &[u32], length: u32) -> usize {
    edges.partition_point(|&edge| edge <= length)
}

/// Exclusive upper edges of at most `bins` bins of about equal size, each of at least `least`
/// lengths; one edge fewer than bins. Equal lengths are never split.
pub(crate) fn length_edges(lengths: &[u32], bins: usize, least: usize) -> Vec<u32> {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let mut edges = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for equal in sorted.chunk_by(|a, b| a == b) {
        let bins_left = bins.saturating_sub(edges.len()).max(1);
        let target = ((sorted.len() - start) / bins_left).max(least);
        if bins_left > 1 && end - start >= target && sorted.len() - end >= least {
            edges.push(equal[0]);
            start = end;
        }
        end += equal.len();
    }
    edges
}

/// Groups neighbouring runs so that every length bin of a group has [`CELL_POINTS`] points, where
/// there are that many in all; `counts` is `[runs][length bins]`.
fn group_runs(counts: &[Vec<usize>]) -> Vec<u32> {
    let bins = counts.first().map_or(0, Vec::len);
    let enough = |cells: &[usize]| cells.iter().all(|&n| n >= CELL_POINTS);
    let mut rest = vec![0; bins];
    for run in counts {
        rest.iter_mut().zip(run).for_each(|(sum, n)| *sum += n);
    }
    let mut groups = Vec::with_capacity(counts.len());
    let mut group = 0;
    let mut cells = vec![0; bins];
    for run in counts {
        // Close the group only where what follows can fill one too.
        if enough(&cells) && enough(&rest) {
            group += 1;
            cells.fill(0);
        }
        cells.iter_mut().zip(run).for_each(|(sum, n)| *sum += n);
        rest.iter_mut().zip(run).for_each(|(sum, n)| *sum -= n);
        groups.push(group);
    }
    groups
}

/// Score at quantile `k / (KNOTS - 1)` of ascending `scores`, linear between order statistics.
fn order_statistic(scores: &[f32], k: usize) -> f32 {
    let Some(last) = scores.len().checked_sub(1) else { return 0.0 };
    let place = k as f64 / (KNOTS - 1) as f64 * last as f64;
    let low = (place as usize).min(last);
    let high = (low + 1).min(last);
    let (a, b) = (f64::from(scores[low]), f64::from(scores[high]));
    // Clamped: rounding must not leave the knots out of order.
    ((a + (b - a) * (place - low as f64)) as f32).clamp(scores[low], scores[high])
}

/// First of `0..n` at which `holds` is false; `holds` is true, then false.
fn partition_point(n: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = (low + high) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Whether a sample of this quantile passes a gate: the one place that compares the two.
pub fn passes_gate(quantile: f32, gate: f64) -> bool {
    // In f32, where 1 - 0.45 and a quantile of 0.55 are the same number.
    quantile >= (1.0 - gate) as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash::{Purpose, Rng};

    fn raw(sum: f32, tokens: u32, run: u32) -> RawAlignment {
        RawAlignment { sum, tokens, run }
    }

    /// Long captions and high runs score higher; quality itself is the noise.
    fn biased_points(n: usize) -> Vec<RawAlignment> {
        let mut rng = Rng::new(3, Purpose::Fit, 0);
        let points = (0..n).map(|_| {
            let (tokens, run) = (4 + rng.below(12) as u32, rng.below(16) as u32);
            raw((rng.normal() + 0.4 * f64::from(tokens) + 0.2 * f64::from(run)) as f32, tokens, run)
        });
        points.collect()
    }

    fn pass_share<'a>(
        table: &AlignmentTable,
        gate: f64,
        points: impl Iterator<Item = &'a RawAlignment>,
    ) -> f64 {
        let passed: Vec<bool> = points.map(|p| passes_gate(table.quantile(*p), gate)).collect();
        passed.iter().filter(|p| **p).count() as f64 / passed.len() as f64
    }

    #[test]
    fn a_gate_passes_the_share_it_says() {
        let points = biased_points(20_000);
        for norm in [AlignmentNorm::Sum, AlignmentNorm::Mean, AlignmentNorm::Matched] {
            let table = AlignmentTable::fit(norm, &points, 16);
            for gate in [0.05, 0.25, 0.5, 0.77, 1.0] {
                let share = pass_share(&table, gate, points.iter());
                assert!((share - gate).abs() < 0.01, "{norm:?}, gate {gate}: {share}");
            }
        }
    }

    #[test]
    fn matching_takes_the_taste_for_length_and_run_away() {
        let points = biased_points(40_000);
        let spread = |norm, key: fn(&RawAlignment) -> u32| {
            let table = AlignmentTable::fit(norm, &points, 16);
            let rates: Vec<f64> = [(0, 8), (8, 100)]
                .map(|(low, high)| {
                    pass_share(&table, 0.5, points.iter().filter(|p| (low..high).contains(&key(p))))
                })
                .to_vec();
            (rates[1] - rates[0]).abs()
        };
        assert!(spread(AlignmentNorm::Sum, |p| p.tokens) > 0.4);
        assert!(spread(AlignmentNorm::Sum, |p| p.run) > 0.2);
        assert!(spread(AlignmentNorm::Matched, |p| p.tokens) < 0.05);
        assert!(spread(AlignmentNorm::Matched, |p| p.run) < 0.1);
    }

    #[test]
    fn cells_have_enough_points() {
        let mut rng = Rng::new(5, Purpose::Fit, 0);
        for n in [0, 1, 150, 500, 3_000, 30_000] {
            // Skewed: run 0 is common, long captions are rare.
            let points: Vec<RawAlignment> = (0..n)
                .map(|_| raw(0.0, 3 + (rng.unit().powi(3) * 20.0) as u32, (rng.unit().powi(4) * 64.0) as u32))
                .collect();
            let table = AlignmentTable::fit(AlignmentNorm::Matched, &points, 64);
            assert_eq!(table.run_groups.len(), 64);
            let (bins, groups, _) = table.knots.dim();
            let mut counts = vec![0; bins * groups];
            for p in &points {
                let (bin, group) = table.cell(p);
                counts[bin * groups + group] += 1;
            }
            let least = CELL_POINTS.min(n);
            assert!(counts.iter().all(|&count| count >= least), "{n}: {counts:?}");
            assert!(n < 30_000 || (bins > 4 && groups > 2), "{bins} bins, {groups} groups");
        }
    }

    #[test]
    fn quantiles_do_not_decrease() {
        let points = biased_points(5_000);
        let table = AlignmentTable::fit(AlignmentNorm::Matched, &points, 16);
        let quantiles: Vec<f32> = (-100..200).map(|i| table.quantile(raw(i as f32 / 10.0, 7, 3))).collect();
        assert!(quantiles.is_sorted());
        assert_eq!((quantiles[0], quantiles[299]), (0.0, 1.0));
    }

    #[test]
    fn equal_scores_pass_where_most_of_them_ought_to() {
        // 30% at 0, 70% at 1: the upper ones fill quantiles 0.3..1, whose middle is 0.65.
        let points: Vec<RawAlignment> = (0..1000).map(|i| raw(f32::from(u8::from(i >= 300)), 5, 0)).collect();
        let table = AlignmentTable::fit(AlignmentNorm::Sum, &points, 1);
        assert!((table.quantile(raw(0.0, 5, 0)) - 0.15).abs() < 0.01);
        assert!((table.quantile(raw(1.0, 5, 0)) - 0.65).abs() < 0.01);
        assert_eq!(pass_share(&table, 0.5, points.iter()), 0.7);
        assert_eq!(pass_share(&table, 0.3, points.iter()), 0.0);
    }

    #[test]
    fn what_is_not_a_number_never_passes() {
        let table = AlignmentTable::fit(AlignmentNorm::Mean, &[raw(f32::NAN, 1, 9), raw(1.0, 0, 0)], 4);
        assert_eq!(table.quantile(raw(f32::NAN, 3, 0)), 0.0);
        assert_eq!(table.quantile(raw(f32::INFINITY, 3, 99)), 1.0);
        assert!(!passes_gate(f32::NAN, 1.0));
        for step in 0..=20u8 {
            assert!(passes_gate(f32::from(step) / 20.0, 1.0 - f64::from(step) / 20.0), "{step}");
        }
    }
}
