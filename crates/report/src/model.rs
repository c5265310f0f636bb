//! What the page shows, as data: the file `report.json`, and what the page's own script reads.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::gather::{Funnel, OfSource};

/// All of it. Indices of samples are places in `samples`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Model {
    /// Layout of this data.
    pub(crate) version: u32,
    pub(crate) head: Head,
    pub(crate) funnel: Funnel,
    pub(crate) sources: Vec<SourceRow>,
    pub(crate) shards: Vec<ShardRow>,
    /// Shards of the recording, of which `shards` are those with the fewest and the most kept.
    pub(crate) shard_count: usize,
    pub(crate) histograms: BTreeMap<String, OfSource>,
    pub(crate) edge: EdgeLists,
    pub(crate) gate: GateFacts,
    pub(crate) clusters: Vec<ClusterRow>,
    /// What the pictures nearest to the middle of a cluster are, in a sentence.
    pub(crate) cluster_nearest: String,
    /// The same, above the pictures.
    pub(crate) cluster_label: &'static str,
    pub(crate) near: NearFacts,
    pub(crate) captions: CaptionFacts,
    pub(crate) failures: Vec<FailureRow>,
    pub(crate) excluded: Vec<ExcludedRow>,
    pub(crate) browse: Vec<usize>,
    pub(crate) samples: Vec<SampleRow>,
    /// Characters that a caption is cut at on the page.
    pub(crate) caption_chars: usize,
    pub(crate) tiles: Tiles,
}

/// What was looked at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Head {
    pub(crate) version: &'static str,
    pub(crate) command: String,
    pub(crate) decides: String,
    pub(crate) scorer: String,
    pub(crate) reading: String,
    pub(crate) policy: Option<String>,
    pub(crate) plan: Option<String>,
    pub(crate) window: usize,
    pub(crate) seed: u64,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) conditions: Option<String>,
    pub(crate) keep_ratio: Option<f64>,
    /// Whether near-duplicates fill slots that are left empty.
    pub(crate) refills: bool,
    /// The command that writes all samples but those of `exclude.jsonl`.
    pub(crate) export: String,
    pub(crate) notes: Vec<String>,
}

/// A source.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SourceRow {
    pub(crate) name: String,
    pub(crate) funnel: Funnel,
}

/// A shard.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShardRow {
    pub(crate) source: String,
    pub(crate) shard: String,
    pub(crate) funnel: Funnel,
}

/// Lists of samples by where the gate cuts.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct EdgeLists {
    pub(crate) above: Vec<usize>,
    pub(crate) below: Vec<usize>,
    pub(crate) best: Vec<usize>,
    pub(crate) worst: Vec<usize>,
    pub(crate) random: Vec<usize>,
}

/// The gate, and what it is worth.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GateFacts {
    /// `alignment`, or the field of a score.
    pub(crate) by: String,
    pub(crate) text: String,
    pub(crate) is_on: bool,
    /// The least value that passes; `None` where the gate is open, or cuts each cluster elsewhere.
    pub(crate) least: Option<f32>,
    /// Usable samples that pass.
    pub(crate) passing: u64,
    pub(crate) is_by_cluster: bool,
    /// Whether it is any good, in one sentence.
    pub(crate) answer: String,
    /// What that is known by.
    pub(crate) sentence: String,
    pub(crate) warning: Option<String>,
    pub(crate) auc: Option<f64>,
    pub(crate) auc_error: Option<f64>,
    pub(crate) pairs: Option<u64>,
    pub(crate) swapped: Option<Swapped>,
}

/// Alignments of sampled pictures with their own captions and with others', counted in bins of [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Swapped {
    pub(crate) own: Vec<u64>,
    pub(crate) swapped: Vec<u64>,
    pub(crate) pairs: u64,
    pub(crate) auc: f64,
    pub(crate) auc_error: f64,
}

/// A cluster.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClusterRow {
    pub(crate) cluster: u32,
    pub(crate) funnel: Funnel,
    pub(crate) words: Vec<String>,
    pub(crate) captions: usize,
    pub(crate) nearest: Vec<usize>,
    pub(crate) random: Vec<usize>,
}

/// Near-duplicates.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct NearFacts {
    pub(crate) sentence: String,
    /// Whether they are dropped, or only would be.
    pub(crate) is_on: bool,
    pub(crate) groups: Vec<GroupRow>,
}

/// A group of near-duplicates.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupRow {
    pub(crate) keeper: usize,
    pub(crate) members: Vec<Member>,
    /// How many fell to the keeper.
    pub(crate) size: u64,
    /// `sources`, `shards` or `shard`: what the farthest of the pairs is across, or in.
    pub(crate) across: &'static str,
}

/// One that fell to the keeper of its group.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Member {
    pub(crate) sample: usize,
    pub(crate) bits: Option<u32>,
    pub(crate) cosine: Option<f32>,
}

/// Captions.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct CaptionFacts {
    /// Samples with a generated caption in the ledger.
    pub(crate) generated: u64,
    /// How original and generated captions become the one that is trained on.
    pub(crate) fuse: String,
    /// Whether that caption is drawn anew in every epoch: those of epoch 0 are shown.
    pub(crate) changes: bool,
    /// Token ids of a caption.
    pub(crate) context_length: usize,
    /// Whether it is known where the tokenizer cuts captions.
    pub(crate) is_cut: bool,
    /// What the ledger has of judges.
    pub(crate) judges: String,
    /// What a rescue does.
    pub(crate) rescue: Option<String>,
    /// Samples with a generated caption.
    pub(crate) shown: Vec<usize>,
    /// Samples that the gate dropped and their generated caption brought back.
    pub(crate) rescued: Vec<usize>,
}

/// A reason of failure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FailureRow {
    pub(crate) reason: &'static str,
    pub(crate) count: u64,
    pub(crate) shown: Vec<usize>,
}

/// What excludes samples of a source.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExcludedRow {
    pub(crate) source: String,
    pub(crate) condition: String,
    pub(crate) count: u64,
    pub(crate) shown: Vec<usize>,
}

/// A sampled sample.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SampleRow {
    /// As text: JavaScript's numbers have 53 bits.
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) shard: String,
    pub(crate) key: Option<String>,
    pub(crate) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    pub(crate) sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alignment: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) score: Option<f32>,
    /// The least that passes, where each cluster has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) least: Option<f32>,
    /// Id of the near-duplicate that it fell to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) near: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pi: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caption: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generated: Option<String>,
    /// The caption that a kept sample is trained on in epoch 0, where that can be told, up to where the tokenizer cuts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trained_on: Option<String>,
    /// What the tokenizer cuts off.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cut: String,
    /// What a judge says of the generated caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) judged: Option<f32>,
    /// Whether the gate dropped it and its generated caption brought it back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) rescued: bool,
    /// Its other captions, each with the name of its table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) others: Vec<(String, String)>,
    /// Width and height of the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<(usize, usize)>,
    /// Number of its tile, and the tile's width and height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tile: Option<(usize, usize, usize)>,
    /// Why there is no picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// Where tiles lie on their sheets.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Tiles {
    pub(crate) side: usize,
    pub(crate) columns: usize,
    pub(crate) on_a_sheet: usize,
    pub(crate) quality: u8,
}
