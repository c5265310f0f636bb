//! Plans a corpus: records the signals of what the ledger does not cover, then decides for all of it.
//!
//! Signals come by the loader's own reading (TL;DR's first pass, without training), so that a run with
//! or without the plan finds them in the ledger. Decisions are those of [`crate::select::plan`].

mod job;
mod walk;

use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array4, s};

use crate::cluster::{Clusters, GateWorth};
use crate::config::{Config, Mode, PixelType, Quota, Source, Transform};
use crate::error::{Error, Result};
use crate::hash;
use crate::ledger::Ledger;
use crate::loader::{
    Batch, Listing, Loader, LoaderBuilder, PlanFile, PlannedShard, included, measured, readings,
};
use crate::model::Scorer;
use crate::select::gate::GateRule;
use crate::select::{NearDuplicates, Planner, Policy, ScoreCut, Selector, Window};
use crate::shard::{self, ReadOptions, Shard};
pub use job::PlanJob;
use walk::{Walk, Windows};

/// Bytes of the ledger in memory: each window is looked at once.
const CACHE_BYTES: u64 = 64 << 20;
/// Lanes of the recording pass: so many shards are read at a time.
const LANES: usize = 4;
/// Cosine by which near-duplicates are counted where the policy names none: of a moment later, or of another size.
const NEAR: f32 = 0.95;
/// Seconds that the speed of the scorer is measured for.
const MEASURE_SECONDS: f64 = 5.0;

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

crate::names!(PlanStage { Look => "look", Count => "count", Record => "record" });

/// How a plan ended.
#[derive(Debug)]
pub struct PlanSummary {
    /// The plan; `None` where only a part was recorded.
    pub plan: Option<PlanFile>,
    /// Shards looked at.
    pub shards: usize,
    /// Of these, those that the ledger did not cover.
    pub recorded: usize,
    /// Samples that went through the scorer.
    pub encoded: u64,
    /// Most bits in which hashes of near-duplicates differ; `None` where copies stay.
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

/// Runs the job. `scorer` and `clusters` are those of one fit. `progress(stage, done, total)` is
/// called on this thread; an error from it ends the run, and what was recorded stays.
///
/// # Errors
/// Options by name; errors of reading as for [`Loader::iter`]; a window that cannot be kept in the
/// ledger; as [`Planner::decide`].
pub fn plan(
    job: &PlanJob,
    scorer: impl Scorer + 'static,
    clusters: Arc<Clusters>,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<PlanSummary> {
    planned(job, Some((Box::new(scorer), clusters)), progress)
}

/// As [`plan`], where scores that the corpus has, or chance, say what is kept: without a scorer there are no clusters, no
/// alignments and no near-duplicates. Of the shards no image is read.
///
/// # Errors
/// As [`plan`]; an option that needs a scorer.
pub fn plan_by_scores(
    job: &PlanJob,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<PlanSummary> {
    planned(job, None, progress)
}

/// A scorer and its clusters.
type Fitted = (Box<dyn Scorer>, Arc<Clusters>);

fn planned(
    job: &PlanJob,
    fitted: Option<Fitted>,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<PlanSummary> {
    job.check()?;
    let clusters = fitted.as_ref().map(|(_, clusters)| Arc::clone(clusters));
    let scorer = fitted.as_ref().map_or(0, |(scorer, _)| scorer.fingerprint());
    let started = Instant::now();
    let ledger = Ledger::open_with(job.ledger()?, Some(CACHE_BYTES), &job.store())?;
    let listing = listed(job)?;
    // Of all shards: every part of a job array has the same gate.
    let policy = with_scores(job, &listing, clusters.is_some())?;
    let listing = match job.part {
        Some((part, of)) => listing.part(|at| at % of == part),
        None => listing,
    };
    let walk = Walk::new(job, &policy, &ledger, scorer);
    let mut deciding = match job.part {
        Some(_) => None,
        None => Some(Deciding::new(job, with_corpus(&policy, &listing)?, clusters.as_ref())?),
    };
    let mut missing = vec![];
    for (done, (shard, read)) in listing.shards.iter().zip(&listing.reads).enumerate() {
        match (walk.windows(shard, read)?, &mut deciding) {
            (Some(windows), Some(deciding)) => deciding.add(shard, &windows)?,
            (Some(_), None) => {}
            (None, _) => missing.push(done),
        }
        progress(PlanStage::Look, done as u64 + 1, listing.shards.len() as u64)?;
    }
    let shards = listing.shards.len();
    let reading = readings(&listing.shards, &listing.reads, &job.config.images.decode());
    let missing = listing.part(|at| missing.binary_search(&at).is_ok());
    let mut encoded = 0;
    if !missing.shards.is_empty() {
        encoded = record(job, &policy, &missing, &ledger, fitted, progress)?;
    }
    let recorded = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for (shard, read) in missing.shards.iter().zip(&missing.reads) {
        let windows = walk.windows(shard, read)?.ok_or_else(|| {
            let accepted = "a folder that can be written, and shards that a file's time, an ETag or a date tells \
                            from their other versions: windows were computed and are not in it";
            Error::option("ledger", job.config.ledger.as_deref().unwrap_or_default(), accepted).in_shard(&shard.url)
        })?;
        if let Some(deciding) = &mut deciding {
            deciding.add(shard, &windows)?;
        }
    }
    let mut summary = PlanSummary {
        plan: None,
        shards,
        recorded: missing.shards.len(),
        encoded,
        distance: None,
        near: None,
        seconds: [recorded, 0.0],
    };
    if let Some(mut deciding) = deciding {
        let dedup = policy.selection.dedup;
        summary.distance = dedup.map(|_| deciding.planner.distance());
        // Without signals nothing tells pictures apart.
        let near = clusters.is_some().then(|| deciding.planner.near_duplicates(dedup.unwrap_or(NEAR)));
        let worth = clusters.and_then(|clusters| clusters.worth).filter(|_| policy.gate().is_by_alignment());
        let plan = deciding.finish(&walk, reading, worth)?;
        let counts = plan.plan.counts();
        if counts.readable() == 0 {
            let accepted = format!(
                "shards with a sample that can be used: of {} where and subset exclude {}, and {} cannot be read",
                counts.samples, counts.excluded, counts.failed
            );
            let sources: Vec<String> =
                job.config.sources.iter().map(|source| shard::shown(&source.urls)).collect();
            return Err(Error::option("sources", sources.join(", "), accepted));
        }
        summary.near = near
            .map(|near| NearDuplicates { dropped: near.dropped.or(dedup.map(|_| counts.copies)), ..near });
        summary.plan = Some(plan);
        summary.seconds[1] = started.elapsed().as_secs_f64();
    }
    Ok(summary)
}

/// The shards of the job.
fn listed(job: &PlanJob) -> Result<Listing> {
    Listing::of(&job.config.sources, job.config.ledger.as_deref())
}

/// What [`plan`] would cost: how much the ledger does not cover, and how fast the scorer is on the
/// first of it, for a few seconds. Nothing is written. `progress` is called with shards that are
/// looked for or counted.
///
/// # Errors
/// As [`plan`].
pub fn estimate(
    job: &PlanJob,
    scorer: &mut dyn Scorer,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<PlanEstimate> {
    job.check()?;
    // A folder that is not there stays so.
    let (place, store) = (job.ledger()?, job.store());
    let ledger = match Ledger::is_at(place, &store)? {
        true => Ledger::open_with(place, Some(CACHE_BYTES), &store)?,
        false => Ledger::new(),
    };
    let listing = listed(job)?;
    let lengths = counted(&listing.shards, progress)?;
    let policy = job.policy(true)?;
    let walk = Walk::new(job, &policy, &ledger, scorer.fingerprint());
    let mut estimate =
        PlanEstimate { samples: lengths.iter().sum(), missing: 0, measured: 0, seconds_per_sample: 0.0 };
    let mut missing = vec![];
    for (done, ((shard, read), &length)) in
        listing.shards.iter().zip(&listing.reads).zip(&lengths).enumerate()
    {
        let lacking = walk.lacking(shard, read, length)?;
        if lacking > 0 {
            estimate.missing += lacking;
            missing.push((shard.clone(), Arc::clone(read), length));
        }
        progress(PlanStage::Look, done as u64 + 1, lengths.len() as u64)?;
    }
    if let Some((_, read, _)) = missing.first() {
        // What is read alike is read in one.
        let read = Arc::clone(read);
        missing.retain(|(_, own, _)| Arc::ptr_eq(own, &read));
        let corpus = missing.into_iter().map(|(shard, _, length)| (shard, length)).unzip();
        (estimate.measured, estimate.seconds_per_sample) = measure(job, corpus, &read, scorer)?;
    }
    Ok(estimate)
}

/// Which of so many `parts` have shards that the ledger does not cover, ascending.
///
/// # Errors
/// As [`plan`].
pub fn missing_parts(job: &PlanJob, parts: usize, captioner: u64) -> Result<Vec<usize>> {
    job.check()?;
    if parts == 0 {
        return Err(Error::option("status", 0, "at least 1 part"));
    }
    let (place, store) = (job.ledger()?, job.store());
    let ledger = match Ledger::is_at(place, &store)? {
        true => Ledger::open_with(place, Some(CACHE_BYTES), &store)?,
        false => Ledger::new(),
    };
    let (listing, policy) = (listed(job)?, job.policy(captioner != 0)?);
    let walk = Walk::new(job, &policy, &ledger, captioner);
    let mut missing = std::collections::BTreeSet::new();
    for (at, (shard, read)) in listing.shards.iter().zip(&listing.reads).enumerate() {
        if !missing.contains(&(at % parts)) && walk.windows(shard, read)?.is_none() {
            missing.insert(at % parts);
        }
    }
    Ok(missing.into_iter().collect())
}

/// Samples encoded, and seconds for each.
fn measure(
    job: &PlanJob,
    (shards, lengths): (Vec<Shard>, Vec<u64>),
    read: &ReadOptions,
    scorer: &mut dyn Scorer,
) -> Result<(u64, f64)> {
    let (batch, size) = (scorer.batch_size(), scorer.preview_size());
    let builder = recording(job, shards, lengths, read)
        .mode(Mode::Eval)
        .transform(Transform::Preview)
        .dtype(PixelType::U8)
        .image_size(size)
        .batch_size(batch);
    let loader = builder.build()?;
    let (mut started, mut measured) = (Instant::now(), 0);
    for (number, examples) in loader.iter()?.enumerate() {
        let examples = examples?;
        encode(scorer, &examples, batch, size)?;
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

/// Encodes the previews of a batch, filled with blanks to the scorer's shape.
fn encode(scorer: &mut dyn Scorer, examples: &Batch, batch: usize, size: usize) -> Result<()> {
    let pixels = examples.images.as_u8().unwrap_or_default();
    let shape = (examples.len(), 3, size, size);
    let given = Array4::from_shape_vec(shape, pixels.to_vec())
        .map_err(|error| Error::format("previews", format!("{shape:?}"), error))?;
    let mut previews = Array4::zeros((batch, 3, size, size));
    previews.slice_mut(s![..examples.len(), .., .., ..]).assign(&given);
    let mut captions: Vec<&str> = examples.original.iter().map(String::as_str).collect();
    captions.resize(batch, "");
    scorer.signals(previews.view(), &captions).map(|_| ())
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

/// The policy with its gate by a score measured, where it has one: as the loader measures it.
fn with_scores(job: &PlanJob, listing: &Listing, has_clusters: bool) -> Result<Policy> {
    let policy = job.policy(has_clusters)?;
    let Some(field) = policy.gate().field() else { return Ok(policy) };
    // An option that cannot work is refused before anything is read.
    let assumed = Policy { cut: Some(ScoreCut::assumed(policy.gate())), ..policy.clone() };
    Selector::new(assumed.but(|selection| selection.quota = Some(Quota::Random)), None).map(drop)?;
    let lengths = counted(&listing.shards, &mut |_, _, _| Ok(()))?;
    let found = listing.survey(&lengths, field)?;
    let cut = measured(policy.gate(), &found)?;
    Ok(Policy { cut: Some(cut), ..policy })
}

/// The policy with the number of samples, where it needs that.
fn with_corpus(policy: &Policy, listing: &Listing) -> Result<Policy> {
    let Quota::CapAt(_) = policy.quota() else { return Ok(policy.clone()) };
    let lengths = counted(&listing.shards, &mut |_, _, _| Ok(()))?;
    let mut corpus = 0;
    // As the loader counts them.
    for (range, read) in listing.stretches() {
        let (shards, lengths) = (&listing.shards[range.clone()], &lengths[range]);
        corpus += if read.takes_all() {
            lengths.iter().sum()
        } else {
            let counts = shard::count(shards, lengths, read, &|_| true, false, &mut |_, _| {})?;
            included(read, &counts, shards, lengths)?
        };
    }
    Ok(Policy { corpus: Some(corpus), ..policy.clone() })
}

/// A loader of some of the job's shards, for this process alone.
fn recording(job: &PlanJob, shards: Vec<Shard>, lengths: Vec<u64>, read: &ReadOptions) -> LoaderBuilder {
    let source = Source { lengths: Some(lengths), store: job.store(), ..Source::default() };
    Loader::from_config(Config { sources: vec![source], ..Config::default() })
        .shards(shards)
        .read_options(read.clone())
        .decode(job.config.images.decode())
        .threads(job.config.runtime.threads)
        .rank(0)
        .world_size(1)
}

/// Computes the signals of shards and records them.
fn record(
    job: &PlanJob,
    policy: &Policy,
    listing: &Listing,
    ledger: &Ledger,
    fitted: Option<Fitted>,
    progress: &mut dyn FnMut(PlanStage, u64, u64) -> Result<()>,
) -> Result<u64> {
    let lengths = counted(&listing.shards, progress)?;
    let total: u64 = lengths.iter().sum();
    let window = policy.selection.window;
    let lanes = if total >= (LANES * LANES * window) as u64 { LANES } else { 1 };
    // Of the policy only the gate tells on what is recorded: less is written of what it drops.
    let clusters = fitted.as_ref().map(|(_, clusters)| &**clusters);
    let passing = GateRule::passing(policy, clusters).iter().sum::<f64>().min(1.0);
    let stretches = listing.stretches();
    if let [_, _, ..] = stretches[..] {
        let accepted = "sources that are read alike, since one pass records them all: the same caption_key, \
                        caption_choice, where, subset, captions and scores; or plan each by itself";
        return Err(Error::option("sources", format!("{} that differ", stretches.len()), accepted));
    }
    let Some((_, read)) = stretches.first() else { return Ok(0) };
    let mut builder = recording(job, listing.shards.clone(), lengths, read)
        .ledger(ledger.clone())
        .gate(policy.gate().clone())
        .cut(policy.cut)
        .keep_ratio(passing)
        .window(window)
        .batch_size(lanes)
        .lanes(lanes)
        .only_recording();
    builder = match fitted {
        Some(fitted) => builder.fitted(fitted),
        None => builder.quota(Quota::Random),
    };
    if job.needs_embeddings() {
        builder = builder.dedup(1.0);
    }
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
    fn new(job: &PlanJob, policy: Policy, clusters: Option<&Arc<Clusters>>) -> Result<Self> {
        let planner = Planner::new(Selector::new(policy, clusters.map(Arc::clone))?, 0)?;
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

    fn finish(mut self, walk: &Walk<'_>, reading: u64, worth: Option<GateWorth>) -> Result<PlanFile> {
        self.shards.sort_unstable();
        Ok(PlanFile {
            plan: self.planner.decide()?,
            captioner: walk.scorer,
            reading,
            window: walk.policy.selection.window,
            shards: self.shards,
            worth,
        })
    }
}
