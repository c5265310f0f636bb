//! From the options to the loader: everything that is checked, listed and counted before the first batch.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::image::{self, DecodeOptions, ImagePipeline, ImageTransform};
use crate::loader::buffer::Buffer;
use crate::loader::builder::LoaderBuilder;
use crate::loader::decider::Decider;
use crate::loader::look;
use crate::loader::memory::Stock;
use crate::loader::model_thread::{ModelThread, Role};
use crate::loader::recorder::MaxErrors;
use crate::loader::spec::{Mode, Spec};
use crate::loader::stream::Loader;
use crate::loader::world::World;
use crate::text::Fuse;

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
        self.check_numbers()?;
        self.check_effects()?;
        self.open_tables()?;
        let world = World::find((self.rank, self.world_size), self.group, |name| std::env::var(name).ok())?;
        let world_size = world.world_size;
        let lanes = self.check_lanes(world_size)?;
        let transform = self.transform.unwrap_or(match self.mode {
            Mode::Eval => ImageTransform::Eval,
            Mode::Reduced | Mode::Full => ImageTransform::TRAIN,
        });
        let pipeline = ImagePipeline::new(transform, self.image_size, self.normalize)?
            .scaled_decoding(self.scaled_decoding)?;
        let pixel_settings = [
            ("transform", format!("{transform:?}")),
            ("image_size", self.image_size.to_string()),
            ("mean", format!("{:?}", self.normalize.mean)),
            ("std", format!("{:?}", self.normalize.std)),
            ("scaled_decoding", self.scaled_decoding.to_string()),
            ("JPEG decoder", image::DECODER.into()),
        ];
        // Checked before anything is read; made when the size of the corpus is known.
        let clusters = self.clusters()?;
        let plan = self.load_plan()?;
        let wanted = self.decider(clusters.as_ref(), 1, plan.as_ref())?;
        self.check_captioner(wanted.as_ref())?;
        self.check_judge(wanted.as_ref())?;
        self.check_weights(wanted.as_ref())?;
        let spawn = |encoder, role| ModelThread::spawn(encoder, role);
        let model = self.encoder.take().map(|(encoder, _)| spawn(encoder, Role::Captioner)).transpose()?;
        let judge = self.judge.take().map(|judge| spawn(judge, Role::Judge)).transpose()?;
        let needs_signals = self.needs_signals(wanted.as_ref(), model.as_ref())?;
        let (shards, listed) = self.list()?;
        let lengths = match (&plan, &self.plan) {
            (Some(plan), Some(path)) => plan.lengths(path, &shards, self.lengths.as_deref())?,
            _ => self.check_lengths(&shards, progress)?,
        };
        let corpus = (&shards[..], &lengths[..]);
        let counts = self.look(&listed, corpus, plan.as_deref(), progress)?;
        let included = counts.iter().map(|count| count.included).sum();
        let selector = self.decider(clusters.as_ref(), included, plan.as_ref())?;
        let worth = self.say_of_captioner(selector.as_ref(), clusters.as_deref(), corpus);
        let mix = self.mix(listed, corpus, &counts, selector.as_ref(), (lanes, world_size))?;
        let counted = look::fingerprint(&shards, &lengths, &counts);
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tldr-pixels-{i}"))
            .build()
            .map_err(|e| Error::io("start the pixel threads", std::io::Error::other(e)))?;
        // The field is not looked up where nothing goes by it.
        let needs_scores = selector.as_ref().is_some_and(Decider::needs_scores);
        self.read.score_key = self.score.filter(|_| needs_scores).map(|score| score.key);
        let spill_dir = self.spill_dir.unwrap_or_else(std::env::temp_dir);
        if !spill_dir.is_dir() {
            let accepted = "a folder, for samples that wait and that `buffer_bytes` has no room for";
            return Err(Error::option("spill_dir", format!("{:?}", spill_dir.display()), accepted));
        }
        Ok(Loader::new(Spec {
            shards,
            lengths,
            counted,
            mix,
            mode: self.mode,
            worth,
            needs_signals,
            // Captions are written for survivors only: in the other modes no model runs.
            model: model.filter(|_| selector.is_some()),
            judge: judge.filter(|_| selector.is_some()),
            rescue: self.rescue && selector.is_some(),
            selector,
            ledger: self.ledger,
            claims: Default::default(),
            seed: self.seed,
            window: self.window,
            shuffle_windows: if self.mode == Mode::Eval { 1 } else { self.shuffle_windows },
            lanes,
            world,
            batch_size: self.batch_size,
            prefetch: self.prefetch,
            stock: Stock::default(),
            buffer: Buffer::new(self.buffer_bytes, &spill_dir),
            read: self.read,
            decode: DecodeOptions {
                max_pixels: self.max_image_pixels,
                exif_orientation: self.exif_orientation,
            },
            pipeline,
            pixel_settings,
            pixels: self.pixels,
            tokenizer: self.tokenizer,
            context_length: self.context_length,
            fuse: if self.mode == Mode::Reduced { self.fuse } else { Fuse::Original },
            replace_repetitive: self.replace_repetitive,
            defer_duplicates: self.defer_duplicates,
            weights: self.weights,
            policy: 0,
            strict: self.strict,
            warned: AtomicBool::new(false),
            on_error: self.on_error,
            max_errors: MaxErrors { in_all: self.max_errors, per_shard: self.max_errors_per_shard },
            stall_timeout: self.stall_timeout,
            pool: Arc::new(pool),
        }))
    }
}
