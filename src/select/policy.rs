//! What the user asks selection for.

use crate::hash;

/// How much to keep, and by which rules. [`Selector::new`](crate::select::Selector::new) checks it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Share of the readable samples to keep, in (0, 1].
    pub keep_ratio: f64,
    /// Share of the corpus, best aligned first, that is let through, in (0, 1]; `None` for all.
    pub gate: Option<f64>,
    /// Cosine of two embeddings from which the images count as near-copies, in (0, 1]; `None`
    /// keeps copies.
    pub dedup: Option<f32>,
    /// How the kept share is spread over clusters.
    pub quota: Quota,
    /// Which candidates fill the quota.
    pub priority: Priority,
    /// Whether each epoch keeps other samples, until all were seen, instead of the same ones.
    pub rotate: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for Policy {
    /// The paper's: a uniform quarter of every cluster.
    fn default() -> Self {
        Self {
            keep_ratio: 0.25,
            gate: None,
            dedup: None,
            quota: Quota::Proportional,
            priority: Priority::Uniform,
            rotate: false,
            seed: 0,
        }
    }
}

/// How the kept share is spread over clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// The same share of every cluster (the paper's).
    #[default]
    Proportional,
    /// Plain random: a window is one run, whatever the clusters.
    Random,
}

/// Which candidates fill the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Each with exactly its rate's probability (the paper's "uniform").
    #[default]
    Uniform,
    /// Farthest first in embedding space, within a run of a window.
    Diverse,
    /// The longest captions: a negative control for benchmarks.
    Longest,
}

impl Policy {
    /// Identifies the policy: decisions of different policies may differ.
    pub fn fingerprint(&self) -> u64 {
        let optional = |value: Option<f64>| value.map_or([0, 0], |v| [1, v.to_bits()]);
        let [gated, gate] = optional(self.gate);
        let [deduped, dedup] = optional(self.dedup.map(f64::from));
        let quota = match self.quota {
            Quota::Proportional => "proportional",
            Quota::Random => "random",
        };
        let priority = match self.priority {
            Priority::Uniform => "uniform",
            Priority::Diverse => "diverse",
            Priority::Longest => "longest",
        };
        hash::combine(&[
            self.keep_ratio.to_bits(),
            gated,
            gate,
            deduped,
            dedup,
            hash::hash_str(quota),
            hash::hash_str(priority),
            u64::from(self.rotate),
            self.seed,
        ])
    }
}
