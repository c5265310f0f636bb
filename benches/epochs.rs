//! What an epoch costs, beside what it must: the second one with a ledger against shards that hold only
//! the kept samples, the first one against its own slowest stage.
//!
//!     make bench-epochs     # cargo bench -p tldr-captioner --bench epochs -- [--data DIR]
//!
//! The captioner is a stub, whose signals follow from the caption, so that the loader itself is what is
//! measured; its encoder takes `--encode` microseconds a sample (0 by default) without using a core, as
//! one on a GPU would. `--captioner small` or `vit-s` (12 layers of 384) takes a captioner of that size, of random
//! weights and fitted, which works on one of the cores. Rounds are interleaved; medians of
//! the ratios within a round. As a test, one small round.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod photographs;

use std::collections::HashSet;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Array2, Array3, ArrayView4};
use tldr_loader::Result;
use tldr_loader::cluster::{AlignmentNorm, AlignmentTable, Clusters, GATE_STEPS};
use tldr_loader::config::{Gate, Mode};
use tldr_loader::hash;
use tldr_loader::loader::{Loader, Stats};
use tldr_loader::model::{Scorer, Signals};
use tldr_loader::shard::{ReadOptions, ShardReader, ShardWriter, list};

const CLUSTERS: usize = 64;
const THREADS: usize = 2;
const BATCH: usize = 64;

/// Signals out of the caption's hash, after a while.
struct Stub {
    per_sample: Duration,
}

impl Scorer for Stub {
    fn dim(&self) -> usize {
        1
    }
    fn preview_size(&self) -> usize {
        64
    }
    fn batch_size(&self) -> usize {
        BATCH
    }
    fn clusters(&self) -> usize {
        CLUSTERS
    }
    fn fingerprint(&self) -> u64 {
        1
    }
    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        black_box(previews);
        std::thread::sleep(self.per_sample * captions.len() as u32);
        let hashes: Vec<u64> = captions.iter().map(|caption| hash::hash_str(caption)).collect();
        Ok(Signals {
            cluster: hashes.iter().map(|hash| (hash % CLUSTERS as u64) as u32).collect(),
            alignment: hashes.iter().map(|&hash| hash::unit(hash) as f32).collect(),
            embedding: Array2::ones((captions.len(), 1)),
            semantic_hash: vec![[0; 4]; captions.len()],
        })
    }
}

fn clusters() -> Arc<Clusters> {
    let share = 1.0 / CLUSTERS as f64;
    Arc::new(Clusters {
        idf: vec![1.0],
        centroids: Array2::ones((CLUSTERS, 1)),
        runs: (0..CLUSTERS as u32).collect(),
        shares: vec![share; CLUSTERS],
        gated: Array2::from_shape_fn((CLUSTERS, GATE_STEPS), |(_, i)| {
            share * (1.0 - i as f64 / GATE_STEPS as f64)
        }),
        alignment: AlignmentTable {
            norm: AlignmentNorm::Sum,
            length_edges: vec![],
            run_groups: vec![0; CLUSTERS],
            knots: Array3::from_shape_fn((1, 1, 2), |(_, _, k)| k as f32),
        },
        points: 100_000,
        raw_index: None,
        discriminant: None,
        worth: None,
        trained_on: vec![],
    })
}

/// A captioner of random weights: what it costs does not depend on them.
mod real {
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use ndarray::Array4;
    use tch::Device;
    use tldr_captioner::jobs::{FitJob, fit};
    use tldr_captioner::{Captioner, CaptionerConfig, VisionConfig};
    use tldr_loader::model::Scorer;
    use tldr_loader::text::Tokenizer;

    /// Makes it and fits it to a corpus; says where it is.
    pub(super) fn captioner(name: &str, corpus: &Path, folder: &Path) -> PathBuf {
        let words: Vec<String> = (0..500).map(|i| format!("word{i} and word{}", i * 7 % 500)).collect();
        let tokenizer = Tokenizer::train(words.iter().map(String::as_str), 1000).unwrap();
        let mut config = CaptionerConfig::small(tokenizer.vocab_size());
        match name {
            "small" => {}
            "vit-s" => {
                let vision = VisionConfig { dim: 384, layers: 12, heads: 6, mlp: 1536, ..config.vision };
                config = CaptionerConfig { preview_size: 112, patch_size: 16, vision, ..config };
            }
            other => panic!("unknown captioner {other}: small or vit-s"),
        }
        let dir = folder.join("captioner");
        Captioner::new(config, tokenizer, Device::Cpu, 0).unwrap().save(&dir).unwrap();
        let job = FitJob { samples: Some(1000), ..FitJob::new(vec![corpus.display().to_string()], &dir) };
        fit(&job, &mut |_, _| Ok(())).unwrap();
        dir
    }

    pub(super) fn load(dir: &Path) -> Captioner {
        Captioner::load(dir, Device::Cpu).unwrap()
    }

    /// Seconds to encode a sample, with nothing else at work.
    pub(super) fn alone(dir: &Path) -> f64 {
        let mut captioner = load(dir);
        let (batch, size) = (captioner.batch_size(), captioner.preview_size());
        let previews = Array4::from_shape_fn((batch, 3, size, size), |(b, c, y, x)| (b * c + y * x) as u8);
        let captions = vec!["word1 and word7 and word49 and word343 and word401"; batch];
        captioner.signals(previews.view(), &captions).unwrap();
        let begun = Instant::now();
        let batches = 5;
        for _ in 0..batches {
            captioner.signals(previews.view(), &captions).unwrap();
        }
        begun.elapsed().as_secs_f64() / (batches * batch) as f64
    }
}

struct Options {
    data: Option<PathBuf>,
    captioner: Option<String>,
    samples: usize,
    rounds: usize,
    encode: u64,
}

fn options() -> Options {
    // `cargo test --benches` says nothing, and wants one quick round.
    let mut options = Options { data: None, captioner: None, samples: 400, rounds: 1, encode: 0 };
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.sort_by_key(|argument| argument != "--bench");
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--bench" => (options.samples, options.rounds) = (8000, 5),
            "--captioner" => options.captioner = arguments.next(),
            "--data" => options.data = arguments.next().map(Into::into),
            "--samples" => options.samples = arguments.next().unwrap().parse().unwrap(),
            "--rounds" => options.rounds = arguments.next().unwrap().parse().unwrap(),
            "--encode" => options.encode = arguments.next().unwrap().parse().unwrap(),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// Shards of at least `samples` samples: those of `source`, over and over, with captions of their own.
fn corpus(source: &Path, samples: usize, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let shards = list(&[source.display().to_string()], None, &Default::default()).unwrap();
    let mut written = 0;
    for shard in 0.. {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for from in &shards {
            let mut reader = ShardReader::open(from, &ReadOptions::default()).unwrap();
            while let Some(group) = reader.next_group().unwrap() {
                let Ok(sample) = group else { continue };
                let caption = format!("{} ({written})", sample.caption);
                let json = sample.json.unwrap_or_default();
                let members: [(&str, &[u8]); 3] =
                    [("jpg", &sample.image), ("txt", caption.as_bytes()), ("json", &json)];
                writer.write(&format!("{written:07}"), &members).unwrap();
                written += 1;
            }
        }
        writer.finish().unwrap();
        if written >= samples {
            return;
        }
    }
}

/// Shards that hold those of the corpus whose key is in `keys`, and no others.
fn kept_samples(corpus: &Path, keys: &HashSet<String>, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let shards = list(&[corpus.display().to_string()], None, &Default::default()).unwrap();
    for (number, shard) in shards.iter().enumerate() {
        let mut writer = ShardWriter::create(folder.join(format!("{number:05}.tar"))).unwrap();
        let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
        while let Some(group) = reader.next_group().unwrap() {
            if let Ok(sample) = group
                && keys.contains(&*sample.key)
            {
                let json = sample.json.unwrap_or_default();
                let members: [(&str, &[u8]); 3] =
                    [("jpg", &sample.image), ("txt", sample.caption.as_bytes()), ("json", &json)];
                writer.write(&sample.key, &members).unwrap();
            }
        }
        writer.finish().unwrap();
    }
}

fn builder(folder: &Path) -> tldr_loader::loader::LoaderBuilder {
    Loader::builder(folder.display().to_string())
        .batch_size(BATCH)
        .image_size(224)
        .threads(THREADS)
        .window(512)
        .rank(0)
        .world_size(1)
}

/// An epoch: its samples a second, its keys, its statistics.
fn epoch(loader: &Loader) -> (f64, HashSet<String>, Stats, f64) {
    let mut keys = HashSet::new();
    let begun = Instant::now();
    let mut samples = 0;
    for batch in loader.iter().unwrap() {
        let batch = black_box(batch.unwrap());
        samples += batch.len();
        keys.extend(batch.keys.iter().map(ToString::to_string));
    }
    let seconds = begun.elapsed().as_secs_f64();
    (samples as f64 / seconds, keys, loader.stats(), seconds)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Folder of the captioner that is asked for, if any.
fn fitted(options: &Options, corpus: &Path, folder: &Path) -> Option<PathBuf> {
    let name = options.captioner.as_ref()?;
    Some(real::captioner(name, corpus, folder))
}

/// The loader with the captioner, or the stub, and the seconds that encoding a sample takes it alone.
fn with_captioner(
    builder: tldr_loader::loader::LoaderBuilder,
    options: &Options,
    captioner: Option<&Path>,
) -> (tldr_loader::loader::LoaderBuilder, f64) {
    if let Some(dir) = captioner {
        let alone = real::alone(dir);
        let loaded = real::load(dir);
        let clusters = Arc::clone(loaded.clusters().unwrap());
        // In one lane: of a short corpus most windows lie in two, and are encoded by both.
        return (builder.lanes(1).captioner(loaded, clusters), alone);
    }
    assert!(captioner.is_none());
    let per_sample = Duration::from_micros(options.encode);
    (builder.captioner(Stub { per_sample }, clusters()), per_sample.as_secs_f64())
}

fn main() {
    let options = options();
    let scratch = tempfile::tempdir().unwrap();
    let source = options.data.clone().unwrap_or_else(|| photographs::shard(scratch.path(), 40));
    let (whole, reduced) = (scratch.path().join("whole"), scratch.path().join("reduced"));
    corpus(&source, options.samples, &whole);
    let captioner = fitted(&options, &whole, scratch.path());
    let (mut seconds, mut overlap, mut alone_ratio, mut second) = (vec![], vec![], vec![], vec![]);
    for round in 0..options.rounds {
        let (with, alone) = with_captioner(builder(&whole), &options, captioner.as_deref());
        let loader = with.keep_ratio(0.25).gate(Gate::top(0.5)).build().unwrap();
        let (_, keys, first, wall) = epoch(&loader);
        let busy = |name: &str| first.seconds.get(name).copied().unwrap_or(0.0);
        let pixels = busy("read") + busy("preview") + busy("select") + busy("example");
        let read = first.counts.read as f64;
        // Stages that share the cores take what they take together; a stub's encoder has a device of its own.
        let on_cores = if captioner.is_some() { alone * read } else { 0.0 };
        let shared = (pixels + on_cores) / THREADS as f64;
        let slowest = (alone * read).max(pixels / THREADS as f64);
        seconds.push(wall);
        overlap.push(wall / shared.max(slowest));
        alone_ratio.push(wall / slowest);
        if round == 0 {
            kept_samples(&whole, &keys, &reduced);
            println!("stages of the first epoch, in seconds: {:?}", first.seconds);
        }
        // The same epoch again, now known: the same samples are yielded, in the same order.
        loader.set_epoch(0);
        let (with_ledger, again, stats, _) = epoch(&loader);
        assert_eq!((again, stats.encoded), (keys, 0), "the same kept samples, and no captioner");
        let (alone, ..) = epoch(&builder(&reduced).mode(Mode::Full).build().unwrap());
        second.push(with_ledger / alone);
    }
    println!(
        "{} samples, {} rounds, {}: first epoch {:.2} s, {:.2} times its slowest stage alone, {:.2} times what its \
         stages take of {THREADS} cores; second epoch at {:.2} of the speed of shards that hold only the kept_samples",
        options.samples,
        options.rounds,
        options.captioner.clone().unwrap_or(format!("encoder {} us a sample", options.encode)),
        median(seconds),
        median(alone_ratio),
        median(overlap),
        median(second)
    );
}
