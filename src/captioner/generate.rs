//! Captions by greedy decoding with a key-value cache.

use ndarray::ArrayView4;
use tch::{Device, Kind, Tensor};

use crate::captioner::decoder::Memory;
use crate::captioner::device::Inference;
use crate::captioner::model::Captioner;
use crate::error::Result;
use crate::model::Recaptioner;

impl Recaptioner for Captioner {
    fn caption_batch_size(&self) -> usize {
        self.config.generation.batch_size
    }

    fn caption_fingerprint(&self) -> u64 {
        self.generation_fingerprint()
    }

    fn caption(&mut self, previews: ArrayView4<'_, u8>, used: usize) -> Result<Vec<String>> {
        let _inference = Inference::on(self.device);
        let batch = self.config.generation.batch_size;
        let visual = self.visual(&self.previews(previews, batch)?)?;
        let memory = self.decoder.memory(&self.codebook.visual(&visual.quantised)?)?;
        let tokens = self.greedy(&memory, batch)?;
        Ok(tokens
            .iter()
            .enumerate()
            .map(|(row, ids)| if row < used { self.tokenizer.decode(ids) } else { String::new() })
            .collect())
    }
}

impl Captioner {
    /// Most likely token after most likely token, without start, end and padding.
    ///
    /// Rows that have ended stay in the batch and take padding, so that what remains keeps its
    /// shape; the loop ends early when all have.
    fn greedy(&self, memory: &Memory, batch: usize) -> Result<Vec<Vec<u32>>> {
        let generation = &self.config.generation;
        let (start, end, pad) = (
            i64::from(self.tokenizer.start_id()),
            i64::from(self.tokenizer.end_id()),
            i64::from(self.tokenizer.pad_id()),
        );
        let (rows, length) = (batch as i64, generation.max_tokens as i64);
        let long = (Kind::Int64, self.device);
        let banned = self.banned(true)?;
        let banned_early = banned.f_add(&self.banned(false)?)?;
        let mut cache = self.decoder.cache(rows, length, self.device)?;
        let mut token = Tensor::f_full([rows], start, long)?;
        let mut done = Tensor::f_zeros([rows], (Kind::Bool, self.device))?;
        let mut written = Vec::with_capacity(generation.max_tokens);
        for position in 0..length {
            let logits = self.decoder.step(&token, position, memory, &mut cache)?;
            let early = position < generation.min_tokens as i64;
            let logits = logits.f_add(if early { &banned_early } else { &banned })?;
            let next = logits.f_argmax(-1, false)?;
            token = next.f_masked_fill(&done, pad)?;
            done = done.f_logical_or(&token.f_eq(end)?)?;
            written.push(token.shallow_clone());
            // Asking a GPU would make the host wait at every token.
            if self.device == Device::Cpu && done.f_all()?.f_int64_value(&[])? == 1 {
                break;
            }
        }
        let written = Tensor::f_stack(&written, 1)?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let width = written.size2()?.1 as usize;
        let mut ids = vec![0i64; batch * width];
        written.f_copy_data(&mut ids, batch * width)?;
        Ok(ids
            .chunks(width)
            .map(|row| row.iter().take_while(|&&id| id != end && id != pad).map(|&id| id as u32).collect())
            .collect())
    }

    /// Minus infinity for tokens that never appear in a caption (`specials`: start, padding and
    /// rows of the embedding that have no token), or else for the end token; `[vocab]`.
    fn banned(&self, specials: bool) -> Result<Tensor> {
        let mut values = vec![0f32; self.config.decoder.vocab];
        let known = self.tokenizer.vocab_size();
        let end = self.tokenizer.end_id();
        for (id, value) in values.iter_mut().enumerate() {
            let id = id as u32;
            let special = id == self.tokenizer.start_id() || id == self.tokenizer.pad_id();
            let hit = if specials { (special && id != end) || id as usize >= known } else { id == end };
            if hit {
                *value = f32::NEG_INFINITY;
            }
        }
        Ok(Tensor::f_from_slice(&values)?.f_to_device(self.device)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::captioner::config::CaptionerConfig;
    use crate::hash::{Purpose, Rng};
    use crate::text::Tokenizer;

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
            let found = captioner.greedy(&memory, 4).unwrap();
            let (end, pad) = (captioner.tokenizer.end_id(), captioner.tokenizer.pad_id());
            let start = captioner.tokenizer.start_id();
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
