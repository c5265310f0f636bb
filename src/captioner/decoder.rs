//! The text decoder: BERT with causal self-attention and cross-attention to visual tokens, as in
//! BLIP (Li et al., arXiv 2201.12086), with the tensor names of `BlipTextLMHeadModel` in Hugging
//! Face's transformers.

use tch::{Device, Kind, Tensor};

use crate::captioner::autocast::linear;
use crate::captioner::config::{Activation, CaptionerConfig, DecoderConfig};
use crate::captioner::layers::{LayerNorm, Linear, attention, attention_of_few, split_heads};
use crate::captioner::weights::{Init, Weights};
use crate::error::Result;

/// Queries up to which attention goes without the fused kernel on a CPU: measured with 1 and 3.
const FEW: i64 = 8;

/// Initial spread of embeddings, as in BERT.
const EMBEDDING_SD: f64 = 0.02;

/// Query, key, value, output and norm of one attention, self or cross.
#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    norm: LayerNorm,
    heads: i64,
}

/// Keys and values, each `[batch, heads, length, d]`.
#[derive(Debug)]
struct KeyValue {
    key: Tensor,
    value: Tensor,
}

impl Attention {
    /// Of `dim` numbers to `source` numbers.
    fn new(weights: &mut Weights, name: &str, source: i64, config: &DecoderConfig) -> Result<Self> {
        let dim = config.dim as i64;
        Ok(Self {
            query: Linear::new(weights, &format!("{name}.self.query"), dim, dim)?,
            key: Linear::new(weights, &format!("{name}.self.key"), source, dim)?,
            value: Linear::new(weights, &format!("{name}.self.value"), source, dim)?,
            dense: Linear::new(weights, &format!("{name}.output.dense"), dim, dim)?,
            norm: LayerNorm::new(weights, &format!("{name}.output.LayerNorm"), dim, config.eps)?,
            heads: config.heads as i64,
        })
    }

    fn key_value(&self, source: &Tensor) -> Result<KeyValue> {
        Ok(KeyValue {
            key: split_heads(&self.key.forward(source)?, self.heads)?,
            value: split_heads(&self.value.forward(source)?, self.heads)?,
        })
    }

    fn forward(&self, x: &Tensor, key: &Tensor, value: &Tensor, causal: bool) -> Result<Tensor> {
        let query = split_heads(&self.query.forward(x)?, self.heads)?;
        // One place of a caption, or that of each of its beams.
        let few = !causal && query.device() == Device::Cpu && query.size4()?.2 <= FEW;
        let mixed = match few {
            true => attention_of_few(&query, key, value)?,
            false => attention(&query, key, value, causal)?,
        };
        self.norm.forward(&self.dense.forward(&mixed)?.f_add(x)?)
    }
}

#[derive(Debug)]
struct Block {
    attention: Attention,
    crossattention: Attention,
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
    activation: Activation,
}

impl Block {
    fn new(weights: &mut Weights, name: &str, vision: i64, config: &DecoderConfig) -> Result<Self> {
        let (dim, mlp) = (config.dim as i64, config.mlp as i64);
        Ok(Self {
            attention: Attention::new(weights, &format!("{name}.attention"), dim, config)?,
            crossattention: Attention::new(weights, &format!("{name}.crossattention"), vision, config)?,
            intermediate: Linear::new(weights, &format!("{name}.intermediate.dense"), dim, mlp)?,
            output: Linear::new(weights, &format!("{name}.output.dense"), mlp, dim)?,
            norm: LayerNorm::new(weights, &format!("{name}.output.LayerNorm"), dim, config.eps)?,
            activation: config.activation,
        })
    }

    /// Cross-attention and perceptron, after self-attention. Rows of `x` that stand side by side may
    /// share an image: there are as many to an image as there are rows to images in `memory`.
    fn rest(&self, x: &Tensor, memory: &KeyValue) -> Result<Tensor> {
        let (rows, length, dim) = x.size3()?;
        let images = memory.key.size4()?.0;
        // To cross-attention they are further positions of one caption; copies of the image's keys
        // and values are what costs most in a search with beams.
        let grouped = x.f_view([images, rows / images * length, dim])?;
        let x = self.crossattention.forward(&grouped, &memory.key, &memory.value, false)?;
        let x = x.f_view([rows, length, dim])?;
        let hidden = self.activation.forward(&self.intermediate.forward(&x)?)?;
        self.norm.forward(&self.output.forward(&hidden)?.f_add(&x)?)
    }
}

/// What the decoder attends to: keys and values of the visual tokens, computed once per image.
#[derive(Debug)]
pub(super) struct Memory(Vec<KeyValue>);

/// Keys and values of the tokens decoded so far, preallocated for a whole caption.
#[derive(Debug)]
pub(super) struct Cache(Vec<KeyValue>);

/// The text decoder.
#[derive(Debug)]
pub(super) struct TextDecoder {
    words: Tensor,
    positions: Tensor,
    norm: LayerNorm,
    blocks: Vec<Block>,
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
        let (bert, head) = ("text_decoder.bert", "text_decoder.cls.predictions");
        Ok(Self {
            words: weights.parameter(
                &format!("{bert}.embeddings.word_embeddings.weight"),
                &[vocab, dim],
                embedding,
            )?,
            positions: weights.parameter(
                &format!("{bert}.embeddings.position_embeddings.weight"),
                &[config.positions as i64, dim],
                embedding,
            )?,
            norm: LayerNorm::new(weights, &format!("{bert}.embeddings.LayerNorm"), dim, eps)?,
            blocks: (0..config.layers)
                .map(|i| Block::new(weights, &format!("{bert}.encoder.layer.{i}"), vision, config))
                .collect::<Result<_>>()?,
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
        self.blocks
            .iter()
            .map(|block| {
                // They are read once per token of a caption: heads lie together.
                let found = block.crossattention.key_value(visual)?;
                Ok(KeyValue { key: found.key.f_contiguous()?, value: found.value.f_contiguous()? })
            })
            .collect::<Result<_>>()
            .map(Memory)
    }

    /// Last hidden states `[batch, length, dim]` of token ids `[batch, length]`, each position
    /// seeing those before it. `length` must not exceed the decoder's positions.
    pub(super) fn hidden(&self, ids: &Tensor, memory: &Memory) -> Result<Tensor> {
        let (_, length) = ids.size2()?;
        let mut x = self.embed(ids, 0, length)?;
        for (block, memory) in self.blocks.iter().zip(&memory.0) {
            let own = block.attention.key_value(&x)?;
            x = block.attention.forward(&x, &own.key, &own.value, true)?;
            x = block.rest(&x, memory)?;
        }
        Ok(x)
    }

    /// Hidden states `[.., dim]` to logits `[.., vocab]`.
    pub(super) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let x = self.activation.forward(&self.transform.forward(hidden)?)?;
        let x = self.transform_norm.forward(&x)?;
        linear(&x, self.output.as_ref().unwrap_or(&self.words), &self.bias)
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
        self.blocks
            .iter()
            .map(|block| {
                let heads = block.attention.heads;
                let shape = [rows, heads, length, self.words.size2()?.1 / heads];
                Ok(KeyValue {
                    key: Tensor::f_zeros(shape, (Kind::Float, device))?,
                    value: Tensor::f_zeros(shape, (Kind::Float, device))?,
                })
            })
            .collect::<Result<_>>()
            .map(Cache)
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
        let mut x = self.embed(&ids.f_unsqueeze(1)?, position, 1)?;
        for ((block, memory), cache) in self.blocks.iter().zip(&memory.0).zip(&mut cache.0) {
            let own = block.attention.key_value(&x)?;
            cache.key.f_narrow(2, position, 1)?.f_copy_(&own.key)?;
            cache.value.f_narrow(2, position, 1)?.f_copy_(&own.value)?;
            let key = cache.key.f_narrow(2, 0, position + 1)?;
            let value = cache.value.f_narrow(2, 0, position + 1)?;
            x = block.attention.forward(&x, &key, &value, false)?;
            x = block.rest(&x, memory)?;
        }
        Ok(x.f_squeeze_dim(1)?)
    }

    fn embed(&self, ids: &Tensor, start: i64, length: i64) -> Result<Tensor> {
        let words = Tensor::f_embedding(&self.words, ids, -1, false, false)?;
        self.norm.forward(&words.f_add(&self.positions.f_narrow(0, start, length)?)?)
    }
}

impl Cache {
    /// Makes row `rows[i]` row i, over the first `length` positions.
    pub(super) fn reorder(&mut self, rows: &Tensor, length: i64) -> Result<()> {
        for cache in self.0.iter_mut().flat_map(|kv| [&mut kv.key, &mut kv.value]) {
            let mut used = cache.f_narrow(2, 0, length)?;
            used.f_copy_(&used.f_index_select(0, rows)?)?;
        }
        Ok(())
    }
}

impl Memory {
    /// The same single image for `batch` captions, without copying it.
    pub(super) fn expand(&self, batch: i64) -> Result<Memory> {
        let expand = |x: &Tensor| -> Result<Tensor> { Ok(x.f_expand([batch, -1, -1, -1], false)?) };
        self.0
            .iter()
            .map(|m| Ok(KeyValue { key: expand(&m.key)?, value: expand(&m.value)? }))
            .collect::<Result<_>>()
            .map(Memory)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hash::{Purpose, Rng};

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
