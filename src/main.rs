//! The command line, `tldr-loader`: one subcommand per job.
#![allow(clippy::print_stdout)] // a command speaks through its output

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
