//! Kept samples that wait for the next batch of their lane, since one like them is in this one.
//!
//! A lane's own stretch of every global batch is a function of the lane, whatever the ranks: what is put
//! off is decided within it. Two that are alike in different lanes may still meet in one batch.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::loader::duplicates::Seen;
use crate::loader::kept::Kept;

/// Kept samples of a lane that may wait at a time; where more would, the one that has waited longest is let
/// through.
const WAITING: usize = 64;

/// A kept sample as far as another can be like it.
pub(crate) trait Comparable {
    /// Whether one in `seen` has the same caption, or nearly the same image.
    fn is_in(&self, seen: &Seen) -> bool;

    /// Adds it to `seen`.
    fn add_to(&self, seen: &mut Seen);
}

impl Comparable for Arc<Kept> {
    fn is_in(&self, seen: &Seen) -> bool {
        self.text.is_some_and(|text| seen.has_caption(text))
            || self.look.is_some_and(|image| seen.has_image(&image))
    }

    fn add_to(&self, seen: &mut Seen) {
        if let Some(text) = self.text {
            seen.add_caption(text);
        }
        if let Some(image) = &self.look {
            seen.add_image(image);
        }
    }
}

/// The kept samples of one lane that wait, longest first.
#[derive(Debug)]
pub(crate) struct Deferring<T> {
    waiting: VecDeque<T>,
}

impl<T> Default for Deferring<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T: Comparable> Deferring<T> {
    /// The lane's next `n`: those that wait first, then what `next` gives. What is like one that was
    /// taken waits for the next stretch; only where nothing else is left does it fill a row of this
    /// one. Returns fewer where there are no more, and how many began to wait.
    ///
    /// # Errors
    /// Those of `next`.
    pub(crate) fn take(
        &mut self,
        n: usize,
        mut next: impl FnMut() -> Result<Option<T>>,
    ) -> Result<(Vec<T>, u64)> {
        let (mut taken, mut seen, mut began) = (Vec::with_capacity(n), Seen::default(), 0);
        // Of those that wait, the ones that this stretch has looked at.
        let mut again = VecDeque::new();
        while taken.len() < n {
            let (one, waited) = match self.waiting.pop_front() {
                Some(one) => (one, true),
                None => match next()? {
                    Some(one) => (one, false),
                    None => break,
                },
            };
            if !one.is_in(&seen) {
                one.add_to(&mut seen);
                taken.push(one);
                continue;
            }
            began += u64::from(!waited);
            again.push_back(one);
            if self.waiting.len() + again.len() > WAITING {
                taken.extend(again.pop_front());
            }
        }
        while taken.len() < n
            && let Some(one) = again.pop_front()
        {
            taken.push(one);
        }
        // They have waited longer than what was not looked at.
        again.append(&mut self.waiting);
        self.waiting = again;
        Ok((taken, began))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hash::{Purpose, Rng};

    /// Number and caption.
    impl Comparable for (usize, u64) {
        fn is_in(&self, seen: &Seen) -> bool {
            seen.has_caption(self.1)
        }

        fn add_to(&self, seen: &mut Seen) {
            seen.add_caption(self.1);
        }
    }

    fn stretches(captions: &[u64], n: usize) -> Vec<Vec<(usize, u64)>> {
        let mut stream = captions.iter().copied().enumerate();
        let mut deferring = Deferring::default();
        let mut all = vec![];
        loop {
            let (taken, _) = deferring.take(n, || Ok(stream.next())).unwrap();
            assert!(deferring.len() <= WAITING);
            if taken.is_empty() {
                return all;
            }
            all.push(taken);
        }
    }

    #[test]
    fn duplicates_wait_for_the_next_stretch() {
        let found = stretches(&[1, 1, 2, 1, 3, 4, 5, 5], 3);
        // 1 is put off twice, each time behind what comes after it until a stretch without it begins.
        assert_eq!(
            found,
            [[(0, 1), (2, 2), (4, 3)].to_vec(), vec![(1, 1), (5, 4), (6, 5)], vec![(3, 1), (7, 5)]]
        );
    }

    #[test]
    fn every_kept_sample_is_taken_once_and_places_are_filled() {
        let mut rng = Rng::new(1, Purpose::Synth, 0);
        for _ in 0..300 {
            let (total, kinds, n) = (rng.below(400), 1 + rng.below(60), 1 + rng.below(20));
            let captions: Vec<u64> = (0..total).map(|_| rng.below(kinds) as u64).collect();
            let found = stretches(&captions, n);
            let mut numbers: Vec<usize> = found.iter().flatten().map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..total).collect::<Vec<_>>());
            let full = found.iter().rev().skip(1).all(|stretch| stretch.len() == n);
            assert!(full, "only the last may lack some");
        }
    }

    #[test]
    fn with_enough_others_no_stretch_has_two_alike() {
        let mut rng = Rng::new(2, Purpose::Synth, 0);
        // One in 50 is like another; stretches of 8.
        let captions: Vec<u64> = (0..4000u64).map(|i| if rng.below(50) == 0 { 0 } else { i + 1 }).collect();
        let found = stretches(&captions, 8);
        for stretch in &found[..found.len() - 10] {
            assert!(stretch.iter().filter(|(_, caption)| *caption == 0).count() <= 1, "{stretch:?}");
        }
    }

    #[test]
    fn no_more_wait_than_may() {
        let found = stretches(&[7; 1000], 4);
        assert_eq!(found.len(), 250);
        let order: Vec<usize> = found.concat().iter().map(|(number, _)| *number).collect();
        let off = order.iter().enumerate().map(|(at, number)| at.abs_diff(*number)).max();
        assert!(off.unwrap() <= WAITING + 4, "{off:?}");
    }
}
