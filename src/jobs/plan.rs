//! Plans a corpus: records the signals of what the ledger does not cover, then decides for all of it.
//!
//! Signals come by the loader's own reading (TL;DR's first pass, without training), so that a run with
//! or without the plan finds them in the ledger. Decisions are those of [`crate::select::plan`].

mod walk;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array4, s};

use crate::cluster::{Clusters, GateWorth};
use crate::error::{Error, Result};
use crate::hash;
use crate::image::ImageTransform;
use crate::ledger::Ledger;
use crate::loader::{Batch, Loader, Mode, PixelType, PlanFile, PlannedShard, included, measured};
use crate::model::Scorer;
use crate::select::gate::Gate;
use crate::select::{GateBy, NearDuplicates, Planner, Policy, Priority, Quota, Selector, Window};
use crate::shard::{self, ReadOptions, Shard, StoreOptions};
use walk::{Walk, Windows};

/// Bytes of the ledger in memory: each window is looked at once.
const CACHE_BYTES: u64 = 64 << 20;
/// Lanes of the recording pass: so many shards are read at a time.
const LANES: usize = 4;
/// Cosine by which near-duplicates are counted where the policy names none: of a moment later, or of another size.
const NEAR: f32 = 0.95;
/// Seconds that the speed of the encoder is measured for.
const MEASURE_SECONDS: f64 = 5.0;

/// What to plan, by which policy.
#[derive(Debug, Clone)]
pub struct PlanJob {
    /// Shards, as for [`Loader::builder`].
    pub urls: Vec<String>,
    /// Name of the corpus in the identity of its samples; the name of the folder that holds the
    /// shards where `None`.
    pub source: Option<String>,
    /// How remote shards are read.
    pub stores: StoreOptions,
    /// How samples are made of members, and which of them count; `policy` names the field of a score.
    pub read: ReadOptions,
    /// Folder of the ledger, which is begun where nothing is.
    pub ledger: PathBuf,
    /// What to keep. Its `dedup` is the cosine of near-copies in the whole corpus; `corpus` is
    /// counted here.
    pub policy: Policy,
    /// Samples per window: those of the loader that is to take the plan.
    pub window: usize,
    /// Whether embeddings say in the end what is a near-copy, and not semantic hashes alone. They are
    /// kept in the ledger; windows without are encoded again.
    pub embeddings: bool,
    /// Whether near-copies fill the places for which nothing else is left.
    pub fill_with_copies: bool,
    /// Only record the shards whose index in the list is `.0` modulo `.1`, and do not plan.
    pub part: Option<(usize, usize)>,
    /// Threads that decode previews; one per core where 0.
    pub threads: usize,
}

impl PlanJob {
    /// The defaults for a corpus and a ledger: the paper's policy, windows of 2,048.
    pub fn new(urls: Vec<String>, ledger: impl Into<PathBuf>) -> Self {
        Self {
            urls,
            source: None,
            stores: StoreOptions::default(),
            read: ReadOptions::default(),
            ledger: ledger.into(),
            policy: Policy::default(),
            window: 2048,
            embeddings: false,
            fill_with_copies: false,
            part: None,
            threads: 0,
        }
    }

    /// Whether windows must have embeddings.
    fn needs_embeddings(&self) -> bool {
        self.embeddings && self.policy.dedup.is_some() || self.policy.priority == Priority::Diverse
    }

    fn check(&self) -> Result<()> {
        if self.fill_with_copies && matches!(self.policy.quota, Quota::CapAt(_)) {
            let accepted = "left out with quota = cap(samples), whose clusters have no places to spare";
            return Err(Error::option("fill_with_copies", true, accepted));
        }
        if self.window == 0 {
            return Err(Error::option("window", 0, "at least 1"));
        }
        let idle = [("fill_with_copies", self.fill_with_copies), ("embeddings", self.embeddings)];
        if let Some((option, _)) = idle.into_iter().find(|(_, given)| *given && self.policy.dedup.is_none()) {
            return Err(Error::option(option, true, "left out without dedup, which finds near-duplicates"));
        }
        match self.part {
            Some((part, of)) if part >= of => {
                let given = format!("{part}/{of}");
                Err(Error::option("part", given, "i/n with i from 0 to n - 1"))
            }
            _ => Ok(()),
        }
    }
}

/// What a plan is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanStage {
    /// Looking for the signals of each shard in the ledger: shards.
    Look,
    /// Counting the samples of shards: shards.
    Count,
    /// Computing signals: samples.
    Record,
}

/// How a plan ended.
#[derive(Debug)]
pub struct PlanSummary {
    /// The plan; `None` where only a part was recorded.
    pub plan: Option<PlanFile>,
    /// Shards looked at.
    pub shards: usize,
    /// Of these, those that the ledger did not cover.
    pub recorded: usize,
    /// Samples that went through the encoder.
    pub encoded: u64,
    /// Most bits in which hashes of near-copies differ; `None` where copies stay.
    pub distance: Option<u32>,
    /// Near-duplicates among the candidates, by the policy's `dedup` or, where it has none, a cosine of 0.95; `None`
    /// where only a part was recorded.
    pub near: Option<NearDuplicates>,
    /// Seconds of recording and of deciding.
    pub seconds: [f64; 2],
}

/// What recording would cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanEstimate {
    /// Samples of the corpus, by the lengths of its shards.
    pub samples: u64,
    /// Of these, those whose signals are not in the ledger.
    pub missing: u64,
    /// Samples that were encoded to measure the speed; nothing of them is kept.
    pub measured: u64,
    /// Seconds to read, decode and encode one; 0 where nothing is missing.
    pub seconds_per_sample: f64,
}

impl PlanEstimate {
    /// Seconds of recording.
    pub fn seconds(&self) -> f64 {
        self.missing as f64 * self.seconds_per_sample
    }

    /// Epochs of training at `train_rate` samples/s after which a stream reduced to `keep_ratio` has
    /// taken less time than the full one, recording included: what it costs per sample of the corpus
    /// over what each epoch saves. Captions, where they are generated, come on top.
    pub fn break_even(&self, keep_ratio: f64, train_rate: f64) -> f64 {
        self.seconds() / ((1.0 - keep_ratio) * self.samples as f64 / train_rate)
    }
}

/// Runs the job. `encoder` and `clusters` are those of one fit. `progress(stage, done, total)` is
/// called on this thread; an error from it ends the run, and what was recorded stays.
///
/// # Errors
/// Options by name; errors of reading as for [`Loader::iter`]; a window that cannot be kept in the
/// ledger; as [`Planner::decide`].
pub fn plan(
    job: &PlanJob,
    encoder: impl Scorer + 'static,
    clusters: Arc<Clusters>,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<PlanSummary> {
    job.check()?;
    let started = Instant::now();
    let ledger = Ledger::open_with(&job.ledger, Some(CACHE_BYTES), &job.stores)?;
    let mut shards = listed(job)?;
    // Of all shards: every part of a job array has the same gate.
    let job = &PlanJob { policy: with_scores(job, &shards)?, ..job.clone() };
    if let Some((part, of)) = job.part {
        shards = shards.into_iter().skip(part).step_by(of).collect();
    }
    let walk = Walk::new(job, &ledger, encoder.fingerprint());
    let policy = with_corpus(job, &shards)?;
    let mut deciding = match job.part {
        Some(_) => None,
        None => Some(Deciding::new(job, policy, &clusters)?),
    };
    let mut missing = vec![];
    for (done, shard) in shards.iter().enumerate() {
        match (walk.windows(shard)?, &mut deciding) {
            (Some(windows), Some(deciding)) => deciding.add(shard, &windows)?,
            (Some(_), None) => {}
            (None, _) => missing.push(shard.clone()),
        }
        progress(PlanStage::Look, done as u64 + 1, shards.len() as u64)?;
    }
    let mut encoded = 0;
    if !missing.is_empty() {
        encoded = record(job, &missing, &ledger, encoder, &clusters, progress)?;
    }
    let recorded = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for shard in &missing {
        let windows = walk.windows(shard)?.ok_or_else(|| {
            let accepted = "a folder that can be written, and shards that a file's time, an ETag or a date tells \
                            from their other versions: windows were computed and are not in it";
            Error::option("ledger", format!("{:?}", job.ledger.display()), accepted).in_shard(&shard.url)
        })?;
        if let Some(deciding) = &mut deciding {
            deciding.add(shard, &windows)?;
        }
    }
    let mut summary = PlanSummary {
        plan: None,
        shards: shards.len(),
        recorded: missing.len(),
        encoded,
        distance: None,
        near: None,
        seconds: [recorded, 0.0],
    };
    if let Some(mut deciding) = deciding {
        summary.distance = job.policy.dedup.map(|_| deciding.planner.distance());
        let near = deciding.planner.near_duplicates(job.policy.dedup.unwrap_or(NEAR));
        let worth = clusters.worth.filter(|_| job.policy.gates_by_alignment());
        let plan = deciding.finish(&walk, worth)?;
        let counts = plan.plan.counts();
        if counts.readable() == 0 {
            let accepted = format!(
                "shards with a sample that can be used: of {} where and subset exclude {}, and {} cannot be read",
                counts.samples, counts.excluded, counts.failed
            );
            return Err(Error::option("urls", job.urls.join(" "), accepted));
        }
        let dropped = near.dropped.or(job.policy.dedup.map(|_| counts.copies));
        summary.near = Some(NearDuplicates { dropped, ..near });
        summary.plan = Some(plan);
        summary.seconds[1] = started.elapsed().as_secs_f64();
    }
    Ok(summary)
}

/// The shards of the job.
fn listed(job: &PlanJob) -> Result<Vec<Shard>> {
    let shards = shard::shards_of(&job.urls, job.source.as_deref(), &job.stores)?;
    shard::check_endpoint(&job.stores, &shards, job.ledger.to_str())?;
    Ok(shards)
}

/// What [`plan`] would cost: how much the ledger does not cover, and how fast the encoder is on the
/// first of it, for a few seconds. Nothing is written. `progress` is called with shards that are
/// looked for or counted.
///
/// # Errors
/// As [`plan`].
pub fn estimate(
    job: &PlanJob,
    encoder: &mut dyn Scorer,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<PlanEstimate> {
    job.check()?;
    // A folder that is not there stays so.
    let ledger = match Ledger::is_at(&job.ledger, &job.stores)? {
        true => Ledger::open_with(&job.ledger, Some(CACHE_BYTES), &job.stores)?,
        false => Ledger::new(),
    };
    let shards = listed(job)?;
    let lengths = counted(&shards, progress)?;
    let walk = Walk::new(job, &ledger, encoder.fingerprint());
    let mut estimate =
        PlanEstimate { samples: lengths.iter().sum(), missing: 0, measured: 0, seconds_per_sample: 0.0 };
    let mut missing = vec![];
    for (done, (shard, &length)) in shards.iter().zip(&lengths).enumerate() {
        let lacking = walk.lacking(shard, length)?;
        if lacking > 0 {
            estimate.missing += lacking;
            missing.push((shard.clone(), length));
        }
        progress(PlanStage::Look, done as u64 + 1, shards.len() as u64)?;
    }
    if estimate.missing > 0 {
        (estimate.measured, estimate.seconds_per_sample) = measure(job, missing, encoder)?;
    }
    Ok(estimate)
}

/// Samples encoded, and seconds for each.
fn measure(job: &PlanJob, missing: Vec<(Shard, u64)>, encoder: &mut dyn Scorer) -> Result<(u64, f64)> {
    let (shards, lengths) = missing.into_iter().unzip();
    let (batch, size) = (encoder.batch_size(), encoder.preview_size());
    let builder = Loader::builder(job.urls.clone())
        .lengths(lengths)
        .shards(shards)
        .stores(job.stores.clone())
        .mode(Mode::Eval)
        .transform(ImageTransform::Preview)
        .pixels(PixelType::U8)
        .image_size(size)
        .batch_size(batch)
        .threads(job.threads)
        .rank(0)
        .world_size(1)
        .read_options(job.read.clone());
    let loader = builder.build()?;
    let (mut started, mut measured) = (Instant::now(), 0);
    for (number, examples) in loader.iter()?.enumerate() {
        let examples = examples?;
        encode(encoder, &examples, batch, size)?;
        measured += examples.len() as u64;
        let seconds = started.elapsed().as_secs_f64();
        // The first batch warms everything up; a corpus may have no other.
        if seconds > MEASURE_SECONDS {
            return Ok((measured, seconds / measured as f64));
        }
        if number == 0 && examples.len() == batch && loader.num_samples() > batch as u64 {
            (started, measured) = (Instant::now(), 0);
        }
    }
    Ok((measured, started.elapsed().as_secs_f64() / measured.max(1) as f64))
}

/// Encodes the previews of a batch, filled with blanks to the encoder's shape.
fn encode(encoder: &mut dyn Scorer, examples: &Batch, batch: usize, size: usize) -> Result<()> {
    let pixels = examples.images.as_u8().unwrap_or_default();
    let shape = (examples.len(), 3, size, size);
    let given = Array4::from_shape_vec(shape, pixels.to_vec())
        .map_err(|error| Error::format("previews", format!("{shape:?}"), error))?;
    let mut previews = Array4::zeros((batch, 3, size, size));
    previews.slice_mut(s![..examples.len(), .., .., ..]).assign(&given);
    let mut captions: Vec<&str> = examples.original.iter().map(String::as_str).collect();
    captions.resize(batch, "");
    encoder.signals(previews.view(), &captions).map(|_| ())
}

/// Samples of each of `shards`.
fn counted(
    shards: &[Shard],
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<Vec<u64>> {
    let mut stopped = Ok(());
    let lengths = shard::lengths(shards, &mut |done, of| {
        if stopped.is_ok() {
            stopped = progress(PlanStage::Count, done as u64, of as u64);
        }
    })?;
    stopped.map(|()| lengths)
}

/// The policy with its score's gate measured, where it has one: as the loader measures it.
fn with_scores(job: &PlanJob, shards: &[Shard]) -> Result<Policy> {
    let Some(score) = job.policy.score.clone() else { return Ok(job.policy.clone()) };
    // An option that cannot work is refused before anything is read.
    let assumed = Some(score.clone().assumed(job.policy.gate));
    Selector::new(Policy { score: assumed, quota: Quota::Random, ..job.policy.clone() }, None).map(drop)?;
    let lengths = counted(shards, &mut |_, _, _| Ok(()))?;
    let read = ReadOptions { score_key: Some(score.key.clone()), ..job.read.clone() };
    let found = shard::survey(shards, &lengths, &read)?;
    Ok(Policy { score: Some(measured(score, job.policy.gate, &found)?), ..job.policy.clone() })
}

/// The policy with the number of samples, where it needs that.
fn with_corpus(job: &PlanJob, shards: &[Shard]) -> Result<Policy> {
    let corpus = match job.policy.quota {
        Quota::CapAt(_) => {
            let lengths = counted(shards, &mut |_, _, _| Ok(()))?;
            // As the loader counts them.
            if job.read.takes_all() {
                Some(lengths.iter().sum())
            } else {
                let counts = shard::count(shards, &lengths, &job.read, &|_| true, false, &mut |_, _| {})?;
                Some(included(&job.read, &counts, shards, &lengths)?)
            }
        }
        _ => None,
    };
    Ok(Policy { corpus, ..job.policy.clone() })
}

/// Computes the signals of `shards` and records them.
fn record(
    job: &PlanJob,
    shards: &[Shard],
    ledger: &Ledger,
    encoder: impl Scorer + 'static,
    clusters: &Arc<Clusters>,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<u64> {
    let lengths = counted(shards, progress)?;
    let total: u64 = lengths.iter().sum();
    let lanes = if total >= (LANES * LANES * job.window) as u64 { LANES } else { 1 };
    // Of the policy only the gate tells on what is recorded: less is written of what it drops.
    let passing = Gate::passing(&job.policy, clusters).iter().sum::<f64>().min(1.0);
    let builder = Loader::builder(job.urls.clone())
        .shards(shards.to_vec())
        .lengths(lengths)
        .stores(job.stores.clone())
        .captioner(encoder, Arc::clone(clusters))
        .ledger(ledger.clone())
        .gate(job.policy.gate)
        .keep_ratio(passing)
        .dedup(job.needs_embeddings().then_some(1.0))
        .window(job.window)
        .threads(job.threads)
        .batch_size(lanes)
        .lanes(lanes)
        .rank(0)
        .world_size(1)
        .read_options(job.read.clone())
        .only_recording();
    let builder = match &job.policy.score {
        Some(score) => builder.score_gate(score.clone()),
        None => builder,
    };
    // An option that has no effect is refused: without a gate there is nothing that it could be by.
    let builder = match job.policy.gate_by {
        GateBy::Corpus => builder,
        GateBy::Cluster => builder.gate_by(GateBy::Cluster),
    };
    let stats =
        builder.build()?.record(&mut |stats| progress(PlanStage::Record, stats.counts.read, total.max(1)))?;
    Ok(stats.encoded)
}

/// A plan that is being made.
struct Deciding {
    planner: Planner,
    shards: Vec<PlannedShard>,
}

impl Deciding {
    fn new(job: &PlanJob, policy: Policy, clusters: &Arc<Clusters>) -> Result<Self> {
        let planner = Planner::new(Selector::new(policy, Some(Arc::clone(clusters)))?, 0)?;
        let planner = if job.embeddings { planner } else { planner.without_embeddings() };
        Ok(Self { planner: planner.fill_with_copies(job.fill_with_copies), shards: vec![] })
    }

    fn add(&mut self, shard: &Shard, windows: &Windows) -> Result<()> {
        let mut samples = 0;
        for (key, record, scores) in windows {
            let window = Window {
                id: hash::combine(&[key.shard, key.window]),
                ids: &record.ids,
                failed: &record.failed,
                caption_chars: &record.caption_chars,
                signals: record.signals.as_ref(),
                judged: None,
                scores: scores.as_deref(),
            };
            self.planner.add(key.shard, key.window, &window).map_err(|error| error.in_shard(&shard.url))?;
            samples += record.ids.len() as u64;
        }
        let (source, path) = (shard.source.to_string(), shard.path.to_string());
        self.shards.push(PlannedShard { source, path, hash: shard.hash, samples });
        Ok(())
    }

    fn finish(mut self, walk: &Walk<'_>, worth: Option<GateWorth>) -> Result<PlanFile> {
        self.shards.sort_unstable();
        Ok(PlanFile {
            plan: self.planner.decide()?,
            captioner: walk.encoder,
            reading: walk.reading,
            window: walk.job.window,
            shards: self.shards,
            worth,
        })
    }
}
