//! Captions token by token with a key-value cache: the most likely token, or one that is drawn
//! (nucleus sampling, Holtzman et al., arXiv 1904.09751).

use ndarray::{Array3, ArrayView3, ArrayView4};
use tch::{Device, Kind, Tensor};

use crate::decoder::{Cache, Memory};
use crate::device::Inference;
use crate::error::{Error, Result};
use crate::generation::Decoding;
use crate::model::Captioner;
use crate::rules::Rules;
use crate::weights::to_f32;
use tldr_loader::hash::{self, Purpose};
use tldr_loader::model::Recaptioner;
use tldr_loader::sample::SampleId;

impl Recaptioner for Captioner {
    fn caption_batch_size(&self) -> usize {
        self.config.generation.batch_size
    }

    fn caption_fingerprint(&self) -> u64 {
        self.generation_fingerprint()
    }

    fn caption(
        &mut self,
        previews: ArrayView4<'_, u8>,
        ids: &[SampleId],
    ) -> tldr_loader::Result<Vec<String>> {
        Ok(self.captions(previews, ids)?)
    }
}

/// How the captions of a batch are written.
struct Way {
    rules: Rules,
    /// Numbers in [0, 1), `[max_tokens, rows]`, where tokens are drawn.
    draws: Option<Tensor>,
}

impl Captioner {
    /// As [`Recaptioner::caption`].
    fn captions(&mut self, previews: ArrayView4<'_, u8>, ids: &[SampleId]) -> Result<Vec<String>> {
        let _inference = Inference::on(self.device);
        self.prepare()?;
        let previews = self.previews(previews, self.config.generation.batch_size)?;
        let way = self.way(ids)?;
        self.write(&self.vision_in_use().forward(&previews)?, ids, &way)
    }

    /// What the image encoder says of `previews` `[rows, 3, preview_size, preview_size]`: the class token,
    /// then the patches row by row, `[rows, 1 + patches, dim]`.
    ///
    /// # Errors
    /// Previews of another size; a failure of the device.
    pub fn visual_tokens(&self, previews: ArrayView4<'_, u8>) -> Result<Array3<f32>> {
        let _inference = Inference::on(self.device);
        let rows = previews.shape()[0];
        let tokens = self.vision_in_use().forward(&self.previews(previews, rows)?)?;
        let shape = (rows, 1 + self.config.patches(), self.config.vision.dim);
        Array3::from_shape_vec(shape, to_f32(&tokens)?)
            .map_err(|e| Error::format("visual tokens", format!("shape {shape:?}"), e))
    }

    /// As [`caption`](Recaptioner::caption), from visual tokens `[caption_batch_size, 1 + patches, dim]`.
    ///
    /// # Errors
    /// Tokens of another shape; more ids than rows; a failure of the device.
    pub fn caption_tokens(&self, tokens: ArrayView3<'_, f32>, ids: &[SampleId]) -> Result<Vec<String>> {
        let _inference = Inference::on(self.device);
        let shape = [self.config.generation.batch_size, 1 + self.config.patches(), self.config.vision.dim];
        let layout = tokens.as_standard_layout();
        let values = layout.as_slice().filter(|_| tokens.shape() == shape).ok_or_else(|| {
            Error::format("visual tokens", format!("shape {shape:?}"), format!("{:?}", tokens.shape()))
        })?;
        let tokens = Tensor::f_from_slice(values)?.f_view(shape.map(|n| n as i64))?;
        let tokens = tokens.f_to_device(self.device)?;
        self.write(&tokens, ids, &self.way(ids)?)
    }

    /// What writing captions for `ids` needs on the device: made before anything is queued there, since a
    /// copy waits for what was queued before it.
    fn way(&self, ids: &[SampleId]) -> Result<Way> {
        let batch = self.config.generation.batch_size;
        if ids.len() > batch {
            return Err(Error::format("ids", format!("{batch} at most, one for each row"), ids.len()));
        }
        let rules = Rules::of(self)?;
        let draws = match self.config.generation.decoding {
            Decoding::Nucleus => Some(self.draws(ids, batch, &rules)?),
            Decoding::Greedy | Decoding::Beam => None,
        };
        Ok(Way { rules, draws })
    }

    /// Captions of visual tokens `[batch_size, 1 + patches, dim]`; rows beyond `ids` stay empty.
    fn write(&self, tokens: &Tensor, ids: &[SampleId], way: &Way) -> Result<Vec<String>> {
        let batch = self.config.generation.batch_size;
        let memory = self.decoder_in_use().memory(&self.seen(tokens, None)?)?;
        let captions = match self.config.generation.decoding {
            Decoding::Greedy | Decoding::Nucleus => {
                self.one_by_one(&memory, batch, &way.rules, way.draws.as_ref())?
            }
            Decoding::Beam => self.beam_search(&memory, batch, &way.rules)?,
        };
        let mut texts: Vec<String> =
            captions.iter().take(ids.len()).map(|ids| self.tokenizer.decode(ids)).collect();
        texts.resize(batch, String::new());
        Ok(texts)
    }

    /// An empty cache for `rows` captions, filled with all of the prefix but its last token.
    pub(super) fn start(&self, memory: &Memory, rows: i64, rules: &Rules) -> Result<Cache> {
        let length = rules.prefix.len() as i64 - 1 + rules.max_tokens;
        let mut cache = self.decoder_in_use().cache(rows, length, self.device)?;
        for (position, &id) in rules.prefix[..rules.prefix.len() - 1].iter().enumerate() {
            let ids = Tensor::f_full([rows], id, (Kind::Int64, self.device))?;
            let _ = self.decoder_in_use().step(&ids, position as i64, memory, &mut cache)?;
        }
        Ok(cache)
    }

    /// The last token of the prefix for `rows` captions, `[rows]`, and where it stands.
    pub(super) fn last_of_prefix(&self, rows: i64, rules: &Rules) -> Result<(Tensor, i64)> {
        let last = rules.prefix.len() - 1;
        Ok((Tensor::f_full([rows], rules.prefix[last], (Kind::Int64, self.device))?, last as i64))
    }

    /// Token after token: the most likely, or by `draws` `[max_tokens, rows]` from the most likely.
    ///
    /// Rows that have ended stay in the batch and take padding, so that what remains keeps its
    /// shape; the loop ends early when all have.
    pub(super) fn one_by_one(
        &self,
        memory: &Memory,
        batch: usize,
        rules: &Rules,
        draws: Option<&Tensor>,
    ) -> Result<Vec<Vec<u32>>> {
        let (rows, decoder) = (batch as i64, self.decoder_in_use());
        let mut cache = self.start(memory, rows, rules)?;
        let (mut token, first) = self.last_of_prefix(rows, rules)?;
        let mut seen = rules.seen(rows)?;
        let mut done = Tensor::f_zeros([rows], (Kind::Bool, self.device))?;
        let mut written = Vec::with_capacity(rules.max_tokens as usize);
        for step in 0..rules.max_tokens {
            let hidden = decoder.step(&token, first + step, memory, &mut cache)?;
            let logits = rules.apply(&decoder.logits(&hidden)?, step, seen.as_ref())?;
            let next = match draws {
                None => logits.f_argmax(-1, false)?,
                Some(draws) => self.draw(&logits, &draws.f_select(0, step)?)?,
            };
            token = next.f_masked_fill(&done, rules.pad)?;
            done = done.f_logical_or(&token.f_eq(rules.end)?)?;
            if let Some(seen) = &mut seen {
                let _ = seen.f_scatter_value_(1, &token.f_unsqueeze(1)?, 1i64)?;
            }
            written.push(token.shallow_clone());
            // Asking a GPU would make the host wait at every token.
            if self.device == Device::Cpu && done.f_all()?.f_int64_value(&[])? == 1 {
                break;
            }
        }
        rules.captions(&Tensor::f_stack(&written, 1)?)
    }

    /// A number in [0, 1) for each place of each caption, `[max_tokens, rows]`: a function of seed,
    /// sample and place. Rows without a sample take 0.
    fn draws(&self, ids: &[SampleId], batch: usize, rules: &Rules) -> Result<Tensor> {
        let seed = self.config.generation.seed;
        let draw = |step: u64, row: usize| {
            let place = ids.get(row).map(|id| hash::combine(&[id.0, step]));
            // 24 bits: an f32 below 1.
            place.map_or(0.0, |place| {
                (hash::hash(seed, Purpose::Generate, place) >> 40) as f32 / (1u64 << 24) as f32
            })
        };
        let values: Vec<f32> = (0..rules.max_tokens as u64)
            .flat_map(|step| (0..batch).map(move |row| draw(step, row)))
            .collect();
        let values = Tensor::f_from_slice(&values)?.f_view([rules.max_tokens, batch as i64])?;
        Ok(values.f_to_device(self.device)?)
    }

    /// One token for each row of `logits` `[rows, vocab]`, by `draws` `[rows]`, from the smallest set
    /// of tokens that has a probability of at least `top_p`.
    pub(super) fn draw(&self, logits: &Tensor, draws: &Tensor) -> Result<Tensor> {
        let generation = &self.config.generation;
        let likely = logits.f_div_scalar(generation.temperature)?.f_softmax(-1, Kind::Float)?;
        // Stable, so that equal probabilities keep the order of their ids on every device.
        let (sorted, tokens) = likely.f_sort_stable(true, -1, true)?;
        let sum = sorted.f_cumsum(-1, Kind::Float)?;
        // A token is in the set where those before it have less than top_p.
        let outside = sum.f_sub(&sorted)?.f_ge(generation.top_p)?;
        let total =
            sorted.f_masked_fill(&outside, 0.0)?.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)?;
        let below = sum
            .f_le_tensor(&total.f_mul(&draws.f_unsqueeze(1)?)?)?
            .f_logical_and(&outside.f_logical_not()?)?;
        let place = below.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)?;
        // Rounding may leave no token above the last draw: then it is the last of the set.
        let last = outside.f_logical_not()?.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)?;
        let place = place.f_minimum(&last.f_sub_scalar(1)?)?;
        Ok(tokens.f_gather(1, &place, false)?.f_squeeze_dim(1)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{CaptionerConfig, Specials};
    use tldr_loader::hash::{Purpose, Rng};
    use tldr_loader::text::Tokenizer;

    #[test]
    fn cached_greedy_equals_recomputation() {
        let words: Vec<String> = (0..40).map(|i| format!("word{i}")).collect();
        let tokenizer = Tokenizer::train(words.iter().map(String::as_str), 300).unwrap();
        for min_tokens in [0, 3, 7] {
            let mut config = CaptionerConfig::tiny(tokenizer.vocab_size() + 3);
            config.generation.min_tokens = min_tokens;
            let mut captioner = Captioner::new(config, tokenizer.clone(), Device::Cpu, 6).unwrap();
            let _guard = tch::no_grad_guard();
            // A decoder that has learned nothing repeats itself; spread words end some rows early.
            let words =
                captioner.tensors.get_mut("text_decoder.bert.embeddings.word_embeddings.weight").unwrap();
            let _ = words.f_mul_scalar_(20.0).unwrap();
            let mut rng = Rng::new(1, Purpose::Train, 5);
            let visual: Vec<f32> = (0..4 * 16 * 32).map(|_| 3.0 * rng.normal() as f32).collect();
            let memory = captioner.decoder.memory(&Tensor::from_slice(&visual).view([4, 16, 32])).unwrap();
            let rules = Rules::of(&captioner).unwrap();
            let found = captioner.one_by_one(&memory, 4, &rules, None).unwrap();
            let Specials { start, end, pad } = captioner.specials;
            for (row, found) in found.iter().enumerate() {
                let memory = captioner
                    .decoder
                    .memory(&Tensor::from_slice(&visual).view([4, 16, 32]).narrow(0, row as i64, 1))
                    .unwrap();
                let mut ids = vec![i64::from(start)];
                while ids.len() <= captioner.config.generation.max_tokens {
                    let input = Tensor::from_slice(&ids).unsqueeze(0);
                    let hidden = captioner.decoder.hidden(&input, &memory).unwrap();
                    let logits = captioner.decoder.logits(&hidden).unwrap().select(1, ids.len() as i64 - 1);
                    let logits: Vec<f32> = Vec::try_from(logits.view([-1])).unwrap();
                    let allowed = |&id: &u32| {
                        id < captioner.tokenizer.vocab_size() as u32
                            && (id == end || (id != start && id != pad))
                            && (id != end || ids.len() > min_tokens)
                    };
                    let best = (0..logits.len() as u32)
                        .filter(allowed)
                        .max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]))
                        .unwrap();
                    if best == end {
                        break;
                    }
                    ids.push(i64::from(best));
                }
                let expected: Vec<u32> = ids[1..].iter().map(|&id| id as u32).collect();
                assert_eq!(*found, expected, "row {row}, min_tokens {min_tokens}");
                assert!(found.len() >= min_tokens);
            }
        }
    }
}
