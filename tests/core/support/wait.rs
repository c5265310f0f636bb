//! Waiting that ends: a test that waits for what does not come fails, and says for what.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::io::Read;
use std::panic::resume_unwind;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for what takes seconds: long enough for a machine that others use too.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Names to a process the test that it is there for ([`alone`]).
const ALONE: &str = "TLDR_TEST_ALONE";

/// Waits until `is_so`.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "after {DEADLINE:?}: waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Does `work` on a thread of its own; one that does not end is left behind.
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = channel();
    let worker = thread::spawn(move || drop(done.send(work())));
    match end.recv_timeout(DEADLINE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Disconnected) => resume_unwind(worker.join().unwrap_err()),
        Err(RecvTimeoutError::Timeout) => panic!("after {DEADLINE:?}: waited in vain for {what}"),
    }
}

/// Waits for the end of a process, which is killed at the deadline.
pub fn ended(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("process {} does not end within {DEADLINE:?}", child.id());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a command says until it ends.
pub fn output(command: &mut Command) -> Output {
    started(command).unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"))
}

/// As [`output`]; fails where the command cannot be started.
pub fn started(command: &mut Command) -> std::io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let status = ended(&mut child);
    // A process that it left behind may hold the pipes.
    let said = |from: Receiver<Vec<u8>>| {
        from.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{command:?} ended, and what it says does not"))
    };
    Ok(Output { status, stdout: said(out), stderr: said(err) })
}

/// Reads a pipe to its end on a thread of its own.
fn read(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (whole, end) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        whole.send(bytes)
    });
    end
}

/// The command that runs the test `name` of `module` (its `module_path!()`) of this binary alone.
pub fn test(module: &str, name: &str) -> Command {
    // In the binary's own names the crate is not in front.
    let module = module.split_once("::").map_or(String::new(), |(_, rest)| format!("{rest}::"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--include-ignored", "--nocapture", "--exact"]).arg(module + name);
    command
}

/// Runs a command of [`test`]. A name that no test has is a failure.
pub fn passes(command: &mut Command) {
    let done = output(command);
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success() && said.contains("test result: ok. 1 passed"), "{command:?}: {said}");
    print(&said);
}

/// Hands on why a test in another process was skipped.
#[allow(clippy::print_stdout)]
fn print(said: &str) {
    said.lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
}

/// Whether this process runs the test alone, for what it measures is the whole process's. If not, another
/// process runs it.
pub fn alone(module: &str, name: &str) -> bool {
    let alone = std::env::var_os(ALONE).is_some_and(|test| test == name);
    if !alone {
        passes(test(module, name).env(ALONE, name));
    }
    alone
}
