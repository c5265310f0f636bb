//! Promise: what is written is read back, whatever the format, the reader's chunks and the mix
//! of reading and skipping; and other tools' archives are read as those tools read them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::process::Command;

use crate::support::wait;
use proptest::prelude::*;
use tldr_loader::shard::{Group, ReadOptions, ShardReader, ShardWriter, Store, list};
use tldr_loader::{SampleId, Shard};

/// Key, image extension and bytes, caption, json.
type Pair = (String, &'static str, Vec<u8>, String, Option<Vec<u8>>);

fn shard(path: &Path) -> Shard {
    list(&[path.to_str().unwrap().to_owned()], None, &Store::default()).unwrap().remove(0)
}

fn write(path: &Path, pairs: &[Pair]) {
    let mut writer = ShardWriter::create(path).unwrap();
    for (key, image, bytes, caption, json) in pairs {
        let mut members: Vec<(&str, &[u8])> = vec![(image, bytes), ("txt", caption.as_bytes())];
        members.extend(json.as_ref().map(|json| ("json", json.as_slice())));
        writer.write(key, &members).unwrap();
    }
    writer.finish().unwrap();
}

fn read_all(mut reader: ShardReader) -> Vec<Group> {
    std::iter::from_fn(|| reader.next_group().unwrap()).collect()
}

/// Returns at most as many bytes as the next of its `sizes` says, and sometimes is interrupted.
struct ShortReads {
    bytes: Cursor<Vec<u8>>,
    sizes: Vec<usize>,
    calls: usize,
}

impl Read for ShortReads {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        match self.sizes[self.calls % self.sizes.len()] {
            0 => Err(io::ErrorKind::Interrupted.into()),
            size => {
                let size = size.min(buffer.len());
                self.bytes.read(&mut buffer[..size])
            }
        }
    }
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    // Keys: in folders or not, with dots in folders, beyond USTAR's 100 and 255 bytes, not ASCII.
    let key = prop_oneof![
        4 => "[a-z0-9_-]{1,12}",
        2 => "[a-z.]{1,5}x/[a-z0-9]{1,8}",
        1 => "[a-zé漢]{90,130}",
        1 => "[a-z]{140,200}/[a-z]{90,130}",
    ];
    let image = prop::sample::select(&["jpg", "jpeg", "png", "webp", "JPG", "Png"][..]);
    let bytes = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..1600),
        1 => prop::sample::select(&[511usize, 512, 513, 40_000][..]).prop_map(|n| vec![7; n]),
    ];
    let caption = "[ \n]{0,2}[a-z][a-zé漢]{0,2}[ -~]{0,40}[a-z][ \t]{0,2}";
    let json = prop::option::of(prop::collection::vec(any::<u8>(), 0..600));
    prop::collection::btree_map(key, (image, bytes, caption, json), 0..12).prop_map(|groups| {
        groups
            .into_iter()
            .map(|(key, (image, bytes, caption, json))| (key, image, bytes, caption, json))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn written_groups_are_read_back(
        pairs in pairs(),
        name in prop::sample::select(&["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst"][..]),
        mut sizes in prop::collection::vec(0usize..1200, 1..6),
        skips in prop::collection::vec(any::<bool>(), 12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        write(&path, &pairs);
        let shard = shard(&path);
        let options = ReadOptions::default();

        let groups = read_all(ShardReader::open(&shard, &options).unwrap());
        prop_assert_eq!(groups.len(), pairs.len());
        for (position, (group, (key, _, bytes, caption, json))) in groups.iter().zip(&pairs).enumerate() {
            let sample = group.as_ref().unwrap();
            prop_assert_eq!(&*sample.key, key.as_str());
            prop_assert_eq!(sample.id, SampleId::new(shard.hash, key));
            prop_assert_eq!(sample.position, position as u64);
            prop_assert_eq!(&sample.image, bytes);
            prop_assert_eq!(&sample.caption, caption.trim());
            prop_assert_eq!(&sample.json, json);
        }

        // A stream that is only ever interrupted never delivers.
        sizes.push(1);
        let short = ShortReads { bytes: Cursor::new(std::fs::read(&path).unwrap()), sizes, calls: 0 };
        prop_assert_eq!(&read_all(ShardReader::over(&shard, short, &options).unwrap()), &groups);

        let mut reader = ShardReader::open(&shard, &options).unwrap();
        for (position, group) in groups.iter().enumerate() {
            prop_assert_eq!(reader.position(), position as u64);
            if skips[position] {
                prop_assert!(reader.skip_group().unwrap());
            } else {
                prop_assert_eq!(reader.next_group().unwrap(), Some(group.clone()));
            }
        }
        prop_assert!(!reader.skip_group().unwrap());
        prop_assert!(reader.next_group().unwrap().is_none());
    }

    #[test]
    fn any_bytes_end_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        magic in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"]),
    ) {
        let shard = Shard::local("x", "s");
        let bytes = Cursor::new([magic, &bytes].concat());
        let mut reader = ShardReader::over(&shard, bytes, &ReadOptions::default()).unwrap();
        while let Ok(Some(_)) = reader.next_group() {}
    }
}

#[test]
fn same_groups_give_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let pairs: Vec<Pair> = vec![("a/0".into(), "jpg", vec![1; 700], "x".into(), Some(b"{}".to_vec()))];
    for ending in ["tar", "tar.gz", "tgz", "tar.zst"] {
        let [a, b] = ["a", "b"].map(|name| folder.path().join(format!("{name}.{ending}")));
        write(&a, &pairs);
        write(&b, &pairs);
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap(), "{ending}");
    }
}

#[test]
fn an_unfinished_shard_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path().join("a.tar.zst")).unwrap();
    writer.write("0", &[("txt", b"x")]).unwrap();
    assert!(!folder.path().join("a.tar.zst").exists());
    drop(writer);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn the_writer_refuses_what_would_not_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path().join("a.tar")).unwrap();
    writer.write("ok", &[("txt", b"x")]).unwrap();
    for key in ["", "a.b", "/a", "a//b", "../a", "./a", ".a", "__x__/a", "a/", "a\0", "ok"] {
        assert!(writer.write(key, &[("txt", b"x")]).is_err(), "{key:?}");
    }
    for members in [&[][..], &[("", &b""[..])], &[("jpg", b""), ("JPG", b"")], &[("a/b", b"")]] {
        assert!(writer.write("k", members).is_err(), "{members:?}");
    }
    let error = ShardWriter::create(folder.path().join("a.zip")).err().unwrap().to_string();
    assert!(error.contains("ends in .tar, .tar.gz, .tgz or .tar.zst"), "{error}");
}

/// Python's tarfile, which webdataset reads and writes with.
fn python(script: &str, arguments: &[&Path]) -> Option<String> {
    let output = match wait::started(Command::new("python3").arg("-c").arg(script).args(arguments)) {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: python3 cannot be run ({error})");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn tarfile_reads_what_the_writer_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let keys = ["0", "a.b/1", &"k".repeat(99), &format!("{}/{}", "d".repeat(150), "é".repeat(120))];
    let pairs: Vec<Pair> =
        (0..).zip(keys).map(|(i, k)| (k.into(), "jpg", vec![b'x'; i * 511], "c".into(), None)).collect();
    write(&path, &pairs);
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name, m.size, m.mtime, m.uid, m.isreg())";
    let Some(listed) = python(script, &[&path]) else { return };
    let expected: String = pairs
        .iter()
        .flat_map(|(key, _, bytes, ..)| [(key, "jpg", bytes.len()), (key, "txt", 1)])
        .map(|(key, extension, size)| format!("{key}.{extension} {size} 0 0 True\n"))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn archives_of_tarfile_are_read_in_every_format() {
    let script = r#"
import io, sys, tarfile
for name, form in ("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT):
    for mode in "", ":gz":
        with tarfile.open(f"{sys.argv[1]}/{name}{mode[1:]}", "w" + mode, format=form) as tar:
            def add(path, data=b"", kind=tarfile.REGTYPE, **fields):
                info = tarfile.TarInfo(path)
                info.size, info.type = len(data), kind
                for field, value in fields.items():
                    setattr(info, field, value)
                tar.addfile(info, io.BytesIO(data))
            add("d", kind=tarfile.DIRTYPE)
            for key in "0", "d/" + "k" * 90, "é" * 20 if name == "ustar" else "d" * 120 + "/" + "é" * 130:
                add(key + ".jpg", key.encode() * 20, mtime=1.5 if name == "pax" else 1, uname="ü")
                add("d/link.jpg", kind=tarfile.SYMTYPE, linkname="x" * (90 if name == "ustar" else 140))
                add(key + ".txt", b" a caption\n", pax_headers={"SCHILY.xattr.user.a": "b\nc"} if name == "pax" else {})
                add("__meta__/0.txt", b"x")
            print(name + mode[1:], *(m.name[:-4] for m in tar if m.name.endswith(".jpg") and m.isreg()), sep="\t")
"#;
    let folder = tempfile::tempdir().unwrap();
    // A tarfile opened for writing lists what was added to it.
    let Some(listed) = python(script, &[folder.path()]) else { return };
    let mut formats = BTreeMap::new();
    for line in listed.lines() {
        let mut fields = line.split('\t');
        let format = fields.next().unwrap();
        let keys: Vec<&str> = fields.collect();
        assert_eq!(keys.len(), 3, "{line}");
        let groups = read_all(
            ShardReader::open(&shard(&folder.path().join(format)), &ReadOptions::default()).unwrap(),
        );
        let read: Vec<_> = groups.into_iter().map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|s| &*s.key).collect::<Vec<_>>(), keys, "{format}");
        for sample in read {
            assert_eq!(sample.image, sample.key.repeat(20).as_bytes());
            assert_eq!(sample.caption, "a caption");
        }
        formats.insert(format.to_owned(), keys.len());
    }
    assert_eq!(formats.len(), 6);
}
