//! Trains a captioner from scratch on a stream of shards (TL;DR, section 3.1).
//!
//! Reads with the project's own loader in mode `Full`, trains a tokenizer on the captions first
//! if none is given, and writes the captioner directory with its loss curve (`train.csv`). On the way it leaves checkpoints beside it, from which it goes on exactly.

mod checkpoint;
mod curve;
mod data;
mod finished;
mod job;
mod report;

use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array4, s};

use crate::jobs::previews::{padded, previews};
use crate::{
    Captioner, CaptionerConfig, CodebookStart, Fold, Folds, PatchSample, Precision, Scores, StepReport,
    TrainOptions, Trainer, lock, parse_device,
};
use checkpoint::{Checkpoints, Settings};
use curve::Curve;
use data::Data;
use finished::Finished;
use tldr_loader::cluster::Validation;
use tldr_loader::error::{Error, ErrorKind, Result};
use tldr_loader::image::DecodeOptions;
use tldr_loader::jobs::nothing_in;
use tldr_loader::loader::{Batch, Loader};
use tldr_loader::model::Scorer;
use tldr_loader::text::{Tokenizer, keywords};

pub use checkpoint::Resume;
pub(super) use finished::Origin;
pub use finished::worth_of_training;
pub use job::TrainJob;
pub use report::{TrainProgress, TrainSummary};

/// Pairs that a validation scores at most: the loss of as many is known to a hundredth or so.
const VALIDATION_PAIRS: u64 = 2048;
/// Patches for each code that k-means starts a codebook from, and those that are taken of an image.
const START_PATCHES: usize = 32;
const START_PATCHES_PER_IMAGE: usize = 32;
/// Keys that an error names: those of a batch, unless it is very large.
const NAMED_KEYS: usize = 256;

/// Runs the job. `progress` is called after every step; an error from it ends the run, with a checkpoint
/// to go on from unless the job wants none. Where the folder holds the captioner of this very job
/// already, there is nothing to do.
///
/// # Errors
/// Options by name; a corpus smaller than a batch; a checkpoint or a captioner of other settings, with the
/// differences; another run in the same folder; a loss that is not finite, with the step and the keys of
/// its batch.
pub fn train(job: &TrainJob, progress: &mut dyn FnMut(&TrainProgress) -> Result<()>) -> Result<TrainSummary> {
    let (summary, checkpoints) = train_whole(job, &Place::default(), progress)?;
    // The captioner is whole: there is nothing to go on from.
    checkpoints.remove()?;
    Ok(summary)
}

/// What a run is part of.
#[derive(Debug, Default)]
struct Place {
    /// Whether the last step leaves a checkpoint: the captioner is one of several.
    last_too: bool,
    /// Whether a captioner that is there goes: others of the same run are new already.
    replaces: bool,
}

/// Runs the job.
fn train_whole(
    job: &TrainJob,
    place: &Place,
    progress: &mut dyn FnMut(&TrainProgress) -> Result<()>,
) -> Result<(TrainSummary, Checkpoints)> {
    let started = Instant::now();
    if job.epochs == 0 {
        return Err(Error::option("epochs", job.epochs, "at least 1"));
    }
    if job.batch_size == 0 {
        return Err(Error::option("batch_size", job.batch_size, "at least 1"));
    }
    let device = parse_device(&job.device)?;
    let data = Data::of(job)?;
    std::fs::create_dir_all(&job.out).map_err(|e| Error::io(format!("make {}", job.out.display()), e))?;
    let _alone = lock(&job.out)?;
    let checkpoints = Checkpoints::beside(&job.out)?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match job.threads {
        _ if device.is_cuda() => 1,
        0 => cores(),
        threads => threads,
    };
    let settings = settings(job, threads, job.precision.unwrap_or(Precision::of(device)))?;
    let found = checkpoints.find(job.resume, &settings)?;
    // A preview has the same size whatever the vocabulary.
    let loader = data.training_stream(job, config(job, 4)?.preview_size)?;
    if found.is_none() && job.resume == Resume::Auto {
        match Finished::find(&job.out, &settings, &loader) {
            Ok(Some(summary)) => return Ok((summary, checkpoints)),
            Err(error) if !place.replaces => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
    let mut words = Words::default();
    let tokenizer = match (&found, &job.tokenizer) {
        (Some(_), _) => checkpoints.tokenizer()?,
        (None, Some(path)) => Tokenizer::from_file(path)?,
        (None, None) => {
            Tokenizer::train(words.captions(&data, job)?.iter().map(String::as_str), job.vocab_size)?
        }
    };
    let config = config(job, tokenizer.vocab_size())?;
    let steps = loader.num_batches() * job.epochs;
    let options = options(job, steps, loader.num_batches(), threads);
    let mut captioner = Captioner::new(config, tokenizer, device, job.seed)?;
    let keywords = match found {
        Some(_) => None,
        None => start_codebook(job, &mut captioner, &loader, &mut words, &data)?,
    };
    let mut run = Run {
        job,
        validation_stream: data.validation_stream(
            job,
            captioner.config().preview_size,
            captioner.batch_size(),
        )?,
        trainer: Trainer::new(captioner, options)?,
        curve: Curve::open(&job.out, found.as_ref().map_or(0, |f| f.step))?,
        loader,
        checkpoints,
        settings,
        steps,
        pairs: found.as_ref().map_or(0, |f| f.pairs),
        validation: None,
        last: found.as_ref().map(|f| f.last),
        last_too: place.last_too,
    };
    let resumed_at = found.as_ref().map_or(0, |f| f.step);
    match &found {
        Some(checkpoint) => {
            run.loader.load_state(&checkpoint.loader)?;
            run.checkpoints.restore(checkpoint, &mut run.trainer)?;
        }
        None => run.checkpoints.remove()?,
    }
    run.go(progress)?;
    let validation = run.validate()?;
    run.curve.flush()?;
    let captioner = run.trainer.into_captioner();
    captioner.save(&job.out)?;
    let stream = run.loader.state();
    let last = run.last.ok_or_else(|| nothing_in(&job.source, "shards with samples to train on"))?;
    let summary = TrainSummary {
        steps,
        resumed_at,
        pairs: run.pairs,
        last,
        validation,
        keywords,
        weights: captioner.weights(),
        seconds: started.elapsed().as_secs_f64(),
    };
    Finished::note(&job.out, &run.settings, &stream, &summary, data.trained_on())?;
    Ok((summary, run.checkpoints))
}

/// Trains two captioners, each on every other shard by hash(seed, shard), in `out/fold-0` and
/// `out/fold-1`, and writes `out/folds.json`, from which [`Folds`] says which of them has not seen a
/// sample. A `folds.json` that is there goes before the first step: it is of other captioners.
///
/// With [`Resume::Must`], a checkpoint of any fold is enough: a fold that has none yet starts.
///
/// # Errors
/// As [`train`]; fewer than two shards; a number of folds other than two; a job that is a fold.
pub fn train_folds(
    job: &TrainJob,
    folds: usize,
    progress: &mut dyn FnMut(&TrainProgress) -> Result<()>,
) -> Result<Vec<TrainSummary>> {
    if folds != 2 {
        return Err(Error::option("folds", folds, "1, or 2: one captioner to write and the other to judge"));
    }
    if job.fold.is_some() {
        return Err(Error::option("folds", folds, "1 for a job that is a fold already"));
    }
    let (mut jobs, mut made) = (vec![], vec![]);
    for index in 0..folds {
        let name = format!("fold-{index}");
        let mut own = TrainJob { out: job.out.join(&name), fold: Some((index, folds)), ..job.clone() };
        if job.resume == Resume::Must {
            own.resume = Resume::Auto;
        }
        let data = Data::of(&own)?;
        let shards = data.trained.shards.iter().chain(&data.held_out.shards);
        let shards = shards.map(|s| (s.source.to_string(), s.path.to_string())).collect();
        made.push(Fold { captioner: name, shards });
        jobs.push(own);
    }
    let made = Folds::new(made)?;
    if job.resume == Resume::Must && !jobs.iter().any(|own| checkpoint::is_beside(&own.out)) {
        let accepted =
            format!("auto or never: no fold below {} has a checkpoint to resume from", job.out.display());
        return Err(Error::option("resume", "must", accepted));
    }
    let place = Place {
        last_too: job.checkpoint_every > 0,
        replaces: jobs.iter().any(|own| checkpoint::is_beside(&own.out)),
    };
    // From here on it would call captioners of two runs a pair.
    Folds::remove(&job.out)?;
    let (mut summaries, mut done) = (vec![], vec![]);
    for own in &jobs {
        let (summary, checkpoints) = train_whole(own, &place, progress)?;
        summaries.push(summary);
        done.push(checkpoints);
    }
    made.save(&job.out)?;
    // Only now: a run that was stopped in the second fold has the first one still.
    done.iter().try_for_each(Checkpoints::remove)?;
    Ok(summaries)
}

/// Captions, read when they are first asked for.
#[derive(Default)]
struct Words(Option<Arc<[String]>>);

impl Words {
    fn captions(&mut self, data: &Data, job: &TrainJob) -> Result<Arc<[String]>> {
        if self.0.is_none() {
            self.0 = Some(data.captions(job)?.into());
        }
        Ok(self.0.clone().unwrap_or_default())
    }
}

fn config(job: &TrainJob, vocab: usize) -> Result<CaptionerConfig> {
    let mut config = CaptionerConfig::preset(&job.preset, vocab)?;
    if let Some(codebook) = &mut config.codebook {
        (codebook.update, codebook.commitment) = (job.codebook_update, job.commitment);
    }
    config.validate()?;
    Ok(config)
}

fn options(job: &TrainJob, steps: u64, epoch_steps: u64, threads: usize) -> TrainOptions {
    let base = if job.preset == "base" { TrainOptions::new(steps) } else { TrainOptions::small(steps) };
    TrainOptions {
        epoch_steps,
        schedule: job.schedule,
        warmup: job.warmup,
        accumulate: job.accumulate,
        precision: job.precision,
        augment: job.augment,
        learning_rate: job.learning_rate.unwrap_or(base.learning_rate),
        seed: job.seed,
        threads,
        ..base
    }
}

/// Everything that the weights depend on, but the data, which the stream's own state tells.
fn settings(job: &TrainJob, threads: usize, precision: Precision) -> Result<Settings> {
    let tokenizer = match &job.tokenizer {
        Some(path) => format!("{:016x}", Tokenizer::from_file(path)?.fingerprint()),
        None => format!("trained, {} entries", job.vocab_size),
    };
    let base = options(job, 1, 1, threads);
    let pairs = [
        ("preset", job.preset.clone()),
        ("sizes", checkpoint::sizes(&config(job, 4)?)),
        ("tokenizer", tokenizer),
        ("epochs", job.epochs.to_string()),
        ("batch_size", job.batch_size.to_string()),
        ("accumulate", job.accumulate.to_string()),
        ("precision", precision.name().into()),
        ("learning_rate", base.learning_rate.to_string()),
        ("schedule", job.schedule.name().into()),
        ("warmup", job.warmup.to_string()),
        ("augment", job.augment.name().into()),
        ("codebook_start", job.codebook_start.name().into()),
        ("codebook_update", job.codebook_update.name().into()),
        ("commitment", job.commitment.to_string()),
        ("validate", job.validate.map_or("the default".into(), |validate| validate.to_string())),
        ("seed", job.seed.to_string()),
        ("threads", threads.to_string()),
        ("device", job.device.split(':').next().unwrap_or_default().into()),
        ("fold", job.fold.map_or("none".into(), |(index, of)| format!("{index} of {of}"))),
    ];
    // At their defaults they are in no checkpoint: one that was written before they were there still goes.
    let DecodeOptions { max_pixels, exif_orientation, alpha } = job.decode;
    let images = (job.decode != DecodeOptions::default()).then(|| {
        let images = format!(
            "max_image_pixels={max_pixels}, exif_orientation={exif_orientation}, alpha={}",
            alpha.name()
        );
        ("images", images)
    });
    Ok(pairs.into_iter().chain(images).map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Puts the codes where the job says they start. Says how many keywords have a code.
fn start_codebook(
    job: &TrainJob,
    captioner: &mut Captioner,
    loader: &Loader,
    words: &mut Words,
    data: &Data,
) -> Result<Option<usize>> {
    let rows = job.batch_size;
    match job.codebook_start {
        CodebookStart::Patches => {}
        CodebookStart::Uniform => captioner.start_uniformly(rows, job.seed)?,
        CodebookStart::KMeans => {
            let per_image = START_PATCHES_PER_IMAGE.min(captioner.config().patches());
            let mut sample = PatchSample::new(per_image, job.seed);
            let wanted = captioner.config().codes() * START_PATCHES;
            for batch in loader.iter()? {
                sample_patches(captioner, &batch?, &mut sample)?;
                if sample.patches() >= wanted {
                    break;
                }
            }
            // The stream starts again with the first step.
            loader.set_epoch(1);
            loader.set_epoch(0);
            captioner.start_from_patches(&sample, rows, job.seed)?;
        }
        CodebookStart::Keywords => {
            let captions = words.captions(data, job)?;
            let found = keywords(captions.iter().map(String::as_str), captioner.config().codes());
            return Ok(Some(captioner.start_from_keywords(&found, rows, job.seed)?));
        }
    }
    Ok(None)
}

/// Adds patches of a batch of any size to a sample.
fn sample_patches(captioner: &Captioner, batch: &Batch, sample: &mut PatchSample) -> Result<()> {
    let (all, full, size) = (previews(batch)?, captioner.batch_size(), captioner.preview_size());
    for start in (0..batch.len()).step_by(full) {
        let end = (start + full).min(batch.len());
        let mut rows = Array4::zeros((full, 3, size, size));
        rows.slice_mut(s![..end - start, .., .., ..]).assign(&all.slice(s![start..end, .., .., ..]));
        captioner.sample_patches(rows.view(), &batch.ids[start..end], sample)?;
    }
    Ok(())
}

/// A training run under way.
struct Run<'a> {
    job: &'a TrainJob,
    loader: Loader,
    validation_stream: Option<Loader>,
    trainer: Trainer,
    curve: Curve,
    checkpoints: Checkpoints,
    settings: Settings,
    steps: u64,
    pairs: u64,
    /// What was measured last, and after which step.
    validation: Option<(u64, Validation)>,
    last: Option<StepReport>,
    /// Whether the last step leaves a checkpoint.
    last_too: bool,
}

impl Run<'_> {
    /// Takes all steps that are left.
    fn go(&mut self, progress: &mut dyn FnMut(&TrainProgress) -> Result<()>) -> Result<()> {
        let (started, mut images) = (Instant::now(), 0);
        while self.trainer.steps_done() < self.steps {
            let before = self.trainer.steps_done();
            for batch in self.loader.iter()? {
                let batch = batch?;
                let report = self.step(&batch)?;
                (self.pairs, images) = (self.pairs + batch.len() as u64, images + batch.len());
                self.last = Some(report);
                let every = self.job.checkpoint_every;
                let end = report.step == self.steps;
                let due = every > 0 && report.step.is_multiple_of(every);
                let measured = if due || end { self.validate()? } else { None };
                self.curve.push(&report, measured)?;
                if if end { self.last_too } else { due } {
                    self.checkpoint(report)?;
                }
                let speed = images as f64 / started.elapsed().as_secs_f64().max(1e-9);
                let left = (self.steps - report.step) as f64 * self.job.batch_size as f64;
                let told = progress(&TrainProgress {
                    fold: self.job.fold.unwrap_or((0, 1)),
                    steps: self.steps,
                    report,
                    validation: self.validation.map(|(_, measured)| measured),
                    images_per_s: speed,
                    seconds_left: left / speed,
                });
                if told.is_err() && every > 0 && !due && !end {
                    self.checkpoint(report)?;
                }
                told?;
            }
            if self.trainer.steps_done() == before {
                return Err(nothing_in(&self.job.source, "shards with samples to train on"));
            }
        }
        Ok(())
    }

    /// Leaves what the run needs to go on after `last`.
    fn checkpoint(&mut self, last: StepReport) -> Result<()> {
        self.curve.flush()?;
        let (trainer, state) = (&self.trainer, self.loader.state());
        self.checkpoints.write(trainer, last, self.pairs, state, &self.settings)
    }

    fn step(&mut self, batch: &Batch) -> Result<StepReport> {
        let captions: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
        let report = self.trainer.step(previews(batch)?, &captions, &batch.ids).map_err(|mut error| {
            if let ErrorKind::Captioner(message) = &mut error.kind {
                let keys: Vec<&str> = batch.keys.iter().take(NAMED_KEYS).map(|key| &**key).collect();
                let place = format!("batch {} of epoch {}", batch.step, batch.epoch);
                let more = batch.len().saturating_sub(NAMED_KEYS);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                message.push_str(&format!("; keys of {place}: {}{more}", keys.join(", ")));
            }
            error
        })?;
        Ok(report)
    }

    /// Scores held-out pairs, unless that was done after this very step; `None` without any.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let step = self.trainer.steps_done();
        if let Some((_, measured)) = self.validation.filter(|(at, _)| *at == step) {
            return Ok(Some(measured));
        }
        let Some(stream) = &self.validation_stream else { return Ok(None) };
        stream.set_epoch(1);
        stream.set_epoch(0);
        let mut scores = Scores::default();
        for batch in stream.iter()? {
            let batch = batch?;
            let captions: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
            let captioner = self.trainer.captioner_mut();
            captioner.score(padded(captioner, &batch)?.view(), &captions, &mut scores)?;
            if scores.pairs() >= VALIDATION_PAIRS {
                break;
            }
        }
        self.validation = scores.summary().map(|measured| (step, measured));
        Ok(self.validation.map(|(_, measured)| measured))
    }
}
