//! Captions by beam search: several captions of an image grow side by side, and the likeliest wins.
//!
//! Scores, ties and the moment to stop are those of transformers' `generate` (with `early_stopping`
//! off), so that the same model writes the same captions. All of it happens on the device.

use tch::{Device, Kind, Tensor};

use crate::decoder::Memory;
use crate::error::Result;
use crate::model::Captioner;
use crate::rules::Rules;

/// Stands for minus infinity, but can be added up.
const NEVER: f64 = -1e9;

/// The captions of a batch under way; `k` beams each.
struct Beams {
    /// Captions that grow, best first, `[batch, k, length]`, and their log-likelihoods, `[batch, k]`.
    growing: Tensor,
    scores: Tensor,
    /// Captions that ended, best first, `[batch, k, length]`; their log-likelihoods over length to the
    /// power of the length penalty, `[batch, k]`; and whether there is one at that place at all.
    ended: Tensor,
    ended_scores: Tensor,
    has_ended: Tensor,
    /// Whether a growing caption can still beat one that ended, `[batch, 1]`.
    open: Tensor,
}

/// The next token of each beam.
struct Next {
    /// `[batch * k]`.
    tokens: Tensor,
    /// Which row of the batch each goes on from, `[batch * k]`.
    rows: Tensor,
}

impl Captioner {
    /// The likeliest caption of each image that a search with the configuration's beams finds.
    ///
    /// Images whose search is over stay in the batch and change no more, so that shapes stay; the
    /// loop ends early when all are.
    pub(super) fn beam_search(&self, memory: &Memory, batch: usize, rules: &Rules) -> Result<Vec<Vec<u32>>> {
        let (batch, k) = (batch as i64, self.config.generation.beams as i64);
        let decoder = self.decoder_in_use();
        let mut cache = self.start(memory, batch * k, rules)?;
        let (mut tokens, first) = self.last_of_prefix(batch * k, rules)?;
        let mut seen = rules.seen(batch * k)?;
        let mut beams = Beams::new(batch, k, rules, self.device)?;
        let penalty = self.config.generation.length_penalty;
        for step in 0..rules.max_tokens {
            let hidden = decoder.step(&tokens, first + step, memory, &mut cache)?;
            let likely = decoder.logits(&hidden)?.f_log_softmax(-1, Kind::Float)?;
            let likely = rules.apply(&likely, step, seen.as_ref())?;
            let next = beams.grow(&likely, step, rules, penalty)?;
            if step + 1 == rules.max_tokens
                // Asking a GPU would make the host wait at every token.
                || self.device == Device::Cpu && beams.open.f_any()?.f_int64_value(&[])? == 0
            {
                break;
            }
            cache.reorder(&next.rows, first + step + 1)?;
            if let Some(seen) = &mut seen {
                *seen = seen.f_index_select(0, &next.rows)?;
                let _ = seen.f_scatter_value_(1, &next.tokens.f_unsqueeze(1)?, 1i64)?;
            }
            tokens = next.tokens;
        }
        rules.captions(&beams.ended.f_select(1, 0)?)
    }
}

impl Beams {
    fn new(batch: i64, k: i64, rules: &Rules, device: Device) -> Result<Self> {
        let float = (Kind::Float, device);
        let empty = || Tensor::f_full([batch, k, rules.max_tokens], rules.pad, (Kind::Int64, device));
        let scores = Tensor::f_zeros([batch, k], float)?;
        // All beams of an image start alike: only the first may grow.
        let _ = scores.f_narrow(1, 1, k - 1)?.f_fill_(NEVER)?;
        Ok(Self {
            growing: empty()?,
            scores,
            ended: empty()?,
            ended_scores: Tensor::f_full([batch, k], NEVER, float)?,
            has_ended: Tensor::f_zeros([batch, k], (Kind::Bool, device))?,
            open: Tensor::f_ones([batch, 1], (Kind::Bool, device))?,
        })
    }

    /// Adds the token at place `step`, by log-likelihoods `likely` `[batch * k, vocab]`.
    fn grow(&mut self, likely: &Tensor, step: i64, rules: &Rules, length_penalty: f64) -> Result<Next> {
        let (batch, k) = self.scores.size2()?;
        let vocab = likely.size2()?.1;
        let sums = likely.f_view([batch, k, vocab])?.f_add(&self.scores.f_unsqueeze(2)?)?;
        // Twice as many as beams: even if the best k all end, k are left to grow.
        let (sums, best) = sums.f_view([batch, k * vocab])?.f_topk(2 * k, 1, true, true)?;
        let (beam, token) = (best.f_floor_divide_scalar(vocab)?, best.f_remainder(vocab)?);
        let candidates = rows_of(&self.growing, &beam)?;
        candidates.f_select(2, step)?.f_copy_(&token)?;
        let last = step + 1 == rules.max_tokens;
        let ends = if last { token.f_ones_like()?.f_to_kind(Kind::Bool)? } else { token.f_eq(rules.end)? };

        let going = sums.f_add(&never_where(&ends)?)?;
        let (_, kept) = going.f_topk(k, 1, true, true)?;
        self.growing = rows_of(&candidates, &kept)?;
        self.scores = going.f_gather(1, &kept, false)?;
        let first_row =
            Tensor::f_arange(batch, (Kind::Int64, likely.device()))?.f_mul_scalar(k)?.f_unsqueeze(1)?;
        let next = Next {
            tokens: token.f_gather(1, &kept, false)?.f_view([-1])?,
            rows: beam.f_gather(1, &kept, false)?.f_add(&first_row)?.f_view([-1])?,
        };

        // What ends counts only among the k best.
        let top = Tensor::f_arange(2 * k, (Kind::Int64, likely.device()))?.f_lt(k)?;
        let just_ended = ends.f_logical_and(&top)?;
        let length = ((step + 1) as f64).powf(length_penalty);
        let scores = sums
            .f_div_scalar(length)?
            .f_add(&never_where(&self.open.f_logical_not()?)?)?
            .f_add(&never_where(&just_ended.f_logical_not()?)?)?;
        let scores = Tensor::f_cat(&[&self.ended_scores, &scores], 1)?;
        let (ended_scores, places) = scores.f_topk(k, 1, true, true)?;
        self.ended = rows_of(&Tensor::f_cat(&[&self.ended, &candidates], 1)?, &places)?;
        self.has_ended = Tensor::f_cat(&[&self.has_ended, &just_ended], 1)?.f_gather(1, &places, false)?;
        self.ended_scores = ended_scores;

        // The best that grows, as if it ended now, against the worst that ended.
        let hope = self.scores.f_narrow(1, 0, 1)?.f_div_scalar(length)?;
        let worst = self.ended_scores.f_amin([1i64].as_slice(), true)?;
        let bar =
            worst.f_expand_as(&self.has_ended)?.f_masked_fill(&self.has_ended.f_logical_not()?, NEVER)?;
        self.open = self.open.f_logical_and(&hope.f_gt_tensor(&bar)?.f_any_dim(1, true)?)?;
        Ok(next)
    }
}

/// Captions `[batch, from, length]` at `places` `[batch, to]`: a copy, `[batch, to, length]`.
fn rows_of(captions: &Tensor, places: &Tensor) -> Result<Tensor> {
    let length = captions.size3()?.2;
    Ok(captions.f_gather(1, &places.f_unsqueeze(2)?.f_expand([-1, -1, length], false)?, false)?)
}

/// [`NEVER`] where `mask`, else 0.
fn never_where(mask: &Tensor) -> Result<Tensor> {
    Ok(mask.f_to_kind(Kind::Float)?.f_mul_scalar(NEVER)?)
}
