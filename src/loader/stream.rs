//! The loader itself and its iterator.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::loader::batch::{Batch, PixelType};
use crate::loader::builder::LoaderBuilder;
use crate::loader::memory::{Dtype, Stock};
use crate::loader::pipeline::{self, Message, Running};
use crate::loader::progress::Progress;
use crate::loader::recorder::Recorder;
use crate::loader::settings;
use crate::loader::spec::{Mode, Spec};
use crate::loader::state::LoaderState;
use crate::loader::stats::{GateStats, HANDED_WARNINGS, Stage, Stats};
use crate::loader::watchdog::Patience;
use crate::text::Tokenizer;

/// A stream of batches of survivors, epoch after epoch.
///
/// [`iter`](Self::iter) yields an epoch; with its last batch the loader moves on to the next
/// one. The global sequence of batches is a function of the data, the captioner directory, the
/// policy and the seed: not of threads, ranks or machine load.
pub struct Loader {
    spec: Arc<Spec>,
    shared: Arc<Shared>,
    /// Its state at the start.
    start: LoaderState,
    /// The process that made it.
    process: u32,
}

/// Of a fork only the calling thread lives on: whoever waits for the others hangs.
fn check_process(maker: u32) -> Result<()> {
    let here = std::process::id();
    if here == maker {
        return Ok(());
    }
    Err(Error::from(ErrorKind::State(format!(
        "the loader was made in process {maker}, and its threads did not come along to process {here}, a fork \
         of it: make the loader after the fork (it has threads of its own: a torch DataLoader around it \
         needs num_workers=0)"
    ))))
}

impl Drop for Loader {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // The model and the pool would wait for their threads, which are in the other process.
            std::mem::forget(Arc::clone(&self.spec));
        }
    }
}

/// What a loader shares with its iterators.
struct Shared {
    progress: Progress,
    /// Of the epoch that was started last.
    recorder: Mutex<Arc<Recorder>>,
}

impl Loader {
    /// Starts the configuration of a loader over shards: paths with `{00000..00331}` ranges,
    /// globs, folders, or several joined by `::`.
    pub fn builder<S: Into<String>>(urls: impl IntoUrls<S>) -> LoaderBuilder {
        LoaderBuilder::new(urls.into_urls())
    }

    /// Starts the configuration of a loader over several corpora, each with its weight: its share of the
    /// samples that are yielded is its weight over the sum of the weights, exactly over an epoch and to within
    /// two samples in a global batch. How many samples an epoch has says
    /// [`samples_per_epoch`](LoaderBuilder::samples_per_epoch); by default as many as one pass over every
    /// corpus is expected to keep.
    pub fn mix<U: IntoUrls<S>, S: Into<String>>(
        sources: impl IntoIterator<Item = (U, f64)>,
    ) -> LoaderBuilder {
        let sources = sources.into_iter().map(|(urls, weight)| (urls.into_urls(), weight)).collect();
        LoaderBuilder::new(vec![]).weighted(sources)
    }

    pub(crate) fn new(mut spec: Spec) -> Self {
        let mut settings = settings::policy(&spec);
        spec.policy = settings::fingerprint(&settings);
        settings.extend(settings::data(&spec));
        settings.extend(settings::captioner(&spec));
        let start = LoaderState::new(spec.global_batch() as u64, spec.lanes as u64, spec.policy, settings);
        let recorder = Mutex::new(Arc::new(Recorder::of(&spec, 0)));
        let shared = Arc::new(Shared { progress: Progress::new(), recorder });
        Self { spec: Arc::new(spec), shared, start, process: std::process::id() }
    }

    /// Batches of the [current](Self::epoch) epoch, the same on every rank. In mode `Eval` as many as the
    /// lengths of the shards make; one process yields fewer where all samples of a batch fail, where a filter
    /// excludes some, or where lengths are wrong.
    pub fn num_batches(&self) -> u64 {
        self.num_batches_of(self.epoch())
    }

    /// Batches of `epoch`, the same on every rank: epochs differ where keep_ratio is a schedule.
    pub fn num_batches_of(&self, epoch: u64) -> u64 {
        self.spec.num_batches(epoch)
    }

    /// Samples of the current epoch over all ranks. In mode `Eval` all samples of the shards that count.
    pub fn num_samples(&self) -> u64 {
        match self.spec.mode {
            Mode::Eval => self.spec.mix.sources.iter().map(|source| source.line.samples()).sum(),
            Mode::Reduced | Mode::Full => self.num_batches() * self.spec.global_batch() as u64,
        }
    }

    /// Samples per batch on this rank.
    pub fn batch_size(&self) -> usize {
        self.spec.batch_size
    }

    /// Where memory for later batches can be put, for them to be made in.
    pub fn stock(&self) -> &Stock {
        &self.spec.stock
    }

    /// The arrays of a full batch that are made in memory from the [stock](Self::stock), images and tokens, by type
    /// and shape; and how many batches are under way at the most, from the first row to whoever takes them.
    pub fn arrays(&self) -> (Vec<(Dtype, Vec<usize>)>, usize) {
        let spec = &self.spec;
        let size = spec.pipeline.size();
        let images = match spec.pixels {
            PixelType::F32 => Dtype::F32,
            PixelType::Bf16 => Dtype::Bf16,
            PixelType::U8 => Dtype::U8,
        };
        let mut arrays = vec![(images, vec![spec.batch_size, 3, size, size])];
        arrays.extend(
            spec.tokenizer.as_ref().map(|_| (Dtype::I64, vec![spec.batch_size, spec.context_length])),
        );
        // Two are filled, and one waits for room among those that are ready.
        (arrays, spec.prefetch.max(1) + 3)
    }

    /// Index of this process among those that share the corpus. `None` where the environment says how many they
    /// are and not which this one is: [`process_group`](Self::process_group) tells it.
    pub fn rank(&self) -> Option<usize> {
        self.spec.world.rank()
    }

    /// Number of processes that share the corpus.
    pub fn world_size(&self) -> usize {
        self.spec.world.world_size
    }

    /// Compares the loader's rank and number of processes with those of the process group that there is by now;
    /// the rank is taken from it where it was the only thing that was missing. To be called before the first
    /// batch. Where the options of the loader gave them, they may differ.
    ///
    /// # Errors
    /// [`ErrorKind::Ranks`]: the loader was made as another rank, or as one of another number.
    pub fn process_group(&self, rank: usize, world_size: usize) -> Result<()> {
        self.spec.world.join((rank, world_size))
    }

    /// Number of token ids of the tokenizer: rows that a text embedding needs.
    pub fn vocab_size(&self) -> Option<usize> {
        self.spec.tokenizer.as_ref().map(Tokenizer::vocab_size)
    }

    /// The epoch of the next batch: the one that an iterator is in, or with its last batch the next one.
    pub fn epoch(&self) -> u64 {
        self.shared.progress.current(|epoch| self.num_batches_of(epoch))
    }

    /// Moves to the start of `epoch`. Epochs are independent: no history is needed. Naming the
    /// epoch of a state that was just loaded keeps the place in it: an iterator yields what is left, which is
    /// nothing where the state was saved after the last batch. An iterator of another epoch that is still
    /// running ends with an error.
    pub fn set_epoch(&self, epoch: u64) {
        self.shared.progress.set_epoch(epoch, |epoch| self.num_batches_of(epoch));
    }

    /// What the loader remembers of samples; share it with another loader to re-use it.
    pub fn ledger(&self) -> &Ledger {
        &self.spec.ledger
    }

    /// The batches of an epoch: of the [current](Self::epoch) one, from its start or from where a loaded state left
    /// off. One that was broken off starts again, with a warning, once, where no `set_epoch` has asked for that.
    ///
    /// Nothing happens before the first batch is asked for: which epoch it is, and where it starts, is what holds
    /// then. An iterator that is dropped before has had no effect.
    ///
    /// # Errors
    /// A process that was forked from the one that made the loader. The first `next` fails where the rank is not
    /// known, or threads cannot be started.
    pub fn iter(&self) -> Result<Batches> {
        check_process(self.process)?;
        Ok(Batches {
            spec: Arc::clone(&self.spec),
            shared: Arc::clone(&self.shared),
            phase: Phase::Before,
            warnings: vec![],
            patience: Patience::new(self.spec.stall_timeout),
            process: self.process,
        })
    }

    /// Reads what an epoch reads, by default the corpus once, and yields nothing: of what the ledger does not cover, signals are
    /// computed and recorded there. `watch(statistics)` is called about five times a second; an error
    /// from it ends the pass. The place in the epoch stays.
    ///
    /// # Errors
    /// As [`iter`](Self::iter), and the first error of any stage.
    pub fn record(&self, watch: &mut dyn FnMut(&Stats) -> Result<()>) -> Result<Stats> {
        let epoch = self.epoch();
        let recorder = Arc::new(Recorder::of(&self.spec, epoch));
        pipeline::record(&self.spec, epoch, &recorder, &mut || watch(&recorder.snapshot()))?;
        Ok(self.stats_of(&recorder))
    }

    /// Where the loader stands: the batches handed over so far. The same on every rank.
    pub fn state(&self) -> LoaderState {
        let (epoch, step) = self.shared.progress.place();
        LoaderState { epoch, step, ..self.start.clone() }
    }

    /// Whether [`load_state`](Self::load_state) would take `state`; moves nowhere.
    ///
    /// # Errors
    /// As [`load_state`](Self::load_state).
    pub fn check_state(&self, state: &LoaderState) -> Result<()> {
        self.start.check(state, self.spec.world.world_size as u64, self.num_batches_of(state.epoch))
    }

    /// Moves to a saved state, of any world size with the same global batch and lanes: the next
    /// [`iter`](Self::iter) yields exactly what the saved run had not yielded yet, which after the last batch of an
    /// epoch is the next one. An iterator that is still running ends with an error.
    ///
    /// # Errors
    /// [`ErrorKind::State`] that spells out every difference.
    pub fn load_state(&self, state: &LoaderState) -> Result<()> {
        self.check_state(state)?;
        self.shared.progress.load(state.epoch, state.step);
        Ok(())
    }

    /// Statistics of the epoch that was started last, on this rank. Complete with its last batch.
    pub fn stats(&self) -> Stats {
        let recorder = Arc::clone(&self.shared.recorder.lock().unwrap_or_else(PoisonError::into_inner));
        self.stats_of(&recorder)
    }

    fn stats_of(&self, recorder: &Recorder) -> Stats {
        let mut stats = recorder.snapshot();
        stats.gate = self.spec.worth.map(GateStats::from);
        stats.sources = self.spec.mix.stats(&self.spec.shards, &stats, recorder);
        stats.rank = self.rank();
        stats.world_size = self.world_size();
        stats.rank_from = self.spec.world.source();
        stats
    }
}

/// The batches of one epoch, which begins with the first. Dropping it stops its threads.
pub struct Batches {
    spec: Arc<Spec>,
    shared: Arc<Shared>,
    phase: Phase,
    /// What nobody was handed yet.
    warnings: Vec<String>,
    patience: Patience,
    process: u32,
}

/// How far an iterator is.
enum Phase {
    /// Nothing was asked of it.
    Before,
    /// Its epoch is running.
    During(Box<Epoch>),
    /// Its epoch has ended, or failed.
    Over,
}

/// An epoch under way.
struct Epoch {
    running: Running,
    recorder: Arc<Recorder>,
    number: u64,
    /// Moves of the loader before it began.
    moves: u64,
    /// Whether its last batch was handed over.
    complete: bool,
    /// What was taken from the pipeline and not handed over.
    ahead: Option<Message<Batch>>,
}

impl Drop for Batches {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // Its threads are in the other process: there is nothing to stop or join here.
            std::mem::forget(std::mem::replace(&mut self.phase, Phase::Over));
        }
    }
}

/// What [`Batches::next_within`] found.
#[derive(Debug)]
pub enum Next {
    /// A batch.
    Batch(Box<Batch>),
    /// Nothing yet: ask again.
    Waiting,
    /// The epoch is over.
    End,
}

impl Batches {
    /// The next batch, waiting for at most `limit`: for callers that must look up from time to
    /// time.
    ///
    /// # Errors
    /// The first error of any stage; the epoch is over after it. [`ErrorKind::State`] where the loader was moved to
    /// another epoch or state meanwhile. [`ErrorKind::Stall`] where a stage has held
    /// up the epoch for longer than `stall_timeout`: its threads are left to end by themselves.
    pub fn next_within(&mut self, limit: Duration) -> Result<Next> {
        if let Err(error) = check_process(self.process) {
            // Its threads are not there to be joined.
            std::mem::forget(std::mem::replace(&mut self.phase, Phase::Over));
            return Err(error);
        }
        if matches!(self.phase, Phase::Before) {
            self.phase = self.begin()?;
        }
        if let Phase::During(epoch) = &self.phase
            && self.shared.progress.moves() != epoch.moves
        {
            if epoch.complete {
                self.phase = Phase::Over;
                return Ok(Next::End);
            }
            let text = format!(
                "an iterator over epoch {} was asked for more after set_epoch or load_state had moved its loader: \
                 take a new one",
                epoch.number
            );
            self.phase = Phase::Over;
            return Err(ErrorKind::State(text).into());
        }
        let Some(message) = self.wait(limit) else { return Ok(Next::End) };
        match message {
            Ok(Message::Item(batch)) => {
                self.patience.rest();
                let all = self.spec.num_batches(batch.epoch);
                // Where a shard of mode `Eval` is longer than was said there are more.
                self.shared.progress.handed_over(batch.epoch, (batch.step + 1).min(all));
                if batch.step + 1 == all {
                    self.complete();
                }
                Ok(Next::Batch(Box::new(batch)))
            }
            Ok(Message::End) => {
                self.complete();
                if let Phase::During(epoch) = std::mem::replace(&mut self.phase, Phase::Over) {
                    self.shared.progress.used_up(epoch.number);
                }
                Ok(Next::End)
            }
            Ok(Message::Failed(error)) => {
                self.phase = Phase::Over;
                Err(error)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Next::Waiting),
            Err(RecvTimeoutError::Disconnected) => {
                self.phase = Phase::Over;
                let detail = "its thread has ended without a word".into();
                Err(Error::from(ErrorKind::Stage { stage: "example", detail }))
            }
        }
    }

    /// The batch that comes next, where it is ready: whoever copies batches to a device can begin with it before it is
    /// asked for. It is handed over, and counts, with the next call of [`next_within`](Self::next_within).
    pub fn ahead(&mut self) -> Option<&mut Batch> {
        let Phase::During(epoch) = &mut self.phase else { return None };
        if epoch.ahead.is_none() {
            epoch.ahead = epoch.running.batches.try_recv().ok();
        }
        match &mut epoch.ahead {
            Some(Message::Item(batch)) => Some(batch),
            _ => None,
        }
    }

    /// Starts what comes next.
    fn begin(&mut self) -> Result<Phase> {
        let shared = Arc::clone(&self.shared);
        let progress = &shared.progress;
        let begin = progress.next(|epoch| self.spec.num_batches(epoch));
        let (number, first_step) = (begin.epoch, begin.first_step);
        let recorder = Arc::new(Recorder::of(&self.spec, number));
        let all = self.spec.num_batches(number);
        let is_left = first_step < all || first_step == 0;
        let running =
            if is_left { Some(pipeline::start(&self.spec, number, first_step, &recorder)?) } else { None };
        progress.begun(&begin);
        *shared.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&recorder);
        // To evaluate a part, again and again, is no oversight.
        if let Some(step) = begin.repeats.filter(|_| self.spec.mode != Mode::Eval) {
            self.warn(format!(
                "epoch {number} was broken off after {step} of {all} batches and starts again: the same samples come \
                 in the same order. Call set_epoch({}) first for the next epoch, or set_epoch({number}) to say that \
                 this one is to start again; where it is to go on, load the state that was saved",
                number.saturating_add(1)
            ));
        }
        let Some(running) = running else {
            progress.used_up(number);
            return Ok(Phase::Over);
        };
        Ok(Phase::During(Box::new(Epoch {
            running,
            recorder,
            number,
            moves: begin.moves,
            complete: false,
            ahead: None,
        })))
    }

    /// Says once what should be known of an epoch that is complete.
    fn complete(&mut self) {
        let Phase::During(epoch) = &mut self.phase else { return };
        if std::mem::replace(&mut epoch.complete, true) {
            return;
        }
        let warnings = epoch.recorder.snapshot().warnings(self.spec.batch_size);
        warnings.into_iter().for_each(|warning| self.warn(warning));
    }

    fn warn(&mut self, warning: String) {
        tracing::warn!(target: HANDED_WARNINGS, "{warning}");
        self.warnings.push(warning);
    }
}

impl Batches {
    /// What should be known of the epoch, each thing once: that it starts again, that a wait has become long, and with
    /// the last batch what was odd about its samples. All of it is logged as well.
    pub fn warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.patience.warning());
        warnings
    }

    /// Waits for a message for at most `limit`, and looks after the stages meanwhile; `None` where the epoch
    /// is over.
    fn wait(&mut self, limit: Duration) -> Option<std::result::Result<Message<Batch>, RecvTimeoutError>> {
        if let Phase::During(epoch) = &mut self.phase
            && let Some(message) = epoch.ahead.take()
        {
            return Some(Ok(message));
        }
        let start = Instant::now();
        loop {
            let Phase::During(epoch) = &self.phase else { return None };
            let since = Instant::now();
            let left = limit.saturating_sub(start.elapsed());
            let message = epoch.running.batches.recv_timeout(self.patience.until_look(left));
            epoch.recorder.add_time(Stage::WaitLoader, since.elapsed());
            if !matches!(message, Err(RecvTimeoutError::Timeout)) {
                return Some(message);
            }
            if let Err(stall) = self.patience.waited(since.elapsed(), &epoch.recorder.board) {
                if let Phase::During(epoch) = std::mem::replace(&mut self.phase, Phase::Over) {
                    epoch.running.leave();
                }
                return Some(Ok(Message::Failed(stall)));
            }
            if start.elapsed() >= limit {
                return Some(message);
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        loop {
            return match self.next_within(Duration::from_secs(3600)) {
                Ok(Next::Batch(batch)) => Some(Ok(*batch)),
                Ok(Next::Waiting) => continue,
                Ok(Next::End) => None,
                Err(error) => Some(Err(error)),
            };
        }
    }
}

/// One pattern or several.
pub trait IntoUrls<S> {
    /// The patterns as owned strings.
    fn into_urls(self) -> Vec<String>;
}

impl IntoUrls<String> for &str {
    fn into_urls(self) -> Vec<String> {
        vec![self.to_string()]
    }
}

impl IntoUrls<String> for String {
    fn into_urls(self) -> Vec<String> {
        vec![self]
    }
}

impl<S: Into<String>> IntoUrls<S> for Vec<S> {
    fn into_urls(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl IntoUrls<&'static str> for &[&str] {
    fn into_urls(self) -> Vec<String> {
        self.iter().map(|s| (*s).to_string()).collect()
    }
}

impl IntoUrls<String> for &[String] {
    fn into_urls(self) -> Vec<String> {
        self.to_vec()
    }
}
