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

/// Which of the seconds in the statistics are wall-clock: no sum over threads.
#[test]
fn seconds_of_single_threads_and_of_waits_are_within_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let urls = support::corpus(folder.path(), 6, 150);
    let loader = support::with_judge(&urls).threads(4).build().unwrap();
    let start = std::time::Instant::now();
    let batches = support::epoch(&loader).len();
    let wall = start.elapsed().as_secs_f64();
    let stats = loader.stats();
    assert!(batches > 5 && stats.captioned > 100 && stats.judged > 100);
    let of = |name: &str| stats.seconds[name];
    // One thread owns the captioner.
    let single =
        [of("encode") + of("caption"), of("judge"), of("batch"), of("wait_consumer"), of("wait_loader")];
    assert!(single.iter().all(|&seconds| 0.0 < seconds && seconds <= wall), "{single:?} of {wall}");
    // A thread for each lane, and the pool.
    for (name, threads) in [("read", 8.0), ("select", 8.0), ("preview", 4.0), ("example", 4.0)] {
        assert!(0.0 < of(name) && of(name) <= threads * wall, "{name}: {} of {wall}", of(name));
    }
    assert_eq!(stats.seconds.len(), 10);
}
