//! Trains a small CLIP in tch on a stream that a codebook captioner compresses.
//!
//! ```sh
//! cargo run --release --example train_clip -- 'corpus/train/*.tar' captioner
//! ```
//!
//! Without arguments it draws a small corpus, trains and fits a captioner for it, and goes on from
//! there: a few minutes on two cores, less with `--smoke`, which shows the steps and learns little.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use tch::nn::{self, Module, ModuleT, OptimizerConfig};
use tch::{Device, Kind, Tensor};
use tldr_captioner::jobs::{FitJob, TrainJob, fit, train};
use tldr_captioner::{Captioner, TensorBatches};
use tldr_loader::Loader;
use tldr_loader::config::Mode;
use tldr_synth::{SynthOptions, write_corpus};

const IMAGE_SIZE: usize = 32;
const CONTEXT_LENGTH: usize = 32;
const WIDTH: i64 = 64;

/// A convolutional image tower and a bag-of-words text tower: enough to see a loss fall.
struct SmallClip {
    image: nn::SequentialT,
    words: nn::Embedding,
    text: nn::Sequential,
}

impl SmallClip {
    fn new(path: &nn::Path, vocab_size: usize) -> Self {
        let config = nn::ConvConfig { stride: 2, padding: 1, ..Default::default() };
        let mut image = nn::seq_t();
        for (from, to) in [(3, WIDTH / 2), (WIDTH / 2, WIDTH), (WIDTH, WIDTH)] {
            let name = path / format!("image{from}-{to}");
            image = image.add(nn::conv2d(name, from, to, 3, config)).add_fn(|x| x.gelu("none"));
        }
        let image = image.add_fn(|x| x.flatten(1, -1)).add(nn::linear(
            path / "image_out",
            WIDTH * 16,
            WIDTH,
            Default::default(),
        ));
        let text = nn::seq()
            .add(nn::linear(path / "text_in", WIDTH, 4 * WIDTH, Default::default()))
            .add_fn(|x| x.gelu("none"))
            .add(nn::linear(path / "text_out", 4 * WIDTH, WIDTH, Default::default()));
        let words = nn::embedding(path / "words", vocab_size as i64, WIDTH, Default::default());
        Self { image, words, text }
    }

    /// The symmetric contrastive loss of CLIP for images `[batch, 3, 32, 32]` and tokens
    /// `[batch, context]`.
    fn loss(&self, images: &Tensor, tokens: &Tensor) -> Tensor {
        let unit = |x: Tensor| &x / x.norm_scalaropt_dim(2, [1i64], true).clamp_min(1e-6);
        let image = unit(self.image.forward_t(images, true));
        let kept = tokens.ne(0).unsqueeze(-1).to_kind(Kind::Float);
        let words = (self.words.forward(tokens) * &kept).sum_dim_intlist(1, false, Kind::Float)
            / kept.sum_dim_intlist(1, false, Kind::Float);
        let text = unit(self.text.forward(&words));
        let logits = image.matmul(&text.transpose(0, 1)) * 20.0;
        let target = Tensor::arange(logits.size()[0], (Kind::Int64, logits.device()));
        (logits.cross_entropy_for_logits(&target) + logits.transpose(0, 1).cross_entropy_for_logits(&target))
            / 2.0
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|a| a == "--smoke");
    let paths: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let folder = std::env::temp_dir().join(format!("tldr-train-clip-{}", std::process::id()));
    let (urls, captioner) = match paths[..] {
        [urls, captioner] => (urls.clone(), captioner.clone()),
        _ => prepare(&folder, smoke)?,
    };

    let model = Captioner::load(&captioner, Device::Cpu)?;
    let tokenizer = model.tokenizer().clone();
    let clusters = model.clusters().cloned().ok_or("run `tldr-loader fit` first")?;
    let vocab_size = tokenizer.vocab_size();
    let loader = Loader::builder(urls.as_str())
        .captioner(model, clusters)
        .keep_ratio(0.25)
        .batch_size(32)
        .image_size(IMAGE_SIZE)
        .tokenizer(tokenizer)
        .context_length(CONTEXT_LENGTH)
        .mode(Mode::Reduced)
        .build()?;

    let variables = nn::VarStore::new(Device::Cpu);
    let clip = SmallClip::new(&variables.root(), vocab_size);
    let mut optimizer = nn::AdamW::default().build(&variables, 2e-3)?;
    for epoch in 0..if smoke { 2 } else { 8 } {
        let (mut total, mut batches) = (0.0, 0);
        for batch in TensorBatches::of(&loader)? {
            let batch = batch?;
            let tokens = batch.tokens.ok_or("the loader has a tokenizer")?;
            let loss = clip.loss(&batch.images, &tokens);
            optimizer.backward_step(&loss);
            total += loss.double_value(&[]);
            batches += 1;
        }
        let stats = loader.stats();
        println!(
            "epoch {epoch}: loss {:.3}, {} read, {} yielded, {} went through the captioner",
            total / f64::from(batches),
            stats.counts.read,
            stats.yielded,
            stats.encoded
        );
    }
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}

/// Draws a corpus, trains a captioner on it and fits it.
fn prepare(folder: &Path, smoke: bool) -> Result<(String, String), Box<dyn Error>> {
    let samples = if smoke { 800 } else { 4000 };
    let options = SynthOptions { samples, shards: 4, test_samples: 0, ..SynthOptions::default() };
    write_corpus(folder, &options, &mut |_, _| {})?;
    let urls = folder.join("train").display().to_string();
    let captioner = folder.join("captioner");
    let mut job = TrainJob::new(vec![urls.clone()], &captioner);
    job.preset = if smoke { "tiny".into() } else { "small".into() };
    job.epochs = if smoke { 1 } else { 8 };
    let trained = train(&job, &mut |_| Ok(()))?;
    println!("captioner: {} steps in {:.0} s, loss {:.2}", trained.steps, trained.seconds, trained.last.loss);
    let fitted = fit(&FitJob::new(vec![urls.clone()], &captioner), &mut |_, _| Ok(()))?;
    println!("fit: {} clusters from {} points", fitted.clusters, fitted.points);
    Ok((urls, captioner.display().to_string()))
}
