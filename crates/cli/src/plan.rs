//! `tldr-loader plan`: decides for a whole corpus.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tldr_loader::jobs::{PlanJob, PlanStage, PlanSummary, estimate, missing_parts, plan, plan_by_scores};
use tldr_loader::loader::PlanFile;
use tldr_loader::model::Scorer as _;
use tldr_loader::select::NearDuplicates;
use tldr_loader::{Error, Result};

use crate::Models;
use crate::options::{SelectionFlags, Sources};
use crate::policy::{clusters, say_worth};
use crate::progress::{Progress, humanised};
use crate::say;

/// Decide for a whole corpus at once: exact quotas, and with --dedup no near-duplicates across shards.
///
/// Signals come from the ledger; those that it lacks are computed and recorded first. A loader takes
/// the plan with plan=PLAN and the same ledger.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Captioner directory, after `fit`; that of --config by default. Without one a gate by a score, or chance, decides, and
    /// no image is read
    #[arg(long, value_name = "DIR")]
    captioner: Option<PathBuf>,
    /// Folder of the ledger; begun where nothing is; that of --config by default
    #[arg(long, value_name = "LEDGER")]
    ledger: Option<String>,
    /// Plan to write, a Parquet file; none with --part, --status and --estimate, which make none
    #[arg(long, value_name = "PLAN", required_unless_present_any = ["part", "estimate", "status"], conflicts_with_all = ["part", "estimate", "status"])]
    out: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionFlags,
    /// Seed of every random choice; 0 by default
    #[arg(long)]
    seed: Option<u64>,
    /// Let embeddings say in the end what is a near-duplicate; they are kept in the ledger, 4 bytes a value
    #[arg(long, requires = "dedup")]
    embeddings: bool,
    /// Let near-duplicates fill the quota for which nothing else is left
    #[arg(long, requires = "dedup")]
    fill_with_copies: bool,
    /// Record the signals of every n-th shard from the i-th on, counted from 0, and stop: for job arrays, after which a
    /// run without it has nothing left to encode. Without a value, the array's task says it: SLURM_ARRAY_TASK_ID, its
    /// first one being 0, of SLURM_ARRAY_TASK_COUNT
    #[arg(long, value_name = "I/N", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "estimate")]
    part: Option<String>,
    /// Say which of n parts are not recorded yet, as --array=3,7-9, and stop
    #[arg(long, value_name = "N", conflicts_with_all = ["part", "estimate"])]
    status: Option<usize>,
    /// Say what recording would cost, and stop
    #[arg(long)]
    estimate: bool,
    /// Samples per second of the training to come, for the break-even that --estimate prints
    #[arg(long, value_name = "RATE")]
    train_rate: Option<f64>,
    /// Threads that decode previews; one per core by default
    #[arg(long)]
    threads: Option<usize>,
    /// cpu, cuda or cuda:N; that of --config by default
    #[arg(long)]
    device: Option<String>,
}

impl Args {
    pub(crate) fn run(self, models: &dyn Models) -> Result<()> {
        // clap's `requires` is satisfied where another option excludes what is required, as --out does.
        if let (Some(rate), false) = (self.train_rate, self.estimate) {
            let accepted = "without --estimate, which prints the break-even";
            return Err(Error::unused("train_rate", rate, accepted));
        }
        let job = self.job()?;
        let directory = job.config.captioner.as_ref();
        let captioner = directory.map(|directory| models.open(directory, &job.config.device)).transpose()?;
        if let Some(parts) = self.status {
            return status(&job, parts, captioner.map_or(0, |captioner| captioner.fingerprint()));
        }
        let policy = job.policy(captioner.is_some())?;
        let fitted = match (captioner, directory) {
            (Some(captioner), Some(directory)) => Some((captioner, clusters(directory)?)),
            _ => None,
        };
        if let Some((_, clusters)) = &fitted {
            say_worth(policy.gate(), clusters);
        }
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
            let Some((mut captioner, _)) = fitted else {
                let accepted = "a captioner directory, after fit: --estimate measures what its signals cost";
                return Err(Error::option("captioner", "none", accepted));
            };
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
            let keep = policy.keep_ratio();
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
        let summary = match fitted {
            Some((captioner, clusters)) => plan(&job, captioner, clusters, &mut progress)?,
            None => plan_by_scores(&job, &mut progress)?,
        };
        bar.finish();
        say!(
            "{}: {} shards, {} of them recorded now ({} samples encoded in {:.1} s)",
            job.config.ledger.as_deref().unwrap_or_default(),
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
        let mut config = self.sources.config()?;
        self.selection.apply(&mut config.selection)?;
        config.captioner = self.captioner.clone().or(config.captioner);
        config.ledger = self.ledger.clone().or(config.ledger);
        config.seed = self.seed.unwrap_or(config.seed);
        config.runtime.threads = self.threads.unwrap_or(config.runtime.threads);
        config.device = self.device.clone().unwrap_or(config.device);
        let part = self.part.as_deref().map(part).transpose()?;
        Ok(PlanJob { config, embeddings: self.embeddings, fill_with_copies: self.fill_with_copies, part })
    }
}

/// The part that is named, or that the task of a job array has.
fn part(text: &str) -> Result<(usize, usize)> {
    if text.is_empty() {
        return array_part(&|name| std::env::var(name).ok());
    }
    let numbers = text.split_once('/').map(|(i, n)| (i.trim().parse(), n.trim().parse()));
    match numbers {
        Some((Ok(i), Ok(n))) => Ok((i, n)),
        _ => Err(Error::option("part", text, "i/n with i from 0 to n - 1, like 0/8")),
    }
}

/// The part of a task of a Slurm array: its number from the array's first one on, of their count.
fn array_part(variable: &dyn Fn(&str) -> Option<String>) -> Result<(usize, usize)> {
    let number = |name: &'static str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
    let (task, count) = (number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_COUNT"));
    let (least, step) =
        (number("SLURM_ARRAY_TASK_MIN").unwrap_or(0), number("SLURM_ARRAY_TASK_STEP").unwrap_or(1));
    let (Some(task), Some(count)) = (task, count) else {
        let accepted = "--part=I/N, or a task of a Slurm array, which has SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT";
        return Err(Error::option("part", "none", accepted));
    };
    let at = task.saturating_sub(least);
    // Of an array with gaps, as one that records missing parts again, a task's number says nothing.
    if !at.is_multiple_of(step.max(1)) || at / step.max(1) >= count {
        let accepted = "--part=I/N: the tasks of this array are not consecutive, so that their number does not tell the part";
        return Err(Error::option("part", format!("task {task} of {count}"), accepted));
    }
    Ok((at / step.max(1), count))
}

/// Prints which parts of so many the ledger lacks.
fn status(job: &PlanJob, parts: usize, captioner: u64) -> Result<()> {
    let missing = missing_parts(job, parts, captioner)?;
    if missing.is_empty() {
        say!("all {parts} parts are recorded");
    } else {
        say!("{} of {parts} parts are not recorded: --array={}", missing.len(), ranges(&missing));
    }
    Ok(())
}

/// Ascending numbers as Slurm writes them: 3,7-9.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        [one] => one.to_string(),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
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
        (None, None) => say!("  near-duplicates stay: without a captioner nothing tells them"),
        (None, Some(_)) => say!(
            "  near-duplicates stay, and are not counted: among {} candidates that takes minutes, which --dedup 0.95 would \
             take",
            counts.candidates
        ),
    }
    say!("  candidates   {} in {} clusters, near-duplicates included", counts.candidates, counts.clusters);
    say!("  quota        {}, of which near-duplicates fill {}", counts.slots, counts.refilled);
    say!("  also kept by their window alone: {}", counts.kept_by_window);
    say!("  fingerprint  {:016x}", file.fingerprint());
    if counts.kept < counts.slots {
        say!("warning: {} of the quota are not filled, for want of candidates", counts.slots - counts.kept);
    }
    if let Some(warning) = summary.near.and_then(|near| near.warning()) {
        say!("warning: {warning}");
    }
    if counts.unhashed > 0 && summary.near.is_some() {
        say!(
            "warning: {} candidates have no semantic hash, since an earlier run's gate dropped them, and are not \
             looked at for near-duplicates; a new ledger has all",
            counts.unhashed
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_task_of_an_array_says_its_part() {
        let of = |variables: &[(&str, &str)]| {
            array_part(&|name| {
                variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let (id, count, least) = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN");
        assert_eq!(of(&[(id, "3"), (count, "8"), (least, "0")]).unwrap(), (3, 8));
        assert_eq!(of(&[(id, "1"), (count, "8"), (least, "1")]).unwrap(), (0, 8));
        assert_eq!(
            of(&[(id, "6"), (count, "4"), (least, "0"), ("SLURM_ARRAY_TASK_STEP", "2")]).unwrap(),
            (3, 4)
        );
        for wrong in [&[][..], &[(id, "3")], &[(id, "9"), (count, "4"), (least, "3")]] {
            assert!(of(wrong).unwrap_err().to_string().contains("--part=I/N"), "{wrong:?}");
        }
        assert_eq!(part("2/8").unwrap(), (2, 8));
        assert!(part("2").is_err());
    }

    #[test]
    fn missing_parts_are_written_as_slurm_reads_them() {
        assert_eq!(ranges(&[3, 7, 8, 9]), "3,7-9");
        assert_eq!(ranges(&[0, 1, 5]), "0-1,5");
        assert_eq!(ranges(&[4]), "4");
    }
}
