//! Everything that a corpus teaches about its clusters, from one sample of it.

use std::fmt;

use ndarray::{Array2, Axis};

use crate::cluster::alignment::{
    AlignmentNorm, AlignmentTable, CELL_POINTS, RawAlignment, length_bin, length_edges, passes_gate,
};
use crate::cluster::clusters::{Clusters, GATE_STEPS};
use crate::cluster::kmeans::kmeans;
use crate::cluster::order::{runs, similarity_order};
use crate::cluster::signature::{Signatures, document_frequency, idf};
use crate::error::{Error, Result};

/// Sampled points per cluster below which shares, and the rates that follow from them, are too
/// thin: a cluster's share is then off by a tenth (one standard deviation, 1 / sqrt(100)) or more.
pub const POINTS_PER_CLUSTER: usize = 100;

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

/// What [`fit`] shall make of the points.
#[derive(Debug, Clone, PartialEq)]
pub struct FitOptions {
    /// Number of clusters; the paper takes 3,000 for 3 million pairs.
    pub clusters: usize,
    /// Runs to cut the clusters into, about.
    pub runs: usize,
    /// How alignments are made comparable.
    pub norm: AlignmentNorm,
    /// Most k-means iterations.
    pub iterations: usize,
    /// Seed of the first centroids.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { clusters: 3000, runs: 64, norm: AlignmentNorm::Matched, iterations: 25, seed: 0 }
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
    for (what, found) in [("alignment", points.alignment.len()), ("tokens", points.tokens.len())] {
        if found != n {
            return Err(Error::format(format!("{what} of the sampled points"), format!("[{n}]"), found));
        }
    }
    if let Some(i) = points.alignment.iter().position(|a| !a.is_finite()) {
        let what = format!("alignment of sampled point {i}");
        return Err(Error::format(what, "a finite number", points.alignment[i]));
    }
    if options.runs == 0 {
        return Err(Error::option("runs", 0, "at least 1; 64 is the default"));
    }
    let idf = idf(&document_frequency(points.codes.view(), points.codebook)?, n as u64);
    let signatures = Signatures::from_codes(points.codes.view(), &idf)?;
    let found = kmeans(&signatures, options.clusters, options.iterations, options.seed)?;

    let order = similarity_order(found.centroids.view());
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
            tokens: points.tokens[i],
            run: runs[assignment[i] as usize],
        })
        .collect();
    let alignment = AlignmentTable::fit(options.norm, &raw, run_count);
    let quantiles: Vec<f32> = raw.iter().map(|&r| alignment.quantile(r)).collect();
    let gated = gated(&assignment, &quantiles, order.len());

    let report = FitReport {
        points: n,
        iterations: found.iterations,
        mean_similarity: found.similarity.iter().map(|&s| f64::from(s)).sum::<f64>() / n as f64,
        pass_rate: share(quantiles.iter().map(|&q| passes_gate(q, 0.5))),
        pass_by_length: pass_by_length(&raw, &quantiles),
        pass_by_run: pass_by_run(&raw, &quantiles, run_count),
        warnings: warnings(n, options, &sizes, &alignment),
        sizes,
    };
    let centroids = found.centroids.select(Axis(0), &order);
    let clusters = Clusters { idf, centroids, runs, shares, gated, alignment, points: n as u64 };
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
             sample {} points, or take {fewer} clusters",
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
             sample at least {}",
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
