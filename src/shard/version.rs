//! What tells one version of a shard from another.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::shard::location::Location;
use crate::shard::remote::{self, Identity};
use crate::shard::{Shard, ShardMetadata};

/// What tells one state of a shard from another, where it can be read at random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// Length and time of change of a local file.
    File(u64, Option<SystemTime>),
    /// Version of an object in a store.
    Object(Identity),
}

impl Version {
    /// The mark of an open file, and its length; `None` where it is no regular file.
    pub(super) fn of_file(file: &File) -> std::io::Result<Option<(Self, u64)>> {
        let meta = file.metadata()?;
        let mark = Self::File(meta.len(), meta.modified().ok());
        Ok(meta.is_file().then_some((mark, meta.len())))
    }
}

/// One line, which [`FromStr`] reads again.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(size, changed) => {
                // Before 1970, or where the system does not say: the size alone tells.
                let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                match since {
                    Some(since) => write!(f, "file {size} {}.{:09}", since.as_secs(), since.subsec_nanos()),
                    None => write!(f, "file {size} -"),
                }
            }
            Self::Object(identity) => write!(f, "object {identity}"),
        }
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (kind, rest) = text.split_once(' ').ok_or(())?;
        match kind {
            "file" => {
                let (size, changed) = rest.split_once(' ').ok_or(())?;
                let changed = match changed.split_once('.') {
                    Some((seconds, nanos)) => {
                        let since =
                            Duration::new(seconds.parse().map_err(|_| ())?, nanos.parse().map_err(|_| ())?);
                        Some(UNIX_EPOCH.checked_add(since).ok_or(())?)
                    }
                    None => None,
                };
                Ok(Self::File(size.parse().map_err(|_| ())?, changed))
            }
            "object" => rest.parse().map(Self::Object),
            _ => Err(()),
        }
    }
}

impl Shard {
    /// Which version of the shard is there now: a line that changes with its size, its time of change
    /// or its ETag. `None` where nothing tells (a pipe; a file that is not there).
    ///
    /// A remote shard that was read tells what was read; one that was not is asked for its first byte.
    ///
    /// # Errors
    /// The store fails.
    pub fn version(&self) -> Result<Option<String>> {
        self.version_until(false, None)
    }

    /// As [`version`](Self::version). With `metadata`, also that of the Parquet file beside a local
    /// shard. A store that does not answer is waited for until `stop` is set.
    pub(crate) fn version_until(
        &self,
        metadata: bool,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Option<String>> {
        let _ = stop;
        let version = match &self.location {
            Location::Local => match std::fs::metadata(&*self.url) {
                Ok(meta) if meta.is_file() => Version::File(meta.len(), meta.modified().ok()).to_string(),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io(format!("look at {}", self.url), error)),
            },
            Location::Remote(object) => {
                let identity = match object.last_read() {
                    Some(identity) => identity,
                    None => {
                        let identity = remote::version_now(object, stop)?;
                        object.note_version(&identity);
                        identity
                    }
                };
                if !identity.tells() {
                    return Ok(None);
                }
                Version::Object(identity).to_string()
            }
        };
        let beside = if metadata { ShardMetadata::local_file(self) } else { None };
        Ok(Some(match beside.and_then(|path| std::fs::metadata(path).ok()) {
            Some(meta) => format!("{version} with {}", Version::File(meta.len(), meta.modified().ok())),
            None => version,
        }))
    }

    /// Whether it is a local file.
    pub(crate) fn is_local(&self) -> bool {
        self.location == Location::Local
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_mark_is_read_as_it_is_written() {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        for mark in [Version::File(7, Some(time)), Version::File(0, None)] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for text in ["object 12 1700000000 \"a b\"", "object 12 0 -", "object 0 0 W/\"x\""] {
            assert_eq!(text.parse::<Version>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "file", "file 7", "file x -", "file 7 99999999999999999999.0", "object 1", "tape 1 2"]
        {
            assert_eq!(wrong.parse::<Version>(), Err(()), "{wrong}");
        }
    }
}
