//! Writes what is kept of a corpus as a table, or every sample with what became of it: for tools that know nothing of
//! plans and ledgers.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::aside;
use crate::error::{Error, Result};
use crate::jobs::decisions::{DecidedWindow, Decisions, DecisionsJob};
use crate::jobs::explain::named;
use crate::ledger::{Column, Table};
use crate::sample::Outcome;
use crate::shard::Subset;

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportJob {
    /// Whose decisions.
    pub decisions: DecisionsJob,
    /// File to write: `.parquet` for all columns, `.txt` for one key a line.
    pub out: PathBuf,
    /// Whether every sample is written, with what became of it and why; to a `.parquet`. Else those that are kept.
    pub all: bool,
    /// A list of samples that are not written, of the kinds that [`Subset`] reads; by key or identity.
    pub exclude: Option<PathBuf>,
}

impl ExportJob {
    /// What is kept by `decisions`, to `out`.
    pub fn new(decisions: DecisionsJob, out: impl Into<PathBuf>) -> Self {
        Self { decisions, out: out.into(), all: false, exclude: None }
    }
}

/// How an export ended, in samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportSummary {
    /// Written.
    pub samples: u64,
    /// Of these, kept; usable ones where nothing decides.
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
    source: Vec<Option<String>>,
    shard: Vec<Option<String>>,
    key: Vec<Option<String>>,
    id: Vec<Option<i64>>,
    cluster: Vec<Option<i32>>,
    alignment: Vec<Option<f32>>,
    score: Vec<Option<f32>>,
    pi: Vec<Option<f32>>,
    caption: Vec<Option<String>>,
    /// Of every sample, where all are written.
    fates: Option<FateRows>,
}

/// The columns that say what became of samples, `[samples]`.
#[derive(Default)]
struct FateRows {
    outcome: Vec<Option<String>>,
    reason: Vec<Option<String>>,
    near_id: Vec<Option<i64>>,
    near_bits: Vec<Option<i32>>,
    near_cosine: Vec<Option<f32>>,
}

/// Runs the job. Samples stand in order of shard hash and position. `progress(done, total)` is called with shards. Memory is
/// that of the table, about 150 bytes a sample and its captions.
///
/// # Errors
/// A name of another ending; as [`Decisions::open`], without `all` as [`Decisions::without_reasons`]; samples of the plan that the ledger
/// does not have; a file that cannot be written.
pub fn export(job: &ExportJob, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<ExportSummary> {
    let is_text = match job.out.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => false,
        Some("txt") if !job.all => true,
        _ => {
            let accepted = match job.all {
                true => "a file that ends in .parquet, which has columns for outcome and reason",
                false => "a file that ends in .parquet or .txt",
            };
            return Err(Error::option("out", format!("{:?}", job.out.display()), accepted));
        }
    };
    let decisions = match job.all {
        true => Decisions::open(&job.decisions, progress)?,
        false => Decisions::without_reasons(&job.decisions)?,
    };
    let exclude = job.exclude.as_deref().map(|path| Subset::open_as("exclude", path)).transpose()?;
    let mut left_out = 0;
    let mut rows = Rows { fates: job.all.then(FateRows::default), ..Rows::default() };
    let mut summary = ExportSummary::default();
    decisions.each(
        &mut |window| {
            for (row, outcome) in window.outcomes.iter().enumerate() {
                if job.all || outcome.is_kept() {
                    if exclude.as_ref().is_some_and(|list| is_in(list, window, row)) {
                        left_out += 1;
                        continue;
                    }
                    rows.push(window, row, &mut summary);
                }
            }
            Ok(())
        },
        progress,
    )?;
    if let (Some(list), Some(path), 0) = (&exclude, &job.exclude, left_out) {
        let accepted = format!(
            "keys or ids of samples that would be written: it has none, its first {} is {:?}",
            list.by(),
            list.example()
        );
        return Err(Error::option("exclude", format!("{:?}", path.display()), accepted));
    }
    let content = if is_text { rows.text() } else { rows.parquet(&job.out)? };
    aside::write(&job.out, &content).map_err(|error| cannot(&job.out, error))?;
    Ok(summary)
}

impl Rows {
    fn push(&mut self, window: &DecidedWindow<'_>, row: usize, summary: &mut ExportSummary) {
        let (record, outcome, id) = (&window.record, window.outcomes[row], window.record.ids[row]);
        summary.samples += 1;
        let key = record.index.as_ref().and_then(|index| index.key(row));
        let caption = window.captions.as_ref().and_then(|captions| captions.get(id));
        summary.captions += u64::from(caption.is_some());
        let is_usable = record.failed[row].is_none();
        let signals = record.signals.as_ref().filter(|_| is_usable && record.is_encoded(row));
        let score = window.scores.as_ref().map(|scores| scores[row]);
        self.source.push(Some(window.source.to_owned()));
        self.shard.push(Some(window.shard.to_owned()));
        self.key.push(key.map(str::to_owned));
        self.id.push(Some(id.0 as i64));
        self.cluster.push(signals.map(|signals| signals.cluster[row] as i32));
        self.alignment.push(signals.map(|signals| signals.alignment[row]));
        self.score.push(score.filter(|score| !score.is_nan()));
        self.pi.push(match outcome {
            Outcome::Kept { pi } => pi,
            _ => None,
        });
        self.caption.push(caption.map(str::to_owned));
        let (name, reason) = named(outcome, window.decisions.policy().is_some());
        match name {
            "kept" | "usable" => summary.kept += 1,
            "dropped" => summary.dropped += 1,
            "excluded" => summary.excluded += 1,
            _ => summary.failed += 1,
        }
        let Some(fates) = &mut self.fates else { return };
        // Within a window by its rows, in a plan by its candidates: keys would have to be looked up, ids are known.
        let place = window.place(row).and_then(|place| place.near);
        let near = place.map(|near| (record.ids[near.row], near.bits, Some(near.cosine)));
        let duplicate = || window.fate(row).and_then(|fate| fate.duplicate);
        let near = near.or_else(|| duplicate().map(|near| (near.id, near.bits, near.cosine)));
        fates.outcome.push(Some(name.to_owned()));
        fates.reason.push(reason.map(str::to_owned));
        fates.near_id.push(near.map(|(id, ..)| id.0 as i64));
        fates.near_bits.push(near.map(|(_, bits, _)| bits as i32));
        fates.near_cosine.push(near.and_then(|(.., cosine)| cosine));
    }

    fn text(&self) -> Vec<u8> {
        let mut text = String::new();
        for key in self.key.iter().flatten() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}");
        }
        text.into_bytes()
    }

    fn parquet(self, out: &Path) -> Result<Vec<u8>> {
        let weight = self.pi.iter().map(|pi| pi.map(|pi| 1.0 / pi)).collect();
        let own = vec![
            ("source", Column::Text(self.source)),
            ("shard", Column::Text(self.shard)),
            ("key", Column::Text(self.key)),
            ("id", Column::I64(self.id)),
            ("cluster", Column::I32(self.cluster)),
            ("alignment", Column::F32(self.alignment)),
            ("score", Column::F32(self.score)),
            ("pi", Column::F32(self.pi)),
            ("weight", Column::F32(weight)),
            ("caption", Column::Text(self.caption)),
        ];
        let of_fates = self.fates.map(|fates| {
            [
                ("outcome", Column::Text(fates.outcome)),
                ("reason", Column::Text(fates.reason)),
                ("near_id", Column::I64(fates.near_id)),
                ("near_bits", Column::I32(fates.near_bits)),
                ("near_cosine", Column::F32(fates.near_cosine)),
            ]
        });
        let columns = own.into_iter().chain(of_fates.into_iter().flatten());
        let columns = columns.map(|(name, column)| (name.to_owned(), column)).collect();
        Table { columns, notes: vec![] }.write().map_err(|error| cannot(out, std::io::Error::other(error)))
    }
}

/// Whether a list has a sample of a window.
fn is_in(list: &Subset, window: &DecidedWindow<'_>, row: usize) -> bool {
    let key = window.record.index.as_ref().and_then(|index| index.key(row));
    list.has(key, window.record.ids[row]) == Some(true)
}

fn cannot(out: &Path, error: std::io::Error) -> Error {
    Error::io(format!("write {}", out.display()), error)
}
