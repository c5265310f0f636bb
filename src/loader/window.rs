//! A window between reading and deciding: its samples, still encoded, and what the ledger knows of them.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::hash;
use crate::ledger::{CorpusScores, ScoreKey, WindowKey, WindowRecord};
use crate::loader::buffer::Encoded;
use crate::loader::lane::Segment;
use crate::sample::{FailedSample, Outcome, Sample};
use crate::select;
use crate::shard::ShardIndex;

/// What may have happened where a shard and its ledger differ, and what to do.
pub(crate) const CHANGED: &str = "has the shard changed? Use a new ledger, which reads the shard anew";

/// The samples of one window, still encoded.
pub(crate) struct Window {
    pub(crate) segment: Segment,
    pub(crate) key: WindowKey,
    pub(crate) known: Known,
    /// Scores of the corpus, where decisions look at them.
    pub(crate) scores: Option<Scores>,
    pub(crate) rows: Vec<Row>,
    /// Where the rows lie in the shard, for the ledger; of a window that was read whole.
    pub(crate) index: Option<ShardIndex>,
}

/// What the ledger knows of a window, and so what is read and encoded of it. A step further needs less.
pub(crate) enum Known {
    /// Nothing that is of use: all rows are read and encoded.
    New,
    /// Signals but of these rows, `[rows]`: all are read, these are encoded.
    Partial(Arc<WindowRecord>, Vec<bool>),
    /// All signals, but perhaps no scores: all rows are read, none is encoded.
    NeedsScores(Arc<WindowRecord>),
    /// All that decides: kept rows are read.
    Decided(Decided),
}

/// A window with its decision.
pub(crate) struct Decided {
    pub(crate) record: Arc<WindowRecord>,
    /// Scores of generated captions, under `rescue`.
    pub(crate) judged: Option<Vec<f32>>,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Known {
    /// What the ledger has of it.
    pub(crate) fn record(&self) -> Option<&Arc<WindowRecord>> {
        match self {
            Self::New => None,
            Self::Partial(record, _) | Self::NeedsScores(record) => Some(record),
            Self::Decided(decided) => Some(&decided.record),
        }
    }
}

/// Scores that the corpus has for the samples of a window.
pub(crate) struct Scores {
    /// Where they are in the ledger.
    pub(crate) key: ScoreKey,
    /// `[rows]`, not a number where a sample has none; `None` where they have to be read.
    pub(crate) values: Option<CorpusScores>,
}

impl Scores {
    /// Those of a window of `rows` rows, where all are known.
    pub(crate) fn of(&self, rows: usize) -> Option<&[f32]> {
        self.values.as_deref().filter(|values| values.len() == rows)
    }
}

/// A usable sample whose image and json wait in the buffer.
pub(crate) struct Waiting {
    /// All of it but these two, which are empty here.
    pub(crate) sample: Sample,
    pub(crate) image: Encoded,
    pub(crate) json: Option<Encoded>,
}

/// One row of a window.
pub(crate) enum Row {
    Sample(Waiting),
    Failed(FailedSample),
    /// Not read: it is not kept, or belongs to another lane.
    Skipped,
}

impl Window {
    /// Whether row `row` belongs to the lane (and not only to the window).
    pub(crate) fn in_lane(&self, row: usize) -> bool {
        let position = self.segment.window * self.key.size as u64 + row as u64;
        position >= self.segment.start && (position < self.segment.end || self.segment.tail)
    }

    /// Whether other lanes have rows of the window.
    pub(crate) fn is_shared(&self) -> bool {
        !(self.in_lane(0) && self.in_lane(self.key.size - 1))
    }
}

/// Fails unless the rows of a window that was read again are those of its record.
pub(crate) fn is_as_recorded(rows: &[Row], record: &WindowRecord) -> Result<()> {
    let id = |row: &Row| match row {
        Row::Sample(waiting) => Some(waiting.sample.id),
        Row::Failed(failed) => Some(failed.id),
        Row::Skipped => None,
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
) -> select::Window<'a> {
    select::Window {
        id: hash::combine(&[key.shard, key.window]),
        ids: &record.ids,
        failed: &record.failed,
        caption_chars: &record.caption_chars,
        signals: record.signals.as_ref(),
        judged,
        scores,
    }
}
