//! How well a captioner predicts captions, and whether it tells true ones from swapped ones:
//! what validation measures on pairs that training has not seen, and a fit on pairs of its sample.

use ndarray::{ArrayView4, Axis};
use tch::{Kind, Tensor};

use crate::device::Inference;
use crate::error::{Error, Result};
use crate::model::{Captioner, TextBatch};
use crate::weights::to_f32;
use tldr_loader::cluster::Validation;
use tldr_loader::jobs::swaps;
use tldr_loader::model::Scorer;

/// Gathers a [`Validation`] batch by batch.
#[derive(Debug, Default)]
pub struct Scores {
    /// Log-likelihood of all true captions, in nats.
    log_likelihood: f64,
    tokens: u64,
    /// Alignment of each image with its own caption, and with another's.
    own: Vec<f32>,
    swapped: Vec<f32>,
}

impl Scores {
    /// What was measured so far; `None` of fewer than two pairs.
    pub fn summary(&self) -> Option<Validation> {
        Validation::of(&self.own, &self.swapped, Some(-self.log_likelihood / self.tokens.max(1) as f64))
    }

    /// Images scored so far, with their own and with a swapped caption.
    pub fn pairs(&self) -> u64 {
        self.own.len() as u64
    }
}

impl Captioner {
    /// Scores the first rows of `previews` `[batch_size, 3, preview_size, preview_size]` with their
    /// `captions`, each also with the caption of another row: one of another picture and of other tokens, since
    /// neither the same picture nor the same caption makes a wrong pair.
    ///
    /// Costs one pass of the image encoder and four of the decoder, in f32 whatever the
    /// [`precision`](Self::precision), so that runs can be compared. Where a matcher measures alignment, it takes two
    /// passes in place of three of the decoder.
    ///
    /// # Errors
    /// Arrays of another shape, more captions than rows; a failure of the device.
    pub fn score(
        &mut self,
        previews: ArrayView4<'_, u8>,
        captions: &[&str],
        scores: &mut Scores,
    ) -> Result<()> {
        let (rows, batch) = (captions.len(), self.batch_size());
        if rows == 0 || rows > batch {
            return Err(Error::format("captions", format!("1 to {batch} of them"), rows));
        }
        let _inference = Inference::on(self.device);
        let pixels = self.previews(previews, batch)?;
        let memory = self.decoder.memory(&self.seen(&self.vision.forward(&pixels)?, None)?)?;
        let null = self.null_memory(&self.decoder, batch)?;
        let ids = self.tokens(captions);
        // Log-likelihood of the captions with what the decoder sees, `[batch]`.
        let likelihood = |text: &TextBatch, memory| -> Result<Tensor> {
            let each = self.decoder.log_likelihood(&text.ids, &text.targets, memory)?;
            Ok(each.f_mul(&self.mask(text)?)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
        };
        let text_of = |captions: &[&str]| {
            let mut padded = captions.to_vec();
            padded.resize(batch, "");
            self.text_batch(&self.tokens(&padded), Some(self.config.decoder.max_tokens))
        };
        // Alignment of the pictures with captions, `[rows]`.
        let alignment = |captions: &[&str], text: &TextBatch, with: &Tensor| -> Result<Vec<f32>> {
            let found = match &self.matcher {
                None => with.f_sub(&likelihood(text, &null)?)?,
                Some(matcher) => {
                    let mut padded = captions.to_vec();
                    padded.resize(batch, "");
                    matcher.log_odds(&pixels, &matcher.texts(&padded)?)?.0
                }
            };
            let mut found = to_f32(&found)?;
            found.truncate(captions.len());
            Ok(found)
        };
        let text = text_of(captions)?;
        let with = likelihood(&text, &memory)?;
        scores.log_likelihood += to_f32(&with)?[..rows].iter().map(|&v| f64::from(v)).sum::<f64>();
        scores.tokens += text.lengths[..rows].iter().sum::<usize>() as u64;
        let pairs = swaps(rows, |a, b| {
            ids[a] == ids[b] || previews.index_axis(Axis(0), a) == previews.index_axis(Axis(0), b)
        });
        if pairs.is_empty() {
            return Ok(());
        }
        let own = alignment(captions, &text, &with)?;
        let mut others = captions.to_vec();
        pairs.iter().for_each(|&(row, other)| others[row] = captions[other]);
        let text = text_of(&others)?;
        // A matcher does not look at it.
        let with = if self.matcher.is_some() { with } else { likelihood(&text, &memory)? };
        let swapped = alignment(&others, &text, &with)?;
        scores.own.extend(pairs.iter().map(|&(row, _)| own[row]));
        scores.swapped.extend(pairs.iter().map(|&(row, _)| swapped[row]));
        Ok(())
    }
}
