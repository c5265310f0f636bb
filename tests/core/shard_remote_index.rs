//! Promise: by an index, chosen samples of a remote shard are the ones that reading in order gives,
//! and little else is asked for.
#![allow(clippy::unwrap_used)]

use crate::support;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fault_server::{Reply, Request, Server};
use proptest::prelude::*;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::shard::{
    Group, ReadOptions, ShardFetcher, ShardIndex, ShardReader, ShardWriter, Store, list,
};
use tldr_loader::{Result, Shard};

/// Samples of the shard.
const SAMPLES: usize = 30;
/// Bytes of an image, about: beyond the gap that is read through.
const IMAGE: usize = 3 * 320 * 320;

/// A PNG of noise, which does not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed, Purpose::Synth, 0);
    let picture =
        image::RgbImage::from_fn(320, 320, |_, _| image::Rgb([(); 3].map(|()| rng.below(256) as u8)));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

fn options() -> Store {
    Store { retries: 3, read_timeout: Duration::from_secs(10), ..Store::default() }
}

fn shard_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    for i in 0..SAMPLES {
        let image = noise(i as u64);
        let json = format!("{{\"number\": {i}}}");
        let members: [(&str, &[u8]); 3] = [("jpg", &image), ("txt", b"a caption"), ("json", json.as_bytes())];
        writer.write(&format!("{i:05}"), &members).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start([("/set/0.tar".into(), shard_bytes())], answer)
}

fn shard(server: &Server) -> Shard {
    list(&[server.url("/set/0.tar")], None, &options()).unwrap().remove(0)
}

/// All groups in order, and their index.
fn in_order(shard: &Shard) -> (Vec<Group>, ShardIndex) {
    let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
    let groups = std::iter::from_fn(|| reader.next_group().unwrap()).collect();
    (groups, reader.take_index())
}

fn fetch(shard: &Shard, index: &ShardIndex, rows: &[usize]) -> Result<Vec<Group>> {
    let mut fetcher = ShardFetcher::open(shard, index, &ReadOptions::default(), None)?.unwrap();
    let mut found = vec![];
    fetcher.fetch(index, rows, &mut |_, group| {
        found.push(group);
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn any_rows_in_any_order_are_those_of_reading_in_order() {
    let breaking = server(|request| match request.number % 5 {
        2 if request.repeats == 0 => Reply { cut: Some(100_000), ..Reply::default() },
        _ => Reply::default(),
    });
    let shard = shard(&breaking);
    let (groups, index) = in_order(&shard);
    assert_eq!((groups.len(), index.len(), index.is_random_access()), (SAMPLES, SAMPLES, true));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(20));
    let rows = prop::collection::vec(0..SAMPLES, 0..12);
    runner
        .run(&rows, |rows| {
            let expected: Vec<Group> = rows.iter().map(|&row| groups[row].clone()).collect();
            prop_assert!(fetch(&shard, &index, &rows).unwrap() == expected, "{rows:?}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_not_chosen_is_not_sent() {
    let server = server(|_| Reply::default());
    let shard = shard(&server);
    let (_, index) = in_order(&shard);
    let (requests, promised) = (server.requests().len(), server.promised());
    let rows: Vec<usize> = (0..SAMPLES).step_by(3).collect();
    fetch(&shard, &index, &rows).unwrap();
    // One request for each: what lies between is further apart than is read through.
    assert_eq!(server.requests().len() - requests, rows.len());
    let most = rows.len() * (IMAGE + 8192);
    assert!(server.promised() - promised <= most as u64, "{} bytes", server.promised() - promised);
    // Neighbours come with one request for each 4 MiB.
    let requests = server.requests().len();
    fetch(&shard, &index, &(0..10).collect::<Vec<_>>()).unwrap();
    assert_eq!(server.requests().len() - requests, 1);
}

#[test]
fn another_version_ends_the_run() {
    let replaced = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&replaced);
    let server = server(move |_| Reply {
        etag: Some(if now.load(Ordering::Relaxed) { "\"v2\"" } else { "\"v1\"" }),
        ..Reply::default()
    });
    let shard = shard(&server);
    let (_, index) = in_order(&shard);
    replaced.store(true, Ordering::Relaxed);
    let message = fetch(&shard, &index, &[1, 2]).unwrap_err().to_string();
    assert!(message.contains("it was replaced while it was read") && message.contains("0.tar"), "{message}");
}

#[test]
fn a_server_without_ranges_is_read_in_order() {
    let server = server(|_| Reply { ranges: false, ..Reply::default() });
    let shard = shard(&server);
    let (_, index) = in_order(&shard);
    assert!(!index.is_random_access());
    assert!(ShardFetcher::open(&shard, &index, &ReadOptions::default(), None).unwrap().is_none());
}

#[test]
fn a_second_epoch_asks_for_kept_samples_only() {
    let server = Server::start((0..2).map(|i| (format!("/{i}.tar"), shard_bytes())), |_| Reply::default());
    let loader = support::builder(&server.url("/{0..1}.tar"))
        .stores(options())
        .keep_ratio(0.25)
        .lanes(1)
        .batch_size(4)
        .build()
        .unwrap();
    let one_epoch = || {
        let before = server.promised();
        assert!(!support::epoch(&loader).is_empty());
        server.promised() - before
    };
    let (first, second) = (one_epoch(), one_epoch());
    assert!(first > 0 && second < first / 2, "{first} and {second} bytes");
}
