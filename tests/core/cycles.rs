//! No files of a crate import each other in a circle: what a file needs can be read without it.
//!
//! An import counts as one of the file that has the item, not of the module that re-exports it. Test modules are
//! exempt.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::imports::{expanded, rust_files, without_comments_and_strings, without_tests, word_positions};

/// Sources of one crate, by module path; `""` is `lib.rs`.
type Sources = BTreeMap<String, String>;
/// What each file imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn files_form_no_cycle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crates = vec![root.to_owned()];
    for group in ["crates", "bindings"] {
        crates.extend(fs::read_dir(root.join(group)).unwrap().map(|entry| entry.unwrap().path()));
    }
    crates.retain(|folder| folder.join("src/lib.rs").is_file());
    assert!(crates.len() >= 8, "found {crates:?} only");
    let wrong: Vec<String> = crates
        .iter()
        .flat_map(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tangled(&imports(&sources(&folder.join("src"))))
                .into_iter()
                .map(move |line| format!("{name}: {line}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn sources(src: &Path) -> Sources {
    let mut files = Vec::new();
    rust_files(src, &mut files);
    let named = |file: &Path| {
        let path =
            file.strip_prefix(src).unwrap().with_extension("").to_string_lossy().replace(['/', '\\'], "::");
        let path = path.strip_suffix("::mod").unwrap_or(&path).to_owned();
        if path == "lib" { String::new() } else { path }
    };
    files
        .iter()
        .map(|file| {
            let code = without_comments_and_strings(&fs::read_to_string(file).unwrap());
            (named(file), without_tests(&code))
        })
        .collect()
}

fn imports(sources: &Sources) -> Imports {
    let mut found = Imports::new();
    for (module, code) in sources {
        let mut targets = BTreeSet::new();
        for path in paths(module, code, sources) {
            targets.insert(resolve(&path, sources, 0));
        }
        targets.remove(module);
        // The root re-exports; what is left to it are names of macros.
        targets.remove("");
        found.insert(module.clone(), targets);
    }
    found
}

/// The module that has the item at `path`: re-exports are followed.
fn resolve(path: &[String], sources: &Sources, depth: usize) -> String {
    let length = (0..=path.len()).rev().find(|&n| sources.contains_key(&path[..n].join("::"))).unwrap();
    let module = path[..length].join("::");
    let Some(item) = path.get(length) else { return module };
    for statement in exports(&sources[&module]) {
        for mut target in expanded(statement) {
            let name = target.last().unwrap().clone();
            if (name == *item || name == "*") && depth < 8 {
                if target[0] == "crate" {
                    target.remove(0);
                } else {
                    target.retain(|segment| segment != "self");
                    target.splice(0..0, path[..length].iter().cloned());
                }
                return resolve(&target, sources, depth + 1);
            }
        }
    }
    module
}

/// The paths that `code` re-exports.
fn exports(code: &str) -> impl Iterator<Item = &str> {
    code.split("pub").skip(1).filter_map(|rest| {
        let rest =
            rest.strip_prefix('(').map_or(rest, |rest| rest.split_once(')').map_or("", |(_, rest)| rest));
        rest.trim_start().strip_prefix("use ")
    })
}

/// Full paths inside the crate that the file `module` names, from the crate's root; not those that it re-exports.
fn paths(module: &str, code: &str, sources: &Sources) -> Vec<Vec<String>> {
    let own: Vec<String> = module.split("::").filter(|s| !s.is_empty()).map(str::to_owned).collect();
    let below = if module.is_empty() { String::new() } else { format!("{module}::") };
    let children: Vec<&str> = sources
        .keys()
        .filter_map(|name| name.strip_prefix(&below))
        .filter(|name| !name.is_empty() && !name.contains("::"))
        .collect();
    let mut found = Vec::new();
    for start in ["crate", "super"].iter().chain(&children) {
        for at in word_positions(code, start) {
            let before = code[..at].trim_end();
            let goes_on = code[at + start.len()..].trim_start().starts_with("::");
            let exported =
                before.ends_with("use") && before[..before.len() - 3].trim_end().ends_with([')', 'b']);
            if !goes_on || exported || before.ends_with("::") || before.ends_with('$') {
                continue;
            }
            for path in expanded(&code[at..]) {
                let climbs = path.iter().take_while(|segment| *segment == "super").count();
                let mut full = match path[0].as_str() {
                    "crate" => vec![],
                    "super" => own[..own.len().saturating_sub(climbs)].to_vec(),
                    _ => own.clone(),
                };
                full.extend(path.into_iter().filter(|segment| segment != "crate" && segment != "super"));
                found.push(full);
            }
        }
    }
    found
}

/// The files that import each other, at once or by way of others, with those that they import: one line each.
fn tangled(imports: &Imports) -> Vec<String> {
    let reached = |from: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(file) = todo.pop() {
            todo.extend(imports.get(file).into_iter().flatten().filter(|next| seen.insert((*next).clone())));
        }
        seen
    };
    let mut found = Vec::new();
    for (file, targets) in imports {
        let back: Vec<&str> =
            targets.iter().filter(|next| reached(next).contains(file)).map(String::as_str).collect();
        if !back.is_empty() {
            found.push(format!("{file} imports {}", back.join(", ")));
        }
    }
    found
}

mod the_check_itself {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|(name, code)| (name.to_string(), code.to_string())).collect();
        tangled(&imports(&sources))
    }

    #[test]
    fn files_that_go_down_pass() {
        let files = [
            ("", "mod a; pub use a::Top;"),
            ("a", "mod low; mod high; pub use low::{Low, Lower}; pub(crate) use high::Top;"),
            ("a::low", "pub struct Low;"),
            ("a::high", "use super::Low; use crate::a::low::Lower; fn f() -> super::low::Low {}"),
        ];
        assert_eq!(check(&files), Vec::<String>::new());
    }

    #[test]
    fn circles_are_found_through_re_exports_groups_and_children() {
        for (low, high) in [
            ("use super::Top;", "use super::Low;"),
            ("use crate::a::{x, Top};", "use crate::{Other, a::{Low}};"),
            ("fn f(t: super::high::Top) {}", "use crate::a::low::{Low, Lower};"),
            ("use crate::Top;", "use super::low;"),
        ] {
            let files = [
                ("", "mod a; pub use a::Top;"),
                ("a", "mod low; mod high; pub use low::{Low, Lower}; pub(crate) use high::Top;"),
                ("a::low", low),
                ("a::high", high),
            ];
            let expected = ["a::high imports a::low", "a::low imports a::high"];
            assert_eq!(check(&files), expected, "{low} {high}");
        }
        let parent = [("", ""), ("a", "mod low; use low::Low; pub struct A;"), ("a::low", "use super::A;")];
        assert_eq!(check(&parent), ["a imports a::low", "a::low imports a"]);
    }

    #[test]
    fn groups_are_expanded() {
        let of = |text: &str| -> Vec<String> { expanded(text).iter().map(|path| path.join("::")).collect() };
        assert_eq!(
            of("crate::a::{b, c::{d, self}, *}; use x::{y};"),
            ["crate::a::b", "crate::a::c::d", "crate::a::c::self", "crate::a::*"]
        );
        assert_eq!(of("super::a::<T>::new()"), ["super::a"]);
    }
}
