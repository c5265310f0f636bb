//! How a loader works: threads, memory, and what happens when something goes wrong.

use std::path::PathBuf;
use std::time::Duration;

use crate::options::text_settings;

/// Encoded images and json that wait in memory, by default: those of a few 10,000 samples.
const BUFFER_BYTES: u64 = 4 << 30;

crate::group! {
    /// Threads, memory, and what happens when something goes wrong.
    pub struct Runtime, fields of runtime {
        /// Threads that decode images. Default: 0, one per core.
        Runtime threads: usize = 0;
        /// Finished batches that may wait for the training loop. Default: 2.
        Runtime prefetch: usize = 2;
        /// Windows whose kept samples are shuffled together. Default: 8.
        Order shuffle_windows: usize = 8;
        /// Bytes of encoded images and json that may wait in memory, over all lanes of the rank; what is above them waits
        /// in unlinked files. Default: 4 GiB.
        Runtime buffer_bytes: u64 = BUFFER_BYTES;
        /// Folder of these files. Default: the system's folder for temporary files (`TMPDIR`).
        Runtime spill_dir: Option<PathBuf> = None, into PathBuf;
        /// Where a captioner and a judge that are given as directories run, such as a second GPU. Default: `device`; a
        /// model that is given loaded has a device of its own.
        Runtime captioner_device: Option<String> = None, own setter;
        /// Whether signals of the ledger that were computed otherwise than this captioner computes (kind of device, number
        /// type, torch) end the run, instead of a warning. Default: false.
        Runtime strict: bool = false;
        /// What to do with a sample that cannot be used: `skip` counts and names it, `raise` ends the run. Default:
        /// `skip`.
        Runtime on_error: OnError = OnError::Skip;
        /// Failed samples that end the run: a count, or below 1 a share of what was read (judged from 1,000 samples on).
        /// Default: 0.1.
        Runtime max_errors: f64 = 0.1;
        /// The same of one shard (judged from 100 samples on). Default: no limit.
        Runtime max_errors_per_shard: Option<f64> = None, some f64;
        /// Seconds that a stage may hold up the training loop without a sign of life; then an error names the stage and its
        /// shard. Default: for ever, with a warning from a minute on.
        Runtime stall_timeout: Option<Duration> = None, some Duration;
    }
}

/// What to do with a sample that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Count it, name it and go on.
    #[default]
    Skip,
    /// End the run.
    Raise,
}

crate::names!(OnError { Skip => "skip", Raise => "raise" }, option "on_error", "one of skip, raise");

text_settings! {
    OnError: "Literal['skip', 'raise']", "one of skip, raise";
}
