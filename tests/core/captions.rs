//! Promise: a generated caption that says nothing is counted, and gives way to the original.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{StubCaptioner, builder, clusters, corpus};
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
        let again = loader.stats();
        assert_eq!(again.captioned, 0);
        assert_eq!(
            (again.captions_empty, again.captions_repetitive),
            (stats.captions_empty, stats.captions_repetitive)
        );
    }
}
