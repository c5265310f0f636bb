//! The ledger: windows of signals, and captions, shared by any number of loaders.
//!
//! In memory it grows with the corpus: about 40 bytes a sample, 44 more with signals (plus 4 bytes per
//! embedding value where a policy needs embeddings), about 75 for the index of its shard, and its
//! captions. In a folder, memory holds what was used last, up to `cache_bytes`. Loaders that differ in
//! keep_ratio, gate, policy or seed share one, so that a sweep runs the captioner once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::error::Result;
use crate::ledger::record::{CaptionKey, Captions, Scores, WindowKey, WindowRecord};
#[cfg(feature = "parquet")]
use crate::ledger::stored::Stored;
use crate::sample::Outcome;
use crate::shard::Shard;

/// Bytes of windows and captions in memory, of a ledger in a folder, by default.
const CACHE_BYTES: u64 = 512 << 20;

/// Signals and captions seen so far. Cloning shares the contents.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cache: Mutex<Cache>,
    #[cfg(feature = "parquet")]
    stored: Option<Stored>,
}

/// What is in memory.
#[derive(Debug)]
struct Cache {
    windows: LruCache<WindowKey, Arc<WindowRecord>>,
    captions: LruCache<CaptionKey, Arc<Captions>>,
    scores: LruCache<CaptionKey, Arc<Scores>>,
    bytes: u64,
    /// Most bytes; `None` where there is no other place.
    limit: Option<u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// An empty ledger in memory.
    pub fn new() -> Self {
        let cache = Cache::new(None);
        Self {
            shared: Arc::new(Shared {
                cache: Mutex::new(cache),
                #[cfg(feature = "parquet")]
                stored: None,
            }),
        }
    }

    /// The ledger in the folder `root`, which is begun where nothing is. At most `cache_bytes` of it
    /// are in memory (default: 512 MiB); a window that is larger is not kept there.
    ///
    /// Signals are taken for a sample again where captioner, reading options and the shard (its size
    /// and time of change, or ETag) are the same; captions where the generation settings are.
    ///
    /// # Errors
    /// The folder holds something else, cannot be made or cannot be written.
    pub fn open(root: impl AsRef<Path>, cache_bytes: Option<u64>) -> Result<Self> {
        let cache = Mutex::new(Cache::new(Some(cache_bytes.unwrap_or(CACHE_BYTES))));
        #[cfg(feature = "parquet")]
        return Ok(Self { shared: Arc::new(Shared { cache, stored: Some(Stored::open(root.as_ref())?) }) });
        #[cfg(not(feature = "parquet"))]
        {
            drop(cache);
            let given = format!("{:?}", root.as_ref().display());
            Err(crate::error::Error::option(
                "ledger",
                given,
                "a build with the feature `parquet`, for folders",
            ))
        }
    }

    /// The folder it is in; `None` in memory.
    pub fn root(&self) -> Option<PathBuf> {
        #[cfg(feature = "parquet")]
        return self.shared.stored.as_ref().map(|stored| stored.root().to_owned());
        #[cfg(not(feature = "parquet"))]
        None
    }

    /// What the folder holds, by captioner, reading options and window size; nothing in memory.
    ///
    /// # Errors
    /// The folder cannot be listed.
    #[cfg(feature = "parquet")]
    pub fn recordings(&self) -> Result<Vec<crate::ledger::Recording>> {
        self.root().map_or(Ok(vec![]), |root| crate::ledger::contents::recordings(&root))
    }

    /// Source and file name of the shard of a window, as they stand in its file; `None` in memory, and
    /// where there is no sound file.
    #[cfg(feature = "parquet")]
    pub fn shard_of(&self, key: &WindowKey) -> Option<(String, String)> {
        self.shared.stored.as_ref()?.shard_of(key)
    }

    /// Locks even after a panic elsewhere: every entry is inserted whole.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a window, if it has one.
    pub fn window(&self, key: &WindowKey) -> Option<Arc<WindowRecord>> {
        if let Some(record) = self.cache().windows.get(key) {
            return Some(Arc::clone(record));
        }
        #[cfg(feature = "parquet")]
        if let Some(stored) = &self.shared.stored
            && let Some(record) = stored.window(key)
        {
            let record = Arc::new(record);
            self.cache().put_window(*key, Arc::clone(&record));
            return Some(record);
        }
        None
    }

    /// Records a window of `shard`; `outcomes` say which samples its gate dropped, of which less is
    /// written. A record that knows more is not replaced: with
    /// embeddings, or with signals of more rows. Where a folder cannot be
    /// written, a warning says so.
    pub fn record_window(
        &self,
        key: WindowKey,
        shard: &Shard,
        record: Arc<WindowRecord>,
        outcomes: &[Outcome],
    ) {
        #[cfg(feature = "parquet")]
        if let Some(stored) = &self.shared.stored {
            stored.record_window(&key, shard, &record, outcomes);
        }
        let _ = (shard, outcomes);
        self.cache().put_window(key, record);
    }

    /// The captions generated for samples of a window; empty where there are none.
    pub fn captions_of(&self, key: &CaptionKey) -> Arc<Captions> {
        if let Some(captions) = self.cache().captions.get(key) {
            return Arc::clone(captions);
        }
        #[cfg(feature = "parquet")]
        if let Some(stored) = &self.shared.stored {
            let captions = Arc::new(stored.captions(key));
            self.cache().put_captions(*key, Arc::clone(&captions));
            return captions;
        }
        Arc::default()
    }

    /// Adds generated captions to those of a window.
    pub fn record_captions(&self, key: CaptionKey, captions: Captions) {
        if captions.is_empty() {
            return;
        }
        #[cfg(feature = "parquet")]
        if let Some(stored) = &self.shared.stored {
            stored.record_captions(&key, &captions);
        }
        let mut all = Captions::clone(&self.captions_of(&key));
        all.extend(captions);
        self.cache().put_captions(key, Arc::new(all));
    }

    /// What a judge said of generated captions of a window; `key.generation` names generator and judge.
    /// Empty where nothing was judged.
    pub fn scores_of(&self, key: &CaptionKey) -> Arc<Scores> {
        if let Some(scores) = self.cache().scores.get(key) {
            return Arc::clone(scores);
        }
        #[cfg(feature = "parquet")]
        if let Some(stored) = &self.shared.stored {
            let scores = Arc::new(stored.scores(key));
            self.cache().put_scores(*key, Arc::clone(&scores));
            return scores;
        }
        Arc::default()
    }

    /// Adds scores to those of a window.
    pub fn record_scores(&self, key: CaptionKey, scores: Scores) {
        if scores.is_empty() {
            return;
        }
        #[cfg(feature = "parquet")]
        if let Some(stored) = &self.shared.stored {
            stored.record_scores(&key, &scores);
        }
        let mut all = Scores::clone(&self.scores_of(&key));
        all.extend(scores);
        self.cache().put_scores(key, Arc::new(all));
    }

    /// Number of windows in memory.
    pub fn windows(&self) -> usize {
        self.cache().windows.len()
    }

    /// Number of captions in memory.
    pub fn captions(&self) -> usize {
        self.cache().captions.iter().map(|(_, captions)| captions.len()).sum()
    }

    /// Approximate size in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.cache().bytes
    }
}

impl Cache {
    fn new(limit: Option<u64>) -> Self {
        let (windows, captions) = (LruCache::unbounded(), LruCache::unbounded());
        Self { windows, captions, scores: LruCache::unbounded(), bytes: 0, limit }
    }

    fn put_window(&mut self, key: WindowKey, record: Arc<WindowRecord>) {
        if self.windows.peek(&key).is_some_and(|old| old.extent() > record.extent()) {
            return;
        }
        self.bytes += record.bytes();
        if let Some(old) = self.windows.put(key, record) {
            self.bytes -= old.bytes();
        }
        self.shrink();
    }

    fn put_captions(&mut self, key: CaptionKey, captions: Arc<Captions>) {
        self.bytes += size(&captions);
        if let Some(old) = self.captions.put(key, captions) {
            self.bytes -= size(&old);
        }
        self.shrink();
    }

    fn put_scores(&mut self, key: CaptionKey, scores: Arc<Scores>) {
        self.bytes += score_size(&scores);
        if let Some(old) = self.scores.put(key, scores) {
            self.bytes -= score_size(&old);
        }
        self.shrink();
    }

    /// Lets go of what was used least lately, windows first: captions and scores are few.
    fn shrink(&mut self) {
        while self.limit.is_some_and(|limit| self.bytes > limit) {
            if let Some((_, record)) = self.windows.pop_lru() {
                self.bytes -= record.bytes();
            } else if let Some((_, captions)) = self.captions.pop_lru() {
                self.bytes -= size(&captions);
            } else if let Some((_, scores)) = self.scores.pop_lru() {
                self.bytes -= score_size(&scores);
            } else {
                return;
            }
        }
    }
}

/// Approximate size of captions in memory, in bytes.
fn size(captions: &Captions) -> u64 {
    const WINDOW: u64 = 150; // the key and the tables, of a window without captions too
    const ENTRY: usize = 40; // id, pointer, length and the table's overhead
    WINDOW + captions.values().map(|caption| (caption.len() + ENTRY) as u64).sum::<u64>()
}

/// Approximate size of scores in memory, in bytes.
fn score_size(scores: &Scores) -> u64 {
    const WINDOW: u64 = 150; // as above
    const ENTRY: u64 = 24; // id, score and the table's overhead
    WINDOW + ENTRY * scores.len() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::FailReason;
    use crate::sample::SampleId;

    fn key(window: u64) -> WindowKey {
        WindowKey { shard: 1, window, size: 4, version: 5, encoder: 9, reading: 0 }
    }

    fn shard() -> Shard {
        Shard::local("absent.tar", "corpus")
    }

    fn record(has_embedding: bool) -> Arc<WindowRecord> {
        Arc::new(WindowRecord {
            ids: vec![SampleId(1), SampleId(2)],
            failed: vec![None, Some(FailReason::MissingImage)],
            caption_chars: vec![5, 0],
            signals: None,
            encoded: None,
            compute: Arc::default(),
            has_embedding,
            failures: vec![],
            index: None,
        })
    }

    fn has(ledger: &Ledger, key: WindowKey) -> bool {
        ledger.window(&key).is_some()
    }

    #[test]
    fn clones_share_and_keys_separate() {
        let ledger = Ledger::new();
        ledger.clone().record_window(key(0), &shard(), record(false), &[]);
        assert!(has(&ledger, key(0)));
        assert!(!has(&ledger, key(1)));
        assert!(!has(&ledger, WindowKey { encoder: 8, ..key(0) }));
        assert!(!has(&ledger, WindowKey { version: 6, ..key(0) }));
        assert_eq!(ledger.windows(), 1);
        assert!(ledger.bytes() > 0);
    }

    #[test]
    fn a_record_with_embeddings_is_not_replaced_by_one_without() {
        let ledger = Ledger::new();
        ledger.record_window(key(0), &shard(), record(true), &[]);
        ledger.record_window(key(0), &shard(), record(false), &[]);
        assert!(ledger.window(&key(0)).is_some_and(|r| r.has_embedding));
    }

    #[test]
    fn captions_are_kept_per_generation_setting() {
        let ledger = Ledger::new();
        let at = key(0).captions(7);
        ledger.record_captions(at, Captions::from([(SampleId(1), "a red square".into())]));
        ledger.record_captions(at, Captions::from([(SampleId(2), "a dog".into())]));
        assert_eq!(ledger.captions_of(&at).get(&SampleId(1)).map(|c| &**c), Some("a red square"));
        assert_eq!(ledger.captions_of(&at).len(), 2);
        assert!(ledger.captions_of(&key(0).captions(8)).is_empty());
        assert_eq!(ledger.captions(), 2);
    }

    #[test]
    fn scores_are_kept_per_judge() {
        let ledger = Ledger::new();
        let at = key(0).captions(7);
        ledger.record_scores(at, Scores::from([(SampleId(1), 0.25)]));
        ledger.record_scores(at, Scores::from([(SampleId(2), f32::NAN)]));
        let scores = ledger.scores_of(&at);
        assert_eq!((scores[&SampleId(1)], scores[&SampleId(2)].is_nan()), (0.25, true));
        assert!(ledger.scores_of(&key(0).captions(8)).is_empty());
        assert!(ledger.captions_of(&at).is_empty(), "captions are something else");
    }

    #[test]
    fn what_was_used_least_lately_goes_first() {
        let one = record(false).bytes();
        let mut cache = Cache::new(Some(2 * one));
        for window in 0..2 {
            cache.put_window(key(window), record(false));
        }
        cache.windows.get(&key(0));
        cache.put_window(key(2), record(false));
        let held: Vec<bool> = (0..3).map(|window| cache.windows.contains(&key(window))).collect();
        assert_eq!(held, [true, false, true]);
        assert_eq!(cache.bytes, 2 * one);
    }
}
