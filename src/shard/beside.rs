//! The small files beside a shard.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::shard::location::{Location, Shard};
use crate::shard::remote::{self, Object};

/// A small file beside a shard, which may be there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sidecar {
    Local(PathBuf),
    Remote(Object),
}

impl Sidecar {
    /// The file `name` in the folder of `shard`.
    ///
    /// # Errors
    /// A name that the store cannot have.
    pub(super) fn beside(shard: &Shard, name: &str) -> Result<Self> {
        match &shard.location {
            Location::Local => Ok(Self::Local(Path::new(&*shard.url).with_file_name(name))),
            Location::Remote(object) => Ok(Self::Remote(object.beside(name)?)),
        }
    }

    /// Its path or URL.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Remote(object) => object.url().to_string(),
        }
    }

    /// The contents of `files`, `None` where there is no such file. Remote ones are asked for 16
    /// at a time; one that must not be read (401, 403) counts as absent, since a store that does
    /// not let its folders be listed answers so for files that are not there.
    ///
    /// # Errors
    /// A file that is there and cannot be read; a store that fails.
    pub(super) fn read(files: &[Self]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut contents = vec![None; files.len()];
        let mut far: Vec<(usize, Object)> = vec![];
        for (i, file) in files.iter().enumerate() {
            match file {
                Self::Local(path) => contents[i] = local(path)?,
                Self::Remote(object) => far.push((i, object.clone())),
            }
        }
        if !far.is_empty() {
            for (i, bytes) in remote::read_small(far)? {
                contents[i] = bytes;
            }
        }
        Ok(contents)
    }
}

fn local(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("read {}", path.display()), error)),
    }
}
