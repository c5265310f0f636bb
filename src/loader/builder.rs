//! The options of a loader, their defaults, and every check that can be made before a thread
//! starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Clusters;
use crate::error::{Error, Result};
use crate::hash;
use crate::image::{DecodeOptions, ImagePipeline, ImageTransform, Normalize};
use crate::ledger::Ledger;
use crate::loader::batch::PixelType;
use crate::loader::buffer::Buffer;
use crate::loader::decider::Decider;
use crate::loader::model_thread::ModelThread;
use crate::loader::recorder::MaxErrors;
use crate::loader::spec::{Mode, OnError, Spec};
use crate::loader::stream::Loader;
use crate::loader::world::from_world;
use crate::model::Encoder;
use crate::select::{Policy, Priority, Quota, Selector};
use crate::shard::{self, ReadOptions, Shard, StoreOptions};
use crate::text::{Fuse, Tokenizer};

mod planned;

/// Samples per window by default (design, section 2).
const WINDOW: usize = 2048;
/// Windows whose survivors leave together by default.
const SHUFFLE_WINDOWS: usize = 8;
/// Lanes by default; the world size where that is larger.
const LANES: usize = 4;
/// Token ids per caption by default: CLIP's.
const CONTEXT_LENGTH: usize = 77;
/// Share of the readable samples that is kept by default: the paper's.
const KEEP_RATIO: f64 = 0.25;
/// Encoded images and json that wait in memory, by default: those of a few 10,000 samples.
const BUFFER_BYTES: u64 = 4 << 30;
/// Batches that may wait at most: more hide nothing and fill the memory.
const MAX_PREFETCH: usize = 1024;
/// Share of failed samples that ends the run by default.
const MAX_ERRORS: f64 = 0.1;

/// Options of a [`Loader`]. Made by [`Loader::builder`].
#[must_use]
pub struct LoaderBuilder {
    urls: Vec<String>,
    source: Option<String>,
    lengths: Option<Vec<u64>>,
    shards: Option<Vec<Shard>>,
    plan: Option<PathBuf>,
    stores: StoreOptions,
    encoder: Option<(Box<dyn Encoder>, Arc<Clusters>)>,
    ledger: Ledger,
    mode: Mode,
    keep_ratio: Option<f64>,
    gate: Option<Option<f64>>,
    dedup: Option<f32>,
    quota: Option<Quota>,
    priority: Priority,
    rotate: bool,
    fuse: Fuse,
    replace_repetitive: bool,
    seed: u64,
    batch_size: usize,
    image_size: usize,
    transform: Option<ImageTransform>,
    normalize: Normalize,
    pixels: PixelType,
    tokenizer: Option<Tokenizer>,
    context_length: usize,
    rank: Option<usize>,
    world_size: Option<usize>,
    lanes: Option<usize>,
    window: usize,
    shuffle_windows: usize,
    threads: usize,
    prefetch: usize,
    buffer_bytes: u64,
    spill_dir: Option<PathBuf>,
    caption_key: Option<String>,
    max_image_pixels: u64,
    exif_orientation: bool,
    on_error: OnError,
    max_errors: f64,
    max_errors_per_shard: f64,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $value;
            self
        })*
    };
}

impl LoaderBuilder {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            source: None,
            lengths: None,
            shards: None,
            plan: None,
            stores: StoreOptions::default(),
            encoder: None,
            ledger: Ledger::new(),
            mode: Mode::Reduced,
            keep_ratio: None,
            gate: None,
            dedup: None,
            quota: None,
            priority: Priority::Uniform,
            rotate: false,
            fuse: Fuse::Original,
            replace_repetitive: true,
            seed: 0,
            batch_size: 256,
            image_size: 224,
            transform: None,
            normalize: Normalize::default(),
            pixels: PixelType::F32,
            tokenizer: None,
            context_length: CONTEXT_LENGTH,
            rank: None,
            world_size: None,
            lanes: None,
            window: WINDOW,
            shuffle_windows: SHUFFLE_WINDOWS,
            threads: 0,
            prefetch: 2,
            buffer_bytes: BUFFER_BYTES,
            spill_dir: None,
            caption_key: None,
            max_image_pixels: DecodeOptions::default().max_pixels,
            exif_orientation: false,
            on_error: OnError::Skip,
            max_errors: MAX_ERRORS,
            max_errors_per_shard: f64::INFINITY,
        }
    }

    setters! {
        /// Name of the corpus in the identity of its samples. Default: the name of the folder
        /// that holds the shards.
        source: impl Into<String> = Some(source.into());
        /// Samples per shard, in the order of the list, instead of what [`lengths`](crate::shard::lengths)
        /// finds.
        lengths: Vec<u64> = Some(lengths);
        /// A plan, as `tldr-loader plan` writes it: it says which samples survive, instead of the
        /// policy, whose options may be left out. Shards, window size, reading options and captioner
        /// must be those it was made with; a captioner is only needed where captions are generated,
        /// or chosen by alignment.
        plan: impl Into<PathBuf> = Some(plan.into());
        /// How remote shards are read, in one. Default: [`StoreOptions::default`].
        stores: StoreOptions = stores;
        /// Where signals and captions are remembered. Default: an empty one for this loader.
        ledger: Ledger = ledger;
        /// What the loader yields. Default: [`Mode::Reduced`].
        mode: Mode = mode;
        /// Share of readable samples to keep, in (0, 1]. Default: 0.25.
        keep_ratio: f64 = Some(keep_ratio);
        /// Share of samples that pass the gate, by alignment of image and original caption.
        /// `None` turns the gate off. Default: 0.5 with a captioner, else none.
        gate: Option<f64> = Some(gate);
        /// Cosine of embeddings from which two samples of a window count as near-copies.
        /// Default: `None`, no deduplication.
        dedup: Option<f32> = dedup;
        /// How places are shared out. Default: proportional to the clusters with a captioner,
        /// plain random without.
        quota: Quota = Some(quota);
        /// Which candidates fill a quota first. Default: uniform.
        priority: Priority = priority;
        /// Whether epochs keep disjoint subsets until the pool is used up. Default: false.
        rotate: bool = rotate;
        /// Which caption survivors carry. Default: the original.
        fuse: Fuse = fuse;
        /// Whether a generated caption that repeats a phrase three times in a row gives way to the
        /// original, as an empty one always does. Default: true.
        replace_repetitive: bool = replace_repetitive;
        /// Seed of every random choice. Default: 0.
        seed: u64 = seed;
        /// Samples per batch and rank. Default: 256.
        batch_size: usize = batch_size;
        /// Side of the square images, in pixels. Default: 224.
        image_size: usize = image_size;
        /// How images are cropped and resized. Default: random resized crop; resize and centre
        /// crop in mode `Eval`.
        transform: ImageTransform = Some(transform);
        /// Mean and standard deviation. Default: CLIP's.
        normalize: Normalize = normalize;
        /// Number type of the pixels. Default: normalised `f32`.
        pixels: PixelType = pixels;
        /// Tokenizer of the trained model. Without one batches carry captions only.
        tokenizer: Tokenizer = Some(tokenizer);
        /// Token ids per caption. Default: 77.
        context_length: usize = context_length;
        /// Rank of this process. Default: `RANK`, or 0.
        rank: usize = Some(rank);
        /// Number of processes. Default: `WORLD_SIZE`, or 1.
        world_size: usize = Some(world_size);
        /// Canonical streams; a multiple of the world size that divides the global batch.
        /// Default: 4, or the world size where that is larger or does not divide 4. A run that is
        /// to move between world sizes, or resume in another, names the lanes: the largest world
        /// size will do.
        lanes: usize = Some(lanes);
        /// Samples per decision window. Default: 2048.
        window: usize = window;
        /// Windows whose survivors are shuffled together. Default: 8.
        shuffle_windows: usize = shuffle_windows;
        /// Threads that decode images. Default: one per core.
        threads: usize = threads;
        /// Finished batches that may wait for the training loop. Default: 2.
        prefetch: usize = prefetch;
        /// Bytes of encoded images and json that may wait in memory, over all lanes of the rank; what is
        /// above them waits in unlinked files. Default: 4 GiB.
        buffer_bytes: u64 = buffer_bytes;
        /// Folder of these files. Default: the system's folder for temporary files (`TMPDIR`).
        spill_dir: impl Into<PathBuf> = Some(spill_dir.into());
        /// Field of the json member that holds the caption; where a sample lacks it, the txt member
        /// is used.
        caption_key: impl Into<String> = Some(caption_key.into());
        /// Pixels an image may have; larger ones are refused from their header.
        max_image_pixels: u64 = max_image_pixels;
        /// Whether images are turned as their EXIF data say. Default: false, as CLIP trainers do.
        exif_orientation: bool = exif_orientation;
        /// What to do with a sample that cannot be used. Default: skip it.
        on_error: OnError = on_error;
        /// Failed samples that end the run: a count, or below 1 a share of what was read (judged
        /// from 1,000 samples on). Default: 0.1.
        max_errors: f64 = max_errors;
        /// Failed samples of one shard that end the run: a count, or below 1 a share of what was read
        /// of it (judged from 100 samples on). Default: no limit.
        max_errors_per_shard: f64 = max_errors_per_shard;
    }

    /// URL of a server that speaks S3, for `s3://` shards. Default: the environment's, or Amazon.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.stores.endpoint = Some(endpoint.into());
        self
    }

    /// Longest wait for the next bytes of a remote shard. Default: 30 s.
    pub fn read_timeout(mut self, read_timeout: Duration) -> Self {
        self.stores.read_timeout = read_timeout;
        self
    }

    /// Times that a request is made again before a fault of its store ends the run. Default: 8.
    pub fn retries(mut self, retries: u32) -> Self {
        self.stores.retries = retries;
        self
    }

    /// The shards themselves, which are not listed again.
    pub(crate) fn shards(mut self, shards: Vec<Shard>) -> Self {
        self.shards = Some(shards);
        self
    }

    /// The captioner and its clusters. The model moves into a thread of its own.
    pub fn captioner(mut self, encoder: impl Encoder + 'static, clusters: Arc<Clusters>) -> Self {
        self.encoder = Some((Box::new(encoder), clusters));
        self
    }

    /// Checks the options, lists the shards, counts their samples and makes the loader.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Option`] for an option that cannot work, before anything is read;
    /// errors of listing and counting shards.
    pub fn build(self) -> Result<Loader> {
        self.build_with_progress(&mut |_, _| {})
    }

    /// As [`build`](Self::build); `progress(done, total)` is called for each shard whose samples
    /// have to be counted.
    pub fn build_with_progress(mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Loader> {
        self.check_numbers()?;
        let world_size = from_world(self.world_size, "WORLD_SIZE", "world_size", 1)?;
        let rank = from_world(self.rank, "RANK", "rank", 0)?;
        let lanes = self.check_lanes(rank, world_size)?;
        let transform = self.transform.unwrap_or(match self.mode {
            Mode::Eval => ImageTransform::Eval,
            Mode::Reduced | Mode::Full => ImageTransform::TRAIN,
        });
        let pipeline = ImagePipeline::new(transform, self.image_size, self.normalize)?;
        let pipeline_fingerprint = hash::hash_str(&format!(
            "{:x} {} {:?}",
            transform.fingerprint(),
            self.image_size,
            self.normalize
        ));
        // Checked before anything is read; made when the size of the corpus is known.
        let clusters = self.clusters()?;
        let plan = self.load_plan()?;
        let wanted = self.decider(clusters.as_ref(), 1, plan.as_ref())?;
        let model = self.encoder.take().map(|(encoder, _)| ModelThread::spawn(encoder)).transpose()?;
        let needs_signals = self.needs_signals(wanted.as_ref(), model.as_ref())?;
        let shards = match self.shards.take() {
            Some(shards) => shards,
            None => shard::list(&self.urls, self.source.as_deref(), &self.stores)?,
        };
        let lengths = match (&plan, &self.plan) {
            (Some(plan), Some(path)) => plan.lengths(path, &shards, self.lengths.as_deref())?,
            _ => self.check_lengths(&shards, progress)?,
        };
        let samples = total(&lengths)?;
        let selector = self.decider(clusters.as_ref(), samples, plan.as_ref())?;
        let num_batches = self.num_batches(samples, world_size, selector.as_ref())?;
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tldr-pixels-{i}"))
            .build()
            .map_err(|e| Error::io("start the pixel threads", std::io::Error::other(e)))?;
        let spill_dir = self.spill_dir.unwrap_or_else(std::env::temp_dir);
        if !spill_dir.is_dir() {
            let accepted = "a folder, for samples that wait and that `buffer_bytes` has no room for";
            return Err(Error::option("spill_dir", format!("{:?}", spill_dir.display()), accepted));
        }
        Ok(Loader::new(Spec {
            shards,
            lengths,
            mode: self.mode,
            needs_signals,
            // Captions are written for survivors only: in the other modes no model runs.
            model: model.filter(|_| selector.is_some()),
            selector,
            ledger: self.ledger,
            seed: self.seed,
            window: self.window,
            shuffle_windows: if self.mode == Mode::Eval { 1 } else { self.shuffle_windows },
            lanes,
            rank,
            world_size,
            batch_size: self.batch_size,
            num_batches,
            prefetch: self.prefetch,
            buffer: Buffer::new(self.buffer_bytes, &spill_dir),
            read: ReadOptions { caption_key: self.caption_key },
            decode: DecodeOptions {
                max_pixels: self.max_image_pixels,
                exif_orientation: self.exif_orientation,
            },
            pipeline,
            pipeline_fingerprint,
            pixels: self.pixels,
            tokenizer: self.tokenizer,
            context_length: self.context_length,
            fuse: if self.mode == Mode::Reduced { self.fuse } else { Fuse::Original },
            replace_repetitive: self.replace_repetitive,
            on_error: self.on_error,
            max_errors: MaxErrors { in_all: self.max_errors, per_shard: self.max_errors_per_shard },
            pool: Arc::new(pool),
        }))
    }

    fn check_numbers(&self) -> Result<()> {
        self.stores.check()?;
        let positive: [(&'static str, usize); 5] = [
            ("batch_size", self.batch_size),
            ("window", self.window),
            ("shuffle_windows", self.shuffle_windows),
            ("prefetch", self.prefetch),
            ("context_length", self.context_length),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(Error::option(option, value, "at least 1"));
            }
        }
        if self.tokenizer.is_some() && self.context_length < 3 {
            let accepted = "at least 3: a start token, one token and an end token";
            return Err(Error::option("context_length", self.context_length, accepted));
        }
        if self.prefetch > MAX_PREFETCH {
            return Err(Error::option("prefetch", self.prefetch, format!("at most {MAX_PREFETCH}")));
        }
        if self.max_image_pixels == 0 {
            return Err(Error::option("max_image_pixels", 0, "at least 1"));
        }
        // Also where the mode does not use it: what cannot be meant is never passed over.
        if let Some(keep_ratio) = self.keep_ratio.filter(|&ratio| !(ratio > 0.0 && ratio <= 1.0)) {
            return Err(Error::option("keep_ratio", keep_ratio, "a number in (0, 1]"));
        }
        for (option, limit) in
            [("max_errors", self.max_errors), ("max_errors_per_shard", self.max_errors_per_shard)]
        {
            if limit.is_nan() || limit < 0.0 {
                return Err(Error::option(option, limit, "a count, or a share below 1"));
            }
        }
        Ok(())
    }

    fn check_lanes(&self, rank: usize, world_size: usize) -> Result<usize> {
        if world_size == 0 {
            return Err(Error::option("world_size", world_size, "at least 1"));
        }
        if rank >= world_size {
            return Err(Error::option("rank", rank, format!("below the world size, {world_size}")));
        }
        if self.mode == Mode::Eval {
            return Ok(world_size);
        }
        let lanes = self.lanes.unwrap_or(if LANES.is_multiple_of(world_size) { LANES } else { world_size });
        if lanes == 0 || !lanes.is_multiple_of(world_size) {
            return Err(Error::option("lanes", lanes, format!("a multiple of the world size, {world_size}")));
        }
        let global = self.batch_size * world_size;
        if !global.is_multiple_of(lanes) {
            let accepted = format!(
                "the global batch, batch_size x world_size = {global}, must be a multiple of lanes = {lanes}; \
                 change batch_size or lanes"
            );
            return Err(Error::option("batch_size", self.batch_size, accepted));
        }
        Ok(lanes)
    }

    /// The selector of mode `Reduced`; options of a selection are errors in the other modes only
    /// where they contradict them. `corpus`: its number of samples.
    fn selector(&self, clusters: Option<&Arc<Clusters>>, corpus: u64) -> Result<Option<Selector>> {
        if self.mode != Mode::Reduced {
            return Ok(None);
        }
        let with = clusters.is_some();
        if let (Some(Quota::CapAt(_)), Some(keep_ratio)) = (self.quota, self.keep_ratio) {
            let accepted = "left out with quota = cap(samples), which sets it; or quota = cap";
            return Err(Error::option("keep_ratio", keep_ratio, accepted));
        }
        let policy = Policy {
            keep_ratio: self.keep_ratio.unwrap_or(KEEP_RATIO),
            gate: self.gate.unwrap_or(with.then_some(0.5)),
            dedup: self.dedup,
            quota: self.quota.unwrap_or(if with { Quota::Proportional } else { Quota::Random }),
            priority: self.priority,
            rotate: self.rotate,
            seed: self.seed,
            corpus: Some(corpus),
        };
        Selector::new(policy, clusters.cloned()).map(Some)
    }

    /// The clusters of the encoder, of the same fit.
    fn clusters(&self) -> Result<Option<Arc<Clusters>>> {
        let Some((encoder, clusters)) = &self.encoder else { return Ok(None) };
        if self.mode == Mode::Reduced && encoder.clusters() != clusters.len() {
            let accepted =
                format!("the encoder has {} clusters: both must come from one fit", encoder.clusters());
            return Err(Error::option("captioner", format!("{} clusters", clusters.len()), accepted));
        }
        Ok(Some(Arc::clone(clusters)))
    }

    fn needs_signals(&self, selector: Option<&Decider>, model: Option<&ModelThread>) -> Result<bool> {
        let Some(selector) = selector else { return Ok(false) };
        let writes = model.is_some_and(|m| m.caption.is_some());
        if !matches!(self.fuse, Fuse::Original) && !writes {
            let accepted =
                "only `original` without a captioner that writes captions; give one with `captioner`";
            return Err(Error::option("fuse", self.fuse, accepted));
        }
        Ok(selector.needs_signals() || matches!(self.fuse, Fuse::Best { .. }))
    }

    fn check_lengths(&self, shards: &[Shard], progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<u64>> {
        match &self.lengths {
            None => shard::lengths(shards, progress),
            Some(lengths) if lengths.contains(&0) => {
                let accepted = "at least 1 for every shard; leave empty shards out of the list";
                Err(Error::option("lengths", format!("{lengths:?}"), accepted))
            }
            Some(lengths) if lengths.len() == shards.len() => Ok(lengths.clone()),
            Some(lengths) => {
                let given = format!("{} numbers", lengths.len());
                Err(Error::option("lengths", given, format!("one for each of the {} shards", shards.len())))
            }
        }
    }

    /// Batches per epoch: the same on every rank.
    fn num_batches(&self, samples: u64, world_size: usize, selector: Option<&Decider>) -> Result<u64> {
        let global = (self.batch_size * world_size) as u64;
        let expected = match self.mode {
            Mode::Eval => return Ok(samples.div_ceil(world_size as u64).div_ceil(self.batch_size as u64)),
            Mode::Full => samples,
            Mode::Reduced => selector.map_or(samples, |selector| selector.expected(samples)),
        };
        if expected < global {
            let accepted = format!(
                "at most {expected}, the samples expected in an epoch ({samples} in the shards), \
                 divided by the world size, {world_size}"
            );
            return Err(Error::option("batch_size", self.batch_size, accepted));
        }
        Ok(expected / global)
    }
}

/// Samples of all shards.
fn total(lengths: &[u64]) -> Result<u64> {
    let sum = lengths.iter().try_fold(0u64, |sum, &n| sum.checked_add(n));
    sum.filter(|&n| n < 1 << 53)
        .ok_or_else(|| Error::option("lengths", "a sum of 2^53 or more", "the samples of each shard"))
}
