//! What became of each candidate of a plan, and why: which a plan itself does not hold.

use std::collections::HashMap;
use std::ops::Range;

use super::{Candidate, Decided, Plan, Planner};
use crate::error::Result;
use crate::sample::SampleId;
use crate::select::plan_copies::{differing, partners};

/// No partner.
const NONE: u32 = u32::MAX;

/// What became of a candidate of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fate {
    /// Whether it is kept.
    pub is_kept: bool,
    /// The near-duplicate that it fell to; one that is kept nevertheless fills a slot for want of others.
    pub duplicate: Option<Duplicate>,
    /// Its draw, in [0, 1): candidates of a cluster are kept from the least on.
    pub draw: f64,
    /// Its place among those of its cluster that are left without near-duplicates, from 1 on; 0 of a near-duplicate.
    pub place: u64,
    /// Its cluster; 0 where the policy does not look at clusters.
    pub cluster: u32,
    /// What its cluster has.
    pub of: InCluster,
}

/// Candidates of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InCluster {
    /// All of them.
    pub candidates: u64,
    /// Those that are left without near-duplicates.
    pub left: u64,
    /// Those that its quota keeps.
    pub slots: u64,
}

/// The candidate that a near-duplicate fell to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duplicate {
    /// Hash of its shard.
    pub shard: u64,
    /// Index of its window in the shard.
    pub window: u64,
    /// Identity.
    pub id: SampleId,
    /// Whether it is kept itself: the quota may have dropped it.
    pub is_kept: bool,
    /// Bits in which the semantic hashes differ.
    pub bits: u32,
    /// Cosine of the embeddings, where the plan looked at them.
    pub cosine: Option<f32>,
}

/// What became of all candidates. 80 bytes a candidate.
#[derive(Debug)]
pub struct Fates {
    planner: Planner,
    is_kept: Vec<bool>,
    partners: Vec<u32>,
    places: Vec<u32>,
    /// Candidates by window and id.
    order: Vec<u32>,
    by_window: HashMap<(u64, u64), Range<usize>>,
    clusters: Vec<InCluster>,
}

impl Planner {
    /// As [`decide`](Self::decide), with what became of every candidate. Takes 16 bytes a candidate more, and the time
    /// of finding of each near-duplicate the one that it fell to: one that is kept where there is one, of these the
    /// nearest.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn decide_in_full(mut self) -> Result<(Plan, Fates)> {
        let Decided { plan, copies, is_kept, in_cluster, left, slots } = self.decided()?;
        let cosine = self.selector.policy().selection.dedup.unwrap_or(1.0);
        let partners = partners(
            |i| self.candidates[i as usize].hash,
            self.distance(),
            &copies,
            |i| u32::from(!is_kept[i as usize]),
            |i, j| self.alike(i, j, cosine),
        );
        let mut next = vec![0u32; in_cluster.len()];
        let place = |(candidate, &copy): (&Candidate, &bool)| {
            let next = &mut next[candidate.cluster as usize];
            *next += u32::from(!copy);
            if copy { 0 } else { *next }
        };
        let places = self.candidates.iter().zip(&copies).map(place).collect();
        let mut order: Vec<u32> = (0..self.candidates.len() as u32).collect();
        order.sort_unstable_by_key(|&i| {
            (self.candidates[i as usize].window, self.candidates[i as usize].id, i)
        });
        let mut by_window = HashMap::new();
        let mut start = 0;
        let window = |i: &u32| self.candidates[*i as usize].window;
        for of_window in order.chunk_by(|a, b| window(a) == window(b)) {
            let end = start + of_window.len();
            by_window.insert(self.windows[window(&of_window[0]) as usize], start..end);
            start = end;
        }
        let clusters = in_cluster.iter().zip(&left).zip(&slots);
        let clusters =
            clusters.map(|((&candidates, &left), &slots)| InCluster { candidates, left, slots }).collect();
        let partners = partners.into_iter().map(|partner| partner.unwrap_or(NONE)).collect();
        Ok((plan, Fates { planner: self, is_kept, partners, places, order, by_window, clusters }))
    }
}

impl Fates {
    /// What became of the candidate `id` in window `number` of the shard whose hash is `shard`; `None` where that is no
    /// candidate. O(log n).
    pub fn of(&self, shard: u64, number: u64, id: SampleId) -> Option<Fate> {
        let order = &self.order[self.by_window.get(&(shard, number))?.clone()];
        let candidates = &self.planner.candidates;
        let at = order[order.binary_search_by_key(&id.0, |&i| candidates[i as usize].id).ok()?];
        let candidate = &candidates[at as usize];
        let partner = Some(self.partners[at as usize]).filter(|&partner| partner != NONE);
        let duplicate = partner.map(|i| {
            let other = &candidates[i as usize];
            let (shard, window) = self.planner.windows[other.window as usize];
            Duplicate {
                shard,
                window,
                id: SampleId(other.id),
                is_kept: self.is_kept[i as usize],
                bits: differing(&other.hash, &candidate.hash),
                cosine: self.planner.cosine(i, at),
            }
        });
        Some(Fate {
            is_kept: self.is_kept[at as usize],
            duplicate,
            draw: candidate.draw as f64 / 2f64.powi(64),
            place: u64::from(self.places[at as usize]),
            cluster: candidate.cluster,
            of: self.clusters[candidate.cluster as usize],
        })
    }

    /// What each cluster has, `[clusters]`; one entry where the policy does not look at clusters.
    pub fn clusters(&self) -> &[InCluster] {
        &self.clusters
    }

    /// Most bits in which hashes of near-duplicates differ; 0 where they stay.
    pub fn distance(&self) -> u32 {
        self.planner.distance()
    }
}
