//! How far a command has come: a bar on a terminal, a line now and then in a log.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines of a log, and before the first.
const EVERY: Duration = Duration::from_secs(30);

/// Progress on stderr.
pub struct Progress {
    bar: ProgressBar,
    unit: String,
    /// When the last line was written; `None` on a terminal, which has the bar.
    written: Option<Mutex<Instant>>,
}

impl Progress {
    /// Of a command that counts `unit`s.
    pub fn new(unit: &str) -> Self {
        let bar = ProgressBar::new(0);
        let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left  {{msg}}");
        // A template with a fault falls back to the plain bar.
        bar.set_style(
            ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        let written = (!std::io::stderr().is_terminal()).then(|| Mutex::new(Instant::now()));
        Self { bar, unit: unit.into(), written }
    }

    /// `done` units of `total` are done.
    pub fn at(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let Some(written) = &self.written else { return };
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.elapsed() < EVERY {
            return;
        }
        *written = Instant::now();
        let left = humanised(self.bar.eta());
        let line = format!("{done}/{total} {}, {left} left  {}", self.unit, self.bar.message());
        // A log that nobody takes is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
    }

    /// What stands beside the numbers.
    pub fn say(&self, message: impl Into<std::borrow::Cow<'static, str>>) {
        self.bar.set_message(message);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Seconds, minutes or hours.
pub(crate) fn humanised(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
