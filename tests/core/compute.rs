//! Promise: signals that were computed otherwise are kept with a word, or refused under `strict`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Altered, StubCaptioner, builder, clusters, corpus, epoch};
use tldr_loader::ledger::Ledger;
use tldr_loader::{ErrorKind, Loader, Result};

fn loader(urls: &str, way: &'static str, strict: bool, ledger: &Ledger) -> (Loader, Arc<AtomicUsize>) {
    let stub = StubCaptioner::new();
    let encoded = Arc::clone(&stub.encoded);
    let builder = builder(urls)
        .captioner(Altered::new(stub).compute(way), clusters())
        .strict(strict)
        .ledger(ledger.clone());
    (builder.build().unwrap(), encoded)
}

/// What happens to the signals of one way in a loader of another.
fn check(urls: &str, reopen: impl Fn() -> Ledger) {
    let (first, _) = loader(urls, "cuda, bfloat16", true, &reopen());
    let expected = epoch(&first);
    for (way, strict) in [("cpu, float32", false), ("cuda, bfloat16", true), ("", true)] {
        let (again, encoded) = loader(urls, way, strict, &reopen());
        assert_eq!(epoch(&again), expected, "{way:?}");
        assert_eq!(encoded.load(Ordering::SeqCst), 0, "{way:?}: recorded signals are used");
    }
    let (refusing, _) = loader(urls, "cpu, float32", true, &reopen());
    let error = refusing.iter().unwrap().find_map(Result::err).expect("refused");
    assert!(matches!(error.kind, ErrorKind::State(_)), "{error}");
    let error = error.to_string();
    for part in ["computed with cuda, bfloat16", "computes with cpu, float32", "strict=false"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn another_way_of_computing_is_told_and_refused_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 150);
    let ledger = Ledger::new();
    check(&urls, || ledger.clone());
}

#[test]
fn a_folder_remembers_how_it_was_computed() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 150);
    check(&urls, || Ledger::open(folder.path().join("ledger"), None).unwrap());
}
