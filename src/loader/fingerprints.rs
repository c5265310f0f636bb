//! What keeps records of a ledger apart: how samples were read, and of which version of a shard.

use crate::hash;
use crate::image::{self, Alpha, DecodeOptions};
use crate::shard::{CaptionChoice, ReadOptions};

/// Identifies how samples are read: what a ledger records is kept apart by it.
///
/// It is what decides which samples are readable, and what of them is seen: by which decoder and at which scale, too.
/// The size of the previews is part of their model's fingerprint.
pub fn reading_fingerprint(read: &ReadOptions, decode: &DecodeOptions) -> u64 {
    let caption_key = read.caption_key.as_deref().map_or(0, hash::hash_str);
    let mut fields = match &read.filter {
        Some(filter) => hash::combine(&[caption_key, hash::hash_str(&filter.to_string())]),
        None => caption_key,
    };
    for (option, table) in read.tables() {
        fields = hash::combine(&[fields, hash::hash_str(option), table]);
    }
    if let Some(share) = &read.share {
        fields = hash::combine(&[fields, hash::hash_str("share"), share.fingerprint()]);
    }
    if let Some(choice) = read.caption_choice.filter(|choice| *choice != CaptionChoice::First) {
        fields = hash::combine(&[fields, hash::hash_str("caption_choice"), hash::hash_str(choice.name())]);
    }
    // At its default an option is in no fingerprint: what was recorded before it was there still holds.
    if decode.alpha != Alpha::default() {
        fields = hash::combine(&[fields, hash::hash_str("alpha"), hash::hash_str(decode.alpha.name())]);
    }
    if decode.exif_orientation {
        fields = hash::combine(&[fields, hash::hash_str(image::ORIENTATION)]);
    }
    hash::combine(&[
        fields,
        decode.max_pixels,
        decode.exif_orientation.into(),
        hash::hash_str(image::PREVIEWS),
    ])
}

/// The version of a shard as it stands in a [`WindowKey`].
pub(crate) fn version_hash(version: Option<&str>) -> u64 {
    version.map_or(0, hash::hash_str)
}

/// The version of the scores of a shard as it is in a [`ScoreKey`](crate::ledger::ScoreKey): that of the shard and of what
/// lies beside it, and of the table that has them.
pub(crate) fn scores_version(version: Option<&str>, read: &ReadOptions) -> u64 {
    match read.score_fingerprint() {
        0 => version_hash(version),
        table => hash::combine(&[version_hash(version), table]),
    }
}
