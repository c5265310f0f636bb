//! The resolved configuration of a loader: what every thread of an epoch reads and none changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::ThreadPool;

use crate::cluster::GateWorth;
use crate::config::{Config, Mode, OnError};
use crate::error::{Error, ErrorKind, FailReason, Result};
use crate::hash::Purpose;
use crate::image::{DecodeOptions, ImagePipeline};
use crate::ledger::{Ledger, ScoreKey, WindowKey, WindowRecord};
use crate::loader::batch::memory::Stock;
use crate::loader::buffer::Buffer;
use crate::loader::build::mix::Mix;
use crate::loader::claims::Claims;
use crate::loader::decider::Decider;
use crate::loader::fingerprints::{reading_fingerprint, scores_version, version_hash};
use crate::loader::kept::Kept;
use crate::loader::lane::Stream;
use crate::loader::model_thread::ModelThread;
use crate::loader::observe::recorder::MaxErrors;
use crate::loader::ranks::Ranks;
use crate::sample::Outcome;
use crate::shard::{ReadOptions, Shard};
use crate::text::{Evidence, Tokenizer};

impl OnError {
    /// What to do with a shard that holds no samples, which was counted.
    ///
    /// # Errors
    /// [`ErrorKind::NoSamples`] under `Raise`, which names the shard.
    pub(crate) fn empty_shard(self, url: &Arc<str>) -> Result<()> {
        match self {
            Self::Skip => Ok(()),
            Self::Raise => {
                let detail = "the shard holds none: it may be cut, or zeros; write it again, or leave it out of the \
                              list (on_error=raise)";
                Err(Error::no_samples(detail).in_shard(url))
            }
        }
    }
}

/// Everything the stages need to know, checked.
pub(crate) struct Spec {
    /// The options, with every default that depends on others filled in.
    pub(crate) config: Config,
    pub(crate) shards: Vec<Shard>,
    /// How each shard is read.
    pub(crate) reads: Vec<Arc<ReadOptions>>,
    pub(crate) lengths: Vec<u64>,
    /// Columns of the tables of scores, sorted, each with its place in the tables of the first source that has it.
    pub(crate) score_columns: Vec<(Arc<str>, usize)>,
    /// Identifies how many samples of each shard count, and their sum; `None` where all do.
    pub(crate) counted: Option<(u64, u64)>,
    pub(crate) mix: Mix,
    /// `Some` in mode `Reduced` only.
    pub(crate) selector: Option<Decider>,
    /// What a gate by alignment is worth, where there is one and it was measured.
    pub(crate) worth: Option<GateWorth>,
    /// Whether signals are needed, by the selector or by caption fusion.
    pub(crate) needs_signals: bool,
    /// Whether images are read: not where windows are only recorded, and no model sees them.
    pub(crate) needs_images: bool,
    pub(crate) model: Option<ModelThread>,
    /// Scores generated captions; it is not the model that writes them.
    pub(crate) judge: Option<ModelThread>,
    pub(crate) ledger: Ledger,
    /// Windows that are being encoded.
    pub(crate) claims: Claims,
    pub(crate) lanes: usize,
    /// This process among those that share the corpus.
    pub(crate) world: Ranks,
    /// Memory for batches.
    pub(crate) stock: Stock,
    /// Where encoded images wait.
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) decode: DecodeOptions,
    pub(crate) pipeline: ImagePipeline,
    pub(crate) tokenizer: Option<Tokenizer>,
    /// Fingerprint of the policy, once it is known.
    pub(crate) policy: u64,
    /// Whether it was said that signals were computed otherwise.
    pub(crate) warned: AtomicBool,
    pub(crate) max_errors: MaxErrors,
    pub(crate) pool: Arc<ThreadPool>,
}

impl Spec {
    /// Samples of a window.
    pub(crate) fn window(&self) -> u64 {
        self.config.selection.window as u64
    }

    /// Samples of a global batch over all ranks.
    pub(crate) fn global_batch(&self) -> usize {
        self.config.batch_size * self.world.world_size
    }

    /// Samples that each lane gives to a global batch.
    pub(crate) fn per_lane(&self) -> usize {
        self.global_batch() / self.lanes
    }

    /// Batches of `epoch`, on every rank.
    pub(crate) fn num_batches(&self, epoch: u64) -> u64 {
        self.mix.at(epoch).num_batches
    }

    /// Whether every rank has to yield as many rows as the others, real ones or not: in mode `Eval` on several.
    pub(crate) fn pads(&self) -> bool {
        self.config.mode == Mode::Eval && self.world.world_size > 1
    }

    /// Whether a sample of this outcome has a position in mode `Eval`, which stays empty where it cannot be used. One
    /// that a filter excludes has none: ranks share out those that count.
    pub(crate) fn has_position(&self, outcome: Outcome) -> bool {
        outcome != Outcome::Failed(FailReason::Excluded)
    }

    /// Samples of a source that a lane yields in `epoch`; unbounded in mode `Eval`.
    pub(crate) fn lane_quota(&self, stream: Stream, epoch: u64) -> u64 {
        match self.config.mode {
            Mode::Eval => u64::MAX,
            Mode::Reduced | Mode::Full => self.mix.at(epoch).shares.of_lane(stream.source, stream.lane),
        }
    }

    /// Samples of a source that a lane yields in `epoch` before batch `step`.
    pub(crate) fn lane_quota_before(&self, stream: Stream, epoch: u64, step: u64) -> u64 {
        match self.config.mode {
            // How many batches there are is not known.
            Mode::Eval => step * self.per_lane() as u64,
            Mode::Reduced | Mode::Full => self.mix.at(epoch).shares.before(stream.source, stream.lane, step),
        }
    }

    /// What this rank reads: each source in each of its lanes, lane by lane.
    ///
    /// # Errors
    /// The rank is not known.
    pub(crate) fn streams(&self) -> Result<impl Iterator<Item = Stream> + use<>> {
        let sources = self.mix.sources.len();
        let own_lanes = (self.world.settled()?..self.lanes).step_by(self.world.world_size);
        Ok(own_lanes.flat_map(move |lane| (0..sources).map(move |source| Stream { lane, source })))
    }

    /// What excludes samples, in words; empty where nothing does.
    pub(crate) fn excluded_by(&self) -> String {
        let mut by: Vec<String> =
            self.reads.iter().map(|read| read.excluded_by()).filter(|by| !by.is_empty()).collect();
        by.dedup();
        by.join(", ")
    }

    /// The ledger's key of a window of the shard as it is now.
    ///
    /// A remote shard is asked for its version where the ledger outlives this process; in memory, its
    /// index tells when it is read again by it.
    ///
    /// # Errors
    /// The shard's version has to be asked of its store, which fails.
    pub(crate) fn window_key(&self, shard: usize, window: u64, stop: &Arc<AtomicBool>) -> Result<WindowKey> {
        let scorer = self.model.as_ref().filter(|_| self.needs_signals).map_or(0, |m| m.fingerprint);
        let held = &self.shards[shard];
        let version = if held.is_local() || self.ledger.location().is_some() {
            held.version_until(self.reads[shard].looks_beside(), Some(stop))?
        } else {
            None
        };
        Ok(WindowKey {
            shard: held.hash,
            window,
            size: self.config.selection.window,
            version: version_hash(version.as_deref()),
            scorer,
            reading: reading_fingerprint(&self.reads[shard], &self.decode),
        })
    }

    /// The ledger's key of the scores of a window, where decisions look at them.
    ///
    /// # Errors
    /// As [`window_key`](Self::window_key).
    pub(crate) fn score_key(
        &self,
        shard: usize,
        window: &WindowKey,
        stop: &Arc<AtomicBool>,
    ) -> Result<Option<ScoreKey>> {
        let Some(field) = &self.reads[shard].score_field else { return Ok(None) };
        let held = &self.shards[shard];
        let asks = held.is_local() || self.ledger.location().is_some();
        let beside = if asks { held.version_until(true, Some(stop))? } else { None };
        Ok(Some(window.scores(field, scores_version(beside.as_deref(), &self.reads[shard]))))
    }

    /// How the signals of new windows are computed, in words; empty where none are.
    pub(crate) fn compute(&self) -> Arc<str> {
        self.model.as_ref().filter(|_| self.needs_signals).map(|m| Arc::clone(&m.compute)).unwrap_or_default()
    }

    /// Fails, or warns once, where recorded signals were computed otherwise than new ones would be. What
    /// says nothing of how it was computed is taken as it is.
    ///
    /// # Errors
    /// [`ErrorKind::State`] under `strict`, which names both.
    pub(crate) fn check_compute(&self, record: &WindowRecord) -> Result<()> {
        let (own, theirs) = (self.compute(), &record.compute);
        if own.is_empty() || theirs.is_empty() || own == *theirs || record.signals.is_none() {
            return Ok(());
        }
        let what = format!(
            "the ledger's signals were computed with {theirs}, and this captioner computes with {own}: their \
             last bits may differ, and with them a decision here and there"
        );
        if self.config.runtime.strict {
            let remedy = "use the same device, number type and torch, another ledger, or strict=false";
            return Err(ErrorKind::State(format!("{what}; {remedy}")).into());
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{what}; strict=true refuses them");
        }
        Ok(())
    }

    /// What fusion may know of a kept sample's captions in `epoch`.
    pub(crate) fn evidence(&self, kept: &Kept, epoch: u64) -> Evidence {
        let draw = kept.moment(self.config.seed).draw();
        Evidence { alignment: kept.alignment, judged: kept.judged, draw, epoch }
    }

    /// What the ledger knows of the window; where a plan decides and no signals are needed, also what
    /// is recorded there with the signals of the plan's captioner.
    pub(crate) fn recorded(&self, key: &WindowKey) -> Option<Arc<WindowRecord>> {
        self.ledger.window(key).or_else(|| {
            let plan = self.selector.as_ref().and_then(Decider::plan).filter(|_| !self.needs_signals)?;
            self.ledger.window(&WindowKey { scorer: plan.captioner, ..*key })
        })
    }

    /// Position of a kept sample in its shuffle group.
    pub(crate) fn shuffle_hash(&self, kept: &Kept) -> u64 {
        kept.moment(self.config.seed).hash(Purpose::Shuffle)
    }
}
