//! Promise: an option that has no effect is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use crate::wait;

#[test]
fn a_size_of_a_vocabulary_beside_a_tokenizer_is_refused() {
    let train = ["train", "shards", "--out", "out", "--tokenizer", "t.json", "--vocab-size", "300"];
    let output = wait::output(Command::new(env!("CARGO_BIN_EXE_tldr-loader")).args(train));
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot be used with '--vocab-size"), "{said}");
}
