//! Corpus-wide decisions, from the signals of all windows.
//!
//! A window sees neither the counts of the corpus nor the near-duplicates that lie in other shards. A
//! plan sees both, and changes as little as it can:
//!
//! 1. What the gate of each window lets through is a candidate, and has a draw v in [0, 1) by the
//!    window's own draw ([`reservoir`](crate::select::reservoir)).
//! 2. Candidates stand in the order of their slots. In a cluster the window kept samples (v < pi) come
//!    first, and that at every keep_ratio; with a priority other than uniform, they are put first.
//! 3. Of near-duplicates the first in this order stays, greedily, as
//!    [`dedup`](crate::select::dedup) does within a window.
//! 4. Exact quotas: round(keep_ratio * readable) slots, divided by the policy's rule over what is
//!    in each cluster, never more than is left of it after 3. So a draw that copies freed goes to
//!    other candidates of the cluster, or where it has none to the other clusters.
//! 5. Of each cluster the first ones in order fill its quota. Where too few are left in all, the last
//!    slots stay empty, or by option go to near-duplicates.
//!
//! The result is a function of the windows' signals, the policy and its seed, whatever the order in
//! which windows come. Every candidate of a cluster that is left after 3 is as likely to be kept, but
//! for terms of the order of 1 in their number: slots within a window are spread more evenly than
//! those of different windows.

mod fates;
mod kept;
mod near;

use half::f16;

use crate::config::{Priority, Quota};
use crate::error::{Error, FailReason, Result};
use crate::hash;
use crate::model::{SemanticHash, UNKNOWN_HASH};
use crate::sample::{DropReason, Outcome, SampleId};
use crate::select::plan_copies::{MAX_DISTANCE, expected_distance, near_duplicates};
use crate::select::plan_counts::PlanCounts;
use crate::select::plan_quota::divide;
use crate::select::selector::{Selector, Window};

pub use fates::{Duplicate, Fate, Fates, InCluster};
pub use kept::{Kept, Plan};
pub use near::NearDuplicates;

/// How far a pair may be beyond the distance that its cosine lets expect, in standard deviations,
/// where embeddings tell in the end.
const MARGIN: f64 = 3.0;

/// How far rounding to f16 may take the cosine of two embeddings from what it is: 2^-11 for each value,
/// which is relative, so that a sum of products is off by 2^-10 at most.
const ROUNDING: f32 = 1.0 / 1024.0;

/// How much of the slots may be lacking for want of candidates, relative to them: the gate's pass
/// rate, which the policy was checked against, was measured no better.
const TOLERANCE: f64 = 0.01;

/// A sample that passed the gate of its window: 64 bytes.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Order of preference.
    draw: u64,
    id: u64,
    hash: SemanticHash,
    cluster: u32,
    window: u32,
    /// Its number, in the order in which candidates came: the row of its embedding.
    came: u32,
    /// Length of its caption, as far as it is below 2^16: of two captions of one picture it tells whether they differ.
    caption_chars: u16,
    is_kept: bool,
    /// Whether it stands behind all window kept samples.
    behind: bool,
}

/// Collects the windows of a corpus, then decides.
///
/// Memory: 64 bytes a candidate (of a vector that doubles as it grows; `candidates` in
/// [`new`](Self::new) spares that), 2 more for each value of its embedding where those are kept, and 41
/// while near-duplicates are looked for.
#[derive(Debug)]
pub struct Planner {
    selector: Selector,
    /// Decides who is kept in a window where the priority is not uniform.
    by_priority: Option<Selector>,
    candidates: Vec<Candidate>,
    embeddings: Embeddings,
    fill_with_copies: bool,
    /// Shard and number of each window.
    windows: Vec<(u64, u64)>,
    counts: PlanCounts,
}

/// A plan, and what it was decided by: of the candidates in order, and of the clusters.
struct Decided {
    plan: Plan,
    copies: Vec<bool>,
    is_kept: Vec<bool>,
    in_cluster: Vec<u64>,
    left: Vec<u64>,
    slots: Vec<u64>,
}

/// Embeddings of the candidates in the order in which they came.
#[derive(Debug)]
enum Embeddings {
    /// Of no window so far.
    Unknown,
    /// Of all: values a row, and the rows end to end.
    All(usize, Vec<f16>),
    /// Some windows have none: none are used.
    Missing,
}

impl Planner {
    /// Begins a plan for `selector`'s policy; room is made for `candidates`.
    ///
    /// # Errors
    /// A policy that rotates or changes its keep_ratio: a plan keeps the same samples in every epoch. Near-duplicates of a cosine
    /// so low that semantic hashes cannot find them.
    pub fn new(selector: Selector, candidates: usize) -> Result<Self> {
        let policy = selector.policy();
        if policy.selection.rotate {
            return Err(Error::option("rotate", true, "false: a plan keeps the same samples in every epoch"));
        }
        if let Some(schedule) = policy.selection.keep_ratio.as_ref().filter(|ratio| ratio.is_schedule()) {
            let accepted = "one number: a plan keeps the same samples in every epoch";
            return Err(Error::option("keep_ratio", schedule, accepted));
        }
        if policy.selection.thin {
            let accepted = "false: a plan looks at every sample";
            return Err(Error::option("thin", true, accepted));
        }
        if let Some(cosine) =
            policy.selection.dedup.filter(|&c| expected_distance(c) > f64::from(MAX_DISTANCE))
        {
            let accepted = format!(
                "at least 0.93 for a plan: hashes of such images differ in more than {MAX_DISTANCE} of 256 bits"
            );
            return Err(Error::option("dedup", cosine, accepted));
        }
        let by_priority = (policy.priority() != Priority::Uniform).then(|| selector.clone());
        Ok(Self {
            selector,
            by_priority,
            candidates: Vec::with_capacity(candidates),
            embeddings: Embeddings::Unknown,
            fill_with_copies: false,
            windows: vec![],
            counts: PlanCounts::default(),
        })
    }

    /// The plan by semantic hashes alone, also where embeddings are there.
    #[must_use]
    pub fn without_embeddings(mut self) -> Self {
        self.embeddings = Embeddings::Missing;
        self
    }

    /// Lets near-duplicates fill the slots for which no other candidates are left; else these stay empty.
    #[must_use]
    pub fn fill_with_copies(mut self, fill: bool) -> Self {
        self.fill_with_copies = fill;
        self
    }

    /// Most bits in which the semantic hashes of near-duplicates differ; 0 where copies stay.
    ///
    /// Every pair within is found. Where embeddings are there, they are asked in the end, and the
    /// distance has a margin of 3 standard deviations.
    pub fn distance(&self) -> u32 {
        let Some(cosine) = self.selector.policy().selection.dedup else { return 0 };
        let expected = expected_distance(cosine);
        let margin = match self.embeddings {
            Embeddings::All(..) => MARGIN * (expected * (1.0 - expected / 256.0)).sqrt(),
            Embeddings::Unknown | Embeddings::Missing => 0.0,
        };
        ((expected + margin).round() as u32).min(MAX_DISTANCE)
    }

    /// Adds window `number` of the shard whose hash is `shard`. O(n log n).
    ///
    /// # Errors
    /// As [`Selector::decide`]; a window of another identity; more than 2^32 candidates.
    pub fn add(&mut self, shard: u64, number: u64, window: &Window<'_>) -> Result<()> {
        if window.id != hash::combine(&[shard, number]) {
            let expected = format!("the identity of window {number} of shard {shard:016x}");
            return Err(Error::format("window", expected, format!("{:016x}", window.id)));
        }
        let (outcomes, drawn) = self.selector.drawn(window)?;
        let first = [self.candidates.len() + drawn.len(), self.windows.len() + 1];
        if first.into_iter().any(|n| n > u32::MAX as usize) {
            return Err(Error::format("plan", "at most 2^32 - 1 candidates and windows", "more"));
        }
        let kept_samples = match &self.by_priority {
            Some(selector) => Some(selector.decide(window, 0)?),
            None => None,
        };
        for outcome in &outcomes {
            self.counts.samples += 1;
            match outcome {
                Outcome::Failed(FailReason::Excluded) => self.counts.excluded += 1,
                Outcome::Failed(_) => self.counts.failed += 1,
                Outcome::Dropped(DropReason::Gate) => self.counts.gated += 1,
                Outcome::Dropped(_) | Outcome::Kept { .. } => self.counts.candidates += 1,
            }
        }
        let hashes =
            window.signals.map(|signals| &signals.semantic_hash).filter(|h| h.len() == outcomes.len());
        for drawn in &drawn {
            let is_kept =
                kept_samples.as_ref().map_or(drawn.is_kept, |outcomes| outcomes[drawn.row].is_kept());
            self.candidates.push(Candidate {
                draw: drawn.draw.position(),
                id: window.ids[drawn.row].0,
                hash: hashes.map_or(UNKNOWN_HASH, |hashes| hashes[drawn.row]),
                cluster: drawn.cluster,
                window: self.windows.len() as u32,
                came: self.candidates.len() as u32,
                caption_chars: window.caption_chars[drawn.row].min(u32::from(u16::MAX)) as u16,
                is_kept,
                behind: kept_samples.is_some() && !is_kept,
            });
        }
        self.keep_embeddings(window, drawn.iter().map(|drawn| drawn.row));
        self.windows.push((shard, number));
        Ok(())
    }

    fn keep_embeddings(&mut self, window: &Window<'_>, rows: impl ExactSizeIterator<Item = usize>) {
        if self.selector.policy().selection.dedup.is_none() || rows.len() == 0 {
            return;
        }
        let embedding = window.signals.map(|signals| &signals.embedding);
        let found = embedding.filter(|e| e.ncols() > 0 && e.nrows() == window.ids.len());
        if matches!(self.embeddings, Embeddings::Unknown) {
            self.embeddings = Embeddings::All(found.map_or(0, |e| e.ncols()), vec![]);
        }
        match (&mut self.embeddings, found) {
            (Embeddings::All(dim, values), Some(embedding)) if *dim == embedding.ncols() => {
                rows.for_each(|row| values.extend(embedding.row(row).iter().map(|&v| f16::from_f32(v))));
            }
            (embeddings, _) => *embeddings = Embeddings::Missing,
        }
    }

    /// Decides.
    ///
    /// # Errors
    /// A window that came twice; a keep_ratio above what the gate lets through (the error names the
    /// maximum).
    pub fn decide(mut self) -> Result<Plan> {
        self.decided().map(|decided| decided.plan)
    }

    /// Decides, and keeps what it was decided by. Candidates stand in order afterwards.
    fn decided(&mut self) -> Result<Decided> {
        let mut seen = self.windows.clone();
        seen.sort_unstable();
        if let Some(pair) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            let found = format!("window {} of shard {:016x} twice", pair[0].1, pair[0].0);
            return Err(Error::format("plan", "each window once", found));
        }
        self.sort();
        let copies = self.copies();
        let mut in_cluster = vec![0u64; self.selector.cluster_count()];
        let mut left = in_cluster.clone();
        for (candidate, &copy) in self.candidates.iter().zip(&copies) {
            in_cluster[candidate.cluster as usize] += 1;
            left[candidate.cluster as usize] += u64::from(!copy);
        }
        let (slots, quotas) = self.quotas(&in_cluster, &left)?;
        let mut counts = self.counts.clone();
        counts.unhashed = self.candidates.iter().filter(|c| c.hash == UNKNOWN_HASH).count() as u64;
        counts.copies = copies.iter().filter(|copy| **copy).count() as u64;
        counts.clusters = in_cluster.iter().filter(|n| **n > 0).count() as u64;
        counts.slots = slots;
        let mut refill = self.refill(&in_cluster, &left, slots);
        counts.refilled = refill.iter().sum();
        // What fills the last slots is not as likely to be kept as the others.
        let uniform = self.selector.policy().priority() == Priority::Uniform && counts.refilled == 0;
        let rate = |cluster: usize| (quotas.shares[cluster] / left[cluster].max(1) as f64) as f32;
        let rates = if uniform { (0..left.len()).map(rate).collect() } else { vec![] };
        let mut open = quotas.slots.clone();
        let mut kept = Vec::with_capacity(open.iter().sum::<u64>() as usize);
        let mut is_kept = vec![false; self.candidates.len()];
        for ((candidate, &copy), is_kept) in self.candidates.iter().zip(&copies).zip(&mut is_kept) {
            let open = if copy { &mut refill } else { &mut open };
            let open = &mut open[candidate.cluster as usize];
            if *open > 0 {
                *open -= 1;
                *is_kept = true;
                counts.kept_by_window += u64::from(candidate.is_kept);
                let (shard, window) = self.windows[candidate.window as usize];
                kept.push(Kept { shard, window, id: SampleId(candidate.id), cluster: candidate.cluster });
            }
        }
        counts.kept = kept.len() as u64;
        let plan = Plan::new(self.selector.policy().clone(), counts, rates, kept)?;
        Ok(Decided { plan, copies, is_kept, in_cluster, left, slots: quotas.slots })
    }

    /// Puts candidates in order. No two are equal here, so it is the same whatever came first.
    fn sort(&mut self) {
        let windows = &self.windows;
        self.candidates.sort_unstable_by_key(|c| (c.behind, c.draw, c.id, windows[c.window as usize]));
    }

    /// Slots of each cluster for near-duplicates.
    fn refill(&self, in_cluster: &[u64], left: &[u64], slots: u64) -> Vec<u64> {
        let copies: Vec<u64> = in_cluster.iter().zip(left).map(|(all, left)| all - left).collect();
        let empty = slots.saturating_sub(left.iter().sum());
        if !self.fill_with_copies || matches!(self.selector.policy().quota(), Quota::CapAt(_)) {
            return vec![0; copies.len()];
        }
        let weights: Vec<f64> = copies.iter().map(|&n| n as f64).collect();
        divide(empty, &weights, &copies, self.selector.policy().seed).slots
    }

    /// Which candidates go as near-duplicates.
    fn copies(&self) -> Vec<bool> {
        let n = self.candidates.len() as u32;
        let Some(cosine) = self.selector.policy().selection.dedup else { return vec![false; n as usize] };
        near_duplicates(
            n,
            |i| self.candidates[i as usize].hash,
            self.distance(),
            |i, j| self.alike(i, j, cosine),
        )
    }

    /// Whether the embeddings of two candidates, if there are any, have this cosine.
    fn alike(&self, i: u32, j: u32, cosine: f32) -> bool {
        self.cosine(i, j).is_none_or(|found| found >= cosine - ROUNDING)
    }

    /// Cosine of the embeddings of two candidates, if there are any.
    fn cosine(&self, i: u32, j: u32) -> Option<f32> {
        let Embeddings::All(dim, values) = &self.embeddings else { return None };
        let row = |i: u32| &values[self.candidates[i as usize].came as usize * dim..][..*dim];
        Some(row(i).iter().zip(row(j)).map(|(a, b)| a.to_f32() * b.to_f32()).sum())
    }

    /// Slots of the corpus, and of each cluster, with `in_cluster` candidates of which `left` are no
    /// copies.
    fn quotas(&self, in_cluster: &[u64], left: &[u64]) -> Result<(u64, crate::select::plan_quota::Quotas)> {
        let (policy, readable) = (self.selector.policy(), self.counts.readable());
        let weigh = |alpha: f64| -> Vec<f64> {
            in_cluster.iter().map(|&n| if n == 0 { 0.0 } else { (n as f64).powf(alpha) }).collect()
        };
        let alpha = policy.quota().alpha();
        if let Quota::CapAt(samples) = policy.quota() {
            let room: Vec<u64> = left.iter().map(|&n| n.min(samples)).collect();
            let slots = in_cluster.iter().map(|&n| n.min(samples)).sum();
            return Ok((slots, divide(u64::MAX, &weigh(alpha), &room, policy.seed)));
        }
        let slots = (policy.keep_ratio() * readable as f64).round() as u64;
        let candidates: u64 = in_cluster.iter().sum();
        if slots as f64 > candidates as f64 * (1.0 + TOLERANCE) + 1.0 {
            let most = (candidates as f64 / readable as f64 * 1e4).floor() / 1e4;
            let accepted = format!(
                "at most {most}: {candidates} of {readable} readable samples pass the gate; lower keep_ratio or \
                 raise the gate"
            );
            return Err(Error::option("keep_ratio", policy.keep_ratio(), accepted));
        }
        Ok((slots, divide(slots, &weigh(alpha), left, policy.seed)))
    }
}
