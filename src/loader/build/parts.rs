//! What a loader is built of beside its options: models, a ledger, shards that were listed before. `checks` checks the
//! options, `build` makes the loader.

use std::sync::Arc;

use crate::cluster::Clusters;
use crate::config::{Builder, Config};
use crate::image::DecodeOptions;
use crate::ledger::Ledger;
use crate::model::Scorer;
use crate::select::ScoreCut;
use crate::shard::{ReadOptions, Shard};
use crate::text::Tokenizer;

/// Makes a [`Loader`](crate::Loader): its options, by the setters of [`Builder`], and what is no plain data.
pub type LoaderBuilder = Builder<Parts>;

/// What a loader is built of beside its [`Config`].
#[derive(Default)]
pub struct Parts {
    pub(crate) shards: Option<Vec<Shard>>,
    pub(crate) read: Option<ReadOptions>,
    pub(crate) scorer: Option<(Box<dyn Scorer>, Arc<Clusters>)>,
    pub(crate) judge: Option<Box<dyn Scorer>>,
    pub(crate) ledger: Option<Ledger>,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) group: Option<(usize, usize)>,
    pub(crate) cut: Option<ScoreCut>,
    pub(crate) only_recording: bool,
}

impl LoaderBuilder {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, parts: Parts::default() }
    }

    /// The captioner and its clusters. The model moves into a thread of its own.
    pub fn captioner(self, scorer: impl Scorer + 'static, clusters: Arc<Clusters>) -> Self {
        self.fitted((Box::new(scorer), clusters))
    }

    pub(crate) fn fitted(mut self, fitted: (Box<dyn Scorer>, Arc<Clusters>)) -> Self {
        self.parts.scorer = Some(fitted);
        self
    }

    /// A model whose alignments score generated captions, for [`Fuse::Gated`](crate::text::Fuse::Gated) and
    /// [`rescue`](Self::rescue). It must not be the captioner that writes them: one that was trained on other data, or
    /// an image-text matching head. It moves into a thread of its own.
    pub fn judge(mut self, judge: impl Scorer + 'static) -> Self {
        self.parts.judge = Some(Box::new(judge));
        self
    }

    /// Where signals and captions are remembered. Default: what the options name, else an empty one for this loader.
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.parts.ledger = Some(ledger);
        self
    }

    /// Tokenizer of the trained model. Default: what the options name; without one batches carry captions only.
    pub fn tokenizer(mut self, tokenizer: Tokenizer) -> Self {
        self.parts.tokenizer = Some(tokenizer);
        self
    }

    /// Rank and number of processes of a process group that is initialised, as torch.distributed's. `RANK` and
    /// `WORLD_SIZE` must agree with it where they are set.
    pub fn process_group(mut self, rank: usize, world_size: usize) -> Self {
        self.parts.group = Some((rank, world_size));
        self
    }

    /// Shards that were listed before, in place of the URLs: to read a part of a corpus.
    pub fn shards(mut self, shards: Vec<Shard>) -> Self {
        self.parts.shards = Some(shards);
        self
    }

    /// How images are decoded: the options of [`Images`](crate::config::Images) that say so, at once.
    pub fn decode(mut self, decode: DecodeOptions) -> Self {
        let DecodeOptions { max_pixels, exif_orientation, alpha } = decode;
        let images = &mut self.config.images;
        (images.max_image_pixels, images.exif_orientation, images.alpha) =
            (max_pixels, exif_orientation, alpha);
        self
    }

    /// How samples are made of members, with tables that are open, in place of what each source says.
    pub fn read_options(mut self, read: ReadOptions) -> Self {
        self.parts.read = Some(read);
        self
    }

    /// Where scores are cut, measured before.
    pub(crate) fn cut(mut self, cut: Option<ScoreCut>) -> Self {
        self.parts.cut = cut;
        self
    }

    /// For [`Loader::record`](crate::Loader::record) only: nothing is yielded, so that no number of batches has to be
    /// told.
    pub(crate) fn only_recording(mut self) -> Self {
        self.parts.only_recording = true;
        self
    }
}
