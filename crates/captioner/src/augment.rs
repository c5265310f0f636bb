//! Random shifts and flips of previews while a captioner is trained.

use ndarray::{Array4, ArrayView4, Axis};

use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::sample::SampleId;

/// Previews are shifted by up to a side over this.
const SHARE: usize = 8;

/// What is done to previews before a training step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Augment {
    /// Nothing.
    #[default]
    None,
    /// A shift by up to an eighth of the side, down or up and left or right; edges are repeated.
    Shift,
    /// The same, and every second preview is mirrored left to right. Not for captions that say left
    /// and right, nor for images of text.
    ShiftFlip,
}

tldr_loader::names!(Augment { None => "none", Shift => "shift", ShiftFlip => "shift-flip" }, option "augment");

impl Augment {
    /// `previews` `[rows, 3, size, size]` as training step `step` sees them: a function of the seed, the
    /// step and each row's id. `None` where they stay as they are. Linear in the pixels.
    pub(super) fn apply(
        self,
        previews: &ArrayView4<'_, u8>,
        ids: &[SampleId],
        seed: u64,
        step: u64,
    ) -> Option<Array4<u8>> {
        if self == Self::None {
            return None;
        }
        let (_, _, height, width) = previews.dim();
        let mut augmented = Array4::zeros(previews.dim());
        for ((mut to, from), id) in augmented.axis_iter_mut(Axis(0)).zip(previews.axis_iter(Axis(0))).zip(ids)
        {
            let mut rng = Rng::new(seed, Purpose::Augment, hash::combine(&[step, id.0]));
            let mut shifted = |side: usize| -> Vec<usize> {
                let most = side / SHARE;
                let by = rng.below(2 * most + 1);
                (0..side).map(|at| (at + by).saturating_sub(most).min(side - 1)).collect()
            };
            let (rows, mut columns) = (shifted(height), shifted(width));
            if self == Self::ShiftFlip && rng.below(2) == 1 {
                columns.reverse();
            }
            for (mut to, from) in to.axis_iter_mut(Axis(0)).zip(from.axis_iter(Axis(0))) {
                for (y, &row) in rows.iter().enumerate() {
                    for (x, &column) in columns.iter().enumerate() {
                        to[[y, x]] = from[[row, column]];
                    }
                }
            }
        }
        Some(augmented)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SIZE: usize = 16;

    /// One preview a row; each pixel says where it is.
    fn previews(rows: usize) -> Array4<u8> {
        Array4::from_shape_fn((rows, 3, SIZE, SIZE), |(_, _, y, x)| (y * SIZE + x) as u8)
    }

    fn ids(rows: usize) -> Vec<SampleId> {
        (0..rows as u64).map(SampleId).collect()
    }

    /// By how much a row was shifted, if it was, and whether it was mirrored: found by trying them all.
    fn moved(seen: &Array4<u8>, row: usize) -> Vec<(isize, isize, bool)> {
        let most = (SIZE / SHARE) as isize;
        let inside = |at: usize, by: isize| (at as isize + by).clamp(0, SIZE as isize - 1) as usize;
        let mut found = vec![];
        for (dy, dx) in (-most..=most).flat_map(|dy| (-most..=most).map(move |dx| (dy, dx))) {
            for flipped in [false, true] {
                let is = |y: usize, x: usize| {
                    let across = inside(if flipped { SIZE - 1 - x } else { x }, dx);
                    seen[[row, 1, y, x]] as usize == inside(y, dy) * SIZE + across
                };
                if (0..SIZE).all(|y| (0..SIZE).all(|x| is(y, x))) {
                    found.push((dy, dx, flipped));
                }
            }
        }
        found
    }

    #[test]
    fn every_shift_comes_and_nothing_else() {
        let (rows, most) = (400, (SIZE / SHARE) as isize);
        for (augment, flips) in [(Augment::Shift, false), (Augment::ShiftFlip, true)] {
            let seen = augment.apply(&previews(rows).view(), &ids(rows), 3, 5).unwrap();
            let moves: Vec<_> = (0..rows).map(|row| moved(&seen, row)).collect();
            assert!(moves.iter().all(|found| found.len() == 1), "one shift explains a row");
            for by in -most..=most {
                assert!(moves.iter().any(|found| found[0].0 == by), "never {by} rows");
                assert!(moves.iter().any(|found| found[0].1 == by), "never {by} columns");
            }
            let flipped = moves.iter().filter(|found| found[0].2).count();
            // A fair coin: 6 standard deviations of sqrt(400) / 2 are 60.
            assert!(if flips { flipped.abs_diff(rows / 2) < 60 } else { flipped == 0 }, "{flipped}");
        }
    }

    #[test]
    fn a_row_depends_on_its_id_and_the_step_only() {
        let all = Augment::ShiftFlip.apply(&previews(8).view(), &ids(8), 0, 1).unwrap();
        let one = Augment::ShiftFlip.apply(&previews(1).view(), &ids(8)[5..6], 0, 1).unwrap();
        assert_eq!(all.index_axis(Axis(0), 5), one.index_axis(Axis(0), 0));
        assert_ne!(all, Augment::ShiftFlip.apply(&previews(8).view(), &ids(8), 0, 2).unwrap());
        assert_ne!(all, Augment::ShiftFlip.apply(&previews(8).view(), &ids(8), 1, 1).unwrap());
        assert!(Augment::None.apply(&previews(8).view(), &ids(8), 0, 1).is_none());
    }

    #[test]
    fn names_are_read() {
        for augment in [Augment::None, Augment::Shift, Augment::ShiftFlip] {
            assert_eq!(Augment::from_name(augment.name()).unwrap(), augment);
        }
        assert!(
            Augment::from_name("crop")
                .unwrap_err()
                .to_string()
                .starts_with("invalid augment=crop: expected ")
        );
    }
}
