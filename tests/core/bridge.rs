//! Promise: where a ledger holds all that a model would say, the model's identity is enough. A loader then yields the same
//! batches without the model; what the ledger lacks is an error that says how to record it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{Altered, Row, StubCaptioner, StubJudge, builder, clusters, corpus, epoch, plan_job};
use tldr_loader::config::{Gate, Selection};
use tldr_loader::image::Alpha;
use tldr_loader::jobs::plan;
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::model::{Identity, Recorded, Scorer};
use tldr_loader::select::Policy;
use tldr_loader::{Error, ErrorKind, Result};

/// A corpus, a ledger, and the directories of a captioner and a judge that only their identities are in.
struct Place {
    folder: tempfile::TempDir,
    urls: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), 3, 150);
        let place = Self { folder, urls };
        for name in ["captioner", "judge"] {
            fs::create_dir(place.path(name)).unwrap();
            fs::write(place.path(name).join("config.json"), "{}").unwrap();
        }
        let (mut model, dir) = (StubCaptioner::new(), place.path("captioner"));
        let mut writer = StubCaptioner::new();
        Identity::save(
            &model,
            writer.recaptioner().map(|w| (w.caption_batch_size(), w.caption_fingerprint())),
            3,
            &dir,
        )
        .unwrap();
        assert!(model.recaptioner().is_some());
        let judge = StubJudge { asked: Arc::default() };
        Identity::save(&judge, None, 4, &place.path("judge")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.path("ledger"), None).unwrap()
    }

    /// A loader with the models.
    fn with_models(&self, change: &Change) -> Loader {
        let judge = StubJudge { asked: Arc::default() };
        let captioner = Altered::new(StubCaptioner::new()).compute("a GPU");
        self.loader(captioner, Altered::new(judge).compute("a GPU"), change)
    }

    /// A loader with what stands in for them.
    fn without_models(&self, change: &Change) -> Loader {
        let [captioner, judge] = ["captioner", "judge"].map(|name| identity(&self.path(name)));
        let captioner = Recorded::new(captioner, &self.path("captioner"));
        self.loader(captioner, Recorded::judge(judge, &self.path("judge")), change)
    }

    fn loader(
        &self,
        captioner: impl Scorer + 'static,
        judge: impl Scorer + 'static,
        change: &Change,
    ) -> Loader {
        let mut builder = builder(&self.urls).ledger(self.ledger()).captioner(captioner, clusters());
        if change.judge {
            builder = builder.judge(judge).rescue(true).keep_ratio(0.4);
        }
        (change.with)(builder.fuse(change.fuse.parse().unwrap())).build().unwrap()
    }
}

/// Options of a loader.
struct Change {
    fuse: &'static str,
    judge: bool,
    with: fn(LoaderBuilder) -> LoaderBuilder,
}

fn fused(fuse: &'static str) -> Change {
    Change { fuse, judge: fuse.starts_with("gated"), with: |builder| builder }
}

fn identity(dir: &Path) -> Identity {
    Identity::load(dir).unwrap().unwrap()
}

fn refusal(loader: &Loader) -> Error {
    loader.iter().unwrap().find_map(Result::err).expect("an error")
}

#[test]
fn recorded_here_it_is_trained_on_there() {
    for fuse in ["original", "generated", "concat", "best(0.7)", "coin(0.5)", "gated(0.5)"] {
        let place = Place::new();
        let change = fused(fuse);
        let expected = epoch(&place.with_models(&change));
        assert!(expected.len() > 2, "{fuse}");
        let there = place.without_models(&change);
        assert_eq!(epoch(&there), expected, "{fuse}");
        let stats = there.stats();
        assert_eq!((stats.encoded, stats.captioned, stats.judged), (0, 0, 0), "{fuse}");
    }
}

#[test]
fn strict_takes_what_stands_in_for_a_model() {
    let place = Place::new();
    let change = Change { with: |builder| builder.strict(true), ..fused("concat") };
    assert_eq!(epoch(&place.with_models(&change)), epoch(&place.without_models(&change)));
}

#[test]
fn a_plan_that_was_made_there_needs_no_model_here() {
    let place = Place::new();
    let policy = Policy {
        selection: Selection { gate: Some(Gate::top(0.5)), ..Selection::default() },
        ..Policy::default()
    };
    let job = |urls: &str| plan_job(urls, place.path("ledger"), policy.clone());
    let model = Altered::new(StubCaptioner::new()).compute("a GPU");
    let file = plan(&job(&place.urls), model, clusters(), &mut |_, _, _| Ok(())).unwrap();
    let file = file.plan.unwrap();
    file.save(place.path("plan")).unwrap();
    let planned = |model: Box<dyn Scorer>| -> Vec<Vec<Row>> {
        let builder = builder(&place.urls).ledger(place.ledger()).captioner(model, clusters());
        epoch(&builder.plan(place.path("plan")).fuse("concat".parse().unwrap()).build().unwrap())
    };
    let expected = planned(Box::new(Altered::new(StubCaptioner::new()).compute("a GPU")));
    let dir = place.path("captioner");
    assert_eq!(planned(Box::new(Recorded::new(identity(&dir), &dir))), expected);
    // The signals are all there: the same plan is made by the identity alone.
    let again = Recorded::new(identity(&dir), &dir);
    let again = plan(&job(&place.urls), again, clusters(), &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(again.encoded, 0);
    assert_eq!(again.plan.unwrap().fingerprint(), file.fingerprint());
}

#[test]
fn what_the_ledger_lacks_names_how_to_record_it() {
    let place = Place::new();
    let captioner = place.path("captioner").display().to_string();
    let error = refusal(&place.without_models(&fused("original")));
    assert!(matches!(error.kind, ErrorKind::NotRecorded { .. }), "{error}");
    let command = format!("tldr-loader plan SHARDS --captioner {captioner} --ledger LEDGER --out PLAN");
    for part in ["the ledger lacks signals of some samples", &command, "tldr-loader[captioner]"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Signals, and no captions.
    epoch(&place.with_models(&fused("original")));
    epoch(&place.without_models(&fused("original")));
    let error = refusal(&place.without_models(&fused("generated")));
    assert!(matches!(error.kind, ErrorKind::NotRecorded { .. }), "{error}");
    for part in ["lacks generated captions of some samples", &captioner, "for batch in loader: pass"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Captions of all that is kept, and none of what the gate dropped.
    epoch(&place.with_models(&fused("generated")));
    epoch(&place.without_models(&fused("generated")));
    let error = refusal(&place.without_models(&fused("gated(0.5)")));
    assert!(matches!(error.kind, ErrorKind::NotRecorded { .. }), "{error}");
}

#[test]
fn a_recording_of_other_options_is_named_by_what_differs() {
    let place = Place::new();
    epoch(&place.with_models(&fused("original")));
    let filtered: fn(LoaderBuilder) -> LoaderBuilder =
        |builder| builder.filter("width is null".parse().unwrap());
    let both: fn(LoaderBuilder) -> LoaderBuilder =
        |builder| builder.filter("width is null".parse().unwrap()).alpha(Alpha::Drop);
    let error = |with: fn(LoaderBuilder) -> LoaderBuilder| {
        let [captioner, _] = ["captioner", "judge"].map(|name| identity(&place.path(name)));
        let captioner = Recorded::new(captioner, &place.path("captioner"));
        let builder = builder(&place.urls).ledger(place.ledger()).captioner(captioner, clusters());
        let error = with(builder).build().err().unwrap();
        assert!(matches!(error.kind, ErrorKind::NotRecorded { .. }), "{error}");
        error.to_string()
    };
    let window = error(|builder| builder.window(32));
    assert!(window.contains("were recorded in windows of 64, and this loader has window=32"), "{window}");
    let one = error(filtered);
    assert!(one.contains("were recorded without where, which this loader has"), "{one}");
    let two = error(both);
    assert!(two.contains("were recorded without where and alpha, which this loader has"), "{two}");
    // The other way round nobody knows which option it was.
    let other = Place::new();
    let change = Change { with: |builder| builder.alpha(Alpha::Drop), ..fused("original") };
    epoch(&other.with_models(&change));
    let captioner = Recorded::new(identity(&other.path("captioner")), &other.path("captioner"));
    let builder = builder(&other.urls).ledger(other.ledger()).captioner(captioner, clusters());
    let lacking = builder.build().err().unwrap().to_string();
    assert!(lacking.contains("with reading options that this loader lacks, of caption_key"), "{lacking}");
}

#[test]
fn scores_that_no_judge_gave_are_missed() {
    let place = Place::new();
    let change = Change { judge: true, with: |builder| builder.rescue(false), fuse: "gated(0.5)" };
    let generated = Change { with: |builder| builder.keep_ratio(0.4), ..fused("generated") };
    // The same captions, and no scores.
    epoch(&place.with_models(&generated));
    let error = refusal(&place.without_models(&change));
    assert!(matches!(error.kind, ErrorKind::NotRecorded { .. }), "{error}");
    let judge = place.path("judge").display().to_string();
    for part in ["what the judge says of some generated captions", &judge, "for batch in loader: pass"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let expected = epoch(&place.with_models(&change));
    assert_eq!(epoch(&place.without_models(&change)), expected);
}
