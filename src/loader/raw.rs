//! A window between reading and deciding: its samples, still encoded, and what the ledger knows of them.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::hash;
use crate::ledger::{CorpusScores, ScoreKey, WindowKey, WindowRecord};
use crate::loader::buffer::Encoded;
use crate::loader::lane::Segment;
use crate::sample::{FailedSample, Outcome, Sample};
use crate::select::Window;
use crate::shard::ShardIndex;

/// What may have happened where a shard and its ledger differ, and what to do.
pub(crate) const CHANGED: &str = "has the shard changed? Use a new ledger, which reads the shard anew";

/// The samples of one window, still encoded.
pub(crate) struct RawWindow {
    pub(crate) segment: Segment,
    pub(crate) key: WindowKey,
    /// What the ledger knows, with the decision that follows from it.
    pub(crate) known: Option<Known>,
    /// What the ledger knows where scores are missing for a decision: the rows were read whole.
    pub(crate) undecided: Option<Arc<WindowRecord>>,
    /// What the ledger knows where signals of some rows are lacking, and which these are: the rows were
    /// read whole.
    pub(crate) partial: Option<(Arc<WindowRecord>, Vec<bool>)>,
    /// The ledger's place for scores of the corpus, where decisions look at them, and those that it has.
    pub(crate) score_key: Option<ScoreKey>,
    pub(crate) scores: Option<CorpusScores>,
    pub(crate) rows: Vec<RawRow>,
    /// Where the rows lie in the shard, for the ledger; of a window that was read whole.
    pub(crate) index: Option<ShardIndex>,
}

/// A window that could be decided from the ledger alone.
pub(crate) struct Known {
    pub(crate) record: Arc<WindowRecord>,
    /// Scores of generated captions, under `rescue`.
    pub(crate) judged: Option<Vec<f32>>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// A usable sample whose image and json wait in the buffer.
pub(crate) struct Waiting {
    /// All of it but these two, which are empty here.
    pub(crate) sample: Sample,
    pub(crate) image: Encoded,
    pub(crate) json: Option<Encoded>,
}

/// One row of a window.
pub(crate) enum RawRow {
    Sample(Waiting),
    Failed(FailedSample),
    /// Not read: it does not survive, or belongs to another lane.
    Skipped,
}

impl RawWindow {
    /// Whether row `row` belongs to the lane (and not only to the window).
    pub(crate) fn in_lane(&self, row: usize, window: usize) -> bool {
        let position = self.segment.window * window as u64 + row as u64;
        position >= self.segment.start && (position < self.segment.end || self.segment.tail)
    }

    /// Whether other lanes have rows of the window, of `window` rows at most.
    pub(super) fn is_shared(&self, window: usize) -> bool {
        !(self.in_lane(0, window) && self.in_lane(window - 1, window))
    }

    /// Whether decisions look at scores, and the ledger has none for the samples of `record`.
    pub(super) fn lacks_scores(&self, record: &WindowRecord) -> bool {
        let has_all = self.scores.as_ref().is_some_and(|scores| scores.len() == record.ids.len());
        self.score_key.is_some() && !has_all
    }
}

/// Fails unless the rows of a window that was read again are those of its record.
pub(crate) fn is_as_recorded(rows: &[RawRow], record: &WindowRecord) -> Result<()> {
    let id = |row: &RawRow| match row {
        RawRow::Sample(waiting) => Some(waiting.sample.id),
        RawRow::Failed(failed) => Some(failed.id),
        RawRow::Skipped => None,
    };
    if rows.iter().map(id).eq(record.ids.iter().copied().map(Some)) {
        return Ok(());
    }
    Err(Error::ledger(format!("the shard holds other samples than the ledger knows; {CHANGED}")))
}

/// The error of a failed sample under `on_error = raise`.
pub(crate) fn raised(failed: &FailedSample) -> Error {
    let kind = ErrorKind::Sample { reason: failed.reason, detail: failed.detail.clone() };
    Error::from(kind).at_sample(&failed.key, failed.offset)
}

/// The selector's view of a recorded window.
pub(crate) fn window_of<'a>(
    key: &WindowKey,
    record: &'a WindowRecord,
    judged: Option<&'a [f32]>,
    scores: Option<&'a [f32]>,
) -> Window<'a> {
    Window {
        id: hash::combine(&[key.shard, key.window]),
        ids: &record.ids,
        failed: &record.failed,
        caption_chars: &record.caption_chars,
        signals: record.signals.as_ref(),
        judged,
        scores,
    }
}
