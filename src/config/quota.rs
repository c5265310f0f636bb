//! How the kept share is spread over clusters, and which candidates fill it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::options::{Call, text_settings};

/// What is accepted of a quota.
const ACCEPTED: &str = "proportional, cap, cap(100), tempered(0.5) or random";

/// How the kept share is spread over clusters.
///
/// With n_c the samples of cluster c that pass the gate, its rate is
#[derive(Debug, Clone, Copy, PartialEq, Default)]
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
    /// Exponent of a cluster's size in its share of what is kept: 1 keeps the proportions of clusters, 0 levels them.
    pub(crate) fn alpha(self) -> f64 {
        match self {
            Self::Cap => 0.0,
            Self::Tempered(alpha) => alpha,
            Self::Proportional | Self::Random | Self::CapAt(_) => 1.0,
        }
    }

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
        let wrong = || Error::option("quota", text, ACCEPTED);
        let mut call = Call::parse(text).ok_or_else(wrong)?;
        let quota = match call.name.as_str() {
            "proportional" => Self::Proportional,
            "random" => Self::Random,
            "cap" => match call.take("samples") {
                Some(samples) => Self::CapAt(samples.parse().map_err(|_| wrong())?),
                None => Self::Cap,
            },
            "tempered" => {
                let alpha = call.take("alpha").ok_or_else(wrong)?;
                Self::Tempered(alpha.parse().map_err(|_| wrong())?)
            }
            _ => return Err(wrong()),
        };
        if call.is_spent() { Ok(quota) } else { Err(wrong()) }
    }
}

/// Which candidates fill the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// whole corpus: an ablation. Kept samples of one keep_ratio are none of another's.
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

text_settings! {
    Quota: "Cap | Tempered | Literal['proportional', 'cap', 'random'] | str", ACCEPTED;
    Priority: "Literal['uniform', 'diverse', 'hard', 'score', 'longest', 'every-nth']",
        "one of uniform, diverse, hard, score, longest, every-nth";
}
