//! `Captioner`: train, load, fit, settings of captions.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};
use tch::Device;
use tldr_loader::captioner::{
    Augment, BlipOptions, CodebookStart, CodebookUpdate, Decay, DecodeFrom, Decoding, Matcher, Precision,
    device_name, set_generation,
};
use tldr_loader::cluster::{AlignmentNorm, Features};
use tldr_loader::jobs::{self, FitJob, Resume, TrainJob};
use tldr_loader::shard::ReadOptions;
use tldr_loader::{Error, Result};

use crate::errors::OrRaise;
use crate::interrupt::interruptible;
use crate::options::{self, DeviceName, Urls, Whole, must_exist, whole};
use crate::plain;
use crate::report;

/// A captioner directory that was found to be sound. Each loader loads its own model from it.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Captioner {
    path: PathBuf,
    device: Device,
    /// `None` before the fit.
    clusters: Mutex<Option<usize>>,
    weights: usize,
    preview_size: usize,
}

impl Captioner {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    fn open(path: PathBuf, device: Device) -> Result<Self> {
        let model = tldr_loader::captioner::Captioner::load(&path, device)?;
        Ok(Self {
            device,
            clusters: Mutex::new(model.clusters().map(|c| c.len())),
            weights: model.weights(),
            preview_size: model.config().preview_size,
            path,
        })
    }
}

pub(crate) fn device_or_cpu(device: Option<DeviceName>) -> Result<Device> {
    device.map_or(Ok(Device::Cpu), |d| d.parse("device"))
}

#[pymethods]
impl Captioner {
    /// Trains a captioner from scratch on image-caption pairs and saves it in the folder `path`.
    ///
    /// Args:
    ///     urls: Shards, as for `Loader`.
    ///     path: The captioner directory to write; made if missing.
    ///     preset: Sizes: `tiny`, `small` or `base` (the paper's).
    ///     tokenizer: A tokenizer to use. Default: one is trained on the captions.
    ///     vocab_size: Entries of a tokenizer that is trained.
    ///     epochs: Passes over the corpus.
    ///     batch_size: Pairs per step.
    ///     accumulate: Parts that a batch is worked on in, one after the other, to save memory.
    ///     precision: Numbers that matrix products are computed in: `float32` or `bfloat16`.
    ///         Default: bfloat16 on a GPU, float32 on a CPU.
    ///     learning_rate: Highest learning rate. Default: the preset's.
    ///     schedule: What the learning rate does after the warm-up: `cosine`, or `step`, the paper's:
    ///         times 0.9 after every epoch.
    ///     warmup: Steps of linear warm-up; a tenth of all steps at most.
    ///     augment: What is done to previews: `none`, `shift` (by up to an eighth of the side), or
    ///         `shift-flip` (every second one is mirrored too).
    ///     codebook_start: Where codes start: on `patches` of the first batch, on `kmeans` centroids
    ///         of patches, anywhere (`uniform`), or on the embeddings of `keywords`, the paper's way.
    ///     codebook_update: How codes follow their patches: as moving averages (`ema`), or by a
    ///         codebook loss (`loss`), the paper's way.
    ///     commitment: Weight of the commitment loss.
    ///     validate: Shards to validate on instead of training on them: a share below 1, or a count.
    ///     checkpoint_every: Steps between two checkpoints, each with a validation; 0 for none. They
    ///         lie beside the captioner, in `path` with `.checkpoint` behind it, until it is whole.
    ///     resume: What to do with a checkpoint that is there: go on from it (`auto`), start anew
    ///         (`never`), or fail without one (`must`). One of other settings is an error.
    ///     folds: With 2, two captioners are trained, each on its own half of the shards, in
    ///         `path/fold-0` (which is returned) and `path/fold-1`: one can judge what the other has
    ///         seen. `path/folds.json` says which shards each has seen.
    ///     seed: Seed of weights, order, dropped images and held-out shards.
    ///     threads: Threads that train, on a CPU. Default: one per core.
    ///     device: `cpu` (the default), `cuda` or `cuda:N`.
    ///     caption_key: Field of the json member that holds the caption; the txt member is used where
    ///         a sample lacks it. Default: the txt member.
    ///     where: Only samples whose metadata pass, as for `Loader`.
    ///     subset: Only samples that this file lists, as for `Loader`.
    ///     captions: A file of captions by key, as for `Loader`.
    ///     endpoint: URL of a server that speaks S3, as for `Loader`.
    ///     read_timeout: Seconds to wait for the next bytes of a remote shard. Default: 30.
    ///     retries: Times that a request to a store is made again. Default: 8.
    ///     progress: Called after each step with a dict of `step`, `steps`, `loss`, `lm_loss`,
    ///         `vq_loss`, `perplexity`, `used_codes`, `learning_rate`, `images_per_s`, `seconds_left`,
    ///         `fold`, and once measured `validation_lm_loss` and `validation_auc`; an exception from
    ///         it ends the run.
    ///
    /// Raises:
    ///     ConfigError: An option cannot work.
    ///     DataError: A file is not what it should be; a loss is not finite: names step and keys.
    #[classmethod]
    #[pyo3(signature = (
        urls, path, *, preset="small", tokenizer=None, vocab_size=2000, epochs=10, batch_size=32,
        accumulate=1, precision=None, learning_rate=None, schedule="cosine", warmup=3000,
        augment="none", codebook_start="patches", codebook_update="ema", commitment=0.25, validate=0.0,
        checkpoint_every=1000, resume="auto", folds=1, seed=0, threads=None, device=None,
        caption_key=None, r#where=None, subset=None, captions=None, endpoint=None, read_timeout=None,
        retries=None, progress=None
    ))]
    // Python's keyword-only arguments: nobody calls this from Rust.
    #[allow(clippy::too_many_arguments)]
    fn train(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        urls: Urls,
        path: PathBuf,
        preset: &str,
        tokenizer: Option<PathBuf>,
        vocab_size: Whole,
        epochs: Whole,
        batch_size: Whole,
        accumulate: Whole,
        precision: Option<&str>,
        learning_rate: Option<f64>,
        schedule: &str,
        warmup: Whole,
        augment: &str,
        codebook_start: &str,
        codebook_update: &str,
        commitment: f64,
        validate: f64,
        checkpoint_every: Whole,
        resume: &str,
        folds: Whole,
        seed: Whole,
        threads: Option<Whole>,
        device: Option<DeviceName>,
        caption_key: Option<String>,
        r#where: Option<&str>,
        subset: Option<PathBuf>,
        captions: Option<PathBuf>,
        endpoint: Option<String>,
        read_timeout: Option<f64>,
        retries: Option<Whole>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let device = device_or_cpu(device).or_raise(py)?;
        let job = TrainJob {
            preset: preset.to_string(),
            tokenizer,
            vocab_size: whole("vocab_size", vocab_size).or_raise(py)?,
            epochs: whole("epochs", epochs).or_raise(py)?,
            batch_size: whole("batch_size", batch_size).or_raise(py)?,
            accumulate: whole("accumulate", accumulate).or_raise(py)?,
            precision: precision.map(Precision::from_name).transpose().or_raise(py)?,
            learning_rate,
            schedule: Decay::from_name(schedule).or_raise(py)?,
            warmup: whole("warmup", warmup).or_raise(py)?,
            augment: Augment::from_name(augment).or_raise(py)?,
            codebook_start: CodebookStart::from_name(codebook_start).or_raise(py)?,
            codebook_update: CodebookUpdate::from_name(codebook_update).or_raise(py)?,
            commitment,
            validate,
            checkpoint_every: whole("checkpoint_every", checkpoint_every).or_raise(py)?,
            resume: Resume::from_name(resume).or_raise(py)?,
            seed: whole("seed", seed).or_raise(py)?,
            threads: whole("threads", threads.unwrap_or(0)).or_raise(py)?,
            device: device_name(device),
            read: ReadOptions::open(caption_key, r#where, subset.as_deref(), captions.as_deref())
                .or_raise(py)?,
            stores: options::stores(endpoint, read_timeout, retries).or_raise(py)?,
            ..TrainJob::new(urls.patterns(), &path)
        };
        let folds: usize = whole("folds", folds).or_raise(py)?;
        let work = move |report: &mut dyn FnMut(_) -> Result<()>| {
            if folds == 1 {
                jobs::train(&job, &mut |at| report(*at))?;
                return Captioner::open(path, device);
            }
            jobs::train_folds(&job, folds, &mut |at| report(*at))?;
            Captioner::open(path.join("fold-0"), device)
        };
        interruptible(py, "train", work, |at: jobs::TrainProgress| {
            let Some(progress) = &progress else { return Ok(()) };
            let said = PyDict::new(py);
            said.set_item("step", at.report.step)?;
            said.set_item("steps", at.steps)?;
            said.set_item("loss", at.report.loss)?;
            said.set_item("lm_loss", at.report.lm_loss)?;
            said.set_item("vq_loss", at.report.vq_loss)?;
            said.set_item("perplexity", at.report.perplexity)?;
            said.set_item("used_codes", at.report.used_codes)?;
            said.set_item("learning_rate", at.report.learning_rate)?;
            said.set_item("images_per_s", at.images_per_s)?;
            said.set_item("seconds_left", at.seconds_left)?;
            said.set_item("fold", at.fold.0)?;
            if let Some(measured) = at.validation {
                said.set_item("validation_lm_loss", measured.lm_loss)?;
                said.set_item("validation_auc", measured.auc)?;
            }
            progress.call1(py, (said,)).map(drop)
        })
    }

    /// Makes a captioner of a Hugging Face BLIP captioning model and saves it in the folder `path`.
    ///
    /// Reads `config.json`, `model.safetensors` and `tokenizer.json` or `vocab.txt` from `source`,
    /// as `save_pretrained` writes them. Nothing is downloaded and nothing unpickled. `fit` comes
    /// next: it learns the codebook, too.
    ///
    /// Args:
    ///     source: Folder of the BLIP model.
    ///     path: The captioner directory to write; made if missing.
    ///     preview_size: Side of the previews. Default: the model's own; for another size the
    ///         position embeddings are interpolated.
    ///     batch_size: Rows of every encode batch and caption batch.
    ///     matcher: Folder of a Hugging Face BLIP for image-text retrieval, which then measures alignment.
    ///     device: `cpu` (the default), `cuda` or `cuda:N`.
    ///
    /// Raises:
    ///     ConfigError: An option cannot work.
    ///     DataError: A file is missing or not what it should be; names file and tensor.
    #[classmethod]
    #[pyo3(signature = (
        source, path, *, preview_size=None, batch_size=32, matcher=None, device=None
    ))]
    // Python's keyword-only arguments: nobody calls this from Rust.
    #[allow(clippy::too_many_arguments)]
    fn load_blip(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        source: PathBuf,
        path: PathBuf,
        preview_size: Option<Whole>,
        batch_size: Whole,
        matcher: Option<PathBuf>,
        device: Option<DeviceName>,
    ) -> PyResult<Self> {
        let device = device_or_cpu(device).or_raise(py)?;
        let mut options = BlipOptions {
            preview_size: preview_size.map(|n| whole("preview_size", n)).transpose().or_raise(py)?,
            batch_size: whole("batch_size", batch_size).or_raise(py)?,
            ..BlipOptions::default()
        };
        options.generation.batch_size = options.batch_size;
        let work = || {
            must_exist(
                "source",
                &source,
                "a folder with a Hugging Face BLIP, as `save_pretrained` writes it",
            )?;
            let mut model = tldr_loader::captioner::Captioner::load_blip(&source, &options, device)?;
            if let Some(matcher) = matcher {
                let accepted = "a folder with a Hugging Face BLIP for image-text retrieval";
                must_exist("matcher", &matcher, accepted)?;
                let size = Some(model.config().preview_size);
                let options = BlipOptions { preview_size: size, ..options };
                model.set_matcher(Some(Matcher::load_blip(&matcher, &options, device)?))?;
            }
            model.save(&path)?;
            Self::open(path, device)
        };
        py.detach(work).or_raise(py)
    }

    /// Changes how captions are written, in the captioner directory; what is `None` stays.
    ///
    /// Loaders made from then on write captions that way. Weights and clusters stay.
    ///
    /// Args:
    ///     decoding: `greedy`, `beam` (the likeliest of several that grow side by side) or
    ///         `nucleus` (drawn, by `seed` and sample).
    ///     beams: Captions that grow side by side, for `beam`.
    ///     length_penalty: Above 0 longer captions win more often, for `beam`.
    ///     top_p: Probability of the tokens that are drawn from, in (0, 1], for `nucleus`.
    ///     temperature: Divides the logits before drawing, for `nucleus`.
    ///     seed: Seed of what is drawn, for `nucleus`.
    ///     min_tokens: Fewest tokens of a caption.
    ///     max_tokens: Most tokens of a caption.
    ///     prompt: Text that every caption goes on from; it is not part of the caption.
    ///     repetition_penalty: Above 1 words are repeated less.
    ///     batch_size: Rows of every caption batch.
    ///
    /// Returns:
    ///     All settings from then on.
    ///
    /// Raises:
    ///     ConfigError: A setting cannot work; nothing is changed.
    #[pyo3(signature = (
        *, decoding=None, beams=None, length_penalty=None, top_p=None, temperature=None, seed=None,
        min_tokens=None, max_tokens=None, prompt=None, repetition_penalty=None, batch_size=None
    ))]
    // Python's keyword-only arguments: nobody calls this from Rust.
    #[allow(clippy::too_many_arguments)]
    fn set_generation<'py>(
        &self,
        py: Python<'py>,
        decoding: Option<&str>,
        beams: Option<Whole>,
        length_penalty: Option<f64>,
        top_p: Option<f64>,
        temperature: Option<f64>,
        seed: Option<Whole>,
        min_tokens: Option<Whole>,
        max_tokens: Option<Whole>,
        prompt: Option<String>,
        repetition_penalty: Option<f64>,
        batch_size: Option<Whole>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let decoding = decoding.map(Decoding::from_name).transpose().or_raise(py)?;
        let seed = seed.map(|n| whole("seed", n)).transpose().or_raise(py)?;
        let number = |name, value: Option<Whole>| -> PyResult<Option<usize>> {
            value.map(|n| whole(name, n)).transpose().or_raise(py)
        };
        let (beams, batch_size) = (number("beams", beams)?, number("batch_size", batch_size)?);
        let (least, most) = (number("min_tokens", min_tokens)?, number("max_tokens", max_tokens)?);
        let changed = set_generation(&self.path, |g| {
            g.decoding = decoding.unwrap_or(g.decoding);
            g.beams = beams.unwrap_or(g.beams);
            g.length_penalty = length_penalty.unwrap_or(g.length_penalty);
            g.top_p = top_p.unwrap_or(g.top_p);
            g.temperature = temperature.unwrap_or(g.temperature);
            g.seed = seed.unwrap_or(g.seed);
            g.min_tokens = least.unwrap_or(g.min_tokens);
            g.max_tokens = most.unwrap_or(g.max_tokens);
            g.repetition_penalty = repetition_penalty.unwrap_or(g.repetition_penalty);
            g.batch_size = batch_size.unwrap_or(g.batch_size);
            if let Some(prompt) = prompt {
                g.prompt = prompt;
            }
        });
        plain::to_python(py, &plain::of(&changed.or_raise(py)?)?)
    }

    /// Opens a captioner directory and checks it.
    ///
    /// Raises:
    ///     DataError: A file is missing or not what it should be.
    #[classmethod]
    #[pyo3(signature = (path, *, device=None))]
    fn load(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        path: PathBuf,
        device: Option<DeviceName>,
    ) -> PyResult<Self> {
        let device = device_or_cpu(device).or_raise(py)?;
        py.detach(|| Self::open(path, device)).or_raise(py)
    }

    /// Finds clusters, their shares and the alignment quantiles of a corpus, and saves them.
    ///
    /// Args:
    ///     urls: Shards, as for `Loader`.
    ///     clusters: Number of clusters. Default: a hundredth of the points, between 8 and 3000.
    ///     samples: Points to sample. Default: all, up to 300000.
    ///     alignment_norm: How raw alignments are made comparable.
    ///     features: What images are compared by: `bag-of-codes`, or `raw-index`, the public code's way,
    ///         as an ablation.
    ///     codes: Codes to learn for a loaded BLIP. Default: up to 3000, one for 64 sampled patches; a
    ///         codebook that is there is kept.
    ///     decode_from: What the decoder of a loaded BLIP attends to: `raw` or `quantised` patches.
    ///         Default: as before, `raw` at first.
    ///     seed: Seed of sampling and of initial centroids.
    ///     caption_key: Field of the json member that holds the caption; the txt member is used where
    ///         a sample lacks it. Default: the txt member.
    ///     where: Only samples whose metadata pass, as for `Loader`.
    ///     subset: Only samples that this file lists, as for `Loader`.
    ///     captions: A file of captions by key, as for `Loader`.
    ///     endpoint: URL of a server that speaks S3, as for `Loader`.
    ///     read_timeout: Seconds to wait for the next bytes of a remote shard. Default: 30.
    ///     retries: Times that a request to a store is made again. Default: 8.
    ///     progress: Called as `progress(done, total)`, in images while a codebook is learned, then in
    ///         points; an exception from it ends the run.
    ///
    /// Returns:
    ///     `points` and `failed` samples, `clusters`, `errors` (mean of 1 - cosine in each cluster),
    ///     `runs`, `pass_rate` of a gate of one half, also `pass_by_run`, `pass_by_source` and
    ///     `pass_by_length` (shortest and longest caption in tokens, points, rate), `warnings`,
    ///     `seconds`; `directions`, the length of an embedding, `None` where fewer than 32 images were seen
    ///     and embeddings are mean patches; `codebook` is `None`, or where one was learned `codes`, `patches`
    ///     and `error`, the share of the patches' variance that the codes lose.
    #[pyo3(signature = (
        urls, *, clusters=None, samples=None, alignment_norm=None, features="bag-of-codes", codes=None,
        decode_from=None, seed=0, caption_key=None, r#where=None, subset=None, captions=None, endpoint=None,
        read_timeout=None, retries=None, progress=None
    ))]
    // Python's keyword-only arguments: nobody calls this from Rust.
    #[allow(clippy::too_many_arguments)]
    fn fit<'py>(
        &self,
        py: Python<'py>,
        urls: Urls,
        clusters: Option<Whole>,
        samples: Option<Whole>,
        alignment_norm: Option<&str>,
        features: &str,
        codes: Option<Whole>,
        decode_from: Option<&str>,
        seed: Whole,
        caption_key: Option<String>,
        r#where: Option<&str>,
        subset: Option<PathBuf>,
        captions: Option<PathBuf>,
        endpoint: Option<String>,
        read_timeout: Option<f64>,
        retries: Option<Whole>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mut job = FitJob {
            clusters: clusters.map(|n| whole("clusters", n)).transpose().or_raise(py)?,
            samples: samples.map(|n| whole("samples", n)).transpose().or_raise(py)?,
            features: Features::from_name(features).or_raise(py)?,
            codes: codes.map(|n| whole("codes", n)).transpose().or_raise(py)?,
            decode_from: decode_from.map(DecodeFrom::from_name).transpose().or_raise(py)?,
            seed: whole("seed", seed).or_raise(py)?,
            device: device_name(self.device),
            read: ReadOptions::open(caption_key, r#where, subset.as_deref(), captions.as_deref())
                .or_raise(py)?,
            stores: options::stores(endpoint, read_timeout, retries).or_raise(py)?,
            ..FitJob::new(urls.patterns(), &self.path)
        };
        if let Some(name) = alignment_norm {
            let unknown = || Error::option("alignment_norm", name, "sum, mean or matched");
            job.alignment_norm = AlignmentNorm::from_name(name).ok_or_else(unknown).or_raise(py)?;
        }
        let work = move |report: &mut dyn FnMut(_) -> Result<()>| {
            jobs::fit(&job, &mut |done, total| report((done, total)))
        };
        let fitted = interruptible(py, "fit", work, |(done, total): (u64, u64)| {
            let Some(progress) = &progress else { return Ok(()) };
            progress.call1(py, (done, total)).map(drop)
        })?;
        *self.clusters.lock().unwrap_or_else(PoisonError::into_inner) = Some(fitted.clusters);
        report::of(py, fitted)
    }

    /// The captioner directory.
    #[getter(path)]
    fn python_path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Where it runs.
    #[getter(device)]
    fn python_device(&self) -> String {
        device_name(self.device)
    }

    /// Number of clusters; `None` before the fit.
    #[getter]
    fn clusters(&self) -> Option<usize> {
        *self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of trained weights.
    #[getter]
    fn weights(&self) -> usize {
        self.weights
    }

    /// Side of the square previews it takes, in pixels.
    #[getter]
    fn preview_size(&self) -> usize {
        self.preview_size
    }

    fn __repr__(&self) -> String {
        let clusters = self.clusters().map_or("None".into(), |n| n.to_string());
        format!(
            "Captioner({:?}, device={:?}, clusters={clusters}, weights={})",
            self.path,
            device_name(self.device),
            self.weights
        )
    }
}
