//! What a ledger holds in memory: windows, captions and scores together, least lately used first out.

use std::sync::Arc;

use lru::LruCache;

use crate::ledger::captions::WindowCaptions;
use crate::ledger::record::{CaptionKey, CorpusScores, ScoreKey, Scores, WindowKey, WindowRecord};
use crate::sample::SampleId;

/// Parts of a ledger, up to a number of bytes.
#[derive(Debug)]
pub(super) struct Cache {
    /// One order for all kinds: what is used goes on being there, whatever it is.
    entries: LruCache<Key, Entry>,
    bytes: u64,
    /// Most bytes; `None` where there is no other place.
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Window(WindowKey),
    Captions(CaptionKey),
    Scores(CaptionKey),
    CorpusScores(ScoreKey),
}

#[derive(Debug)]
enum Entry {
    Window(Arc<WindowRecord>),
    Captions(Arc<WindowCaptions>),
    Scores(Arc<Scores>),
    CorpusScores(CorpusScores),
}

impl Cache {
    /// An empty one of at most `limit` bytes.
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, limit }
    }

    pub(super) fn window(&mut self, key: &WindowKey) -> Option<Arc<WindowRecord>> {
        match self.entries.get(&Key::Window(*key)) {
            Some(Entry::Window(record)) => Some(Arc::clone(record)),
            _ => None,
        }
    }

    pub(super) fn captions(&mut self, key: &CaptionKey) -> Option<Arc<WindowCaptions>> {
        match self.entries.get(&Key::Captions(*key)) {
            Some(Entry::Captions(captions)) => Some(Arc::clone(captions)),
            _ => None,
        }
    }

    pub(super) fn scores(&mut self, key: &CaptionKey) -> Option<Arc<Scores>> {
        match self.entries.get(&Key::Scores(*key)) {
            Some(Entry::Scores(scores)) => Some(Arc::clone(scores)),
            _ => None,
        }
    }

    pub(super) fn corpus_scores(&mut self, key: &ScoreKey) -> Option<CorpusScores> {
        match self.entries.get(&Key::CorpusScores(*key)) {
            Some(Entry::CorpusScores(scores)) => Some(Arc::clone(scores)),
            _ => None,
        }
    }

    /// A record that says more is not replaced by one that says less.
    pub(super) fn put_window(&mut self, key: WindowKey, record: Arc<WindowRecord>) {
        if let Some(Entry::Window(old)) = self.entries.peek(&Key::Window(key))
            && old.extent() > record.extent()
        {
            return;
        }
        self.put(Key::Window(key), Entry::Window(record));
    }

    pub(super) fn put_captions(&mut self, key: CaptionKey, captions: Arc<WindowCaptions>) {
        self.put(Key::Captions(key), Entry::Captions(captions));
    }

    pub(super) fn put_scores(&mut self, key: CaptionKey, scores: Arc<Scores>) {
        self.put(Key::Scores(key), Entry::Scores(scores));
    }

    pub(super) fn put_corpus_scores(&mut self, key: ScoreKey, scores: CorpusScores) {
        self.put(Key::CorpusScores(key), Entry::CorpusScores(scores));
    }

    /// Number of windows. Linear in the entries.
    pub(super) fn window_count(&self) -> usize {
        self.entries.iter().filter(|(key, _)| matches!(key, Key::Window(_))).count()
    }

    /// Number of captions. Linear in the entries.
    pub(super) fn caption_count(&self) -> usize {
        let captions = self.entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Captions(captions) => Some(captions.len()),
            Entry::Window(_) | Entry::Scores(_) | Entry::CorpusScores(_) => None,
        });
        captions.sum()
    }

    /// Approximate size, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.bytes();
        if let Some(old) = self.entries.put(key, entry) {
            self.bytes -= old.bytes();
        }
        while self.limit.is_some_and(|limit| self.bytes > limit)
            && let Some((_, entry)) = self.entries.pop_lru()
        {
            self.bytes -= entry.bytes();
        }
    }
}

impl Entry {
    /// Approximate size, in bytes.
    fn bytes(&self) -> u64 {
        // Key, links and place in the table.
        const OWN: usize = 250;
        let parts = match self {
            Self::Window(record) => record.bytes() as usize,
            Self::Captions(captions) => captions.bytes(),
            Self::CorpusScores(scores) => size_of_val(&scores[..]),
            // A place of the table has a byte of its own, and one in eight is empty.
            Self::Scores(scores) => scores.capacity() * (size_of::<(SampleId, f32)>() + 1) * 8 / 7,
        };
        (OWN + parts) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(window: u64) -> WindowKey {
        WindowKey { shard: 1, window, size: 4, version: 5, scorer: 9, reading: 0 }
    }

    fn record() -> Arc<WindowRecord> {
        Arc::new(WindowRecord { ids: vec![SampleId(1), SampleId(2)], ..WindowRecord::empty(None) })
    }

    fn captions() -> Arc<WindowCaptions> {
        Arc::new(WindowCaptions::from_iter([(SampleId(1), "a red square")]))
    }

    #[test]
    fn what_was_used_least_lately_goes_first() {
        let one = Entry::Window(record()).bytes();
        let mut cache = Cache::new(Some(2 * one));
        for window in 0..2 {
            cache.put_window(key(window), record());
        }
        cache.window(&key(0));
        cache.put_window(key(2), record());
        let held: Vec<bool> = (0..3).map(|window| cache.window(&key(window)).is_some()).collect();
        assert_eq!(held, [true, false, true]);
        assert_eq!(cache.bytes(), 2 * one);
    }

    #[test]
    fn captions_do_not_drive_out_windows_that_are_used() {
        let (window, caption) = (Entry::Window(record()).bytes(), Entry::Captions(captions()).bytes());
        let mut cache = Cache::new(Some(window + 3 * caption));
        cache.put_window(key(0), record());
        for at in 0..100 {
            cache.put_captions(key(at).captions(7), captions());
            assert!(cache.window(&key(0)).is_some(), "gone after {at} captions");
            assert!(cache.bytes() <= window + 3 * caption);
        }
        assert_eq!((cache.window_count(), cache.caption_count()), (1, 3));
    }

    #[test]
    fn what_is_larger_than_the_limit_is_not_held() {
        let mut cache = Cache::new(Some(1));
        cache.put_window(key(0), record());
        assert!(cache.window(&key(0)).is_none());
        assert_eq!(cache.bytes(), 0);
    }
}
