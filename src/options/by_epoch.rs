//! Numbers that change from an epoch on: a keep_ratio, the probability of a coin.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::options::{Refused, Setting};

/// One number for all epochs, or one from each of several epochs on: `0.25`, `{0: 0.25, 28: 1}`. What it holds is checked
/// where it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct ByEpoch {
    /// First epoch and number, ascending.
    steps: Vec<(u64, f64)>,
}

impl ByEpoch {
    /// The number of epoch 0, and those of later epochs, where all can be meant as `option`: `is_valid`, `of` says what.
    ///
    /// # Errors
    /// A number that is not valid; an epoch that is named twice; none for epoch 0.
    pub(crate) fn checked(
        &self,
        option: &'static str,
        of: &str,
        is_valid: impl Fn(f64) -> bool,
    ) -> Result<(f64, &[(u64, f64)])> {
        let refuse = |accepted: &str| Err(Error::option(option, self, accepted));
        if self.steps.iter().any(|(_, number)| !is_valid(*number)) {
            return match self.steps[..] {
                [(0, _)] => refuse(of),
                _ => refuse(&format!("{of} from each epoch on")),
            };
        }
        match self.steps.split_first() {
            _ if self.steps.windows(2).any(|pair| pair[0].0 == pair[1].0) => {
                refuse("a schedule that names each epoch once")
            }
            Some((&(0, first), later)) => Ok((first, later)),
            _ => refuse("a schedule that begins with epoch 0"),
        }
    }

    /// The number in `epoch`; 0 before the first. O(log steps).
    pub fn at(&self, epoch: u64) -> f64 {
        let after = self.steps.partition_point(|(from, _)| *from <= epoch);
        after.checked_sub(1).map_or(0.0, |step| self.steps[step].1)
    }

    /// The first number.
    pub fn first(&self) -> f64 {
        self.at(0)
    }

    /// Whether it changes.
    pub fn is_schedule(&self) -> bool {
        self.steps.len() > 1
    }
}

impl From<f64> for ByEpoch {
    fn from(number: f64) -> Self {
        Self { steps: vec![(0, number)] }
    }
}

impl From<Vec<(u64, f64)>> for ByEpoch {
    fn from(mut steps: Vec<(u64, f64)>) -> Self {
        steps.sort_by_key(|&(epoch, _)| epoch);
        Self { steps }
    }
}

impl<const N: usize> From<[(u64, f64); N]> for ByEpoch {
    fn from(steps: [(u64, f64); N]) -> Self {
        steps.to_vec().into()
    }
}

impl From<BTreeMap<u64, f64>> for ByEpoch {
    fn from(steps: BTreeMap<u64, f64>) -> Self {
        Self { steps: steps.into_iter().collect() }
    }
}

/// `0.25`, or `{0: 0.25, 28: 1}`.
impl fmt::Display for ByEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(0, number)] = self.steps[..] {
            return write!(f, "{number}");
        }
        let steps: Vec<String> =
            self.steps.iter().map(|(epoch, number)| format!("{epoch}: {number}")).collect();
        write!(f, "{{{}}}", steps.join(", "))
    }
}

/// A text that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct NotByEpoch;

impl FromStr for ByEpoch {
    type Err = NotByEpoch;

    /// As [`Display`](fmt::Display) writes it, with or without the braces.
    fn from_str(text: &str) -> Result<Self, NotByEpoch> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
        if !inner.contains(':') {
            return inner.trim().parse().map(|number: f64| number.into()).map_err(|_| NotByEpoch);
        }
        let step = |step: &str| -> Option<(u64, f64)> {
            let (epoch, number) = step.split_once(':')?;
            Some((epoch.trim().trim_matches('"').parse().ok()?, number.trim().parse().ok()?))
        };
        let steps: Option<Vec<_>> = inner.split(',').map(step).collect();
        Ok(steps.ok_or(NotByEpoch)?.into())
    }
}

/// A number, an object of them by first epoch, or a text.
impl Setting for ByEpoch {
    const ACCEPTED: &'static str = "a number, or {EPOCH: NUMBER, ..} with one from each epoch on";
    const PYTHON: &'static str = "float | Mapping[int, float]";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.parse().ok(),
            Value::Object(steps) => {
                let step = |(epoch, number): (&String, &Value)| Some((epoch.parse().ok()?, number.as_f64()?));
                steps.iter().map(step).collect::<Option<Vec<(u64, f64)>>>().map(Self::from)
            }
            _ => f64::from_value(value).map(Self::from),
        }
    }

    fn to_value(&self) -> Value {
        match self.steps[..] {
            [(0, number)] => number.to_value(),
            _ => Value::String(self.to_string()),
        }
    }

    fn read(value: &Value) -> Result<Self, Refused> {
        Self::from_value(value).ok_or(Refused::Type)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_they_are_written() {
        for text in ["0.25", "1", "{0: 0.25, 28: 1}"] {
            let read: ByEpoch = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
            assert_eq!(ByEpoch::from_value(&read.to_value()), Some(read));
        }
        let schedule = ByEpoch::from([(28, 1.0), (0, 0.25)]);
        assert_eq!("0:0.25,28:1.0".parse::<ByEpoch>().unwrap(), schedule);
        assert_eq!(ByEpoch::from_value(&serde_json::json!({"0": 0.25, "28": 1})), Some(schedule.clone()));
        assert_eq!([0, 27, 28, u64::MAX].map(|epoch| schedule.at(epoch)), [0.25, 0.25, 1.0, 1.0]);
        assert_eq!(ByEpoch::from(BTreeMap::from([(0, 0.5)])), 0.5.into());
        for wrong in ["", "{}", "a", "0.1:0.2", "0:0.2,", "{0: x}"] {
            assert_eq!(wrong.parse::<ByEpoch>(), Err(NotByEpoch), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let of = "a number in (0, 1]";
        let checked =
            |numbers: &ByEpoch| numbers.checked("keep_ratio", of, |n| n > 0.0 && n <= 1.0).map(|_| ());
        let refused = |numbers: ByEpoch| checked(&numbers).unwrap_err().to_string();
        checked(&ByEpoch::from([(0, 0.25), (28, 1.0)])).unwrap();
        assert_eq!(refused(1.5.into()), "invalid keep_ratio=1.5: expected a number in (0, 1]");
        for (steps, part) in [
            (
                vec![(0, 0.5), (3, 0.0)],
                "invalid keep_ratio={0: 0.5, 3: 0}: expected a number in (0, 1] from each",
            ),
            (vec![(1, 0.5)], "invalid keep_ratio={1: 0.5}: expected a schedule that begins with epoch 0"),
            (vec![(0, 0.5), (2, 0.1), (2, 0.2)], "names each epoch once"),
            (vec![], "begins with epoch 0"),
            (vec![(0, f64::NAN)], "a number in (0, 1]"),
        ] {
            assert!(refused(steps.into()).contains(part), "{part}");
        }
    }
}
