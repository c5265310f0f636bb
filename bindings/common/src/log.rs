//! Warnings and notices of the crate, as records of Python's logger `tldr_loader`.
//!
//! They arise on threads that must not wait for Python's lock: they queue up here, and are handed over
//! wherever Python calls in.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tldr_loader::loader::HANDED_WARNINGS;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines that wait at most; the oldest go first.
const WAITING: usize = 256;

static QUEUE: Mutex<VecDeque<(&'static str, String)>> = Mutex::new(VecDeque::new());
static ANY: AtomicBool = AtomicBool::new(false);
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// Takes them from now on.
pub fn install() {
    // Somebody else in the process may take them already.
    let _ = tracing::subscriber::set_global_default(Forward);
}

/// Writes them to stderr from now on: for a command, which has no logger.
pub fn to_stderr() {
    TO_STDERR.store(true, Ordering::Release);
}

/// Hands over what waits.
///
/// # Errors
/// What a handler of the logger raises.
pub fn hand_over(py: Python<'_>) -> PyResult<()> {
    if !ANY.swap(false, Ordering::AcqRel) {
        return Ok(());
    }
    let waiting: Vec<_> = QUEUE.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    let logger = py.import("logging")?.call_method1("getLogger", ("tldr_loader",))?;
    for (method, line) in waiting {
        logger.call_method1(method, ("%s", line))?;
    }
    Ok(())
}

/// Writes a line to the logger, by the method of its level there.
///
/// # Errors
/// As [`hand_over`].
pub fn say(py: Python<'_>, method: &str, line: &str) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("tldr_loader",))?;
    logger.call_method1(method, ("%s", line)).map(drop)
}

/// Queues notices, warnings and errors; knows no spans.
struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
            // These are warnings of Python's own.
            && metadata.target() != HANDED_WARNINGS
            && metadata.target().starts_with("tldr")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let is_warning = *event.metadata().level() <= Level::WARN;
        if TO_STDERR.load(Ordering::Acquire) {
            if is_warning {
                eprintln!("warning: {}{}", line.message, line.fields);
            }
            return;
        }
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() == WAITING {
            queue.pop_front();
        }
        let method = if is_warning { "warning" } else { "info" };
        queue.push_back((method, line.message + &line.fields));
        ANY.store(true, Ordering::Release);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The text of an event.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
