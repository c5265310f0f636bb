//! A stream of windows with Zipf clusters, for the tests and benches of selection.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;

use ndarray::Array2;
use tldr_loader::cluster::order::runs;
use tldr_loader::cluster::{AlignmentNorm, AlignmentTable, Clusters, GATE_STEPS};
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::model::Signals;
use tldr_loader::select::Window;
use tldr_loader::{FailReason, SampleId};

/// What a [`Window`] borrows.
#[derive(Debug, Clone)]
pub struct Held {
    pub id: u64,
    pub ids: Vec<SampleId>,
    pub failed: Vec<Option<FailReason>>,
    pub caption_chars: Vec<u32>,
    pub signals: Signals,
}

impl Held {
    pub fn window(&self) -> Window<'_> {
        Window {
            id: self.id,
            ids: &self.ids,
            failed: &self.failed,
            caption_chars: &self.caption_chars,
            signals: Some(&self.signals),
            judged: None,
            scores: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Stream {
    pub clusters: Arc<Clusters>,
    pub windows: Vec<Held>,
}

/// Clusters whose shares follow Zipf's law, large and small mixed along the line, in about 64
/// runs; alignments are taken to be uniform in each.
pub fn zipf_clusters(count: usize) -> Clusters {
    let mut shares: Vec<f64> = (1..=count).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= total);
    Rng::new(1, Purpose::Synth, 0).shuffle(&mut shares);
    let runs = runs(&shares, 64);
    let run_count = runs.last().map_or(0, |&run| run as usize + 1);
    Clusters {
        idf: vec![1.0],
        centroids: Array2::ones((count, 1)),
        gated: Array2::from_shape_fn((count, GATE_STEPS), |(c, i)| {
            shares[c] * (1.0 - i as f64 / GATE_STEPS as f64)
        }),
        alignment: AlignmentTable::fit(AlignmentNorm::Sum, &[], run_count),
        points: 100 * count as u64,
        raw_index: None,
        discriminant: None,
        worth: None,
        trained_on: vec![],
        runs,
        shares,
    }
}

/// `windows` windows of `n` samples, each unusable with probability `faulty`, with embeddings of
/// `dim` dimensions.
pub fn stream(clusters: usize, windows: usize, n: usize, faulty: f64, dim: usize) -> Stream {
    let clusters = Arc::new(zipf_clusters(clusters));
    let mut rng = Rng::new(2, Purpose::Synth, 0);
    let cumulative: Vec<f64> = clusters
        .shares
        .iter()
        .scan(0.0, |sum, share| {
            *sum += share;
            Some(*sum)
        })
        .collect();
    let windows = (0..windows as u64).map(|index| {
        let mut embedding = Array2::from_shape_fn((n, dim), |_| rng.normal() as f32);
        for mut row in embedding.outer_iter_mut() {
            let norm = row.dot(&row).sqrt();
            row.mapv_inplace(|v| v / norm);
        }
        let cluster = |u: f64| cumulative.partition_point(|&c| c <= u).min(clusters.len() - 1) as u32;
        Held {
            id: hash::combine(&[77, index]),
            ids: (0..n).map(|_| SampleId(rng.next_u64())).collect(),
            failed: (0..n).map(|_| (rng.unit() < faulty).then_some(FailReason::UndecodableImage)).collect(),
            caption_chars: (0..n).map(|_| 10 + rng.below(90) as u32).collect(),
            signals: Signals {
                cluster: (0..n).map(|_| cluster(rng.unit())).collect(),
                alignment: (0..n).map(|_| rng.unit() as f32).collect(),
                embedding,
                semantic_hash: vec![[0; 4]; n],
            },
        }
    });
    let windows = windows.collect();
    Stream { clusters, windows }
}
