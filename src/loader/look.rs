//! What a loader learns of its corpus before it reads it: tables beside it, which share of it counts, and how
//! its scores are distributed.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::loader::builder::LoaderBuilder;
use crate::loader::checks::total;
use crate::loader::mix::Listed;
use crate::loader::spec::Mode;
use crate::select::ScoreGate;
use crate::shard::{self, CaptionTable, ReadOptions, Shard, Subset, Survey};

/// Entries of a subset that should have been met, if all are in the corpus, before it counts that none was:
/// chance leaves none with a probability of e^-20.
const SURE_TO_MEET: f64 = 20.0;

impl LoaderBuilder {
    /// Opens the tables that samples are joined with.
    pub(super) fn open_tables(&mut self) -> Result<()> {
        if let Some(path) = &self.subset {
            self.read.subset = Some(Arc::new(Subset::open(path)?));
        }
        if let Some(path) = &self.captions {
            self.read.captions = Some(Arc::new(CaptionTable::open(path)?));
        }
        Ok(())
    }

    /// Samples of each source that filter and subset let pass, as far as can be told before they are read; on
    /// the way the score's gate is measured, over all sources.
    pub(super) fn look(&mut self, listed: &[Listed], shards: &[Shard], lengths: &[u64]) -> Result<Vec<u64>> {
        total(lengths)?;
        let unmeasured = |score: &&ScoreGate| score.measured.is_none();
        let by_policy = self.mode == Mode::Reduced && self.plan.is_none();
        let score = self.score.as_ref().filter(|_| by_policy).filter(unmeasured).cloned();
        let counts = self.mode != Mode::Eval && !self.only_recording && !self.read.takes_all();
        let read = ReadOptions { score_key: score.as_ref().map(|s| s.key.clone()), ..self.read.clone() };
        let is_one = listed.len() == 1;
        let mut whole = None;
        if score.is_some() || counts && is_one {
            whole = Some(shard::survey(shards, lengths, &read)?);
        }
        if let (Some(mut score), Some(found)) = (score, &whole) {
            score.threshold = score.threshold.or(self.threshold);
            let gate = if score.threshold.is_some() { None } else { self.gate.unwrap_or(Some(0.5)) };
            self.score = Some(measured(score, gate, found)?);
        }
        let of = |source: &Listed| {
            let (shards, lengths) = (&shards[source.shards.clone()], &lengths[source.shards.clone()]);
            let samples = total(lengths)?;
            match &whole {
                _ if !counts => Ok(samples),
                Some(found) if is_one => included(&self.read, found, shards, lengths),
                _ => included(&self.read, &shard::survey(shards, lengths, &self.read)?, shards, lengths),
            }
        };
        listed.iter().map(of).collect()
    }
}

fn named(fields: &[String]) -> String {
    if fields.is_empty() { "none at all".to_owned() } else { fields.join(", ") }
}

/// The gate, measured.
///
/// # Errors
/// No sample has a score: the error names the fields that are there.
pub(crate) fn measured(score: ScoreGate, gate: Option<f64>, found: &Survey) -> Result<ScoreGate> {
    // Of a subset so small that none of it was met nothing is known: nothing passes, which is refused there.
    if !found.has_scores() && !found.scores.is_empty() {
        let fields = named(&found.fields);
        let accepted = format!(
            "a field of the json, or a column of the parquet beside the shards, with a number: none of {} samples \
             that were looked at has one there; their fields are {fields}",
            found.scores.len()
        );
        return Err(Error::option("score_key", format!("{:?}", score.key), accepted));
    }
    let measured = score.measured(gate, &found.scores);
    if let Some(cut) = measured.measured {
        tracing::info!(
            score_key = measured.key,
            least = cut.least,
            pass_rate = cut.pass_rate,
            points = cut.points,
            "the score's gate was measured"
        );
    }
    Ok(measured)
}

/// Of the samples in `shards`, those that count, by what was `found` there.
///
/// # Errors
/// None does, although some should have been met.
pub(crate) fn included(read: &ReadOptions, found: &Survey, shards: &[Shard], lengths: &[u64]) -> Result<u64> {
    let samples = total(lengths)?;
    if found.included > 0 {
        return Ok((found.share() * samples as f64) as u64);
    }
    if read.subset.is_none() && read.filter.is_none() {
        return Ok(0);
    }
    let Some(subset) = &read.subset else {
        let filter = read.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        // Of what does not count nothing was read but what the filter asks for.
        let all = ReadOptions { filter: None, ..read.clone() };
        let accepted = format!(
            "a filter that some sample passes: none of {} that were looked at does; their fields, in the json or the \
             parquet beside the shards, are {}",
            found.looked_at,
            named(&shard::survey(shards, lengths, &all)?.fields)
        );
        return Err(Error::option("where", format!("{filter:?}"), accepted));
    };
    // At most as many as it has entries can be in the corpus.
    let entries = (subset.len() as u64).min(samples);
    let should = found.looked_at as f64 * entries as f64 / samples.max(1) as f64;
    let (by, given) = (subset.by(), format!("{} entries, by {}", subset.len(), subset.by()));
    if should > SURE_TO_MEET || found.looked_at >= samples {
        let accepted = format!(
            "a list with samples of this corpus: none of {} that were looked at is in it{}. Does it hold what the \
             corpus calls {by}?",
            found.looked_at,
            if read.filter.is_some() { " and passes the filter" } else { "" }
        );
        return Err(Error::option("subset", given, accepted));
    }
    tracing::warn!(
        "subset = {given}: none of {} samples that were looked at is in it, as may be with so few; {entries} are \
         taken to be in the corpus",
        found.looked_at
    );
    Ok(entries)
}
