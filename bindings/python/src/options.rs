//! Arguments of a loader.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyMapping;
use tldr_loader::image::ImageTransform;
use tldr_loader::loader::{Loader, LoaderBuilder, Mode, OnError, PixelType};
use tldr_loader::select::KeepRatio;
use tldr_loader::{Error, Result};
use tldr_python::arguments::{DeviceName, Urls, Whole, choose, whole};
use tldr_python::errors::OrRaise;
use tldr_python::from_python;
use tldr_python::given::{Given, is_no_bool};

use crate::scorer::Source;

from_python! {
    Corpora: "a pattern of shards (str or os.PathLike), a list of them, or a dict of patterns and weights; of a \
              generator, list(...)";
    Ratio: "a number in (0, 1], or a dict of them by first epoch", is_no_bool;
}

/// What the option `tokenizer` takes.
pub(crate) const TOKENIZER: &str = "the path of a tokenizer.json, or of open_clip's merges file \
                                    (bpe_simple_vocab_16e6.txt.gz in its package)";

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

/// Where captioner and judge run, where that was given.
///
/// # Errors
/// Neither is loaded from a directory here.
pub(crate) fn captioner_device(
    given: &Given<'_>,
    captioner: Option<&Source>,
    judge: Option<&Source>,
) -> PyResult<Option<String>> {
    let Some(name) = given.take::<DeviceName>("captioner_device")? else { return Ok(None) };
    if captioner.is_some_and(Source::is_directory) || judge.is_some_and(Source::is_directory) {
        return Ok(Some(name.0));
    }
    let accepted = if captioner.is_none() && judge.is_none() {
        "left out without a captioner and a judge, whose device it is"
    } else {
        "left out beside a `Captioner` or `Matcher`, which runs where it was loaded; give its device there, or \
         its directory here"
    };
    Err(Error::option("captioner_device", name.0, accepted)).or_raise(given.py())
}
