//! `tldr-loader train`: trains a captioner on a stream of shards.

use std::path::PathBuf;

use tldr_loader::Result;
use tldr_loader::jobs::{TrainJob, train};

use super::source::Source;
use super::{counted, progress_bar};

/// Train a codebook captioner from scratch on image-text shards.
///
/// Writes a captioner directory: config.json, model.safetensors, tokenizer.json, and the loss
/// curve, train.csv. Run `fit` next.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Captioner directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sizes of the model: tiny, small or base (the paper's)
    #[arg(long, default_value = "small")]
    preset: String,
    /// A tokenizer.json to use; without it one is trained on the captions
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Entries of a tokenizer that is trained
    #[arg(long, default_value_t = 2000)]
    vocab_size: usize,
    /// Passes over the shards
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Pairs per step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Highest learning rate; the preset's own by default
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Steps of linear warm-up; a tenth of all steps at most
    #[arg(long, default_value_t = 3000)]
    warmup: u64,
    /// Seed of weights, order and dropped images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that train, on a CPU (0: one per core)
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let mut job = TrainJob::new(self.source.urls.clone(), self.out);
        job.stores = self.source.stores();
        job.caption_key = self.source.caption_key;
        job.preset = self.preset;
        job.tokenizer = self.tokenizer;
        job.vocab_size = self.vocab_size;
        job.epochs = self.epochs;
        job.batch_size = self.batch_size.unwrap_or(job.batch_size);
        job.learning_rate = self.learning_rate.or(job.learning_rate);
        job.warmup = self.warmup;
        job.seed = self.seed;
        job.threads = self.threads;
        job.device = self.device;
        job.lengths = Some(counted(&job.urls, &job.stores)?);
        let bar = progress_bar("steps");
        let summary = train(&job, &mut |progress| {
            let r = &progress.report;
            bar.set_length(progress.steps);
            bar.set_position(r.step);
            bar.set_message(format!(
                "loss {:.2}, perplexity {:.0}, {} codes, {:.0} images/s",
                r.loss, r.perplexity, r.used_codes, r.images_per_s
            ));
            Ok(())
        })?;
        bar.finish_and_clear();
        println!(
            "{}: {} weights, {} steps on {} pairs in {:.1} s; loss {:.3}, {} codes used, perplexity {:.0}",
            job.out.display(),
            summary.weights,
            summary.steps,
            summary.pairs,
            summary.seconds,
            summary.last.loss,
            summary.last.used_codes,
            summary.last.perplexity
        );
        Ok(())
    }
}
