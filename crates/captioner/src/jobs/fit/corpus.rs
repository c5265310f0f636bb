//! The shards that a fit samples.

use crate::Captioner;
use crate::jobs::fit::sample::Sampled;
use crate::jobs::listed;
use tldr_loader::config::Source;
use tldr_loader::error::Result;
use tldr_loader::loader::check_tables;
use tldr_loader::model::Scorer;
use tldr_loader::shard::{self, ReadOptions, Shard};

/// The shards that a job samples.
pub(super) struct Corpus {
    pub(super) shards: Vec<Shard>,
    pub(super) lengths: Vec<u64>,
    pub(super) read: ReadOptions,
}

impl Corpus {
    pub(super) fn of(source: &Source) -> Result<Self> {
        let (shards, lengths) = listed(source)?;
        let corpus = Self { shards, lengths, read: source.open()? };
        if corpus.read.has_tables() {
            let found = shard::survey(&corpus.shards, &corpus.lengths, &corpus.read)?;
            check_tables(&corpus.read, &found, corpus.samples())?;
        }
        Ok(corpus)
    }

    pub(super) fn samples(&self) -> u64 {
        self.lengths.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    pub(super) fn sampled(&self, captioner: &Captioner, seed: u64) -> Sampled<'_> {
        Sampled {
            shards: &self.shards,
            lengths: &self.lengths,
            read: &self.read,
            seed,
            size: captioner.preview_size(),
            filter: captioner.preview_filter(),
            batch: captioner.batch_size(),
        }
    }
}
