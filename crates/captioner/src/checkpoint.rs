//! The captioner directory: `config.json`, `model.safetensors`, `tokenizer.json` and, once
//! fitted, `clusters.safetensors`; in `matcher/` an image-text matching model, where one measures alignment. Loading it runs no code of anyone: nothing is unpickled.

use std::path::Path;
use std::sync::Arc;

use tch::Device;

use crate::config::CaptionerConfig;
use crate::device::check_device;
use crate::error::{Error, Result};
use crate::files::{
    CONFIG, MODEL, TOKENIZER, check_own, check_vocabulary, model_files, place, tensors_hash, write,
};
use crate::folds::Folds;
use crate::generation::{GenerationChange, GenerationConfig};
use crate::matcher::Matcher;
use crate::model::{Captioner, check_prompt};
use crate::weights::Weights;
use tldr_loader::cluster::Clusters;
use tldr_loader::hash;
use tldr_loader::model::{Identity, Recaptioner};
use tldr_loader::text::Tokenizer;

/// Folder of the image-text matching model that measures alignment, where there is one.
const MATCHER: &str = "matcher";

impl Captioner {
    /// Reads a captioner directory onto `device`.
    ///
    /// # Errors
    /// A file that is missing, damaged or truncated; a tensor that is missing, unknown or of
    /// another shape than the configuration says; a tokenizer with more tokens than the embedding
    /// has rows; clusters of another codebook; a device that is not there. The message names
    /// file, tensor, what was expected and what was found.
    pub fn load(dir: impl AsRef<Path>, device: Device) -> Result<Self> {
        let dir = dir.as_ref();
        check_device(device)?;
        let config = load_config(&dir.join(CONFIG))?;
        let tokenizer = Tokenizer::from_file(dir.join(TOKENIZER))?;
        check_vocabulary(&dir.join(TOKENIZER), &tokenizer, config.decoder.vocab)?;
        let clusters = dir.join(Clusters::FILE);
        let clusters = clusters.exists().then(|| Clusters::load(&clusters)).transpose()?.map(Arc::new);
        let weights = Weights::from_file(&dir.join(MODEL), device)?;
        let mut captioner = Self::build(config, tokenizer, None, device, weights)?;
        let matcher = dir.join(MATCHER);
        if matcher.is_dir() {
            captioner.set_matcher(Some(Matcher::load(matcher, device)?))?;
        }
        captioner.set_clusters(clusters)?;
        Ok(captioner)
    }

    /// Writes the captioner directory, making it where needed. Each file is written aside and
    /// renamed into place.
    ///
    /// # Errors
    /// A file that cannot be written; a folder that holds another kind of model, which stays.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|e| Error::io(format!("create {}", dir.display()), e))?;
        check_own(dir, "captioner", |config| {
            config.get("decoder").is_some()
                && config.get("kind").is_none()
                && config.get("model_type").is_none()
        })?;
        let files = model_files(dir, &self.config, &self.tokenizer, &self.tensors)?;
        // Old clusters would not fit new weights: they go first, and new ones come last.
        let clusters = dir.join(Clusters::FILE);
        if clusters.exists() {
            std::fs::remove_file(&clusters)
                .map_err(|e| Error::io(format!("remove {}", clusters.display()), e))?;
        }
        files.into_iter().try_for_each(place)?;
        let matcher = dir.join(MATCHER);
        match &self.matcher {
            Some(own) => own.save(&matcher)?,
            None if Matcher::is_at(&matcher) => std::fs::remove_dir_all(&matcher)
                .map_err(|e| Error::io(format!("remove {}", matcher.display()), e))?,
            None => {}
        }
        if let Some(fitted) = &self.clusters {
            fitted.save(&clusters)?;
        }
        Ok(Identity::save(
            self,
            Some((self.caption_batch_size(), self.caption_fingerprint())),
            self.weights_hash(),
            dir,
        )?)
    }

    /// Identifies everything that signals depend on.
    pub(super) fn signal_fingerprint(&self) -> u64 {
        let mut config = self.config.clone();
        // How captions are written does not touch signals.
        config.generation = CaptionerConfig::tiny(4).generation;
        let clusters = self.clusters.as_ref().map_or(0, |clusters| clusters.fingerprint());
        let mut parts =
            vec![config_hash(&config), self.weights_hash(), self.tokenizer.fingerprint(), clusters];
        parts.extend(self.matcher.as_ref().map(Matcher::score_fingerprint));
        hash::combine(&parts)
    }

    /// Identifies everything that captions depend on.
    pub(super) fn generation_fingerprint(&self) -> u64 {
        captions_fingerprint(&self.config, self.weights_hash(), &self.tokenizer)
    }

    pub(super) fn weights_hash(&self) -> u64 {
        *self.weights_hash.get_or_init(|| tensors_hash(&self.tensors))
    }
}

fn captions_fingerprint(config: &CaptionerConfig, weights: u64, tokenizer: &Tokenizer) -> u64 {
    hash::combine(&[config_hash(config), weights, tokenizer.fingerprint()])
}

/// Changes how the captioner in `dir` writes captions; its weights stay as they are. Says what holds
/// from then on.
///
/// # Errors
/// No captioner directory; a setting that cannot work or has no effect, by name: the directory is then
/// unchanged.
pub fn set_generation(dir: impl AsRef<Path>, change: GenerationChange) -> Result<GenerationConfig> {
    let dir = dir.as_ref();
    let path = dir.join(CONFIG);
    let mut config = load_config(&path)?;
    config.generation = change.apply(config.generation)?;
    config.validate()?;
    let tokenizer = Tokenizer::from_file(dir.join(TOKENIZER))?;
    check_prompt(&config, &tokenizer)?;
    let json = serde_json::to_string_pretty(&config).map_err(Error::captioner)?;
    let identity = Identity::load(dir)?;
    write(&path, json)?;
    if let Some(identity) = identity {
        let fingerprint = captions_fingerprint(&config, identity.weights(), &tokenizer);
        identity.set_captions(config.generation.batch_size, fingerprint, dir)?;
    }
    Ok(config.generation)
}

fn load_config(path: &Path) -> Result<CaptionerConfig> {
    let name = path.display().to_string();
    if let Some(folder) = path.parent().filter(|_| !path.exists())
        && let Ok(folds) = Folds::load(folder)
    {
        let names: Vec<&str> = folds.folds().iter().map(|fold| fold.captioner.as_str()).collect();
        let accepted = format!("one of the captioners in it: {}", names.join(", "));
        return Err(Error::option("captioner", folder.display(), accepted));
    }
    let json = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read {name}"), e))?;
    let config: CaptionerConfig = serde_json::from_str(&json).map_err(|e| {
        let found = match is_transformers(&json) {
            true => {
                "that of a Hugging Face model: make a captioner of a BLIP first, with `tldr-loader load` \
                     or `Captioner.load_blip`"
                    .to_owned()
            }
            false if Matcher::is_at(path.parent().unwrap_or(Path::new("."))) => {
                "that of a matcher, which judges captions and writes none: give it to a loader as judge, or to a \
                     captioner with `load --matcher`"
                    .to_owned()
            }
            false => e.to_string(),
        };
        Error::format(&name, "a captioner's configuration", found)
    })?;
    config.validate().map_err(|e| Error::format(&name, "sizes that fit together", e))?;
    Ok(config)
}

/// Whether this is the configuration of a model of transformers.
fn is_transformers(json: &str) -> bool {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    value.get("model_type").is_some()
}

fn config_hash(config: &CaptionerConfig) -> u64 {
    // Numbers and strings only: this cannot fail, and an empty text would still be a constant.
    hash::hash_str(&serde_json::to_string(config).unwrap_or_default())
}
