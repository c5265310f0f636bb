//! `tldr-loader report`: a page that shows what a corpus holds, what is kept, and why.

use std::path::PathBuf;

use tldr_loader::jobs::DecisionsJob;
use tldr_loader::model::Scorer;
use tldr_loader::{Error, Result};
use tldr_report::{MAX_MB, ReportJob, ReportStage, report};

use crate::Models;
use crate::options::{SelectionFlags, Sources};
use crate::policy::Fitted;
use crate::progress::Progress;
use crate::say;

/// Write one self-contained page that shows what a corpus holds, what is kept, what is dropped and why, with pictures.
///
/// Decides: the plan of --plan; else the selection of --config or of the options here, with --captioner; else nothing, and
/// all that is usable counts as kept. The ledger must have the signals: `plan` records them. report.json and the sampled
/// pairs of near-duplicates (report.pairs.parquet) are written beside the page.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Folder of the ledger; that of --config by default
    #[arg(long, value_name = "LEDGER")]
    ledger: Option<String>,
    /// The plan that decides; that of --config by default
    #[arg(long, value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Captioner directory, whose clusters the policy, or the plan, goes by; that of --config by default
    #[arg(long, value_name = "DIR")]
    captioner: Option<PathBuf>,
    /// The page to write, a file that ends in .html
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    selection: SelectionFlags,
    /// Seed of the policy; 0 by default
    #[arg(long)]
    seed: Option<u64>,
    /// Seed of the samples that are shown
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    draw_seed: u64,
    /// Most megabytes of the page; the samples that are shown are in proportion
    #[arg(long, default_value_t = MAX_MB, value_name = "MB")]
    max_mb: f64,
    /// Score sampled pictures anew, with their own captions and with others', which needs the captioner's model
    #[arg(long, requires = "captioner")]
    scorer: bool,
    /// Field of a score of the corpus; a plan, or a gate by one, says so itself
    #[arg(long, value_name = "FIELD")]
    score: Option<String>,
    /// Fingerprint of the captions that are meant, where the ledger has several
    #[arg(long, value_name = "HEX")]
    generation: Option<String>,
    /// Where the captioner runs for --scorer: cpu, cuda or cuda:N; that of --config by default
    #[arg(long)]
    device: Option<String>,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        let mut config = self.sources.config()?;
        self.selection.apply(&mut config.selection)?;
        config.captioner = self.captioner.clone().or(config.captioner);
        config.ledger = self.ledger.clone().or(config.ledger);
        config.plan = self.plan.clone().or(config.plan);
        config.seed = self.seed.unwrap_or(config.seed);
        if let (Some((option, given)), true) = (self.selection.first(), config.plan.is_some()) {
            return Err(Error::unused(option, given, "with a plan, which has a policy of its own"));
        }
        let fitted =
            config.captioner.as_ref().map(|directory| Fitted::load(directory, models)).transpose()?;
        let fitted = fitted.map(|fitted| (fitted.scorer, fitted.clusters));
        let mut job = ReportJob::of(&config, fitted, &self.out)?;
        job.decisions.score_field.clone_from(&self.score);
        let generation = self.generation.as_deref().map(DecisionsJob::generation_of);
        job.decisions.generation = generation.transpose()?;
        (job.command, job.max_mb, job.seed) = (command(std::env::args()), self.max_mb, self.draw_seed);
        let mut model: Option<Box<dyn Scorer>> = match (&config.captioner, self.scorer) {
            (Some(directory), true) => {
                Some(models.open(directory, self.device.as_deref().unwrap_or(&config.device))?)
            }
            _ => None,
        };
        let bar = Progress::new("shards");
        let scorer = model.as_mut().map(|model| model as &mut dyn Scorer);
        let found = report(&job, scorer, &mut |stage, done, total| {
            bar.say(match stage {
                ReportStage::Ledger => "shards of the ledger",
                ReportStage::Pictures => "shards with pictures",
            });
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        say!(
            "{}: {} samples, {} of them kept; {} are shown, {} with a picture; {:.1} MB",
            self.out.display(),
            found.samples,
            found.kept,
            found.shown,
            found.pictures,
            found.bytes as f64 / 1e6
        );
        say!("beside it: {}, {}", found.json.display(), found.pairs.display());
        Ok(())
    }
}

/// The command line as a shell would take it, the program by its name.
fn command(words: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    let quoted = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words: Vec<String> = words.skip(1).map(quoted).collect();
    // Called from Python, the interpreter's own words come first.
    let own = words.iter().position(|word| word == "report").unwrap_or(0);
    format!("tldr-loader {}", words[own.min(words.len())..].join(" "))
}
