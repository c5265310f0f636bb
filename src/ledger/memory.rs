//! The in-memory ledger: windows of signals, and captions, shared by any number of loaders.
//!
//! It grows with the corpus: about 40 bytes a sample, 44 more with signals (plus 4 bytes per
//! embedding value where a policy needs embeddings), about 75 for the index of its shard, and its
//! captions. Loaders that differ in
//! keep_ratio, gate, policy or seed share one, so that a sweep runs the captioner once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::FailReason;
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
    /// Fingerprint of the encoder; 0 where none ran.
    pub encoder: u64,
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
    /// Signals of the rows, where an encoder ran. Rows of failed samples hold anything.
    pub signals: Option<Signals>,
    /// Whether `signals.embedding` is kept (else it has zero columns).
    pub has_embedding: bool,
    /// The failed samples with their details, in shard order.
    pub failures: Vec<FailedSample>,
    /// Where the rows lie in the shard, so that survivors can be read alone.
    pub index: Option<ShardIndex>,
}

impl WindowRecord {
    /// Approximate size in memory, in bytes.
    fn bytes(&self) -> u64 {
        let row = size_of::<SampleId>() + size_of::<Option<FailReason>>() + size_of::<u32>();
        let signals = self.signals.as_ref().map_or(0, |s| {
            s.cluster.len() * (4 + 4 + size_of_val(&s.semantic_hash[..]) / s.semantic_hash.len().max(1))
                + s.embedding.len() * 4
        });
        let index = self.index.as_ref().map_or(0, ShardIndex::bytes);
        (self.ids.len() * row + signals) as u64 + index
    }
}

/// Signals and captions seen so far. Cloning shares the contents.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    windows: Mutex<HashMap<WindowKey, Arc<WindowRecord>>>,
    captions: Mutex<HashMap<(SampleId, u64), Arc<str>>>,
    bytes: AtomicU64,
}

/// Locks even after a panic elsewhere: every entry is inserted whole, so the map is consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// The record of a window, if it has one.
    pub fn window(&self, key: &WindowKey) -> Option<Arc<WindowRecord>> {
        lock(&self.shared.windows).get(key).cloned()
    }

    /// Records a window. A record with embeddings is never replaced by one without.
    pub fn record_window(&self, key: WindowKey, record: Arc<WindowRecord>) {
        let mut windows = lock(&self.shared.windows);
        if let Some(old) = windows.get(&key) {
            if old.has_embedding && !record.has_embedding {
                return;
            }
            self.shared.bytes.fetch_sub(old.bytes(), Ordering::Relaxed);
        }
        self.shared.bytes.fetch_add(record.bytes(), Ordering::Relaxed);
        windows.insert(key, record);
    }

    /// The caption generated for a sample under the given generation fingerprint.
    pub fn caption(&self, id: SampleId, fingerprint: u64) -> Option<Arc<str>> {
        lock(&self.shared.captions).get(&(id, fingerprint)).cloned()
    }

    /// Records a generated caption.
    pub fn record_caption(&self, id: SampleId, fingerprint: u64, caption: Arc<str>) {
        let bytes = caption.len() as u64 + size_of::<(SampleId, u64, Arc<str>)>() as u64;
        if lock(&self.shared.captions).insert((id, fingerprint), caption).is_none() {
            self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Number of windows on record.
    pub fn windows(&self) -> usize {
        lock(&self.shared.windows).len()
    }

    /// Number of captions on record.
    pub fn captions(&self) -> usize {
        lock(&self.shared.captions).len()
    }

    /// Approximate size in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(window: u64) -> WindowKey {
        WindowKey { shard: 1, window, size: 4, encoder: 9, reading: 0 }
    }

    fn record(has_embedding: bool) -> Arc<WindowRecord> {
        Arc::new(WindowRecord {
            ids: vec![SampleId(1), SampleId(2)],
            failed: vec![None, Some(FailReason::MissingImage)],
            caption_chars: vec![5, 0],
            signals: None,
            has_embedding,
            failures: vec![],
            index: None,
        })
    }

    #[test]
    fn clones_share_and_keys_separate() {
        let ledger = Ledger::new();
        ledger.clone().record_window(key(0), record(false));
        assert!(ledger.window(&key(0)).is_some());
        assert!(ledger.window(&key(1)).is_none());
        assert!(ledger.window(&WindowKey { encoder: 8, ..key(0) }).is_none());
        assert_eq!(ledger.windows(), 1);
        assert!(ledger.bytes() > 0);
    }

    #[test]
    fn a_record_with_embeddings_is_not_replaced_by_one_without() {
        let ledger = Ledger::new();
        ledger.record_window(key(0), record(true));
        ledger.record_window(key(0), record(false));
        assert!(ledger.window(&key(0)).is_some_and(|r| r.has_embedding));
    }

    #[test]
    fn captions_are_kept_per_generation_setting() {
        let ledger = Ledger::new();
        ledger.record_caption(SampleId(1), 7, "a red square".into());
        assert_eq!(ledger.caption(SampleId(1), 7).as_deref(), Some("a red square"));
        assert_eq!(ledger.caption(SampleId(1), 8), None);
    }
}
