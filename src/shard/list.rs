//! Lists of shards, as users write them: brace ranges, `::`, globs, folders, `file:` URLs.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::shard::Shard;

/// Names under which a folder's files are taken for shards.
pub(super) const SHARD_NAMES: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// What a list may hold; ends every message.
const ACCEPTED: &str = "accepted are local paths, brace ranges ({00000..00331}, {a,b}), globs (* ? [abc]), \
     folders, file: URLs, and several of these joined by ::";

/// Most paths that one pattern may expand to: a slip of a digit should not fill the memory.
const MAX_EXPANSION: usize = 1_000_000;

/// Most braces in one pattern: each is a level of recursion.
const MAX_BRACES: usize = 64;

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

/// Expands braces as a shell does, first to last; `None` beyond [`MAX_EXPANSION`]. Braces that
/// hold neither a comma nor a range, or are not closed, stand for themselves.
fn braces(pattern: &str) -> Option<Vec<String>> {
    let mut from = 0;
    while let Some(open) = pattern[from..].find('{').map(|i| from + i) {
        let Some((close, commas)) = matching(pattern, open) else {
            from = open + 1;
            continue;
        };
        let body = &pattern[open + 1..close];
        let choices = if commas.is_empty() {
            range(body)
        } else {
            let cuts: Vec<usize> =
                std::iter::once(open).chain(commas).chain(std::iter::once(close)).collect();
            let mut choices = Vec::new();
            for cut in cuts.windows(2) {
                choices.extend(braces(&pattern[cut[0] + 1..cut[1]])?);
                if choices.len() > MAX_EXPANSION {
                    return None;
                }
            }
            Choices::Some(choices)
        };
        match choices {
            Choices::Literal => from = open + 1,
            Choices::TooMany => return None,
            Choices::Some(choices) => {
                let rest = braces(&pattern[close + 1..])?;
                if choices.len().checked_mul(rest.len())? > MAX_EXPANSION {
                    return None;
                }
                let head = &pattern[..open];
                let join = |c: &String| rest.iter().map(|r| format!("{head}{c}{r}")).collect::<Vec<_>>();
                return Some(choices.iter().flat_map(join).collect());
            }
        }
    }
    Some(vec![pattern.to_owned()])
}

/// What the inside of a pair of braces stands for.
enum Choices {
    Literal,
    TooMany,
    Some(Vec<String>),
}

/// The brace that closes the one at `open`, and the commas directly between them.
fn matching(pattern: &str, open: usize) -> Option<(usize, Vec<usize>)> {
    let (mut depth, mut commas) = (0, Vec::new());
    for (i, byte) in pattern.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b',' if depth == 1 => commas.push(i),
            b'}' if depth == 1 => return Some((i, commas)),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Numbers `FIRST..LAST`, both included, up or down; a leading zero on either side pads all of
/// them to the longer side's width.
fn range(body: &str) -> Choices {
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let Some((first, last)) = body.split_once("..") else { return Choices::Literal };
    if !is_number(first) || !is_number(last) {
        return Choices::Literal;
    }
    let (Ok(a), Ok(b)) = (first.parse::<u64>(), last.parse::<u64>()) else { return Choices::TooMany };
    if a.abs_diff(b) >= MAX_EXPANSION as u64 {
        return Choices::TooMany;
    }
    let padded = |s: &str| s.len() > 1 && s.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    let name = |n: u64| format!("{n:0width$}");
    Choices::Some(if a <= b { (a..=b).map(name).collect() } else { (b..=a).rev().map(name).collect() })
}

/// Paths that match `pattern`, sorted. A wildcard does not match a leading dot. Folders that
/// cannot be read match nothing.
fn glob(pattern: &str) -> Vec<PathBuf> {
    if !pattern.contains(['*', '?', '[']) {
        return Vec::new();
    }
    let mut found = vec![PathBuf::new()];
    for component in Path::new(pattern).components() {
        let name = component.as_os_str().to_string_lossy();
        if !name.contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(component));
            found.retain(|path| path.exists());
            continue;
        }
        let mut next = Vec::new();
        for folder in found {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            let Ok(entries) = here.read_dir() else { continue };
            for entry in entries.flatten() {
                let entry = entry.file_name();
                let hidden = entry.as_encoded_bytes().starts_with(b".") && !name.starts_with('.');
                if !hidden && entry.to_str().is_some_and(|entry| matches(&name, entry)) {
                    next.push(folder.join(&entry));
                }
            }
        }
        next.sort();
        found = next;
    }
    found
}

/// Whether `name` matches `pattern` with `*`, `?` and `[a-z]`, `[!a-z]`. Time: product of the
/// lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where the last star stands and up to where it has eaten, to come back to.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(width) = single(&pattern[p..], name[n]) {
            (p, n) = (p + width, n + 1);
        } else if let Some((at, eaten)) = star {
            star = Some((at, eaten + 1));
            (p, n) = (at + 1, eaten + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Length of the first element of `pattern` (a character, `?` or a bracket), if it matches `c`.
fn single(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let negated = usize::from(matches!(pattern.get(1), Some('!' | '^')));
            let start = 1 + negated;
            // A bracket that comes first is a member of the set.
            let end = pattern.get(start + 1..).and_then(|rest| rest.iter().position(|&c| c == ']'));
            let Some(len) = end else {
                return (c == '[').then_some(1);
            };
            let set = &pattern[start..start + 1 + len];
            let (mut i, mut inside) = (0, false);
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    inside |= (set[i]..=set[i + 2]).contains(&c);
                    i += 3;
                } else {
                    inside |= set[i] == c;
                    i += 1;
                }
            }
            (inside != (negated == 1)).then_some(start + len + 2)
        }
        &literal => (literal == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn braces_expand_as_in_bash() {
        // Right: what bash echoes.
        for (pattern, expected) in [
            ("x", "x"),
            ("{00..02}.tar", "00.tar 01.tar 02.tar"),
            ("{8..10}", "8 9 10"),
            ("{08..10}", "08 09 10"),
            ("{0..010}", "000 001 002 003 004 005 006 007 008 009 010"),
            ("{2..0}", "2 1 0"),
            ("{a,b}/{0..1}", "a/0 a/1 b/0 b/1"),
            ("{a,b{1..2},}x", "ax b1x b2x x"),
            ("a{b}c{d", "a{b}c{d"),
            ("c{d{1..2}", "c{d1 c{d2"),
            ("{x}{1..2}", "{x}1 {x}2"),
            ("{..}", "{..}"),
        ] {
            assert_eq!(braces(pattern).unwrap().join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn too_many_are_refused_not_allocated() {
        for pattern in
            ["{0..1000000}", "{0..99999999999999999999999}", "{0..9999}{0..9999}", "{a,{0..1000000}}"]
        {
            assert_eq!(braces(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn wildcards_match_as_fnmatch_does() {
        // Right: what Python's fnmatch.fnmatchcase says.
        for (pattern, name, expected) in [
            ("*.tar", "0.tar", true),
            ("*.tar", "0.tar.gz", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("0?.tar", "01.tar", true),
            ("0?.tar", "0.tar", false),
            ("[0-3]*", "2x", true),
            ("[!0-3]*", "2x", false),
            ("[]a]", "]", true),
            ("[", "[", true),
            ("[ab", "[ab", true),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
