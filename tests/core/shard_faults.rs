//! Promise: what is wrong with a shard costs what it must, under its reason, with its place;
//! nothing hangs, panics or is lost without a count, and skipping counts as reading does.
#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor, Read, Write};

use tldr_loader::error::{ErrorKind, FailReason};
use tldr_loader::shard::{Group, ReadOptions, ShardReader};
use tldr_loader::{Result, Shard};

const BLOCK: usize = 512;

fn shard() -> Shard {
    Shard::local("s/00000.tar", "s")
}

/// A tar file of `members`, with its end marker.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Four groups of three members each, of different sizes.
fn four() -> Vec<u8> {
    let mut members = Vec::new();
    for (i, size) in [700, 3, 512, 1100].into_iter().enumerate() {
        members.push((format!("k{i}.jpg"), vec![b'x'; size]));
        members.push((format!("k{i}.txt"), b"a caption".to_vec()));
        members.push((format!("k{i}.json"), b"{\"caption\": \"another\"}".to_vec()));
    }
    tar(&members.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect::<Vec<_>>())
}

fn read(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Group>> {
    let mut reader = ShardReader::over(&shard(), Cursor::new(bytes.to_vec()), options)?;
    let mut groups = Vec::new();
    while let Some(group) = reader.next_group()? {
        groups.push(group);
    }
    assert_eq!(reader.position(), groups.len() as u64);
    assert!(groups.iter().enumerate().all(|(i, group)| match group {
        Ok(sample) => sample.position == i as u64,
        Err(failed) => failed.position == i as u64,
    }));
    // Skipping, and any alternation of the two, counts the same groups and reads them equally.
    for mask in 0..4u64 {
        let mut reader = ShardReader::over(&shard(), Cursor::new(bytes.to_vec()), options)?;
        for (i, group) in (0u64..).zip(&groups) {
            if mask >> (i % 2) & 1 == 1 {
                assert!(reader.skip_group()?, "group {i} of {}", groups.len());
            } else {
                assert_eq!(reader.next_group()?.as_ref(), Some(group));
            }
        }
        assert!(!reader.skip_group()?);
    }
    Ok(groups)
}

/// As [`read`], from a file, where skipping seeks.
fn read_file(bytes: &[u8]) -> Vec<Group> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(bytes).unwrap();
    let mut shard = shard();
    shard.url = file.path().to_str().unwrap().into();
    let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
    let groups: Vec<Group> = std::iter::from_fn(|| reader.next_group().unwrap()).collect();
    let mut reader = ShardReader::open(&shard, &ReadOptions::default()).unwrap();
    while reader.skip_group().unwrap() {}
    assert_eq!(reader.position(), groups.len() as u64);
    groups
}

/// Key, position, offset, reason and detail of the one failed group.
fn only_failure(groups: &[Group]) -> (&str, u64, u64, FailReason, &str) {
    let failed: Vec<_> = groups.iter().filter_map(|group| group.as_ref().err()).collect();
    let [failed] = failed[..] else { panic!("{failed:?}") };
    (&failed.key, failed.position, failed.offset, failed.reason, &failed.detail)
}

#[test]
fn each_reason_costs_one_sample() {
    use FailReason::*;
    let json = b"{\"caption\": 3, \"null\": null, \"good\": \"from json\", \"empty\": \" \"}";
    /// Reason, caption key, members of the bad group, part of the detail.
    type Case<'a> = (FailReason, Option<&'a str>, &'a [(&'a str, &'a [u8])], &'a str);
    let cases: [Case<'_>; 17] = [
        (MissingImage, None, &[("b.txt", b"x"), ("b.gif", b"i")], "its members are gif, txt"),
        (MissingImage, None, &[("b.seg.png", b"i"), ("b.txt", b"x")], "seg.png, txt"),
        (MissingCaption, None, &[("b.jpg", b"i"), ("b.json", json)], "no txt"),
        (MissingCaption, Some("absent"), &[("b.jpg", b"i"), ("b.json", json)], "\"absent\""),
        (MissingCaption, Some("null"), &[("b.jpg", b"i"), ("b.json", json)], "\"null\""),
        (EmptyCaption, None, &[("b.jpg", b"i"), ("b.txt", b" \n\t ")], "txt"),
        (EmptyCaption, Some("empty"), &[("b.jpg", b"i"), ("b.txt", b"x"), ("b.json", json)], "empty"),
        (CaptionNotUtf8, None, &[("b.jpg", b"i"), ("b.txt", b"caf\xe9")], "index 3"),
        (BadJson, Some("good"), &[("b.jpg", b"i"), ("b.txt", b"x"), ("b.json", b"{\"a\"")], "EOF"),
        (
            BadJson,
            Some("caption"),
            &[("b.jpg", b"i"), ("b.txt", b"x"), ("b.json", json)],
            "a number, neither a string nor a list of strings",
        ),
        (
            RepeatedKey,
            None,
            &[("b.jpg", b"i"), ("b.txt", b"x"), ("b.JPG", b"i")],
            "b.jpg is there more than once",
        ),
        (RepeatedKey, None, &[("a.jpg", b"i"), ("a.txt", b"x")], "key a was seen before"),
        (
            MembersApart,
            None,
            &[("a.txt", b"x")],
            "here it has only txt: the members of a sample must be adjacent",
        ),
        (MembersApart, None, &[("a.gif", b"x")], "sort the tar by name (tar --sort=name)"),
        // WebDataset's first dot.
        (
            MissingImage,
            None,
            &[("b.x.jpg", b"i"), ("b.x.txt", b"x")],
            "b.x.jpg is no image, since keys end at the first dot of the file name, as in WebDataset: here the key is b \
             and the extension x.jpg; write names with one dot",
        ),
        (
            MissingCaption,
            None,
            &[("b.jpg", b"i"), ("b.x.txt", b"x")],
            "b.x.txt is no caption, since keys end",
        ),
        (MembersApart, None, &[("a.x.jpg", b"i"), ("a.x.txt", b"x")], "a.x.jpg is no image, since keys end"),
    ];
    for (reason, field, members, detail) in cases {
        let options = ReadOptions { caption_key: field.map(str::to_owned), ..ReadOptions::default() };
        let good: &[(&str, &[u8])] = &[
            ("a.jpg", b"i"),
            ("a.txt", b"x"),
            ("m.jpg", b"i"),
            ("m.txt", b"x"),
            ("z.jpg", b"i"),
            ("z.txt", b"x"),
        ];
        let bytes = tar(&[&good[..4], members, &good[4..]].concat());
        let groups = read(&bytes, &options).unwrap();
        assert_eq!(groups.len(), 4, "{reason} {members:?}");
        let failed = only_failure(&groups);
        assert_eq!((failed.1, failed.2, failed.3), (2, 4 * 2 * BLOCK as u64, reason), "{members:?}");
        assert!(failed.4.contains(detail), "{detail} in {}", failed.4);
        assert_eq!(read_file(&bytes).len(), 4);
    }
}

#[test]
fn captions_come_from_json_or_text() {
    let json = b"{\"caption\": \" from json \", \"null\": null}";
    let bytes = tar(&[
        ("a.png", b"second"),
        ("a.txt", b"\xef\xbb\xbf from text\r\n"),
        ("a.json", json),
        ("a.jpg", b"first"),
        ("b.caption", b"from caption"),
        ("b.webp", b"i"),
    ]);
    for (field, expected) in [
        (None, ["from text", "from caption"]),
        (Some("caption"), ["from json", "from caption"]),
        (Some("null"), ["from text", "from caption"]),
    ] {
        let options = ReadOptions { caption_key: field.map(str::to_owned), ..ReadOptions::default() };
        let samples: Vec<_> = read(&bytes, &options).unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(samples.iter().map(|s| s.caption.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(samples[0].image, b"first");
        assert_eq!(samples[0].json.as_deref(), Some(&json[..]));
    }
}

#[test]
fn interleaved_members_are_never_merged() {
    let bytes = tar(&[("a.jpg", b"i"), ("b.jpg", b"i"), ("a.txt", b"x"), ("b.txt", b"x")]);
    let reasons: Vec<_> =
        read(&bytes, &ReadOptions::default()).unwrap().into_iter().map(|g| g.unwrap_err().reason).collect();
    use FailReason::*;
    assert_eq!(reasons, [MissingCaption, MissingCaption, MembersApart, MembersApart]);
}

#[test]
fn a_shard_cut_at_any_byte_loses_the_group_that_is_cut() {
    let whole = four();
    let full = read(&whole, &ReadOptions::default()).unwrap();
    let offsets: Vec<usize> = full.iter().map(|g| g.as_ref().unwrap().offset as usize).collect();
    let end = whole.len() - 2 * BLOCK;
    // Where members end: there a cut cannot be told from an archive without an end marker.
    let mut archive = tar::Archive::new(&whole[..]);
    let members = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        entry.raw_file_position() as usize + (entry.size() as usize).next_multiple_of(BLOCK)
    });
    let boundaries: Vec<usize> = members.collect();
    for cut in 0..whole.len() {
        let groups = read(&whole[..cut], &ReadOptions::default()).unwrap();
        // A group counts from the moment that its first header is whole; an empty shard counts one.
        let expected = offsets.iter().filter(|&&offset| offset + BLOCK <= cut).count().max(1);
        assert_eq!(groups.len(), expected, "cut at {cut}");
        let (last, before) = groups.split_last().unwrap();
        assert_eq!(before, &full[..before.len()], "cut at {cut}");
        match last {
            Err(failed) => {
                assert_eq!(failed.reason, FailReason::TruncatedSample, "cut at {cut}");
                assert!(cut < end, "cut at {cut}: {}", failed.detail);
            }
            Ok(sample) => {
                let full = full[groups.len() - 1].as_ref().unwrap();
                assert!(cut >= end || boundaries.contains(&cut), "cut at {cut}");
                assert_eq!((&sample.image, &sample.caption), (&full.image, &full.caption), "cut at {cut}");
            }
        }
        if cut % 37 == 0 || boundaries.contains(&cut) {
            assert_eq!(read_file(&whole[..cut]), groups, "cut at {cut}");
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut scorer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    scorer.write_all(bytes).unwrap();
    scorer.finish().unwrap()
}

#[test]
fn a_compressed_shard_cut_anywhere_conserves_its_counts() {
    let whole = four();
    let full = read(&whole, &ReadOptions::default()).unwrap();
    for packed in [gzip(&whole), zstd::encode_all(&whole[..], 1).unwrap()] {
        assert_eq!(read(&packed, &ReadOptions::default()).unwrap(), full);
        assert_eq!(read_file(&packed), full);
        for cut in 0..packed.len() {
            let groups = read(&packed[..cut], &ReadOptions::default()).unwrap();
            let (last, before) = groups.split_last().unwrap();
            assert_eq!(before, &full[..before.len()], "cut at {cut}");
            match last {
                Err(failed) => assert_eq!(failed.reason, FailReason::TruncatedSample, "cut at {cut}"),
                Ok(_) => assert_eq!(groups, full, "cut at {cut}"),
            }
        }
    }
}

#[test]
fn a_damaged_frame_ends_the_shard_with_the_group_it_cuts() {
    // Two frames; the second is damaged in its middle. Bytes that do not compress, so that there
    // is a middle.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(5000)
    .collect();
    let whole = tar(&[("a.txt", b"x"), ("a.jpg", b"i"), ("b.txt", b"x"), ("b.jpg", &noise)]);
    let (first, second) = whole.split_at(6 * BLOCK);
    type Pack = fn(&[u8]) -> Vec<u8>;
    let packs: [Pack; 2] = [gzip, |bytes| {
        let mut scorer = zstd::Encoder::new(Vec::new(), 1).unwrap();
        scorer.include_checksum(true).unwrap();
        scorer.write_all(bytes).unwrap();
        scorer.finish().unwrap()
    }];
    for pack in packs {
        let mut packed = [pack(first), pack(second)].concat();
        assert_eq!(read(&packed, &ReadOptions::default()).unwrap().iter().filter(|g| g.is_ok()).count(), 2);
        let len = packed.len();
        packed.truncate(len - 40);
        packed.extend([0xff; 40]);
        let groups = read(&packed, &ReadOptions::default()).unwrap();
        assert_eq!(groups.len(), 2);
        assert!(groups[0].is_ok());
        let failed = only_failure(&groups);
        assert_eq!((failed.0, failed.3), ("b", FailReason::TruncatedSample));
    }
}

#[test]
fn a_damaged_header_costs_the_groups_beside_it() {
    let whole = four();
    let full = read(&whole, &ReadOptions::default()).unwrap();
    let headers: Vec<usize> = tar::Archive::new(&whole[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().raw_header_position() as usize)
        .collect();
    for (i, &at) in headers.iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[at + 5] ^= 0x40; // in the name: only the checksum can tell
        let groups = read(&bytes, &ReadOptions::default()).unwrap();
        assert_eq!(read_file(&bytes), groups);
        assert_eq!(groups.len(), 4, "member {i}");
        let hit = i / 3;
        for (j, group) in groups.iter().enumerate() {
            let expected = &full[j];
            match group {
                _ if j != hit => assert_eq!(group, expected, "member {i}, group {j}"),
                Err(failed) => {
                    assert_eq!(failed.reason, FailReason::TruncatedSample);
                    assert!(failed.detail.contains(&format!("byte {at} is damaged")), "{}", failed.detail);
                }
                // The json, the group's last member, is not needed.
                Ok(sample) => assert!(i % 3 == 2 && sample.json.is_none(), "member {i}"),
            }
        }
        let mut reader = ShardReader::over(&shard(), Cursor::new(bytes), &ReadOptions::default()).unwrap();
        while reader.skip_group().unwrap() {}
        let next = headers.get(i + 1).copied();
        // After the last header there is none to be found: the rest is lost with its group.
        assert_eq!(reader.skipped_bytes(), next.map_or(0, |next| (next - at) as u64), "member {i}");
    }
}

#[test]
fn zeros_in_the_middle_do_not_end_a_shard() {
    let four = four();
    // Archives put end to end, each with its end marker.
    let b = tar(&[("b.jpg", b"i"), ("b.txt", b"x")]);
    let groups = read(&[&four[..], &b[..]].concat(), &ReadOptions::default()).unwrap();
    assert_eq!(groups.iter().filter(|group| group.is_ok()).count(), 5);
    // A hole over the second group's first header and some data of the first.
    let second = read(&four, &ReadOptions::default()).unwrap()[1].as_ref().unwrap().offset as usize;
    let mut hole = four.clone();
    hole[second - 100..second + 100].fill(0);
    hole[second + 100..second + BLOCK].fill(0);
    let groups = read(&hole, &ReadOptions::default()).unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(only_failure(&groups).0, "k1");
    // What stands behind the end marker and is no archive is not the shard's.
    let groups = read(&[&four[..], &[1; 700]].concat(), &ReadOptions::default()).unwrap();
    assert_eq!(groups.iter().filter(|group| group.is_ok()).count(), 4);
}

#[test]
fn what_is_lost_behind_an_end_marker_is_told() {
    let four = four();
    let all = read(&four, &ReadOptions::default()).unwrap();
    let skipped = |bytes: &[u8]| {
        let bytes = Cursor::new(bytes.to_vec());
        let mut reader = ShardReader::over(&shard(), bytes, &ReadOptions::default()).unwrap();
        while reader.skip_group().unwrap() {}
        assert_eq!(reader.position(), 4);
        reader.skipped_bytes()
    };
    // Padding is not; other bytes, part of an archive, or a hole that was never filled, are.
    assert_eq!(skipped(&[&four[..], &[0; 64 << 10]].concat()), 0);
    assert_eq!(skipped(&[&four[..], &[1; 700]].concat()), 700);
    assert_eq!(skipped(&[&four[..], &four[..300]].concat()), 300);
    assert!(skipped(&[&four[..], &vec![0; 2 << 20]].concat()) >= 2 << 20);
    // Compressed data that are damaged after the marker of what was read: a second archive, or a
    // checksum that says that something before was altered.
    let mut altered = gzip(&four);
    let checksum = altered.len() - 8;
    altered[checksum] ^= 1;
    let mut second = [gzip(&four), gzip(&four)].concat();
    let half = second.len() / 2;
    second[half + 12..].fill(0xff);
    for bytes in [altered, second] {
        let groups = read(&bytes, &ReadOptions::default()).unwrap();
        assert_eq!(groups[..4], all[..]);
        let (key, _, _, reason, detail) = only_failure(&groups);
        assert_eq!((groups.len(), key, reason), (5, "", FailReason::TruncatedSample));
        assert!(detail.contains("damaged after its end marker"), "{detail}");
    }
}

#[test]
fn a_promised_size_is_not_believed() {
    let mut header = tar::Header::new_ustar();
    header.set_path("a.jpg").unwrap();
    for size in [1 << 20, 1 << 40, u64::MAX >> 2, u64::MAX] {
        header.set_size(size);
        header.set_cksum();
        let bytes = [&header.as_bytes()[..], b"data"].concat();
        if size == u64::MAX {
            // It cannot even be padded: not a header.
            assert!(read(&bytes, &ReadOptions::default()).is_err());
        } else {
            assert_eq!(
                only_failure(&read(&bytes, &ReadOptions::default()).unwrap()).3,
                FailReason::TruncatedSample
            );
            assert_eq!(read_file(&bytes).len(), 1);
        }
    }
}

#[test]
fn what_is_no_archive_is_an_error_that_says_so() {
    let page = b"<html><body>404 Not Found</body></html>".repeat(40);
    let bad_gzip = [&[0x1f, 0x8b, 0x07][..], &[1; 600]].concat();
    // Shorter than a header, such as the pointer that git-lfs leaves.
    let pointer = &page[..130];
    let cases = [
        (&page[..], "it is an HTML page"),
        (pointer, "it is an HTML page"),
        (&bad_gzip, "nothing of it can be decompressed"),
    ];
    for (bytes, detail) in cases {
        let error = read(bytes, &ReadOptions::default()).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Shard { .. }), "{error}");
        assert_eq!(error.shard.as_deref(), Some("s/00000.tar"));
        assert!(error.to_string().contains(detail), "{error}");
    }
}

#[test]
fn sparse_members_are_refused_by_name() {
    let mut header = tar::Header::new_gnu();
    header.set_path("a.jpg").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    header.set_cksum();
    let gnu = header.as_bytes().to_vec();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    builder.append_data(&mut header, "a.jpg", &b""[..]).unwrap();
    for bytes in [gnu, builder.into_inner().unwrap()] {
        let error = read(&bytes, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("a.jpg is a sparse file"), "{error}");
    }
}

/// Delivers some bytes, then fails.
struct Breaks(Cursor<Vec<u8>>);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection lost")),
            n => Ok(n),
        }
    }
}

#[test]
fn a_fault_of_the_store_is_never_a_lost_sample() {
    let whole = four();
    for packed in [whole.clone(), gzip(&whole), zstd::encode_all(&whole[..], 1).unwrap()] {
        let breaks = Breaks(Cursor::new(packed[..packed.len() / 2].to_vec()));
        let mut reader = ShardReader::over(&shard(), breaks, &ReadOptions::default()).unwrap();
        let error = loop {
            match reader.next_group() {
                Ok(Some(group)) => drop(group.unwrap()),
                Ok(None) => panic!("the fault was taken for the end"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("connection lost") && error.contains("s/00000.tar"), "{error}");
        assert!(reader.next_group().unwrap().is_none());
    }
}

#[test]
fn a_missing_shard_is_named() {
    let error = ShardReader::open(&shard(), &ReadOptions::default()).err().unwrap().to_string();
    assert!(error.contains("cannot open s/00000.tar"), "{error}");
}
