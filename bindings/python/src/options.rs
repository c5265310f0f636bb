//! The options of a loader, as Python gives them.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use std::sync::Arc;

use tldr_loader::Error;
use tldr_loader::cluster::Clusters;
use tldr_loader::config::Config;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::model::Scorer;
use tldr_loader::options::Group as _;
use tldr_python::errors::OrRaise;
use tldr_python::given::{read, read_as};
use tldr_python::values::{sources, value_of};

use crate::ledger::{Ledger, LedgerSource};
use crate::scorer::{JUDGE, Source};

/// Options, and what of them is no plain data.
pub(crate) struct Options {
    pub(crate) config: Config,
    captioner: Option<Source>,
    judge: Option<Source>,
    ledger: Option<Py<Ledger>>,
}

/// A model with its clusters.
pub(crate) type Fitted = (Box<dyn Scorer>, Arc<Clusters>);

impl Options {
    /// Reads `given` over `config`.
    ///
    /// # Errors
    /// `ConfigError`: an option that is not known, or is not accepted.
    pub(crate) fn read(mut config: Config, given: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let (mut captioner, mut judge, mut ledger) = (None, None, None);
        let mut fields = Map::new();
        for (name, value) in given.into_iter().flatten().filter(|(_, value)| !value.is_none()) {
            let name: String = name.extract()?;
            match name.as_str() {
                "source" => config.sources = sources(&value)?,
                "captioner" => captioner = Some(read::<Source>("captioner", &value)?),
                "ledger" => match read("ledger", &value)? {
                    LedgerSource::Open(open) => ledger = Some(open),
                    LedgerSource::Folder(path) => config.ledger = Some(path.to_string_lossy().into_owned()),
                },
                "captions" => {
                    let of_judge = value.getattr_opt("judge")?.filter(|judge| !judge.is_none());
                    judge = of_judge.map(|value| read_as::<Source>("judge", JUDGE, &value)).transpose()?;
                    let mut captions = value_of(&value)?;
                    if let (Value::Object(captions), true) = (&mut captions, judge.is_some()) {
                        captions.remove("judge");
                    }
                    fields.insert(name, captions);
                }
                _ => {
                    fields.insert(name, value_of(&value)?);
                }
            }
        }
        if let Some(given) = given {
            config.update(&fields).or_raise(given.py())?;
        }
        let directory = |path: &Option<std::path::PathBuf>| path.clone().map(Source::Directory);
        captioner = captioner.or_else(|| directory(&config.captioner));
        judge = judge.or_else(|| directory(&config.captions.judge));
        Ok(Self { config, captioner, judge, ledger })
    }

    /// A loader of them, its models loaded; `device` is where those run that are given as directories.
    ///
    /// # Errors
    /// What loading a model raises.
    pub(crate) fn builder(self, py: Python<'_>, device: String) -> PyResult<LoaderBuilder> {
        let device = self.model_device(py)?.unwrap_or(device);
        let has_ledger = self.ledger.is_some() || self.config.ledger.is_some();
        let mut builder = Loader::from_config(self.config);
        if let Some(source) = self.captioner {
            let (model, clusters) = source.captioner(py, &device, has_ledger)?;
            builder = builder.captioner(model, clusters);
        }
        if let Some(source) = self.judge {
            builder = builder.judge(source.judge(py, &device, has_ledger)?);
        }
        if let Some(ledger) = self.ledger {
            builder = builder.ledger(ledger.get().0.clone());
        }
        Ok(builder)
    }

    /// The options with their captioner, loaded, where there is one, for a job that records.
    ///
    /// # Errors
    /// What loading it raises.
    pub(crate) fn captioner(self, py: Python<'_>) -> PyResult<(Config, Option<Fitted>)> {
        let device = self.model_device(py)?.unwrap_or_else(|| self.config.device.clone());
        let fitted = self.captioner.map(|source| source.captioner(py, &device, true)).transpose()?;
        let mut config = self.config;
        if let Some(ledger) = &self.ledger {
            let accepted = "the folder of one: what is in memory only ends with this process";
            let none = || Error::option("ledger", "a ledger in memory", accepted);
            config.ledger = Some(ledger.get().0.location().ok_or_else(none).or_raise(py)?);
        }
        Ok((config, fitted))
    }

    /// Where captioner and judge run, where that was given.
    ///
    /// # Errors
    /// Neither is loaded from a directory here.
    fn model_device(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some(name) = &self.config.runtime.captioner_device else { return Ok(None) };
        let (captioner, judge) = (&self.captioner, &self.judge);
        if [captioner, judge].into_iter().flatten().any(Source::is_directory) {
            return Ok(Some(name.clone()));
        }
        let accepted = if captioner.is_none() && judge.is_none() {
            "without a captioner and a judge, whose device it is"
        } else {
            "beside a `Captioner` or `Matcher`, which runs where it was loaded (give its device there, or \
             its directory here)"
        };
        Err(Error::unused("captioner_device", name, accepted)).or_raise(py)
    }
}
