//! What every way of decoding obeys: tokens that never appear, shortest length, repetition penalty.
//!
//! The rules and their order are those of transformers' logits processors, so that the same model
//! writes the same captions.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::model::Captioner;

/// The rules of one batch, on its device.
pub(super) struct Rules {
    pub(super) end: i64,
    pub(super) pad: i64,
    /// Start token and prompt: what every caption goes on from.
    pub(super) prefix: Vec<i64>,
    /// Most tokens behind the prefix.
    pub(super) max_tokens: i64,
    min_tokens: i64,
    repetition_penalty: f64,
    /// The same, `[1, prefix]`, on the device.
    told: Tensor,
    /// Minus infinity for what never appears, `[vocab]`; the second also for the end token.
    banned: [Tensor; 2],
}

impl Rules {
    pub(super) fn of(captioner: &Captioner) -> Result<Self> {
        let (config, tokenizer, specials) = (&captioner.config, &captioner.tokenizer, captioner.specials);
        let mut prefix = vec![i64::from(specials.start)];
        prefix.extend(tokenizer.ids(&config.generation.prompt).into_iter().map(i64::from));
        let told = Tensor::f_from_slice(&prefix)?.f_unsqueeze(0)?.f_to_device(captioner.device)?;
        Ok(Self {
            told,
            end: i64::from(specials.end),
            pad: i64::from(specials.pad),
            prefix,
            max_tokens: config.generation.max_tokens as i64,
            min_tokens: config.generation.min_tokens as i64,
            repetition_penalty: config.generation.repetition_penalty,
            banned: [banned(captioner, false)?, banned(captioner, true)?],
        })
    }

    /// Which tokens each of `rows` captions holds so far, `[rows, vocab]`; `None` where nothing
    /// depends on it.
    pub(super) fn seen(&self, rows: i64) -> Result<Option<Tensor>> {
        if self.repetition_penalty == 1.0 {
            return Ok(None);
        }
        let (vocab, device) = (self.banned[0].size1()?, self.banned[0].device());
        let seen = Tensor::f_zeros([rows, vocab], (Kind::Bool, device))?;
        let prefix = self.told.f_expand([rows, -1], false)?;
        Ok(Some(seen.f_scatter_value(1, &prefix, 1i64)?))
    }

    /// Scores `[rows, vocab]` of the token that follows `written` tokens behind the prefix.
    pub(super) fn apply(&self, scores: &Tensor, written: i64, seen: Option<&Tensor>) -> Result<Tensor> {
        let banned = &self.banned[usize::from(written < self.min_tokens)];
        let Some(seen) = seen else { return Ok(scores.f_add(banned)?) };
        let up = scores.f_mul_scalar(self.repetition_penalty)?;
        let down = scores.f_div_scalar(self.repetition_penalty)?;
        let punished = up.f_where_self(&scores.f_lt(0.0)?, &down)?;
        Ok(punished.f_where_self(seen, scores)?.f_add(banned)?)
    }

    /// The ids of each row up to the end token, without padding; `rows` `[batch, length]`.
    pub(super) fn captions(&self, rows: &Tensor) -> Result<Vec<Vec<u32>>> {
        let host = rows.f_to_device(Device::Cpu)?.f_contiguous()?;
        let (batch, width) = host.size2()?;
        let count = (batch * width) as usize;
        let mut ids = vec![0i64; count];
        host.f_copy_data(&mut ids, count)?;
        let caption = |row: &[i64]| -> Vec<u32> {
            row.iter().take_while(|&&id| id != self.end && id != self.pad).map(|&id| id as u32).collect()
        };
        Ok(ids.chunks(width.max(1) as usize).map(caption).collect())
    }
}

/// Minus infinity for tokens that never appear in a caption: start, padding and rows of the embedding
/// that have no text; with `early` also the end token. `[vocab]`.
fn banned(captioner: &Captioner, early: bool) -> Result<Tensor> {
    let (tokenizer, specials) = (&captioner.tokenizer, captioner.specials);
    let mut values = vec![0f32; captioner.config.decoder.vocab];
    for (id, value) in values.iter_mut().enumerate() {
        let id = id as u32;
        let special = id == specials.start || id == specials.pad;
        let unknown = id as usize >= tokenizer.vocab_size();
        let hit = if id == specials.end { early } else { special || unknown };
        if hit {
            *value = f32::NEG_INFINITY;
        }
    }
    Ok(Tensor::f_from_slice(&values)?.f_to_device(captioner.device)?)
}
