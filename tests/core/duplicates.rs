//! Promise: samples of a batch that are like another are counted; where they are to be deferred, a lane's
//! part of a batch holds none, for any ranks, from any state, with a ledger or without.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::support::{Altered, Row, StubCaptioner, builder, clusters, epoch, full, rows};
use tldr_loader::Result;
use tldr_loader::config::Gate;
use tldr_loader::loader::{Batch, LoaderBuilder};
use tldr_loader::model::Scorer;
use tldr_loader::shard::ShardWriter;

/// With hashes that follow from the picture: its red decides the scene, its green flips that many bits.
fn scenes(urls: &str) -> LoaderBuilder {
    let captioner = Altered::new(StubCaptioner::new()).fingerprint(6).encode(|stub, previews, captions| {
        let mut signals = stub.signals(previews, captions)?;
        for (hash, preview) in signals.semantic_hash.iter_mut().zip(previews.outer_iter()) {
            *hash = support::scene_hash([preview[[0, 0, 0]], preview[[1, 0, 0]]]);
        }
        Ok(signals)
    });
    builder(urls).captioner(captioner, clusters()).gate(Gate::OFF).keep_ratio(0.5).batch_size(64)
}

/// Shards of `n` samples each, with captions and scenes that come again: sample i has the caption i % 40 and
/// the scene i % 50, of which i % 7 * 4 bits are flipped.
fn repeating(folder: &Path, shards: usize, n: usize) -> String {
    for shard in 0..shards {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for i in (0..n).map(|i| shard * n + i) {
            let image = support::png([(i % 50) as u8, (i % 7 * 4) as u8, 0]);
            let caption = format!("caption {}", i % 40);
            writer.write(&format!("{i:06}"), &[("png", &image), ("txt", caption.as_bytes())]).unwrap();
        }
        writer.finish().unwrap();
    }
    support::pattern(folder, shards)
}

/// Whether two pictures of a batch are nearly the same.
fn is_near(batch: &Batch, a: usize, b: usize) -> bool {
    let [a, b] = [a, b].map(|row| {
        let pixels = &batch.images.as_u8().unwrap()[row * 192..];
        support::scene_hash([pixels[0], pixels[64]])
    });
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>() <= 15
}

#[test]
fn samples_that_repeat_another_of_their_batch_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let urls = repeating(folder.path(), 4, 160);
    let loader = scenes(&urls).build().unwrap();
    let (mut captions, mut images) = (0, 0);
    for batch in loader.iter().unwrap() {
        let batch = batch.unwrap();
        assert!(batch.clusters.iter().all(Option::is_some), "signals are there");
        let mut seen = HashMap::new();
        for row in 0..batch.len() {
            captions += u64::from(seen.insert(&batch.captions[row], ()).is_some());
            images += u64::from((0..row).any(|other| is_near(&batch, row, other)));
        }
    }
    let stats = loader.stats();
    assert!(captions > 100 && images > 50 && images != captions, "{captions} {images}");
    assert_eq!((stats.duplicate_captions, stats.duplicate_images), (captions, images));
    // Without signals nobody knows of images.
    let bare = full(&urls).build().unwrap();
    epoch(&bare);
    assert!(bare.stats().duplicate_captions > 0 && bare.stats().duplicate_images == 0);
}

/// Pairs of rows that are alike within a lane's part of each batch but the last ones.
fn alike(batches: &[Batch], per_lane: usize) -> usize {
    let pairs = |batch: &Batch| {
        let pair = |a: usize, b: usize| {
            a / per_lane == b / per_lane && (batch.captions[a] == batch.captions[b] || is_near(batch, a, b))
        };
        (0..batch.len()).map(|a| (0..a).filter(|&b| pair(a, b)).count()).sum::<usize>()
    };
    batches.iter().map(pairs).sum()
}

#[test]
fn deferred_samples_come_in_a_later_batch_of_their_lane() {
    let folder = tempfile::tempdir().unwrap();
    let urls = repeating(folder.path(), 4, 300);
    let make = |defer| scenes(&urls).batch_size(32).lanes(4).defer_duplicates(defer).build().unwrap();
    let (plain, deferring) = (make(false), make(true));
    let run =
        |loader: &tldr_loader::Loader| -> Vec<Batch> { loader.iter().unwrap().map(Result::unwrap).collect() };
    let (before, after) = (run(&plain), run(&deferring));
    assert_eq!((before.len() as u64, after.len()), (plain.num_batches(), before.len()));
    // The same samples, in another order.
    let ids = |batches: &[Batch]| {
        let mut ids: Vec<u64> = batches.iter().flat_map(|batch| batch.ids.iter().map(|id| id.0)).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&before), ids(&after));
    let (before, after) = (alike(&before, 8), alike(&after[..after.len() - 4], 8));
    assert!(before > 50 && after == 0, "{before} pairs before, {after} after");
    let stats = deferring.stats();
    assert!(stats.deferred > 20 && stats.counts.conserved());
    assert_eq!(stats.yielded + stats.replayed, stats.counts.kept + stats.repeats - stats.surplus);
    assert_eq!((plain.stats().deferred, stats.surplus), (0, plain.stats().surplus));
    assert!(
        plain
            .load_state(&deferring.state())
            .unwrap_err()
            .to_string()
            .contains("defer_duplicates: this loader has false")
    );
}

#[test]
fn where_all_are_alike_places_are_filled_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path().join("00000.tar")).unwrap();
    for i in 0..400 {
        writer
            .write(&format!("{i:06}"), &[("png", &support::png([1, 2, 3])), ("txt", b"a caption")])
            .unwrap();
    }
    writer.finish().unwrap();
    let loader = full(&support::pattern(folder.path(), 1)).defer_duplicates(true).build().unwrap();
    let found: BTreeSet<u64> = epoch(&loader).into_iter().flatten().map(|row| row.id).collect();
    assert_eq!(found.len(), 400, "each once");
    let stats = loader.stats();
    assert_eq!((stats.repeats, stats.surplus, stats.yielded), (0, 0, 400));
}

/// The batches of `ranks` ranks, each sorted by id.
fn global(make: &dyn Fn() -> LoaderBuilder, ranks: usize) -> Vec<Vec<Row>> {
    let mut all: Vec<Vec<Row>> = vec![];
    for rank in 0..ranks {
        let loader = make().batch_size(32 / ranks).rank(rank).world_size(ranks).lanes(4).build().unwrap();
        let own = epoch(&loader);
        all.resize_with(own.len(), Vec::new);
        all.iter_mut().zip(own).for_each(|(all, rows)| all.extend(rows));
    }
    all.iter_mut().for_each(|batch| batch.sort_by_key(|row| (row.id, row.pixels)));
    all
}

#[test]
fn ranks_threads_and_states_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let urls = repeating(folder.path(), 5, 210);
    let fused = |text: &str| scenes(&urls).fuse(text.parse().unwrap()).defer_duplicates(true);
    let makes: [&dyn Fn() -> LoaderBuilder; 3] =
        [&|| fused("original"), &|| fused("coin(0.5)"), &|| full(&urls).defer_duplicates(true)];
    for make in makes {
        let one = global(make, 1);
        assert!(one.len() > 5);
        assert_eq!(one, global(make, 2));
        assert_eq!(one, global(make, 4));
        let whole = make().threads(1).build().unwrap();
        let expected = epoch(&whole);
        assert!(whole.stats().deferred > 0);
        for at in [1, expected.len() / 2, expected.len() - 1] {
            let first = make().build().unwrap();
            let taken: Vec<_> = first.iter().unwrap().take(at).map(|b| rows(&b.unwrap())).collect();
            assert_eq!(taken, expected[..at]);
            let second = make().build().unwrap();
            second.load_state(&first.state()).unwrap();
            assert_eq!(epoch(&second), expected[at..], "resumed at {at}");
        }
    }
}

/// A ledger leaves out the hashes of what its gate dropped: they are made up for where they are asked for.
#[test]
fn a_ledger_changes_nothing() {
    use support::{with_judge, with_stub};
    use tldr_loader::ledger::Ledger;

    let folder = tempfile::tempdir().unwrap();
    let urls = repeating(folder.path(), 4, 160);
    let root = folder.path().join("ledger");
    let open = || Ledger::open(&root, None).unwrap();
    let make = || scenes(&urls).keep_ratio([(0, 0.25), (1, 1.0)]).gate(Gate::top(0.5)).batch_size(32);
    epoch(&make().ledger(open()).build().unwrap());
    for number in [0, 1] {
        let run = |ledger: Ledger| {
            let loader = make().defer_duplicates(true).ledger(ledger).build().unwrap();
            loader.set_epoch(number);
            (epoch(&loader), loader.stats().encoded)
        };
        let cold = run(Ledger::new()).0;
        let (first, encoded) = run(open());
        assert_eq!(first, cold, "epoch {number}");
        // What passes the gate has its hash.
        assert!(if number == 0 { encoded == 0 } else { (1..600).contains(&encoded) }, "{encoded}");
        assert_eq!(run(open()), (cold, 0), "epoch {number}");
    }
    let judged = || with_judge(&urls).defer_duplicates(true);
    epoch(&with_stub(&urls).ledger(open()).build().unwrap());
    let warm = epoch(&judged().ledger(open()).build().unwrap());
    assert_eq!(warm, epoch(&judged().build().unwrap()));
}
