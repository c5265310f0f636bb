//! Promise: a Hugging Face BLIP becomes a captioner: it writes captions at once, a fit gives it a
//! codebook, clusters and alignments, and whatever does not fit is refused by name.
//!
//! What it computes is compared with transformers beside the code, in `src/captioner/parity.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array4, Axis, s};
use safetensors::tensor::{Dtype, TensorView};
use tch::Device;
use tldr_captioner::jobs::{FitJob, fit};
use tldr_captioner::{
    BlipOptions, Captioner, DecodeFrom, Decoding, GenerationChange, GenerationConfig, Matcher, TrainOptions,
    Trainer, set_generation,
};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::model::{Recaptioner, Scorer};
use tldr_loader::text::{Fuse, is_repetitive};
use tldr_loader::{ErrorKind, Loader, SampleId};
use tldr_synth::{SynthOptions, write_corpus};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/blip").join(name)
}

fn load(options: &BlipOptions) -> Captioner {
    Captioner::load_blip(golden("base"), options, Device::Cpu).unwrap()
}

/// The settings that `set` sets.
fn change(set: impl FnOnce(&mut GenerationChange)) -> GenerationChange {
    let mut change = GenerationChange::default();
    set(&mut change);
    change
}

/// Batches of 4 and captions of up to 8 tokens, by `decoding`.
fn options(decoding: Decoding) -> BlipOptions {
    let generation = GenerationConfig { decoding, ..GenerationConfig::greedy(4, 2, 8) };
    BlipOptions { batch_size: 8, generation, ..BlipOptions::default() }
}

fn previews(count: usize, seed: u64) -> Array4<u8> {
    let mut rng = Rng::new(seed, Purpose::Synth, 7);
    Array4::from_shape_fn((count, 3, 32, 32), |_| rng.below(256) as u8)
}

fn ids(range: std::ops::Range<u64>) -> Vec<SampleId> {
    range.map(SampleId).collect()
}

/// 160 drawn pairs of 32 pixels.
fn corpus(folder: &Path) -> String {
    let options = SynthOptions { samples: 160, shards: 2, test_samples: 0, size: 32, ..Default::default() };
    write_corpus(folder, &options, &mut |_, _| {}).unwrap();
    folder.join("train").display().to_string()
}

#[test]
fn captions_depend_on_sample_and_seed_alone() {
    for decoding in [Decoding::Greedy, Decoding::Beam, Decoding::Nucleus] {
        let mut captioner = load(&options(decoding));
        let images = previews(8, 1);
        let first = captioner.caption(images.slice(s![..4, .., .., ..]), &ids(0..4)).unwrap();
        let second = captioner.caption(images.slice(s![4.., .., .., ..]), &ids(4..8)).unwrap();
        let order = [5usize, 2, 7];
        let mut mixed = Array4::zeros((4, 3, 32, 32));
        for (row, &from) in order.iter().enumerate() {
            mixed.index_axis_mut(Axis(0), row).assign(&images.index_axis(Axis(0), from));
        }
        let found = captioner.caption(mixed.view(), &order.map(|i| SampleId(i as u64))).unwrap();
        assert_eq!(
            found,
            [second[1].clone(), first[2].clone(), second[3].clone(), String::new()],
            "{decoding:?}"
        );
    }
}

#[test]
fn drawn_captions_differ_by_id_and_by_seed() {
    let captions = |seed: u64, ids: &[SampleId]| {
        let mut with = options(Decoding::Nucleus);
        with.generation.seed = seed;
        load(&with).caption(previews(4, 2).view(), ids).unwrap()
    };
    let base = captions(0, &ids(0..4));
    assert_eq!(captions(0, &ids(0..4)), base);
    assert_ne!(captions(1, &ids(0..4)), base);
    assert_ne!(captions(0, &ids(4..8)), base);
}

#[test]
fn a_directory_made_of_blip_comes_back_with_its_captions() {
    for name in ["base", "large"] {
        let dir = tempfile::tempdir().unwrap();
        let with = BlipOptions { preview_size: Some(48), ..options(Decoding::Beam) };
        let mut captioner = Captioner::load_blip(golden(name), &with, Device::Cpu).unwrap();
        captioner.save(dir.path()).unwrap();
        let mut loaded = Captioner::load(dir.path(), Device::Cpu).unwrap();
        assert_eq!(loaded.caption_fingerprint(), captioner.caption_fingerprint());
        assert_eq!(loaded.config(), captioner.config());
        let images = Array4::from_elem((4, 3, 48, 48), 99);
        let expected = captioner.caption(images.view(), &ids(0..4)).unwrap();
        assert_eq!(loaded.caption(images.view(), &ids(0..4)).unwrap(), expected);

        let changed = set_generation(dir.path(), change(|c| c.decoding = Some(Decoding::Greedy))).unwrap();
        assert_eq!(changed.decoding, Decoding::Greedy);
        assert_eq!(Captioner::load(dir.path(), Device::Cpu).unwrap().config().generation, changed);
        let refuse =
            |set: fn(&mut GenerationChange)| set_generation(dir.path(), change(set)).unwrap_err().to_string();
        let refused = refuse(|c| c.beams = Some(0));
        assert!(refused.starts_with("invalid generation.beams=0"), "{refused}");
        for (set, refused) in [
            (
                (|c| c.beams = Some(4)) as fn(&mut GenerationChange),
                "invalid generation.beams=4: it has no effect with decoding=greedy",
            ),
            (
                |c| c.length_penalty = Some(1.0),
                "invalid generation.length_penalty=1: it has no effect with decoding=greedy",
            ),
            (|c| c.top_p = Some(0.5), "invalid generation.top_p=0.5: it has no effect with decoding=greedy"),
            (
                |c| (c.decoding, c.seed) = (Some(Decoding::Beam), Some(0)),
                "invalid generation.seed=0: it has no effect with decoding=beam",
            ),
            (
                |c| c.temperature = Some(0.5),
                "invalid generation.temperature=0.5: it has no effect with decoding=greedy",
            ),
        ] {
            assert!(refuse(set).starts_with(refused), "{}", refuse(set));
        }
        // A directory that could not be loaded again is never written.
        let refused = refuse(|c| c.prompt = Some("a picture of ".repeat(8)));
        assert!(refused.starts_with("invalid generation.prompt=\"a picture of a"), "{refused}");
        assert!(refused.contains("room for generation.max_tokens (8)"), "{refused}");
        assert_eq!(Captioner::load(dir.path(), Device::Cpu).unwrap().config().generation, changed);
    }
}

#[test]
fn a_fit_learns_codebook_clusters_and_alignments() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path());
    let dir = folder.path().join("captioner");
    let mut captioner = load(&options(Decoding::Beam));
    let raw = captioner.encode_raw(previews(8, 3).view(), &["a dog"; 8]).unwrap_err().to_string();
    assert!(raw.contains("run `fit`"), "{raw}");
    captioner.save(&dir).unwrap();

    let job = FitJob { clusters: Some(4), codes: Some(12), ..FitJob::new(vec![urls.clone()], &dir) };
    let summary = fit(&job, &mut |_, _| Ok(())).unwrap();
    let codebook = summary.codebook.unwrap();
    assert_eq!((summary.clusters, codebook.codes), (4, 12));
    // 16 patches of each of 160 images, an eighth of them held out.
    assert_eq!(codebook.patches, 16 * 140);
    assert!(codebook.error > 0.0 && codebook.error < 0.9, "{codebook:?}");
    let mut fitted = Captioner::load(&dir, Device::Cpu).unwrap();
    assert_eq!(fitted.config().decode_from, DecodeFrom::Raw);
    let images = previews(8, 3);
    let captions = ["a dog", "a ball", "", "red", "the green square", "x", "a dog and a ball", "of"];
    let signals = fitted.signals(images.view(), &captions).unwrap();
    assert!(signals.cluster.iter().all(|&c| c < 4));
    for row in signals.embedding.rows() {
        assert!((row.dot(&row) - 1.0).abs() < 1e-4);
    }
    // The codebook does not touch captions from raw patches.
    assert_eq!(
        fitted.caption(images.slice(s![..4, .., .., ..]), &ids(0..4)).unwrap(),
        captioner.caption(images.slice(s![..4, .., .., ..]), &ids(0..4)).unwrap()
    );

    // A second fit keeps the codebook, and is the same.
    let fingerprint = Scorer::fingerprint(&fitted);
    let again = FitJob { codes: None, ..job.clone() };
    assert_eq!(fit(&again, &mut |_, _| Ok(())).unwrap().codebook, None);
    assert_eq!(Scorer::fingerprint(&Captioner::load(&dir, Device::Cpu).unwrap()), fingerprint);
    // More codes stand closer to the patches.
    let more = FitJob { codes: Some(100), ..job.clone() };
    let finer = fit(&more, &mut |_, _| Ok(())).unwrap().codebook.unwrap();
    assert!(finer.error < codebook.error, "{finer:?} {codebook:?}");

    // From quantised patches everything still works, and alignments are other ones.
    let quantised = FitJob { codes: None, decode_from: Some(DecodeFrom::Quantised), ..job };
    fit(&quantised, &mut |_, _| Ok(())).unwrap();
    let mut coarse = Captioner::load(&dir, Device::Cpu).unwrap();
    assert_eq!(coarse.config().decode_from, DecodeFrom::Quantised);
    let (a, b) = (
        fitted.encode_raw(images.view(), &captions).unwrap(),
        coarse.encode_raw(images.view(), &captions).unwrap(),
    );
    assert_ne!(a.alignment_sum, b.alignment_sum);
    assert!(b.alignment_sum.iter().all(|x| x.is_finite()));
    // Wherever a sample stands in a batch, its signals are the same, bit by bit.
    let backwards = images.slice(s![..;-1, .., .., ..]);
    let captions_backwards: Vec<&str> = captions.iter().rev().copied().collect();
    for captioner in [&mut fitted, &mut coarse] {
        let there = captioner.signals(images.view(), &captions).unwrap();
        let back = captioner.signals(backwards, &captions_backwards).unwrap();
        for row in 0..8 {
            assert_eq!(there.cluster[row], back.cluster[7 - row]);
            assert_eq!(there.alignment[row].to_bits(), back.alignment[7 - row].to_bits());
            assert_eq!(there.embedding.row(row), back.embedding.row(7 - row));
            assert_eq!(there.semantic_hash[row], back.semantic_hash[7 - row]);
        }
    }

    // A loader takes it, counts what it writes and replaces what repeats itself.
    let clusters = Arc::clone(coarse.clusters().unwrap());
    let loader = |replace| {
        let model = Captioner::load(&dir, Device::Cpu).unwrap();
        Loader::builder(urls.as_str())
            .captioner(model, Arc::clone(&clusters))
            .keep_ratio(0.25)
            .batch_size(8)
            .image_size(16)
            .fuse(Fuse::Generated)
            .replace_repetitive(replace)
            .build()
            .unwrap()
    };
    for replace in [true, false] {
        let loader = loader(replace);
        for batch in loader.iter().unwrap() {
            let batch = batch.unwrap();
            for (row, generated) in batch.generated.iter().enumerate() {
                let generated = generated.as_deref().unwrap();
                let original = generated.is_empty() || replace && is_repetitive(generated);
                let expected = if original { batch.original[row].as_str() } else { generated };
                assert_eq!(batch.captions[row], expected);
            }
        }
        let stats = loader.stats();
        assert!(stats.captioned > 0);
        assert!(stats.captions_empty + stats.captions_repetitive <= stats.captioned);
    }
}

#[test]
fn a_loaded_blip_is_no_trainee() {
    let refused =
        Trainer::new(load(&options(Decoding::Greedy)), TrainOptions::new(1)).err().unwrap().to_string();
    assert!(refused.contains("loaded BLIP"), "{refused}");
}

/// A copy of a model's directory, to damage.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(golden(name)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        Self(dir)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn tensors(&self, change: impl FnOnce(&mut Tensors)) {
        let bytes = std::fs::read(self.path("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Tensors = file
            .iter()
            .map(|(n, v)| (n.to_owned(), (v.dtype(), v.shape().to_vec(), v.data().to_vec())))
            .collect();
        change(&mut tensors);
        let views: Vec<_> = tensors
            .iter()
            .map(|(n, (dtype, shape, data))| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()))
            .collect();
        std::fs::write(self.path("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(self.path(file), text.replace(from, to)).unwrap();
    }

    fn load(&self) -> tldr_captioner::Result<Captioner> {
        Captioner::load_blip(self.0.path(), &options(Decoding::Greedy), Device::Cpu)
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let message = self.load().err().unwrap().to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const WORDS: &str = "text_decoder.bert.embeddings.word_embeddings.weight";
const OUTPUT: &str = "text_decoder.cls.predictions.decoder.weight";
const BIAS: &str = "text_decoder.cls.predictions.bias";

#[test]
fn tied_weights_may_be_there_once_or_twice() {
    let expected = load(&options(Decoding::Greedy)).caption_fingerprint();
    let fingerprint = |change: fn(&mut Tensors)| {
        let copy = Copy::of("base");
        copy.tensors(change);
        copy.load().unwrap().caption_fingerprint()
    };
    let both = fingerprint(|t| {
        t.insert(OUTPUT.into(), t[WORDS].clone());
        t.insert("text_decoder.cls.predictions.decoder.bias".into(), t[BIAS].clone());
        // A buffer that older versions of transformers stored.
        let ids = "text_decoder.bert.embeddings.position_ids";
        t.insert(ids.into(), (Dtype::I64, vec![1, 24], vec![0; 24 * 8]));
    });
    let other_names = fingerprint(|t| {
        let (words, bias) = (t.remove(WORDS).unwrap(), t.remove(BIAS).unwrap());
        t.insert(OUTPUT.into(), words);
        t.insert("text_decoder.cls.predictions.decoder.bias".into(), bias);
    });
    assert_eq!((both, other_names), (expected, expected));
    // Untied weights are used as they are.
    let copy = Copy::of("base");
    copy.tensors(|t| drop(t.insert(OUTPUT.into(), zeros(&t[WORDS].1))));
    copy.refused(&["model.safetensors", OUTPUT, "tied", "tie_word_embeddings to false"]);
    copy.replace("config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    let untied = copy.load().unwrap();
    assert!(!untied.config().decoder.tied);
    let dir = tempfile::tempdir().unwrap();
    untied.save(dir.path()).unwrap();
    let again = Captioner::load(dir.path(), Device::Cpu).unwrap();
    assert_eq!(again.caption_fingerprint(), untied.caption_fingerprint());
}

fn zeros(shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

#[test]
fn vocab_txt_serves_where_there_is_no_tokenizer_json() {
    let copy = Copy::of("base");
    let expected = copy.load().unwrap().tokenizer().ids("A dog, unknowable café!");
    std::fs::remove_file(copy.path("tokenizer.json")).unwrap();
    assert_eq!(copy.load().unwrap().tokenizer().ids("A dog, unknowable café!"), expected);
    copy.replace("vocab.txt", "[UNK]\n", "[XXX]\n");
    copy.refused(&["vocab.txt", "[UNK]"]);
    copy.replace("vocab.txt", "[XXX]\n", "[PAD]\n");
    copy.refused(&["vocab.txt, line 2", "[PAD]", "line 1"]);
    std::fs::remove_file(copy.path("vocab.txt")).unwrap();
    copy.refused(&["expected tokenizer.json or vocab.txt, found neither"]);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let norm = "vision_model.post_layernorm.weight";
    let copy = Copy::of("base");
    copy.tensors(|t| drop(t.remove(norm)));
    copy.refused(&["model.safetensors", norm, "expected shape [32]", "found no tensor"]);
    let copy = Copy::of("base");
    copy.tensors(|t| drop(t.insert("itm_head.weight".into(), zeros(&[2, 32]))));
    copy.refused(&["model.safetensors", "itm_head.weight", "found 1 unknown tensors", "[2, 32]"]);
    let copy = Copy::of("base");
    copy.tensors(|t| drop(t.insert(norm.into(), zeros(&[16]))));
    copy.refused(&["model.safetensors", norm, "expected shape [32]", "found shape [16]"]);
    let copy = Copy::of("base");
    copy.tensors(|t| t.get_mut(norm).unwrap().0 = Dtype::I32);
    copy.refused(&["model.safetensors", norm, "F32, F16 or BF16", "I32"]);
    let copy = Copy::of("base");
    copy.tensors(|t| t.get_mut(norm).unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    copy.refused(&["model.safetensors", norm, "expected finite numbers"]);
}

#[test]
fn a_model_of_another_kind_is_never_replaced() {
    let copy = Copy::of("base");
    let captioner = copy.load().unwrap();
    let contents = |dir: &Path| -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap()))
            .collect()
    };
    let before = contents(copy.0.path());
    let message = captioner.save(copy.0.path()).unwrap_err().to_string();
    assert!(message.starts_with("invalid out=") && message.contains("no captioner"), "{message}");
    assert_eq!(contents(copy.0.path()), before);
    // Its own kind is: that is how a fit saves.
    let own = tempfile::tempdir().unwrap();
    captioner.save(own.path()).unwrap();
    captioner.save(own.path()).unwrap();
    let matcher_of = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/blip_matcher/model");
    let matcher = Matcher::load_blip(matcher_of, &options(Decoding::Greedy), Device::Cpu).unwrap();
    let before = contents(own.path());
    for place in [own.path(), copy.0.path()] {
        let message = matcher.save(place).unwrap_err().to_string();
        assert!(message.starts_with("invalid out=") && message.contains("no matcher"), "{message}");
    }
    assert_eq!(contents(own.path()), before);
    let other = tempfile::tempdir().unwrap();
    matcher.save(other.path()).unwrap();
    assert!(captioner.save(other.path()).unwrap_err().to_string().contains("no captioner"));
    let message = Captioner::load(other.path(), Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("a matcher, which judges captions"), "{message}");
}

#[test]
fn configurations_that_do_not_fit_are_named() {
    for (from, to, parts) in [
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            vec!["model.safetensors", "layers.2", "no tensor"],
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            vec!["model.safetensors", "1", "unknown tensors"],
        ),
        ("\"vocab_size\": 115", "\"vocab_size\": 200", vec!["word_embeddings", "[200, 32]", "[115, 32]"]),
        (
            "\"vocab_size\": 115",
            "\"vocab_size\": 100",
            vec!["config.json", "invalid specials.start=113", "vocab (100)"],
        ),
        (
            "\"patch_size\": 8",
            "\"patch_size\": 7",
            vec!["config.json", "invalid preview_size=32", "multiple of patch_size"],
        ),
        (
            "\"image_size\": 32",
            "\"image_size\": [32, 48]",
            vec!["config.json: vision_config.image_size", "square"],
        ),
        (
            "\"image_size\": 32",
            "\"image_size\": 64",
            vec!["position_embedding", "[1, 65, 32]", "[1, 17, 32]"],
        ),
        ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", vec!["config.json", "mish"]),
        (
            "\"model_type\": \"blip\",",
            "\"model_type\": \"vit\",",
            vec!["config.json", "model_type \"blip\"", "vit"],
        ),
        ("ForConditionalGeneration", "ForQuestionAnswering", vec!["config.json", "BlipForQuestionAnswering"]),
        ("\"model_type\": \"blip\",", "", vec!["config.json", "no model_type"]),
        ("{", "", vec!["config.json"]),
    ] {
        let copy = Copy::of("base");
        copy.replace("config.json", from, to);
        copy.refused(&parts);
    }
    let copy = Copy::of("base");
    let mut with = options(Decoding::Greedy);
    for size in [33, 0] {
        with.preview_size = Some(size);
        let refused = Captioner::load_blip(copy.0.path(), &with, Device::Cpu).err().unwrap().to_string();
        assert!(refused.contains(&format!("invalid preview_size={size}")), "{refused}");
    }
    let mut with = options(Decoding::Greedy);
    with.generation.prompt = "a dog and ".repeat(10);
    let refused = Captioner::load_blip(copy.0.path(), &with, Device::Cpu).err().unwrap();
    assert!(matches!(refused.kind, ErrorKind::Option { option: "generation.prompt", .. }), "{refused}");
}

#[test]
fn a_vocabulary_larger_than_the_embedding_is_refused() {
    let copy = Copy::of("base");
    std::fs::remove_file(copy.path("tokenizer.json")).unwrap();
    let vocab = std::fs::read_to_string(copy.path("vocab.txt")).unwrap();
    std::fs::write(copy.path("vocab.txt"), vocab + "two\nmore\nthan\n").unwrap();
    copy.refused(&["expected at most 115 tokens", "the embedding", "found 116 tokens"]);
}

#[test]
fn pickles_are_refused_and_never_read() {
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let copy = Copy::of("base");
        std::fs::rename(copy.path("model.safetensors"), copy.path(name)).unwrap();
        copy.refused(&["model.safetensors", name, "a pickle, which is never read", "save_pretrained"]);
    }
    let copy = Copy::of("base");
    std::fs::rename(copy.path("model.safetensors"), copy.path("model.safetensors.index.json")).unwrap();
    copy.refused(&["model.safetensors", "split into several files", "save_pretrained"]);
    std::fs::remove_file(copy.path("model.safetensors.index.json")).unwrap();
    copy.refused(&["model.safetensors"]);
    // A pickle under the name of a safetensors file: a zip archive, or an old bare one.
    for bytes in [b"PK\x03\x04 archive/data.pkl".as_slice(), b"\x80\x02}q\x00."] {
        std::fs::write(copy.path("model.safetensors"), bytes).unwrap();
        copy.refused(&["model.safetensors", "no pickle is ever read"]);
    }
}

#[test]
fn truncated_weights_are_refused() {
    let copy = Copy::of("base");
    let bytes = std::fs::read(copy.path("model.safetensors")).unwrap();
    for length in [0, 7, 1000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(copy.path("model.safetensors"), &bytes[..length]).unwrap();
        copy.refused(&["model.safetensors", "complete safetensors file", &format!("{length} bytes")]);
    }
}

#[test]
fn a_blip_is_no_captioner_directory_yet() {
    let message = Captioner::load(golden("base"), Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("config.json") && message.contains("tldr-loader load"), "{message}");
    let own = tempfile::tempdir().unwrap();
    load(&options(Decoding::Greedy)).save(own.path()).unwrap();
    let message =
        Captioner::load_blip(own.path(), &BlipOptions::default(), Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("config.json") && message.contains("no model_type"), "{message}");
}
