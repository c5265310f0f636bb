//! What near-duplicates among the candidates of a plan are, before it is decided whether they go.

use crate::hash;
use crate::model::UNKNOWN_HASH;
use crate::select::plan::Planner;
use crate::select::plan_copies::{MAX_DISTANCE, expected_distance, near_duplicates};

/// Candidates among which near-duplicates are looked for unasked: of as many it takes seconds on one core, and the
/// time rises with the square of their number (docs/selection.md).
const SEARCHED: usize = 1_000_000;

/// Samples of one picture with other captions from which they are worth a word.
const WORTH_A_WORD: u64 = 10;

/// Near-duplicates among the candidates of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearDuplicates {
    /// Cosine of their embeddings, at least.
    pub cosine: f32,
    /// Candidates that deduplication by that cosine drops, or would, by their semantic hashes; `None` where there
    /// are so many candidates that they are not looked for unasked.
    pub dropped: Option<u64>,
    /// Candidates whose semantic hash an earlier one has: the same picture. An estimate among more than a million
    /// candidates, from the pictures of a share of all hashes.
    pub same_picture: u64,
    /// Of these, those with another caption than the candidates of that picture before them, as far as lengths of
    /// captions tell.
    pub other_captions: u64,
}

impl NearDuplicates {
    /// What should be known before near-duplicates are dropped: more than half of them are other captions.
    pub fn warning(&self) -> Option<String> {
        let Self { cosine, dropped, same_picture, other_captions } = *self;
        let near = dropped.unwrap_or(same_picture).max(1);
        (other_captions >= WORTH_A_WORD && 2 * other_captions > near).then(|| {
            let of = dropped.map_or(String::new(), |dropped| format!("of {dropped} near-duplicates "));
            format!(
                "{of}{other_captions} are the same picture as another sample with another caption, as where a corpus \
                 has several captions of each picture: dedup={cosine} drops these captions; leave it off to keep them"
            )
        })
    }
}

impl Planner {
    /// What near-duplicates there are among the candidates so far, by a cosine of `cosine`. O(n log n), and as
    /// [`decide`](Self::decide) with that cosine where they are looked for: up to a million candidates, unless the
    /// policy asks for it, when `decide` does. 4 bytes a candidate, of at most a million or so.
    pub fn near_duplicates(&mut self, cosine: f32) -> NearDuplicates {
        self.near_duplicates_among(cosine, SEARCHED)
    }

    /// The same, looked for among `searched` candidates at most.
    fn near_duplicates_among(&mut self, cosine: f32, searched: usize) -> NearDuplicates {
        self.sort();
        let candidates = &self.candidates;
        let asked = self.selector.policy().selection.dedup.is_none() && candidates.len() <= searched;
        let dropped = asked.then(|| {
            let distance = (expected_distance(cosine).round() as u32).min(MAX_DISTANCE);
            let copies = near_duplicates(
                candidates.len() as u32,
                |i| candidates[i as usize].hash,
                distance,
                |_, _| true,
            );
            copies.into_iter().filter(|copy| *copy).count() as u64
        });
        let of = |i: &u32| {
            let candidate = &candidates[*i as usize];
            (candidate.hash, candidate.caption_chars)
        };
        // One in so many hashes, with all candidates that have it: a picture is looked at with all its captions.
        let of_all = candidates.len().div_ceil(searched).max(1) as u64;
        let is_known = |i: &u32| {
            let hash = &candidates[*i as usize].hash;
            *hash != UNKNOWN_HASH && hash::combine(hash).is_multiple_of(of_all)
        };
        let mut known: Vec<u32> = (0..candidates.len() as u32).filter(is_known).collect();
        known.sort_unstable_by_key(of);
        let (mut same_picture, mut other_captions) = (0, 0);
        for picture in known.chunk_by(|a, b| of(a).0 == of(b).0) {
            same_picture += picture.len() as u64 - 1;
            other_captions +=
                picture.windows(2).filter(|pair| of(&pair[0]).1 != of(&pair[1]).1).count() as u64;
        }
        let (same_picture, other_captions) = (same_picture * of_all, other_captions * of_all);
        NearDuplicates { cosine, dropped, same_picture, other_captions }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Quota, Selection};
    use crate::hash::{Purpose, Rng};
    use crate::select::plan::Candidate;
    use crate::select::{Policy, Selector};

    #[test]
    fn of_more_candidates_than_are_searched_pictures_are_estimated_and_copies_not_counted() {
        let policy = Policy {
            selection: Selection { quota: Some(Quota::Random), ..Selection::default() },
            ..Policy::default()
        };
        let mut planner = Planner::new(Selector::new(policy, None).unwrap(), 0).unwrap();
        planner.windows.push((0, 0));
        let mut rng = Rng::new(2, Purpose::Synth, 0);
        for came in 0..15_000u32 {
            // 3,000 pictures with five captions each.
            let (picture, caption) = (came % 3000, came / 3000);
            let mut of_picture = Rng::new(3, Purpose::Synth, u64::from(picture));
            planner.candidates.push(Candidate {
                draw: rng.next_u64(),
                id: u64::from(came),
                hash: [0; 4].map(|_| of_picture.next_u64()),
                cluster: 0,
                window: 0,
                came,
                caption_chars: 20 + caption as u16,
                is_kept: false,
                behind: false,
            });
        }
        let exact = planner.near_duplicates_among(0.95, 15_000);
        let counted = (exact.dropped, exact.same_picture, exact.other_captions);
        assert_eq!(counted, (Some(12_000), 12_000, 12_000));
        // One picture in 15 is looked at, 200 with a standard deviation of 14: five of these.
        let rough = planner.near_duplicates_among(0.95, 1000);
        assert_eq!((rough.dropped, rough.same_picture), (None, rough.other_captions));
        assert!((7800..=16_200).contains(&rough.same_picture), "{rough:?}");
        assert!(rough.warning().unwrap().starts_with(&rough.other_captions.to_string()));
    }
}
