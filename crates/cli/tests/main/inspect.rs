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
    let file = folder.path().join("sizes.json").display().to_string();
    assert!(text.contains(&format!("0.tar: 2 samples, where {file} lists 3")), "{text}");
    assert!(text.contains(&format!("lengths   2 by sizes.json ({file})")), "{text}");
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

/// A shard of these members.
fn shard(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    std::fs::write(path, builder.into_inner().unwrap()).unwrap();
}

fn page(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn strict_fails_at_any_fault_and_at_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let image = png(4, 4);
    let good: Vec<(&str, &[u8])> = vec![
        ("a.png", &image),
        ("a.txt", b"x"),
        ("b.png", &image),
        ("b.txt", b"y"),
        ("b.json", b"{\"w\": 1}"),
    ];
    let at = |name: &str| folder.path().join(name);
    let run = |path: &Path, more: &[&str]| {
        let output = inspect(&[&[path.to_str().unwrap()], more].concat());
        (output.status.code(), page(&output))
    };
    shard(&at("good.tar"), &good);
    assert_eq!(run(&at("good.tar"), &["--strict"]).0, Some(0));
    // What a filter excludes is no fault.
    let (code, said) = run(&at("good.tar"), &["--strict", "--where", "w = 1"]);
    assert!(code == Some(0) && said.contains("excluded  1") && said.contains("faults    none"), "{said}");
    shard(&at("faulty.tar"), &[&good[..], &[("c.txt", b"z")]].concat());
    let mut tail = std::fs::read(at("good.tar")).unwrap();
    tail.extend_from_slice(b"rubbish behind the end marker");
    std::fs::write(at("tail.tar"), tail).unwrap();
    for (name, fault) in [("faulty.tar", "1 missing-image"), ("tail.tar", "1 shard not whole")] {
        assert_eq!(run(&at(name), &[]).0, Some(0), "{name}");
        let (code, said) = run(&at(name), &["--strict"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("expected no fault at all, found {fault}")), "{said}");
    }
}

#[test]
fn checksums_are_compared_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = png(4, 4);
    let path = folder.path().join("0.tar");
    // By `sha256sum`.
    let own = sha256sum(&image);
    let json = |sum: &str| format!("{{\"sha256\": {sum}}}").into_bytes();
    let (same, upper) = (json(&format!("\"{own}\"")), json(&format!("\"{}\"", own.to_uppercase())));
    let (other, null) = (json(&format!("\"{}\"", sha256sum(b"x"))), json("null"));
    let texts: [(&str, &[u8]); 4] = [("a", &same), ("b", &upper), ("c", &other), ("d", &null)];
    let names: Vec<[String; 3]> =
        texts.iter().map(|(key, _)| ["png", "txt", "json"].map(|end| format!("{key}.{end}"))).collect();
    let members: Vec<(&str, &[u8])> = names
        .iter()
        .zip(texts)
        .flat_map(|([png, txt, json], (_, text))| [(&**png, &image[..]), (txt, b"x"), (json, text)])
        .collect();
    shard(&path, &members);
    let run = |more: &[&str]| inspect(&[&[path.to_str().unwrap()], more].concat());
    let output = run(&["--checksums"]);
    let text = page(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("sha256    2 equal, 1 different, 1 without one"), "{text}");
    assert!(
        text.contains("0.tar: another sha256: c") && text.contains("1 image with another checksum"),
        "{text}"
    );
    assert!(text.contains("img2dataset has it of the file as downloaded"), "{text}");
    assert_eq!(run(&["--checksums", "--strict"]).status.code(), Some(1));
    assert_eq!(run(&["--strict"]).status.code(), Some(0), "nobody asked");
    let found: Value = serde_json::from_slice(&run(&["--checksums", "--json"]).stdout).unwrap();
    assert_eq!(found["checksums"], serde_json::json!({"same": 2, "different": 1, "absent": 1}));
    assert_eq!(found["shards"][0]["different"], serde_json::json!(["c"]));
}

fn sha256sum(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), bytes).unwrap();
    let output = wait::output(Command::new("sha256sum").arg(folder.path().join("file")));
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Odd shards are explained by what is printed alone.
#[test]
fn dots_and_members_apart_are_named_as_causes() {
    let folder = tempfile::tempdir().unwrap();
    let image = png(4, 4);
    let path = folder.path().join("0.tar");
    shard(
        &path,
        &[
            ("a.png", &image),
            ("b.png", &image),
            ("a.txt", b"x"),
            ("b.txt", b"y"),
            ("v1.2.png", &image),
            ("v1.2.txt", b"z"),
        ],
    );
    let text = page(&inspect(&[path.to_str().unwrap()]));
    for part in [
        "2 missing-caption, 2 members-apart",
        "others with its key come later in the shard: they are not adjacent",
        "sort the tar by name (tar --sort=name)",
        "v1.2.png is no image, since keys end at the first dot",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.contains("lengths   1 by counting"), "{text}");
    // Nothing could be read: no empty brackets, no empty tail.
    std::fs::write(&path, "<html>").unwrap();
    let text = page(&inspect(&[path.to_str().unwrap()]));
    assert!(text.contains("shards    1, 0.0 MB") && !text.contains("()"), "{text}");
}
