//! Promise: a BLIP for retrieval scores captions: as the judge of a loader, and as a captioner's alignment.
//!
//! What it computes is compared with transformers beside the code, in `src/captioner/parity.rs`.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array4;
use tch::Device;
use tldr_captioner::jobs::{FitJob, fit};
use tldr_captioner::{BlipKind, BlipOptions, Captioner, Decoding, GenerationConfig, Matcher, Precision};
use tldr_loader::Loader;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::model::{PreviewFilter, Scorer};
use tldr_synth::{SynthOptions, write_corpus};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn options() -> BlipOptions {
    let generation = GenerationConfig { decoding: Decoding::Greedy, ..GenerationConfig::greedy(4, 2, 8) };
    BlipOptions { batch_size: 8, generation, ..BlipOptions::default() }
}

fn matcher() -> Matcher {
    Matcher::load_blip(golden("blip_matcher/model"), &options(), Device::Cpu).unwrap()
}

fn previews(seed: u64) -> Array4<u8> {
    let mut rng = Rng::new(seed, Purpose::Synth, 7);
    Array4::from_shape_fn((8, 3, 32, 32), |_| rng.below(256) as u8)
}

const TEXTS: [&str; 8] = ["a dog", "red", "", "a blue ball", "the dog", "x", "green square", "white"];

#[test]
fn a_directory_comes_back_and_is_told_from_a_captioners() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = matcher();
    made.save(folder.path()).unwrap();
    assert!(Matcher::is_at(folder.path()) && !Matcher::is_at(golden("blip_matcher/model")));
    let mut loaded = Matcher::load(folder.path(), Device::Cpu).unwrap();
    assert_eq!(loaded.fingerprint(), made.fingerprint());
    assert_eq!(loaded.config(), made.config());
    assert_eq!(loaded.preview_filter(), PreviewFilter::Bicubic);
    let images = previews(1);
    let signals = made.signals(images.view(), &TEXTS).unwrap();
    assert_eq!(signals, loaded.signals(images.view(), &TEXTS).unwrap());
    assert!(signals.alignment.iter().all(|p| (0.0..=1.0).contains(p)));
    let other = made.signals(images.view(), &["another text"; 8]).unwrap();
    assert_ne!(signals.alignment, other.alignment);
    assert_eq!(signals.embedding, other.embedding, "it is of the image alone");
    let refused = Captioner::load(folder.path(), Device::Cpu).err().unwrap().to_string();
    assert!(refused.contains("config.json"), "{refused}");
}

#[test]
fn a_score_depends_on_its_row_alone() {
    let mut matcher = matcher();
    let images = previews(2);
    let first = matcher.signals(images.view(), &TEXTS).unwrap();
    let mut mixed = previews(3);
    let mut texts = ["something else entirely"; 8];
    for (to, from) in [(0, 5), (7, 2), (3, 3)] {
        mixed.index_axis_mut(ndarray::Axis(0), to).assign(&images.index_axis(ndarray::Axis(0), from));
        texts[to] = TEXTS[from];
    }
    let second = matcher.signals(mixed.view(), &texts).unwrap();
    for (to, from) in [(0, 5), (7, 2), (3, 3)] {
        assert_eq!(second.alignment[to].to_bits(), first.alignment[from].to_bits());
        assert_eq!(second.embedding.row(to), first.embedding.row(from));
        assert_eq!(second.semantic_hash[to], first.semantic_hash[from]);
    }
}

#[test]
fn what_is_no_blip_for_retrieval_is_refused_by_name() {
    assert_eq!(BlipKind::of(golden("blip_matcher/model")).unwrap(), BlipKind::Matching);
    assert_eq!(BlipKind::of(golden("blip/base")).unwrap(), BlipKind::Captioning);
    let wrong = Matcher::load_blip(golden("blip/base"), &options(), Device::Cpu).err().unwrap().to_string();
    assert!(wrong.contains("architectures [\"BlipForImageTextRetrieval\"]"), "{wrong}");
    let wrong = Captioner::load_blip(golden("blip_matcher/model"), &options(), Device::Cpu);
    let wrong = wrong.err().unwrap().to_string();
    assert!(wrong.contains("architectures [\"BlipForConditionalGeneration\"]"), "{wrong}");

    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden("blip_matcher/model")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("\"image_text_hidden_size\": 16"), "{text}");
    let changed = text.replace("\"image_text_hidden_size\": 16", "\"image_text_hidden_size\": 17");
    std::fs::write(&config, changed).unwrap();
    let wrong = Matcher::load_blip(folder.path(), &options(), Device::Cpu).err().unwrap().to_string();
    assert!(wrong.contains("tensor vision_proj.weight: expected shape [17, 48]"), "{wrong}");

    let size = BlipOptions { preview_size: Some(48), ..options() };
    let larger = Matcher::load_blip(golden("blip_matcher/model"), &size, Device::Cpu).unwrap();
    let mut captioner = Captioner::load_blip(golden("blip/base"), &options(), Device::Cpu).unwrap();
    let wrong = captioner.set_matcher(Some(larger)).unwrap_err().to_string();
    assert!(wrong.contains("expected 32 pixels, Bicubic, found 48 pixels"), "{wrong}");
}

#[test]
fn it_measures_alignment_and_judges_captions() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = SynthOptions { samples: 160, shards: 2, test_samples: 0, size: 32, ..Default::default() };
    write_corpus(folder.path(), &corpus, &mut |_, _| {}).unwrap();
    let urls = folder.path().join("train").display().to_string();
    let dir = folder.path().join("captioner");
    let mut captioner = Captioner::load_blip(golden("blip/base"), &options(), Device::Cpu).unwrap();
    let plain = captioner.fingerprint();
    captioner.set_matcher(Some(matcher())).unwrap();
    assert_ne!(captioner.fingerprint(), plain);
    captioner.save(&dir).unwrap();
    let job = FitJob { clusters: Some(4), codes: Some(12), ..FitJob::new(vec![urls.clone()], &dir) };
    fit(&job, &mut |_, _| Ok(())).unwrap();

    let mut fitted = Captioner::load(&dir, Device::Cpu).unwrap();
    let images = previews(1);
    let raw = fitted.encode_raw(images.view(), &TEXTS).unwrap();
    let matched = matcher().signals(images.view(), &TEXTS).unwrap();
    for (log_odds, probability) in raw.alignment_sum.iter().zip(&matched.alignment) {
        assert!((1.0 / (1.0 + (-log_odds).exp()) - probability).abs() < 1e-5);
    }
    fitted.set_precision(Precision::Bfloat16).unwrap();
    let half = fitted.encode_raw(images.view(), &TEXTS).unwrap();
    let off = raw.alignment_sum.iter().zip(&half.alignment_sum).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0f32, f32::max) < 0.3);
    fitted.set_precision(Precision::Float32).unwrap();

    // The captioner beside it wrote the captions; it did not.
    let clusters = Arc::clone(fitted.clusters().unwrap());
    let loader = Loader::builder(urls.as_str())
        .captioner(fitted, clusters)
        .judge(matcher())
        .rescue(true)
        .keep_ratio(0.4)
        .replace_repetitive(false)
        .fuse("gated".parse().unwrap())
        .batch_size(8)
        .image_size(16)
        .build()
        .unwrap();
    let (mut judged, mut rows) = (0, 0);
    for batch in loader.iter().unwrap() {
        let batch = batch.unwrap();
        rows += batch.len();
        judged += batch.judged.iter().flatten().filter(|p| (0.0..=1.0).contains(*p)).count();
    }
    assert!(rows > 20 && judged > 10, "{judged} of {rows}");
    assert!(loader.stats().judged > 10);

    // Without it the clusters, whose quantiles are its, are gone, and so is its folder.
    let mut without = Captioner::load(&dir, Device::Cpu).unwrap();
    without.set_matcher(None).unwrap();
    assert!(without.clusters().is_none());
    without.save(&dir).unwrap();
    assert!(!dir.join("matcher").exists());
}
