//! The draw: which of a run's candidates are kept, each with exactly its cluster's rate.
//!
//! Candidates of a run stand in order; the i-th gets v_i = frac(U + i * 0.618...), with U uniform
//! in [0, 1) from a hash of seed, window and run. It is kept in epoch e where
//! frac(v_i - S) < pi, where S is the sum of the rates of the epochs before it (e * pi, where the rate
//! is always the same). Each v_i alone is uniform, so the probability is exactly pi. Together
//! they are the golden-ratio sequence, whose every stretch is spread about as evenly as its length
//! allows (its gaps take three lengths at most), so any neighbours keep their share to within two
//! or so.
//!
//! All of it is exact integer arithmetic in units of 2^-64, where frac is what u64 does anyway.
//! So kept samples at a lower rate are a subset of those at a higher one, and epochs in rotation lie
//! end to end, without gap or overlap, for any epoch number.
//!
//! In rotation, epoch e keeps the draws in [S, S + pi), modulo 1. Epochs whose rates add up to 1 at
//! most are disjoint. The next one takes what is left of the pool, then begins
//! again at the start; and so on, so that at any time no candidate has been kept more than once
//! more often than another.

use crate::hash::{self, Purpose};

/// 2^64 / 1.618..., the golden ratio as a fixed-point fraction.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// A probability in units of 2^-64, from 0 to 2^64 (which is 1) inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u128);

impl Rate {
    /// The rate nearest to `pi`, clamped to [0, 1].
    pub fn new(pi: f64) -> Self {
        // f64 to u128 saturates, and 2^64 is exact in f64.
        Self((pi.clamp(0.0, 1.0) * 2f64.powi(64)).round() as u128)
    }

    /// The rate as a number in [0, 1].
    pub fn value(self) -> f64 {
        self.0 as f64 / 2f64.powi(64)
    }
}

/// How far round the circle the epochs before one went, in units of 2^-64: the S of the module's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Covered(u128);

impl Covered {
    /// As it is, and `epochs` more of one rate. Exact for any sum of epochs below 2^64.
    #[must_use]
    pub fn and(self, rate: Rate, epochs: u64) -> Self {
        Self(self.0.saturating_add(u128::from(epochs) * rate.0))
    }
}

/// Where a candidate stands on the circle [0, 1), in units of 2^-64: the v_i of the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(u64);

impl Draw {
    /// The draw as a number: candidates are kept from the smallest on as the rate grows.
    pub(super) fn position(self) -> u64 {
        self.0
    }

    /// Whether the candidate is kept in the epoch that follows those which `covered` the circle so far
    /// (none of it where nothing rotates).
    pub fn is_kept(self, rate: Rate, covered: Covered) -> bool {
        u128::from(self.beyond(covered)) < rate.0
    }

    /// How far it lies behind the end of what `covered` the circle: frac(v_i - S) of the module's text.
    pub(super) fn beyond(self, covered: Covered) -> u64 {
        // S modulo 1 is its low half.
        self.0.wrapping_sub(covered.0 as u64)
    }

    /// How often the candidate is kept in the epochs that `covered` the circle so far.
    pub fn times_kept(self, covered: Covered) -> u64 {
        // Laid end to end, these epochs cover [0, S): count the turns that reach v.
        let beyond = covered.0.saturating_sub(u128::from(self.0));
        beyond.div_ceil(1 << 64) as u64
    }
}

/// Draws of a run's candidates, in order: an endless sequence.
pub fn draws(seed: u64, window: u64, run: u64) -> impl Iterator<Item = Draw> {
    let start = hash::hash(seed, Purpose::RunStart, hash::combine(&[window, run]));
    std::iter::successors(Some(start), |v| Some(v.wrapping_add(GOLDEN_RATIO))).map(Draw)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash::Rng;

    /// What `epoch` epochs of one rate cover.
    fn by(rate: Rate, epoch: u64) -> Covered {
        Covered::default().and(rate, epoch)
    }

    #[test]
    fn places_are_those_of_the_golden_ratio() {
        for (window, run) in [(0, 0), (7, 3), (u64::MAX, 63)] {
            let u = hash::unit(hash::hash(5, Purpose::RunStart, hash::combine(&[window, run])));
            for (i, draw) in draws(5, window, run).take(3000).enumerate() {
                let expected = (u + i as f64 * 0.618_033_988_749_894_9).fract();
                let distance = (draw.0 as f64 / 2f64.powi(64) - expected).abs();
                assert!(distance.min(1.0 - distance) < 1e-11, "{i}: {distance}");
            }
        }
    }

    #[test]
    fn kept_as_the_formula_in_floating_point_says() {
        // Away from the two ends of the interval, where rounding decides.
        let mut rng = Rng::new(1, Purpose::Candidate, 0);
        for _ in 0..20_000 {
            let draw = Draw(rng.next_u64());
            let (pi, epoch) = (rng.unit(), rng.below(50) as u64);
            let v = draw.0 as f64 / 2f64.powi(64);
            let turned = (v - epoch as f64 * pi).rem_euclid(1.0);
            if [0.0, pi, 1.0].iter().all(|end| (turned - end).abs() > 1e-9) {
                let rate = Rate::new(pi);
                assert_eq!(draw.is_kept(rate, by(rate, epoch)), turned < pi, "{v}, {pi}, {epoch}");
            }
        }
    }

    #[test]
    fn times_kept_counts_the_epochs() {
        let mut rng = Rng::new(2, Purpose::Candidate, 0);
        for pi in [0.0, 1e-12, 0.05, 0.25, 1.0 / 3.0, 0.61, 0.999, 1.0] {
            let rate = Rate::new(pi);
            for _ in 0..200 {
                let draw = Draw(rng.next_u64());
                let mut times = 0;
                for epoch in 0..40 {
                    assert_eq!(draw.times_kept(by(rate, epoch)), times);
                    times += u64::from(draw.is_kept(rate, by(rate, epoch)));
                }
            }
        }
    }

    #[test]
    fn epochs_of_any_rates_lie_end_to_end() {
        let mut rng = Rng::new(4, Purpose::Candidate, 0);
        for round in 0..200 {
            let draws: Vec<Draw> = (0..50).map(|_| Draw(rng.next_u64())).collect();
            let (mut covered, mut times) = (Covered::default(), [0; 50]);
            for epoch in 0..60 {
                // Now and then all of the circle, or nothing of it.
                let rate = Rate::new([rng.unit(), rng.unit() * 0.1, 1.0, 0.0][rng.below(4)]);
                for (draw, times) in draws.iter().zip(&mut times) {
                    assert_eq!(draw.times_kept(covered), *times);
                    *times += u64::from(draw.is_kept(rate, covered));
                }
                covered = covered.and(rate, 1);
                let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
                assert!(most - least <= 1, "round {round}, epoch {epoch}: {least} to {most}");
            }
        }
    }

    #[test]
    fn rotation_is_exact_at_any_epoch() {
        // Around epoch 2^60, f64 has no fraction left at all.
        let rate = Rate::new(0.3);
        let mut rng = Rng::new(3, Purpose::Candidate, 0);
        for _ in 0..1000 {
            let draw = Draw(rng.next_u64());
            let start = (1u64 << 60) + rng.below(1000) as u64;
            let kept = (start..start + 3).filter(|&e| draw.is_kept(rate, by(rate, e))).count();
            assert!(kept <= 1);
            let kept = (start..start + 4).filter(|&e| draw.is_kept(rate, by(rate, e))).count();
            assert!(kept >= 1);
        }
        let whole = by(Rate::new(1.0), u64::MAX);
        assert!(Draw(0).is_kept(Rate::new(1.0), whole));
        assert_eq!(Draw(u64::MAX).times_kept(whole), u64::MAX);
    }

    #[test]
    fn rates_are_clamped_and_kept_to_the_last_bit() {
        assert_eq!(Rate::new(0.25), Rate(1 << 62));
        assert_eq!((Rate::new(1.7).value(), Rate::new(-1.0).value()), (1.0, 0.0));
        assert_eq!(Rate::new(f64::NAN).value(), 0.0);
        assert!(!Draw(0).is_kept(Rate::new(0.0), Covered::default()));
        for pi in [0.1, 0.25, 0.5, 0.7321] {
            assert_eq!(Rate::new(pi).value(), pi);
        }
    }
}
