//! How the files of a captioner or matcher directory are read and written.

use std::fs::{File, TryLockError};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::error::{Error, Result};
use crate::weights::{NamedTensors, to_f32};
use tldr_loader::ErrorKind;
use tldr_loader::aside::{self, Aside};
use tldr_loader::hash;
use tldr_loader::json;
use tldr_loader::text::Tokenizer;

/// Sizes and settings.
pub(super) const CONFIG: &str = "config.json";
/// Weights.
pub(crate) const MODEL: &str = "model.safetensors";
/// The tokenizer, in the format of Hugging Face's tokenizers.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Reads `path` as json, which Python may have written; `expected` says what it should hold.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    let name = path.display().to_string();
    let content = std::fs::read(path).map_err(|e| Error::io(format!("read {name}"), e))?;
    json::read(&content).map_err(|e| Error::format(name, expected, e))
}

/// Writes `path` whole or not at all.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    aside::write(path, content).map_err(|e| Error::io(format!("write {}", path.display()), e))
}

/// Keeps others from training or fitting the captioner in `dir` as long as the result lives.
///
/// # Errors
/// Another process, or thread, has it.
pub(crate) fn lock(dir: &Path) -> Result<Option<File>> {
    let folder = File::open(dir).map_err(|e| Error::io(format!("open {}", dir.display()), e))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => {
            let detail = format!(
                "another run trains or fits the captioner in {}: wait for it, or take another folder; where \
                 several processes are started (torchrun), train and fit before them, once",
                dir.display()
            );
            Err(ErrorKind::Locked { detail }.into())
        }
        // Some network filesystems know no locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Fails where the folder `dir` holds a model that is no `own`: it is not to be replaced unasked.
pub(super) fn check_own(
    dir: &Path,
    own: &str,
    is_own: impl FnOnce(&serde_json::Value) -> bool,
) -> Result<()> {
    let Ok(json) = std::fs::read_to_string(dir.join(CONFIG)) else { return Ok(()) };
    let is_own = serde_json::from_str(&json).is_ok_and(|config| is_own(&config));
    if is_own {
        return Ok(());
    }
    let accepted = format!("a folder of its own: this one holds config.json of something that is no {own}");
    Err(Error::option("out", dir.display(), accepted))
}

/// Fails where the tokenizer in the file `path` has more tokens than the embedding has rows.
pub(super) fn check_vocabulary(path: &Path, tokenizer: &Tokenizer, rows: usize) -> Result<()> {
    let tokens = tokenizer.vocab_size();
    if tokens <= rows {
        return Ok(());
    }
    let expected = format!("at most {rows} tokens, the rows of the embedding that config.json names");
    Err(Error::format(path.display().to_string(), expected, format!("{tokens} tokens")))
}

/// Puts a file in its place.
///
/// # Errors
/// It cannot be renamed.
pub(super) fn place(aside: Aside) -> Result<()> {
    let action = format!("write {}", aside.path().display());
    aside.place().map_err(|e| Error::io(action, e))
}

/// The files that captioners and matchers have in common, written and not yet in their places: all of them
/// before the first is, so that a disk that is full leaves what is there.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn model_files(
    dir: &Path,
    config: &impl serde::Serialize,
    tokenizer: &Tokenizer,
    tensors: &NamedTensors,
) -> Result<[Aside; 3]> {
    let json = serde_json::to_string_pretty(config).map_err(Error::captioner)?;
    let written = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        Aside::of(&path, content).map_err(|e| Error::io(format!("write {}", path.display()), e))
    };
    Ok([
        written(MODEL, &serialised(tensors)?)?,
        written(TOKENIZER, tokenizer.to_json()?.as_bytes())?,
        written(CONFIG, json.as_bytes())?,
    ])
}

/// Tensors as a safetensors file, f32.
pub(super) fn serialised(tensors: &NamedTensors) -> Result<Vec<u8>> {
    let tensors: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
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

/// Hash of names and values.
pub(super) fn tensors_hash(tensors: &NamedTensors) -> u64 {
    let parts: Vec<u64> = tensors
        .iter()
        .flat_map(|(name, tensor)| {
            // Copying fails only on a broken device, where the next encode fails too.
            let values = to_f32(tensor).unwrap_or_default();
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            [hash::hash_str(name), hash::hash_bytes(&bytes)]
        })
        .collect();
    hash::combine(&parts)
}
