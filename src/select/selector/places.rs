//! Why a window's decision is what it is, sample by sample: for explanations, not for the path of the data.

use crate::error::Result;
use crate::select::dedup::near_duplicates;
use crate::select::plan_copies::differing;
use crate::select::reservoir::draws;

use super::{Selector, Window, before_decision, embeddings};
use crate::sample::{DropReason, Outcome};

/// Where a candidate stands in the draw of its window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Place {
    /// The near-duplicate in the window that it fell to.
    pub near: Option<Near>,
    /// Its draw, less what earlier epochs of a rotation took, in [0, 1): with the uniform priority it is kept where this is
    /// below `rate`. Of near-duplicates 0.
    pub draw: f64,
    /// The rate of its cluster.
    pub rate: f64,
}

/// The near-duplicate in a window that a sample fell to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Its row.
    pub row: usize,
    /// Cosine of the embeddings.
    pub cosine: f32,
    /// Bits in which the semantic hashes differ.
    pub bits: u32,
}

impl Selector {
    /// The places behind what [`decide`](Self::decide) says of the same window and epoch, `[n]`; `None` of what is no
    /// candidate, and where everything is kept. O(as [`decide`](Self::decide)).
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn places(&self, window: &Window<'_>, epoch: u64) -> Result<Vec<Option<Place>>> {
        let signals = self.check(window)?;
        let mut places = vec![None; window.ids.len()];
        if self.keeps_everything(epoch) || self.thin_turn(epoch).is_some() {
            return Ok(places);
        }
        let mut outcomes = before_decision(window, Outcome::Dropped(DropReason::Quota));
        let mut candidates = self.candidates(window, signals, &mut outcomes)?;
        if let (Some(threshold), Some(signals)) = (self.policy.selection.dedup, signals) {
            candidates.sort_unstable_by_key(|c| (c.hash, c.row));
            let rows = embeddings(signals, &candidates);
            let copies = near_duplicates(rows.view(), threshold);
            for (at, c) in candidates.iter().enumerate().filter(|(at, _)| copies[*at]) {
                let cosine = |i: usize| rows.row(i).dot(&rows.row(at));
                let nearest =
                    (0..at).filter(|&i| !copies[i]).max_by(|&a, &b| cosine(a).total_cmp(&cosine(b)));
                let near = nearest.map(|i| {
                    let row = candidates[i].row as usize;
                    let hashes = &signals.semantic_hash;
                    Near { row, cosine: cosine(i), bits: differing(&hashes[row], &hashes[c.row as usize]) }
                });
                places[c.row as usize] = Some(Place { near, ..Place::default() });
            }
            let mut copies = copies.into_iter();
            candidates.retain(|_| copies.next() != Some(true));
        }
        candidates.sort_unstable();
        let turn = self.turn(&candidates, epoch);
        for run in candidates.chunk_by(|a, b| self.run(a.cluster) == self.run(b.cluster)) {
            let number = run.first().map_or(0, |c| self.run(c.cluster));
            for (c, draw) in run.iter().zip(draws(self.policy.seed, window.id, u64::from(number))) {
                let (rate, draw) = (turn.rate(c.cluster), draw.beyond(turn.covered(c.cluster)));
                places[c.row as usize] =
                    Some(Place { near: None, draw: draw as f64 / 2f64.powi(64), rate: rate.value() });
            }
        }
        Ok(places)
    }
}
