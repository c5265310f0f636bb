//! Quantiles of the alignment score, so that a gate of 0.5 means "the better half".
//!
//! The raw score is a sum of log-likelihood ratios and prefers long captions and rare classes.
//! Matched quantiles compare a caption only with captions of similar length in similar clusters.

use ndarray::Array3;

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
    /// Group of each run, `[runs]`.
    pub run_groups: Vec<u32>,
    /// Score at evenly spaced quantiles 0..=1, `[length bins, run groups, knots]`.
    pub knots: Array3<f32>,
}
