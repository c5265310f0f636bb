//! Where a shard lies, how stores are asked, and the small files beside a shard.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::shard::remote::{self, Object};

crate::group! {
    /// How shards in object stores and on HTTP servers are read; local shards need none of it. A reader holds at most
    /// `ranges_ahead * range_bytes` of a shard. Credentials come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    pub struct Store {
        /// URL of a server that speaks S3 (MinIO, Ceph, R2), for `s3://` shards. Default: `AWS_ENDPOINT_URL` where that is
        /// set, else Amazon.
        Runtime endpoint: Option<String> = None;
        /// Seconds to wait for the next bytes of an answer. Default: 30.
        Runtime read_timeout: Duration = Duration::from_secs(30);
        /// Times that a request is made again after a fault that may pass, before the fault ends the run; counted anew
        /// after each `range_bytes`. Default: 8, which take 23 s of waiting.
        Runtime retries: u32 = 8;
        /// Bytes per request. Default: 4 MiB.
        Runtime range_bytes: usize = 4 << 20;
        /// Requests of one reader at a time. Default: 4.
        Runtime ranges_ahead: usize = 4;
    }
}

impl Store {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub fn check(&self) -> Result<()> {
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            let accepted = "the URL of a server that speaks S3, like https://minio.example.org:9000";
            return Err(Error::option("endpoint", format!("{endpoint:?}"), accepted));
        }
        if self.read_timeout.is_zero() {
            return Err(Error::option("read_timeout", "0 s", "more than 0 s"));
        }
        for (option, value) in [("range_bytes", self.range_bytes), ("ranges_ahead", self.ranges_ahead)] {
            if value == 0 {
                return Err(Error::option(option, value, "at least 1"));
            }
        }
        Ok(())
    }
}

/// Where the bytes of a shard are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the local file that the shard's `url` names.
    Local,
    /// In a store.
    Remote(Arc<Object>),
}

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
        match &shard.place {
            Place::Local => Ok(Self::Local(Path::new(&*shard.url).with_file_name(name))),
            Place::Remote(object) => Ok(Self::Remote(object.beside(name)?)),
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
