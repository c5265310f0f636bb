//! What travels from the shard reader on: a sample, its identity, and what became of it.

use std::sync::Arc;

use serde_json::Value;

use crate::error::FailReason;
use crate::hash;

/// Identity of a sample: hash(source, path of the shard below the source's root, key).
///
/// It survives a move of the data and does not depend on the order in which anything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SampleId(pub u64);

impl SampleId {
    /// Identity of `key` in the shard whose [`shard_hash`](Self::shard_hash) is given.
    pub fn new(shard_hash: u64, key: &str) -> Self {
        Self(hash::combine(&[shard_hash, hash::hash_str(key)]))
    }

    /// Hash of a shard's own identity: the source's name and the shard's path below its root.
    pub fn shard_hash(source: &str, path: &str) -> u64 {
        hash::combine(&[hash::hash_str(source), hash::hash_str(path)])
    }
}

/// One group of members of a shard that share a key: an image and its caption, encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Identity.
    pub id: SampleId,
    /// WebDataset key: member path up to the first dot of the file name.
    pub key: Arc<str>,
    /// Index of the group in its shard, counting unusable groups too.
    pub position: u64,
    /// Byte offset of the group's first header in the decompressed shard.
    pub offset: u64,
    /// Encoded image (JPEG, PNG or WebP), as stored.
    pub image: Vec<u8>,
    /// Original caption, [trimmed], never empty. Of several the first, or all of them as
    /// [`caption_choice`](crate::shard::ReadOptions::caption_choice) says.
    pub caption: String,
    /// All of its captions, where it has several and one of them is drawn; else none.
    pub captions: Vec<String>,
    /// What [`ReadOptions::score_field`](crate::shard::ReadOptions::score_field) says of it; `None` where that
    /// is absent or no number.
    pub score: Option<f32>,
    /// What tables and fields say of it, where any are asked.
    pub attached: Option<Box<Attached>>,
    /// The json member, as stored.
    pub json: Option<Vec<u8>>,
}

/// What tables and fields say of a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attached {
    /// Hash of its uid, where a table is joined by uids and it has one.
    pub uid: Option<u64>,
    /// What the tables of scores say of it, `[columns]` in the order of
    /// [`ScoreTables::columns`](crate::shard::ScoreTables::columns); not a number where they say nothing.
    pub scores: Vec<f32>,
    /// Values of [`ReadOptions::fields`](crate::shard::ReadOptions::fields); null where it has none.
    pub fields: Vec<Value>,
}

/// A caption without white space around it, as far as that cannot be part of it.
///
/// Where text was read with a wrong code page, what looks like a space may be the last byte of a letter:
/// `voilÃ\u{a0}` is "voilà", and so is `voilÃ ` to ftfy, which repairs captions later. So only ASCII white space
/// is cut off, and beside a character outside ASCII no more than the ends of lines, which ftfy repairs one by one. A
/// byte order mark goes where all else is ASCII: elsewhere it, too, tells ftfy what the text was.
pub fn trimmed(caption: &str) -> &str {
    let is_blank = |c: char| c.is_ascii_whitespace() || c == '\x0B';
    let unmarked = caption.trim_start_matches('\u{feff}');
    let caption = if unmarked.is_ascii() { unmarked } else { caption };
    let (front, back) = (caption.trim_start_matches(is_blank), caption.trim_end_matches(is_blank));
    if front.is_empty() {
        return front;
    }
    let start =
        if front.starts_with(|c: char| c.is_ascii()) { front } else { caption.trim_start_matches('\n') };
    let end = if back.ends_with(|c: char| c.is_ascii()) { back } else { caption.trim_end_matches('\n') };
    caption.get(caption.len() - start.len()..end.len()).unwrap_or_default()
}

/// Whether a caption says nothing: it is white space, or a byte order mark.
pub fn is_blank(caption: &str) -> bool {
    caption.chars().all(|c| c.is_whitespace() || c == '\u{feff}')
}

impl Sample {
    /// The sample as one that proved unusable after all.
    pub fn failed(&self, reason: FailReason, detail: String) -> FailedSample {
        let (key, position, offset) = (Arc::clone(&self.key), self.position, self.offset);
        FailedSample { id: self.id, key, position, offset, reason, detail }
    }
}

/// A group that cannot be used, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedSample {
    /// Identity (by key, as for usable samples).
    pub id: SampleId,
    /// Key of the group.
    pub key: Arc<str>,
    /// Index of the group in its shard.
    pub position: u64,
    /// Byte offset of the group's first header in the decompressed shard.
    pub offset: u64,
    /// Why it cannot be used.
    pub reason: FailReason,
    /// What exactly was found.
    pub detail: String,
}

/// Why a readable sample was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Its alignment is below the gate.
    Gate,
    /// A near-duplicate with a smaller hash is in the same window.
    Dedup,
    /// The quota of its cluster is full.
    Quota,
    /// It is not in the share of the stream that was looked at.
    Thin,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It is kept. `pi` is its probability of inclusion, given that it passed gate and dedup;
    /// `None` where the priority depends on the sample.
    Kept {
        /// Probability of inclusion.
        pi: Option<f32>,
    },
    /// It was readable and is dropped.
    Dropped(DropReason),
    /// It was not usable.
    Failed(FailReason),
}

impl Outcome {
    /// Whether the sample is kept.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Kept { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_cut_off_where_it_is_none_of_the_caption() {
        for (raw, caption) in [
            (" \ta dog\r\n", "a dog"),
            ("\u{feff}a dog\x0B", "a dog"),
            ("voilÃ\u{a0}", "voilÃ\u{a0}"),
            ("\u{feff}voilà ", "\u{feff}voilà "),
            ("voilÃ \n", "voilÃ "),
            ("\n Ã b ", " Ã b"),
            ("x\u{85}\n\n", "x\u{85}"),
            ("é\r\n", "é\r"),
            ("\n", ""),
            (" ", ""),
            ("", ""),
            ("\u{a0}", "\u{a0}"),
            ("\n\u{a0}\n", "\u{a0}"),
        ] {
            assert_eq!(trimmed(raw), caption, "{raw:?}");
        }
    }

    #[test]
    fn identity_is_of_source_path_and_key() {
        let base = SampleId::new(SampleId::shard_hash("cc3m", "00000.tar"), "000");
        assert_eq!(base, SampleId::new(SampleId::shard_hash("cc3m", "00000.tar"), "000"));
        for (source, path, key) in
            [("cc12m", "00000.tar", "000"), ("cc3m", "00001.tar", "000"), ("cc3m", "00000.tar", "001")]
        {
            assert_ne!(base, SampleId::new(SampleId::shard_hash(source, path), key));
        }
    }
}
