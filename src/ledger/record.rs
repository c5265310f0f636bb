//! What the ledger holds of one window.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::FailReason;
use crate::hash;
use crate::model::Signals;
use crate::sample::{FailedSample, SampleId};
use crate::shard::ShardIndex;

/// What identifies a window and the signals recorded for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowKey {
    /// [`SampleId::shard_hash`] of the shard.
    pub shard: u64,
    /// Index of the window in the shard.
    pub window: u64,
    /// Samples per window in force.
    pub size: usize,
    /// Hash of the shard's [version](crate::Shard::version), so that nothing is believed of another
    /// state of it; 0 where it is not known, and then nothing is kept in a folder.
    pub version: u64,
    /// Fingerprint of the scorer; 0 where none ran.
    pub scorer: u64,
    /// Fingerprint of the reading options (caption key, pixel limit): they decide which samples
    /// are readable.
    pub reading: u64,
}

/// What is known of the samples of one window. All vectors have one entry per row.
#[derive(Debug)]
pub struct WindowRecord {
    /// Identity, in shard order.
    pub ids: Vec<SampleId>,
    /// Why a row cannot be used; `None` for readable samples.
    pub failed: Vec<Option<FailReason>>,
    /// Length of the original caption in characters; 0 for failed rows.
    pub caption_chars: Vec<u32>,
    /// Signals of the rows, where an scorer ran. Rows of failed samples hold anything.
    pub signals: Option<Signals>,
    /// Which rows have signals: those that failed, and those that were encoded; `None` where all have. Of
    /// a thinned stream a part of a window is encoded; the others hold zeros.
    pub encoded: Option<Vec<bool>>,
    /// How the signals were computed, as [`Scorer::compute`](crate::model::Scorer::compute) says it.
    pub compute: Arc<str>,
    /// Whether `signals.embedding` is kept (else it has zero columns).
    pub has_embedding: bool,
    /// The failed samples with their details, in shard order.
    pub failures: Vec<FailedSample>,
    /// Where the rows lie in the shard, so that kept samples can be read alone.
    pub index: Option<ShardIndex>,
}

impl WindowRecord {
    /// The record of a window behind the end of a shard.
    pub fn empty(index: Option<ShardIndex>) -> Self {
        Self {
            ids: vec![],
            failed: vec![],
            caption_chars: vec![],
            signals: None,
            encoded: None,
            compute: Arc::default(),
            has_embedding: false,
            failures: vec![],
            index,
        }
    }

    /// Whether the row has signals, or failed.
    pub fn is_encoded(&self, row: usize) -> bool {
        self.encoded.as_ref().is_none_or(|encoded| encoded.get(row).copied().unwrap_or(false))
    }

    /// How much it knows, for one of two records of a window to be preferred: embeddings, rows with
    /// signals, rows with semantic hashes.
    pub(super) fn extent(&self) -> (bool, usize, usize) {
        let encoded = (0..self.ids.len()).filter(|&row| self.is_encoded(row)).count();
        let hashes = self.signals.iter().flat_map(|s| &s.semantic_hash);
        (self.has_embedding, encoded, hashes.filter(|hash| **hash != [0; 4]).count())
    }

    /// Approximate size in memory, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let row = size_of::<SampleId>() + size_of::<Option<FailReason>>() + size_of::<u32>();
        let signals = self.signals.as_ref().map_or(0, |s| {
            s.cluster.len() * (4 + 4 + size_of_val(&s.semantic_hash[..]) / s.semantic_hash.len().max(1))
                + s.embedding.len() * 4
        });
        let index = self.index.as_ref().map_or(0, ShardIndex::bytes);
        let encoded = self.encoded.as_ref().map_or(0, Vec::len);
        (self.ids.len() * row + signals + encoded) as u64 + index
    }
}

/// What identifies the captions generated for the samples of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaptionKey {
    /// [`SampleId::shard_hash`] of the shard.
    pub shard: u64,
    /// Index of the window in the shard.
    pub window: u64,
    /// Samples per window in force.
    pub size: usize,
    /// As in [`WindowKey`].
    pub version: u64,
    /// Fingerprint of the generation settings.
    pub generation: u64,
    /// As in [`WindowKey`].
    pub reading: u64,
}

/// What identifies the scores of the corpus that were read for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScoreKey {
    /// [`SampleId::shard_hash`] of the shard.
    pub shard: u64,
    /// Index of the window in the shard.
    pub window: u64,
    /// Samples per window in force.
    pub size: usize,
    /// As in [`WindowKey`].
    pub version: u64,
    /// As in [`WindowKey`].
    pub reading: u64,
    /// Hash of the name of their field.
    pub field: u64,
    /// Hash of the version of the shard and of the Parquet file beside it.
    pub beside: u64,
}

impl WindowKey {
    /// Where the scores of its samples in `field` are, which were read from the shard and what lay beside it
    /// in the version `beside`.
    pub fn scores(&self, field: &str, beside: u64) -> ScoreKey {
        let Self { shard, window, size, version, reading, .. } = *self;
        ScoreKey { shard, window, size, version, reading, field: hash::hash_str(field), beside }
    }

    /// Where the captions of its samples are, by the generation settings.
    pub fn captions(&self, generation: u64) -> CaptionKey {
        let Self { shard, window, size, version, reading, .. } = *self;
        CaptionKey { shard, window, size, version, generation, reading }
    }
}

/// Scores that the corpus has, of the rows of one window; not a number where there is none.
pub type CorpusScores = Arc<[f32]>;

/// What a judge says of generated captions of samples of one window; not a number where a caption says
/// nothing.
pub type Scores = HashMap<SampleId, f32>;
