//! The captioner directory: `config.json`, `model.safetensors`, `tokenizer.json` and, once
//! fitted, `clusters.safetensors`. Loading it runs no code of anyone: nothing is unpickled.

use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView, serialize};
use tch::Device;

use crate::captioner::config::CaptionerConfig;
use crate::captioner::device::check_device;
use crate::captioner::generation::GenerationConfig;
use crate::captioner::model::Captioner;
use crate::captioner::weights::{Weights, to_f32};
use crate::cluster::clusters::Clusters;
use crate::error::{Error, Result};
use crate::hash;
use crate::text::Tokenizer;

/// Sizes and settings.
const CONFIG: &str = "config.json";
/// Weights, with BLIP's names.
const MODEL: &str = "model.safetensors";
/// The tokenizer, in the format of Hugging Face's tokenizers.
const TOKENIZER: &str = "tokenizer.json";
/// What `fit` learned.
const CLUSTERS: &str = "clusters.safetensors";

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
        let clusters = dir.join(CLUSTERS);
        let clusters = clusters.exists().then(|| Clusters::load(&clusters)).transpose()?.map(Arc::new);
        let weights = Weights::from_file(&dir.join(MODEL), device)?;
        Self::build(config, tokenizer, clusters, device, weights)
    }

    /// Writes the captioner directory, making it where needed. Each file is written aside and
    /// renamed into place.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|e| Error::io(format!("create {}", dir.display()), e))?;
        // Old clusters would not fit new weights: they go first, and new ones come last.
        let clusters = dir.join(CLUSTERS);
        if clusters.exists() {
            std::fs::remove_file(&clusters)
                .map_err(|e| Error::io(format!("remove {}", clusters.display()), e))?;
        }
        let json = serde_json::to_string_pretty(&self.config).map_err(Error::captioner)?;
        replace(&dir.join(CONFIG), |path| write(path, json.as_bytes()))?;
        replace(&dir.join(TOKENIZER), |path| self.tokenizer.save(path))?;
        let model = self.serialised()?;
        replace(&dir.join(MODEL), |path| write(path, &model))?;
        match &self.clusters {
            Some(fitted) => replace(&clusters, |path| fitted.save(path)),
            None => Ok(()),
        }
    }

    fn serialised(&self) -> Result<Vec<u8>> {
        let tensors: Vec<(&String, Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, tensor)| {
                let shape = tensor.size().iter().map(|&n| n as usize).collect();
                let bytes = to_f32(tensor)?.iter().flat_map(|v| v.to_le_bytes()).collect();
                Ok((name, shape, bytes))
            })
            .collect::<Result<_>>()?;
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(Error::captioner)?;
        // Readers such as transformers ask for the framework that wrote the file.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        serialize(views, Some(metadata)).map_err(Error::captioner)
    }

    /// Identifies everything that signals depend on.
    pub(super) fn signal_fingerprint(&self) -> u64 {
        let mut config = self.config.clone();
        // How captions are written does not touch signals.
        config.generation = CaptionerConfig::tiny(4).generation;
        let clusters = self.clusters.as_ref().map_or(0, |clusters| clusters.fingerprint());
        hash::combine(&[config_hash(&config), self.weights_hash(), self.tokenizer.fingerprint(), clusters])
    }

    /// Identifies everything that captions depend on.
    pub(super) fn generation_fingerprint(&self) -> u64 {
        hash::combine(&[config_hash(&self.config), self.weights_hash(), self.tokenizer.fingerprint()])
    }

    fn weights_hash(&self) -> u64 {
        *self.weights_hash.get_or_init(|| {
            let parts: Vec<u64> = self
                .tensors
                .iter()
                .flat_map(|(name, tensor)| {
                    // Copying fails only on a broken device, where the next encode fails too.
                    let values = to_f32(tensor).unwrap_or_default();
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    [hash::hash_str(name), hash::hash_bytes(&bytes)]
                })
                .collect();
            hash::combine(&parts)
        })
    }
}

/// Changes how the captioner in `dir` writes captions; its weights stay as they are. Says what holds
/// from then on.
///
/// # Errors
/// No captioner directory; a setting that cannot work, by name: the directory is then unchanged.
pub fn set_generation(
    dir: impl AsRef<Path>,
    change: impl FnOnce(&mut GenerationConfig),
) -> Result<GenerationConfig> {
    let path = dir.as_ref().join(CONFIG);
    let mut config = load_config(&path)?;
    change(&mut config.generation);
    config.validate()?;
    let json = serde_json::to_string_pretty(&config).map_err(Error::captioner)?;
    replace(&path, |path| write(path, json.as_bytes()))?;
    Ok(config.generation)
}

fn load_config(path: &Path) -> Result<CaptionerConfig> {
    let name = path.display().to_string();
    let json = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read {name}"), e))?;
    let config: CaptionerConfig = serde_json::from_str(&json).map_err(|e| {
        let found = match is_transformers(&json) {
            true => {
                "that of a Hugging Face model: make a captioner of a BLIP first, with `tldr-loader load` \
                     or `Captioner.load_blip`"
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

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|e| Error::io(format!("write {}", path.display()), e))
}

/// Lets `write` make the file aside, then renames it to `path`.
pub(super) fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = Path::new(&aside);
    write(aside)?;
    std::fs::rename(aside, path).map_err(|e| Error::io(format!("write {}", path.display()), e))
}
