//! The command without the captioner, for where no libtorch is.

fn main() -> std::process::ExitCode {
    tldr_cli::main(std::env::args_os()).into()
}
