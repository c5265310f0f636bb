//! The command `tldr-loader`.

fn main() -> std::process::ExitCode {
    tldr_captioner_cli::main(std::env::args_os()).into()
}
