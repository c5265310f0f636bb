//! The codebook: patch tokens to their nearest codes, and codes that follow the patches.
//!
//! Vector quantisation as in VQ-VAE (van den Oord et al., arXiv 1711.00937) with moving-average
//! updates; lookup of L2-normalised vectors in a low-dimensional space as in ViT-VQGAN (Yu et
//! al., arXiv 2110.04627); codes that nothing uses are moved to badly represented patches.

use tch::{Kind, Tensor};

use crate::config::{CaptionerConfig, CodebookConfig, CodebookUpdate};
use crate::error::{Error, Result};
use crate::layers::Linear;
use crate::weights::{Init, Weights, to_f32, unit_rows};
use tldr_loader::hash::Rng;

/// A code is dead when its moving count is below this share of the mean count. A re-seeded code
/// starts at the mean, and so has ln(10) / (1 - decay) steps to find its patches.
const DEAD: f64 = 0.1;

/// A dead code moves to one of the worst patches, drawn from this many times as many as there are
/// dead codes: the very worst of a batch are often copies of one another.
const RESEED_POOL: usize = 4;

/// Name of the codes' tensor.
pub(super) const CODES: &str = "codebook.codes";

/// Initial spread of the positions: half of that of the codes beside them.
const POSITION_SD: f64 = 0.5;

/// How well the codebook is used, by its moving counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CodebookUse {
    /// exp of the entropy of the codes' shares: the number of codes, were they used equally.
    pub(super) perplexity: f64,
    /// Codes that are not dead.
    pub(super) used: usize,
    /// Codes that were moved to other patches.
    pub(super) reseeded: Vec<i64>,
}

/// K unit vectors and the moving statistics behind them.
#[derive(Debug)]
pub(super) struct Codebook {
    config: CodebookConfig,
    down: Option<Linear>,
    up: Option<Linear>,
    /// Added to the codes that the decoder sees, `[1, patches, dim]`: it tells the decoder where a
    /// code stands, so that codes need not say it and patches that look alike can share one.
    positions: Tensor,
    /// Unit vectors, `[codes, code_dim]`.
    codes: Tensor,
    /// Moving count of patches of each code, `[codes]`.
    size: Tensor,
    /// Moving sum of the patches of each code, `[codes, code_dim]`.
    sum: Tensor,
}

impl Codebook {
    /// Tensors below `codebook.`.
    pub(super) fn new(weights: &mut Weights, config: &CaptionerConfig) -> Result<Self> {
        let own = config.codebook.clone().ok_or_else(|| Error::captioner("no codebook to build"))?;
        let (dim, code_dim) = (config.vision.dim as i64, own.code_dim as i64);
        let codes = own.codes as i64;
        let projected = dim != code_dim;
        let mut linear = |name: &str, input, output| -> Result<Option<Linear>> {
            projected.then(|| Linear::new(weights, name, input, output)).transpose()
        };
        Ok(Self {
            down: linear("codebook.down", dim, code_dim)?,
            up: linear("codebook.up", code_dim, dim)?,
            positions: weights.parameter(
                "codebook.position_embedding",
                &[1, config.patches() as i64, dim],
                Init::Normal(POSITION_SD),
            )?,
            codes: match own.update {
                CodebookUpdate::Ema => weights.buffer(CODES, &[codes, code_dim], Init::UnitRows)?,
                CodebookUpdate::Loss => weights.parameter(CODES, &[codes, code_dim], Init::UnitRows)?,
            },
            // A new codebook has seen nothing: all of its codes are dead, and the first update
            // seeds them from patches.
            size: weights.buffer("codebook.size", &[codes], Init::Constant(0.0))?,
            sum: weights.buffer("codebook.sum", &[codes, code_dim], Init::Constant(0.0))?,
            config: own,
        })
    }

    /// Patch tokens `[.., dim]` to unit vectors in the space of the codes, `[.., code_dim]`.
    pub(super) fn project(&self, patches: &Tensor) -> Result<Tensor> {
        match &self.down {
            Some(down) => unit_rows(&down.forward(patches)?),
            None => unit_rows(patches),
        }
    }

    /// Index of the nearest code of each unit vector: `[batch, patches, code_dim]` to
    /// `[batch, patches]`, i64. For unit vectors the nearest code is the one with the largest
    /// dot product, so one matrix product finds it. A tie goes to one of the tied.
    pub(super) fn nearest(&self, z: &Tensor) -> Result<Tensor> {
        let (batch, patches, dim) = z.size3()?;
        let scores = z.f_reshape([batch * patches, dim])?.f_mm(&self.codes.f_tr()?)?;
        Ok(scores.f_argmax(-1, false)?.f_view([batch, patches])?)
    }

    /// The codes of `indices` `[batch, patches]`: `[batch, patches, code_dim]`.
    pub(super) fn quantised(&self, indices: &Tensor) -> Result<Tensor> {
        let (batch, patches) = indices.size2()?;
        Ok(self.codes.f_index_select(0, &indices.f_view([-1])?)?.f_view([batch, patches, -1])?)
    }

    /// Codes `[batch, patches, code_dim]` as the decoder sees them: `[batch, patches, dim]`.
    pub(super) fn visual(&self, quantised: &Tensor) -> Result<Tensor> {
        // Components of unit vectors are small; this gives them unit variance.
        let scaled = quantised.f_mul_scalar((self.config.code_dim as f64).sqrt())?;
        let codes = match &self.up {
            Some(up) => up.forward(&scaled)?,
            None => scaled,
        };
        Ok(codes.f_add(&self.positions)?)
    }

    /// Value of the codes, gradient of `z`.
    pub(super) fn straight_through(&self, z: &Tensor, quantised: &Tensor) -> Result<Tensor> {
        Ok(z.f_add(&quantised.f_sub(z)?.f_detach()?)?)
    }

    /// What keeps patches `z` and their codes `quantised` together: means over all components of
    /// their squared difference. The commitment loss moves patches only, and is weighted by the
    /// configuration; the codebook loss moves codes only, and is there where moving averages do
    /// not take its place.
    pub(super) fn loss(&self, z: &Tensor, quantised: &Tensor) -> Result<Tensor> {
        let between = |z: &Tensor, codes: &Tensor| -> Result<Tensor> {
            Ok(z.f_sub(codes)?.f_square()?.f_mean(Kind::Float)?)
        };
        let commitment = between(z, &quantised.f_detach()?)?.f_mul_scalar(self.config.commitment)?;
        match self.config.update {
            CodebookUpdate::Ema => Ok(commitment),
            CodebookUpdate::Loss => Ok(commitment.f_add(&between(&z.f_detach()?, quantised)?)?),
        }
    }

    /// Mean of the unit vectors that training saw, `[code_dim]`; zero before training.
    pub(super) fn mean(&self) -> Result<Tensor> {
        let total = self.size.f_sum(Kind::Float)?.f_clamp_min(1e-12)?;
        Ok(self.sum.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?.f_div(&total)?)
    }

    /// Puts unit vectors `[codes, code_dim]` in place of the codes, each as if it had been chosen by
    /// `size` patches at every step so far: none is dead at first.
    pub(super) fn start_from(&mut self, codes: &Tensor, size: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.codes.f_copy_(codes)?;
        self.sum.f_copy_(&codes.f_mul_scalar(size)?)?;
        let _ = self.size.f_fill_(size)?;
        Ok(())
    }

    /// The codes, `[codes, code_dim]`.
    #[cfg(test)]
    pub(super) fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Moves the codes towards the patches `z` `[batch, patches, code_dim]` that chose them, unless a
    /// loss has moved them, and dead codes onto patches that are far from theirs.
    pub(super) fn update(&mut self, z: &Tensor, indices: &Tensor, rng: &mut Rng) -> Result<CodebookUse> {
        let _guard = tch::no_grad_guard();
        let (codes, dim) = self.codes.size2()?;
        let z = z.f_detach()?.f_reshape([-1, dim])?;
        let indices = indices.f_reshape([-1])?;
        let keep = self.config.decay;
        let counts = indices.f_bincount(None::<&Tensor>, codes)?.f_to_kind(Kind::Float)?;
        let mut sums = self.sum.f_zeros_like()?;
        let _ = sums.f_index_add_(0, &indices, &z)?;
        let _ = self.size.f_mul_scalar_(keep)?.f_add_(&counts.f_mul_scalar(1.0 - keep)?)?;
        let _ = self.sum.f_mul_scalar_(keep)?.f_add_(&sums.f_mul_scalar(1.0 - keep)?)?;
        let moved = match self.config.update {
            CodebookUpdate::Ema => {
                // A code without any history has no direction to follow.
                let seen = self.size.f_gt(0.0)?.f_unsqueeze(1)?;
                unit_rows(&self.sum)?.f_where_self(&seen, &self.codes)?
            }
            // A gradient step leaves the sphere.
            CodebookUpdate::Loss => unit_rows(&self.codes)?,
        };
        self.codes.f_copy_(&moved)?;
        let mean = z.size()[0] as f64 / codes as f64;
        let size = to_f32(&self.size)?;
        let dead: Vec<i64> =
            (0..size.len()).filter(|&k| f64::from(size[k]) < DEAD * mean).map(|k| k as i64).collect();
        let reseeded = match dead.is_empty() {
            true => dead,
            false => self.reseed(&dead, &z, &indices, mean, rng)?,
        };
        Ok(CodebookUse { reseeded, ..codebook_use(&size, DEAD * mean) })
    }

    /// Places the codes `dead` on patches with a large error, as if they had been there with a
    /// count of `mean`: size and sum together, so that the next update does not undo it. Says which
    /// were placed: there may be fewer patches than dead codes.
    fn reseed(
        &mut self,
        dead: &[i64],
        z: &Tensor,
        indices: &Tensor,
        mean: f64,
        rng: &mut Rng,
    ) -> Result<Vec<i64>> {
        let similarity = z.f_mul(&self.codes.f_index_select(0, indices)?)?;
        let similarity = to_f32(&similarity.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?)?;
        let mut worst: Vec<usize> = (0..similarity.len()).collect();
        worst.sort_by(|&a, &b| similarity[a].total_cmp(&similarity[b]).then(a.cmp(&b)));
        worst.truncate(RESEED_POOL * dead.len());
        rng.shuffle(&mut worst);
        let chosen: Vec<i64> = worst.iter().take(dead.len()).map(|&p| p as i64).collect();
        let device = z.device();
        let placed = dead[..chosen.len()].to_vec();
        let dead = Tensor::f_from_slice(&placed)?.f_to_device(device)?;
        let patches = z.f_index_select(0, &Tensor::f_from_slice(&chosen)?.f_to_device(device)?)?;
        let _ = self.codes.f_index_copy_(0, &dead, &patches)?;
        let _ = self.sum.f_index_copy_(0, &dead, &patches.f_mul_scalar(mean)?)?;
        let _ = self.size.f_index_fill_(0, &dead, mean)?;
        Ok(placed)
    }
}

fn codebook_use(size: &[f32], threshold: f64) -> CodebookUse {
    let total: f64 = size.iter().map(|&s| f64::from(s)).sum();
    let entropy: f64 = size
        .iter()
        .map(|&s| f64::from(s) / total.max(f64::MIN_POSITIVE))
        .filter(|&p| p > 0.0)
        .map(|p| -p * p.ln())
        .sum();
    CodebookUse {
        perplexity: entropy.exp(),
        used: size.iter().filter(|&&s| f64::from(s) >= threshold).count(),
        reseeded: vec![],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Device;

    use super::*;
    use tldr_loader::hash::Purpose;

    fn codebook(codes: usize) -> Codebook {
        let mut config = CaptionerConfig::tiny(10);
        config.codebook.as_mut().unwrap().codes = codes;
        Codebook::new(&mut Weights::seeded(5, Device::Cpu), &config).unwrap()
    }

    fn unit_vectors(rows: i64, dim: i64, seed: u64) -> Tensor {
        let mut rng = Rng::new(seed, Purpose::Train, 1);
        let values: Vec<f32> = (0..rows * dim).map(|_| rng.normal() as f32).collect();
        unit_rows(&Tensor::from_slice(&values).view([1, rows, dim])).unwrap()
    }

    #[test]
    fn nearest_equals_brute_force() {
        let codebook = codebook(16);
        let z = unit_vectors(200, 8, 1);
        let found: Vec<i64> = Vec::try_from(codebook.nearest(&z).unwrap().view([-1])).unwrap();
        let (points, codes) = (to_f32(&z).unwrap(), to_f32(&codebook.codes).unwrap());
        for (point, &code) in points.chunks(8).zip(&found) {
            let distance = |k: usize| -> f32 { (0..8).map(|c| (point[c] - codes[8 * k + c]).powi(2)).sum() };
            let best = (0..16).map(distance).fold(f32::INFINITY, f32::min);
            assert!(distance(code as usize) <= best + 1e-6);
        }
    }

    #[test]
    fn straight_through_has_the_codes_value_and_the_patches_gradient() {
        let codebook = codebook(16);
        let z = unit_vectors(20, 8, 2).set_requires_grad(true);
        let quantised = codebook.quantised(&codebook.nearest(&z).unwrap()).unwrap();
        let out = codebook.straight_through(&z, &quantised).unwrap();
        assert!((&out - &quantised).abs().max().double_value(&[]) < 1e-6);
        let weight = unit_vectors(20, 8, 3);
        (out * &weight).sum(Kind::Float).backward();
        assert!((z.grad() - weight).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn update_equals_brute_force() {
        let mut codebook = codebook(4);
        // Healthy counts, so that no code is re-seeded.
        let _ = codebook.size.fill_(25.0);
        codebook.sum.copy_(&(&codebook.codes * 25.0));
        let (mut size, mut sum) = (to_f32(&codebook.size).unwrap(), to_f32(&codebook.sum).unwrap());
        let z = unit_vectors(100, 8, 4);
        let indices = codebook.nearest(&z).unwrap();
        let found = codebook.update(&z, &indices, &mut Rng::new(0, Purpose::Train, 0)).unwrap();
        let (points, chosen) = (to_f32(&z).unwrap(), Vec::<i64>::try_from(indices.view([-1])).unwrap());
        for value in size.iter_mut().chain(sum.iter_mut()) {
            *value *= 0.9;
        }
        for (point, &k) in points.chunks(8).zip(&chosen) {
            size[k as usize] += 0.1;
            for c in 0..8 {
                sum[8 * k as usize + c] += 0.1 * point[c];
            }
        }
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close(&to_f32(&codebook.size).unwrap(), &size));
        assert!(close(&to_f32(&codebook.sum).unwrap(), &sum));
        let codes = to_f32(&codebook.codes).unwrap();
        for (code, sum) in codes.chunks(8).zip(sum.chunks(8)) {
            let norm: f32 = sum.iter().map(|s| s * s).sum::<f32>().sqrt();
            assert!(close(code, &sum.iter().map(|s| s / norm).collect::<Vec<_>>()));
        }
        let total: f32 = size.iter().sum();
        let entropy: f32 = size.iter().map(|s| -s / total * (s / total).ln()).sum();
        assert!((found.perplexity - f64::from(entropy.exp())).abs() < 1e-3);
        assert_eq!(found.used, 4);
    }

    #[test]
    fn dead_codes_move_to_patches_with_size_and_sum() {
        let mut codebook = codebook(16);
        // Two tight groups of patches, one at a code that is alive and one far from every code.
        let _ = codebook.size.fill_(0.0);
        let _ = codebook.size.get(0).fill_(100.0);
        codebook.sum.get(0).copy_(&(codebook.codes.get(0) * 100.0));
        let far = -codebook.codes.get(0);
        let z = Tensor::cat(&[codebook.codes.get(0).repeat([200, 1]), far.repeat([60, 1])], 0).unsqueeze(0);
        let indices = Tensor::zeros([1, 260], (Kind::Int64, Device::Cpu));
        codebook.update(&z, &indices, &mut Rng::new(0, Purpose::Train, 0)).unwrap();
        // 15 dead codes, a pool of 60: all of them land on the far group.
        for k in 1..16 {
            let similarity = (codebook.codes.get(k) * &far).sum(Kind::Float).double_value(&[]);
            assert!(similarity > 0.9999, "code {k}: {similarity}");
            let size = codebook.size.get(k).double_value(&[]);
            assert!((size - 260.0 / 16.0).abs() < 1e-3, "{size}");
            let sum = codebook.sum.get(k) / size;
            assert!((sum - codebook.codes.get(k)).abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn losses_move_codes_and_patches_with_their_own_weights() {
        let mut config = CaptionerConfig::tiny(10);
        config.codebook.as_mut().unwrap().update = CodebookUpdate::Loss;
        let codebook = Codebook::new(&mut Weights::seeded(5, Device::Cpu), &config).unwrap();
        let z = unit_vectors(20, 8, 2).set_requires_grad(true);
        let indices = codebook.nearest(&z).unwrap();
        let quantised = codebook.quantised(&indices).unwrap();
        codebook.loss(&z, &quantised).unwrap().backward();
        // d mean((z - q)^2) / dz = 2 (z - q) / (20 * 8), times 0.25; for codes summed over their
        // patches, with the other sign and weight 1.
        let difference = (&z - &quantised).detach();
        let patches = &difference * (2.0 * 0.25 / 160.0);
        assert!((z.grad() - patches).abs().max().double_value(&[]) < 1e-7);
        let mut codes = Tensor::zeros([16, 8], (Kind::Float, Device::Cpu));
        let _ = codes.index_add_(0, &indices.view([-1]), &(difference.view([20, 8]) * (-2.0 / 160.0)));
        assert!((codebook.codes.grad() - codes).abs().max().double_value(&[]) < 1e-7);

        // Under moving averages codes have no gradient, and patches the same.
        let averaged = self::codebook(16);
        let z = unit_vectors(20, 8, 2).set_requires_grad(true);
        let quantised = averaged.quantised(&averaged.nearest(&z).unwrap()).unwrap();
        averaged.loss(&z, &quantised).unwrap().backward();
        assert!(!averaged.codes.requires_grad());
        let expected = (&z - &quantised).detach() * (2.0 * 0.25 / 160.0);
        assert!((z.grad() - expected).abs().max().double_value(&[]) < 1e-7);
    }

    #[test]
    fn codes_that_a_loss_moved_stay_where_it_put_them() {
        let mut config = CaptionerConfig::tiny(10);
        config.codebook.as_mut().unwrap().update = CodebookUpdate::Loss;
        let mut codebook = Codebook::new(&mut Weights::seeded(5, Device::Cpu), &config).unwrap();
        let start = unit_vectors(16, 8, 7).view([16, 8]);
        codebook.start_from(&start, 10.0).unwrap();
        let z = unit_vectors(160, 8, 4);
        let indices = codebook.nearest(&z).unwrap();
        let found = codebook.update(&z, &indices, &mut Rng::new(0, Purpose::Train, 0)).unwrap();
        assert!((codebook.codes.detach() - &start).abs().max().double_value(&[]) < 1e-6);
        assert_eq!((found.used, found.reseeded), (16, vec![]));
        assert!((codebook.size.sum(Kind::Float).double_value(&[]) - 160.0).abs() < 1e-3, "statistics go on");
    }

    #[test]
    fn new_codebook_is_seeded_by_its_first_batch() {
        let mut codebook = codebook(16);
        let z = unit_vectors(64, 8, 9);
        let indices = codebook.nearest(&z).unwrap();
        codebook.update(&z, &indices, &mut Rng::new(0, Purpose::Train, 0)).unwrap();
        let after = to_f32(&codebook.size).unwrap();
        assert!(after.iter().all(|&s| s > 0.0), "{after:?}");
    }
}
