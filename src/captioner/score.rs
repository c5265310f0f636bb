//! How well a captioner predicts captions, and whether it tells true ones from swapped ones:
//! what validation measures on pairs that training has not seen.

use ndarray::ArrayView4;
use tch::{Kind, Tensor};

use crate::captioner::device::Inference;
use crate::captioner::model::{Captioner, TextBatch};
use crate::captioner::weights::to_f32;
use crate::cluster::agreement::auc;
use crate::error::{Error, Result};
use crate::model::Encoder;

/// What was measured on held-out pairs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Validation {
    /// Pairs that were scored.
    pub pairs: u64,
    /// Mean negative log-likelihood of a caption token given its image, in nats.
    pub lm_loss: f64,
    /// Chance that a true caption aligns better with an image than another image's caption does
    /// with it, by the sum over tokens: 0.5 is guessing, 1 perfect.
    pub auc: f64,
}

/// Gathers a [`Validation`] batch by batch.
#[derive(Debug, Default)]
pub struct Scores {
    /// Log-likelihood of all true captions, in nats.
    log_likelihood: f64,
    tokens: u64,
    own: Vec<f32>,
    swapped: Vec<f32>,
}

impl Scores {
    /// What was measured so far; `None` of nothing.
    pub fn summary(&self) -> Option<Validation> {
        (!self.own.is_empty()).then(|| Validation {
            pairs: self.own.len() as u64,
            lm_loss: -self.log_likelihood / self.tokens.max(1) as f64,
            auc: auc(&self.own, &self.swapped),
        })
    }

    /// Pairs scored so far.
    pub fn pairs(&self) -> u64 {
        self.own.len() as u64
    }
}

impl Captioner {
    /// Scores the first rows of `previews` `[batch_size, 3, preview_size, preview_size]` with their
    /// `captions`, each also against the caption of the next row that says something else.
    ///
    /// Costs one pass of the image encoder and four of the decoder, all in f32 whatever the
    /// [`precision`](Self::precision), so that runs can be compared.
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
        let tokens = self.vision.forward(&self.previews(previews, batch)?)?;
        let memory = self.decoder.memory(&self.seen(&tokens, None)?)?;
        let null = self.null_memory(&self.decoder, batch)?;
        // Likelihood with the image, and its logarithmic ratio to that without, `[rows]` each.
        let score = |captions: &[&str]| -> Result<(Vec<f32>, Vec<f32>, Vec<usize>)> {
            let mut padded = captions.to_vec();
            padded.resize(batch, "");
            let text = self.text_batch(&self.tokens(&padded), Some(self.config.decoder.max_tokens))?;
            let mask = self.mask(&text)?;
            let of = |text: &TextBatch, memory| -> Result<Tensor> {
                let each = self.decoder.log_likelihood(&text.ids, &text.targets, memory)?;
                Ok(each.f_mul(&mask)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)
            };
            let with = of(&text, &memory)?;
            let ratio = with.f_sub(&of(&text, &null)?)?;
            let (mut with, mut ratio) = (to_f32(&with)?, to_f32(&ratio)?);
            with.truncate(captions.len());
            ratio.truncate(captions.len());
            Ok((with, ratio, text.lengths))
        };
        let (with, own, lengths) = score(captions)?;
        scores.log_likelihood += with.iter().map(|&v| f64::from(v)).sum::<f64>();
        scores.tokens += lengths[..rows].iter().sum::<usize>() as u64;
        scores.own.extend(own);
        // Rows for which all others say the same have nothing to be told from.
        let other = |row: usize| (1..rows).map(|d| (row + d) % rows).find(|&o| captions[o] != captions[row]);
        let pairs: Vec<(usize, usize)> = (0..rows).filter_map(|row| Some((row, other(row)?))).collect();
        let mut others = captions.to_vec();
        pairs.iter().for_each(|&(row, other)| others[row] = captions[other]);
        let (_, swapped, _) = score(&others)?;
        scores.swapped.extend(pairs.iter().map(|&(row, _)| swapped[row]));
        Ok(())
    }
}
