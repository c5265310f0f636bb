//! A model that embeds and aligns, made a scorer by what a fit learned of a corpus.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView4, Axis};

use crate::cluster::{Clusters, RawAlignment};
use crate::error::{Error, Result};
use crate::hash::{self, Purpose, Rng};
use crate::model::{
    Embedder, PreviewFilter, RawScores, Recaptioner, SEMANTIC_HASH_BITS, Scorer, SemanticHash, Signals,
};

/// A model with the clusters that were fitted with it.
pub struct Fitted<M> {
    model: M,
    clusters: Arc<Clusters>,
    /// What all pictures have in common: the mean of the centroids by their shares, `[dim]`.
    mean: Array1<f32>,
    /// Random directions of the semantic hash, `[dim, 256]`.
    directions: Array2<f32>,
    fingerprint: u64,
}

impl<M: Embedder> Fitted<M> {
    /// `clusters` are those of a fit of this model.
    pub fn new(model: M, clusters: Arc<Clusters>) -> Self {
        let dim = clusters.centroids.ncols();
        let shares: Array1<f32> = clusters.shares.iter().map(|&share| share as f32).collect();
        let filter = hash::hash_str(model.preview_filter().name());
        let parts = [model.fingerprint(), clusters.fingerprint(), model.preview_size() as u64, filter];
        let mut rng = Rng::new(0, Purpose::SemanticHash, dim as u64);
        Self {
            mean: shares.dot(&clusters.centroids),
            directions: Array2::from_shape_simple_fn((dim, SEMANTIC_HASH_BITS), || rng.normal() as f32),
            fingerprint: hash::combine(&parts),
            model,
            clusters,
        }
    }

    /// What the fit learned.
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// The model.
    pub fn model(&mut self) -> &mut M {
        &mut self.model
    }

    /// Signals of what the model says of pairs with these `captions`: embeddings of unit length, the nearest
    /// centroid where it names no cluster, alignment as a quantile.
    fn signals_of(&self, raw: RawScores, captions: &[&str]) -> Result<Signals> {
        let (rows, dim) = (captions.len(), self.clusters.centroids.ncols());
        if raw.embedding.dim() != (rows, dim) {
            let expected = format!("[{rows}, {dim}], as the fit has it");
            return Err(wrong("embedding", &expected, format!("{:?}", raw.embedding.dim())));
        }
        if raw.alignment.len() != rows {
            return Err(wrong("alignment", &format!("[{rows}]"), format!("[{}]", raw.alignment.len())));
        }
        let (mut embedding, mut raw_alignment) = (raw.embedding, raw.alignment);
        for (row, mut values) in embedding.axis_iter_mut(Axis(0)).enumerate() {
            if captions[row].is_empty() {
                // A row that is not used: a mean over no words is no number.
                values.fill(0.0);
                raw_alignment[row] = 0.0;
                continue;
            }
            let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
            if !(length.is_finite() && raw_alignment[row].is_finite()) {
                return Err(wrong(
                    "embedding and alignment",
                    "finite numbers",
                    format!("NaN or infinity in row {row}"),
                ));
            }
            if length > 0.0 {
                values.mapv_inplace(|v| v / length);
            }
        }
        let cluster = match raw.cluster {
            None => self.clusters.nearest(embedding.view())?,
            Some(cluster) if cluster.len() == rows => cluster,
            Some(cluster) => {
                return Err(wrong("cluster", &format!("[{rows}]"), format!("[{}]", cluster.len())));
            }
        };
        if let Some(beyond) = cluster.iter().find(|&&cluster| cluster as usize >= self.clusters.len()) {
            return Err(wrong("cluster", &format!("numbers below {}", self.clusters.len()), beyond));
        }
        let quantile = |row: usize| {
            self.clusters.alignment.quantile(RawAlignment {
                sum: raw_alignment[row],
                tokens: words(captions[row]),
                run: self.clusters.runs[cluster[row] as usize],
            })
        };
        let alignment = (0..rows).map(quantile).collect();
        let semantic_hash = self.hashes(&embedding);
        Ok(Signals { cluster, alignment, embedding, semantic_hash })
    }

    /// Signs of random projections of what tells each picture from the mean one.
    fn hashes(&self, embedding: &Array2<f32>) -> Vec<SemanticHash> {
        let projected = (embedding - &self.mean).dot(&self.directions);
        let words = |row: ndarray::ArrayView1<'_, f32>| {
            let mut hash = SemanticHash::default();
            for (bit, value) in row.iter().enumerate() {
                hash[bit / 64] |= u64::from(*value > 0.0) << (bit % 64);
            }
            hash
        };
        projected.outer_iter().map(words).collect()
    }
}

/// Words of a caption: what captions of one length are compared by.
pub(crate) fn words(caption: &str) -> u32 {
    u32::try_from(caption.split_whitespace().count()).unwrap_or(u32::MAX)
}

fn wrong(what: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::format(format!("{what} that the scorer returned"), expected, found)
}

impl<M: Embedder> Scorer for Fitted<M> {
    fn dim(&self) -> usize {
        self.clusters.centroids.ncols()
    }

    fn preview_size(&self) -> usize {
        self.model.preview_size()
    }

    fn preview_filter(&self) -> PreviewFilter {
        self.model.preview_filter()
    }

    fn batch_size(&self) -> usize {
        self.model.batch_size()
    }

    fn clusters(&self) -> usize {
        self.clusters.len()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn compute(&self) -> String {
        self.model.compute()
    }

    fn is_exact(&self) -> bool {
        self.model.is_exact()
    }

    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        let raw = self.model.score(previews, captions)?;
        self.signals_of(raw, captions)
    }

    fn expect(&mut self, next: ArrayView4<'_, u8>) -> Result<()> {
        self.model.expect(next)
    }

    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        self.model.recaptioner()
    }
}
