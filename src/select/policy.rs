//! What the user asks selection for.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::hash;
use crate::select::schedule::KeepRatio;
use crate::select::score::ScoreGate;

/// What stands in a fingerprint for a draw that comes first.
const THIN: u64 = 0x7468_696e;

/// How much to keep, and by which rules. [`Selector::new`](crate::select::Selector::new) checks it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Share of the readable samples to keep, in (0, 1], from epoch 0 on. [`Quota::CapAt`] sets it
    /// itself.
    pub keep_ratio: f64,
    /// Other shares from later epochs on: first epoch and share, ascending. Where there are any, a
    /// share of 1, in `keep_ratio` too, keeps every readable sample, whatever the gate, near-copies and
    /// the quota.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub later_ratios: Vec<(u64, f64)>,
    /// Share of the corpus, best aligned first, that is let through, in (0, 1]; `None` for all.
    pub gate: Option<f64>,
    /// Of what the gate lets that share through.
    pub gate_by: GateBy,
    /// Cosine of two embeddings from which the images count as near-copies, in (0, 1]; `None`
    /// keeps copies.
    pub dedup: Option<f32>,
    /// How the kept share is spread over clusters.
    pub quota: Quota,
    /// Which candidates fill the quota.
    pub priority: Priority,
    /// Whether each epoch keeps other samples, until all were seen, instead of the same ones.
    pub rotate: bool,
    /// Whether the draw comes first: a share of the stream is taken, and gate and quota work on that, so
    /// that nothing else is decoded or encoded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub thin: bool,
    /// Seed of every random choice.
    pub seed: u64,
    /// Samples of the corpus: what a quota that counts samples needs.
    pub corpus: Option<u64>,
    /// A score of the corpus that takes the place of alignments in the gate, and in the priorities `hard` and
    /// `score`.
    pub score: Option<ScoreGate>,
}

impl Policy {
    /// Whether a gate drops samples by how the captioner aligns them, and not by a score that the corpus has.
    pub fn gates_by_alignment(&self) -> bool {
        self.score.is_none() && self.gate.is_some_and(|gate| gate < 1.0)
    }
}

impl Default for Policy {
    /// The paper's: a uniform quarter of every cluster.
    fn default() -> Self {
        Self {
            keep_ratio: 0.25,
            later_ratios: Vec::new(),
            gate: None,
            gate_by: GateBy::Corpus,
            dedup: None,
            quota: Quota::Proportional,
            priority: Priority::Uniform,
            rotate: false,
            thin: false,
            seed: 0,
            corpus: None,
            score: None,
        }
    }
}

/// Of what a gate lets its share through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateBy {
    /// The corpus.
    #[default]
    Corpus,
    /// Each cluster (TL;DR's public code).
    Cluster,
}

crate::names!(GateBy { Corpus => "corpus", Cluster => "cluster" }, option "gate_by");

/// How the kept share is spread over clusters.
///
/// With n_c the samples of cluster c that pass the gate, its rate is
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    /// The same for every cluster (the paper's).
    #[default]
    Proportional,
    /// min(1, t / n_c), with the t that keeps keep_ratio: large clusters are cut down to one size,
    /// small ones kept whole.
    Cap,
    /// min(1, t / n_c) with this t, a number of samples; keep_ratio follows from it.
    CapAt(u64),
    /// min(1, k * n_c^(alpha - 1)), with the k that keeps keep_ratio: 1 is proportional, 0 is
    /// [`Cap`](Self::Cap), and between them lie milder ways to favour rare clusters.
    Tempered(f64),
    /// Plain random: a window is one run, whatever the clusters.
    Random,
}

impl Quota {
    /// Whether samples are told apart by their clusters.
    pub fn is_by_cluster(self) -> bool {
        self != Self::Random
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proportional => f.write_str("proportional"),
            Self::Random => f.write_str("random"),
            Self::Cap => f.write_str("cap"),
            Self::CapAt(samples) => write!(f, "cap({samples})"),
            Self::Tempered(alpha) => write!(f, "tempered({alpha})"),
        }
    }
}

/// As [`Display`](fmt::Display) writes it.
impl FromStr for Quota {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::option(
                "quota",
                format!("{text:?}"),
                "proportional, cap, cap(100), tempered(0.5) or random",
            )
        };
        match text {
            "proportional" => Ok(Self::Proportional),
            "random" => Ok(Self::Random),
            "cap" => Ok(Self::Cap),
            _ => {
                let (name, value) =
                    text.strip_suffix(')').and_then(|text| text.split_once('(')).ok_or_else(wrong)?;
                match name {
                    "cap" => value.trim().parse().map(Self::CapAt).map_err(|_| wrong()),
                    "tempered" => value.trim().parse().map(Self::Tempered).map_err(|_| wrong()),
                    _ => Err(wrong()),
                }
            }
        }
    }
}

/// Which candidates fill the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Each with exactly its rate's probability (the paper's "uniform").
    #[default]
    Uniform,
    /// Farthest first in embedding space, within a run of a window.
    Diverse,
    /// The worst aligned first, of those that passed the gate: what a captioner finds hardest to say of
    /// its image (the paper's "hard" takes the highest loss).
    Hard,
    /// The best aligned first.
    Score,
    /// The longest captions: a negative control for benchmarks.
    Longest,
    /// Every N-th of a run, by cluster and order of arrival, as TL;DR's public code takes them from a
    /// whole corpus: an ablation. Survivors of one keep_ratio are none of another's.
    EveryNth,
}

crate::names!(
    Priority {
        Uniform => "uniform",
        Diverse => "diverse",
        Hard => "hard",
        Score => "score",
        Longest => "longest",
        EveryNth => "every-nth",
    },
    option "priority", "one of uniform, diverse, hard, score, longest, every-nth"
);

impl Priority {
    /// Whether it looks at alignments.
    pub fn needs_alignment(self) -> bool {
        matches!(self, Self::Hard | Self::Score)
    }
}

impl Policy {
    /// Every option that decisions depend on, by its name, with its value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "none".into());
        let mut ratios = vec![(0, self.keep_ratio)];
        ratios.extend(&self.later_ratios);
        let mut settings = vec![
            ("keep_ratio", KeepRatio::from(ratios).to_string()),
            ("gate", optional(self.gate.map(|gate| gate.to_string()))),
            ("gate_by", format!("{:?}", self.gate_by).to_lowercase()),
            ("dedup", optional(self.dedup.map(|cosine| cosine.to_string()))),
            ("quota", self.quota.to_string()),
            ("priority", self.priority.name().into()),
            ("rotate", self.rotate.to_string()),
            ("thin", self.thin.to_string()),
            ("seed", self.seed.to_string()),
        ];
        if matches!(self.quota, Quota::CapAt(_)) {
            settings.push(("samples that the cap is of", optional(self.corpus.map(|n| n.to_string()))));
        }
        if let Some(score) = &self.score {
            settings.push(("score_key", score.key.clone()));
            settings.push(("threshold", optional(score.threshold.map(|least| least.to_string()))));
            let cut = score.measured.map(|cut| {
                let least = cut.least.map_or("any score".into(), |least| format!("a score of {least}"));
                format!("from {least} on, {} of the samples", cut.pass_rate)
            });
            settings.push(("what the score lets pass", optional(cut)));
        }
        settings
    }

    /// Identifies the policy: decisions of different policies may differ.
    pub fn fingerprint(&self) -> u64 {
        let optional = |value: Option<f64>| value.map_or([0, 0], |v| [1, v.to_bits()]);
        let [gated, gate] = optional(self.gate);
        let [deduped, dedup] = optional(self.dedup.map(f64::from));
        let quota = self.quota.to_string();
        let mut parts = vec![
            self.keep_ratio.to_bits(),
            gated,
            gate,
            u64::from(self.gate_by == GateBy::Cluster),
            deduped,
            dedup,
            hash::hash_str(&quota),
            hash::hash_str(self.priority.name()),
            u64::from(self.rotate),
            self.seed,
            if matches!(self.quota, Quota::CapAt(_)) { self.corpus.unwrap_or(0) } else { 0 },
        ];
        // Lists of different lengths differ, so that a policy without more says nothing of it.
        parts.extend(self.thin.then_some(THIN));
        parts.extend(self.later_ratios.iter().flat_map(|&(from, ratio)| [from, ratio.to_bits()]));
        let base = hash::combine(&parts);
        self.score.as_ref().map_or(base, |score| hash::combine(&[base, score.fingerprint()]))
    }
}
