//! Looks at the chosen samples: what became of each, and what its shard holds of it.

use std::collections::{BTreeMap, HashSet};

use tldr_loader::jobs::{Decisions, Explained};
use tldr_loader::{Error, Result};

use crate::ReportStage;
use crate::draw::Place;
use crate::pictures::{Decoding, Seen, Shards, Wanted};

/// Shards that are read at a time: the windows of as many are held.
const AT_A_TIME: usize = 8;

/// A chosen sample.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) explained: Explained,
    pub(crate) seen: Seen,
}

impl Looked {
    fn new(mut explained: Explained, mut seen: Seen) -> Self {
        if seen.tile.is_none() && seen.why.is_none() {
            // What failed, failed by that.
            let parts = [explained.reason, explained.detail.as_deref()];
            seen.why = Some(parts.into_iter().flatten().collect::<Vec<_>>().join(": "));
        }
        if let Some(condition) = &seen.condition {
            let name = explained.key.clone().unwrap_or_else(|| format!("id {}", explained.id));
            explained.sentence = format!("{name} in {} is excluded: {condition}.", explained.shard);
        }
        Self { explained, seen }
    }
}

/// Explains and reads the samples `[places]`; a scorer wants to see those of the numbers in `scored`.
///
/// # Errors
/// Windows that are gone from the ledger; what `progress` returns.
pub(crate) fn look(
    decisions: &Decisions,
    shards: &Shards,
    places: &[Place],
    decoding: &Decoding,
    scored: &HashSet<usize>,
    progress: &mut dyn FnMut(ReportStage, u64, u64) -> Result<()>,
) -> Result<Vec<Looked>> {
    let mut by_shard: BTreeMap<u64, BTreeMap<u64, Vec<usize>>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        by_shard.entry(place.shard).or_default().entry(place.window).or_default().push(at);
    }
    let mut found: BTreeMap<usize, Looked> = BTreeMap::new();
    let by_shard: Vec<(u64, BTreeMap<u64, Vec<usize>>)> = by_shard.into_iter().collect();
    for (done, part) in by_shard.chunks(AT_A_TIME).enumerate() {
        let (mut explained, mut wanted) = (vec![], vec![]);
        for (shard, windows) in part {
            for (&number, rows) in windows {
                let Some(window) = decisions.window(*shard, number)? else { continue };
                for &at in rows {
                    let is_scored = decoding.preview.is_some() && scored.contains(&at);
                    explained.push((at, window.explained(places[at].row)?));
                    wanted.push(Wanted { place: places[at], record: window.record.clone(), is_scored });
                }
            }
        }
        let seen = shards.read(&wanted, decoding);
        let looked = explained.into_iter().zip(seen);
        found.extend(looked.map(|((at, explained), seen)| (at, Looked::new(explained, seen))));
        let so_far = (done * AT_A_TIME + part.len()) as u64;
        progress(ReportStage::Pictures, so_far, by_shard.len() as u64)?;
    }
    if found.len() != places.len() {
        let lacking = places.len() - found.len();
        return Err(Error::ledger(format!(
            "{lacking} samples that were there are gone: is another process changing the ledger?"
        )));
    }
    Ok(found.into_values().collect())
}
