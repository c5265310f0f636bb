//! Promise: kept samples carry their probability, as weights where they are asked for, and statistics say
//! what these amount to.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support::{CLUSTERS, StubCaptioner, builder, clusters, corpus, epoch, full, with_stub};
use tldr_loader::cluster::Clusters;
use tldr_loader::config::{Priority, Quota};

#[test]
fn weights_are_one_over_pi() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 160);
    // Clusters of several sizes, so that rates differ.
    let mut uneven = Clusters::clone(&clusters());
    let share = |c: usize| (c + 1) as f64 / (CLUSTERS * (CLUSTERS + 1) / 2) as f64;
    uneven.shares = (0..CLUSTERS).map(share).collect();
    for (c, mut row) in uneven.gated.outer_iter_mut().enumerate() {
        let factor = share(c) * CLUSTERS as f64;
        row.mapv_inplace(|v| v * factor);
    }
    let uneven = std::sync::Arc::new(uneven);
    let make = || builder(&urls).captioner(StubCaptioner::new(), uneven.clone()).quota(Quota::Tempered(0.5));
    let loader = make().weights(true).build().unwrap();
    let plain = make().build().unwrap();
    assert_eq!(loader.state(), plain.state(), "weights change no decision");
    let (mut sum, mut squares, mut distinct) = (0.0, 0.0, vec![]);
    for (batch, bare) in loader.iter().unwrap().zip(plain.iter().unwrap()) {
        let (batch, bare) = (batch.unwrap(), bare.unwrap());
        assert!(bare.weights.is_none());
        assert_eq!((&batch.ids, &batch.pi), (&bare.ids, &bare.pi));
        assert_eq!((batch.policy, bare.policy), (loader.state().policy, loader.state().policy));
        let weights = batch.weights.as_ref().unwrap();
        assert_eq!(weights.shape(), [16]);
        for (&weight, pi) in weights.as_slice().iter().zip(&batch.pi) {
            assert!((weight * pi.unwrap() - 1.0).abs() < 1e-6);
            sum += f64::from(weight);
            squares += f64::from(weight).powi(2);
            distinct.push(weight.to_bits());
        }
    }
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 10, "rates that are all alike would test nothing");
    for loader in [&loader, &plain] {
        let found = loader.stats().n_eff.unwrap();
        assert!((found / (sum * sum / squares) - 1.0).abs() < 1e-5);
        assert!(found < loader.stats().yielded as f64);
    }
}

#[test]
fn where_nothing_is_selected_weights_are_one_and_without_probabilities_they_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 40);
    let whole = full(&urls).weights(true).build().unwrap();
    assert!(whole.iter().unwrap().all(|batch| batch.unwrap().weights.unwrap().as_slice() == [1.0; 16]));
    assert_eq!(whole.stats().n_eff, None, "no pi is stated");
    let refused = with_stub(&urls).priority(Priority::Diverse).weights(true).build().err().unwrap();
    let refused = refused.to_string();
    assert!(refused.contains("invalid weights=true: expected false with priority=diverse"), "{refused}");
    let chosen = with_stub(&urls).priority(Priority::Diverse).build().unwrap();
    epoch(&chosen);
    assert_eq!(chosen.stats().n_eff, None);
    // All of the same weight: as many as there are.
    let even = builder(&urls).build().unwrap();
    epoch(&even);
    assert!((even.stats().n_eff.unwrap() - even.stats().yielded as f64).abs() < 1e-6);
}
