//! Imports go down only, and each external crate has one owner.
//!
//! Between packages the compiler sees to it, as far as the manifests say so: what they may say is
//! checked here. Inside the core the order is the one of `docs/architecture.md`. Modules of one layer
//! stand beside each other and do not import each other. Test modules are exempt: a test may compare
//! with anything.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the core, lowest layer first.
const LAYERS: [&[&str]; 10] = [
    &["aside", "names"],
    &["error", "json"],
    &["hash", "options"],
    &["sample"],
    &["model"],
    &["cluster", "shard", "image", "text"],
    &["config"],
    &["select", "ledger"],
    &["loader"],
    &["jobs"],
];

/// External crates that only the named modules (or files, without `.rs`) of the core may name.
const OWNERS: [(&str, &[&str]); 21] = [
    ("tar", &["shard"]),
    ("zstd", &["shard"]),
    ("flate2", &["shard", "text", "image"]),
    ("bytes", &["shard", "ledger"]),
    ("object_store", &["shard/remote"]),
    ("parquet", &["shard/metadata", "shard/row_groups", "ledger"]),
    ("tokio", &["shard/remote"]),
    ("futures_util", &["shard/remote"]),
    ("rustls", &["shard/remote"]),
    ("reqwest", &["shard/remote"]),
    ("chrono", &["shard/remote"]),
    ("http", &["shard/remote"]),
    ("url", &["shard/remote"]),
    ("lru", &["ledger"]),
    ("sha2", &["jobs/checksums"]),
    ("tempfile", &["aside", "loader/buffer"]),
    ("crossbeam_channel", &["loader"]),
    ("tokenizers", &["text"]),
    ("toml", &["config"]),
    ("tldr_jpeg", &["image"]),
    ("tldr_resize", &["image"]),
];

/// The folder of the core's manifest.
const CORE: &str = ".";

/// Crates that only the named packages may depend on. Not listed are those that any package may use.
const PACKAGES: [(&str, &[&str]); 28] = [
    ("tch", &["crates/captioner", "bindings/captioner"]),
    ("torch-sys", &["crates/captioner"]),
    ("pyo3", &["bindings/common", "bindings/python", "bindings/captioner"]),
    ("tldr-captioner", &["crates/captioner-cli", "bindings/captioner"]),
    ("tldr-captioner-cli", &["bindings/captioner"]),
    ("tldr-cli", &["crates/captioner-cli", "bindings/python", "bindings/captioner"]),
    ("tldr-synth", &["crates/cli", "bindings/python"]),
    ("tldr-python", &["bindings/python", "bindings/captioner"]),
    ("tldr-report", &["crates/cli", "bindings/python"]),
    ("minijinja", &["crates/report"]),
    ("base64", &["crates/report"]),
    ("tldr-jpeg", &[CORE, "crates/report"]),
    ("tldr-resize", &[CORE]),
    ("turbojpeg-sys", &["crates/jpeg"]),
    ("fast_image_resize", &["crates/resize"]),
    ("clap", &["crates/cli", "crates/captioner-cli"]),
    ("ctrlc", &["crates/captioner-cli"]),
    ("indicatif", &["crates/cli"]),
    ("image", &[CORE]),
    ("tar", &[CORE]),
    ("zstd", &[CORE]),
    ("object_store", &[CORE]),
    ("parquet", &[CORE]),
    ("tokio", &[CORE]),
    ("lru", &[CORE]),
    ("sha2", &[CORE]),
    ("crossbeam-channel", &[CORE]),
    ("tokenizers", &[CORE]),
];

/// Those of [`PACKAGES`] that need libtorch or an interpreter: tests, benches and examples of the other
/// packages must not need them either.
const HEAVY: [&str; 5] = ["tch", "torch-sys", "pyo3", "tldr-captioner", "tldr-captioner-cli"];

/// Packages whose tests look at tensors.
const TESTED_WITH_TENSORS: &str = "crates/captioner-cli";

#[test]
fn imports_go_down_and_external_crates_have_one_owner() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    assert!(files.len() > 100, "found {} files only", files.len());
    let lib = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let reexports = reexports(&lib);
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root.join("src")).unwrap().with_extension("");
        wrong.extend(violations(&path.to_string_lossy().replace('\\', "/"), &text, &reexports));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn packages_depend_on_what_is_theirs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![CORE.to_owned()];
    for group in ["crates", "bindings"] {
        for entry in fs::read_dir(root.join(group)).unwrap() {
            folders.push(format!("{group}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    folders.retain(|folder| root.join(folder).join("Cargo.toml").is_file());
    for expected in [CORE, "crates/captioner", "crates/captioner-cli", "crates/cli", "crates/synth"] {
        assert!(folders.iter().any(|folder| folder == expected), "{expected} is not among {folders:?}");
    }
    let wrong: Vec<String> = folders
        .iter()
        .flat_map(|folder| {
            strangers(folder, &fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap())
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What the package in `folder` must not depend on, and does by its `manifest`: one line each.
fn strangers(folder: &str, manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, is_dev) in dependencies(manifest) {
        let Some((_, owners)) = PACKAGES.iter().find(|(owned, _)| *owned == name) else { continue };
        let exempt = is_dev && (!HEAVY.contains(&&*name) || folder == TESTED_WITH_TENSORS);
        if !owners.contains(&folder) && !exempt {
            wrong.push(format!("{folder}/Cargo.toml names `{name}`, which belongs to {}", owners.join(", ")));
        }
    }
    wrong
}

/// The dependencies of a manifest, and whether each is one of tests, benches and examples only.
fn dependencies(manifest: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    // Of the section: whether it lists dependencies, and whether for tests.
    let mut section = None;
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            // `[dependencies]`, `[target.'cfg(unix)'.dependencies]`, `[dependencies.name]`
            let (before, name) = match header.rsplit_once("dependencies.") {
                Some((before, name)) => (Some(before), Some(name)),
                None => (header.strip_suffix("dependencies"), None),
            };
            let inherited = header.starts_with("workspace");
            section = before.filter(|_| !inherited).map(|before| before.ends_with("dev-"));
            if let (Some(is_dev), Some(name)) = (section, name) {
                found.push((name.to_owned(), is_dev));
                section = None;
            }
        } else if let (Some(is_dev), Some((name, _))) = (section, line.split_once('=')) {
            // `name = "1"`, `name.workspace = true`
            found.push((name.split('.').next().unwrap_or_default().trim().to_owned(), is_dev));
        }
    }
    found
}

/// What is wrong with the imports of `text`, the file `module` (a path below `src`, without
/// `.rs`): one line each.
fn violations(module: &str, text: &str, reexports: &BTreeMap<String, String>) -> Vec<String> {
    let code = without_tests(&without_comments_and_strings(text));
    let mut wrong = Vec::new();
    for (name, owners) in OWNERS {
        let owned = owners.iter().any(|o| module == *o || module.starts_with(&format!("{o}/")));
        if !owned && names_crate(&code, name) {
            wrong.push(format!("{module} names the crate `{name}`, which belongs to {}", owners.join(", ")));
        }
    }
    // lib.rs declares and re-exports.
    if module == "lib" {
        return wrong;
    }
    let own = module.split('/').next().unwrap();
    let Some(own_layer) = layer(own) else {
        wrong.push(format!("{module}: `{own}` has no layer; add it to LAYERS"));
        return wrong;
    };
    for target in paths_under(&code, "crate") {
        let target = reexports.get(&target).cloned().unwrap_or(target);
        if target == own {
            continue;
        }
        match layer(&target) {
            Some(l) if l < own_layer => {}
            Some(_) => wrong.push(format!("{module} imports {target}, which is not below it")),
            None => wrong.push(format!("{module} imports crate::{target}, which is no known module")),
        }
    }
    for up in climbs(&code, module) {
        wrong.push(format!("{module} climbs out of {own} with `{up}`: write `crate::` instead"));
    }
    wrong
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

pub(crate) fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// Names that `lib.rs` re-exports, with the module that each comes from.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let code = without_comments_and_strings(lib);
    // Macros stand at the root, whatever their module.
    let mut names = BTreeMap::from([("group".to_owned(), "options".to_owned())]);
    for statement in code.split("pub use ").skip(1) {
        let Some(statement) = statement.split(';').next() else { continue };
        let Some((module, rest)) = statement.split_once("::") else { continue };
        for name in words(rest) {
            names.insert(name.to_string(), module.trim().to_string());
        }
    }
    names
}

/// First segments of all paths that start with `root::`, groups expanded.
fn paths_under(code: &str, root: &str) -> Vec<String> {
    let mut found: Vec<String> = word_positions(code, root)
        .into_iter()
        // What a macro names, the module that uses it imports.
        .filter(|&at| !code[..at].ends_with('$'))
        .flat_map(|at| expanded(&code[at..]))
        .filter_map(|path| path.into_iter().nth(1).filter(|name| name != "self"))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The paths that `text` begins with, groups expanded: of `a::{b, c::d}` are that `a::b` and `a::c::d`.
pub(crate) fn expanded(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    let name = match text.strip_prefix('*') {
        Some(_) => "*",
        None => &text[..text.find(|c: char| !is_word(c)).unwrap_or(text.len())],
    };
    let rest = text[name.len()..].trim_start();
    let Some(rest) = rest.strip_prefix("::").map(str::trim_start) else {
        return if name.is_empty() { vec![] } else { vec![vec![name.to_owned()]] };
    };
    let tails = match rest.strip_prefix('{') {
        Some(group) => {
            let mut depth = 0;
            let end = group.find(|c: char| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth < 0
            });
            let mut depth = 0;
            group[..end.unwrap_or(group.len())]
                .split(|c: char| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                })
                .flat_map(expanded)
                .collect()
        }
        None if rest.starts_with(|c: char| is_word(c) || c == '*') => expanded(rest),
        None => vec![],
    };
    if tails.is_empty() {
        return vec![vec![name.to_owned()]];
    }
    tails.into_iter().map(|tail| [vec![name.to_owned()], tail].concat()).collect()
}

/// Chains of `super` that leave the top-level module to which the file belongs.
fn climbs(code: &str, module: &str) -> Vec<String> {
    // `a/mod` and `a` may not climb at all, `a/b` once.
    let depth = module.trim_end_matches("/mod").matches('/').count();
    let chain = format!("{}super", "super::".repeat(depth));
    // Inline modules may climb out of themselves; the only ones here are test modules.
    word_positions(code, "super")
        .iter()
        .filter(|&&at| code[at..].starts_with(&chain))
        .map(|_| chain.clone())
        .collect()
}

/// Whether a path starts with the external crate `name`.
fn names_crate(code: &str, name: &str) -> bool {
    word_positions(code, name).into_iter().any(|at| {
        let before = code[..at].trim_end();
        let after = code[at + name.len()..].trim_start();
        let imported = before.ends_with("use") && after.starts_with([';', ' ']);
        !before.ends_with("::") && !before.ends_with('.') && (after.starts_with("::") || imported)
            || before.ends_with("extern crate")
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|w| !w.is_empty())
}

pub(crate) fn word_positions(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word))
        .collect()
}

/// `text` without comments, and with the contents of string and character literals removed.
pub(crate) fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string_hashes(rest, &code) {
            let open = 2 + hashes;
            let close = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if c == '"' {
            string_end(rest, '"')
        } else if c == '\'' && is_char_literal(rest) {
            string_end(rest, '\'')
        } else {
            0
        };
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// Number of `#` of the raw string that `rest` starts with.
fn raw_string_hashes(rest: &str, before: &str) -> Option<usize> {
    let after_r = rest.strip_prefix('r')?;
    // `r` may follow the `b` of a byte string, no other word.
    if before.ends_with(is_word) && !before.ends_with('b') {
        return None;
    }
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    after_r[hashes..].starts_with('"').then_some(hashes)
}

/// Whether the quote opens a literal, not a lifetime.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Length of the literal that `rest` starts with, both quotes included.
fn string_end(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `code` without the items behind `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let mut depth = 0usize;
        let end = item
            .char_indices()
            .find_map(|(i, c)| {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                (depth == 0 && matches!(c, '}' | ';')).then_some(i + 1)
            })
            .unwrap_or(item.len());
        rest = &item[end..];
    }
    kept + rest
}

mod the_check_itself {
    use super::*;

    fn check(module: &str, text: &str) -> Vec<String> {
        violations(module, text, &reexports("pub use error::{Error, Result};\npub use loader::Loader;"))
    }

    #[test]
    fn accepts_what_goes_down() {
        let text = r#"
            //! See `crate::loader::Loader`.
            use crate::error::{Error, Result};
            use crate::{hash, sample::Sample, model::{Signals, Encoder}};
            use super::quota::Quota;
            macro_rules! m { () => { $crate::loader::Loader }; }
            fn f() -> crate::Result<()> { println!("crate::loader"); crate::select::gate::g('"', 'a') }
            #[cfg(test)]
            mod tests { use crate::loader::Loader; use tar::Header; }
        "#;
        assert_eq!(check("select/gate", text), Vec::<String>::new());
    }

    #[test]
    fn rejects_what_goes_up_or_sideways() {
        for (module, text, expected) in [
            ("shard/reader", "use crate::loader::Batch;", "imports loader"),
            ("shard/reader", "use crate::{error::Error, select::Quota};", "imports select"),
            ("shard/reader", "fn f(x: crate::config::Quota) {}", "imports config"),
            ("shard/reader", "use crate::\n    text::Tokenizer;", "imports text"),
            ("select/gate", "use crate::ledger::Ledger;", "imports ledger"),
            ("select/gate", "use crate::Loader;", "imports loader"),
            ("hash", "use crate::sample::Sample;", "imports sample"),
            ("select/gate", "use super::super::loader::Batch;", "climbs out of select"),
            ("select/mod", "use super::loader::Batch;", "climbs out of select"),
            ("jobs/plan", "use crate::Loader; use crate::nothing::Thing;", "no known module"),
            ("helpers", "", "has no layer"),
            ("image/decode", "#[cfg(test)] use tar::Header; use crate::jobs::plan;", "imports jobs"),
        ] {
            let found = check(module, text);
            assert_eq!(found.len(), 1, "{module}: {text}: {found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn rejects_external_crates_outside_their_owner() {
        for (module, text, name) in [
            ("select/gate", "use tokenizers::Tokenizer;", "tokenizers"),
            ("ledger/table", "fn f(t: &tokio::Runtime) {}", "tokio"),
            ("image/decode", "use tar::Header;", "tar"),
            ("text/fuse", "use zstd;", "zstd"),
            ("shard/reader", "use lru::LruCache;", "lru"),
            ("lib", "use crossbeam_channel::bounded;", "crossbeam_channel"),
        ] {
            let found = check(module, text);
            assert_eq!(found.len(), 1, "{module}: {text}: {found:?}");
            assert!(found[0].contains(&format!("`{name}`")), "{found:?}");
        }
        for (module, text) in [
            ("loader/lane", "use crossbeam_channel::{bounded, Sender};"),
            ("shard/remote/store", "use object_store::ObjectStore; use url::Url;"),
            ("shard/reader", "use tar::Header; use flate2::read::GzDecoder;"),
            ("select/gate", "fn tar() {} let x = self.tar; shard::tar::f(); tar (1);"),
        ] {
            assert_eq!(check(module, text), Vec::<String>::new(), "{module}: {text}");
        }
    }

    #[test]
    fn rejects_packages_that_depend_on_what_is_not_theirs() {
        let normal = "[package]\nname = \"x\"\n[dependencies]\nserde = \"1\" # tch = 1\n";
        assert_eq!(strangers(CORE, normal), Vec::<String>::new());
        for (folder, section, name) in [
            (CORE, "tch = \"0.24\"", "tch"),
            (CORE, "[dev-dependencies]\ntch.workspace = true", "tch"),
            (CORE, "[dev-dependencies.tldr-captioner]\npath = \"crates/captioner\"", "tldr-captioner"),
            ("crates/cli", "tldr-captioner = { path = \"../captioner\" }", "tldr-captioner"),
            ("crates/cli", "[target.'cfg(unix)'.dependencies]\nctrlc = \"3\"", "ctrlc"),
            ("crates/synth", "[build-dependencies]\npyo3 = \"0.30\"", "pyo3"),
            ("crates/captioner", "[dependencies.clap]\nversion = \"4\"", "clap"),
        ] {
            let found = strangers(folder, &format!("{normal}{section}\n"));
            assert_eq!(found.len(), 1, "{folder}: {section}: {found:?}");
            assert!(found[0].contains(&format!("`{name}`")), "{found:?}");
        }
        for (folder, section) in [
            ("crates/captioner", "tch = \"0.24\""),
            ("crates/captioner", "[dev-dependencies]\nclap = \"4\""),
            (CORE, "[dev-dependencies]\nclap = \"4\""),
            (CORE, "[workspace.dependencies]\ntch = \"0.24\""),
            (CORE, "[profile.dev.package]\ntch = { opt-level = 1 }"),
        ] {
            let found = strangers(folder, &format!("{normal}{section}\n"));
            assert_eq!(found, Vec::<String>::new(), "{folder}: {section}");
        }
    }
}
