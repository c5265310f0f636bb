//! What happened to every sample, and where the time went.
//!
//! Two equations hold for every shard at every window and for every epoch (design, section 3):
//! read = kept + dropped + failed, and yielded = kept + repeats - surplus (of what was handed on
//! so far). The first is checked at every window; a violation is a bug and ends the run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, FailReason, Result};
use crate::sample::{DropReason, FailedSample, Outcome};

/// Failed samples that are named one by one; the others are counted.
const NAMED_FAILURES: usize = 64;

/// Outcomes of the samples of a shard, or of all shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Samples read or, with a ledger, known: everything that was decided.
    pub read: u64,
    /// Samples that survive.
    pub kept: u64,
    /// Readable samples below the gate.
    pub dropped_gate: u64,
    /// Readable samples that are near-copies of a kept one.
    pub dropped_dedup: u64,
    /// Readable samples beyond the quota.
    pub dropped_quota: u64,
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
            Outcome::Failed(reason) => *self.failed.entry(reason).or_default() += 1,
        }
    }

    /// Unusable samples of any reason.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Whether every sample read has exactly one outcome.
    pub fn conserved(&self) -> bool {
        let dropped = self.dropped_gate + self.dropped_dedup + self.dropped_quota;
        self.read == self.kept + dropped + self.failures()
    }

    fn merge(&mut self, other: &Counts) {
        self.read += other.read;
        self.kept += other.kept;
        self.dropped_gate += other.dropped_gate;
        self.dropped_dedup += other.dropped_dedup;
        self.dropped_quota += other.dropped_quota;
        for (&reason, n) in &other.failed {
            *self.failed.entry(reason).or_default() += n;
        }
    }
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

/// Stages whose busy time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading shards.
    Read,
    /// Decoding previews.
    Preview,
    /// Running the encoder.
    Encode,
    /// Deciding.
    Select,
    /// Generating captions.
    Caption,
    /// Decoding and transforming survivors, fusing and tokenising captions.
    Example,
    /// A finished batch waiting for the training loop to take it.
    WaitConsumer,
    /// The training loop waiting for a batch.
    WaitLoader,
}

impl Stage {
    /// Every stage, in order of the trip.
    pub const ALL: [Stage; 8] = [
        Self::Read,
        Self::Preview,
        Self::Encode,
        Self::Select,
        Self::Caption,
        Self::Example,
        Self::WaitConsumer,
        Self::WaitLoader,
    ];

    /// Name in the statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Preview => "preview",
            Self::Encode => "encode",
            Self::Select => "select",
            Self::Caption => "caption",
            Self::Example => "example",
            Self::WaitConsumer => "wait_consumer",
            Self::WaitLoader => "wait_loader",
        }
    }
}

/// A snapshot of an epoch's statistics on one rank.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Stats {
    /// Epoch.
    pub epoch: u64,
    /// Outcomes over all shards that this rank's lanes have decided so far.
    pub counts: Counts,
    /// Samples handed to the training loop.
    pub yielded: u64,
    /// Survivors passed over on resuming, because their batches were handed over before.
    pub replayed: u64,
    /// Places filled with one of the lane's first survivors, for want of a survivor.
    pub repeats: u64,
    /// Survivors left over after the last batch.
    pub surplus: u64,
    /// Samples that went through the encoder (the others were on the ledger).
    pub encoded: u64,
    /// Captions generated (the others were on the ledger or not needed).
    pub captioned: u64,
    /// Seconds of work by stage; threads of a stage add up.
    pub seconds: BTreeMap<&'static str, f64>,
    /// Outcomes by shard.
    pub shards: BTreeMap<Arc<str>, Counts>,
    /// The first failed samples, named.
    pub failures: Vec<Failure>,
    /// Shards whose length is not what the table says.
    pub length_mismatches: Vec<LengthMismatch>,
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
                "epoch {}: {} places ({:.1}%) were filled by repeating a lane's first survivors: fewer \
                 survived than was expected, since samples failed, were near-copies, or the fit's shares are \
                 off",
                self.epoch,
                self.repeats,
                share(self.repeats)
            ));
        }
        if share(self.surplus.saturating_sub(batch_size as u64)) > 2.0 {
            warnings.push(format!(
                "epoch {}: {} survivors ({:.1}%) were left over after the last batch: more survived than \
                 was expected, since the fit's shares or the shards' lengths are off",
                self.epoch,
                self.surplus,
                share(self.surplus)
            ));
        }
        for m in &self.length_mismatches {
            warnings.push(format!(
                "shard {}: {} samples expected, {} found; correct or delete its sizes.json",
                m.shard, m.expected, m.found
            ));
        }
        warnings
    }
}

/// Statistics under way, shared by the threads of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    epoch: u64,
    inner: Mutex<Inner>,
    nanos: [AtomicU64; Stage::ALL.len()],
    pub(crate) yielded: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) repeats: AtomicU64,
    pub(crate) surplus: AtomicU64,
    pub(crate) encoded: AtomicU64,
    pub(crate) captioned: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    shards: BTreeMap<Arc<str>, Counts>,
    failures: Vec<Failure>,
    length_mismatches: Vec<LengthMismatch>,
}

/// Limit on failed samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MaxErrors(pub(crate) f64);

impl MaxErrors {
    /// Samples to have been read before a fraction is judged.
    const JUDGE_AFTER: u64 = 1000;

    fn exceeded(self, counts: &Counts) -> bool {
        let failed = counts.failures() as f64;
        if self.0 >= 1.0 {
            failed > self.0
        } else {
            counts.read >= Self::JUDGE_AFTER && failed > self.0 * counts.read as f64
        }
    }
}

impl Recorder {
    pub(crate) fn new(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the outcomes of a lane's part of a window, and checks conservation and the limit on
    /// failures.
    pub(crate) fn window<'a>(
        &self,
        shard: &Arc<str>,
        outcomes: impl Iterator<Item = Outcome>,
        failures: impl Iterator<Item = &'a FailedSample>,
        limit: MaxErrors,
    ) -> Result<()> {
        let mut counts = Counts::default();
        outcomes.for_each(|o| counts.add(o));
        let mut inner = self.lock();
        inner.counts.merge(&counts);
        inner.shards.entry(Arc::clone(shard)).or_default().merge(&counts);
        for f in failures {
            Self::name(&mut inner, shard, f);
        }
        Self::check(&inner, limit).map_err(|e| e.in_shard(shard))
    }

    /// Turns a kept sample into a failed one: its image proved undecodable at full quality.
    pub(crate) fn failed_late(
        &self,
        shard: &Arc<str>,
        failed: &FailedSample,
        limit: MaxErrors,
    ) -> Result<()> {
        let mut inner = self.lock();
        let demote = |counts: &mut Counts| {
            counts.kept -= 1;
            *counts.failed.entry(failed.reason).or_default() += 1;
        };
        demote(&mut inner.counts);
        demote(inner.shards.entry(Arc::clone(shard)).or_default());
        Self::name(&mut inner, shard, failed);
        Self::check(&inner, limit).map_err(|e| e.in_shard(shard))
    }

    fn name(inner: &mut Inner, shard: &Arc<str>, f: &FailedSample) {
        if inner.failures.len() < NAMED_FAILURES {
            tracing::warn!(shard = %shard, key = %f.key, offset = f.offset, reason = %f.reason, "sample failed: {}", f.detail);
            inner.failures.push(Failure {
                shard: Arc::clone(shard),
                key: Arc::clone(&f.key),
                offset: f.offset,
                reason: f.reason,
                detail: f.detail.clone(),
            });
        }
    }

    fn check(inner: &Inner, limit: MaxErrors) -> Result<()> {
        if !inner.counts.conserved() {
            let detail = format!("outcomes do not add up: {:?}", inner.counts);
            return Err(ErrorKind::Stage { stage: "select", detail }.into());
        }
        if limit.exceeded(&inner.counts) {
            return Err(Self::too_many(inner, limit));
        }
        Ok(())
    }

    fn too_many(inner: &Inner, limit: MaxErrors) -> Error {
        let reasons = inner.counts.failed.iter().map(|(reason, n)| {
            let example = inner.failures.iter().find(|f| f.reason == *reason);
            let example =
                example.map_or(String::new(), |f| format!(" (first: shard {}, key {})", f.shard, f.key));
            format!("{n} {reason}{example}")
        });
        ErrorKind::TooManyErrors {
            failed: inner.counts.failures(),
            read: inner.counts.read,
            limit: limit.0.to_string(),
            reasons: reasons.collect::<Vec<_>>().join(", "),
        }
        .into()
    }

    pub(crate) fn length_mismatch(&self, shard: &Arc<str>, expected: u64, found: u64) {
        let mut inner = self.lock();
        if inner.length_mismatches.iter().all(|m| m.shard != *shard) {
            tracing::warn!(shard = %shard, expected, found, "the length table is wrong for this shard");
            inner.length_mismatches.push(LengthMismatch { shard: Arc::clone(shard), expected, found });
        }
    }

    /// Runs `work` and adds its time to `stage`.
    pub(crate) fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add_time(stage, start.elapsed());
        result
    }

    pub(crate) fn add_time(&self, stage: Stage, elapsed: Duration) {
        self.nanos[stage as usize].fetch_add(elapsed.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let inner = self.lock();
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Stats {
            epoch: self.epoch,
            counts: inner.counts.clone(),
            yielded: get(&self.yielded),
            replayed: get(&self.replayed),
            repeats: get(&self.repeats),
            surplus: get(&self.surplus),
            encoded: get(&self.encoded),
            captioned: get(&self.captioned),
            seconds: Stage::ALL
                .iter()
                .map(|&s| (s.name(), get(&self.nanos[s as usize]) as f64 * 1e-9))
                .collect(),
            shards: inner.shards.clone(),
            failures: inner.failures.clone(),
            length_mismatches: inner.length_mismatches.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleId;

    fn failed() -> FailedSample {
        FailedSample {
            id: SampleId(1),
            key: "007".into(),
            position: 7,
            offset: 512,
            reason: FailReason::MissingImage,
            detail: "members: txt".into(),
        }
    }

    #[test]
    fn limits_name_reasons_and_an_example() {
        let recorder = Recorder::new(0);
        let shard: Arc<str> = "a.tar".into();
        let outcomes = || vec![Outcome::Kept { pi: None }, Outcome::Failed(FailReason::MissingImage)];
        recorder.window(&shard, outcomes().into_iter(), [failed()].iter(), MaxErrors(1.0)).unwrap();
        let error = recorder
            .window(&shard, outcomes().into_iter(), [failed()].iter(), MaxErrors(1.0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("2 of 4 read") && error.contains("2 missing-image (first: shard a.tar, key 007)"),
            "{error}"
        );
    }

    #[test]
    fn a_fraction_is_judged_on_enough_samples() {
        let many = |n| Counts { read: n, failed: [(FailReason::BadJson, n / 2)].into(), ..Counts::default() };
        assert!(!MaxErrors(0.1).exceeded(&many(100)));
        assert!(MaxErrors(0.1).exceeded(&many(1000)));
        assert!(!MaxErrors(0.6).exceeded(&many(1000)));
    }

    #[test]
    fn a_late_failure_keeps_the_balance() {
        let recorder = Recorder::new(0);
        let shard: Arc<str> = "a.tar".into();
        recorder
            .window(&shard, [Outcome::Kept { pi: None }].into_iter(), [].iter(), MaxErrors(10.0))
            .unwrap();
        recorder.failed_late(&shard, &failed(), MaxErrors(10.0)).unwrap();
        let stats = recorder.snapshot();
        assert!(stats.counts.conserved());
        assert_eq!((stats.counts.kept, stats.counts.failures(), stats.failures.len()), (0, 1, 1));
    }
}
