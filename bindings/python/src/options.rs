//! Arguments as Python gives them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};
use tldr_loader::captioner::{self, BlipOptions, Decoding, GenerationChange, parse_device};
use tldr_loader::image::ImageTransform;
use tldr_loader::loader::{Loader, LoaderBuilder, Mode, OnError, PixelType};
use tldr_loader::select::KeepRatio;
use tldr_loader::shard::{ReadOptions, StoreOptions};
use tldr_loader::{Error, ErrorKind, Result};

use crate::captioner::Captioner;
use crate::errors::OrRaise;
use crate::given::{FromPython, Given, from_python, is_no_bool};
use crate::matcher::Matcher;

from_python! {
    Urls: "a pattern of shards (str or os.PathLike) or a list of them; of a generator, list(...)";
    Corpora: "a pattern of shards (str or os.PathLike), a list of them, or a dict of patterns and weights; of a \
              generator, list(...)";
    CaptionerSource: "a captioner directory (a path), or a `Captioner`; `Captioner.load_blip` makes one of a BLIP";
    JudgeSource: "a directory of a captioner or a matcher (a path), a `Captioner`, or a `Matcher`";
    Ratio: "a number in (0, 1], or a dict of them by first epoch", is_no_bool;
}

/// What the option `tokenizer` takes.
pub(crate) const TOKENIZER: &str = "the path of a tokenizer.json, or of open_clip's merges file \
                                    (bpe_simple_vocab_16e6.txt.gz in its package)";
/// What the option `subset` takes.
pub(crate) const SUBSET: &str = "the path of a .parquet, .jsonl, .txt or .npy file that lists samples";
/// What the option `captions` takes.
pub(crate) const CAPTIONS: &str = "the path of a .parquet, .jsonl or .tsv file of captions";

/// A shard pattern, or several.
#[derive(FromPyObject)]
pub(crate) enum Urls {
    /// One.
    One(PathBuf),
    /// Several.
    Many(Vec<PathBuf>),
}

impl Urls {
    /// The patterns as text.
    pub(crate) fn patterns(self) -> Vec<String> {
        let paths = match self {
            Self::One(path) => vec![path],
            Self::Many(paths) => paths,
        };
        paths.into_iter().map(|p| p.to_string_lossy().into_owned()).collect()
    }
}

/// What a loader reads.
pub(crate) enum Corpora {
    /// Shards.
    Urls(Urls),
    /// Patterns and their weights, in order.
    Weighted(Vec<(PathBuf, f64)>),
}

impl FromPyObject<'_, '_> for Corpora {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match value.cast::<PyMapping>() {
            Ok(weights) => Ok(Self::Weighted(weights.items()?.extract()?)),
            Err(_) => Ok(Self::Urls(value.extract()?)),
        }
    }
}

impl Corpora {
    /// A loader of it, with the defaults of every option.
    pub(crate) fn builder(self) -> LoaderBuilder {
        match self {
            Self::Urls(urls) => Loader::builder(urls.patterns()),
            Self::Weighted(sources) => {
                let text = |(path, weight): (PathBuf, f64)| (path.to_string_lossy().into_owned(), weight);
                Loader::mix(sources.into_iter().map(text))
            }
        }
    }
}

/// A captioner directory, or a captioner.
#[derive(FromPyObject)]
pub(crate) enum CaptionerSource {
    /// A captioner: its own directory and device.
    Loaded(Py<Captioner>),
    /// A directory.
    Directory(PathBuf),
}

impl CaptionerSource {
    /// Loads the model for one loader, which owns it. `device` is used for a plain directory.
    pub(crate) fn load(
        &self,
        option: &'static str,
        device: tch::Device,
    ) -> Result<tldr_loader::captioner::Captioner> {
        let (path, device) = match self {
            Self::Loaded(captioner) => (captioner.get().path(), captioner.get().device()),
            Self::Directory(path) => (path.as_path(), device),
        };
        must_exist(option, path, "a captioner directory, as `Captioner.train` writes it")?;
        tldr_loader::captioner::Captioner::load(path, device)
    }
}

/// What scores generated captions.
#[derive(FromPyObject)]
pub(crate) enum JudgeSource {
    /// An image-text matching model: its own directory and device.
    Matcher(Py<Matcher>),
    /// A captioner, or a directory of either kind.
    Other(CaptionerSource),
}

impl JudgeSource {
    /// Loads the model for one loader, which owns it.
    pub(crate) fn judge(&self, builder: LoaderBuilder, device: tch::Device) -> Result<LoaderBuilder> {
        let (path, device) = match self {
            Self::Matcher(matcher) => (matcher.get().path(), matcher.get().device()),
            Self::Other(CaptionerSource::Directory(path)) => (path.as_path(), device),
            Self::Other(source @ CaptionerSource::Loaded(_)) => {
                return fitted(builder, source, device);
            }
        };
        must_exist("judge", path, "a directory of a captioner or a matcher")?;
        if captioner::Matcher::is_at(path) {
            return Ok(builder.judge(captioner::Matcher::load(path, device)?));
        }
        fitted(builder, &CaptionerSource::Directory(path.to_owned()), device)
    }
}

/// A captioner as judge, which needs its quantiles.
fn fitted(builder: LoaderBuilder, source: &CaptionerSource, device: tch::Device) -> Result<LoaderBuilder> {
    let model = source.load("judge", device)?;
    if model.clusters().is_none() {
        let accepted = "it has no clusters yet: run `Captioner.fit` or `tldr-loader fit` first";
        return Err(Error::option("judge", "a directory without clusters.safetensors", accepted));
    }
    Ok(builder.judge(model))
}

/// Refuses a path that leads nowhere, naming the option it was given for.
pub(crate) fn must_exist(option: &'static str, path: &Path, accepted: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(Error::option(option, path.display(), format!("it does not exist; accepted is {accepted}")))
}

/// `cpu`, `cuda` or `cuda:N`, from text or a `torch.device`.
pub(crate) struct DeviceName(pub(crate) String);

impl<'py> FromPython<'py> for DeviceName {
    const ACCEPTED: &'static str = "cpu, cuda or cuda:N, as a text or a torch.device";

    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self> {
        let kind = value.get_type().fully_qualified_name().ok()?;
        let is_device = value.is_instance_of::<PyString>() || kind.to_string_lossy() == "torch.device";
        is_device.then(|| value.str().ok()?.extract().ok()).flatten().map(Self)
    }
}

impl DeviceName {
    /// `cuda` is the GPU that torch uses, as everywhere in torch: ranks that chose theirs by
    /// `torch.cuda.set_device` do not share the first.
    fn with_index(&self) -> String {
        let current = |py: Python<'_>| -> PyResult<Option<i32>> {
            let cuda = py.import("torch.cuda")?;
            let there: bool = cuda.call_method0("is_available")?.extract()?;
            there.then(|| cuda.call_method0("current_device")?.extract()).transpose()
        };
        // What torch cannot say, libtorch will.
        let index = if self.0 == "cuda" { Python::attach(current).ok().flatten() } else { None };
        index.map_or_else(|| self.0.clone(), |index| format!("cuda:{index}"))
    }

    /// The device, where it is there; `option` is what it was given for.
    pub(crate) fn parse(&self, option: &'static str) -> Result<tch::Device> {
        parse_device(&self.with_index()).map_err(|error| match error.kind {
            ErrorKind::Option { given, accepted, .. } => Error::option(option, given, accepted),
            kind => kind.into(),
        })
    }
}

/// A keep_ratio: one, or one from each of several epochs on.
#[derive(FromPyObject)]
pub(crate) enum Ratio {
    /// For all epochs.
    One(f64),
    /// By first epoch.
    ByEpoch(BTreeMap<Whole, f64>),
}

impl Ratio {
    /// What the loader takes.
    pub(crate) fn parse(self) -> Result<KeepRatio> {
        match self {
            Self::One(ratio) => Ok(ratio.into()),
            Self::ByEpoch(steps) => {
                let step = |(epoch, ratio)| Ok((whole("keep_ratio", epoch)?, ratio));
                steps.into_iter().map(step).collect::<Result<Vec<_>>>().map(KeepRatio::from)
            }
        }
    }
}

/// Whole numbers as Python gives them: wide enough for what cannot be used to arrive here, where
/// the error can name the option.
pub(crate) type Whole = i128;

/// `given` as the unsigned number that an option takes.
pub(crate) fn whole<T: TryFrom<Whole>>(option: &'static str, given: Whole) -> Result<T> {
    T::try_from(given).map_err(|_| {
        let accepted = if given < 0 { "a whole number, 0 or more" } else { "a smaller number" };
        Error::option(option, given, accepted)
    })
}

/// Looks `given` up among the accepted names of an option.
fn choose<T: Copy>(option: &'static str, given: &str, accepted: &[(&str, T)]) -> Result<T> {
    accepted.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = accepted.iter().map(|(name, _)| *name).collect();
        Error::option(option, given, format!("one of {}", names.join(", ")))
    })
}

/// A time in seconds.
fn seconds(option: &'static str, given: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(given)
        .map_err(|_| Error::option(option, given, "a number of seconds, more than 0"))
}

/// How remote shards are read, by the names of a loader's options.
pub(crate) fn stores(given: &Given<'_>) -> PyResult<StoreOptions> {
    let default = StoreOptions::default();
    Ok(StoreOptions {
        endpoint: given.take("endpoint")?,
        read_timeout: duration(given, "read_timeout")?.unwrap_or(default.read_timeout),
        retries: given.take_whole("retries")?.unwrap_or(default.retries),
        ..default
    })
}

/// A time in seconds.
pub(crate) fn duration(given: &Given<'_>, option: &'static str) -> PyResult<Option<Duration>> {
    let Some(number) = given.take(option)? else { return Ok(None) };
    seconds(option, number).map(Some).or_raise(given.py())
}

/// How samples are read, by the names of a loader's options; opens the tables.
pub(crate) fn reading(given: &Given<'_>) -> PyResult<ReadOptions> {
    let (key, filter): (Option<String>, Option<String>) = (given.take("caption_key")?, given.take("where")?);
    let subset: Option<PathBuf> = given.take_as("subset", SUBSET)?;
    let captions: Option<PathBuf> = given.take_as("captions", CAPTIONS)?;
    ReadOptions::open(key, filter.as_deref(), subset.as_deref(), captions.as_deref()).or_raise(given.py())
}

/// The device that was given, or the CPU.
pub(crate) fn device_or_cpu(given: &Given<'_>) -> PyResult<tch::Device> {
    let name: Option<DeviceName> = given.take("device")?;
    name.map_or(Ok(tch::Device::Cpu), |name| name.parse("device")).or_raise(given.py())
}

pub(crate) fn mode(name: &str) -> Result<Mode> {
    choose("mode", name, &[("reduced", Mode::Reduced), ("full", Mode::Full), ("eval", Mode::Eval)])
}

pub(crate) fn on_error(name: &str) -> Result<OnError> {
    choose("on_error", name, &[("skip", OnError::Skip), ("raise", OnError::Raise)])
}

pub(crate) fn pixels(name: &str) -> Result<PixelType> {
    choose(
        "pixels",
        name,
        &[("float32", PixelType::F32), ("bfloat16", PixelType::Bf16), ("uint8", PixelType::U8)],
    )
}

/// Sizes of a loaded BLIP.
pub(crate) fn blip(given: &Given<'_>) -> PyResult<BlipOptions> {
    let default = BlipOptions::default();
    Ok(BlipOptions {
        preview_size: given.take_whole("preview_size")?,
        batch_size: given.take_whole("batch_size")?.unwrap_or(default.batch_size),
        ..default
    })
}

/// How captions are to be written from now on.
pub(crate) fn generation(given: &Given<'_>) -> PyResult<GenerationChange> {
    Ok(GenerationChange {
        batch_size: given.take_whole("batch_size")?,
        min_tokens: given.take_whole("min_tokens")?,
        max_tokens: given.take_whole("max_tokens")?,
        decoding: given.take_name("decoding", Decoding::from_name)?,
        beams: given.take_whole("beams")?,
        length_penalty: given.take("length_penalty")?,
        top_p: given.take("top_p")?,
        temperature: given.take("temperature")?,
        seed: given.take_whole("seed")?,
        prompt: given.take("prompt")?,
        repetition_penalty: given.take("repetition_penalty")?,
    })
}

/// Where captioner and judge run, where that was given.
///
/// # Errors
/// Neither is loaded from a directory here.
pub(crate) fn captioner_device(
    given: &Given<'_>,
    captioner: Option<&CaptionerSource>,
    judge: Option<&JudgeSource>,
) -> PyResult<Option<tch::Device>> {
    let Some(name) = given.take::<DeviceName>("captioner_device")? else { return Ok(None) };
    let device = name.parse("captioner_device").or_raise(given.py())?;
    let is_used = matches!(captioner, Some(CaptionerSource::Directory(_)))
        || matches!(judge, Some(JudgeSource::Other(CaptionerSource::Directory(_))));
    if is_used {
        return Ok(Some(device));
    }
    let accepted = if captioner.is_none() && judge.is_none() {
        "left out without a captioner and a judge, whose device it is"
    } else {
        "left out beside a `Captioner` or `Matcher`, which runs where it was loaded; give its device there, or \
         its directory here"
    };
    Err(Error::option("captioner_device", name.0, accepted)).or_raise(given.py())
}

/// The transform, where one of its options was given; what was not is as the `mode` has it.
pub(crate) fn transform(given: &Given<'_>, mode: Mode) -> PyResult<Option<ImageTransform>> {
    let name: Option<String> = given.take("transform")?;
    let (scale, ratio) = (given.take("crop_scale")?, given.take("crop_ratio")?);
    let flip = given.take("flip")?;
    if name.is_none() && scale.is_none() && ratio.is_none() && flip.is_none() {
        return Ok(None);
    }
    let name = name.as_deref().unwrap_or(if mode == Mode::Eval { "eval" } else { "train" });
    chosen_transform(name, scale, ratio, flip).map(Some).or_raise(given.py())
}

/// The transform of that name; numbers that were not given are the training transform's own.
fn chosen_transform(
    name: &str,
    crop_scale: Option<[f64; 2]>,
    crop_ratio: Option<[f64; 2]>,
    flip: Option<f64>,
) -> Result<ImageTransform> {
    let mut chosen = choose(
        "transform",
        name,
        &[
            ("train", ImageTransform::TRAIN),
            ("eval", ImageTransform::Eval),
            ("preview", ImageTransform::Preview),
        ],
    )?;
    match &mut chosen {
        ImageTransform::Train { scale, ratio, flip: own } => {
            *scale = crop_scale.map_or(*scale, |[least, greatest]| (least, greatest));
            *ratio = crop_ratio.map_or(*ratio, |[least, greatest]| (least, greatest));
            *own = flip.unwrap_or(*own);
        }
        _ if crop_scale.is_some() || crop_ratio.is_some() || flip.is_some() => {
            let accepted = "train, for crop_scale, crop_ratio and flip to have a meaning";
            return Err(Error::option("transform", name, accepted));
        }
        _ => {}
    }
    Ok(chosen)
}
