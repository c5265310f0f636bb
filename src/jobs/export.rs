//! Writes what is kept of a corpus as a table: for tools that know nothing of plans and ledgers.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::aside;
use crate::cluster::Clusters;
use crate::error::{Error, Result};
use crate::jobs::recorded::{Recorded, Wanted, all_kept, included, view, window_of};
use crate::ledger::{Column, Table, WindowCaptions, WindowKey, WindowRecord};
use crate::loader::PlanFile;
use crate::sample::{Outcome, SampleId};
use crate::select::{Policy, Selector};

/// What says which samples are kept.
#[derive(Debug, Clone)]
pub enum ExportBy {
    /// A plan of the corpus: this file.
    Plan(PathBuf),
    /// A policy, window by window, in epoch 0, with these clusters; without, it may only look at scores that the corpus
    /// has.
    Policy(Box<Policy>, Option<Arc<Clusters>>),
    /// Nothing: every usable sample is exported.
    All,
}

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportJob {
    /// Folder of the ledger, which has keys, signals and captions.
    pub ledger: PathBuf,
    /// What says which samples are kept.
    pub by: ExportBy,
    /// Which of the ledger's recordings is meant; a plan says so itself.
    pub wanted: Wanted,
    /// Fingerprint of the generation settings whose captions are meant, where there are several.
    pub generation: Option<u64>,
    /// Field of a score of the corpus, whose recorded values are exported too; a plan or a policy that goes by
    /// one says so itself.
    pub score_field: Option<String>,
    /// File to write: `.parquet` for all columns, `.txt` for one key a line.
    pub out: PathBuf,
}

impl ExportJob {
    /// The fingerprint of captions that `text` writes.
    ///
    /// # Errors
    /// It is no number of 16 hexadecimal digits.
    pub fn generation_of(text: &str) -> Result<u64> {
        let expected = "a fingerprint, 16 hexadecimal digits";
        u64::from_str_radix(text, 16).map_err(|_| Error::option("generation", text, expected))
    }
}

/// How an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportSummary {
    /// Samples written.
    pub samples: u64,
    /// Of these, those with a generated caption.
    pub captions: u64,
}

/// The columns of an export, `[samples]`.
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
}

/// Runs the job. Samples stand in order of shard hash and position. `progress(done, total)` is called
/// with shards.
///
/// # Errors
/// A name of another ending; a ledger that is not there or has several recordings that fit, or several
/// sets of captions; samples of the plan that the ledger does not have; a file that cannot be written.
pub fn export(job: &ExportJob, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<ExportSummary> {
    let is_text = match job.out.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => false,
        Some("txt") => true,
        _ => {
            let given = format!("{:?}", job.out.display());
            return Err(Error::option("out", given, "a file that ends in .parquet or .txt"));
        }
    };
    let plan = match &job.by {
        ExportBy::Plan(path) => Some(PlanFile::load(path)?),
        ExportBy::Policy(..) | ExportBy::All => None,
    };
    let wanted = plan.as_ref().map_or(job.wanted, |plan| Wanted {
        scorer: Some(plan.captioner),
        reading: Some(plan.reading),
        window: Some(plan.window),
    });
    let recorded = Recorded::open(&job.ledger, wanted)?;
    let generation = generation(job.generation, &recorded)?;
    let selector = match &job.by {
        ExportBy::Policy(policy, clusters) => {
            let policy = Policy { corpus: Some(samples(&recorded)), ..recorded.with_scores(policy)? };
            Some(Selector::new(policy, clusters.clone())?)
        }
        ExportBy::Plan(_) | ExportBy::All => None,
    };
    let decide = |key: &WindowKey, record: &WindowRecord, scores: Option<&[f32]>| match (&plan, &selector) {
        (Some(plan), _) => plan.plan.decide(&view(key, record, scores)),
        (None, Some(selector)) => {
            if let Some(lacking) = lacking(key, record, selector) {
                let given = format!("window {} lacks signals of {lacking} samples", key.window);
                let accepted = "a ledger with signals of every sample that the policy looks at: that of a loader \
                                with this policy, or of one without thin";
                return Err(Error::option("ledger", given, accepted));
            }
            selector.decide(&window_of(key, record, scores, selector)?, 0)
        }
        (None, None) => Ok(all_kept(record)),
    };
    let policy = plan.as_ref().map(|plan| plan.plan.policy()).or(selector.as_ref().map(Selector::policy));
    let of_policy = policy.and_then(|policy| policy.gate().field());
    let score_field = of_policy.or(job.score_field.as_deref());
    let mut rows = Rows::default();
    let shards = &recorded.recording.shards;
    for (done, shard) in shards.iter().enumerate() {
        let first = recorded.key(shard, shard.windows[0]);
        let (source, path) = recorded.ledger.shard_of(&first).unwrap_or_default();
        for &window in &shard.windows {
            let key = recorded.key(shard, window);
            let Some(record) = recorded.window(&key) else { continue };
            let named = score_field.filter(|_| !record.ids.is_empty());
            let scores = named.map(|name| recorded.scores(&key, &record, name)).transpose()?;
            let outcomes = decide(&key, &record, scores.as_deref())
                .map_err(|error| error.in_shard(&path.as_str().into()))?;
            let captions =
                generation.map(|generation| recorded.ledger.captions_of(&key.captions(generation)));
            rows.push(&source, &path, &record, scores.as_deref(), &outcomes, captions.as_deref());
        }
        progress(done as u64 + 1, shards.len() as u64)?;
    }
    if let Some(plan) = &plan {
        let (kept, found) = (plan.plan.counts().kept, rows.id.len() as u64);
        if kept != found {
            let accepted =
                format!("the ledger that the plan was made with: it has {found} of its {kept} samples");
            return Err(Error::option("ledger", format!("{:?}", job.ledger.display()), accepted));
        }
    }
    let summary = ExportSummary {
        samples: rows.id.len() as u64,
        captions: rows.caption.iter().flatten().count() as u64,
    };
    write(&job.out, &if is_text { rows.text() } else { rows.parquet(&job.out)? })?;
    Ok(summary)
}

/// How many samples that the policy looks at have no signals; `None` where all have.
pub(super) fn lacking(key: &WindowKey, record: &WindowRecord, selector: &Selector) -> Option<usize> {
    let share = selector.thin_share(view(key, record, None).id, &record.failed, 0);
    let lacks = |row: &usize| !record.is_encoded(*row) && share.as_ref().is_none_or(|share| share[*row]);
    Some((0..record.ids.len()).filter(lacks).count()).filter(|&lacking| lacking > 0)
}

/// Samples of a recording that its filter let pass.
pub(super) fn samples(recorded: &Recorded) -> u64 {
    let shards = recorded.recording.shards.iter();
    let keys = shards.flat_map(|shard| shard.windows.iter().map(|&window| recorded.key(shard, window)));
    keys.filter_map(|key| recorded.window(&key)).map(|record| included(&record)).sum()
}

/// The captions that are meant; `None` where there are none.
pub(super) fn generation(given: Option<u64>, recorded: &Recorded) -> Result<Option<u64>> {
    let found = &recorded.recording.generations;
    match (given, &found[..]) {
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(*only)),
        (Some(wanted), _) if found.contains(&wanted) => Ok(Some(wanted)),
        (given, _) => {
            let names: Vec<String> = found.iter().map(|generation| format!("{generation:016x}")).collect();
            let given = given.map_or("none".to_owned(), |given| format!("{given:016x}"));
            let accepted = format!("one of the captions in the ledger: {}", names.join(", "));
            Err(Error::option("generation", given, accepted))
        }
    }
}

impl Rows {
    fn push(
        &mut self,
        source: &str,
        shard: &str,
        record: &WindowRecord,
        scores: Option<&[f32]>,
        outcomes: &[Outcome],
        captions: Option<&WindowCaptions>,
    ) {
        for (row, outcome) in outcomes.iter().enumerate() {
            let Outcome::Kept { pi } = outcome else { continue };
            let id: SampleId = record.ids[row];
            let key = record.index.as_ref().and_then(|index| index.key(row));
            self.source.push(Some(source.to_owned()));
            self.shard.push(Some(shard.to_owned()));
            self.key.push(key.map(str::to_owned));
            self.id.push(Some(id.0 as i64));
            let signals = record.signals.as_ref().filter(|_| record.is_encoded(row));
            self.cluster.push(signals.map(|signals| signals.cluster[row] as i32));
            self.alignment.push(signals.map(|signals| signals.alignment[row]));
            self.score.push(scores.map(|scores| scores[row]).filter(|score| !score.is_nan()));
            self.pi.push(*pi);
            self.caption.push(captions.and_then(|captions| captions.get(id)).map(str::to_owned));
        }
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
        let columns = vec![
            ("source".to_owned(), Column::Text(self.source)),
            ("shard".to_owned(), Column::Text(self.shard)),
            ("key".to_owned(), Column::Text(self.key)),
            ("id".to_owned(), Column::I64(self.id)),
            ("cluster".to_owned(), Column::I32(self.cluster)),
            ("alignment".to_owned(), Column::F32(self.alignment)),
            ("score".to_owned(), Column::F32(self.score)),
            ("pi".to_owned(), Column::F32(self.pi)),
            ("weight".to_owned(), Column::F32(weight)),
            ("caption".to_owned(), Column::Text(self.caption)),
        ];
        Table { columns, notes: vec![] }.write().map_err(|error| cannot(out, std::io::Error::other(error)))
    }
}

fn write(out: &Path, content: &[u8]) -> Result<()> {
    aside::write(out, content).map_err(|error| cannot(out, error))
}

fn cannot(out: &Path, error: std::io::Error) -> Error {
    Error::io(format!("write {}", out.display()), error)
}
