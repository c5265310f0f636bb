//! The options of a loader and their defaults; `checks` checks them, `build` makes the loader.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Clusters;
use crate::image::{DecodeOptions, ImageTransform, Normalize};
use crate::ledger::Ledger;
use crate::loader::batch::PixelType;
use crate::loader::mix::Weighted;
use crate::loader::spec::{Mode, OnError};
use crate::model::Scorer;
use crate::select::{GateBy, KeepRatio, Priority, Quota, ScoreGate};
use crate::shard::{Filter, ReadOptions, Shard, StoreOptions};
use crate::text::{Fuse, Tokenizer};

/// Samples per window by default (design, section 2).
const WINDOW: usize = 2048;
/// Windows whose survivors leave together by default.
const SHUFFLE_WINDOWS: usize = 8;
/// Token ids per caption by default: CLIP's.
const CONTEXT_LENGTH: usize = 77;
/// Encoded images and json that wait in memory, by default: those of a few 10,000 samples.
const BUFFER_BYTES: u64 = 4 << 30;
/// Share of failed samples that ends the run by default.
const MAX_ERRORS: f64 = 0.1;

/// Options of a [`Loader`](crate::Loader). Made by [`Loader::builder`](crate::Loader::builder).
#[must_use]
pub struct LoaderBuilder {
    /// Options that were given, whatever their value.
    pub(super) given: BTreeSet<&'static str>,
    pub(super) urls: Vec<String>,
    pub(super) source: Option<String>,
    pub(super) shards: Option<Vec<Shard>>,
    pub(super) sources: Option<Vec<Weighted>>,
    pub(super) samples_per_epoch: Option<u64>,
    pub(super) lengths: Option<Vec<u64>>,
    pub(super) plan: Option<PathBuf>,
    pub(super) only_recording: bool,
    pub(super) stores: StoreOptions,
    pub(super) encoder: Option<(Box<dyn Scorer>, Arc<Clusters>)>,
    pub(super) judge: Option<Box<dyn Scorer>>,
    pub(super) rescue: bool,
    pub(super) ledger: Ledger,
    pub(super) mode: Mode,
    pub(super) keep_ratio: Option<KeepRatio>,
    pub(super) gate: Option<Option<f64>>,
    pub(super) gate_by: GateBy,
    pub(super) score: Option<ScoreGate>,
    pub(super) threshold: Option<f64>,
    pub(super) dedup: Option<f32>,
    pub(super) quota: Option<Quota>,
    pub(super) priority: Priority,
    pub(super) rotate: bool,
    pub(super) fuse: Fuse,
    pub(super) replace_repetitive: bool,
    pub(super) thin: bool,
    pub(super) defer_duplicates: bool,
    pub(super) weights: bool,
    pub(super) seed: u64,
    pub(super) batch_size: usize,
    pub(super) image_size: usize,
    pub(super) transform: Option<ImageTransform>,
    pub(super) normalize: Normalize,
    pub(super) pixels: PixelType,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) context_length: usize,
    pub(super) rank: Option<usize>,
    pub(super) world_size: Option<usize>,
    pub(super) group: Option<(usize, usize)>,
    pub(super) lanes: Option<usize>,
    pub(super) window: usize,
    pub(super) shuffle_windows: usize,
    pub(super) threads: usize,
    pub(super) prefetch: usize,
    pub(super) buffer_bytes: u64,
    pub(super) spill_dir: Option<PathBuf>,
    pub(super) read: ReadOptions,
    pub(super) subset: Option<PathBuf>,
    pub(super) captions: Option<PathBuf>,
    pub(super) max_image_pixels: u64,
    pub(super) exif_orientation: bool,
    pub(super) scaled_decoding: bool,
    pub(super) strict: bool,
    pub(super) on_error: OnError,
    pub(super) max_errors: f64,
    pub(super) max_errors_per_shard: f64,
    pub(super) stall_timeout: Option<Duration>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.given.insert(stringify!($name));
            self.$name = $value;
            self
        })*
    };
}

impl LoaderBuilder {
    pub(crate) fn new(urls: Vec<String>) -> Self {
        Self {
            given: BTreeSet::new(),
            urls,
            source: None,
            shards: None,
            sources: None,
            samples_per_epoch: None,
            lengths: None,
            plan: None,
            only_recording: false,
            stores: StoreOptions::default(),
            encoder: None,
            judge: None,
            rescue: false,
            ledger: Ledger::new(),
            mode: Mode::Reduced,
            keep_ratio: None,
            gate: None,
            gate_by: GateBy::Corpus,
            score: None,
            threshold: None,
            dedup: None,
            quota: None,
            priority: Priority::Uniform,
            rotate: false,
            fuse: Fuse::Original,
            replace_repetitive: true,
            thin: false,
            defer_duplicates: false,
            weights: false,
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
            group: None,
            lanes: None,
            window: WINDOW,
            shuffle_windows: SHUFFLE_WINDOWS,
            threads: 0,
            prefetch: 2,
            buffer_bytes: BUFFER_BYTES,
            spill_dir: None,
            read: ReadOptions::default(),
            subset: None,
            captions: None,
            max_image_pixels: DecodeOptions::default().max_pixels,
            exif_orientation: false,
            scaled_decoding: false,
            strict: false,
            on_error: OnError::Skip,
            max_errors: MAX_ERRORS,
            max_errors_per_shard: f64::INFINITY,
            stall_timeout: None,
        }
    }

    setters! {
        /// Name of the corpus in the identity of its samples. Default: the name of the folder
        /// that holds the shards.
        source: impl Into<String> = Some(source.into());
        /// Shards that were listed before, in place of the URLs: to read a part of a corpus.
        shards: Vec<Shard> = Some(shards);
        /// Samples per shard, in the order of the list, instead of what [`lengths`](crate::shard::lengths)
        /// finds.
        lengths: Vec<u64> = Some(lengths);
        /// Samples that an epoch yields over all ranks, rounded down to whole batches: a part of a pass over
        /// the shards, or several. The next epoch goes on in the shards where this one stops. Default: what
        /// one pass is expected to keep.
        samples_per_epoch: u64 = Some(samples_per_epoch);
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
        /// Share of readable samples to keep, in (0, 1]: one number, or one from each of several epochs
        /// on, `[(0, 0.25), (28, 1.0)]`. In a schedule 1 keeps every readable sample, whatever gate, dedup
        /// and quota say. Default: 0.25 with a captioner or a [`score_key`](Self::score_key); without either, and
        /// without a [`plan`](Self::plan), it has to be given.
        keep_ratio: impl Into<KeepRatio> = Some(keep_ratio.into());
        /// Share of samples that pass the gate, by alignment of image and original caption, or by the
        /// [`score_key`](Self::score_key). `None` turns the gate off. Default: 0.5 with a captioner or a
        /// score_key, else none; none with a [`threshold`](Self::threshold).
        gate: Option<f64> = Some(gate);
        /// Of what the gate lets its share through: the corpus (default) or each cluster.
        gate_by: GateBy = gate_by;
        /// Least score of the [`score_key`](Self::score_key) that passes, instead of a share. Default: a share.
        threshold: f64 = Some(threshold);
        /// Only samples that this file lists count: keys, uids or identities
        /// ([`Subset`](crate::shard::Subset)). The others are passed over unseen, as those that a
        /// [`filter`](Self::filter) does not let pass. Default: all.
        subset: impl Into<PathBuf> = Some(subset.into());
        /// Captions by key, uid or identity ([`CaptionTable`](crate::shard::CaptionTable)): where this file has
        /// one, it takes the place of the sample's own, or serves where it has none. Default: none.
        captions: impl Into<PathBuf> = Some(captions.into());
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
        /// Whether the draw comes before everything else: a share of keep_ratio / gate of the stream is
        /// taken, and what of it passes the gate survives. Nothing else is decoded or encoded, so that a
        /// survivor costs 1 / gate encodes instead of 1 / keep_ratio. Its price: a cluster has its quota in
        /// expectation only. With quota proportional or random and priority uniform. Default: false.
        thin: bool = thin;
        /// Whether a survivor whose caption, or nearly whose image, stands in its lane's part of a batch
        /// already waits for a later batch of the lane (64 at a time may wait). Images are compared where
        /// signals are. Not in mode `Eval`. Default: false.
        defer_duplicates: bool = defer_duplicates;
        /// Which caption survivors carry. Default: the original.
        fuse: Fuse = fuse;
        /// Whether a generated caption that repeats a phrase three times in a row gives way to the
        /// original, as an empty one always does. Default: true.
        replace_repetitive: bool = replace_repetitive;
        /// Whether samples that the gate drops come back with their generated caption, where the
        /// [`judge`](Self::judge) scores it as high as the gate asks. They share the places of their window
        /// with those that pass by themselves: `keep_ratio`, and its maximum, mean what they mean without.
        /// Every sample that the gate drops then costs a caption. Default: false.
        rescue: bool = rescue;
        /// Whether batches carry [`weights`](crate::loader::Batch::weights), 1 / pi. With them sums over the kept
        /// samples are unbiased for all that pass gate and dedup; they do not debias a contrastive loss,
        /// whose terms are not sums over samples. Default: false.
        weights: bool = weights;
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
        /// Rank of this process among those that share the corpus, with [`world_size`](Self::world_size). Default:
        /// the [process group](Self::process_group), else `RANK` with `WORLD_SIZE`, else what Open MPI, PMI (MPICH,
        /// Intel MPI) or a step of Slurm says, else 0: the first of them that says both rank and number. Where
        /// `WORLD_SIZE` is set and `RANK` is not, [`Loader::process_group`](crate::Loader::process_group) says it later.
        rank: usize = Some(rank);
        /// Number of processes that share the corpus, with [`rank`](Self::rank). It may be smaller than that of
        /// the process group: 1 for a loader that one rank has for itself, the number of data-parallel ranks where
        /// several processes see the same data. Default: as for the rank, else 1.
        world_size: usize = Some(world_size);
        /// Canonical streams; a multiple of the world size that divides the global batch. A state resumes on
        /// as many ranks as divide the lanes. Default: 8, which 1, 2, 4 and 8 ranks share; 4, 2 or 1 where 8 does
        /// not divide the global batch; the world size where that divides none of them. A run that is to grow
        /// further starts with the largest world size that is planned.
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
        /// Pixels an image may have; larger ones are refused from their header.
        max_image_pixels: u64 = max_image_pixels;
        /// Whether images are turned as their EXIF data say. Default: false, as CLIP trainers do.
        exif_orientation: bool = exif_orientation;
        /// Whether the random crop of a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and full size at which
        /// it is still twice the image size or more, each way: less work for large photographs, and pixels that differ
        /// (docs/benchmarks.md). Default: false, full size.
        scaled_decoding: bool = scaled_decoding;
        /// Whether signals of the ledger that were computed otherwise than this captioner computes (kind of
        /// device, number type, torch) end the run, instead of a warning. Default: false.
        strict: bool = strict;
        /// What to do with a sample that cannot be used. Default: skip it.
        on_error: OnError = on_error;
        /// Failed samples that end the run: a count, or below 1 a share of what was read (judged
        /// from 1,000 samples on). Default: 0.1.
        max_errors: f64 = max_errors;
        /// Failed samples of one shard that end the run: a count, or below 1 a share of what was read
        /// of it (judged from 100 samples on). Default: no limit.
        max_errors_per_shard: f64 = max_errors_per_shard;
        /// How long a stage may hold up the training loop without a sign of life, before the wait for a batch
        /// ends in [`ErrorKind::Stall`](crate::ErrorKind::Stall), which names the stage and its shard. Default:
        /// `None`, never; waits of a minute and more are warned of in any case.
        stall_timeout: Option<Duration> = stall_timeout;
    }

    /// URL of a server that speaks S3, for `s3://` shards. Default: the environment's, or Amazon.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.stores.endpoint = Some(endpoint.into());
        self
    }

    /// Rank and number of processes of a process group that is initialised, as torch.distributed's. `RANK` and
    /// `WORLD_SIZE` must agree with it where they are set.
    pub fn process_group(mut self, rank: usize, world_size: usize) -> Self {
        self.group = Some((rank, world_size));
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

    /// Field of the json member that holds the caption; where a sample lacks it, the txt member
    /// is used.
    pub fn caption_key(mut self, caption_key: impl Into<String>) -> Self {
        self.read.caption_key = Some(caption_key.into());
        self
    }

    /// Which samples count, by their metadata: `"NSFW = 'UNLIKELY' and width >= 200".parse()?`. The others
    /// are passed over unseen, and are no part of what keep_ratio is a share of. How many pass in each shard is counted when
    /// the loader is built: by the Parquet files beside the shards, else by one pass over their metadata (of local
    /// uncompressed shards only json is read).
    pub fn filter(mut self, filter: Filter) -> Self {
        self.read.filter = Some(filter);
        self
    }

    /// Field of the json member, or column of the Parquet file beside the shard, whose number takes the place
    /// of the alignment in the gate and in the priorities `hard` and `score`: a CLIP similarity, say. A sample
    /// without one does not pass. No captioner is needed for it. Where a share passes, the least score that
    /// does is measured when the loader is built, on a sample of the corpus ([`survey`](crate::shard::survey)).
    pub fn score_key(mut self, score_key: impl Into<String>) -> Self {
        self.given.insert("score_key");
        self.score_gate(ScoreGate::new(score_key, None))
    }

    /// As [`score_key`](Self::score_key) and [`threshold`](Self::threshold) in one, measured or not.
    pub(crate) fn score_gate(mut self, score: ScoreGate) -> Self {
        self.threshold = score.threshold.or(self.threshold);
        self.score = Some(score);
        self
    }

    /// Corpora with weights, in place of the URLs.
    pub(crate) fn weighted(mut self, sources: Vec<Weighted>) -> Self {
        self.sources = Some(sources);
        self
    }

    /// For [`Loader::record`](crate::Loader::record) only: nothing is yielded, so that no number of batches has to be told.
    pub(crate) fn only_recording(mut self) -> Self {
        self.only_recording = true;
        self
    }

    /// How samples are made of members, all at once.
    pub fn read_options(mut self, read: ReadOptions) -> Self {
        self.read = read;
        self
    }

    /// The captioner and its clusters. The model moves into a thread of its own.
    pub fn captioner(mut self, encoder: impl Scorer + 'static, clusters: Arc<Clusters>) -> Self {
        self.given.insert("captioner");
        self.encoder = Some((Box::new(encoder), clusters));
        self
    }

    /// A model whose alignments score generated captions, for [`Fuse::Gated`] and [`rescue`](Self::rescue).
    /// It must not be the captioner that writes them: one that was trained on other data, or an image-text
    /// matching head. It moves into a thread of its own.
    pub fn judge(mut self, judge: impl Scorer + 'static) -> Self {
        self.given.insert("judge");
        self.judge = Some(Box::new(judge));
        self
    }
}
