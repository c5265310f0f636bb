//! From the options to the loader: everything that is checked, listed and counted before the first batch.

mod corpus;
mod effects;
mod gate_worth;
pub(crate) mod listing;
pub(crate) mod mix;
pub(crate) mod parts;
mod plan_options;
mod recorded;
mod shares;
mod validate;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::Mode;
use crate::error::{Error, Result};
use crate::image::ImagePipeline;
use crate::ledger::Ledger;
use crate::loader::batch::memory::Stock;
use crate::loader::buffer::Buffer;
use crate::loader::decider::Decider;
use crate::loader::model_thread::{ModelThread, Role};
use crate::loader::observe::recorder::MaxErrors;
use crate::loader::ranks::Ranks;
use crate::loader::spec::Spec;
use crate::loader::stream::Loader;
use crate::text::Tokenizer;

pub use corpus::check_tables;
pub(crate) use corpus::{included, measured};
pub(crate) use listing::{Listing, readings};
pub use parts::{LoaderBuilder, Parts};

impl LoaderBuilder {
    /// Checks the options, lists the shards, counts their samples and makes the loader.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Option`] for an option that cannot work, or that was given and has no effect beside
    /// the others, before anything is read;
    /// errors of listing and counting shards.
    pub fn build(self) -> Result<Loader> {
        self.build_with_progress(&mut |_, _| {})
    }

    /// As [`build`](Self::build); `progress(done, total)` is called for each shard whose samples
    /// have to be counted.
    pub fn build_with_progress(mut self, progress: &mut dyn FnMut(usize, usize)) -> Result<Loader> {
        self.open_tokenizer()?;
        self.check_numbers()?;
        self.check_effects()?;
        self.check_models()?;
        let own = (self.config.world.rank, self.config.world.world_size);
        let world = Ranks::find(own, self.parts.group, |name| std::env::var(name).ok())?;
        let world_size = world.world_size;
        let lanes = self.check_lanes(world_size)?;
        let images = &self.config.images;
        let transform = images.transform_in(self.config.mode)?;
        let pipeline = ImagePipeline::new(transform, images.image_size, images.normalize())?
            .scaled_decoding(images.scaled_decoding)?;
        let decode = images.decode();
        // Checked before anything is read; made when the size of the corpus is known.
        let clusters = self.clusters()?;
        let plan = self.load_plan()?;
        let wanted = self.decider(clusters.as_ref(), 1, plan.as_ref())?;
        self.check_captioner(wanted.as_ref())?;
        self.check_judge(wanted.as_ref())?;
        self.check_weights(wanted.as_ref())?;
        let spawn = |scorer, role| ModelThread::spawn(scorer, role);
        let model = self.parts.scorer.take().map(|(scorer, _)| spawn(scorer, Role::Captioner)).transpose()?;
        let judge = self.parts.judge.take().map(|judge| spawn(judge, Role::Judge)).transpose()?;
        let needs_signals = self.needs_signals(wanted.as_ref(), model.as_ref())?;
        let ledger = self.open_ledger()?;
        let mut listing = self.list(&ledger)?;
        self.check_tables_of_captions(&listing)?;
        listing.carry(&self.config.fields);
        let lengths = match (&plan, &self.config.plan) {
            (Some(plan), Some(path)) => {
                self.check_reading(plan, &listing)?;
                plan.lengths(path, &listing.shards, self.given_lengths()?.as_deref())?
            }
            _ => self.check_lengths(&listing, progress)?,
        };
        if let Some(model) = model.as_ref().filter(|model| model.stands_in && needs_signals) {
            let read = (&listing.reads[..], &decode);
            recorded::check(&ledger, model.fingerprint, read, self.config.selection.window)?;
        }
        let counts = self.look(&listing, &lengths, plan.as_deref(), progress)?;
        let corpus = (&listing.shards[..], &lengths[..]);
        let included = counts.iter().map(|count| count.included).sum();
        let selector = self.decider(clusters.as_ref(), included, plan.as_ref())?;
        let worth = self.say_of_captioner(selector.as_ref(), clusters.as_deref(), corpus);
        let sources = std::mem::take(&mut listing.sources);
        let mix = self.mix(sources, corpus, &counts, selector.as_ref(), (lanes, world_size))?;
        let counted = corpus::fingerprint(&listing.shards, &lengths, &counts);
        let runtime = &self.config.runtime;
        let threads = match runtime.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tldr-pixels-{i}"))
            .build()
            .map_err(|e| Error::io("start the pixel threads", std::io::Error::other(e)))?;
        // The field is not looked up where nothing goes by it.
        if let Some(selector) = selector.as_ref().and_then(Decider::selector)
            && let Some(field) = selector.policy().gate().field()
        {
            listing.reads = listing.scored(field);
        }
        let score_columns = listing.score_columns();
        let spill_dir = runtime.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
        if !spill_dir.is_dir() {
            let accepted = "a folder, for samples that wait and that `buffer_bytes` has no room for";
            return Err(Error::option("spill_dir", format!("{:?}", spill_dir.display()), accepted));
        }
        let buffer = Buffer::new(runtime.buffer_bytes, &spill_dir);
        let per_shard = runtime.max_errors_per_shard.unwrap_or(f64::INFINITY);
        let max_errors = MaxErrors { in_all: runtime.max_errors, per_shard };
        let mut config = self.config;
        if config.mode == Mode::Eval {
            // Samples stay in order.
            config.runtime.shuffle_windows = 1;
        }
        Ok(Loader::new(Spec {
            config,
            shards: listing.shards,
            reads: listing.reads,
            lengths,
            score_columns,
            counted,
            mix,
            worth,
            needs_signals,
            needs_images: needs_signals || !self.parts.only_recording,
            // Captions are written for kept samples only: in the other modes no model runs.
            model: model.filter(|_| selector.is_some()),
            judge: judge.filter(|_| selector.is_some()),
            selector,
            ledger,
            claims: Default::default(),
            lanes,
            world,
            stock: Stock::default(),
            buffer,
            decode,
            pipeline,
            tokenizer: self.parts.tokenizer,
            policy: 0,
            warned: AtomicBool::new(false),
            max_errors,
            pool: Arc::new(pool),
        }))
    }

    /// Opens the tokenizer that the options name.
    fn open_tokenizer(&mut self) -> Result<()> {
        if let (Some(path), None) = (&self.config.tokenizer, &self.parts.tokenizer) {
            if !path.exists() {
                let accepted = "it does not exist; expected a tokenizer.json, or open_clip's merges file";
                return Err(Error::refused("tokenizer", path.display(), accepted));
            }
            self.parts.tokenizer = Some(Tokenizer::from_file(path)?);
        }
        Ok(())
    }

    /// The ledger: as given, as the options name it, or an empty one.
    fn open_ledger(&mut self) -> Result<Ledger> {
        match (self.parts.ledger.take(), &self.config.ledger) {
            (Some(ledger), _) => Ok(ledger),
            (None, Some(place)) => {
                let store =
                    self.config.sources.first().map(|source| source.store.clone()).unwrap_or_default();
                Ledger::open_with(place, None, &store)
            }
            (None, None) => Ok(Ledger::new()),
        }
    }

    /// The shards of all sources.
    fn list(&mut self, ledger: &Ledger) -> Result<Listing> {
        let read = self.parts.read.take();
        match self.parts.shards.clone() {
            Some(shards) => Ok(Listing::given(shards, Arc::new(read.unwrap_or_default()))),
            None => {
                let listing = Listing::of(&self.config.sources, ledger.location().as_deref())?;
                Ok(match read {
                    Some(read) => listing.reading(read),
                    None => listing,
                })
            }
        }
    }
}
