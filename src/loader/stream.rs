//! The loader itself: its position in the epochs, its state and its statistics.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, Mode, PixelType, Source};
use crate::error::{ErrorKind, Result};
use crate::ledger::Ledger;
use crate::loader::batch::memory::{Dtype, Stock};
use crate::loader::batches::Batches;
use crate::loader::build::mix::MixedSource;
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::stats::SourceStats;
use crate::loader::observe::stats::{GateStats, Stats};
use crate::loader::pipeline;
use crate::loader::progress::Progress;
use crate::loader::settings;
use crate::loader::shared::{Shared, check_process};
use crate::loader::spec::Spec;
use crate::loader::state::LoaderState;
use crate::loader::urls::IntoUrls;
use crate::text::Tokenizer;

/// A stream of batches of kept samples, epoch after epoch.
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

impl Drop for Loader {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // The model and the pool would wait for their threads, which are in the other process.
            std::mem::forget(Arc::clone(&self.spec));
        }
    }
}

impl Loader {
    /// Starts the configuration of a loader over shards: paths with `{00000..00331}` ranges,
    /// globs, folders, or several joined by `::`.
    pub fn builder<S: Into<String>>(urls: impl IntoUrls<S>) -> LoaderBuilder {
        Self::from_config(Config { sources: vec![Source::new(urls.into_urls())], ..Config::default() })
    }

    /// Starts the configuration of a loader over several corpora, each with its weight: its share of the
    /// samples that are yielded is its weight over the sum of the weights, exactly over an epoch and to within
    /// two samples in a global batch. How many samples an epoch has says
    /// [`samples_per_epoch`](LoaderBuilder::samples_per_epoch); by default as many as one pass over every
    /// corpus is expected to keep.
    pub fn mix<U: IntoUrls<S>, S: Into<String>>(
        sources: impl IntoIterator<Item = (U, f64)>,
    ) -> LoaderBuilder {
        let source =
            |(urls, weight): (U, f64)| Source { weight: Some(weight), ..Source::new(urls.into_urls()) };
        Self::from_config(Config { sources: sources.into_iter().map(source).collect(), ..Config::default() })
    }

    /// Starts the configuration of a loader with options that are there: more may be set, and models given.
    pub fn from_config(config: Config) -> LoaderBuilder {
        LoaderBuilder::new(config)
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
        match self.spec.config.mode {
            Mode::Eval => self.spec.mix.sources.iter().map(|source| source.line.samples()).sum(),
            Mode::Reduced | Mode::Full => self.num_batches() * self.spec.global_batch() as u64,
        }
    }

    /// Samples per batch on this rank.
    pub fn batch_size(&self) -> usize {
        self.spec.config.batch_size
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
        let images = match spec.config.images.dtype {
            PixelType::F32 => Dtype::F32,
            PixelType::Bf16 => Dtype::Bf16,
            PixelType::U8 => Dtype::U8,
        };
        let mut arrays = vec![(images, vec![spec.config.batch_size, 3, size, size])];
        arrays.extend(
            spec.tokenizer
                .as_ref()
                .map(|_| (Dtype::I64, vec![spec.config.batch_size, spec.config.captions.context_length])),
        );
        // Two are filled, and one waits for room among those that are ready.
        (arrays, spec.config.runtime.prefetch.max(1) + 3)
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
    /// [`ErrorKind::Ranks`](crate::ErrorKind::Ranks): the loader was made as another rank, or as one of another number.
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
    /// epoch of a state that was just loaded keeps the position in it: an iterator yields what is left, which is
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
        Ok(Batches::new(Arc::clone(&self.spec), Arc::clone(&self.shared), self.process))
    }

    /// Reads what an epoch reads, by default the corpus once, and yields nothing: of what the ledger does not cover, signals are
    /// computed and recorded there. `watch(statistics)` is called about five times a second; an error
    /// from it ends the pass. The position in the epoch stays.
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
        let (epoch, step) = self.shared.progress.position();
        LoaderState { epoch, step, ..self.start.clone() }
    }

    /// Whether [`load_state`](Self::load_state) would take `state`; moves nowhere.
    ///
    /// # Errors
    /// As [`load_state`](Self::load_state).
    pub fn check_state(&self, state: &LoaderState) -> Result<()> {
        let is_inexact = self.spec.model.as_ref().is_some_and(|model| !model.is_exact);
        if is_inexact && state.step > 0 && self.spec.ledger.location().is_none() {
            let text = "cannot resume within an epoch: the scorer's results depend on where a sample stands in a batch, so                         that other samples may be kept than before; give the loader a `ledger` in a folder from the                         start, or begin the epoch anew with set_epoch";
            return Err(ErrorKind::State(text.into()).into());
        }
        self.start.check(state, self.spec.world.world_size as u64, self.num_batches_of(state.epoch))
    }

    /// Moves to a saved state, of any world size with the same global batch and lanes: the next
    /// [`iter`](Self::iter) yields exactly what the saved run had not yielded yet, which after the last batch of an
    /// epoch is the next one. An iterator that is still running ends with an error.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::ErrorKind::State) that spells out every difference.
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
        stats.sources = source_stats(&self.spec, &stats, recorder);
        stats.rank = self.rank();
        stats.world_size = self.world_size();
        stats.rank_from = self.spec.world.source();
        stats
    }
}

/// What became of each source, of the epoch of `recorder`, by the outcomes of its shards in `stats`.
fn source_stats(spec: &Spec, stats: &Stats, recorder: &Recorder) -> Vec<SourceStats> {
    let of = |(source, yielded): (&MixedSource, u64)| {
        let own = spec.shards[source.shards.clone()].iter().filter_map(|shard| stats.shards.get(&shard.url));
        let (read, kept) = own.fold((0, 0), |(read, kept), own| (read + own.read, kept + own.kept));
        let (name, share) = (Arc::clone(&source.name), source.share);
        SourceStats { name, share, passes: source.line.passes(), read, kept, yielded }
    };
    spec.mix.sources.iter().zip(recorder.yielded_by_source()).map(of).collect()
}
