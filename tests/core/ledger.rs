//! Promise: a ledger in a folder is a cache. It changes nothing but the time, whatever befalls its
//! files; what it holds is guarded by the shard, the captioner and the settings.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::support::{Row, StubCaptioner, builder, clusters, corpus, cut_off, epoch};
use tldr_loader::config::{Gate, OnError};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::Alpha;
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::shard::{ReadOptions, Shard, ShardReader, ShardWriter};
use tldr_loader::text::Fuse;

/// What an epoch gave, and how often the captioner was asked.
#[derive(Debug, PartialEq)]
struct Run {
    batches: Vec<Vec<Row>>,
    encoded: usize,
    captioned: usize,
    /// How many of the captions that were asked for the end of another run may have cut off.
    cut_off: usize,
}

fn run(urls: &str, ledger: &Ledger, change: impl Fn(LoaderBuilder) -> LoaderBuilder) -> Run {
    let stub = StubCaptioner::new();
    let (encoded, captioned) = (stub.encoded.clone(), stub.captioned.clone());
    let concat = "concat".parse::<Fuse>().unwrap();
    let builder = builder(urls).captioner(stub, clusters()).fuse(concat).ledger(ledger.clone());
    let loader: Loader = change(builder).build().unwrap();
    let batches = epoch(&loader);
    Run {
        batches,
        encoded: encoded.load(Ordering::Relaxed),
        captioned: captioned.load(Ordering::Relaxed),
        cut_off: cut_off(&loader),
    }
}

/// All files of a ledger.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            all.push(path);
        }
    }
    all.sort();
    all
}

fn open(folder: &Path) -> Ledger {
    Ledger::open(folder, None).unwrap()
}

#[test]
fn another_process_needs_no_captioner_and_yields_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 3, 150);
    let root = folder.path().join("ledger");
    let memory = run(&urls, &Ledger::new(), |b| b);
    assert!(memory.batches.len() > 2 && memory.encoded > 0 && memory.captioned > 0);
    // How much is encoded twice, where a window lies in two lanes, depends on who comes first.
    assert_eq!(run(&urls, &open(&root), |b| b).batches, memory.batches, "the first run");
    let written = files(&root);
    // A new ledger on the same folder: what another process sees.
    let again = run(&urls, &open(&root), |b| b);
    assert_eq!(again.batches, memory.batches);
    assert_eq!(again.encoded, 0);
    assert!(again.captioned <= again.cut_off, "{again:?}");
    if again.captioned == 0 {
        assert_eq!(files(&root), written, "nothing is written twice");
    }
    // Memory for one window at most.
    let tight = run(&urls, &Ledger::open(&root, Some(2000)).unwrap(), |b| b);
    assert_eq!((tight.batches, tight.encoded), (memory.batches, 0));
    assert!(tight.captioned <= tight.cut_off, "{}", tight.captioned);
}

#[test]
fn another_policy_needs_captions_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 3, 150);
    let root = folder.path().join("ledger");
    run(&urls, &open(&root), |b| b);
    for change in [
        (|b| b.keep_ratio(0.4)) as fn(LoaderBuilder) -> LoaderBuilder,
        |b| b.gate(Gate::OFF).keep_ratio(0.1),
        |b| b.seed(7),
        |b| b.gate(Gate::top(0.9)).keep_ratio(0.7),
    ] {
        let changed = run(&urls, &open(&root), change);
        assert_eq!(changed.encoded, 0);
        assert_eq!(changed.batches, run(&urls, &Ledger::new(), change).batches);
    }
}

#[test]
fn what_does_not_fit_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 3, 150);
    let root = folder.path().join("ledger");
    let first = run(&urls, &open(&root), |b| b);
    // Another window size, and other reading options.
    assert!(run(&urls, &open(&root), |b| b.window(32)).encoded > 0);
    assert!(run(&urls, &open(&root), |b| b.max_image_pixels(1000)).encoded > 0);
    // Other previews.
    assert!(run(&urls, &open(&root), |b| b.alpha(Alpha::Drop)).encoded > 0);
    assert!(run(&urls, &open(&root), |b| b.alpha(Alpha::Black)).encoded > 0);
    assert!(run(&urls, &open(&root), |b| b.exif_orientation(true)).encoded > 0);
    assert_eq!(run(&urls, &open(&root), |b| b.alpha(Alpha::White)).encoded, 0);
    assert_eq!(run(&urls, &open(&root), |b| b).encoded, 0, "and both lie beside each other");
    // A policy that needs embeddings, which the first run did not keep.
    let dedup = |b: LoaderBuilder| b.dedup(0.999);
    assert!(run(&urls, &open(&root), dedup).encoded > 0);
    let again = run(&urls, &open(&root), dedup);
    assert_eq!(again.encoded, 0);
    assert_eq!(again.batches, run(&urls, &Ledger::new(), dedup).batches);
    assert_eq!(run(&urls, &open(&root), |b| b).batches, first.batches);
}

/// The same keys with other pictures and captions: nothing of the old ones may be seen, by a ledger
/// that has them in memory as little as by one in a folder.
#[test]
fn a_shard_that_is_replaced_is_new() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let urls = corpus(folder.path(), 3, 150);
    let ledgers = [Ledger::new(), open(&folder.path().join("ledger"))];
    for ledger in &ledgers {
        run(&urls, ledger, |b| b);
    }
    // Keys of the second shard, pictures and captions of the third.
    let (mut writer, shard) =
        (ShardWriter::create(other.path().join("new.tar")).unwrap(), folder.path().join("00001.tar"));
    let reader = |name: &str| {
        let path = folder.path().join(name);
        ShardReader::open(&Shard::local(path.to_str().unwrap(), "test"), &ReadOptions::default()).unwrap()
    };
    let (mut keys, mut samples) = (reader("00001.tar"), reader("00002.tar"));
    while let (Some(key), Some(sample)) = (keys.next_group().unwrap(), samples.next_group().unwrap()) {
        let (key, sample) = (key.unwrap().key, sample.unwrap());
        writer.write(&key, &[("png", &sample.image), ("txt", sample.caption.as_bytes())]).unwrap();
    }
    writer.finish().unwrap();
    fs::copy(other.path().join("new.tar"), &shard).unwrap();
    // File systems tell times apart to a few milliseconds; a user's edits are further apart.
    let time = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&shard).unwrap().set_modified(time).unwrap();
    let expected = run(&urls, &Ledger::new(), |b| b);
    for ledger in ledgers.into_iter().chain([open(&folder.path().join("ledger"))]) {
        let found = run(&urls, &ledger, |b| b);
        assert_eq!(found.batches, expected.batches);
    }
    assert_eq!(run(&urls, &open(&folder.path().join("ledger")), |b| b).encoded, 0, "and remembered again");
}

/// Ranks that start together begin one ledger.
#[test]
fn many_may_begin_a_ledger_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let root = folder.path().join(format!("ledger-{round}"));
        let barrier = std::sync::Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    barrier.wait();
                    Ledger::open(&root, None).unwrap();
                });
            }
        });
    }
    // What a process left that was killed while it wrote.
    let root = folder.path().join("killed");
    fs::create_dir(&root).unwrap();
    fs::write(root.join(".aside-x"), "{").unwrap();
    Ledger::open(&root, None).unwrap();
}

#[test]
fn a_bad_sample_ends_a_strict_run_known_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 1, 150);
    // A second shard of which one sample is bad.
    let mut writer = ShardWriter::create(folder.path().join("00001.tar")).unwrap();
    for i in 0..100 {
        let key = format!("{i:03}");
        let colour = [37, 91, 53].map(|factor| (i * factor % 256) as u8);
        let png = if i == 50 { b"no picture".to_vec() } else { support::png(colour) };
        let caption = format!("colour {colour:?} number {i}");
        writer.write(&key, &[("png", &png), ("txt", caption.as_bytes())]).unwrap();
    }
    writer.finish().unwrap();
    let urls = format!("{urls}::{}", folder.path().join("00001.tar").display());
    let ledger = Ledger::new();
    run(&urls, &ledger, |b| b);
    let strict = builder(&urls)
        .captioner(StubCaptioner::new(), clusters())
        .ledger(ledger)
        .on_error(OnError::Raise)
        .build()
        .unwrap();
    let error = strict.iter().unwrap().find_map(|batch| batch.err()).expect("the run ends");
    assert!(error.to_string().contains("key 050"), "{error}");
}

/// A shard of as many samples as windows hold: nobody looks behind its end again.
#[test]
fn a_shard_of_whole_windows_is_not_read_to_its_end_again() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 128);
    let ledger = open(&folder.path().join("ledger"));
    let first = run(&urls, &ledger, |b| b);
    let windows = files(&folder.path().join("ledger").join("signals")).len();
    assert_eq!(windows, 4 * 3, "two full windows and the end of each shard");
    assert_eq!(run(&urls, &open(&folder.path().join("ledger")), |b| b).batches, first.batches);
}

#[test]
fn damaged_files_are_never_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 150);
    let root = folder.path().join("ledger");
    let first = run(&urls, &open(&root), |b| b);
    let whole: Vec<(PathBuf, Vec<u8>)> =
        files(&root).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let mut rng = Rng::new(1, Purpose::Synth, 0);
    for round in 0..30 {
        for (path, content) in &whole {
            let mut damaged = content.clone();
            match round % 3 {
                0 => damaged.truncate(rng.below(content.len())),
                1 => damaged[rng.below(content.len())] ^= 1 << rng.below(8),
                // Another window's file under this one's name, content and hash alike.
                _ => {}
            }
            if round % 3 == 2 {
                let other = &whole[rng.below(whole.len())];
                let name = other.0.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1;
                let window = path.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().0;
                fs::remove_file(path).unwrap();
                fs::write(path.with_file_name(format!("{window}-{name}")), &other.1).unwrap();
            } else {
                fs::write(path, &damaged).unwrap();
            }
        }
        let run = run(&urls, &open(&root), |b| b);
        assert_eq!(run.batches, first.batches, "round {round}");
        for path in files(&root) {
            fs::remove_file(path).unwrap();
        }
        for (path, content) in &whole {
            fs::write(path, content).unwrap();
        }
    }
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let error = Ledger::open(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("invalid ledger=") && error.contains("a folder of its own"), "{error}");
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("ledger.json"), r#"{"format": "tldr-loader ledger", "layout": 99}"#).unwrap();
    let error = Ledger::open(other.path(), None).unwrap_err().to_string();
    assert!(error.contains("layout\": 99") && error.contains("the version that wrote it"), "{error}");
}

/// The bounds of the design, for real entropy: cluster, alignment, lengths and sizes drawn at random.
#[test]
fn a_gated_out_sample_costs_24_bytes_and_a_candidate_56_keys_aside() {
    use ndarray::Array2;
    use std::sync::Arc;
    use tldr_loader::ledger::{WindowKey, WindowRecord};
    use tldr_loader::model::Signals;
    use tldr_loader::sample::{DropReason, Outcome};

    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(3, Purpose::Synth, 0);
    let n = 2048;
    let path = folder.path().join("0.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    for i in 0..n {
        let image = vec![0; 5000 + rng.below(60_000)];
        let caption = vec![b'x'; 10 + rng.below(120)];
        let json = vec![b' '; 400 + rng.below(300)];
        writer.write(&format!("{i:09}"), &[("jpg", &image), ("json", &json), ("txt", &caption)]).unwrap();
    }
    writer.finish().unwrap();
    let shard = Shard::local(path.to_str().unwrap(), "corpus");
    let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
    let mut ids = vec![];
    while let Some(group) = reader.next_group().unwrap() {
        ids.push(group.unwrap().id);
    }
    let index = reader.take_index();
    let mut drawn = || {
        Arc::new(WindowRecord {
            ids: ids.clone(),
            failed: vec![None; n],
            caption_chars: (0..n).map(|_| 10 + rng.below(120) as u32).collect(),
            signals: Some(Signals {
                cluster: (0..n).map(|_| rng.below(3000) as u32).collect(),
                alignment: (0..n).map(|_| rng.unit() as f32).collect(),
                embedding: Array2::zeros((n, 0)),
                semantic_hash: (0..n).map(|_| std::array::from_fn(|_| rng.next_u64())).collect(),
            }),
            encoded: None,
            compute: Arc::default(),
            has_embedding: false,
            failures: vec![],
            index: Some(index.clone()),
        })
    };
    let record = drawn();
    let bytes = |gated: bool| {
        let root = folder.path().join(if gated { "gated" } else { "candidates" });
        let outcome = if gated { Outcome::Dropped(DropReason::Gate) } else { Outcome::Kept { pi: None } };
        let key = WindowKey { shard: shard.hash, window: 0, size: n, version: 3, scorer: 1, reading: 2 };
        open(&root).record_window(key, &shard, Arc::clone(&record), &vec![outcome; n]);
        let files = files(&root);
        assert_eq!(files.len(), 1);
        fs::metadata(&files[0]).unwrap().len() as f64 / n as f64
    };
    // Consecutive keys compress to 2 bytes or so: they are counted here all the same.
    let (gated, candidate) = (bytes(true), bytes(false));
    assert!(gated <= 24.0, "{gated} bytes per gated-out sample");
    assert!(candidate <= 56.0, "{candidate} bytes per candidate");

    // A million samples, of which the gate drops half.
    let root = folder.path().join("million");
    let (ledger, windows) = (open(&root), 489);
    let mut bound = 0.0;
    for window in 0..windows {
        let record = drawn();
        let gate = |&alignment: &f32| match alignment < 0.5 {
            true => Outcome::Dropped(DropReason::Gate),
            false => Outcome::Kept { pi: None },
        };
        let outcomes: Vec<Outcome> = record.signals.as_ref().unwrap().alignment.iter().map(gate).collect();
        bound += outcomes.iter().map(|outcome| if outcome.is_kept() { 56.0 } else { 24.0 }).sum::<f64>();
        let key = WindowKey { shard: shard.hash, window, size: n, version: 3, scorer: 1, reading: 2 };
        ledger.record_window(key, &shard, record, &outcomes);
    }
    drop(ledger);
    let files = files(&root);
    assert_eq!(files.len() as u64, windows);
    let total: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(total as f64 <= bound, "{} bytes a sample", total as f64 / (windows * n as u64) as f64);
}
