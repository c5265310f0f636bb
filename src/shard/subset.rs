//! Which samples of a corpus count, by a list of them.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::hash;
use crate::sample::SampleId;
use crate::shard::join::{JoinBy, of_id, of_key};
use crate::shard::join_table::rows;

/// A list of samples: keys, uids or identities. All others are outside of it, and as good as not there.
///
/// 8 bytes an entry; a look-up takes O(log entries). Entries are known by hashes of 64 bits: of m samples that are
/// outside about m n / 2^64 are taken for one of n that are not, 0.003 of a billion at 40 million entries.
#[derive(Debug)]
pub struct Subset {
    by: JoinBy,
    /// Ascending, each once.
    hashes: Vec<u64>,
    fingerprint: u64,
    example: Box<str>,
    /// Entries of each shard, by its hash.
    by_shard: Option<HashMap<u64, u64>>,
}

/// Entries of each shard that the export at `path` names; `None` where it cannot tell. It was read already.
fn of_shards(path: &Path) -> Option<HashMap<u64, u64>> {
    use crate::sample::SampleId;
    use crate::shard::metadata::{Cell, Columns};

    if path.extension()? != "parquet" {
        return None;
    }
    let mut entries: Vec<(u64, u64)> = vec![];
    let read = Columns::open(path).ok()?.each(&["id", "source", "shard", "key"], &mut |row| {
        let [
            Some(Cell::Number(id)),
            Some(Cell::Text(source)),
            Some(Cell::Text(shard)),
            Some(Cell::Text(key)),
        ] = row
        else {
            return Err("an entry without a place".into());
        };
        let (id, shard) = (*id as u64, SampleId::shard_hash(source, shard));
        // Where the corpus was renamed since, ids and shards need not belong together.
        if SampleId::new(shard, key).0 != id {
            return Err("an entry in another place".into());
        }
        entries.push((id, shard));
        Ok(())
    });
    read.ok()?;
    entries.sort_unstable();
    entries.dedup_by_key(|(id, _)| *id);
    let mut counts = HashMap::new();
    entries.iter().for_each(|(_, shard)| *counts.entry(*shard).or_default() += 1);
    Some(counts)
}

impl Subset {
    /// Reads a list: a `.parquet` or `.jsonl` with `uid` or `key` (or as `tldr-loader export` writes it), a
    /// `.txt` of one key a line, or DataComp's `.npy` of uids. In what order they stand does not matter.
    ///
    /// # Errors
    /// A file that cannot be read, is none of these, or is empty.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_as("subset", path.as_ref())
    }

    /// As [`open`](Self::open), for another option.
    pub(crate) fn open_as(option: &'static str, path: &Path) -> Result<Self> {
        let (mut hashes, mut example) = (vec![], String::new());
        let by = rows(option, path, false, &mut |row| {
            if hashes.is_empty() {
                example = (row.text)();
            }
            hashes.push(row.name);
            Ok(())
        })?;
        if hashes.is_empty() {
            return Err(Error::option(
                option,
                format!("{:?}", path.display()),
                "a list of one sample or more",
            ));
        }
        let mut subset = Self::of(by, hashes, example);
        if by == JoinBy::Id {
            subset.by_shard = of_shards(path);
        }
        Ok(subset)
    }

    fn of(by: JoinBy, mut hashes: Vec<u64>, example: String) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        hashes.shrink_to_fit();
        let fingerprint = hash::combine(&[hash::hash_str(by.name()), hash::combine(&hashes)]);
        Self { by, hashes, fingerprint, by_shard: None, example: example.into() }
    }

    /// How many of its entries are in the shard of this hash; `None` where the list does not say in which shards they are.
    pub(super) fn in_shard(&self, shard: u64) -> Option<u64> {
        self.by_shard.as_ref().map(|counts| counts.get(&shard).copied().unwrap_or_default())
    }

    /// What its entries are.
    pub fn by(&self) -> JoinBy {
        self.by
    }

    /// Number of its entries, each counted once.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Its first entry, as the file has it.
    pub fn example(&self) -> &str {
        &self.example
    }

    /// Identifies its entries.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether it has a sample, by its key or identity; `None` where it goes by uids, or the key is not known.
    pub(crate) fn has(&self, key: Option<&str>, id: SampleId) -> Option<bool> {
        let hash = match self.by {
            JoinBy::Id => of_id(id),
            JoinBy::Key => of_key(key?),
            JoinBy::Uid => return None,
        };
        Some(self.contains(hash))
    }

    /// Whether a sample of this hash is in it.
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.hashes.binary_search(&hash).is_ok()
    }
}

impl PartialEq for Subset {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Subset {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shard::join::of_uid;

    #[test]
    fn order_and_repeats_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let list = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            Subset::open(path)
        };
        let one = list("a.txt", "b\n\na\r\nb\n").unwrap();
        let other = list("b.txt", "\u{feff}a\nb").unwrap();
        assert_eq!((one.len(), one.by(), &one), (2, JoinBy::Key, &other));
        assert_ne!(one, list("c.txt", "a\nc").unwrap());
        assert_eq!(one, list("d.jsonl", "{\"key\": \"b\"}\n{\"key\": \"a\", \"x\": 1}\n").unwrap());
        assert_ne!(one, list("e.jsonl", "{\"uid\": \"b\"}\n{\"uid\": \"a\"}\n").unwrap());
        for (name, content, why) in [
            ("f.txt", "\n", "one sample or more"),
            ("g.csv", "a", "a .parquet, .jsonl, .txt or .npy"),
            ("h.jsonl", "{\"name\": 1}", "found none of these among its columns: name"),
            ("i.jsonl", "{\"key\": \"a\"}\n[]", "line 2: no object"),
            ("j.npy", "a", "ends early"),
        ] {
            let error = list(name, content).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("subset="), "{error}");
        }
        let error = Subset::open(folder.path().join("absent.txt")).unwrap_err().to_string();
        assert!(error.contains("absent.txt") && error.contains("a local file that is there"), "{error}");
    }

    #[test]
    fn all_kinds_of_lists_of_uids_are_one() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/subset");
        let halves = Subset::open(golden.join("halves.npy")).unwrap();
        assert_eq!((halves.len(), halves.by()), (5, JoinBy::Uid));
        assert!(halves.contains(of_uid("0123456789ABCDEFfedcba9876543210")));
        assert!(!halves.contains(of_uid("1123456789abcdeffedcba9876543210")));
        assert_eq!(halves, Subset::open(golden.join("text.npy")).unwrap());
        assert_eq!(halves, Subset::open(golden.join("captions.parquet")).unwrap());
    }
}
