//! What a loader learns of its corpus before it reads it: tables beside it, which share of it counts, and how
//! its scores are distributed.

use std::collections::HashMap;

use crate::config::{Gate, Mode};
use crate::error::{Error, Result};
use crate::hash;
use crate::loader::build::listing::Listing;
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::build::validate::total;
use crate::loader::plan::PlanFile;
use crate::select::ScoreCut;
use crate::shard::{self, Count, JoinBy, ReadOptions, Shard, Survey};

/// Entries of a table that should have been met, if all are in the corpus, before it counts that few or none were:
/// chance leaves none with a probability of e^-20, and less than a tenth with one of 5e-7.
const SURE_TO_MEET: f64 = 20.0;

/// Share of the entries that should have been met below which a table joins little.
const LITTLE: f64 = 0.1;

impl LoaderBuilder {
    /// How many samples of each shard count, as far as can be told before they are read; on the way the score's gate is
    /// measured, over all sources. `progress(done, of)` is called for each shard whose metadata is read.
    pub(crate) fn look(
        &mut self,
        listing: &Listing,
        lengths: &[u64],
        plan: Option<&PlanFile>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Count>> {
        let shards = &listing.shards[..];
        let mode = self.config.mode;
        if total(lengths)? == 0 {
            let detail = format!("none of the {} shards holds one", shards.len());
            return Err(Error::no_samples(detail));
        }
        for (shard, _) in shards.iter().zip(lengths).filter(|(_, length)| **length == 0) {
            self.config.runtime.on_error.empty_shard(&shard.url)?;
        }
        // Of a part of a corpus a table may know little.
        if self.parts.shards.is_none() {
            for (range, read) in listing.stretches() {
                if read.has_tables() && read.share.is_none() {
                    let (shards, lengths) = (&shards[range.clone()], &lengths[range]);
                    let found = shard::survey(shards, lengths, read)?;
                    check_tables(read, &found, total(lengths)?)?;
                }
            }
        }
        let all = |(&length, candidates)| Count { included: length, candidates, is_estimated: false };
        if let Some(plan) = plan {
            let mut kept: HashMap<u64, u64> = HashMap::new();
            plan.plan.kept().for_each(|kept_one| *kept.entry(kept_one.shard).or_default() += 1);
            let of = |shard: &Shard| kept.get(&shard.hash).copied().unwrap_or_default();
            return Ok(lengths.iter().zip(shards.iter().map(of)).map(all).collect());
        }
        let gate = self.config.selection.gate.as_ref().filter(|_| mode == Mode::Reduced);
        let field = gate.and_then(Gate::field).map(str::to_owned);
        if let (Some(gate), Some(field), None) = (gate, &field, self.parts.cut) {
            let found = listing.survey(lengths, field)?;
            self.parts.cut = Some(measured(gate, &found)?);
        }
        let cut = self.parts.cut.filter(|cut| field.is_some() && cut.least.is_some());
        if self.parts.only_recording || listing.reads.iter().all(|read| read.takes_all()) && cut.is_none() {
            return Ok(lengths.iter().zip(lengths.iter().copied()).map(all).collect());
        }
        let passes = |score: f32| cut.is_none_or(|cut| cut.passes(score));
        let is_exact = mode == Mode::Eval;
        let mut counts = vec![];
        for (range, read) in listing.stretches() {
            let read =
                ReadOptions { score_field: field.clone().filter(|_| cut.is_some()), ..(**read).clone() };
            let (shards, lengths) = (&shards[range.clone()], &lengths[range]);
            let own = match read.takes_all() && read.score_field.is_none() {
                true => lengths.iter().zip(lengths.iter().copied()).map(all).collect(),
                false => shard::count(shards, lengths, &read, &passes, is_exact, progress)?,
            };
            included(&read, &own, shards, lengths)?;
            counts.extend(own);
        }
        Ok(counts)
    }
}

/// Identifies `counts` of `shards`, and the sum of those that count; `None` where all samples do.
pub(crate) fn fingerprint(shards: &[Shard], lengths: &[u64], counts: &[Count]) -> Option<(u64, u64)> {
    let is_all = |(count, length): (&Count, &u64)| count.included == *length && count.candidates == *length;
    if counts.iter().zip(lengths).all(is_all) {
        return None;
    }
    let parts = shards
        .iter()
        .zip(counts)
        .flat_map(|(shard, count)| [shard.hash, count.included, count.candidates, count.is_estimated.into()]);
    Some((counts.iter().map(|count| count.candidates).sum(), hash::combine(&parts.collect::<Vec<_>>())))
}

fn named(fields: &[String]) -> String {
    if fields.is_empty() { "none at all".to_owned() } else { fields.join(", ") }
}

/// The gate, measured.
///
/// # Errors
/// No sample has a score: the error names the fields that are there.
pub(crate) fn measured(gate: &Gate, found: &Survey) -> Result<ScoreCut> {
    // Of a subset so small that none of it was met nothing is known: nothing passes, which is refused there.
    if !found.has_scores() && !found.scores.is_empty() {
        let fields = named(&found.fields);
        let accepted = format!(
            "by=FIELD, a field of the json, a column of the parquet beside the shards or of a table of scores, with a number: none \
             of {} samples that were looked at has one there; their fields are {fields}",
            found.scores.len()
        );
        return Err(Error::option("gate", gate, accepted));
    }
    let cut = ScoreCut::measured(gate, &found.scores);
    tracing::info!(
        %gate,
        least = cut.least,
        pass_rate = cut.pass_rate,
        points = cut.points,
        "the gate was measured on scores of the corpus"
    );
    Ok(cut)
}

/// The sum of the samples in `shards` that filter and subset let pass.
///
/// # Errors
/// There are none.
pub(crate) fn included(
    read: &ReadOptions,
    counts: &[Count],
    shards: &[Shard],
    lengths: &[u64],
) -> Result<u64> {
    let included: u64 = counts.iter().map(|count| count.included).sum();
    if included > 0 {
        return Ok(included);
    }
    if read.subset.is_none() && read.filter.is_none() {
        return Ok(0);
    }
    let (samples, how) = match counts.iter().any(|count| count.is_estimated) {
        true => (total(lengths)?, ", as far as a look into 16 shards tells"),
        false => (total(lengths)?, ""),
    };
    let Some(subset) = &read.subset else {
        let filter = read.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        // Of what does not count nothing was read but what the filter asks for.
        let all = ReadOptions { filter: None, ..read.clone() };
        let accepted = format!(
            "a filter that some sample passes: none of {samples} does{how}; their fields, in the json or the parquet beside \
             the shards, are {}",
            named(&shard::survey(shards, lengths, &all)?.fields)
        );
        return Err(Error::option("where", format!("{filter:?}"), accepted));
    };
    let by = subset.by();
    let accepted = format!(
        "a list with samples of this corpus: none of {samples} is in it{}{how}. Does it hold what the corpus calls {by}?",
        if read.filter.is_some() { " and passes the filter" } else { "" }
    );
    Err(Error::option("subset", format!("{} entries, by {by}", subset.len()), accepted))
}

/// Whether the tables that samples are joined with fit the corpus of so many `samples`, by what was `found` there:
/// one that joins little is warned of.
///
/// # Errors
/// One that joins nothing, as far as can be told. The error names an entry of it, and what the corpus has there.
pub fn check_tables(read: &ReadOptions, found: &Survey, samples: u64) -> Result<()> {
    if let Some(subset) = &read.subset {
        let entries = (subset.len() as u64, subset.example());
        check_table(
            "subset",
            (subset.by(), None),
            entries,
            (found.in_subset, found.looked_at),
            found,
            samples,
        )?;
    }
    for (at, (_, table)) in read.captions.iter().flat_map(|captions| captions.iter()).enumerate() {
        let (entries, matched) = ((table.len() as u64, table.example()), found.in_captions.get(at).copied());
        let of = (matched.unwrap_or_default(), found.joinable);
        check_table("captions", (table.by(), Some(table.file())), entries, of, found, samples)?;
    }
    for (at, table) in read.scores.iter().flat_map(|scores| scores.tables()).enumerate() {
        let (entries, matched) = ((table.len() as u64, table.example()), found.in_scores.get(at).copied());
        let of = (matched.unwrap_or_default(), found.joinable);
        check_table("scores", (table.by(), Some(table.file())), entries, of, found, samples)?;
    }
    Ok(())
}

/// Checks a table of so many entries, of which an example is given; `matched` of `looked_at` samples were in it.
fn check_table(
    option: &'static str,
    (by, file): (JoinBy, Option<&str>),
    (entries, example): (u64, &str),
    (matched, looked_at): (u64, u64),
    found: &Survey,
    samples: u64,
) -> Result<()> {
    // At most as many as it has entries can be in the corpus.
    let possible = entries.min(samples);
    let should = looked_at as f64 * possible as f64 / samples.max(1) as f64;
    let is_sure = should > SURE_TO_MEET || looked_at >= samples;
    if matched > 0 && (!is_sure || matched as f64 >= LITTLE * should) || looked_at == 0 {
        return Ok(());
    }
    let (table, corpus) = (format!("{example:?}"), found.example.as_ref().and_then(|own| own.name(by)));
    let corpus = corpus.map_or(format!("no {by} at all"), |name| format!("{name:?}"));
    let sides = format!("its first entry has the {by} {table}, the first sample that was looked at {corpus}");
    let file = file.map_or(String::new(), |file| format!(", of {file}"));
    let given = format!("{entries} entries, by {by}{file}");
    if matched == 0 && is_sure {
        let accepted = format!(
            "a table with samples of this corpus: none of {looked_at} that were looked at is in it. Does it hold what \
             the corpus calls {by}? {}",
            capitalised(&sides)
        );
        return Err(Error::option(option, given, accepted));
    }
    if matched == 0 {
        tracing::warn!(
            "{option}={given}: none of {looked_at} samples that were looked at is in it, as may be with so few \
             entries; {sides}"
        );
    } else {
        tracing::warn!(
            "{option}={given}: {matched} of {looked_at} samples that were looked at are in it, less than a tenth of \
             the {should:.0} that would be if all its entries were of this corpus; {sides}"
        );
    }
    Ok(())
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
