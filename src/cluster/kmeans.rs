//! Spherical k-means (Dhillon and Modha 2001) with k-means++ seeding (Arthur and Vassilvitskii
//! 2007): clusters of directions, compared by cosine. Large samples are worked on in mini-batches
//! first (Sculley 2010), so that few rounds over all points are left.
//!
//! Points are sparse and centroids dense, stored code by code, so that a point costs as much as it
//! has codes. The result depends on the points and the seed only, not on the number of threads:
//! each point is scored by itself and sums are taken in the order of the points.

use ndarray::Array2;
use rayon::prelude::*;

use crate::cluster::signature::{Signatures, normalise};
use crate::error::{Error, Result};
use crate::hash::{Purpose, Rng};

/// Points per cluster that seeding looks at, at most. Enough to find the dense regions; the
/// iterations that follow see all points.
const SEEDING_POINTS: usize = 16;

/// Points that one task scores.
const CHUNK: usize = 256;

/// The iterations end when the mean similarity gains less than this.
const GAIN: f64 = 1e-6;

/// Points from which mini-batches come first: a round over fewer takes a second or so.
const LARGE: usize = 100_000;

/// Mini-batches of a large sample, points of each per cluster, and points of each at least.
const MINI_BATCHES: usize = 100;
const MINI_BATCH_PER_CLUSTER: usize = 4;
const MINI_BATCH: usize = 8192;

/// Rounds over all points that follow mini-batches: shares and quantiles are measured on clusters
/// whose points have settled.
const ROUNDS_AFTER: usize = 5;

/// Result of [`kmeans`].
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    /// Centroids of unit length, `[clusters, width]`.
    pub centroids: Array2<f32>,
    /// Nearest centroid of each point, `[points]`; the lowest index wins ties.
    pub assignment: Vec<u32>,
    /// Cosine of each point and its centroid, `[points]`.
    pub similarity: Vec<f32>,
    /// Iterations done.
    pub iterations: usize,
}

/// Nearest centroid of each point, and their cosine.
pub type Assigned = (Vec<u32>, Vec<f32>);

/// Finds the nearest of the centroids `[width, clusters]` for each point, on a device say; `None` leaves it to this module.
pub type Nearest<'a> = dyn FnMut(&Signatures, &Array2<f32>) -> Result<Option<Assigned>> + 'a;

/// Clusters `points` into `clusters`, in at most `iterations` rounds.
///
/// A cluster that loses all its points takes over the worst point of the cluster with the largest
/// distortion. Of 100,000 points and more, 100 mini-batches of four points a cluster (at least
/// 8,192) come first, and then at most five rounds. O(iterations * non-zero values * clusters), on
/// all cores.
///
/// # Errors
/// No cluster asked for, or more than there are points.
pub fn kmeans(points: &Signatures, clusters: usize, iterations: usize, seed: u64) -> Result<KMeans> {
    kmeans_of(points, clusters, (iterations, seed), LARGE, &mut |_, _| Ok(None))
}

/// As [`kmeans`], where `nearest` finds the centroid of each point.
///
/// # Errors
/// As [`kmeans`], and those of `nearest`.
pub fn kmeans_by(
    points: &Signatures,
    clusters: usize,
    iterations: usize,
    seed: u64,
    nearest: &mut Nearest<'_>,
) -> Result<KMeans> {
    kmeans_of(points, clusters, (iterations, seed), LARGE, nearest)
}

/// As [`kmeans_by`], where samples from `large` points on are large.
fn kmeans_of(
    points: &Signatures,
    clusters: usize,
    (iterations, seed): (usize, u64),
    large: usize,
    nearest: &mut Nearest<'_>,
) -> Result<KMeans> {
    if clusters == 0 || clusters > points.len() {
        let accepted = format!("1 to the number of sampled points, {}", points.len());
        return Err(Error::option("clusters", clusters, accepted));
    }
    let mut centroids = seeds(points, clusters, seed);
    let mut iterations = iterations;
    if points.len() >= large && iterations > ROUNDS_AFTER {
        centroids = mini_batches(points, &centroids, seed, nearest)?;
        iterations = ROUNDS_AFTER;
    }
    let mut before = f64::NEG_INFINITY;
    let mut done = 0;
    while done < iterations {
        let (mut assignment, similarity) = assigned(points, &centroids, nearest)?;
        let mean = similarity.iter().map(|&s| f64::from(s)).sum::<f64>() / points.len() as f64;
        if mean - before < GAIN {
            break;
        }
        before = mean;
        fill_empty(&mut assignment, &similarity, clusters);
        centroids = means(points, &assignment, clusters);
        done += 1;
    }
    let (assignment, similarity) = assigned(points, &centroids, nearest)?;
    Ok(KMeans {
        centroids: centroids.reversed_axes().as_standard_layout().into_owned(),
        assignment,
        similarity,
        iterations: done,
    })
}

/// Moves centroids `[width, clusters]` by random parts of the points: each to the direction of the sum
/// of all points that chose it so far, so that it moves the less the more it has seen.
fn mini_batches(
    points: &Signatures,
    centroids: &Array2<f32>,
    seed: u64,
    nearest: &mut Nearest<'_>,
) -> Result<Array2<f32>> {
    let clusters = centroids.ncols();
    let size = (MINI_BATCH_PER_CLUSTER * clusters).max(MINI_BATCH).min(points.len());
    // `[clusters, width]`, the seed counting as one point.
    let mut sums = centroids.t().as_standard_layout().into_owned();
    let mut centroids = centroids.clone();
    let mut rng = Rng::new(seed, Purpose::KMeans, 1);
    for _ in 0..MINI_BATCHES {
        let rows: Vec<usize> = (0..size).map(|_| rng.below(points.len())).collect();
        let batch = points.select(&rows);
        let (assignment, _) = assigned(&batch, &centroids, nearest)?;
        for (point, &cluster) in assignment.iter().enumerate() {
            let mut sum = sums.row_mut(cluster as usize);
            batch.row(point).for_each(|(column, value)| sum[column] += value);
        }
        let mut moved = sums.clone();
        for mut row in moved.outer_iter_mut() {
            if let Some(row) = row.as_slice_mut() {
                normalise(row);
            }
        }
        centroids = moved.reversed_axes().as_standard_layout().into_owned();
    }
    Ok(centroids)
}

/// As [`assign`], by `nearest` where that can.
fn assigned(points: &Signatures, centroids: &Array2<f32>, nearest: &mut Nearest<'_>) -> Result<Assigned> {
    let Some(found) = nearest(points, centroids)? else { return Ok(assign(points, centroids)) };
    let (clusters, n) = (centroids.ncols(), points.len());
    let is_whole = found.0.len() == n && found.1.len() == n;
    if is_whole
        && found.0.iter().all(|&cluster| (cluster as usize) < clusters)
        && found.1.iter().all(|s| s.is_finite())
    {
        return Ok(found);
    }
    let expected = format!("a number below {clusters} and a cosine for each of {n} points");
    let found = format!("{} numbers and {} cosines, or others", found.0.len(), found.1.len());
    Err(Error::format("nearest centroids that the scorer returned", expected, found))
}

/// Nearest centroid and cosine of each point; `centroids` `[width, clusters]`.
fn assign(points: &Signatures, centroids: &Array2<f32>) -> (Vec<u32>, Vec<f32>) {
    // A plain slice: rows of an array view are not summed with vector instructions.
    let clusters = centroids.ncols();
    let weights: Vec<f32> = centroids.iter().copied().collect();
    let mut nearest = vec![(0u32, 0f32); points.len()];
    nearest.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, nearest)| {
        let mut scores = vec![0f32; clusters];
        for (offset, nearest) in nearest.iter_mut().enumerate() {
            scores.fill(0.0);
            for (column, value) in points.row(chunk * CHUNK + offset) {
                let row = &weights[column * clusters..(column + 1) * clusters];
                scores.iter_mut().zip(row).for_each(|(score, weight)| *score += value * weight);
            }
            *nearest = (0, f32::NEG_INFINITY);
            for (cluster, &score) in scores.iter().enumerate() {
                if score > nearest.1 {
                    *nearest = (cluster as u32, score);
                }
            }
        }
    });
    nearest.into_iter().unzip()
}

/// Gives each empty cluster a point.
fn fill_empty(assignment: &mut [u32], similarity: &[f32], clusters: usize) {
    let mut sizes = vec![0usize; clusters];
    assignment.iter().for_each(|&c| sizes[c as usize] += 1);
    let empty: Vec<usize> = (0..clusters).filter(|&c| sizes[c] == 0).collect();
    if empty.is_empty() {
        return;
    }
    // Members of each cluster, best first, so that the worst is popped.
    let mut members = vec![Vec::new(); clusters];
    let mut distortion = vec![0f64; clusters];
    for (point, &c) in assignment.iter().enumerate() {
        members[c as usize].push(point);
        distortion[c as usize] += 1.0 - f64::from(similarity[point]);
    }
    for members in &mut members {
        members.sort_by(|&a, &b| similarity[b].total_cmp(&similarity[a]));
    }
    for target in empty {
        let mut source = None;
        for c in (0..clusters).filter(|&c| members[c].len() > 1) {
            if source.is_none_or(|s: usize| distortion[c] > distortion[s]) {
                source = Some(c);
            }
        }
        let Some(source) = source else { return };
        if let Some(point) = members[source].pop() {
            assignment[point] = target as u32;
            // A split halves a cluster, roughly: the next empty one shall look elsewhere.
            distortion[source] /= 2.0;
        }
    }
}

/// Normalised mean of each cluster's points, `[width, clusters]`.
pub(super) fn means(points: &Signatures, assignment: &[u32], clusters: usize) -> Array2<f32> {
    let mut sums = Array2::<f32>::zeros((clusters, points.width()));
    for (point, &cluster) in assignment.iter().enumerate() {
        let mut sum = sums.row_mut(cluster as usize);
        points.row(point).for_each(|(column, value)| sum[column] += value);
    }
    for mut sum in sums.outer_iter_mut() {
        match sum.as_slice_mut() {
            Some(sum) if sum.iter().any(|&v| v != 0.0) => normalise(sum),
            // Points without any code have no direction; any unit vector will do.
            _ => sum[0] = 1.0,
        }
    }
    sums.reversed_axes().as_standard_layout().into_owned()
}

/// k-means++: each centroid is a point drawn in proportion to its squared distance from the
/// nearest centroid so far, `[width, clusters]`.
fn seeds(points: &Signatures, clusters: usize, seed: u64) -> Array2<f32> {
    let mut rng = Rng::new(seed, Purpose::KMeans, 0);
    let mut sample: Vec<usize> = (0..points.len()).collect();
    if points.len() / SEEDING_POINTS > clusters {
        rng.shuffle(&mut sample);
        sample.truncate(clusters * SEEDING_POINTS);
        sample.sort_unstable();
    }
    // 1 - cosine is half the squared distance of unit vectors.
    let mut distance = vec![1f32; sample.len()];
    let mut centroid = vec![0f32; points.width()];
    let mut chosen = Vec::with_capacity(clusters);
    while chosen.len() < clusters {
        let point = sample[draw(&distance, &mut rng)];
        chosen.push(point as u32);
        points.row(point).for_each(|(column, value)| centroid[column] = value);
        distance.par_chunks_mut(CHUNK).zip(sample.par_chunks(CHUNK)).for_each(|(distance, sample)| {
            for (distance, &other) in distance.iter_mut().zip(sample) {
                let cosine: f32 = points.row(other).map(|(column, value)| value * centroid[column]).sum();
                *distance = distance.min((1.0 - cosine).max(0.0));
            }
        });
        points.row(point).for_each(|(column, _)| centroid[column] = 0.0);
    }
    let mut centroids = Array2::zeros((points.width(), clusters));
    for (cluster, &point) in chosen.iter().enumerate() {
        points.row(point as usize).for_each(|(column, value)| centroids[[column, cluster]] = value);
    }
    centroids
}

/// Draws an index in proportion to `weights`; any index where all are zero.
fn draw(weights: &[f32], rng: &mut Rng) -> usize {
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    let mut left = rng.unit() * total;
    let fallback = rng.below(weights.len());
    if total <= 0.0 {
        return fallback;
    }
    let mut last = fallback;
    for (i, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        left -= f64::from(weight);
        last = i;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `n` points around `k` random directions of `width` dimensions, with their true cluster.
    fn blobs(n: usize, k: usize, width: usize) -> (Signatures, Vec<u32>) {
        let mut rng = Rng::new(9, Purpose::KMeans, 1);
        let centres: Vec<Vec<f64>> = (0..k).map(|_| (0..width).map(|_| rng.normal()).collect()).collect();
        let truth: Vec<u32> = (0..n).map(|_| rng.below(k) as u32).collect();
        let dense = Array2::from_shape_fn((n, width), |(i, d)| {
            (centres[truth[i] as usize][d] + 0.1 * rng.normal()) as f32
        });
        (Signatures::from_dense(dense.view()), truth)
    }

    #[test]
    fn blobs_are_found() {
        let (points, truth) = blobs(600, 8, 16);
        let found = kmeans(&points, 8, 30, 0).unwrap();
        // Seeding by distance finds all eight: equal truth, equal cluster, and the other way round.
        let mut names = [u32::MAX; 8];
        for (&t, &c) in truth.iter().zip(&found.assignment) {
            if names[t as usize] == u32::MAX {
                names[t as usize] = c;
            }
            assert_eq!(names[t as usize], c);
        }
        names.sort_unstable();
        assert_eq!(names, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(found.iterations < 30);
        assert!(found.similarity.iter().all(|&s| s > 0.9));
    }

    #[test]
    fn mini_batches_end_where_rounds_over_all_points_end() {
        let (points, truth) = blobs(3000, 12, 16);
        let (whole, parts) = (
            kmeans_of(&points, 12, (30, 3), usize::MAX, &mut |_, _| Ok(None)).unwrap(),
            kmeans_of(&points, 12, (30, 3), 1000, &mut |_, _| Ok(None)).unwrap(),
        );
        assert!(parts.iterations <= ROUNDS_AFTER);
        let mean = |found: &KMeans| found.similarity.iter().sum::<f32>() / 3000.0;
        assert!((mean(&whole) - mean(&parts)).abs() < 0.01, "{} {}", mean(&whole), mean(&parts));
        let agreement = crate::cluster::agreement::nmi(&parts.assignment, &truth);
        assert!(agreement > 0.95, "{agreement}");
        assert_eq!(parts, kmeans_of(&points, 12, (30, 3), 1000, &mut |_, _| Ok(None)).unwrap());
    }

    #[test]
    fn assignment_is_to_the_nearest_centroid() {
        let (points, _) = blobs(300, 5, 12);
        let found = kmeans(&points, 20, 3, 1).unwrap();
        for i in 0..points.len() {
            let cosines: Vec<f32> =
                found.centroids.outer_iter().map(|c| points.row(i).map(|(d, v)| v * c[d]).sum()).collect();
            let best = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(best - cosines[found.assignment[i] as usize] < 1e-5);
            assert!((best - found.similarity[i]).abs() < 1e-5);
        }
        for centroid in found.centroids.outer_iter() {
            assert!((centroid.dot(&centroid) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn iterations_gain_similarity() {
        let (points, _) = blobs(500, 30, 8);
        let mean = |iterations| {
            let found = kmeans(&points, 20, iterations, 2).unwrap();
            found.similarity.iter().sum::<f32>() / 500.0
        };
        assert!(mean(10) > mean(1) && mean(1) > mean(0));
    }

    #[test]
    fn same_seed_same_clusters_whatever_the_threads() {
        let (points, _) = blobs(700, 10, 8);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| kmeans(&points, 10, 5, 4).unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn no_cluster_stays_empty() {
        // 5 clusters asked for where seeding drew from 3 distinct directions, one of them common.
        let dense = Array2::from_shape_fn((40, 3), |(i, d)| f32::from(u8::from(d == (i % 20).min(2))));
        let points = Signatures::from_dense(dense.view());
        let mut assignment = kmeans(&points, 5, 10, 0).unwrap().assignment;
        fill_empty(&mut assignment, &[1.0; 40], 5);
        for cluster in 0..5 {
            assert!(assignment.contains(&cluster), "{cluster}");
        }
    }

    #[test]
    fn points_without_codes_do_no_harm() {
        let points = Signatures::from_dense(Array2::zeros((4, 3)).view());
        let found = kmeans(&points, 2, 3, 0).unwrap();
        assert!(found.centroids.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn more_clusters_than_points_is_an_error() {
        let (points, _) = blobs(10, 2, 4);
        for clusters in [0, 11] {
            let message = kmeans(&points, clusters, 3, 0).unwrap_err().to_string();
            assert!(message.contains("invalid clusters=") && message.contains("10"), "{message}");
        }
    }
}
