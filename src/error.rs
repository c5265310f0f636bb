//! The one error type of the crate, and the reasons for which a single sample can be lost.
//!
//! An [`Error`] says what went wrong ([`ErrorKind`]) and where (shard, key, byte offset). A
//! sample that cannot be used is not an `Error`: it is a [`FailReason`], counted and named in
//! the statistics while the iteration goes on.

use std::fmt;
use std::sync::Arc;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and where in the data.
#[derive(Debug)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The shard (path or URL) that was being read.
    pub shard: Option<Arc<str>>,
    /// The key of the sample that was being read.
    pub key: Option<Arc<str>>,
    /// Byte offset in the (decompressed) shard.
    pub offset: Option<u64>,
}

/// What torch says when memory runs out: its allocators for CUDA and for the host, and CUDA itself.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "can't allocate memory", "not enough memory"];

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option has a value that cannot be used.
    #[error("invalid {option}={given}: {problem}")]
    Option {
        /// Name of the option, as the caller spells it.
        option: &'static str,
        /// The value that was given.
        given: String,
        /// What was expected or is wrong, and what to do.
        problem: String,
    },
    /// There is no option of this name.
    #[error("unknown option {name}={detail}")]
    UnknownOption {
        /// The name.
        name: String,
        /// The value that was given, and what there is instead.
        detail: String,
    },
    /// A file or store could not be read or written.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, with the path: "open shards/00000.tar".
        action: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not what it should be: an artefact, a tokenizer, a length table, a state.
    #[error("{what}: expected {expected}, found {found}")]
    Format {
        /// The file, tensor or field.
        what: String,
        /// What was expected there.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A shard is damaged beyond single samples.
    #[error("damaged shard: {detail}")]
    Shard {
        /// What was found, and what to do.
        detail: String,
    },
    /// There is no sample to yield: the shards hold none, filters exclude them, none is kept or none can be used.
    #[error("no samples: {detail}")]
    NoSamples {
        /// What was looked for and where, what became of the samples, and what to do.
        detail: String,
    },
    /// A shard is not what the ledger knows of it.
    #[error("the ledger does not fit the shard: {detail}")]
    Ledger {
        /// What differs, and what to do.
        detail: String,
    },
    /// The ledger lacks what no model is there to make.
    #[error("not recorded: {detail}")]
    NotRecorded {
        /// What is missing, and how to record it.
        detail: String,
    },
    /// Memory ran out, on the host or on a device.
    #[error("out of memory: {detail}")]
    OutOfMemory {
        /// What it was for, and what to do.
        detail: String,
    },
    /// Another process or thread has what only one may have at a time.
    #[error("locked: {detail}")]
    Locked {
        /// What is locked, by whom, and what to do.
        detail: String,
    },
    /// A single sample failed while `on_error = raise` was in force.
    #[error("sample failed ({reason}): {detail}")]
    Sample {
        /// Why the sample cannot be used.
        reason: FailReason,
        /// What the decoder or reader said.
        detail: String,
    },
    /// More samples failed than `max_errors` allows.
    #[error("too many failed samples: {failed} of {read} read, more than {limit}; {reasons}")]
    TooManyErrors {
        /// Samples failed so far.
        failed: u64,
        /// Samples read so far.
        read: u64,
        /// The limit in force: its option and value.
        limit: String,
        /// Count by reason, and one example of each.
        reasons: String,
    },
    /// The captioner (or another model behind the traits of [`crate::model`]) failed.
    #[error("captioner: {0}")]
    Captioner(String),
    /// Which of how many processes this one is cannot be told, or is told in two ways.
    #[error("{0}")]
    Ranks(String),
    /// A saved state does not fit this loader.
    #[error("state: {0}")]
    State(String),
    /// The training loop waited too long for a batch (`stall_timeout`).
    #[error("no batch came for {seconds:.1} s: {detail}")]
    Stall {
        /// Name of the stage that the others wait for.
        stage: &'static str,
        /// How long a batch was waited for.
        seconds: f64,
        /// Who waits for whom, and what the last of them is doing.
        detail: String,
    },
    /// A stage of the pipeline died. This is a bug, reported instead of a hang.
    #[error("the {stage} stage stopped: {detail}")]
    Stage {
        /// Name of the stage.
        stage: &'static str,
        /// The panic message or cause.
        detail: String,
    },
}

impl Error {
    /// An option with a value that cannot be used; `expected` completes "expected ...", and says what to do.
    pub fn option(option: &'static str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::refused(option, given, format!("expected {expected}"))
    }

    /// As [`option`](Self::option), where something else is wrong than the value itself.
    pub fn refused(option: &'static str, given: impl fmt::Display, problem: impl Into<String>) -> Self {
        ErrorKind::Option { option, given: given.to_string(), problem: problem.into() }.into()
    }

    /// An option that has no effect beside the others; `why` completes "it has no effect ...".
    pub fn unused(option: &'static str, given: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::refused(option, given, format!("it has no effect {why}; remove it"))
    }

    /// A failed read or write; `action` completes "cannot ...".
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        ErrorKind::Io { action: action.into(), source }.into()
    }

    /// A file, tensor or field that is not what it should be.
    pub fn format(what: impl Into<String>, expected: impl Into<String>, found: impl fmt::Display) -> Self {
        ErrorKind::Format { what: what.into(), expected: expected.into(), found: found.to_string() }.into()
    }

    /// A failure of the captioner, or of torch: out of memory, where its message says so.
    pub fn captioner(message: impl fmt::Display) -> Self {
        let message = message.to_string();
        if OUT_OF_MEMORY.iter().any(|words| message.contains(words)) {
            return Self::out_of_memory(message);
        }
        ErrorKind::Captioner(message).into()
    }

    /// Memory that ran out.
    pub fn out_of_memory(detail: impl Into<String>) -> Self {
        ErrorKind::OutOfMemory { detail: detail.into() }.into()
    }

    /// Nothing to yield.
    pub fn no_samples(detail: impl Into<String>) -> Self {
        ErrorKind::NoSamples { detail: detail.into() }.into()
    }

    /// A shard that is not what the ledger knows.
    pub fn ledger(detail: impl Into<String>) -> Self {
        ErrorKind::Ledger { detail: detail.into() }.into()
    }

    /// Adds the shard, unless one is named already.
    #[must_use]
    pub fn in_shard(mut self, shard: &Arc<str>) -> Self {
        self.shard.get_or_insert_with(|| Arc::clone(shard));
        self
    }

    /// Adds the key and byte offset of the sample, unless they are named already.
    #[must_use]
    pub fn at_sample(mut self, key: &Arc<str>, offset: u64) -> Self {
        self.key.get_or_insert_with(|| Arc::clone(key));
        self.offset.get_or_insert(offset);
        self
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, shard: None, key: None, offset: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        let place = [
            self.shard.as_ref().map(|s| format!("shard {s}")),
            self.key.as_ref().map(|k| format!("key {k}")),
            self.offset.map(|o| format!("byte {o}")),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        if place.is_empty() { Ok(()) } else { write!(f, " ({})", place.join(", ")) }
    }
}

// The cause is part of the message already; naming it as `source` would print it twice.
impl std::error::Error for Error {}

/// Why a single sample cannot be used. Each costs one sample and is counted under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailReason {
    /// No member with an image extension.
    MissingImage,
    /// No caption member.
    MissingCaption,
    /// The caption is empty or white space.
    EmptyCaption,
    /// The caption is not UTF-8.
    CaptionNotUtf8,
    /// The json member cannot be parsed although a field of it is needed.
    BadJson,
    /// The image cannot be decoded.
    UndecodableImage,
    /// The image header promises more pixels than `max_image_pixels`.
    ImageTooLarge,
    /// The key was seen before in this shard.
    RepeatedKey,
    /// The key was seen before in this shard, and this is a part of a sample: its members are not adjacent.
    MembersApart,
    /// The shard ends, or is damaged, inside this sample.
    TruncatedSample,
    /// The filter on metadata does not let it pass, or the subset does not name it: not a fault, and not
    /// counted as one.
    Excluded,
}

// In the order in which statistics list them.
crate::names!(FailReason {
    MissingImage => "missing-image",
    MissingCaption => "missing-caption",
    EmptyCaption => "empty-caption",
    CaptionNotUtf8 => "caption-not-utf8",
    BadJson => "bad-json",
    UndecodableImage => "undecodable-image",
    ImageTooLarge => "image-too-large",
    RepeatedKey => "repeated-key",
    MembersApart => "members-apart",
    TruncatedSample => "truncated-sample",
    Excluded => "excluded",
});

impl FailReason {
    /// Whether something is wrong with the sample: it is named, and counts against the limits.
    pub fn is_fault(self) -> bool {
        self != Self::Excluded
    }

    /// Whether it is found only when the image is decoded: of a sample that is never decoded nobody
    /// knows it.
    pub fn is_of_pixels(self) -> bool {
        matches!(self, Self::UndecodableImage | Self::ImageTooLarge)
    }
}

impl fmt::Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_place_and_remedy() {
        let shard: Arc<str> = "a/00000.tar".into();
        let key: Arc<str> = "000000012".into();
        let error =
            Error::option("keep_ratio", 1.5, "a number in (0, 1]").in_shard(&shard).at_sample(&key, 512);
        assert_eq!(
            error.to_string(),
            "invalid keep_ratio=1.5: expected a number in (0, 1] (shard a/00000.tar, key 000000012, byte 512)"
        );
    }

    #[test]
    fn memory_that_ran_out_is_no_failure_of_the_captioner() {
        for message in [
            "CUDA out of memory. Tried to allocate 20.00 GiB",
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate \
             9000000000000 bytes",
            "CUDA error: out of memory",
        ] {
            let error = Error::captioner(message);
            assert!(matches!(error.kind, ErrorKind::OutOfMemory { .. }), "{error}");
            assert_eq!(error.to_string(), format!("out of memory: {message}"));
        }
        assert!(matches!(Error::captioner("index out of range").kind, ErrorKind::Captioner(_)));
    }

    #[test]
    fn first_place_named_stays() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let error = Error::captioner("x").in_shard(&a).in_shard(&b);
        assert_eq!(error.shard.as_deref(), Some("a"));
    }

    #[test]
    fn serde_names_equal_display_names() {
        for reason in FailReason::ALL {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{reason}\""));
        }
    }
}
