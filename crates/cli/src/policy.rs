//! The options of every subcommand that selects.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tldr_loader::cluster::{Clusters, GateWorth};
use tldr_loader::image::DecodeOptions;
use tldr_loader::loader::reading_fingerprint;
use tldr_loader::model::{Identity, Scorer as _};
use tldr_loader::select::{GateBy, Policy, Priority, Quota, ScoreGate};
use tldr_loader::shard::ReadOptions;
use tldr_loader::{Error, Result};

use crate::Models;

/// How much is kept, and by which rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// Share of the readable samples to keep, in (0, 1]; 0.25 by default
    #[arg(long)]
    keep_ratio: Option<f64>,
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
    /// Of what the gate lets that share through: corpus (the default) or cluster
    #[arg(long, conflicts_with = "threshold")]
    gate_by: Option<String>,
    /// How the kept share is spread over clusters: proportional (the default), cap, cap(SAMPLES),
    /// tempered(ALPHA) or random
    #[arg(long)]
    quota: Option<String>,
    /// Which candidates fill a quota first: uniform (the default), diverse, hard, score, longest or every-nth
    #[arg(long)]
    priority: Option<String>,
    /// Seed of every random choice; 0 by default
    #[arg(long)]
    seed: Option<u64>,
}

impl Selection {
    /// The field of a score.
    pub(crate) fn score_key(&self) -> Option<&str> {
        self.score_key.as_deref()
    }

    /// Refuses the first option of a policy that was given where none is in force; the field of a score is
    /// none.
    ///
    /// # Errors
    /// Names the option, its value and, by `accepted`, what to do.
    pub(crate) fn refuse(&self, accepted: &str) -> Result<()> {
        let given = [
            ("keep_ratio", self.keep_ratio.map(|share| share.to_string())),
            ("gate", self.gate.map(|share| share.to_string())),
            ("threshold", self.threshold.map(|least| least.to_string())),
            ("gate_by", self.gate_by.clone()),
            ("quota", self.quota.clone()),
            ("priority", self.priority.clone()),
            ("seed", self.seed.map(|seed| seed.to_string())),
        ];
        match given.into_iter().find_map(|(option, given)| Some((option, given?))) {
            Some((option, given)) => Err(Error::option(option, given, accepted)),
            None => Ok(()),
        }
    }

    /// The policy, with `dedup` as given.
    pub(crate) fn policy(&self, dedup: Option<f32>) -> Result<Policy> {
        let quota = self.quota.as_deref().map_or(Ok(Quota::Proportional), Quota::from_str)?;
        let priority = self.priority.as_deref().map_or(Ok(Priority::Uniform), Priority::from_str)?;
        let gate_by = self.gate_by.as_deref().map_or(Ok(GateBy::Corpus), GateBy::from_str)?;
        let gate = match (self.gate, self.threshold) {
            (None, Some(_)) => None,
            (gate, _) => Some(gate.unwrap_or(0.5)).filter(|&gate| gate != 1.0),
        };
        if let (None, Some(gate_by)) = (gate, &self.gate_by) {
            return Err(Error::option("gate_by", gate_by, "left out without a gate"));
        }
        let score = self.score_key.clone().map(|key| ScoreGate::new(key, self.threshold));
        if let (Quota::CapAt(_), Some(keep_ratio)) = (quota, self.keep_ratio) {
            let accepted = "left out with quota = cap(samples), which sets it; or quota = cap";
            return Err(Error::option("keep_ratio", keep_ratio, accepted));
        }
        Ok(Policy {
            keep_ratio: self.keep_ratio.unwrap_or(0.25),
            later_ratios: Vec::new(),
            gate,
            gate_by,
            dedup,
            quota,
            priority,
            rotate: false,
            thin: false,
            seed: self.seed.unwrap_or(0),
            corpus: None,
            score,
        })
    }
}

/// How what a ledger recorded was read, where it has several kinds.
#[derive(Debug, clap::Args)]
pub(crate) struct Reading {
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
    pub(crate) fn fingerprint(&self) -> Result<Option<u64>> {
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

/// Says what the gate is worth, where the captioner's alignment gates.
pub(crate) fn say_worth(policy: &Policy, clusters: &Clusters) {
    if !policy.gates_by_alignment() {
        return;
    }
    crate::say!("gate: {}", GateWorth::sentence(clusters.worth.as_ref()));
    if let Some(warning) = clusters.worth.and_then(|worth| worth.warning()) {
        crate::say!("warning: {warning}");
    }
}

/// What a policy takes of a captioner directory.
pub(crate) struct Fitted {
    pub(crate) clusters: Arc<Clusters>,
    /// Fingerprint of the model.
    pub(crate) encoder: u64,
}

impl Fitted {
    pub(crate) fn load(directory: &Path, models: &dyn Models) -> Result<Self> {
        let clusters = clusters(directory)?;
        let encoder = match Identity::load(directory)? {
            Some(identity) => identity.fingerprint(),
            None => models.open(directory, "cpu")?.fingerprint(),
        };
        Ok(Self { clusters, encoder })
    }
}

/// The clusters of a captioner directory.
pub(crate) fn clusters(directory: &Path) -> Result<Arc<Clusters>> {
    let path = directory.join(Clusters::FILE);
    if directory.is_dir() && !path.exists() {
        let accepted = "a captioner with clusters: run tldr-loader fit first";
        return Err(Error::option("captioner", directory.display(), accepted));
    }
    Clusters::load(path).map(Arc::new)
}
