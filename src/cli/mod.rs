//! Subcommands and what they share: parsing, output, error output.
//!
//! A subcommand is a file with a `clap::Args` struct and its `run`; it is listed in [`Command`].

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "tch")]
use tldr_loader::shard::{self, StoreOptions};
use tldr_loader::{ErrorKind, Result};

#[cfg(feature = "parquet")]
mod audit;
#[cfg(feature = "parquet")]
mod export;
#[cfg(feature = "tch")]
mod fit;
mod inspect;
#[cfg(feature = "tch")]
mod load;
#[cfg(all(feature = "tch", feature = "parquet"))]
mod plan;
#[cfg(feature = "parquet")]
mod policy;
mod progress;
mod source;
mod synth;
#[cfg(feature = "tch")]
mod train;

/// Compresses image-text streams while training reads them.
#[derive(Debug, Parser)]
#[command(name = "tldr-loader", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Synth(synth::Args),
    Inspect(inspect::Args),
    #[cfg(feature = "tch")]
    Train(train::Args),
    #[cfg(feature = "tch")]
    Load(load::Args),
    #[cfg(feature = "tch")]
    Fit(fit::Args),
    #[cfg(all(feature = "tch", feature = "parquet"))]
    Plan(plan::Args),
    #[cfg(feature = "parquet")]
    Export(export::Args),
    #[cfg(feature = "parquet")]
    Audit(audit::Args),
}

impl Command {
    fn run(self) -> Result<()> {
        match self {
            Self::Synth(args) => args.run(),
            Self::Inspect(args) => args.run(),
            #[cfg(feature = "tch")]
            Self::Train(args) => args.run(),
            #[cfg(feature = "tch")]
            Self::Load(args) => args.run(),
            #[cfg(feature = "tch")]
            Self::Fit(args) => args.run(),
            #[cfg(all(feature = "tch", feature = "parquet"))]
            Self::Plan(args) => args.run(),
            #[cfg(feature = "parquet")]
            Self::Export(args) => args.run(),
            #[cfg(feature = "parquet")]
            Self::Audit(args) => args.run(),
        }
    }
}

/// Runs the command line. Exit code 0, 2 where an option cannot be used, 1 for all other errors.
pub(crate) fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error.kind, ErrorKind::Option { .. }) { 2 } else { 1 })
        }
    }
}

/// Writes a line to stdout. Output that nobody reads any more (`fit .. | head`) is no error.
fn line(text: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("warning: cannot write to stdout: {error}");
    }
}

/// As `println!`, which panics where nobody reads any more.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::line(format_args!($($text)*))
    };
}
use say;

/// Samples of each shard, with a bar where they have to be counted.
#[cfg(feature = "tch")]
fn counted(urls: &[String], stores: &StoreOptions) -> Result<Vec<u64>> {
    let shards = shard::list(urls, None, stores)?;
    let bar = progress::Progress::new("shards counted");
    let lengths = shard::lengths(&shards, &mut |done, of| {
        bar.at(done as u64, of as u64);
    });
    bar.finish();
    lengths
}
