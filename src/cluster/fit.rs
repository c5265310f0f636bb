//! Everything that a corpus teaches about its clusters, from one sample of it.

use std::fmt;

use ndarray::{Array2, Axis};

use crate::cluster::alignment::{
    AlignmentNorm, AlignmentTable, CELL_POINTS, RawAlignment, length_bin, length_edges, passes_gate,
};
use crate::cluster::clusters::{Clusters, GATE_STEPS};
use crate::cluster::kmeans::{KMeans, Nearest, kmeans, kmeans_by, means};
use crate::cluster::order::{runs, similarity_order};
use crate::cluster::raw_index::{RawIndex, Whitening};
use crate::cluster::signature::{Signatures, document_frequency, idf};
use crate::error::{Error, Result};

/// Sampled points per cluster below which shares, and the rates that follow from them, are too
/// thin: a cluster's share is then off by a tenth (one standard deviation, 1 / sqrt(100)) or more.
pub const POINTS_PER_CLUSTER: usize = 100;

/// Clusters at most by default: the paper's number; and at least, so that there is something to balance.
const MAX_CLUSTERS: u64 = 3000;
const MIN_CLUSTERS: u64 = 8;

/// Clusters by default of so many `points`: one for [`POINTS_PER_CLUSTER`], between 8 and 3,000.
pub fn default_clusters(points: u64) -> usize {
    (points / POINTS_PER_CLUSTER as u64).clamp(MIN_CLUSTERS, MAX_CLUSTERS).min(points) as usize
}

/// Length bins of the report.
const REPORT_BINS: usize = 6;

/// A sample of a corpus, as the captioner sees it. All fields have the points first.
#[derive(Debug, Clone)]
pub struct FitPoints {
    /// Codes of each image's patches, `[points, patches]`, each below `codebook`.
    pub codes: Array2<u32>,
    /// Number of codes in the codebook.
    pub codebook: usize,
    /// Raw alignment of image and caption, `[points]`: see [`RawAlignment::sum`].
    pub alignment: Vec<f32>,
    /// Caption tokens, `[points]`: see [`RawAlignment::tokens`].
    pub tokens: Vec<u32>,
}

/// A sample of a corpus, as a model sees it that embeds images and scores captions. All fields have the points first.
#[derive(Debug, Clone)]
pub struct EmbeddedPoints {
    /// Image embeddings, `[points, dim]`.
    pub embeddings: Array2<f32>,
    /// Raw alignment of image and caption, `[points]`.
    pub alignment: Vec<f32>,
    /// Words of the caption, `[points]`.
    pub words: Vec<u32>,
    /// The model's own cluster of each point, `[points]`; `None`: they are found here. Neighbouring numbers are taken for
    /// similar clusters.
    pub clusters: Option<Vec<u32>>,
}

/// What images are compared by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Features {
    /// Signatures: bags of codes.
    #[default]
    BagOfCodes,
    /// The vector of code indices, as the public code has it. An ablation: indices have no metric.
    RawIndex,
}

crate::names!(
    Features { BagOfCodes => "bag-of-codes", RawIndex => "raw-index" },
    option "features", "bag-of-codes, or raw-index (an ablation)"
);

/// What [`fit`] shall make of the points.
#[derive(Debug, Clone, PartialEq)]
pub struct FitOptions {
    /// Number of clusters; the paper takes 3,000 for 3 million pairs.
    pub clusters: usize,
    /// Runs to cut the clusters into, about.
    pub runs: usize,
    /// How alignments are made comparable.
    pub norm: AlignmentNorm,
    /// What images are compared by.
    pub features: Features,
    /// Most k-means iterations.
    pub iterations: usize,
    /// Seed of the first centroids.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            clusters: 3000,
            runs: 64,
            norm: AlignmentNorm::Matched,
            features: Features::BagOfCodes,
            iterations: 25,
            seed: 0,
        }
    }
}

/// Share of captions of some length that a gate of 0.5 lets through.
#[derive(Debug, Clone, PartialEq)]
pub struct LengthPass {
    /// Shortest caption, in tokens.
    pub shortest: u32,
    /// Longest caption, in tokens.
    pub longest: u32,
    /// Points with such captions.
    pub points: usize,
    /// Share that passes.
    pub rate: f64,
}

/// What there is to know of a fit, for people; displays as a short text.
#[derive(Debug, Clone, PartialEq)]
pub struct FitReport {
    /// Points it was measured on.
    pub points: usize,
    /// Iterations that k-means took.
    pub iterations: usize,
    /// Mean cosine of a point and its centroid: 1 is perfect.
    pub mean_similarity: f64,
    /// Quantisation error of each cluster, in similarity order, `[clusters]`: mean of 1 - cosine of a
    /// point and its centroid; 0 of an empty cluster.
    pub errors: Vec<f64>,
    /// Cluster of each point, in similarity order, `[points]`.
    pub assignment: Vec<u32>,
    /// Alignment quantile of each point, `[points]`.
    pub quantiles: Vec<f32>,
    /// Points in each cluster, in similarity order, `[clusters]`.
    pub sizes: Vec<usize>,
    /// Share that a gate of 0.5 lets through, over all.
    pub pass_rate: f64,
    /// The same by caption length, short to long.
    pub pass_by_length: Vec<LengthPass>,
    /// The same by run, `[runs]`.
    pub pass_by_run: Vec<f64>,
    /// What the user should know or change.
    pub warnings: Vec<String>,
}

/// Learns clusters, their order, shares and alignment quantiles from `points`.
///
/// The result depends on the points, their order and the options only. Cost is that of k-means:
/// O(iterations * points * codes per image * clusters), plus O(clusters²) memory for the order.
///
/// # Errors
/// Fields of different lengths, codes outside the codebook, an alignment that is not finite, more
/// clusters than points.
pub fn fit(points: &FitPoints, options: &FitOptions) -> Result<(Clusters, FitReport)> {
    let n = points.codes.nrows();
    let scores = Scored { alignment: &points.alignment, lengths: ("tokens", &points.tokens) };
    scores.check(n, options)?;
    let idf = idf(&document_frequency(points.codes.view(), points.codebook)?, n as u64);
    let signatures = Signatures::from_codes(points.codes.view(), &idf)?;
    let rounds = |points: &Signatures| kmeans(points, options.clusters, options.iterations, options.seed);
    let (found, raw_index) = match options.features {
        Features::BagOfCodes => (rounds(&signatures)?, None),
        Features::RawIndex => {
            let whitening = Whitening::fit(points.codes.view());
            let found = rounds(&Signatures::from_dense(whitening.apply(points.codes.view()).view()))?;
            let raw = RawIndex::new(&whitening, found.centroids.view());
            // The order, and whatever else compares clusters, goes by what their images look like.
            let centroids = means(&signatures, &found.assignment, options.clusters).reversed_axes();
            (KMeans { centroids: centroids.as_standard_layout().into_owned(), ..found }, Some(raw))
        }
    };

    let order = similarity_order(found.centroids.view());
    of_clusters(found, &order, idf, raw_index, &scores, options)
}

/// As [`fit`], of embeddings. Cost is that of k-means over dense vectors; none where the model has clusters of its own.
///
/// # Errors
/// Fields of different lengths, an embedding or alignment that is not finite, more clusters than points.
pub fn fit_embeddings(points: &EmbeddedPoints, options: &FitOptions) -> Result<(Clusters, FitReport)> {
    fit_embeddings_by(points, options, &mut |_, _| Ok(None))
}

/// As [`fit_embeddings`], where `nearest` finds the centroid of each point.
///
/// # Errors
/// As [`fit_embeddings`], and those of `nearest`.
pub(crate) fn fit_embeddings_by(
    points: &EmbeddedPoints,
    options: &FitOptions,
    nearest: &mut Nearest<'_>,
) -> Result<(Clusters, FitReport)> {
    let (n, dim) = points.embeddings.dim();
    let scores = Scored { alignment: &points.alignment, lengths: ("words", &points.words) };
    scores.check(n, options)?;
    if let Some(i) = points.embeddings.outer_iter().position(|row| row.iter().any(|v| !v.is_finite())) {
        return Err(Error::format(format!("embedding of sampled point {i}"), "finite numbers", "another"));
    }
    let rows = Signatures::from_dense(points.embeddings.view());
    let (found, order) = match &points.clusters {
        None => {
            let found = kmeans_by(&rows, options.clusters, options.iterations, options.seed, nearest)?;
            let order = similarity_order(found.centroids.view());
            (found, order)
        }
        Some(own) if own.len() == n => {
            let clusters = own.iter().max().map_or(1, |&last| last as usize + 1);
            let found = given(&rows, own, clusters);
            (found, (0..clusters).collect())
        }
        Some(own) => {
            return Err(Error::format("cluster of the sampled points", format!("[{n}]"), own.len()));
        }
    };
    // No dimension counts more than another.
    of_clusters(found, &order, vec![1.0; dim], None, &scores, options)
}

/// What a fit looks at beside the pictures.
struct Scored<'a> {
    alignment: &'a [f32],
    /// Of captions, in this unit.
    lengths: (&'static str, &'a [u32]),
}

impl Scored<'_> {
    fn check(&self, n: usize, options: &FitOptions) -> Result<()> {
        for (what, found) in [("alignment", self.alignment.len()), (self.lengths.0, self.lengths.1.len())] {
            if found != n {
                return Err(Error::format(format!("{what} of the sampled points"), format!("[{n}]"), found));
            }
        }
        if let Some(i) = self.alignment.iter().position(|a| !a.is_finite()) {
            let what = format!("alignment of sampled point {i}");
            return Err(Error::format(what, "a finite number", self.alignment[i]));
        }
        if options.runs == 0 {
            return Err(Error::option("runs", 0, "at least 1; 64 is the default"));
        }
        Ok(())
    }
}

/// Clusters that were there before, with the means of their points.
fn given(rows: &Signatures, own: &[u32], clusters: usize) -> KMeans {
    let mut centroids = means(rows, own, clusters).reversed_axes().as_standard_layout().into_owned();
    for mut row in centroids.rows_mut() {
        // No point of the sample is in it: any direction will do.
        if row.iter().all(|v| *v == 0.0) {
            row[0] = 1.0;
        }
    }
    let similarity = (0..rows.len())
        .map(|i| rows.row(i).map(|(at, value)| value * centroids[[own[i] as usize, at]]).sum())
        .collect();
    KMeans { centroids, assignment: own.to_vec(), similarity, iterations: 0 }
}

/// Everything that follows from clusters, which come in this `order` from now on.
fn of_clusters(
    found: KMeans,
    order: &[usize],
    idf: Vec<f32>,
    raw_index: Option<RawIndex>,
    points: &Scored<'_>,
    options: &FitOptions,
) -> Result<(Clusters, FitReport)> {
    let n = points.alignment.len();
    let mut place = vec![0u32; order.len()];
    order.iter().enumerate().for_each(|(new, &old)| place[old] = new as u32);
    let assignment: Vec<u32> = found.assignment.iter().map(|&c| place[c as usize]).collect();
    let mut sizes = vec![0usize; order.len()];
    assignment.iter().for_each(|&c| sizes[c as usize] += 1);
    let shares: Vec<f64> = sizes.iter().map(|&s| s as f64 / n as f64).collect();
    let runs = runs(&shares, options.runs);
    let run_count = runs.last().map_or(0, |&run| run as usize + 1);

    let raw: Vec<RawAlignment> = (0..n)
        .map(|i| RawAlignment {
            sum: points.alignment[i],
            tokens: points.lengths.1[i],
            run: runs[assignment[i] as usize],
        })
        .collect();
    let alignment = AlignmentTable::fit(options.norm, &raw, run_count);
    let quantiles: Vec<f32> = raw.iter().map(|&r| alignment.quantile(r)).collect();
    let gated = gated(&assignment, &quantiles, order.len());

    let mut errors = vec![0.0; order.len()];
    for (&cluster, &similarity) in assignment.iter().zip(&found.similarity) {
        errors[cluster as usize] += 1.0 - f64::from(similarity);
    }
    errors.iter_mut().zip(&sizes).for_each(|(error, &size)| *error /= size.max(1) as f64);

    let report = FitReport {
        errors,
        points: n,
        iterations: found.iterations,
        mean_similarity: found.similarity.iter().map(|&s| f64::from(s)).sum::<f64>() / n as f64,
        pass_rate: share(quantiles.iter().map(|&q| passes_gate(q, 0.5))),
        pass_by_length: pass_by_length(&raw, &quantiles),
        pass_by_run: pass_by_run(&raw, &quantiles, run_count),
        warnings: warnings(n, options, &sizes, &alignment),
        sizes,
        assignment,
        quantiles,
    };
    let centroids = found.centroids.select(Axis(0), order);
    let raw_index = raw_index.map(|raw| RawIndex {
        weights: raw.weights.select(Axis(0), order),
        bias: order.iter().map(|&cluster| raw.bias[cluster]).collect(),
    });
    let clusters = Clusters {
        idf,
        centroids,
        runs,
        shares,
        gated,
        alignment,
        points: n as u64,
        raw_index,
        discriminant: None,
        worth: None,
        trained_on: vec![],
    };
    clusters.validate()?;
    Ok((clusters, report))
}

/// The table [`Clusters::gated`].
fn gated(assignment: &[u32], quantiles: &[f32], clusters: usize) -> Array2<f64> {
    let mut counts = Array2::<f64>::zeros((clusters, GATE_STEPS));
    for (&cluster, &quantile) in assignment.iter().zip(quantiles) {
        for step in 0..GATE_STEPS {
            if passes_gate(quantile, 1.0 - step as f64 / GATE_STEPS as f64) {
                counts[[cluster as usize, step]] += 1.0;
            }
        }
    }
    counts / assignment.len() as f64
}

fn pass_by_length(raw: &[RawAlignment], quantiles: &[f32]) -> Vec<LengthPass> {
    let lengths: Vec<u32> = raw.iter().map(|r| r.tokens).collect();
    let edges = length_edges(&lengths, REPORT_BINS, 1);
    let mut bins = vec![LengthPass { shortest: u32::MAX, longest: 0, points: 0, rate: 0.0 }; edges.len() + 1];
    for (&length, &quantile) in lengths.iter().zip(quantiles) {
        let bin = &mut bins[length_bin(&edges, length)];
        bin.shortest = bin.shortest.min(length);
        bin.longest = bin.longest.max(length);
        bin.points += 1;
        bin.rate += f64::from(u8::from(passes_gate(quantile, 0.5)));
    }
    bins.iter_mut().for_each(|bin| bin.rate /= bin.points.max(1) as f64);
    bins
}

fn pass_by_run(raw: &[RawAlignment], quantiles: &[f32], runs: usize) -> Vec<f64> {
    let mut passed = vec![(0u32, 0u32); runs];
    for (r, &quantile) in raw.iter().zip(quantiles) {
        let run = &mut passed[r.run as usize];
        *run = (run.0 + u32::from(passes_gate(quantile, 0.5)), run.1 + 1);
    }
    passed.into_iter().map(|(passed, points)| f64::from(passed) / f64::from(points.max(1))).collect()
}

fn share(passes: impl ExactSizeIterator<Item = bool>) -> f64 {
    let n = passes.len().max(1);
    passes.filter(|p| *p).count() as f64 / n as f64
}

fn warnings(n: usize, options: &FitOptions, sizes: &[usize], table: &AlignmentTable) -> Vec<String> {
    let mut warnings = Vec::new();
    let k = options.clusters;
    if n / POINTS_PER_CLUSTER < k {
        let fewer = (n / POINTS_PER_CLUSTER).max(1);
        warnings.push(format!(
            "{n} points for {k} clusters are {:.1} per cluster: shares, and so the kept share, will be off; \
             sample more where the corpus has as many (samples={}), or take fewer clusters (clusters={fewer})",
            n as f64 / k as f64,
            k * POINTS_PER_CLUSTER,
        ));
    }
    let empty = sizes.iter().filter(|&&s| s == 0).count();
    if empty > 0 {
        warnings.push(format!("{empty} of {k} clusters are empty: take fewer clusters"));
    }
    if table.norm == AlignmentNorm::Matched && n < 4 * CELL_POINTS {
        warnings.push(format!(
            "{n} points are too few to compare captions of similar length only: all are compared with all; \
             sample more (samples={})",
            4 * CELL_POINTS
        ));
    }
    warnings
}

impl fmt::Display for FitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        let at = |part: f64| sizes.get((part * (sizes.len().max(1) - 1) as f64) as usize).unwrap_or(&0);
        writeln!(
            f,
            "{} clusters in {} runs from {} points ({} iterations, mean cosine {:.3})",
            self.sizes.len(),
            self.pass_by_run.len(),
            self.points,
            self.iterations,
            self.mean_similarity
        )?;
        writeln!(f, "cluster sizes: smallest {}, median {}, largest {}", at(0.0), at(0.5), at(1.0))?;
        let worst = self.errors.iter().copied().fold(0.0, f64::max);
        let mut errors = self.errors.clone();
        errors.sort_unstable_by(f64::total_cmp);
        let median = errors.get(errors.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
        writeln!(f, "quantisation error (1 - cosine) by cluster: median {median:.3}, worst {worst:.3}")?;
        writeln!(f, "a gate of 0.5 passes {:.1}%", 100.0 * self.pass_rate)?;
        for bin in &self.pass_by_length {
            let LengthPass { shortest, longest, points, rate } = bin;
            writeln!(f, "  captions of {shortest} to {longest} tokens ({points}): {:.1}%", 100.0 * rate)?;
        }
        let low = self.pass_by_run.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.pass_by_run.iter().copied().fold(0.0, f64::max);
        write!(f, "  by run: {:.1}% to {:.1}%", 100.0 * low.min(high), 100.0 * high)?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::agreement::nmi;
    use crate::hash::{Purpose, Rng};

    const CODEBOOK: usize = 128;
    const PATCHES: usize = 32;

    /// Images of `classes` classes; a class draws most of its codes from eight of its own, at any
    /// place of the image. Returns the points and their class.
    fn corpus(n: usize, classes: usize, seed: u64) -> (FitPoints, Vec<u32>) {
        let mut rng = Rng::new(seed, Purpose::Fit, 0);
        let own: Vec<Vec<u32>> =
            (0..classes).map(|_| (0..8).map(|_| rng.below(CODEBOOK) as u32).collect()).collect();
        let class: Vec<u32> = (0..n).map(|_| rng.below(classes) as u32).collect();
        let codes = Array2::from_shape_fn((n, PATCHES), |(i, _)| {
            if rng.unit() < 0.6 { own[class[i] as usize][rng.below(8)] } else { rng.below(CODEBOOK) as u32 }
        });
        let tokens: Vec<u32> = (0..n).map(|_| 4 + rng.below(12) as u32).collect();
        let alignment = tokens.iter().map(|&t| (rng.normal() + 0.3 * f64::from(t)) as f32).collect();
        (FitPoints { codes, codebook: CODEBOOK, alignment, tokens }, class)
    }

    fn options(clusters: usize) -> FitOptions {
        FitOptions { clusters, runs: 8, ..FitOptions::default() }
    }

    fn nearest(clusters: &Clusters, points: &FitPoints) -> Vec<u32> {
        let mut dense = Array2::zeros((points.codes.nrows(), CODEBOOK));
        for (codes, mut row) in points.codes.outer_iter().zip(dense.outer_iter_mut()) {
            let codes = codes.to_vec();
            crate::cluster::signature::signature(&codes, &clusters.idf, row.as_slice_mut().unwrap()).unwrap();
        }
        clusters.nearest(dense.view()).unwrap()
    }

    #[test]
    fn bags_of_codes_find_classes_where_raw_indices_do_not() {
        let (points, class) = corpus(1500, 20, 1);
        let (clusters, _) = fit(&points, &options(20)).unwrap();
        let bags = nmi(&nearest(&clusters, &points), &class);
        let ablation = FitOptions { features: Features::RawIndex, ..options(20) };
        let (clusters, report) = fit(&points, &ablation).unwrap();
        let raw = nmi(&report.assignment, &class);
        // What the file holds gives the same clusters.
        let dir = tempfile::tempdir().unwrap();
        clusters.save(dir.path().join("c")).unwrap();
        let loaded = Clusters::load(dir.path().join("c")).unwrap();
        assert_eq!(loaded, clusters);
        let found = loaded.raw_index.unwrap().nearest(points.codes.view());
        assert!(nmi(&found, &report.assignment) > 0.99);
        assert!(bags > 0.9 && raw < 0.2, "bags of codes {bags:.2}, raw indices {raw:.2}");
    }

    #[test]
    fn shares_and_gates_are_those_of_the_points() {
        let (points, _) = corpus(2000, 16, 2);
        let (clusters, report) = fit(&points, &options(16)).unwrap();
        let assigned = nearest(&clusters, &points);
        let quantile = |i: usize| {
            let raw = RawAlignment {
                sum: points.alignment[i],
                tokens: points.tokens[i],
                run: clusters.runs[assigned[i] as usize],
            };
            clusters.alignment.quantile(raw)
        };
        for cluster in 0..16 {
            let members: Vec<usize> = (0..2000).filter(|&i| assigned[i] == cluster as u32).collect();
            assert!((clusters.shares[cluster] - members.len() as f64 / 2000.0).abs() < 1e-9);
            let passed = members.iter().filter(|&&i| quantile(i) >= 0.5).count();
            assert!((clusters.gated[[cluster, 10]] - passed as f64 / 2000.0).abs() < 1e-9);
            assert_eq!(report.sizes[cluster], members.len());
            let mut dense = vec![0.0; CODEBOOK];
            let error = |&i: &usize| {
                let codes = points.codes.row(i).to_vec();
                crate::cluster::signature::signature(&codes, &clusters.idf, &mut dense).unwrap();
                let centroid = clusters.centroids.row(cluster);
                1.0 - dense.iter().zip(centroid).map(|(a, b)| f64::from(a * b)).sum::<f64>()
            };
            let mean = members.iter().map(error).sum::<f64>() / members.len() as f64;
            assert!((report.errors[cluster] - mean).abs() < 1e-5, "{} {mean}", report.errors[cluster]);
        }
        let passed = (0..2000).filter(|&i| quantile(i) >= 0.5).count() as f64 / 2000.0;
        assert!((clusters.pass_rate(0.5) - passed).abs() < 1e-9 && (report.pass_rate - passed).abs() < 1e-9);
        assert!((passed - 0.5).abs() < 0.02);
        assert!(clusters.run_count() <= 8 && clusters.run_count() == report.pass_by_run.len());
    }

    #[test]
    fn the_report_shows_what_the_gate_prefers() {
        let (points, _) = corpus(4000, 8, 3);
        let rates = |norm| {
            let (_, report) = fit(&points, &FitOptions { norm, ..options(8) }).unwrap();
            let counted: usize = report.pass_by_length.iter().map(|bin| bin.points).sum();
            assert_eq!(counted, 4000);
            let first = report.pass_by_length.first().unwrap().rate;
            report.pass_by_length.last().unwrap().rate - first
        };
        assert!(rates(AlignmentNorm::Sum) > 0.5);
        assert!(rates(AlignmentNorm::Matched).abs() < 0.1);
    }

    #[test]
    fn thin_samples_are_warned_of_with_a_better_number() {
        let (points, _) = corpus(500, 8, 4);
        let (_, report) = fit(&points, &options(10)).unwrap();
        let text = report.to_string();
        assert!(text.contains("50.0 per cluster"), "{text}");
        assert!(
            text.contains(
                "sample more where the corpus has as many (samples=1000), or take fewer clusters (clusters=5)"
            ),
            "{text}"
        );
        let (points, _) = corpus(1000, 8, 4);
        assert!(fit(&points, &options(10)).unwrap().1.warnings.is_empty());
    }

    #[test]
    fn every_norm_survives_the_file() {
        let (points, _) = corpus(900, 6, 7);
        let folder = tempfile::tempdir().unwrap();
        for norm in [AlignmentNorm::Sum, AlignmentNorm::Mean, AlignmentNorm::Matched] {
            let (clusters, _) = fit(&points, &FitOptions { norm, ..options(6) }).unwrap();
            let path = folder.path().join(norm.name());
            clusters.save(&path).unwrap();
            assert_eq!(Clusters::load(&path).unwrap(), clusters);
        }
    }

    #[test]
    fn same_points_same_clusters() {
        let (points, _) = corpus(600, 6, 5);
        let one = fit(&points, &options(6)).unwrap().0;
        assert_eq!(one, fit(&points, &options(6)).unwrap().0);
        assert_ne!(
            one.fingerprint(),
            fit(&points, &FitOptions { seed: 1, ..options(7) }).unwrap().0.fingerprint()
        );
    }

    #[test]
    fn unusable_points_are_named() {
        let (points, _) = corpus(50, 2, 6);
        let error = |change: fn(&mut FitPoints), options: &FitOptions| {
            let mut points = points.clone();
            change(&mut points);
            fit(&points, options).unwrap_err().to_string()
        };
        assert!(error(|p| p.tokens.truncate(9), &options(2)).contains("tokens of the sampled points"));
        assert!(error(|p| p.alignment[7] = f32::NAN, &options(2)).contains("sampled point 7"));
        assert!(error(|p| p.codebook = 3, &options(2)).contains("below the codebook's size, 3"));
        assert!(error(|_| (), &options(51)).contains("invalid clusters=51"));
        assert!(error(|_| (), &FitOptions { runs: 0, ..options(2) }).contains("invalid runs=0"));
    }
}
