//! Promise: an option is declared once. Its name is the same everywhere, it is read as it is written, and at its default
//! it is in no state and no fingerprint, so that a new one orphans nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tldr_loader::ErrorKind;
use tldr_loader::config::{Captions, Config, Gate, Images, Mode, Runtime, Selection, Source, World};
use tldr_loader::options::{Class, Field, Group, SECRET};
use tldr_loader::shard::Store;

const ALL: [Class; 5] = [Class::Policy, Class::Reading, Class::Pixels, Class::Order, Class::Runtime];

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn nothing_is_written_of_defaults() {
    assert!(Config::default().write().is_empty());
    assert_eq!(Config::default().entries(&ALL), vec![]);
    assert_eq!(Config::read(&Map::new()).unwrap(), Config::default());
}

/// A value of each type that is not the default.
fn other(field: &Field) -> Value {
    let default = (field.default)();
    let named: BTreeMap<&str, Value> = [
        ("keep_ratio", json!("{0: 0.5, 3: 1}")),
        ("gate", json!("top(0.25, by=clip)")),
        ("quota", json!("cap(100)")),
        ("priority", json!("diverse")),
        ("fuse", json!("concat(16)")),
        ("transform", json!("eval")),
        ("dtype", json!("uint8")),
        ("alpha", json!("drop")),
        ("on_error", json!("raise")),
        ("mode", json!("full")),
        ("where", json!("width >= 200")),
        ("urls", json!(["a.tar", "b.tar"])),
        ("lengths", json!([3, 4])),
        ("captions", json!({"blip2": "captions.parquet"})),
        ("scores", json!(["a.parquet", "b.npy"])),
        ("fields", json!(["width", "class"])),
        ("caption_choice", json!("random")),
        ("token", json!("a-token")),
        ("headers", json!({"X-Key": "a key"})),
        ("sources", json!([{"urls": "a.tar", "weight": 0.5}])),
    ]
    .into();
    match (named.get(field.name), default) {
        (Some(value), _) => value.clone(),
        (None, Value::Bool(default)) => json!(!default),
        (None, Value::Number(_)) => json!(7),
        (None, Value::Array(default)) => json!(vec![0.25; default.len()]),
        (None, Value::String(_)) => json!("cuda:3"),
        (None, _) if field.python.contains("Sequence[float]") => json!([0.5, 1]),
        (None, _) if field.python == "int" => json!(7),
        (None, _) if field.python == "float" => json!(0.5),
        (None, _) => json!("some/text"),
    }
}

/// Every field of `G` alone: written as it was read, and told where it has a say.
fn check<G: Group + PartialEq + std::fmt::Debug>() {
    for field in G::FIELDS.iter().filter(|field| field.group.is_none()) {
        let given = Map::from_iter([(field.name.to_owned(), other(field))]);
        let read = G::read(&given).unwrap_or_else(|error| panic!("{}: {error}", field.name));
        assert_ne!(read, G::default(), "{}", field.name);
        if SECRET.contains(&field.name) {
            assert!(read.write().is_empty() && read.entries(&ALL).is_empty(), "{}", field.name);
            continue;
        }
        assert_eq!(G::read(&read.write()).unwrap(), read, "{}", field.name);
        assert_eq!(read.write().len(), 1, "{}", field.name);
        let told = |classes: &[Class]| !read.entries(classes).is_empty();
        assert!(told(&[field.class]) && told(&ALL), "{}", field.name);
        let others: Vec<Class> = ALL.into_iter().filter(|class| *class != field.class).collect();
        assert!(!told(&others), "{}", field.name);
        // As a flag has it.
        if let Value::String(text) = &read.write()[field.name] {
            let mut by_text = G::default();
            by_text.set_text(&[field.name], text).unwrap();
            assert_eq!(by_text, read, "{}", field.name);
        }
        assert!(field.doc.len() > 20 && !field.accepted.is_empty(), "{}", field.name);
    }
}

#[test]
fn every_option_is_read_as_it_is_written() {
    check::<Config>();
    check::<Source>();
    check::<Store>();
    check::<Selection>();
    check::<Captions>();
    check::<Images>();
    check::<Runtime>();
    check::<World>();
}

#[test]
fn names_are_of_one_option() {
    fn collect(fields: &'static [Field], names: &mut Vec<&'static str>) {
        for field in fields {
            match field.group {
                Some(fields) => collect(fields, names),
                None => names.push(field.name),
            }
        }
    }
    // Flags of a command, and setters of the builder, have no group in their names. A table of captions is its source's.
    let mut names = vec![];
    collect(Config::FIELDS, &mut names);
    collect(Source::FIELDS, &mut names);
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len());
    assert!(names.len() > 50, "{}", names.len());
}

mod one_more {
    use super::*;

    mod before {
        tldr_loader::group! {
            /// As it was.
            pub struct Baking {
                /// Degrees.
                Policy heat: u64 = 220;
                /// Minutes.
                Order time: u64 = 40;
            }
        }
    }

    mod after {
        tldr_loader::group! {
            /// With one more.
            pub struct Baking {
                /// Degrees.
                Policy heat: u64 = 220;
                /// Grams.
                Policy salt: u64 = 10;
                /// Minutes.
                Order time: u64 = 40;
            }
        }
    }

    #[test]
    fn a_new_option_changes_no_fingerprint() {
        let given = object(json!({"heat": 180, "time": 50}));
        let before = before::Baking::read(&given).unwrap();
        let after = after::Baking::read(&given).unwrap();
        assert_eq!(before.entries(&ALL), after.entries(&ALL));
        // What was written before is read after.
        assert_eq!(after::Baking::read(&before.write()).unwrap(), after);
        let salted = after::Baking { salt: 12, ..after };
        assert_ne!(before.entries(&ALL), salted.entries(&ALL));
    }
}

#[test]
fn files_have_the_same_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let text = r#"
        batch_size = 64
        mode = "full"
        [[sources]]
        urls = "cc3m/{00000..00331}.tar"
        weight = 0.7
        store = { endpoint = "https://minio.example.org" }
        [[sources]]
        urls = ["sbu/a.tar", "sbu/b.tar"]
        weight = 0.3
        where = "width >= 200"
        [selection]
        gate = "Top(0.3, by = 'clip')"
        [runtime]
        stall_timeout = 1.5
    "#;
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!((config.batch_size, config.mode, config.sources.len()), (64, Mode::Full, 2));
    assert_eq!(config.sources[0].store.endpoint.as_deref(), Some("https://minio.example.org"));
    assert_eq!((config.sources[1].urls.len(), config.sources[1].weight), (2, Some(0.3)));
    assert_eq!(config.selection.gate, Some(Gate::top(0.3).by("clip")));
    assert_eq!(config.runtime.stall_timeout.unwrap().as_millis(), 1500);

    for (text, says) in [
        (
            "batch_sise = 3",
            "unknown option batch_sise=3: Config has no option of this name; the nearest is batch_size",
        ),
        ("[selection]\nimage_size = 3", "Selection has no option of this name"),
        ("image_size = 3", "unknown option image_size=3: an option of Images: images=Images(image_size=..)"),
        ("batch_size = \"many\"", "invalid batch_size=\"many\": expected a whole number"),
        ("[selection]\ngate = \"best(3)\"", "invalid gate=best(3): expected top(SHARE) or at_least(SCORE)"),
        ("selection = 3", "invalid selection=3: expected the options of Selection, by name"),
        (
            "[[sources]]\nurl = \"a\"",
            "unknown option url=a: Source has no option of this name; the nearest is urls",
        ),
        ("= 3", "run.toml: expected a TOML file of options"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn texts_of_a_command_line_are_read_by_type() {
    let mut source = Source::default();
    source.set_text(&["where"], "width >= 200").unwrap();
    source.set_text(&["name"], "12").unwrap();
    source.set_text(&["lengths"], "[3, 4]").unwrap();
    source.set_text(&["store", "retries"], "3").unwrap();
    assert_eq!((source.name.as_deref(), source.lengths), (Some("12"), Some(vec![3, 4])));
    assert_eq!(source.store.retries, 3);
    let mut selection = Selection::default();
    selection.set_text(&["keep_ratio"], "{0: 0.25, 28: 1}").unwrap();
    assert_eq!(selection.keep_ratio, Some([(0, 0.25), (28, 1.0)].into()));
    let error = selection.set_text(&["rotate"], "maybe").unwrap_err();
    assert_eq!(error.to_string(), "invalid rotate=maybe: expected true or false");
    let error = selection.set_text(&["rotat"], "true").unwrap_err();
    assert!(matches!(error.kind, ErrorKind::UnknownOption { .. }), "{error}");
}
