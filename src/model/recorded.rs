//! A model that is not here: what it is known by, and a stand-in for where a ledger holds all that it would say.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::ArrayView4;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aside;
use crate::error::{Error, ErrorKind, Result};
use crate::hash;
use crate::json;
use crate::model::{PreviewFilter, Recaptioner, Scorer, Signals};
use crate::sample::SampleId;

/// Its file in a captioner directory.
const FILE: &str = "identity.json";

/// What `tldr.fit` leaves in the directory of a scorer in Python.
const OF_A_SCORER: &str = "probe.npz";

/// Version of its layout.
const VERSION: u32 = 1;

fn first() -> u32 {
    1
}

/// Files of a captioner directory that say what a model is.
const CONTENTS: [&str; 5] =
    ["config.json", "tokenizer.json", "clusters.safetensors", "model.safetensors", "matcher/identity.json"];

/// What a loader has to know of a model whose signals and captions are recorded: all but its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Version of this layout; files from before there was one are of the first.
    #[serde(default = "first")]
    version: u32,
    dim: usize,
    preview_size: usize,
    preview_filter: PreviewFilter,
    batch_size: usize,
    clusters: usize,
    /// Hexadecimal, since json's numbers lose bits of it.
    fingerprint: String,
    captions: Option<Captions>,
    /// Hash of the weights, for whoever changes how captions are written without loading them.
    weights: String,
    /// Hash of each file that was there when this was written.
    files: BTreeMap<String, String>,
}

/// How it writes captions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Captions {
    batch_size: usize,
    fingerprint: String,
}

impl Identity {
    /// Writes the identity of `model` into its directory `dir`, whose other files are in place. `captions` are the rows of
    /// a caption batch and the fingerprint of its captions, where it writes any; `weights` is a hash of its weights.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn save(model: &dyn Scorer, captions: Option<(usize, u64)>, weights: u64, dir: &Path) -> Result<()> {
        let captions =
            captions.map(|(batch_size, fingerprint)| Captions { batch_size, fingerprint: hex(fingerprint) });
        let identity = Self {
            version: VERSION,
            dim: model.dim(),
            preview_size: model.preview_size(),
            preview_filter: model.preview_filter(),
            batch_size: model.batch_size(),
            clusters: model.clusters(),
            fingerprint: hex(model.fingerprint()),
            captions,
            weights: hex(weights),
            files: files(dir)?,
        };
        identity.write(dir)
    }

    /// The identity of the model in the directory `dir`; `None` where it has none.
    ///
    /// # Errors
    /// A file that cannot be read or is none; one that was written for other files than are there.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        };
        let wrong = |found: String| {
            Error::format(
                path.display().to_string(),
                format!("the identity of a captioner, version {VERSION}"),
                found,
            )
        };
        let any: Value = json::read(&content).map_err(|error| wrong(error.to_string()))?;
        // Before fields that this version may not know.
        if let Some(version) = any.get("version").filter(|version| **version != VERSION) {
            return Err(wrong(format!(
                "version {version}: fit the captioner again, or use the version that did"
            )));
        }
        let identity: Self = serde_json::from_value(any).map_err(|error| wrong(error.to_string()))?;
        let found = files(dir)?;
        let differs = identity.files.iter().find(|(name, hash)| found.get(*name) != Some(hash));
        let added = found.keys().find(|name| !identity.files.contains_key(*name));
        if let Some(name) = differs.map(|(name, _)| name).or(added) {
            let now = match (found.get(name), identity.files.get(name)) {
                (None, _) => "none",
                (_, None) => "one that was not there then",
                _ => "another one",
            };
            let expected = format!("the file that {FILE} was written for");
            let found = format!("{now}: put the captioner's own files back, or fit it again");
            return Err(Error::format(dir.join(name).display().to_string(), expected, found));
        }
        Ok(Some(identity))
    }

    /// Says that its captions are of another fingerprint from now on, and that the files in `dir` belong to it.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn set_captions(mut self, batch_size: usize, fingerprint: u64, dir: &Path) -> Result<()> {
        self.captions = Some(Captions { batch_size, fingerprint: hex(fingerprint) });
        self.files = files(dir)?;
        self.write(dir)
    }

    /// Identifies the model: [`Scorer::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        number(&self.fingerprint)
    }

    /// Hash of the weights.
    pub fn weights(&self) -> u64 {
        number(&self.weights)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let cannot = |error| Error::io(format!("write {}", path.display()), error);
        let json = serde_json::to_vec_pretty(self).map_err(|error| cannot(error.into()))?;
        aside::write(&path, json).map_err(cannot)
    }
}

/// What is in `dir` now.
fn files(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for name in CONTENTS {
        let path = dir.join(name);
        match File::open(&path).and_then(hash::hash_reader) {
            Ok(hash) => drop(found.insert(name.to_owned(), hex(hash))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        }
    }
    Ok(found)
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// What [`hex`] wrote; 0, which no model has, for anything else.
fn number(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).unwrap_or_default()
}

/// A model whose signals and captions are in a ledger, for a loader that needs no other: whatever the ledger lacks is an
/// error that says how to record it.
#[derive(Debug)]
pub struct Recorded {
    identity: Identity,
    directory: PathBuf,
    judges: bool,
}

impl Recorded {
    /// Stands in for the captioner of that identity, whose directory is `directory`.
    pub fn new(identity: Identity, directory: &Path) -> Self {
        Self { identity, directory: directory.to_owned(), judges: false }
    }

    /// Stands in for the judge of that identity, whose directory is `directory`.
    pub fn judge(identity: Identity, directory: &Path) -> Self {
        Self { judges: true, ..Self::new(identity, directory) }
    }

    fn missing(&self, what: &str, how: &str) -> Error {
        let (dir, model) = (self.directory.display(), if self.judges { "judge" } else { "captioner" });
        if self.directory.join(OF_A_SCORER).is_file() {
            let detail = format!(
                "the ledger lacks {what}, and {dir} was fitted with a scorer of your own, which is not here: give \
                 tldr.FittedScorer({:?}, scorer) in its place, to the loader, to tldr.record or to tldr.plan",
                self.directory.display().to_string()
            );
            return ErrorKind::NotRecorded { detail }.into();
        }
        let detail = format!(
            "the ledger lacks {what}, and the {model} that could make them, {dir}, cannot run here; record them where it \
             can (pip install \"tldr-loader[captioner]\", with torch 2.11) {how}"
        );
        ErrorKind::NotRecorded { detail }.into()
    }
}

/// What records what only a loader asks for.
const BY_AN_EPOCH: &str =
    "by the same epoch of a loader with the same options and this ledger: for batch in loader: pass";

impl Scorer for Recorded {
    fn dim(&self) -> usize {
        self.identity.dim
    }

    fn preview_size(&self) -> usize {
        self.identity.preview_size
    }

    fn preview_filter(&self) -> PreviewFilter {
        self.identity.preview_filter
    }

    fn batch_size(&self) -> usize {
        self.identity.batch_size
    }

    fn clusters(&self) -> usize {
        self.identity.clusters
    }

    fn fingerprint(&self) -> u64 {
        self.identity.fingerprint()
    }

    fn stands_in(&self) -> bool {
        true
    }

    fn signals(&mut self, _: ArrayView4<'_, u8>, _: &[&str]) -> Result<Signals> {
        let dir = self.directory.display();
        if self.judges {
            return Err(self.missing("what the judge says of some generated captions", BY_AN_EPOCH));
        }
        let how = format!(
            "with: tldr-loader plan SHARDS --captioner {dir} --ledger LEDGER --out PLAN, and the --window, --caption-key, \
             --where, --subset and --captions of this loader; a ledger knows shards by their size and time of change, too"
        );
        Err(self.missing("signals of some samples", &how))
    }

    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        self.identity.captions.is_some().then_some(self)
    }
}

impl Recaptioner for Recorded {
    fn caption_batch_size(&self) -> usize {
        self.identity.captions.as_ref().map_or(1, |captions| captions.batch_size)
    }

    fn caption_fingerprint(&self) -> u64 {
        self.identity.captions.as_ref().map_or(0, |captions| number(&captions.fingerprint))
    }

    fn caption(&mut self, _: ArrayView4<'_, u8>, _: &[SampleId]) -> Result<Vec<String>> {
        Err(self.missing("generated captions of some samples", BY_AN_EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that says 7 of everything.
    struct Seven;

    impl Scorer for Seven {
        fn dim(&self) -> usize {
            7
        }
        fn preview_size(&self) -> usize {
            7
        }
        fn batch_size(&self) -> usize {
            7
        }
        fn clusters(&self) -> usize {
            7
        }
        fn fingerprint(&self) -> u64 {
            u64::MAX - 7
        }
        fn signals(&mut self, _: ArrayView4<'_, u8>, _: &[&str]) -> Result<Signals> {
            unreachable!()
        }
    }

    #[test]
    fn an_identity_comes_back_and_belongs_to_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(Identity::load(dir).unwrap(), None);
        std::fs::write(dir.join("config.json"), "{}").unwrap();
        std::fs::write(dir.join("model.safetensors"), "12345").unwrap();
        Identity::save(&Seven, None, 5, dir).unwrap();
        let found = Identity::load(dir).unwrap().unwrap();
        assert_eq!((found.fingerprint(), found.weights(), found.dim), (u64::MAX - 7, 5, 7));
        let mut model = Recorded::new(found.clone(), dir);
        assert_eq!((model.dim(), model.fingerprint()), (7, u64::MAX - 7));
        assert!(model.recaptioner().is_none());
        let previews = ndarray::Array4::zeros((7, 3, 7, 7));
        let error = model.signals(previews.view(), &[""; 7]).unwrap_err().to_string();
        assert!(error.contains("tldr-loader plan SHARDS --captioner"), "{error}");
        found.clone().set_captions(9, u64::MAX, dir).unwrap();
        let mut model = Recorded::new(Identity::load(dir).unwrap().unwrap(), dir);
        let writer = model.recaptioner().unwrap();
        assert_eq!((writer.caption_batch_size(), writer.caption_fingerprint()), (9, u64::MAX));
        let error = writer.caption(previews.view(), &[]).unwrap_err().to_string();
        assert!(error.contains("generated captions"), "{error}");

        for (name, content) in
            [("config.json", "{ }"), ("model.safetensors", "12354"), ("tokenizer.json", "{}")]
        {
            let before = std::fs::read(dir.join(name)).ok();
            std::fs::write(dir.join(name), content).unwrap();
            let error = Identity::load(dir).unwrap_err().to_string();
            let part = format!("{name}: expected the file that identity.json was written for, found ");
            assert!(error.contains(&part), "{error}");
            match before {
                Some(before) => std::fs::write(dir.join(name), before).unwrap(),
                None => std::fs::remove_file(dir.join(name)).unwrap(),
            }
        }
        Identity::load(dir).unwrap().unwrap();
        std::fs::write(dir.join(FILE), "{").unwrap();
        assert!(Identity::load(dir).is_err());
    }
}
