//! The shards that a job samples.

use crate::config::Source;
use crate::error::{Error, Result};
use crate::image::DecodeOptions;
use crate::jobs::sample::Sampled;
use crate::loader::check_tables;
use crate::model::PreviewFilter;
use crate::shard::{self, ReadOptions, Shard};

/// The shards of a source, with their lengths and how they are read.
#[derive(Debug)]
pub struct Corpus {
    /// In the order of the list.
    pub shards: Vec<Shard>,
    /// Samples of each shard, unusable ones included.
    pub lengths: Vec<u64>,
    /// How samples are made of members.
    pub read: ReadOptions,
    /// How their images are decoded.
    pub decode: DecodeOptions,
}

impl Corpus {
    /// The corpus of `source`, its images decoded as `decode` says.
    ///
    /// # Errors
    /// Errors of listing and counting; lengths that are not one number for each shard; a table that has nothing to do
    /// with the shards.
    pub fn of(source: &Source, decode: DecodeOptions) -> Result<Self> {
        let (shards, lengths) = listed(source)?;
        let corpus = Self { shards, lengths, read: source.open()?, decode };
        if corpus.read.has_tables() {
            let found = shard::survey(&corpus.shards, &corpus.lengths, &corpus.read)?;
            check_tables(&corpus.read, &found, corpus.samples())?;
        }
        Ok(corpus)
    }

    /// Samples of all shards.
    pub fn samples(&self) -> u64 {
        self.lengths.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// The error of a sample of `source` without a usable one; so many of those that were drawn are `failed`.
    pub fn nothing_usable(&self, source: &Source, failed: u64) -> Error {
        let accepted = format!(
            "shards with usable samples: of {} in the shards {failed} cannot be used, and `where`, if it is given, \
             skips the others; `tldr-loader inspect --decode` says why",
            self.samples()
        );
        nothing_in(source, accepted)
    }

    /// A sample of it, drawn by `seed`: batches of `batch` previews of `size` pixels, made with `filter`.
    pub fn sampled(&self, size: usize, filter: PreviewFilter, batch: usize, seed: u64) -> Sampled<'_> {
        let Self { shards, lengths, read, decode } = self;
        Sampled { shards, lengths, read, decode: *decode, seed, size, filter, batch }
    }
}

/// The shards of `source` and their samples: as many as it says, else they are looked up or counted.
///
/// # Errors
/// Errors of listing and counting; lengths that are not one number for each shard.
pub fn listed(source: &Source) -> Result<(Vec<Shard>, Vec<u64>)> {
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
pub fn nothing_in(source: &Source, expected: impl std::fmt::Display) -> Error {
    Error::option("urls", source.urls.join(" "), expected)
}
