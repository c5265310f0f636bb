//! Statistics under way: what the threads of an epoch report, counted, named and limited.
//!
//! Every window's outcomes are checked for conservation and against the limits on failed samples.
//! Failures are logged by reason: the first few, then at powers of two.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, FailReason, Result};
use crate::ledger::WindowKey;
use crate::loader::duplicates::Seen;
use crate::loader::observe::joins::Joins;
use crate::loader::observe::stats::{Counts, Failure, LaneCounts, LengthMismatch, Stats};
use crate::loader::observe::watchdog::Board;
use crate::loader::stage::Stage;
use crate::model::SemanticHash;
use crate::sample::{FailedSample, Outcome};
use crate::shard::{Gaps, OUTSIDE};
use crate::text::is_repetitive;

/// Failed samples of a reason that are named one by one; the others are counted.
const NAMED_FAILURES: u64 = 16;

/// Statistics under way, shared by the threads of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(super) epoch: u64,
    pub(super) inner: Mutex<Inner>,
    /// What the threads of the epoch are doing.
    pub(crate) board: Board,
    pub(super) nanos: [AtomicU64; Stage::ALL.len()],
    pub(super) wait_consumer: AtomicU64,
    pub(super) wait_loader: AtomicU64,
    pub(crate) yielded: AtomicU64,
    pub(super) yielded_of: Vec<AtomicU64>,
    pub(crate) replayed: AtomicU64,
    pub(super) repeats: AtomicU64,
    pub(crate) surplus: AtomicU64,
    pub(crate) padded: AtomicU64,
    pub(crate) encoded: AtomicU64,
    pub(crate) captioned: AtomicU64,
    pub(crate) judged: AtomicU64,
    pub(crate) rescued: AtomicU64,
    pub(crate) spilled: AtomicU64,
    /// Samples without a score.
    pub(crate) unscored: AtomicU64,
    /// The tables that samples are joined with.
    pub(super) joins: Joins,
    /// What excludes samples, in words.
    pub(super) excluded_by: String,
    /// Lanes of all ranks.
    pub(super) lane_count: usize,
    pub(crate) deferred: AtomicU64,
    pub(super) duplicate_captions: AtomicU64,
    pub(super) duplicate_images: AtomicU64,
    pub(super) weights: Mutex<Weights>,
    pub(super) captions_empty: AtomicU64,
    pub(super) captions_repetitive: AtomicU64,
}

/// Of windows that lanes share, the rows in whose json something was asked for in vain: with their key until they are
/// counted. Few: a lane shares its first window and its last.
type SharedGaps = HashMap<WindowKey, BTreeMap<usize, Option<(Arc<str>, Gaps)>>>;

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(super) counts: Counts,
    /// Of `counts.excluded`, those that the subset does not name.
    pub(super) outside: u64,
    pub(super) shards: BTreeMap<Arc<str>, Counts>,
    pub(super) lanes: BTreeMap<usize, LaneCounts>,
    pub(super) failures: Vec<Failure>,
    /// Failures by reason so far, each counted when it is named.
    pub(super) named: BTreeMap<FailReason, u64>,
    pub(super) length_mismatches: Vec<LengthMismatch>,
    /// Shards that hold no samples.
    pub(super) empty_shards: BTreeSet<Arc<str>>,
    pub(super) skipped_bytes: BTreeMap<Arc<str>, u64>,
    /// Samples whose fields, by name, are `NaN`, and those whose json cannot be read but that count without.
    pub(super) not_numbers: BTreeMap<Arc<str>, u64>,
    pub(super) unread_json: u64,
    pub(super) shared_gaps: SharedGaps,
    /// Whether a shard was read through for the sake of a few of its samples.
    pub(super) streamed: bool,
}

/// Sums over the weights of what was yielded.
#[derive(Debug, Default)]
pub(super) struct Weights {
    sum: f64,
    squares: f64,
    /// Whether a sample had none.
    lacking: bool,
}

impl Weights {
    /// (sum of w)² / sum of w²; `None` where there is nothing to say it of.
    fn n_eff(&self) -> Option<f64> {
        (!self.lacking && self.squares > 0.0).then(|| self.sum * self.sum / self.squares)
    }
}

/// Limits on failed samples: counts, or below 1 shares of what was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MaxErrors {
    pub(crate) in_all: f64,
    pub(crate) per_shard: f64,
}

/// Samples to have been read before a share is judged: in all, and of one shard.
const JUDGE_AFTER: u64 = 1000;
const JUDGE_SHARD_AFTER: u64 = 100;

/// Whether `counts` has more failures than `limit`, a share of which is judged from `after` on.
fn exceeded(limit: f64, counts: &Counts, after: u64) -> bool {
    let failed = counts.failures() as f64;
    // None at all is a count; every other number below 1 is a share.
    if limit >= 1.0 || limit == 0.0 {
        failed > limit
    } else {
        let looked_at = counts.read - counts.excluded.min(counts.read);
        looked_at >= after && failed > limit * looked_at as f64
    }
}

impl Recorder {
    /// Of an epoch of so many sources.
    pub(crate) fn new(epoch: u64, sources: usize) -> Self {
        Self { epoch, yielded_of: (0..sources).map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    /// Counts a sample of `source` that is handed to the training loop.
    pub(crate) fn yielded_of(&self, source: usize) {
        self.yielded_of[source].fetch_add(1, Ordering::Relaxed);
    }

    /// Samples of each source that were handed to the training loop, in the order of the mix.
    pub(crate) fn yielded_by_source(&self) -> impl Iterator<Item = u64> + '_ {
        self.yielded_of.iter().map(|n| n.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a place of `lane` that is filled with one of its first kept samples.
    pub(crate) fn repeat(&self, lane: usize) {
        self.repeats.fetch_add(1, Ordering::Relaxed);
        self.lock().lanes.entry(lane).or_default().repeats += 1;
    }

    /// What became of a lane so far.
    pub(crate) fn lane(&self, lane: usize) -> LaneCounts {
        self.lock().lanes.get(&lane).cloned().unwrap_or_default()
    }

    /// Adds the outcomes of a lane's part of a window, and checks conservation and the limit on
    /// failures.
    pub(crate) fn window<'a>(
        &self,
        lane: usize,
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
        inner.lanes.entry(lane).or_default().counts.merge(&counts);
        for f in failures {
            if f.reason.is_fault() {
                Self::name(&mut inner, shard, f);
            } else if f.detail == OUTSIDE {
                inner.outside += 1;
            }
        }
        Self::check(&inner, shard, limit).map_err(|e| e.in_shard(shard))
    }

    /// Turns a kept sample into a failed one: its image proved undecodable at full quality.
    pub(crate) fn failed_late(
        &self,
        lane: usize,
        shard: &Arc<str>,
        failed: &FailedSample,
        limit: MaxErrors,
    ) -> Result<()> {
        let mut inner = self.lock();
        let demote = |counts: &mut Counts| {
            // One that was not kept is a bug, which the check of the counts reports.
            counts.kept = counts.kept.saturating_sub(1);
            *counts.failed.entry(failed.reason).or_default() += 1;
        };
        demote(&mut inner.counts);
        demote(inner.shards.entry(Arc::clone(shard)).or_default());
        demote(&mut inner.lanes.entry(lane).or_default().counts);
        Self::name(&mut inner, shard, failed);
        Self::check(&inner, shard, limit).map_err(|e| e.in_shard(shard))
    }

    /// Names a failed sample whose reason was counted already: the first few of each reason in
    /// the statistics, those and every power of two in the log.
    fn name(inner: &mut Inner, shard: &Arc<str>, f: &FailedSample) {
        let seen = inner.named.entry(f.reason).or_default();
        *seen += 1;
        let seen = *seen;
        if seen <= NAMED_FAILURES || seen.is_power_of_two() {
            tracing::warn!(
                shard = %shard, key = %f.key, offset = f.offset, reason = %f.reason, count = seen,
                "sample failed: {}", f.detail
            );
        }
        if seen <= NAMED_FAILURES {
            inner.failures.push(Failure {
                shard: Arc::clone(shard),
                key: Arc::clone(&f.key),
                offset: f.offset,
                reason: f.reason,
                detail: f.detail.clone(),
            });
        }
    }

    fn check(inner: &Inner, shard: &Arc<str>, limit: MaxErrors) -> Result<()> {
        if !inner.counts.conserved() {
            let detail = format!("outcomes do not add up: {:?}", inner.counts);
            return Err(Stage::Select.died(detail));
        }
        if exceeded(limit.in_all, &inner.counts, JUDGE_AFTER) {
            return Err(too_many(&inner.counts, &inner.failures, format!("max_errors={}", limit.in_all)));
        }
        if let Some(counts) = inner.shards.get(shard)
            && exceeded(limit.per_shard, counts, JUDGE_SHARD_AFTER)
        {
            let limit = format!("max_errors_per_shard={}", limit.per_shard);
            return Err(too_many(counts, &inner.failures, limit));
        }
        Ok(())
    }

    /// Counts a generated caption that says nothing.
    pub(crate) fn generated(&self, caption: &str) {
        if caption.trim().is_empty() {
            self.captions_empty.fetch_add(1, Ordering::Relaxed);
        } else if is_repetitive(caption) {
            self.captions_repetitive.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts kept samples that were looked for in the table of captions `name`, and those that it has.
    pub(crate) fn joined(&self, name: &Arc<str>, matched: u64, samples: u64) {
        self.joins.add(name, matched, samples);
    }

    /// Adds a batch that is handed over, by the pi, the caption and the image of its rows: their weights, and
    /// those that repeat an earlier one of it. O(rows) but for images that share a band of their hashes.
    pub(crate) fn batch<'a>(&self, rows: impl Iterator<Item = (Option<f32>, &'a str, Option<SemanticHash>)>) {
        let mut weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Seen::default();
        let (mut same, mut near) = (0, 0);
        for (pi, caption, image) in rows {
            match pi.map(f64::from) {
                Some(pi) => {
                    weights.sum += 1.0 / pi;
                    weights.squares += 1.0 / (pi * pi);
                }
                None => weights.lacking = true,
            }
            let caption = Seen::caption(caption);
            same += u64::from(seen.has_caption(caption));
            seen.add_caption(caption);
            if let Some(image) = image {
                near += u64::from(seen.has_image(&image));
                seen.add_image(&image);
            }
        }
        self.duplicate_captions.fetch_add(same, Ordering::Relaxed);
        self.duplicate_images.fetch_add(near, Ordering::Relaxed);
    }

    /// Counts what the json of a sample was asked for in vain: named in the log from the first on, then at
    /// powers of two.
    pub(crate) fn gaps(&self, shard: &Arc<str>, key: &Arc<str>, gaps: Gaps) {
        if gaps == Gaps::default() {
            return;
        }
        let mut inner = self.lock();
        for field in gaps.not_numbers {
            let count = inner.not_numbers.entry(Arc::clone(&field)).or_default();
            *count += 1;
            if count.is_power_of_two() {
                tracing::warn!(shard = %shard, key = %key, count, "{field:?} is NaN: it counts as no value");
            }
        }
        if let Some(detail) = gaps.unread {
            inner.unread_json += 1;
            let count = inner.unread_json;
            if count.is_power_of_two() {
                tracing::warn!(
                    shard = %shard, key = %key, count,
                    "the json cannot be read ({detail}): none of its fields counts"
                );
            }
        }
    }

    /// [`gaps`](Self::gaps) of a row of a window that lanes share. Only the lane whose row it is counts it, once; where it
    /// is read with another's, it is kept for that lane, which may find the window recorded and read nothing.
    pub(crate) fn shared_gaps(
        &self,
        (window, row): (&WindowKey, usize),
        is_own: bool,
        shard: &Arc<str>,
        key: &Arc<str>,
        gaps: Gaps,
    ) {
        if gaps == Gaps::default() {
            return;
        }
        {
            let mut inner = self.lock();
            let rows = inner.shared_gaps.entry(*window).or_default();
            if !is_own {
                rows.entry(row).or_insert_with(|| Some((Arc::clone(key), gaps)));
                return;
            }
            if let Some(None) = rows.insert(row, None) {
                return;
            }
        }
        self.gaps(shard, key, gaps);
    }

    /// Counts the gaps of `own` rows of a window that another lane read.
    pub(crate) fn gaps_read_by_another(
        &self,
        window: &WindowKey,
        own: impl Fn(usize) -> bool,
        shard: &Arc<str>,
    ) {
        let kept: Vec<(Arc<str>, Gaps)> = match self.lock().shared_gaps.get_mut(window) {
            Some(rows) => {
                rows.iter_mut().filter(|(row, _)| own(**row)).filter_map(|(_, kept)| kept.take()).collect()
            }
            None => return,
        };
        for (key, gaps) in kept {
            self.gaps(shard, &key, gaps);
        }
    }

    /// Notes bytes that were skipped in a shard, looking for a valid tar header; `bytes` counts
    /// from its start.
    pub(crate) fn skipped_bytes(&self, shard: &Arc<str>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut inner = self.lock();
        let known = inner.skipped_bytes.entry(Arc::clone(shard)).or_default();
        if *known == 0 {
            tracing::warn!(shard = %shard, bytes, "bytes skipped after a damaged tar header");
        }
        // Two lanes may read the same part of a shard.
        *known = bytes.max(*known);
    }

    /// Notes that a shard is read through for the sake of a few of its samples.
    pub(crate) fn streamed(&self, shard: &Arc<str>) {
        if !std::mem::replace(&mut self.lock().streamed, true) {
            tracing::warn!(
                shard = %shard,
                "kept samples are read by passing over the others: the shard is compressed, is on a server \
                 that knows no ranges, or has changed; others like it are not named"
            );
        }
    }

    /// Notes a shard that holds no samples.
    pub(crate) fn empty_shard(&self, shard: &Arc<str>) {
        if self.lock().empty_shards.insert(Arc::clone(shard)) {
            tracing::warn!(shard = %shard, "the shard holds no samples");
        }
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
        self.nanos[stage as usize].fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// A finished batch waited so long for the training loop.
    pub(crate) fn waited_for_consumer(&self, time: Duration) {
        self.wait_consumer.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The training loop waited so long for a batch.
    pub(crate) fn waited_for_loader(&self, time: Duration) {
        self.wait_loader.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let inner = self.lock();
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Stats {
            epoch: self.epoch,
            // The loader knows.
            rank: None,
            world_size: 0,
            rank_from: String::new(),
            counts: inner.counts.clone(),
            yielded: get(&self.yielded),
            replayed: get(&self.replayed),
            repeats: get(&self.repeats),
            surplus: get(&self.surplus),
            padded: get(&self.padded),
            spilled_bytes: get(&self.spilled),
            encoded: get(&self.encoded),
            captioned: get(&self.captioned),
            judged: get(&self.judged),
            rescued: get(&self.rescued),
            duplicate_captions: get(&self.duplicate_captions),
            duplicate_images: get(&self.duplicate_images),
            deferred: get(&self.deferred),
            n_eff: self.weights.lock().unwrap_or_else(PoisonError::into_inner).n_eff(),
            captions_empty: get(&self.captions_empty),
            captions_repetitive: get(&self.captions_repetitive),
            seconds: Stage::ALL
                .iter()
                .map(|&stage| (stage.name(), &self.nanos[stage as usize]))
                .chain([("wait_consumer", &self.wait_consumer), ("wait_loader", &self.wait_loader)])
                .map(|(name, nanos)| (name, get(nanos) as f64 * 1e-9))
                .collect(),
            shards: inner.shards.clone(),
            failures: inner.failures.clone(),
            length_mismatches: inner.length_mismatches.clone(),
            empty_shards: inner.empty_shards.iter().cloned().collect(),
            lanes: inner.lanes.clone(),
            excluded_by: self.excluded_by.clone(),
            lane_count: self.lane_count,
            skipped_bytes: inner.skipped_bytes.clone(),
            not_numbers: inner.not_numbers.clone(),
            unread_json: inner.unread_json,
            unscored: get(&self.unscored),
            subset: self.joins.subset.map(|table| {
                let others = self.joins.without_subset.iter().filter_map(|url| inner.shards.get(url));
                let others: u64 = others.map(|counts| counts.read).sum();
                let read = inner.counts.read.saturating_sub(others);
                table.joined(read.saturating_sub(inner.outside), read)
            }),
            captions: self.joins.captions(),
            activity: self.board.activity(),
            gate: None,
            sources: vec![],
        }
    }
}

/// The error of a limit that was exceeded, with the reasons and an example of each.
fn too_many(counts: &Counts, failures: &[Failure], limit: String) -> Error {
    let reasons = counts.failed.iter().map(|(reason, n)| {
        let example = failures.iter().find(|f| f.reason == *reason);
        let example =
            example.map_or(String::new(), |f| format!(" (first: shard {}, key {})", f.shard, f.key));
        format!("{n} {reason}{example}")
    });
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    ErrorKind::TooManyErrors { failed: counts.failures(), read: counts.read, limit, reasons }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleId;

    fn limit(in_all: f64) -> MaxErrors {
        MaxErrors { in_all, per_shard: f64::INFINITY }
    }

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
        let recorder = Recorder::new(0, 1);
        let shard: Arc<str> = "a.tar".into();
        let outcomes = || vec![Outcome::Kept { pi: None }, Outcome::Failed(FailReason::MissingImage)];
        recorder.window(0, &shard, outcomes().into_iter(), [failed()].iter(), limit(1.0)).unwrap();
        let error = recorder
            .window(0, &shard, outcomes().into_iter(), [failed()].iter(), limit(1.0))
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
        assert!(!exceeded(0.1, &many(999), 1000));
        assert!(exceeded(0.1, &many(1000), 1000));
        assert!(!exceeded(0.6, &many(1000), 1000));
    }

    #[test]
    fn a_shard_has_a_limit_of_its_own() {
        let recorder = Recorder::new(0, 1);
        let (good, bad): (Arc<str>, Arc<str>) = ("good.tar".into(), "bad.tar".into());
        let limit = MaxErrors { in_all: f64::INFINITY, per_shard: 0.5 };
        let window = |shard, n: usize, failures: usize| {
            let outcomes = (0..n).map(|i| match i < failures {
                true => Outcome::Failed(FailReason::BadJson),
                false => Outcome::Kept { pi: None },
            });
            recorder.window(0, shard, outcomes, [].iter(), limit)
        };
        window(&good, 1000, 0).unwrap();
        window(&bad, 99, 99).unwrap();
        let error = window(&bad, 1, 1).unwrap_err().to_string();
        assert!(error.contains("100 of 100 read, more than max_errors_per_shard=0.5"), "{error}");
        assert!(error.contains("bad.tar"), "{error}");
    }

    #[test]
    fn no_reason_crowds_out_another() {
        let recorder = Recorder::new(0, 1);
        let shard: Arc<str> = "a.tar".into();
        let flood = vec![failed(); 500];
        let late = FailedSample { reason: FailReason::BadJson, ..failed() };
        let outcomes = flood.iter().chain([&late]).map(|f| Outcome::Failed(f.reason));
        recorder.window(0, &shard, outcomes, flood.iter().chain([&late]), limit(1e9)).unwrap();
        let named = recorder.snapshot().failures;
        assert_eq!(named.len(), 17);
        assert!(named.iter().any(|f| f.reason == FailReason::BadJson));
    }

    #[test]
    fn a_late_failure_keeps_the_balance() {
        let recorder = Recorder::new(0, 1);
        let shard: Arc<str> = "a.tar".into();
        recorder.window(0, &shard, [Outcome::Kept { pi: None }].into_iter(), [].iter(), limit(10.0)).unwrap();
        recorder.failed_late(0, &shard, &failed(), limit(10.0)).unwrap();
        let stats = recorder.snapshot();
        assert!(stats.counts.conserved());
        assert_eq!((stats.counts.kept, stats.counts.failures(), stats.failures.len()), (0, 1, 1));
    }
}
