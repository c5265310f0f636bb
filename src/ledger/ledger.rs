//! The ledger: windows of signals, and captions, shared by any number of loaders.
//!
//! In memory it grows with the corpus: about 40 bytes a sample, 44 more with signals (plus 4 bytes per
//! embedding value where a policy needs embeddings), about 75 for the index of its shard, and its
//! captions. In a folder, memory holds what was used last, up to `cache_bytes`. Loaders that differ in
//! keep_ratio, gate, policy or seed share one, so that a sweep runs the captioner once.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::ledger::cache::Cache;
use crate::ledger::captions::WindowCaptions;
use crate::ledger::files::Folder;
use crate::ledger::record::{CaptionKey, CorpusScores, ScoreKey, Scores, WindowKey, WindowRecord};
use crate::ledger::root::Root;
use crate::ledger::stored::Stored;
use crate::sample::Outcome;
use crate::shard::{Shard, Store};

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
    stored: Option<Stored>,
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
        Self { shared: Arc::new(Shared { cache: Mutex::new(cache), stored: None }) }
    }

    /// The ledger in the folder `root`, a path or the URL of a bucket's folder (`s3://BUCKET/FOLDER`, also
    /// `gs://`, `az://`), which is begun where nothing is. At most `cache_bytes` of it
    /// are in memory (default: 512 MiB); a window that is larger is not kept there.
    ///
    /// Signals are taken for a sample again where captioner, reading options and the shard (its size
    /// and time of change, or ETag) are the same; captions where the generation settings are.
    ///
    /// # Errors
    /// The folder holds something else, cannot be made or cannot be written.
    pub fn open(root: impl AsRef<Path>, cache_bytes: Option<u64>) -> Result<Self> {
        Self::open_with(root, cache_bytes, &Store::default())
    }

    /// As [`open`](Self::open); `stores` says how a bucket is asked.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(root: impl AsRef<Path>, cache_bytes: Option<u64>, stores: &Store) -> Result<Self> {
        let cache = Mutex::new(Cache::new(Some(cache_bytes.unwrap_or(CACHE_BYTES))));
        let stored = Some(Stored::open(Root::of(root.as_ref(), stores)?)?);
        Ok(Self { shared: Arc::new(Shared { cache, stored }) })
    }

    /// Whether there is a ledger in the folder `root`, a path or a URL.
    ///
    /// # Errors
    /// A URL of something else than a bucket; a folder that cannot be looked into.
    pub fn is_at(root: impl AsRef<Path>, stores: &Store) -> Result<bool> {
        Folder::is_at(&Root::of(root.as_ref(), stores)?)
    }

    /// The folder it is in, a path or a URL; `None` in memory.
    pub fn location(&self) -> Option<String> {
        self.shared.stored.as_ref().map(|stored| stored.root().name())
    }

    /// What the folder holds, by captioner, reading options and window size; nothing in memory.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn recordings(&self) -> Result<Vec<crate::ledger::Recording>> {
        let root = self.shared.stored.as_ref().map(Stored::root);
        root.map_or(Ok(vec![]), crate::ledger::contents::recordings)
    }

    /// What it has signals for, in order: captioner, reading options and window size; nothing in memory. One folder is listed,
    /// and no shard.
    ///
    /// # Errors
    /// As [`recordings`](Self::recordings).
    pub fn kinds(&self) -> Result<Vec<(u64, u64, usize)>> {
        let root = self.shared.stored.as_ref().map(Stored::root);
        root.map_or(Ok(vec![]), crate::ledger::contents::kinds)
    }

    /// Source and file name of the shard of a window, as they stand in its file; `None` in memory, and
    /// where there is no sound file.
    pub fn shard_of(&self, key: &WindowKey) -> Option<(String, String)> {
        self.shared.stored.as_ref()?.shard_of(key)
    }

    /// Locks even after a panic elsewhere: every entry is inserted whole.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a window, if it has one.
    pub fn window(&self, key: &WindowKey) -> Option<Arc<WindowRecord>> {
        if let Some(record) = self.cache().window(key) {
            return Some(record);
        }
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
        if let Some(stored) = &self.shared.stored {
            stored.record_window(&key, shard, &record, outcomes);
        }
        let _ = (shard, outcomes);
        self.cache().put_window(key, record);
    }

    /// The captions generated for samples of a window; empty where there are none.
    pub fn captions_of(&self, key: &CaptionKey) -> Arc<WindowCaptions> {
        if let Some(captions) = self.cache().captions(key) {
            return captions;
        }
        if let Some(stored) = &self.shared.stored {
            let captions = Arc::new(stored.captions(key));
            self.cache().put_captions(*key, Arc::clone(&captions));
            return captions;
        }
        Arc::default()
    }

    /// Adds generated captions to those of a window.
    pub fn record_captions(&self, key: CaptionKey, captions: WindowCaptions) {
        if captions.is_empty() {
            return;
        }
        if let Some(stored) = &self.shared.stored {
            stored.record_captions(&key, &captions);
        }
        let all = self.captions_of(&key).with(&captions);
        self.cache().put_captions(key, Arc::new(all));
    }

    /// What a judge said of generated captions of a window; `key.generation` names generator and judge.
    /// Empty where nothing was judged.
    pub fn scores_of(&self, key: &CaptionKey) -> Arc<Scores> {
        if let Some(scores) = self.cache().scores(key) {
            return scores;
        }
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
        if let Some(stored) = &self.shared.stored {
            stored.record_scores(&key, &scores);
        }
        let mut all = Scores::clone(&self.scores_of(&key));
        all.extend(scores);
        self.cache().put_scores(key, Arc::new(all));
    }

    /// The scores of the corpus for a window, where they are known.
    pub fn corpus_scores(&self, key: &ScoreKey) -> Option<CorpusScores> {
        if let Some(scores) = self.cache().corpus_scores(key) {
            return Some(scores);
        }
        if let Some(stored) = &self.shared.stored
            && let Some(scores) = stored.corpus_scores(key, Some(key.beside))
        {
            let scores = CorpusScores::from(scores);
            self.cache().put_corpus_scores(*key, Arc::clone(&scores));
            return Some(scores);
        }
        None
    }

    /// As [`corpus_scores`](Self::corpus_scores) of a folder, whatever lay beside the shard; `None` also where
    /// several versions of that do not agree.
    pub fn corpus_scores_of(&self, key: &WindowKey, field: &str) -> Option<CorpusScores> {
        let stored = self.shared.stored.as_ref()?;
        stored.corpus_scores(&key.scores(field, 0), None).map(CorpusScores::from)
    }

    /// Records the scores of the corpus for a window, which were read from `field`.
    pub fn record_corpus_scores(&self, key: ScoreKey, field: &str, scores: CorpusScores) {
        if let Some(stored) = &self.shared.stored {
            stored.record_corpus_scores(&key, field, &scores);
        }
        let _ = field;
        self.cache().put_corpus_scores(key, scores);
    }

    /// Number of windows in memory.
    pub fn windows(&self) -> usize {
        self.cache().window_count()
    }

    /// Number of captions in memory.
    pub fn captions(&self) -> usize {
        self.cache().caption_count()
    }

    /// Approximate size in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.cache().bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::FailReason;
    use crate::sample::SampleId;

    fn key(window: u64) -> WindowKey {
        WindowKey { shard: 1, window, size: 4, version: 5, scorer: 9, reading: 0 }
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
        assert!(!has(&ledger, WindowKey { scorer: 8, ..key(0) }));
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
        ledger.record_captions(at, WindowCaptions::from_iter([(SampleId(1), "a red square")]));
        ledger.record_captions(at, WindowCaptions::from_iter([(SampleId(2), "a dog")]));
        assert_eq!(ledger.captions_of(&at).get(SampleId(1)), Some("a red square"));
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
    fn scores_of_the_corpus_are_kept_per_field_and_version() {
        let ledger = Ledger::new();
        let at = key(0).scores("similarity", 3);
        ledger.record_corpus_scores(at, "similarity", vec![0.25, f32::NAN].into());
        let found = ledger.corpus_scores(&at).unwrap();
        assert!(found[0] == 0.25 && found[1].is_nan());
        for other in
            [key(1).scores("similarity", 3), key(0).scores("other", 3), key(0).scores("similarity", 4)]
        {
            assert!(ledger.corpus_scores(&other).is_none());
        }
        let other_captioner = WindowKey { scorer: 8, ..key(0) };
        assert!(ledger.corpus_scores(&other_captioner.scores("similarity", 3)).is_some());
    }
}
