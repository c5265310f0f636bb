//! Gates by a score that the corpus already has: LAION's `similarity`, DataComp's CLIP scores.
//!
//! Scores have no scale of their own, so a share is turned into the least score that passes by the scores of a
//! sample of the corpus, taken before it is read ([`survey`](crate::shard::survey)).

use crate::error::{Error, Result};
use crate::hash;

/// Which score gates, and what was measured of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreGate {
    /// Field of the json member, or column of the Parquet file beside the shard, that holds it.
    pub key: String,
    /// Least score that passes; where `None`, that of [`Policy::gate`](crate::select::Policy::gate), a share.
    pub threshold: Option<f64>,
    /// What was measured: a policy decides by it.
    pub measured: Option<ScoreCut>,
}

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

impl ScoreGate {
    /// A gate by `key`, of which nothing is measured yet.
    pub fn new(key: impl Into<String>, threshold: Option<f64>) -> Self {
        Self { key: key.into(), threshold, measured: None }
    }

    /// Measures on `scores`, `[samples]`, not a number where a sample has none: those are the worst. `gate` is
    /// the share that is to pass; ignored where there is a threshold.
    ///
    /// Equal scores pass or fail together: the cut is where the share that passes comes nearest to `gate`, and the
    /// best scores always pass. Nothing passes where there are no scores. O(n log n).
    #[must_use]
    pub fn measured(mut self, gate: Option<f64>, scores: &[f32]) -> Self {
        let mut sorted: Vec<f32> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let least = match (self.threshold, gate) {
            // As f32, which scores are: 0.7 passes a threshold of 0.7.
            (Some(threshold), _) => Some(threshold as f32),
            (None, Some(gate)) => Some(least(&sorted, gate, scores.len())),
            (None, None) => None,
        };
        let points = scores.len() as u64;
        let passing = least.map_or(points, |least| sorted.partition_point(|&score| score >= least) as u64);
        self.measured = Some(ScoreCut { least, pass_rate: passing as f64 / points.max(1) as f64, points });
        self
    }

    /// As if what is asked for passed, to check a policy before anything is measured.
    #[must_use]
    pub(crate) fn assumed(mut self, gate: Option<f64>) -> Self {
        let pass_rate = if self.threshold.is_some() { 1.0 } else { gate.unwrap_or(1.0) };
        self.measured = Some(ScoreCut { least: Some(f32::INFINITY), pass_rate, points: 0 });
        self
    }

    /// What was measured.
    ///
    /// # Errors
    /// Nothing was.
    pub(crate) fn cut(&self) -> Result<ScoreCut> {
        self.measured.ok_or_else(|| {
            let accepted = "a policy whose scores were measured on the corpus: ScoreGate::measured";
            Error::option("score_key", format!("{:?}", self.key), accepted)
        })
    }

    /// Identifies key and cut.
    pub(crate) fn fingerprint(&self) -> u64 {
        let [cut, least, rate] = self.measured.map_or([0; 3], |cut| {
            let least = cut.least.map_or(0, |least| 1 + u64::from(least.to_bits()));
            [1, least, cut.pass_rate.to_bits()]
        });
        let threshold = self.threshold.map_or(0, f64::to_bits);
        hash::combine(&[hash::hash_str(&self.key), threshold, cut, least, rate])
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cut(threshold: Option<f64>, gate: Option<f64>, scores: &[f32]) -> ScoreCut {
        ScoreGate::new("s", threshold).measured(gate, scores).cut().unwrap()
    }

    #[test]
    fn a_share_is_of_all_samples_and_those_without_a_score_are_the_worst() {
        let mut scores: Vec<f32> = (0..80).map(|i| i as f32 / 100.0).collect();
        scores.extend([f32::NAN; 20]);
        let half = cut(None, Some(0.5), &scores);
        assert_eq!((half.least, half.pass_rate, half.points), (Some(0.3), 0.5, 100));
        assert!(half.passes(0.3) && !half.passes(0.29) && !half.passes(f32::NAN));
        let most = cut(None, Some(0.9), &scores);
        assert_eq!((most.least, most.pass_rate), (Some(0.0), 0.8), "no more have a score");
        let open = cut(None, None, &scores);
        assert!(open.passes(f32::NAN) && open.pass_rate == 1.0);
    }

    #[test]
    fn equal_scores_pass_together_and_the_best_always() {
        let scores = [1.0, 1.0, 1.0, 0.5, 0.5, 0.2, 0.1, 0.0, 0.0, 0.0];
        for (gate, passing) in [(0.1, 0.3), (0.3, 0.3), (0.39, 0.3), (0.41, 0.5), (0.6, 0.6), (1.0, 1.0)] {
            assert_eq!(cut(None, Some(gate), &scores).pass_rate, passing, "{gate}");
        }
        let nothing = cut(None, Some(0.5), &[f32::NAN, f32::NAN]);
        assert!(nothing.pass_rate == 0.0 && !nothing.passes(9.0));
    }

    #[test]
    fn a_threshold_is_itself() {
        let given = cut(Some(0.7), Some(0.1), &[0.6, 0.7, 0.8, f32::NAN]);
        assert_eq!((given.least, given.pass_rate), (Some(0.7), 0.5));
        assert!(given.passes(0.7));
    }

    #[test]
    fn what_was_measured_is_part_of_the_fingerprint() {
        let gate = || ScoreGate::new("s", None);
        let one = gate().measured(Some(0.5), &[0.1, 0.2, 0.3, 0.4]);
        assert_eq!(one.fingerprint(), gate().measured(Some(0.5), &[0.4, 0.3, 0.2, 0.1]).fingerprint());
        let others = [
            gate(),
            gate().measured(Some(0.5), &[0.1, 0.2, 0.35, 0.4]),
            gate().measured(Some(0.5), &[0.1, 0.2, 0.3, 0.4, 0.0]),
            ScoreGate::new("t", None).measured(Some(0.5), &[0.1, 0.2, 0.3, 0.4]),
        ];
        others.iter().for_each(|other| assert_ne!(one.fingerprint(), other.fingerprint()));
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<ScoreGate>(&json).unwrap(), one);
    }
}
