//! Promise: read = kept + dropped + failed and yielded = kept + repeats - surplus, per shard and
//! per epoch; every rank yields exactly `num_batches`; a bad sample costs itself only.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeSet;

use crate::support::{Altered, StubCaptioner, builder, corpus, epoch, eval, full, with_stub};
use tldr_loader::FailReason;
use tldr_loader::config::{Gate, OnError};
use tldr_loader::loader::{Loader, LoaderBuilder, Stats};
use tldr_loader::shard::ShardWriter;

fn assert_conserved(stats: &Stats, samples: u64) {
    assert!(stats.counts.conserved(), "{stats:?}");
    assert_eq!(stats.counts.read, samples);
    assert_eq!(stats.yielded + stats.replayed, stats.counts.kept + stats.repeats - stats.surplus);
    let mut read = 0;
    for (shard, counts) in &stats.shards {
        assert!(counts.conserved(), "{shard}: {counts:?}");
        read += counts.read;
    }
    assert_eq!(read, samples);
}

/// A corpus with one faulty shard: of its 60 samples one has no image, one no caption, one an
/// empty caption, one a caption that is not UTF-8 and two an image that cannot be decoded.
fn faulty(folder: &std::path::Path) -> String {
    let urls = corpus(folder, 3, 100);
    let mut writer = ShardWriter::create(folder.join("00003.tar")).unwrap();
    for i in 0..60u8 {
        let key = format!("f{i:03}");
        let image = support::png([i, 200 - i, 50]);
        let caption = format!("caption {i}");
        let (image, caption) = (image.as_slice(), caption.as_bytes());
        match i {
            10 => writer.write(&key, &[("txt", caption)]),
            20 => writer.write(&key, &[("png", image)]),
            30 => writer.write(&key, &[("png", image), ("txt", b" \n")]),
            40 => writer.write(&key, &[("png", image), ("txt", b"\xff\xfe")]),
            50 => writer.write(&key, &[("png", &image[..30]), ("txt", caption)]),
            51 => writer.write(&key, &[("jpg", b"not an image"), ("txt", caption)]),
            _ => writer.write(&key, &[("png", image), ("txt", caption)]),
        }
        .unwrap();
    }
    writer.finish().unwrap();
    format!("{urls}::{}", folder.join("00003.tar").display())
}

#[test]
fn every_sample_has_one_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    type Make = fn(&str) -> LoaderBuilder;
    let makes: [(&str, Make); 5] = [
        ("cluster and gate", with_stub),
        ("random", builder),
        ("full", full),
        ("diverse", |u| with_stub(u).priority(tldr_loader::config::Priority::Diverse)),
        ("dedup", |u| with_stub(u).gate(Gate::OFF).dedup(0.9999)),
    ];
    for (name, make) in makes {
        let loader = make(&urls).build().unwrap();
        for _ in 0..2 {
            let batches = epoch(&loader);
            assert_eq!(batches.len() as u64, loader.num_batches(), "{name}");
            let stats = loader.stats();
            assert_conserved(&stats, 360);
            assert_eq!(stats.yielded, loader.num_samples(), "{name}");
            let failed = &stats.counts.failed;
            for reason in [
                FailReason::MissingImage,
                FailReason::MissingCaption,
                FailReason::EmptyCaption,
                FailReason::CaptionNotUtf8,
            ] {
                assert_eq!(failed.get(&reason), Some(&1), "{name}: {reason}");
            }
            if name == "full" || name == "cluster and gate" {
                assert_eq!(failed.get(&FailReason::UndecodableImage), Some(&2), "{name}");
                let named: BTreeSet<&str> = stats.failures.iter().map(|f| &*f.key).collect();
                assert_eq!(named, ["f010", "f020", "f030", "f040", "f050", "f051"].into());
                assert!(
                    stats.failures.iter().all(|f| f.shard.ends_with("00003.tar") && !f.detail.is_empty())
                );
            }
        }
    }
}

#[test]
fn one_failed_sample_changes_decisions_in_its_window_only() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let urls = corpus(good.path(), 4, 128);
    let spoilt = corpus(bad.path(), 4, 128);
    // The same corpus with one caption missing, in the first window (of 64) of shard 2.
    let path = bad.path().join("00002.tar");
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    let mut members = vec![];
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut data = vec![];
        std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
        members.push((name, data));
    }
    let mut writer = ShardWriter::create(&path).unwrap();
    for pair in members.chunks(2) {
        let (key, _) = pair[0].0.split_once('.').unwrap();
        let parts: Vec<(&str, &[u8])> = pair
            .iter()
            .map(|(name, data)| (name.split_once('.').unwrap().1, data.as_slice()))
            .filter(|(ext, _)| !(key == "0000266" && *ext == "txt"))
            .collect();
        writer.write(key, &parts).unwrap();
    }
    writer.finish().unwrap();
    let kept = |urls: &str| -> BTreeSet<String> {
        let loader = with_stub(urls).batch_size(4).build().unwrap();
        let keys = epoch(&loader).into_iter().flatten().map(|r| r.key).collect();
        assert_conserved(&loader.stats(), 512);
        keys
    };
    let (before, after) = (kept(&urls), kept(&spoilt));
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    let window = "0000256".to_string().."0000320".to_string();
    // A lane's surplus or repeats may add up to one sample a lane at the epoch's end.
    let outside = changed.iter().filter(|k| !window.contains::<String>(k)).count();
    assert!(outside <= 4, "{changed:?}");
}

#[test]
fn eval_yields_every_sample_once_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    let loader = eval(&urls).batch_size(50).build().unwrap();
    let batches = epoch(&loader);
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [50, 50, 50, 50, 50, 50, 46, 8], "354 readable samples, each in its place");
    let keys: Vec<String> = batches.into_iter().flatten().map(|r| r.key).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(keys, sorted, "shard order is key order here");
    assert_eq!(loader.num_samples(), 360);
    assert_conserved(&loader.stats(), 360);
}

#[test]
fn too_many_failures_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    let loader = with_stub(&urls).lanes(4).max_errors(3.0).build().unwrap();
    let error = loader.iter().unwrap().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("max_errors=3") && error.contains("missing-image"), "{error}");
    let loader = with_stub(&urls).on_error(OnError::Raise).build().unwrap();
    let error = loader.iter().unwrap().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("00003.tar") && error.contains("key f0"), "{error}");
}

#[test]
fn a_shard_of_failures_ends_the_run_where_it_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    let loader = with_stub(&urls).max_errors_per_shard(2.0).build().unwrap();
    let error = loader.iter().unwrap().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("max_errors_per_shard=2") && error.contains("00003.tar"), "{error}");
}

#[test]
fn an_undecodable_kept_sample_is_counted_once_whatever_places_it_was_to_fill() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 1, 24);
    // Half an image: its header is sound, so that it fails only when its batch is made.
    let mut writer = tldr_loader::shard::ShardWriter::create(folder.path().join("00000.tar")).unwrap();
    for i in 0..24 {
        let png = support::png([i as u8; 3]);
        let png = if i % 8 == 5 { &png[..png.len() - 40] } else { &png[..] };
        writer.write(&format!("{i:07}"), &[("png", png), ("txt", b"a caption")]).unwrap();
    }
    writer.finish().unwrap();
    // Four times as many places as samples: the bad ones are drawn again and again to fill them.
    let loader = full(&urls).lengths(vec![96]).lanes(1).batch_size(32).max_errors(1e9).build().unwrap();
    let rows: usize = epoch(&loader).iter().map(Vec::len).sum();
    let stats = loader.stats();
    assert_eq!((rows, stats.counts.kept, stats.counts.failures()), (96, 21, 3), "{:?}", stats.counts);
    assert_conserved(&stats, 24);
}

#[test]
fn no_failed_sample_at_all_is_a_limit_too() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    let loader = with_stub(&urls).max_errors(0.0).build().unwrap();
    let error = loader.iter().unwrap().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("max_errors=0"), "{error}");
}

#[test]
fn bytes_behind_a_damaged_header_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let path = folder.path().join("00001.tar");
    let mut bytes = std::fs::read(&path).unwrap();
    // The header of a caption: what is lost is that member, up to the next header.
    let at = bytes.chunks(512).position(|block| block.starts_with(b"0000150.txt")).unwrap() * 512;
    bytes[at + 150] ^= 0x55;
    std::fs::write(&path, bytes).unwrap();
    let loader = with_stub(&urls).build().unwrap();
    epoch(&loader);
    let stats = loader.stats();
    assert_conserved(&stats, 200);
    let lost: Vec<(&str, u64)> = stats.skipped_bytes.iter().map(|(shard, n)| (&**shard, *n)).collect();
    let [(shard, 1024)] = lost[..] else { panic!("{lost:?}") };
    assert!(shard.ends_with("00001.tar"));
    assert_eq!(stats.counts.failures(), 1);
    assert!(stats.warnings(16).iter().any(|w| w.contains("1024 bytes")), "{:?}", stats.warnings(16));
}

#[test]
fn a_shard_that_changes_between_epochs_is_decided_anew() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let loader = with_stub(&urls).build().unwrap();
    let first = epoch(&loader).len();
    assert_eq!(epoch(&loader).len(), first, "the same files: read by index");
    // Other samples under the same name, and as many.
    let (a, b) = (folder.path().join("00000.tar"), folder.path().join("00001.tar"));
    std::fs::copy(b, a).unwrap();
    let found = epoch(&loader);
    assert_eq!(loader.stats().encoded, 100, "the shard that changed, and no other, once for all lanes");
    let fresh = with_stub(&urls).build().unwrap();
    let mut third = Vec::new();
    for _ in 0..3 {
        third = epoch(&fresh);
    }
    assert_eq!(found, third, "as a loader that saw nothing else");
}

/// A length that is wrong by any factor costs neither time nor memory.
#[test]
fn a_length_beyond_all_measure_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 1, 30);
    let loader = eval(&urls).lengths(vec![1 << 45]).build().unwrap();
    assert_eq!(epoch(&loader).into_iter().flatten().count(), 30);
    let found = &loader.stats().length_mismatches[0];
    assert_eq!((found.expected, found.found), (1 << 45, 30));
    let loader = full(&urls).lengths(vec![1 << 45]).build().unwrap();
    let error = loader.iter().unwrap().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("are the lengths right?"), "{error}");
}

#[test]
fn wrong_lengths_are_reported_and_steps_stay_equal() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 100);
    for (lengths, found) in [(vec![100, 100, 80, 100], 1), (vec![100, 130, 100, 100], 1)] {
        let loader = with_stub(&urls).lengths(lengths).build().unwrap();
        assert_eq!(epoch(&loader).len() as u64, loader.num_batches());
        let stats = loader.stats();
        assert_conserved(&stats, 400);
        assert_eq!(stats.length_mismatches.len(), found, "{:?}", stats.length_mismatches);
        assert!(stats.length_mismatches.iter().all(|m| m.found == 100));
        assert!(!stats.warnings(16).is_empty());
    }
}

#[test]
fn dropping_an_epoch_in_the_middle_ends_its_threads() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 6, 200);
    let loader: Loader = with_stub(&urls).build().unwrap();
    for n in 0..4 {
        let mut batches = loader.iter().unwrap();
        for _ in 0..n {
            batches.next().unwrap().unwrap();
        }
        drop(batches); // joins every thread: the test hangs if one does not end
    }
    assert_eq!(epoch(&loader).len() as u64, loader.num_batches());
}

#[test]
fn an_error_of_the_captioner_reaches_the_caller_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 64);
    for (panics, text) in [(false, "out of memory"), (true, "the weights are on fire")] {
        let broken = Altered::new(StubCaptioner::new()).encode(move |_, _, _| {
            assert!(!panics, "the weights are on fire");
            Err(tldr_loader::Error::captioner("out of memory"))
        });
        let loader = builder(&urls).captioner(broken, support::clusters()).build().unwrap();
        let error = loader.iter().unwrap().find_map(Result::err).unwrap().to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// The equation of the epoch over whole runs and over runs that begin at any batch, in every mode that trains.
#[test]
fn what_was_yielded_and_replayed_is_kept_with_repeats_and_without_surplus() {
    let folder = tempfile::tempdir().unwrap();
    let urls = faulty(folder.path());
    type Make = fn(&str) -> LoaderBuilder;
    let makes: [Make; 4] = [
        with_stub,
        full,
        // Tables that promise too many samples, and too few.
        |urls| full(urls).lengths(vec![130, 130, 130, 60]).max_errors(1e9),
        |urls| builder(urls).lengths(vec![50, 60, 70, 60]).max_errors(1e9),
    ];
    let (mut repeats, mut surplus, mut replayed) = (0, 0, 0);
    for make in makes {
        let loader = make(&urls).build().unwrap();
        for at in [0, 1, 2, loader.num_batches() - 1] {
            let first = make(&urls).build().unwrap();
            first.iter().unwrap().take(at as usize).for_each(|batch| drop(batch.unwrap()));
            let second = make(&urls).build().unwrap();
            second.load_state(&first.state()).unwrap();
            let rows: usize = epoch(&second).iter().map(Vec::len).sum();
            let stats = second.stats();
            assert_eq!(stats.yielded, rows as u64);
            assert_conserved(&stats, 360);
            assert_eq!(stats.replayed > 0, at > 0);
            repeats += stats.repeats;
            surplus += stats.surplus;
            replayed += stats.replayed;
        }
    }
    assert!(repeats > 100 && surplus > 100 && replayed > 100, "{repeats} {surplus} {replayed}");
}

/// Which of the seconds in the statistics are wall-clock: no sum over threads.
#[test]
fn seconds_of_single_threads_and_of_waits_are_within_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let urls = support::corpus(folder.path(), 6, 150);
    let loader = support::with_judge(&urls).threads(4).build().unwrap();
    let start = std::time::Instant::now();
    let batches = support::epoch(&loader).len();
    let wall = start.elapsed().as_secs_f64();
    let stats = loader.stats();
    assert!(batches > 5 && stats.captioned > 100 && stats.judged > 100);
    let of = |name: &str| stats.seconds[name];
    // One thread owns the captioner.
    let single =
        [of("encode") + of("caption"), of("judge"), of("batch"), of("wait_consumer"), of("wait_loader")];
    assert!(single.iter().all(|&seconds| 0.0 < seconds && seconds <= wall), "{single:?} of {wall}");
    // A thread for each lane, and the pool.
    for (name, threads) in [("read", 8.0), ("select", 8.0), ("preview", 4.0), ("example", 4.0)] {
        assert!(0.0 < of(name) && of(name) <= threads * wall, "{name}: {} of {wall}", of(name));
    }
    assert_eq!(stats.seconds.len(), 10);
}
