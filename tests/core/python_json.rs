//! Promise: json as Python writes it (`NaN`, `Infinity`, halves of surrogate pairs, a byte order mark) costs no sample. A
//! `NaN` that was asked for is no value, counted; json that cannot be read is counted and named from the first sample on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{builder, epoch, full, png};
use tldr_loader::FailReason;
use tldr_loader::config::Gate;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::shard::{ShardWriter, lengths, list};

/// A shard of 64 samples `000` to `063`, whose json is what `of` says.
fn corpus(folder: &Path, of: impl Fn(usize) -> String) -> String {
    let path = folder.join("00000.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    for number in 0..64 {
        let image = png([number as u8, 7, 9]);
        let caption = format!("picture {number}");
        let json = of(number);
        let members: [(&str, &[u8]); 3] =
            [("png", &image), ("txt", caption.as_bytes()), ("json", json.as_bytes())];
        writer.write(&format!("{number:03}"), &members).unwrap();
    }
    writer.finish().unwrap();
    path.display().to_string()
}

/// Every second one is json for Python only, in a field that nobody asks for.
fn dialect(number: usize) -> String {
    match number % 8 {
        1 => format!(r#"{{"uid": "u{number}", "score": {number}, "clip": NaN}}"#),
        3 => format!(r#"{{"uid": "u{number}", "score": {number}, "exif": {{"x": [-Infinity, "\ud83d"]}}}}"#),
        5 => format!("\u{feff}{{\"uid\": \"u{number}\", \"score\": {number}}}"),
        7 => format!(r#"{{"note": "\udc00", "uid": "u{number}", "score": {number}, "n": 1e999}}"#),
        _ => format!(r#"{{"uid": "u{number}", "score": {number}}}"#),
    }
}

fn keys(loader: &Loader) -> BTreeSet<String> {
    epoch(loader).into_iter().flatten().map(|row| row.key).collect()
}

fn range(numbers: impl Iterator<Item = usize>) -> BTreeSet<String> {
    numbers.map(|number| format!("{number:03}")).collect()
}

fn one_by_one(urls: &str) -> LoaderBuilder {
    support::eval(urls).batch_size(1)
}

#[test]
fn what_nobody_asked_for_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), dialect);
    let list = folder.path().join("list.jsonl");
    let lines: Vec<String> = (0..64).map(|n| format!("{{\"uid\": \"u{n}\", \"loss\": NaN}}\n")).collect();
    fs::write(&list, format!("\u{feff}{}", lines.concat())).unwrap();
    for (loader, expected) in [
        (one_by_one(&urls).subset(&list), range(0..64)),
        (one_by_one(&urls).filter("score >= 32".parse().unwrap()), range(32..64)),
        (one_by_one(&urls).caption_key("uid"), range(0..64)),
    ] {
        let loader = loader.build().unwrap();
        assert_eq!(keys(&loader), expected);
        let stats = loader.stats();
        assert_eq!((stats.counts.failures(), stats.unread_json), (0, 0));
        assert!(stats.not_numbers.is_empty());
    }
    let gated =
        builder(&urls).gate(Gate::at_least(40.0).by("score")).keep_ratio(24.0 / 64.0).batch_size(1).lanes(1);
    let loader = gated.build().unwrap();
    assert_eq!(keys(&loader), range(40..64));
    assert_eq!(loader.stats().unscored, 0);
}

#[test]
fn a_nan_that_was_asked_for_is_no_value_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), |number| match number % 4 {
        0 => format!(r#"{{"score": NaN, "caption": NaN, "n": {number}}}"#),
        1 => format!(r#"{{"score": Infinity, "caption": "of json", "n": {number}}}"#),
        2 => format!(r#"{{"score": -Infinity, "caption": "of json", "n": {number}}}"#),
        _ => format!(r#"{{"score": {number}, "caption": "of json", "n": {number}}}"#),
    });
    let counted = |stats: &tldr_loader::loader::Stats, field: &str| stats.not_numbers.get(field).copied();
    // Neither true nor false, as what is absent.
    for (filter, expected) in [
        ("score < 0 or score >= 0", range((0..64).filter(|n| n % 4 != 0))),
        ("score is null", range((0..64).filter(|n| n % 4 == 0))),
        ("score > 1000000", range((0..64).filter(|n| n % 4 == 1))),
        ("score < -1000000", range((0..64).filter(|n| n % 4 == 2))),
    ] {
        let loader = one_by_one(&urls).filter(filter.parse().unwrap()).build().unwrap();
        assert_eq!(keys(&loader), expected, "{filter}");
        let stats = loader.stats();
        assert_eq!((counted(&stats, "score"), stats.counts.failures()), (Some(16), 0), "{filter}");
        let warnings = stats.warnings(1).join("\n");
        assert!(warnings.contains("16 of 64 samples have NaN in \"score\""), "{warnings}");
    }
    // The caption of the text member serves.
    let loader = one_by_one(&urls).caption_key("caption").build().unwrap();
    let captions: BTreeSet<String> = epoch(&loader).into_iter().flatten().map(|row| row.caption).collect();
    assert_eq!(captions.len(), 17, "16 of their own, and one that the others share");
    assert_eq!(counted(&loader.stats(), "caption"), Some(16));
    // No score, which passes no gate; an infinite one passes any.
    let loader =
        builder(&urls).gate(Gate::at_least(1e30).by("score")).keep_ratio(0.25).batch_size(1).lanes(1);
    let loader = loader.build().unwrap();
    assert_eq!(keys(&loader), range((0..64).filter(|n| n % 4 == 1)));
    let stats = loader.stats();
    assert_eq!((counted(&stats, "score"), stats.unscored), (Some(16), 16));
}

#[test]
fn what_cannot_be_read_is_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), |number| match number % 2 {
        0 => format!(r#"{{"uid": "u{number}", "score": {number}}}"#),
        _ => format!(r#"{{"uid": "u{number}", "score": nan}}"#),
    });
    let (subset, captions) = (folder.path().join("list.jsonl"), folder.path().join("captions.jsonl"));
    let lines = |more: &str| (0..64).map(|n| format!("{{\"uid\": \"u{n}\"{more}}}\n")).collect::<String>();
    fs::write(&subset, lines("")).unwrap();
    fs::write(&captions, lines(", \"caption\": \"of the table\"")).unwrap();
    // Whether it is in the subset nobody knows: it failed, and is not skipped.
    let loader = one_by_one(&urls).subset(&subset).max_errors(64.0).build().unwrap();
    assert_eq!(keys(&loader).len(), 32);
    let stats = loader.stats();
    assert_eq!(stats.counts.failed.get(&FailReason::BadJson), Some(&32));
    assert_eq!((stats.counts.excluded, stats.failures[0].reason), (0, FailReason::BadJson));
    assert!(stats.failures[0].detail.contains("line 1 column"), "{}", stats.failures[0].detail);
    // What counts without is counted, too.
    let loader = one_by_one(&urls).captions([("side", &captions)]).caption_key("side").build().unwrap();
    assert_eq!(keys(&loader).len(), 64);
    assert_eq!((loader.stats().unread_json, loader.stats().captions["side"].matched), (32, 32));
    let gated = builder(&urls).gate(Gate::at_least(0.0).by("score")).keep_ratio(0.5).batch_size(1).lanes(1);
    let loader = gated.build().unwrap();
    assert_eq!(keys(&loader), range((0..64).step_by(2)));
    let stats = loader.stats();
    assert_eq!((stats.unread_json, stats.unscored, stats.counts.failures()), (32, 32, 0));
    let warnings = stats.warnings(1).join("\n");
    assert!(warnings.contains("the json of 32 samples cannot be read"), "{warnings}");
}

#[test]
fn counts_do_not_depend_on_lanes() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), |number| {
        format!(r#"{{"score": {}}}"#, if number % 4 == 0 { "NaN".to_owned() } else { number.to_string() })
    });
    for lanes in [1, 2, 4] {
        let loader =
            full(&urls).filter("score is null or score > 0".parse().unwrap()).lanes(lanes).build().unwrap();
        epoch(&loader);
        assert_eq!(loader.stats().not_numbers.values().copied().collect::<Vec<_>>(), [16], "{lanes} lanes");
    }
    // Lanes that share a window: whichever reads it, and whichever finds it recorded.
    for lanes in [1, 2, 4, 8, 8, 8, 8] {
        let gated =
            builder(&urls).gate(Gate::at_least(1.0).by("score")).keep_ratio(0.5).lanes(lanes).batch_size(8);
        let loader = gated.build().unwrap();
        epoch(&loader);
        let stats = loader.stats();
        assert_eq!((stats.not_numbers.get("score"), stats.unscored), (Some(&16), 16), "{lanes} lanes");
    }
}

#[test]
fn tables_of_lengths_are_read_likewise() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), dialect);
    let shards = list(&[urls], None, &Default::default()).unwrap();
    let length = || lengths(&shards, &mut |_, _| {});
    let sizes = folder.path().join("sizes.json");
    fs::write(&sizes, "\u{feff}{\"00000.tar\": 60, \"mean\": NaN, \"share\": 0.5}").unwrap();
    assert_eq!(length().unwrap(), [60]);
    fs::write(&sizes, "{\"00000.tar\": NaN}").unwrap();
    fs::write(folder.path().join("00000_stats.json"), "{\"successes\": 61, \"rate\": NaN}").unwrap();
    assert_eq!(length().unwrap(), [61], "no value: the next source is asked");
    fs::write(&sizes, "{\"00000.tar\": \"64\"}").unwrap();
    let error = length().unwrap_err().to_string();
    assert!(error.contains("sizes.json") && error.contains("found \"64\" for 00000.tar"), "{error}");
}

#[test]
fn rows_without_a_name_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), dialect);
    let list = folder.path().join("list.jsonl");
    fs::write(
        &list,
        "{\"key\": \"000\"}\n{\"key\": NaN}\n{\"key\": \"001\", \"x\": \"\\ud800\"}\n{\"x\": 1}\n",
    )
    .unwrap();
    let loader = one_by_one(&urls).subset(&list).build().unwrap();
    assert_eq!(keys(&loader), range(0..2));
    assert_eq!(loader.stats().subset.unwrap().entries, 2);
    let captions = folder.path().join("captions.jsonl");
    fs::write(&captions, "{\"key\": \"000\", \"caption\": \"x\"}\n{\"key\": \"001\", \"caption\": NaN}\n")
        .unwrap();
    let loader = one_by_one(&urls).captions([("side", &captions)]).caption_key("side").build().unwrap();
    epoch(&loader);
    assert_eq!(loader.stats().captions["side"].matched, 1);
}
