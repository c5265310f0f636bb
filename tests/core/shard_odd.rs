//! Promise: odd archives are read as Python's tarfile reads them, or refused by what they are: old checksums, padding,
//! archives put end to end, PAX records, other formats.
#![allow(clippy::unwrap_used)]

use std::io::{Cursor, Write};

use tldr_loader::Shard;
use tldr_loader::error::{ErrorKind, FailReason};
use tldr_loader::shard::{Group, ReadOptions, ShardReader};

const BLOCK: usize = 512;

/// How a checksum adds bytes.
#[derive(Clone, Copy, PartialEq)]
enum Sum {
    Unsigned,
    Signed,
}

/// A member: header and data, padded. `size` is what the header says.
fn member(name: &[u8], kind: u8, size: usize, data: &[u8], sum: Sum) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..124].copy_from_slice(b"0000644\x000000000\x000000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let of = |&byte: &u8| if sum == Sum::Signed { i64::from(byte.cast_signed()) } else { i64::from(byte) };
    let checksum = block.iter().map(of).sum::<i64>();
    block[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    block.extend(data);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), b'0', data.len(), data, Sum::Unsigned)
}

fn pax(records: &[u8]) -> Vec<u8> {
    member(b"PaxHeaders/x", b'x', records.len(), records, Sum::Unsigned)
}

/// A sample of an image and a caption, which is the key.
fn sample(key: &str) -> Vec<u8> {
    [file(&format!("{key}.jpg"), b"i"), file(&format!("{key}.txt"), key.as_bytes())].concat()
}

/// `samples` with an end marker of `zeros` bytes.
fn archive(keys: &[&str], zeros: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = keys.iter().flat_map(|key| sample(key)).collect();
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}

/// Two archives put end to end, whose end markers are as short as can be, or padded to 10 KiB as tar pads them; the
/// second may start with its folder.
fn seams() -> Vec<Vec<u8>> {
    let folder = member(b"./", b'5', 0, b"", Sum::Unsigned);
    let padded = archive(&["a", "b"], 10_240 - 4 * 2 * BLOCK);
    let second = archive(&["c"], 2 * BLOCK);
    vec![
        [archive(&["a", "b"], 2 * BLOCK), second.clone()].concat(),
        [padded.clone(), second.clone()].concat(),
        [padded, folder, second].concat(),
    ]
}

/// The seam of two archives that divides members of one key, with or without what belongs to no sample there.
fn divided() -> Vec<Vec<u8>> {
    let first = [sample("a"), file("b.jpg", b"i"), vec![0; 2 * BLOCK]].concat();
    let second = [file("b.txt", b"x"), sample("c"), vec![0; 2 * BLOCK]].concat();
    let index = file("__index__", b"");
    vec![[first.clone(), second.clone()].concat(), [first, index, second].concat()]
}

/// Archives for the test that reading by index is reading in order.
pub(crate) fn archives() -> Vec<Vec<u8>> {
    let signed = member("é.jpg".as_bytes(), b'0', 1, b"i", Sum::Signed);
    let old = [signed, member("é.txt".as_bytes(), b'0', 1, b"x", Sum::Signed), sample("z")].concat();
    let broken = [sample("a"), pax(b"12 size=1x2\n"), sample("b"), sample("c"), vec![0; 2 * BLOCK]].concat();
    [seams(), divided(), vec![old, broken]].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// The groups of a shard, and the bytes that were skipped.
fn read(bytes: &[u8]) -> tldr_loader::Result<(Vec<Group>, u64)> {
    let shard = Shard::local("s/00000.tar", "s");
    let bytes = Cursor::new(bytes.to_vec());
    let mut reader = ShardReader::over(&shard, bytes, &ReadOptions::default())?;
    let mut groups = vec![];
    while let Some(group) = reader.next_group()? {
        groups.push(group);
    }
    Ok((groups, reader.skipped_bytes()))
}

/// Keys of what can be used.
fn keys(groups: &[Group]) -> Vec<&str> {
    groups.iter().flatten().map(|sample| &*sample.key).collect()
}

fn refused(bytes: &[u8]) -> String {
    let error = read(bytes).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Shard { .. }), "{error}");
    error.to_string()
}

#[test]
fn checksums_of_signed_bytes_are_checksums() {
    let members = |sum| {
        let of = |name: &str, data: &[u8]| member(name.as_bytes(), b'0', data.len(), data, sum);
        [of("café.jpg", b"i"), of("café.txt", b"x"), vec![0; 2 * BLOCK]].concat()
    };
    let (unsigned, signed) = (members(Sum::Unsigned), members(Sum::Signed));
    assert_ne!(signed, unsigned);
    assert_eq!(read(&signed).unwrap(), read(&unsigned).unwrap());
    assert_eq!(keys(&read(&signed).unwrap().0), ["café"]);
    // One off is no checksum of either kind.
    let mut off = signed;
    off[0] ^= 1;
    assert_eq!(keys(&read(&off).unwrap().0), Vec::<&str>::new());
}

#[test]
fn zeros_around_gzip_streams_are_padding() {
    let plain = archive(&["a", "b"], 2 * BLOCK);
    let whole = read(&plain).unwrap();
    let (first, second) = plain.split_at(3 * BLOCK);
    for zeros in [1, 17, 511, 100_000] {
        let padding = vec![0; zeros];
        for packed in [
            [gzip(&plain), padding.clone()].concat(),
            [gzip(first), padding.clone(), gzip(second)].concat(),
            [gzip(first), padding.clone(), gzip(second), padding].concat(),
        ] {
            assert_eq!(read(&packed).unwrap(), whole, "{zeros}");
        }
    }
    // Anything else behind a stream is damage.
    let (groups, _) = read(&[gzip(&plain), b"\0\0x".to_vec()].concat()).unwrap();
    assert_eq!((groups.len(), groups[2].as_ref().unwrap_err().reason), (3, FailReason::TruncatedSample));
}

#[test]
fn archives_end_to_end_are_read_whole_however_they_are_packed() {
    for bytes in seams() {
        let found = read(&bytes).unwrap();
        assert_eq!((keys(&found.0), found.0.len(), found.1), (vec!["a", "b", "c"], 3, 0));
        for split in [700, bytes.len() / 2, bytes.len() - 6 * BLOCK] {
            let (first, second) = bytes.split_at(split);
            assert_eq!(read(&[gzip(first), gzip(second)].concat()).unwrap(), found);
            assert_eq!(read(&[zstd(first), zstd(second)].concat()).unwrap(), found);
        }
    }
}

#[test]
fn members_on_two_sides_of_a_seam_are_not_one_sample() {
    for bytes in divided() {
        let (groups, skipped) = read(&bytes).unwrap();
        assert_eq!((keys(&groups), skipped), (vec!["a", "c"], 0));
        let failed: Vec<_> = groups.iter().filter_map(|group| group.as_ref().err()).collect();
        let found: Vec<_> = failed.iter().map(|failed| (&*failed.key, failed.reason)).collect();
        assert_eq!(found, [("b", FailReason::MissingCaption), ("b", FailReason::RepeatedKey)]);
        assert!(failed[1].detail.contains("the seam of two archives"), "{}", failed[1].detail);
        for pack in [gzip, zstd] {
            assert_eq!(read(&pack(&bytes)).unwrap().0, groups);
        }
    }
    // A whole sample on each side: the first counts, as in one archive.
    let twice = [archive(&["a", "b"], 1024), archive(&["b", "c"], 1024)].concat();
    let (groups, _) = read(&twice).unwrap();
    assert_eq!(keys(&groups), ["a", "b", "c"]);
    assert_eq!(groups[2].as_ref().unwrap_err().reason, FailReason::RepeatedKey);
    // One block of zeros is no end marker.
    let hole = [file("b.jpg", b"i"), vec![0; BLOCK], file("b.txt", b"x"), vec![0; 1024]].concat();
    assert_eq!(keys(&read(&hole).unwrap().0), ["b"]);
}

#[test]
fn a_name_before_an_end_marker_names_nothing_behind_it() {
    let long = member(b"././@LongLink", b'L', 6, b"b.txt\0", Sum::Unsigned);
    let bytes = [sample("a"), long, vec![0; 1024], sample("c"), vec![0; 1024]].concat();
    let (groups, skipped) = read(&bytes).unwrap();
    assert_eq!(keys(&groups), ["a", "c"]);
    assert_eq!(skipped, 4 * BLOCK as u64);
}

#[test]
fn a_pax_header_that_cannot_be_understood_is_damage() {
    let data = b"0123456789";
    let with = |records: &[u8]| {
        let parts = [sample("a"), pax(records), file("b.jpg", data), file("b.txt", b"x"), sample("c")];
        [parts.concat(), vec![0; 1024]].concat()
    };
    for records in [&b"11 size=10\n"[..], b"13 comment=x\n", b"11 size=10\n\0\0", b""] {
        let (groups, skipped) = read(&with(records)).unwrap();
        assert_eq!((keys(&groups), skipped), (vec!["a", "b", "c"], 0), "{records:?}");
        assert_eq!(groups[1].as_ref().unwrap().image, data);
    }
    for records in [
        &b"11 size=1x\n"[..],
        b"11 size=-1\n",
        b"13 size=10.0\n",
        b"9 size= \n",
        b"30 size=99999999999999999999\n",
        b"99 size=10\n",
        b"x size=10\n",
        b"8 size10\n",
        b"11 size=10 12 comment=x\n",
    ] {
        let (groups, skipped) = read(&with(records)).unwrap();
        assert_eq!(keys(&groups), ["a", "c"], "{records:?}");
        // The PAX header with its data, the file's header, and its data.
        assert_eq!(skipped, 4 * BLOCK as u64, "{records:?}");
        let failed = groups[1].as_ref().unwrap_err();
        assert_eq!((&*failed.key, failed.reason), ("b", FailReason::TruncatedSample), "{records:?}");
        assert!(failed.detail.contains("the tar header at byte 2048 is damaged"), "{}", failed.detail);
    }
}

#[test]
fn another_format_is_named_with_what_to_do() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let filled = |start: &[u8], length: usize| {
        let noise = (0..length).map(|at| (at * 7919 % 251) as u8);
        start.iter().copied().chain(noise).collect::<Vec<u8>>()
    };
    for length in [40, 300, 5000] {
        for (start, what, remedy) in [
            (&b"BZh91AY&SY"[..], "compressed with bzip2", "bunzip2"),
            (b"\xFD7zXZ\0", "compressed with xz", "unxz"),
            (b"\x04\x22\x4D\x18", "compressed with lz4", "unlz4"),
            (b"PK\x03\x04", "a zip archive", "unzip"),
            (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "7z x"),
            (b"Rar!\x1A\x07", "a rar archive", "unrar"),
            (b"PAR1", "a Parquet file", "the shards that it lies beside"),
        ] {
            let bytes = filled(start, length);
            let error = refused(&bytes);
            assert!(error.contains(&format!("it is {what}")) && error.contains(remedy), "{error}");
            let error = refused(&gzip(&bytes));
            assert!(error.contains(&format!("decompressed with gzip, it is {what}")), "{error}");
        }
        for (text, what) in [
            ("<!DOCTYPE html><title>404</title>", "an HTML page"),
            ("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "XML or HTML"),
            ("{\"message\": \"Not Found\"}", "it is json"),
            ("s3://bucket/00000.tar\ns3://bucket/00001.tar\n", "it is text"),
            ("404: Not Found", "it is text"),
        ] {
            let text = format!("{text}{}", " ".repeat(length - 40));
            let error = refused(text.as_bytes());
            assert!(error.contains(what), "{error}");
        }
    }
    assert!(refused(lfs).contains("a pointer of Git LFS") && refused(lfs).contains("git lfs pull"));
    assert!(refused(&gzip(&gzip(&archive(&["a"], 1024)))).contains("compressed with gzip once more"));
    // Neither a header nor known.
    assert!(refused(&filled(b"\x01", 300)).contains("no tar header was found"));
    // A name that is cut, or a word: nobody can tell, so the word is shown.
    let (groups, _) = read(b"Forbidden").unwrap();
    let failed = groups[0].as_ref().unwrap_err();
    assert_eq!(failed.reason, FailReason::TruncatedSample);
    assert!(failed.detail.contains("starts with \"Forbidden\""), "{}", failed.detail);
}
