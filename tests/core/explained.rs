//! Promise: why a sample is excluded is said by the clause that it does not pass, wherever its shard is; keys that are
//! not there cost no answer to the others; and what a rescue brought back is counted as the loader counts it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use tldr_loader::config::{Gate, Selection, Source};
use tldr_loader::jobs::{
    DecisionsJob, ExplainJob, Explained, ExportBy, ExportJob, ExportSummary, Wanted, explain, export,
};
use tldr_loader::ledger::Ledger;
use tldr_loader::select::Policy;
use tldr_loader::shard::{ShardReader, ShardWriter, reread};

use crate::fault_server::{Reply, Server};
use crate::support::{builder, clusters, corpus, epoch, png, with_judge};

const FILTER: &str = "width >= 200 and NSFW = 'UNLIKELY'";

/// A shard whose samples are excluded by one clause, by the other, by both, and not; the first key is twice in it.
fn shard(path: &Path) {
    let mut writer = ShardWriter::create(path).unwrap();
    for (key, fields) in [
        ("both", json!({"width": 150, "NSFW": "NSFW"})),
        ("narrow", json!({"width": 199, "NSFW": "UNLIKELY"})),
        ("absent", json!({"NSFW": "UNLIKELY"})),
        ("good", json!({"width": 200, "NSFW": "UNLIKELY"})),
        ("unsure", json!({"width": 400, "NSFW": "UNSURE"})),
    ] {
        let (image, json) = (png([1, 2, 3]), fields.to_string());
        let members: [(&str, &[u8]); 3] = [("png", &image), ("txt", b"a caption"), ("json", json.as_bytes())];
        writer.write(key, &members).unwrap();
    }
    writer.finish().unwrap();
}

fn source(url: &str) -> Source {
    Source {
        urls: vec![url.into()],
        name: Some("test".into()),
        filter: Some(FILTER.parse().unwrap()),
        ..Source::default()
    }
}

/// What is said of `keys` of a shard, of which everything is recorded.
fn explained(folder: &Path, url: &str, keys: &[&str], with_shards: bool) -> Vec<Explained> {
    let ledger = Ledger::open(folder.join("ledger"), None).unwrap();
    let loader = builder(url).keep_ratio(1.0).filter(FILTER.parse().unwrap()).batch_size(1).lanes(1);
    epoch(&loader.ledger(ledger).build().unwrap());
    let source = source(url);
    let read = source.open().unwrap();
    let decisions = DecisionsJob::new(folder.join("ledger"), ExportBy::All);
    let wanted = Wanted { window: Some(64), ..Wanted::read_as(None, &read, &Default::default()) };
    let decisions = DecisionsJob { wanted, ..decisions };
    let source = if with_shards { source } else { Source { urls: vec![], ..source } };
    let keys = keys.iter().map(ToString::to_string).collect();
    explain(&ExplainJob { source, ..ExplainJob::new(decisions, keys) }, &mut |_, _| Ok(())).unwrap()
}

#[test]
fn the_clause_that_excludes_a_sample_is_named() {
    let plain = tempfile::tempdir().unwrap();
    shard(&plain.path().join("0.tar"));
    let zipped = tempfile::tempdir().unwrap();
    let tar = fs::read(plain.path().join("0.tar")).unwrap();
    fs::write(zipped.path().join("0.tar.zst"), zstd::encode_all(&tar[..], 1).unwrap()).unwrap();
    let server = Server::start(HashMap::from([("/0.tar".to_owned(), tar)]), |_| Reply::default());
    let remote = tempfile::tempdir().unwrap();
    for (folder, url) in [
        (plain.path(), plain.path().join("0.tar").display().to_string()),
        (zipped.path(), zipped.path().join("0.tar.zst").display().to_string()),
        (remote.path(), server.url("/0.tar")),
    ] {
        let keys = ["narrow", "both", "nobody", "good", "absent", "unsure"];
        let found = explained(folder, &url, &keys, true);
        let name = url.rsplit('/').next().unwrap();
        let excluded =
            |key: &str, why: &str| format!("{key} in {name} is excluded: it does not pass where: {why}.");
        let sentences: Vec<&str> = found.iter().map(|one| one.sentence.as_str()).collect();
        assert_eq!(sentences[0], excluded("narrow", "width >= 200 (width is 199)"));
        let both = "width >= 200 (width is 150), NSFW = 'UNLIKELY' (NSFW is \"NSFW\")";
        assert_eq!(sentences[1], excluded("both", both));
        assert_eq!(sentences[2], "nobody is not in this recording: no sample has this key, SHARD/KEY or id.");
        assert_eq!((found[2].outcome, found[3].outcome), ("unknown", "usable"));
        assert_eq!(sentences[4], excluded("absent", "width >= 200 (width is absent)"));
        assert_eq!(sentences[5], excluded("unsure", "NSFW = 'UNLIKELY' (NSFW is \"UNSURE\")"));
        // Without the shards all that is known is named.
        let found = explained(folder, &url, &["narrow"], false);
        assert_eq!(found[0].sentence, format!("narrow in {name} is excluded: where {FILTER}."));
    }
}

#[test]
fn a_group_is_read_again_whatever_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    shard(&path);
    let source = source(&path.display().to_string());
    let (shard, read) = (source.list().unwrap().remove(0), source.open().unwrap());
    let mut reader = ShardReader::open(&shard, &read).unwrap();
    while reader.skip_group().unwrap() {}
    let index = reader.take_index();
    for row in 0..5 {
        let found = reread(&shard, &index, row, &read).unwrap().unwrap();
        assert_eq!(found.image.as_deref(), Some(&png([1, 2, 3])[..]), "{row}");
        assert_eq!(found.group.is_ok(), row == 3);
        let key = found.group.map_or_else(|failed| failed.key, |sample| sample.key);
        assert_eq!(index.key(row), Some(&*key));
    }
    assert_eq!(reread(&shard, &index, 5, &read).unwrap(), None);
    // A file that was replaced is not read at the places of the old one.
    fs::write(&path, [0; 20_000]).unwrap();
    assert_eq!(reread(&shard, &index, 1, &read).unwrap(), None);
}

#[test]
fn what_a_rescue_brings_back_is_counted_as_by_the_loader() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 240);
    let path = folder.path().join("ledger");
    let loader = with_judge(&urls).ledger(Ledger::open(&path, None).unwrap()).build().unwrap();
    epoch(&loader);
    let stats = loader.stats();
    assert_eq!(stats.counts.read, 960);
    let selection = Selection { keep_ratio: Some(0.4.into()), window: 64, ..Selection::default() };
    let policy = Policy::new(selection.resolved(true).unwrap(), 0);
    let by = ExportBy::Policy(Box::new(policy), Some(clusters()));
    let decisions = |rescue| {
        let wanted = Wanted { window: Some(64), ..Wanted::default() };
        DecisionsJob { rescue, wanted, ..DecisionsJob::new(&path, by.clone()) }
    };
    let counted = |rescue| -> ExportSummary {
        let job = ExportJob::new(decisions(rescue), folder.path().join("all.parquet"));
        export(&ExportJob { all: true, ..job }, &mut |_, _| Ok(())).unwrap()
    };
    let with = counted(true);
    assert_eq!((with.samples, with.kept), (960, stats.counts.kept));
    assert_ne!(counted(false).kept, with.kept);
    let keys = (0..960).map(|number| format!("{number:07}")).collect();
    let found = explain(&ExplainJob::new(decisions(true), keys), &mut |_, _| Ok(())).unwrap();
    let rescued: Vec<&Explained> = found.iter().filter(|one| one.rescued).collect();
    assert_eq!(rescued.len() as u64, stats.rescued);
    for one in &rescued {
        let (alignment, judged) = (one.alignment.unwrap(), one.judged.unwrap());
        assert!(one.outcome == "kept" && alignment < 0.5 && judged >= 0.5, "{one:?}");
        assert!(one.sentence.contains("its generated caption brought it back ("), "{}", one.sentence);
    }
    let error = |job: DecisionsJob| {
        let job = ExportJob::new(job, folder.path().join("kept.txt"));
        export(&job, &mut |_, _| Ok(())).unwrap_err().to_string()
    };
    let nothing = DecisionsJob { by: ExportBy::All, ..decisions(true) };
    let message = error(nothing);
    assert!(message.contains("rescue=true"), "{message}");
    let other = folder.path().join("other");
    let loader = builder(&urls).captioner(crate::support::StubCaptioner::new(), clusters());
    epoch(&loader.gate(Gate::top(0.5)).ledger(Ledger::open(&other, None).unwrap()).build().unwrap());
    let unjudged = DecisionsJob { ledger: other, ..decisions(true) };
    let message = error(unjudged);
    assert!(message.contains("invalid rescue=a ledger with 0 sets of judged captions"), "{message}");
}
