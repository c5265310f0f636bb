//! Promise: a sample's signals are the same bits wherever it stands in a batch and whatever stands beside it,
//! and looking up the nearest codes takes no more memory than one matrix of scores.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::wait;
use ndarray::{Array2, Array3, Array4, Axis};
use tch::{Cuda, Device};
use tldr_captioner::{Captioner, CaptionerConfig, CodebookConfig, CodebookUpdate, LearnedBy, Precision};
use tldr_loader::cluster::Discriminant;
use tldr_loader::cluster::alignment::{AlignmentNorm, AlignmentTable};
use tldr_loader::cluster::clusters::{Clusters, GATE_STEPS};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::model::{Scorer, Signals};
use tldr_loader::text::Tokenizer;

fn tokenizer() -> Tokenizer {
    let words: Vec<String> = (0..60).map(|i| format!("word{i} and word{}", i * 7 % 60)).collect();
    Tokenizer::train(words.iter().map(String::as_str), 200).unwrap()
}

/// Clusters for `codes` codes.
fn clusters(codes: usize) -> Clusters {
    let mut rng = Rng::new(3, Purpose::Fit, 0);
    Clusters {
        idf: (0..codes).map(|_| rng.range(0.5, 2.0) as f32).collect(),
        centroids: Array2::from_shape_fn((9, codes), |_| rng.unit() as f32),
        runs: (0..9).map(|c| c / 3).collect(),
        shares: vec![1.0 / 9.0; 9],
        gated: Array2::from_elem((9, GATE_STEPS), 1.0 / 9.0),
        alignment: AlignmentTable {
            norm: AlignmentNorm::Sum,
            length_edges: vec![],
            run_groups: vec![0; 3],
            knots: Array3::from_shape_fn((1, 1, 101), |(_, _, k)| k as f32 - 50.0),
        },
        points: 1000,
        raw_index: None,
        discriminant: None,
        worth: None,
        trained_on: vec![],
    }
}

/// A discriminant for previews of 6 x 6 patches: nine cells of 32 values, and 12 x 12 pixels.
fn discriminant() -> Discriminant {
    let mut rng = Rng::new(8, Purpose::Fit, 1);
    let features = 9 * 32 + 3 * 12 * 12;
    Discriminant {
        mean: (0..features).map(|_| rng.range(-0.5, 0.5) as f32).collect(),
        weights: Array2::from_shape_fn((features, 40), |_| rng.normal() as f32),
    }
}

/// A captioner of 32 rows, large enough for every kernel to have a choice.
fn captioner(device: Device) -> Captioner {
    let tokenizer = tokenizer();
    let mut config = CaptionerConfig::small(tokenizer.vocab_size());
    config.batch_size = 32;
    let codes = config.codes();
    let mut captioner = Captioner::new(config, tokenizer, device, 5).unwrap();
    let clusters = Clusters { discriminant: Some(discriminant()), ..clusters(codes) };
    captioner.set_clusters(Some(Arc::new(clusters))).unwrap();
    captioner
}

fn samples(count: usize, size: usize, seed: u64) -> (Array4<u8>, Vec<String>) {
    let mut rng = Rng::new(seed, Purpose::Synth, 3);
    let images = Array4::from_shape_fn((count, 3, size, size), |_| rng.below(256) as u8);
    let caption = |rng: &mut Rng| {
        let words: Vec<String> = (0..rng.below(9)).map(|_| format!("word{}", rng.below(60))).collect();
        words.join(" ")
    };
    (images, (0..count).map(|_| caption(&mut rng)).collect())
}

fn refs(captions: &[String]) -> Vec<&str> {
    captions.iter().map(String::as_str).collect()
}

/// The bits of one row: cluster, alignment, embedding, semantic hash.
type Bits = (u32, u32, Vec<u32>, [u64; 4]);

fn row(signals: &Signals, row: usize) -> Bits {
    (
        signals.cluster[row],
        signals.alignment[row].to_bits(),
        signals.embedding.row(row).iter().map(|v| v.to_bits()).collect(),
        signals.semantic_hash[row],
    )
}

/// Encodes 8 samples in several places among several others, and compares bits.
fn check(captioner: &mut Captioner) {
    let size = captioner.preview_size();
    let (own, captions) = samples(8, size, 1);
    let mut expected: Vec<Option<Bits>> = vec![None; 8];
    for round in 0..6u64 {
        let (mut images, mut texts) = match round {
            // Blank neighbours, as a window that ends has them.
            0 => (Array4::zeros((32, 3, size, size)), vec![String::new(); 32]),
            _ => samples(32, size, 10 + round),
        };
        let mut places: Vec<usize> = (0..32).collect();
        Rng::new(round, Purpose::Synth, 9).shuffle(&mut places);
        for (sample, &place) in places[..8].iter().enumerate() {
            images.index_axis_mut(Axis(0), place).assign(&own.index_axis(Axis(0), sample));
            texts[place].clone_from(&captions[sample]);
        }
        let signals = captioner.signals(images.view(), &refs(&texts)).unwrap();
        for (sample, &place) in places[..8].iter().enumerate() {
            let found = row(&signals, place);
            let first = expected[sample].get_or_insert_with(|| found.clone());
            assert_eq!(*first, found, "sample {sample} at {place}, round {round}");
        }
    }
    let distinct: std::collections::BTreeSet<_> = expected.iter().flatten().map(|e| e.1).collect();
    assert!(distinct.len() > 5, "the samples differ: {distinct:?}");
}

#[test]
fn signals_are_bit_identical_at_every_place_on_a_cpu() {
    let mut captioner = captioner(Device::Cpu);
    check(&mut captioner);
    captioner.set_precision(Precision::Bfloat16).unwrap();
    check(&mut captioner);
}

#[test]
fn signals_are_bit_identical_at_every_place_on_a_gpu() {
    if !Cuda::is_available() {
        eprintln!("skipped: libtorch sees no CUDA device");
        return;
    }
    // What open_clip's training switches on in the same process; libtorch reads the first as it starts.
    const TF32: &str = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE";
    if std::env::var_os(TF32).is_none() {
        let name = "signals_are_bit_identical_at_every_place_on_a_gpu";
        wait::passes(wait::test(module_path!(), name).env(TF32, "1"));
        return;
    }
    Cuda::cudnn_set_benchmark(true);
    let mut captioner = captioner(Device::Cuda(0));
    for precision in [Precision::Bfloat16, Precision::Float32] {
        captioner.set_precision(precision).unwrap();
        check(&mut captioner);
    }
}

/// Most bytes that were resident since they were last reset; says so where the system does not tell.
#[cfg(target_os = "linux")]
fn peak_after(work: impl FnOnce()) -> Option<u64> {
    let read = |field: &str| -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with(field))?;
        Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
    };
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = read("VmRSS:")?;
    work();
    let peak = read("VmHWM:")?;
    if !reset {
        eprintln!("skipped: the system does not reset the peak of resident memory");
        return None;
    }
    Some(peak.saturating_sub(before))
}

#[cfg(target_os = "linux")]
#[test]
fn the_nearest_of_3000_codes_takes_one_matrix_of_scores() {
    if !wait::alone(module_path!(), "the_nearest_of_3000_codes_takes_one_matrix_of_scores") {
        return;
    }
    let tokenizer = tokenizer();
    let mut config = CaptionerConfig::tiny(tokenizer.vocab_size());
    (config.preview_size, config.patch_size, config.batch_size) = (224, 16, 64);
    config.codebook = Some(CodebookConfig {
        codes: 3000,
        code_dim: 8,
        commitment: 0.25,
        decay: 0.9,
        learned_by: LearnedBy::Training,
        update: CodebookUpdate::Ema,
    });
    let mut captioner = Captioner::new(config, tokenizer, Device::Cpu, 1).unwrap();
    let (images, captions) = samples(64, 224, 2);
    let scores = 64 * 196 * 3000 * 4;
    let encode = |captioner: &mut Captioner| {
        captioner.encode_raw(images.view(), &refs(&captions)).unwrap();
    };
    let Some(grown) = peak_after(|| encode(&mut captioner)) else { return };
    // Everything else of this small model is below 100 MB; a one-hot matrix is as large as the scores at
    // 4 bytes an entry, and torch's own, of i64, twice that.
    let bound = scores + 100_000_000;
    assert!(grown > scores / 2 && grown < bound, "{grown} bytes for scores of {scores}");
}
