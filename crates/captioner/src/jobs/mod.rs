//! Whole runs: train a captioner on a stream, fit it to a corpus.

mod fit;
mod previews;
mod train;

use tldr_loader::config::Source;
use tldr_loader::error::{Error, Result};
use tldr_loader::shard::{self, Shard};

pub use fit::{CaptionSample, FitJob, FitSummary, SourcePass, fit};
pub use train::{Resume, TrainJob, TrainProgress, TrainSummary, train, train_folds, worth_of_training};

/// The shards of `source` and their samples: as many as it says, else they are looked up or counted.
///
/// # Errors
/// Errors of listing and counting; lengths that are not one number for each shard.
fn listed(source: &Source) -> Result<(Vec<Shard>, Vec<u64>)> {
    let shards = source.list()?;
    let lengths = match &source.lengths {
        None => shard::lengths(&shards, &mut |_, _| {})?,
        Some(lengths) if lengths.len() == shards.len() => lengths.clone(),
        Some(lengths) => {
            let accepted = format!("one number for each of the {} shards", shards.len());
            return Err(Error::option("lengths", format!("{} numbers", lengths.len()), accepted));
        }
    };
    Ok((shards, lengths))
}

/// The error of a source whose shards hold nothing for a job.
fn nothing_in(source: &Source, expected: impl std::fmt::Display) -> Error {
    Error::option("urls", source.urls.join(" "), expected)
}
