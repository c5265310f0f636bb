//! Promise: rows of a Parquet file with images are samples, with what pyarrow wrote (`golden/rows.py`); read by index,
//! from any row on, or from a store they are the same; damage costs the rows that it lies in.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use crate::fault_server::{Reply, Server};
use serde_json::Value;
use tldr_loader::error::FailReason;
use tldr_loader::shard::{
    Group, ReadOptions, ShardFetcher, ShardFormat, ShardIndex, ShardReader, Store, lengths, list,
};
use tldr_loader::{SampleId, Shard};

const ROWS: &[u8] = include_bytes!("../golden/rows.parquet");
const EXPECTED: &[u8] = include_bytes!("../golden/rows.json");

fn expected() -> Vec<Value> {
    tldr_loader::json::read(EXPECTED).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn written(folder: &Path, bytes: &[u8]) -> Shard {
    let path = folder.join("00000.parquet");
    std::fs::write(&path, bytes).unwrap();
    Shard::local(path.to_str().unwrap(), "corpus")
}

fn in_order(shard: &Shard, options: &ReadOptions) -> (Vec<Group>, ShardIndex) {
    let mut reader = ShardReader::open(shard, options).unwrap();
    let groups = std::iter::from_fn(|| reader.next_group().unwrap()).collect();
    (groups, reader.take_index())
}

fn fetch(shard: &Shard, index: &ShardIndex, rows: &[usize], options: &ReadOptions) -> Vec<Group> {
    let mut fetcher = ShardFetcher::open(shard, index, options, None).unwrap().unwrap();
    let mut found = vec![];
    let mut each = |_, group| {
        found.push(group);
        Ok(())
    };
    fetcher.fetch(index, rows, &mut each).unwrap();
    found
}

#[test]
fn a_row_is_a_sample_as_pyarrow_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let shard = written(folder.path(), ROWS);
    let (groups, index) = in_order(&shard, &ReadOptions::default());
    assert!(index.is_random_access());
    assert_eq!(groups.len(), expected().len());
    for (i, (group, row)) in groups.iter().zip(expected()).enumerate() {
        let key = format!("{i:09}");
        let caption = row["rest"]["caption"].as_str().filter(|caption| !caption.trim().is_empty());
        match group {
            Ok(sample) => {
                assert_eq!(sample.image, hex(row["image"].as_str().unwrap()));
                assert_eq!((&*sample.key, &*sample.caption), (&*key, caption.unwrap()));
                assert_eq!(sample.id, SampleId::new(SampleId::shard_hash("corpus", "00000.parquet"), &key));
                // Python's NaN and Infinity are null and a large number on both sides.
                let json: Value = tldr_loader::json::read(sample.json.as_ref().unwrap()).unwrap();
                assert_eq!(json, row["rest"]);
                let text = std::str::from_utf8(sample.json.as_ref().unwrap()).unwrap();
                assert_eq!(text.contains("NaN"), i % 4 == 1, "{text}");
                assert_eq!(text.contains("Infinity"), i % 4 == 2, "{text}");
            }
            Err(failed) => {
                let reason = match (caption, row["image"].as_str()) {
                    (None, _) if row["rest"]["caption"].is_null() => FailReason::MissingCaption,
                    (None, _) => FailReason::EmptyCaption,
                    (Some(_), None) => FailReason::MissingImage,
                    (Some(_), Some(_)) => panic!("row {i}: {failed:?}"),
                };
                assert_eq!((&*failed.key, failed.reason), (&*key, reason), "{}", failed.detail);
            }
        }
    }
    let null = groups[4].as_ref().unwrap_err();
    assert!(null.detail.contains("the column image.bytes is null"), "{}", null.detail);
}

#[test]
fn by_index_and_from_any_row_on_rows_are_those_of_reading_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let shard = written(folder.path(), ROWS);
    let by_field = ReadOptions { caption_key: Some("width".into()), ..ReadOptions::default() };
    let filter = Some("width >= 100 or score < 0".parse().unwrap());
    for options in [ReadOptions::default(), by_field, ReadOptions { filter, ..ReadOptions::default() }] {
        let (groups, index) = in_order(&shard, &options);
        for index in [index, ShardIndex::scan(&shard).unwrap()] {
            assert_eq!(index.len(), groups.len());
            let backwards: Vec<usize> = (0..groups.len()).rev().collect();
            let found = fetch(&shard, &index, &backwards, &options);
            assert_eq!(found, groups.iter().rev().cloned().collect::<Vec<_>>());
            let some: Vec<usize> = (0..groups.len()).filter(|row| row % 7 == 2).collect();
            let found = fetch(&shard, &index, &some, &options);
            assert_eq!(found, some.iter().map(|&row| groups[row].clone()).collect::<Vec<_>>());
        }
        for (first, group) in groups.iter().enumerate() {
            let mut reader = ShardReader::open(&shard, &options).unwrap();
            (0..first).for_each(|_| assert!(reader.skip_group().unwrap()));
            assert_eq!(reader.next_group().unwrap().as_ref(), Some(group));
        }
    }
}

#[test]
fn a_filter_excludes_rows_without_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let shard = written(folder.path(), ROWS);
    let filter = Some("width <> 40".parse().unwrap());
    let (groups, _) = in_order(&shard, &ReadOptions { filter, ..ReadOptions::default() });
    assert_eq!(groups[4].as_ref().unwrap_err().reason, FailReason::Excluded);
}

#[test]
fn a_store_gives_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let options = Store { range_bytes: 3000, ranges_ahead: 2, retries: 3, ..Store::default() };
    let options = Store { read_timeout: Duration::from_secs(10), ..options };
    let (groups, _) = in_order(&written(folder.path(), ROWS), &ReadOptions::default());
    let without_ids = |group: &Group| match group {
        Ok(sample) => {
            (sample.position, Ok((sample.image.clone(), sample.caption.clone(), sample.json.clone())))
        }
        Err(failed) => (failed.position, Err((failed.reason, failed.detail.clone()))),
    };
    for breaks in [false, true] {
        let server = Server::start([("/set/0.parquet".into(), ROWS.to_vec())], move |request| Reply {
            cut: (breaks && request.repeats == 0).then_some(1700),
            ..Reply::default()
        });
        let shard = list(&[server.url("/set/0.parquet")], None, &options).unwrap().remove(0);
        let (remote, index) = in_order(&shard, &ReadOptions::default());
        let expected: Vec<_> = groups.iter().map(without_ids).collect();
        assert_eq!(remote.iter().map(without_ids).collect::<Vec<_>>(), expected);
        let found = fetch(&shard, &index, &[1, 3, 27], &ReadOptions::default());
        assert_eq!(found, [1, 3, 27].map(|row| remote[row].clone()));
    }
    let whole = Server::start([("/set/0.parquet".into(), ROWS.to_vec())], |_| Reply {
        ranges: false,
        ..Reply::default()
    });
    let shard = list(&[whole.url("/set/0.parquet")], None, &options).unwrap().remove(0);
    let error = ShardReader::open(&shard, &ReadOptions::default()).err().unwrap().to_string();
    assert!(error.contains("the whole file"), "{error}");
}

#[test]
fn damage_costs_rows_and_never_a_panic_whichever_way_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let clean = in_order(&written(folder.path(), ROWS), &ReadOptions::default()).0;
    let (mut refused, mut cut) = (0, 0);
    for at in (4..ROWS.len()).step_by(307) {
        let mut bytes = ROWS.to_vec();
        bytes[at] ^= 0x55;
        bytes[(at + 1).min(ROWS.len() - 1)] ^= 0xAA;
        let shard = written(folder.path(), &bytes);
        let Ok(mut reader) = ShardReader::open(&shard, &ReadOptions::default()) else {
            refused += 1;
            continue;
        };
        let mut groups = vec![];
        while let Ok(Some(group)) = reader.next_group() {
            groups.push(group);
        }
        let is_cut = |group: &Group| group.as_ref().is_err_and(|f| f.reason == FailReason::TruncatedSample);
        cut += usize::from(groups.iter().any(is_cut));
        if groups.len() != clean.len() {
            continue; // the footer says another number, and is believed
        }
        let index = reader.take_index();
        let backwards: Vec<usize> = (0..groups.len()).rev().collect();
        let found = fetch(&shard, &index, &backwards, &ReadOptions::default());
        assert!(found.iter().eq(groups.iter().rev()), "byte {at}");
        for first in [3, 10, 20, 29] {
            let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
            (0..first).for_each(|_| assert!(reader.skip_group().unwrap()));
            assert_eq!(reader.next_group().unwrap().as_ref(), Some(&groups[first]), "byte {at}");
        }
    }
    assert!(refused > 0 && cut > 0, "{refused} refused, {cut} cut");
}

#[test]
fn lengths_are_in_the_footer_and_files_beside_are_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let shard = written(folder.path(), ROWS);
    std::fs::write(folder.path().join("00000_stats.json"), r#"{"successes": 3}"#).unwrap();
    assert_eq!(lengths(std::slice::from_ref(&shard), &mut |_, _| {}).unwrap(), [30]);
    std::fs::write(folder.path().join("sizes.json"), r#"{"00000.parquet": 29}"#).unwrap();
    assert_eq!(lengths(&[shard], &mut |_, _| {}).unwrap(), [29]);
}

#[test]
fn a_folder_stands_for_its_tar_files_or_else_for_its_parquet_files() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), ROWS);
    let names = |pattern: &str| -> Vec<String> {
        let pattern = folder.path().join(pattern).to_str().unwrap().to_owned();
        let shards = list(&[pattern], None, &Store::default()).unwrap();
        shards.iter().map(|shard| shard.path.to_string()).collect()
    };
    for pattern in ["", "**", "*.parquet"] {
        assert_eq!(names(pattern), ["00000.parquet"], "{pattern}");
    }
    std::fs::write(folder.path().join("00000.tar"), [0; 1024]).unwrap();
    for pattern in ["", "**"] {
        assert_eq!(names(pattern), ["00000.tar"], "{pattern}");
    }
    assert_eq!(names("*.parquet"), ["00000.parquet"]);
}

#[test]
fn what_is_no_file_of_images_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let error = |bytes: &[u8]| {
        let shard = written(folder.path(), bytes);
        ShardReader::open(&shard, &ReadOptions::default()).err().unwrap().to_string()
    };
    let metadata = error(include_bytes!("../golden/metadata.parquet"));
    assert!(
        metadata.contains("url, caption, key, status") && metadata.contains("list those instead"),
        "{metadata}"
    );
    for (bytes, part) in [
        (&ROWS[..ROWS.len() - 100], "cut off"),
        (b"no Parquet", "does not begin as one"),
        (b"", "an empty file"),
    ] {
        let message = error(bytes);
        assert!(message.contains("00000.parquet") && message.contains(part), "{message}");
    }
    let shard = written(folder.path(), ROWS);
    assert_eq!(ShardReader::open(&shard, &ReadOptions::default()).unwrap().format(), ShardFormat::Parquet);
}
