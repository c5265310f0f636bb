//! `tldr-loader plan`: decides for a whole corpus.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tldr_loader::jobs::{PlanJob, PlanStage, PlanSummary, estimate, plan};
use tldr_loader::loader::PlanFile;
use tldr_loader::select::NearDuplicates;
use tldr_loader::{Error, Result};

use crate::Models;
use crate::policy::{Selection, clusters, say_worth};
use crate::progress::{Progress, humanised};
use crate::say;
use crate::source::Source;

/// Decide for a whole corpus at once: exact quotas, and with --dedup no near-duplicates across shards.
///
/// Signals come from the ledger; those that it lacks are computed and recorded first. A loader takes
/// the plan with plan=PLAN and the same ledger.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Captioner directory, after `fit`
    #[arg(long, value_name = "DIR")]
    captioner: PathBuf,
    /// Folder of the ledger; begun where nothing is
    #[arg(long, value_name = "LEDGER")]
    ledger: PathBuf,
    /// Plan to write, a Parquet file; left out with --part and --estimate, which make none
    #[arg(long, value_name = "PLAN", required_unless_present_any = ["part", "estimate"], conflicts_with_all = ["part", "estimate"])]
    out: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Drop near-duplicates: of two images whose embeddings have this cosine or more, from 0.93, one goes. They stay
    /// by default, and the plan says how many 0.95 would drop
    #[arg(long, value_name = "COSINE")]
    dedup: Option<f32>,
    /// Let embeddings say in the end what is a near-duplicate; they are kept in the ledger, 4 bytes a value
    #[arg(long, requires = "dedup")]
    embeddings: bool,
    /// Let near-duplicates fill the places for which nothing else is left
    #[arg(long, requires = "dedup")]
    fill_with_copies: bool,
    /// Samples per decision window: those of the loader that is to take the plan
    #[arg(long, default_value_t = 2048)]
    window: usize,
    /// Name of the corpus in the identity of its samples; that of the shards' folder by default
    #[arg(long = "source", value_name = "NAME")]
    name: Option<String>,
    /// Record the signals of every n-th shard from the i-th on, counted from 0, and stop: for job
    /// arrays, after which a run without it has nothing left to encode
    #[arg(long, value_name = "I/N", conflicts_with = "estimate")]
    part: Option<String>,
    /// Say what recording would cost, and stop
    #[arg(long)]
    estimate: bool,
    /// Samples per second of the training to come, for the break-even that --estimate prints
    #[arg(long, value_name = "RATE")]
    train_rate: Option<f64>,
    /// Threads that decode previews; one per core by default
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        // clap's `requires` is satisfied where another option excludes what is required, as --out does.
        if let (Some(rate), false) = (self.train_rate, self.estimate) {
            let accepted = "left out without --estimate, which prints the break-even";
            return Err(Error::option("train_rate", rate, accepted));
        }
        let job = self.job()?;
        let mut captioner = models.open(&self.captioner, &self.device)?;
        let clusters = clusters(&self.captioner)?;
        say_worth(&job.policy, &clusters);
        let bar = Progress::new("samples");
        let mut progress = |stage, done, total| {
            bar.say(match stage {
                PlanStage::Look => "shards looked for in the ledger",
                PlanStage::Count => "shards counted",
                PlanStage::Record => "encoding",
            });
            bar.at(done, total);
            Ok(())
        };
        if self.estimate {
            let found = estimate(&job, &mut captioner, &mut progress)?;
            bar.finish();
            say!("samples     {}, of which {} are not in the ledger", found.samples, found.missing);
            if found.missing > 0 {
                say!(
                    "recording   {}: {:.1} samples/s, measured on {}",
                    humanised(Duration::from_secs_f64(found.seconds())),
                    1.0 / found.seconds_per_sample,
                    found.measured
                );
            }
            let keep = job.policy.keep_ratio;
            match self.train_rate {
                _ if found.missing == 0 => say!("break-even  at once: nothing is left to record"),
                Some(rate) if rate > 0.0 => say!(
                    "break-even  after {:.2} epochs at {rate} samples/s; generated captions come on top",
                    found.break_even(keep, rate)
                ),
                Some(rate) => {
                    return Err(Error::option("train_rate", rate, "samples per second, more than 0"));
                }
                None => say!(
                    "break-even  after {:.6} epochs for each sample/s of training (--train-rate); generated captions \
                     come on top",
                    found.break_even(keep, 1.0)
                ),
            }
            return Ok(());
        }
        let summary = plan(&job, captioner, clusters, &mut progress)?;
        bar.finish();
        say!(
            "{}: {} shards, {} of them recorded now ({} samples encoded in {:.1} s)",
            job.ledger.display(),
            summary.shards,
            summary.recorded,
            summary.encoded,
            summary.seconds[0]
        );
        if let (Some(file), Some(out)) = (&summary.plan, &self.out) {
            file.save(out)?;
            print(&format!("{}", out.display()), file, &summary);
        }
        Ok(())
    }

    fn job(&self) -> Result<PlanJob> {
        // Recording may take hours: a plan that could not be written is refused before.
        let folder =
            self.out.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let accepted = format!("a file in a folder that is there; make {:?} first", folder.display());
            let given = self.out.as_deref().unwrap_or(folder).display();
            return Err(Error::option("out", format!("{given:?}"), accepted));
        }
        let mut job = PlanJob::new(self.source.urls.clone(), &self.ledger);
        job.policy = self.selection.policy(self.dedup)?;
        job.stores = self.source.stores();
        job.read = self.source.read()?;
        job.source.clone_from(&self.name);
        job.window = self.window;
        job.embeddings = self.embeddings;
        job.fill_with_copies = self.fill_with_copies;
        job.threads = self.threads;
        if let Some(part) = &self.part {
            let numbers = part.split_once('/').map(|(i, n)| (i.trim().parse(), n.trim().parse()));
            let Some((Ok(i), Ok(n))) = numbers else {
                return Err(Error::option("part", part, "i/n with i from 0 to n - 1, like 0/8"));
            };
            job.part = Some((i, n));
        }
        Ok(job)
    }
}

fn print(out: &str, file: &PlanFile, summary: &PlanSummary) {
    let counts = file.plan.counts();
    let readable = counts.readable();
    say!("{out}: {} of {readable} readable samples kept, in {:.1} s", counts.kept, summary.seconds[1]);
    if counts.excluded > 0 {
        say!("  excluded     {} (where)", counts.excluded);
    }
    say!("  unusable     {}", counts.failed);
    say!("  gated out    {}", counts.gated);
    match (summary.distance, &summary.near) {
        (Some(bits), _) => {
            say!("  near-duplicates {} (hashes that differ in at most {bits} of 256 bits)", counts.copies);
        }
        (None, Some(NearDuplicates { dropped: Some(dropped), cosine, .. })) => say!(
            "  near-duplicates stay: --dedup {cosine} would drop {dropped} of {} candidates",
            counts.candidates
        ),
        (None, _) => say!(
            "  near-duplicates stay, and are not counted: among {} candidates that takes minutes, which --dedup 0.95 would \
             take",
            counts.candidates
        ),
    }
    say!("  candidates   {} in {} clusters, near-duplicates included", counts.candidates, counts.clusters);
    say!("  places       {}, of which near-duplicates fill {}", counts.places, counts.refilled);
    say!("  also kept by their window alone: {}", counts.window_survivors);
    say!("  fingerprint  {:016x}", file.fingerprint());
    if counts.kept < counts.places {
        say!("warning: {} places are not filled, for want of candidates", counts.places - counts.kept);
    }
    if let Some(warning) = summary.near.and_then(|near| near.warning()) {
        say!("warning: {warning}");
    }
    if counts.unhashed > 0 {
        say!(
            "warning: {} candidates have no semantic hash, since an earlier run's gate dropped them, and are not \
             looked at for near-duplicates; a new ledger has all",
            counts.unhashed
        );
    }
}
