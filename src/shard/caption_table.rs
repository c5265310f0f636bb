//! Captions from a table beside the corpus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hash;
use crate::sample::{Sample, is_blank, trimmed};
use crate::shard::join::{JoinBy, Names};
use crate::shard::join_table::{Row, rows};

/// Set in the length of a caption that another one of the same sample follows.
const MORE: u32 = 1 << 31;

/// Captions by key, uid or identity.
///
/// In memory 20 bytes a caption and its text. Names are hashes of 64 bits, as in [`Subset`](super::Subset).
#[derive(Debug)]
pub struct CaptionTable {
    by: JoinBy,
    /// Hash of a name, and where its captions begin in `texts`; ascending.
    entries: Vec<(u64, u64)>,
    /// Of each caption its length, four bytes, and its text.
    texts: Vec<u8>,
    fingerprint: u64,
    example: Box<str>,
    file: Box<str>,
}

impl CaptionTable {
    /// Reads a table: a `.parquet`, `.jsonl` or `.tsv` with `caption`, and `uid` or `key` (or as
    /// `tldr-loader export` writes it). A caption may be a list of captions. Null and empty ones are skipped.
    ///
    /// # Errors
    /// A file that cannot be read, is none of these, or has no caption; two captions of one sample.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut entries, mut texts, mut example) = (vec![], Vec::new(), String::new());
        let by = rows("captions", path, true, &mut |Row { name, text, mut captions }| {
            captions.iter_mut().for_each(|caption| *caption = trimmed(caption));
            captions.retain(|caption| !is_blank(caption));
            if captions.is_empty() {
                return Ok(());
            }
            if entries.is_empty() {
                example = text();
            }
            entries.push((name, texts.len() as u64));
            for (at, caption) in captions.iter().enumerate() {
                let length = u32::try_from(caption.len()).ok().filter(|length| length & MORE == 0);
                let length = length.ok_or("a caption of 2 GiB")?;
                let more = if at + 1 < captions.len() { MORE } else { 0 };
                texts.extend_from_slice(&(length | more).to_le_bytes());
                texts.extend_from_slice(caption.as_bytes());
            }
            Ok(())
        })?;
        let given = || format!("{:?}", path.display());
        if entries.is_empty() {
            return Err(Error::option(
                "captions",
                given(),
                "a table with captions in a column `caption`, not all null or empty",
            ));
        }
        entries.sort_unstable();
        let file = path.file_name().map_or(given(), |name| name.to_string_lossy().into_owned()).into();
        let mut table = Self { by, entries, texts, fingerprint: 0, example: example.into(), file };
        let of_two = table.entries.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        let (mut repeats, mut differ) = (false, None);
        for pair in of_two {
            repeats = true;
            let show = |at| table.texts_at(at).map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
            let two = (show(pair[0].1), show(pair[1].1));
            if two.0 != two.1 {
                differ = Some(format!("two rows for one {by}, {} and {}", two.0, two.1));
                break;
            }
        }
        if let Some(differ) = differ {
            return Err(Error::format(
                format!("captions={}", given()),
                "one row a sample, with a list of its captions where it has several",
                differ,
            ));
        }
        if repeats {
            table.entries.dedup_by_key(|(name, _)| *name);
        }
        table.entries.shrink_to_fit();
        table.texts.shrink_to_fit();
        let row = |&(name, at): &(u64, u64)| {
            let texts = table.texts_at(at).map(hash::hash_str);
            hash::combine(&[name].into_iter().chain(texts).collect::<Vec<_>>())
        };
        let parts: Vec<u64> = table.entries.iter().map(row).collect();
        table.fingerprint = hash::combine(&[hash::hash_str(by.name()), hash::combine(&parts)]);
        Ok(table)
    }

    /// What samples are found by.
    pub fn by(&self) -> JoinBy {
        self.by
    }

    /// Number of samples with captions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of its first caption, as the file has it.
    pub fn example(&self) -> &str {
        &self.example
    }

    /// Name of its file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Identifies names and captions.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether it has a caption of the sample with this hash. O(log captions).
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.entries.binary_search_by_key(&hash, |(name, _)| *name).is_ok()
    }

    /// The captions of the sample with this hash, at least one. O(log samples).
    pub(super) fn captions(&self, hash: u64) -> Option<Vec<String>> {
        let at = self.entries.binary_search_by_key(&hash, |(name, _)| *name).ok()?;
        Some(self.texts_at(self.entries[at].1).map(str::to_owned).collect())
    }

    /// The captions of a sample, which begin at `at` and were written from texts.
    fn texts_at(&self, at: u64) -> impl Iterator<Item = &str> {
        let mut next = self.texts.get(at as usize..);
        std::iter::from_fn(move || {
            let (length, rest) = next.take()?.split_first_chunk()?;
            let length = u32::from_le_bytes(*length);
            let (text, after) = rest.split_at_checked((length & !MORE) as usize)?;
            next = (length & MORE != 0).then_some(after);
            std::str::from_utf8(text).ok()
        })
    }
}

impl PartialEq for CaptionTable {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for CaptionTable {}

/// Tables of captions by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionTables(BTreeMap<Arc<str>, Arc<CaptionTable>>);

impl CaptionTables {
    /// Opens each file.
    ///
    /// # Errors
    /// As [`CaptionTable::open`].
    pub fn open(paths: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let open =
            |(name, path): (&String, &PathBuf)| Ok((name.as_str().into(), CaptionTable::open(path)?.into()));
        paths.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// The table of this name.
    pub fn of(&self, name: &str) -> Option<&Arc<CaptionTable>> {
        self.0.get(name)
    }

    /// Names and tables, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<CaptionTable>)> {
        self.0.iter()
    }

    /// Whether a table is joined by uids.
    pub(super) fn needs_uid(&self) -> bool {
        self.0.values().any(|table| table.by == JoinBy::Uid)
    }

    /// The captions that the table `name` has of a sample; none where it has none of it, or there is no such table.
    /// O(log captions).
    pub fn captions(&self, name: &str, sample: &Sample) -> Vec<String> {
        let names = Names {
            key: &sample.key,
            id: sample.id,
            uid: sample.attached.as_ref().and_then(|attached| attached.uid),
        };
        let found = self.of(name).and_then(|table| table.captions(names.of(table.by)?));
        found.unwrap_or_default()
    }

    /// Whether the table `name` has captions of a sample. O(log captions).
    pub fn has(&self, name: &str, sample: &Sample) -> bool {
        let names = Names {
            key: &sample.key,
            id: sample.id,
            uid: sample.attached.as_ref().and_then(|attached| attached.uid),
        };
        self.of(name).is_some_and(|table| names.of(table.by).is_some_and(|hash| table.contains(hash)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shard::join::of_key;

    fn table(name: &str, content: &str) -> Result<CaptionTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        CaptionTable::open(path)
    }

    #[test]
    fn captions_are_found_by_name() {
        let lines = "{\"key\": \"b\", \"caption\": \"é\\n\"}\n{\"key\": \"a\", \"caption\": \"x\"}\n\
                     {\"key\": \"c\", \"caption\": null}\n{\"key\": \"a\", \"caption\": \"x\"}\n{\"key\": \"d\"}\n";
        let one = table("a.jsonl", lines).unwrap();
        assert_eq!((one.len(), one.by()), (2, JoinBy::Key));
        let found = ["a", "b", "c", "d"].map(|key| one.captions(of_key(key)));
        assert_eq!(found, [Some(vec!["x".to_owned()]), Some(vec!["é".to_owned()]), None, None]);
        let other = table("b.tsv", "x\tkey\tcaption\n1\ta\tx\n2\tb\té\n").unwrap();
        assert_eq!(one, other, "order, format and other columns do not matter");
        assert_ne!(one, table("b.tsv", "key\tcaption\na\tx\nb\ty\n").unwrap());
    }

    #[test]
    fn parts_of_a_table_are_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        write("part-0.jsonl", "{\"key\": \"a\", \"caption\": \"x\"}\n");
        write("part-1.tsv", "key\tcaption\nb\ty\n");
        let parts = CaptionTable::open(folder.path().join("part-*")).unwrap();
        assert_eq!(parts, table("whole.tsv", "key\tcaption\nb\ty\na\tx\n").unwrap());
        write("part-2.tsv", "uid\tcaption\n00\tz\n");
        let error = CaptionTable::open(folder.path().join("part-*")).unwrap_err().to_string();
        assert!(error.contains("parts of one table: the first has key, the other uid"), "{error}");
    }

    #[test]
    fn a_list_is_several_captions() {
        let lines = "{\"key\": \"a\", \"caption\": [\"x\", null, \" \", \"y \"]}\n{\"key\": \"b\", \"caption\": [null]}\n\
                     {\"key\": \"c\", \"caption\": [\"x\"]}\n";
        let table = self::table("a.jsonl", lines).unwrap();
        assert_eq!(
            (table.len(), table.captions(of_key("a")).unwrap()),
            (2, vec!["x".to_owned(), "y".to_owned()])
        );
        let plain = |lines| self::table("b.jsonl", lines).unwrap();
        let one = "{\"key\": \"a\", \"caption\": [\"x\"]}\n";
        assert_eq!(plain(one), plain("{\"key\": \"a\", \"caption\": \"x\"}\n"));
        assert_ne!(plain(one), plain("{\"key\": \"a\", \"caption\": [\"x\", \"x\"]}\n"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (name, content, why) in [
            ("a.tsv", "key\tcaption\na\tx\na\ty\n", "two rows for one key, \"x\" and \"y\""),
            (
                "h.jsonl",
                "{\"key\": \"a\", \"caption\": [\"x\", 7]}",
                "line 1: the caption is no text, and no list of texts",
            ),
            ("b.tsv", "key\tcaption\na\tx\ty\n", "line 2: 3 columns, not the 2"),
            ("c.tsv", "key\ttext\na\tx\n", "among its columns: key, text"),
            ("d.tsv", "key\tcaption\na\t\n", "captions in a column `caption`, not all null or empty"),
            ("e.txt", "a", "a .parquet, .jsonl or .tsv"),
            ("f.jsonl", "{\"key\": \"a\", \"caption\": 7}", "line 1: the caption is no text"),
            ("g.jsonl", "", "no line"),
        ] {
            let error = table(name, content).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("captions="), "{error}");
        }
    }

    #[test]
    fn nulls_of_a_parquet_file_are_skipped() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/subset/captions.parquet");
        let table = CaptionTable::open(golden).unwrap();
        let uid = |uid: &str| table.captions(crate::shard::join::of_uid(uid));
        assert_eq!((table.len(), table.by()), (3, JoinBy::Uid));
        assert_eq!(uid("7fffffffffffffff8000000000000000").unwrap(), ["snow\non a ridge"]);
        assert_eq!(uid("0123456789abcdeffedcba9876543210"), None);
    }
}
