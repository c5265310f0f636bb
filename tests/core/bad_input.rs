//! Promise: an option that cannot work is an error at construction that names the option, what
//! was given and what is accepted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support::{StubCaptioner, builder, clusters, corpus, with_stub};
use tldr_loader::config::Gate;
use tldr_loader::loader::LoaderBuilder;
use tldr_loader::{ErrorKind, Loader};

#[track_caller]
fn refused(builder: LoaderBuilder, option: &str, parts: &[&str]) {
    let error = builder.build().err().expect("it must be refused");
    match &error.kind {
        ErrorKind::Option { option: found, .. } => assert_eq!(*found, option, "{error}"),
        other => panic!("{other:?}"),
    }
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn options_that_cannot_work_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 50);
    for keep_ratio in [0.0, -1.0, 1.5, f64::NAN] {
        refused(with_stub(&urls).keep_ratio(keep_ratio), "keep_ratio", &["(0, 1]"]);
    }
    refused(with_stub(&urls).keep_ratio(0.6), "keep_ratio", &["0.6", "0.5"]);
    refused(builder(&urls).gate(Gate::top(0.5)), "gate", &["0.5"]);
    refused(with_stub(&urls).gate(Gate::top(0.0)), "gate", &["0"]);
    refused(with_stub(&urls).batch_size(10).lanes(4), "batch_size", &["10", "lanes=4"]);
    refused(with_stub(&urls).rank(0).world_size(3).lanes(4), "lanes", &["4", "3"]);
    refused(with_stub(&urls).world_size(2).rank(2), "rank", &["2"]);
    refused(with_stub(&urls).prefetch(1 << 40), "prefetch", &["at most"]);
    refused(with_stub(&urls).max_image_pixels(0), "max_image_pixels", &["at least 1"]);
    refused(with_stub(&urls).lengths(vec![50, 50, 50, 0]), "lengths", &["at least 1"]);
    refused(with_stub(&urls).lengths(vec![u64::MAX; 4]), "lengths", &["2^53"]);
    refused(with_stub(&urls).batch_size(0), "batch_size", &["0", "at least 1"]);
    refused(with_stub(&urls).batch_size(64), "batch_size", &["64", "at most 50", "200"]);
    refused(builder(&urls).fuse("concat".parse().unwrap()), "fuse", &["concat", "captioner"]);
    refused(builder(&urls).priority(tldr_loader::config::Priority::Diverse), "priority", &["captioner"]);
    let of = |urls: &str| Loader::builder(urls).keep_ratio(0.5);
    refused(of("no/such/folder/{00000..00003}.tar"), "urls", &["no/such/folder"]);
    refused(of("pipe:cat x.tar"), "urls", &["pipe:"]);
    refused(Loader::builder(Vec::<String>::new()).keep_ratio(0.5), "urls", &[]);
}

#[test]
fn an_encoder_of_another_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 4, 50);
    let mut other = (*clusters()).clone();
    other.centroids = ndarray::Array2::from_elem((5, 4), 0.5);
    other.runs = vec![0; 5];
    other.shares = vec![0.2; 5];
    other.gated = ndarray::Array2::from_elem((5, other.gated.ncols()), 0.2);
    let loader = builder(&urls).captioner(StubCaptioner::new(), std::sync::Arc::new(other));
    refused(loader, "captioner", &["5 clusters", "has 27"]);
}
