//! Fits a scorer to a corpus: clusters of its embeddings, their order, shares, and alignment as quantiles (TL;DR, section
//! 3.2, with a model's own embeddings in place of bags of codes).
//!
//! Embeddings of the sample are held in memory, 4 bytes a value and 8 more while they are clustered.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array2, ArrayView4, Axis, s};

use crate::cluster::{
    AlignmentNorm, Clusters, EmbeddedPoints, FitOptions, FitReport, Fitted, GateWorth, MeasuredOn,
    Validation, default_clusters, fit_embeddings_by, words,
};
use crate::config::Source;
use crate::error::{Error, Result};
use crate::image::DecodeOptions;
use crate::jobs::corpus::Corpus;
use crate::jobs::sample::SampledBatch;
use crate::model::{Embedder, Identity, RawScores};

/// Points and values of their embeddings that are sampled at most by default: 256 MiB.
const MAX_POINTS: u64 = 300_000;
const MAX_VALUES: u64 = 64 << 20;
/// Pairs that are scored with a swapped caption: at chance the AUC of as many has a standard error of 0.013.
const PAIRS: usize = 1024;

/// What to fit, to what.
#[derive(Debug, Clone)]
pub struct FitScorerJob {
    /// The corpus, and how it is read.
    pub source: Source,
    /// How its images are decoded.
    pub decode: DecodeOptions,
    /// Folder that `clusters.safetensors` and `identity.json` are written into; it is made where it is not there.
    pub out: PathBuf,
    /// Number of clusters; a hundredth of the sampled points, between 8 and 3,000, where `None`.
    pub clusters: Option<usize>,
    /// Points to sample, of those that count; where `None` all, up to 300,000 and 256 MiB of embeddings.
    pub samples: Option<u64>,
    /// How raw alignments are made comparable.
    pub alignment_norm: AlignmentNorm,
    /// Seed of sampling and of initial centroids.
    pub seed: u64,
}

impl FitScorerJob {
    /// The defaults for a corpus and a folder.
    pub fn new(source: Source, out: impl Into<PathBuf>) -> Self {
        let norm = FitOptions::default().norm;
        Self {
            source,
            decode: DecodeOptions::default(),
            out: out.into(),
            clusters: None,
            samples: None,
            alignment_norm: norm,
            seed: 0,
        }
    }
}

/// How a fit of a scorer ended.
#[derive(Debug)]
pub struct ScorerFit {
    /// Points that were sampled.
    pub points: u64,
    /// Length of an embedding.
    pub dim: usize,
    /// Clusters found, and runs of them.
    pub clusters: usize,
    /// Runs of clusters.
    pub runs: usize,
    /// Shares, pass rates and warnings.
    pub report: FitReport,
    /// What a gate by the scorer's alignment is worth; `None` where there were no two pairs to measure it on.
    pub worth: Option<GateWorth>,
    /// Samples that could not be used, of those that were drawn.
    pub failed: u64,
    /// What signals of the fitted scorer are known by.
    pub fingerprint: u64,
}

/// Runs the job. `progress(done, total)` is called after every batch, in points; an error from it ends the run, and
/// nothing is written then.
///
/// # Errors
/// Options by name; a scorer that fails, or returns what does not fit together; a corpus without a usable sample, with
/// too many unusable ones, or smaller than the clusters asked for; a folder that cannot be written.
pub fn fit_scorer(
    job: &FitScorerJob,
    mut model: impl Embedder,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<ScorerFit> {
    if job.samples == Some(0) {
        return Err(Error::option("samples", 0, "at least 1"));
    }
    let corpus = Corpus::of(&job.source, job.decode)?;
    let mut points = Points::default();
    let (size, batch) = (model.preview_size(), model.batch_size());
    let most = |dim: usize| MAX_POINTS.min(MAX_VALUES / dim.max(1) as u64);
    let mut wanted = job.samples.unwrap_or(MAX_POINTS).min(corpus.samples());
    let sampled = corpus.sampled(size, model.preview_filter(), batch, job.seed);
    let failed = sampled.for_each(wanted, &mut |batch| {
        points.push(&mut model, batch)?;
        if job.samples.is_none() {
            wanted = wanted.min(most(points.dim));
        }
        progress(points.rows().min(wanted), wanted)?;
        Ok(points.rows() < wanted)
    })?;
    if points.rows() == 0 {
        return Err(corpus.nothing_usable(&job.source, failed));
    }
    let rows = points.rows();
    let options = FitOptions {
        clusters: job.clusters.unwrap_or_else(|| default_clusters(rows)),
        norm: job.alignment_norm,
        seed: job.seed,
        ..FitOptions::default()
    };
    let validation = Validation::of(&points.own, &points.swapped, None);
    let dim = points.dim;
    let (mut clusters, mut report) =
        fit_embeddings_by(&points.finish()?, &options, &mut |points, centroids| {
            // Clustering may take minutes, in which a caller may have gone.
            progress(wanted, wanted)?;
            model.nearest(points.dense().view(), centroids.view())
        })?;
    clusters.worth = validation.map(|validation| GateWorth { validation, on: MeasuredOn::Sample });
    report.warnings.extend(clusters.worth.and_then(|worth| worth.warning()));
    progress(wanted, wanted)?;
    let (found, runs, worth) = (clusters.len(), clusters.run_count(), clusters.worth);
    let own = model.fingerprint();
    let fitted = Fitted::new(model, Arc::new(clusters));
    let fingerprint = crate::model::Scorer::fingerprint(&fitted);
    save(job, fitted, own)?;
    Ok(ScorerFit { points: rows, dim, clusters: found, runs, report, worth, failed, fingerprint })
}

/// Writes the folder. `own` is the fingerprint of the model by itself.
fn save<M: Embedder>(job: &FitScorerJob, mut fitted: Fitted<M>, own: u64) -> Result<()> {
    let cannot = |error| Error::io(format!("make the folder {}", job.out.display()), error);
    std::fs::create_dir_all(&job.out).map_err(cannot)?;
    fitted.clusters().save(job.out.join(Clusters::FILE))?;
    let captions = fitted
        .model()
        .recaptioner()
        .map(|writer| (writer.caption_batch_size(), writer.caption_fingerprint()));
    Identity::save(&fitted, captions, own, &job.out)
}

/// Points of a fit as they come in.
#[derive(Default)]
struct Points {
    dim: usize,
    embeddings: Vec<f32>,
    alignment: Vec<f32>,
    words: Vec<u32>,
    clusters: Option<Vec<u32>>,
    /// Alignment of pictures with their own captions, and with another's.
    own: Vec<f32>,
    swapped: Vec<f32>,
}

impl Points {
    fn rows(&self) -> u64 {
        self.alignment.len() as u64
    }

    fn push(&mut self, model: &mut impl Embedder, batch: &SampledBatch) -> Result<()> {
        let rows = batch.ids.len();
        let mut captions: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
        captions.resize(model.batch_size(), "");
        let raw = checked(model.score(batch.previews.view(), &captions)?, captions.len())?;
        if self.alignment.is_empty() {
            self.dim = raw.embedding.ncols();
            self.clusters = raw.cluster.is_some().then(Vec::new);
        }
        if raw.embedding.ncols() != self.dim || raw.cluster.is_some() != self.clusters.is_some() {
            let found = format!("{} values", raw.embedding.ncols());
            let expected = format!("{} values, and clusters in every batch or none", self.dim);
            return Err(Error::format("embedding that the scorer returned", expected, found));
        }
        self.embeddings.extend(raw.embedding.slice(s![..rows, ..]).iter());
        if let (Some(all), Some(own)) = (&mut self.clusters, &raw.cluster) {
            all.extend_from_slice(&own[..rows]);
        }
        if self.own.len() < PAIRS && rows >= 2 {
            self.swap(model, batch, &raw.alignment)?;
        }
        self.alignment.extend_from_slice(&raw.alignment[..rows]);
        self.words.extend(captions[..rows].iter().map(|caption| words(caption)));
        Ok(())
    }

    /// Scores the pictures of a batch once more, with captions of others.
    fn swap(&mut self, model: &mut impl Embedder, batch: &SampledBatch, own: &[f32]) -> Result<()> {
        let rows = batch.ids.len();
        let pairs = swaps(rows, |a, b| {
            batch.captions[a] == batch.captions[b] || is_same(batch.previews.view(), a, b)
        });
        let mut captions = vec![""; model.batch_size()];
        for &(row, other) in &pairs {
            captions[row] = batch.captions[other].as_str();
        }
        let found = checked(model.score(batch.previews.view(), &captions)?, captions.len())?;
        self.own.extend(pairs.iter().map(|&(row, _)| own[row]));
        self.swapped.extend(pairs.iter().map(|&(row, _)| found.alignment[row]));
        Ok(())
    }

    fn finish(self) -> Result<EmbeddedPoints> {
        let shape = (self.alignment.len(), self.dim);
        let embeddings = Array2::from_shape_vec(shape, self.embeddings)
            .map_err(|e| Error::format("embeddings", format!("{shape:?}"), e))?;
        Ok(EmbeddedPoints {
            embeddings,
            alignment: self.alignment,
            words: self.words,
            clusters: self.clusters,
        })
    }
}

fn is_same(previews: ArrayView4<'_, u8>, a: usize, b: usize) -> bool {
    previews.index_axis(Axis(0), a) == previews.index_axis(Axis(0), b)
}

/// Fails unless there is one of everything for each of `rows`.
fn checked(raw: RawScores, rows: usize) -> Result<RawScores> {
    let lengths = [
        ("embedding", raw.embedding.nrows()),
        ("alignment", raw.alignment.len()),
        ("cluster", raw.cluster.as_ref().map_or(rows, Vec::len)),
    ];
    match lengths.iter().find(|(_, found)| *found != rows) {
        Some((what, found)) => Err(Error::format(
            format!("{what} that the scorer returned"),
            format!("[{rows}, ..]"),
            format!("[{found}, ..]"),
        )),
        None => Ok(raw),
    }
}

/// For each of `rows` rows another one whose caption it is scored with, one that is not `same`: half of the rows
/// further on, or the next behind that. Rows without one are skipped. Where no two are the same, each row lends its
/// caption once.
pub fn swaps(rows: usize, same: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let other = |row: usize| {
        let from = row + rows / 2;
        (from..from + rows).map(|other| other % rows).find(|&other| other != row && !same(row, other))
    };
    (0..rows).filter_map(|row| Some((row, other(row)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_swapped_with_one_that_is_the_same() {
        // Five captions of each picture, side by side; two pictures with one caption.
        let picture = |row: usize| row / 5;
        let caption = |row: usize| if row < 10 { row % 5 } else { row };
        let same = |a: usize, b: usize| picture(a) == picture(b) || caption(a) == caption(b);
        let pairs = swaps(20, same);
        assert_eq!(pairs.len(), 20);
        assert!(pairs.iter().all(|&(row, other)| row != other && !same(row, other)), "{pairs:?}");
        assert!(swaps(20, |_, _| true).is_empty() && swaps(1, |_, _| false).is_empty());
        for rows in 2..9 {
            let mut lent: Vec<usize> =
                swaps(rows, |_, _| false).into_iter().map(|(_, other)| other).collect();
            lent.sort_unstable();
            assert_eq!(lent, (0..rows).collect::<Vec<_>>(), "each caption once");
        }
    }
}
