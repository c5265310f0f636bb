//! Arguments that functions of both packages take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyString;
use tldr_loader::shard::{ReadOptions, StoreOptions};
use tldr_loader::{Error, Result};

use crate::errors::OrRaise;
use crate::from_python;
use crate::given::{FromPython, Given};

from_python! {
    Urls: "a pattern of shards (str or os.PathLike) or a list of them; of a generator, list(...)";
}

/// What the option `subset` takes.
pub const SUBSET: &str = "the path of a .parquet, .jsonl, .txt or .npy file that lists samples";
/// What the option `captions` takes.
pub const CAPTIONS: &str = "the path of a .parquet, .jsonl or .tsv file of captions";

/// A shard pattern, or several.
#[derive(FromPyObject)]
pub enum Urls {
    /// One.
    One(PathBuf),
    /// Several.
    Many(Vec<PathBuf>),
}

impl Urls {
    /// The patterns as text.
    pub fn patterns(self) -> Vec<String> {
        let paths = match self {
            Self::One(path) => vec![path],
            Self::Many(paths) => paths,
        };
        paths.into_iter().map(|p| p.to_string_lossy().into_owned()).collect()
    }
}

/// Refuses a path that leads nowhere, naming the option it was given for.
pub fn must_exist(option: &'static str, path: &Path, accepted: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(Error::option(option, path.display(), format!("it does not exist; accepted is {accepted}")))
}

/// `cpu`, `cuda` or `cuda:N`, from text or a `torch.device`.
pub struct DeviceName(pub String);

impl<'py> FromPython<'py> for DeviceName {
    const ACCEPTED: &'static str = "cpu, cuda or cuda:N, as a text or a torch.device";

    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self> {
        let kind = value.get_type().fully_qualified_name().ok()?;
        let is_device = value.is_instance_of::<PyString>() || kind.to_string_lossy() == "torch.device";
        is_device.then(|| value.str().ok()?.extract().ok()).flatten().map(Self)
    }
}

/// Whole numbers as Python gives them: wide enough for what cannot be used to arrive here, where
/// the error can name the option.
pub type Whole = i128;

/// `given` as the unsigned number that an option takes.
pub fn whole<T: TryFrom<Whole>>(option: &'static str, given: Whole) -> Result<T> {
    T::try_from(given).map_err(|_| {
        let accepted = if given < 0 { "a whole number, 0 or more" } else { "a smaller number" };
        Error::option(option, given, accepted)
    })
}

/// Looks `given` up among the accepted names of an option.
pub fn choose<T: Copy>(option: &'static str, given: &str, accepted: &[(&str, T)]) -> Result<T> {
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
pub fn stores(given: &Given<'_>) -> PyResult<StoreOptions> {
    let default = StoreOptions::default();
    Ok(StoreOptions {
        endpoint: given.take("endpoint")?,
        read_timeout: duration(given, "read_timeout")?.unwrap_or(default.read_timeout),
        retries: given.take_whole("retries")?.unwrap_or(default.retries),
        ..default
    })
}

/// A time in seconds.
pub fn duration(given: &Given<'_>, option: &'static str) -> PyResult<Option<Duration>> {
    let Some(number) = given.take(option)? else { return Ok(None) };
    seconds(option, number).map(Some).or_raise(given.py())
}

/// How samples are read, by the names of a loader's options; opens the tables.
pub fn reading(given: &Given<'_>) -> PyResult<ReadOptions> {
    let (key, filter): (Option<String>, Option<String>) = (given.take("caption_key")?, given.take("where")?);
    let subset: Option<PathBuf> = given.take_as("subset", SUBSET)?;
    let captions: Option<PathBuf> = given.take_as("captions", CAPTIONS)?;
    ReadOptions::open(key, filter.as_deref(), subset.as_deref(), captions.as_deref()).or_raise(given.py())
}
