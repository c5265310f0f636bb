//! What the loader knows of a model: two traits over plain arrays.
//!
//! [`Scorer`] turns previews and captions into [`Signals`], [`Recaptioner`] turns previews into
//! captions. The project's own captioner (the crate `tldr-captioner`) implements both; tests use stubs, and
//! users can bring their own. [`Recorded`] stands in for a model whose every word is in a ledger. Previews are `u8` RGB, `[batch, 3, size, size]`, not normalised.

use ndarray::{Array2, ArrayView2, ArrayView4};

mod recorded;

pub use recorded::{Identity, Recorded};

use crate::error::Result;
use crate::sample::SampleId;

/// Bits of a semantic hash.
pub const SEMANTIC_HASH_BITS: usize = 256;

/// Signs of random projections of an embedding; near-duplicates differ in few bits.
pub type SemanticHash = [u64; SEMANTIC_HASH_BITS / 64];

/// What stands where a hash is not known.
pub const UNKNOWN_HASH: SemanticHash = [0; SEMANTIC_HASH_BITS / 64];

/// What a captioner says of a batch of samples: everything that selection may depend on.
///
/// Signals of a sample depend on the sample and the captioner directory only. All fields have
/// the batch as their first dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Signals {
    /// Nearest centroid, `[batch]`; centroids stand in similarity order.
    pub cluster: Vec<u32>,
    /// Alignment of image and original caption as a quantile in [0, 1] of the distribution
    /// measured at fit time, `[batch]`: 0.9 means better aligned than 90% of the corpus.
    pub alignment: Vec<f32>,
    /// L2-normalised image embedding, `[batch, dim]`, f32.
    pub embedding: Array2<f32>,
    /// Signs of random projections of the embedding, `[batch]`; near-duplicates differ in few bits.
    pub semantic_hash: Vec<SemanticHash>,
}

/// How a picture becomes the square of a preview.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreviewFilter {
    /// Bilinear, antialiased, the whole picture squashed.
    #[default]
    Bilinear,
    /// Bicubic, antialiased: BLIP's.
    Bicubic,
    /// Bicubic, antialiased, the shorter side to that of the preview, and of the longer one the centre: CLIP's.
    #[serde(rename = "bicubic-crop")]
    BicubicCrop,
}

crate::names!(
    PreviewFilter { Bilinear => "bilinear", Bicubic => "bicubic", BicubicCrop => "bicubic-crop" },
    option "preview_filter"
);

impl PreviewFilter {
    /// Whether it is the bilinear one.
    pub fn is_bilinear(&self) -> bool {
        *self == Self::Bilinear
    }
}

/// What a model that knows nothing of a corpus says of a batch of samples. All fields have the batch as their first
/// dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct RawScores {
    /// Image embedding of any length, `[batch, dim]`.
    pub embedding: Array2<f32>,
    /// How well image and caption fit, higher is better, in any unit, `[batch]`.
    pub alignment: Vec<f32>,
    /// Cluster of each sample, `[batch]`; `None` where the nearest centroid of the fit is meant.
    pub cluster: Option<Vec<u32>>,
}

/// A model that embeds images and scores captions, such as a CLIP: what a fit learns of a corpus
/// ([`Fitted`](crate::cluster::Fitted)) makes a [`Scorer`] of it.
pub trait Embedder: Send {
    /// Side of the square previews it takes, in pixels.
    fn preview_size(&self) -> usize;

    /// How its previews are made.
    fn preview_filter(&self) -> PreviewFilter;

    /// Rows of a batch. Every call gets exactly this many; unused rows are blank.
    fn batch_size(&self) -> usize;

    /// Identifies the weights and whatever else the scores depend on.
    fn fingerprint(&self) -> u64;

    /// As [`Scorer::compute`].
    fn compute(&self) -> String {
        String::new()
    }

    /// As [`Scorer::is_exact`].
    fn is_exact(&self) -> bool {
        true
    }

    /// Scores of `previews` `[batch_size, 3, preview_size, preview_size]` and `captions` `[batch_size]`. The result of a
    /// row must not depend on the other rows.
    fn score(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<RawScores>;

    /// As [`Scorer::expect`].
    ///
    /// # Errors
    /// As [`score`](Self::score).
    fn expect(&mut self, _next: ArrayView4<'_, u8>) -> Result<()> {
        Ok(())
    }

    /// The nearest of the unit vectors `centroids` `[dim, clusters]` to each of the unit vectors `points` `[points, dim]`, and
    /// their cosine; `None` where it has no device that is faster than the cores here.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    fn nearest(
        &mut self,
        _points: ArrayView2<'_, f32>,
        _centroids: ArrayView2<'_, f32>,
    ) -> Result<Option<(Vec<u32>, Vec<f32>)>> {
        Ok(None)
    }

    /// The same model as a writer of captions, where it is one.
    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        None
    }
}

/// Turns previews and original captions into signals.
pub trait Scorer: Send {
    /// Length of an embedding.
    fn dim(&self) -> usize;

    /// Side of the square previews it takes, in pixels.
    fn preview_size(&self) -> usize;

    /// How its previews are made.
    fn preview_filter(&self) -> PreviewFilter {
        PreviewFilter::Bilinear
    }

    /// Rows of a batch. Every call gets exactly this many; unused rows are blank (zero pixels,
    /// empty captions) and their signals are ignored.
    fn batch_size(&self) -> usize;

    /// Number of clusters: every [`Signals::cluster`] is below it.
    fn clusters(&self) -> usize;

    /// Identifies the weights, the clusters and the previews it takes, their size and filter: signals of different
    /// fingerprints never mix.
    fn fingerprint(&self) -> u64;

    /// How it computes, in words: kind of device, number type, version of the library. Signals of one
    /// fingerprint that were computed otherwise may differ in their last bits; a loader says so. Empty where
    /// it makes no difference.
    fn compute(&self) -> String {
        String::new()
    }

    /// Whether a row's signals are the same to the last bit wherever the row stands in a batch. Where not, a run resumes
    /// exactly only with a ledger.
    fn is_exact(&self) -> bool {
        true
    }

    /// Whether it only stands in for a model whose signals and captions are in a ledger, as [`Recorded`] does:
    /// signals and scores are then taken however they were computed.
    fn stands_in(&self) -> bool {
        false
    }

    /// Signals of `previews` `[batch_size, 3, preview_size, preview_size]` and `captions`
    /// `[batch_size]`. The result of a row must not depend on the other rows.
    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals>;

    /// Says which previews come after those of the next call, where that is known: a model on another device uploads them
    /// while it computes. They are not changed until then.
    ///
    /// # Errors
    /// As [`signals`](Self::signals).
    fn expect(&mut self, _next: ArrayView4<'_, u8>) -> Result<()> {
        Ok(())
    }

    /// The same model as a writer of captions, where it is one.
    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        None
    }
}

/// Writes captions for previews.
pub trait Recaptioner {
    /// Rows of a caption batch; as [`Scorer::batch_size`].
    fn caption_batch_size(&self) -> usize;

    /// Identifies weights and generation settings: captions of different fingerprints never mix.
    fn caption_fingerprint(&self) -> u64;

    /// Writes one caption per row of `previews`
    /// `[caption_batch_size, 3, preview_size, preview_size]`. `ids` are the samples of the first
    /// rows: what is drawn at random is drawn by them, so that a caption is a function of its sample.
    /// Rows beyond are blank and their captions are ignored (an implementation may leave them empty).
    fn caption(&mut self, previews: ArrayView4<'_, u8>, ids: &[SampleId]) -> Result<Vec<String>>;
}

impl Scorer for Box<dyn Scorer> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn preview_size(&self) -> usize {
        (**self).preview_size()
    }

    fn preview_filter(&self) -> PreviewFilter {
        (**self).preview_filter()
    }

    fn batch_size(&self) -> usize {
        (**self).batch_size()
    }

    fn clusters(&self) -> usize {
        (**self).clusters()
    }

    fn fingerprint(&self) -> u64 {
        (**self).fingerprint()
    }

    fn compute(&self) -> String {
        (**self).compute()
    }

    fn stands_in(&self) -> bool {
        (**self).stands_in()
    }

    fn is_exact(&self) -> bool {
        (**self).is_exact()
    }

    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        (**self).signals(previews, captions)
    }

    fn expect(&mut self, next: ArrayView4<'_, u8>) -> Result<()> {
        (**self).expect(next)
    }

    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        (**self).recaptioner()
    }
}
