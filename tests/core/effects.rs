//! Promise: an option that was given and has no effect is refused by name, and what drops most of a corpus is
//! asked for. `loader/effects.rs` has the table of options that need no model.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::support::{StubCaptioner, StubJudge, builder, clusters, corpus, eval, full, with_stub};
use tldr_loader::config::{Gate, Priority, Quota};
use tldr_loader::loader::LoaderBuilder;
use tldr_loader::options::ByEpoch;
use tldr_loader::{ErrorKind, Loader};

type Set = fn(LoaderBuilder) -> LoaderBuilder;

fn refused(builder: LoaderBuilder) -> String {
    let error = builder.build().err().unwrap();
    assert!(matches!(error.kind, ErrorKind::Option { .. }), "{error}");
    error.to_string()
}

#[test]
fn the_share_to_keep_has_to_be_given_where_nothing_tells_samples_apart() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let bare = || Loader::builder(&*urls).batch_size(16).image_size(8).rank(0).world_size(1);
    let text = refused(bare());
    assert!(
        text.starts_with(
            "invalid keep_ratio=none: expected a number in (0, 1], the share of samples to keep"
        ),
        "{text}"
    );
    assert!(text.contains("mode=full keeps all"), "{text}");
    for given in [ByEpoch::from(0.25), ByEpoch::from(vec![(0, 0.25), (3, 1.0)])] {
        assert_eq!(bare().keep_ratio(given).build().unwrap().num_batches(), 3);
    }
    // By default a quarter of what a captioner tells apart.
    let with = bare().captioner(StubCaptioner::new(), clusters());
    assert_eq!(with.build().unwrap().num_batches(), 3);
    let _ = bare().mode(tldr_loader::config::Mode::Full).build().unwrap();
}

#[test]
fn models_that_nothing_asks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 100);
    let captioner = |b: LoaderBuilder| b.captioner(StubCaptioner::new(), clusters());
    let judge: Set = |b| b.judge(StubJudge { asked: Arc::default() });
    for make in [full, eval] {
        assert!(
            refused(captioner(make(&urls)))
                .starts_with("invalid captioner=given: it has no effect with mode=")
        );
        assert!(refused(judge(make(&urls))).starts_with("invalid judge=given: it has no effect with mode="));
    }
    assert!(refused(judge(with_stub(&urls))).starts_with("invalid judge=given: it has no effect"));

    let random = || captioner(builder(&urls)).quota(Quota::Random).gate(Gate::OFF);
    let text = refused(random());
    assert!(
        text.starts_with("invalid captioner=given: it has no effect with quota=random, priority=uniform"),
        "{text}"
    );
    let asks: [Set; 6] = [
        |b| b.gate(Gate::top(0.5)),
        |b| b.quota(Quota::Proportional),
        |b| b.priority(Priority::Hard),
        |b| b.dedup(0.99),
        |b| b.fuse("concat".parse().unwrap()),
        |b| b.fuse("best(0.4)".parse().unwrap()),
    ];
    for ask in asks {
        let loader = ask(random()).build().unwrap();
        loader.iter().unwrap().for_each(|batch| drop(batch.unwrap()));
        let stats = loader.stats();
        assert!(stats.encoded + stats.captioned > 0, "it is asked");
    }
}
