//! Where a loader stands: which epoch an iterator that begins now yields, and from which batch on.
//!
//! An epoch is over with its last batch, whether or not anybody asks for one more: many training loops take exactly
//! as many batches as there are. What comes next depends on how the loader got to where it is, which is all that is
//! kept here; no threads, no data.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The position of a loader, shared with its iterators.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<Position>);

#[derive(Debug)]
struct Position {
    epoch: u64,
    /// Batches of the epoch that were handed over.
    step: u64,
    then: Then,
    /// Counts the moves to another epoch or state: an iterator from before one must not go on.
    moves: u64,
    /// Whether it was said that an epoch which was broken off starts again.
    told: bool,
}

/// What an iterator does that begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It starts the epoch: nothing of it was handed over, or `set_epoch` has named it since.
    Start,
    /// It goes on where a loaded state left off, and with the next epoch where nothing is left.
    GoOn,
    /// It goes on in this epoch, which `set_epoch` has named too; where nothing is left, nothing comes.
    GoOnHere,
    /// Batches of the epoch were handed over: where they were all, it starts the next epoch, else this one again.
    Again,
}

/// What an iterator begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) epoch: u64,
    /// Batch from which on it yields the epoch.
    pub(crate) first_step: u64,
    /// [`Progress::moves`] as it began.
    pub(crate) moves: u64,
    /// Batches of the epoch that were handed over and come again, where nobody has asked for that: said once.
    pub(crate) repeats: Option<u64>,
}

impl Position {
    /// The epoch of the next batch, where an epoch has so many `batches`.
    fn current(&self, batches: impl Fn(u64) -> u64) -> u64 {
        match self.then {
            Then::GoOn | Then::Again if self.step >= batches(self.epoch) => self.epoch.saturating_add(1),
            _ => self.epoch,
        }
    }
}

impl Progress {
    /// At the start of epoch 0.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Position { epoch: 0, step: 0, then: Then::Start, moves: 0, told: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Epoch, and batches of it that were handed over: what a state says.
    pub(crate) fn position(&self) -> (u64, u64) {
        let position = self.lock();
        (position.epoch, position.step)
    }

    /// The epoch of the next batch.
    pub(crate) fn current(&self, batches: impl Fn(u64) -> u64) -> u64 {
        self.lock().current(batches)
    }

    /// Moves to another epoch or state so far.
    pub(crate) fn moves(&self) -> u64 {
        self.lock().moves
    }

    /// Moves to the start of `epoch`; where a state of it was just loaded, the position in it stays.
    pub(crate) fn set_epoch(&self, epoch: u64, batches: impl Fn(u64) -> u64) {
        let mut position = self.lock();
        if position.epoch != epoch {
            (position.epoch, position.step, position.then) = (epoch, 0, Then::Start);
            position.moves += 1;
            return;
        }
        match position.then {
            Then::Start => {}
            Then::GoOn | Then::GoOnHere => position.then = Then::GoOnHere,
            Then::Again => {
                position.then = Then::Start;
                // An iterator in the middle goes on, and a state says where it is.
                if position.step >= batches(epoch) {
                    position.step = 0;
                }
            }
        }
    }

    /// Moves to a saved position.
    pub(crate) fn load(&self, epoch: u64, step: u64) {
        let mut position = self.lock();
        (position.epoch, position.step, position.then) = (epoch, step, Then::GoOn);
        position.moves += 1;
    }

    /// What an iterator would begin with.
    pub(crate) fn next(&self, batches: impl Fn(u64) -> u64) -> Begin {
        let position = self.lock();
        let epoch = position.current(batches);
        let goes_on = matches!(position.then, Then::GoOn | Then::GoOnHere) && epoch == position.epoch;
        let breaks =
            position.then == Then::Again && epoch == position.epoch && position.step > 0 && !position.told;
        let (first_step, repeats) =
            (if goes_on { position.step } else { 0 }, breaks.then_some(position.step));
        Begin { epoch, first_step, moves: position.moves, repeats }
    }

    /// Notes that it has begun.
    pub(crate) fn begun(&self, begin: &Begin) {
        let mut position = self.lock();
        (position.epoch, position.step, position.then) = (begin.epoch, begin.first_step, Then::Again);
        position.told |= begin.repeats.is_some();
    }

    /// Notes that `step` batches of `epoch` have been handed over.
    pub(crate) fn handed_over(&self, epoch: u64, step: u64) {
        let mut position = self.lock();
        (position.epoch, position.step, position.then) = (epoch, step, Then::Again);
    }

    /// Notes that an iterator over `epoch` was used up; nothing where the loader is elsewhere by now.
    pub(crate) fn used_up(&self, epoch: u64) {
        let mut position = self.lock();
        if position.epoch == epoch && position.then == Then::Again {
            (position.epoch, position.step, position.then) = (epoch.saturating_add(1), 0, Then::Start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs of three batches.
    fn three(_: u64) -> u64 {
        3
    }

    /// Takes `n` batches of a new iterator: the epoch, the first of them, and whether they repeat others.
    fn take(progress: &Progress, n: u64) -> (u64, u64, bool) {
        let begin = progress.next(three);
        assert_eq!(progress.next(three), begin, "looking changes nothing");
        progress.begun(&begin);
        let Begin { epoch, first_step, repeats, .. } = begin;
        for step in first_step..(first_step + n).min(3) {
            progress.handed_over(epoch, step + 1);
        }
        if first_step + n > 3 {
            progress.used_up(epoch);
        }
        (epoch, first_step, repeats.is_some())
    }

    fn loaded(epoch: u64, step: u64) -> Progress {
        let progress = Progress::new();
        progress.load(epoch, step);
        progress
    }

    #[test]
    fn the_last_batch_ends_an_epoch() {
        for n in [3, 4] {
            let progress = Progress::new();
            for epoch in 0..4 {
                assert_eq!(take(&progress, n), (epoch, 0, false), "{n} asked for");
                assert_eq!(progress.current(three), epoch + 1);
            }
        }
    }

    #[test]
    fn what_was_broken_off_starts_again_and_that_is_said_once() {
        let progress = Progress::new();
        assert_eq!(take(&progress, 2), (0, 0, false));
        assert_eq!(take(&progress, 1), (0, 0, true));
        assert_eq!(take(&progress, 2), (0, 0, false));
        assert_eq!(take(&progress, 0), (0, 0, false));
        let progress = Progress::new();
        take(&progress, 2);
        progress.set_epoch(0, three);
        assert_eq!(take(&progress, 1), (0, 0, false), "asked for");
        assert_eq!(take(&progress, 3), (0, 0, true));
    }

    #[test]
    fn an_epoch_that_is_named_is_replayed() {
        for n in [2, 3, 4] {
            let progress = Progress::new();
            take(&progress, n);
            progress.set_epoch(0, three);
            assert_eq!(progress.position(), (0, if n == 2 { 2 } else { 0 }));
            assert_eq!(take(&progress, n), (0, 0, false), "{n} asked for");
        }
    }

    #[test]
    fn a_loaded_place_is_used_once() {
        let progress = loaded(5, 1);
        progress.set_epoch(5, three);
        progress.set_epoch(5, three);
        assert_eq!(take(&progress, 2), (5, 1, false));
        assert_eq!(take(&progress, 1), (6, 0, false));
        let progress = loaded(5, 1);
        progress.set_epoch(6, three);
        assert_eq!(take(&progress, 3), (6, 0, false), "elsewhere");
        progress.set_epoch(5, three);
        assert_eq!(take(&progress, 3), (5, 0, false));
    }

    #[test]
    fn a_state_of_the_end_goes_on_with_the_next_epoch_or_with_nothing_where_its_own_is_named() {
        let progress = loaded(5, 3);
        assert_eq!(progress.current(three), 6);
        assert_eq!(take(&progress, 3), (6, 0, false));
        // `for e in range(state.epoch, ..): set_epoch(e)`.
        let progress = loaded(5, 3);
        progress.set_epoch(5, three);
        assert_eq!((progress.current(three), progress.position()), (5, (5, 3)));
        assert_eq!(take(&progress, 1), (5, 3, false));
        assert_eq!(progress.position(), (6, 0));
        progress.set_epoch(6, three);
        assert_eq!(take(&progress, 3), (6, 0, false));
    }

    #[test]
    fn an_iterator_that_others_have_overtaken_moves_nothing() {
        let progress = Progress::new();
        take(&progress, 3);
        take(&progress, 1);
        assert_eq!(progress.position(), (1, 1));
        progress.used_up(0);
        assert_eq!(progress.position(), (1, 1));
        let moves = progress.moves();
        progress.set_epoch(1, three);
        assert_eq!(progress.moves(), moves, "the epoch that it is in moves nothing");
        progress.set_epoch(2, three);
        assert_eq!(progress.moves(), moves + 1);
    }
}
