//! Draws from a stream whose length nobody knows, in bounded memory: by hash, so that order and threads change nothing.

use std::collections::BTreeMap;

use tldr_loader::SampleId;
use tldr_loader::hash;

/// Where a sample is: shard, window in it, row in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) shard: u64,
    pub(crate) window: u64,
    pub(crate) row: usize,
}

/// The number by which a sample is drawn for one purpose.
pub(crate) fn lot(seed: u64, purpose: &str, id: SampleId) -> u64 {
    hash::combine(&[seed, hash::hash_str(purpose), id.0])
}

/// Keeps the values of the least keys, `room` at most.
#[derive(Debug, Clone)]
pub(crate) struct Least<V> {
    room: usize,
    held: BTreeMap<(i64, u64), V>,
}

impl<V> Least<V> {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, held: BTreeMap::new() }
    }

    /// Takes the value in, if its key is among the least: `rank` first, then the lot.
    pub(crate) fn offer(&mut self, rank: i64, lot: u64, value: impl FnOnce() -> V) {
        let key = (rank, lot);
        if self.room == 0
            || self.held.len() == self.room
                && self.held.last_key_value().is_some_and(|(last, _)| *last <= key)
        {
            return;
        }
        self.held.insert(key, value());
        if self.held.len() > self.room {
            self.held.pop_last();
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.held.values()
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = V> {
        self.held.into_values()
    }
}

/// A number whose order is that of `x`.
pub(crate) fn rank(x: f32) -> i64 {
    let bits = i64::from(x.to_bits() as i32);
    if bits < 0 { i64::from(i32::MIN) - bits } else { bits }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_least_are_kept_whatever_the_order() {
        let draw = |order: &mut dyn Iterator<Item = u64>| {
            let mut least = Least::new(5);
            for i in order {
                least.offer((i % 3) as i64, lot(1, "x", SampleId(i)), || i);
            }
            least.into_values().collect::<Vec<_>>()
        };
        let found = draw(&mut (0..100));
        assert_eq!(found, draw(&mut (0..100).rev()));
        assert!(found.len() == 5 && found.iter().all(|i| i % 3 == 0));
    }

    #[test]
    fn ranks_are_in_order() {
        let sorted = [f32::NEG_INFINITY, -2.0, -1e-9, 0.0, 1e-9, 0.5, 3.0, f32::INFINITY];
        assert!(sorted.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
    }
}
