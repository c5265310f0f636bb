//! One shard of a corpus, and where it lies.

use std::sync::Arc;

use crate::hash;
use crate::sample::SampleId;
use crate::shard::remote::Object;

/// How the name of a Parquet file ends.
pub(super) const ROWS: &str = ".parquet";

/// One shard of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Where it is: a local path, as the caller wrote it, or a URL (without its query, which may
    /// hold a signature).
    pub url: Arc<str>,
    /// Name of the source: by default the name of the folder that holds the shard.
    pub source: Arc<str>,
    /// Path below the source's root: the file name.
    pub path: Arc<str>,
    /// Hash of (source, path): [`SampleId::shard_hash`](crate::SampleId::shard_hash).
    pub hash: u64,
    pub(crate) location: Location,
}

impl Shard {
    /// The local file `path` of `source`.
    pub fn local(path: &str, source: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        Self {
            url: path.into(),
            source: source.into(),
            path: name.into(),
            hash: SampleId::shard_hash(source, name),
            location: Location::Local,
        }
    }

    /// What it is known by, with so many `samples` in it, where its source may have another name or the data may have
    /// moved, but not both: hashes of (source, path, samples) and of its URL, of a local file the absolute path. The
    /// number keeps apart what is called alike, as `train/00000.tar` is in many a corpus.
    pub fn marks(&self, samples: u64) -> [u64; 2] {
        let absolute = match self.location {
            Location::Local => std::path::absolute(&*self.url).ok(),
            Location::Remote(_) => None,
        };
        let url = absolute.map_or(hash::hash_str(&self.url), |path| hash::hash_str(&path.to_string_lossy()));
        [hash::combine(&[self.hash, samples]), url]
    }

    /// Whether one of its [marks](Self::marks) is among `marks`, which ascend.
    pub fn is_marked(&self, samples: u64, marks: &[u64]) -> bool {
        self.marks(samples).iter().any(|mark| marks.binary_search(mark).is_ok())
    }

    /// Whether it is a Parquet file whose rows are samples: by its name, so that it is known before it is opened.
    pub(super) fn has_rows(&self) -> bool {
        self.path.ends_with(ROWS)
    }

    /// Its file name up to the first dot, which files that lie beside it share.
    pub(super) fn stem(&self) -> &str {
        self.path.split('.').next().unwrap_or_default()
    }
}

/// Where the bytes of a shard are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// In the local file that the shard's `url` names.
    Local,
    /// In a store.
    Remote(Arc<Object>),
}
