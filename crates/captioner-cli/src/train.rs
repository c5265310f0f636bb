//! `tldr-loader train`: trains a captioner on a stream of shards.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tldr_captioner::jobs::{Resume, TrainJob, TrainProgress, TrainSummary, train, train_folds};
use tldr_captioner::{Augment, CodebookStart, CodebookUpdate, Decay, Precision};
use tldr_loader::cluster::Validation;
use tldr_loader::{Error, ErrorKind, Result};

use tldr_cli::Progress;
use tldr_cli::Sources;
use tldr_cli::counted;
use tldr_cli::say;

/// Train a codebook captioner from scratch on image-text shards.
///
/// Writes a captioner directory: config.json, model.safetensors, tokenizer.json, and the loss
/// curve, train.csv. Checkpoints lie beside it, in DIR.checkpoint, until it is whole;
/// the same command goes on from them. Run `fit` next.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Captioner directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sizes of the model: tiny, small or base (the paper's)
    #[arg(long, default_value = "small")]
    preset: String,
    /// A tokenizer.json to use; without it one is trained on the captions
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Entries of a tokenizer that is trained; 2,000 by default
    #[arg(long, conflicts_with = "tokenizer")]
    vocab_size: Option<usize>,
    /// Passes over the shards
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Pairs per step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Parts that a batch is worked on in, one after the other, to save memory
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Numbers that matrix products are computed in: float32 or bfloat16; by default bfloat16 on a GPU
    #[arg(long)]
    precision: Option<String>,
    /// Highest learning rate; the preset's own by default
    #[arg(long, allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// What the learning rate does after the warm-up: cosine, or step (the paper's: times 0.9 an epoch)
    #[arg(long, default_value = "cosine")]
    schedule: String,
    /// Steps of linear warm-up; a tenth of all steps at most
    #[arg(long, default_value_t = 3000)]
    warmup: u64,
    /// What is done to previews: none, shift (by up to an eighth), or shift-flip (mirrored too)
    #[arg(long, default_value = "none")]
    augment: String,
    /// Where codes start: patches of the first batch, kmeans of patches, uniform, or keywords (the paper's)
    #[arg(long, default_value = "patches")]
    codebook_start: String,
    /// How codes follow their patches: ema (moving averages) or loss (the paper's codebook loss)
    #[arg(long, default_value = "ema")]
    codebook_update: String,
    /// Weight of the commitment loss
    #[arg(long, default_value_t = 0.25)]
    commitment: f64,
    /// Shards to validate on instead of training on them: a share below 1 (of the samples, where shards are few), or a
    /// count; 0 for none. By default about 2,048 pairs, a tenth of the corpus at most
    #[arg(long, value_name = "SHARDS", allow_negative_numbers = true)]
    validate: Option<f64>,
    /// Steps between two checkpoints, each with a validation (0: none)
    #[arg(long, default_value_t = 1000, value_name = "STEPS")]
    checkpoint_every: u64,
    /// Checkpoints that are there: auto (go on from one), never (start anew) or must
    #[arg(long, default_value = "auto", value_name = "HOW")]
    resume: String,
    /// Captioners to train, each on its own half of the shards if 2: one can then judge the other's
    #[arg(long, default_value_t = 1)]
    folds: usize,
    /// Seed of weights, order, dropped images and what is held out
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
    pub(crate) fn run(self) -> Result<()> {
        let mut job = TrainJob::new(vec![], self.out);
        (job.source, job.decode) = self.sources.one()?;
        job.preset = self.preset;
        job.tokenizer = self.tokenizer;
        job.vocab_size = self.vocab_size.unwrap_or(job.vocab_size);
        job.epochs = self.epochs;
        job.batch_size = self.batch_size.unwrap_or(job.batch_size);
        job.accumulate = self.accumulate;
        job.precision = self.precision.map(|name| Precision::from_name(&name)).transpose()?;
        job.learning_rate = self.learning_rate.or(job.learning_rate);
        job.schedule = Decay::from_name(&self.schedule)?;
        job.augment = Augment::from_name(&self.augment)?;
        job.codebook_start = CodebookStart::from_name(&self.codebook_start)?;
        job.codebook_update = CodebookUpdate::from_name(&self.codebook_update)?;
        job.commitment = self.commitment;
        job.validate = self.validate;
        job.checkpoint_every = self.checkpoint_every;
        job.resume = Resume::from_name(&self.resume)?;
        job.warmup = self.warmup;
        job.seed = self.seed;
        job.threads = self.threads;
        job.device = self.device;
        if job.source.lengths.is_none() {
            job.source.lengths = Some(counted(&job.source)?);
        }
        let stop = stop_on_signal()?;
        let bar = Progress::new("steps");
        let mut said = |progress: &TrainProgress| {
            bar.say(message(progress));
            bar.at(progress.report.step, progress.steps);
            if stop.load(Ordering::SeqCst) {
                let step = progress.report.step;
                let next = match job.checkpoint_every {
                    0 => "no checkpoint was asked for",
                    _ => "the same command goes on from here",
                };
                let text = format!("stopped by a signal after step {step}: {next}");
                return Err(ErrorKind::State(text).into());
            }
            Ok(())
        };
        let summaries = match self.folds {
            1 => vec![(job.out.clone(), train(&job, &mut said)?)],
            folds => {
                let summaries = train_folds(&job, folds, &mut said)?.into_iter().enumerate();
                summaries.map(|(i, summary)| (job.out.join(format!("fold-{i}")), summary)).collect()
            }
        };
        bar.finish();
        for (out, summary) in &summaries {
            say!("{}: {}", out.display(), text(summary));
            match summary.worth() {
                None => say!(
                    "nothing was held out to validate on: nobody knows what a gate by this captioner is worth"
                ),
                Some(worth) => {
                    say!("{worth}");
                    worth.warning().into_iter().for_each(|warning| say!("warning: {warning}"));
                }
            }
        }
        Ok(())
    }
}

/// Set by Ctrl-C and SIGTERM (a cluster's way to say that time is up), so that the run can leave a
/// checkpoint; the second one ends it at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    let handler = move || {
        if set.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::io("watch for signals", std::io::Error::other(e)))?;
    Ok(stop)
}

/// What stands beside the bar, which shows the remaining time.
fn message(progress: &TrainProgress) -> String {
    let r = &progress.report;
    let fold = match progress.fold {
        (_, 1) => String::new(),
        (index, of) => format!("fold {} of {of}, ", index + 1),
    };
    let measured = progress.validation.map_or(String::new(), |v| format!(", {}", held_out(&v)));
    format!(
        "{fold}loss {:.2}, perplexity {:.0}, {} codes, {:.0} images/s{measured}",
        r.loss, r.perplexity, r.used_codes, progress.images_per_s
    )
}

fn held_out(measured: &Validation) -> String {
    format!("held out: loss {:.3}, AUC {:.3}", measured.lm_loss.unwrap_or(f64::NAN), measured.auc)
}

fn text(summary: &TrainSummary) -> String {
    let resumed = match summary.resumed_at {
        0 => String::new(),
        step => format!(" (resumed at step {step})"),
    };
    let keywords = summary.keywords.map_or(String::new(), |n| format!("; codes from {n} keywords"));
    format!(
        "{} weights, {} steps on {} pairs in {:.1} s{resumed}; loss {:.3}, {} codes used, perplexity of the codes \
         {:.0}{keywords}",
        summary.weights,
        summary.steps,
        summary.pairs,
        summary.seconds,
        summary.last.loss,
        summary.last.used_codes,
        summary.last.perplexity
    )
}
