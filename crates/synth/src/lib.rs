//! A synthetic web-like corpus with ground truth, drawn by the project itself.
//!
//! A *scene* is a main object and up to two lesser ones on a background. Its class is the shape
//! and colour of the main object; classes follow Zipf's law. Each scene is drawn several times,
//! as near-duplicates (shifted, rescaled, brightened, recompressed), and each copy draws a caption of
//! its own: from one of several templates, sometimes with details left out, sometimes with a
//! place name that nothing but the background gives away. A stated share of the captions is
//! [`Noise`]. What is true of each sample stands in its json as [`Truth`].
//!
//! [`write_corpus`] writes `train/` and `test/` as WebDataset shards; [`Corpus`] gives single
//! samples in memory:
//!
//! ```
//! use tldr_synth::{Corpus, SynthOptions};
//!
//! let corpus = Corpus::new(&SynthOptions { samples: 100, test_samples: 10, ..Default::default() })?;
//! let sample = corpus.sample(7)?;
//! assert!(sample.jpeg.starts_with(&[0xFF, 0xD8]));
//! println!("{} ({:?})", sample.caption, sample.truth.noise);
//! # Ok::<(), tldr_loader::Error>(())
//! ```
//!
//! Everything is a function of the options, never of the number of threads: the same options
//! give the same bytes.

mod caption;
mod corpus;
mod draw;
mod options;
mod scene;
mod write;

pub use caption::Attribute;
pub use corpus::{Corpus, SynthSample, Truth};
pub use options::{Noise, NoiseShares, SynthOptions};
pub use scene::CLASSES;
pub use write::{SynthSummary, write_corpus};
