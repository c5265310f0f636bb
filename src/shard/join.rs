//! What a table of samples is joined by: keys, uids, or our own identities.
//!
//! Each is hashed to 64 bits, so that a table of 40 million entries takes 320 MB. Two different names share
//! a hash with a probability of 2^-64: of m samples, about m n / 2^64 are taken for one of n entries that they
//! are not, 0.003 of a billion samples and 40 million entries. Identities are 64 bits themselves.

use std::fmt;

use serde_json::Value;

use crate::hash;
use crate::sample::SampleId;

/// Field of the json, or column beside the shard, that holds a uid.
pub(super) const UID: &str = "uid";

/// What samples are told apart by in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinBy {
    /// WebDataset key, which must be unique in the corpus.
    Key,
    /// DataComp's `uid`: a field of the json, or a column of the Parquet file beside the shard. One of 32
    /// hexadecimal digits, with the dashes of a UUID or without, is a number, whatever the case of its letters; another is
    /// a text.
    Uid,
    /// [`SampleId`], as `tldr-loader export` writes it.
    Id,
}

/// What a sample is called in the columns that tables are joined by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) key: &'a str,
    pub(super) id: SampleId,
    /// Hash of its uid, where it has one.
    pub(super) uid: Option<u64>,
}

impl Names<'_> {
    /// The hash of its name in the column `by`.
    pub(super) fn of(&self, by: JoinBy) -> Option<u64> {
        match by {
            JoinBy::Key => Some(of_key(self.key)),
            JoinBy::Id => Some(of_id(self.id)),
            JoinBy::Uid => self.uid,
        }
    }
}

impl JoinBy {
    /// Every one.
    pub(super) const ALL: [Self; 3] = [Self::Key, Self::Uid, Self::Id];

    /// By which of the columns that a table `has` it is joined: `id` where it is an export of ours (with
    /// `source` and `shard` beside it), else `uid`, else `key`.
    pub(super) fn of(has: impl Fn(&str) -> bool) -> Option<Self> {
        if has("id") && has("source") && has("shard") {
            Some(Self::Id)
        } else if has(UID) {
            Some(Self::Uid)
        } else if has("key") {
            Some(Self::Key)
        } else {
            None
        }
    }

    /// Name of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Uid => UID,
            Self::Id => "id",
        }
    }

    /// The hash of a cell of its column that is a text; `None` where an identity is no number.
    pub(super) fn of_text(self, text: &str) -> Option<u64> {
        match self {
            Self::Key => Some(of_key(text)),
            Self::Uid => Some(of_uid(text)),
            Self::Id => text.parse().ok().or_else(|| Some(text.parse::<i64>().ok()? as u64)),
        }
    }

    /// The hash of a cell that is a number.
    pub(super) fn of_number(self, number: i64) -> u64 {
        match self {
            Self::Key => of_key(&number.to_string()),
            Self::Uid => of_uid(&number.to_string()),
            Self::Id => of_id(SampleId(number as u64)),
        }
    }
}

impl fmt::Display for JoinBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key without the `./` that `tar` writes before the names of members where a folder was named `.`: tables
/// do not have it. Identities keep it.
pub(super) fn plain(key: &str) -> &str {
    key.trim_start_matches("./")
}

pub(super) fn of_key(key: &str) -> u64 {
    hash::hash_str(plain(key))
}

pub(super) fn of_id(id: SampleId) -> u64 {
    id.0
}

/// The hash of a uid.
pub(super) fn of_uid(uid: &str) -> u64 {
    // A UUID has dashes behind its digits 8, 12, 16 and 20.
    let is_uuid = uid.len() == 36 && [8, 13, 18, 23].iter().all(|&at| uid.as_bytes()[at] == b'-');
    let plain = if is_uuid { uid.replace('-', "") } else { String::new() };
    let digits = if is_uuid { plain.as_str() } else { uid };
    let halves = (digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| {
        let half = |part: &str| u64::from_str_radix(part, 16).unwrap_or_default();
        (half(&digits[..16]), half(&digits[16..]))
    });
    match halves {
        Some((high, low)) => of_halves(high, low),
        None => hash::hash_str(uid),
    }
}

/// The hash of the uid that a field or a column has; `None` where it is neither a text nor a number.
pub(super) fn of_uid_value(value: &Value) -> Option<u64> {
    match value {
        Value::String(uid) => Some(of_uid(uid)),
        Value::Number(uid) => Some(of_uid(&uid.to_string())),
        _ => None,
    }
}

/// The hash of a uid of 128 bits in two halves, as DataComp's files have them.
pub(super) fn of_halves(high: u64, low: u64) -> u64 {
    hash::combine(&[high, low])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn uids_are_numbers_in_any_spelling() {
        let text = "00000000000000ff000000000000000A";
        assert_eq!(of_uid(text), of_halves(255, 10));
        assert_eq!(of_uid(&text.to_lowercase()), of_uid(&text.to_uppercase()));
        assert_ne!(of_uid(text), of_uid(&text[1..]));
        assert_eq!(of_uid("00000000-0000-00ff-0000-00000000000a"), of_uid(text));
        assert_ne!(of_uid("0000000-00000-00ff-0000-00000000000a"), of_uid(text));
        assert_ne!(of_uid("ä"), of_uid("+0000000000000ff000000000000000a"));
    }

    #[test]
    fn a_key_is_joined_without_its_folder_of_nothing() {
        assert_eq!(of_key("./000"), of_key("000"));
        assert_eq!(of_key("././a/000"), of_key("a/000"));
        assert_ne!(of_key(".000"), of_key("000"));
        assert_ne!(of_key("../000"), of_key("000"));
    }

    #[test]
    fn the_most_exact_column_is_taken() {
        let of = |columns: &[&str]| JoinBy::of(|name| columns.contains(&name));
        assert_eq!(of(&["id", "source", "shard", "key"]), Some(JoinBy::Id));
        assert_eq!(of(&["id", "uid", "key"]), Some(JoinBy::Uid), "an id of somebody else's");
        assert_eq!((of(&["key", "id"]), of(&["name"])), (Some(JoinBy::Key), None));
        assert_eq!(JoinBy::Id.of_text("-1"), Some(u64::MAX));
        assert_eq!(JoinBy::Id.of_text("18446744073709551615"), Some(JoinBy::Id.of_number(-1)));
        assert_eq!(JoinBy::Id.of_text("x"), None);
    }
}
