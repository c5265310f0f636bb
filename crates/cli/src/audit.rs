//! `tldr-loader audit`: checks the promises of selection on a ledger.

use std::path::PathBuf;

use tldr_loader::jobs::{AuditJob, audit};
use tldr_loader::{Error, Result};

use crate::Models;
use crate::options::{Reading, SelectionFlags};
use crate::policy::{Fitted, policy};
use crate::progress::Progress;
use crate::say;

/// Check what selection promises on the signals of a real run: the sampling, not what the gate is worth.
///
/// Runs the policy with many seeds over recorded windows and prints a table: whether inclusion is pi by
/// arrival, position and cluster size, whether lower ratios are nested, epochs in rotation take turns, and
/// runs keep their share. Exit code 1 where a promise is broken.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the ledger
    ledger: PathBuf,
    /// Captioner directory, whose clusters the policy looks at; without, it may look at scores only
    #[arg(long, value_name = "DIR")]
    captioner: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionFlags,
    /// Seed of the policy, the first of those that are tried
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(
        flatten,
        next_help_heading = "How what was recorded was read, where the ledger has several kinds"
    )]
    reading: Reading,
    /// Seeds that are tried
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// Windows that are looked at, drawn by hash
    #[arg(long, default_value_t = 64)]
    windows: usize,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        let fitted =
            self.captioner.as_deref().map(|directory| Fitted::load(directory, models)).transpose()?;
        let job = AuditJob {
            wanted: self
                .reading
                .wanted(fitted.as_ref().map(|fitted| fitted.scorer), self.selection.window()?)?,
            seeds: self.seeds,
            windows: self.windows,
            ..AuditJob::new(&self.ledger, policy(&self.selection, self.seed, fitted.is_some())?)
        };
        let bar = Progress::new("seeds");
        let found = audit(&job, fitted.as_ref().map(|fitted| &fitted.clusters), &mut |done, total| {
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        say!("{}", found.to_string().trim_end());
        let broken: Vec<&str> = found.broken().map(|check| check.promise.as_str()).collect();
        if broken.is_empty() {
            return Ok(());
        }
        let what = format!("audit of {}", self.ledger.display());
        Err(Error::format(what, "every promise to hold", format!("broken: {}", broken.join("; "))))
    }
}
