//! The options of every subcommand that selects.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use tldr_loader::Result;
use tldr_loader::cluster::Clusters;
use tldr_loader::image::DecodeOptions;
use tldr_loader::loader::reading_fingerprint;
use tldr_loader::select::{GateBy, Policy, Priority, Quota};
use tldr_loader::shard::ReadOptions;

/// How much is kept, and by which rules.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Share of the readable samples to keep, in (0, 1]
    #[arg(long, default_value_t = 0.25)]
    keep_ratio: f64,
    /// Share of samples that pass, by alignment of image and original caption; 1 for no gate
    #[arg(long, default_value_t = 0.5)]
    gate: f64,
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
    /// The policy, with `dedup` as given.
    pub(super) fn policy(&self, dedup: Option<f32>) -> Result<Policy> {
        let quota = Quota::from_str(&self.quota)?;
        let priority = Priority::from_str(&self.priority)?;
        let gate_by = GateBy::from_str(&self.gate_by)?;
        let gate = Some(self.gate).filter(|&gate| gate != 1.0);
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
}

impl Reading {
    /// Fingerprint of these options with the others' defaults; `None` where neither is given.
    pub(super) fn fingerprint(&self) -> Result<Option<u64>> {
        if self.caption_key.is_none() && self.filter.is_none() {
            return Ok(None);
        }
        let filter = self.filter.as_deref().map(str::parse).transpose()?;
        let read = ReadOptions { caption_key: self.caption_key.clone(), filter };
        Ok(Some(reading_fingerprint(&read, &DecodeOptions::default())))
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
