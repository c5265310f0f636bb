//! Promise: an option that has no effect is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support::{corpus, wait};

/// What the command line says of options that it refuses.
fn command(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tldr-loader-core"));
    let output = wait::output(command.args(arguments));
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_command_line_refuses_options_without_an_effect() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path(), 1, 10);
    let shards = folder.path().join("00000.tar").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let folder = folder.path().display().to_string();
    let noise = ["synth", "--out", &out, "--misaligned", "0", "--noise-shares", "1,0,0,0"];
    let mut refused =
        vec![(noise.to_vec(), "invalid noise_shares=given: it has no effect with misaligned=0")];
    refused.push((
        vec!["inspect", &shards, "--endpoint", "http://localhost:9"],
        "invalid endpoint=http://localhost:9: it has no effect without s3:// shards",
    ));
    let with_plan = "it has no effect with a plan";
    for (option, value) in [
        ("keep_ratio", "0.5"),
        ("gate", "top(0.5)"),
        ("quota", "cap"),
        ("priority", "uniform"),
        ("dedup", "0.95"),
    ] {
        let flag: &str = Box::leak(format!("--{}", option.replace('_', "-")).into_boxed_str());
        let text: &str = Box::leak(format!("invalid {option}={value}: {with_plan}").into_boxed_str());
        refused.push((vec!["export", "plan.parquet", "--ledger", &folder, "--out", &out, flag, value], text));
    }
    let thin = vec!["export", "plan.parquet", "--ledger", &folder, "--out", &out, "--thin"];
    refused.push((thin, "invalid thin=true: it has no effect with a plan"));
    let plan = vec!["plan", &shards, "--captioner", "c", "--ledger", "l", "--out", "p", "--train-rate", "9"];
    refused.push((plan, "--estimate"));
    for (arguments, expected) in refused {
        let said = command(&arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
