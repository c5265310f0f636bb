//! Whole runs: train a captioner on a stream, fit it to a corpus.

mod fit;
mod previews;
mod train;

use tldr_loader::error::{Error, Result};
use tldr_loader::shard::{self, Shard, StoreOptions};

pub use fit::{CaptionSample, FitJob, FitSummary, SourcePass, fit};
pub use train::{Resume, TrainJob, TrainProgress, TrainSummary, train, train_folds, worth_of_training};

/// The shards of `urls` and their samples: as many as are `known`, else they are looked up or counted.
///
/// # Errors
/// Errors of listing and counting; `known` is not one number for each shard.
fn listed(urls: &[String], stores: &StoreOptions, known: Option<&[u64]>) -> Result<(Vec<Shard>, Vec<u64>)> {
    let shards = shard::list(urls, None, stores)?;
    let lengths = match known {
        None => shard::lengths(&shards, &mut |_, _| {})?,
        Some(lengths) if lengths.len() == shards.len() => lengths.to_vec(),
        Some(lengths) => {
            let accepted = format!("one number for each of the {} shards", shards.len());
            return Err(Error::option("lengths", format!("{} numbers", lengths.len()), accepted));
        }
    };
    Ok((shards, lengths))
}
