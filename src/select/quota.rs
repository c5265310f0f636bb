//! Rates: how likely a candidate of each cluster is to be kept.
//!
//! With g_c the share of the corpus that is in cluster c and passes the gate, the rates solve
//! sum(g_c * pi_c) = keep_ratio, so that keep_ratio is a share of the readable samples whatever
//! the gate. A proportional quota has one rate, keep_ratio / sum(g_c), for all clusters.

use crate::cluster::Clusters;
use crate::error::{Error, Result};
use crate::select::policy::Policy;
use crate::select::reservoir::Rate;

/// How far keep_ratio may lie above the measured pass rate, relative to it: the measurement itself
/// is not better (at 10,000 points and a gate of 0.5 it has a standard deviation of 1%).
const TOLERANCE: f64 = 0.01;

/// The rate of every cluster, and what they amount to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    rate: Rate,
    expected_share: f64,
}

impl Rates {
    /// Solves the rates of `policy`; without clusters nothing is gated.
    ///
    /// # Errors
    /// More asked for than the gate lets through; the error names the maximum.
    pub fn solve(policy: &Policy, clusters: Option<&Clusters>) -> Result<Self> {
        let pass_rate = match (policy.gate, clusters) {
            (Some(gate), Some(clusters)) => clusters.pass_rate(gate),
            _ => 1.0,
        };
        let pi = policy.keep_ratio / pass_rate;
        // Also where nothing passes and pi is infinite.
        if pi > 1.0 + TOLERANCE {
            // Rounding up is safe: it stays within the tolerance.
            let most = (pass_rate * 1e4).round() / 1e4;
            let gate = policy.gate.unwrap_or(1.0);
            let accepted = format!(
                "at most {most}, the share that gate = {gate} lets through; lower keep_ratio or raise the gate"
            );
            return Err(Error::option("keep_ratio", policy.keep_ratio, accepted));
        }
        Ok(Self { rate: Rate::new(pi), expected_share: policy.keep_ratio.min(pass_rate) })
    }

    /// Rate of a cluster.
    pub fn rate(&self, _cluster: u32) -> Rate {
        // One for all as long as every quota is proportional or random.
        self.rate
    }

    /// Share of the readable samples that is kept, in expectation, near-copies aside.
    pub fn expected_share(&self) -> f64 {
        self.expected_share
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::GATE_STEPS;
    use crate::cluster::alignment::{AlignmentNorm, AlignmentTable};
    use ndarray::Array2;

    /// Two clusters; the gate of 0.5 lets 0.3 and 0.18 of the corpus through.
    fn clusters() -> Clusters {
        let passing = |i: usize, half: f64, all: f64| {
            if i == 0 {
                all
            } else if i <= 10 {
                half
            } else {
                0.0
            }
        };
        Clusters {
            idf: vec![1.0],
            centroids: Array2::ones((2, 1)),
            runs: vec![0, 1],
            shares: vec![0.5, 0.5],
            gated: Array2::from_shape_fn((2, GATE_STEPS), |(c, i)| passing(i, [0.3, 0.18][c], 0.5)),
            alignment: AlignmentTable::fit(AlignmentNorm::Sum, &[], 2),
            points: 100,
        }
    }

    fn solve(keep_ratio: f64, gate: Option<f64>) -> Result<Rates> {
        Rates::solve(&Policy { keep_ratio, gate, ..Policy::default() }, Some(&clusters()))
    }

    #[test]
    fn rates_solve_for_the_share_of_readable_samples() {
        assert!((solve(0.25, None).unwrap().rate(0).value() - 0.25).abs() < 1e-15);
        let rates = solve(0.12, Some(0.5)).unwrap();
        let kept: f64 = (0..2).map(|c| [0.3, 0.18][c as usize] * rates.rate(c).value()).sum();
        assert!((kept - 0.12).abs() < 1e-12);
        assert_eq!(rates.expected_share(), 0.12);
    }

    #[test]
    fn more_than_passes_is_an_error_with_the_maximum() {
        let message = solve(0.5, Some(0.5)).unwrap_err().to_string();
        assert!(message.contains("keep_ratio = 0.5: at most 0.48"), "{message}");
        assert!(solve(0.1, Some(0.3)).is_err(), "nothing passes at all");
        // Within the error of measurement everything that passes is kept.
        let rates = solve(0.4805, Some(0.5)).unwrap();
        assert_eq!((rates.rate(0).value(), rates.expected_share()), (1.0, 0.48));
    }
}
