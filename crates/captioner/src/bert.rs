//! BERT with cross-attention to visual tokens, as BLIP uses it (Li et al., arXiv 2201.12086): as a decoder,
//! where a token sees those before it, and as an encoder, where it sees all of its text. Tensor names are
//! those of `BlipTextModel` in Hugging Face's transformers.

use tch::{Device, Tensor};

use crate::config::{Activation, DecoderConfig};
use crate::error::Result;
use crate::layers::{LayerNorm, Linear, attention, attention_of_few, split_heads};
use crate::weights::{Init, Weights};

/// Queries up to which attention goes without the fused kernel on a CPU: measured with 1 and 3.
const FEW: i64 = 8;

/// Initial spread of embeddings, as in BERT.
pub(super) const EMBEDDING_SD: f64 = 0.02;

/// What a token of a text sees of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sight<'a> {
    /// What stands before it, and itself.
    Earlier,
    /// Everything: all there is came before.
    All,
    /// Where this is true, `[batch, 1, 1, length]`.
    Marked(&'a Tensor),
}

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

    fn forward(&self, x: &Tensor, key: &Tensor, value: &Tensor, sight: Sight<'_>) -> Result<Tensor> {
        let query = split_heads(&self.query.forward(x)?, self.heads)?;
        // One place of a caption, or that of each of its beams.
        let few = query.device() == Device::Cpu && query.size4()?.2 <= FEW;
        let mixed = match sight {
            Sight::All if few => attention_of_few(&query, key, value)?,
            Sight::All => attention(&query, key, value, None, false)?,
            Sight::Earlier => attention(&query, key, value, None, true)?,
            Sight::Marked(mask) => attention(&query, key, value, Some(mask), false)?,
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
        let x = self.crossattention.forward(&grouped, &memory.key, &memory.value, Sight::All)?;
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

/// Embeddings and blocks.
#[derive(Debug)]
pub(super) struct Bert {
    pub(super) words: Tensor,
    positions: Tensor,
    norm: LayerNorm,
    blocks: Vec<Block>,
}

impl Bert {
    /// Tensors below `root`, for visual tokens of `vision` numbers.
    pub(super) fn new(
        weights: &mut Weights,
        root: &str,
        vision: i64,
        config: &DecoderConfig,
    ) -> Result<Self> {
        let (dim, vocab, eps) = (config.dim as i64, config.vocab as i64, config.eps);
        let embedding = Init::Normal(EMBEDDING_SD);
        Ok(Self {
            words: weights.parameter(
                &format!("{root}.embeddings.word_embeddings.weight"),
                &[vocab, dim],
                embedding,
            )?,
            positions: weights.parameter(
                &format!("{root}.embeddings.position_embeddings.weight"),
                &[config.positions as i64, dim],
                embedding,
            )?,
            norm: LayerNorm::new(weights, &format!("{root}.embeddings.LayerNorm"), dim, eps)?,
            blocks: (0..config.layers)
                .map(|i| Block::new(weights, &format!("{root}.encoder.layer.{i}"), vision, config))
                .collect::<Result<_>>()?,
        })
    }

    /// Keys and values of visual tokens `[batch, tokens, dim]`, in the number type of the weights.
    pub(super) fn memory(&self, visual: &Tensor) -> Result<Memory> {
        let visual = visual.f_to_kind(self.words.f_kind()?)?;
        self.blocks
            .iter()
            .map(|block| {
                // They are read once per token of a caption: heads lie together.
                let found = block.crossattention.key_value(&visual)?;
                Ok(KeyValue { key: found.key.f_contiguous()?, value: found.value.f_contiguous()? })
            })
            .collect::<Result<_>>()
            .map(Memory)
    }

    /// Last hidden states `[batch, length, dim]` of token ids `[batch, length]`. `length` must not exceed
    /// the positions.
    pub(super) fn hidden(&self, ids: &Tensor, memory: &Memory, sight: Sight<'_>) -> Result<Tensor> {
        let (_, length) = ids.size2()?;
        let mut x = self.embed(ids, 0, length)?;
        for (block, memory) in self.blocks.iter().zip(&memory.0) {
            let own = block.attention.key_value(&x)?;
            x = block.attention.forward(&x, &own.key, &own.value, sight)?;
            x = block.rest(&x, memory)?;
        }
        Ok(x)
    }

    /// An empty cache for `rows` captions of `length` tokens.
    pub(super) fn cache(&self, rows: i64, length: i64, device: Device) -> Result<Cache> {
        let kind = self.words.f_kind()?;
        self.blocks
            .iter()
            .map(|block| {
                let heads = block.attention.heads;
                let shape = [rows, heads, length, self.words.size2()?.1 / heads];
                Ok(KeyValue {
                    key: Tensor::f_zeros(shape, (kind, device))?,
                    value: Tensor::f_zeros(shape, (kind, device))?,
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
            x = block.attention.forward(&x, &key, &value, Sight::All)?;
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
