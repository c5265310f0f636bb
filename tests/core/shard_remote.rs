//! Promise: a shard on an HTTP server reads as the same bytes in a local file, whatever the server
//! does that may pass; what does not pass ends the run, naming the shard, and loses no sample.
#![allow(clippy::unwrap_used)]

use crate::support;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fault_server::{Reply, Request, Server};
use tldr_loader::shard::{Group, ReadOptions, ShardReader, ShardWriter, Store, lengths, list};
use tldr_loader::{Result, Shard};

/// Long enough for a machine that is busy; a test that takes this long hangs.
const HANGING: Duration = Duration::from_secs(20);

fn options() -> Store {
    Store {
        range_bytes: 10_000,
        ranges_ahead: 3,
        retries: 2,
        read_timeout: Duration::from_secs(10),
        ..Store::default()
    }
}

/// A shard of 40 samples with images of different sizes, 120 kB in all.
fn shard_bytes(name: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut writer = ShardWriter::create(&path).unwrap();
    for i in 0..40usize {
        let image: Vec<u8> = (0..1500 + 70 * i).map(|at| (at * (i + 7) / 3) as u8).collect();
        writer.write(&format!("{i:05}"), &[("jpg", &image), ("txt", b"a caption")]).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

/// A server with the shard at `/set/0.tar`.
fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start([("/set/0.tar".into(), shard_bytes("0.tar"))], answer)
}

fn shard(url: &str, options: &Store) -> Shard {
    list(&[url.to_owned()], None, options).unwrap().remove(0)
}

fn read(shard: &Shard) -> Result<Vec<Group>> {
    let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
    let mut groups = Vec::new();
    while let Some(group) = reader.next_group()? {
        groups.push(group);
    }
    Ok(groups)
}

/// Groups of the same bytes in a local file `set/NAME`.
fn read_local(name: &str, bytes: &[u8]) -> Vec<Group> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set").join(name);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    read(&shard(path.to_str().unwrap(), &Store::default())).unwrap()
}

fn whole() -> Vec<Group> {
    let groups = read_local("0.tar", &shard_bytes("0.tar"));
    assert_eq!(groups.len(), 40);
    assert!(groups.iter().all(Group::is_ok));
    groups
}

/// Reads the shard of `server` and compares; returns the number of requests.
fn reads_whole(server: &Server, options: &Store) -> usize {
    let groups = read(&shard(&server.url("/set/0.tar"), options)).unwrap();
    assert!(groups == whole(), "other samples than in the file");
    server.requests().len()
}

/// The message with which reading ends, which names the shard.
fn fails(server: &Server, options: &Store) -> String {
    let started = Instant::now();
    let url = server.url("/set/0.tar");
    let shard = shard(&url, options);
    let message = read(&shard).err().unwrap().to_string();
    assert!(message.contains(&format!("(shard {url}")), "{message}");
    assert!(started.elapsed() < HANGING, "{message}");
    message
}

fn pieces(options: &Store) -> usize {
    shard_bytes("0.tar").len().div_ceil(options.range_bytes)
}

#[test]
fn every_format_reads_as_from_a_file_with_ranges_and_without() {
    for name in ["0.tar", "0.tar.gz", "0.tar.zst"] {
        let bytes = shard_bytes(name);
        let local = read_local(name, &bytes);
        for ranges in [true, false] {
            let answer = move |_: &Request| Reply { ranges, ..Reply::default() };
            let server = Server::start([(format!("/set/{name}"), bytes.clone())], answer);
            let shard = shard(&server.url(&format!("/set/{name}")), &options());
            // Twice: the second time it is known that the server has no ranges.
            for _ in 0..2 {
                assert!(read(&shard).unwrap() == local, "{name}, ranges: {ranges}");
            }
            let expected = if ranges { 2 * bytes.len().div_ceil(10_000) } else { 3 };
            assert_eq!(server.requests().len(), expected, "{name}, ranges: {ranges}");
        }
    }
}

#[test]
fn an_empty_object_reads_as_an_empty_file() {
    let server = Server::start([("/set/0.tar".into(), vec![])], |_| Reply::default());
    assert!(read(&shard(&server.url("/set/0.tar"), &options())).unwrap() == read_local("0.tar", &[]));
}

#[test]
fn later_requests_demand_the_version_of_the_first() {
    let server = server(|_| Reply::default());
    reads_whole(&server, &options());
    for request in server.requests() {
        let is_first = request.range.unwrap().0 == 0;
        assert_eq!(request.if_match.as_deref(), (!is_first).then_some("\"v1\""));
    }
}

#[test]
fn a_connection_that_breaks_is_resumed_at_the_very_byte() {
    // Every piece breaks once, after 0, 1, ..., all of its bytes.
    let size = 500;
    let answer = move |request: &Request| {
        let (first, last) = request.range.unwrap();
        let is_piece = first % size == 0 && request.repeats == 0;
        let after = (first / size) * 2 % (last + 2 - first);
        Reply { cut: is_piece.then_some(after), ..Reply::default() }
    };
    let server = server(answer);
    // A connection that the server closed without a word may cost a retry more.
    let options = Store { range_bytes: size, ranges_ahead: 32, retries: 6, ..options() };
    let requests = reads_whole(&server, &options);
    assert!(requests <= 2 * pieces(&options), "{requests} requests");
    let resumed = server.requests().iter().filter(|r| r.range.unwrap().0 % size != 0).count();
    assert!(resumed > pieces(&options) / 2, "{resumed} requests resumed inside a piece");
}

#[test]
fn a_stream_that_breaks_is_fast_forwarded() {
    for cut in [0, 1, 9_999, 50_000] {
        let server = server(move |request| Reply {
            ranges: false,
            cut: (request.number == 1).then_some(cut),
            ..Reply::default()
        });
        assert_eq!(reads_whole(&server, &options()), 3, "cut at {cut}");
    }
}

#[test]
fn what_may_pass_is_asked_again() {
    for status in [408, 429, 500, 503] {
        let server = server(move |request| match request.number {
            1 | 2 => Reply::status(status),
            _ => Reply::default(),
        });
        assert_eq!(reads_whole(&server, &options()), pieces(&options()) + 2, "{status}");
    }
}

#[test]
fn what_lasts_ends_the_run_and_names_shard_and_cause() {
    for (status, requests, cause) in [
        (403, 1, "access is denied"),
        (401, 1, "access is denied"),
        (404, 1, "there is no such object"),
        (400, 1, "400"),
        (500, 3, "reading bytes 0 to 9999 failed 3 times, the last time: "),
    ] {
        let broken = server(move |_| Reply::status(status));
        let message = fails(&broken, &options());
        assert!(message.contains(cause) && message.contains(&status.to_string()), "{message}");
        assert_eq!(broken.requests().len(), requests, "{status}");
        // The same in the middle: what came before is not lost, what follows is not skipped.
        let broken = server(move |request| match request.range {
            Some((60_000, _)) => Reply::status(status),
            _ => Reply::default(),
        });
        let shard = shard(&broken.url("/set/0.tar"), &options());
        let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
        let (mut groups, whole) = (0, whole());
        let error = loop {
            match reader.next_group() {
                Ok(group) => assert_eq!(group.as_ref(), Some(&whole[groups])),
                Err(error) => break error.to_string(),
            }
            groups += 1;
        };
        assert!(error.contains(cause.split("bytes").next().unwrap()), "{error}");
        assert!((15..40).contains(&groups), "{groups} groups before byte 60000");
        assert!(reader.next_group().unwrap().is_none());
    }
}

#[test]
fn a_server_that_is_not_there_ends_the_run() {
    let url = server(|_| Reply::default()).url("/set/0.tar");
    let message = read(&shard(&url, &options())).unwrap_err().to_string();
    assert!(message.contains("refused") && message.contains("failed 3 times"), "{message}");
}

#[test]
fn a_server_that_never_answers_ends_the_run() {
    let options = Store { read_timeout: Duration::from_millis(150), retries: 1, ..options() };
    let silent = server(|_| Reply { silent: true, ..Reply::default() });
    let message = fails(&silent, &options);
    assert!(message.contains("failed 2 times, the last time: no answer within 150ms"), "{message}");
    let stalling = server(|_| Reply { stall: Some(77), ..Reply::default() });
    let message = fails(&stalling, &options);
    assert!(message.contains("nothing came for 150ms"), "{message}");
}

#[test]
fn a_server_that_stalls_once_or_trickles_is_waited_for() {
    let stalling =
        server(|request| Reply { stall: (request.number == 2).then_some(300), ..Reply::default() });
    let impatient = Store { read_timeout: Duration::from_millis(700), retries: 6, ..options() };
    reads_whole(&stalling, &impatient);
    let trickling = server(|_| Reply { trickle: Some(211), ..Reply::default() });
    reads_whole(&trickling, &options());
}

#[test]
fn an_object_that_is_replaced_midway_ends_the_run() {
    // By the condition of the request, or, where the server ignores it, by the answer.
    for (conditions, now) in [(true, Some("\"v2\"")), (false, Some("\"v2\"")), (false, Some("W/\"v1\""))] {
        let server = server(move |request| {
            let etag = if request.number > 4 { now } else { Some("\"v1\"") };
            Reply { etag, conditions, ..Reply::default() }
        });
        let message = fails(&server, &options());
        assert!(message.contains("it was replaced while it was read"), "{message}");
    }
    // Nothing can be demanded by a weak tag or by none.
    for etag in [Some("W/\"v1\""), None] {
        let server = server(move |_| Reply { etag, ..Reply::default() });
        reads_whole(&server, &options());
        assert!(server.requests().iter().all(|request| request.if_match.is_none()));
    }
}

#[test]
fn a_wrong_content_length_never_passes_for_the_end() {
    // A range has its own length; what is missing after its last byte is not missed.
    let too_long = |ranges| server(move |_| Reply { length_off: 5, ranges, ..Reply::default() });
    reads_whole(&too_long(true), &options());
    let too_long = too_long(false);
    let message = fails(&too_long, &options());
    assert!(message.contains("failed 3 times"), "{message}");
    // Too short: each answer is resumed where it ended.
    let too_short = server(|request| Reply {
        length_off: if request.repeats == 0 && request.range.unwrap().0 % 10_000 == 0 { -7 } else { 0 },
        ..Reply::default()
    });
    assert_eq!(reads_whole(&too_short, &options()), 2 * pieces(&options()));
}

#[test]
fn no_more_is_held_than_the_ranges_ahead() {
    let options = Store { range_bytes: 4_000, ranges_ahead: 3, ..options() };
    let server = server(|_| Reply::default());
    let shard = shard(&server.url("/set/0.tar"), &options);
    let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
    while let Some(group) = reader.next_group().unwrap() {
        let group = group.unwrap();
        // What was taken of the stream: up to this group, and at most one buffer of 32 KiB.
        let taken = group.offset + 8192 + (32 << 10);
        let held = server.promised().saturating_sub(taken);
        assert!(held <= 3 * 4_000, "{held} bytes at {}", group.offset);
    }
}

#[test]
fn a_server_without_ranges_is_not_read_further_than_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path().join("0.tar")).unwrap();
    for i in 0..40 {
        writer.write(&i.to_string(), &[("jpg", &vec![7; 1 << 20]), ("txt", b"x")]).unwrap();
    }
    writer.finish().unwrap();
    let bytes = std::fs::read(folder.path().join("0.tar")).unwrap();
    let server = Server::start([("/0.tar".into(), bytes)], |_| Reply { ranges: false, ..Reply::default() });
    let options = Store { range_bytes: 100_000, ..options() };
    let shard = shard(&server.url("/0.tar"), &options);
    let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
    reader.next_group().unwrap().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // The sample, the bound, and what the system buffers between two processes.
    assert!(server.sent() < 16 << 20, "{} bytes", server.sent());
    while reader.skip_group().unwrap() {}
    assert_eq!(reader.position(), 40);
}

#[test]
fn a_blocked_read_notices_the_wish_to_stop() {
    let server = server(|_| Reply { silent: true, ..Reply::default() });
    let options = Store { read_timeout: 10 * HANGING, ..options() };
    let shard = shard(&server.url("/set/0.tar"), &options);
    let stop = Arc::new(AtomicBool::new(false));
    let setter = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        setter.store(true, Ordering::Relaxed);
    });
    let started = Instant::now();
    assert!(ShardReader::open_until(&shard, &ReadOptions::default(), &stop).is_err());
    assert!(started.elapsed() < HANGING);
}

#[test]
fn a_dropped_loader_does_not_wait_for_a_server_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    support::corpus(folder.path(), 1, 400);
    let bytes = std::fs::read(folder.path().join("00000.tar")).unwrap();
    let server = Server::start([("/00000.tar".into(), bytes)], |request| Reply {
        stall: (request.number > 0).then_some(90_000),
        ..Reply::default()
    });
    let stores = Store { read_timeout: 10 * HANGING, range_bytes: 100_000, ..options() };
    let loader = support::full(&server.url("/00000.tar"))
        .lengths(vec![400])
        .lanes(1)
        .shuffle_windows(1)
        .stores(stores)
        .build()
        .unwrap();
    let started = Instant::now();
    let mut batches = loader.iter().unwrap();
    batches.next().unwrap().unwrap();
    drop(batches);
    assert!(started.elapsed() < HANGING);
}

#[test]
fn signed_urls_keep_their_query_and_do_not_show_it() {
    let signed = |request: &Request| match request.target.ends_with("?sig=a%2Fb&x={1}") {
        true => Reply::default(),
        false => Reply::status(403),
    };
    let server = server(signed);
    let groups = read(&shard(&server.url("/set/0.tar?sig=a%2Fb&x={1}"), &options())).unwrap();
    assert_eq!(groups.len(), 40);
    let refused = shard(&server.url("/set/0.tar?sig=secret"), &options());
    assert!(!format!("{refused:?}").contains("secret"));
    assert!(!read(&refused).unwrap_err().to_string().contains("secret"));
}

#[test]
fn escaped_paths_are_sent_as_written_and_named_as_local_ones() {
    let server = Server::start([("/my%20set/0%2B.tar".into(), shard_bytes("0.tar"))], |_| Reply::default());
    let shard = shard(&server.url("/my%20set/0%2B.tar"), &options());
    assert_eq!((&*shard.source, &*shard.path), ("my set", "0+.tar"));
    assert_eq!(read(&shard).unwrap().len(), 40);
}

#[test]
fn lengths_come_from_the_files_beside_remote_shards_or_a_scan() {
    let files = |extra: &[(&str, &str)]| {
        let mut files: Vec<(String, Vec<u8>)> =
            (0..20).map(|i| (format!("/set/{i:05}.tar"), shard_bytes("0.tar"))).collect();
        files.extend(extra.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())));
        files
    };
    let measure = |extra: &[(&str, &str)], absent: u16| {
        let server = Server::start(files(extra), move |request| {
            let is_there = request.target.ends_with(".tar") || absent == 404;
            if is_there { Reply::default() } else { Reply::status(absent) }
        });
        let shards = list(&[server.url("/set/{00000..00019}.tar")], None, &options()).unwrap();
        let mut calls = vec![];
        let lengths = lengths(&shards, &mut |done, of| calls.push((done, of)));
        (lengths.map_err(|error| error.to_string()), calls.len())
    };
    assert_eq!(measure(&[], 404), (Ok(vec![40; 20]), 20));
    // A store that does not let folders be listed says 403 where a file is not there.
    assert_eq!(measure(&[], 403), (Ok(vec![40; 20]), 20));
    let some = [
        ("/set/sizes.json", r#"{"00003.tar": 7}"#),
        ("/set/00003_stats.json", r#"{"successes": 8}"#),
        ("/set/00004_stats.json", r#"{"count": 10, "successes": 9}"#),
        ("/set/00005_stats.json", r#"{"successes": 0}"#),
        ("/set/__len__", "800"),
    ];
    let (lengths, scanned) = measure(&some, 404);
    let lengths = lengths.unwrap();
    assert_eq!((lengths[3], lengths[4], lengths[5], scanned), (7, 9, 40, 18));
    let error = measure(&[("/set/sizes.json", r#"{"00003.tar": 0}"#)], 404).0.unwrap_err();
    assert!(error.contains("/set/sizes.json") && error.contains("00003.tar"), "{error}");
    let error = measure(&[("/set/sizes.json", "<html>")], 404).0.unwrap_err();
    assert!(error.contains("/set/sizes.json: expected a map"), "{error}");
    assert!(measure(&[], 500).0.unwrap_err().contains("sizes.json"));
}

#[test]
fn a_scan_that_fails_names_the_first_shard_that_fails() {
    let shard = shard_bytes("0.tar");
    let files = (0..20).map(|i| (format!("/set/{i}.tar"), shard.clone()));
    let server = Server::start(files, |request| match request.target.as_str() {
        "/set/7.tar" | "/set/9.tar" => Reply::status(403),
        _ => Reply::default(),
    });
    let shards = list(&[server.url("/set/{0..19}.tar")], None, &options()).unwrap();
    let error = lengths(&shards, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("/set/7.tar"), "{error}");
}

#[test]
fn lists_mix_places_and_ways_of_writing_them() {
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("near");
    std::fs::create_dir(&local).unwrap();
    for name in ["a.tar", "b{1}.tar"] {
        std::fs::write(local.join(name), b"").unwrap();
    }
    let listed = "# shards\n\nnear/*.tar\n  s3://b/{x,y}.tar::gs://c/d/0.tar\nhttps://h/far/1.tar?sig=1\r\n";
    std::fs::write(folder.path().join("shards.txt"), listed).unwrap();
    std::fs::write(folder.path().join("shards"), listed).unwrap();
    let names = |pattern: String| -> Vec<String> {
        let shards = list(&[pattern], None, &Store::default()).unwrap();
        shards.iter().map(|shard| format!("{}/{}", shard.source, shard.path)).collect()
    };
    let expected = ["near/a.tar", "near/b{1}.tar", "b/x.tar", "b/y.tar", "d/0.tar", "far/1.tar"];
    assert_eq!(names(folder.path().join("shards.txt").display().to_string()), expected);
    assert_eq!(names(format!("@{}", folder.path().join("shards").display())), expected);
    let azure = "abfss://g@account.dfs.core.windows.net/2.tar";
    let mixed = format!("http://[::1]:9/e/0.tar::{}::gs://f/1.tar::{azure}", local.join("a.tar").display());
    assert_eq!(names(mixed), ["e/0.tar", "near/a.tar", "f/1.tar", "g/2.tar"]);
}

#[test]
fn what_cannot_be_listed_is_refused_before_anything_is_asked() {
    for (pattern, expected) in [
        ("s3://b/*.tar", "globs (* ?) are for local paths"),
        ("https://h/folder/", "cannot be listed"),
        ("hdfs://h/a.tar", "hdfs:// is not read"),
        ("pipe:aws s3 cp s3://b/{0..9}.tar -", "write s3://b/{0..9}.tar, which is read without a command"),
        ("pipe:curl -s 'https://h/0.tar' || true", "write https://h/0.tar, which"),
        ("https://h/list.txt", "a list of shards must be a local file"),
        ("@nowhere.txt", "read the list nowhere.txt"),
        ("https://h/0.tar::https://h/0.tar", "listed twice"),
        ("https://h/a/0.tar::https://g/a/0.tar", "read them as two sources, each with a name= of its own"),
        ("s3://b/a//0.tar", "a//0.tar"),
    ] {
        let error = list(&[pattern.into()], None, &Store::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{pattern}: {error}");
    }
    for (stores, expected) in [
        (Store { endpoint: Some("minio:9000".into()), ..options() }, "invalid endpoint=\"minio:9000\""),
        (Store { read_timeout: Duration::ZERO, ..options() }, "read_timeout"),
        (Store { ranges_ahead: 0, ..options() }, "ranges_ahead"),
    ] {
        let error = list(&["https://h/0.tar".into()], None, &stores).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// One epoch over local shards and over `url`, which holds the same.
fn same_epochs(folder: &Path, url: &str, stores: &Store) {
    let local = support::pattern(folder, 4);
    for make in [support::full as fn(&str) -> tldr_loader::loader::LoaderBuilder, support::builder] {
        let near = support::epoch(&make(&local).build().unwrap());
        let far = support::epoch(&make(url).stores(stores.clone()).build().unwrap());
        assert!(!near.is_empty() && near == far, "{} and {} batches", near.len(), far.len());
    }
}

#[test]
fn a_loader_yields_the_same_over_http() {
    let folder = tempfile::tempdir().unwrap();
    support::corpus(folder.path(), 4, 100);
    let files = (0..4).map(|i| {
        let name = format!("{i:05}.tar");
        (format!("/{name}"), std::fs::read(folder.path().join(name)).unwrap())
    });
    let server = Server::start(files, |request| match (request.repeats, request.number % 11) {
        (0, 3) => Reply { cut: Some(1000), ..Reply::default() },
        (0, 7) => Reply::status(503),
        _ => Reply::default(),
    });
    let stores = Store { retries: 6, ..options() };
    same_epochs(folder.path(), &server.url("/{00000..00003}.tar"), &stores);
}
