//! The captioner's speed on one device, with a captioner directory or a Hugging Face BLIP; needs nothing
//! but libtorch.
//!
//!     cargo bench -p tldr-captioner --profile dev --bench captioner -- --model DIR [--only WHAT] [--device D] [--seconds S]
//!
//! WHAT is `encode` (the image encoder), `greedy` or `beam-3` (captions of 20 tokens from encoded images):
//! one JSON line each. Without `--model` each runs once, with the model of tests/golden/blip.

use std::time::Instant;

use ndarray::Array4;
use tldr_captioner::{BlipOptions, Captioner, Decoding, GenerationConfig, parse_device};
use tldr_captioner::{Error, Result};
use tldr_loader::SampleId;
use tldr_loader::hash::{Purpose, Rng};

/// Images of a batch.
const BATCH: usize = 32;
/// Tokens of a caption: all run to the end, so that the work is the same.
const TOKENS: usize = 20;

struct Options {
    model: Option<String>,
    only: Option<String>,
    device: String,
    seconds: f64,
}

fn options() -> Result<Options> {
    let mut options = Options { model: None, only: None, device: "cpu".into(), seconds: 10.0 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        // cargo's own: this is a bench.
        if name == "--bench" || name == "--test" {
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        match name.as_str() {
            "--model" => options.model = Some(value),
            "--only" => options.only = Some(value),
            "--device" => options.device = value,
            "--seconds" => {
                let wrong = |_| Error::option("seconds", &value, "a number");
                options.seconds = value.parse().map_err(wrong)?;
            }
            _ => return Err(Error::option("argument", name, "--model, --only, --device or --seconds")),
        }
    }
    Ok(options)
}

fn load(model: &str, what: &str, device: &str) -> Result<Captioner> {
    let tokens = if model.ends_with(GOLDEN) { 8 } else { TOKENS };
    let decoding = if what == "beam-3" { Decoding::Beam } else { Decoding::Greedy };
    let generation = GenerationConfig { decoding, ..GenerationConfig::greedy(BATCH, tokens, tokens) };
    let options = BlipOptions { batch_size: BATCH, generation, ..BlipOptions::default() };
    Captioner::load_blip(model, &options, parse_device(device)?)
}

/// Where `cargo test --benches` finds a model.
const GOLDEN: &str = "../../tests/golden/blip/base";

fn main() -> Result<()> {
    let options = options()?;
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/blip/base");
    let (model, seconds) = match &options.model {
        Some(model) => (model.as_str(), options.seconds),
        None => (golden, 0.0),
    };
    let all = ["encode", "greedy", "beam-3"];
    if let Some(only) = options.only.as_deref().filter(|only| !all.contains(only)) {
        return Err(Error::option("only", only, all.join(", ")));
    }
    for what in all {
        if options.only.as_deref().is_some_and(|only| only != what) {
            continue;
        }
        let captioner = load(model, what, &options.device)?;
        let size = captioner.config().preview_size;
        let mut rng = Rng::new(0, Purpose::Synth, 0);
        let previews = Array4::from_shape_fn((BATCH, 3, size, size), |_| rng.below(256) as u8);
        let ids: Vec<SampleId> = (0..BATCH as u64).map(SampleId).collect();
        let tokens = captioner.visual_tokens(previews.view())?;
        let once = || -> Result<()> {
            match what {
                "encode" => captioner.visual_tokens(previews.view()).map(drop),
                _ => captioner.caption_tokens(tokens.view(), &ids).map(drop),
            }
        };
        // The first run allocates.
        once()?;
        let (started, mut batches) = (Instant::now(), 0);
        while batches == 0 || started.elapsed().as_secs_f64() < seconds {
            once()?;
            batches += 1;
        }
        let speed = (BATCH * batches) as f64 / started.elapsed().as_secs_f64();
        say(&format!("{{\"what\": \"{what}\", \"images_per_s\": {speed:.3}}}"));
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}
