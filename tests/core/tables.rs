//! Promise: scores of a table are as good as scores in the shards, whatever it is joined by, in `where`, gate, plan, audit,
//! export and batch; with them nothing needs a captioner, and a plan reads no image. Captions of tables are sources beside
//! the original, and leave what is recorded valid.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::support::{self, StubCaptioner, builder, clusters, epoch, eval, full, png};
use serde_json::{Value, json};
use tldr_loader::SampleId;
use tldr_loader::config::{Gate, Priority, Selection};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::jobs::{
    AuditJob, DecisionsJob, ExportBy, ExportJob, PlanJob, audit, export, plan_by_scores,
};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::{Loader, LoaderBuilder};
use tldr_loader::select::Policy;
use tldr_loader::shard::{CaptionChoice, ShardWriter};
use tldr_loader::text::Fuse;

const SHARDS: usize = 4;
const PER_SHARD: usize = 250;
const SAMPLES: usize = SHARDS * PER_SHARD;

fn key(number: usize) -> String {
    format!("{number:05}")
}

fn uid(number: usize) -> String {
    format!("{:016x}{number:016x}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The scores of each sample: one has none now and then.
fn scores() -> Vec<(Option<f64>, Option<f64>)> {
    let mut rng = Rng::new(3, Purpose::Synth, 0);
    let mut draw = || {
        let score = (rng.unit() * 1e4).round() / 1e4;
        (rng.below(20) > 0).then_some(score)
    };
    (0..SAMPLES).map(|_| (draw(), draw())).collect()
}

/// Shards whose json has the uid, a class, and under other names the scores that tables have; with `picture` as every image.
fn corpus(folder: &Path, picture: Option<&[u8]>) -> String {
    let scores = scores();
    for shard in 0..SHARDS {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for (number, (clip, other)) in scores.iter().enumerate().skip(shard * PER_SHARD).take(PER_SHARD) {
            let own = json!({"uid": uid(number), "own_clip": clip, "own_other": other, "class": number % 7})
                .to_string();
            let colour = png([(number % 256) as u8, (number / 3 % 256) as u8, 77]);
            let caption = format!("picture number {number}");
            let image = picture.unwrap_or(&colour);
            writer
                .write(&key(number), &[("png", image), ("txt", caption.as_bytes()), ("json", own.as_bytes())])
                .unwrap();
        }
        writer.finish().unwrap();
    }
    support::pattern(folder, SHARDS)
}

/// The same table by each name that samples have, backwards.
fn tables(folder: &Path) -> Vec<PathBuf> {
    let id = |number: usize| {
        let hash = SampleId::shard_hash("test", &format!("{:05}.tar", number / PER_SHARD));
        SampleId::new(hash, &key(number)).0 as i64
    };
    let names: [(&str, &dyn Fn(usize) -> Value); 3] = [
        ("key", &|number| json!({"key": key(number)})),
        ("uid", &|number| json!({"uid": uid(number).to_uppercase()})),
        ("id", &|number| json!({"source": "s", "shard": "t", "id": id(number)})),
    ];
    let write = |(name, of): &(&str, &dyn Fn(usize) -> Value)| {
        let row = |(number, (clip, other)): (usize, (Option<f64>, Option<f64>))| {
            let mut row = of(number);
            row["clip"] = json!(clip);
            row["other"] = json!(other);
            row.to_string() + "\n"
        };
        let lines: String = scores().into_iter().enumerate().rev().map(row).collect();
        let path = folder.join(format!("by {name}.jsonl"));
        fs::write(&path, lines).unwrap();
        path
    };
    names.iter().map(write).collect()
}

fn keys(loader: &Loader) -> BTreeSet<String> {
    epoch(loader).into_iter().flatten().map(|row| row.key).collect()
}

fn gated(urls: &str) -> LoaderBuilder {
    builder(urls).lanes(1).batch_size(1).keep_ratio(0.25)
}

#[test]
fn conditions_and_gates_know_columns_as_they_know_fields() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), None);
    let expected =
        eval(&urls).filter("own_clip >= 0.7 and not own_other < 0.2".parse().unwrap()).build().unwrap();
    let expected = keys(&expected);
    assert!(expected.len() > 100, "{}", expected.len());
    type Set = fn(LoaderBuilder, &str) -> LoaderBuilder;
    let policies: [Set; 3] = [
        |b, prefix| b.gate(Gate::top(0.5).by(format!("{prefix}clip"))),
        |b, prefix| b.gate(Gate::at_least(0.4).by(format!("{prefix}other"))),
        |b, prefix| b.gate(Gate::OFF.by(format!("{prefix}clip"))).priority(Priority::Score),
    ];
    for table in tables(folder.path()) {
        let scored = |builder: LoaderBuilder| builder.scores(vec![table.clone()]);
        let filter = "clip >= 0.7 and not other < 0.2".parse().unwrap();
        let loader = scored(eval(&urls)).filter(filter).build().unwrap();
        // They are counted before they are read.
        assert_eq!(
            (keys(&loader), loader.num_samples()),
            (expected.clone(), expected.len() as u64),
            "{table:?}"
        );
        for (number, set) in policies.iter().enumerate() {
            let by_field = keys(&set(gated(&urls), "own_").build().unwrap());
            let loader = set(scored(gated(&urls)), "").build().unwrap();
            assert_eq!(keys(&loader), by_field, "{number}: {table:?}");
            // The second pass over the ledger, and one of another process.
            loader.set_epoch(0);
            assert_eq!(keys(&loader), by_field, "{number}: {table:?}");
        }
    }
}

#[test]
fn another_table_is_another_policy_and_leaves_signals_valid() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), None);
    let table = tables(folder.path()).remove(1);
    let ledger = folder.path().join("ledger");
    let stub = StubCaptioner::new();
    let encoded = stub.encoded.clone();
    let make = |stub: StubCaptioner| {
        let ledger = Ledger::open(&ledger, None).unwrap();
        gated(&urls).captioner(stub, clusters()).ledger(ledger).keep_ratio(0.15)
    };
    keys(&make(stub).gate(Gate::OFF).build().unwrap());
    assert_eq!(encoded.load(Ordering::Relaxed), SAMPLES);
    let by_table =
        || make(StubCaptioner::new()).scores(vec![table.clone()]).gate(Gate::at_least(0.8).by("clip"));
    let loader = by_table().build().unwrap();
    let (first, state) = (keys(&loader), loader.state());
    assert_eq!(loader.stats().encoded, 0);
    let passes = |number: &usize| scores()[*number].0.is_some_and(|clip| clip >= 0.8);
    let number = |key: &String| key.parse::<usize>().unwrap();
    assert!(!first.is_empty() && first.iter().map(number).all(|n| passes(&n)));
    // The same names with other numbers: decisions follow, and a state of the other table is refused.
    let text = fs::read_to_string(&table).unwrap();
    let turned: String = text
        .lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row["clip"] = row["clip"].as_f64().map_or(Value::Null, |clip| json!(1.0 - clip));
            row.to_string() + "\n"
        })
        .collect();
    fs::write(&table, turned).unwrap();
    let loader = by_table().build().unwrap();
    let error = loader.load_state(&state).unwrap_err().to_string();
    assert!(error.contains("scores of the gate: this loader has content"), "{error}");
    let second = keys(&loader);
    assert_eq!(loader.stats().encoded, 0);
    assert!(!second.is_empty() && second.is_disjoint(&first));
}

#[test]
fn batches_carry_scores_and_fields() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), None);
    for table in tables(folder.path()) {
        for make in [eval as fn(&str) -> LoaderBuilder, full, gated] {
            let fields = ["class", "own_clip", "clip", "nothing"].map(str::to_owned).to_vec();
            let loader = make(&urls).scores(vec![table.clone()]).fields(fields).build().unwrap();
            let scores = scores();
            let mut seen = 0;
            for batch in loader.iter().unwrap() {
                let batch = batch.unwrap();
                assert_eq!(batch.scores.keys().map(|name| &**name).collect::<Vec<_>>(), ["clip", "other"]);
                for (row, key) in batch.keys.iter().enumerate() {
                    let number: usize = key.parse().unwrap();
                    let (clip, other) = scores[number];
                    for (column, expected) in [("clip", clip), ("other", other)] {
                        let found = batch.scores[column][row];
                        let expected = expected.map(|score| score as f32);
                        assert_eq!((!found.is_nan()).then_some(found), expected, "{column} of {key}");
                    }
                    let field = |name: &str| batch.fields[name][row].clone();
                    assert_eq!(field("class"), json!(number % 7));
                    assert_eq!((field("own_clip"), field("clip")), (json!(clip), json!(clip)));
                    assert_eq!(field("nothing"), Value::Null);
                    seen += 1;
                }
            }
            assert!(seen > 100, "{seen}");
        }
    }
    let plain = eval(&urls).build().unwrap();
    let batch = plain.iter().unwrap().next().unwrap().unwrap();
    assert!(batch.scores.is_empty() && batch.fields.is_empty());
}

#[test]
fn sources_may_have_tables_with_other_columns() {
    let folder = tempfile::tempdir().unwrap();
    let urls = ["a", "b"].map(|name| {
        fs::create_dir(folder.path().join(name)).unwrap();
        corpus(&folder.path().join(name), None)
    });
    let write = |name: &str, column: &str| {
        let path = folder.path().join(name);
        let row = |number| json!({"key": key(number), column: number}).to_string() + "\n";
        fs::write(&path, (0..SAMPLES).map(row).collect::<String>()).unwrap();
        path
    };
    let tables = [write("a.jsonl", "z"), write("b.jsonl", "a")];
    let mut sources = vec![];
    for (urls, table) in urls.iter().zip(tables) {
        sources.push(tldr_loader::config::Source {
            scores: vec![table],
            ..tldr_loader::config::Source::new(vec![urls.clone()])
        });
    }
    let config = tldr_loader::config::Config { sources, ..tldr_loader::config::Config::default() };
    let loader =
        Loader::from_config(config).mode(tldr_loader::config::Mode::Eval).image_size(8).build().unwrap();
    let mut counts = BTreeMap::new();
    for batch in loader.iter().unwrap() {
        let batch = batch.unwrap();
        for (row, key) in batch.keys.iter().enumerate() {
            let number: f32 = key.parse().unwrap();
            let (a, z) = (batch.scores["a"][row], batch.scores["z"][row]);
            assert!((a == number && z.is_nan()) || (z == number && a.is_nan()), "{key}: {a} {z}");
            *counts.entry(a.is_nan()).or_insert(0) += 1;
        }
    }
    assert_eq!(counts, BTreeMap::from([(false, SAMPLES), (true, SAMPLES)]));
}

mod without_a_captioner {
    use super::*;

    fn job(urls: &str, ledger: PathBuf, table: &Path, gate: Gate) -> PlanJob {
        let selection = Selection { gate: Some(gate), ..Selection::default() };
        let mut job = support::plan_job(urls, ledger, Policy::new(selection, 7));
        job.config.sources[0].scores = vec![table.to_owned()];
        job
    }

    #[test]
    fn a_plan_is_exact_reads_no_image_and_is_exported_and_audited() {
        let folder = tempfile::tempdir().unwrap();
        // No decoder would take these.
        let urls = corpus(folder.path(), Some(b"no image"));
        let values = scores();
        for table in tables(folder.path()) {
            let name = table.file_stem().unwrap().to_str().unwrap().to_owned();
            let ledger = folder.path().join(format!("ledger {name}"));
            let gate = Gate::at_least(0.5).by("clip");
            let job = job(&urls, ledger.clone(), &table, gate.clone());
            let made = plan_by_scores(&job, &mut |_, _, _| Ok(())).unwrap();
            assert_eq!((made.encoded, made.near, made.recorded), (0, None, SHARDS));
            let file = made.plan.unwrap();
            let passing =
                values.iter().filter(|(clip, _)| clip.is_some_and(|clip| clip >= 0.5)).count() as u64;
            let counts = file.plan.counts();
            assert_eq!((counts.candidates, counts.gated), (passing, SAMPLES as u64 - passing), "{name}");
            // A quarter of the readable ones, exactly.
            assert_eq!(counts.kept, SAMPLES as u64 / 4, "{name}");
            let again = plan_by_scores(&job, &mut |_, _, _| Ok(())).unwrap();
            assert_eq!((again.recorded, again.plan.as_ref()), (0, Some(&file)));

            let out = folder.path().join("out.txt");
            let export_job = |by| ExportJob::new(DecisionsJob::new(&ledger, by), &out);
            let path = folder.path().join("plan.parquet");
            file.save(&path).unwrap();
            export(&export_job(ExportBy::Plan(path)), &mut |_, _| Ok(())).unwrap();
            let kept: BTreeSet<String> =
                fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect();
            assert_eq!(kept.len(), SAMPLES / 4);
            let passes =
                |key: &String| values[key.parse::<usize>().unwrap()].0.is_some_and(|clip| clip >= 0.5);
            assert!(kept.iter().all(passes), "{name}");

            // What a loader keeps window by window is what an export of the policy says.
            let policy = job.policy(false).unwrap();
            let by = ExportBy::Policy(Box::new(policy.clone()), None);
            let exported = export(&export_job(by), &mut |_, _| Ok(())).unwrap().samples;
            assert!((exported as i64 - 250).abs() <= 8, "{exported}");
            let found =
                audit(&AuditJob { seeds: 200, ..AuditJob::new(&ledger, policy) }, None, &mut |_, _| Ok(()))
                    .unwrap();
            assert_eq!(found.broken().count(), 0, "{found}");
            assert!(found.to_string().contains("by the scores"), "{found}");
        }
    }

    #[test]
    fn a_loader_keeps_what_the_plan_says() {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), None);
        let table = tables(folder.path()).remove(0);
        let gate = Gate::top(0.5).by("clip");
        let ledger = folder.path().join("ledger");
        let job = job(&urls, ledger.clone(), &table, gate);
        let file = plan_by_scores(&job, &mut |_, _, _| Ok(())).unwrap().plan.unwrap();
        let path = folder.path().join("plan.parquet");
        file.save(&path).unwrap();
        let planned: BTreeSet<u64> = file.plan.kept().map(|kept| kept.id.0).collect();
        // With the ledger and without, with the table and without.
        for with_ledger in [true, false] {
            for with_table in [true, false] {
                let mut loader = builder(&urls).plan(&path).lanes(1).batch_size(1);
                if with_ledger {
                    loader = loader.ledger(Ledger::open(&ledger, None).unwrap());
                }
                if with_table {
                    loader = loader.scores(vec![table.clone()]);
                }
                let loader = loader.build().unwrap();
                let ids: BTreeSet<u64> = epoch(&loader).into_iter().flatten().map(|row| row.id).collect();
                assert_eq!(ids, planned, "{with_ledger} {with_table}");
            }
        }
    }

    #[test]
    fn what_needs_a_captioner_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), None);
        let table = tables(folder.path()).remove(0);
        for (set, says) in [
            ((|s| s.gate = Some(Gate::top(0.5))) as fn(&mut Selection), "invalid gate=top(0.5)"),
            (|s| s.dedup = Some(0.95), "invalid dedup=0.95"),
            (|s| s.quota = Some(tldr_loader::config::Quota::Proportional), "invalid quota=proportional"),
        ] {
            let mut job = job(&urls, folder.path().join("ledger"), &table, Gate::top(0.5).by("clip"));
            set(&mut job.config.selection);
            job.config.selection.keep_ratio = Some(0.25.into());
            let error = plan_by_scores(&job, &mut |_, _, _| Ok(())).unwrap_err().to_string();
            assert!(error.starts_with(says) && error.contains("a captioner directory"), "{error}");
        }
        let job = job(&urls, folder.path().join("ledger"), &table, Gate::top(0.5).by("clap"));
        let error = plan_by_scores(&job, &mut |_, _, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("of a table of scores") && error.contains("by=clap"), "{error}");
    }
}

mod captions {
    use super::*;

    /// Captions of all but every tenth sample: a list of two.
    fn table(folder: &Path, name: &str, by: fn(usize) -> Value) -> PathBuf {
        let row = |number: usize| {
            let mut row = by(number);
            row["caption"] = json!([format!("{name} {number}"), format!("{name} again {number}")]);
            row.to_string() + "\n"
        };
        let path = folder.join(format!("{name}.jsonl"));
        fs::write(&path, (0..SAMPLES).filter(|number| number % 10 != 3).map(row).collect::<String>())
            .unwrap();
        path
    }

    fn made(folder: &Path) -> [(&'static str, PathBuf); 2] {
        [
            ("blip2", table(folder, "blip2", |number| json!({"uid": uid(number)}))),
            ("llava-1.6", table(folder, "llava", |number| json!({"key": key(number)}))),
        ]
    }

    /// Captions by number of a sample.
    fn found(loader: &Loader) -> BTreeMap<usize, String> {
        epoch(loader).into_iter().flatten().map(|row| (row.key.parse().unwrap(), row.caption)).collect()
    }

    fn fused(urls: &str, fuse: &str) -> LoaderBuilder {
        builder(urls).lanes(1).batch_size(1).keep_ratio(1.0).fuse(fuse.parse::<Fuse>().unwrap())
    }

    #[test]
    fn tables_are_sources_beside_the_original() {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), None);
        let [blip2, llava] = made(folder.path());
        let own = |number: usize| format!("picture number {number}");
        let of = |number: usize, text: String| if number % 10 == 3 { own(number) } else { text };
        type Expected<'a> = &'a dyn Fn(usize) -> String;
        let cases: [(&str, Expected<'_>); 2] = [
            ("blip2", &|n| of(n, format!("blip2 {n}"))),
            ("concat(9, other=blip2)", &|n| of(n, format!("{}; blip2 {n}", own(n)))),
        ];
        for (fuse, expected) in cases {
            let loader = fused(&urls, fuse).captions([blip2.clone()]).build().unwrap();
            let found = found(&loader);
            assert_eq!(found.len(), SAMPLES, "{fuse}");
            for (number, caption) in found {
                assert_eq!(caption, expected(number), "{fuse}");
            }
            let joined = loader.stats().captions["blip2"];
            assert_eq!((joined.by, joined.entries, joined.matched, joined.samples), ("uid", 900, 900, 1000));
        }
        // Of a list all, or one that is drawn; originals are what they were.
        let all = fused(&urls, "llava-1.6").captions([llava.clone()]).caption_choice(CaptionChoice::All);
        assert_eq!(found(&all.build().unwrap())[&7], "llava 7; llava again 7");
        let drawn = fused(&urls, "mix({llava-1.6: 0.5, blip2: 0.25, original: 0.25})")
            .captions([blip2, llava])
            .caption_choice(CaptionChoice::Random)
            .build()
            .unwrap();
        let mut seen: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..4 {
            for row in epoch(&drawn).iter().flatten() {
                let number: usize = row.key.parse().unwrap();
                let kind = row.caption.trim_end_matches(&format!(" {number}")).to_owned();
                assert!(number % 10 != 3 || kind == "picture number", "{}", row.caption);
                if number % 10 != 3 {
                    *seen.entry(kind).or_default() += 1.0 / 3600.0;
                }
            }
        }
        for (kind, share) in [
            ("llava", 0.25),
            ("llava again", 0.25),
            ("blip2", 0.125),
            ("blip2 again", 0.125),
            ("picture number", 0.25),
        ] {
            // 3,600 draws: 5 deviations of a binomial.
            let bound = 5.0 * (share * (1.0 - share) / 3600.0_f64).sqrt();
            assert!((seen[kind] - share).abs() < bound, "{seen:?}");
        }
    }

    #[test]
    fn what_is_drawn_is_the_same_in_any_lanes_from_any_state_with_a_ledger_and_without() {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), None);
        let tables = made(folder.path());
        let make = |lanes: usize| {
            let fuse = "mix({llava-1.6: 0.4, blip2: 0.3, original: 0.3})";
            fused(&urls, fuse).captions(tables.clone()).caption_choice(CaptionChoice::Random).lanes(lanes)
        };
        let one = make(1).build().unwrap();
        let first = found(&one);
        let four = found(&make(4).batch_size(4).threads(2).build().unwrap());
        assert!(four.len() > 900 && four.iter().all(|(number, caption)| first[number] == *caption));
        one.set_epoch(0);
        assert_eq!(found(&one), first, "by the ledger");
        assert_ne!(found(&one), first, "another epoch");
        // From the middle on.
        let loader = make(1).build().unwrap();
        let mut batches = loader.iter().unwrap();
        let before: Vec<String> =
            (&mut batches).take(333).map(|batch| batch.unwrap().captions.remove(0)).collect();
        let state = loader.state();
        let after: Vec<String> = batches.map(|batch| batch.unwrap().captions.remove(0)).collect();
        let resumed = make(1).build().unwrap();
        resumed.load_state(&state).unwrap();
        let rest: Vec<String> =
            resumed.iter().unwrap().map(|batch| batch.unwrap().captions.remove(0)).collect();
        assert_eq!((before.len(), rest), (333, after));
        let other = fused(&urls, "mix({llava-1.6: 0.4, blip2: 0.3, original: 0.3})");
        let other = other
            .captions([tables[1].clone(), ("blip2", tables[1].1.clone())])
            .caption_choice(CaptionChoice::Random);
        let error = other.lanes(1).build().unwrap().load_state(&state).unwrap_err().to_string();
        assert!(error.contains("captions of blip2: this loader has content"), "{error}");
    }

    #[test]
    fn recorded_signals_stay_valid_beside_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), None);
        let [blip2, _] = made(folder.path());
        let ledger = Ledger::new();
        let make =
            || builder(&urls).captioner(StubCaptioner::new(), clusters()).ledger(ledger.clone()).lanes(1);
        let plain = make().keep_ratio(0.5).build().unwrap();
        let kept = keys(&plain);
        assert_eq!(plain.stats().encoded, SAMPLES as u64);
        let loader = make().keep_ratio(0.5).fuse("coin(0.5, other=blip2)".parse().unwrap()).captions([blip2]);
        let loader = loader.build().unwrap();
        assert_eq!((keys(&loader), loader.stats().encoded), (kept, 0));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let urls = corpus(folder.path(), None);
        let [blip2, _] = made(folder.path());
        let error = |builder: LoaderBuilder| builder.build().err().unwrap().to_string();
        let found = error(fused(&urls, "blip").captions([blip2.clone()]).caption_key("blip2"));
        assert!(found.contains("invalid fuse=blip") && found.contains("captions has blip2"), "{found}");
        let found = error(fused(&urls, "mix({original: 0.5, blip2: 0.5})"));
        assert!(found.contains("\"blip2\" is none; captions has no table"), "{found}");
        for idle in [full(&urls), eval(&urls), fused(&urls, "original")] {
            let found = error(idle.captions([blip2.clone()]));
            assert!(
                found.starts_with("invalid captions=blip2: it has no effect with fuse=original"),
                "{found}"
            );
        }
        let found = error(fused(&urls, "coin(0.5)").captions([blip2.clone()]).caption_key("blip2"));
        assert!(found.contains("invalid fuse=coin(0.5)") && found.contains("captioner"), "{found}");
        let found = error(fused(&urls, "best(0.5, other=blip2)").captions([blip2]));
        assert!(found.contains("fuse=best(0.5, other=blip2)") && found.contains("captioner"), "{found}");
    }
}
