//! The layers that both halves of the captioner are made of.

use tch::Tensor;

use crate::autocast::linear;
use crate::config::Activation;
use crate::error::Result;
use crate::weights::{Init, Weights, glorot};

/// `x W^T + b`.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl Linear {
    /// Tensors `{name}.weight` `[output, input]` and `{name}.bias` `[output]`.
    pub(super) fn new(weights: &mut Weights, name: &str, input: i64, output: i64) -> Result<Self> {
        Ok(Self {
            weight: weights.parameter(&format!("{name}.weight"), &[output, input], glorot(input, output))?,
            bias: weights.parameter(&format!("{name}.bias"), &[output], Init::Constant(0.0))?,
        })
    }

    /// `[.., input]` to `[.., output]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, &self.bias)
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Tensors `{name}.weight` and `{name}.bias`, both `[dim]`.
    pub(super) fn new(weights: &mut Weights, name: &str, dim: i64, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: weights.parameter(&format!("{name}.weight"), &[dim], Init::Constant(1.0))?,
            bias: weights.parameter(&format!("{name}.bias"), &[dim], Init::Constant(0.0))?,
            eps,
        })
    }

    /// `[.., dim]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.weight.size();
        // Under autocast the weights are f32; elsewhere nothing is to be done.
        let x = x.f_to_kind(self.weight.f_kind()?)?;
        Ok(x.f_layer_norm(&shape, Some(&self.weight), Some(&self.bias), self.eps, true)?)
    }
}

impl Activation {
    /// Of every component.
    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluNew => x.f_gelu("tanh")?,
            Self::QuickGelu => x.f_mul_scalar(1.702)?.f_sigmoid()?.f_mul(x)?,
            Self::Relu => x.f_relu()?,
        })
    }
}

/// `[batch, length, heads * d]` to `[batch, heads, length, d]`.
pub(super) fn split_heads(x: &Tensor, heads: i64) -> Result<Tensor> {
    let (batch, length, dim) = x.size3()?;
    Ok(x.f_view([batch, length, heads, dim / heads])?.f_transpose(1, 2)?)
}

/// Scaled dot-product attention of `[batch, heads, length, d]`; heads are joined again:
/// `[batch, length, heads * d]`. With `causal`, position i sees positions up to i only; with a `mask`
/// (true where a key is seen, of a shape that expands to `[batch, heads, length, keys]`) what it shows.
pub(super) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let (batch, heads, length, d) = query.size4()?;
    let mixed =
        Tensor::f_scaled_dot_product_attention(query, key, value, mask, 0.0, causal, None::<f64>, false)?;
    Ok(mixed.f_transpose(1, 2)?.f_reshape([batch, length, heads * d])?)
}

/// The same for few queries, without `causal`: two batched products, which on a CPU cost up to 40% less
/// than the fused kernel there. `key` and `value` `[batch, heads, keys, d]` should be contiguous.
pub(super) fn attention_of_few(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let (batch, heads, length, d) = query.size4()?;
    let keys = key.size4()?.2;
    let flat = |x: &Tensor, n: i64| x.f_reshape([batch * heads, n, d]);
    let scaled = flat(&query.f_mul_scalar((d as f64).powf(-0.5))?, length)?;
    let scores = scaled.f_bmm(&flat(key, keys)?.f_transpose(1, 2)?)?.f_softmax(-1, query.f_kind()?)?;
    let mixed = scores.f_bmm(&flat(value, keys)?)?.f_view([batch, heads, length, d])?;
    Ok(mixed.f_transpose(1, 2)?.f_reshape([batch, length, heads * d])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::weights::to_f32;
    use tldr_loader::hash::{Purpose, Rng};

    #[test]
    fn attention_equals_a_naive_loop() {
        let (batch, heads, length, d) = (2usize, 3, 5, 4);
        let mut rng = Rng::new(3, Purpose::Train, 0);
        let mut random =
            || -> Vec<f32> { (0..batch * heads * length * d).map(|_| rng.normal() as f32).collect() };
        let (q, k, v) = (random(), random(), random());
        let shape = [batch as i64, heads as i64, length as i64, d as i64];
        let tensor = |x: &[f32]| Tensor::from_slice(x).view(shape);
        for causal in [false, true] {
            let found = attention(&tensor(&q), &tensor(&k), &tensor(&v), None, causal).unwrap();
            if !causal {
                let few = attention_of_few(&tensor(&q), &tensor(&k), &tensor(&v)).unwrap();
                assert!((&few - &found).abs().max().double_value(&[]) < 1e-5);
            }
            let found = to_f32(&found).unwrap();
            let row = |b: usize, h: usize, i: usize| ((b * heads + h) * length + i) * d;
            for b in 0..batch {
                for h in 0..heads {
                    for i in 0..length {
                        let seen = if causal { i + 1 } else { length };
                        let score = |j: usize| -> f64 {
                            let dot: f32 = (0..d).map(|c| q[row(b, h, i) + c] * k[row(b, h, j) + c]).sum();
                            f64::from(dot / (d as f32).sqrt()).exp()
                        };
                        let total: f64 = (0..seen).map(score).sum();
                        for c in 0..d {
                            let expected: f64 =
                                (0..seen).map(|j| score(j) / total * f64::from(v[row(b, h, j) + c])).sum();
                            let at = (b * length + i) * heads * d + h * d + c;
                            assert!(
                                (f64::from(found[at]) - expected).abs() < 1e-5,
                                "{causal} {b} {h} {i} {c}"
                            );
                        }
                    }
                }
            }
        }
    }
}
