//! Promise: on real shards every sample is read and has one outcome, in every mode.
//!
//! Needs the folder of real shards (`TLDR_DATA`, or `../shared/data`); says so when it skips.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeMap;

use crate::support::{StubCaptioner, clusters, real_data};
use tldr_loader::Loader;
use tldr_loader::config::{Mode, PixelType};
use tldr_loader::loader::LoaderBuilder;

/// Samples of a set according to its `sizes.json`.
fn expected(folder: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("sizes.json")).unwrap();
    let sizes: BTreeMap<String, u64> = serde_json::from_str(&text).unwrap();
    sizes.values().sum()
}

fn check(set: &str) {
    let Some(folder) = real_data(set) else { return };
    let samples = expected(&folder);
    let base = || -> LoaderBuilder {
        Loader::builder(folder.display().to_string())
            .batch_size(32)
            .image_size(64)
            .dtype(PixelType::U8)
            .rank(0)
            .world_size(1)
            .tokenizer(support::tokenizer())
    };
    let runs: [(&str, LoaderBuilder); 4] = [
        ("eval", base().mode(Mode::Eval)),
        ("full", base().mode(Mode::Full)),
        ("random", base().keep_ratio(0.5)),
        ("gate and clusters", base().captioner(StubCaptioner::new(), clusters()).window(256).keep_ratio(0.4)),
    ];
    for (name, builder) in runs {
        let loader = builder.build().unwrap();
        let rows: usize = loader.iter().unwrap().map(|b| b.unwrap().len()).sum();
        let stats = loader.stats();
        assert_eq!(stats.counts.read, samples, "{set}, {name}: {:?}", stats.counts);
        assert!(stats.counts.conserved());
        assert_eq!(stats.counts.failures(), 0, "{set}, {name}: {:?}", stats.failures);
        assert_eq!(stats.yielded, stats.counts.kept + stats.repeats - stats.surplus);
        assert_eq!(rows as u64, stats.yielded);
        if name == "eval" {
            assert_eq!(rows as u64, samples);
        } else {
            assert_eq!(rows as u64, loader.num_samples());
        }
    }
}

#[test]
fn openstax() {
    check("openstax");
}

#[test]
fn fsac() {
    check("fsac");
}

#[test]
fn emoji_train() {
    check("emoji-train");
}
