//! Writes every sample of a recording with what became of it, and why.

use std::path::PathBuf;

use crate::aside;
use crate::error::{Error, Result};
use crate::jobs::decisions::{DecidedWindow, Decisions, DecisionsJob};
use crate::jobs::explain::named;
use crate::ledger::{Column, Table};
use crate::sample::Outcome;

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportAllJob {
    /// Whose decisions.
    pub decisions: DecisionsJob,
    /// File to write, which ends in `.parquet`.
    pub out: PathBuf,
}

/// How it ended, in samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportAllSummary {
    /// Written.
    pub samples: u64,
    /// Kept; usable ones where nothing decides.
    pub kept: u64,
    /// Dropped.
    pub dropped: u64,
    /// Excluded by `where` or a subset.
    pub excluded: u64,
    /// Unusable otherwise.
    pub failed: u64,
    /// With a generated caption.
    pub captions: u64,
}

/// The columns, `[samples]`.
#[derive(Default)]
struct Rows {
    text: [Vec<Option<String>>; 6],
    id: Vec<Option<i64>>,
    cluster: Vec<Option<i32>>,
    near_id: Vec<Option<i64>>,
    near_bits: Vec<Option<i32>>,
    numbers: [Vec<Option<f32>>; 5],
}

/// Names of the columns of `text` and `numbers`.
const TEXT: [&str; 6] = ["source", "shard", "key", "outcome", "reason", "caption"];
const NUMBERS: [&str; 5] = ["alignment", "score", "pi", "weight", "near_cosine"];

/// Runs the job. Samples stand in order of shard hash and position. `progress(done, total)` is called with shards.
/// Memory is that of the table, about 150 bytes a sample and its captions.
///
/// # Errors
/// A name of another ending; as [`Decisions::open`]; a file that cannot be written.
pub fn export_all(
    job: &ExportAllJob,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<ExportAllSummary> {
    if job.out.extension().and_then(|extension| extension.to_str()) != Some("parquet") {
        let accepted = "a file that ends in .parquet, which has columns for outcome and reason";
        return Err(Error::option("out", format!("{:?}", job.out.display()), accepted));
    }
    let decisions = Decisions::open(&job.decisions, progress)?;
    let (mut rows, mut summary) = (Rows::default(), ExportAllSummary::default());
    decisions.each(
        &mut |window| {
            (0..window.record.ids.len()).for_each(|row| rows.push(window, row, &mut summary));
            Ok(())
        },
        progress,
    )?;
    let cannot = |error: std::io::Error| Error::io(format!("write {}", job.out.display()), error);
    let content = rows.table().write().map_err(|error| cannot(std::io::Error::other(error)))?;
    aside::write(&job.out, &content).map_err(cannot)?;
    Ok(summary)
}

impl Rows {
    fn push(&mut self, window: &DecidedWindow<'_>, row: usize, summary: &mut ExportAllSummary) {
        let (record, outcome) = (&window.record, window.outcomes[row]);
        let (name, reason) = named(outcome, window.decisions.policy().is_some());
        summary.samples += 1;
        match name {
            "kept" | "usable" => summary.kept += 1,
            "dropped" => summary.dropped += 1,
            "excluded" => summary.excluded += 1,
            _ => summary.failed += 1,
        }
        let (id, is_usable) = (record.ids[row], record.failed[row].is_none());
        let key = record.index.as_ref().and_then(|index| index.key(row)).map(str::to_owned);
        let caption = window.captions.as_ref().and_then(|captions| captions.get(id)).map(str::to_owned);
        summary.captions += u64::from(caption.is_some());
        let text = [
            Some(window.source.to_owned()),
            Some(window.shard.to_owned()),
            key,
            Some(name.to_owned()),
            reason.map(str::to_owned),
            caption,
        ];
        self.text.iter_mut().zip(text).for_each(|(column, value)| column.push(value));
        let signals = record.signals.as_ref().filter(|_| is_usable && record.is_encoded(row));
        self.id.push(Some(id.0 as i64));
        self.cluster.push(signals.map(|signals| signals.cluster[row] as i32));
        // Within a window by its rows, in a plan by its candidates: keys would have to be looked up, ids are known.
        let place = window.place(row).and_then(|place| place.near);
        let near = place.map(|near| (record.ids[near.row], near.bits, Some(near.cosine)));
        let duplicate = || window.fate(row).and_then(|fate| fate.duplicate);
        let near = near.or_else(|| duplicate().map(|near| (near.id, near.bits, near.cosine)));
        self.near_id.push(near.map(|(id, ..)| id.0 as i64));
        self.near_bits.push(near.map(|(_, bits, _)| bits as i32));
        let pi = match outcome {
            Outcome::Kept { pi } => pi,
            _ => None,
        };
        let numbers = [
            signals.map(|signals| signals.alignment[row]),
            window.scores.as_ref().map(|scores| scores[row]).filter(|score| !score.is_nan()),
            pi,
            pi.map(|pi| 1.0 / pi),
            near.and_then(|(.., cosine)| cosine),
        ];
        self.numbers.iter_mut().zip(numbers).for_each(|(column, value)| column.push(value));
    }

    fn table(self) -> Table {
        let text =
            TEXT.iter().zip(self.text).map(|(name, values)| ((*name).to_owned(), Column::Text(values)));
        let numbers = NUMBERS.iter().zip(self.numbers);
        let numbers = numbers.map(|(name, values)| ((*name).to_owned(), Column::F32(values)));
        let mut columns: Vec<(String, Column)> = text.collect();
        columns.insert(3, ("id".to_owned(), Column::I64(self.id)));
        columns.push(("cluster".to_owned(), Column::I32(self.cluster)));
        columns.push(("near_id".to_owned(), Column::I64(self.near_id)));
        columns.push(("near_bits".to_owned(), Column::I32(self.near_bits)));
        columns.extend(numbers);
        Table { columns, notes: vec![] }
    }
}
