//! What folders hold: of buckets, and of datasets on the Hugging Face hub.

use std::io;
use std::sync::PoisonError;

use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::path::Path;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::patterns::path_matches;
use crate::shard::remote::address::Address;
use crate::shard::remote::answer::{ANSWER, Answer};
use crate::shard::remote::fault::{Fault, FaultKind};
use crate::shard::remote::hub::HubFile;
use crate::shard::remote::retry::{self, persist};
use crate::shard::remote::runtime;
use crate::shard::remote::store::{Object, Origin, Stores, key};

/// Most files that one folder of the hub may list.
const MAX_FILES: usize = 1_000_000;

impl Object {
    /// Names of the objects in its folder, itself among them; `None` where folders cannot be listed.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn names_beside(&self) -> Result<Option<Vec<String>>> {
        let above = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        match &self.origin {
            Origin::Bucket(_, _, path) => {
                names_in(self, &key(&above(path.as_ref()))?, &above(&self.url)).map(Some)
            }
            Origin::Hub(file, hub, _) => {
                let folder = HubFile { path: above(&file.path), ..HubFile::clone(file) };
                hub_files(self, &folder, hub, false).map(|paths| Some(names_of(&paths)))
            }
            Origin::Http(..) => Ok(None),
        }
    }
}

impl Stores {
    /// Names of the objects in the folder at `address`, sorted.
    ///
    /// # Errors
    /// As [`object`](Self::object); the store fails.
    pub(crate) fn names_in(&mut self, address: &Address) -> Result<Vec<String>> {
        let folder = self.object(address)?;
        if let Address::Hub(file) = address {
            return Ok(names_of(&hub_files(&folder, file, &self.hub()?.0, false)?));
        }
        let (_, path) = folder
            .store()
            .map_err(|error| Error::io(format!("list {}", folder.url()), std::io::Error::other(error)))?;
        names_in(&folder, &path, folder.url())
    }
}

/// Names of the objects directly in a folder, sorted; `url` names it in messages.
///
/// # Errors
/// The store fails.
fn names_in(object: &Object, folder: &Path, url: &str) -> Result<Vec<String>> {
    let cannot = |error| Error::io(format!("list {url}"), error);
    let runtime = runtime().map_err(cannot)?;
    let (store, _) = object.store().map_err(|error| cannot(std::io::Error::other(error)))?;
    let prefix = (!folder.is_root()).then_some(folder);
    let list = || async {
        let answer = Answer::default();
        let found = ANSWER.scope(answer.clone(), store.list_with_delimiter(prefix)).await;
        found.map_err(|error| Fault::of_list(&error, &answer.said(), object))
    };
    let found = runtime.block_on(persist(object, "listing it", list));
    let found = found.map_err(|(fault, attempts)| cannot(fault.into_io("listing", attempts)))?;
    let mut names: Vec<String> =
        found.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// As [`retry::read_small`], which asks for each file. The hub counts requests, so its folders are listed first, and files
/// that they do not hold are not asked for.
///
/// # Errors
/// As there.
pub(crate) fn read_small(objects: Vec<(usize, Object)>) -> Result<Vec<(usize, Option<Vec<u8>>)>> {
    let is_there = |object: &Object| {
        let (Origin::Hub(_, _, shared), Some((folder, name))) = (&object.origin, object.url.rsplit_once('/'))
        else {
            return true;
        };
        let listed = || shared.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let known = listed().get(folder).cloned();
        let names = known.unwrap_or_else(|| {
            let names = match object.names_beside() {
                // Who may not list a folder may not read what is in it.
                Err(error) if is_refusal(&error) => Some(vec![]),
                // Where it cannot be listed, each is asked for.
                names => names.ok().flatten(),
            };
            listed().insert(folder.to_owned(), names.clone());
            names
        });
        names.is_none_or(|names| names.binary_search_by(|own| own.as_str().cmp(name)).is_ok())
    };
    let (there, absent): (Vec<_>, Vec<_>) = objects.into_iter().partition(|(_, object)| is_there(object));
    let mut read = retry::read_small(there)?;
    read.extend(absent.into_iter().map(|(number, _)| (number, None)));
    Ok(read)
}

/// Whether a folder is not there, or must not be listed.
fn is_refusal(error: &Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(&error.kind, ErrorKind::Io { source, .. } if matches!(source.kind(), NotFound | PermissionDenied))
}

/// One entry of a folder, as the hub describes it.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Stores {
    /// The files that match a glob, sorted; `None` where `address` is none.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub(crate) fn glob(&mut self, address: &Address) -> Result<Option<Vec<Address>>> {
        let Address::Hub(file) = address else { return Ok(None) };
        let Some((folder, pattern)) = file.glob() else { return Ok(None) };
        let object = self.object(&Address::Hub(folder.clone()))?;
        let mut paths = hub_files(&object, &folder, &self.hub()?.0, true)?;
        paths.retain(|path| path_matches(pattern, path));
        paths.sort();
        Ok(Some(paths.into_iter().map(|path| Address::Hub(HubFile { path, ..file.clone() })).collect()))
    }
}

/// Paths of the files in a folder of the hub, or of all `below` it; `object` says how they are asked for.
fn hub_files(object: &Object, folder: &HubFile, hub: &Url, below: bool) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut next = Some(folder.tree(hub, below));
    while let Some(url) = next {
        let (content, more) = page(object, &url)?;
        let entries: Vec<Entry> = serde_json::from_slice(&content).map_err(|error| {
            Error::format(
                format!("the list of {}", object.url()),
                "a list of files, as the hub gives it",
                error,
            )
        })?;
        paths.extend(entries.into_iter().filter(|entry| entry.kind == "file").map(|entry| entry.path));
        if paths.len() > MAX_FILES {
            let accepted =
                format!("at most {MAX_FILES} files in a folder: name the shards, {{00000..00331}}");
            return Err(Error::refused("urls", object.url(), accepted));
        }
        // A page that leads to itself would never end.
        next = more.filter(|more| *more != url);
    }
    Ok(paths)
}

/// Names of files at these paths, sorted.
fn names_of(paths: &[String]) -> Vec<String> {
    let names = paths.iter().filter_map(|path| path.rsplit('/').next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// One page of a list of the hub, and where the next one is. A page may come without a length, which `object_store`
/// demands of objects.
fn page(object: &Object, url: &Url) -> Result<(Vec<u8>, Option<Url>)> {
    let cannot = |error| Error::io(format!("list {}", object.url()), error);
    let Origin::Hub(_, _, shared) = &object.origin else {
        return Err(cannot(io::Error::other("it is not on the hub, which is a bug")));
    };
    let limit = object.options.read_timeout;
    let ask = || async {
        let answer = Answer::default();
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|_| Fault::new(FaultKind::Lasting, "the URL cannot be asked for"))?;
        request.extensions_mut().insert(answer.clone());
        let reading = async {
            let response = shared.client.execute(request).await?;
            Ok((response.status(), response.into_body().bytes().await?))
        };
        let late = |_| Fault::new(FaultKind::Passing, format!("no answer within {limit:?}"));
        let found: std::result::Result<_, object_store::client::HttpError> =
            timeout(limit, reading).await.map_err(late)?;
        let (status, content) = found.map_err(|error| Fault::of_transport(&error, object))?;
        let said = answer.said();
        if !status.is_success() {
            return Err(Fault::of_page(&said, &content, object));
        }
        Ok((content.to_vec(), said.next))
    };
    let (content, next) = runtime()
        .map_err(cannot)?
        .block_on(persist(object, "listing it", ask))
        .map_err(|(fault, attempts)| cannot(fault.into_io("listing", attempts)))?;
    Ok((content, next.and_then(|next| url.join(&next).ok())))
}
