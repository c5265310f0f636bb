//! Promise: a filter on metadata decides which samples count. The others are skipped unseen, are
//! counted as such and not as faults, and are no part of what keep_ratio is a share of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{StubCaptioner, builder, clusters, epoch, eval, full, png};
use serde_json::json;
use tldr_loader::config::{Gate, OnError};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::shard::{ReadOptions, ShardWriter, list, survey};

const FILTER: &str = "NSFW = 'UNLIKELY' and width >= 200";

/// Three shards of 200 samples with json, and the keys of those that pass [`FILTER`].
fn corpus(folder: &Path) -> (String, BTreeSet<String>) {
    let mut rng = Rng::new(5, Purpose::Synth, 0);
    let mut passing = BTreeSet::new();
    for shard in 0..3 {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for i in 0..200 {
            let key = format!("{shard}{i:04}");
            let width = 100 + rng.below(300);
            let nsfw = ["UNLIKELY", "UNSURE", "NSFW"][rng.below(3)];
            let mut fields = json!({"width": width, "NSFW": nsfw});
            if rng.below(10) == 0 {
                fields["width"] = serde_json::Value::Null;
            } else if nsfw == "UNLIKELY" && width >= 200 {
                passing.insert(key.clone());
            }
            let colour = [0, 1, 2].map(|_| rng.below(256) as u8);
            let json = fields.to_string();
            let caption = format!("colour {colour:?} number {key}");
            let members: [(&str, &[u8]); 3] =
                [("png", &png(colour)), ("txt", caption.as_bytes()), ("json", json.as_bytes())];
            writer.write(&key, &members).unwrap();
        }
        writer.finish().unwrap();
    }
    (support::pattern(folder, 3), passing)
}

fn keys(loader: &Loader) -> Vec<String> {
    epoch(loader).into_iter().flatten().map(|row| row.key).collect()
}

fn filtered(builder: LoaderBuilder) -> LoaderBuilder {
    builder.filter(FILTER.parse().unwrap())
}

#[test]
fn those_that_pass_are_the_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, passing) = corpus(folder.path());
    let eval = filtered(eval(&urls)).on_error(OnError::Raise).build().unwrap();
    assert_eq!(keys(&eval), passing.iter().cloned().collect::<Vec<_>>(), "in order, and no fault to raise");
    let stats = eval.stats();
    assert_eq!(stats.counts.excluded, 600 - passing.len() as u64);
    assert!(stats.counts.failed.is_empty() && stats.failures.is_empty() && stats.counts.conserved());

    // More are excluded than may fail.
    let whole = filtered(full(&urls)).max_errors(0.0).build().unwrap();
    let seen: BTreeSet<String> = keys(&whole).into_iter().collect();
    let stats = whole.stats();
    assert!(seen.is_subset(&passing));
    assert_eq!(stats.counts.kept, passing.len() as u64);
    assert_eq!(stats.yielded, stats.counts.kept + stats.repeats - stats.surplus);
}

#[test]
fn keep_ratio_is_a_share_of_those_that_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, passing) = corpus(folder.path());
    let shards = list(std::slice::from_ref(&urls), None, &Default::default()).unwrap();
    let read = ReadOptions { filter: Some(FILTER.parse().unwrap()), ..ReadOptions::default() };
    let share = survey(&shards, &[200; 3], &read).unwrap().share();
    assert_eq!(share, passing.len() as f64 / 600.0, "shards this small are looked at whole");
    let stub = StubCaptioner::new();
    let encoded = stub.encoded.clone();
    let ledger = Ledger::new();
    let make = |stub| {
        // In one lane: a window that lies in two may be encoded twice.
        filtered(builder(&urls))
            .lanes(1)
            .captioner(stub, clusters())
            .keep_ratio(0.5)
            .gate(Gate::OFF)
            .ledger(ledger.clone())
    };
    let loader = make(stub).build().unwrap();
    assert_eq!(loader.num_batches(), passing.len() as u64 / 2 / 16);
    let first = epoch(&loader);
    assert_eq!(encoded.load(std::sync::atomic::Ordering::SeqCst), passing.len(), "and no other was encoded");
    assert_eq!(loader.stats().encoded, passing.len() as u64, "nor counted, nor given a place in a batch");
    let counts = loader.stats().counts;
    // Runs are off by 3 at most; here the window's 64 samples have about 13 that pass, in 9 runs.
    assert!((counts.kept as f64 - passing.len() as f64 / 2.0).abs() < 20.0, "{counts:?}");
    assert!(first.iter().flatten().all(|row| passing.contains(&row.key)));
    // The same epoch again knows who is excluded.
    loader.set_epoch(0);
    assert_eq!(epoch(&loader), first);
    assert_eq!(loader.stats().counts, counts);
    // Other filters share nothing with it: what they let pass was not seen.
    let other = make(StubCaptioner::new()).filter("width >= 200".parse().unwrap()).build().unwrap();
    assert!(epoch(&other).len() > first.len());
    assert!(other.stats().encoded > passing.len() as u64);
}

#[test]
fn a_filter_that_nothing_passes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (urls, _) = corpus(folder.path());
    let error = full(&urls).filter("widht >= 200".parse().unwrap()).build().err().unwrap().to_string();
    assert!(
        error.contains("invalid where=\"widht >= 200\"") && error.contains("fields, in the json"),
        "{error}"
    );
    assert!(error.ends_with("are NSFW, width"), "{error}");
}

/// The columns of the Parquet file beside a shard serve as fields; the json comes first.
#[test]
fn columns_beside_the_shard_are_fields() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path().join("00000.tar")).unwrap();
    for key in ["000000000", "000000002", "000000003", "000000005"] {
        // The file says 640, 333, 512 and 100.
        let json: &[u8] = if key == "000000005" { br#"{"width": 900}"# } else { b"{}" };
        writer.write(key, &[("png", &png([1, 2, 3])), ("txt", b"text"), ("json", json)]).unwrap();
    }
    writer.finish().unwrap();
    std::fs::write(folder.path().join("00000.parquet"), include_bytes!("../golden/metadata.parquet"))
        .unwrap();
    let urls = support::pattern(folder.path(), 1);
    let of = |filter: &str| keys(&eval(&urls).filter(filter.parse().unwrap()).build().unwrap());
    assert_eq!(of("width > 400"), ["000000000", "000000003", "000000005"]);
    assert_eq!(of("similarity >= 0.3 and width > 400"), ["000000000", "000000005"]);
    assert_eq!(of("similarity is null"), ["000000003"]);
    let shards = list(&[urls], None, &Default::default()).unwrap();
    let read = ReadOptions { filter: Some("width > 400".parse().unwrap()), ..ReadOptions::default() };
    assert_eq!(survey(&shards, &[4], &read).unwrap().share(), 0.5, "by the file alone");
}
