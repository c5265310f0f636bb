//! The command `tldr-loader` with the captioner: what `tldr-cli` has, and `train`, `load` and `fit`.

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};
use tldr_captioner::{Captioner, parse_device};
use tldr_cli::Models;
use tldr_loader::Result;
use tldr_loader::model::Scorer;

mod fit;
mod load;
mod train;

/// Selects image-text pairs for vision-language pre-training, while training reads them.
#[derive(Debug, Parser)]
#[command(name = "tldr-loader", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Load(load::Args),
    Fit(fit::Args),
    #[command(flatten)]
    Other(tldr_cli::Command),
}

/// Runs a command line, its first word the program's name. Returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    tldr_cli::run(args, |cli: Cli| match cli.command {
        Command::Train(args) => args.run(),
        Command::Load(args) => args.run(),
        Command::Fit(args) => args.run(),
        Command::Other(command) => command.run(&Captioners),
    })
}

/// Loads captioners with libtorch.
struct Captioners;

impl Models for Captioners {
    fn open(&self, directory: &Path, device: &str) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(Captioner::load(directory, parse_device(device)?)?))
    }
}
