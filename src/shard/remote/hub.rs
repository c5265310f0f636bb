//! Files of datasets on the Hugging Face hub: their URLs, and the token of whoever is logged in.
//!
//! A file is read over HTTP from the hub's `resolve` URL, which redirects to a signed URL of the store behind it
//! (`web` remembers that one until it expires).

use std::path::PathBuf;

use url::Url;

use crate::error::{Error, Result};
use crate::shard::patterns::unescaped;

/// Where the hub is, unless `HF_ENDPOINT` names another.
const HUB: &str = "https://huggingface.co";

/// How addresses of files are written.
const FORM: &str =
    "expected hf://datasets/OWNER/NAME[@REVISION]/PATH; other kinds of repositories are not read";

/// A file or a folder of a dataset on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubFile {
    /// `OWNER/NAME`.
    pub(super) repo: String,
    /// A branch, a tag or a commit, as it was written.
    pub(super) revision: Option<String>,
    /// As it is written, without escapes; empty, or ending in a slash, where it is a folder's.
    pub(super) path: String,
}

impl HubFile {
    /// Parses `rest`, what follows `hf://` in `url`.
    pub(super) fn parse(url: &str, rest: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::refused("urls", format!("{url:?}"), why));
        let mut parts = rest.splitn(3, '/');
        let (kind, owner, rest) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let (Some("datasets"), Some(owner)) = (kind, owner.filter(|owner| !owner.is_empty())) else {
            return refuse(FORM);
        };
        let name = &rest[..rest.find(['/', '@']).unwrap_or(rest.len())];
        let rest = &rest[name.len()..];
        let (revision, path) = match rest.strip_prefix('@') {
            Some(rest) => {
                // These revisions have slashes in their names.
                let is_ref = rest.starts_with("refs/convert/") || rest.starts_with("refs/pr/");
                let end =
                    rest.match_indices('/').nth(if is_ref { 2 } else { 0 }).map_or(rest.len(), |(at, _)| at);
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        if name.is_empty() || revision == Some("") {
            return refuse(FORM);
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let is_whole = |part: &str| !matches!(part, "" | "." | "..");
        if !path.is_empty() && !path.trim_end_matches('/').split('/').all(is_whole) || path.ends_with("//") {
            return refuse("expected a path without . and .., and without empty parts");
        }
        let owned = |text: &str| text.to_owned();
        Ok(Self { repo: format!("{owner}/{name}"), revision: revision.map(owned), path: owned(path) })
    }

    /// How it is named in messages, and everywhere else: without the place of the hub.
    pub(super) fn url(&self) -> String {
        let at = self.revision.as_ref().map(|revision| format!("@{revision}")).unwrap_or_default();
        format!("hf://datasets/{}{at}/{}", self.repo, self.path)
    }

    /// Name of the dataset, without its owner.
    pub(super) fn name(&self) -> &str {
        self.repo.rsplit('/').next().unwrap_or_default()
    }

    /// The part of its path that a glob does not touch, and the pattern, where it is one.
    pub(super) fn glob(&self) -> Option<(Self, &str)> {
        let first = self.path.find(['*', '?'])?;
        let folder = self.path[..first].rfind('/').map_or("", |at| &self.path[..=at]);
        Some((Self { path: folder.to_owned(), ..self.clone() }, &self.path))
    }

    /// Where it is read.
    pub(super) fn resolve(&self, hub: &Url) -> Url {
        self.at(hub, &["datasets"], "resolve")
    }

    /// Where what it holds is listed, itself a folder.
    pub(super) fn tree(&self, hub: &Url, below: bool) -> Url {
        let mut url = self.at(hub, &["api", "datasets"], "tree");
        url.query_pairs_mut().append_pair("recursive", if below { "true" } else { "false" });
        url
    }

    fn at(&self, hub: &Url, first: &[&str], what: &str) -> Url {
        let mut url = hub.clone();
        // A revision may be written with its slashes escaped.
        let revision = self.revision.as_deref().unwrap_or("main");
        let revision = unescaped(revision).unwrap_or_else(|| revision.to_owned());
        if let Ok(mut parts) = url.path_segments_mut() {
            // Each is encoded as it is added.
            parts.pop_if_empty().extend(first).extend(self.repo.split('/')).push(what).push(&revision);
            parts.extend(self.path.split('/').filter(|part| !part.is_empty()));
        }
        url
    }
}

/// Where the hub is, by the environment.
///
/// # Errors
/// An endpoint that is no URL.
pub(super) fn endpoint() -> Result<Url> {
    let given = std::env::var("HF_ENDPOINT").ok().filter(|given| !given.is_empty());
    let text = given.as_deref().unwrap_or(HUB);
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let is_bare = |url: &Url| url.username().is_empty() && url.password().is_none() && url.query().is_none();
    url.filter(is_bare).ok_or_else(|| {
        let accepted = "the environment variable is no URL of a server, like https://huggingface.co";
        Error::refused("HF_ENDPOINT", text, accepted)
    })
}

/// The token of whoever is logged in, where `huggingface_hub` looks for it: `HF_TOKEN`, else the file that
/// `hf auth login` writes.
pub(super) fn token() -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let given = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
    let file = || {
        let home = || PathBuf::from(set("HOME").unwrap_or_default());
        let cache = || set("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
        let own = || set("HF_HOME").map_or_else(|| cache().join("huggingface"), PathBuf::from);
        let path = set("HF_TOKEN_PATH").map_or_else(|| own().join("token"), PathBuf::from);
        std::fs::read_to_string(path).ok()
    };
    given.or_else(file).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(url: &str) -> HubFile {
        HubFile::parse(url, url.strip_prefix("hf://").unwrap()).unwrap()
    }

    #[test]
    fn paths_and_revisions_are_encoded() {
        // Right: what `huggingface_hub.hf_hub_url` gives.
        let hub = Url::parse("https://huggingface.co").unwrap();
        for (url, expected) in [
            ("hf://datasets/o/n/a/0.tar", "main/a/0.tar"),
            ("hf://datasets/o/n@v1.0/0.tar", "v1.0/0.tar"),
            ("hf://datasets/o/n@refs/pr/7/a/0.tar", "refs%2Fpr%2F7/a/0.tar"),
            ("hf://datasets/o/n@refs%2Fconvert%2Fparquet/0.tar", "refs%2Fconvert%2Fparquet/0.tar"),
            ("hf://datasets/o/n/my set/0%20#?.tar", "main/my%20set/0%2520%23%3F.tar"),
        ] {
            let expected = format!("https://huggingface.co/datasets/o/n/resolve/{expected}");
            assert_eq!(file(url).resolve(&hub).as_str(), expected);
            assert_eq!(file(url).url(), url);
        }
        let mirror = Url::parse("http://mirror:8/hub/").unwrap();
        assert_eq!(
            file("hf://datasets/o/n/a/").tree(&mirror, false).as_str(),
            "http://mirror:8/hub/api/datasets/o/n/tree/main/a?recursive=false"
        );
        assert_eq!(
            file("hf://datasets/o/n").tree(&mirror, true).as_str(),
            "http://mirror:8/hub/api/datasets/o/n/tree/main?recursive=true"
        );
    }

    #[test]
    fn a_glob_is_listed_from_its_last_whole_folder() {
        let of = |url: &str| file(url).glob().map(|(folder, _)| folder.path);
        assert_eq!(of("hf://datasets/o/n/a/b/0*.tar").as_deref(), Some("a/b/"));
        assert_eq!(of("hf://datasets/o/n/**/0.tar").as_deref(), Some(""));
        assert_eq!(of("hf://datasets/o/n/a/0.tar"), None);
    }
}
