//! A codebook for a model that was trained without one: centroids of its patches.
//!
//! Codes live in the space of the patch tokens and are compared by Euclidean distance, so that a
//! code is also the best stand-in for its patches where the decoder has never seen codes.

use tch::{Kind, Tensor};

use crate::config::CaptionerConfig;
use crate::error::Result;
use crate::weights::{Init, Weights};

/// K centroids, and what is common to all patches.
#[derive(Debug)]
pub(super) struct FittedCodebook {
    /// Centroids, `[codes, dim]`.
    codes: Tensor,
    /// Half of each centroid's squared norm, `[codes]`.
    half_norms: Tensor,
    /// Mean patch, `[dim]`.
    mean: Tensor,
}

impl FittedCodebook {
    /// Tensors below `codebook.`.
    pub(super) fn new(weights: &mut Weights, config: &CaptionerConfig) -> Result<Self> {
        let (codes, dim) = (config.codes() as i64, config.vision.dim as i64);
        let codes = weights.buffer("codebook.codes", &[codes, dim], Init::Normal(1.0))?;
        Ok(Self {
            half_norms: half_norms(&codes)?,
            mean: weights.buffer("codebook.mean", &[dim], Init::Constant(0.0))?,
            codes,
        })
    }

    /// Index of the nearest code of each patch: `[batch, patches, dim]` to `[batch, patches]`, i64.
    pub(super) fn nearest(&self, patches: &Tensor) -> Result<Tensor> {
        let (batch, length, dim) = patches.size3()?;
        let flat = patches.f_reshape([batch * length, dim])?;
        Ok(nearest(&flat, &self.codes, &self.half_norms)?.f_view([batch, length])?)
    }

    /// The codes of `indices` `[batch, patches]`: `[batch, patches, dim]`.
    pub(super) fn quantised(&self, indices: &Tensor) -> Result<Tensor> {
        let (batch, patches) = indices.size2()?;
        Ok(self.codes.f_index_select(0, &indices.f_view([-1])?)?.f_view([batch, patches, -1])?)
    }

    /// Mean patch of the corpus, `[dim]`.
    pub(super) fn mean(&self) -> &Tensor {
        &self.mean
    }
}

/// Half of the squared norm of each row: `[rows, dim]` to `[rows]`.
pub(super) fn half_norms(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_square()?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?.f_mul_scalar(0.5)?)
}

/// Nearest centroid of each point, `[points]`, i64, for points `[points, dim]` and centroids
/// `[centroids, dim]`. The distance is smallest where x c - |c|^2 / 2 is largest: one matrix product, whose
/// `[points, centroids]` f32 are all the memory it takes.
pub(super) fn nearest(points: &Tensor, centroids: &Tensor, half_norms: &Tensor) -> Result<Tensor> {
    Ok(half_norms.f_neg()?.f_addmm(points, &centroids.f_tr()?)?.f_argmax(-1, false)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::weights::to_f32;
    use tldr_loader::hash::{Purpose, Rng};

    #[test]
    fn the_nearest_centroid_is_that_of_a_plain_loop() {
        let mut rng = Rng::new(2, Purpose::Train, 3);
        let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
        // Far from the origin, where lengths matter as much as directions.
        let (points, centroids) = (normal(300 * 6), normal(20 * 6).iter().map(|c| 2.0 * c + 1.0).collect());
        let (points, centroids): (Vec<f32>, Vec<f32>) = (points, centroids);
        let tensor = |x: &[f32]| Tensor::from_slice(x).view([-1, 6]);
        let half = half_norms(&tensor(&centroids)).unwrap();
        let found = to_f32(&nearest(&tensor(&points), &tensor(&centroids), &half).unwrap()).unwrap();
        for (point, &found) in points.chunks(6).zip(&found) {
            let distance =
                |k: usize| -> f32 { (0..6).map(|c| (point[c] - centroids[6 * k + c]).powi(2)).sum() };
            let best = (0..20).map(distance).fold(f32::INFINITY, f32::min);
            assert!(distance(found as usize) <= best + 1e-4);
        }
    }
}
