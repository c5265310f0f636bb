//! `Loader` and its iterator.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_loader::image::Normalize;
use tldr_loader::loader::LoaderState;
use tldr_loader::text::Tokenizer;
use tldr_loader::{ErrorKind, Result};
use tldr_python::arguments::{CAPTIONS, DeviceName, SUBSET, Whole, duration, must_exist, stores, whole};
use tldr_python::errors::{self, OrRaise};
use tldr_python::given::{self, Given, read_whole};
use tldr_python::interrupt::interruptible;
use tldr_python::{log, plain};

use crate::batch::Validity;
use crate::batches::{Batches, leave};
use crate::frame::{self, Frame};
use crate::ledger::{Ledger, LedgerSource};
use crate::options::{self, Corpora, Ratio};
use crate::ranks;
use crate::scorer::{JUDGE, Source};

/// A stream of batches of survivors, epoch after epoch.
///
/// Iterating yields an epoch; with its last batch the loader moves on to the next one. The sequence
/// of batches depends on the data, the captioner directory, the policy and the seed: not on
/// threads, ranks or machine load. `len(loader)` is the number of batches in the current epoch.
///
/// Args:
///     urls: Shards, one pattern or several: paths or URLs (`s3://`, `gs://`, `az://`, `http(s)://`)
///         with `{00000..00331}` ranges, globs, folders, or `@FILE` that lists them. Or corpora with their
///         weights, a pattern each: `{"cc3m/{00000..00331}.tar": 0.7, "sbu/": 0.3}` mixes them in this
///         proportion, in every batch.
///     samples_per_epoch: Samples that an epoch yields over all ranks, rounded down to whole batches; the
///         next epoch goes on in the shards where this one stops. Default: what one pass over the shards
///         is expected to keep.
///     captioner: A captioner directory (after `Captioner.fit`), or a `Captioner`. Without one the
///         selection is plain random.
///     keep_ratio: Share of readable samples to keep, in (0, 1]; or one from each of several epochs on,
///         `{0: 0.25, 28: 1.0}`, where 1 keeps every readable sample, whatever `gate`, `dedup` and `quota`
///         say. Default: 0.25 with a captioner or a score_key; without either, and without a plan, it has to
///         be given.
///     batch_size: Samples per batch and rank.
///     image_size: Side of the square images, in pixels.
///     tokenizer: A `tokenizer.json`, obeyed with what lies beside it (`open_clip_config.json`,
///         `tokenizer_config.json`), or open_clip's merges file. Without one, batches carry captions
///         only and do not unpack.
///     device: `cpu` (the default), `cuda` (torch's current device) or `cuda:N`: where batches end up, and
///         where the captioner runs unless `captioner_device` says otherwise.
///     captioner_device: Where a captioner and a judge that are given as directories run, such as a second
///         GPU. Default: `device`; a `Captioner` or `Matcher` has a device of its own.
///     mode: `reduced` yields survivors; `full` every sample with its original caption; `eval`
///         every sample once, in order, with the eval transform. One process yields a short last batch; of
///         several each yields as many batches of `batch_size` rows, and `batch.valid` says which are real.
///     gate: Share of samples that pass, by alignment of image and original caption, or by `score_key`; 1.0
///         turns the gate off, None is the default. Default: 0.5 with a captioner or a score_key, off
///         without, and off with a threshold.
///     gate_by: Of what the gate lets that share through: the `corpus`, or each `cluster`.
///     score_key: A score that the corpus has, such as a CLIP similarity: field of the json member, or column
///         of the parquet beside the shard. It takes the place of the alignment in the gate and in the
///         priorities `hard` and `score`; no captioner is needed for it. A sample without one does not pass.
///     threshold: Least score that passes, with `score_key`, instead of a share.
///     dedup: Cosine of image embeddings from which two samples of a window are near-copies.
///         Default: no deduplication.
///     quota: How likely a sample is kept, by the size n of its cluster: `proportional` (the same for
///         all), `cap` (clusters above one size are cut down to it), `cap(100)` (to 100 samples;
///         keep_ratio follows), `tempered(0.5)` (between them, as n^(0.5 - 1)), or `random` (clusters
///         do not count). Default: proportional with a captioner.
///     priority: Which candidates fill a quota first: `uniform`, `diverse` (farthest first, of the
///         embeddings in a window), `hard` (worst aligned), `score` (best aligned), `longest` (captions),
///         or `every-nth` (as the paper's code; an ablation).
///     rotate: Whether epochs keep disjoint subsets until the pool is used up.
///     thin: Whether the draw comes before everything else: a share of keep_ratio / gate of the stream is
///         taken, and what of it passes the gate survives. Nothing else is decoded or encoded, so that a
///         survivor costs 1 / gate encodes instead of 1 / keep_ratio; clusters have their quota in
///         expectation only. With quota `proportional` or `random` and priority `uniform`.
///     fuse: The caption of a survivor: `original`, `generated`, `concat`, `best`, `coin` or `gated`.
///         The last four take a number, as in `concat:16` tokens for the generated part, `best:0.5`
///         (the generated caption below this alignment), `coin:0.3` (the generated caption with this
///         probability, drawn for each sample and epoch; `coin:{0: 0.2, 10: 0.5}` changes it from an
///         epoch on) or `gated:0.5` (each caption must pass: a fair coin where both do, the original
///         where none does).
///     judge: Scores generated captions, for `gated` and `rescue`: a captioner that was trained on other
///         data than the one that writes them, or a `Matcher`; a directory, or one that is loaded.
///     rescue: Whether samples that the gate drops come back with their generated caption, where the judge
///         scores it as high as the gate asks. They share the places of their window with those that pass
///         by themselves, so that `keep_ratio` means what it means without. Each dropped sample then costs
///         a caption.
///     replace_repetitive: Whether a generated caption that repeats a phrase three times in a row
///         gives way to the original, as an empty one always does.
///     defer_duplicates: Whether a survivor whose caption, or nearly whose image, stands in its lane's part
///         of a batch already waits for a later batch of the lane. Images are compared where signals are.
///         Not in mode `eval`.
///     weights: Whether batches carry `weights`, 1 / pi. They make sums over the kept samples unbiased for
///         all that pass gate and dedup; they do not debias a contrastive loss.
///     seed: Seed of every random choice.
///     transform: `train` (random resized crop), `eval` (resize, centre crop) or `preview`
///         (squash). Default: by mode.
///     crop_scale: Least and greatest share of the area, for `train`.
///     crop_ratio: Least and greatest width over height, for `train`.
///     flip: Probability of a horizontal flip, for `train`.
///     mean: Mean of R, G, B for pixels in [0, 1]. Default: CLIP's.
///     std: Standard deviation of R, G, B. Default: CLIP's.
///     pixels: `float32` or `bfloat16`, normalised; or `uint8`, as decoded and resized.
///     context_length: Token ids per caption.
///     rank: Rank of this process among those that share the corpus, with `world_size`. Default: that of
///         torch.distributed's process group, else `RANK` with `WORLD_SIZE` of the environment, else what
///         Open MPI, PMI (MPICH, Intel MPI) or a step of Slurm says, else 0: the first of these that says
///         both.
///     world_size: Number of processes that share the corpus, with `rank`; 1 for a loader that one rank has
///         for itself. Default: as for the rank, else 1.
///     lanes: Canonical streams; a multiple of the world size that divides the global batch. A state
///         resumes on as many ranks as divide the lanes. Default: 8, which 1, 2, 4 and 8 ranks share; 4, 2
///         or 1 where 8 does not divide the global batch; the world size where that divides none of them. A
///         run that is to grow further starts with the largest world size that is planned.
///     window: Samples per decision window.
///     shuffle_windows: Windows whose survivors are shuffled together.
///     threads: Threads that decode images. Default: one per core.
///     prefetch: Finished batches that may wait for the training loop.
///     buffer_bytes: Bytes of encoded images and json that may wait in memory, over all lanes of the rank;
///         what is above them waits in unlinked files. Default: 4 GiB.
///     spill_dir: Folder of these files. Default: the system's folder for temporary files (`TMPDIR`).
///     source: Name of the corpus in the identity of its samples. Default: the name of the folder
///         that holds the shards.
///     lengths: Samples per shard, in the order of the list. Default: `sizes.json`, img2dataset's
///         `_stats.json` or `.parquet`, or a scan.
///     endpoint: URL of a server that speaks S3, for `s3://` shards. Default: the environment's
///         `AWS_ENDPOINT_URL`, or Amazon. Credentials come from the environment (`AWS_*`,
///         `GOOGLE_*`, `AZURE_*`).
///     read_timeout: Seconds to wait for the next bytes of a remote shard. Default: 30.
///     retries: Times that a request is made again before a fault of its store ends the run.
///         Default: 8.
///     caption_key: Field of the json member, or column of the parquet beside the shard, that
///         holds the caption. Default: the txt member.
///     where: Which samples count, by fields of their json or columns of the parquet beside the shard: a
///         condition as in SQL, `"NSFW = 'UNLIKELY' and width >= 200"`. Default: all.
///     subset: A file that lists the samples that count: a `.parquet` or `.jsonl` with `uid` or `key` (or as
///         `tldr-loader export` writes it), a `.txt` of one key a line, or DataComp's `.npy` of uids.
///         Default: all.
///     captions: A `.parquet`, `.jsonl` or `.tsv` with `caption`, and `uid` or `key`: samples that are in it
///         have their caption from there, the others their own. Default: none.
///     max_image_pixels: Pixels an image may have; larger ones are refused from their header.
///     exif_orientation: Whether images are turned as their EXIF data say; CLIP trainers do not.
///     scaled_decoding: Whether the random crop of a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and
///         full size at which it is still twice `image_size` or more, each way. Faster for large photographs;
///         the pixels differ a little (docs/benchmarks.md).
///     on_error: `skip` counts and names a sample that cannot be used; `raise` ends the run.
///     max_errors: Failed samples that end the run: a count, or below 1 a share of what was read.
///     max_errors_per_shard: The same of one shard. Default: no limit.
///     stall_timeout: Seconds that a stage may hold up the training loop without a sign of life; then an
///         error names the stage and its shard. Default: for ever, with a warning every so often.
///     strict: Whether signals of the ledger that were computed on another kind of device, in another
///         number type or by another torch end the run, instead of a warning.
///     ledger: Signals and captions to re-use and to add to: another loader's, or a folder, local or of a
///         bucket. Default: an empty one in memory.
///     plan: A plan of the corpus, as `tldr-loader plan` writes it: it says which samples survive, and the
///         options of the policy may be left out. Default: the policy decides, window by window.
///
/// Raises:
///     ConfigError: An option cannot work, is of a wrong type, or was given and has no effect beside the
///         others; names it, what was given and what is accepted.
///     DataError: Shards or files cannot be read.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Loader {
    /// Taken when it is dropped, and only then.
    loader: ManuallyDrop<tldr_loader::loader::Loader>,
    /// Where the arrays of its batches are.
    frame: Arc<Frame>,
    /// How its batches are used.
    validity: Arc<Validity>,
    /// Whether the ranks of a process group have compared their loaders.
    joined: AtomicBool,
    /// Its number among the loaders that the ranks compare.
    number: OnceLock<u64>,
}

#[pymethods]
impl Loader {
    #[new]
    #[pyo3(
        signature = (urls, **options),
        text_signature = "(urls, *, captioner=None, keep_ratio=None, batch_size=256, image_size=224, tokenizer=None, \
            device=None, captioner_device=None, mode='reduced', gate=None, gate_by='corpus', score_key=None, \
            threshold=None, dedup=None, quota=None, priority='uniform', rotate=False, thin=False, \
            fuse='original', judge=None, rescue=False, replace_repetitive=True, defer_duplicates=False, \
            weights=False, seed=0, transform=None, crop_scale=None, crop_ratio=None, flip=None, mean=None, \
            std=None, pixels='float32', context_length=77, rank=None, world_size=None, lanes=None, window=2048, \
            shuffle_windows=8, threads=None, prefetch=2, buffer_bytes=None, spill_dir=None, source=None, \
            lengths=None, endpoint=None, read_timeout=None, retries=None, caption_key=None, where=None, \
            subset=None, captions=None, max_image_pixels=None, exif_orientation=False, \
            scaled_decoding=False, on_error='skip', \
            max_errors=0.1, max_errors_per_shard=None, strict=False, ledger=None, plan=None, \
            samples_per_epoch=None, stall_timeout=None)"
    )]
    fn new(py: Python<'_>, urls: &Bound<'_, PyAny>, options: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let given = Given::new(py, "Loader", options);
        let mut builder = given::read::<Corpora>("urls", urls)?.builder();
        macro_rules! set {
            ($take:ident: $($name:ident $(as $type:ty)? $(, $by:expr)?;)*) => {
                $(if let Some(value) = given.$take$(::<$type>)?(stringify!($name) $(, $by)?)? {
                    builder = builder.$name(value);
                })*
            };
        }
        let mode = given.take_name("mode", options::mode)?;
        if let Some(mode) = mode {
            builder = builder.mode(mode);
        }
        set!(take:
            thin as bool;
            rotate as bool;
            rescue as bool;
            replace_repetitive as bool;
            defer_duplicates as bool;
            weights as bool;
            exif_orientation as bool;
            scaled_decoding as bool;
            strict as bool;
            threshold as f64;
            max_errors as f64;
            max_errors_per_shard as f64;
            score_key as String;
            caption_key as String;
            source as String;
        );
        set!(take_whole:
            batch_size;
            image_size;
            context_length;
            seed;
            rank;
            world_size;
            lanes;
            window;
            shuffle_windows;
            threads;
            prefetch;
            buffer_bytes;
            max_image_pixels;
            samples_per_epoch;
        );
        set!(take_name:
            gate_by, str::parse;
            priority, str::parse;
            quota, str::parse;
            fuse, str::parse;
            pixels, options::pixels;
            on_error, options::on_error;
        );
        set!(take_as:
            subset as PathBuf, SUBSET;
            captions as PathBuf, CAPTIONS;
            plan as PathBuf, "the path of a plan, as `tldr-loader plan` writes it";
            spill_dir as PathBuf, "the path of a folder";
        );
        if let Some(ratio) = given.take::<Ratio>("keep_ratio")? {
            builder = builder.keep_ratio(ratio.parse().or_raise(py)?);
        }
        // A gate that lets everything through is none.
        if let Some(gate) = given.take::<f64>("gate")? {
            builder = builder.gate(Some(gate).filter(|g| *g != 1.0));
        }
        if let Some(cosine) = given.take("dedup")? {
            builder = builder.dedup(Some(cosine));
        }
        if let Some(filter) = given.take_name("where", str::parse)? {
            builder = builder.filter(filter);
        }
        if let Some(lengths) = given.take::<Vec<Whole>>("lengths")? {
            let lengths: Result<_> = lengths.into_iter().map(|n| whole("lengths", n)).collect();
            builder = builder.lengths(lengths.or_raise(py)?);
        }
        if let Some(timeout) = duration(&given, "stall_timeout")? {
            builder = builder.stall_timeout(Some(timeout));
        }
        if let Some(transform) = options::transform(&given, mode.unwrap_or_default())? {
            builder = builder.transform(transform);
        }
        let (mean, std) = (given.take("mean")?, given.take("std")?);
        if mean.is_some() || std.is_some() {
            let default = Normalize::default();
            let normalize = Normalize { mean: mean.unwrap_or(default.mean), std: std.unwrap_or(default.std) };
            builder = builder.normalize(normalize);
        }
        if let Some((rank, world_size)) = ranks::group(py)? {
            builder = builder.process_group(rank, world_size);
        }
        let stores = stores(&given)?;
        let ledger: Option<LedgerSource> = given.take("ledger")?;
        let tokenizer: Option<PathBuf> = given.take_as("tokenizer", options::TOKENIZER)?;
        let captioner: Option<Source> = given.take("captioner")?;
        let judge: Option<Source> = given.take_as("judge", JUDGE)?;
        let device = given.take::<DeviceName>("device")?.map_or_else(|| "cpu".into(), |device| device.0);
        let model_device = options::captioner_device(&given, captioner.as_ref(), judge.as_ref())?;
        given.end()?;
        let tensors = frame::tensors(py, &device)?;
        // As torch spells it: `cuda` is its current device.
        let device = tensors.as_ref().map_or(Ok(device), |tensors| {
            PyResult::Ok(tensors.getattr(py, "device")?.bind(py).str()?.to_string())
        })?;
        let model_device = model_device.unwrap_or(device);
        let has_ledger = ledger.is_some();
        if let Some(source) = captioner {
            let (model, clusters) = source.captioner(py, &model_device, has_ledger)?;
            builder = builder.captioner(model, clusters);
        }
        if let Some(source) = judge {
            builder = builder.judge(source.judge(py, &model_device, has_ledger)?);
        }
        let build = move |_: &mut dyn FnMut(()) -> Result<()>| {
            let mut builder = builder.stores(stores.clone());
            if let Some(ledger) = ledger {
                builder = builder.ledger(ledger.open(&stores)?);
            }
            if let Some(path) = tokenizer {
                must_exist("tokenizer", &path, "a tokenizer.json, or open_clip's merges file")?;
                builder = builder.tokenizer(Tokenizer::from_file(path)?);
            }
            builder.build()
        };
        let loader = interruptible(py, "build", build, |()| Ok(()))?;
        log::hand_over(py)?;
        let frame = Arc::new(Frame::new(py, tensors, &loader)?);
        let validity = Arc::default();
        Ok(Self {
            loader: ManuallyDrop::new(loader),
            frame,
            validity,
            joined: AtomicBool::new(false),
            number: OnceLock::new(),
        })
    }

    /// The batches of an epoch: of the current one, from its start or from where a loaded state left off.
    ///
    /// Nothing happens before the first batch is asked for; which epoch it is, and where it starts, is what
    /// holds then. With the first batch of all, where torch.distributed is initialised, the ranks compare their
    /// loaders.
    fn __iter__(this: Bound<'_, Self>) -> Batches {
        Batches::new(this.unbind())
    }

    fn __len__(&self) -> usize {
        self.loader.num_batches() as usize
    }

    /// Batches of the current epoch, the same on every rank; in mode `eval` as the lengths make.
    #[getter]
    fn num_batches(&self) -> u64 {
        self.loader.num_batches()
    }

    /// Batches of an epoch: epochs differ where `keep_ratio` is a schedule.
    fn num_batches_of(&self, epoch: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.loader.num_batches_of(read_whole("epoch", epoch)?))
    }

    /// Samples of the current epoch over all ranks.
    #[getter]
    fn num_samples(&self) -> u64 {
        self.loader.num_samples()
    }

    /// Number of token ids: rows that a text embedding needs; `None` without a tokenizer.
    #[getter]
    fn vocab_size(&self) -> Option<usize> {
        self.loader.vocab_size()
    }

    /// Samples per batch on this rank.
    #[getter]
    fn batch_size(&self) -> usize {
        self.loader.batch_size()
    }

    /// Rank of this process among those that share the corpus.
    ///
    /// `None` before the first batch where the environment has `WORLD_SIZE` and no `RANK`: the process group
    /// says it then.
    #[getter]
    fn rank(&self) -> Option<usize> {
        self.loader.rank()
    }

    /// Number of processes that share the corpus.
    #[getter]
    fn world_size(&self) -> usize {
        self.loader.world_size()
    }

    /// The loader itself: Lightning calls `loader.sampler.set_epoch` at the start of an epoch.
    #[getter]
    fn sampler(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    /// The epoch of the next batch: after the last batch of an epoch the next one.
    #[getter]
    fn epoch(&self) -> u64 {
        self.loader.epoch()
    }

    /// What the loader remembers of samples; pass it to another loader to re-use it.
    #[getter]
    fn ledger(&self) -> Ledger {
        Ledger(self.loader.ledger().clone())
    }

    /// Moves to the start of an epoch. Epochs are independent: no history is needed.
    ///
    /// Naming the epoch of a state that was just loaded keeps the place in it: iterating yields what is left,
    /// which is nothing where the state was saved after the last batch.
    fn set_epoch(&self, epoch: &Bound<'_, PyAny>) -> PyResult<()> {
        self.loader.set_epoch(read_whole("epoch", epoch)?);
        Ok(())
    }

    /// Where the loader stands: the batches handed over so far. The same on every rank.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain::to_python(py, &plain::of(&self.loader.state())?)
    }

    /// Moves to a saved state, of any world size with the same global batch and lanes.
    ///
    /// Iterating then yields exactly what the saved run had not yielded yet, which after the last batch of an
    /// epoch is the next one.
    ///
    /// Raises:
    ///     StateError: The state was saved by another configuration; lists every difference.
    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyAny>) -> PyResult<()> {
        let invalid = |detail: String| {
            let message = format!("not a state of a loader, as `state_dict` makes one: {detail}");
            errors::to_python(py, &ErrorKind::State(message).into())
        };
        let Ok(state_dict) = state_dict.cast::<PyDict>() else {
            return Err(invalid(format!("a dict is expected, and this is {}", state_dict.get_type())));
        };
        let fields = plain::from_python(state_dict).map_err(|e| invalid(e.to_string()))?;
        let state: LoaderState = serde_json::from_value(fields).map_err(|e| invalid(e.to_string()))?;
        self.loader.load_state(&state).or_raise(py)
    }

    /// Statistics of the epoch that was started last, on this rank.
    ///
    /// `counts` has the outcome of every sample read (`read` = `kept` + `dropped_gate` + `dropped_dedup`
    /// + `dropped_quota` + `dropped_thin` + `excluded` (by `where` or `subset`) + all of `failed`, by
    /// reason), `shards` the same by shard, `failures` the first failed samples by name, `seconds` the
    /// work of each stage. `n_eff` is (sum of w)² / sum of w² over what was yielded, w being 1 / pi;
    /// `None` where a pi is not known. `alike_captions` and `alike_images` are samples that repeat an
    /// earlier one of their batch, of this rank: false negatives. `sources` has of each corpus its
    /// `share` of an epoch's samples, the `passes` that an epoch makes over it, `read`, `kept` and
    /// `yielded`; `activity` what every stage is doing, and for how many seconds. Further fields:
    /// `epoch`, `rank`, `world_size`, `rank_from` (who says so), `yielded`, `replayed`, `repeats`, `surplus`,
    /// `padded` (rows that are not `valid`, no part of `yielded`), `encoded` (windows that two ranks share
    /// are encoded by both), `captioned`, `judged` (captions
    /// scored), `rescued` (of `counts["kept"]`), `captions_empty`, `captions_repetitive` (both of
    /// captions that were generated), `deferred` (by `defer_duplicates`), `spilled_bytes` (for which
    /// `buffer_bytes` had no room), `length_mismatches`, `empty_shards` (those without samples),
    /// `skipped_bytes` (after damaged tar headers, by
    /// shard), `unscored` (usable samples without a `score_key`), `not_numbers` (by field that was asked
    /// for, samples where it is NaN: no value), `unread_json` (samples whose json cannot be read, and that
    /// count without it; both of the json that this epoch read), `gate` (as `Captioner.validation`, where
    /// the captioner's alignment gates and that was measured), and, where there is such a table,
    /// `subset` and `captions`: `by` (`key`, `uid` or `id`), `entries`, and `matched`, the samples of
    /// this rank that were found in it.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain::to_python(py, &plain::of(&self.loader.stats())?)
    }

    fn __repr__(&self) -> String {
        format!(
            "Loader(num_batches={}, batch_size={}, epoch={})",
            self.loader.num_batches(),
            self.loader.batch_size(),
            self.loader.epoch()
        )
    }
}

impl Loader {
    pub(crate) fn loader(&self) -> &tldr_loader::loader::Loader {
        &self.loader
    }

    /// Joins the other ranks where there is a process group, and that was not done yet.
    ///
    /// # Errors
    /// `ConfigError`: the loader is not that of its rank, or the loaders of some ranks differ, or were not
    /// started.
    pub(crate) fn join_once(&self, py: Python<'_>) -> PyResult<()> {
        if !self.joined.load(Ordering::Acquire) {
            let joined = ranks::join(py, &self.loader, &self.number)?;
            self.joined.store(joined, Ordering::Release);
        }
        Ok(())
    }

    /// How its batches are used.
    pub(crate) fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    /// Where the arrays of its batches are.
    pub(crate) fn frame(&self) -> &Arc<Frame> {
        &self.frame
    }
}

impl Drop for Loader {
    /// Ends the threads of its models without Python's lock, which they may be waiting for. One that is in a long call is
    /// not waited for longer than half a second.
    fn drop(&mut self) {
        // SAFETY: nobody uses it after this, its only drop.
        let loader = unsafe { ManuallyDrop::take(&mut self.loader) };
        leave(loader);
    }
}
