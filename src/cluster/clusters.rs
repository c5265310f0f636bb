//! What `clusters.safetensors` holds: everything that `fit` learns about a corpus.

use ndarray::Array2;

use crate::cluster::alignment::AlignmentTable;

/// Steps of [`Clusters::gated`]: shares are kept for gates in steps of 5%.
pub const GATE_STEPS: usize = 20;

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
}
