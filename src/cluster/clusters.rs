//! What `clusters.safetensors` holds: everything that `fit` learns about a corpus.

use ndarray::{Array2, ArrayView2, Axis, s};

use crate::cluster::alignment::AlignmentTable;
use crate::cluster::discriminant::Discriminant;
use crate::cluster::raw_index::RawIndex;
use crate::cluster::worth::GateWorth;
use crate::error::{Error, Result};

/// Steps of [`Clusters::gated`]: shares are kept for gates in steps of 5%.
pub const GATE_STEPS: usize = 20;

/// Rows of one matrix product of [`Clusters::nearest`].
const BLOCK: usize = 1024;

/// Clusters of a corpus in the space of bag-of-codes signatures, in similarity order.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// Inverse document frequency of each code, `[codes]`.
    pub idf: Vec<f32>,
    /// L2-normalised centroids, `[clusters, codes]`, similar ones next to each other.
    pub centroids: Array2<f32>,
    /// Run of each cluster, `[clusters]`, non-decreasing from 0; runs have about equal shares.
    pub runs: Vec<u32>,
    /// Share of the corpus in each cluster, `[clusters]`; sums to 1.
    pub shares: Vec<f64>,
    /// `gated[[c, i]]`: share of the corpus that is in cluster `c` and has an alignment quantile of at
    /// least `i / GATE_STEPS`, `[clusters, GATE_STEPS]`; column 0 equals `shares`.
    pub gated: Array2<f64>,
    /// Maps a raw alignment to its quantile.
    pub alignment: AlignmentTable,
    /// Number of sampled points that all of this was measured on.
    pub points: u64,
    /// How images find their cluster where that is not by signature: the ablation of
    /// [`raw_index`](crate::cluster::raw_index).
    pub raw_index: Option<RawIndex>,
    /// What tells images apart, where the fit saw enough of them.
    pub discriminant: Option<Discriminant>,
    /// What a gate by this captioner's alignment is worth, where it was measured. No signal depends on it, and no
    /// fingerprint.
    pub worth: Option<GateWorth>,
    /// What the captioner was trained on, where that is known: [marks](crate::Shard::marks) of the shards, ascending.
    /// No part of the fingerprint either.
    pub trained_on: Vec<u64>,
}

impl Clusters {
    /// Its file in a captioner directory.
    pub const FILE: &str = "clusters.safetensors";

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is no cluster.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of runs.
    pub fn run_count(&self) -> usize {
        self.runs.last().map_or(0, |&run| run as usize + 1)
    }

    /// Share of the corpus that a gate of `gate` in [0, 1] lets through, as measured at fit time.
    ///
    /// About `gate`; not exactly, where many scores are equal. Linear between the steps of
    /// [`Clusters::gated`]. O(clusters).
    pub fn pass_rate(&self, gate: f64) -> f64 {
        between_steps(gate, |step| match step {
            0 => 1.0,
            GATE_STEPS.. => 0.0,
            _ => self.gated.column(step).sum(),
        })
    }

    /// Share of the corpus that is in each cluster and passes a gate of `gate` in [0, 1], `[clusters]`.
    /// As [`pass_rate`](Self::pass_rate), whose parts these are. O(clusters).
    pub fn passing(&self, gate: f64) -> Vec<f64> {
        let of = |cluster: usize| {
            between_steps(gate, |step| match step {
                0 => self.shares[cluster],
                GATE_STEPS.. => 0.0,
                _ => self.gated[[cluster, step]],
            })
        };
        (0..self.len()).map(of).collect()
    }

    /// The gate of the whole corpus, in [0, 1], that lets the share `gate` of one cluster through: where
    /// the cluster's own curve of [`Clusters::gated`] reaches it, linear between its steps. `gate`
    /// itself for a cluster in which the fit saw nothing. O(1).
    pub fn gate_of(&self, cluster: usize, gate: f64) -> f64 {
        let share = self.shares.get(cluster).copied().unwrap_or(0.0);
        if share <= 0.0 || gate >= 1.0 {
            return gate.min(1.0);
        }
        let wanted = gate.max(0.0) * share;
        let at = |step: usize| match step {
            0 => share,
            GATE_STEPS.. => 0.0,
            _ => self.gated[[cluster, step]],
        };
        // The first step at which no more than what is wanted passes; the one before passes more.
        let step = (1..=GATE_STEPS).find(|&step| at(step) <= wanted).unwrap_or(GATE_STEPS);
        let (above, below) = (at(step - 1), at(step));
        let part = if above > below { (above - wanted) / (above - below) } else { 1.0 };
        1.0 - (step as f64 - 1.0 + part.clamp(0.0, 1.0)) / GATE_STEPS as f64
    }

    /// Nearest centroid of each signature, `[points, codes]` to `[points]`; the lowest index wins
    /// ties. The plain reference for whatever runs on a device. O(points * clusters * codes), as
    /// matrix products.
    ///
    /// # Errors
    /// Signatures of another length than the centroids.
    pub fn nearest(&self, signatures: ArrayView2<'_, f32>) -> Result<Vec<u32>> {
        if signatures.ncols() != self.centroids.ncols() {
            let expected = format!("[points, {}]", self.centroids.ncols());
            return Err(Error::format("signatures", expected, format!("{:?}", signatures.dim())));
        }
        let mut nearest = Vec::with_capacity(signatures.nrows());
        for start in (0..signatures.nrows()).step_by(BLOCK) {
            let end = (start + BLOCK).min(signatures.nrows());
            let scores = signatures.slice(s![start..end, ..]).dot(&self.centroids.t());
            for row in scores.axis_iter(Axis(0)) {
                let mut best = (0, f32::NEG_INFINITY);
                for (cluster, &score) in row.iter().enumerate() {
                    if score > best.1 {
                        best = (cluster as u32, score);
                    }
                }
                nearest.push(best.0);
            }
        }
        Ok(nearest)
    }
}

/// What passes a gate of `gate`, linear between the steps, of which `passing` tells.
fn between_steps(gate: f64, passing: impl Fn(usize) -> f64) -> f64 {
    let place = (1.0 - gate.clamp(0.0, 1.0)) * GATE_STEPS as f64;
    // A gate that is a step (0.45, say) must find its own column: snap away f64 noise.
    let snapped = if (place - place.round()).abs() < 1e-6 { place.round() } else { place };
    let step = snapped as usize;
    let part = snapped - step as f64;
    if part == 0.0 { passing(step) } else { passing(step) * (1.0 - part) + passing(step + 1) * part }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ndarray::{Array2, arr2, array};

    use super::*;
    use crate::cluster::alignment::{AlignmentNorm, RawAlignment};

    fn example() -> Clusters {
        // Column sums: 1 at step 0, then (20 - i) / 20 but for step 10, where an atom adds 0.1.
        let gated = Array2::from_shape_fn((2, GATE_STEPS), |(_, i)| {
            (1.0 - i as f64 / 20.0 + if i == 10 { 0.05 } else { 0.0 }) / 2.0
        });
        let points: [RawAlignment; 0] = [];
        Clusters {
            idf: vec![1.0; 2],
            centroids: arr2(&[[1.0, 0.0], [0.0, 1.0]]),
            runs: vec![0, 1],
            shares: vec![0.5; 2],
            gated,
            alignment: AlignmentTable::fit(AlignmentNorm::Sum, &points, 2),
            points: 0,
            raw_index: None,
            discriminant: None,
            worth: None,
            trained_on: vec![],
        }
    }

    #[test]
    fn pass_rates_are_the_measured_ones() {
        let clusters = example();
        assert_eq!(clusters.pass_rate(1.0), 1.0);
        assert!((clusters.pass_rate(0.5) - 0.55).abs() < 1e-12);
        assert!((clusters.pass_rate(0.45) - 0.45).abs() < 1e-12);
        assert!((clusters.pass_rate(0.475) - 0.5).abs() < 1e-12, "half way between 0.45 and 0.55");
        assert!((clusters.pass_rate(0.02) - 0.02).abs() < 1e-12);
        assert_eq!(clusters.pass_rate(0.0), 0.0);
    }

    #[test]
    fn the_gate_of_a_cluster_passes_its_share() {
        // One cluster better aligned than the other: at a quantile q, 1 - q² and 1 - q (2 - q) pass.
        let mut clusters = example();
        let pass = |c: usize, i: usize| {
            let q = i as f64 / GATE_STEPS as f64;
            if c == 0 { 1.0 - q * q } else { 1.0 - q * (2.0 - q) }
        };
        clusters.gated = Array2::from_shape_fn((2, GATE_STEPS), |(c, i)| pass(c, i) / 2.0);
        for gate in [0.01, 0.1, 0.333, 0.5, 0.77, 0.95, 1.0] {
            let [good, bad] = [0, 1].map(|c| 1.0 - clusters.gate_of(c, gate));
            // Linear between steps of 0.05, of curves whose second derivative is 2: off by 2 * 0.05² / 8.
            assert!((1.0 - good * good - gate).abs() < 7e-4, "{gate}: {good}");
            assert!((1.0 - bad * (2.0 - bad) - gate).abs() < 7e-4, "{gate}: {bad}");
        }
        clusters.shares[1] = 0.0;
        assert_eq!(clusters.gate_of(1, 0.3), 0.3, "nothing is known of it");
        assert_eq!((clusters.gate_of(9, 0.3), clusters.gate_of(0, 0.0)), (0.3, 0.0));
    }

    #[test]
    fn nearest_is_by_cosine_and_ties_go_low() {
        let clusters = example();
        let signatures = array![[0.1, 0.2], [0.2, 0.1], [0.5, 0.5], [f32::NAN, 0.0]];
        assert_eq!(clusters.nearest(signatures.view()).unwrap(), [1, 0, 0, 0]);
        let many = Array2::from_shape_fn((3 * BLOCK + 5, 2), |(i, d)| f32::from(u8::from(d == i % 2)));
        let expected: Vec<u32> = (0..3 * BLOCK as u32 + 5).map(|i| i % 2).collect();
        assert_eq!(clusters.nearest(many.view()).unwrap(), expected);
        assert!(clusters.nearest(Array2::zeros((1, 3)).view()).is_err());
    }
}
