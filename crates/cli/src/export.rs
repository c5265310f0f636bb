//! `tldr-loader export`: writes what is kept as a table.

use std::path::{Path, PathBuf};

use tldr_loader::config::Source;
use tldr_loader::jobs::{DecisionsJob, ExportAllJob, ExportBy, ExportJob, Wanted, export, export_all};
use tldr_loader::{Error, Result};

use crate::Models;
use crate::decider::Decider;
use crate::options::{Flags, SelectionFlags};
use crate::policy::{Fitted, policy, reading};
use crate::progress::Progress;
use crate::say;

/// Write the samples that are kept of a corpus: shard, key, id, cluster, alignment, pi, weight, caption.
///
/// FROM is a plan, with --ledger the ledger it was made with; or a ledger, of which a policy keeps what
/// a loader would keep in epoch 0 (with --captioner, or a gate by a score), or everything usable is written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A plan, or the folder of a ledger
    from: PathBuf,
    /// File to write: .parquet for all columns, .txt for one key a line
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder of the ledger, for a plan
    #[arg(long, value_name = "LEDGER")]
    ledger: Option<PathBuf>,
    /// Captioner directory, whose clusters the policy looks at; without, it may look at scores only. Of a plan with --all the
    /// one that it was made with
    #[arg(long, value_name = "DIR")]
    captioner: Option<PathBuf>,
    /// Write every sample, with what became of it and why: the columns outcome, reason, near_id, near_bits, near_cosine
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: SelectionFlags,
    /// Seed of the policy
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Field of a score of the corpus, whose recorded values are written too; a plan, or a gate by one, says so itself
    #[arg(long, value_name = "FIELD")]
    score: Option<String>,
    #[command(
        flatten,
        next_help_heading = "How what was recorded was read, where the ledger has several kinds"
    )]
    source: Flags<Source>,
    /// Fingerprint of the captions that are meant, where the ledger has several
    #[arg(long, value_name = "HEX")]
    generation: Option<String>,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        if self.all {
            return self.all(models);
        }
        let (ledger, by, scorer) = self.from(models)?;
        let generation = self.generation.as_deref().map(ExportJob::generation_of);
        let job = ExportJob {
            ledger,
            by,
            wanted: Wanted { scorer, reading: reading(&self.source)?, window: self.selection.window()? },
            generation: generation.transpose()?,
            score_field: self.score.clone(),
            out: self.out.clone(),
        };
        let bar = Progress::new("shards");
        let summary = export(&job, &mut |done, total| {
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        say!(
            "{}: {} samples, {} of them with a generated caption",
            self.out.display(),
            summary.samples,
            summary.captions
        );
        Ok(())
    }

    fn all(&self, models: &dyn Models) -> Result<()> {
        let given = Decider {
            plan: (!is_ledger(&self.from)).then_some(&self.from),
            ledger: if is_ledger(&self.from) { Some(&self.from) } else { self.ledger.as_ref() },
            captioner: self.captioner.as_deref(),
            selection: &self.selection,
            seed: self.seed,
            source: &self.source,
        };
        if is_ledger(&self.from) && self.ledger.is_some() {
            return Err(wrong(&self.from, true));
        }
        let generation = self.generation.as_deref().map(ExportJob::generation_of).transpose()?;
        let decisions =
            DecisionsJob { generation, score_field: self.score.clone(), ..given.decisions(models)? };
        let bar = Progress::new("shards");
        let found = export_all(&ExportAllJob { decisions, out: self.out.clone() }, &mut |done, total| {
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        say!(
            "{}: {} samples, of which {} are kept, {} dropped, {} excluded, {} failed",
            self.out.display(),
            found.samples,
            found.kept,
            found.dropped,
            found.excluded,
            found.failed
        );
        Ok(())
    }

    fn from(&self, models: &dyn Models) -> Result<(PathBuf, ExportBy, Option<u64>)> {
        let is_ledger = is_ledger(&self.from);
        let selects = self.selection.first().filter(|(option, _)| *option != "window");
        match (&self.ledger, &self.captioner) {
            (Some(ledger), None) if !is_ledger => match selects {
                None => Ok((ledger.clone(), ExportBy::Plan(self.from.clone()), None)),
                Some((option, given)) => {
                    Err(Error::unused(option, given, "with a plan, which says what is kept"))
                }
            },
            (None, Some(captioner)) if is_ledger => {
                let fitted = Fitted::load(captioner, models)?;
                let policy = Box::new(policy(&self.selection, self.seed, true)?);
                Ok((self.from.clone(), ExportBy::Policy(policy, Some(fitted.clusters)), Some(fitted.scorer)))
            }
            (None, None) if is_ledger && selects.is_some() => {
                let policy = Box::new(policy(&self.selection, self.seed, false)?);
                Ok((self.from.clone(), ExportBy::Policy(policy, None), None))
            }
            (None, None) if is_ledger => Ok((self.from.clone(), ExportBy::All, None)),
            _ => Err(wrong(&self.from, is_ledger)),
        }
    }
}

/// Whether it is no plan, which is a local file: a ledger may be in a bucket.
fn is_ledger(from: &Path) -> bool {
    from.is_dir() || from.to_str().is_some_and(|from| from.contains("://"))
}

fn wrong(from: &Path, is_ledger: bool) -> Error {
    let accepted = if is_ledger {
        "the folder of a ledger, with captioner or without, and without ledger"
    } else {
        "a plan, with ledger and without captioner; or the folder of a ledger"
    };
    Error::option("from", format!("{:?}", from.display()), accepted)
}
