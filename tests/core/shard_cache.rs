//! Promise: a local cache of remote shards changes nothing that is read. It never serves an older version, stays within its
//! bound, deletes nothing that it did not write, and is no more than a warning where it cannot work.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::fault_server::{Reply, Request, Server};
use crate::support;
use tldr_loader::Shard;
use tldr_loader::ledger::Ledger;
use tldr_loader::shard::{Group, ReadOptions, ShardReader, Store, list};

fn options(folder: &Path, bytes: u64) -> Store {
    Store {
        range_bytes: 10_000,
        ranges_ahead: 3,
        retries: 3,
        read_timeout: Duration::from_secs(10),
        shard_cache_dir: Some(folder.to_owned()),
        shard_cache_bytes: bytes,
        ..Store::default()
    }
}

fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    let files = (0..8).map(|i| (format!("/set/{i}.tar"), support::shard_of(30)));
    Server::start(files, answer)
}

fn shard(url: &str, options: &Store) -> Shard {
    list(&[url.to_owned()], None, options).unwrap().remove(0)
}

fn read(shard: &Shard) -> Vec<Group> {
    let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
    std::iter::from_fn(|| reader.next_group().unwrap()).collect()
}

/// The files in a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn bytes_in(folder: &Path) -> u64 {
    files(folder).iter().map(|path| path.metadata().unwrap().len()).sum()
}

/// Groups, and the requests that they took.
fn counted(server: &Server, shard: &Shard) -> (Vec<Group>, usize) {
    let before = server.requests().len();
    let groups = read(shard);
    (groups, server.requests().len() - before)
}

#[test]
fn what_was_read_is_read_from_the_cache_after_a_look_at_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply::default());
    let shard = shard(&server.url("/set/0.tar"), &options(folder.path(), 1 << 20));
    let pieces = support::shard_of(30).len().div_ceil(10_000);
    let (first, asked) = counted(&server, &shard);
    assert_eq!((first.len(), asked), (30, pieces));
    for _ in 0..2 {
        let (again, asked) = counted(&server, &shard);
        assert!(again == first, "other samples than without the cache");
        assert_eq!(asked, 1);
        assert_eq!(server.requests().last().unwrap().range, Some((0, 0)));
    }
    assert!(files(folder.path()).iter().all(|path| !path.to_string_lossy().contains("aside")));
}

#[test]
fn ranges_are_cut_where_the_kept_ones_begin_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply::default());
    let url = server.url("/set/0.tar");
    let first = read(&shard(&url, &options(folder.path(), 1 << 20)));
    // Some are missing, and requests are of another size.
    let mut kept = files(folder.path());
    kept.sort();
    kept.iter().step_by(3).for_each(|path| fs::remove_file(path).unwrap());
    for range_bytes in [700, 9_999, 23_456, 1 << 20] {
        let stores = Store { range_bytes, ..options(folder.path(), 1 << 20) };
        assert!(read(&shard(&url, &stores)) == first, "{range_bytes}");
    }
    let (_, asked) = counted(&server, &shard(&url, &options(folder.path(), 1 << 20)));
    assert_eq!(asked, 1);
}

#[test]
fn a_shard_that_changed_is_not_served_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let version = Arc::new(AtomicUsize::new(0));
    let bodies = [support::shard_of(30), support::shard_of(31), support::shard_of(30)];
    let now = Arc::clone(&version);
    let server = server(move |_| {
        let version = now.load(Ordering::Relaxed);
        let etag = ["\"v0\"", "\"v1\"", "\"v2\""][version];
        Reply { etag: Some(etag), ..Reply::default() }.body(bodies[version].clone())
    });
    let mut lengths = vec![];
    for turn in [0, 0, 1, 1, 2] {
        version.store(turn, Ordering::Relaxed);
        let shard = shard(&server.url("/set/0.tar"), &options(folder.path(), 1 << 20));
        let (groups, asked) = counted(&server, &shard);
        lengths.push((groups.len(), asked > 1));
    }
    assert_eq!(lengths, [(30, true), (30, false), (31, true), (31, false), (30, true)]);
}

#[test]
fn what_has_no_version_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply { etag: None, ..Reply::default() });
    let shard = shard(&server.url("/set/0.tar"), &options(folder.path(), 1 << 20));
    assert_eq!(counted(&server, &shard).1, counted(&server, &shard).1);
    assert!(files(folder.path()).is_empty());
}

#[test]
fn the_bound_holds_and_what_was_used_last_stays() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply::default());
    let size = support::shard_of(30).len() as u64;
    // Room for three shards and the files' heads.
    let most = 3 * size + size / 2;
    let shards: Vec<Shard> =
        (0..8).map(|i| shard(&server.url(&format!("/set/{i}.tar")), &options(folder.path(), most))).collect();
    for shard in &shards[..3] {
        read(shard);
    }
    // Times of change have a resolution: what was used is made older than what is used next.
    let old = SystemTime::now() - Duration::from_secs(60);
    files(folder.path()).iter().for_each(|path| fs::File::open(path).unwrap().set_modified(old).unwrap());
    assert_eq!(counted(&server, &shards[1]).1, 1);
    for shard in &shards[3..5] {
        read(shard);
        assert!(bytes_in(folder.path()) <= most, "{} of {most}", bytes_in(folder.path()));
    }
    assert_eq!(counted(&server, &shards[1]).1, 1, "it was used last of the first three");
    assert!(counted(&server, &shards[0]).1 > 1);
    for shard in &shards {
        read(shard);
        assert!(bytes_in(folder.path()) <= most);
    }
}

#[test]
fn nothing_of_others_is_deleted_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply::default());
    let size = support::shard_of(30).len() as u64;
    let stores = options(folder.path(), size + size / 2);
    let url = server.url("/set/0.tar");
    let first = read(&shard(&url, &stores));
    // Others write where the cache writes, under its names, too; and what they wrote is old.
    let own = files(folder.path());
    let strangers: Vec<PathBuf> = vec![
        folder.path().join("notes.txt"),
        own[0].with_file_name("notes.txt"),
        own[0].with_file_name(".aside-of-mine"),
        own[0].with_file_name("0123456789abcdef-0-10.range"),
        own[1].clone(),
    ];
    fs::remove_file(&own[1]).unwrap();
    for path in &strangers {
        fs::write(path, "mine").unwrap();
        fs::File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    for i in 0..8 {
        assert!(read(&shard(&server.url(&format!("/set/{i}.tar")), &stores)) == first || i > 0);
    }
    assert!(read(&shard(&url, &stores)) == first);
    assert!(strangers.iter().all(|path| fs::read(path).unwrap() == b"mine"), "{strangers:?}");
}

#[test]
fn a_damaged_file_is_noticed_and_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply::default());
    let stores = options(folder.path(), 1 << 20);
    let url = server.url("/set/0.tar");
    let first = read(&shard(&url, &stores));
    let damage: [fn(Vec<u8>) -> Vec<u8>; 6] = [
        |mut bytes| {
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        },
        |mut bytes| {
            bytes[30] ^= 1;
            bytes
        },
        |mut bytes| {
            bytes[50] ^= 1;
            bytes
        },
        |bytes| bytes[..bytes.len() - 1].to_vec(),
        |bytes| bytes[..20].to_vec(),
        |_| vec![],
    ];
    for (turn, damage) in damage.iter().enumerate() {
        for path in files(folder.path()) {
            fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
        }
        assert!(read(&shard(&url, &stores)) == first, "damage {turn}");
        // An empty file has not the beginning of those of the cache, and stays.
        let again = counted(&server, &shard(&url, &stores)).1;
        assert!(again == 1 || turn == 5, "damage {turn}: {again} requests");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, "mine").unwrap();
    let server = server(|_| Reply::default());
    let expected =
        read(&shard(&server.url("/set/0.tar"), &Store { shard_cache_dir: None, ..options(&file, 64 << 30) }));
    for place in
        [file.clone(), file.join("below"), PathBuf::from("/dev/full/cache"), PathBuf::from("/proc/cache")]
    {
        let shard = shard(&server.url("/set/0.tar"), &options(&place, 1 << 20));
        assert!(read(&shard) == expected && read(&shard) == expected, "{}", place.display());
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn processes_and_threads_may_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(|_| Reply::default());
    let size = support::shard_of(30).len() as u64;
    let expected = read(&shard(&server.url("/set/0.tar"), &options(folder.path(), 1 << 20)));
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (server, expected, folder) = (&server, &expected, folder.path());
            scope.spawn(move || {
                for turn in 0..10 {
                    // Bounds of their own make caches of their own, as processes have them.
                    let stores = options(folder, 2 * size + reader);
                    let url = server.url(&format!("/set/{}.tar", (reader + turn) % 4));
                    let groups = read(&shard(&url, &stores));
                    assert!(groups.len() == expected.len() && groups.iter().all(Group::is_ok));
                }
            });
        }
    });
    assert!(bytes_in(folder.path()) <= 3 * size, "{}", bytes_in(folder.path()));
}

#[test]
fn epochs_are_the_same_with_a_cache_and_a_second_one_asks_for_no_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, cache) = (folder.path().join("corpus"), folder.path().join("cache"));
    fs::create_dir(&corpus).unwrap();
    support::corpus(&corpus, 3, 100);
    let served = (0..3).map(|i| {
        let name = format!("{i:05}.tar");
        (format!("/{name}"), fs::read(corpus.join(name)).unwrap())
    });
    let server = Server::start(served, |_| Reply::default());
    let url = server.url("/{00000..00002}.tar");
    let epochs = |stores: Store, ledger: Option<Ledger>| {
        let builder = support::builder(&url).stores(stores).rotate(true);
        let loader = match ledger {
            Some(ledger) => builder.ledger(ledger).build().unwrap(),
            None => builder.build().unwrap(),
        };
        let first = support::epoch(&loader);
        let before = server.promised();
        let later = [support::epoch(&loader), support::epoch(&loader)];
        (first, later, server.promised() - before)
    };
    let plain = Store { shard_cache_dir: None, ..options(&cache, 64 << 30) };
    let expected = epochs(plain, None);
    assert!(!expected.0.is_empty() && expected.2 > 10_000);
    for ledger in [None, Some(Ledger::new())] {
        let is_by_index = ledger.is_some();
        let found = epochs(options(&cache, 1 << 30), ledger);
        assert!((&found.0, &found.1) == (&expected.0, &expected.1), "by index: {is_by_index}");
        // Looks at versions, of a byte each.
        assert!(found.2 < 200, "{} bytes, by index: {is_by_index}", found.2);
    }
}

#[test]
fn options_of_a_cache_that_has_no_effect_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    support::corpus(folder.path(), 1, 10);
    let local = folder.path().join("00000.tar").display().to_string();
    let error = list(&[local], None, &options(folder.path(), 1 << 20)).unwrap_err().to_string();
    assert!(error.contains("invalid shard_cache_dir=") && error.contains("without remote shards"), "{error}");
    let bound = Store { shard_cache_bytes: 1, ..Store::default() };
    let error = list(&["https://h/0.tar".into()], None, &bound).unwrap_err().to_string();
    assert!(
        error.contains("invalid shard_cache_bytes=1: it has no effect without shard_cache_dir"),
        "{error}"
    );
}
