//! Values that change from an epoch on.

use crate::error::Result;

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

#[cfg(test)]
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
}
