//! Promise: of several captions of a sample the first counts, all do, or one is drawn for each sample and epoch: the same
//! for any threads, ranks, resume point, ledger or none. Signals are those of the first.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::{
    Altered, Row, StubCaptioner, builder, clusters, epoch, full, pattern, png, rows, with_stub,
};
use tldr_loader::FailReason;
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{LoaderBuilder, LoaderState};
use tldr_loader::model::Scorer;
use tldr_loader::shard::{CaptionChoice, ReadOptions, Shard, ShardReader, ShardWriter};

/// Where the captions of a corpus are.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Json,
    Members,
    Table,
}

const ALL: [In; 3] = [In::Json, In::Members, In::Table];

const SHARDS: usize = 4;
const SAMPLES: usize = 130;

/// The captions of a sample: one to four.
fn captions_of(number: usize) -> Vec<String> {
    (0..=number % 4).map(|i| format!("caption {i} of {number}")).collect()
}

/// Writes a corpus and says how it is read.
fn corpus(folder: &Path, place: In) -> impl Fn(LoaderBuilder) -> LoaderBuilder {
    let (mut rng, mut table) = (Rng::new(3, Purpose::Synth, 0), String::new());
    for shard in 0..SHARDS {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for number in shard * SAMPLES..(shard + 1) * SAMPLES {
            let (captions, key) = (captions_of(number), format!("{number:07}"));
            let png = png([0, 1, 2].map(|_| rng.below(256) as u8));
            let json = serde_json::json!({"texts": captions}).to_string();
            let names: Vec<String> = (0..captions.len()).map(|i| format!("{i}.txt")).collect();
            let mut members: Vec<(&str, &[u8])> = vec![("png", &png)];
            match place {
                In::Json => members.push(("json", json.as_bytes())),
                // Not in their order.
                In::Members => members
                    .extend(names.iter().zip(&captions).rev().map(|(name, text)| (&**name, text.as_bytes()))),
                In::Table => members.push(("txt", b"its own")),
            }
            writer.write(&key, &members).unwrap();
            table += &(serde_json::json!({"key": key, "caption": captions}).to_string() + "\n");
        }
        writer.finish().unwrap();
    }
    let path = folder.join("captions.jsonl");
    std::fs::write(&path, table).unwrap();
    move |builder| match place {
        In::Json => builder.caption_key("texts"),
        In::Members => builder,
        In::Table => builder.captions([("table", &path)]).caption_key("table"),
    }
}

fn number(row: &Row) -> usize {
    row.key.parse().unwrap()
}

fn drawn(row: &Row, epoch: u64) -> String {
    let mut captions = captions_of(number(row));
    let at = Rng::new(0, Purpose::Caption, hash::combine(&[epoch, row.id])).below(captions.len());
    captions.swap_remove(at)
}

#[test]
fn one_is_drawn_for_each_sample_and_epoch() {
    for place in ALL {
        let folder = tempfile::tempdir().unwrap();
        let read = corpus(folder.path(), place);
        let urls = pattern(folder.path(), SHARDS);
        let make = || read(full(&urls)).caption_choice(CaptionChoice::Random).build().unwrap();
        let loader = make();
        let mut seen = BTreeMap::<usize, BTreeSet<String>>::new();
        for number_of_epoch in 0..12 {
            for row in epoch(&loader).iter().flatten() {
                assert_eq!(row.caption, drawn(row, number_of_epoch));
                seen.entry(number(row)).or_default().insert(row.caption.clone());
            }
        }
        // A lane's remainder fills no batch.
        assert!(seen.len() > 500, "{}", seen.len());
        // In 12 epochs a caption of four is missed with probability (3/4)^12 = 3.2%, of three with 0.8%, of two with
        // 0.02%: over 130 samples of each 16.5 + 3 + 0.1 = 19.6 are expected, with a deviation below 4.5.
        let missed = seen.iter().map(|(&n, own)| captions_of(n).len() - own.len()).sum::<usize>();
        assert!(missed < 43, "{missed}");
    }
}

#[test]
fn draws_depend_on_nothing_else() {
    for place in ALL {
        let folder = tempfile::tempdir().unwrap();
        let read = corpus(folder.path(), place);
        let urls = pattern(folder.path(), SHARDS);
        let make =
            || read(with_stub(&urls)).caption_choice(CaptionChoice::Random).fuse("original".parse().unwrap());
        let first = make().lanes(4).build().unwrap();
        let expected = [epoch(&first), epoch(&first)];
        // With the ledger in its second epoch; now threads, another ledger, and ranks.
        for (index, expected) in expected.iter().enumerate() {
            assert!(expected.iter().flatten().any(|row| row.caption != captions_of(number(row))[0]));
            assert!(expected.iter().flatten().all(|row| row.caption == drawn(row, index as u64)));
            let fresh = make().lanes(4).threads(1).ledger(Ledger::new()).build().unwrap();
            fresh.set_epoch(index as u64);
            assert_eq!(epoch(&fresh), *expected, "without a ledger");
            let mut ranks: Vec<Row> = (0..2)
                .flat_map(|rank| {
                    let loader = make().lanes(4).rank(rank).world_size(2).batch_size(8).build().unwrap();
                    loader.set_epoch(index as u64);
                    epoch(&loader).into_iter().flatten()
                })
                .collect();
            let mut all: Vec<Row> = expected.iter().flatten().cloned().collect();
            ranks.sort_by_key(|row| row.id);
            all.sort_by_key(|row| row.id);
            assert_eq!(ranks, all, "on two ranks");
            let begun = make().lanes(4).build().unwrap();
            begun.set_epoch(index as u64);
            begun.iter().unwrap().take(3).for_each(|batch| drop(rows(&batch.unwrap())));
            let state: LoaderState =
                serde_json::from_str(&serde_json::to_string(&begun.state()).unwrap()).unwrap();
            let resumed = make().lanes(4).build().unwrap();
            resumed.load_state(&state).unwrap();
            assert_eq!(epoch(&resumed), expected[3..], "resumed");
        }
        // Another choice is another run.
        let other = read(with_stub(&urls)).fuse("original".parse().unwrap()).lanes(4).build().unwrap();
        let error = other.load_state(&first.state()).unwrap_err().to_string();
        assert!(error.contains("caption_choice: this loader has none, the state random"), "{error}");
    }
}

#[test]
fn a_scorer_sees_the_first_whatever_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let read = corpus(folder.path(), In::Json);
    let urls = pattern(folder.path(), SHARDS);
    let firsts: BTreeSet<String> = (0..SHARDS * SAMPLES).map(|n| captions_of(n)[0].clone()).collect();
    let kept = |choice: Option<CaptionChoice>, number_of_epoch: u64| {
        let firsts = firsts.clone();
        let scorer = Altered::new(StubCaptioner::new()).encode(move |stub, previews, captions| {
            assert!(captions.iter().all(|caption| caption.is_empty() || firsts.contains(*caption)));
            stub.signals(previews, captions)
        });
        let mut make = read(builder(&urls)).captioner(scorer, clusters()).rotate(false);
        if let Some(choice) = choice {
            make = make.caption_choice(choice);
        }
        let loader = make.build().unwrap();
        loader.set_epoch(number_of_epoch);
        let rows: Vec<Row> = epoch(&loader).into_iter().flatten().collect();
        (rows.iter().map(|row| row.id).collect::<BTreeSet<u64>>(), rows)
    };
    let (expected, rows) = kept(None, 0);
    assert!(expected.len() > 60 && rows.iter().all(|row| row.caption == captions_of(number(row))[0]));
    assert_eq!(kept(Some(CaptionChoice::First), 0), (expected, rows));
    for number_of_epoch in [0, 1, 5] {
        let (ids, rows) = kept(Some(CaptionChoice::Random), number_of_epoch);
        let (expected, _) = kept(None, number_of_epoch);
        assert_eq!(ids, expected, "signals are those of the first in every epoch");
        assert!(rows.iter().any(|row| row.caption != captions_of(number(row))[0]));
    }
}

#[test]
fn all_are_one_text_for_scorers_too() {
    for place in ALL {
        let folder = tempfile::tempdir().unwrap();
        let read = corpus(folder.path(), place);
        let urls = pattern(folder.path(), SHARDS);
        let joined: BTreeSet<String> = (0..SHARDS * SAMPLES).map(|n| captions_of(n).join("; ")).collect();
        let known = joined.clone();
        let scorer = Altered::new(StubCaptioner::new()).encode(move |stub, previews, captions| {
            assert!(captions.iter().all(|caption| caption.is_empty() || known.contains(*caption)));
            stub.signals(previews, captions)
        });
        let make = read(builder(&urls)).captioner(scorer, clusters()).caption_choice(CaptionChoice::All);
        let rows = epoch(&make.build().unwrap());
        assert!(rows.len() > 5);
        rows.iter().flatten().for_each(|row| assert_eq!(row.caption, captions_of(number(row)).join("; ")));
    }
}

/// Caption and captions, or reason and detail, of the one sample that these members make.
fn sample(
    members: &[(&str, &str)],
    key: Option<&str>,
    choice: Option<CaptionChoice>,
) -> Result<(String, Vec<String>), (FailReason, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    let members: Vec<(&str, &[u8])> =
        [("jpg", &b"i"[..])].into_iter().chain(members.iter().map(|(e, d)| (*e, d.as_bytes()))).collect();
    writer.write("a", &members).unwrap();
    writer.finish().unwrap();
    let read =
        ReadOptions { caption_key: key.map(str::to_owned), caption_choice: choice, ..ReadOptions::default() };
    let mut reader = ShardReader::open(&Shard::local(path.to_str().unwrap(), "c"), &read).unwrap();
    match reader.next_group().unwrap().unwrap() {
        Ok(sample) => Ok((sample.caption, sample.captions)),
        Err(failed) => Err((failed.reason, failed.detail)),
    }
}

#[test]
fn members_with_numbers_are_captions_in_their_order() {
    let random = Some(CaptionChoice::Random);
    let texts = |members: &[(&str, &str)]| sample(members, None, random).unwrap();
    let all = ["txt", "caption", "0.txt", "txt1", "caption_1", "2.caption", "txt-10"];
    let mut members: Vec<(&str, &str)> = all.iter().map(|name| (*name, *name)).collect();
    members.reverse();
    members.extend([("1.seg.txt", "x"), ("70000.txt", "x"), ("txts", "x"), ("a1.txt", "x"), ("1..txt", "x")]);
    assert_eq!(texts(&members), ("txt".to_owned(), all.map(str::to_owned).to_vec()));
    // What worked before works as it did: `txt` first, then `caption`.
    assert_eq!(sample(&members, None, None), Ok(("txt".to_owned(), vec![])));
    assert_eq!(sample(&members[..6], None, None), Ok(("caption".to_owned(), vec![])));
    assert_eq!(sample(&[("1.txt", "b"), ("0.txt", "a")], None, None), Ok(("a".to_owned(), vec![])));
    // Empty ones are no choice.
    assert_eq!(texts(&[("0.txt", " "), ("1.txt", "b")]), ("b".to_owned(), vec![]));
    let (reason, detail) = sample(&[("0.txt", " "), ("1.txt", "")], None, random).unwrap_err();
    assert_eq!((reason, detail.as_str()), (FailReason::EmptyCaption, "nothing in 0.txt, 1.txt, jpg"));
}

#[test]
fn entries_of_a_list_are_texts() {
    let of = |json: &str| sample(&[("json", json), ("txt", "own")], Some("c"), Some(CaptionChoice::Random));
    let three = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    assert_eq!(of(r#"{"c": [" a", null, "", "b", "c "]}"#), Ok(("a".to_owned(), three)));
    assert_eq!(of(r#"{"c": "a"}"#), Ok(("a".to_owned(), vec![])));
    assert_eq!(of(r#"{"c": null}"#), Ok(("own".to_owned(), vec![])));
    for (json, reason, detail) in [
        (r#"{"c": []}"#, FailReason::EmptyCaption, "nothing in the list \"c\""),
        (r#"{"c": [null, " "]}"#, FailReason::EmptyCaption, "nothing in the list \"c\""),
        (r#"{"c": ["a", 7]}"#, FailReason::BadJson, "an entry of \"c\" is a number, not a string"),
        (r#"{"c": [["a"]]}"#, FailReason::BadJson, "an entry of \"c\" is a list, not a string"),
        (r#"{"c": {"a": 1}}"#, FailReason::BadJson, "is an object, neither a string nor a list of strings"),
    ] {
        let (found, said) = of(json).unwrap_err();
        assert_eq!(found, reason, "{json}");
        assert!(said.contains(detail), "{said}");
    }
}

#[test]
fn lists_of_the_parquet_file_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    for key in ["000000000", "000000002", "000000003", "000000005"] {
        writer.write(key, &[("jpg", b"i"), ("txt", b"own")]).unwrap();
    }
    writer.finish().unwrap();
    // Written by pyarrow, with a list<string> column `tags`.
    std::fs::write(folder.path().join("00000.parquet"), include_bytes!("../golden/metadata.parquet"))
        .unwrap();
    let shard = Shard::local(path.to_str().unwrap(), "c");
    let read = ReadOptions {
        caption_key: Some("tags".into()),
        caption_choice: Some(CaptionChoice::All),
        ..ReadOptions::default()
    };
    let mut reader = ShardReader::open(&shard, &read).unwrap();
    let mut found = vec![];
    while let Some(group) = reader.next_group().unwrap() {
        found.push(group.map(|sample| sample.caption).map_err(|failed| failed.reason));
    }
    let text = |text: &str| Ok(text.to_owned());
    assert_eq!(found, [text("bird"), text("snow; rock"), text("own"), Err(FailReason::EmptyCaption)]);
}
