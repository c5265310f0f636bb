//! Promise: shards in a dataset on the Hugging Face hub read as local ones, wherever the hub is, over signed URLs that
//! expire; the token goes to the hub only. The hub is a local server that answers as it does.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fault_server::{Reply, Request, Server};
use crate::support::{self, wait};
use tldr_loader::shard::{Group, ReadOptions, ShardReader, Store, Token, list};
use tldr_loader::{Result, Shard};

const TOKEN: &str = "Bearer hf_s3cret";

/// Pages of a list have so many entries.
const PAGE: usize = 3;

/// The files of the dataset `o/my-set`.
const FILES: [&str; 8] = [
    "README.md",
    "train/00000.tar",
    "train/00001.tar",
    "train/a b%20#?.tar",
    "train/sizes.json",
    "train/deep/00002.tar",
    "train/deep/00003.tar.gz",
    "other/00004.tar",
];

/// A hub at one port, and the store that it redirects to at another.
struct Hub {
    hub: Server,
    store: Arc<Server>,
}

/// A path without its escapes.
fn unescaped(path: &str) -> String {
    let (first, rest) = path.split_once('%').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(rest) = rest else { return first.to_owned() };
    let code = u8::from_str_radix(&rest[..2], 16).unwrap();
    format!("{first}{}{}", char::from(code), unescaped(&rest[2..]))
}

impl Hub {
    /// A signed URL has expired once the store has served so many requests since.
    fn start(serves: usize) -> Self {
        let bytes = support::shard_of(30);
        let served = Arc::new(AtomicUsize::new(0));
        let (size, content, count) = (bytes.len(), bytes.clone(), Arc::clone(&served));
        let store = Arc::new(Server::start([], move |request| {
            if request.header("authorization").is_some() || request.if_match.is_some() {
                return Reply::status(418);
            }
            let (signed, since) = request.target.split_once("sig=").unwrap().1.split_once('-').unwrap();
            let (signed, since): (usize, usize) = (signed.parse().unwrap(), since.parse().unwrap());
            if count.load(Ordering::Relaxed) - since >= serves {
                return Reply::status(403).body("<Error><Code>AccessDenied</Code></Error>");
            }
            count.fetch_add(1, Ordering::Relaxed);
            // Its versions are not the hub's, and differ from place to place.
            let place = ["\"a\"", "\"b\""][signed % 2];
            Reply { etag: Some(place), ..Reply::default() }
                .body(content.clone())
                .with("Last-Modified", format!("Fri, 31 Dec 1999 23:59:0{} GMT", signed % 10))
        }));
        let (target, signed) = (store.url("/blob"), AtomicUsize::new(0));
        let hub = Server::start([], move |request| {
            Self::answer(request, &target, &signed, served.load(Ordering::Relaxed), size)
        });
        Self { hub, store }
    }

    fn answer(request: &Request, store: &str, signed: &AtomicUsize, served: usize, size: usize) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let refuse = |status, code: &str, message: &str| {
            let body = format!("{{\"error\":\"{message}\"}}");
            Reply::status(status).with("X-Error-Code", code).with("X-Error-Message", message).body(body)
        };
        if request.header("authorization") != Some(TOKEN) {
            return refuse(401, "GatedRepo", "Access to dataset o/my-set is restricted.");
        }
        let api = "/api/datasets/o/my-set/tree/";
        let revision =
            |rest: &str| rest.split('/').next() == Some("main") || rest.starts_with("refs%2Fpr%2F1");
        if let Some(rest) = path.strip_prefix(api) {
            let folder = rest.split_once('/').map_or("", |(_, folder)| folder);
            if !revision(rest) || !["", "train", "train/deep", "other"].contains(&folder) {
                return refuse(404, "EntryNotFound", &format!("{folder} does not exist on main"));
            }
            return Self::list(folder, path, query, request.header("host").unwrap());
        }
        let Some(rest) = path.strip_prefix("/datasets/o/my-set/resolve/").filter(|rest| revision(rest))
        else {
            return refuse(404, "RepoNotFound", "Repository not found");
        };
        let name = rest.split_once('/').map_or("", |(_, name)| name);
        let name = unescaped(name);
        match name.as_str() {
            "train/sizes.json" => {
                Reply::default().body("{\"00000.tar\": 30}").with("X-Repo-Commit", "c0ffee")
            }
            name if name.ends_with(".tar") && FILES.contains(&name) => {
                let number = signed.fetch_add(1, Ordering::Relaxed);
                Reply::status(302)
                    .with("Location", format!("{store}?sig={number}-{served}"))
                    .with("X-Repo-Commit", "c0ffee")
                    .with("X-Linked-Size", size.to_string())
                    .with("X-Linked-Etag", "\"5ha256\"")
                    .with("ETag", "\"of-the-redirect\"")
            }
            name => refuse(404, "EntryNotFound", &format!("{name} does not exist on main")),
        }
    }

    /// One page of what is in `folder`.
    fn list(folder: &str, path: &str, query: &str, host: &str) -> Reply {
        let below = query.contains("recursive=true");
        let start: usize = query.split("cursor=").nth(1).map_or(0, |cursor| cursor.parse().unwrap());
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut entries = vec![];
        for file in FILES.iter().filter(|file| file.starts_with(&prefix)) {
            let rest = &file[prefix.len()..];
            match rest.split_once('/') {
                Some((inner, _)) if !below => entries.push(("directory", format!("{prefix}{inner}"))),
                _ => entries.push(("file", (*file).to_owned())),
            }
        }
        entries.dedup();
        let end = (start + PAGE).min(entries.len());
        let page: Vec<_> = entries[start..end]
            .iter()
            .map(|(kind, path)| serde_json::json!({"type": kind, "oid": "0", "size": 1, "path": path}))
            .collect();
        let reply = Reply::default().body(serde_json::to_vec(&page).unwrap());
        if end == entries.len() {
            return reply;
        }
        let query = query.split("&cursor=").next().unwrap();
        reply.with("Link", format!("<http://{host}{path}?{query}&cursor={end}>; rel=\"next\""))
    }

    /// Runs a test of `inside` with this hub.
    fn passes(&self, test: &str, more: &[(&str, &str)]) {
        wait::passes(self.command(test).env("HF_TOKEN", " hf_s3cret\n").envs(more.iter().copied()));
    }

    fn command(&self, test: &str) -> Command {
        let mut command = wait::test(module_path!(), &format!("inside::{test}"));
        for name in ["HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", self.hub.url("")).env("HOME", "/nowhere");
        command
    }
}

#[test]
fn shards_of_the_hub_read_as_local_ones() {
    let hub = Hub::start(usize::MAX);
    hub.passes("reads", &[]);
    let asked = hub.hub.requests().iter().filter(|request| request.target.contains("resolve")).count();
    // One for the first range of each opened shard, not for each range.
    assert!(hub.store.requests().len() > 20 && asked <= 3, "{asked}");
    assert!(hub.hub.requests().iter().all(|request| request.if_match.is_none()));
}

#[test]
fn a_signed_url_that_expired_is_asked_for_again() {
    let hub = Hub::start(8);
    hub.passes("reads", &[]);
    let asked = hub.hub.requests().iter().filter(|request| request.target.contains("resolve")).count();
    assert!(asked > 5 && asked < hub.store.requests().len() / 2, "{asked}");
}

#[test]
fn folders_and_globs_are_listed() {
    let hub = Hub::start(usize::MAX);
    hub.passes("lists", &[]);
    // What lies beside shards is looked up in the list of their folder.
    assert!(hub.hub.requests().iter().all(|request| !request.target.contains("_stats.json")));
}

#[test]
fn the_version_is_of_the_hub() {
    Hub::start(1).passes("versions", &[]);
}

#[test]
fn names_and_identities_do_not_depend_on_where_the_hub_is() {
    Hub::start(usize::MAX).passes("names", &[]);
}

#[test]
fn what_the_hub_refuses_says_what_can_be_done() {
    let hub = Hub::start(usize::MAX);
    wait::passes(&mut hub.command("without_a_token"));
    wait::passes(hub.command("with_a_wrong_token").env("HF_TOKEN", "hf_s3cret_wrong"));
    hub.passes("missing", &[]);
}

#[test]
fn a_token_is_found_where_huggingface_hub_keeps_it() {
    let hub = Hub::start(usize::MAX);
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str| -> PathBuf {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "hf_s3cret\n").unwrap();
        path
    };
    let home = write("home/.cache/huggingface/token").ancestors().nth(3).unwrap().to_owned();
    let xdg = write("xdg/huggingface/token").ancestors().nth(2).unwrap().to_owned();
    let own = write("own/token").parent().unwrap().to_owned();
    let path = write("path/token");
    for (name, value) in [("HOME", home), ("XDG_CACHE_HOME", xdg), ("HF_HOME", own), ("HF_TOKEN_PATH", path)]
    {
        wait::passes(hub.command("reads_one").env(name, value));
    }
    wait::passes(hub.command("reads_one").env("HUGGING_FACE_HUB_TOKEN", "hf_s3cret"));
    wait::passes(hub.command("by_option").env("HF_TOKEN", "hf_s3cret_wrong"));
}

/// What runs in the environment that a [`Hub`] makes.
mod inside {
    use super::*;

    fn options() -> Store {
        let read_timeout = Duration::from_secs(10);
        Store { range_bytes: 10_000, retries: 3, read_timeout, ..Store::default() }
    }

    fn shards(pattern: &str) -> Result<Vec<Shard>> {
        list(&[pattern.to_owned()], None, &options())
    }

    fn read(shard: &Shard) -> Result<Vec<Group>> {
        let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
        let mut groups = vec![];
        while let Some(group) = reader.next_group()? {
            groups.push(group);
        }
        Ok(groups)
    }

    fn local() -> Vec<Group> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train/00000.tar");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, support::shard_of(30)).unwrap();
        read(&shards(path.to_str().unwrap()).unwrap()[0]).unwrap()
    }

    #[test]
    #[ignore = "needs a hub"]
    fn reads() {
        let expected = local();
        let found = shards("hf://datasets/o/my-set/train/{00000..00001}.tar").unwrap();
        assert_eq!(found.len(), 2);
        assert!(read(&found[0]).unwrap() == expected);
        assert_eq!(read(&found[1]).unwrap().len(), 30);
        let odd = &shards("hf://datasets/o/my-set/train/a b%20#?.tar").unwrap()[0];
        assert_eq!(read(odd).unwrap().len(), 30);
    }

    #[test]
    #[ignore = "needs a hub"]
    fn reads_one() {
        let shard = &shards("hf://datasets/o/my-set@refs/pr/1/train/00000.tar").unwrap()[0];
        assert_eq!(read(shard).unwrap().len(), 30);
    }

    #[test]
    #[ignore = "needs a hub"]
    fn by_option() {
        let stores = Store { token: Some(Token::new("hf_s3cret")), ..options() };
        let shards = list(&["hf://datasets/o/my-set/train/00000.tar".into()], None, &stores).unwrap();
        assert_eq!(read(&shards[0]).unwrap().len(), 30);
    }

    #[test]
    #[ignore = "needs a hub"]
    fn lists() {
        let root = "hf://datasets/o/my-set";
        let deep = ["train/deep/00002.tar", "train/deep/00003.tar.gz"];
        let train = ["train/00000.tar", "train/00001.tar", "train/a b%20#?.tar"];
        for (pattern, expected) in [
            ("/train/", train.to_vec()),
            ("/train/0*.tar", train[..2].to_vec()),
            ("/{other,train}/*.tar", [&["other/00004.tar"], &train[..]].concat()),
            ("/**/0000?.tar", [&["other/00004.tar"], &train[..2], &deep[..1]].concat()),
            ("/train/**", [&train[..2], &train[2..], &deep[..]].concat()),
            ("/train/deep/**", deep.to_vec()),
        ] {
            let found = shards(&format!("{root}{pattern}")).unwrap();
            let urls: Vec<_> = found.iter().map(|shard| shard.url.split_once("my-set/").unwrap().1).collect();
            assert_eq!(urls, expected, "{pattern}");
        }
        let other = shards(&format!("{root}@refs/pr/1/other/")).unwrap();
        assert_eq!(&*other[0].url, "hf://datasets/o/my-set@refs/pr/1/other/00004.tar");
        // The first by sizes.json, the second by a scan.
        let two = shards(&format!("{root}/train/{{00000..00001}}.tar")).unwrap();
        let mut scanned = 0;
        assert_eq!(tldr_loader::shard::lengths(&two, &mut |_, _| scanned += 1).unwrap(), [30, 30]);
        assert_eq!(scanned, 1);
        for (pattern, expected) in [
            ("/train/9*.tar", "no file matches"),
            ("", "holds no .tar"),
            ("/nowhere/", "EntryNotFound: nowhere does not exist on main"),
        ] {
            let error = shards(&format!("{root}{pattern}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }

    #[test]
    #[ignore = "needs a hub"]
    fn versions() {
        // Asked twice, by URLs that are signed anew and lead to other places.
        let version =
            || shards("hf://datasets/o/my-set/train/00000.tar").unwrap()[0].version().unwrap().unwrap();
        let first = version();
        assert!(first.contains("\"5ha256\"") && !first.contains("sig"), "{first}");
        assert_eq!(version(), first);
    }

    #[test]
    #[ignore = "needs a hub"]
    fn names() {
        let far = &shards("hf://datasets/o/my-set/train/00000.tar").unwrap()[0];
        assert_eq!((&*far.source, &*far.path), ("train", "00000.tar"));
        assert_eq!(&*far.url, "hf://datasets/o/my-set/train/00000.tar");
        assert_eq!(&*shards("hf://datasets/o/my-set@v1/0.tar").unwrap()[0].source, "my-set");
        let shown = format!("{far:?}");
        assert!(!shown.contains("127.0.0.1") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    #[ignore = "needs a hub"]
    fn without_a_token() {
        let shard = &shards("hf://datasets/o/my-set/train/00000.tar").unwrap()[0];
        let listed = shards("hf://datasets/o/my-set/train/").unwrap_err().to_string();
        for error in [read(shard).unwrap_err().to_string(), listed] {
            assert!(error.contains("no token was sent") && error.contains("set HF_TOKEN"), "{error}");
            assert!(error.contains("GatedRepo: Access to dataset o/my-set is restricted."), "{error}");
        }
    }

    #[test]
    #[ignore = "needs a hub"]
    fn with_a_wrong_token() {
        let error =
            read(&shards("hf://datasets/o/my-set/train/00000.tar").unwrap()[0]).unwrap_err().to_string();
        assert!(error.contains("the token that was sent") && error.contains("/datasets/o/my-set"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    #[ignore = "needs a hub"]
    fn missing() {
        for (url, expected) in [
            ("hf://datasets/o/my-set/train/9.tar", "EntryNotFound: train/9.tar does not exist"),
            ("hf://datasets/o/other/train/0.tar", "RepoNotFound"),
        ] {
            let error = read(&shards(url).unwrap()[0]).unwrap_err().to_string();
            assert!(error.contains("there is no such object") && error.contains(expected), "{error}");
        }
    }
}
