//! The stages of the pipeline.

use std::thread;

use crate::error::{Error, ErrorKind};

/// A stage: its name is that of its threads (`tldr-read-0`), of its errors, of its seconds in the statistics, and of
/// what a stall is blamed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading shards.
    Read,
    /// Decoding previews.
    Preview,
    /// Running the scorer.
    Encode,
    /// Deciding.
    Select,
    /// Generating captions.
    Caption,
    /// Judging generated captions.
    Judge,
    /// Decoding and transforming kept samples, fusing and tokenising captions.
    Example,
    /// Completing batches: rows that proved unusable are replaced.
    Batch,
}

// In order of the trip.
crate::names!(Stage {
    Read => "read",
    Preview => "preview",
    Encode => "encode",
    Select => "select",
    Caption => "caption",
    Judge => "judge",
    Example => "example",
    Batch => "batch",
});

impl Stage {
    /// A thread of it, named after it and `of`.
    pub(crate) fn thread(self, of: &str) -> thread::Builder {
        let dash = if of.is_empty() { "" } else { "-" };
        thread::Builder::new().name(format!("tldr-{}{dash}{of}", self.name()))
    }

    /// The error of such a thread that does not start.
    pub(crate) fn unstarted(self, error: std::io::Error) -> Error {
        Error::io(format!("start the {} thread", self.name()), error)
    }

    /// The error of a stage that died, by this panic or cause.
    pub(crate) fn died(self, detail: impl Into<String>) -> Error {
        ErrorKind::Stage { stage: self.name(), detail: detail.into() }.into()
    }

    /// The error of a stage whose thread is gone without a word.
    pub(crate) fn gone(self) -> Error {
        self.died("its thread has ended")
    }
}
