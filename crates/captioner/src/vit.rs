//! The image encoder: a pre-norm ViT (Dosovitskiy et al., arXiv 2010.11929), with the tensor
//! names of `BlipVisionModel` in Hugging Face's transformers.
//!
//! Patches are embedded by one matrix product instead of a convolution: convolution libraries
//! choose their algorithm by shape and load, a product does not.

use tch::{Device, Kind, Tensor};

use crate::autocast::linear;
use crate::config::{Activation, CaptionerConfig, VisionConfig};
use crate::error::Result;
use crate::layers::{LayerNorm, Linear, attention};
use crate::weights::{Init, Weights, glorot};

/// Initial spread of learned positions and of the class token, as in ViT.
const POSITION_SD: f64 = 0.02;

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    projection: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation: Activation,
}

impl Block {
    fn new(weights: &mut Weights, name: &str, config: &VisionConfig) -> Result<Self> {
        let (dim, mlp, eps) = (config.dim as i64, config.mlp as i64, config.eps);
        Ok(Self {
            norm1: LayerNorm::new(weights, &format!("{name}.layer_norm1"), dim, eps)?,
            qkv: Linear::new(weights, &format!("{name}.self_attn.qkv"), dim, 3 * dim)?,
            projection: Linear::new(weights, &format!("{name}.self_attn.projection"), dim, dim)?,
            norm2: LayerNorm::new(weights, &format!("{name}.layer_norm2"), dim, eps)?,
            fc1: Linear::new(weights, &format!("{name}.mlp.fc1"), dim, mlp)?,
            fc2: Linear::new(weights, &format!("{name}.mlp.fc2"), mlp, dim)?,
            heads: config.heads as i64,
            activation: config.activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, dim) = x.size3()?;
        let qkv = self
            .qkv
            .forward(&self.norm1.forward(x)?)?
            .f_view([batch, length, 3, self.heads, dim / self.heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        let mixed = attention(&qkv.f_select(0, 0)?, &qkv.f_select(0, 1)?, &qkv.f_select(0, 2)?, None, false)?;
        let x = x.f_add(&self.projection.forward(&mixed)?)?;
        let hidden = self.activation.forward(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
        Ok(x.f_add(&self.fc2.forward(&hidden)?)?)
    }
}

/// The image encoder.
#[derive(Debug)]
pub(super) struct VisionModel {
    class: Tensor,
    positions: Tensor,
    patch: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    /// `1 / (255 std)` and `-mean / std`, `[1, 3, 1, 1]`.
    scale: Tensor,
    shift: Tensor,
    patch_size: i64,
}

impl VisionModel {
    /// Tensors below `vision_model.`.
    pub(super) fn new(weights: &mut Weights, config: &CaptionerConfig, device: Device) -> Result<Self> {
        let (dim, eps) = (config.vision.dim as i64, config.vision.eps);
        let (p, patches) = (config.patch_size as i64, config.patches() as i64);
        let root = "vision_model";
        let channel = |f: &dyn Fn(usize) -> f32| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(&[f(0), f(1), f(2)])?.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        let embeddings = format!("{root}.embeddings");
        let position = Init::Normal(POSITION_SD);
        Ok(Self {
            class: weights.parameter(&format!("{embeddings}.class_embedding"), &[1, 1, dim], position)?,
            positions: weights.parameter(
                &format!("{embeddings}.position_embedding"),
                &[1, patches + 1, dim],
                position,
            )?,
            patch: Linear {
                // The shape of a convolution, as in BLIP's files.
                weight: weights.parameter(
                    &format!("{embeddings}.patch_embedding.weight"),
                    &[dim, 3, p, p],
                    glorot(3 * p * p, dim),
                )?,
                bias: weights.parameter(
                    &format!("{embeddings}.patch_embedding.bias"),
                    &[dim],
                    Init::Constant(0.0),
                )?,
            },
            blocks: (0..config.vision.layers)
                .map(|i| Block::new(weights, &format!("{root}.encoder.layers.{i}"), &config.vision))
                .collect::<Result<_>>()?,
            norm: LayerNorm::new(weights, &format!("{root}.post_layernorm"), dim, eps)?,
            scale: channel(&|c| 1.0 / (255.0 * config.std[c]))?,
            shift: channel(&|c| -config.mean[c] / config.std[c])?,
            patch_size: p,
        })
    }

    /// Previews `[batch, 3, size, size]`, u8, to tokens `[batch, 1 + patches, dim]`, f32 whatever the
    /// weights are: the class token, then the patches row by row.
    pub(super) fn forward(&self, previews: &Tensor) -> Result<Tensor> {
        let (batch, channels, size, _) = previews.size4()?;
        let (p, side) = (self.patch_size, size / self.patch_size);
        let pixels = previews
            .f_to_kind(Kind::Float)?
            .f_mul(&self.scale)?
            .f_add(&self.shift)?
            .f_to_kind(self.class.f_kind()?)?;
        let patches = pixels
            .f_view([batch, channels, side, p, side, p])?
            .f_permute([0, 2, 4, 1, 3, 5])?
            .f_reshape([batch, side * side, channels * p * p])?;
        let weight = self.patch.weight.f_view([-1, channels * p * p])?;
        let patches = linear(&patches, &weight, &self.patch.bias)?;
        let class = self.class.f_expand([batch, 1, -1], false)?;
        let mut x = Tensor::f_cat(&[class, patches], 1)?.f_add(&self.positions)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(self.norm.forward(&x)?.f_to_kind(Kind::Float)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patch_product_equals_convolution() {
        let mut config = CaptionerConfig::tiny(10);
        config.vision.layers = 1;
        let mut weights = Weights::seeded(1, Device::Cpu);
        let model = VisionModel::new(&mut weights, &config, Device::Cpu).unwrap();
        let bytes: Vec<u8> = (0..2 * 3 * 16 * 16).map(|i| (i * 37 % 251) as u8).collect();
        let previews = Tensor::from_slice(&bytes).view([2, 3, 16, 16]);
        let _guard = tch::no_grad_guard();
        // What the network computes by hand, with libtorch's convolution and no blocks.
        let mean = Tensor::from_slice(&config.mean).view([1, 3, 1, 1]);
        let std = Tensor::from_slice(&config.std).view([1, 3, 1, 1]);
        let pixels = (previews.to_kind(Kind::Float) / 255.0 - mean) / std;
        let patches = pixels
            .conv2d(&model.patch.weight, Some(&model.patch.bias), 4, 0, 1, 1)
            .flatten(2, 3)
            .transpose(1, 2);
        let class = model.class.expand([2, 1, -1], false);
        let x = Tensor::cat(&[class, patches], 1) + &model.positions;
        let expected = model.norm.forward(&model.blocks[0].forward(&x).unwrap()).unwrap();
        let found = model.forward(&previews).unwrap();
        assert_eq!(found.size(), [2, 17, 32]);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
    }
}
