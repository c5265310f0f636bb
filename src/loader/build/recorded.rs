//! Whether what a ledger holds fits a loader whose model is not here: by whole recordings, before a sample is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::image::DecodeOptions;
use crate::ledger::Ledger;
use crate::loader::fingerprints::reading_fingerprint;
use crate::shard::ReadOptions;

/// Sets an option back to its default.
type Reset = fn(&mut ReadOptions, &mut DecodeOptions);

/// Options that tell one recording from another, and how each is set back to its default.
const OPTIONS: [(&str, Reset); 8] = [
    ("caption_key", |read, _| read.caption_key = None),
    ("caption_choice", |read, _| read.caption_choice = None),
    ("where", |read, _| read.filter = None),
    ("subset", |read, _| read.subset = None),
    ("captions", |read, _| read.captions = None),
    ("alpha", |_, decode| decode.alpha = DecodeOptions::default().alpha),
    ("exif_orientation", |_, decode| decode.exif_orientation = false),
    ("max_image_pixels", |_, decode| decode.max_pixels = DecodeOptions::MAX_PIXELS),
];

/// Fails where the ledger has signals of the scorer, but none of samples that are read so, in windows of this size:
/// with what differs.
///
/// # Errors
/// [`ErrorKind::NotRecorded`]; a ledger that cannot be listed.
pub(super) fn check(
    ledger: &Ledger,
    scorer: u64,
    (reads, decode): (&[Arc<ReadOptions>], &DecodeOptions),
    window: usize,
) -> Result<()> {
    let kinds: Vec<(u64, usize)> =
        ledger.kinds()?.into_iter().filter(|kind| kind.0 == scorer).map(|kind| (kind.1, kind.2)).collect();
    let own: BTreeSet<u64> = reads.iter().map(|read| reading_fingerprint(read, decode)).collect();
    if kinds.is_empty() || kinds.iter().any(|(reading, size)| own.contains(reading) && *size == window) {
        return Ok(());
    }
    let sizes: BTreeSet<usize> =
        kinds.iter().filter(|(reading, _)| own.contains(reading)).map(|(_, size)| *size).collect();
    let what = if sizes.is_empty() {
        let recorded: BTreeSet<u64> = kinds.iter().map(|(reading, _)| *reading).collect();
        match reads.first().and_then(|read| unrecorded(read, decode, &recorded)) {
            Some(options) => format!("without {options}, which this loader has"),
            None => {
                let all: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
                format!("with reading options that this loader lacks, of {}", all.join(", "))
            }
        }
    } else {
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        format!("in windows of {}, and this loader has window={window}", sizes.join(" and "))
    };
    let detail = format!(
        "the ledger's signals of this captioner, which cannot run here, were recorded {what}: give the options of the \
         recording, or record with these"
    );
    Err(ErrorKind::NotRecorded { detail }.into())
}

/// The fewest options without which samples are read as they were recorded.
fn unrecorded(read: &ReadOptions, decode: &DecodeOptions, recorded: &BTreeSet<u64>) -> Option<String> {
    let mut sets: Vec<usize> = (1..1 << OPTIONS.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    sets.into_iter().find_map(|set| {
        let (mut read, mut decode) = (read.clone(), *decode);
        let chosen = OPTIONS.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
        let names: Vec<&str> = chosen
            .map(|(_, (name, reset))| {
                reset(&mut read, &mut decode);
                *name
            })
            .collect();
        recorded.contains(&reading_fingerprint(&read, &decode)).then(|| names.join(" and "))
    })
}
