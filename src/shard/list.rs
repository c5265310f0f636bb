//! Lists of shards, as users write them: paths and URLs, brace ranges, `::`, globs, folders, and
//! files that list them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::shard::location::{Location, ROWS};
use crate::shard::patterns::{MAX_BRACES, MAX_EXPANSION, braces, glob, unescaped};
use crate::shard::remote::{Address, Stores};
use crate::shard::store_checks::check_stores;
use crate::shard::{Shard, Store};

/// Names under which a folder's files are taken for shards.
pub(super) const SHARD_NAMES: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// What a list may hold; ends every message.
const ACCEPTED: &str = "accepted are local paths, brace ranges ({00000..00331}, {a,b}), globs (* ? [abc] **), \
     folders, file:, s3://, gs://, az://, hf://datasets/, http:// and https:// URLs, files that list them (@FILE), and several \
     of these joined by ::";

/// Endings by which a path is taken for a file that lists shards.
const LIST_NAMES: [&str; 2] = [".txt", ".list"];

/// Lists the shards that `patterns` name.
///
/// A pattern is a path or a URL (`s3://`, `gs://`, `az://`, `abfs://`, `hf://datasets/`, `http(s)://`, `file:`),
/// with brace ranges (`{00000..00331}`, `{a,b}`, nested) and, where it is local or on the Hugging Face hub, globs (`*`,
/// `?`, `[a-c]`, within one path component; `**`, folders of any depth); a folder (all `*.tar`, `*.tar.gz`,
/// `*.tgz`, `*.tar.zst` directly inside, or without any of these all `*.parquet`), whose URL ends in a slash; a file that lists patterns, one
/// per line, as `@FILE` or by its ending, `.txt` or `.list`; or several of these joined by `::`. Order
/// is that of the patterns; what a glob or a folder stands for is sorted by name. A path, or a folder
/// on the way, that exists as it is written is not expanded. A `file:` URL may hold escapes (`%20`).
/// In a file, blank lines and those that start with `#` are skipped, and relative paths start from
/// the file's own folder.
///
/// `source` names the corpus the shards belong to, for the identity of their samples; by default
/// it is the name of the folder that holds the shard (its bucket or host, at the root of one). A
/// shard's `path` is its file name. Local shards are there; whether remote ones are is not asked.
///
/// # Errors
/// `urls` names no shard, a file that does not exist, a place that is not read, or two shards
/// with the same identity (the same file twice, or equal names in folders of equal names); an
/// option of `stores` that cannot work, or an `endpoint` where no shard is an `s3://` one; a remote
/// folder that cannot be listed.
pub fn list(patterns: &[String], source: Option<&str>, stores: &Store) -> Result<Vec<Shard>> {
    let shards = shards_of(patterns, source, stores)?;
    check_stores(stores, &shards, None)?;
    Ok(shards)
}

/// As [`list`], without a look at what the endpoint is for.
pub(crate) fn shards_of(patterns: &[String], source: Option<&str>, stores: &Store) -> Result<Vec<Shard>> {
    if patterns.is_empty() {
        return Err(Error::refused("urls", "[]", format!("expected at least one shard; {ACCEPTED}")));
    }
    Ok(Listing::of(patterns, source, stores, None)?.shards)
}

/// As [`list`], but local files of a pattern that are missing are left out where others of it are there; also their names.
///
/// # Errors
/// As [`list`].
pub fn list_present(
    patterns: &[String],
    source: Option<&str>,
    stores: &Store,
) -> Result<(Vec<Shard>, Vec<String>)> {
    let listing = Listing::of(patterns, source, stores, Some(vec![]))?;
    let missing = listing.missing.unwrap_or_default();
    if listing.shards.is_empty() {
        return list(patterns, source, stores).map(|shards| (shards, missing));
    }
    Ok((listing.shards, missing))
}

/// The shards found so far.
struct Listing<'a> {
    /// Names of the files that are missing, where that is no error.
    missing: Option<Vec<String>>,
    source: Option<&'a str>,
    shards: Vec<Shard>,
    stores: Stores,
}

impl<'a> Listing<'a> {
    /// All that the patterns name; names of missing files are put into `missing`, where that is given.
    fn of(
        patterns: &[String],
        source: Option<&'a str>,
        stores: &Store,
        missing: Option<Vec<String>>,
    ) -> Result<Self> {
        stores.check()?;
        let mut listing = Self { missing, source, shards: vec![], stores: Stores::new(stores) };
        for pattern in patterns {
            listing.pattern(pattern, Path::new(""), &quoted(pattern), true)?;
        }
        refuse_duplicates(&listing.shards, source)?;
        Ok(listing)
    }

    /// Adds what `pattern` stands for: at least one shard. Relative paths start from `base`;
    /// `given` names the pattern in messages.
    fn pattern(&mut self, pattern: &str, base: &Path, given: &str, may_list: bool) -> Result<()> {
        refuse_pipe(pattern, given)?;
        for part in parts(pattern) {
            refuse_pipe(part, given)?;
            if part.is_empty() {
                return Err(Error::refused("urls", given, format!("an empty path; {ACCEPTED}")));
            }
            if let Some(file) = list_file(part, base, given)? {
                if !may_list {
                    return Err(Error::refused("urls", given, "lists in lists are not read"));
                }
                self.listed(&file, given)?;
            } else if is_remote(part) {
                if part.split_whitespace().skip(1).any(|word| word.contains("://")) {
                    return Err(Error::refused("urls", given, SEVERAL));
                }
                self.remote(part, given)?;
            } else {
                self.local(part, base, given)?;
            }
        }
        Ok(())
    }

    /// Adds what the lines of `file` stand for.
    fn listed(&mut self, file: &Path, given: &str) -> Result<()> {
        if is_remote(&file.to_string_lossy()) {
            let accepted = "a list of shards must be a local file: download it first";
            return Err(Error::refused("urls", given, accepted));
        }
        let text = std::fs::read_to_string(file)
            .map_err(|error| Error::io(format!("read the list {}", file.display()), error))?;
        let before = self.shards.len();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let given = format!("{} (line {number} of {})", quoted(line), file.display());
            self.pattern(line, file.parent().unwrap_or(Path::new("")), &given, false)?;
        }
        if self.shards.len() == before {
            let accepted = format!("the list {} names no shard", file.display());
            return Err(Error::refused("urls", given, accepted));
        }
        Ok(())
    }

    fn local(&mut self, part: &str, base: &Path, given: &str) -> Result<()> {
        let as_written = base.join(&*local(part, given)?);
        if as_written.exists() {
            return self.inside(&as_written, given);
        }
        let paths = expanded(part, given)?;
        let mut missing = Vec::new();
        for path in &paths {
            let local = local(path, given)?;
            let whole = base.join(&*local);
            let found = if whole.exists() { vec![whole] } else { matching(base, &local) };
            if found.is_empty() {
                missing.push(path);
            }
            for file in found {
                self.inside(&file, given)?;
            }
        }
        if let Some(known) = &mut self.missing {
            known.extend(missing.into_iter().cloned());
        } else if let Some(first) = missing.first() {
            let accepted = match paths.len() {
                _ if is_several(part, base) => format!("there is no file {first}: {SEVERAL}"),
                1 => format!("there is no file {first}; {ACCEPTED}"),
                all => format!("{} of {all} files are missing, the first is {first}", missing.len()),
            };
            return Err(Error::refused("urls", given, accepted));
        }
        Ok(())
    }

    /// Adds the file itself, or the shards in a folder, sorted.
    fn inside(&mut self, path: &Path, given: &str) -> Result<()> {
        for file in inside(path, given)? {
            self.shards.push(shard(&file, self.source, given)?);
        }
        Ok(())
    }

    fn remote(&mut self, part: &str, given: &str) -> Result<()> {
        for url in expanded(part, given)? {
            let address = Address::parse(&url)?;
            if let Some(mut found) = self.stores.glob(&address)? {
                if address.url().ends_with("**") {
                    retain_shards(&mut found, Address::file_name);
                }
                if found.is_empty() {
                    return Err(Error::refused("urls", given, format!("no file matches {}", address.url())));
                }
                for address in found {
                    self.object(&address, given)?;
                }
                continue;
            }
            if !address.is_folder() {
                self.object(&address, given)?;
                continue;
            }
            let mut names = self.stores.names_in(&address)?;
            retain_shards(&mut names, |name| name);
            if names.is_empty() {
                let accepted = format!("{} holds no {}", address.url(), NAMES);
                return Err(Error::refused("urls", given, accepted));
            }
            for name in names {
                self.object(&address.inside(&name), given)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, address: &Address, given: &str) -> Result<()> {
        let url = address.url();
        let Some((folder, path)) = address.names() else {
            return Err(Error::refused(
                "urls",
                given,
                format!("expected a URL that names a file in UTF-8, found {url}"),
            ));
        };
        let source = self.source.map_or(folder, str::to_owned);
        let hash = SampleId::shard_hash(&source, &path);
        let location = Location::Remote(Arc::new(self.stores.object(address)?));
        self.shards.push(Shard { url: url.into(), source: source.into(), path: path.into(), hash, location });
        Ok(())
    }
}

/// Patterns as one, without the queries of URLs, which may hold signatures.
pub(crate) fn shown(patterns: &[String]) -> String {
    let show = |part| match is_remote(part) {
        true => part.split('?').next().unwrap_or(part),
        false => part,
    };
    patterns.iter().flat_map(|pattern| parts(pattern)).map(show).collect::<Vec<_>>().join("::")
}

/// A pattern as messages show it.
fn quoted(pattern: &str) -> String {
    format!("{:?}", shown(&[pattern.to_owned()]))
}

/// What `::` joins. The brackets of an IPv6 host are left alone.
fn parts(pattern: &str) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (vec![], 0, 0);
    while at < pattern.len() {
        let rest = &pattern.as_bytes()[at..];
        if rest.starts_with(b"://[") {
            at += rest.iter().position(|&b| b == b']').unwrap_or(4);
        } else if rest.starts_with(b"::") {
            parts.push(&pattern[start..at]);
            at += 2;
            start = at;
        } else {
            at += 1;
        }
    }
    parts.push(&pattern[start..]);
    parts
}

/// The paths or URLs that the braces of `part` stand for.
fn expanded(part: &str, given: &str) -> Result<Vec<String>> {
    let few = part.bytes().filter(|&b| b == b'{').count() <= MAX_BRACES;
    few.then(|| braces(part)).flatten().ok_or_else(|| {
        let accepted =
            format!("expected at most {MAX_BRACES} braces, standing for {MAX_EXPANSION} paths at most");
        Error::refused("urls", given, accepted)
    })
}

/// The file that lists shards, where `part` is one: `@FILE`, or a name that says so.
fn list_file(part: &str, base: &Path, given: &str) -> Result<Option<PathBuf>> {
    let file = match part.strip_prefix('@') {
        Some(file) if !base.join(part).exists() => file,
        _ if LIST_NAMES.iter().any(|end| part.ends_with(end)) => part,
        _ => return Ok(None),
    };
    Ok(Some(base.join(&*local(file, given)?)))
}

/// What to do where one pattern seems to be several.
const SEVERAL: &str = "if these are several paths, give them as a list, join them by :: (a.tar::b.tar), or \
                       write them into a file, one a line (@FILE); a blank is a part of a path";

/// Whether `part`, which is not there, looks like several paths with blanks between them.
fn is_several(part: &str, base: &Path) -> bool {
    let is_path = |word: &str| {
        SHARD_NAMES.iter().chain(&LIST_NAMES).any(|end| word.ends_with(end)) || base.join(word).exists()
    };
    part.split_whitespace().count() > 1 && part.split_whitespace().all(is_path)
}

/// Whether `part` is a URL of something that is not a local file.
fn is_remote(part: &str) -> bool {
    part.split_once("://").is_some_and(|(scheme, _)| scheme != "file")
}

/// Refuses a command, naming what to write in its place.
fn refuse_pipe(part: &str, given: &str) -> Result<()> {
    let Some(command) = part.trim_start().strip_prefix("pipe:") else { return Ok(()) };
    let quotes = ['"', '\''];
    let url = command.split_whitespace().map(|word| word.trim_matches(quotes)).find(|word| is_remote(word));
    let instead = match url {
        Some(url) => format!("write {url}, which is read without a command"),
        None => format!("list what it reads; {ACCEPTED}"),
    };
    Err(Error::refused("urls", given, format!("commands are not run out of a list of shards: {instead}")))
}

/// The path of a `file:` URL, whose escapes are resolved, or the path as it is.
fn local<'a>(part: &'a str, given: &str) -> Result<Cow<'a, str>> {
    let Some(rest) = part.strip_prefix("file:") else { return Ok(part.into()) };
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest),
        None => rest,
    };
    let unreadable =
        || Error::refused("urls", given, format!("expected a URL that names a file in UTF-8, found {part}"));
    unescaped(path).map(Cow::Owned).ok_or_else(unreadable)
}

/// Number of shards in the folder of `shard`, where it can be listed.
pub(super) fn count_beside(shard: &Shard) -> Result<Option<usize>> {
    match &shard.location {
        Location::Local => {
            let folder = Path::new(&*shard.url).parent().filter(|folder| !folder.as_os_str().is_empty());
            inside(folder.unwrap_or(Path::new(".")), &shard.url).map(|files| Some(files.len()))
        }
        Location::Remote(object) => {
            let names = object.names_beside()?;
            Ok(names.map(|names| names.iter().filter(|name| is_shard_name(name)).count()))
        }
    }
}

/// Files that match the glob `pattern`, from `base` on.
fn matching(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = glob(base, pattern, |name| is_shard_name(name) || name.ends_with(ROWS));
    if pattern.ends_with("**") {
        retain_shards(&mut found, |path| path.file_name().and_then(OsStr::to_str).unwrap_or_default());
    }
    found
}

/// Keeps the shards among the files of a folder: tar files; where there are none, Parquet files. Beside tar files these
/// are what img2dataset says of them.
fn retain_shards<T>(files: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    let has_tars = files.iter().any(|file| is_shard_name(name(file)));
    files.retain(|file| match has_tars {
        true => is_shard_name(name(file)),
        false => !name(file).starts_with('.') && name(file).ends_with(ROWS),
    });
}

/// Names of shards, in words.
const NAMES: &str = ".tar, .tar.gz, .tgz, .tar.zst or .parquet";

fn is_shard_name(name: &str) -> bool {
    !name.starts_with('.') && SHARD_NAMES.iter().any(|end| name.ends_with(end))
}

/// The file itself, or the shards in a folder, sorted.
fn inside(path: &Path, given: &str) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let cannot = |error| Error::io(format!("list the folder {}", path.display()), error);
    for entry in path.read_dir().map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        if !entry.path().is_dir() {
            files.push((name.to_string_lossy().into_owned(), entry.path()));
        }
    }
    retain_shards(&mut files, |(name, _)| name);
    let mut files: Vec<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
    if files.is_empty() {
        let accepted = format!("the folder {} holds no {NAMES}", path.display());
        return Err(Error::refused("urls", given, accepted));
    }
    files.sort();
    Ok(files)
}

fn shard(file: &Path, source: Option<&str>, given: &str) -> Result<Shard> {
    let text = |name: &OsStr| {
        name.to_str().map(str::to_owned).ok_or_else(|| {
            Error::refused("urls", given, format!("{} is not UTF-8; rename it", file.display()))
        })
    };
    let url = text(file.as_os_str())?;
    let path = text(file.file_name().unwrap_or_default())?;
    let source = match source {
        Some(source) => source.to_owned(),
        None => text(&folder_name(file)?)?,
    };
    let hash = SampleId::shard_hash(&source, &path);
    Ok(Shard { url: url.into(), source: source.into(), path: path.into(), hash, location: Location::Local })
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

/// Refuses two shards of one identity.
pub(crate) fn refuse_duplicates(shards: &[Shard], source: Option<&str>) -> Result<()> {
    let mut first = HashMap::new();
    for shard in shards {
        let Some(other) = first.insert(shard.hash, shard) else { continue };
        let same_file = || {
            if shard.location != Location::Local || other.location != Location::Local {
                return Some(shard.location == other.location);
            }
            Some(Path::new(&*other.url).canonicalize().ok()? == Path::new(&*shard.url).canonicalize().ok()?)
        };
        let accepted = if same_file() == Some(true) {
            format!("listed twice (also as {}); list each shard once", other.url)
        } else if source.is_some() {
            format!(
                "has the identity {}/{} of {}, by name=: give each source a name= of its own, or none, and the names of \
                 their folders tell them apart",
                shard.source, shard.path, other.url
            )
        } else {
            format!(
                "has the identity {}/{} of {}, by the name of their folders: read them as two sources, each with a \
                 name= of its own",
                shard.source, shard.path, other.url
            )
        };
        return Err(Error::refused("urls", quoted(&shard.url), accepted));
    }
    Ok(())
}
