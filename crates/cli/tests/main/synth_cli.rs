//! The command line of the synthetic corpus: what it writes, prints and refuses.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use crate::support::wait;

fn synth(arguments: &[&str]) -> Output {
    wait::output(Command::new(env!("CARGO_BIN_EXE_tldr-loader-core")).arg("synth").args(arguments))
}

#[test]
fn writes_both_splits_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("corpus");
    let out = out.to_str().unwrap();
    let arguments = ["--samples", "200", "--shards", "2", "--test-samples", "20", "--size", "32"];
    let noise = ["--misaligned", "1", "--noise-shares", "0,1,0,0"];
    let output = synth(&[&["--out", out], &arguments[..], &noise[..]].concat());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("200 samples of 50 scenes in 2 shards, 20 test samples"), "{stdout}");
    assert!(stdout.contains("generic 200"), "{stdout}");
    for file in
        ["train/00000.tar", "train/00001.tar", "train/sizes.json", "test/00000.tar", "test/sizes.json"]
    {
        assert!(folder.path().join("corpus").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_bad_option_is_named_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("corpus");
    let output = synth(&["--out", out.to_str().unwrap(), "--misaligned", "1.5"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: invalid misaligned=1.5: expected a share in [0, 1]\n"
    );
    assert!(!out.exists());
}

#[test]
fn a_failed_write_has_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = synth(&["--out", file.to_str().unwrap(), "--samples", "20", "--shards", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}
