//! Patterns of paths: braces as a shell expands them, globs as fnmatch reads them, escapes of URLs.
//!
//! Globs are walked here, component by component, since a component that exists as it is written is no
//! pattern (`cc3m [v1]`), which crates for globs do not know.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Most paths that one pattern may expand to: a slip of a digit should not fill the memory.
pub(super) const MAX_EXPANSION: usize = 1_000_000;

/// Most braces in one pattern: each is a level of recursion.
pub(super) const MAX_BRACES: usize = 64;

/// Expands braces as a shell does, first to last; `None` beyond [`MAX_EXPANSION`]. Braces that
/// hold neither a comma nor a range, or are not closed, stand for themselves.
pub(super) fn braces(pattern: &str) -> Option<Vec<String>> {
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

/// Paths that match `pattern`, from `base` on, sorted. `**` stands for folders of any depth, none too; at the
/// end, for the files below that are `wanted` by name. A wildcard does not match a leading dot. A component
/// that exists as it is written is no pattern. Folders that cannot be read match nothing.
pub(super) fn glob(base: &Path, pattern: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    if !pattern.contains(WILDCARDS) {
        return Vec::new();
    }
    let mut found = vec![base.to_owned()];
    let mut components = Path::new(pattern).components().peekable();
    while let Some(component) = components.next() {
        let name = component.as_os_str().to_string_lossy();
        let mut next = Vec::new();
        if name == "**" {
            found.iter().for_each(|folder| below(folder, &mut HashSet::new(), &mut next));
            if components.peek().is_none() {
                let files = |folder: &PathBuf| {
                    let entries = entries(folder)
                        .filter(|(entry, path)| !entry.starts_with('.') && wanted(entry) && !path.is_dir());
                    entries.map(|(_, path)| path).collect::<Vec<_>>()
                };
                next = next.iter().flat_map(files).collect();
            }
        } else {
            for folder in found {
                let path = folder.join(component);
                if path.exists() {
                    next.push(path);
                } else if name.contains(WILDCARDS) && matches!(component, Component::Normal(_)) {
                    let hidden = name.starts_with('.');
                    let entries = entries(&folder).filter(|(entry, _)| hidden || !entry.starts_with('.'));
                    next.extend(entries.filter(|(entry, _)| matches(&name, entry)).map(|(_, path)| path));
                }
            }
        }
        next.sort();
        next.dedup();
        found = next;
    }
    found
}

/// Whether the path `name` matches `pattern`, component by component, as [`glob`] does; `**` at the end stands for files
/// of any name.
pub(super) fn path_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    // Which of the beginnings of the name the beginning of the pattern matches.
    let mut here = vec![false; name.len() + 1];
    here[0] = true;
    for (at, part) in pattern.iter().enumerate() {
        let mut next = vec![false; here.len()];
        let is_last = at + 1 == pattern.len();
        for start in (0..here.len()).filter(|&start| here[start]) {
            if *part == "**" {
                let deep = name[start..].iter().take_while(|one| !one.starts_with('.')).count();
                next[start..=start + deep].fill(true);
            } else if let Some(one) = name.get(start) {
                let may_hide = part.starts_with('.') || !one.starts_with('.');
                next[start + 1] |= *part == *one || (may_hide && matches(part, one));
            }
        }
        if is_last && *part == "**" {
            // It stands for folders, and for a file in the last of them.
            next[0] = false;
        }
        here = next;
    }
    here[name.len()]
}

/// Signs that make a path a glob.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// What is in `folder`, by name; names that are not UTF-8 are skipped.
fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = here.read_dir().into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name().into_string().ok()?;
        let path = folder.join(&name);
        Some((name, path))
    })
}

/// Adds `folder` and all folders below it, links to folders included, each once.
fn below(folder: &Path, seen: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // A link may lead back up.
    if !here.is_dir() || !here.canonicalize().is_ok_and(|real| seen.insert(real)) {
        return;
    }
    found.push(folder.to_owned());
    let mut folders: Vec<PathBuf> = entries(folder)
        .filter(|(name, path)| !name.starts_with('.') && path.is_dir())
        .map(|(_, path)| path)
        .collect();
    folders.sort();
    folders.iter().for_each(|folder| below(folder, seen, found));
}

/// Text of a path with `%20` and the like resolved; `None` where it is not UTF-8.
pub(super) fn unescaped(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|two| *first == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).ok()
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

/// The files that `path` of `option` names: itself where it is there as it is written, else by its braces and globs.
///
/// # Errors
/// A pattern that no file matches, or that names too many.
pub(super) fn local_files(option: &'static str, path: &Path) -> Result<Vec<PathBuf>> {
    let Some(text) = path.to_str().filter(|_| !path.exists()) else { return Ok(vec![path.to_owned()]) };
    let refuse = |accepted: &str| Error::option(option, format!("{text:?}"), accepted);
    let mut files = vec![];
    for one in braces(text).ok_or_else(|| refuse("a pattern of fewer files"))? {
        if Path::new(&one).exists() || !one.contains(WILDCARDS) {
            files.push(PathBuf::from(one));
            continue;
        }
        let found = glob(Path::new(""), &one, |_| true);
        if found.is_empty() {
            return Err(refuse("a local file that is there, or a pattern of such: no file matches"));
        }
        files.extend(found);
    }
    Ok(files)
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
    fn escapes_are_resolved() {
        // Right: what Python's urllib.parse.unquote says.
        for (path, expected) in [
            ("a%20b/x.tar", Some("a b/x.tar")),
            ("%41%c3%A9", Some("A\u{e9}")),
            ("100%", Some("100%")),
            ("%2", Some("%2")),
            ("%zz%+1", Some("%zz%+1")),
            ("%25%32%30", Some("%20")),
            ("%ff", None),
        ] {
            assert_eq!(unescaped(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn paths_match_as_globs_find_files() {
        // Right: what `glob` finds of these files.
        let files =
            ["0.tar", "a/0.tar", "a/1.txt", "a/b/0.tar", "a/b/10.tar", ".h/0.tar", "a/.x.tar", "a[1]/0.tar"];
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        for pattern in [
            "*.tar",
            "*/*.tar",
            "**/*.tar",
            "**",
            "a/**",
            "a/**/?.tar",
            "**/b/*",
            "a[1]/*",
            "a/[!1]*",
            ".h/*",
        ] {
            let found = glob(folder.path(), pattern, |name| name.ends_with(".tar"));
            let mut found: Vec<_> = found.iter().filter(|path| path.is_file()).collect();
            found.sort();
            let is_wanted = |file: &&&str| !pattern.ends_with("**") || file.ends_with(".tar");
            let mut expected: Vec<_> = files
                .iter()
                .filter(|file| path_matches(pattern, file))
                .filter(is_wanted)
                .map(|file| folder.path().join(file))
                .collect();
            expected.sort();
            assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{pattern}");
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
