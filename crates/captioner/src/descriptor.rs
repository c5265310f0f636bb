//! What an image looks like and where: the descriptor that image embeddings are made of.
//!
//! Two parts: the patches before quantisation, averaged over a grid of 3 x 3, and the picture itself as a
//! thumbnail of 12 x 12. The patches know what is there, the thumbnail tells two pictures of the same things apart; a
//! mean over all patches does neither well. What the parts are worth is learned from a corpus
//! ([`Discriminant`]), when a captioner is fitted.

use ndarray::{Array2, ArrayView4};
use tch::{Device, Kind, Tensor};

use crate::copies::near_duplicates;
use crate::device::Inference;
use crate::error::{Error, Result};
use crate::model::Captioner;
use crate::projections::PATCH_DIM;
use crate::weights::to_f32;
use tldr_loader::cluster::Discriminant;
use tldr_loader::sample::SampleId;

/// Side of the grid that patches are averaged over.
const GRID: usize = 3;
/// Side of the thumbnail.
const THUMBNAIL: usize = 12;
/// Directions that are kept at most, and at least.
const DIRECTIONS: std::ops::RangeInclusive<usize> = 8..=64;
/// Variance of images over that of near-duplicates from which a direction is kept.
const TELLING: f64 = 10.0;
/// Share of its own that is added to the variance of copies in each feature, and how much more for each feature
/// over the number of pairs: a covariance of few pairs is singular.
const RIDGE: f64 = 0.05;
const RIDGE_OF_FEW: f64 = 0.1;
/// Share of the variance of images that copies have at least, in each feature.
const LEAST: f64 = 1e-4;
/// Images that a discriminant is learned from at least.
const LEAST_IMAGES: i64 = 32;

/// Descriptors of images and of near-duplicates of them: what a [`Discriminant`] is learned from.
#[derive(Debug)]
pub struct CopySample {
    seed: u64,
    /// `[rows, features]` each.
    images: Vec<Tensor>,
    copies: Vec<Tensor>,
}

impl CopySample {
    /// An empty sample.
    pub fn new(seed: u64) -> Self {
        Self { seed, images: vec![], copies: vec![] }
    }

    /// The discriminant of what was sampled, on the CPU in f64; `None` where that is fewer than 32 images, or all
    /// of them look the same. O(images * features² + features³).
    ///
    /// # Errors
    /// A failure of libtorch.
    pub fn discriminant(&self) -> Result<Option<Discriminant>> {
        let whole = |parts: &[Tensor]| Ok::<_, Error>(Tensor::f_cat(parts, 0)?.f_to_kind(Kind::Double)?);
        if self.images.iter().map(|part| part.size()[0]).sum::<i64>() < LEAST_IMAGES {
            return Ok(None);
        }
        let (images, copies) = (whole(&self.images)?, whole(&self.copies)?);
        let (pairs, features) = images.size2()?;
        let mean = images.f_mean_dim([0i64].as_slice(), true, Kind::Double)?;
        let centred = images.f_sub(&mean)?;
        let between = centred.f_tr()?.f_mm(&centred)?.f_div_scalar(pairs as f64)?;
        let difference = images.f_sub(&copies)?;
        let within = difference.f_tr()?.f_mm(&difference)?.f_div_scalar(2.0 * pairs as f64)?;
        // In units of the spread of copies, in which a ridge means the same for every feature.
        let spread = within.f_diagonal(0, 0, 1)?.f_add(&between.f_diagonal(0, 0, 1)?.f_mul_scalar(LEAST)?)?;
        let spread = spread.f_clamp_min(1e-12)?.f_sqrt()?;
        let units = spread.f_unsqueeze(1)?.f_mul(&spread.f_unsqueeze(0)?)?;
        let ridge = RIDGE + RIDGE_OF_FEW * features as f64 / pairs as f64;
        let ridge = Tensor::f_eye(features, (Kind::Double, Device::Cpu))?.f_mul_scalar(ridge)?;
        let (variances, directions) = within.f_div(&units)?.f_add(&ridge)?.f_linalg_eigh("L")?;
        let equal = directions.f_div(&variances.f_clamp_min(1e-12)?.f_sqrt()?)?;
        let seen = equal.f_tr()?.f_mm(&between.f_div(&units)?)?.f_mm(&equal)?;
        // In rising order.
        let (ratios, directions) = seen.f_linalg_eigh("L")?;
        let ratios: Vec<f64> = Vec::try_from(&ratios.f_contiguous()?)?;
        if ratios.last().is_none_or(|most| !(most.is_finite() && *most > 0.0)) {
            return Ok(None);
        }
        let telling = ratios.iter().filter(|ratio| **ratio >= TELLING).count();
        let dim = telling.clamp(*DIRECTIONS.start(), *DIRECTIONS.end()).min(features as usize);
        let kept = directions.f_narrow(1, features - dim as i64, dim as i64)?.f_flip([1i64])?;
        let weights = equal.f_mm(&kept)?.f_div(&spread.f_unsqueeze(1)?)?;
        let values = to_f32(&weights.f_to_kind(Kind::Float)?.f_contiguous()?)?;
        let weights = Array2::from_shape_vec((features as usize, dim), values).map_err(|e| {
            Error::format("discriminant", format!("{features} features, {dim} directions"), e)
        })?;
        Ok(Some(Discriminant { mean: to_f32(&mean.f_to_kind(Kind::Float)?)?, weights }))
    }
}

impl Captioner {
    /// Length of a descriptor.
    pub(super) fn descriptor_len(&self) -> usize {
        let cells = GRID.min(self.config.patch_rows()).pow(2);
        cells * self.config.embedding_dim().min(PATCH_DIM) + 3 * THUMBNAIL * THUMBNAIL
    }

    /// Descriptors `[batch, features]`, f32, of previews `[batch, 3, size, size]`, u8, with patches `z`
    /// `[batch, patches, code_dim]`.
    pub(super) fn descriptor(&self, previews: &Tensor, z: &Tensor) -> Result<Tensor> {
        let (batch, _, dim) = z.size3()?;
        let rows = self.config.patch_rows() as i64;
        let cells = (GRID as i64).min(rows);
        let patches = match self.projections.patch_directions() {
            Some(directions) => z.f_matmul(directions)?,
            None => z.shallow_clone(),
        };
        let dim = dim.min(PATCH_DIM as i64);
        let grid = patches.f_transpose(1, 2)?.f_contiguous()?.f_view([batch, dim, rows, rows])?;
        let grid = grid.f_adaptive_avg_pool2d([cells, cells])?.f_view([batch, -1])?;
        let side = THUMBNAIL as i64;
        let pixels = previews.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        let thumbnail = pixels.f_adaptive_avg_pool2d([side, side])?.f_view([batch, -1])?;
        Ok(Tensor::f_cat(&[grid, thumbnail], 1)?)
    }

    /// Adds the descriptors of `previews` `[batch_size, 3, preview_size, preview_size]`, and those of near-duplicates
    /// of them, to `sample`. Rows from the end of `ids` on are blank. Two passes of the image encoder.
    ///
    /// # Errors
    /// Arrays of another shape; a captioner without a codebook; a failure of the device.
    pub fn sample_copies(
        &mut self,
        previews: ArrayView4<'_, u8>,
        ids: &[SampleId],
        sample: &mut CopySample,
    ) -> Result<()> {
        let _inference = Inference::on(self.device);
        self.prepare()?;
        let batch = self.config.batch_size;
        if ids.len() > batch {
            return Err(Error::format("ids", format!("{batch} at most, one for each row"), ids.len()));
        }
        self.check_previews(&previews, batch)?;
        let copies = near_duplicates(previews, ids, sample.seed);
        for (previews, to) in [(previews, &mut sample.images), (copies.view(), &mut sample.copies)] {
            let previews = self.previews(previews, batch)?;
            let z = self.coded(&self.vision_in_use().forward(&previews)?)?.z;
            let rows = self.descriptor(&previews, &z)?.f_narrow(0, 0, ids.len() as i64)?;
            to.push(rows.f_to_device(Device::Cpu)?);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tldr_loader::hash::{Purpose, Rng};

    use super::*;

    const FEATURES: usize = 24;

    /// Images that differ in a few mixed directions, with copies that differ in other, wider ones.
    fn sample(images: usize) -> (CopySample, Array2<f64>, Array2<f64>) {
        let mut rng = Rng::new(4, Purpose::Synth, 1);
        let mut normal =
            |rows: usize, columns: usize| Array2::from_shape_fn((rows, columns), |_| rng.normal());
        let (telling, noise) = (normal(6, FEATURES), normal(8, FEATURES) * 3.0);
        let content = normal(images, 6).dot(&telling);
        let mut view =
            || content.clone() + normal(images, 8).dot(&noise) + normal(images, FEATURES) * 0.05 + 7.0;
        let (first, second) = (view(), view());
        let tensor = |rows: &Array2<f64>| {
            let values: Vec<f32> = rows.iter().map(|&v| v as f32).collect();
            Tensor::from_slice(&values).view([images as i64, FEATURES as i64])
        };
        let half = images as i64 / 2;
        let parts = |all: Tensor| vec![all.narrow(0, 0, half), all.narrow(0, half, images as i64 - half)];
        let sample = CopySample { seed: 0, images: parts(tensor(&first)), copies: parts(tensor(&second)) };
        (sample, first, second)
    }

    fn cosine(a: &[f64], b: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn copies_come_together_and_other_images_apart() {
        let (sample, first, second) = sample(600);
        let found = sample.discriminant().unwrap().unwrap();
        let (mean, weights) = (found.mean.clone(), found.weights.mapv(f64::from));
        let embed = |rows: &Array2<f64>| {
            let mean = ndarray::Array1::from_iter(mean.iter().map(|&m| f64::from(m)));
            (rows - &mean).dot(&weights)
        };
        let centred = |rows: &Array2<f64>| rows - &rows.mean_axis(ndarray::Axis(0)).unwrap();
        // How often an image is nearer to its copy than to the next image.
        let right = |a: &Array2<f64>, b: &Array2<f64>| {
            let row = |of: &Array2<f64>, i: usize| of.row(i).to_vec();
            let count = (0..600)
                .filter(|&i| cosine(&row(a, i), &row(b, i)) > cosine(&row(a, i), &row(b, (i + 1) % 600)))
                .count();
            count as f64 / 600.0
        };
        let (before, after) =
            (right(&centred(&first), &centred(&second)), right(&embed(&first), &embed(&second)));
        assert!(before < 0.9 && after > 0.97, "{before} as they are, {after} by the discriminant");
    }

    #[test]
    fn directions_solve_their_equation_in_falling_order() {
        let (sample, first, second) = sample(600);
        let found = sample.discriminant().unwrap().unwrap();
        assert_eq!(found.mean.len(), FEATURES);
        let centred = &first - &first.mean_axis(ndarray::Axis(0)).unwrap();
        let between = centred.t().dot(&centred) / 600.0;
        let difference = &first - &second;
        let mut within = difference.t().dot(&difference) / 1200.0;
        let ridge = RIDGE + RIDGE_OF_FEW * FEATURES as f64 / 600.0;
        for i in 0..FEATURES {
            within[[i, i]] += ridge * (within[[i, i]] + LEAST * between[[i, i]]);
        }
        let weights = found.weights.mapv(f64::from);
        let mut before = f64::INFINITY;
        for w in weights.columns() {
            // between w = ratio within w, with w within w = 1.
            let (b, c) = (between.dot(&w), within.dot(&w));
            let ratio = w.dot(&b) / w.dot(&c);
            let off = (&b - &(&c * ratio)).iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!(off < 1e-3 * b.iter().map(|v| v * v).sum::<f64>().sqrt(), "{off}");
            assert!((w.dot(&c) - 1.0).abs() < 1e-3, "{}", w.dot(&c));
            assert!(ratio <= before * (1.0 + 1e-6), "{ratio} after {before}");
            before = ratio;
        }
    }

    #[test]
    fn too_few_images_and_images_that_are_all_alike_teach_nothing() {
        assert!(CopySample::new(0).discriminant().unwrap().is_none());
        assert!(sample(30).0.discriminant().unwrap().is_none());
        assert!(sample(34).0.discriminant().unwrap().is_some());
        let same = || vec![Tensor::ones([40, 5], (Kind::Float, Device::Cpu))];
        let alike = CopySample { seed: 0, images: same(), copies: same() };
        assert!(alike.discriminant().unwrap().is_none());
    }
}
