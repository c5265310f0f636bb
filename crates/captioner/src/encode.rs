//! Signals of a batch: codes, cluster, alignment, embedding and semantic hash.
//!
//! Everything is computed on the device and comes back in one copy. The shapes are those of the
//! configuration, whatever the batch holds, so that no kernel is chosen by the content.

use ndarray::{Array2, ArrayView4};
use tch::{Kind, Tensor};

use crate::device::{Inference, describe};
use crate::error::{Error, Result};
use crate::matcher::{MatchedTexts, Matcher};
use crate::model::{Captioner, Codes, TextBatch};
use crate::projections::{PIECE, hash_words};
use crate::weights::{to_f32, unit_rows};
use tldr_loader::cluster::Discriminant;
use tldr_loader::cluster::RawAlignment;
use tldr_loader::model::{PreviewFilter, Recaptioner, SEMANTIC_HASH_BITS, Scorer, Signals};

/// What a captioner says of a batch before a corpus is known: what `fit` learns from.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSignals {
    /// Nearest code of each patch, row by row, `[batch, patches]`.
    pub codes: Array2<u32>,
    /// Sum over the caption's tokens of log p(token | image) - log p(token | no image), or the log-odds of
    /// a match where a matcher measures it, in nats, `[batch]`.
    pub alignment_sum: Vec<f32>,
    /// Tokens of that sum, the end token included, `[batch]`.
    pub tokens: Vec<u32>,
    /// Mean patch before quantisation, centred and L2-normalised, `[batch, code_dim]`.
    pub mean_patch: Array2<f32>,
}

/// What encoding knows of a batch, still on the device.
struct Features {
    /// `[batch, patches]`, i64.
    indices: Tensor,
    /// `[batch]`, f32.
    alignment: Tensor,
    /// Previews `[batch, 3, size, size]`, u8.
    previews: Tensor,
    /// Patches before quantisation, `[batch, patches, code_dim]`, f32.
    z: Tensor,
    tokens: Vec<usize>,
}

/// The captions of a batch on the device, as what measures alignment takes them.
enum Texts<'a> {
    Matched(&'a Matcher, MatchedTexts),
    /// Mask and tokens.
    Scored(Tensor, TextBatch),
}

impl Captioner {
    /// Codes, raw alignment and embedding of `previews`
    /// `[batch_size, 3, preview_size, preview_size]` with `captions` `[batch_size]`.
    ///
    /// Costs one pass of the image encoder and two of the decoder, or one of the matcher.
    ///
    /// # Errors
    /// Arrays of another shape; a failure of the device.
    pub fn encode_raw(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<RawSignals> {
        let _inference = Inference::on(self.device);
        self.prepare()?;
        let features = self.features(previews, captions)?;
        let batch = captions.len();
        let (patches, dim) = (self.config.patches(), self.config.embedding_dim());
        let packed = Tensor::f_cat(
            &[
                features.indices.f_to_kind(Kind::Float)?,
                features.alignment.f_unsqueeze(1)?,
                self.mean_patch(&features.z)?,
            ],
            1,
        )?;
        let width = patches + 1 + dim;
        let values = to_f32(&packed)?;
        let row = |b: usize| &values[b * width..(b + 1) * width];
        Ok(RawSignals {
            codes: Array2::from_shape_fn((batch, patches), |(b, p)| row(b)[p] as u32),
            alignment_sum: (0..batch).map(|b| row(b)[patches]).collect(),
            tokens: features.tokens.iter().map(|&n| n as u32).collect(),
            mean_patch: Array2::from_shape_fn((batch, dim), |(b, d)| row(b)[patches + 1 + d]),
        })
    }

    fn features(&self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Features> {
        let batch = self.config.batch_size;
        if captions.len() != batch {
            return Err(Error::format("captions", format!("{batch} of them"), captions.len()));
        }
        // Everything goes to the device first: a copy waits for what was queued before it.
        let ids = self.tokens(captions);
        let previews = self.previews(previews, batch)?;
        let texts = match &self.matcher {
            Some(matcher) => Texts::Matched(matcher, matcher.texts(captions)?),
            None => {
                let text = self.text_batch(&ids, Some(self.config.decoder.max_tokens))?;
                Texts::Scored(self.mask(&text)?, text)
            }
        };
        let tokens = self.vision_in_use().forward(&previews)?;
        let coded = self.coded(&tokens)?;
        Ok(Features {
            alignment: match &texts {
                Texts::Matched(matcher, texts) => matcher.log_odds(&previews, texts)?.0,
                Texts::Scored(mask, text) => {
                    self.likelihood_ratio(&self.seen(&tokens, Some(&coded))?, text, mask)?
                }
            },
            indices: coded.indices,
            z: coded.z,
            previews,
            tokens: ids.iter().map(Vec::len).collect(),
        })
    }

    /// Sum over the tokens of each caption of log p(token | image) - log p(token | no image), `[batch]`,
    /// where the decoder sees `visual` `[batch, tokens, dim]`; `mask` is 1 where a target is a token.
    fn likelihood_ratio(&self, visual: &Tensor, text: &TextBatch, mask: &Tensor) -> Result<Tensor> {
        let decoder = self.decoder_in_use();
        let with = decoder.log_likelihood(&text.ids, &text.targets, &decoder.memory(visual)?)?;
        let null = self.null_memory(decoder, text.lengths.len())?;
        let without = decoder.log_likelihood(&text.ids, &text.targets, &null)?;
        let ratio = with.f_sub(&without)?.f_mul(mask)?;
        Ok(ratio.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
    }

    /// The image embedding, `[batch, dim]`, L2-normalised: the descriptor in the directions that tell images apart,
    /// where the fit has learned them, and else the mean patch.
    fn embedding(&self, features: &Features) -> Result<Tensor> {
        let Some((mean, weights)) = &self.projections.discriminant else {
            return self.mean_patch(&features.z);
        };
        let descriptor = self.descriptor(&features.previews, &features.z)?;
        unit_rows(&descriptor.f_sub(mean)?.f_mm(weights)?)
    }

    /// The mean of the patches before quantisation, in the space of the codes, minus the mean of all patches
    /// that training (or the fit) saw, L2-normalised. Without the second mean all would point the same way, and
    /// random projections would split none.
    fn mean_patch(&self, z: &Tensor) -> Result<Tensor> {
        let mean = z.f_mean_dim([1i64].as_slice(), false, Kind::Float)?;
        match &self.codes {
            Codes::Trained(codebook) => unit_rows(&mean.f_sub(&codebook.mean()?)?),
            Codes::Fitted(codebook) => unit_rows(&mean.f_sub(codebook.mean())?),
            Codes::Missing => unit_rows(&mean),
        }
    }

    /// Nearest centroid of each row's bag of codes, `[batch]`, i64.
    fn nearest_cluster(&self, indices: &Tensor, idf: &Tensor, centroids: &Tensor) -> Result<Tensor> {
        if let Some((weights, bias)) = &self.projections.raw_index {
            let scores = indices.f_to_kind(Kind::Float)?.f_mm(weights)?.f_add(bias)?;
            return Ok(scores.f_argmax(-1, false)?);
        }
        let (batch, _) = indices.size2()?;
        let ones = indices.f_ones_like()?.f_to_kind(Kind::Float)?;
        let histogram = Tensor::f_zeros([batch, self.config.codes() as i64], (Kind::Float, self.device))?
            .f_scatter_add(1, indices, &ones)?;
        let signature = unit_rows(&histogram.f_sqrt()?.f_mul(idf)?)?;
        Ok(signature.f_mm(centroids)?.f_argmax(-1, false)?)
    }

    /// As [`Scorer::signals`].
    fn compute_signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        let _inference = Inference::on(self.device);
        self.prepare()?;
        let (Some(clusters), Some((idf, centroids))) = (&self.clusters, &self.projections.clusters) else {
            return Err(Error::captioner("no clusters: run `fit` on this captioner first"));
        };
        let features = self.features(previews, captions)?;
        let batch = captions.len();
        let dim = self.dim();
        let embedding = self.embedding(&features)?;
        let packed = Tensor::f_cat(
            &[
                self.nearest_cluster(&features.indices, idf, centroids)?
                    .f_unsqueeze(1)?
                    .f_to_kind(Kind::Float)?,
                features.alignment.f_unsqueeze(1)?,
                self.projections.semantic_hash(&embedding)?,
                embedding,
            ],
            1,
        )?;
        let pieces = SEMANTIC_HASH_BITS / PIECE;
        let width = 2 + pieces + dim;
        let values = to_f32(&packed)?;
        let row = |b: usize| &values[b * width..(b + 1) * width];
        let cluster: Vec<u32> = (0..batch).map(|b| row(b)[0] as u32).collect();
        let alignment = (0..batch)
            .map(|b| {
                clusters.alignment.quantile(RawAlignment {
                    sum: row(b)[1],
                    tokens: features.tokens[b] as u32,
                    run: clusters.runs[cluster[b] as usize],
                })
            })
            .collect();
        let semantic_hash = (0..batch).map(|b| hash_words(&row(b)[2..2 + pieces])).collect();
        let embedding = Array2::from_shape_fn((batch, dim), |(b, d)| row(b)[2 + pieces + d]);
        Ok(Signals { cluster, alignment, embedding, semantic_hash })
    }
}

impl Scorer for Captioner {
    fn dim(&self) -> usize {
        let learned = self.clusters.as_ref().and_then(|clusters| clusters.discriminant.as_ref());
        learned.map_or(self.config.embedding_dim(), Discriminant::dim)
    }

    fn preview_size(&self) -> usize {
        self.config.preview_size
    }

    fn preview_filter(&self) -> PreviewFilter {
        self.config.preview_filter
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn clusters(&self) -> usize {
        self.clusters.as_ref().map_or(0, |clusters| clusters.centroids.nrows())
    }

    fn fingerprint(&self) -> u64 {
        self.signal_fingerprint()
    }

    fn compute(&self) -> String {
        describe(self.device, self.precision())
    }

    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> tldr_loader::Result<Signals> {
        Ok(self.compute_signals(previews, captions)?)
    }

    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        Some(self)
    }
}
