//! Subcommands and what they share: parsing, error output and progress bars.
//!
//! A subcommand is a file with a `clap::Args` struct and its `run`; it is listed in [`Command`].

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
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

/// A progress bar on stderr, in `unit`s; silent where stderr is not a terminal.
fn progress_bar(unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left  {{msg}}");
    // A template with a fault falls back to the plain bar.
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Samples of each shard, with a bar where they have to be counted.
#[cfg(feature = "tch")]
fn counted(urls: &[String], stores: &StoreOptions) -> Result<Vec<u64>> {
    let shards = shard::list(urls, None, stores)?;
    let bar = progress_bar("shards counted");
    let lengths = shard::lengths(&shards, &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    lengths
}
