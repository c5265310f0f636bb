//! Fits a captioner to a corpus: clusters, shares and alignment quantiles (TL;DR, section 3.2), and
//! before them a codebook where it was trained without one.

mod worth;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array2, s};

use crate::{Captioner, CodebookReport, CopySample, DecodeFrom, LearnedBy, PatchSample, lock, parse_device};
use tldr_loader::cluster::alignment::passes_gate;
use tldr_loader::cluster::{
    self, AlignmentNorm, Discriminant, Features, FitOptions, FitPoints, FitReport, GateWorth,
    default_clusters,
};
use tldr_loader::config::Source;
use tldr_loader::error::{Error, Result};
use tldr_loader::image::DecodeOptions;
use tldr_loader::jobs::{Corpus, Sampled, SampledBatch};
use tldr_loader::model::Scorer;
use tldr_loader::shard::Shard;
use worth::Measuring;

pub use worth::CaptionSample;

/// Points sampled at most by default.
const MAX_POINTS: u64 = 300_000;
/// Codes at most by default: the paper's number.
const MAX_CODES: usize = 3000;
/// Patches that each code is learned from, where the corpus has as many.
const PATCHES_PER_CODE: usize = 64;
/// Patches taken from an image: neighbours are alike, so few images would not do.
const PATCHES_PER_IMAGE: usize = 32;
/// Images that a codebook is learned from at least, where the corpus has as many: their mean also
/// stands for "no image".
const CODEBOOK_IMAGES: u64 = 1024;

/// Images, and near-duplicates of them, that what tells images apart is learned from, about.
const COPIED_IMAGES: u64 = 2048;

/// What to fit, to what.
#[derive(Debug, Clone)]
pub struct FitJob {
    /// The corpus, and how it is read.
    pub source: Source,
    /// How its images are decoded.
    pub decode: DecodeOptions,
    /// The captioner directory; `clusters.safetensors` is written into it.
    pub captioner: PathBuf,
    /// Number of clusters; a hundredth of the sampled points, between 8 and 3,000, where `None`.
    pub clusters: Option<usize>,
    /// Points to sample, of those that count; all, up to 300,000, where `None`.
    pub samples: Option<u64>,
    /// How raw alignments are made comparable.
    pub alignment_norm: AlignmentNorm,
    /// What images are compared by.
    pub features: Features,
    /// Codes to learn; up to 3,000, one for 64 sampled patches, where `None`. A codebook that a fit
    /// learned before is kept where `None`, one that was trained with its model in any case.
    pub codes: Option<usize>,
    /// What the decoder attends to; as the captioner says where `None`.
    pub decode_from: Option<DecodeFrom>,
    /// Seed of sampling and of initial centroids.
    pub seed: u64,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
}

impl FitJob {
    /// The defaults for a corpus and a captioner directory.
    pub fn new(urls: Vec<String>, captioner: impl Into<PathBuf>) -> Self {
        Self {
            source: Source::new(urls),
            decode: DecodeOptions::default(),
            captioner: captioner.into(),
            clusters: None,
            samples: None,
            alignment_norm: FitOptions::default().norm,
            features: Features::default(),
            codes: None,
            decode_from: None,
            seed: 0,
            device: "cpu".into(),
        }
    }
}

/// How a fit ended.
#[derive(Debug)]
pub struct FitSummary {
    /// Points that were sampled.
    pub points: u64,
    /// Clusters found.
    pub clusters: usize,
    /// Runs of clusters.
    pub runs: usize,
    /// The codebook, where one was learned.
    pub codebook: Option<CodebookReport>,
    /// Directions that tell images apart: the length of an embedding. `None` where too few images were seen to
    /// learn any: embeddings are mean patches then.
    pub directions: Option<usize>,
    /// Shares, pass rates and warnings.
    pub report: FitReport,
    /// Share that a gate of 0.5 lets through, by source.
    pub pass_by_source: Vec<SourcePass>,
    /// What a gate by the captioner's alignment is worth: measured by its training on pairs that were held out, else
    /// here; `None` where there were no two pairs to measure it on.
    pub worth: Option<GateWorth>,
    /// What the captioner wrote for a part of the sample.
    pub captions: CaptionSample,
    /// Samples that could not be used, of those that were drawn.
    pub failed: u64,
    /// What signals of this captioner are known by from now on.
    pub fingerprint: u64,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// Share of a source's samples that a gate of 0.5 lets through.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePass {
    /// Name of the source.
    pub source: String,
    /// Points of it.
    pub points: u64,
    /// Share that passes.
    pub rate: f64,
}

impl fmt::Display for SourcePass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} ({}): {:.1}%", self.source, self.points, 100.0 * self.rate)
    }
}

/// Runs the job. `progress(done, total)` is called after every batch, in images while a codebook is
/// learned, then in points, and once more with all of them before anything is written; an error from it
/// ends the run, and the captioner directory is then as it was.
///
/// # Errors
/// Options by name; an unreadable captioner directory, or one that another run works on; a corpus without
/// a usable sample, with too many unusable ones, or smaller than the clusters asked for.
pub fn fit(job: &FitJob, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<FitSummary> {
    let started = std::time::Instant::now();
    if job.samples == Some(0) {
        return Err(Error::option("samples", 0, "at least 1"));
    }
    let mut captioner = Captioner::load(&job.captioner, parse_device(&job.device)?)?;
    let _alone = lock(&job.captioner)?;
    let corpus = Corpus::of(&job.source, job.decode)?;
    let codebook = learn_codebook(job, &mut captioner, &corpus, progress)?;
    if let Some(decode_from) = job.decode_from {
        captioner.set_decode_from(decode_from)?;
    }
    let wanted = job.samples.unwrap_or(MAX_POINTS).min(corpus.samples());
    let mut points = Points::new(captioner.config().patches());
    let mut measuring = Measuring::new(&job.captioner, &captioner, &corpus, wanted)?;
    let mut copies = CopySample::new(job.seed);
    let batches = wanted.div_ceil(captioner.batch_size() as u64);
    let every = (batches * captioner.batch_size() as u64).div_ceil(COPIED_IMAGES).max(1);
    let mut number = 0u64;
    let failed = sampled(&corpus, &captioner, job.seed).for_each(wanted, &mut |batch| {
        points.push(&mut captioner, batch)?;
        measuring.push(&mut captioner, batch)?;
        // From everywhere in the corpus.
        if number.is_multiple_of(every) {
            captioner.sample_copies(batch.previews.view(), &batch.ids, &mut copies)?;
        }
        number += 1;
        progress(points.rows().min(wanted), wanted)?;
        Ok(true)
    })?;
    if points.rows() == 0 {
        return Err(corpus.nothing_usable(&job.source, failed));
    }
    let options = FitOptions {
        clusters: job.clusters.unwrap_or_else(|| default_clusters(points.rows())),
        norm: job.alignment_norm,
        features: job.features,
        seed: job.seed,
        ..FitOptions::default()
    };
    let (rows, shards) = (points.rows(), std::mem::take(&mut points.shards));
    let (mut clusters, mut report) = cluster::fit(&points.finish(captioner.config().codes())?, &options)?;
    clusters.discriminant = copies.discriminant()?;
    let measured = measuring.finish(&mut captioner)?;
    (clusters.worth, clusters.trained_on) = (measured.worth, measured.trained_on);
    report.warnings.extend(measured.warnings);
    let pass_by_source = pass_by_source(&corpus.shards, &shards, &report.quantiles);
    let (found, runs) = (clusters.len(), clusters.run_count());
    let directions = clusters.discriminant.as_ref().map(Discriminant::dim);
    // Clustering may take minutes, in which a caller may have gone.
    progress(wanted, wanted)?;
    captioner.set_clusters(Some(Arc::new(clusters)))?;
    captioner.save(&job.captioner)?;
    Ok(FitSummary {
        points: rows,
        clusters: found,
        runs,
        codebook,
        directions,
        report,
        pass_by_source,
        worth: measured.worth,
        captions: measured.captions,
        failed,
        fingerprint: Scorer::fingerprint(&captioner),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A sample of `corpus` as `captioner` takes it.
fn sampled<'c>(corpus: &'c Corpus, captioner: &Captioner, seed: u64) -> Sampled<'c> {
    corpus.sampled(captioner.preview_size(), captioner.preview_filter(), captioner.batch_size(), seed)
}

/// By name; `shards` has the shard of each point.
fn pass_by_source(shards: &[Shard], of_points: &[u32], quantiles: &[f32]) -> Vec<SourcePass> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (&shard, &quantile) in of_points.iter().zip(quantiles) {
        let count = counts.entry(&shards[shard as usize].source).or_default();
        *count = (count.0 + 1, count.1 + u64::from(passes_gate(quantile, 0.5)));
    }
    let rate = |(source, (points, passed)): (&str, (u64, u64))| SourcePass {
        source: source.to_owned(),
        points,
        rate: passed as f64 / points as f64,
    };
    counts.into_iter().map(rate).collect()
}

/// Learns a codebook where there is none, or where another size is asked for.
fn learn_codebook(
    job: &FitJob,
    captioner: &mut Captioner,
    corpus: &Corpus,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Option<CodebookReport>> {
    let known = captioner.config().codebook.clone();
    match (&known, job.codes) {
        (Some(_), None) => return Ok(None),
        (Some(codebook), Some(codes)) if codebook.learned_by == LearnedBy::Training => {
            let accepted = "on a captioner that was trained with a codebook, which it keeps";
            return Err(Error::unused("codes", codes, accepted));
        }
        _ => {}
    }
    let codes = job.codes.unwrap_or(MAX_CODES);
    let per_image = PATCHES_PER_IMAGE.min(captioner.config().patches());
    let images = codes.saturating_mul(PATCHES_PER_CODE).div_ceil(per_image) as u64;
    let images = images.max(CODEBOOK_IMAGES).min(corpus.samples()).min(job.samples.unwrap_or(u64::MAX));
    let mut sample = PatchSample::new(per_image, job.seed);
    sampled(corpus, captioner, job.seed).for_each(images, &mut |batch| {
        captioner.sample_patches(batch.previews.view(), &batch.ids, &mut sample)?;
        progress(sample.images().min(images), images)?;
        Ok(true)
    })?;
    let codes = job.codes.unwrap_or((sample.patches() / PATCHES_PER_CODE).clamp(2, MAX_CODES));
    Ok(Some(captioner.learn_codebook(&sample, codes, job.seed)?))
}

/// Points of a fit as they come in.
struct Points {
    patches: usize,
    codes: Vec<u32>,
    alignment: Vec<f32>,
    tokens: Vec<u32>,
    /// Shard of each point.
    shards: Vec<u32>,
}

impl Points {
    fn new(patches: usize) -> Self {
        Self { patches, codes: vec![], alignment: vec![], tokens: vec![], shards: vec![] }
    }

    fn rows(&self) -> u64 {
        self.tokens.len() as u64
    }

    fn push(&mut self, captioner: &mut Captioner, batch: &SampledBatch) -> Result<()> {
        let rows = batch.ids.len();
        let mut captions: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
        captions.resize(captioner.batch_size(), "");
        let raw = captioner.encode_raw(batch.previews.view(), &captions)?;
        self.shards.extend(batch.shards.iter().map(|&shard| shard as u32));
        self.codes.extend(raw.codes.slice(s![..rows, ..]).iter());
        self.alignment.extend_from_slice(&raw.alignment_sum[..rows]);
        self.tokens.extend_from_slice(&raw.tokens[..rows]);
        Ok(())
    }

    fn finish(self, codebook: usize) -> Result<FitPoints> {
        let rows = self.tokens.len();
        let codes = Array2::from_shape_vec((rows, self.patches), self.codes)
            .map_err(|e| Error::format("codes", format!("{rows} rows of {} patches", self.patches), e))?;
        Ok(FitPoints { codes, codebook, alignment: self.alignment, tokens: self.tokens })
    }
}
