//! The options of every subcommand that selects.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tldr_loader::Result;
use tldr_loader::cluster::Clusters;
use tldr_loader::image::DecodeOptions;
use tldr_loader::loader::reading_fingerprint;
use tldr_loader::select::{GateBy, Policy, Priority, Quota, ScoreGate};
use tldr_loader::shard::ReadOptions;

/// How much is kept, and by which rules.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Share of the readable samples to keep, in (0, 1]
    #[arg(long, default_value_t = 0.25)]
    keep_ratio: f64,
    /// Share of samples that pass, by alignment of image and original caption, or by --score-key; 1 for
    /// no gate; 0.5 by default, without --threshold
    #[arg(long)]
    gate: Option<f64>,
    /// Gate by a score that the corpus has: a field of the json member, or column of the parquet beside
    /// the shard
    #[arg(long, value_name = "FIELD")]
    score_key: Option<String>,
    /// Least score that passes, instead of a share
    #[arg(long, value_name = "SCORE", requires = "score_key", conflicts_with = "gate")]
    threshold: Option<f64>,
    /// Of what the gate lets that share through: corpus or cluster
    #[arg(long, default_value = "corpus")]
    gate_by: String,
    /// How the kept share is spread over clusters: proportional, cap, cap(SAMPLES), tempered(ALPHA) or
    /// random
    #[arg(long, default_value = "proportional")]
    quota: String,
    /// Which candidates fill a quota first: uniform, diverse, hard, score, longest or every-nth
    #[arg(long, default_value = "uniform")]
    priority: String,
    /// Seed of every random choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Selection {
    /// The field of a score.
    pub(super) fn score_key(&self) -> Option<&str> {
        self.score_key.as_deref()
    }

    /// The policy, with `dedup` as given.
    pub(super) fn policy(&self, dedup: Option<f32>) -> Result<Policy> {
        let quota = Quota::from_str(&self.quota)?;
        let priority = Priority::from_str(&self.priority)?;
        let gate_by = GateBy::from_str(&self.gate_by)?;
        let gate = match (self.gate, self.threshold) {
            (None, Some(_)) => None,
            (gate, _) => Some(gate.unwrap_or(0.5)).filter(|&gate| gate != 1.0),
        };
        let score = self.score_key.clone().map(|key| ScoreGate::new(key, self.threshold));
        let keep_ratio = self.keep_ratio;
        Ok(Policy {
            keep_ratio,
            later_ratios: Vec::new(),
            gate,
            gate_by,
            dedup,
            quota,
            priority,
            rotate: false,
            thin: false,
            seed: self.seed,
            corpus: None,
            score,
        })
    }
}

/// How what a ledger recorded was read, where it has several kinds.
#[derive(Debug, clap::Args)]
pub(super) struct Reading {
    /// Field of the caption that the recorded run had, where the ledger has several kinds
    #[arg(long)]
    caption_key: Option<String>,
    /// Filter that the recorded run had, where the ledger has several kinds
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<String>,
    /// List of samples that the recorded run had, where the ledger has several kinds
    #[arg(long, value_name = "FILE")]
    subset: Option<PathBuf>,
    /// Table of captions that the recorded run had, where the ledger has several kinds
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
}

impl Reading {
    /// Fingerprint of these options with the others' defaults; `None` where none is given.
    pub(super) fn fingerprint(&self) -> Result<Option<u64>> {
        let read = ReadOptions::open(
            self.caption_key.clone(),
            self.filter.as_deref(),
            self.subset.as_deref(),
            self.captions.as_deref(),
        )?;
        let is_given = read != ReadOptions::default();
        Ok(is_given.then(|| reading_fingerprint(&read, &DecodeOptions::default())))
    }
}

/// What a policy takes of a captioner directory.
pub(super) struct Fitted {
    pub(super) clusters: Arc<Clusters>,
    /// Fingerprint of the model; `None` in a build that cannot load one.
    pub(super) encoder: Option<u64>,
}

impl Fitted {
    pub(super) fn load(directory: &Path) -> Result<Self> {
        #[cfg(feature = "tch")]
        {
            use tldr_loader::captioner::{Captioner, parse_device};
            use tldr_loader::model::Encoder;

            let captioner = Captioner::load(directory, parse_device("cpu")?)?;
            let clusters = captioner.clusters().cloned().ok_or_else(|| {
                let accepted = "a captioner with clusters: run tldr-loader fit first";
                tldr_loader::Error::option("captioner", directory.display(), accepted)
            })?;
            Ok(Self { clusters, encoder: Some(captioner.fingerprint()) })
        }
        #[cfg(not(feature = "tch"))]
        {
            let clusters = Arc::new(Clusters::load(directory.join("clusters.safetensors"))?);
            Ok(Self { clusters, encoder: None })
        }
    }
}
