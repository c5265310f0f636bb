//! URLs of remote shards, as users write them.

use url::Url;

use crate::error::{Error, Result};
use crate::shard::patterns::unescaped;
use crate::shard::remote::hub::HubFile;

/// Signs that make a local path a glob. A bracket is one too, but folders have them in their names, and
/// keys and paths are taken as they are written.
const WILDCARDS: [char; 2] = ['*', '?'];

/// Where an object or a folder of objects is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// In a bucket: `s3://BUCKET/KEY`. The key is taken as it is written.
    Bucket {
        kind: Kind,
        /// `s3://BUCKET`, `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net`.
        root: String,
        bucket: String,
        /// Without a slash before it; empty, or ending in one, where it is a folder's.
        key: String,
    },
    /// In a dataset on the Hugging Face hub.
    Hub(HubFile),
    /// On an HTTP server, with its query.
    Http(Url),
}

/// The stores that have buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Gcs,
    Azure,
}

impl Address {
    /// Parses one URL whose braces were expanded.
    ///
    /// # Errors
    /// A scheme that is not read, a glob, no bucket or host, a password in the URL.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::refused("urls", format!("{:?}", public(url)), why));
        let Some((scheme, rest)) = url.split_once("://") else {
            return refuse("expected a URL with a scheme");
        };
        let kind = match scheme {
            "s3" | "s3a" => Kind::S3,
            "gs" | "gcs" => Kind::Gcs,
            "az" | "adl" | "azure" | "abfs" | "abfss" => Kind::Azure,
            "http" | "https" => return Self::http(url),
            "hf" => return HubFile::parse(url, rest).map(Self::Hub),
            _ => {
                return refuse(&format!(
                    "{scheme}:// is not read: s3://, gs://, az://, abfs://, hf://datasets/, http:// and https:// are"
                ));
            }
        };
        if rest.contains(WILDCARDS) {
            return refuse(GLOB);
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return refuse("expected the name of a bucket after ://");
        }
        Ok(Self::Bucket {
            kind,
            root: format!("{scheme}://{bucket}"),
            bucket: bucket.split('@').next().unwrap_or(bucket).to_owned(),
            key: key.to_owned(),
        })
    }

    fn http(url: &str) -> Result<Self> {
        let refuse = |why: String| Err(Error::refused("urls", format!("{:?}", public(url)), why));
        let parsed = match Url::parse(url) {
            Ok(parsed) => parsed,
            Err(error) => return refuse(format!("expected a URL: {error}")),
        };
        // The authority of an IPv6 host has brackets, and a query has its own rules.
        let path = parsed.path();
        if path.contains(WILDCARDS) {
            return refuse(GLOB.into());
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return refuse(
                "expected a URL without a user and a password; signed URLs (https://HOST/PATH?SIGNATURE) are read"
                    .into(),
            );
        }
        if parsed.fragment().is_some() {
            return refuse("expected a URL without a fragment; a # in a path is written %23".into());
        }
        if path.ends_with('/') {
            return refuse(
                "folders of an HTTP server cannot be listed; name the shards, as in \
                 https://HOST/PATH/{00000..00331}.tar"
                    .into(),
            );
        }
        Ok(Self::Http(parsed))
    }

    /// Whether it stands for all shards below it.
    pub(crate) fn is_folder(&self) -> bool {
        match self {
            Self::Bucket { key, .. } => key.is_empty() || key.ends_with('/'),
            Self::Hub(file) => file.path.is_empty() || file.path.ends_with('/'),
            Self::Http(_) => false,
        }
    }

    /// Its name in its folder, as it is written.
    pub(crate) fn file_name(&self) -> &str {
        let path = match self {
            Self::Bucket { key: path, .. } | Self::Hub(HubFile { path, .. }) => path,
            Self::Http(url) => url.path(),
        };
        path.rsplit('/').next().unwrap_or_default()
    }

    /// The object `name` in this folder.
    pub(crate) fn inside(&self, name: &str) -> Self {
        let mut address = self.clone();
        if let Self::Bucket { key: path, .. } | Self::Hub(HubFile { path, .. }) = &mut address {
            path.push_str(name);
        }
        address
    }

    /// How it is named in messages: without the query, which may hold a signature.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Bucket { root, key, .. } => format!("{root}/{key}"),
            Self::Hub(file) => file.url(),
            Self::Http(url) => url[..url::Position::AfterPath].to_owned(),
        }
    }

    /// Name of the folder that holds it, and its own: what identities are made of. The folder of
    /// an object at the root is its bucket, dataset or host.
    pub(crate) fn names(&self) -> Option<(String, String)> {
        let (root, path) = match self {
            Self::Bucket { bucket, key, .. } => (bucket.as_str(), key.clone()),
            Self::Hub(file) => (file.name(), file.path.clone()),
            Self::Http(url) => (url.host_str().unwrap_or_default(), unescaped(url.path())?),
        };
        let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
        let name = parts.next()?.to_owned();
        Some((parts.next().unwrap_or(root).to_owned(), name))
    }
}

const GLOB: &str = "globs (* ?) are for local paths and hf://: other remote shards are listed with braces, {00000..00331}, or, in a \
                    bucket, by their folder, s3://BUCKET/FOLDER/";

/// `url` as messages may show it: without a query and a password.
fn public(url: &str) -> String {
    let Some((scheme @ ("http" | "https"), rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit('@').next().unwrap_or(host);
    path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn identities_are_of_folder_and_file() {
        for (url, folder, name, shown) in [
            ("s3://b/cc3m/0.tar", "cc3m", "0.tar", "s3://b/cc3m/0.tar"),
            ("s3://b/0.tar", "b", "0.tar", "s3://b/0.tar"),
            ("gs://b/a%20b/x/0.tar", "x", "0.tar", "gs://b/a%20b/x/0.tar"),
            ("az://c/a b/0.tar", "a b", "0.tar", "az://c/a b/0.tar"),
            ("s3://b/x [v1]/0.tar", "x [v1]", "0.tar", "s3://b/x [v1]/0.tar"),
            (
                "abfss://c@acc.dfs.core.windows.net/0.tar",
                "c",
                "0.tar",
                "abfss://c@acc.dfs.core.windows.net/0.tar",
            ),
            ("hf://datasets/o/n/d/0.tar", "d", "0.tar", "hf://datasets/o/n/d/0.tar"),
            ("hf://datasets/o/n@v1/a b%20#1.tar", "n", "a b%20#1.tar", "hf://datasets/o/n@v1/a b%20#1.tar"),
            ("https://h:8/d/my%20set/0.tar?sig=x", "my set", "0.tar", "https://h:8/d/my%20set/0.tar"),
            ("http://[::1]:80/0.tar", "[::1]", "0.tar", "http://[::1]/0.tar"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.names(), Some((folder.into(), name.into())), "{url}");
            assert_eq!(address.url(), shown);
            assert!(!address.is_folder());
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_showing_secrets() {
        for (url, expected) in [
            ("s3://b/*.tar", "globs (* ?) are for local paths and hf://"),
            ("https://h/x/0*.tar", "globs (* ?) are for local paths and hf://"),
            ("https://h/a/", "cannot be listed"),
            ("https://me:secret@h/a.tar", "without a user and a password"),
            ("s3:///a.tar", "name of a bucket"),
            ("hdfs://h/a.tar", "hdfs:// is not read"),
            ("https:///?secret", "a URL"),
            ("https://h/x#1.tar", "written %23"),
            ("hf://models/o/n/0.tar", "hf://datasets/OWNER/NAME"),
            ("hf://datasets/o", "hf://datasets/OWNER/NAME"),
            ("hf://datasets/o/n@/0.tar", "hf://datasets/OWNER/NAME"),
            ("hf://datasets/o/n/a/../0.tar", "without . and .."),
            ("hf://datasets/o/n/a//0.tar", "without . and .."),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
