//! Learns a codebook for a model that was trained without one, from the patches of a sample of a
//! corpus: k-means (Lloyd 1982) with k-means++ seeding (Arthur and Vassilvitskii 2007).

use ndarray::ArrayView4;
use tch::{Device, Kind, Tensor};

use crate::config::{CodebookConfig, DecodeFrom, LearnedBy};
use crate::device::Inference;
use crate::error::{Error, Result};
use crate::fitted::{FittedCodebook, half_norms, nearest};
use crate::model::{Captioner, Codes};
use crate::weights::{Weights, to_f32};
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::sample::SampleId;

/// Rounds of k-means at most, and the relative gain below which it ends: the error falls by less than
/// a hundredth after the first ten.
const ITERATIONS: usize = 20;
const GAIN: f64 = 1e-3;

/// Patches per code that seeding looks at, at most.
const SEEDING_PATCHES: usize = 16;

/// Patches that are compared with all codes at once: bounds the memory for their distances.
const CHUNK: i64 = 4096;

/// One image in this many is held out of learning, and the error is measured on those.
const HELD_OUT: u64 = 8;

/// Patches of a sample of images, on the host, and the mean image.
#[derive(Debug)]
pub struct PatchSample {
    /// Patches drawn from each image.
    per_image: usize,
    seed: u64,
    images: u64,
    /// `[patches, dim]` each.
    learned: Vec<Tensor>,
    held_out: Vec<Tensor>,
    /// Sum over images of their visual tokens, `[1 + patches, dim]`, f64.
    sum: Option<Tensor>,
}

impl PatchSample {
    /// An empty sample that will take `per_image` patches of each image; `seed` says which.
    pub fn new(per_image: usize, seed: u64) -> Self {
        Self { per_image, seed, images: 0, learned: vec![], held_out: vec![], sum: None }
    }

    /// Images seen.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Patches to learn from; those that measure the error are not among them.
    pub fn patches(&self) -> usize {
        self.learned.iter().map(|t| t.size()[0] as usize).sum()
    }

    /// These patches, `[patches, dim]`, on the host; one at least.
    pub(super) fn all(&self) -> Result<Tensor> {
        Ok(Tensor::f_cat(&self.learned, 0)?)
    }
}

/// How well a learned codebook stands for the patches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodebookReport {
    /// Number of codes.
    pub codes: usize,
    /// Patches it was learned from.
    pub patches: usize,
    /// Mean squared distance of a patch and its code over that of a patch and the mean patch, measured
    /// on images that were held out: 0 is perfect, 1 as good as a single code.
    pub error: f64,
}

impl Captioner {
    /// Adds patches of `previews` `[batch_size, 3, preview_size, preview_size]` to `sample`; `ids` are
    /// the samples of the first rows, the others are ignored.
    ///
    /// # Errors
    /// Arrays of another shape; a failure of the device.
    pub fn sample_patches(
        &self,
        previews: ArrayView4<'_, u8>,
        ids: &[SampleId],
        sample: &mut PatchSample,
    ) -> Result<()> {
        let _inference = Inference::on(self.device);
        let batch = self.config.batch_size;
        if ids.len() > batch {
            return Err(Error::format("ids", format!("{batch} at most, one for each row"), ids.len()));
        }
        let tokens = self.vision.forward(&self.previews(previews, batch)?)?;
        let (patches, used) = (self.config.patches(), ids.len() as i64);
        let sum = tokens.f_narrow(0, 0, used)?.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
        sample.sum = Some(match sample.sum.take() {
            None => sum,
            Some(before) => before.f_add(&sum)?,
        });
        for (row, id) in ids.iter().enumerate() {
            let mut places: Vec<usize> = (0..patches).collect();
            Rng::new(sample.seed, Purpose::Fit, hash::combine(&[id.0, PATCHES])).shuffle(&mut places);
            let places: Vec<i64> = places.iter().take(sample.per_image).map(|&p| p as i64 + 1).collect();
            let places = Tensor::f_from_slice(&places)?.f_to_device(self.device)?;
            let drawn =
                tokens.f_select(0, row as i64)?.f_index_select(0, &places)?.f_to_device(Device::Cpu)?;
            let held_out = sample.images % HELD_OUT == HELD_OUT - 1;
            if held_out { &mut sample.held_out } else { &mut sample.learned }.push(drawn);
            sample.images += 1;
        }
        Ok(())
    }

    /// Learns `codes` codes from a sample, puts them in place of a codebook that it has, and takes the
    /// mean image as what the decoder sees where there is none. Clusters are dropped: they belong to
    /// other codes.
    ///
    /// O(20 * patches * codes * dim), on the captioner's device.
    ///
    /// # Errors
    /// Fewer patches than codes; a captioner whose codebook was trained with it.
    pub fn learn_codebook(
        &mut self,
        sample: &PatchSample,
        codes: usize,
        seed: u64,
    ) -> Result<CodebookReport> {
        if matches!(self.codes, Codes::Trained(_)) {
            return Err(Error::captioner(
                "this codebook was trained with its model: the decoder knows no other",
            ));
        }
        let _guard = tch::no_grad_guard();
        let found = sample.patches();
        let Some(sum) = sample.sum.as_ref().filter(|_| codes >= 2 && codes <= found) else {
            let accepted = format!("2 to the number of sampled patches, {found}");
            return Err(Error::option("codes", codes, accepted));
        };
        let points = Tensor::f_cat(&sample.learned, 0)?.f_to_device(self.device)?;
        let mean = points.f_mean_dim([0i64].as_slice(), false, Kind::Float)?;
        let centroids = kmeans(&points, codes, seed)?;
        let measured = match sample.held_out.is_empty() {
            true => points,
            false => Tensor::f_cat(&sample.held_out, 0)?.f_to_device(self.device)?,
        };
        let error = squared_error(&measured, &centroids)?;
        let spread = measured.f_sub(&mean)?.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let null_image = sum.f_div_scalar(sample.images as f64)?.f_to_kind(Kind::Float)?.f_unsqueeze(0)?;

        self.set_clusters(None)?;
        let mut config = self.config.clone();
        config.codebook = Some(CodebookConfig {
            learned_by: LearnedBy::Fit,
            ..CodebookConfig::new(codes, config.vision.dim, 0.99)
        });
        let tensors = [
            ("codebook.codes".to_owned(), centroids),
            ("codebook.mean".to_owned(), mean),
            ("null_image".to_owned(), null_image.f_contiguous()?),
        ];
        self.null_image = Some(tensors[2].1.shallow_clone());
        self.tensors.extend(tensors);
        let mut weights = Weights::shared(&self.tensors, self.device);
        self.codes = Codes::Fitted(FittedCodebook::new(&mut weights, &config)?);
        self.config = config;
        self.weights_hash.take();
        Ok(CodebookReport { codes, patches: found, error: error / spread.max(f64::MIN_POSITIVE) })
    }

    /// Lets the decoder attend to raw or to quantised patches from now on. Clusters are dropped where
    /// that is a change: alignments were measured the other way.
    ///
    /// # Errors
    /// A way that this captioner was not trained for, or that needs a codebook it lacks.
    pub fn set_decode_from(&mut self, decode_from: DecodeFrom) -> Result<()> {
        if decode_from == self.config.decode_from {
            return Ok(());
        }
        let mut config = self.config.clone();
        config.decode_from = decode_from;
        config.validate()?;
        self.config = config;
        self.set_clusters(None)
    }
}

/// Keeps the stream of drawn patches apart from that of sampled points.
const PATCHES: u64 = 0x9A7C;

/// `codes` centroids of `points` `[points, dim]`, `[codes, dim]`. A function of the points, their order
/// and the seed, up to the rounding of the device.
pub(super) fn kmeans(points: &Tensor, codes: usize, seed: u64) -> Result<Tensor> {
    let mut rng = Rng::new(seed, Purpose::KMeans, codes as u64);
    let mut centroids = seeds(points, codes, &mut rng)?;
    let (count, dim) = points.size2()?;
    let long = (Kind::Int64, points.device());
    let mut before = f64::INFINITY;
    for _ in 0..ITERATIONS {
        let norms = half_norms(&centroids)?;
        let mut sums = Tensor::f_zeros([codes as i64, dim], (Kind::Float, points.device()))?;
        let mut sizes = Tensor::f_zeros([codes as i64], long)?;
        let mut distances = Vec::new();
        for start in (0..count).step_by(CHUNK as usize) {
            let chunk = points.f_narrow(0, start, CHUNK.min(count - start))?;
            let chosen = nearest(&chunk, &centroids, &norms)?;
            distances.push(row_distances(&chunk, &centroids.f_index_select(0, &chosen)?)?);
            let _ = sums.f_index_add_(0, &chosen, &chunk)?;
            sizes = sizes.f_add(&chosen.f_bincount(None::<&Tensor>, codes as i64)?)?;
        }
        let distances = to_f32(&Tensor::f_cat(&distances, 0)?)?;
        let total: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        centroids = sums.f_div(&sizes.f_clamp_min(1)?.f_unsqueeze(1)?)?;
        // A code that lost its patches takes over one that is far from its own.
        let empty: Vec<i64> =
            to_f32(&sizes)?.iter().zip(0..).filter(|(size, _)| **size == 0.0).map(|(_, code)| code).collect();
        if !empty.is_empty() {
            let mut worst: Vec<i64> = (0..count).collect();
            worst.sort_by(|&a, &b| distances[b as usize].total_cmp(&distances[a as usize]).then(a.cmp(&b)));
            let far = Tensor::f_from_slice(&worst[..empty.len()])?.f_to_device(points.device())?;
            let empty = Tensor::f_from_slice(&empty)?.f_to_device(points.device())?;
            let _ = centroids.f_index_copy_(0, &empty, &points.f_index_select(0, &far)?)?;
        } else if total >= before * (1.0 - GAIN) {
            break;
        }
        before = total;
    }
    Ok(centroids)
}

/// First centroids: points drawn one after the other, each with a probability in proportion to its
/// squared distance from those before.
fn seeds(points: &Tensor, codes: usize, rng: &mut Rng) -> Result<Tensor> {
    let count = points.size2()?.0 as usize;
    let mut order: Vec<usize> = (0..count).collect();
    rng.shuffle(&mut order);
    order.truncate(SEEDING_PATCHES * codes);
    let order: Vec<i64> = order.into_iter().map(|p| p as i64).collect();
    let pool = points.f_index_select(0, &Tensor::f_from_slice(&order)?.f_to_device(points.device())?)?;
    let mut chosen = vec![0i64];
    let mut distances = row_distances(&pool, &pool.f_narrow(0, 0, 1)?)?;
    while chosen.len() < codes {
        let weights = to_f32(&distances)?;
        let total: f64 = weights.iter().map(|&d| f64::from(d)).sum();
        let mut left = rng.unit() * total;
        let place = weights.iter().position(|&d| {
            left -= f64::from(d);
            left < 0.0
        });
        // Rounding may leave nothing, and so do points that are all chosen already.
        let place = place.unwrap_or_else(|| rng.below(weights.len())) as i64;
        chosen.push(place);
        distances = distances.f_minimum(&row_distances(&pool, &pool.f_narrow(0, place, 1)?)?)?;
    }
    Ok(pool.f_index_select(0, &Tensor::f_from_slice(&chosen)?.f_to_device(points.device())?)?)
}

/// Squared distance of each row of `a` and its row, or the only row, of `b`: `[rows]`.
fn row_distances(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.f_sub(b)?.f_square()?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?)
}

/// Sum over points of the squared distance to the nearest centroid.
fn squared_error(points: &Tensor, centroids: &Tensor) -> Result<f64> {
    let (count, norms) = (points.size2()?.0, half_norms(centroids)?);
    let mut sum = 0.0;
    for start in (0..count).step_by(CHUNK as usize) {
        let chunk = points.f_narrow(0, start, CHUNK.min(count - start))?;
        let chosen = centroids.f_index_select(0, &nearest(&chunk, centroids, &norms)?)?;
        sum += row_distances(&chunk, &chosen)?.f_sum(Kind::Double)?.f_double_value(&[])?;
    }
    Ok(sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `count` points around each of `centres` `[k, 4]`.
    fn blobs(centres: &[[f32; 4]], count: usize, spread: f64) -> Tensor {
        let mut rng = Rng::new(3, Purpose::Fit, 0);
        let values: Vec<f32> = (0..count * centres.len())
            .flat_map(|i| centres[i % centres.len()])
            .map(|v| v + (spread * rng.normal()) as f32)
            .collect();
        Tensor::from_slice(&values).view([-1, 4])
    }

    #[test]
    fn tight_groups_get_a_code_each() {
        let centres: Vec<[f32; 4]> =
            (0..12).map(|i| [10.0 * (i % 4) as f32, 7.0 * (i / 4) as f32, 1.0, -3.0]).collect();
        for seed in 0..5 {
            let found = kmeans(&blobs(&centres, 30, 0.1), 12, seed).unwrap();
            for centre in &centres {
                let distance = row_distances(&found, &Tensor::from_slice(centre).unsqueeze(0)).unwrap();
                assert!(distance.min().double_value(&[]) < 0.05, "seed {seed}: no code at {centre:?}");
            }
        }
    }

    #[test]
    fn more_codes_leave_less_error_and_one_for_each_point_none() {
        let points = blobs(&[[0.0; 4]], 200, 1.0);
        let errors: Vec<f64> = [2, 8, 32, 200]
            .iter()
            .map(|&codes| squared_error(&points, &kmeans(&points, codes, 1).unwrap()).unwrap())
            .collect();
        assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
        assert!(errors[3] < 1e-3, "{errors:?}");
    }

    #[test]
    fn copies_of_one_point_are_no_obstacle() {
        let found = kmeans(&Tensor::ones([50, 4], (Kind::Float, Device::Cpu)), 3, 0).unwrap();
        assert_eq!(to_f32(&found).unwrap(), [1.0; 12]);
    }
}
