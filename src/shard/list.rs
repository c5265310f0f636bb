//! Lists of shards, as users write them: brace ranges, `::`, globs, folders, `file:` URLs.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::shard::Shard;
use crate::shard::patterns::{MAX_BRACES, MAX_EXPANSION, braces, glob};

/// Names under which a folder's files are taken for shards.
pub(super) const SHARD_NAMES: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// What a list may hold; ends every message.
const ACCEPTED: &str = "accepted are local paths, brace ranges ({00000..00331}, {a,b}), globs (* ? [abc]), \
     folders, file: URLs, and several of these joined by ::";

/// Lists the shards that `patterns` name.
///
/// A pattern is a path, with brace ranges (`{00000..00331}`, `{a,b}`, nested), globs (`*`, `?`,
/// `[a-c]`, within one path component) or both; a folder (all `*.tar`, `*.tar.gz`, `*.tgz`,
/// `*.tar.zst` directly inside); a `file:` URL; or several of these joined by `::`. Order is
/// that of the patterns; what a glob or a folder stands for is sorted by name. A path that
/// exists as it is written is not expanded.
///
/// `source` names the corpus the shards belong to, for the identity of their samples; by default
/// it is the name of the folder that holds the shard. A shard's `path` is its file name.
///
/// # Errors
/// `urls` names no shard, a file that does not exist, a place that is not local, or two shards
/// with the same identity (the same file twice, or equal names in folders of equal names).
pub fn list(patterns: &[String], source: Option<&str>) -> Result<Vec<Shard>> {
    if patterns.is_empty() {
        return Err(Error::option("urls", "[]", format!("at least one shard is needed; {ACCEPTED}")));
    }
    let mut shards = Vec::new();
    for pattern in patterns {
        for file in files(pattern)? {
            shards.push(shard(file, source, pattern)?);
        }
    }
    refuse_duplicates(&shards, source)?;
    Ok(shards)
}

/// Files that a pattern stands for; at least one, all there.
fn files(pattern: &str) -> Result<Vec<PathBuf>> {
    refuse_remote(pattern, pattern)?;
    let mut files = Vec::new();
    for part in pattern.split("::") {
        refuse_remote(part, pattern)?;
        let part = local(part);
        if part.is_empty() {
            return Err(Error::option("urls", quoted(pattern), format!("an empty path; {ACCEPTED}")));
        }
        if Path::new(part).exists() {
            files.extend(inside(Path::new(part), pattern)?);
            continue;
        }
        let few = part.bytes().filter(|&b| b == b'{').count() <= MAX_BRACES;
        let paths = few.then(|| braces(part)).flatten().ok_or_else(|| {
            let accepted = format!("at most {MAX_BRACES} braces, standing for {MAX_EXPANSION} paths at most");
            Error::option("urls", quoted(pattern), accepted)
        })?;
        let mut missing = Vec::new();
        for path in &paths {
            let found = if Path::new(path).exists() { vec![path.into()] } else { glob(path) };
            if found.is_empty() {
                missing.push(path);
            }
            for file in found {
                files.extend(inside(&file, pattern)?);
            }
        }
        if let Some(first) = missing.first() {
            let accepted = match paths.len() {
                1 => format!("there is no file {first}; {ACCEPTED}"),
                all => format!("{} of {all} files are missing, the first is {first}", missing.len()),
            };
            return Err(Error::option("urls", quoted(pattern), accepted));
        }
    }
    Ok(files)
}

fn quoted(pattern: &str) -> String {
    format!("{pattern:?}")
}

/// Refuses what is not a local path.
fn refuse_remote(part: &str, pattern: &str) -> Result<()> {
    if part.trim_start().starts_with("pipe:") {
        let why =
            "commands are not run out of a list of shards; copy the shards to a local folder and list that";
        return Err(Error::option("urls", quoted(pattern), format!("{why}; {ACCEPTED}")));
    }
    match part.split_once("://") {
        Some((scheme, _)) if scheme != "file" => {
            let why = format!("{scheme}:// is not read; copy the shards to a local folder and list that");
            Err(Error::option("urls", quoted(pattern), format!("{why}; {ACCEPTED}")))
        }
        _ => Ok(()),
    }
}

/// The path of a `file:` URL, or the path as it is.
fn local(part: &str) -> &str {
    let Some(rest) = part.strip_prefix("file:") else { return part };
    match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest),
        None => rest,
    }
}

/// The file itself, or the shards in a folder, sorted.
fn inside(path: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let cannot = |error| Error::io(format!("list the folder {}", path.display()), error);
    for entry in path.read_dir().map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_shard = !name.starts_with('.') && SHARD_NAMES.iter().any(|end| name.ends_with(end));
        if is_shard && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        let accepted = format!("the folder {} holds no {}", path.display(), SHARD_NAMES.join(", "));
        return Err(Error::option("urls", quoted(pattern), accepted));
    }
    files.sort();
    Ok(files)
}

fn shard(file: PathBuf, source: Option<&str>, pattern: &str) -> Result<Shard> {
    let text = |name: &OsStr| {
        name.to_str().map(str::to_owned).ok_or_else(|| {
            Error::option("urls", quoted(pattern), format!("{} is not UTF-8; rename it", file.display()))
        })
    };
    let url = text(file.as_os_str())?;
    let path = text(file.file_name().unwrap_or_default())?;
    let source = match source {
        Some(source) => source.to_owned(),
        None => text(&folder_name(&file)?)?,
    };
    let hash = SampleId::shard_hash(&source, &path);
    Ok(Shard { url: url.into(), source: source.into(), path: path.into(), hash })
}

/// Name of the folder that holds `file`, as the caller wrote it (links are not followed, so that
/// data behind a link keeps its name); empty for the root.
fn folder_name(file: &Path) -> Result<std::ffi::OsString> {
    let cannot = |error| Error::io(format!("find the folder of {}", file.display()), error);
    let absolute = std::path::absolute(file).map_err(cannot)?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    match folder.components().next_back() {
        Some(Component::Normal(name)) => Ok(name.to_owned()),
        Some(Component::ParentDir) => {
            let folder = folder.canonicalize().map_err(cannot)?;
            Ok(folder.file_name().unwrap_or_default().to_owned())
        }
        _ => Ok(Default::default()),
    }
}

fn refuse_duplicates(shards: &[Shard], source: Option<&str>) -> Result<()> {
    let mut first = HashMap::new();
    for shard in shards {
        let Some(other) = first.insert(shard.hash, shard) else { continue };
        let same_file = || {
            Some(Path::new(&*other.url).canonicalize().ok()? == Path::new(&*shard.url).canonicalize().ok()?)
        };
        let accepted = if same_file() == Some(true) {
            format!("listed twice (also as {}); list each shard once", other.url)
        } else if source.is_some() {
            format!(
                "has the identity {}/{} of {}; without `source` the names of their folders tell them apart",
                shard.source, shard.path, other.url
            )
        } else {
            format!(
                "has the identity {}/{} of {}; give their folders different names",
                shard.source, shard.path, other.url
            )
        };
        return Err(Error::option("urls", quoted(&shard.url), accepted));
    }
    Ok(())
}
