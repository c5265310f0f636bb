//! Promise: a coin, a gate on both captions and a rescue do what they say, are a function of the sample and
//! the epoch, and a generated caption is never judged by its own generator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Altered, StubCaptioner, StubJudge, builder, clusters, corpus, cut_off, epoch, full, judged, with_judge,
    with_stub,
};
use tldr_loader::config::Gate;
use tldr_loader::hash::{self, Purpose};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Batch, LoaderBuilder};
use tldr_loader::model::{Scorer, Signals};
use tldr_loader::{Loader, Result};

/// What the stubs say of every sample of a corpus: its original caption by id.
fn originals(urls: &str) -> BTreeMap<u64, String> {
    let all = full(urls).batch_size(4).lanes(1).build().unwrap();
    let batches: Vec<Batch> = all.iter().unwrap().map(Result::unwrap).collect();
    batches.iter().flat_map(|b| b.ids.iter().map(|id| id.0).zip(b.original.iter().cloned())).collect()
}

/// The caption that the stub writes for a sample, whose original names its colour.
fn generated(original: &str) -> String {
    let words: Vec<&str> = original.split(' ').collect();
    format!("a picture of [{}, {}, {}]", words[1], words[2], words[3])
}

/// The stub's alignment of a caption.
fn alignment(original: &str) -> f32 {
    hash::unit(hash::hash_str(original)) as f32
}

fn draw(epoch: u64, id: u64) -> f64 {
    hash::unit(hash::hash(0, Purpose::Fuse, hash::combine(&[epoch, id])))
}

#[test]
fn a_coin_is_thrown_anew_for_each_sample_and_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    let loader = with_stub(&urls).fuse("coin({0: 0.3, 2: 1})".parse().unwrap()).build().unwrap();
    for (number, p) in [(0, 0.3), (1, 0.3), (2, 1.0)] {
        let mut wrote = 0;
        for batch in loader.iter().unwrap() {
            let batch = batch.unwrap();
            assert_eq!(batch.epoch, number);
            for (row, id) in batch.ids.iter().enumerate() {
                let is_generated = draw(number, id.0) < p;
                wrote += usize::from(is_generated);
                let expected = match is_generated {
                    true => generated(&batch.original[row]),
                    false => batch.original[row].clone(),
                };
                assert_eq!(batch.captions[row], expected);
                // Nothing is written that is not used.
                assert_eq!(batch.generated[row].is_some(), is_generated);
                assert_eq!(batch.judged[row], None);
            }
        }
        assert!(wrote > 20 && (p == 1.0 || wrote < 80), "{wrote}");
    }
}

#[test]
fn each_caption_must_pass_and_the_rescued_come_back_with_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 240);
    let originals = originals(&urls);
    assert_eq!(originals.len(), 960);
    let loader = with_judge(&urls).build().unwrap();
    let (mut rows, mut rescued, mut by_coin) = (0, 0, [0; 2]);
    for batch in loader.iter().unwrap() {
        let batch = batch.unwrap();
        for (row, id) in batch.ids.iter().enumerate() {
            let original = &originals[&id.0];
            assert_eq!(batch.original[row], *original);
            let (own, theirs) = (alignment(original), judged(&generated(original)));
            assert_eq!(batch.alignment[row], Some(own));
            assert_eq!(batch.rescued[row], own < 0.5);
            assert!(own >= 0.5 || theirs >= 0.5, "what fails twice is gone");
            let tossed = draw(0, id.0) < 0.5;
            let takes_generated = own < 0.5 || theirs >= 0.5 && tossed;
            let expected = if takes_generated { generated(original) } else { original.clone() };
            assert_eq!(batch.captions[row], expected);
            if own < 0.5 || tossed {
                assert_eq!(batch.generated[row].as_deref(), Some(generated(original).as_str()));
                assert_eq!(batch.judged[row], Some(theirs));
            } else {
                assert_eq!((&batch.generated[row], batch.judged[row]), (&None, None));
            }
            rows += 1;
            rescued += u64::from(batch.rescued[row]);
            by_coin[usize::from(tossed)] += usize::from(own >= 0.5 && theirs >= 0.5);
        }
    }
    assert!(rescued > 50 && by_coin.iter().all(|&n| n > 20), "{rescued} {by_coin:?}");
    let stats = loader.stats();
    assert!(stats.counts.conserved());
    assert_eq!(stats.counts.read, 960);
    let twice_failed = |original: &&String| alignment(original) < 0.5 && judged(&generated(original)) < 0.5;
    assert_eq!(stats.counts.dropped_gate, originals.values().filter(twice_failed).count() as u64);
    assert!(stats.rescued >= rescued && stats.rescued <= stats.counts.kept);
    // keep_ratio is the share of the readable samples that it is without rescue. 20 windows of 64, 32 of
    // which pass on average: the number that pass, times 0.8, is what varies: 0.8 sqrt(960 / 4) = 12.4; the
    // draw adds less than a place for each of 9 runs and 20 windows, sqrt(180 / 12) = 4. Five deviations.
    let kept = stats.counts.kept as f64;
    assert!((kept - 0.4 * 960.0).abs() < 5.0 * 13.1, "{kept}");
    assert_eq!(rows, loader.num_samples());
}

/// A model that computes in some way, and fails at two of them.
fn computing<E: Scorer + 'static>(model: E, way: &'static str) -> Altered<E> {
    Altered::new(model).compute(way).encode(move |model, previews, captions| match way {
        "badly" => panic!("no memory"),
        "too little" => model.signals(previews, captions).map(|s| Signals { cluster: vec![], ..s }),
        _ => model.signals(previews, captions),
    })
}

/// A loader with a ledger, and what its models were asked.
fn counted(urls: &str, gate: f64, ledger: &Ledger) -> (Loader, [Arc<AtomicUsize>; 3]) {
    counted_on(urls, gate, ledger, [""; 2])
}

/// As [`counted`], with the ways in which captioner and judge compute.
fn counted_on(
    urls: &str,
    gate: f64,
    ledger: &Ledger,
    ways: [&'static str; 2],
) -> (Loader, [Arc<AtomicUsize>; 3]) {
    let stub = StubCaptioner::new();
    let judge = StubJudge { asked: Arc::default() };
    let counts = [Arc::clone(&stub.encoded), Arc::clone(&stub.captioned), Arc::clone(&judge.asked)];
    let loader = builder(urls)
        .captioner(computing(stub, ways[0]), clusters())
        .judge(computing(judge, ways[1]))
        .rescue(true)
        .keep_ratio(0.2)
        .gate(Gate::top(gate))
        .fuse("gated".parse().unwrap())
        .ledger(ledger.clone())
        .build()
        .unwrap();
    (loader, counts)
}

fn asked(counts: &[Arc<AtomicUsize>; 3]) -> [usize; 3] {
    counts.each_ref().map(|count| count.load(Ordering::SeqCst))
}

#[test]
fn a_second_epoch_asks_no_model_and_another_gate_only_of_captions() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 150);
    let ledger = Ledger::new();
    let (loader, counts) = counted(&urls, 0.5, &ledger);
    let first = epoch(&loader);
    let before = asked(&counts);
    assert!(before.iter().all(|&n| n > 100), "{before:?}");
    loader.set_epoch(0);
    assert_eq!(epoch(&loader), first);
    // The ledger knows all but what the end of the first run cut off.
    let again = asked(&counts);
    assert_eq!(again[0], before[0], "signals");
    for (again, before) in again.into_iter().zip(before) {
        assert!(again - before <= cut_off(&loader), "{again} {before}");
    }

    // More samples fail a narrower gate: their captions and scores are missing, their signals are not.
    let (narrow, counts) = counted(&urls, 0.3, &ledger);
    let found = epoch(&narrow);
    let [encoded, captioned, judged] = asked(&counts);
    assert!(encoded == 0 && captioned > 50 && judged > 50, "{encoded} {captioned} {judged}");
    let (fresh, _) = counted(&urls, 0.3, &Ledger::new());
    assert_eq!(found, epoch(&fresh), "with and without a ledger");
}

#[test]
fn scores_of_another_device_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 150);
    let ledger = Ledger::new();
    let judged = |ways| {
        let (loader, counts) = counted_on(&urls, 0.5, &ledger, ways);
        epoch(&loader);
        asked(&counts)[2].saturating_sub(cut_off(&loader))
    };
    assert!(judged(["cpu", "cpu"]) > 100);
    assert_eq!(judged(["cpu", "cpu"]), 0);
    assert!(judged(["cpu", "cuda"]) > 100, "the judge's");
    assert!(judged(["cuda", "cpu"]) > 100, "of captions that were written elsewhere");
    assert_eq!(judged(["cpu", "cpu"]), 0);
}

#[test]
fn a_fault_of_the_judge_is_called_the_judges() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 150);
    let panicking = "the judge stage stopped: no memory";
    for (ways, says) in [
        (["", "badly"], panicking),
        (["badly", ""], "the encode stage stopped: no memory"),
        (["", "too little"], "signals of 8 rows expected of the judge"),
    ] {
        let (loader, _) = counted_on(&urls, 0.5, &Ledger::new(), ways);
        let error = loader.iter().unwrap().find_map(Result::err).expect("it fails").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_ledger_in_a_folder_keeps_scores() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 150);
    let root = folder.path().join("ledger");
    let (loader, _) = counted(&urls, 0.5, &Ledger::open(&root, None).unwrap());
    let first = epoch(&loader);
    let (again, counts) = counted(&urls, 0.5, &Ledger::open(&root, None).unwrap());
    assert_eq!(epoch(&again), first);
    assert_eq!(asked(&counts), [0, 0, 0]);
}

#[test]
fn what_cannot_be_judged_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let stub = || builder(&urls).captioner(StubCaptioner::new(), clusters());
    let judge = || StubJudge { asked: Arc::default() };
    let gated = || "gated(0.4)".parse().unwrap();
    let refused = |builder: LoaderBuilder| builder.build().err().unwrap().to_string();
    for (builder, says) in [
        (stub().fuse(gated()), "invalid fuse=gated(0.4): expected a judge beside it"),
        (stub().rescue(true), "invalid rescue=true: expected a judge beside it"),
        (
            stub().rescue(true).gate(Gate::OFF).judge(judge()),
            "invalid rescue=true: expected false without a gate",
        ),
        (stub().judge(judge()), "invalid judge=given: it has no effect"),
        (
            stub().judge(StubCaptioner::new()).fuse(gated()),
            "invalid judge=the captioner itself: expected another model",
        ),
    ] {
        let message = refused(builder);
        assert!(message.starts_with(says), "{message}");
    }
}
