//! The command line, `tldr-loader`: one subcommand per job, and what they share: parsing, output, errors.
//!
//! A subcommand is a file with a `clap::Args` struct and its `run`; it is listed in [`Command`]. Those that make a
//! captioner are in the crate `tldr-captioner-cli`, which adds its own; here is what needs no libtorch.
#![allow(clippy::print_stdout)] // a command speaks through its output

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::{Parser, Subcommand};
use tldr_loader::config::Source;
use tldr_loader::model::{Identity, Recorded, Scorer};
use tldr_loader::shard;
use tldr_loader::{Error, ErrorKind, Result};

mod audit;
mod decider;
mod explain;
mod export;
mod inspect;
mod options;
mod plan;
mod policy;
mod progress;
mod report;
mod synth;

pub use options::{Flags, Sources};
pub use progress::Progress;

/// The subcommands that need no captioner, or take one that is there.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the help of each is that of its arguments")]
pub enum Command {
    Synth(synth::Args),
    Inspect(inspect::Args),
    Plan(plan::Args),
    Export(export::Args),
    Explain(explain::Args),
    Report(report::Args),
    Audit(audit::Args),
}

impl Command {
    /// Runs it; `models` opens captioner directories.
    ///
    /// # Errors
    /// Whatever ends the job.
    pub fn run(self, models: &dyn Models) -> Result<()> {
        match self {
            Self::Synth(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Plan(args) => args.run(models),
            Self::Export(args) => args.run(models),
            Self::Explain(args) => args.run(models),
            Self::Report(args) => args.run(models),
            Self::Audit(args) => args.run(models),
        }
    }
}

/// What opens captioner directories.
pub trait Models {
    /// The captioner in `directory`, on `device`.
    ///
    /// # Errors
    /// A directory that holds none; a device that is not there.
    fn open(&self, directory: &Path, device: &str) -> Result<Box<dyn Scorer>>;
}

/// Captioners where no libtorch is: what a ledger holds of them can be used.
#[derive(Debug)]
pub struct WithoutCaptioner;

impl Models for WithoutCaptioner {
    fn open(&self, directory: &Path, _: &str) -> Result<Box<dyn Scorer>> {
        match Identity::load(directory)? {
            Some(identity) => Ok(Box::new(Recorded::new(identity, directory))),
            None => {
                let accepted = "a captioner directory that was fitted by this version; or run this where the captioner \
                                is installed: pip install \"tldr-loader[captioner]\"";
                Err(Error::option("captioner", directory.display(), accepted))
            }
        }
    }
}

/// Selects image-text pairs for vision-language pre-training, while training reads them.
#[derive(Debug, Parser)]
#[command(name = "tldr-loader", version, arg_required_else_help = true)]
#[command(after_help = "train, load and fit come with the captioner: pip install \"tldr-loader[captioner]\"")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs a command line, its first word the program's name, without a captioner. Returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    run(args, |cli: Cli| cli.command.run(&WithoutCaptioner))
}

/// Parses a command line and runs it. Returns the exit code: 0, 2 where an option cannot be used, 1 for all other errors.
pub fn run<C: Parser>(args: impl IntoIterator<Item = OsString>, work: impl FnOnce(C) -> Result<()>) -> u8 {
    let parsed = match C::try_parse_from(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Output that nobody reads any more is no error.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    // Where the process has a log already, that one holds.
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .try_init();
    match work(parsed) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            if matches!(error.kind, ErrorKind::Option { .. } | ErrorKind::UnknownOption { .. }) {
                2
            } else {
                1
            }
        }
    }
}

/// Writes a line to stdout. Output that nobody reads any more (`fit .. | head`) is no error.
pub fn line(text: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("warning: cannot write to stdout: {error}");
    }
}

/// As `println!`, which panics where nobody reads any more.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::line(format_args!($($text)*))
    };
}

/// Samples of each shard, with a bar where they have to be counted.
///
/// # Errors
/// Shards that cannot be listed or counted.
pub fn counted(source: &Source) -> Result<Vec<u64>> {
    let shards = source.list()?;
    let bar = Progress::new("shards counted");
    let lengths = shard::lengths(&shards, &mut |done, of| {
        bar.at(done as u64, of as u64);
    });
    bar.finish();
    lengths
}
