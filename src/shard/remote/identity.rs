//! Which version of an object is meant.

use std::fmt;
use std::str::FromStr;

use object_store::ObjectMeta;

/// What tells one version of an object from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(in crate::shard) size: u64,
    pub(super) etag: Option<String>,
    /// Seconds since 1970; 0 where the server does not say.
    pub(super) modified: i64,
}

/// One line, which [`FromStr`] reads again.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.size, self.modified, self.etag.as_deref().unwrap_or("-"))
    }
}

impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut parts = text.splitn(3, ' ');
        let mut part = || parts.next().ok_or(());
        let (size, modified, etag) = (part()?, part()?, part()?);
        Ok(Self {
            size: size.parse().map_err(|_| ())?,
            modified: modified.parse().map_err(|_| ())?,
            etag: (etag != "-").then(|| etag.to_owned()),
        })
    }
}

impl Identity {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Self { size: meta.size, etag: meta.e_tag.clone(), modified: meta.last_modified.timestamp() }
    }

    /// Whether it would show that the object was replaced.
    pub(crate) fn tells(&self) -> bool {
        self.etag.is_some() || self.modified != 0
    }

    /// The ETag, where a request may demand it: weak ones equal nothing (RFC 9110, 8.8.3.2).
    pub(super) fn condition(&self) -> Option<String> {
        self.etag.clone().filter(|etag| !etag.starts_with("W/"))
    }

    /// How `now` shows that it is another version.
    pub(super) fn replaced_by(&self, now: &Self) -> Option<String> {
        if self.size != now.size {
            return Some(format!("it had {} bytes and has {}", self.size, now.size));
        }
        match (&self.etag, &now.etag) {
            (Some(before), Some(now)) if before != now => Some(format!("its ETag was {before} and is {now}")),
            (None, None) if self.modified != now.modified => Some("it was modified since".into()),
            _ => None,
        }
    }
}
