//! `Captioner`: train, load, fit, settings of captions.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};
use tch::Device;
use tldr_captioner::jobs::{self, FitJob, Resume, TrainJob};
use tldr_captioner::{
    Augment, BlipOptions, CodebookStart, CodebookUpdate, Decay, DecodeFrom, Matcher, Precision, device_name,
    set_generation,
};
use tldr_loader::cluster::{AlignmentNorm, Features, GateWorth};
use tldr_loader::config::Images;
use tldr_loader::loader::GateStats;
use tldr_loader::{Error, Result};
use tldr_python::arguments::must_exist;
use tldr_python::errors::OrRaise;
use tldr_python::given::{Callback, Given, read};
use tldr_python::interrupt::interruptible;
use tldr_python::{plain, values};

use crate::options;
use crate::report;
use crate::scorer::Scorer;

/// A captioner directory that was found to be sound. Each loader loads its own model from it.
#[pyclass(frozen, module = "tldr_loader_captioner")]
pub(crate) struct Captioner {
    path: PathBuf,
    device: Device,
    /// Number of clusters, `None` before the fit, and what a gate is worth, where it was measured.
    fitted: Mutex<(Option<usize>, Option<GateWorth>)>,
    weights: usize,
    preview_size: usize,
}

impl Captioner {
    fn fitted(&self) -> (Option<usize>, Option<GateWorth>) {
        *self.fitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(path: PathBuf, device: Device) -> Result<Self> {
        let model = tldr_captioner::Captioner::load(&path, device)?;
        let worth = match model.clusters() {
            Some(clusters) => clusters.worth,
            None => jobs::worth_of_training(&path)?,
        };
        Ok(Self {
            device,
            fitted: Mutex::new((model.clusters().map(|c| c.len()), worth)),
            weights: model.weights(),
            preview_size: model.config().preview_size,
            path,
        })
    }
}

/// What is wrong with a size of the vocabulary beside a tokenizer.
const WITH_TOKENIZER: &str = "with a tokenizer, which has its vocabulary already";

#[pymethods]
impl Captioner {
    /// Trains a captioner from scratch on image-caption pairs and saves it in the folder `path`.
    ///
    /// Args:
    ///     source: Shards or a `Source`, as for `Loader`.
    ///     path: The captioner directory to write; made if missing.
    ///     images: `max_image_pixels`, `exif_orientation` and `alpha`, as in the loaders to come.
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
    ///     validate: What is validated on instead of trained on: a share of the shards below 1 (of the
    ///         samples, where that is less than one shard), or a count of shards; 0 for nothing. Default:
    ///         about 2048 pairs, a tenth of the corpus at most, and nothing of fewer than 160 pairs.
    ///     checkpoint_every: Steps between two checkpoints, each with a validation; 0 for none. They
    ///         lie beside the captioner, in `path` with `.checkpoint` behind it, until it is whole.
    ///     resume: What to do with a checkpoint that is there: go on from it (`auto`), start anew
    ///         (`never`), or fail without one (`must`). One of other settings is an error.
    ///     folds: With 2, two captioners are trained, each on its own half of the shards, in
    ///         `path/fold-0` (which is returned) and `path/fold-1`: one can judge what the other has
    ///         seen. `path/folds.json` says which shards each has seen.
    ///     seed: Seed of weights, order, dropped images and what is held out.
    ///     threads: Threads that train, on a CPU. Default: one per core.
    ///     device: `cpu` (the default), `cuda` or `cuda:N`.
    ///     progress: Called after each step with a dict of `step`, `steps`, `loss`, `lm_loss`,
    ///         `vq_loss`, `perplexity`, `used_codes`, `learning_rate`, `images_per_s`, `seconds_left`,
    ///         `fold`, and once measured `validation_lm_loss` and `validation_auc`; an exception from
    ///         it ends the run.
    ///
    /// Raises:
    ///     ConfigError: An option cannot work.
    ///     DataError: A file is not what it should be; a loss is not finite: names step and keys.
    #[classmethod]
    #[pyo3(
        signature = (source, path, **options),
        text_signature = "($cls, source, path, *, images=None, preset='small', tokenizer=None, vocab_size=2000, epochs=10, batch_size=32, \
            accumulate=1, precision=None, learning_rate=None, schedule='cosine', warmup=3000, \
            augment='none', codebook_start='patches', codebook_update='ema', commitment=0.25, validate=None, \
            checkpoint_every=1000, resume='auto', folds=1, seed=0, threads=None, device=None, \
            progress=None)"
    )]
    fn train(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        path: &Bound<'_, PyAny>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let path: PathBuf = read("path", path)?;
        let given = Given::new(py, "train", options);
        let mut job = TrainJob { source: values::source(source)?, ..TrainJob::new(vec![], &path) };
        macro_rules! set {
            ($take:ident: $($name:ident $(, $by:expr)?;)*) => {
                $(if let Some(value) = given.$take(stringify!($name) $(, $by)?)? {
                    job.$name = value;
                })*
            };
        }
        set!(take_whole:
            epochs;
            batch_size;
            accumulate;
            warmup;
            checkpoint_every;
            seed;
            threads;
        );
        set!(take:
            preset;
            commitment;
        );
        set!(take_name:
            schedule, Decay::from_name;
            augment, Augment::from_name;
            codebook_start, CodebookStart::from_name;
            codebook_update, CodebookUpdate::from_name;
            resume, Resume::from_name;
        );
        job.decode = given.take_group::<Images>("images")?.decode();
        job.precision = given.take_name("precision", Precision::from_name)?;
        job.learning_rate = given.take("learning_rate")?.or(job.learning_rate);
        job.validate = given.take("validate")?;
        job.tokenizer = given.take_as("tokenizer", "the path of a tokenizer.json")?;
        if let Some(size) = given.take_whole("vocab_size")? {
            if job.tokenizer.is_some() {
                return Err(Error::unused("vocab_size", size, WITH_TOKENIZER)).or_raise(py);
            }
            job.vocab_size = size;
        }
        let device = options::device_or_cpu(&given)?;
        job.device = device_name(device);
        let folds = given.take_whole("folds")?.unwrap_or(1_usize);
        let progress: Option<Callback> = given.take("progress")?;
        given.end()?;
        let work = move |report: &mut dyn FnMut(_) -> Result<()>| {
            if folds == 1 {
                jobs::train(&job, &mut |at| report(*at))?;
                return Captioner::open(path, device);
            }
            jobs::train_folds(&job, folds, &mut |at| report(*at))?;
            Captioner::open(path.join("fold-0"), device)
        };
        let trained = interruptible(py, "train", work, |at: jobs::TrainProgress| {
            let Some(progress) = &progress else { return Ok(()) };
            progress.0.call1(py, (report::of_step(py, &at)?,)).map(drop)
        })?;
        report::say_worth(py, trained.fitted().1)?;
        Ok(trained)
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
    #[pyo3(
        signature = (source, path, **options),
        text_signature = "($cls, source, path, *, preview_size=None, batch_size=32, matcher=None, device=None)"
    )]
    fn load_blip(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        path: &Bound<'_, PyAny>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (source, path): (PathBuf, PathBuf) = (read("source", source)?, read("path", path)?);
        let given = Given::new(py, "load_blip", options);
        let matcher: Option<PathBuf> = given.take("matcher")?;
        let device = options::device_or_cpu(&given)?;
        let mut options = options::blip(&given)?;
        given.end()?;
        options.generation.batch_size = options.batch_size;
        let work = || {
            must_exist(
                "source",
                &source,
                "a folder with a Hugging Face BLIP, as `save_pretrained` writes it",
            )?;
            let mut model = tldr_captioner::Captioner::load_blip(&source, &options, device)?;
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
    #[pyo3(
        signature = (**options),
        text_signature = "($self, *, decoding=None, beams=None, length_penalty=None, top_p=None, temperature=None, \
            seed=None, min_tokens=None, max_tokens=None, prompt=None, repetition_penalty=None, \
            batch_size=None)"
    )]
    fn set_generation<'py>(
        &self,
        py: Python<'py>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let given = Given::new(py, "set_generation", options);
        let change = options::generation(&given)?;
        given.end()?;
        let changed = set_generation(&self.path, change);
        plain::to_python(py, &plain::of(&changed.or_raise(py)?)?)
    }

    /// Opens a captioner directory and checks it.
    ///
    /// Raises:
    ///     DataError: A file is missing or not what it should be.
    #[classmethod]
    #[pyo3(
        signature = (path, **options),
        text_signature = "($cls, path, *, device=None)"
    )]
    fn load(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let path = read("path", path)?;
        let given = Given::new(py, "load", options);
        let device = options::device_or_cpu(&given)?;
        given.end()?;
        py.detach(|| Self::open(path, device)).or_raise(py)
    }

    /// Finds clusters, their shares and the alignment quantiles of a corpus, and saves them.
    ///
    /// Args:
    ///     source: Shards or a `Source`, as for `Loader`.
    ///     images: `max_image_pixels`, `exif_orientation` and `alpha`, as in the loaders to come.
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
    ///     progress: Called as `progress(done, total)`, in images while a codebook is learned, then in
    ///         points; an exception from it ends the run.
    ///
    /// Returns:
    ///     `points` and `failed` samples, `clusters`, `errors` (mean of 1 - cosine in each cluster),
    ///     `runs`, `pass_rate` of a gate of one half, also `pass_by_run`, `pass_by_source` and
    ///     `pass_by_length` (shortest and longest caption in tokens, points, rate), `warnings`,
    ///     `seconds`; `directions`, the length of an embedding, `None` where fewer than 32 images were seen
    ///     and embeddings are mean patches; `codebook` is `None`, or where one was learned `codes`, `patches`
    ///     and `error`, the share of the patches' variance that the codes lose; `validation` as the property
    ///     of this name; `captions` says of generated ones how many were `sampled`, and of these are `empty`,
    ///     `repetitive` or `equal` to another picture's, and which is the `commonest`. Warnings are logged.
    #[pyo3(
        signature = (source, **options),
        text_signature = "($self, source, *, images=None, clusters=None, samples=None, alignment_norm=None, \
            features='bag-of-codes', codes=None, decode_from=None, seed=0, progress=None)"
    )]
    fn fit<'py>(
        &self,
        py: Python<'py>,
        source: &Bound<'py, PyAny>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let given = Given::new(py, "fit", options);
        let default = FitJob { source: values::source(source)?, ..FitJob::new(vec![], &self.path) };
        let job = FitJob {
            decode: given.take_group::<Images>("images")?.decode(),
            clusters: given.take_whole("clusters")?,
            samples: given.take_whole("samples")?,
            alignment_norm: given
                .take_name("alignment_norm", AlignmentNorm::from_name)?
                .unwrap_or(default.alignment_norm),
            features: given.take_name("features", Features::from_name)?.unwrap_or(default.features),
            codes: given.take_whole("codes")?,
            decode_from: given.take_name("decode_from", DecodeFrom::from_name)?,
            seed: given.take_whole("seed")?.unwrap_or(default.seed),
            device: device_name(self.device),
            ..default
        };
        let progress: Option<Callback> = given.take("progress")?;
        given.end()?;
        let work = move |report: &mut dyn FnMut(_) -> Result<()>| {
            jobs::fit(&job, &mut |done, total| report((done, total)))
        };
        let fitted = interruptible(py, "fit", work, |(done, total): (u64, u64)| {
            let Some(progress) = &progress else { return Ok(()) };
            progress.0.call1(py, (done, total)).map(drop)
        })?;
        *self.fitted.lock().unwrap_or_else(PoisonError::into_inner) = (Some(fitted.clusters), fitted.worth);
        report::of(py, fitted)
    }

    /// The model, loaded for one loader: `tldr_loader` asks for it.
    fn _scorer(&self, py: Python<'_>) -> PyResult<Scorer> {
        py.detach(|| Scorer::load("captioner", &self.path, self.device)).or_raise(py)
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
        self.fitted().0
    }

    /// Number of trained weights.
    #[getter]
    fn weights(&self) -> usize {
        self.weights
    }

    /// What a gate by this captioner's alignment is worth; `None` where it was not measured.
    ///
    /// `auc` is the chance that an image's own caption aligns better than a swapped one (0.5 is guessing),
    /// `auc_error` its standard error; `close_to_chance` says whether it is below 0.6, or within two
    /// standard errors of 0.5. `perplexity` is that of true captions, `pairs` the number that was
    /// measured, and `measured_on` which: `held-out` of the training, of a fit's `sample`, or `trained` on.
    #[getter]
    fn validation<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let worth = self.fitted().1;
        worth.map(|worth| plain::to_python(py, &plain::of(&GateStats::from(worth))?)).transpose()
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
