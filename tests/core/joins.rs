//! Promise: a subset says which samples count, by key, uid or identity; the others are as good as not there. A
//! table of captions that `caption_key` names replaces those that it has and adds those that are missing. Both say what they
//! matched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Row, StubCaptioner, builder, clusters, epoch, eval, full, png};
use serde_json::json;
use tldr_loader::config::{Gate, OnError};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Joined, Loader, LoaderBuilder};
use tldr_loader::shard::ShardWriter;
use tldr_loader::{FailReason, SampleId};

const SHARDS: usize = 3;
const PER_SHARD: usize = 200;

fn uid(number: usize) -> String {
    // Both halves are used, and some are above 2^63.
    format!("{:016x}{:016x}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15), number)
}

/// Shards with a uid in each json; every 50th sample has no caption of its own, every 50th after it no image.
fn corpus(folder: &Path) -> String {
    for shard in 0..SHARDS {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for number in shard * PER_SHARD..(shard + 1) * PER_SHARD {
            let json = json!({ "uid": uid(number) }).to_string();
            let caption = format!("picture number {number}");
            let colour = png([(number % 256) as u8, (number / 3 % 256) as u8, 77]);
            let mut members: Vec<(&str, &[u8])> = vec![];
            if number % 50 != 1 {
                members.push(("png", &colour));
            }
            if number % 50 != 0 {
                members.push(("txt", caption.as_bytes()));
            }
            members.push(("json", json.as_bytes()));
            writer.write(&format!("{number:05}"), &members).unwrap();
        }
        writer.finish().unwrap();
    }
    support::pattern(folder, SHARDS)
}

/// Every third sample, and one that is in no shard.
fn listed() -> Vec<usize> {
    (0..SHARDS * PER_SHARD).filter(|number| number % 3 == 0).chain([999_999]).collect()
}

/// The list in every format, backwards in some.
fn lists(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let write = |name: &'static str, content: Vec<u8>| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        (name, path)
    };
    let keys: String = listed().iter().rev().map(|number| format!("{number:05}\n")).collect();
    let header = format!(
        "{{'descr': [('f0', '<u8'), ('f1', '<u8')], 'fortran_order': False, 'shape': ({},), }}\n",
        listed().len()
    );
    let mut npy =
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    for number in listed() {
        let text = uid(number);
        for half in [&text[..16], &text[16..]] {
            npy.extend(u64::from_str_radix(half, 16).unwrap().to_le_bytes());
        }
    }
    let export = listed().into_iter().map(|number| {
        let hash = SampleId::shard_hash("test", &format!("{:05}.tar", number / PER_SHARD));
        let id = SampleId::new(hash, &format!("{number:05}")).0 as i64;
        json!({"source": "test", "shard": "a", "key": "b", "id": id}).to_string() + "\n"
    });
    let uids =
        listed().into_iter().map(|number| json!({ "uid": uid(number).to_uppercase() }).to_string() + "\n");
    vec![
        write("keys.txt", keys.into_bytes()),
        write("halves.npy", npy),
        write("export.jsonl", export.collect::<String>().into_bytes()),
        write("uids.jsonl", uids.collect::<String>().into_bytes()),
    ]
}

/// Usable samples of the list.
fn usable() -> BTreeSet<String> {
    let is_usable = |number: &&usize| **number < 999_999 && **number % 50 > 1;
    listed().iter().filter(is_usable).map(|number| format!("{number:05}")).collect()
}

fn keys(loader: &Loader) -> Vec<String> {
    epoch(loader).into_iter().flatten().map(|row| row.key).collect()
}

fn matched(joined: Option<Joined>) -> (u64, u64) {
    joined.map(|joined| (joined.matched, joined.entries)).unwrap()
}

#[test]
fn those_that_are_listed_are_the_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let mut states = vec![];
    for (name, path) in lists(folder.path()) {
        let loader = eval(&urls).subset(&path).build().unwrap();
        assert_eq!(keys(&loader), usable().into_iter().collect::<Vec<_>>(), "{name}");
        let stats = loader.stats();
        assert_eq!(matched(stats.subset), (200, 201), "{name}");
        assert_eq!((stats.counts.read, stats.counts.excluded), (600, 400), "{name}");
        assert!(stats.warnings(16).is_empty(), "{:?}", stats.warnings(16));
        // Of those that are outside nothing is a fault.
        let faults =
            |remainder| listed().iter().filter(|n| **n < 999_999 && **n % 50 == remainder).count() as u64;
        let expected =
            [(FailReason::MissingImage, faults(1)), (FailReason::MissingCaption, faults(0))].into();
        assert_eq!(stats.counts.failed, expected, "{name}");
        states.push(loader.state().settings);
    }
    assert_ne!(states[0], states[1], "another way to name them is another list");
    assert_eq!(states[1], states[3], "the same uids");
}

#[test]
fn keep_ratio_is_a_share_of_those_that_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    for (name, path) in lists(folder.path()) {
        // The same uids in two formats are one list to a ledger.
        let ledger = folder.path().join(format!("ledger of {name}"));
        let stub = StubCaptioner::new();
        let encoded = stub.encoded.clone();
        let make = |stub| {
            let ledger = Ledger::open(&ledger, None).unwrap();
            builder(&urls)
                .captioner(stub, clusters())
                .keep_ratio(0.5)
                .gate(Gate::OFF)
                .lanes(1)
                .subset(&path)
                .ledger(ledger)
        };
        let loader = make(stub).build().unwrap();
        assert!((loader.num_samples() as i64 - 100).abs() <= 16, "{name}: {}", loader.num_samples());
        let first = epoch(&loader);
        let stats = loader.stats();
        assert!(stats.counts.kept.abs_diff(96) <= 12, "{name}: {:?}", stats.counts);
        assert_eq!(encoded.load(std::sync::atomic::Ordering::SeqCst), usable().len(), "{name}");
        assert!(first.iter().flatten().all(|row| usable().contains(&row.key)), "{name}");
        // What is known of the windows tells as much.
        let again = make(StubCaptioner::new()).build().unwrap();
        assert_eq!(epoch(&again), first);
        assert_eq!((again.stats().counts, again.stats().subset), (stats.counts, stats.subset), "{name}");
        assert_eq!(again.stats().encoded, 0);
    }
}

#[test]
fn ranks_share_what_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let (_, path) = lists(folder.path()).remove(1);
    let make = |rank, world_size: usize| {
        let builder = builder(&urls).subset(&path).keep_ratio(0.9).lanes(2);
        builder.rank(rank).world_size(world_size).batch_size(16 / world_size).build().unwrap()
    };
    let whole = make(0, 1);
    let mut all: Vec<Vec<Row>> = epoch(&whole);
    let mut found = 0;
    let mut halves: Vec<Vec<Row>> = vec![vec![]; all.len()];
    for rank in 0..2 {
        let loader = make(rank, 2);
        halves.iter_mut().zip(epoch(&loader)).for_each(|(all, rows)| all.extend(rows));
        found += matched(loader.stats().subset).0;
    }
    [&mut all, &mut halves].into_iter().flatten().for_each(|batch| batch.sort_by_key(|row| row.id));
    assert_eq!(halves, all);
    assert_eq!((found, matched(whole.stats().subset)), (200, (200, 201)));
}

#[test]
fn lists_that_do_not_fit_are_refused_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let list = |name: &str, keys: &[String]| {
        let path = folder.path().join(name);
        fs::write(&path, keys.join("\n")).unwrap();
        path
    };
    let strangers: Vec<String> = (0..600).map(|number| format!("x{number}")).collect();
    let error = |builder: LoaderBuilder| builder.build().err().unwrap().to_string();
    let found = error(full(&urls).subset(list("strangers.txt", &strangers)));
    assert!(
        found.contains("invalid subset=600 entries, by key") && found.contains("what the corpus calls key"),
        "{found}"
    );
    let found = error(full(&urls).subset("absent.txt"));
    assert!(found.contains("invalid subset=\"absent.txt\""), "{found}");
    let found =
        error(full(&urls).captions([("side", folder.path().join("strangers.txt"))]).caption_key("side"));
    assert!(found.contains("invalid captions="), "{found}");
    // Few that match are a word at the end, not the end.
    let mut some: Vec<String> = (2..42).map(|number| format!("{number:05}")).collect();
    some.extend(strangers);
    let loader = full(&urls).lanes(1).subset(list("some.txt", &some)).build().unwrap();
    epoch(&loader);
    let warnings = loader.stats().warnings(16).join("\n");
    assert!(
        warnings.contains("subset: of 640 entries, by key, 40 were found among 600 samples"),
        "{warnings}"
    );
}

#[test]
fn a_state_is_of_its_subset_and_captions() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let (_, path) = lists(folder.path()).remove(0);
    let state = full(&urls).subset(&path).build().unwrap().state();
    let again = full(&urls).subset(&path).build().unwrap();
    again.load_state(&state).unwrap();
    fs::write(&path, "00002\n".repeat(3) + &(10..49).map(|n| format!("{n:05}\n")).collect::<String>())
        .unwrap();
    for other in [full(&urls).subset(&path), full(&urls)] {
        let error = other.build().unwrap().load_state(&state).unwrap_err().to_string();
        assert!(error.contains("subset: this loader has"), "{error}");
    }
}

/// Keys and captions.
fn captions(loader: &Loader) -> BTreeMap<String, String> {
    epoch(loader).into_iter().flatten().map(|row| (row.key, row.caption)).collect()
}

#[test]
fn captions_replace_and_add() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    // By key for some that have a caption, some that have none, one without an image, one of no shard.
    let numbers = [2, 3, 0, 50, 51, 300, 999_999];
    let by_key = folder.path().join("side.tsv");
    let rows: String = numbers.iter().map(|n| format!("{n:05}\tother {n}\n")).collect();
    fs::write(&by_key, format!("key\tcaption\n{rows}")).unwrap();
    let by_uid = folder.path().join("side.jsonl");
    let rows: String = numbers
        .iter()
        .map(|&n| json!({"uid": uid(n), "caption": format!("other {n}")}).to_string() + "\n")
        .collect();
    fs::write(&by_uid, rows).unwrap();
    let own = captions(&eval(&urls).build().unwrap());
    for path in [by_key, by_uid] {
        let loader = eval(&urls).captions([("side", &path)]).caption_key("side").build().unwrap();
        let found = captions(&loader);
        let mut expected = own.clone();
        for n in [2, 3, 0, 50, 300] {
            expected.insert(format!("{n:05}"), format!("other {n}"));
        }
        assert_eq!(found, expected, "{path:?}");
        assert_eq!(matched(loader.stats().captions.get("side").copied()), (5, 7));
        assert_eq!(loader.stats().counts.failed.get(&FailReason::MissingCaption), Some(&9));
        // A second epoch reads kept samples by what is known of the shard.
        let stub = StubCaptioner::new();
        let reduced = builder(&urls).captioner(stub, clusters()).gate(Gate::OFF).keep_ratio(0.9);
        let reduced = reduced.captions([("side", &path)]).caption_key("side").lanes(1).build().unwrap();
        let first = epoch(&reduced);
        let of_first = reduced.stats();
        reduced.set_epoch(0);
        assert_eq!(epoch(&reduced), first);
        assert_eq!(reduced.stats().captions, of_first.captions);
        let (kept, entries) = matched(of_first.captions.get("side").copied());
        assert!((3..=5).contains(&kept) && entries == 7, "{kept}");
        assert!(first.iter().flatten().any(|row| row.caption.starts_with("other")));
    }
}

#[test]
fn a_sample_that_the_table_lacks_has_its_text_member() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let side = folder.path().join("side.tsv");
    fs::write(&side, "key\tcaption\n00000\tother\n").unwrap();
    let builder = eval(&urls).caption_key("side").captions([("side", side)]).on_error(OnError::Skip);
    let found = captions(&builder.build().unwrap());
    assert_eq!((found["00000"].as_str(), found["00002"].as_str()), ("other", "picture number 2"));
}

/// Rewrites a shard as `tar -cf x.tar .` makes it: `./` before the name of every member.
fn dotted(folder: &Path) {
    for shard in 0..SHARDS {
        let path = folder.join(format!("{shard:05}.tar"));
        let whole = fs::read(&path).unwrap();
        let mut out = tar::Builder::new(fs::File::create(&path).unwrap());
        for entry in tar::Archive::new(&whole[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = format!("./{}", entry.path().unwrap().display());
            let mut header = entry.header().clone();
            let mut content = vec![];
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            // `append_data` takes `./` away, as tar itself does not.
            let field = &mut header.as_mut_bytes()[..100];
            field.fill(0);
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            out.append(&header, &content[..]).unwrap();
        }
        out.finish().unwrap();
    }
}

#[test]
fn members_below_a_folder_of_nothing_are_joined_by_their_plain_key() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let tables = lists(folder.path());
    let side = folder.path().join("side.tsv");
    fs::write(&side, "key\tcaption\n00003\tother\n").unwrap();
    let ids = |loader: &Loader| -> BTreeMap<String, u64> {
        epoch(loader).into_iter().flatten().map(|row| (row.key, row.id)).collect()
    };
    let plain = ids(&eval(&urls).build().unwrap());
    dotted(folder.path());
    let whole = ids(&eval(&urls).build().unwrap());
    assert_eq!(
        whole.keys().cloned().collect::<Vec<_>>(),
        plain.keys().map(|k| format!("./{k}")).collect::<Vec<_>>()
    );
    for (key, id) in &whole {
        let shard: usize = key[2..].parse::<usize>().unwrap() / PER_SHARD;
        let hash = SampleId::shard_hash("test", &format!("{shard:05}.tar"));
        assert_eq!(*id, SampleId::new(hash, key).0, "identities keep the name as it is");
    }
    for (name, path) in tables.into_iter().filter(|(name, _)| *name != "export.jsonl") {
        let loader = eval(&urls).subset(&path).build().unwrap();
        let found: BTreeSet<String> = keys(&loader).into_iter().collect();
        assert_eq!(found, usable().iter().map(|key| format!("./{key}")).collect(), "{name}");
        assert_eq!(matched(loader.stats().subset), (200, 201), "{name}");
    }
    let loader = eval(&urls).captions([("side", &side)]).caption_key("side").build().unwrap();
    assert_eq!(captions(&loader)["./00003"], "other");
}

#[test]
fn a_table_that_joins_nothing_is_refused_with_an_example_of_each_side() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let write = |name: &str, content: String| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let numbers = 0..60;
    let keys = write("keys.txt", numbers.clone().map(|n| format!("shard-{n}\n")).collect());
    let side = write(
        "side.jsonl",
        numbers.clone().map(|n| json!({"uid": format!("x{n}"), "caption": "c"}).to_string() + "\n").collect(),
    );
    let export = numbers.map(|n| json!({"source": "a", "shard": "b", "id": n}).to_string() + "\n").collect();
    let export = write("export.jsonl", export);
    type Given<'a> = (&'a str, LoaderBuilder, &'a str, &'a dyn Fn(usize) -> String);
    for make in [eval as fn(&str) -> LoaderBuilder, full] {
        let cases: [Given<'_>; 3] = [
            ("invalid subset=60 entries, by key", make(&urls).subset(&keys), "key \"shard-0\"", &|n| {
                format!("{n:05}")
            }),
            (
                "invalid captions=60 entries, by uid",
                make(&urls).captions([("side", &side)]).caption_key("side"),
                "uid \"x0\"",
                &uid,
            ),
            ("invalid subset=60 entries, by id", make(&urls).subset(&export), "id \"0\"", &|_| String::new()),
        ];
        for (given, builder, theirs, ours) in cases {
            let error = builder.build().err().expect(given).to_string();
            assert!(error.starts_with(given) && error.contains("none of"), "{error}");
            // The first sample of one of the shards.
            let ours = [0, PER_SHARD, 2 * PER_SHARD].map(ours);
            assert!(error.contains(theirs) && ours.iter().any(|name| error.contains(name)), "{error}");
        }
    }
}
