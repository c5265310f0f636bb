//! Where the files of a ledger are: a local folder, or a folder of a bucket.
//!
//! Paths are below the root. A file is there whole or not at all: locally it is written aside and renamed
//! into place, and a store shows an object once it has all of it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::aside;
use crate::error::Result;
use crate::shard::Bucket;
use crate::shard::Store;

/// The folder that holds a ledger.
#[derive(Debug, Clone)]
pub(super) enum Root {
    Local(PathBuf),
    Bucket(Bucket),
}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: String,
    /// When a file was written.
    pub(super) modified: SystemTime,
}

impl Root {
    /// The folder of that path or URL.
    ///
    /// # Errors
    /// A URL of something else than a bucket; a store that cannot be set up.
    pub(super) fn of(place: &Path, stores: &Store) -> Result<Self> {
        let Some(url) = place.to_str().filter(|text| text.contains("://")) else {
            return Ok(Self::Local(place.to_owned()));
        };
        Bucket::open(url, stores).map(Self::Bucket)
    }

    /// How it is named: as users write it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Local(folder) => folder.display().to_string(),
            Self::Bucket(bucket) => bucket.url().to_owned(),
        }
    }

    /// How the file or folder `below` is named in messages.
    pub(super) fn name_of(&self, below: &Path) -> String {
        format!("{}/{}", self.name(), below.display())
    }

    /// Makes the folder where stores ask for that.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn make(&self) -> io::Result<()> {
        match self {
            Self::Local(folder) => fs::create_dir_all(folder),
            Self::Bucket(_) => Ok(()),
        }
    }

    /// What lies directly in the folder `below`, sorted by name; nothing where it is not there.
    ///
    /// # Errors
    /// It cannot be listed.
    pub(super) fn list(&self, below: &Path) -> io::Result<Vec<Entry>> {
        match self {
            Self::Local(folder) => {
                let entries = match fs::read_dir(folder.join(below)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
                    entries => entries?,
                };
                let entry = |entry: fs::DirEntry| Entry {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    modified: entry
                        .metadata()
                        .and_then(|meta| meta.modified())
                        .unwrap_or(SystemTime::UNIX_EPOCH),
                };
                let mut found = entries.map(|found| found.map(entry)).collect::<io::Result<Vec<Entry>>>()?;
                found.sort();
                Ok(found)
            }
            Self::Bucket(bucket) => {
                let found = bucket.list(&key(below))?.into_iter();
                Ok(found.map(|entry| Entry { name: entry.name, modified: entry.modified }).collect())
            }
        }
    }

    /// The content of a file; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Local(folder) => match fs::read(folder.join(path)) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                content => content.map(Some),
            },
            Self::Bucket(bucket) => bucket.read(&key(path)),
        }
    }

    /// Writes a file and the folders above it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(folder) => {
                let path = folder.join(path);
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                aside::write(path, content)
            }
            Self::Bucket(bucket) => bucket.write(&key(path), content.to_vec()),
        }
    }
}

/// A path as the key of an object.
fn key(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
