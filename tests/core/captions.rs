//! Promise: a generated caption that says nothing is counted, and gives way to the original.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{StubCaptioner, StubJudge, builder, clusters, corpus, cut_off};
use ndarray::ArrayView4;
use tldr_loader::model::{Recaptioner, Scorer, Signals};
use tldr_loader::{Loader, Result, SampleId};

/// By a sample's id modulo 3.
const WRITTEN: [&str; 3] = ["", "a red dog a Red dog a red dog", "a red dog"];

/// Signals of the stub, captions by id.
struct Writer {
    signals: StubCaptioner,
    counts: Arc<[AtomicU64; 3]>,
}

impl Scorer for Writer {
    fn dim(&self) -> usize {
        self.signals.dim()
    }
    fn preview_size(&self) -> usize {
        self.signals.preview_size()
    }
    fn batch_size(&self) -> usize {
        self.signals.batch_size()
    }
    fn clusters(&self) -> usize {
        self.signals.clusters()
    }
    fn fingerprint(&self) -> u64 {
        self.signals.fingerprint()
    }
    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        self.signals.signals(previews, captions)
    }
    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        Some(self)
    }
}

impl Recaptioner for Writer {
    fn caption_batch_size(&self) -> usize {
        8
    }
    fn caption_fingerprint(&self) -> u64 {
        3
    }
    fn caption(&mut self, _: ArrayView4<'_, u8>, ids: &[SampleId]) -> Result<Vec<String>> {
        let kind = |id: &SampleId| (id.0 % 3) as usize;
        for id in ids {
            self.counts[kind(id)].fetch_add(1, Ordering::SeqCst);
        }
        Ok(ids.iter().map(|id| WRITTEN[kind(id)].to_owned()).collect())
    }
}

fn loader(urls: &str, replace: Option<bool>) -> (Loader, Arc<[AtomicU64; 3]>) {
    let counts = Arc::new([0, 0, 0].map(AtomicU64::new));
    let writer = Writer { signals: StubCaptioner::new(), counts: Arc::clone(&counts) };
    let mut builder = builder(urls).captioner(writer, clusters()).fuse("generated".parse().unwrap());
    if let Some(replace) = replace {
        builder = builder.replace_repetitive(replace);
    }
    (builder.build().unwrap(), counts)
}

#[test]
fn captions_that_say_nothing_are_counted_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    for (given, replaces) in [(None, true), (Some(true), true), (Some(false), false)] {
        let (loader, counts) = loader(&urls, given);
        let mut seen = [0; 3];
        for batch in loader.iter().unwrap() {
            let batch = batch.unwrap();
            for (row, id) in batch.ids.iter().enumerate() {
                let kind = (id.0 % 3) as usize;
                seen[kind] += 1;
                // What was written stays visible.
                assert_eq!(batch.generated[row].as_deref(), Some(WRITTEN[kind]));
                let replaced = kind == 0 || kind == 1 && replaces;
                let expected = if replaced { batch.original[row].as_str() } else { WRITTEN[kind] };
                assert_eq!(batch.captions[row], expected, "kind {kind}, {given:?}");
            }
        }
        assert!(seen.iter().all(|&n| n > 10), "{seen:?}");
        let stats = loader.stats();
        let count = |kind: usize| counts[kind].load(Ordering::SeqCst);
        assert_eq!((stats.captions_empty, stats.captions_repetitive), (count(0), count(1)));
        assert_eq!(stats.captioned, count(0) + count(1) + count(2));
        // From the ledger they count the same.
        loader.set_epoch(0);
        loader.iter().unwrap().for_each(|batch| drop(batch.unwrap()));
        let (again, cut_off) = (loader.stats(), cut_off(&loader) as u64);
        assert!(again.captioned <= cut_off, "{}", again.captioned);
        assert!(again.captions_empty.abs_diff(stats.captions_empty) <= cut_off);
        assert!(again.captions_repetitive.abs_diff(stats.captions_repetitive) <= cut_off);
    }
}

/// What `rescue` has written for others is in no count: no ledger could repeat it.
#[test]
fn only_captions_of_kept_samples_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    for replaces in [true, false] {
        let counts = Arc::new([0, 0, 0].map(AtomicU64::new));
        let writer = Writer { signals: StubCaptioner::new(), counts: Arc::clone(&counts) };
        let loader = builder(&urls)
            .captioner(writer, clusters())
            .judge(StubJudge { asked: Arc::default() })
            .fuse("generated".parse().unwrap())
            .rescue(true)
            .replace_repetitive(replaces)
            // One lane, so that nothing is left over that was counted.
            .lanes(1)
            .build()
            .unwrap();
        let mut first = None;
        for _ in 0..2 {
            let (mut empty, mut repetitive) = (BTreeSet::new(), BTreeSet::new());
            loader.set_epoch(0);
            for batch in loader.iter().unwrap() {
                let batch = batch.unwrap();
                for (id, generated) in batch.ids.iter().zip(&batch.generated) {
                    match generated.as_deref() {
                        Some("") => empty.insert(id.0),
                        Some(text) if text == WRITTEN[1] => repetitive.insert(id.0),
                        _ => false,
                    };
                }
            }
            let stats = loader.stats();
            // Kept samples that were left over behind the last batch were counted too.
            let range = |seen: usize| seen as u64..=seen as u64 + stats.surplus;
            assert!(range(empty.len()).contains(&stats.captions_empty), "{stats:?}");
            assert!(range(repetitive.len()).contains(&stats.captions_repetitive), "{stats:?}");
            assert!(stats.captions_empty > 0 && stats.captions_repetitive > 0);
            let found = (stats.captions_empty, stats.captions_repetitive);
            assert_eq!(*first.get_or_insert(found), found, "with the ledger as without");
        }
        assert!(counts[1].load(Ordering::SeqCst) > first.unwrap().1, "rescue had more written");
    }
}
