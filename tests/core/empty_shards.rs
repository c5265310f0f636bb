//! Promise: a shard that holds nothing is named and counted, and fails where failures are to end the run; it is never
//! skipped without a word.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::path::Path;

use crate::support::{builder, corpus, epoch, eval, full};
use tldr_loader::ErrorKind;
use tldr_loader::config::OnError;
use tldr_loader::loader::LoaderBuilder;

/// A corpus of two shards with samples, and two without: zeros, and an archive of nothing.
fn with_empty(folder: &Path) -> String {
    corpus(folder, 2, 48);
    std::fs::write(folder.join("00002.tar"), vec![0; 10 << 20]).unwrap();
    std::fs::write(folder.join("00003.tar"), tar_of_nothing()).unwrap();
    support::pattern(folder, 4)
}

/// As `tar cf` writes it: 10,240 bytes.
fn tar_of_nothing() -> Vec<u8> {
    vec![0; 10_240]
}

#[test]
fn they_are_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let urls = with_empty(folder.path());
    let kinds: [fn(&str) -> LoaderBuilder; 3] = [full, builder, eval];
    for kind in kinds {
        let loader = kind(&urls).build().unwrap();
        assert_eq!(loader.stats().empty_shards.len(), 2, "before anything is read");
        epoch(&loader);
        let stats = loader.stats();
        assert!(stats.empty_shards[0].ends_with("00002.tar") && stats.empty_shards[1].ends_with("00003.tar"));
        assert_eq!(stats.counts.read, 96);
        let warnings = stats.warnings(16);
        let warning = warnings.iter().find(|warning| warning.contains("no samples in it")).unwrap();
        assert!(warning.contains("00002.tar and 1 more"), "{warning}");
    }
}

#[test]
fn they_fail_where_failures_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let urls = with_empty(folder.path());
    let error = full(&urls).on_error(OnError::Raise).build().err().unwrap();
    assert!(matches!(error.kind, ErrorKind::NoSamples { .. }), "{error}");
    assert!(error.shard.as_deref().unwrap().ends_with("00002.tar"), "{error}");
    assert!(error.to_string().contains("the shard holds none") && !error.to_string().contains("damaged"));
}

/// The files beside a shard say what it ought to hold; what it holds is seen when it is read.
#[test]
fn they_are_found_while_reading_too() {
    let folder = tempfile::tempdir().unwrap();
    let urls = with_empty(folder.path());
    std::fs::write(folder.path().join("sizes.json"), r#"{"00002.tar": 48, "00003.tar": 48}"#).unwrap();
    for make in [full as fn(&str) -> LoaderBuilder, builder] {
        let loader = make(&urls).lanes(1).build().unwrap();
        assert!(loader.stats().empty_shards.is_empty(), "nothing was read yet");
        for _ in 0..2 {
            epoch(&loader);
            assert_eq!(loader.stats().empty_shards.len(), 2);
        }
        let loader = make(&urls).lanes(1).on_error(OnError::Raise).build().unwrap();
        let error = loader.iter().unwrap().find_map(Result::err).unwrap();
        assert!(matches!(error.kind, ErrorKind::NoSamples { .. }), "{error}");
        assert!(error.to_string().contains("0000"), "{error}");
    }
}

#[test]
fn a_corpus_of_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["00000.tar", "00001.tar"] {
        std::fs::write(folder.path().join(name), tar_of_nothing()).unwrap();
    }
    let urls = support::pattern(folder.path(), 2);
    let error = full(&urls).build().err().unwrap();
    assert!(matches!(error.kind, ErrorKind::NoSamples { .. }), "{error}");
    assert!(error.to_string().contains("none of the 2 shards holds one"), "{error}");
}
