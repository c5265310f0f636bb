//! Promise: a test that waits for what does not come fails, and so does one that runs a test that is not there.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use crate::support::wait::{output, passes, test, within};

#[test]
fn what_a_command_says_is_read() {
    let listed = output(Command::new(std::env::current_exe().unwrap()).arg("--list"));
    let said = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success() && said.contains("what_a_command_says_is_read: test"), "{said}");
}

#[test]
#[should_panic(expected = "0 passed")]
fn a_name_that_no_test_has_fails() {
    passes(&mut test(module_path!(), "no_such_test"));
}

#[test]
#[should_panic(expected = "what work says")]
fn a_panic_arrives() {
    within("a panic", || panic!("what work says"));
}
