//! Near-duplicates of previews, as they stand in other shards of a corpus: cut, scaled and brightened a little
//! otherwise.

use ndarray::{Array4, ArrayView4, Axis};

use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::sample::SampleId;

/// Shift at most, as a share of the side.
const SHIFT: f64 = 0.04;
/// Magnification at most, and its inverse at least, less 1.
const ZOOM: f64 = 0.06;
/// Gain of all channels together, and of each for itself, less 1.
const GAIN: f64 = 0.1;
const TINT: f64 = 0.03;

/// A near-duplicate of each of `previews` `[rows, 3, size, size]`: a function of the seed and each row's id; rows
/// without an id are blank. Bilinear, the edges repeated. Linear in the pixels.
pub(super) fn near_duplicates(previews: ArrayView4<'_, u8>, ids: &[SampleId], seed: u64) -> Array4<u8> {
    let mut copies = Array4::zeros(previews.dim());
    for ((mut to, from), id) in copies.axis_iter_mut(Axis(0)).zip(previews.axis_iter(Axis(0))).zip(ids) {
        let mut rng = Rng::new(seed, Purpose::NearCopy, id.0);
        let (height, width) = (from.shape()[1], from.shape()[2]);
        let zoom = 1.0 + rng.range(-ZOOM, ZOOM);
        let mut places = |side: usize| -> Vec<(usize, usize, f64)> {
            let (middle, shift) = (side as f64 / 2.0, rng.range(-SHIFT, SHIFT) * side as f64);
            (0..side)
                .map(|at| between((at as f64 + 0.5 - middle) / zoom + middle - shift - 0.5, side))
                .collect()
        };
        let (rows, columns) = (places(height), places(width));
        let gain = 1.0 + rng.range(-GAIN, GAIN);
        for (mut to, from) in to.axis_iter_mut(Axis(0)).zip(from.axis_iter(Axis(0))) {
            let gain = gain * (1.0 + rng.range(-TINT, TINT));
            for (y, row) in rows.iter().enumerate() {
                for (x, column) in columns.iter().enumerate() {
                    let at = |y: usize, x: usize| f64::from(from[[y, x]]);
                    let line = |y: usize| at(y, column.0) * (1.0 - column.2) + at(y, column.1) * column.2;
                    let value = line(row.0) * (1.0 - row.2) + line(row.1) * row.2;
                    to[[y, x]] = (gain * value + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
    copies
}

/// The pixels on both sides of a place, and how far it is towards the second.
fn between(place: f64, side: usize) -> (usize, usize, f64) {
    let place = place.clamp(0.0, side.saturating_sub(1) as f64);
    let before = place as usize;
    (before, (before + 1).min(side.saturating_sub(1)), place - before as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ndarray::ArrayView3;

    use super::*;

    #[test]
    fn copies_look_like_their_previews_and_are_the_same_every_time() {
        let size = 32;
        let mut rng = Rng::new(1, Purpose::Synth, 0);
        // Smooth pictures: two waves of random direction for each.
        let waves: Vec<[f64; 4]> = (0..12).map(|_| [(); 4].map(|()| rng.range(-0.35, 0.35))).collect();
        let previews = Array4::from_shape_fn((12, 3, size, size), |(b, c, y, x)| {
            let [p, q, r, s] = waves[b];
            let (y, x) = (y as f64, x as f64);
            (128.0 + 60.0 * (p * x + q * y + c as f64).sin() + 40.0 * (r * x + s * y).cos()) as u8
        });
        let ids: Vec<SampleId> = (0..12).map(SampleId).collect();
        let copies = near_duplicates(previews.view(), &ids, 3);
        assert_eq!(copies, near_duplicates(previews.view(), &ids, 3));
        let last = near_duplicates(previews.slice(ndarray::s![11.., .., .., ..]), &ids[11..], 3);
        assert_eq!(
            last.index_axis(Axis(0), 0),
            copies.index_axis(Axis(0), 11),
            "whatever else is in the batch"
        );
        let apart = |a: ArrayView3<'_, u8>, b: ArrayView3<'_, u8>| -> f64 {
            let sum: f64 = a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            (sum / a.len() as f64).sqrt()
        };
        for row in 0..12 {
            let own = apart(previews.index_axis(Axis(0), row), copies.index_axis(Axis(0), row));
            let other = apart(previews.index_axis(Axis(0), row), copies.index_axis(Axis(0), (row + 1) % 12));
            assert!(own > 1.0, "row {row} is changed: {own}");
            assert!(own < 0.7 * other, "row {row}: {own} from its copy, {other} from another's");
        }
    }
}
