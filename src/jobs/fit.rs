//! Fits a captioner to a corpus: clusters, shares and alignment quantiles (TL;DR, section 3.2), and
//! before them a codebook where it was trained without one.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array2, Array4, CowArray, Ix4, s};

use crate::captioner::{Captioner, CodebookReport, DecodeFrom, LearnedBy, PatchSample, parse_device};
use crate::cluster::{self, AlignmentNorm, FitOptions, FitPoints, FitReport};
use crate::error::{Error, Result};
use crate::image::ImageTransform;
use crate::jobs::train::{largest_divisor, previews};
use crate::loader::{Batch, Loader, Mode, PixelType};
use crate::model::Encoder;
use crate::shard::StoreOptions;

/// Points per cluster below which shares are too thin to trust (design, section 2).
const POINTS_PER_CLUSTER: u64 = 100;
/// Clusters at most by default: the paper's number.
const MAX_CLUSTERS: u64 = 3000;
/// Clusters at least by default, so that there is something to balance.
const MIN_CLUSTERS: u64 = 8;
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
/// Lanes of a sampled read: points come from this many places of the corpus.
const PLACES: usize = 16;

/// What to fit, to what.
#[derive(Debug, Clone)]
pub struct FitJob {
    /// Shards, as for [`Loader::builder`].
    pub urls: Vec<String>,
    /// The captioner directory; `clusters.safetensors` is written into it.
    pub captioner: PathBuf,
    /// Number of clusters; a hundredth of the sampled points, between 8 and 3,000, where `None`.
    pub clusters: Option<usize>,
    /// Points to sample; all, up to 300,000, where `None`.
    pub samples: Option<u64>,
    /// How raw alignments are made comparable.
    pub alignment_norm: AlignmentNorm,
    /// Codes to learn; up to 3,000, one for 64 sampled patches, where `None`. A codebook that a fit
    /// learned before is kept where `None`, one that was trained with its model in any case.
    pub codes: Option<usize>,
    /// What the decoder attends to; as the captioner says where `None`.
    pub decode_from: Option<DecodeFrom>,
    /// Seed of sampling and of initial centroids.
    pub seed: u64,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Field of the json member that holds the caption; the txt member where a sample lacks it.
    pub caption_key: Option<String>,
    /// How remote shards are read.
    pub stores: StoreOptions,
    /// Samples per shard, in the order of the list, where they are known; else they are looked up
    /// or counted.
    pub lengths: Option<Vec<u64>>,
}

impl FitJob {
    /// The defaults for a corpus and a captioner directory.
    pub fn new(urls: Vec<String>, captioner: impl Into<PathBuf>) -> Self {
        Self {
            urls,
            captioner: captioner.into(),
            clusters: None,
            samples: None,
            alignment_norm: FitOptions::default().norm,
            codes: None,
            decode_from: None,
            seed: 0,
            device: "cpu".into(),
            caption_key: None,
            stores: StoreOptions::default(),
            lengths: None,
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
    /// Shares, pass rates and warnings.
    pub report: FitReport,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// Runs the job. `progress(done, total)` is called after every batch, in images while a codebook is
/// learned, then in points; an error from it ends the run.
///
/// # Errors
/// Options by name; an unreadable captioner directory; a corpus smaller than the clusters asked
/// for.
pub fn fit(job: &FitJob, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<FitSummary> {
    let started = std::time::Instant::now();
    let mut captioner = Captioner::load(&job.captioner, parse_device(&job.device)?)?;
    let loader = stream(job, &captioner)?;
    let codebook = learn_codebook(job, &mut captioner, &loader, progress)?;
    if let Some(decode_from) = job.decode_from {
        captioner.set_decode_from(decode_from)?;
    }
    let total = loader.num_samples();
    let wanted = job.samples.unwrap_or(MAX_POINTS).min(total);
    let mut points = Points::new(captioner.config().patches());
    for batch in loader.iter()? {
        points.push(&mut captioner, &batch?)?;
        progress(points.rows().min(wanted), wanted)?;
        if points.rows() >= wanted {
            break;
        }
    }
    let automatic = (points.rows() / POINTS_PER_CLUSTER).clamp(MIN_CLUSTERS, MAX_CLUSTERS);
    let options = FitOptions {
        clusters: job.clusters.unwrap_or(automatic as usize),
        norm: job.alignment_norm,
        seed: job.seed,
        ..FitOptions::default()
    };
    let rows = points.rows();
    let (clusters, report) = cluster::fit(&points.finish(captioner.config().codes())?, &options)?;
    let (found, runs) = (clusters.len(), clusters.run_count());
    captioner.set_clusters(Some(Arc::new(clusters)))?;
    captioner.save(&job.captioner)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(FitSummary { points: rows, clusters: found, runs, codebook, report, seconds })
}

/// Learns a codebook where there is none, or where another size is asked for.
fn learn_codebook(
    job: &FitJob,
    captioner: &mut Captioner,
    loader: &Loader,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Option<CodebookReport>> {
    let known = captioner.config().codebook.clone();
    match (&known, job.codes) {
        (Some(_), None) => return Ok(None),
        (Some(codebook), Some(codes)) if codebook.learned_by == LearnedBy::Training => {
            let accepted = "not given: this captioner was trained with a codebook, and keeps it";
            return Err(Error::option("codes", codes, accepted));
        }
        _ => {}
    }
    let codes = job.codes.unwrap_or(MAX_CODES);
    let per_image = PATCHES_PER_IMAGE.min(captioner.config().patches());
    let images = codes.saturating_mul(PATCHES_PER_CODE).div_ceil(per_image) as u64;
    let images = images.max(CODEBOOK_IMAGES).min(loader.num_samples()).min(job.samples.unwrap_or(u64::MAX));
    let mut sample = PatchSample::new(per_image, job.seed);
    for batch in loader.iter()? {
        let batch = batch?;
        captioner.sample_patches(padded(captioner, &batch)?.view(), &batch.ids, &mut sample)?;
        progress(sample.images().min(images), images)?;
        if sample.images() >= images {
            break;
        }
    }
    let codes = job.codes.unwrap_or((sample.patches() / PATCHES_PER_CODE).clamp(2, MAX_CODES));
    captioner.learn_codebook(&sample, codes, job.seed).map(Some)
}

/// The previews of a batch, filled with blanks to the encoder's shape.
fn padded<'b>(captioner: &Captioner, batch: &'b Batch) -> Result<CowArray<'b, u8, Ix4>> {
    let (rows, full, size) = (batch.len(), captioner.batch_size(), captioner.preview_size());
    if rows == full {
        return Ok(previews(batch)?.into());
    }
    let mut padded = Array4::zeros((full, 3, size, size));
    padded.slice_mut(s![..rows, .., .., ..]).assign(&previews(batch)?);
    Ok(padded.into())
}

/// All samples in order where all are wanted, else samples from many places of the corpus.
fn stream(job: &FitJob, captioner: &Captioner) -> Result<Loader> {
    let batch = captioner.batch_size();
    let make = |mode| {
        let mut builder = Loader::builder(job.urls.clone())
            .stores(job.stores.clone())
            .mode(mode)
            .transform(ImageTransform::preview(captioner.preview_filter()))
            .pixels(PixelType::U8)
            .image_size(captioner.preview_size())
            .batch_size(batch)
            .seed(job.seed)
            .rank(0)
            .world_size(1);
        if let Some(lengths) = &job.lengths {
            builder = builder.lengths(lengths.clone());
        }
        if mode == Mode::Full {
            builder = builder.lanes(largest_divisor(batch, PLACES)).shuffle_windows(1).window(64);
        }
        match &job.caption_key {
            Some(key) => builder.caption_key(key),
            None => builder,
        }
    };
    let all = make(Mode::Eval).build()?;
    if all.num_samples() <= job.samples.unwrap_or(MAX_POINTS) {
        return Ok(all);
    }
    make(Mode::Full).build()
}

/// Points of a fit as they come in.
struct Points {
    patches: usize,
    codes: Vec<u32>,
    alignment: Vec<f32>,
    tokens: Vec<u32>,
}

impl Points {
    fn new(patches: usize) -> Self {
        Self { patches, codes: vec![], alignment: vec![], tokens: vec![] }
    }

    fn rows(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Encodes a batch; a short one is filled with blanks to the encoder's shape.
    fn push(&mut self, captioner: &mut Captioner, batch: &Batch) -> Result<()> {
        let rows = batch.len();
        let mut captions: Vec<&str> = batch.original.iter().map(String::as_str).collect();
        captions.resize(captioner.batch_size(), "");
        let raw = captioner.encode_raw(padded(captioner, batch)?.view(), &captions)?;
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
