//! Promise: lists mean what users write, identities survive a move, and lengths are true.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use tldr_loader::shard::{ReadOptions, ShardReader, ShardWriter, Store, lengths, list};
use tldr_loader::{Result, SampleId, Shard};

fn list_local(patterns: &[String], source: Option<&str>) -> Result<Vec<Shard>> {
    list(patterns, source, &Store::default())
}

fn touch(path: impl AsRef<Path>) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, b"").unwrap();
}

/// A folder `cc3m` of shards and other files, and a second folder.
fn corpus() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let names = ["00002.tar", "00000.tar", "00001.tar", "00003.tar.gz", "00004.tgz", "00005.tar.zst"];
    for name in names.into_iter().chain(["sizes.json", "00000.parquet", ".00009.tar"]) {
        touch(root.path().join("cc3m").join(name));
    }
    touch(root.path().join("sbu/a.tar"));
    touch(root.path().join("sbu/[x]{1..2}.tar"));
    for name in [
        "a b/x.tar",
        "a b/y.tar",
        "c d/{x,y}.tar",
        "a%20b/x.tar",
        "x [v1]/0.tar",
        "x [v1]/1.tar",
        "x v/2.tar",
    ] {
        touch(root.path().join(name));
    }
    for name in ["one/a.tar", "one/two/b.tar", "one/two/b.tgz", "one/two/b.json", "c.tar", ".hidden/d.tar"] {
        touch(root.path().join("deep").join(name));
    }
    root
}

fn names(root: &Path, pattern: &str) -> String {
    let pattern = pattern.replace("ROOT", root.to_str().unwrap());
    let shards = list_local(&[pattern], None).unwrap();
    shards.iter().map(|s| format!("{}/{}", s.source, s.path)).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_way_to_write_a_list() {
    let root = corpus();
    let root = root.path();
    for (pattern, expected) in [
        ("ROOT/cc3m/{00000..00002}.tar", "cc3m/00000.tar cc3m/00001.tar cc3m/00002.tar"),
        ("ROOT/cc3m/{00002..00001}.tar", "cc3m/00002.tar cc3m/00001.tar"),
        ("ROOT/{sbu/a,cc3m/00001}.tar", "sbu/a.tar cc3m/00001.tar"),
        ("ROOT/sbu/a.tar::ROOT/cc3m/0000{3.tar.gz,4.tgz}", "sbu/a.tar cc3m/00003.tar.gz cc3m/00004.tgz"),
        ("ROOT/cc3m/*[0-1].tar", "cc3m/00000.tar cc3m/00001.tar"),
        ("ROOT/*/a.tar", "sbu/a.tar"),
        ("ROOT/sb?/../cc3m/00000.t*", "cc3m/00000.tar"),
        (
            "ROOT/cc3m",
            "cc3m/00000.tar cc3m/00001.tar cc3m/00002.tar cc3m/00003.tar.gz cc3m/00004.tgz cc3m/00005.tar.zst",
        ),
        ("file:ROOT/sbu/a.tar", "sbu/a.tar"),
        ("file://ROOT/sbu/a.tar::file://localhostROOT/cc3m/00000.tar", "sbu/a.tar cc3m/00000.tar"),
        ("ROOT/sbu/[x]{1..2}.tar", "sbu/[x]{1..2}.tar"),
        // Escapes of a file: URL, as of an https: one; a path is not a URL.
        ("file://ROOT/a%20b/x.tar", "a b/x.tar"),
        ("file:ROOT/c%20d/%7Bx,y%7D.tar", "c d/{x,y}.tar"),
        ("file://ROOT/a%20b/{x,y}.tar", "a b/x.tar a b/y.tar"),
        ("ROOT/a%20b/x.tar", "a%20b/x.tar"),
        // A folder that exists as it is written is no pattern, wherever it stands.
        ("ROOT/x [v1]/*.tar", "x [v1]/0.tar x [v1]/1.tar"),
        ("ROOT/x [v1]/[0-9].tar", "x [v1]/0.tar x [v1]/1.tar"),
        ("ROOT/x [v1]/{0..1}.tar", "x [v1]/0.tar x [v1]/1.tar"),
        ("ROOT/x [v1]", "x [v1]/0.tar x [v1]/1.tar"),
        ("ROOT/? ?v1]/0.tar", "x [v1]/0.tar"),
        // Folders of any depth, none too.
        ("ROOT/deep/**/*.tar", "deep/c.tar one/a.tar two/b.tar"),
        ("ROOT/deep/**", "deep/c.tar one/a.tar two/b.tar two/b.tgz"),
        ("ROOT/**/two/**/b.tar", "two/b.tar"),
        ("ROOT/deep/**/[!.]*/b.tar", "two/b.tar"),
    ] {
        assert_eq!(names(root, pattern), expected, "{pattern}");
    }
}

#[test]
fn identity_is_of_folder_and_file_and_survives_a_move() {
    let root = corpus();
    let before = list_local(&[root.path().join("cc3m").to_str().unwrap().into()], None).unwrap();
    assert_eq!(before[1].hash, SampleId::shard_hash("cc3m", "00001.tar"));
    std::fs::create_dir(root.path().join("elsewhere")).unwrap();
    std::fs::rename(root.path().join("cc3m"), root.path().join("elsewhere/cc3m")).unwrap();
    let after = list_local(&[root.path().join("elsewhere/./cc3m/").to_str().unwrap().into()], None).unwrap();
    let hashes = |shards: &[Shard]| shards.iter().map(|s| s.hash).collect::<Vec<_>>();
    assert_eq!(hashes(&before), hashes(&after));
    let named =
        list_local(&[root.path().join("elsewhere/cc3m").to_str().unwrap().into()], Some("x")).unwrap();
    assert_eq!(named[0].hash, SampleId::shard_hash("x", "00000.tar"));
}

#[test]
fn what_cannot_be_listed_names_the_pattern_and_what_is_accepted() {
    let root = corpus();
    touch(root.path().join("copy/cc3m/00000.tar"));
    std::fs::create_dir(root.path().join("empty")).unwrap();
    for (pattern, expected) in [
        ("ROOT/cc3m/9.tar", "there is no file ROOT/cc3m/9.tar"),
        ("ROOT/cc3m/{00001..00004}.tar", "2 of 4 files are missing, the first is ROOT/cc3m/00003.tar"),
        ("ROOT/cc3m/9*.tar", "there is no file ROOT/cc3m/9*.tar"),
        ("ROOT/empty", "the folder ROOT/empty holds no .tar"),
        ("", "an empty path"),
        ("ROOT/sbu/a.tar::", "an empty path"),
        ("pipe:cat ROOT/sbu/a.tar", "commands are not run"),
        ("ROOT/sbu/a.tar ROOT/cc3m/00000.tar", "give them as a list, join them by :: (a.tar::b.tar)"),
        ("ROOT/sbu ROOT/cc3m", "give them as a list, join them by ::"),
        ("ROOT/{sbu/a,cc3m/00000}.tar ROOT/cc3m/{00001..00002}.tar", "join them by ::"),
        ("ROOT/my set/9.tar", "there is no file ROOT/my set/9.tar; accepted are local paths"),
        ("file://ROOT/%ff.tar", "expected a URL that names a file in UTF-8, found file://ROOT/%ff.tar"),
        ("ROOT/deep/**/9.tar", "there is no file ROOT/deep/**/9.tar"),
        ("ROOT/cc3m/{0..9999999}.tar", "1000000 paths at most"),
        ("ROOT/cc3m/00000.tar::ROOT/sbu/../cc3m/00000.tar", "listed twice"),
        (
            "ROOT/cc3m/00000.tar::ROOT/copy/cc3m/00000.tar",
            "read them as two sources, each with a name= of its own",
        ),
    ] {
        let fill = |text: &str| text.replace("ROOT", root.path().to_str().unwrap());
        let error = list_local(&[fill(pattern)], None).unwrap_err().to_string();
        assert!(error.starts_with("invalid urls=\""), "{error}");
        assert!(error.contains(&fill(expected)), "{pattern}: {error}");
    }
    assert!(list_local(&[], None).unwrap_err().to_string().contains("at least one shard"));
    assert!(list_local(&["{a,".repeat(100_000)], None).unwrap_err().to_string().contains("64 braces"));
}

#[test]
fn urls_joined_by_a_blank_are_several() {
    for both in
        ["s3://b/0.tar s3://b/1.tar", "https://h/0.tar\nhttps://h/1.tar", "s3://b/{0..9}.tar  s3://c/"]
    {
        let error = list_local(&[both.into()], None).unwrap_err().to_string();
        assert!(error.contains("give them as a list, join them by ::"), "{error}");
    }
    // A blank is a part of a key.
    assert_eq!(list_local(&["s3://b/my set/0.tar".into()], None).unwrap()[0].source.as_ref(), "my set");
}

#[test]
fn an_endpoint_that_no_shard_needs_is_refused() {
    let root = corpus();
    let stores = Store { endpoint: Some("http://localhost:9".into()), ..Store::default() };
    let local = root.path().join("sbu/a.tar").display().to_string();
    let error = list(std::slice::from_ref(&local), None, &stores).unwrap_err().to_string();
    assert!(
        error.starts_with("invalid endpoint=http://localhost:9: it has no effect without s3:// shards"),
        "{error}"
    );
    assert!(list(&["https://h/0.tar".into()], None, &stores).is_err());
    assert_eq!(list(&[local, "s3://b/0.tar".into()], None, &stores).unwrap().len(), 2);
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_up_end() {
    let root = corpus();
    std::os::unix::fs::symlink(root.path(), root.path().join("deep/one/up")).unwrap();
    std::os::unix::fs::symlink(root.path().join("sbu"), root.path().join("deep/linked")).unwrap();
    assert_eq!(names(root.path(), "ROOT/deep/**/a.tar"), "linked/a.tar one/a.tar");
}

#[test]
fn lengths_come_from_sizes_json_or_a_scan() {
    let root = tempfile::tempdir().unwrap();
    for (name, groups) in [("0.tar", 3), ("1.tar.zst", 4), ("2.tar.gz", 0), ("3.tar", 5)] {
        let mut writer = ShardWriter::create(root.path().join(name)).unwrap();
        for key in 0..groups {
            writer.write(&key.to_string(), &[("jpg", &[0; 9000]), ("txt", b"x")]).unwrap();
        }
        writer.finish().unwrap();
    }
    let shards = list_local(&[root.path().to_str().unwrap().into()], None).unwrap();
    let mut calls = Vec::new();
    assert_eq!(lengths(&shards, &mut |done, of| calls.push((done, of))).unwrap(), [3, 4, 0, 5]);
    assert_eq!(calls, [(1, 4), (2, 4), (3, 4), (4, 4)]);

    std::fs::write(root.path().join("sizes.json"), r#"{"0.tar": 30, "3.tar": 50}"#).unwrap();
    calls.clear();
    assert_eq!(lengths(&shards, &mut |done, of| calls.push((done, of))).unwrap(), [30, 4, 0, 50]);
    assert_eq!(calls, [(1, 2), (2, 2)]);

    std::fs::write(root.path().join("sizes.json"), r#"{"0.tar": -1}"#).unwrap();
    let error = lengths(&shards, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("sizes.json: expected a map"), "{error}");
}

#[test]
fn lengths_come_from_what_img2dataset_and_webdataset_write() {
    let root = tempfile::tempdir().unwrap();
    for set in ["one", "two"] {
        for name in if set == "one" { &["00000.tar"][..] } else { &["00000.tar", "00001.tar"][..] } {
            std::fs::create_dir_all(root.path().join(set)).unwrap();
            let mut writer = ShardWriter::create(root.path().join(set).join(name)).unwrap();
            writer.write("0", &[("jpg", b"0"), ("txt", b"x")]).unwrap();
            writer.finish().unwrap();
        }
        std::fs::write(root.path().join(set).join("__len__"), "12\n").unwrap();
    }
    let folder = |set: &str| root.path().join(set).to_str().unwrap().to_owned();
    let measure = |pattern: String| lengths(&list_local(&[pattern], None).unwrap(), &mut |_, _| {});
    assert_eq!(measure(folder("one")).unwrap(), [12]);
    // A total says nothing of one shard among several, listed or not.
    assert_eq!(measure(folder("two")).unwrap(), [1, 1]);
    assert_eq!(measure(folder("two") + "/00001.tar").unwrap(), [1]);
    let stats = r#"{"count": 20, "successes": 17, "failed_to_download": 3}"#;
    std::fs::write(root.path().join("two/00001_stats.json"), stats).unwrap();
    assert_eq!(measure(folder("two")).unwrap(), [1, 17]);
    std::fs::write(root.path().join("two/sizes.json"), r#"{"00001.tar": 18}"#).unwrap();
    assert_eq!(measure(folder("two")).unwrap(), [1, 18]);
    // A by-product that is damaged is not believed, and not needed: the shard itself is counted.
    for damaged in ["", "{", "[3]"] {
        std::fs::write(root.path().join("two/00000_stats.json"), damaged).unwrap();
        assert_eq!(measure(folder("two")).unwrap(), [1, 18], "{damaged:?}");
    }
    for (file, text) in
        [("two/sizes.json", r#"{"00001.tar": 0}"#), ("one/__len__", "many"), ("one/__len__", "0")]
    {
        let before = std::fs::read(root.path().join(file)).ok();
        std::fs::write(root.path().join(file), text).unwrap();
        let error = measure(folder(&file[..3])).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
        match before {
            Some(before) => std::fs::write(root.path().join(file), before).unwrap(),
            None => std::fs::remove_file(root.path().join(file)).unwrap(),
        }
    }
}

#[test]
fn files_list_shards_by_line() {
    let root = corpus();
    let list = root.path().join("{a}*.list");
    std::fs::write(&list, "\u{feff}# comment\n\n cc3m/{00001..00000}.tar \r\nsbu/*.tar::cc3m/00003.tar.gz\n")
        .unwrap();
    let expected = "cc3m/00001.tar cc3m/00000.tar sbu/[x]{1..2}.tar sbu/a.tar cc3m/00003.tar.gz";
    assert_eq!(names(root.path(), "ROOT/{a}*.list"), expected);
    assert_eq!(names(root.path(), "@ROOT/{a}*.list"), expected);
    for (text, expected) in [
        ("\n#\n", "names no shard"),
        ("cc3m/00000.tar\n\ncc3m/9.tar", "cc3m/9.tar\" (line 3 of "),
        ("other.txt", "lists in lists are not read"),
        ("pipe:cat x", "commands are not run"),
    ] {
        std::fs::write(&list, text).unwrap();
        let error = list_local(&[list.to_str().unwrap().into()], None).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn real_shards_have_the_lengths_that_their_sizes_json_states() {
    let data = std::env::var_os("TLDR_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")), PathBuf::from);
    if !data.is_dir() {
        println!("skipped: no real shards in {} (set TLDR_DATA)", data.display());
        return;
    }
    for set in ["emoji-train", "emoji-test", "fsac", "openstax"] {
        let shards = list_local(&[data.join(set).to_str().unwrap().into()], None).unwrap();
        let stated = lengths(&shards, &mut |_, _| panic!("sizes.json names every shard")).unwrap();
        for (shard, stated) in shards.iter().zip(stated) {
            let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
            while reader.skip_group().unwrap() {}
            assert_eq!(reader.position(), stated, "scan of {}", shard.url);
            let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
            let mut usable = 0;
            while let Some(group) = reader.next_group().unwrap() {
                usable += u64::from(group.is_ok());
            }
            assert_eq!((reader.position(), usable), (stated, stated), "{}", shard.url);
        }
    }
}
