//! `folds.json`: captioners that were each trained on a part of the shards, and which parts.
//!
//! A captioner rates pairs that it was trained on too well, and its own captions most of all. With
//! two of them, every sample can be judged by the one that has not seen it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::write;
use tldr_loader::sample::SampleId;

/// Name of the file in the folder of the captioners.
const FILE: &str = "folds.json";
/// Value of `format`: another layout gets another number.
const FORMAT: &str = "tldr-loader folds 1";

/// A captioner and its part of the shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// Captioner directory, below the folder of `folds.json`.
    pub captioner: String,
    /// Source and path of each shard of its part: trained on, or held out of it for validation.
    pub shards: Vec<(String, String)>,
}

/// Captioners that have seen different shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folds {
    folds: Vec<Fold>,
    /// Fold by shard hash.
    seen_by: HashMap<u64, usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    format: String,
    folds: Vec<Fold>,
}

impl Folds {
    /// Of at least two folds that have no shard in common.
    ///
    /// # Errors
    /// Fewer folds, or a shard in two of them.
    pub fn new(folds: Vec<Fold>) -> Result<Self> {
        if folds.len() < 2 {
            return Err(Error::format(FILE, "two folds or more", folds.len()));
        }
        let mut seen_by = HashMap::new();
        for (fold, shards) in folds.iter().map(|fold| &fold.shards).enumerate() {
            for (source, path) in shards {
                if let Some(other) = seen_by.insert(SampleId::shard_hash(source, path), fold) {
                    let found = format!("shard {path} of {source} in folds {other} and {fold}");
                    return Err(Error::format(FILE, "every shard in one fold", found));
                }
            }
        }
        Ok(Self { folds, seen_by })
    }

    /// Reads `folds.json` in `dir`.
    ///
    /// # Errors
    /// A file that cannot be read or is something else.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(FILE);
        let name = path.display().to_string();
        let json = std::fs::read_to_string(&path).map_err(|e| Error::io(format!("read {name}"), e))?;
        let layout: Layout = serde_json::from_str(&json)
            .map_err(|e| Error::format(&name, "what `train --folds 2` writes", e))?;
        if layout.format != FORMAT {
            return Err(Error::format(format!("{name}: format"), format!("{FORMAT:?}"), layout.format));
        }
        Self::new(layout.folds)
    }

    /// Writes `folds.json` into `dir`, aside first and then renamed.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let layout = Layout { format: FORMAT.into(), folds: self.folds.clone() };
        let json = serde_json::to_string_pretty(&layout).map_err(Error::captioner)?;
        let path = dir.as_ref().join(FILE);
        write(&path, json)
    }

    /// Removes `folds.json` from `dir`, where there is one: its captioners are about to change.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub(crate) fn remove(dir: impl AsRef<Path>) -> Result<()> {
        let path = dir.as_ref().join(FILE);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", path.display()), e))
            }
            _ => Ok(()),
        }
    }

    /// All folds, in order.
    pub fn folds(&self) -> &[Fold] {
        &self.folds
    }

    /// The captioner directories below `dir`, the folder of `folds.json`, in order.
    pub fn directories(&self, dir: impl AsRef<Path>) -> Vec<PathBuf> {
        self.folds.iter().map(|fold| dir.as_ref().join(&fold.captioner)).collect()
    }

    /// The captioner whose part holds the shard of this [hash](tldr_loader::Shard::hash).
    pub fn seen_by(&self, shard_hash: u64) -> Option<usize> {
        self.seen_by.get(&shard_hash).copied()
    }

    /// A captioner that has not seen the shard of this [hash](tldr_loader::Shard::hash): the one
    /// that judges its samples. The first, where none was.
    pub fn judge_of(&self, shard_hash: u64) -> usize {
        self.seen_by(shard_hash).map_or(0, |fold| (fold + 1) % self.folds.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fold(captioner: &str, paths: &[&str]) -> Fold {
        let shards = paths.iter().map(|p| ("cc3m".to_owned(), (*p).to_owned())).collect();
        Fold { captioner: captioner.into(), shards }
    }

    #[test]
    fn nobody_judges_what_it_has_seen() {
        let folds = Folds::new(vec![fold("a", &["0.tar", "2.tar"]), fold("b", &["1.tar"])]).unwrap();
        let shard = |path| SampleId::shard_hash("cc3m", path);
        assert_eq!((folds.seen_by(shard("0.tar")), folds.judge_of(shard("0.tar"))), (Some(0), 1));
        assert_eq!((folds.seen_by(shard("1.tar")), folds.judge_of(shard("1.tar"))), (Some(1), 0));
        assert_eq!((folds.seen_by(shard("9.tar")), folds.judge_of(shard("9.tar"))), (None, 0));
        let dir = tempfile::tempdir().unwrap();
        folds.save(dir.path()).unwrap();
        assert_eq!(Folds::load(dir.path()).unwrap(), folds);
        assert_eq!(folds.directories("x"), [Path::new("x/a"), Path::new("x/b")]);
    }

    #[test]
    fn what_is_no_split_is_refused() {
        let error = |folds| Folds::new(folds).unwrap_err().to_string();
        assert!(error(vec![fold("a", &["0.tar"])]).contains("two folds or more"));
        let twice = error(vec![fold("a", &["0.tar"]), fold("b", &["0.tar"])]);
        assert!(twice.contains("shard 0.tar of cc3m in folds 0 and 1"), "{twice}");
        let dir = tempfile::tempdir().unwrap();
        assert!(Folds::load(dir.path()).unwrap_err().to_string().contains("folds.json"));
        std::fs::write(dir.path().join(FILE), "{\"format\": \"x\", \"folds\": []}").unwrap();
        assert!(Folds::load(dir.path()).unwrap_err().to_string().contains("format"));
        std::fs::write(dir.path().join(FILE), "[]").unwrap();
        assert!(Folds::load(dir.path()).unwrap_err().to_string().contains("train --folds 2"));
    }
}
