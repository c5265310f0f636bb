//! Where the members of a shard's groups lie, so that chosen samples can be read alone.
//!
//! An index comes from reading ([`ShardReader::take_index`](super::ShardReader::take_index), at no
//! extra cost) or from a scan of headers. It also remembers what befell a group (a cut, a repeated
//! key), so that a sample read by index is the one that reading in order gives, faults included.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::shard::group::{Extent, Harm, Open};
use crate::shard::version::Version;

/// Byte ranges of the members of consecutive groups of one shard.
///
/// Memory: 24 bytes a group and 16 a member, and the keys.
#[derive(Debug, Clone, Default)]
pub struct ShardIndex {
    shard_hash: u64,
    first: u64,
    mark: Option<Version>,
    keys: String,
    groups: Vec<Entry>,
    members: Vec<Packed>,
    extensions: Vec<Box<str>>,
    harms: BTreeMap<usize, Harm>,
}

/// A member's data in the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRange<'a> {
    /// Extension: what follows the first dot of its file name, in lower case.
    pub extension: &'a str,
    /// Byte range in the decompressed shard.
    pub range: Range<u64>,
}

/// One group: where it starts, and where its key and its members end in their vectors.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    keys: usize,
    members: usize,
}

/// Offset and size of a member with the number of its extension, in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Packed {
    /// Extension in the upper 16 bits, offset below.
    bits: u64,
    size: u64,
}

/// Bits of an offset: 256 TB of shard.
const OFFSET_BITS: u32 = 48;

impl ShardIndex {
    /// The index of no groups yet, from group `first` on. `mark`: the shard as it was opened,
    /// where it can be read at random.
    pub(super) fn new(shard_hash: u64, first: u64, mark: Option<Version>) -> Self {
        Self { shard_hash, first, mark, ..Self::default() }
    }

    /// Number of groups, unusable ones included.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Position in the shard of the first group.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Whether the shard can be read at random. One that is compressed, or lies on a server that
    /// knows no ranges, has to be read in order.
    pub fn is_random_access(&self) -> bool {
        self.mark.is_some()
    }

    /// Key of group `row`, counted from [`first`](Self::first); `None` beyond the end.
    pub fn key(&self, row: usize) -> Option<&str> {
        let end = self.groups.get(row)?.keys;
        self.keys.get(self.before(row).keys..end)
    }

    /// Byte offset of group `row`'s first header; `None` beyond the end.
    pub fn offset(&self, row: usize) -> Option<u64> {
        self.groups.get(row).map(|entry| entry.offset)
    }

    /// The members of group `row` in order; none beyond the end.
    pub fn members(&self, row: usize) -> impl Iterator<Item = MemberRange<'_>> {
        let end = self.groups.get(row).map_or(0, |entry| entry.members);
        let members = self.members.get(self.before(row).members..end).unwrap_or_default();
        members.iter().map(|packed| {
            let offset = packed.bits & ((1 << OFFSET_BITS) - 1);
            let extension = self.extensions.get((packed.bits >> OFFSET_BITS) as usize);
            MemberRange {
                extension: extension.map_or("", |e| e),
                range: offset..offset.saturating_add(packed.size),
            }
        })
    }

    /// Approximate size in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        let extensions: usize = self.extensions.iter().map(|e| e.len() + size_of::<Box<str>>()).sum();
        let groups = size_of_val(&self.groups[..]) + size_of_val(&self.members[..]);
        (self.keys.len() + groups + extensions + self.harms.len() * size_of::<Harm>()) as u64
    }

    /// Gives back what its vectors hold beyond their contents.
    pub(super) fn shrink_to_fit(&mut self) {
        self.keys.shrink_to_fit();
        self.groups.shrink_to_fit();
        self.members.shrink_to_fit();
    }

    /// The shard as it was when the index was made, where it can be read at random.
    pub(super) fn mark(&self) -> Option<&Version> {
        self.mark.as_ref()
    }

    /// An empty index of what follows.
    pub(super) fn after(&self) -> Self {
        Self::new(self.shard_hash, self.first + self.groups.len() as u64, self.mark.clone())
    }

    /// The version of the shard that was read, where it can be read at random.
    pub fn version(&self) -> Option<String> {
        self.mark.as_ref().map(Version::to_string)
    }

    /// An index of no groups yet, as [`new`](Self::new), of the version that `mark` names.
    pub(crate) fn restored(shard_hash: u64, first: u64, mark: &str) -> Self {
        Self::new(shard_hash, first, mark.parse().ok())
    }

    /// Adds the next group, with its members (extension, offset, size) in order.
    pub(crate) fn restore<'a>(
        &mut self,
        key: &str,
        offset: u64,
        members: impl IntoIterator<Item = (&'a str, u64, u64)>,
    ) {
        let mut open = Open::new(key.into(), self.shard_hash, offset);
        open.members = members
            .into_iter()
            .map(|(extension, offset, size)| Extent { extension: extension.to_owned(), offset, size })
            .collect();
        self.push(&open);
    }

    /// Adds the next group.
    pub(super) fn push(&mut self, open: &Open) {
        for extent in &open.members {
            let extension = self.extension(&extent.extension);
            // An offset beyond 256 TB, or a 65,536th extension, makes the shard one to be read in order.
            if extent.offset >> OFFSET_BITS != 0 || extension >> (64 - OFFSET_BITS) != 0 {
                self.mark = None;
            }
            let bits = (extension << OFFSET_BITS) | (extent.offset & ((1 << OFFSET_BITS) - 1));
            self.members.push(Packed { bits, size: extent.size });
        }
        if !open.harm.is_none() {
            self.harms.insert(self.groups.len(), open.harm.clone());
        }
        self.keys.push_str(&open.key);
        self.groups.push(Entry { offset: open.offset, keys: self.keys.len(), members: self.members.len() });
    }

    /// Group `row` as reading in order finds it, without any data; `None` beyond the end.
    pub(super) fn open(&self, row: usize) -> Option<Open> {
        let key: Arc<str> = self.key(row)?.into();
        let mut open = Open::new(key, self.shard_hash, self.offset(row)?);
        open.harm = self.harms.get(&row).cloned().unwrap_or_default();
        open.members = self
            .members(row)
            .map(|m| Extent {
                extension: m.extension.to_owned(),
                offset: m.range.start,
                size: m.range.end - m.range.start,
            })
            .collect();
        Some(open)
    }

    fn before(&self, row: usize) -> Entry {
        let none = Entry { offset: 0, keys: 0, members: 0 };
        row.checked_sub(1).and_then(|row| self.groups.get(row)).copied().unwrap_or(none)
    }

    /// Number of `extension`, which is added where it is new: shards have a handful.
    fn extension(&mut self, extension: &str) -> u64 {
        let known = self.extensions.iter().position(|e| **e == *extension);
        known.unwrap_or_else(|| {
            self.extensions.push(extension.into());
            self.extensions.len() - 1
        }) as u64
    }
}
