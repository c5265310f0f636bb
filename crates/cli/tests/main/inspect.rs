//! Promise: `inspect` counts what is there and names what is wrong, for people and for machines.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use crate::support::wait;
use serde_json::Value;

fn inspect(arguments: &[&str]) -> Output {
    wait::output(Command::new(env!("CARGO_BIN_EXE_tldr-loader-core")).arg("inspect").args(arguments))
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(width, height).write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x, y, x * y].map(|v| (v * 37 % 251) as u8))
    });
    let mut out = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut out, 75);
    encoder.encode(&picture, width as u16, height as u16, jpeg_encoder::ColorType::Rgb).unwrap();
    out
}

/// Two shards: one plain with a directory, one in zstd with faults.
fn corpus(folder: &Path) {
    let write = |members: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            if name.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
            }
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let (small, wide, photo) = (png(10, 20), png(40, 20), jpeg(16, 48));
    let plain = write(&[
        ("d/", b""),
        ("d/a.png", &small),
        ("d/a.txt", "ö".as_bytes()),
        ("d/b.png", &wide),
        ("d/b.txt", b"twelve chars"),
    ]);
    // A header that is sound, and pixels that are cut off.
    let cut = &photo[..photo.len() - 30];
    let packed = write(&[
        ("c.jpg", &photo),
        ("c.txt", b"four"),
        ("d.jpg", cut),
        ("d.txt", b"cut"),
        ("e.txt", b"no image"),
        ("f.jpg", b"GIF89a"),
        ("f.txt", b"another format"),
    ]);
    std::fs::write(folder.join("0.tar"), plain).unwrap();
    std::fs::write(folder.join("1.tar"), zstd::encode_all(&packed[..], 1).unwrap()).unwrap();
}

#[test]
fn machines_get_everything() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let output = inspect(&[folder.path().to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["groups"], &found["samples"], &found["distinct"]), (&6.into(), &4.into(), &4.into()));
    assert_eq!(found["width"], serde_json::json!({"min": 10, "median": 16, "max": 40, "mean": 20.5}));
    assert_eq!(found["height"], serde_json::json!({"min": 20, "median": 20, "max": 48, "mean": 34.0}));
    assert_eq!(found["caption_chars"], serde_json::json!({"min": 1, "median": 3, "max": 12, "mean": 5.0}));
    assert_eq!(found["image_formats"], serde_json::json!({"jpeg": 2, "png": 2}));
    assert_eq!(found["shard_formats"], serde_json::json!({"tar": 1, "zstd": 1}));
    assert_eq!(found["failed"], serde_json::json!({"missing-image": 1, "undecodable-image": 1}));
    let shards = found["shards"].as_array().unwrap();
    assert_eq!((&shards[0]["skipped_members"], &shards[1]["skipped_members"]), (&1.into(), &0.into()));
    let failures = shards[1]["failures"].as_array().unwrap();
    assert_eq!((&failures[0]["key"], &failures[1]["key"]), (&"e".into(), &"f".into()));
    assert!(failures[1]["detail"].as_str().unwrap().contains("expected JPEG, PNG or WebP"));

    let output = inspect(&[folder.path().to_str().unwrap(), "--json", "--decode"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["failed"], serde_json::json!({"missing-image": 1, "undecodable-image": 2}));
}

#[test]
fn people_get_a_page() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let output = inspect(&[folder.path().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "2 (1 tar, 1 zstd)",
        "4 usable of 6",
        "2 jpeg, 2 png",
        "1 missing-image, 1 undecodable-image (images were not decoded: --decode)",
        "1.tar: e at byte",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

/// A shard that is cut between two samples ends like any other: only what lies beside it tells.
#[test]
fn a_shard_shorter_than_promised_is_no_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    std::fs::write(folder.path().join("sizes.json"), r#"{"0.tar": 3, "1.tar": 4}"#).unwrap();
    let output = inspect(&[folder.path().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 shard not whole"), "{text}");
    assert!(text.contains("0.tar: 2 samples, where") && text.contains("lists 3"), "{text}");
    let output = inspect(&[folder.path().to_str().unwrap(), "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["shards"][0]["listed"], &found["shards"][0]["groups"]), (&3.into(), &2.into()));
}

#[test]
fn samples_that_the_metadata_name_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = tldr_loader::shard::ShardWriter::create(folder.path().join("0.tar")).unwrap();
    for key in ["000000000", "000000002"] {
        writer.write(key, &[("png", &png(3, 3)), ("txt", b"text")]).unwrap();
    }
    writer.finish().unwrap();
    std::fs::write(
        folder.path().join("0.parquet"),
        include_bytes!("../../../../tests/golden/metadata.parquet"),
    )
    .unwrap();
    let output = inspect(&[folder.path().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let columns = "caption, error_message, key, similarity, status, tags, url, width";
    assert!(text.contains(&format!("1 parquet, 4 samples: {columns}")), "{text}");
    assert!(text.contains("2 samples of") && text.contains("the first is 000000003"), "{text}");
}

#[test]
fn what_is_no_shard_has_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, [7; 2000]).unwrap();
    let output = inspect(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("a.tar"));
}

/// One bad shard in the list does not hide what the others hold, nor the next bad one.
#[test]
fn every_shard_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    std::fs::write(folder.path().join("00.tar"), [7; 2000]).unwrap();
    std::fs::write(folder.path().join("2.tar"), "<html>no such page</html>").unwrap();
    let output = inspect(&[folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["4 (1 tar, 1 zstd)", "4 usable of 6", "2 shards that cannot be read", "00.tar", "2.tar"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(String::from_utf8(output.stderr).unwrap().contains("2 of 4"));
    let output = inspect(&[folder.path().to_str().unwrap(), "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shards = found["shards"].as_array().unwrap();
    let faulty: Vec<bool> = shards.iter().map(|shard| shard["error"].is_string()).collect();
    assert_eq!(faulty, [false, true, false, true]);
    assert!(shards[1]["error"].as_str().unwrap().contains("no tar header was found"));
}

#[test]
fn it_fails_where_nothing_usable_is() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::corpus(folder.path(), 2, 48);
    for name in ["00002.tar", "00003.tar"] {
        std::fs::write(folder.path().join(name), vec![0; 10_240]).unwrap();
    }
    let run = |arguments: &[&str]| {
        let command = env!("CARGO_BIN_EXE_tldr-loader-core");
        let output = wait::output(Command::new(command).arg("inspect").args(arguments));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (code, out, err) = run(&[&folder.path().display().to_string()]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("2 shards without a usable sample"), "{out}");
    assert!(out.contains("00002.tar: no usable sample, of 0 in it") && err.contains("2 of 4"), "{out}{err}");
    for name in ["00002.tar", "00003.tar"] {
        assert_eq!(run(&[&path(name)]).0, Some(1));
        assert_eq!(run(&[&path(name), "--json"]).0, Some(1));
    }
    assert_eq!(run(&[&path("00000.tar")]).0, Some(0));
    // What a filter excludes is no fault of the shard, but nothing is left.
    let (code, _, err) = run(&[&path("00000.tar"), "--where", "width > 3"]);
    assert!(code == Some(1) && err.contains("no usable sample"), "{err}");
}

#[test]
fn a_table_that_joins_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::corpus(folder.path(), 2, 48);
    let (shards, list) = (folder.path().display().to_string(), folder.path().join("subset.txt"));
    let with = |keys: Vec<String>| {
        std::fs::write(&list, keys.join("\n")).unwrap();
        let output = inspect(&[&shards, "--subset", &list.display().to_string()]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = with((0..48).map(|i| format!("other-{i}")).collect());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("invalid subset=48 entries, by key") && said.contains("\"other-0\""), "{said}");
    let (code, said) = with((0..48).map(|i| format!("{i:07}")).collect());
    assert_eq!((code, said.as_str()), (Some(0), ""));
}
