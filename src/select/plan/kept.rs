//! A plan: which samples of a corpus are kept, and what that makes of a window.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::hash;
use crate::sample::{DropReason, Outcome, SampleId};
use crate::select::plan_counts::PlanCounts;
use crate::select::policy::Policy;
use crate::select::selector::Window;

/// The samples that a plan keeps of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Planned {
    shard: u64,
    number: u64,
    start: u32,
    end: u32,
}

/// Which samples of a corpus are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it was made with.
    policy: Policy,
    counts: PlanCounts,
    /// Probability of inclusion in each cluster, `[clusters]`; empty where it depends on the sample.
    rates: Vec<f32>,
    /// Windows with kept samples, in order of (shard, number).
    windows: Vec<Planned>,
    /// Kept samples, windows in order, by id within one; `[kept]`.
    ids: Vec<SampleId>,
    /// Their clusters, `[kept]`.
    clusters: Vec<u32>,
    /// Range of each window in `ids`, by the identity of the window.
    by_window: HashMap<u64, Range<usize>>,
}

/// A kept sample, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// [`SampleId::shard_hash`] of its shard.
    pub shard: u64,
    /// Index of its window in the shard.
    pub window: u64,
    /// Identity.
    pub id: SampleId,
    /// Cluster; 0 where the policy does not look at clusters.
    pub cluster: u32,
}

impl Plan {
    /// A plan of its parts; `kept` in any order.
    ///
    /// # Errors
    /// A sample twice, counts that say otherwise, a cluster without a rate.
    pub fn new(policy: Policy, counts: PlanCounts, rates: Vec<f32>, mut kept: Vec<Kept>) -> Result<Self> {
        kept.sort_unstable();
        if let Some(pair) = kept.windows(2).find(|pair| {
            (pair[0].shard, pair[0].window, pair[0].id) == (pair[1].shard, pair[1].window, pair[1].id)
        }) {
            return Err(Error::format(
                "plan",
                "each sample once",
                format!("sample {:016x} twice", pair[0].id.0),
            ));
        }
        if counts.kept != kept.len() as u64 {
            return Err(Error::format(
                "plan",
                format!("{} kept samples, as it counts", counts.kept),
                kept.len(),
            ));
        }
        if let Some(stray) =
            kept.iter().find(|kept| !rates.is_empty() && kept.cluster as usize >= rates.len())
        {
            let expected = format!("a cluster below {}, for each of which there is a rate", rates.len());
            return Err(Error::format(format!("plan, sample {:016x}", stray.id.0), expected, stray.cluster));
        }
        let mut windows: Vec<Planned> = vec![];
        let mut by_window = HashMap::new();
        let mut start = 0;
        for of_window in kept.chunk_by(|a, b| (a.shard, a.window) == (b.shard, b.window)) {
            let end = start + of_window.len();
            let (shard, number) = of_window.first().map_or((0, 0), |kept| (kept.shard, kept.window));
            windows.push(Planned { shard, number, start: start as u32, end: end as u32 });
            by_window.insert(hash::combine(&[shard, number]), start..end);
            start = end;
        }
        Ok(Self {
            policy,
            counts,
            rates,
            windows,
            ids: kept.iter().map(|kept| kept.id).collect(),
            clusters: kept.iter().map(|kept| kept.cluster).collect(),
            by_window,
        })
    }

    /// The policy it was made with.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What went in and came out.
    pub fn counts(&self) -> &PlanCounts {
        &self.counts
    }

    /// Probability of inclusion in each cluster, of a candidate that is no near-duplicate; empty where it
    /// depends on the sample.
    pub fn rates(&self) -> &[f32] {
        &self.rates
    }

    /// The kept samples, in order of (shard, window, id).
    pub fn kept(&self) -> impl Iterator<Item = Kept> + '_ {
        self.windows.iter().flat_map(|w| {
            (w.start as usize..w.end as usize).map(|i| Kept {
                shard: w.shard,
                window: w.number,
                id: self.ids[i],
                cluster: self.clusters[i],
            })
        })
    }

    /// The kept samples of the window of identity `window`, ascending.
    pub(crate) fn kept_of(&self, window: u64) -> &[SampleId] {
        self.by_window.get(&window).map_or(&[], |range| &self.ids[range.clone()])
    }

    /// Identifies the decisions, whatever policy led to them. O(kept).
    pub fn fingerprint(&self) -> u64 {
        let mut parts = vec![self.counts.samples, self.rates.len() as u64];
        parts.extend(self.rates.iter().map(|rate| u64::from(rate.to_bits())));
        self.kept().for_each(|k| parts.extend([k.shard, k.window, k.id.0, k.cluster.into()]));
        hash::combine(&parts)
    }

    /// What becomes of each sample of `window`, `[n]`. What is not kept counts as dropped by the quota:
    /// a plan does not say by what else. Signals are not looked at. O(n log n).
    ///
    /// # Errors
    /// A sample that the plan keeps is not there, or cannot be used: the shard has changed.
    pub fn decide(&self, window: &Window<'_>) -> Result<Vec<Outcome>> {
        let range = self.by_window.get(&window.id).cloned().unwrap_or(0..0);
        let (ids, clusters) = (&self.ids[range.clone()], &self.clusters[range]);
        let mut missing = ids.len();
        let mut outcomes = Vec::with_capacity(window.ids.len());
        for (id, failed) in window.ids.iter().zip(window.failed) {
            outcomes.push(match (failed, ids.binary_search(id)) {
                (Some(reason), _) => Outcome::Failed(*reason),
                (None, Err(_)) => Outcome::Dropped(DropReason::Quota),
                (None, Ok(at)) => {
                    missing = missing.saturating_sub(1);
                    Outcome::Kept { pi: self.rates.get(clusters[at] as usize).copied() }
                }
            });
        }
        if missing > 0 {
            let expected = format!("all {} samples that the plan keeps of a window", ids.len());
            let found =
                format!("{missing} that are not there or cannot be used: has the shard changed? Plan again");
            return Err(Error::format("plan", expected, found));
        }
        Ok(outcomes)
    }
}
