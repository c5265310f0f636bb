//! A folder of a bucket that is read and written object by object: where a ledger may be.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, RetryConfig};

use crate::error::{Error, Result};
use crate::shard::Store;
use crate::shard::remote::address::Address;
use crate::shard::remote::runtime;
use crate::shard::remote::store::connect;

/// Longest time that one request is tried again for: credentials of a request last no longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder of a bucket. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// Key of the folder, without a slash at its end.
    folder: String,
    url: String,
}

/// What a folder of a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name in the folder.
    pub(crate) name: String,
    /// Whether it is a folder itself.
    pub(crate) is_folder: bool,
    /// When it was written; of a folder the beginning of time.
    pub(crate) modified: SystemTime,
}

impl Bucket {
    /// The folder at `url`, as in `s3://BUCKET/FOLDER`; whether it can be reached is not asked.
    ///
    /// # Errors
    /// A URL of something else; a store that cannot be set up.
    pub(crate) fn open(url: &str, options: &Store) -> Result<Self> {
        let address = Address::parse(url)?;
        let Address::Bucket { kind, root, bucket, key } = &address else {
            let accepted =
                "a local folder, or one of a bucket (s3://BUCKET/FOLDER): HTTP servers take no files";
            return Err(Error::option("ledger", format!("{:?}", address.url()), accepted));
        };
        let retry = RetryConfig {
            max_retries: options.retries as usize,
            retry_timeout: PATIENCE,
            ..RetryConfig::default()
        };
        let store = connect(*kind, root, bucket, options, retry).map_err(|error| {
            let accepted =
                format!("a bucket; AWS_*, GOOGLE_* and AZURE_* variables say how to ask it: {error}");
            Error::option("ledger", format!("{root:?}"), accepted)
        })?;
        let folder = key.trim_end_matches('/').to_owned();
        Ok(Self { store, url: address.url().trim_end_matches('/').to_owned(), folder })
    }

    /// Its URL, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The content of an object; `None` where there is none.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        let content = runtime()?.block_on(async { self.store.get(&path).await?.bytes().await });
        match content {
            Ok(content) => Ok(Some(content.into())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Writes an object, in place of one that is there: nobody sees half of it.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn write(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        let path = self.path(name)?;
        runtime()?.block_on(self.store.put(&path, content.into())).map(drop).map_err(io::Error::other)
    }

    /// What lies directly in its folder `below`, `""` for itself, sorted by name.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn list(&self, below: &str) -> io::Result<Vec<Entry>> {
        let path = self.path(below)?;
        let prefix = (!path.is_root()).then_some(&path);
        let found = runtime()?.block_on(self.store.list_with_delimiter(prefix)).map_err(io::Error::other)?;
        let named = |path: &Path| path.filename().map(str::to_owned);
        let folders = found.common_prefixes.iter().filter_map(|path| {
            Some(Entry { name: named(path)?, is_folder: true, modified: SystemTime::UNIX_EPOCH })
        });
        let objects = found.objects.iter().filter_map(|object| {
            Some(Entry {
                name: named(&object.location)?,
                is_folder: false,
                modified: object.last_modified.into(),
            })
        });
        let mut entries: Vec<Entry> = folders.chain(objects).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn path(&self, name: &str) -> io::Result<Path> {
        let parts = [self.folder.as_str(), name];
        let whole: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Path::parse(whole.join("/")).map_err(io::Error::other)
    }
}
