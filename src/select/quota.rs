//! Rates: how likely a candidate of each cluster is to be kept.
//!
//! With g_c the share of the corpus that is in cluster c and passes the gate, the rates solve
//! sum(g_c * pi_c) = keep_ratio, so that keep_ratio is a share of the readable samples whatever
//! the gate. Every quota weighs the clusters, w_c = g_c^(alpha - 1), and has the rates
//! min(1, k * w_c) for one k: proportional is alpha = 1, a cap is alpha = 0 (water-filling).

use crate::cluster::Clusters;
use crate::config::{Gate, Quota, Within};
use crate::error::{Error, Result};
use crate::select::gate::GateRule;
use crate::select::policy::Policy;
use crate::select::reservoir::Rate;

/// How far keep_ratio may lie above the measured pass rate, relative to it: the measurement itself
/// is not better (at 10,000 points and a gate of 0.5 it has a standard deviation of 1%).
const TOLERANCE: f64 = 0.01;

/// The rate of every cluster, and what they amount to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// One for all clusters where there is one only.
    rates: Vec<Rate>,
    expected_share: f64,
}

impl Rates {
    /// Solves the rates of `policy`; without clusters nothing is gated. O(clusters * log).
    ///
    /// # Errors
    /// More asked for than the gate lets through; the error names the maximum. A quota whose
    /// number is out of range, or that counts samples of a corpus of unknown size.
    pub fn solve(policy: &Policy, clusters: Option<&Clusters>) -> Result<Self> {
        let pass_rate = match (policy.gate().share(), policy.within(), clusters) {
            _ if policy.has_scores() => policy.measured_cut()?.pass_rate,
            (Some(gate), Within::Corpus, Some(clusters)) => clusters.pass_rate(gate),
            (Some(gate), Within::Cluster, Some(_)) => gate,
            _ => 1.0,
        };
        if let (Quota::CapAt(samples), Some(clusters)) = (policy.quota(), clusters) {
            return Self::capped(samples, policy, clusters);
        }
        let keep_ratio = policy.keep_ratio();
        let pi = keep_ratio / pass_rate;
        // Also where nothing passes and pi is infinite.
        if pi > 1.0 + TOLERANCE {
            // Rounding up is safe: it stays within the tolerance.
            let most = (pass_rate * 1e4).round() / 1e4;
            let gate = match policy.gate() {
                gate @ Gate::AtLeast { score, by: Some(field) } => format!(
                    "gate={gate} lets through; lower keep_ratio or the score, or keep all that pass by where=\
                     \"{field} >= {score}\" with mode=full"
                ),
                gate => format!("gate={gate} lets through; lower keep_ratio or raise the gate"),
            };
            let accepted = format!("at most {most}, the share that {gate}");
            return Err(Error::option("keep_ratio", keep_ratio, accepted));
        }
        let expected_share = keep_ratio.min(pass_rate);
        let alpha = policy.quota().alpha();
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::option("quota", policy.quota(), "tempered(alpha) with alpha in [0, 1]"));
        }
        let rates = match clusters {
            Some(clusters) if alpha < 1.0 => {
                tempered(&GateRule::passing(policy, Some(clusters)), alpha, expected_share)
            }
            _ => vec![Rate::new(pi)],
        };
        Ok(Self { rates, expected_share })
    }

    /// At most `samples` of each cluster.
    fn capped(samples: u64, policy: &Policy, clusters: &Clusters) -> Result<Self> {
        let corpus = policy.corpus.filter(|&n| n > 0).ok_or_else(|| {
            Error::option(
                "quota",
                policy.quota(),
                "a corpus whose number of samples is known, for cap(samples)",
            )
        })?;
        if samples == 0 {
            return Err(Error::option("quota", policy.quota(), "cap(samples) of at least 1 sample"));
        }
        let most = samples as f64 / corpus as f64;
        let shares = GateRule::passing(policy, Some(clusters));
        let rates = shares.iter().map(|&share| Rate::new(most / share)).collect();
        Ok(Self { rates, expected_share: shares.iter().map(|share| share.min(most)).sum() })
    }

    /// Rate of a cluster.
    pub fn rate(&self, cluster: u32) -> Rate {
        // Clusters are checked against the number of those in force before they come here.
        self.rates.get(cluster as usize).or(self.rates.first()).copied().unwrap_or(Rate::new(0.0))
    }

    /// Share of the readable samples that is kept, in expectation, near-duplicates aside.
    pub fn expected_share(&self) -> f64 {
        self.expected_share
    }
}

/// The rates min(1, k * g^(alpha - 1)) that keep `keep` of clusters with the shares `g`: the
/// clusters of greatest weight are full for every k above 1 / weight, so they are filled in that
/// order until the rest is enough.
fn tempered(shares: &[f64], alpha: f64, keep: f64) -> Vec<Rate> {
    let mut order: Vec<usize> = (0..shares.len()).filter(|&c| shares[c] > 0.0).collect();
    // Weights fall as shares grow.
    order.sort_by(|&a, &b| shares[a].total_cmp(&shares[b]));
    // Of those that are not full: sum(g * g^(alpha - 1)).
    let mut open: f64 = order.iter().map(|&c| shares[c].powf(alpha)).sum();
    let mut left = keep;
    let mut k = f64::INFINITY;
    for &c in &order {
        k = left / open;
        if k * shares[c].powf(alpha - 1.0) < 1.0 {
            break;
        }
        left -= shares[c];
        open -= shares[c].powf(alpha);
    }
    // A cluster that the fit saw nothing pass in is as rare as can be.
    shares
        .iter()
        .map(|&share| Rate::new(if share > 0.0 { k * share.powf(alpha - 1.0) } else { 1.0 }))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::GATE_STEPS;
    use crate::cluster::alignment::{AlignmentNorm, AlignmentTable};
    use crate::config::Selection;
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
            raw_index: None,
            discriminant: None,
            worth: None,
            trained_on: vec![],
        }
    }

    fn solve(keep_ratio: f64, gate: Option<f64>) -> Result<Rates> {
        Rates::solve(
            &Policy {
                selection: Selection {
                    keep_ratio: Some(keep_ratio.into()),
                    gate: gate.map(Gate::top),
                    ..Selection::default()
                },
                ..Policy::default()
            },
            Some(&clusters()),
        )
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
    fn tempered_rates_keep_the_ratio_and_favour_rare_clusters() {
        let mut rng = crate::hash::Rng::new(0, crate::hash::Purpose::Synth, 0);
        for round in 0..200 {
            let raw: Vec<f64> = (0..50).map(|_| rng.range(0.001, 1.0).powi(4)).collect();
            let sum: f64 = raw.iter().sum();
            let shares: Vec<f64> = raw.iter().map(|share| share / sum).collect();
            let keep = rng.range(0.01, 0.999);
            for alpha in [0.0, 0.3, 0.99] {
                let rates: Vec<f64> = tempered(&shares, alpha, keep).into_iter().map(Rate::value).collect();
                let kept: f64 = shares.iter().zip(&rates).map(|(g, pi)| g * pi).sum();
                assert!((kept - keep).abs() < 1e-9, "round {round}, alpha {alpha}: {kept} for {keep}");
                // Clusters that are not full have pi / g^(alpha - 1) in common; full ones would have less.
                let k = |c: usize| rates[c] / shares[c].powf(alpha - 1.0);
                let open: Vec<f64> = (0..50).filter(|&c| rates[c] < 1.0 - 1e-12).map(k).collect();
                let most = open.iter().copied().fold(0.0, f64::max);
                for (c, &rate) in rates.iter().enumerate() {
                    let full = rate >= 1.0 - 1e-12;
                    let fits = if full { k(c) <= most * (1.0 + 1e-9) } else { k(c) >= most * (1.0 - 1e-9) };
                    assert!(fits || open.is_empty(), "round {round}, alpha {alpha}, cluster {c}: {rate}");
                }
            }
        }
    }

    #[test]
    fn a_cap_in_samples_is_the_cap_that_keeps_as_much() {
        let policy = Policy {
            selection: Selection {
                quota: Some(Quota::CapAt(200)),
                gate: Some(Gate::top(0.5)),
                ..Selection::default()
            },
            corpus: Some(1000),
            ..Policy::default()
        };
        let rates = Rates::solve(&policy, Some(&clusters())).unwrap();
        // 300 and 180 pass: 200 of the one, all of the other.
        assert!((rates.rate(0).value() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(rates.rate(1).value(), 1.0);
        assert!((rates.expected_share() - 0.38).abs() < 1e-12);
        let filled = Policy {
            selection: Selection {
                quota: Some(Quota::Cap),
                keep_ratio: Some(0.38.into()),
                ..policy.selection.clone()
            },
            ..policy.clone()
        };
        let filled = Rates::solve(&filled, Some(&clusters())).unwrap();
        assert!((filled.rate(0).value() - rates.rate(0).value()).abs() < 1e-12);
        assert_eq!(filled.rate(1).value(), 1.0);
        let unknown = Policy { corpus: None, ..policy };
        assert!(Rates::solve(&unknown, Some(&clusters())).unwrap_err().to_string().contains("cap(200)"));
        for alpha in [-0.1, 1.1, f64::NAN] {
            let policy = Policy {
                selection: Selection { quota: Some(Quota::Tempered(alpha)), ..Selection::default() },
                ..Policy::default()
            };
            assert!(Rates::solve(&policy, Some(&clusters())).is_err(), "{alpha}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let all = [Quota::Proportional, Quota::Random, Quota::Cap, Quota::CapAt(7), Quota::Tempered(0.5)];
        for quota in all {
            assert_eq!(quota.to_string().parse::<Quota>().unwrap(), quota);
        }
        for wrong in ["", "cap(", "cap(x)", "cap(1, 2)", "tempered", "tempered(0.5", "every-nth(2)"] {
            assert!(wrong.parse::<Quota>().unwrap_err().to_string().contains("tempered(0.5)"), "{wrong}");
        }
    }

    #[test]
    fn more_than_passes_is_an_error_with_the_maximum() {
        let message = solve(0.5, Some(0.5)).unwrap_err().to_string();
        assert!(message.contains("invalid keep_ratio=0.5: expected at most 0.48"), "{message}");
        assert!(solve(0.1, Some(0.3)).is_err(), "nothing passes at all");
        // Within the error of measurement everything that passes is kept.
        let rates = solve(0.4805, Some(0.5)).unwrap();
        assert_eq!((rates.rate(0).value(), rates.expected_share()), (1.0, 0.48));
    }
}
