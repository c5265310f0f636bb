//! Promise: a gate that is noise says so. Whether a captioner tells true captions from swapped ones is measured where
//! it is trained or fitted, and said wherever its alignment gates; so are captions that say nothing, captions of a
//! captioner's own corpus, and near-duplicates that are other captions of one picture.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::support::{StubCaptioner, builder, clusters, corpus};
use tldr_loader::cluster::{Clusters, GateWorth, MeasuredOn, Validation};
use tldr_loader::config::{Gate, Selection};
use tldr_loader::loader::LoaderBuilder;
use tldr_loader::shard::{self, Store};
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

/// Everything that was logged while `work` ran on this thread.
fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    // Beside one subscriber alone, a line that another thread comes to first would be off for all threads: tracing
    // asks that thread whether anybody listens.
    static OTHERS: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::default())));
    LazyLock::force(&OTHERS);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let done = tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (done, text)
}

fn worth(auc: f64, auc_error: f64) -> GateWorth {
    let validation = Validation { pairs: 104, lm_loss: Some(3.0), auc, auc_error };
    GateWorth { validation, on: MeasuredOn::HeldOut }
}

/// A captioner that a gate can be told by, and one that it cannot.
const GOOD: (f64, f64) = (0.93, 0.02);
const NOISE: (f64, f64) = (0.53, 0.02);

fn with_worth((auc, auc_error): (f64, f64)) -> Arc<Clusters> {
    Arc::new(Clusters { worth: Some(worth(auc, auc_error)), ..Clusters::clone(&clusters()) })
}

fn gated(urls: &str, clusters: Arc<Clusters>) -> LoaderBuilder {
    builder(urls).captioner(StubCaptioner::new(), clusters)
}

#[test]
fn a_loader_says_what_its_gate_is_worth_where_alignment_gates() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(dir.path(), 2, 64);
    let (loader, said) = logged(|| gated(&urls, with_worth(NOISE)).build().unwrap());
    assert!(said.contains("WARN") && said.contains("the gate is close to chance"), "{said}");
    assert!(
        said.contains("AUC 0.530 ± 0.020, perplexity 20.1, 104 pairs held out of the training"),
        "{said}"
    );
    let gate = loader.stats().gate.unwrap();
    assert_eq!((gate.auc, gate.auc_error, gate.pairs, gate.measured_on), (0.53, 0.02, 104, "held-out"));
    assert!(gate.close_to_chance && (gate.perplexity.unwrap() - 3f64.exp()).abs() < 1e-9);

    let (loader, said) = logged(|| gated(&urls, with_worth(GOOD)).build().unwrap());
    assert!(said.contains("INFO") && said.contains("AUC 0.930 ± 0.020"), "{said}");
    assert!(!said.contains("WARN") && !loader.stats().gate.unwrap().close_to_chance, "{said}");
    // An older fit has not measured it.
    let (loader, said) = logged(|| gated(&urls, clusters()).build().unwrap());
    assert!(said.contains("not measured") && loader.stats().gate.is_none(), "{said}");

    // Where alignment does not gate, it says nothing of the result.
    let noise = || with_worth(NOISE);
    let silent: [LoaderBuilder; 3] =
        [gated(&urls, noise()).gate(Gate::OFF), support::full(&urls), builder(&urls)];
    for builder in silent {
        let (loader, said) = logged(|| builder.build().unwrap());
        let speaks = said.contains("AUC") || said.contains("measured") || said.contains("WARN");
        assert!(!speaks && loader.stats().gate.is_none(), "{said}");
    }
}

#[test]
fn captions_of_a_captioners_own_corpus_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let urls = corpus(dir.path(), 4, 64);
    let listed = |source| shard::list(std::slice::from_ref(&urls), source, &Store::default()).unwrap();
    let trained_on = |source| {
        let mut marks: Vec<u64> = listed(source)[..3].iter().flat_map(|shard| shard.marks(64)).collect();
        marks.sort_unstable();
        Arc::new(Clusters { trained_on: marks, ..Clusters::clone(&with_worth(GOOD)) })
    };
    let say = |clusters, fuse: &str| {
        logged(|| gated(&urls, clusters).fuse(fuse.parse().unwrap()).build().unwrap()).1
    };
    // Also where the loader calls the corpus by another name than the training did.
    for source in [None, Some("test")] {
        let said = say(trained_on(source), "concat");
        assert!(said.contains("WARN") && said.contains("trained on 3 of the 4 shards"), "{said}");
        assert!(said.contains("22 to 31 points") && said.contains("fuse=original"), "{said}");
        assert!(!say(trained_on(source), "original").contains("WARN"));
    }
    let measured = include_str!("../../docs/benchmarks.md");
    assert!(
        measured.contains("loses 22 to 31 points where noise is, and 3 to 5 where it is"),
        "of what is measured"
    );
    // Of other shards it writes what it has not seen.
    std::fs::create_dir(dir.path().join("other")).unwrap();
    let other = corpus(&dir.path().join("other"), 1, 65);
    let build = || gated(&other, trained_on(None)).fuse("concat".parse().unwrap()).build().unwrap();
    let (_, said) = logged(build);
    assert!(!said.contains("WARN"), "{said}");
}

mod plans {
    use std::path::Path;

    use tldr_loader::hash::{Purpose, Rng};
    use tldr_loader::jobs::{PlanJob, plan};
    use tldr_loader::loader::Loader;
    use tldr_loader::select::Policy;
    use tldr_loader::shard::ShardWriter;

    use super::support::{Altered, epoch, plan_job, png};
    use super::*;

    /// A stub whose semantic hash is that of the picture alone, and of unlike pictures unlike.
    fn telling_pictures_apart() -> Altered<StubCaptioner> {
        Altered::new(StubCaptioner::new()).encode(|inner, previews, captions| {
            let mut signals = tldr_loader::model::Scorer::signals(inner, previews, captions)?;
            for (hash, picture) in signals.semantic_hash.iter_mut().zip(previews.outer_iter()) {
                let colour = [0, 1, 2].map(|c| u64::from(picture[[c, 0, 0]]));
                let mut rng = Rng::new(4, Purpose::Synth, colour[0] << 16 | colour[1] << 8 | colour[2]);
                *hash = [0; 4].map(|_| rng.next_u64());
            }
            Ok(signals)
        })
    }

    /// `pictures` pictures, each with five samples whose captions are `caption(picture, sample)`.
    fn fives(folder: &Path, pictures: usize, caption: impl Fn(usize, usize) -> String) -> String {
        std::fs::create_dir_all(folder).unwrap();
        let mut rng = Rng::new(8, Purpose::Synth, 0);
        let mut writer = ShardWriter::create(folder.join("00000.tar")).unwrap();
        for picture in 0..pictures {
            let png = png([0, 1, 2].map(|_| rng.below(256) as u8));
            for sample in 0..5 {
                let key = format!("{:05}", 5 * picture + sample);
                writer.write(&key, &[("png", &png), ("txt", caption(picture, sample).as_bytes())]).unwrap();
            }
        }
        writer.finish().unwrap();
        support::pattern(folder, 1)
    }

    fn planned(
        urls: &str,
        folder: &Path,
        dedup: Option<f32>,
        clusters: Arc<Clusters>,
    ) -> tldr_loader::jobs::PlanSummary {
        let policy = Policy {
            selection: Selection {
                gate: Some(Gate::top(0.9)),
                dedup,
                keep_ratio: Some(0.1.into()),
                ..Selection::default()
            },
            ..Policy::default()
        };
        let job = plan_job(urls, folder.join("ledger"), policy);
        plan(&job, telling_pictures_apart(), clusters, &mut |_, _, _| Ok(())).unwrap()
    }

    #[test]
    fn a_plan_counts_near_duplicates_that_stay_and_knows_captions_from_copies() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            Policy::default().selection.dedup,
            None,
            "near-duplicates stay unless somebody wants them gone"
        );
        // As COCO has them: five captions of each of 40 pictures.
        let folder = dir.path().join("captions");
        let urls = fives(&folder, 40, |picture, sample| {
            format!("picture {picture:02}{}", " and more".repeat(sample))
        });
        let stays = planned(&urls, &folder, None, clusters());
        let counts = stays.plan.as_ref().unwrap().plan.counts().clone();
        let near = stays.near.unwrap();
        assert_eq!((stays.distance, counts.copies, near.cosine), (None, 0, 0.95));
        // All of a picture's candidates but one; their captions have different lengths.
        let dropped = near.dropped.unwrap();
        assert!((120..=160).contains(&dropped), "{near:?}");
        assert_eq!((near.same_picture, near.other_captions), (dropped, dropped));
        let warning = near.warning().unwrap();
        assert!(warning.contains("with another caption") && warning.contains("dedup=0.95"), "{warning}");
        // What is counted is what goes where it is asked for.
        let goes = planned(&urls, &folder, Some(0.95), clusters());
        assert_eq!(goes.plan.as_ref().unwrap().plan.counts().copies, dropped);
        assert_eq!((goes.encoded, goes.near.unwrap().dropped), (0, Some(dropped)));
        assert!(goes.near.unwrap().warning().unwrap().contains(&format!("of {dropped} near-duplicates")));

        // What only says how near-duplicates go has no effect where they stay.
        let none = PlanJob::new(vec![urls.clone()], folder.join("ledger"));
        for job in [PlanJob { embeddings: true, ..none.clone() }, PlanJob { fill_with_copies: true, ..none }]
        {
            let refused =
                plan(&job, telling_pictures_apart(), clusters(), &mut |_, _, _| Ok(())).unwrap_err();
            assert!(refused.to_string().contains("it has no effect without dedup"), "{refused}");
        }

        // Five copies of a pair are copies.
        let folder = dir.path().join("copies");
        let urls = fives(&folder, 40, |picture, _| format!("picture {picture:02}"));
        let near = planned(&urls, &folder, None, clusters()).near.unwrap();
        assert!(near.dropped.unwrap() >= 120 && near.same_picture == near.dropped.unwrap(), "{near:?}");
        assert_eq!((near.other_captions, near.warning()), (0, None));
    }

    #[test]
    fn a_plan_carries_what_its_gate_is_worth() {
        let dir = tempfile::tempdir().unwrap();
        let urls = corpus(dir.path(), 2, 64);
        let plan = planned(&urls, dir.path(), None, with_worth(NOISE)).plan.unwrap();
        assert_eq!(plan.worth, Some(worth(NOISE.0, NOISE.1)));
        let path = dir.path().join("plan.parquet");
        plan.save(&path).unwrap();
        assert_eq!(tldr_loader::loader::PlanFile::load(&path).unwrap(), plan);
        // A loader that has the plan and no captioner says it too.
        let make = || {
            Loader::builder(urls.as_str())
                .name("test")
                .plan(&path)
                .window(64)
                .batch_size(4)
                .image_size(8)
                .build()
                .unwrap()
        };
        let (loader, said) = logged(make);
        assert!(said.contains("WARN") && said.contains("close to chance"), "{said}");
        assert!(loader.stats().gate.unwrap().close_to_chance);
        assert!(!epoch(&loader_u8(&urls, &path)).is_empty());
    }

    fn loader_u8(urls: &str, plan: &Path) -> Loader {
        let builder = Loader::builder(urls).name("test").plan(plan).window(64).batch_size(4).image_size(8);
        builder.dtype(tldr_loader::config::PixelType::U8).build().unwrap()
    }

    #[test]
    fn an_audit_says_first_what_it_audits_and_what_not() {
        use tldr_loader::jobs::{AuditJob, audit};
        use tldr_loader::ledger::Ledger;

        let dir = tempfile::tempdir().unwrap();
        let urls = corpus(dir.path(), 2, 64);
        let folder = dir.path().join("ledger");
        let loader = gated(&urls, clusters()).ledger(Ledger::open(&folder, None).unwrap()).build().unwrap();
        epoch(&loader);
        let text = |clusters: &Arc<Clusters>, gate: Option<f64>| {
            let policy = Policy {
                selection: Selection { gate: gate.map(Gate::top), ..Selection::default() },
                ..Policy::default()
            };
            audit(&AuditJob { seeds: 200, ..AuditJob::new(&folder, policy) }, Some(clusters), &mut |_, _| {
                Ok(())
            })
            .unwrap()
            .to_string()
        };
        let noise = text(&with_worth(NOISE), Some(0.5));
        let lines: Vec<&str> = noise.lines().collect();
        assert!(
            lines[0].starts_with("audited: the sampling")
                && lines[0].contains("not audited: what the gate is worth")
        );
        assert!(
            lines[1].starts_with("gate: AUC 0.530")
                && lines[2].starts_with("warning: the gate is close to chance")
        );
        assert!(lines[3].starts_with("windows looked at"), "{noise}");
        assert!(!text(&with_worth(GOOD), Some(0.5)).contains("warning"));
        assert!(text(&clusters(), Some(0.5)).contains("not measured"));
        assert!(text(&with_worth(NOISE), None).starts_with(
            "audited: the sampling, whether samples are drawn as the policy says; there is no gate\n"
        ));
    }
}
