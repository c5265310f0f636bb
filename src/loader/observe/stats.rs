//! What happened to every sample, and where the time went.
//!
//! Two equations hold (design, section 3). For every shard, at every window:
//! read = kept + dropped + excluded + failed; a violation is a bug and ends the run. For every epoch that is over:
//! yielded + replayed = kept + repeats - surplus.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::GateWorth;
use crate::error::FailReason;
use crate::sample::{DropReason, Outcome};

/// Outcomes of the samples of a shard, or of all shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Samples read or, with a ledger, known: everything that was decided.
    pub read: u64,
    /// Samples that are kept.
    pub kept: u64,
    /// Readable samples below the gate.
    pub dropped_gate: u64,
    /// Readable samples that are near-duplicates of a kept one.
    pub dropped_dedup: u64,
    /// Readable samples beyond the quota.
    pub dropped_quota: u64,
    /// Readable samples that `thin` dropped before they were decoded.
    pub dropped_thin: u64,
    /// Samples that the filter on metadata does not let pass.
    pub excluded: u64,
    /// Unusable samples by reason.
    pub failed: BTreeMap<FailReason, u64>,
}

impl Counts {
    /// Counts one outcome.
    pub fn add(&mut self, outcome: Outcome) {
        self.read += 1;
        match outcome {
            Outcome::Kept { .. } => self.kept += 1,
            Outcome::Dropped(DropReason::Gate) => self.dropped_gate += 1,
            Outcome::Dropped(DropReason::Dedup) => self.dropped_dedup += 1,
            Outcome::Dropped(DropReason::Quota) => self.dropped_quota += 1,
            Outcome::Dropped(DropReason::Thin) => self.dropped_thin += 1,
            Outcome::Failed(FailReason::Excluded) => self.excluded += 1,
            Outcome::Failed(reason) => *self.failed.entry(reason).or_default() += 1,
        }
    }

    /// Unusable samples of any reason.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Whether every sample read has exactly one outcome.
    pub fn conserved(&self) -> bool {
        let dropped = self.dropped_gate + self.dropped_dedup + self.dropped_quota + self.dropped_thin;
        self.read == self.kept + dropped + self.excluded + self.failures()
    }

    /// What became of the samples, in words: "96 are excluded by where, 4 are dropped by the gate".
    /// `excluded_by` names what excludes.
    pub(crate) fn in_words(&self, excluded_by: &str) -> String {
        let outcomes = [
            (self.kept, "are kept".to_owned()),
            (self.excluded, format!("are excluded by {excluded_by}")),
            (self.dropped_gate, "are dropped by the gate".to_owned()),
            (self.dropped_dedup, "are near-duplicates".to_owned()),
            (self.dropped_quota, "are dropped by the quota".to_owned()),
            (self.dropped_thin, "are dropped by thin".to_owned()),
            (self.failures(), format!("failed ({})", self.reasons())),
        ];
        let words = outcomes.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        words.collect::<Vec<_>>().join(", ")
    }

    /// Failed samples by reason, in words.
    pub(crate) fn reasons(&self) -> String {
        let reasons: Vec<String> = self.failed.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.join(", ")
    }

    pub(crate) fn merge(&mut self, other: &Counts) {
        self.read += other.read;
        self.kept += other.kept;
        self.excluded += other.excluded;
        self.dropped_gate += other.dropped_gate;
        self.dropped_dedup += other.dropped_dedup;
        self.dropped_quota += other.dropped_quota;
        self.dropped_thin += other.dropped_thin;
        for (&reason, n) in &other.failed {
            *self.failed.entry(reason).or_default() += n;
        }
    }
}

/// What became of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LaneCounts {
    pub(crate) counts: Counts,
    /// Places filled with one of its first kept samples.
    pub(crate) repeats: u64,
}

/// A failed sample, named.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// Shard (path or URL).
    pub shard: Arc<str>,
    /// Key of the sample.
    pub key: Arc<str>,
    /// Byte offset of its first header in the decompressed shard.
    pub offset: u64,
    /// Why it cannot be used.
    pub reason: FailReason,
    /// What exactly was found.
    pub detail: String,
}

/// How a table that samples are joined with fits the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Joined {
    /// What it goes by: `key`, `uid` or `id`.
    pub by: &'static str,
    /// Its entries.
    pub entries: u64,
    /// Samples that were found in it.
    pub matched: u64,
    /// Samples that were looked for: of a subset those that this rank's lanes have decided so far, of captions those of
    /// them that were kept.
    pub samples: u64,
    /// Samples of the corpus.
    #[serde(skip)]
    pub(crate) corpus: u64,
}

impl Joined {
    /// What is odd about it, if anything: less than a tenth of what could have been met.
    fn warning(&self, option: &str) -> Option<String> {
        let Self { by, entries, matched, samples, corpus } = *self;
        // Not all of a table is in a corpus that is smaller.
        let could = entries.min(corpus) as f64 * samples as f64 / corpus.max(1) as f64;
        (could >= 10.0 && (matched as f64) < 0.1 * could).then(|| {
            format!(
                "{option}: of {entries} entries, by {by}, {matched} were found among {samples} samples: is it of \
                 another corpus, or are its entries not what the corpus calls {by}?"
            )
        })
    }
}

/// A shard whose number of samples is not the one in the length table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LengthMismatch {
    /// Shard (path or URL).
    pub shard: Arc<str>,
    /// Samples according to `sizes.json` or the scan.
    pub expected: u64,
    /// Samples found.
    pub found: u64,
}

/// Target of warnings that callers are also handed as values, so that one who passes both on can tell.
pub const HANDED_WARNINGS: &str = "tldr_loader::epoch";

/// What became of one corpus of a mix.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SourceStats {
    /// Its patterns, as they were given; `all` where no weights are given.
    pub name: Arc<str>,
    /// Its share of the samples that an epoch yields, over all ranks.
    pub share: f64,
    /// Passes over its shards that an epoch makes, over all ranks: below 1 where it reads a part of them.
    pub passes: f64,
    /// Samples read or known so far.
    pub read: u64,
    /// Of these, kept samples.
    pub kept: u64,
    /// Samples handed to the training loop.
    pub yielded: u64,
}

/// What a gate by the captioner's alignment is worth: [`GateWorth`], as a loader tells it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct GateStats {
    /// Chance that a true caption aligns better than a swapped one, 0.5 where alignment is guessing.
    pub auc: f64,
    /// Its standard error.
    pub auc_error: f64,
    /// Of the captioner's decoder, over tokens of true captions; `None` of a scorer that writes none.
    pub perplexity: Option<f64>,
    /// Pairs that were measured.
    pub pairs: u64,
    /// Which: `held-out`, `sample` or `trained`.
    pub measured_on: &'static str,
    /// Whether the AUC is below 0.6, or within two standard errors of 0.5.
    pub close_to_chance: bool,
}

impl From<GateWorth> for GateStats {
    fn from(GateWorth { validation, on }: GateWorth) -> Self {
        Self {
            auc: validation.auc,
            auc_error: validation.auc_error,
            perplexity: validation.perplexity(),
            pairs: validation.pairs,
            measured_on: on.name(),
            close_to_chance: validation.is_close_to_chance(),
        }
    }
}

/// What a stage is doing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Activity {
    /// The stage, and the lane it works for.
    pub stage: String,
    /// What it does, or what it waits for.
    pub doing: String,
    /// Seconds since the last sign of life.
    pub seconds: f64,
}

/// A snapshot of an epoch's statistics on one rank.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Stats {
    /// Epoch.
    pub epoch: u64,
    /// Rank of this process; `None` where it is not known before the first batch.
    pub rank: Option<usize>,
    /// Number of processes that share the corpus.
    pub world_size: usize,
    /// Who says so: `RANK and WORLD_SIZE`, `the process group`, `its options`, ...
    pub rank_from: String,
    /// Outcomes over all shards that this rank's lanes have decided so far.
    pub counts: Counts,
    /// Samples handed to the training loop.
    pub yielded: u64,
    /// Kept samples skipped on resuming, because their batches were handed over before.
    pub replayed: u64,
    /// Places filled with one of the lane's first kept samples, for want of a kept sample.
    pub repeats: u64,
    /// Kept samples left over after the last batch.
    pub surplus: u64,
    /// Rows of mode `Eval` that are no samples of their own, no part of `yielded`: they make every rank's batches as
    /// many and as long as the others'.
    pub padded: u64,
    /// Samples that went through the scorer (the others were on the ledger).
    pub encoded: u64,
    /// Bytes of encoded images and json for which `buffer_bytes` had no room: they waited in files.
    pub spilled_bytes: u64,
    /// Captions generated (the others were on the ledger or not needed).
    pub captioned: u64,
    /// Generated captions that the judge scored (the others were on the ledger or not needed).
    pub judged: u64,
    /// Kept samples that the gate dropped and their generated caption brought back; of `counts.kept`.
    pub rescued: u64,
    /// (sum of w)² / sum of w² over the samples yielded, w being 1 / pi: how many samples of equal weight
    /// an average of them is worth. `None` where the pi of one is not known.
    pub n_eff: Option<f64>,
    /// Samples yielded whose caption stands earlier in the batch, of this rank: for a contrastive loss
    /// they are false negatives. A rank sees its own part of the global batch only.
    pub duplicate_captions: u64,
    /// The same of images: samples whose semantic hash differs from an earlier one of the batch in at most
    /// 15 of its 256 bits, as those of images with a cosine of 0.983 do. Of those with signals only.
    pub duplicate_images: u64,
    /// Kept samples that `defer_duplicates` put off to a later batch of their lane, each counted once.
    pub deferred: u64,
    /// Kept samples whose generated caption is empty: they keep their original. What is written for others, which only
    /// `rescue` could keep, is no part of it.
    pub captions_empty: u64,
    /// Kept samples whose generated caption repeats a phrase three times in a row: where `replace_repetitive` is on,
    /// they keep their original.
    pub captions_repetitive: u64,
    /// What the gate is worth, where one by the captioner's alignment is used and the fit measured it.
    pub gate: Option<GateStats>,
    /// The corpora that are mixed; one where no weights are given.
    pub sources: Vec<SourceStats>,
    /// What every stage is doing now.
    pub activity: Vec<Activity>,
    /// Seconds of work by stage, wall-clock of each thread, summed over the threads that work for the stage (`read` and
    /// `select`: one per lane and source; `preview` and `example`: the pool; `encode`, `caption`, `judge` and `batch`: one
    /// thread). `wait_consumer` and `wait_loader` are wall-clock: a finished batch waited for the training loop, and the
    /// training loop for a batch.
    pub seconds: BTreeMap<&'static str, f64>,
    /// Outcomes by shard.
    pub shards: BTreeMap<Arc<str>, Counts>,
    /// The first failed samples, named.
    pub failures: Vec<Failure>,
    /// Shards whose length is not what the table says.
    pub length_mismatches: Vec<LengthMismatch>,
    /// Shards that hold no samples at all, by path or URL, over all ranks' shards as far as they are known.
    pub empty_shards: Vec<Arc<str>>,
    /// What became of each lane of this rank.
    #[serde(skip)]
    pub(crate) lanes: BTreeMap<usize, LaneCounts>,
    /// What excludes samples, in words.
    #[serde(skip)]
    pub(crate) excluded_by: String,
    /// Lanes of all ranks.
    #[serde(skip)]
    pub(crate) lane_count: usize,
    /// Bytes skipped by shard: after damaged tar headers, and behind end markers.
    pub skipped_bytes: BTreeMap<Arc<str>, u64>,
    /// Usable samples without a number in the gate's field: they pass no gate.
    pub unscored: u64,
    /// By field that was asked for, samples where it is `NaN`, which counts as no value. As `unread_json`, of the
    /// samples whose json this epoch read: what the ledger knows is not read again.
    pub not_numbers: BTreeMap<Arc<str>, u64>,
    /// Samples whose json cannot be read, and that count without it: they have no score, and no uid to be
    /// found in `captions` by. Where a caption, `where` or a `subset` depends on it, the sample fails instead
    /// (`bad-json`).
    pub unread_json: u64,
    /// How `subset` fits the corpus, where there is one; what matches may still be excluded by `where`.
    pub subset: Option<Joined>,
    /// How each table of `captions` fits the corpus, by name.
    pub captions: BTreeMap<Arc<str>, Joined>,
}

impl Stats {
    /// What a user should know of a finished epoch: repeats or surplus above 2% of what was
    /// yielded, and wrong lengths. `batch_size` is the rank's: a part of a batch is always left
    /// over, and no cause for a warning.
    pub fn warnings(&self, batch_size: usize) -> Vec<String> {
        let mut warnings = vec![];
        let share = |n: u64| 100.0 * n as f64 / self.yielded.max(1) as f64;
        if share(self.repeats) > 2.0 {
            warnings.push(format!(
                "epoch {}: {} rows ({:.1}%) were filled by repeating a lane's first kept samples, since fewer were kept \
                 than expected{}",
                self.epoch,
                self.repeats,
                share(self.repeats),
                self.shortest_lane()
            ));
        }
        if share(self.surplus.saturating_sub(batch_size as u64)) > 2.0 {
            warnings.push(format!(
                "epoch {}: {} kept samples ({:.1}%) were left over after the last batch, since more were kept than \
                 expected: {}",
                self.epoch,
                self.surplus,
                share(self.surplus),
                self.why_more()
            ));
        }
        if self.counts.read > 0 && self.yielded + self.replayed == 0 {
            warnings.push(format!(
                "epoch {}: nothing was yielded of {} samples read: {}",
                self.epoch,
                self.counts.read,
                self.counts.in_words(self.excluded_by())
            ));
        }
        if let Some(first) = self.empty_shards.first() {
            let more = self.empty_shards.len() - 1;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warnings.push(format!("shard {first}{more}: no samples in it: it may be cut, or zeros"));
        }
        warnings.extend(self.subset.and_then(|subset| subset.warning("subset")));
        for (name, captions) in &self.captions {
            warnings.extend(captions.warning(&format!("captions of {name}")));
        }
        for (field, count) in &self.not_numbers {
            warnings.push(format!(
                "epoch {}: {count} of {} samples have NaN in {field:?}, which counts as no value",
                self.epoch, self.counts.read
            ));
        }
        if self.unread_json > 0 {
            warnings.push(format!(
                "epoch {}: the json of {} samples cannot be read, and none of its fields counts; the log names the \
                 first",
                self.epoch, self.unread_json
            ));
        }
        if self.unscored * 2 > self.counts.read.saturating_sub(self.counts.excluded) {
            warnings.push(format!(
                "epoch {}: {} of {} samples have no number in the gate's field, and pass no gate",
                self.epoch, self.unscored, self.counts.read
            ));
        }
        for (shard, bytes) in &self.skipped_bytes {
            warnings.push(format!(
                "shard {shard}: {bytes} bytes were skipped, after a damaged tar header or behind the end marker; what they held is \
                 lost"
            ));
        }
        for m in &self.length_mismatches {
            warnings.push(format!(
                "shard {}: {} samples expected, {} found: it is not whole, or what lists it is wrong \
                 (lengths=, sizes.json, _stats.json or .parquet beside it)",
                m.shard, m.expected, m.found
            ));
        }
        warnings
    }

    /// What excludes samples, in words.
    fn excluded_by(&self) -> &str {
        if self.excluded_by.is_empty() { "nothing" } else { &self.excluded_by }
    }

    /// The lane of this rank that repeated most, in words: why, and what to do.
    fn shortest_lane(&self) -> String {
        let Some((lane, LaneCounts { counts, repeats })) = self.lanes.iter().max_by_key(|(_, l)| l.repeats)
        else {
            return String::new();
        };
        format!(
            "; the shortest of this rank is lane {lane} of {}, with {repeats} repeats: of {} samples read for it {}: {}",
            self.lane_count,
            counts.read,
            counts.in_words(self.excluded_by()),
            self.why_fewer(counts, *repeats)
        )
    }

    /// Why a lane kept fewer than expected, by `repeats`.
    fn why_fewer(&self, counts: &Counts, repeats: u64) -> String {
        if !self.length_mismatches.is_empty() {
            return LENGTHS.into();
        }
        let losses = [(counts.failures(), "failed samples"), (counts.dropped_dedup, "near-duplicates")];
        let (lost, what) = losses.into_iter().max_by_key(|(n, _)| *n).unwrap_or_default();
        if lost >= repeats {
            return format!("{what} are the cause, which no expectation knows of");
        }
        match self.is_chance(&[(counts.kept + repeats, repeats)]) {
            true => self.too_short(counts.read),
            false => SHARES.into(),
        }
    }

    /// Why the lanes kept more than expected.
    fn why_more(&self) -> String {
        if !self.length_mismatches.is_empty() {
            return LENGTHS.into();
        }
        let lanes = self.lanes.len().max(1) as u64;
        let of_lanes: Vec<(u64, u64)> =
            self.lanes.values().map(|lane| (lane.counts.kept, self.surplus / lanes)).collect();
        let shortest = self.lanes.values().map(|lane| lane.counts.read).min().unwrap_or_default();
        if self.is_chance(&of_lanes) { self.too_short(shortest) } else { SHARES.into() }
    }

    /// Whether lanes that were to keep so many may well be off by so many each: a count of independent choices has a
    /// standard deviation of at most its root.
    fn is_chance(&self, lanes: &[(u64, u64)]) -> bool {
        let bound: f64 = lanes.iter().map(|(expected, _)| 3.0 * (*expected as f64).sqrt()).sum();
        lanes.iter().map(|(_, off)| *off).sum::<u64>() as f64 <= bound
    }

    /// That lanes are too short, and what to do.
    fn too_short(&self, read: u64) -> String {
        if self.lane_count > self.world_size.max(1) {
            let least = self.world_size.max(1);
            format!(
                "a lane of {read} samples is too short for the expected number to hold; use fewer than {} lanes \
                 (lanes of World; {least} is the least here)",
                self.lane_count
            )
        } else {
            format!(
                "{read} samples are too few for the expected number to hold; use more shards, or fewer ranks"
            )
        }
    }
}

/// Causes that no lane is to blame for.
const LENGTHS: &str = "shards hold other numbers of samples than are listed for them";
const SHARES: &str = "the expected number is off: what the captioner was fitted on has other clusters or alignments than these \
                      shards; fit it on a sample of them, or make a plan, which counts";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn counts(read: u64, kept: u64, failed: u64) -> Counts {
        let dropped_quota = read - kept - failed;
        let failed = BTreeMap::from([(FailReason::BadJson, failed)]);
        Counts { read, kept, dropped_quota, failed, ..Counts::default() }
    }

    /// The warning of an epoch of 4 lanes that yielded 400 samples.
    fn warning(counts: Counts, repeats: u64, surplus: u64) -> String {
        let lane = LaneCounts { counts: counts.clone(), repeats };
        let stats = Stats {
            counts,
            yielded: 400,
            repeats,
            surplus,
            lane_count: 4,
            world_size: 2,
            lanes: BTreeMap::from([(2, lane)]),
            ..Stats::default()
        };
        let [warning] = &stats.warnings(8)[..] else { panic!("{:?}", stats.warnings(8)) };
        warning.clone()
    }

    #[test]
    fn short_lanes_are_blamed_for_what_chance_explains() {
        let said = warning(counts(360, 80, 0), 20, 0);
        assert!(
            said.contains("lane 2 of 4, with 20 repeats: of 360 samples read for it 80 are kept"),
            "{said}"
        );
        assert!(
            said.contains("a lane of 360 samples is too short for the expected number to hold"),
            "{said}"
        );
        assert!(said.ends_with("use fewer than 4 lanes (lanes of World; 2 is the least here)"), "{said}");
        let said = warning(counts(400, 100, 0), 0, 28);
        assert!(said.contains("too short") && said.contains("lanes of World; 2 is"), "{said}");
    }

    #[test]
    fn what_chance_does_not_explain_has_another_cause() {
        let said = warning(counts(40_000, 9_000, 0), 1_000, 0);
        assert!(said.contains("the expected number is off") && !said.contains("too short"), "{said}");
        let said = warning(counts(40_000, 9_000, 0), 0, 1_000);
        assert!(said.contains("the expected number is off") && !said.contains("too short"), "{said}");
        let said = warning(counts(360, 80, 30), 20, 0);
        assert!(
            said.contains("30 failed (30 bad-json)") && said.contains("failed samples are the cause"),
            "{said}"
        );
    }

    #[test]
    fn nothing_that_was_yielded_has_a_cause() {
        let stats =
            Stats { counts: Counts { read: 9, excluded: 9, ..Counts::default() }, ..Stats::default() };
        let stats = Stats { excluded_by: "where = \"x = 1\"".into(), ..stats };
        let said = "epoch 0: nothing was yielded of 9 samples read: 9 are excluded by where = \"x = 1\"";
        assert_eq!(stats.warnings(8), [said]);
    }
}
