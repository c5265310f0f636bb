//! Which candidates of a run fill its quota first, where it is not left to chance.

use super::{Candidate, Selector, Turn, Window, embeddings};
use crate::config::Priority;
use crate::model::Signals;
use crate::select::diverse::farthest_first;
use crate::select::reservoir::Draw;

impl Selector {
    /// Rows of the candidates of one run that this epoch keeps, where the draws only say how many.
    ///
    /// In rotation each epoch goes on in the order where the one before stopped, and begins again
    /// at its end.
    pub(super) fn by_priority<'c>(
        &self,
        run: &[Candidate],
        drawn: impl Iterator<Item = (&'c Candidate, Draw)>,
        turn: &Turn<'_>,
        window: &Window<'_>,
        signals: Option<&Signals>,
    ) -> Vec<u32> {
        let n = run.len() as u128;
        let (mut before, mut count) = (0u128, 0);
        for (c, draw) in drawn {
            let covered = turn.covered(c.cluster);
            before += u128::from(draw.times_kept(covered));
            count += usize::from(draw.is_kept(turn.rate(c.cluster), covered));
        }
        let start = (before % n.max(1)) as usize;
        let mut ordered = run.to_vec();
        ordered.sort_unstable_by_key(|c| (c.hash, c.row));
        let order: Vec<u32> = match (self.policy.priority(), signals) {
            (Priority::Diverse, Some(signals)) => {
                let embeddings = embeddings(signals, &ordered);
                let order = farthest_first(embeddings.view(), (start + count).min(run.len()));
                order.into_iter().map(|i| ordered[i].row).collect()
            }
            (Priority::Hard | Priority::Score, _) => {
                let worst_first = self.policy.priority() == Priority::Hard;
                let merit = |c: &Candidate| {
                    let row = c.row as usize;
                    let of_captioner = || signals.map_or(f32::NAN, |signals| signals.alignment[row]);
                    let scores = window.scores.filter(|_| self.needs_scores());
                    let merit = scores.map_or_else(of_captioner, |scores| scores[row]);
                    let key = if worst_first { merit } else { -merit };
                    // What has no score comes last in both.
                    if key.is_nan() { f32::INFINITY } else { key }
                };
                // Stable: ties stay in order of hash.
                ordered.sort_by(|a, b| merit(a).total_cmp(&merit(b)));
                ordered.into_iter().map(|c| c.row).collect()
            }
            (Priority::EveryNth, _) => {
                ordered.sort_unstable_by_key(|c| (c.cluster, c.row));
                // Where the run's count is not a whole part of it, the steps differ by one.
                (0..count).map(|i| ordered[i * ordered.len() / count].row).collect()
            }
            _ => {
                ordered.sort_by_key(|c| std::cmp::Reverse(window.caption_chars[c.row as usize]));
                ordered.into_iter().map(|c| c.row).collect()
            }
        };
        order.iter().cycle().skip(start).take(count).copied().collect()
    }
}
