//! Promise: a sample read by index is the one that reading in order gives, faults included, and
//! the ranges of an index are those of the members' data.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::Path;

use proptest::prelude::*;
use tldr_loader::Shard;
use tldr_loader::shard::{Group, ReadOptions, ShardFetcher, ShardIndex, ShardReader};

/// Extensions that members are drawn from: used ones, unused ones, and a second image.
const EXTENSIONS: [&str; 7] = ["jpg", "txt", "json", "png", "npy", "caption", "cls"];

fn shard(path: &Path) -> Shard {
    tldr_loader::shard::list(&[path.to_str().unwrap().to_owned()], None, &Default::default())
        .unwrap()
        .remove(0)
}

/// A member: key, extension, bytes.
type Member = (usize, usize, usize);

fn tar(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (i, &(key, extension, size)) in members.iter().enumerate() {
        let mut data: Vec<u8> = (0..size).map(|at| (at * 31 + i * 7) as u8).collect();
        match EXTENSIONS[extension] {
            "json" => data = format!("{{\"caption\": \"number {i}\"}}").into_bytes(),
            "txt" | "caption" => data.iter_mut().for_each(|b| *b = b'a' + *b % 26),
            _ => {}
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        let long = if key % 5 == 4 { "long/".repeat(30) } else { String::new() };
        builder
            .append_data(&mut header, format!("{long}k{key}.{}", EXTENSIONS[extension]), &data[..])
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// All groups in order, and the index that came with them.
fn in_order(shard: &Shard, options: &ReadOptions) -> (Vec<Group>, ShardIndex) {
    let mut reader = ShardReader::open(shard, options).unwrap();
    let groups = std::iter::from_fn(|| reader.next_group().unwrap()).collect();
    (groups, reader.take_index())
}

fn fetch(fetcher: &mut ShardFetcher, index: &ShardIndex, rows: &[usize]) -> Vec<Group> {
    let mut found = vec![];
    let mut each = |row, group| {
        assert_eq!(row, rows[found.len()]);
        found.push(group);
        Ok(())
    };
    fetcher.fetch(index, rows, &mut each).unwrap();
    found
}

fn check_same(bytes: &[u8], options: &ReadOptions) -> Result<(), TestCaseError> {
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    file.as_file().write_all(bytes).unwrap();
    let shard = shard(file.path());
    let (groups, index) = in_order(&shard, options);
    let scanned = ShardIndex::scan(&shard).unwrap();
    for index in [index, scanned] {
        prop_assert_eq!(index.len(), groups.len());
        let mut fetcher = ShardFetcher::open(&shard, &index, options, None).unwrap().unwrap();
        // Backwards: no row depends on another.
        let rows: Vec<usize> = (0..groups.len()).rev().collect();
        prop_assert_eq!(fetch(&mut fetcher, &index, &rows), groups.iter().rev().cloned().collect::<Vec<_>>());
        prop_assert!(fetcher.fetch(&index, &[groups.len()], &mut |_, _| Ok(())).is_err());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn reading_by_index_is_reading_in_order(
        members in prop::collection::vec((0usize..12, 0usize..7, prop_oneof![0usize..2000, 15_000usize..40_000]), 1..24),
        sorted in any::<bool>(),
        field in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        damage in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut members = members;
        if sorted {
            members.sort_unstable();
            members.dedup_by_key(|m| (m.0, m.1));
        }
        let mut bytes = tar(&members);
        if let Some(at) = damage {
            // Not the first header: bytes without any are no archive.
            let at = 512 + at.index(bytes.len() - 512);
            bytes[at] ^= 0x55;
        }
        if let Some(at) = cut {
            bytes.truncate(at.index(bytes.len()).max(512));
        }
        let options = ReadOptions { caption_key: field.then(|| "caption".to_owned()), ..ReadOptions::default() };
        check_same(&bytes, &options)?;
    }
}

#[test]
fn odd_archives_are_read_by_index_as_in_order() {
    for bytes in crate::shard_odd::archives() {
        check_same(&bytes, &ReadOptions::default()).unwrap();
    }
}

#[test]
fn ranges_are_those_of_the_data() {
    let members: Vec<Member> = (0..30).map(|i| (i / 3, i % 3, 100 * i)).collect();
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    file.as_file().write_all(&tar(&members)).unwrap();
    let index = ShardIndex::scan(&shard(file.path())).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut truth = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        truth.push((entry.path().unwrap().to_str().unwrap().to_owned(), data));
    }
    let mut found = Vec::new();
    for row in 0..index.len() {
        for member in index.members(row) {
            let name = format!("{}.{}", index.key(row).unwrap(), member.extension);
            let range = member.range.start as usize..member.range.end as usize;
            found.push((name, bytes[range].to_vec()));
        }
    }
    assert_eq!(found, truth);
    assert_eq!((index.key(index.len()), index.offset(index.len())), (None, None));
    assert_eq!(index.members(index.len()).count(), 0);
}

#[test]
fn an_index_goes_on_where_the_last_one_ended() {
    let members: Vec<Member> = (0..30).map(|i| (i / 3, i % 3, 10)).collect();
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    file.as_file().write_all(&tar(&members)).unwrap();
    let shard = shard(file.path());
    let options = ReadOptions::default();
    let (groups, _) = in_order(&shard, &options);
    let mut reader = ShardReader::open(&shard, &options).unwrap();
    for part in [0..4usize, 4..9, 9..10] {
        part.clone().for_each(|_| assert!(reader.skip_group().unwrap()));
        let index = reader.take_index();
        assert_eq!((index.first(), index.len()), (part.start as u64, part.len()));
        let mut fetcher = ShardFetcher::open(&shard, &index, &options, None).unwrap().unwrap();
        let rows: Vec<usize> = (0..index.len()).collect();
        assert_eq!(fetch(&mut fetcher, &index, &rows), groups[part]);
    }
}

#[test]
fn what_cannot_be_read_at_random_says_so() {
    let members: Vec<Member> = (0..30).map(|i| (i / 3, i % 3, 10)).collect();
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("a.tar");
    std::fs::write(&plain, tar(&members)).unwrap();
    let zipped = folder.path().join("b.tar");
    std::fs::write(&zipped, zstd::encode_all(&tar(&members)[..], 1).unwrap()).unwrap();
    let options = ReadOptions::default();

    let (plain, zipped) = (shard(&plain), shard(&zipped));
    let index = ShardIndex::scan(&zipped).unwrap();
    assert_eq!((index.len(), index.is_random_access()), (10, false));
    assert!(ShardFetcher::open(&zipped, &index, &options, None).unwrap().is_none());

    let index = ShardIndex::scan(&plain).unwrap();
    assert!(index.is_random_access());
    // Another file under the same name: its ranges are no longer known.
    std::fs::write(&*plain.url, tar(&members[3..])).unwrap();
    assert!(ShardFetcher::open(&plain, &index, &options, None).unwrap().is_none());
}
