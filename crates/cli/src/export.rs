//! `tldr-loader export`: writes what is kept as a table.

use std::path::{Path, PathBuf};

use tldr_loader::jobs::{DecisionsJob, ExportJob, export};
use tldr_loader::{Error, Result};

use crate::Models;
use crate::decider::Decider;
use crate::options::{Reading, SelectionFlags};
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
    /// Count in what `rescue` brought back, by the judge's scores that the ledger has
    #[arg(long)]
    rescue: bool,
    /// A list of samples that are not written: a file of keys or ids, as --subset takes them
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
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
    reading: Reading,
    /// Fingerprint of the captions that are meant, where the ledger has several
    #[arg(long, value_name = "HEX")]
    generation: Option<String>,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        let is_ledger = is_ledger(&self.from);
        if is_ledger == self.ledger.is_some() {
            return Err(wrong(&self.from, is_ledger));
        }
        if let (false, false, Some(captioner)) = (is_ledger, self.all, &self.captioner) {
            let accepted = "with a plan, which says what is kept; with --all it says why";
            return Err(Error::unused("captioner", format!("{:?}", captioner.display()), accepted));
        }
        let given = Decider {
            plan: (!is_ledger).then_some(&self.from),
            ledger: if is_ledger { Some(&self.from) } else { self.ledger.as_ref() },
            captioner: self.captioner.as_deref(),
            selection: &self.selection,
            seed: self.seed,
            reading: &self.reading,
            rescue: self.rescue,
        };
        let generation = self.generation.as_deref().map(DecisionsJob::generation_of).transpose()?;
        let decisions =
            DecisionsJob { generation, score_field: self.score.clone(), ..given.decisions(models)? };
        let job = ExportJob { all: self.all, exclude: self.exclude, ..ExportJob::new(decisions, &self.out) };
        let bar = Progress::new("shards");
        let found = export(&job, &mut |done, total| {
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        let out = self.out.display();
        if self.all {
            say!(
                "{out}: {} samples, of which {} are kept, {} dropped, {} excluded, {} failed",
                found.samples,
                found.kept,
                found.dropped,
                found.excluded,
                found.failed
            );
        } else {
            say!("{out}: {} samples, {} of them with a generated caption", found.samples, found.captions);
        }
        Ok(())
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
