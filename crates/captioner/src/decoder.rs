//! The text decoder: BERT with causal self-attention and cross-attention to visual tokens, as in
//! BLIP (Li et al., arXiv 2201.12086), with the tensor names of `BlipTextLMHeadModel` in Hugging
//! Face's transformers.

use tch::{Device, Kind, Tensor};

use crate::autocast::linear;
use crate::bert::{Bert, EMBEDDING_SD, Sight};
pub(super) use crate::bert::{Cache, Memory};
use crate::config::{Activation, CaptionerConfig};
use crate::error::Result;
use crate::layers::{LayerNorm, Linear};
use crate::weights::{Init, Weights};

/// The text decoder.
#[derive(Debug)]
pub(super) struct TextDecoder {
    bert: Bert,
    transform: Linear,
    transform_norm: LayerNorm,
    /// Output weights where they are not the word embeddings.
    output: Option<Tensor>,
    bias: Tensor,
    activation: Activation,
}

impl TextDecoder {
    /// Tensors below `text_decoder.`.
    pub(super) fn new(weights: &mut Weights, config: &CaptionerConfig) -> Result<Self> {
        let vision = config.vision.dim as i64;
        let config = &config.decoder;
        let (dim, vocab, eps) = (config.dim as i64, config.vocab as i64, config.eps);
        let embedding = Init::Normal(EMBEDDING_SD);
        let head = "text_decoder.cls.predictions";
        Ok(Self {
            bert: Bert::new(weights, "text_decoder.bert", vision, config)?,
            transform: Linear::new(weights, &format!("{head}.transform.dense"), dim, dim)?,
            transform_norm: LayerNorm::new(weights, &format!("{head}.transform.LayerNorm"), dim, eps)?,
            output: (!config.tied)
                .then(|| weights.parameter(&format!("{head}.decoder.weight"), &[vocab, dim], embedding))
                .transpose()?,
            bias: weights.parameter(&format!("{head}.bias"), &[vocab], Init::Constant(0.0))?,
            activation: config.activation,
        })
    }

    /// Keys and values of visual tokens `[batch, tokens, dim]`.
    pub(super) fn memory(&self, visual: &Tensor) -> Result<Memory> {
        self.bert.memory(visual)
    }

    /// Last hidden states `[batch, length, dim]` of token ids `[batch, length]`, each position
    /// seeing those before it. `length` must not exceed the decoder's positions.
    pub(super) fn hidden(&self, ids: &Tensor, memory: &Memory) -> Result<Tensor> {
        self.bert.hidden(ids, memory, Sight::Earlier)
    }

    /// Hidden states `[.., dim]` to logits `[.., vocab]`, f32 whatever the weights are.
    pub(super) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let x = self.activation.forward(&self.transform.forward(hidden)?)?;
        let x = self.transform_norm.forward(&x)?;
        let logits = linear(&x, self.output.as_ref().unwrap_or(&self.bert.words), &self.bias)?;
        Ok(logits.f_to_kind(Kind::Float)?)
    }

    /// log p(target) at each position, `[batch, length]`, for `ids` and `targets`
    /// `[batch, length]`.
    pub(super) fn log_likelihood(&self, ids: &Tensor, targets: &Tensor, memory: &Memory) -> Result<Tensor> {
        let (batch, length) = targets.size2()?;
        let logits = self.logits(&self.hidden(ids, memory)?)?;
        let chosen = logits.f_gather(-1, &targets.f_unsqueeze(-1)?, false)?.f_view([batch, length])?;
        Ok(chosen.f_sub(&logits.f_logsumexp([-1i64].as_slice(), false)?)?)
    }

    /// An empty cache for `rows` captions of `length` tokens.
    pub(super) fn cache(&self, rows: i64, length: i64, device: Device) -> Result<Cache> {
        self.bert.cache(rows, length, device)
    }

    /// Hidden states `[rows, dim]` at `ids` `[rows]`, which stand at `position`; all earlier positions
    /// are in the cache. Rows may be a multiple of the images in `memory`: those of an image stand
    /// side by side.
    pub(super) fn step(
        &self,
        ids: &Tensor,
        position: i64,
        memory: &Memory,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        self.bert.step(ids, position, memory, cache)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tldr_loader::hash::{Purpose, Rng};

    fn decoder() -> (TextDecoder, Tensor, Tensor) {
        let config = CaptionerConfig::tiny(50);
        let decoder = TextDecoder::new(&mut Weights::seeded(2, Device::Cpu), &config).unwrap();
        let mut rng = Rng::new(8, Purpose::Train, 0);
        let visual: Vec<f32> = (0..3 * 16 * 32).map(|_| rng.normal() as f32).collect();
        let ids: Vec<i64> = (0..3 * 9).map(|_| rng.below(50) as i64).collect();
        (decoder, Tensor::from_slice(&visual).view([3, 16, 32]), Tensor::from_slice(&ids).view([3, 9]))
    }

    #[test]
    fn cached_steps_equal_the_whole_pass() {
        let _guard = tch::no_grad_guard();
        let (decoder, visual, ids) = decoder();
        let memory = decoder.memory(&visual).unwrap();
        let whole = decoder.logits(&decoder.hidden(&ids, &memory).unwrap()).unwrap();
        let mut cache = decoder.cache(3, 9, Device::Cpu).unwrap();
        for t in 0..9 {
            let step = decoder.step(&ids.select(1, t), t, &memory, &mut cache).unwrap();
            let step = decoder.logits(&step).unwrap();
            let difference = (step - whole.select(1, t)).abs().max().double_value(&[]);
            assert!(difference < 1e-4, "position {t}: {difference}");
        }
    }

    #[test]
    fn no_position_sees_a_later_token() {
        let _guard = tch::no_grad_guard();
        let (decoder, visual, ids) = decoder();
        let memory = decoder.memory(&visual).unwrap();
        let before = decoder.hidden(&ids, &memory).unwrap();
        let changed = ids.copy();
        let _ = changed.narrow(1, 6, 3).fill_(7);
        let after = decoder.hidden(&changed, &memory).unwrap();
        let difference = (before - after).abs().amax([0i64, 2].as_slice(), false);
        assert!(difference.narrow(0, 0, 6).max().double_value(&[]) < 1e-6);
        assert!(difference.narrow(0, 6, 3).min().double_value(&[]) > 1e-3);
    }

    #[test]
    fn log_likelihood_is_that_of_a_distribution() {
        let _guard = tch::no_grad_guard();
        let (decoder, visual, ids) = decoder();
        let memory = decoder.memory(&visual).unwrap();
        let mut total = Tensor::zeros([3, 9], (Kind::Float, Device::Cpu));
        for token in 0..50 {
            let targets = Tensor::full([3, 9], token, (Kind::Int64, Device::Cpu));
            total += decoder.log_likelihood(&ids, &targets, &memory).unwrap().exp();
        }
        assert!((total - 1.0).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn rows_that_share_an_image_equal_copies_of_it() {
        let _guard = tch::no_grad_guard();
        let (decoder, visual, ids) = decoder();
        let ids = Tensor::cat(&[&ids, &(&ids + 7).remainder(50)], 0);
        let twice = visual.repeat_interleave_self_int(2, 0, None);
        let copied = decoder.memory(&twice).unwrap();
        let shared = decoder.memory(&visual).unwrap();
        let mut caches = [0, 1].map(|_| decoder.cache(6, 9, Device::Cpu).unwrap());
        for t in 0..9 {
            let a = decoder.step(&ids.select(1, t), t, &copied, &mut caches[0]).unwrap();
            let b = decoder.step(&ids.select(1, t), t, &shared, &mut caches[1]).unwrap();
            assert!((a - b).abs().max().double_value(&[]) < 1e-5, "position {t}");
        }
    }

    #[test]
    fn a_reordered_cache_goes_on_from_other_rows() {
        let _guard = tch::no_grad_guard();
        let (decoder, visual, ids) = decoder();
        let one = decoder.memory(&visual.narrow(0, 0, 1).repeat([3, 1, 1])).unwrap();
        let order = Tensor::from_slice(&[2i64, 0, 0]);
        let mixed = Tensor::cat(&[ids.narrow(1, 0, 4).index_select(0, &order), ids.narrow(1, 4, 2)], 1);
        let expected = decoder.hidden(&mixed, &one).unwrap().select(1, 5);
        let mut cache = decoder.cache(3, 9, Device::Cpu).unwrap();
        let mut found = Tensor::new();
        for t in 0..6 {
            if t == 4 {
                cache.reorder(&order, 4).unwrap();
            }
            found = decoder.step(&ids.select(1, t), t, &one, &mut cache).unwrap();
        }
        assert!((found - expected).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn one_image_for_all_equals_copies_of_it() {
        let _guard = tch::no_grad_guard();
        let (decoder, visual, ids) = decoder();
        let one = visual.narrow(0, 0, 1);
        let shared = decoder.memory(&one).unwrap().expand(3).unwrap();
        let copied = decoder.memory(&one.repeat([3, 1, 1])).unwrap();
        let a = decoder.hidden(&ids, &shared).unwrap();
        let b = decoder.hidden(&ids, &copied).unwrap();
        assert!((a - b).abs().max().double_value(&[]) < 1e-5);
    }
}
