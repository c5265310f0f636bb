//! The public code's features, as an ablation: the vector of an image's code indices, as if close
//! indices meant similar codes, PCA-reduced to 256 dimensions, whitened and L2-normalised
//! (`fast_cluster.py` of showlab/datacentric.vlp).
//!
//! Indices have no metric, so this finds little; [`signature`](crate::cluster::signature) is what the
//! project clusters by.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

/// Dimensions that the public code keeps.
const DIMENSIONS: usize = 256;

/// Sweeps of Jacobi's method at most; it converges in fewer than ten.
const SWEEPS: usize = 30;

/// Share of the largest variance below which a direction is noise: whitening would blow it up.
const NOISE: f64 = 1e-9;

/// A linear map that makes indices uncorrelated and of equal variance.
#[derive(Debug, Clone, PartialEq)]
pub struct Whitening {
    /// Mean index of each patch, `[patches]`.
    pub mean: Array1<f64>,
    /// Principal directions divided by their standard deviations, the widest first,
    /// `[dimensions, patches]`.
    pub directions: Array2<f64>,
}

impl Whitening {
    /// Of `codes` `[points, patches]`. O(points * patches² + patches³).
    pub fn fit(codes: ArrayView2<'_, u32>) -> Self {
        let (points, patches) = codes.dim();
        let values = codes.mapv(f64::from);
        let mean = values.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(patches));
        let centred = values - &mean;
        let covariance = centred.t().dot(&centred) / points.max(1) as f64;
        let (variances, directions) = eigen(covariance);
        let widest = variances.first().copied().unwrap_or(0.0);
        let kept = variances
            .iter()
            .take(DIMENSIONS)
            .take_while(|&&variance| variance > NOISE * widest && variance > 0.0)
            .count();
        let mut directions = directions.slice(s![..kept, ..]).to_owned();
        for (mut row, variance) in directions.outer_iter_mut().zip(&variances) {
            row /= variance.sqrt();
        }
        Self { mean, directions }
    }

    /// Whitened vectors of `codes` `[points, patches]`: `[points, dimensions]`, not normalised.
    pub fn apply(&self, codes: ArrayView2<'_, u32>) -> Array2<f32> {
        let centred = codes.mapv(f64::from) - &self.mean;
        centred.dot(&self.directions.t()).mapv(|v| v as f32)
    }
}

/// Clusters in the space of whitened indices. The nearest centroid of an image is the cluster with the
/// highest score `weights · indices + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct RawIndex {
    /// `[clusters, patches]`.
    pub weights: Array2<f32>,
    /// `[clusters]`.
    pub bias: Vec<f32>,
}

impl RawIndex {
    /// Of centroids of unit length in the space of `whitening`, `[clusters, dimensions]`: what is
    /// largest for the whitened indices before they are normalised is so afterwards.
    pub fn new(whitening: &Whitening, centroids: ArrayView2<'_, f32>) -> Self {
        let weights = centroids.mapv(f64::from).dot(&whitening.directions);
        let bias = weights.dot(&whitening.mean).mapv(|v| -v as f32).to_vec();
        Self { weights: weights.mapv(|v| v as f32), bias }
    }

    /// Cluster of each image, for `codes` `[points, patches]`; the lowest index wins ties.
    pub fn nearest(&self, codes: ArrayView2<'_, u32>) -> Vec<u32> {
        let scores = codes.mapv(|c| c as f32).dot(&self.weights.t());
        let best = |row: ndarray::ArrayView1<'_, f32>| {
            let mut best = (0, f32::NEG_INFINITY);
            for (cluster, (&score, &bias)) in row.iter().zip(&self.bias).enumerate() {
                if score + bias > best.1 {
                    best = (cluster as u32, score + bias);
                }
            }
            best.0
        };
        scores.outer_iter().map(best).collect()
    }
}

/// Eigenvalues of a symmetric matrix, falling, and their unit eigenvectors in rows (Jacobi's method).
fn eigen(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let mut vectors = Array2::<f64>::eye(n);
    let scale: f64 = a.iter().map(|v| v * v).sum::<f64>();
    for _ in 0..SWEEPS {
        let off: f64 = a.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, v)| v * v).sum();
        if off <= 1e-22 * scale {
            break;
        }
        for (p, q) in (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q))) {
            if a[[p, q]] == 0.0 {
                continue;
            }
            // The rotation that makes this element zero.
            let theta = (a[[q, q]] - a[[p, p]]) / (2.0 * a[[p, q]]);
            let t = 1.0 / (theta.abs() + theta.hypot(1.0));
            let t = if theta < 0.0 { -t } else { t };
            let c = 1.0 / t.hypot(1.0);
            let s = t * c;
            for k in 0..n {
                let (x, y) = (a[[k, p]], a[[k, q]]);
                (a[[k, p]], a[[k, q]]) = (c * x - s * y, s * x + c * y);
            }
            for k in 0..n {
                let (x, y) = (a[[p, k]], a[[q, k]]);
                (a[[p, k]], a[[q, k]]) = (c * x - s * y, s * x + c * y);
                let (x, y) = (vectors[[p, k]], vectors[[q, k]]);
                (vectors[[p, k]], vectors[[q, k]]) = (c * x - s * y, s * x + c * y);
            }
        }
    }
    let values = a.diag().to_vec();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    (order.iter().map(|&i| values[i]).collect(), vectors.select(Axis(0), &order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Purpose, Rng};

    #[test]
    fn eigenvectors_are_those_of_the_matrix() {
        let mut rng = Rng::new(2, Purpose::Fit, 0);
        let half = Array2::from_shape_fn((40, 12), |_| rng.normal());
        let matrix = half.t().dot(&half);
        let (values, vectors) = eigen(matrix.clone());
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        for (value, vector) in values.iter().zip(vectors.outer_iter()) {
            let error = &matrix.dot(&vector) - &(&vector * *value);
            assert!(error.iter().all(|e| e.abs() < 1e-9 * values[0]));
            assert!((vector.dot(&vector) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn whitened_indices_are_uncorrelated_with_unit_variance() {
        let mut rng = Rng::new(3, Purpose::Fit, 0);
        // Two patches that say nearly the same, one that says nothing, one of its own.
        let mut codes = Array2::zeros((500, 4));
        for mut row in codes.outer_iter_mut() {
            let common = rng.below(200) as u32;
            row.assign(&ndarray::arr1(&[common, common + rng.below(3) as u32, 7, rng.below(90) as u32]));
        }
        let whitening = Whitening::fit(codes.view());
        assert_eq!(whitening.directions.dim(), (3, 4), "a constant patch has no direction");
        let points = whitening.apply(codes.view()).mapv(f64::from);
        let covariance = points.t().dot(&points) / 500.0;
        for ((i, j), value) in covariance.indexed_iter() {
            assert!((value - f64::from(u8::from(i == j))).abs() < 1e-4, "{i} {j} {value}");
        }
    }

    #[test]
    fn scores_of_indices_find_the_nearest_whitened_centroid() {
        use crate::cluster::{kmeans::kmeans, signature::Signatures};
        let mut rng = Rng::new(4, Purpose::Fit, 0);
        let codes = Array2::from_shape_fn((300, 9), |_| rng.below(256) as u32);
        let whitening = Whitening::fit(codes.view());
        let points = Signatures::from_dense(whitening.apply(codes.view()).view());
        let Ok(found) = kmeans(&points, 7, 20, 0) else { panic!("k-means failed") };
        let scores = RawIndex::new(&whitening, found.centroids.view());
        let nearest = scores.nearest(codes.view());
        let same = nearest.iter().zip(&found.assignment).filter(|(a, b)| a == b).count();
        // All but ties that rounding decides.
        assert!(same >= 299, "{same}");
    }

    #[test]
    fn nothing_to_whiten_is_no_panic() {
        assert_eq!(Whitening::fit(Array2::zeros((0, 3)).view()).directions.nrows(), 0);
        assert_eq!(Whitening::fit(Array2::from_elem((9, 3), 5).view()).directions.nrows(), 0);
        assert_eq!(Whitening::fit(Array2::zeros((5, 0)).view()).directions.dim(), (0, 0));
    }
}
