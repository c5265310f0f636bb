//! Promise: a run that is killed at any moment (SIGKILL: nothing is tidied up), also while it writes its
//! ledger, goes on from its last state as if nothing had been; and no file of the ledger is half-written.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{corpus, pattern, rows, wait, with_stub};
use serde_json::{Value, json};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::LoaderState;

const SHARDS: usize = 4;
const EPOCHS: u64 = 3;

/// Moments at which a run is killed.
const KILLS: usize = 30;

/// Names the folder to the test binary that plays the run.
const FOLDER: &str = "TLDR_TEST_KILL_FOLDER";

/// The run: trains three epochs, slowly, and notes each batch with the state after it in one line. Begins
/// where the notes end.
fn train(folder: &Path, pause: Duration) {
    let ledger = Ledger::open(folder.join("ledger"), None).unwrap();
    let loader = with_stub(&pattern(folder, SHARDS)).rotate(true).ledger(ledger).build().unwrap();
    if let Some(last) = notes(folder).last() {
        let state: LoaderState = serde_json::from_value(last["state"].clone()).unwrap();
        loader.load_state(&state).unwrap();
    }
    let mut out = OpenOptions::new().create(true).append(true).open(folder.join("notes")).unwrap();
    while loader.epoch() < EPOCHS {
        for batch in loader.iter().unwrap() {
            let rows: Vec<Value> =
                rows(&batch.unwrap()).iter().map(|r| json!([r.id, r.caption, r.pixels])).collect();
            let line = json!({"state": loader.state(), "rows": rows}).to_string() + "\n";
            out.write_all(line.as_bytes()).unwrap();
            std::thread::sleep(pause);
        }
    }
    fs::write(folder.join("done"), "").unwrap();
}

/// The whole lines of the notes; what the kill cut off is removed.
fn notes(folder: &Path) -> Vec<Value> {
    let path = folder.join("notes");
    let Ok(text) = fs::read_to_string(&path) else { return vec![] };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        File::options().write(true).open(path).unwrap().set_len(whole as u64).unwrap();
    }
    text[..whole].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Plays the run where a test below started it as a process of its own.
#[test]
fn run_as_a_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        train(Path::new(&folder), Duration::from_millis(4));
    }
}

fn start(folder: &Path) -> Child {
    let mut command = wait::test(module_path!(), "run_as_a_process");
    command.env(FOLDER, folder).stdout(Stdio::null()).spawn().unwrap()
}

/// Content of every file of a ledger whose name says that it is whole, by its path in the ledger.
fn files(ledger: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![ledger.to_owned()];
    while let Some(folder) = folders.pop() {
        // A run that is killed early enough has made no folder yet.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.insert(path.strip_prefix(ledger).unwrap().to_owned(), fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    corpus(folder, SHARDS, 150);
    train(folder, Duration::ZERO);
    let rows = |notes: Vec<Value>| notes.into_iter().map(|mut n| n["rows"].take()).collect::<Vec<Value>>();
    let expected = rows(notes(folder));
    let ledger = files(&folder.join("ledger"));
    assert!(expected.len() > 20 && !ledger.is_empty());

    let again = || {
        for name in ["notes", "done"] {
            let _ = fs::remove_file(folder.join(name));
        }
        let _ = fs::remove_dir_all(folder.join("ledger"));
    };
    again();
    let mut rng = Rng::new(0, Purpose::Synth, 1);
    let (mut killed, mut while_writing) = (0, 0);
    while killed < KILLS {
        let mut child = start(folder);
        // Most of the moments within the first epoch of a process: that is when it writes.
        let moment = Duration::from_micros(rng.below(100_000) as u64);
        let begun = Instant::now();
        while begun.elapsed() < moment && !folder.join("done").exists() {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        let ended_itself = wait::ended(&mut child).success();
        assert!(!ended_itself || folder.join("done").exists(), "the process ran nothing");
        killed += usize::from(!ended_itself);
        let found = files(&folder.join("ledger"));
        while_writing += usize::from(found.len() < ledger.len());
        for (path, content) in &found {
            // Signals of a window are the same bytes in every run; captions are those of some kept samples.
            match ledger.get(path) {
                Some(whole) => assert!(content == whole, "{} is not as it was", path.display()),
                None => assert!(path.starts_with("captions"), "{} is in no whole ledger", path.display()),
            }
            // The end of a Parquet file is what is written last.
            assert!(content.ends_with(b"PAR1"), "{} is half-written", path.display());
        }
        if folder.join("done").exists() {
            assert_eq!(rows(notes(folder)), expected, "after {killed} kills");
            again();
        }
    }
    assert!(while_writing > 2, "only {while_writing} kills met a ledger in the making");
    let mut last = start(folder);
    assert!(wait::ended(&mut last).success());
    assert_eq!(rows(notes(folder)), expected);
}
