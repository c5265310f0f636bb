//! Values that change from an epoch on, and the keep_ratio of a policy as one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A value for every epoch: each holds from its epoch on until the next begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule<T> {
    /// The value from epoch 0 on.
    first: T,
    /// First epoch of each later value, ascending.
    later: Vec<(u64, T)>,
}

impl<T> Schedule<T> {
    /// `first` from epoch 0 on, then each of `later` from its epoch on; these ascend.
    pub(crate) fn new(first: T, later: Vec<(u64, T)>) -> Self {
        Self { first, later }
    }

    /// The value in `epoch`. O(log steps).
    pub(crate) fn at(&self, epoch: u64) -> &T {
        let after = self.later.partition_point(|(from, _)| *from <= epoch);
        after.checked_sub(1).map_or(&self.first, |step| &self.later[step].1)
    }

    /// The values of the epochs `0..epoch`, each with the number of epochs that it holds for.
    pub(crate) fn before(&self, epoch: u64) -> impl Iterator<Item = (&T, u64)> {
        let ends = self.later.iter().map(|(from, _)| *from).chain([u64::MAX]);
        self.steps().zip(ends).map_while(move |((from, value), end)| {
            let epochs = end.min(epoch).saturating_sub(from);
            (epochs > 0).then_some((value, epochs))
        })
    }

    /// Every value with its first epoch.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u64, &T)> {
        std::iter::once((0, &self.first)).chain(self.later.iter().map(|(from, value)| (*from, value)))
    }

    /// The same steps with what `of(first epoch, value)` makes of each value.
    ///
    /// # Errors
    /// The first of `of`.
    pub(crate) fn map<U>(&self, mut of: impl FnMut(u64, &T) -> Result<U>) -> Result<Schedule<U>> {
        let first = of(0, &self.first)?;
        let later = self.later.iter().map(|(from, value)| Ok((*from, of(*from, value)?)));
        Ok(Schedule { first, later: later.collect::<Result<_>>()? })
    }
}

/// Share of the readable samples to keep: one number, or one from each of several epochs on, as in
/// `[(0, 0.25), (28, 1.0)]`. What it holds is checked where it is used.
///
/// In a schedule, 1 keeps every readable sample: gate, near-copies and quota say nothing in these epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct KeepRatio {
    /// First epoch and ratio, ascending.
    steps: Vec<(u64, f64)>,
}

impl KeepRatio {
    /// The ratio of epoch 0, and those of later epochs.
    ///
    /// # Errors
    /// A ratio outside of (0, 1]; an epoch that is named twice; none for epoch 0.
    pub(crate) fn checked(&self) -> Result<(f64, Vec<(u64, f64)>)> {
        let refuse = |accepted: &str| Err(Error::option("keep_ratio", self, accepted));
        if let Some((_, ratio)) = self.steps.iter().find(|(_, ratio)| !is_ratio(*ratio)) {
            return match self.steps[..] {
                [(0, _)] => Err(Error::option("keep_ratio", ratio, "a number in (0, 1]")),
                _ => refuse("a number in (0, 1] from each epoch on"),
            };
        }
        match self.steps.split_first() {
            _ if self.steps.windows(2).any(|pair| pair[0].0 == pair[1].0) => {
                refuse("a schedule that names each epoch once")
            }
            Some((&(0, first), later)) => Ok((first, later.to_vec())),
            _ => refuse("a schedule that begins with epoch 0"),
        }
    }
}

/// Whether a ratio can be meant.
pub(crate) fn is_ratio(ratio: f64) -> bool {
    ratio > 0.0 && ratio <= 1.0
}

impl From<f64> for KeepRatio {
    fn from(ratio: f64) -> Self {
        Self { steps: vec![(0, ratio)] }
    }
}

impl From<Vec<(u64, f64)>> for KeepRatio {
    fn from(mut steps: Vec<(u64, f64)>) -> Self {
        steps.sort_by_key(|&(epoch, _)| epoch);
        Self { steps }
    }
}

impl<const N: usize> From<[(u64, f64); N]> for KeepRatio {
    fn from(steps: [(u64, f64); N]) -> Self {
        steps.to_vec().into()
    }
}

impl From<BTreeMap<u64, f64>> for KeepRatio {
    fn from(steps: BTreeMap<u64, f64>) -> Self {
        Self { steps: steps.into_iter().collect() }
    }
}

/// `0.25`, or `{0: 0.25, 28: 1}`.
impl fmt::Display for KeepRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(0, ratio)] = self.steps[..] {
            return write!(f, "{ratio}");
        }
        let steps: Vec<String> =
            self.steps.iter().map(|(epoch, ratio)| format!("{epoch}: {ratio}")).collect();
        write!(f, "{{{}}}", steps.join(", "))
    }
}

impl FromStr for KeepRatio {
    type Err = Error;

    /// As [`Display`](fmt::Display) writes it, with or without the braces.
    fn from_str(text: &str) -> Result<Self> {
        let unreadable = || {
            let accepted = "a number in (0, 1], or EPOCH: NUMBER, .. with one from each epoch on";
            Error::option("keep_ratio", format!("{text:?}"), accepted)
        };
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
        if !inner.contains(':') {
            return inner.trim().parse().map(|ratio: f64| ratio.into()).map_err(|_| unreadable());
        }
        let step = |step: &str| -> Option<(u64, f64)> {
            let (epoch, ratio) = step.split_once(':')?;
            Some((epoch.trim().parse().ok()?, ratio.trim().parse().ok()?))
        };
        let steps: Option<Vec<_>> = inner.split(',').map(step).collect();
        Ok(steps.ok_or_else(unreadable)?.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_from_its_epoch_on() {
        let schedule = Schedule::new('a', vec![(3, 'b'), (4, 'c'), (9, 'd')]);
        let found: String = (0..11).map(|epoch| *schedule.at(epoch)).collect();
        assert_eq!(found, "aaabcccccdd");
        for epoch in 0..12 {
            let runs = schedule.before(epoch).flat_map(|(value, n)| std::iter::repeat_n(*value, n as usize));
            assert_eq!(runs.collect::<String>(), "aaabcccccddd"[..epoch as usize], "{epoch}");
        }
        assert_eq!(schedule.before(u64::MAX).map(|(_, n)| n).sum::<u64>(), u64::MAX);
    }

    #[test]
    fn ratios_are_read_as_they_are_written() {
        for text in ["0.25", "1", "{0: 0.25, 28: 1}"] {
            assert_eq!(text.parse::<KeepRatio>().unwrap().to_string(), text);
        }
        let schedule = KeepRatio::from([(28, 1.0), (0, 0.25)]);
        assert_eq!("0:0.25,28:1.0".parse::<KeepRatio>().unwrap(), schedule);
        assert_eq!(schedule.checked().unwrap(), (0.25, vec![(28, 1.0)]));
        assert_eq!(KeepRatio::from(BTreeMap::from([(0, 0.5)])), 0.5.into());
        for wrong in ["", "{}", "a", "0.1:0.2", "0:0.2,", "{0: x}"] {
            assert!(wrong.parse::<KeepRatio>().unwrap_err().to_string().contains("EPOCH: NUMBER"), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let refused = |ratio: KeepRatio| ratio.checked().unwrap_err().to_string();
        assert_eq!(refused(1.5.into()), "keep_ratio = 1.5: a number in (0, 1]");
        for (steps, part) in [
            (vec![(0, 0.5), (3, 0.0)], "keep_ratio = {0: 0.5, 3: 0}: a number in (0, 1] from each"),
            (vec![(1, 0.5)], "keep_ratio = {1: 0.5}: a schedule that begins with epoch 0"),
            (vec![(0, 0.5), (2, 0.1), (2, 0.2)], "names each epoch once"),
            (vec![], "begins with epoch 0"),
            (vec![(0, f64::NAN)], "a number in (0, 1]"),
        ] {
            assert!(refused(steps.into()).contains(part), "{part}");
        }
    }
}
