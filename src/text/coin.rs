//! The coin of caption fusion: how likely the generated caption is, by epoch.
//!
//! Training on either caption by a coin keeps both kinds of text in the data (VeCLIP, arXiv
//! 2310.07699; MetaCLIP 1.2 mixes likewise); a schedule moves from one to the other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Probability of the generated caption in every epoch: one number, or a number from an epoch on.
#[derive(Debug, Clone, PartialEq)]
pub struct Coin {
    /// Epochs, ascending from 0, and the probability from each on.
    steps: Arc<[(u64, f64)]>,
}

impl Coin {
    /// Either caption in every epoch.
    pub fn fair() -> Self {
        Self { steps: Arc::new([(0, 0.5)]) }
    }

    /// The same probability in every epoch.
    ///
    /// # Errors
    /// A number outside of [0, 1].
    pub fn new(probability: f64) -> Result<Self> {
        Self::schedule([(0, probability)])
    }

    /// A probability from each named epoch on: `[(0, 0.2), (10, 0.5)]`. One of them is epoch 0.
    ///
    /// # Errors
    /// A number outside of [0, 1]; an epoch that is named twice; none for epoch 0.
    pub fn schedule(steps: impl IntoIterator<Item = (u64, f64)>) -> Result<Self> {
        let mut steps: Vec<(u64, f64)> = steps.into_iter().collect();
        steps.sort_by_key(|&(epoch, _)| epoch);
        let refuse = |accepted: &str| Err(Error::option("fuse", show(&steps), accepted));
        if steps.iter().any(|(_, p)| !(0.0..=1.0).contains(p)) {
            return refuse("probabilities of the generated caption, in [0, 1]");
        }
        if steps.first().is_none_or(|&(epoch, _)| epoch != 0) {
            return refuse("a schedule that begins with epoch 0");
        }
        if steps.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return refuse("a schedule that names each epoch once");
        }
        Ok(Self { steps: steps.into() })
    }

    /// Probability of the generated caption in `epoch`. O(log steps).
    pub fn probability(&self, epoch: u64) -> f64 {
        let after = self.steps.partition_point(|&(from, _)| from <= epoch);
        after.checked_sub(1).map_or(0.0, |step| self.steps[step].1)
    }
}

/// `coin:0.5`, or `coin:{0: 0.2, 10: 0.5}`.
fn show(steps: &[(u64, f64)]) -> String {
    if let [(0, probability)] = steps {
        return format!("coin:{probability}");
    }
    let steps: Vec<String> = steps.iter().map(|(epoch, p)| format!("{epoch}: {p}")).collect();
    format!("coin:{{{}}}", steps.join(", "))
}

impl fmt::Display for Coin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.steps))
    }
}

impl FromStr for Coin {
    type Err = Error;

    /// `coin`, `coin:0.3` or `coin:{0: 0.2, 10: 0.5}`, as [`Display`](fmt::Display) writes it.
    fn from_str(text: &str) -> Result<Self> {
        let unreadable = || {
            let accepted =
                "coin, coin:P with a probability, or coin:{EPOCH: P, ..} with one from each epoch on";
            Error::option("fuse", text, accepted)
        };
        let Some((_, value)) = text.split_once(':') else {
            return if text == "coin" { Ok(Self::fair()) } else { Err(unreadable()) };
        };
        let Some(steps) = value.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return Self::new(value.trim().parse().map_err(|_| unreadable())?);
        };
        let step = |step: &str| -> Option<(u64, f64)> {
            let (epoch, probability) = step.split_once(':')?;
            Some((epoch.trim().parse().ok()?, probability.trim().parse().ok()?))
        };
        Self::schedule(steps.split(',').map(step).collect::<Option<Vec<_>>>().ok_or_else(unreadable)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_holds_from_each_epoch_on() {
        let coin = Coin::schedule([(10, 0.5), (0, 0.2), (12, 1.0)]).unwrap();
        let found: Vec<f64> = [0, 1, 9, 10, 11, 12, u64::MAX].map(|epoch| coin.probability(epoch)).into();
        assert_eq!(found, [0.2, 0.2, 0.2, 0.5, 0.5, 1.0, 1.0]);
        assert_eq!(Coin::new(0.3).unwrap().probability(7), 0.3);
    }

    #[test]
    fn coins_are_read_as_they_are_written() {
        for text in ["coin:0.5", "coin:0", "coin:{0: 0.2, 10: 0.5}"] {
            assert_eq!(text.parse::<Coin>().unwrap().to_string(), text);
        }
        assert_eq!("coin".parse::<Coin>().unwrap(), Coin::fair());
        assert_eq!("coin:{10:1,0:0}".parse::<Coin>().unwrap().to_string(), "coin:{0: 0, 10: 1}");
        for (wrong, says) in [
            ("coin:2", "in [0, 1]"),
            ("coin:NaN", "in [0, 1]"),
            ("coin:", "coin:P"),
            ("coin:{}", "coin:{EPOCH"),
            ("coin:{0: x}", "coin:{EPOCH"),
            ("coin:{1: 0.5}", "begins with epoch 0"),
            ("coin:{0: 0.5, 0: 0.6}", "each epoch once"),
            ("coins", "coin:P"),
        ] {
            let error = wrong.parse::<Coin>().unwrap_err().to_string();
            assert!(error.starts_with("fuse = coin") && error.contains(says), "{wrong}: {error}");
        }
    }
}
