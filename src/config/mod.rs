//! The options of a run: one tree, in which each is declared once.
//!
//! A [`Config`] says what is read ([`Source`]), what of it is kept ([`Selection`]), with which captions ([`Captions`])
//! and images ([`Images`]), by which of how many processes ([`World`]) and how ([`Runtime`]). The builder of a loader
//! fills one in, stages read it, saved states and fingerprints have what differs from the defaults
//! ([`Class`](crate::options::Class)), and files, the command line and Python are read into it by name.
//!
//! Values that take arguments have one notation everywhere: `top(0.5)`, `cap(100)`, `concat(16)`.

mod builder;
mod captions;
mod gate;
mod images;
mod quota;
mod runtime;
mod selection;
mod source;
mod world;

use std::path::{Path, PathBuf};

pub use builder::Builder;
pub use captions::Captions;
pub use gate::{Gate, Within};
pub use images::{Images, PixelType, Transform};
pub use quota::{Priority, Quota};
pub use runtime::{OnError, Runtime};
pub use selection::Selection;
pub use source::{CaptionFiles, Source};
pub use world::World;

use crate::error::{Error, Result};
use crate::options::{Group as _, text_settings};

crate::group! {
    /// Everything that a loader is asked for.
    pub struct Config, fields of config {
        /// What is read: one corpus, or several that are mixed by their weights.
        Reading sources: Vec<Source> = vec![], own setter;
        /// Directory of a captioner, after `fit`. Default: none, and the selection is plain random.
        Runtime captioner: Option<PathBuf> = None, own setter;
        /// What is kept of it.
        Policy selection: Selection = Selection::default();
        /// Which captions samples have.
        Policy captions: Captions = Captions::default(), own setter;
        /// What images look like.
        Pixels images: Images = Images::default();
        /// The tokenizer of the trained model: a `tokenizer.json`, obeyed with what lies beside it
        /// (`open_clip_config.json`, `tokenizer_config.json`), or open_clip's merges file. Default: none, and batches
        /// carry captions only.
        Runtime tokenizer: Option<PathBuf> = None, own setter;
        /// Samples per batch and rank. Default: 256.
        Order batch_size: usize = 256;
        /// `cpu`, `cuda` (torch's current device) or `cuda:N`: where batches end up, and where the captioner runs unless
        /// `captioner_device` says otherwise. Default: `cpu`.
        Runtime device: String = "cpu".to_owned(), own setter;
        /// What the loader yields: `reduced`, what is kept; `full`, every sample with its original caption; `eval`, every
        /// sample once, in order, with the eval transform. Of `eval` one process yields a short last batch; of several
        /// each yields as many batches of `batch_size` rows as the others, and `valid` says which rows are real.
        /// Default: `reduced`.
        Policy mode: Mode = Mode::Reduced;
        /// Seed of every random choice. Default: 0.
        Policy seed: u64 = 0;
        /// Folder that signals and captions are remembered in, of this machine or of a bucket; begun where nothing is.
        /// Default: memory.
        Runtime ledger: Option<String> = None, own setter;
        /// A plan, as `tldr-loader plan` writes it: it says which samples are kept, and the options of the selection may be
        /// omitted. Shards, window size, reading options and captioner must be those it was made with; a captioner is only
        /// needed where captions are generated, or chosen by alignment. Default: the selection decides, window by window.
        Runtime plan: Option<PathBuf> = None, into PathBuf;
        /// Samples that an epoch yields over all ranks, rounded down to whole batches: a part of a pass over the
        /// shards, or several. The next epoch goes on in the shards where this one stops. Default: what one pass is
        /// expected to keep.
        // Only whole batches of it count, and places in them are compared by themselves.
        Runtime samples_per_epoch: Option<u64> = None, some u64;
        /// Fields of the samples that batches carry, as `fields`: by name, of tables of scores, of the json member, or of the
        /// Parquet file beside the shard. Default: none.
        Runtime fields: Vec<String> = vec![];
        /// How the loader works.
        Runtime runtime: Runtime = Runtime::default();
        /// Which of how many processes this one is.
        Order world: World = World::default(), own setter;
    }
}

impl Config {
    /// Reads a TOML file: fields of this struct, groups as tables, sources as an array of tables. Paths in it are taken as
    /// they stand, from the working directory.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML; an option that is not known, or of another type.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::io(format!("read the options in {}", path.display()), error))?;
        let found = |error: toml::de::Error| {
            Error::format(path.display().to_string(), "a TOML file of options", error.to_string().trim_end())
        };
        Self::read(&toml::from_str(&text).map_err(found)?)
    }
}

/// What a loader yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// What the selection keeps.
    #[default]
    Reduced,
    /// Every sample with its original caption, through the same pipeline.
    Full,
    /// Every sample once, in order, with the eval transform. One process yields a short last batch, and a
    /// sample that fails shortens its own; of several each yields as many batches as the others, all of `batch_size`
    /// rows, and [`Batch::valid`](crate::loader::Batch::valid) says which rows are real.
    Eval,
}

crate::names!(Mode { Reduced => "reduced", Full => "full", Eval => "eval" }, option "mode", "one of reduced, full, eval");

text_settings! {
    Mode: "Literal['reduced', 'full', 'eval']", "one of reduced, full, eval";
}
