//! Checkpoints of a training run: what it needs to go on exactly where it was.
//!
//! They lie beside the captioner directory `DIR`, in `DIR.checkpoint`: `step-N.safetensors` holds
//! weights, codebook statistics and moments, `tokenizer.json` the tokenizer, and `checkpoint.json`,
//! written last and renamed into place, says which of them belong together, where in the data the run
//! stood, and what its settings were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{CaptionerConfig, CodebookUpdate, StepReport, TOKENIZER, Trainer, write};
use tldr_loader::error::{Error, ErrorKind, Result};
use tldr_loader::hash;
use tldr_loader::loader::LoaderState;
use tldr_loader::text::Tokenizer;

/// Value of `format`: another layout gets another number.
const FORMAT: &str = "tldr-loader training checkpoint 1";
const STATE: &str = "checkpoint.json";

/// What to do where a checkpoint is found, and where none is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resume {
    /// Go on from a checkpoint where there is one; start where there is none.
    #[default]
    Auto,
    /// Start, whatever there is.
    Never,
    /// Go on from a checkpoint; fail where there is none.
    Must,
}

tldr_loader::names!(Resume { Auto => "auto", Never => "never", Must => "must" }, option "resume");

/// Whether a run for the captioner directory `out` has left a checkpoint, of whatever settings.
pub(super) fn is_beside(out: &Path) -> bool {
    Checkpoints::beside(out).is_ok_and(|checkpoints| checkpoints.dir.join(STATE).exists())
}

/// Settings of a run that its weights depend on, by name.
pub(super) type Settings = BTreeMap<String, String>;

/// `checkpoint.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    format: String,
    /// Steps done.
    pub(super) step: u64,
    /// What the last of them did.
    pub(super) last: StepReport,
    /// Pairs seen.
    pub(super) pairs: u64,
    /// Where the stream stands.
    pub(super) loader: LoaderState,
    settings: Settings,
    /// File of weights and moments, and the hash of its content in hexadecimal digits.
    file: String,
    content: String,
}

/// The folder of a run's checkpoints.
pub(super) struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Of the captioner directory `out`, which exists.
    ///
    /// # Errors
    /// A directory that has no place beside it.
    pub(super) fn beside(out: &Path) -> Result<Self> {
        let cannot = |e| Error::io(format!("find {}", out.display()), e);
        let whole = out.canonicalize().map_err(cannot)?;
        let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
            return Err(Error::option("out", out.display(), "a folder below another one"));
        };
        let mut name = name.to_owned();
        name.push(".checkpoint");
        Ok(Self { dir: parent.join(name) })
    }

    /// The checkpoint to go on from, if any.
    ///
    /// # Errors
    /// One of other settings, with the differences; a file that is not what it should be; none where
    /// there must be one.
    pub(super) fn find(&self, resume: Resume, settings: &Settings) -> Result<Option<Checkpoint>> {
        let path = self.dir.join(STATE);
        if resume == Resume::Never {
            return Ok(None);
        }
        let name = path.display().to_string();
        let json = match std::fs::read_to_string(&path) {
            Ok(json) => json,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && resume == Resume::Auto => return Ok(None),
            Err(e) => return Err(Error::io(format!("read {name}, to resume from it"), e)),
        };
        let found: Checkpoint = serde_json::from_str(&json)
            .map_err(|e| Error::format(&name, "a training checkpoint (resume = never starts anew)", e))?;
        if found.format != FORMAT {
            return Err(Error::format(format!("{name}: format"), format!("{FORMAT:?}"), found.format));
        }
        let differences = differences(settings, &found.settings);
        if differences.is_empty() {
            return Ok(Some(found));
        }
        Err(Error::from(ErrorKind::State(format!(
            "{name} is of a run with other settings: {}; train with those, into another folder, or start \
             anew with resume = never",
            differences.join(", ")
        ))))
    }

    /// The tokenizer of a checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_file(self.dir.join(TOKENIZER))
    }

    /// Puts a trainer where the checkpoint says.
    ///
    /// # Errors
    /// Weights that are not those of the checkpoint, or do not fit.
    pub(super) fn restore(&self, checkpoint: &Checkpoint, trainer: &mut Trainer) -> Result<()> {
        let what = || format!("{}: content", self.dir.join(STATE).display());
        let content = u64::from_str_radix(&checkpoint.content, 16)
            .map_err(|_| Error::format(what(), "16 hexadecimal digits", &checkpoint.content))?;
        // The file says where it lies; it must not lead elsewhere.
        if Path::new(&checkpoint.file).file_name().is_none_or(|name| name != checkpoint.file.as_str()) {
            return Err(Error::format(what(), "the name of a file beside it", &checkpoint.file));
        }
        Ok(trainer.load_state(self.dir.join(&checkpoint.file), content, checkpoint.step)?)
    }

    /// Writes a checkpoint in place of the one before.
    ///
    /// # Errors
    /// A file that cannot be written; the checkpoint before is then still whole.
    pub(super) fn write(
        &self,
        trainer: &Trainer,
        last: StepReport,
        pairs: u64,
        loader: LoaderState,
        settings: &Settings,
    ) -> Result<()> {
        let io = |action: &str, path: &Path| {
            let action = format!("{action} {}", path.display());
            move |e| Error::io(action, e)
        };
        std::fs::create_dir_all(&self.dir).map_err(io("make", &self.dir))?;
        let step = trainer.steps_done();
        let file = format!("step-{step:09}.safetensors");
        let content = format!("{:016x}", trainer.save_state(self.dir.join(&file))?);
        let tokenizer = self.dir.join(TOKENIZER);
        // The same at every step, and the checkpoint before needs it: what is there stays.
        if !tokenizer.exists() {
            trainer.captioner().tokenizer().save(tokenizer)?;
        }
        let (format, settings) = (FORMAT.into(), settings.clone());
        let state = Checkpoint { format, step, last, pairs, loader, settings, file: file.clone(), content };
        let json = serde_json::to_string_pretty(&state).map_err(Error::captioner)?;
        write(&self.dir.join(STATE), json)?;
        // Nothing refers to the older ones any more.
        for entry in std::fs::read_dir(&self.dir).map_err(io("list", &self.dir))? {
            let entry = entry.map_err(io("list", &self.dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("step-") && name != file {
                std::fs::remove_file(entry.path()).map_err(io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// Removes the folder: the captioner is whole, or the run starts anew.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.dir.display()), e))
            }
            _ => Ok(()),
        }
    }
}

/// The sizes that a preset stands for, as one setting; how codes are trained is others.
pub(super) fn sizes(config: &CaptionerConfig) -> String {
    let mut config = config.clone();
    if let Some(codebook) = &mut config.codebook {
        (codebook.update, codebook.commitment) = (CodebookUpdate::default(), 0.0);
    }
    format!("{:016x}", hash::hash_str(&serde_json::to_string(&config).unwrap_or_default()))
}

/// Each setting that differs, both ways.
pub(super) fn differences(own: &Settings, saved: &Settings) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = own.keys().chain(saved.keys()).collect();
    let text = |value: Option<&String>| value.map_or("nothing", String::as_str).to_owned();
    names
        .into_iter()
        .filter(|name| own.get(*name) != saved.get(*name))
        .map(|name| format!("{name} was {} and is {}", text(saved.get(name)), text(own.get(name))))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn differences_are_spelt_out() {
        let settings = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let own = settings(&[("batch_size", "32"), ("seed", "0"), ("new", "1")]);
        let saved = settings(&[("batch_size", "64"), ("seed", "0"), ("old", "2")]);
        assert_eq!(
            differences(&own, &saved),
            ["batch_size was 64 and is 32", "new was nothing and is 1", "old was 2 and is nothing"]
        );
        assert!(differences(&own, &own).is_empty());
    }

    #[test]
    fn they_lie_beside_the_captioner() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("captioner");
        std::fs::create_dir(&out).unwrap();
        let checkpoints = Checkpoints::beside(&out.join(".")).unwrap();
        assert!(checkpoints.dir.ends_with("captioner.checkpoint"), "{:?}", checkpoints.dir);
        let none = Settings::new();
        assert!(checkpoints.find(Resume::Auto, &none).unwrap().is_none());
        assert!(checkpoints.find(Resume::Must, &none).unwrap_err().to_string().contains("to resume from it"));
        std::fs::create_dir(&checkpoints.dir).unwrap();
        std::fs::write(checkpoints.dir.join(STATE), "{}").unwrap();
        let damaged = checkpoints.find(Resume::Auto, &none).unwrap_err().to_string();
        assert!(damaged.contains("a training checkpoint"), "{damaged}");
        assert!(checkpoints.find(Resume::Never, &none).unwrap().is_none());
        checkpoints.remove().unwrap();
        checkpoints.remove().unwrap();
    }
}
