//! What BLIP computes in transformers, from small random models: tests/golden/blip.py and
//! tests/golden/blip_matcher.py made them.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::rules::Rules;
use tldr_loader::model::{Recaptioner, Scorer};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/blip").join(name)
}

fn matcher_folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/blip_matcher").join(name)
}

fn expected(name: &str) -> HashMap<String, Tensor> {
    let path = folder(name).join("expected.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

#[derive(Deserialize)]
struct Expected {
    texts: Vec<(String, Vec<u32>)>,
    decoded: Vec<(Vec<u32>, String)>,
    prompt: String,
    captions: HashMap<String, Vec<Vec<u32>>>,
}

fn expected_ids(name: &str) -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("expected.json")).unwrap()).unwrap()
}

fn load(name: &str, change: impl FnOnce(&mut BlipOptions)) -> Captioner {
    let mut options =
        BlipOptions { generation: GenerationConfig::greedy(6, 0, 10), ..BlipOptions::default() };
    change(&mut options);
    Captioner::load_blip(folder(name), &options, Device::Cpu).unwrap()
}

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let difference = (found - expected).abs().max().double_value(&[]);
    assert!(difference < 1e-4, "{what}: {difference}");
}

#[test]
fn vision_features_and_logits_equal_blips() {
    let _guard = tch::no_grad_guard();
    for name in ["base", "large"] {
        let expected = expected(name);
        let captioner = load(name, |_| ());
        let features = captioner.vision.forward(&expected["previews"]).unwrap();
        assert_close(&features, &expected["features"], name);
        let memory = captioner.decoder.memory(&features).unwrap();
        let hidden = captioner.decoder.hidden(&expected["ids"], &memory).unwrap();
        assert_close(&captioner.decoder.logits(&hidden).unwrap(), &expected["logits"], name);
        let larger = load(name, |options| options.preview_size = Some(48));
        assert_eq!(larger.config().patches(), 36);
        let features = larger.vision.forward(&expected["larger_previews"]).unwrap();
        assert_close(&features, &expected["larger_features"], name);
    }
}

#[test]
fn ids_of_texts_equal_hugging_faces() {
    for name in ["base", "large"] {
        let expected = expected_ids(name);
        let json = load(name, |_| ()).tokenizer().clone();
        let vocab =
            tldr_loader::text::Tokenizer::from_wordpiece(folder(name).join("vocab.txt"), true).unwrap();
        for (text, ids) in &expected.texts {
            assert_eq!(json.ids(text), *ids, "tokenizer.json: {text:?}");
            assert_eq!(vocab.ids(text), *ids, "vocab.txt: {text:?}");
        }
        for (ids, text) in &expected.decoded {
            assert_eq!(json.decode(ids), text.trim(), "{ids:?}");
        }
    }
}

#[test]
fn captions_equal_those_of_generate() {
    let _guard = tch::no_grad_guard();
    for name in ["base", "large"] {
        let (arrays, expected) = (expected(name), expected_ids(name));
        for (way, captions) in &expected.captions {
            let captioner = load(name, |options| options.generation = settings(way, &expected.prompt));
            let features = captioner.vision.forward(&arrays["previews"]).unwrap();
            let memory = captioner.decoder.memory(&features).unwrap();
            let rules = Rules::of(&captioner).unwrap();
            let found = match captioner.config().generation.decoding {
                Decoding::Beam => captioner.beam_search(&memory, 6, &rules).unwrap(),
                _ => captioner.one_by_one(&memory, 6, &rules, None).unwrap(),
            };
            assert_eq!(found, *captions, "{name}, {way}");
        }
    }
}

/// The settings under the names of tests/golden/blip.py.
fn settings(way: &str, prompt: &str) -> GenerationConfig {
    let with = |min_tokens, max_tokens| match way.starts_with("beam") {
        true => GenerationConfig::beam(6, min_tokens, max_tokens),
        false => GenerationConfig::greedy(6, min_tokens, max_tokens),
    };
    let prompt = prompt.to_owned();
    match way {
        "greedy" | "beam" => with(0, 10),
        "greedy-long" | "beam-long" => with(6, 14),
        "greedy-penalty" | "beam-penalty" => GenerationConfig { repetition_penalty: 1.5, ..with(0, 12) },
        "greedy-prompt" => GenerationConfig { prompt, ..with(0, 10) },
        "beam-length" => GenerationConfig { length_penalty: 2.0, ..with(0, 12) },
        "beam-prompt" => GenerationConfig { prompt, repetition_penalty: 1.2, ..with(4, 10) },
        "beam-5" => GenerationConfig { beams: 5, ..with(0, 10) },
        other => panic!("unknown way {other}"),
    }
}

#[test]
fn matches_equal_blips() {
    let expected: HashMap<String, Tensor> =
        Tensor::read_safetensors(matcher_folder("expected.safetensors")).unwrap().into_iter().collect();
    let texts: Vec<String> =
        serde_json::from_str(&std::fs::read_to_string(matcher_folder("texts.json")).unwrap()).unwrap();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (size, previews, logits) in
        [(None, "previews", "logits"), (Some(48), "larger_previews", "larger_logits")]
    {
        let options = BlipOptions { preview_size: size, batch_size: texts.len(), ..BlipOptions::default() };
        let mut matcher = Matcher::load_blip(matcher_folder("model"), &options, Device::Cpu).unwrap();
        let logits = &expected[logits];
        let log_odds = logits.select(1, 1) - logits.select(1, 0);
        {
            let _guard = tch::no_grad_guard();
            let own = matcher.texts(&texts).unwrap();
            let (found, _) = matcher.log_odds(&expected[previews], &own).unwrap();
            assert_close(&found, &log_odds, previews);
        }
        let size = matcher.config().preview_size;
        let bytes: Vec<u8> = Vec::try_from(expected[previews].flatten(0, -1)).unwrap();
        let images = ndarray::Array4::from_shape_vec((texts.len(), 3, size, size), bytes).unwrap();
        let signals = matcher.signals(images.view(), &texts).unwrap();
        assert_close(&Tensor::from_slice(&signals.alignment), &log_odds.sigmoid(), "probability");
        if previews == "previews" {
            let found = Tensor::from_slice(signals.embedding.as_slice().unwrap()).view([-1, 16]);
            assert_close(&found, &expected["embedding"], "embedding");
        }
    }
}

#[test]
fn half_precision_is_close_and_leaves_the_weights() {
    let mut captioner = load("base", |_| ());
    let expected = expected("base");
    let images: Vec<u8> = Vec::try_from(expected["previews"].flatten(0, -1)).unwrap();
    let images = ndarray::Array4::from_shape_vec((6, 3, 32, 32), images).unwrap();
    let fingerprint = captioner.weights_hash();
    let whole = captioner.visual_tokens(images.view()).unwrap();
    captioner.set_precision(Precision::Bfloat16).unwrap();
    let half = captioner.visual_tokens(images.view()).unwrap();
    let largest = (&whole - &half).iter().fold(0f32, |most, d| most.max(d.abs()));
    // 8 bits of mantissa over 2 blocks, of values up to 3 or so.
    assert!(largest > 0.0 && largest < 0.15, "{largest}");
    assert_eq!(captioner.weights_hash(), fingerprint);
    assert_eq!(captioner.compute(), crate::device::describe(Device::Cpu, Precision::Bfloat16));
    // Weights that change are converted anew, and until then nothing stale is used.
    let norm = captioner.tensors.get_mut("vision_model.post_layernorm.bias").unwrap();
    let _ = tch::no_grad(|| norm.f_add_scalar_(1.0)).unwrap();
    captioner.weights_hash.take();
    let moved = captioner.visual_tokens(images.view()).unwrap();
    assert!((&moved - &whole).iter().all(|d| (d - 1.0).abs() < 1e-4));
    captioner.prepare().unwrap();
    let moved = captioner.visual_tokens(images.view()).unwrap();
    assert!((&moved - &half).iter().all(|d| (d - 1.0).abs() < 0.05));
    captioner.set_precision(Precision::Float32).unwrap();
    captioner.caption(images.view(), &[tldr_loader::SampleId(1)]).unwrap();
}

#[test]
fn scores_are_the_same_in_every_precision() {
    let mut captioner = load("base", |_| ());
    let images: Vec<u8> = Vec::try_from(expected("base")["previews"].flatten(0, -1)).unwrap();
    let (rows, size) = (captioner.batch_size(), captioner.config().preview_size);
    let images = ndarray::Array4::from_shape_vec((6, 3, size, size), images).unwrap();
    let images =
        ndarray::Array4::from_shape_fn((rows, 3, size, size), |(i, c, y, x)| images[[i % 6, c, y, x]]);
    let mut sample = PatchSample::new(captioner.config().patches(), 0);
    let ids: Vec<tldr_loader::SampleId> = (0..rows as u64).map(tldr_loader::SampleId).collect();
    captioner.sample_patches(images.view(), &ids, &mut sample).unwrap();
    captioner.learn_codebook(&sample, 4, 0).unwrap();
    let mut score = |precision| {
        captioner.set_precision(precision).unwrap();
        let mut scores = Scores::default();
        captioner.score(images.view(), &["a red circle", "two dogs"], &mut scores).unwrap();
        scores.summary().unwrap()
    };
    assert_eq!(score(Precision::Bfloat16), score(Precision::Float32));
}

#[test]
fn drawn_tokens_come_from_the_nucleus_in_proportion() {
    let mut captioner = load("base", |options| {
        options.generation =
            GenerationConfig { decoding: Decoding::Nucleus, ..GenerationConfig::greedy(6, 0, 10) }
    });
    let vocab = captioner.config().decoder.vocab;
    // 0.5, 0.3, 0.15, 0.05 and nothing else.
    let mut logits = vec![f32::NEG_INFINITY; vocab];
    for (token, p) in [(7, 0.15f32), (9, 0.5), (20, 0.05), (30, 0.3)] {
        logits[token] = p.ln();
    }
    let n = 4000i64;
    let logits = Tensor::from_slice(&logits).unsqueeze(0).expand([n, -1], false);
    let draws = Tensor::arange(n, (Kind::Float, Device::Cpu)) / n as f64;
    for (top_p, shares) in [
        (1.0, vec![(9, 0.5), (30, 0.3), (7, 0.15), (20, 0.05)]),
        (0.9, vec![(9, 0.5 / 0.95), (30, 0.3 / 0.95), (7, 0.15 / 0.95)]),
        (0.6, vec![(9, 0.625), (30, 0.375)]),
        (0.01, vec![(9, 1.0)]),
    ] {
        captioner.config.generation.top_p = top_p;
        let tokens = captioner.draw(&logits, &draws).unwrap();
        for (token, share) in &shares {
            let found = tokens.eq(*token).sum(Kind::Float).double_value(&[]) / n as f64;
            assert!((found - share).abs() < 1e-3, "top_p {top_p}, token {token}: {found}");
        }
    }
}
