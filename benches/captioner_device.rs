//! What a device makes of the paper's captioner; one binary that needs nothing but libtorch, to be carried to
//! a machine with a GPU.
//!
//!     cargo bench -p tldr-captioner --bench captioner_device -- --device cuda --batch 256,1024
//!
//! The model is `base` with random weights and a vocabulary of BLIP's size. One JSON line each: the best
//! speed of a large matrix product in the number type of the encoder; then for every batch size `encode`
//! (images to codes, alignment and embedding: image encoder, codebook, two passes of the decoder over
//! captions of 30 tokens) with the share of that speed it reaches; the lookup of nearest codes, as a share
//! of `encode`; and captions of 20 tokens by three beams. Without `--device` a tiny model runs once on the
//! CPU, which shows that it works.

use std::time::Instant;

use ndarray::Array4;
use tch::{Device, Kind, Tensor};
use tldr_captioner::{Captioner, CaptionerConfig, GenerationConfig, Precision, device_name, parse_device};
use tldr_captioner::{Error, Result};
use tldr_loader::SampleId;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::model::Recaptioner;
use tldr_loader::text::Tokenizer;

/// Rows of BLIP's word embeddings.
const VOCAB: usize = 30_524;
/// Tokens of a written caption: all run to the end, so that the work is the same.
const TOKENS: usize = 20;

struct Options {
    device: Option<String>,
    batches: Vec<usize>,
    precision: Option<String>,
    seconds: f64,
}

fn options() -> Result<Options> {
    let mut options = Options { device: None, batches: vec![256, 1024], precision: None, seconds: 5.0 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        // cargo's own: this is a bench.
        if name == "--bench" || name == "--test" {
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        match name.as_str() {
            "--device" => options.device = Some(value),
            "--precision" => options.precision = Some(value),
            "--batch" => {
                let sizes = value.split(',').map(|size| size.trim().parse().ok().filter(|&n| n > 0));
                options.batches = sizes
                    .collect::<Option<_>>()
                    .ok_or_else(|| Error::option("batch", &value, "numbers of images, such as 256,1024"))?;
            }
            "--seconds" => {
                options.seconds = value.parse().map_err(|_| Error::option("seconds", &value, "a number"))?;
            }
            _ => {
                let accepted = "--device, --batch, --precision or --seconds";
                return Err(Error::option("argument", name, accepted));
            }
        }
    }
    Ok(options)
}

fn main() -> Result<()> {
    let options = options()?;
    let smoke = options.device.is_none();
    let device = parse_device(options.device.as_deref().unwrap_or("cpu"))?;
    let precision = match &options.precision {
        Some(name) => Precision::from_name(name)?,
        None => Precision::of(device),
    };
    let seconds = if smoke { 0.0 } else { options.seconds };
    let kind = if precision == Precision::Bfloat16 { Kind::BFloat16 } else { Kind::Float };
    let peak = matrix_speed(device, kind, seconds, if smoke || device == Device::Cpu { 512 } else { 8192 })?;
    say(&format!(
        "{{\"what\": \"matrix product\", \"device\": \"{}\", \"precision\": \"{}\", \"tflops\": {:.3}}}",
        device_name(device),
        precision.name(),
        peak * 1e-12
    ));
    let words: Vec<String> = (0..200).map(|i| format!("word{i}")).collect();
    let tokenizer = Tokenizer::train(words.iter().map(String::as_str), 300)?;
    let batches = if smoke { vec![8] } else { options.batches };
    for batch in batches {
        let mut config = match smoke {
            true => CaptionerConfig::tiny(tokenizer.vocab_size()),
            false => CaptionerConfig::base(VOCAB),
        };
        config.batch_size = batch;
        let tokens = TOKENS.min(config.decoder.positions - 2);
        config.generation = GenerationConfig::beam(batch, tokens, tokens);
        let mut captioner = Captioner::new(config, tokenizer.clone(), device, 0)?;
        captioner.set_precision(precision)?;
        measure(&mut captioner, peak, seconds)?;
    }
    Ok(())
}

/// Floating-point operations a second of a product of two square matrices.
fn matrix_speed(device: Device, kind: Kind, seconds: f64, side: i64) -> Result<f64> {
    let torch = |e: tch::TchError| Error::captioner(e);
    let matrix = Tensor::f_rand([side, side], (Kind::Float, device)).map_err(torch)?;
    let matrix = matrix.f_to_kind(kind).map_err(torch)?;
    let speed = speed(seconds, || {
        let mut last = matrix.shallow_clone();
        for _ in 0..10 {
            last = matrix.f_mm(&matrix).map_err(torch)?;
        }
        // Waits for the device.
        last.f_double_value(&[0, 0]).map_err(torch).map(drop)
    })?;
    Ok(speed * 10.0 * 2.0 * (side as f64).powi(3))
}

/// Calls a second of `work`, the first aside, which allocates.
fn speed(seconds: f64, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let (started, mut calls) = (Instant::now(), 0);
    while calls == 0 || started.elapsed().as_secs_f64() < seconds {
        work()?;
        calls += 1;
    }
    Ok(f64::from(calls) / started.elapsed().as_secs_f64())
}

fn measure(captioner: &mut Captioner, peak: f64, seconds: f64) -> Result<()> {
    let config = captioner.config().clone();
    let (batch, size) = (config.batch_size, config.preview_size);
    let mut rng = Rng::new(0, Purpose::Synth, 0);
    let previews = Array4::from_shape_fn((batch, 3, size, size), |_| rng.below(256) as u8);
    let caption: Vec<String> = (0..config.decoder.max_tokens).map(|i| format!("word{i}")).collect();
    let caption = caption.join(" ");
    let captions = vec![caption.as_str(); batch];
    let ids: Vec<SampleId> = (0..batch as u64).map(SampleId).collect();

    let encode = speed(seconds, || captioner.encode_raw(previews.view(), &captions).map(drop))?;
    let reached = encode * batch as f64 * operations(&config) / peak;
    say(&format!(
        "{{\"what\": \"encode\", \"batch\": {batch}, \"images_per_s\": {:.2}, \"of_matrix_product\": {reached:.3}}}",
        encode * batch as f64
    ));
    let lookup = lookup(&config, captioner.device(), seconds)?;
    say(&format!(
        "{{\"what\": \"nearest codes\", \"batch\": {batch}, \"codes\": {}, \"of_encode\": {:.4}}}",
        config.codes(),
        encode / lookup
    ));
    let caption = speed(seconds, || Ok(captioner.caption(previews.view(), &ids).map(drop)?))?;
    say(&format!(
        "{{\"what\": \"captions, 3 beams\", \"batch\": {batch}, \"captions_per_s\": {:.2}}}",
        caption * batch as f64
    ));
    Ok(())
}

/// Lookups a second of a batch's nearest codes: the product and the maximum that the codebook takes.
fn lookup(config: &CaptionerConfig, device: Device, seconds: f64) -> Result<f64> {
    let torch = |e: tch::TchError| Error::captioner(e);
    let options = (Kind::Float, device);
    let (rows, dim) = ((config.batch_size * config.patches()) as i64, config.embedding_dim() as i64);
    let patches = Tensor::f_rand([rows, dim], options).map_err(torch)?;
    let codes = Tensor::f_rand([config.codes() as i64, dim], options).map_err(torch)?;
    speed(seconds, || {
        let scores = patches.f_mm(&codes.f_tr().map_err(torch)?).map_err(torch)?;
        let nearest = scores.f_argmax(-1, false).map_err(torch)?;
        nearest.f_int64_value(&[0]).map_err(torch).map(drop)
    })
}

/// Floating-point operations of encoding one image with its caption: those of matrix products.
fn operations(config: &CaptionerConfig) -> f64 {
    let (vision, decoder) = (&config.vision, &config.decoder);
    let (d, seen) = (vision.dim as f64, 1.0 + config.patches() as f64);
    let patch = 3.0 * (config.patch_size * config.patch_size) as f64;
    // Query, key, value and output, perceptron, then scores and mixtures of attention.
    let block = 2.0 * (4.0 * d * d + 2.0 * d * vision.mlp as f64) + 4.0 * seen * d;
    let images = config.patches() as f64 * 2.0 * patch * d + seen * vision.layers as f64 * block;
    let codes = 2.0 * config.patches() as f64 * (config.codes() * config.embedding_dim()) as f64;
    let (t, length) = (decoder.dim as f64, decoder.max_tokens as f64);
    let visual = config.patches() as f64;
    // Self- and cross-attention of a token, and its perceptron.
    let own = 2.0 * (6.0 * t * t + 2.0 * t * decoder.mlp as f64) + 4.0 * t * (length + visual);
    let head = 2.0 * t * (t + decoder.vocab as f64);
    let memory = decoder.layers as f64 * visual * 4.0 * d * t;
    // With the image and without it, whose keys and values are those of one image for all.
    let captions = memory + 2.0 * length * (decoder.layers as f64 * own + head);
    images + codes + captions
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}
