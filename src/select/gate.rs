//! The gate: only what is well aligned with its caption goes on.
//!
//! The published subset of CC3M is the better half of every cluster (the code of TL;DR, not the
//! paper); [`Within::Cluster`] is that. The better half of the corpus takes more of the clusters whose
//! captions are good, and is the default.

use crate::cluster::Clusters;
use crate::cluster::alignment::passes_gate;
use crate::config::Within;
use crate::select::policy::Policy;
use crate::select::score::ScoreCut;

/// Lets the best aligned share of a corpus, or of each cluster, through, by quantiles fixed at fit
/// time; or what has a score that is high enough. Whether a sample passes depends on that sample only.
#[derive(Debug, Clone, PartialEq)]
pub struct GateRule {
    /// Share that passes of each cluster's scale of quantiles: one for all, or one each; `None` where
    /// everything passes.
    shares: Option<Vec<f64>>,
    /// What takes its place where a score gates.
    cut: Option<ScoreCut>,
}

impl GateRule {
    /// The gate of `policy`. O(clusters).
    pub fn new(policy: &Policy, clusters: Option<&Clusters>) -> Self {
        if policy.has_scores() {
            return Self { shares: None, cut: policy.cut };
        }
        let shares = policy.gate().share().map(|share| match (policy.within(), clusters) {
            (Within::Cluster, Some(clusters)) => {
                (0..clusters.len()).map(|c| clusters.gate_of(c, share)).collect()
            }
            _ => vec![share],
        });
        Self { shares, cut: None }
    }

    /// Whether alignments do not matter.
    pub fn is_open(&self) -> bool {
        self.shares.is_none()
    }

    /// Whether a score of the corpus passes, or none gates.
    pub fn passes_score(&self, score: f32) -> bool {
        self.cut.is_none_or(|cut| cut.passes(score))
    }

    /// Whether clusters have gates of their own.
    pub fn is_by_cluster(&self) -> bool {
        self.shares.as_ref().is_some_and(|shares| shares.len() > 1)
    }

    /// Whether an alignment (a quantile in [0, 1]) in `cluster` passes: it must be at least 1 - share.
    /// An alignment that is not a number passes an open gate only.
    pub fn passes(&self, alignment: f32, cluster: u32) -> bool {
        self.shares.as_ref().is_none_or(|shares| {
            let share = shares.get(cluster as usize).or(shares.first()).copied().unwrap_or(0.0);
            passes_gate(alignment, share)
        })
    }

    /// The least alignment that passes in `cluster`; `None` where every one does.
    pub fn least(&self, cluster: u32) -> Option<f32> {
        let shares = self.shares.as_ref()?;
        let share = shares.get(cluster as usize).or(shares.first()).copied().unwrap_or(0.0);
        Some((1.0 - share) as f32)
    }

    /// Share of the corpus that is in each cluster and passes, as measured at fit time, `[clusters]`; of one cluster where
    /// there are none. Of a
    /// score that gates only its pass rate over all clusters is known, which is taken for that of each.
    /// O(clusters).
    pub fn passing(policy: &Policy, clusters: Option<&Clusters>) -> Vec<f64> {
        let Some(clusters) = clusters else { return vec![policy.cut.map_or(1.0, |cut| cut.pass_rate)] };
        if let Some(cut) = policy.cut {
            return clusters.shares.iter().map(|share| share * cut.pass_rate).collect();
        }
        let gate = policy.gate().share().unwrap_or(1.0);
        match policy.within() {
            Within::Corpus => clusters.passing(gate),
            Within::Cluster => clusters.shares.iter().map(|share| share * gate).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Gate, Selection};

    fn gate(share: f64) -> GateRule {
        let selection = Selection { gate: Some(Gate::top(share)), ..Selection::default() };
        GateRule::new(&Policy::new(selection, 0), None)
    }

    #[test]
    fn the_better_half_passes() {
        let half = gate(0.5);
        assert!(half.passes(0.5, 0) && half.passes(1.0, 9));
        assert!(!half.passes(0.499, 0) && !half.passes(f32::NAN, 0));
        assert!(gate(1.0).is_open() && gate(1.0).passes(0.0, 0) && gate(1.0).passes(f32::NAN, 0));
    }
}
