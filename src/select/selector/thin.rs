//! The draw that comes before everything else: a share of the stream, of which all that passes is kept.

use super::{Selector, Turn, Window};
use crate::config::{Priority, Quota};
use crate::error::{Error, FailReason, Result};
use crate::sample::{DropReason, Outcome};
use crate::select::policy::Policy;
use crate::select::reservoir::draws;

/// Number of no run: the draw of a thinned stream has a start of its own.
const STREAM: u64 = u64::MAX;

impl Selector {
    /// A draw that comes first knows nothing of the samples.
    pub(super) fn check_thin(policy: &Policy) -> Result<()> {
        let refuse = |what: &str, why: &str| {
            let accepted =
                format!("false with {what}: {why}; thin draws before anything is known of a sample");
            Err(Error::option("thin", true, accepted))
        };
        match (policy.quota(), policy.priority(), policy.selection.dedup) {
            _ if !policy.selection.thin => Ok(()),
            (quota, ..) if !matches!(quota, Quota::Proportional | Quota::Random) => {
                refuse(&format!("quota={quota}"), "its rates differ by cluster")
            }
            (_, priority, _) if priority != Priority::Uniform => {
                refuse(&format!("priority={}", priority.name()), "it chooses among the samples of a window")
            }
            (.., Some(cosine)) => {
                refuse(&format!("dedup={cosine}"), "near-duplicates are looked for among all of a window")
            }
            _ => Ok(()),
        }
    }

    /// Which samples of a window are in the share of the stream that [`Selection::thin`](crate::config::Selection::thin) takes in `epoch`,
    /// `[n]`: of these only, signals are looked at. `None` where all are.
    ///
    /// The share is drawn as a run is (see [`reservoir`](crate::select::reservoir)), by draw in the window:
    /// every sample is in it with probability keep_ratio / gate, its size is off by 2 at most, a lower
    /// keep_ratio takes a part of it, and epochs in rotation take others. Whether a picture can be decoded
    /// does not tell on it, since nobody knows that yet; `failed` says what `where` excludes. O(n).
    pub fn thin_share(&self, window: u64, failed: &[Option<FailReason>], epoch: u64) -> Option<Vec<bool>> {
        let turn = self.thin_turn(epoch)?;
        let (rate, covered) = (turn.rate(0), turn.covered(0));
        let mut draws = draws(self.policy.seed, window, STREAM);
        let in_share = |failed: &Option<FailReason>| {
            // What is excluded takes no draw.
            *failed != Some(FailReason::Excluded)
                && draws.next().is_some_and(|draw| draw.is_kept(rate, covered))
        };
        Some(failed.iter().map(in_share).collect())
    }

    /// The rate at which the stream is thinned in `epoch`; `None` where it is not.
    pub(super) fn thin_turn(&self, epoch: u64) -> Option<Turn<'_>> {
        (self.policy.selection.thin && !self.keeps_everything(epoch)).then(|| self.turn(&[], epoch))
    }

    /// Sets the outcome of what is not in the share, but for what could not even be read.
    pub(super) fn leave_out(&self, share: &[bool], window: &Window<'_>, outcomes: &mut [Outcome]) {
        for (row, outcome) in outcomes.iter_mut().enumerate().filter(|(row, _)| !share[*row]) {
            // Another run may know more of it than this one, which must not tell.
            if window.failed[row].is_none_or(FailReason::is_of_pixels) {
                *outcome = Outcome::Dropped(DropReason::Thin);
            }
        }
    }
}
