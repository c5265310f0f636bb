//! Promise: the Parquet file that img2dataset writes beside a shard gives its names, lengths and
//! columns; damage to it is an error that names it. The file was written by pyarrow
//! (`golden/metadata.py`).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tldr_loader::error::FailReason;
use tldr_loader::shard::{ReadOptions, Shard, ShardMetadata, ShardReader, ShardWriter, lengths};

const PARQUET: &[u8] = include_bytes!("../golden/metadata.parquet");

/// Keys of the file whose status is `success`.
const SUCCEEDED: [&str; 4] = ["000000000", "000000002", "000000003", "000000005"];

type Members<'a> = &'a [(&'a str, &'a [u8])];

/// A shard of `samples` (key, members), with the Parquet file beside it.
fn shard(folder: &Path, samples: &[(&str, Members<'_>)]) -> Shard {
    let path = folder.join("00000.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    for (key, members) in samples {
        writer.write(key, members).unwrap();
    }
    writer.finish().unwrap();
    std::fs::write(folder.join("00000.parquet"), PARQUET).unwrap();
    Shard::local(path.to_str().unwrap(), "corpus")
}

/// Key and caption, or reason, of each sample.
fn captions(shard: &Shard, key: Option<&str>) -> Vec<(String, Result<String, FailReason>)> {
    let mut reader = ShardReader::open(
        shard,
        &ReadOptions { caption_key: key.map(str::to_owned), ..ReadOptions::default() },
    )
    .unwrap();
    let mut captions = vec![];
    while let Some(group) = reader.next_group().unwrap() {
        captions.push(match group {
            Ok(sample) => (sample.key.to_string(), Ok(sample.caption)),
            Err(failed) => (failed.key.to_string(), Err(failed.reason)),
        });
    }
    captions
}

#[test]
fn columns_come_by_key_as_pyarrow_wrote_them() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[("000000000", &[("jpg", b"x")])]);
    let metadata = ShardMetadata::beside(&shard, &["caption", "width", "similarity", "tags", "nsfw"]);
    let metadata = metadata.unwrap().unwrap();
    let columns = ["url", "caption", "key", "status", "error_message", "width", "similarity", "tags"];
    assert_eq!(metadata.columns(), columns);
    assert_eq!(metadata.keys().collect::<BTreeSet<_>>(), BTreeSet::from(SUCCEEDED));
    let value = |key, column| metadata.value(key, column).cloned();
    assert_eq!(value("000000000", "caption"), Some("a red kite".into()));
    assert_eq!(value("000000002", "caption"), Some("snow\non a ridge".into()));
    assert_eq!(value("000000003", "caption"), Some(Value::Null));
    assert_eq!(value("000000005", "width"), Some(json!(100)));
    assert_eq!(value("000000002", "similarity"), Some(json!(0.28)));
    assert_eq!(value("000000002", "tags"), Some(json!(["snow", "rock"])));
    assert_eq!(value("000000003", "tags"), Some(Value::Null));
    assert_eq!(value("000000000", "nsfw"), None, "no such column");
    assert_eq!(value("000000000", "url"), None, "not asked for");
    assert_eq!(value("000000001", "caption"), None, "its download failed");
}

#[test]
fn lengths_are_those_that_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[("000000000", &[("jpg", b"x")])]);
    let count = |shard: &Shard| lengths(std::slice::from_ref(shard), &mut |_, _| {}).unwrap();
    assert_eq!(count(&shard), [SUCCEEDED.len() as u64]);
    // img2dataset's own count is believed first.
    std::fs::write(folder.path().join("00000_stats.json"), r#"{"successes": 3}"#).unwrap();
    assert_eq!(count(&shard), [3]);
    // Without it, a damaged file is skipped: the shard has one sample.
    std::fs::remove_file(folder.path().join("00000_stats.json")).unwrap();
    std::fs::write(folder.path().join("00000.parquet"), &PARQUET[..PARQUET.len() / 2]).unwrap();
    assert_eq!(count(&shard), [1]);
}

#[test]
fn every_codec_that_is_promised_is_decompressed() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[("000000000", &[("jpg", b"x")])]);
    let columns = ["caption", "width", "similarity"];
    let snappy = ShardMetadata::beside(&shard, &columns).unwrap().unwrap();
    for other in [
        &include_bytes!("../golden/metadata.gzip.parquet")[..],
        include_bytes!("../golden/metadata.zstd.parquet"),
    ] {
        std::fs::write(folder.path().join("00000.parquet"), other).unwrap();
        assert_eq!(ShardMetadata::beside(&shard, &columns).unwrap().unwrap(), snappy);
    }
}

#[test]
fn captions_are_taken_from_the_json_then_the_column_then_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(
        folder.path(),
        &[
            ("000000000", &[("jpg", b"x"), ("json", br#"{"caption": "its own"}"#), ("txt", b"text")]),
            ("000000002", &[("jpg", b"x"), ("json", br#"{"caption": null}"#), ("txt", b"text")]),
            ("000000003", &[("jpg", b"x"), ("txt", b"text")]),
            ("000000005", &[("jpg", b"x"), ("txt", b"text")]),
            ("other", &[("jpg", b"x")]),
        ],
    );
    let found = captions(&shard, Some("caption"));
    let expected = [
        ("000000000", Ok("its own")),
        ("000000002", Ok("snow\non a ridge")),
        ("000000003", Ok("text")),
        ("000000005", Err(FailReason::EmptyCaption)),
        ("other", Err(FailReason::MissingCaption)),
    ];
    assert_eq!(found, expected.map(|(key, caption)| (key.to_owned(), caption.map(str::to_owned))));
    assert_eq!(captions(&shard, Some("width"))[0].1, Err(FailReason::BadJson), "a number is no caption");
    assert_eq!(captions(&shard, None)[0].1, Ok("text".to_owned()), "nobody asked for the column");
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let shard = shard(folder.path(), &[("000000000", &[("jpg", b"x")])]);
    let path = folder.path().join("00000.parquet");
    let whole = ShardMetadata::beside(&shard, &["caption"]).unwrap().unwrap();
    for cut in (0..PARQUET.len()).step_by(7) {
        std::fs::write(&path, &PARQUET[..cut]).unwrap();
        let error = ShardMetadata::beside(&shard, &["caption"]).unwrap_err();
        assert!(error.to_string().contains("00000.parquet"), "cut at {cut}: {error}");
    }
    for at in (0..PARQUET.len()).step_by(3) {
        let mut damaged = PARQUET.to_vec();
        damaged[at] ^= 0xa5;
        std::fs::write(&path, &damaged).unwrap();
        // Much of the file is statistics, which are not read; there is no checksum.
        match ShardMetadata::beside(&shard, &["caption"]) {
            Ok(Some(metadata)) => assert!(metadata.len() <= 6, "byte {at}"),
            Ok(None) => {}
            Err(error) => assert!(error.to_string().contains("00000.parquet"), "byte {at}: {error}"),
        }
    }
    std::fs::write(&path, PARQUET).unwrap();
    assert_eq!(ShardMetadata::beside(&shard, &["caption"]).unwrap().unwrap(), whole);
}
