//! Why samples are kept or dropped: one sentence each, and the facts behind it.

mod excluded;
mod facts;
mod sentence;

use std::collections::{HashMap, HashSet};

use crate::config::Source;
use crate::error::{Error, Result};
use crate::jobs::decisions::{DecidedWindow, Decisions, DecisionsJob};
use crate::select::Policy;

use excluded::Excluded;
pub(super) use facts::named;
pub use facts::{Epochs, Explained, GateCut, NearDuplicate, QuotaPlace};

/// Epochs that a rotation is followed for, unless more are asked for.
const EPOCHS: u64 = 16;

/// Which samples to explain.
#[derive(Debug, Clone)]
pub struct ExplainJob {
    /// Whose decisions are asked for.
    pub decisions: DecisionsJob,
    /// The samples: a key, SHARD/KEY with the file name of the shard, or an id as in exports, in decimal digits.
    pub keys: Vec<String>,
    /// Epochs that are looked at where the policy rotates.
    pub epochs: u64,
    /// How the samples were read. Where it has shards, those that are excluded are read again, to say by which clause of
    /// `where`; else all of `where` and `subset` is named.
    pub source: Source,
}

impl ExplainJob {
    /// The samples `keys` under `decisions`.
    pub fn new(decisions: DecisionsJob, keys: Vec<String>) -> Self {
        Self { decisions, keys, epochs: EPOCHS, source: Source::default() }
    }
}

/// Runs the job. The answers are in the order of the keys; a key that several shards have gives one for each, and one that
/// the ledger does not have is `unknown`. Looks at the whole ledger once, under a plan twice or three times.
/// `progress(done, total)` is called with shards.
///
/// # Errors
/// As [`Decisions::open`]; no keys, or none that the ledger has; shards that cannot be listed.
pub fn explain(job: &ExplainJob, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Vec<Explained>> {
    if job.keys.is_empty() {
        return Err(Error::option("keys", "none", "keys of samples, as exports and batches name them"));
    }
    let decisions = Decisions::open(&job.decisions, progress)?;
    let excluded = Excluded::of(&job.source)?;
    // As logs name a sample, with the folder of its shard, too; what is asked for as it is written goes first.
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    for (at, key) in job.keys.iter().enumerate() {
        let is_shard = |name: &str| name.contains(".tar") || name.ends_with(".parquet");
        let tails = key.match_indices('/').map(|(slash, _)| &key[slash + 1..]);
        for tail in tails.filter(|tail| tail.split_once('/').is_some_and(|(first, _)| is_shard(first))) {
            wanted.entry(tail).or_insert(at);
        }
    }
    wanted.extend(job.keys.iter().enumerate().map(|(at, key)| (key.as_str(), at)));
    let mut found: Vec<(usize, Explained)> = vec![];
    decisions.each(
        &mut |window| {
            for row in 0..window.record.ids.len() {
                let mut asked: Vec<usize> =
                    window.names(row).filter_map(|name| wanted.get(&*name).copied()).collect();
                asked.sort_unstable();
                asked.dedup();
                for at in asked {
                    let mut explained = window.explained(row)?;
                    explained.epochs = epochs(&decisions, window, row, job.epochs)?;
                    if explained.outcome == "excluded" && explained.detail.is_none() {
                        explained.detail = excluded.detail(window, row);
                    }
                    explained.say();
                    found.push((at, explained));
                }
            }
            Ok(())
        },
        progress,
    )?;
    if found.is_empty() {
        let accepted = "a key, SHARD/KEY or an id that the recording has; `tldr-loader export LEDGER --out keys.txt` lists \
                        those that are usable";
        return Err(Error::option("keys", format!("{:?}", job.keys[0]), accepted));
    }
    let known: HashSet<usize> = found.iter().map(|(at, _)| *at).collect();
    let lacking = job
        .keys
        .iter()
        .enumerate()
        .filter(|(at, key)| wanted.get(key.as_str()) == Some(at) && !known.contains(at));
    found.extend(lacking.map(|(at, key)| (at, Explained::unknown(key))));
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, explained)| explained).collect())
}

impl DecidedWindow<'_> {
    /// What a sample may be called: its key, with and without its shard, and its id.
    fn names(&self, row: usize) -> impl Iterator<Item = String> + '_ {
        let key = self.record.index.as_ref().and_then(|index| index.key(row));
        let with_shard = |key: &str| format!("{}/{key}", self.shard);
        let by_key = key.map(|key| [key.to_owned(), with_shard(key)]).into_iter().flatten();
        by_key.chain([self.record.ids[row].0.to_string()])
    }
}

/// The epochs in which a rotating policy keeps a candidate.
fn epochs(
    decisions: &Decisions,
    window: &DecidedWindow<'_>,
    row: usize,
    epochs: u64,
) -> Result<Option<Epochs>> {
    let rotates = |policy: &&Policy| policy.selection.rotate;
    let (Some(selector), Some(_)) = (decisions.selector(), decisions.policy().filter(rotates)) else {
        return Ok(None);
    };
    if window.place(row).is_none_or(|place| place.near.is_some()) && !selector.policy().selection.thin {
        return Ok(None);
    }
    let mut kept = vec![];
    for epoch in 0..epochs {
        if window.decided_in(selector, epoch)?[row].is_kept() {
            kept.push(epoch);
        }
    }
    Ok(Some(Epochs { kept, of: epochs }))
}
