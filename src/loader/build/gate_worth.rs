//! What a loader says of its captioner before it starts: what a gate by its alignment is worth, and where it writes
//! captions for what it was trained on.

use crate::cluster::{Clusters, GateWorth};
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::decider::Decider;
use crate::shard::Shard;

impl LoaderBuilder {
    /// Logs and warns; returns what a gate by alignment is worth, where there is one and it was measured.
    pub(crate) fn say_of_captioner(
        &self,
        decider: Option<&Decider>,
        clusters: Option<&Clusters>,
        (shards, lengths): (&[Shard], &[u64]),
    ) -> Option<GateWorth> {
        let decider = decider?;
        // Whoever records says it himself, once for all passes.
        if self.parts.only_recording {
            return None;
        }
        if let Some(clusters) = clusters {
            self.warn_of_own_captions(clusters, shards, lengths);
        }
        self.say_worth(decider, clusters)
    }

    fn say_worth(&self, decider: &Decider, clusters: Option<&Clusters>) -> Option<GateWorth> {
        let plan = decider.plan();
        let policy = plan.map(|plan| plan.plan.policy()).or(decider.selector().map(|s| s.policy()))?;
        if !policy.gate().is_by_alignment() {
            return None;
        }
        // A plan's gate is that of the captioner it was made with.
        let worth = match plan {
            Some(plan) => plan.worth,
            None => clusters?.worth,
        };
        let sentence = GateWorth::sentence(worth.as_ref());
        match worth {
            Some(_) => tracing::info!("gate: {sentence}"),
            None => tracing::warn!("gate: {sentence}"),
        }
        if let Some(warning) = worth.and_then(|worth| worth.warning()) {
            tracing::warn!("{warning}");
        }
        worth
    }

    fn warn_of_own_captions(&self, clusters: &Clusters, shards: &[Shard], lengths: &[u64]) {
        if !self.config.captions.fuse.is_generated() || clusters.trained_on.is_empty() {
            return;
        }
        let marked = |(shard, length): &(&Shard, &u64)| shard.is_marked(**length, &clusters.trained_on);
        let own = shards.iter().zip(lengths).filter(marked).count();
        if own > 0 {
            tracing::warn!(
                "fuse={}: the captioner was trained on {own} of the {} shards that it writes captions for, and knows no \
                 more than their captions say: in docs/benchmarks.md such captions cost 22 to 31 points of retrieval where \
                 half of the captions are wrong, and 3 to 5 where none is. Train on originals (fuse=original), or load a \
                 captioner that has seen more, a BLIP",
                self.config.captions.fuse,
                shards.len()
            );
        }
    }
}
