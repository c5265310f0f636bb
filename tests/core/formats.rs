//! Promise: what a version writes, later ones read: ledger, plan, state and scorer folder, as they are stored in
//! `tests/golden/formats`. Where a format changes, its old files stay and new ones are stored beside them, in a folder of the
//! next number:
//!
//! ```sh
//! TLDR_STORE_FORMATS=tests/golden/formats/2 cargo test --workspace --test core -- formats
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{self, StubCaptioner, builder, clusters, corpus, rows};
use serde_json::{Value, json};
use tldr_loader::cluster::Clusters;
use tldr_loader::config::{Gate, Selection};
use tldr_loader::jobs::{DecisionsJob, ExportBy, ExportJob, export, plan};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder, LoaderState, PlanFile};
use tldr_loader::model::Identity;
use tldr_loader::select::Policy;
use tldr_loader::shard::Subset;

fn stored() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats");
    let mut versions: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    assert!(!versions.is_empty());
    versions
}

/// The same corpus every time.
fn shards(folder: &Path) -> String {
    corpus(folder, 2, 70)
}

fn recording(urls: &str, ledger: &Path) -> LoaderBuilder {
    builder(urls)
        .captioner(StubCaptioner::new(), clusters())
        .fuse("coin(0.5)".parse().unwrap())
        .keep_ratio(0.5)
        .gate(Gate::top(0.8))
        .lanes(2)
        .batch_size(4)
        .ledger(Ledger::open(ledger, None).unwrap())
}

/// Ids and captions of the batches from a state on, to the end of its epoch.
fn rest(loader: &Loader) -> Vec<(u64, String)> {
    let batches = loader.iter().unwrap().flat_map(|batch| rows(&batch.unwrap()));
    batches.map(|row| (row.id, row.caption)).collect()
}

/// Keys of the plan's samples, by the ledger.
fn exported(folder: &Path) -> Vec<String> {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("kept.txt");
    let by = ExportBy::Plan(folder.join("plan.parquet"));
    let job = ExportJob::new(DecisionsJob::new(folder.join("ledger"), by), &out);
    export(&job, &mut |_, _| Ok(())).unwrap();
    fs::read_to_string(out).unwrap().lines().map(str::to_owned).collect()
}

/// What reading finds in a folder of stored files.
fn found(folder: &Path) -> Value {
    let file = PlanFile::load(folder.join("plan.parquet")).unwrap();
    let kept: Vec<(u64, u32)> = file.plan.kept().map(|kept| (kept.id.0, kept.cluster)).collect();
    let recordings = Ledger::open(folder.join("ledger"), None).unwrap().recordings().unwrap();
    let recorded: Vec<Value> = recordings
        .iter()
        .map(|r| json!({"scorer": r.scorer, "size": r.size, "shards": r.shards.len(), "generations": r.generations}))
        .collect();
    let scorer = folder.join("scorer");
    let identity = Identity::load(&scorer).unwrap().unwrap();
    let of_clusters = Clusters::load(scorer.join(Clusters::FILE)).unwrap();
    assert_eq!(of_clusters.fingerprint(), clusters().fingerprint());
    let corpus = tempfile::tempdir().unwrap();
    let urls = shards(corpus.path());
    let state: LoaderState = serde_json::from_slice(&fs::read(folder.join("state.json")).unwrap()).unwrap();
    let new = corpus.path().join("ledger");
    let loader = recording(&urls, &new).build().unwrap();
    loader.load_state(&state).unwrap();
    let rest = rest(&loader);
    assert!(rest.len() > 20, "{}", rest.len());
    json!({
        "plan": kept, "counts": file.plan.counts(), "exported": exported(folder), "recorded": recorded,
        "identity": format!("{:016x}", identity.fingerprint()), "rest": rest,
    })
}

/// Writes all that is stored.
fn write(folder: &Path) {
    let corpus = tempfile::tempdir().unwrap();
    let urls = shards(corpus.path());
    let ledger = folder.join("ledger");
    let loader = recording(&urls, &ledger).build().unwrap();
    let batches = loader.iter().unwrap().take(3).map(|batch| batch.unwrap().len()).sum::<usize>();
    assert_eq!(batches, 12);
    fs::write(folder.join("state.json"), serde_json::to_vec_pretty(&loader.state()).unwrap()).unwrap();
    rest(&recording(&urls, &ledger).build().unwrap());
    let selection =
        Selection { gate: Some(Gate::top(0.8)), keep_ratio: Some(0.5.into()), ..Selection::default() };
    let job = support::plan_job(&urls, &ledger, Policy::new(selection, 0));
    let made = plan(&job, StubCaptioner::new(), clusters(), &mut |_, _, _| Ok(())).unwrap();
    made.plan.unwrap().save(folder.join("plan.parquet")).unwrap();
    let scorer = folder.join("scorer");
    fs::create_dir(&scorer).unwrap();
    clusters().save(scorer.join(Clusters::FILE)).unwrap();
    Identity::save(&StubCaptioner::new(), Some((8, 2)), 3, &scorer).unwrap();
    let text = serde_json::to_string(&found(folder)).unwrap();
    fs::write(folder.join("found.json"), text + "\n").unwrap();
}

#[test]
fn what_is_stored_of_every_version_is_read() {
    if let Some(folder) = std::env::var_os("TLDR_STORE_FORMATS") {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        fs::create_dir_all(&folder).unwrap();
        write(&folder);
    }
    for folder in stored() {
        // A ledger may be written to: what is stored is not.
        let copy = tempfile::tempdir().unwrap();
        copy_all(&folder, copy.path());
        let expected: Value = serde_json::from_slice(&fs::read(folder.join("found.json")).unwrap()).unwrap();
        let found = found(copy.path());
        for (what, expected) in expected.as_object().unwrap() {
            assert_eq!(&found[what], expected, "{what} of {}", folder.display());
        }
    }
}

#[test]
fn what_is_written_now_is_what_is_stored_last() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let last = stored().pop().unwrap();
    let read = |folder: &Path| fs::read(folder.join("found.json")).unwrap();
    assert!(read(folder.path()) == read(&last), "formats or decisions have changed: store them anew");
    // Files that are plain text are the same.
    for name in ["state.json", "scorer/identity.json"] {
        let json = |folder: &Path| {
            let mut json: Value = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
            // Hashes of files: the header of a safetensors file is in no order.
            json.as_object_mut().unwrap().remove("files");
            json
        };
        assert_eq!(json(folder.path()), json(&last), "{name}");
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    copy_all(&stored().pop().unwrap(), folder.path());
    let change = |name: &str, from: &str, to: &str| {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    change("ledger/ledger.json", "\"layout\": 1", "\"layout\": 9");
    let error = Ledger::open(folder.path().join("ledger"), None).unwrap_err().to_string();
    assert!(error.contains("use another folder, or the version that wrote it"), "{error}");
    change("scorer/identity.json", "\"version\": 1", "\"version\": 9");
    let error = Identity::load(&folder.path().join("scorer")).unwrap_err().to_string();
    assert!(error.contains("version 1") && error.contains("version 9"), "{error}");
    change("state.json", "\"version\": ", "\"version\": 9");
    let state: LoaderState =
        serde_json::from_slice(&fs::read(folder.path().join("state.json")).unwrap()).unwrap();
    let corpus = tempfile::tempdir().unwrap();
    let loader = recording(&shards(corpus.path()), &corpus.path().join("l")).build().unwrap();
    let error = loader.load_state(&state).unwrap_err().to_string();
    assert!(error.contains("this one is of version 9"), "{error}");
}

#[test]
fn an_export_is_read_as_a_subset() {
    let folder = tempfile::tempdir().unwrap();
    copy_all(&stored().pop().unwrap(), folder.path());
    let out = folder.path().join("kept.txt");
    fs::write(&out, exported(folder.path()).join("\n")).unwrap();
    let kept = PlanFile::load(folder.path().join("plan.parquet")).unwrap().plan.counts().kept;
    assert_eq!(Subset::open(out).unwrap().len() as u64, kept);
}

fn copy_all(from: &Path, to: &Path) {
    let mut folders: BTreeMap<PathBuf, PathBuf> = BTreeMap::from([(from.to_owned(), to.to_owned())]);
    while let Some((from, to)) = folders.pop_first() {
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let path = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.insert(entry.path(), path);
            } else {
                fs::copy(entry.path(), path).unwrap();
            }
        }
    }
}
