//! `trained.json` in a captioner directory: which run made it, so that the same run is not done twice, on what, and
//! what it measured.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::jobs::train::checkpoint::{Settings, differences};
use crate::jobs::train::report::TrainSummary;
use crate::{MODEL, write};
use tldr_loader::cluster::{GateWorth, MeasuredOn, Validation};
use tldr_loader::error::{Error, ErrorKind, Result};
use tldr_loader::hash;
use tldr_loader::loader::{Loader, LoaderState};

/// Value of `format`: another layout gets another number.
const FORMAT: &str = "tldr-loader training 2";
const FILE: &str = "trained.json";

/// A run that was done to its end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finished {
    format: String,
    settings: Settings,
    /// Of the stream that it read.
    stream: LoaderState,
    /// Hash of the weights' file, in hexadecimal digits.
    model: String,
    summary: TrainSummary,
    /// [Marks](tldr_loader::shard::Shard::marks) of the shards that it was trained on, ascending.
    trained_on: Vec<u64>,
}

/// What is known of how a captioner in a folder came about.
#[derive(Debug)]
pub(in crate::jobs) enum Origin {
    /// It was trained.
    Trained {
        /// What was measured on pairs that were held out.
        validation: Option<Validation>,
        /// Marks of the shards, ascending.
        trained_on: Vec<u64>,
    },
    /// Nothing, and why.
    Unknown(String),
}

impl Origin {
    /// Of the captioner in the folder `dir`.
    ///
    /// # Errors
    /// A model that cannot be read.
    pub(in crate::jobs) fn of(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let name = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return Ok(Self::Unknown(format!("{name} cannot be read ({error})"))),
        };
        let found: Finished = match serde_json::from_str(&text) {
            Ok(found) => found,
            Err(error) => {
                return Ok(Self::Unknown(format!(
                    "{name} is not what `train` of this version writes ({error})"
                )));
            }
        };
        if found.format != FORMAT || found.model != model_hash(dir)? {
            return Ok(Self::Unknown(format!("{name} is of another model than the one that lies beside it")));
        }
        Ok(Self::Trained { validation: found.summary.validation, trained_on: found.trained_on })
    }
}

/// What the run of [`train`](crate::jobs::train) that made the captioner in the folder `dir` measured on pairs that it
/// held out; `None` where it held out none, and where no such run is known.
///
/// # Errors
/// A model that cannot be read.
pub fn worth_of_training(dir: &Path) -> Result<Option<GateWorth>> {
    let Origin::Trained { validation, .. } = Origin::of(dir)? else { return Ok(None) };
    Ok(validation.map(|validation| GateWorth { validation, on: MeasuredOn::HeldOut }))
}

impl Finished {
    /// Notes that the captioner in `out` is what a run of `settings` over `stream`, of the shards with the marks
    /// `trained_on`, made.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(super) fn note(
        out: &Path,
        settings: &Settings,
        stream: &LoaderState,
        summary: &TrainSummary,
        trained_on: Vec<u64>,
    ) -> Result<()> {
        let (format, model) = (FORMAT.into(), model_hash(out)?);
        let (settings, stream, summary) = (settings.clone(), stream.clone(), *summary);
        let made = Self { format, settings, stream, model, summary, trained_on };
        // Not indented: a line for each of many shards.
        let json = serde_json::to_string(&made).map_err(Error::captioner)?;
        Ok(write(&out.join(FILE), json)?)
    }

    /// What the run of `settings` over the stream of `loader` reached, where the captioner in `out` is its
    /// work; `None` where there is no captioner.
    ///
    /// # Errors
    /// A captioner that something else made, with the differences: it is not to be replaced unasked.
    pub(super) fn find(out: &Path, settings: &Settings, loader: &Loader) -> Result<Option<TrainSummary>> {
        if !out.join(MODEL).exists() {
            return Ok(None);
        }
        let keeps = |why: &str| -> Error {
            let text = format!(
                "{} holds a captioner that {why}: train into another folder, or replace it with resume = never",
                out.display()
            );
            ErrorKind::State(text).into()
        };
        // A file that is cut or damaged says no more than one that is not there.
        let text = std::fs::read_to_string(out.join(FILE)).unwrap_or_default();
        let Ok(found) = serde_json::from_str::<Self>(&text) else {
            return Err(keeps("was not trained here, or by another version"));
        };
        if found.format != FORMAT || found.model != model_hash(out)? {
            return Err(keeps("was not trained here, or was changed since"));
        }
        let mut other = differences(settings, &found.settings);
        other.extend(loader.check_state(&found.stream).err().map(|error| error.to_string()));
        if !other.is_empty() {
            return Err(keeps(&format!("was trained with other settings ({})", other.join(", "))));
        }
        Ok(Some(TrainSummary { resumed_at: found.summary.steps, seconds: 0.0, ..found.summary }))
    }
}

fn model_hash(out: &Path) -> Result<String> {
    let model = out.join(MODEL);
    let bytes = std::fs::read(&model).map_err(|e| Error::io(format!("read {}", model.display()), e))?;
    Ok(format!("{:016x}", hash::hash_bytes(&bytes)))
}
