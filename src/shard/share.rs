//! A share of a corpus, drawn by hash: what a training run holds out where there are too few shards to hold out
//! whole ones.

use crate::hash::{self, Purpose};
use crate::sample::SampleId;

/// Keeps what is drawn here apart from other draws by sample.
const SALT: u64 = 0x5A3E;

/// Samples that were drawn, or all the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    seed: u64,
    /// A sample is drawn where its hash is below.
    below: u64,
    /// Whether those that were not drawn are meant.
    others: bool,
}

impl Share {
    /// About `share` in [0, 1] of the samples of any corpus, by hash(seed, id): the same ones however it is read.
    pub fn drawn(seed: u64, share: f64) -> Self {
        // As casts do: what is above 2^64 - 1 is that.
        Self { seed, below: (share * 2f64.powi(64)) as u64, others: false }
    }

    /// All samples that this one does not hold.
    #[must_use]
    pub fn others(self) -> Self {
        Self { others: !self.others, ..self }
    }

    /// Whether a sample is in it.
    pub fn contains(&self, id: SampleId) -> bool {
        let place = hash::hash(self.seed, Purpose::Train, hash::combine(&[SALT, id.0]));
        (place < self.below) != self.others
    }

    /// Identifies it.
    pub fn fingerprint(&self) -> u64 {
        hash::combine(&[self.seed, self.below, self.others.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_and_the_others_are_all_and_meet_nowhere() {
        for (share, least, most) in [(0.0, 0, 0), (0.1, 850, 1150), (1.0, 10_000, 10_000)] {
            let held = Share::drawn(3, share);
            let count = (0..10_000).filter(|&id| held.contains(SampleId(id))).count();
            // Five standard deviations of a draw of a tenth: 150.
            assert!((least..=most).contains(&count), "{count} of {share}");
            assert!((0..10_000).map(SampleId).all(|id| held.contains(id) != held.others().contains(id)));
        }
        let (one, other) = (Share::drawn(3, 0.5), Share::drawn(4, 0.5));
        assert!((0..100).map(SampleId).any(|id| one.contains(id) != other.contains(id)));
        assert_ne!(one.fingerprint(), one.others().fingerprint());
    }
}
