//! Arguments as Python gives them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyMapping;
use tldr_loader::captioner::{self, parse_device};
use tldr_loader::image::ImageTransform;
use tldr_loader::loader::{Loader, LoaderBuilder, Mode, OnError, PixelType};
use tldr_loader::select::{GateBy, KeepRatio, Priority};
use tldr_loader::shard::StoreOptions;
use tldr_loader::{Error, ErrorKind, Result};

use crate::captioner::Captioner;
use crate::matcher::Matcher;

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

impl FromPyObject<'_, '_> for DeviceName {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        Ok(Self(value.str()?.extract()?))
    }
}

impl DeviceName {
    /// The device, where it is there; `option` is what it was given for.
    pub(crate) fn parse(&self, option: &'static str) -> Result<tch::Device> {
        parse_device(&self.0).map_err(|error| match error.kind {
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

/// A time in seconds after which something ends; none for never.
pub(crate) fn timeout(option: &'static str, given: Option<f64>) -> Result<Option<Duration>> {
    given.map(|given| seconds(option, given)).transpose()
}

/// A time in seconds.
pub(crate) fn seconds(option: &'static str, given: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(given)
        .map_err(|_| Error::option(option, given, "a number of seconds, more than 0"))
}

/// How remote shards are read, by the names of a loader's options.
pub(crate) fn stores(
    endpoint: Option<String>,
    read_timeout: Option<f64>,
    retries: Option<Whole>,
) -> Result<StoreOptions> {
    let mut stores = StoreOptions { endpoint, ..StoreOptions::default() };
    if let Some(given) = read_timeout {
        stores.read_timeout = seconds("read_timeout", given)?;
    }
    if let Some(given) = retries {
        stores.retries = whole("retries", given)?;
    }
    Ok(stores)
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

pub(crate) fn gate_by(name: &str) -> Result<GateBy> {
    name.parse()
}

pub(crate) fn priority(name: &str) -> Result<Priority> {
    name.parse()
}

/// The transform of that name; numbers that were not given are the training transform's own.
pub(crate) fn transform(
    name: &str,
    crop_scale: Option<(f64, f64)>,
    crop_ratio: Option<(f64, f64)>,
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
            *scale = crop_scale.unwrap_or(*scale);
            *ratio = crop_ratio.unwrap_or(*ratio);
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
