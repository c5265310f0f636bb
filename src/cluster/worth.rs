//! What a gate by alignment is worth: whether the captioner tells true captions from swapped ones.
//!
//! A gate drops what aligns badly. Where alignment is chance, it drops good and bad pairs alike, and nothing else that
//! selection promises shows it: quotas are kept, inclusion is unbiased, all of a random half. So training and
//! fitting measure it, the captioner directory carries it, and whoever uses the gate says it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::agreement::paired_auc;

/// AUC below which a gate is said to be close to chance: of ten pairs it then orders six rightly.
const USEFUL: f64 = 0.6;
/// Standard errors from 0.5 within which an AUC may be chance.
const ERRORS: f64 = 2.0;

/// What was measured on pairs of an image with its own caption and with another image's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Images that were scored with both.
    pub pairs: u64,
    /// Mean negative log-likelihood of a caption token given its image, in nats; `None` of a model that writes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lm_loss: Option<f64>,
    /// Chance that an image's own caption aligns better with it than a swapped one with its image: 0.5 is guessing, 1
    /// perfect. Alignment is raw: the sum over the caption's tokens, or a matcher's log-odds.
    pub auc: f64,
    /// Standard error of `auc`: [`paired_auc`] says how it is computed.
    pub auc_error: f64,
}

impl Validation {
    /// Of the alignments of images with their `own` and with `swapped` captions; `None` of fewer than two, or of a loss
    /// that is no number.
    pub fn of(own: &[f32], swapped: &[f32], lm_loss: Option<f64>) -> Option<Self> {
        let pairs = own.len().min(swapped.len());
        let (auc, auc_error) = paired_auc(own, swapped);
        (pairs >= 2 && lm_loss.is_none_or(f64::is_finite)).then_some(Self {
            pairs: pairs as u64,
            lm_loss,
            auc,
            auc_error,
        })
    }

    /// Tokens among which the captioner is as good as undecided at each place of a caption: exp(`lm_loss`).
    pub fn perplexity(&self) -> Option<f64> {
        self.lm_loss.map(f64::exp)
    }

    /// Whether the AUC is below 0.6, or within two standard errors of 0.5.
    pub fn is_close_to_chance(&self) -> bool {
        self.auc.is_nan() || self.auc < USEFUL || (self.auc - 0.5).abs() <= ERRORS * self.auc_error
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pairs, auc, auc_error, .. } = self;
        write!(f, "AUC {auc:.3} ± {auc_error:.3}, ")?;
        if let Some(perplexity) = self.perplexity() {
            write!(f, "perplexity {perplexity:.1}, ")?;
        }
        write!(f, "{pairs} pairs")
    }
}

/// Which pairs were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredOn {
    /// Pairs that were held out of the training.
    HeldOut,
    /// Pairs of the fit's sample.
    Sample,
    /// Pairs that the captioner was trained on: it knows their captions, and does worse on others.
    Trained,
}

impl MeasuredOn {
    /// Name in files and statistics: `held-out`, `sample` or `trained`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeldOut => "held-out",
            Self::Sample => "sample",
            Self::Trained => "trained",
        }
    }
}

impl fmt::Display for MeasuredOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeldOut => "held out of the training",
            Self::Sample => "from the fit's sample",
            Self::Trained => "that it was trained on, so that new pairs will do worse",
        })
    }
}

/// What is known of a gate by a captioner's alignment. Displays as one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GateWorth {
    /// What was measured.
    pub validation: Validation,
    /// On which pairs.
    pub on: MeasuredOn,
}

impl GateWorth {
    /// What to say of a gate whose worth is `known`, in one sentence.
    pub fn sentence(known: Option<&Self>) -> String {
        match known {
            Some(worth) => worth.to_string(),
            None => "not measured: whether the scorer tells true captions from swapped ones is not known, since no fit of this \
                     version found captions that differ in the tokens the captioner reads; fit it to pairs with captions of their \
                     own, or turn the gate off (gate=top(1))"
                .into(),
        }
    }

    /// What the user of a gate should know, where it is close to chance.
    pub fn warning(&self) -> Option<String> {
        let Validation { auc, auc_error, .. } = self.validation;
        self.validation.is_close_to_chance().then(|| {
            format!(
                "the gate is close to chance: the scorer tells true captions from swapped ones with an AUC of \
                 {auc:.3} ± {auc_error:.3} (0.5 is guessing), so that a gate by alignment drops good and bad pairs alike; \
                 take a better one (train a captioner on more pairs or for longer, load a BLIP or a CLIP), gate by a score of the corpus (gate = \
                 top(0.5, by=FIELD)), or turn the gate off (gate=top(1))"
            )
        })
    }
}

impl fmt::Display for GateWorth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { validation, on } = self;
        write!(
            f,
            "{validation} {on}: in {:.0} of 100 cases a true caption aligns better than a swapped one, where guessing gets 50",
            100.0 * validation.auc
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn worth(auc: f64, auc_error: f64) -> GateWorth {
        let validation = Validation { pairs: 104, lm_loss: Some(3.0), auc, auc_error };
        GateWorth { validation, on: MeasuredOn::HeldOut }
    }

    #[test]
    fn chance_is_below_six_in_ten_or_within_two_errors_of_a_half() {
        for (auc, error, close) in [
            (0.53, 0.02, true),
            (0.59, 0.001, true),
            (0.61, 0.02, false),
            (0.61, 0.06, true),
            (0.9, 0.2, true),
            (0.9, 0.02, false),
            (0.2, 0.01, true),
            (f64::NAN, 0.01, true),
        ] {
            let worth = worth(auc, error);
            assert_eq!(worth.validation.is_close_to_chance(), close, "{auc} ± {error}");
            assert_eq!(worth.warning().is_some(), close);
        }
        let text = worth(0.534, 0.021).to_string();
        assert_eq!(
            text,
            "AUC 0.534 ± 0.021, perplexity 20.1, 104 pairs held out of the training: in 53 of 100 cases a true \
             caption aligns better than a swapped one, where guessing gets 50"
        );
        assert!(worth(0.534, 0.021).warning().unwrap().contains("close to chance"));
        assert!(GateWorth::sentence(None).contains("not measured"));
    }

    #[test]
    fn two_subjects_at_least_are_measured() {
        assert_eq!(Validation::of(&[1.0], &[0.0], None), None);
        let found = Validation::of(&[1.0, 2.0], &[0.0, 0.5], Some(1.0)).unwrap();
        assert_eq!((found.pairs, found.auc), (2, 1.0));
        assert!((found.perplexity().unwrap() - std::f64::consts::E).abs() < 1e-12);
    }
}
