//! Gates by a score that the corpus already has: LAION's `similarity`, DataComp's CLIP scores.
//!
//! Scores have no scale of their own, so a share is turned into the least score that passes by the scores of a
//! sample of the corpus, taken before it is read ([`survey`](crate::shard::survey)).

use crate::config::Gate;

/// Where scores are cut, and what that lets through.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreCut {
    /// Least score that passes; `None` where everything does, also without a score.
    pub least: Option<f32>,
    /// Share of the samples that passes.
    pub pass_rate: f64,
    /// Samples that this was measured on.
    pub points: u64,
}

impl ScoreCut {
    /// Whether a score passes. One that is not a number passes only where everything does.
    pub fn passes(&self, score: f32) -> bool {
        self.least.is_none_or(|least| score >= least)
    }
}

impl ScoreCut {
    /// Where `gate` cuts `scores`, `[samples]`, not a number where a sample has none: those are the worst.
    ///
    /// Equal scores pass or fail together: the cut is where the share that passes comes nearest to the gate's, and the
    /// best scores always pass. Nothing passes where there are no scores. O(n log n).
    pub fn measured(gate: &Gate, scores: &[f32]) -> Self {
        let mut sorted: Vec<f32> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let least = match gate {
            // As f32, which scores are: 0.7 passes a least score of 0.7.
            Gate::AtLeast { score, .. } => Some(*score as f32),
            Gate::Top { .. } => gate.share().map(|share| least(&sorted, share, scores.len())),
        };
        let points = scores.len() as u64;
        let passing = least.map_or(points, |least| sorted.partition_point(|&score| score >= least) as u64);
        Self { least, pass_rate: passing as f64 / points.max(1) as f64, points }
    }

    /// As if what is asked for passed, to check a policy before anything is measured.
    pub(crate) fn assumed(gate: &Gate) -> Self {
        Self { least: Some(f32::INFINITY), pass_rate: gate.share().unwrap_or(1.0), points: 0 }
    }
}

/// The least of the `descending` scores at which about `gate` of all `points` pass.
fn least(descending: &[f32], gate: f64, points: usize) -> f32 {
    let wanted = gate * points as f64;
    let mut best = (f64::INFINITY, f32::INFINITY);
    let mut passing = 0;
    for equal in descending.chunk_by(|a, b| a == b) {
        passing += equal.len();
        let off = (passing as f64 - wanted).abs();
        if off < best.0 {
            best = (off, equal[0]);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_all_samples_and_those_without_a_score_are_the_worst() {
        let mut scores: Vec<f32> = (0..80).map(|i| i as f32 / 100.0).collect();
        scores.extend([f32::NAN; 20]);
        let half = ScoreCut::measured(&Gate::top(0.5), &scores);
        assert_eq!((half.least, half.pass_rate, half.points), (Some(0.3), 0.5, 100));
        assert!(half.passes(0.3) && !half.passes(0.29) && !half.passes(f32::NAN));
        let most = ScoreCut::measured(&Gate::top(0.9), &scores);
        assert_eq!((most.least, most.pass_rate), (Some(0.0), 0.8), "no more have a score");
        let open = ScoreCut::measured(&Gate::OFF, &scores);
        assert!(open.passes(f32::NAN) && open.pass_rate == 1.0);
    }

    #[test]
    fn equal_scores_pass_together_and_the_best_always() {
        let scores = [1.0, 1.0, 1.0, 0.5, 0.5, 0.2, 0.1, 0.0, 0.0, 0.0];
        for (gate, passing) in [(0.1, 0.3), (0.3, 0.3), (0.39, 0.3), (0.41, 0.5), (0.6, 0.6), (1.0, 1.0)] {
            assert_eq!(ScoreCut::measured(&Gate::top(gate), &scores).pass_rate, passing, "{gate}");
        }
        let nothing = ScoreCut::measured(&Gate::top(0.5), &[f32::NAN, f32::NAN]);
        assert!(nothing.pass_rate == 0.0 && !nothing.passes(9.0));
    }

    #[test]
    fn a_least_score_is_itself() {
        let given = ScoreCut::measured(&Gate::at_least(0.7).by("s"), &[0.6, 0.7, 0.8, f32::NAN]);
        assert_eq!((given.least, given.pass_rate), (Some(0.7), 0.5));
        assert!(given.passes(0.7));
    }
}
