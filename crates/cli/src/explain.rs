//! `tldr-loader explain`: why samples are kept or dropped.

use std::path::PathBuf;

use tldr_loader::config::Source;
use tldr_loader::jobs::{DecisionsJob, ExplainJob, explain};
use tldr_loader::{Error, Result};

use crate::Models;
use crate::decider::Decider;
use crate::options::{Reading, SelectionFlags};
use crate::progress::Progress;
use crate::say;

/// Say why samples are kept or dropped: one sentence each, and with --json the facts behind it.
///
/// Under a plan with --plan, under the policy of a loader with --captioner and the options of the selection, and without
/// both what the ledger knows of the samples.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keys, SHARD/KEY or ids, as exports and batches name samples; @FILE for one a line
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// Shards of the corpus: samples that are excluded are read again, to say which part of --where they do not pass
    #[arg(long, value_name = "SHARDS", num_args = 1..)]
    shards: Vec<String>,
    /// Folder of the ledger
    #[arg(long, value_name = "LEDGER")]
    ledger: PathBuf,
    /// The plan that decides
    #[arg(long, value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Captioner directory, whose clusters the policy, or the plan, goes by
    #[arg(long, value_name = "DIR")]
    captioner: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionFlags,
    /// Seed of the policy
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Count in what `rescue` brought back, by the judge's scores that the ledger has
    #[arg(long)]
    rescue: bool,
    /// Epochs that are looked at where the policy rotates
    #[arg(long, default_value_t = 16)]
    epochs: u64,
    /// Field of a score of the corpus; a plan, or a gate by one, says so itself
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
    /// Print the facts, one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        let given = Decider {
            plan: self.plan.as_ref(),
            ledger: Some(&self.ledger),
            captioner: self.captioner.as_deref(),
            selection: &self.selection,
            seed: self.seed,
            reading: &self.reading,
            rescue: self.rescue,
        };
        let generation = self.generation.as_deref().map(DecisionsJob::generation_of).transpose()?;
        let decisions =
            DecisionsJob { generation, score_field: self.score.clone(), ..given.decisions(models)? };
        let job = ExplainJob {
            epochs: self.epochs,
            source: Source { urls: self.shards, ..self.reading.given()?.0 },
            ..ExplainJob::new(decisions, keys(&self.keys)?)
        };
        let bar = Progress::new("shards");
        let found = explain(&job, &mut |done, total| {
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        for explained in found {
            if self.json {
                let text = serde_json::to_string(&explained);
                say!("{}", text.map_err(|error| Error::io("write JSON", std::io::Error::other(error)))?);
            } else {
                say!("{}", explained.sentence);
            }
        }
        Ok(())
    }
}

/// The keys that were given; those of a file where it is `@FILE`.
fn keys(given: &[String]) -> Result<Vec<String>> {
    let mut keys = vec![];
    for key in given {
        match key.strip_prefix('@') {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Error::io(format!("read the keys in {path}"), error))?;
                keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
            }
            None => keys.push(key.clone()),
        }
    }
    Ok(keys)
}
