//! What a ledger knows of a corpus that is planned, shard by shard.

use std::sync::Arc;

use crate::error::Result;
use crate::jobs::plan::job::PlanJob;
use crate::ledger::{CorpusScores, Ledger, WindowKey, WindowRecord};
use crate::loader::{reading_fingerprint, scores_version, version_hash};
use crate::select::Policy;
use crate::shard::{ReadOptions, Shard};

/// Reads a ledger shard by shard.
pub(super) struct Walk<'a> {
    pub(super) job: &'a PlanJob,
    ledger: &'a Ledger,
    pub(super) policy: &'a Policy,
    pub(super) scorer: u64,
}

/// The windows of a shard: their keys and what is known of them, scores where the policy looks at them.
pub(super) type Windows = Vec<(WindowKey, Arc<WindowRecord>, Option<CorpusScores>)>;

impl<'a> Walk<'a> {
    pub(super) fn new(job: &'a PlanJob, policy: &'a Policy, ledger: &'a Ledger, scorer: u64) -> Self {
        Self { job, policy, ledger, scorer }
    }

    /// The key of window 0 of the shard as it is now.
    fn key(&self, shard: &Shard, read: &ReadOptions) -> Result<WindowKey> {
        let version = shard.version_until(read.looks_beside(), None)?;
        Ok(WindowKey {
            shard: shard.hash,
            window: 0,
            size: self.policy.selection.window,
            version: version_hash(version.as_deref()),
            scorer: self.scorer,
            reading: reading_fingerprint(read, &self.job.config.images.decode()),
        })
    }

    /// What is known of a window, if that is enough; `beside` is the version of its scores.
    fn window(&self, key: &WindowKey, beside: u64) -> Option<(Arc<WindowRecord>, Option<CorpusScores>)> {
        let record = self.ledger.window(key).filter(|record| {
            let embeddings = !self.job.needs_embeddings() || record.has_embedding;
            let whole = record.signals.is_some() && record.encoded.is_none() && embeddings;
            self.scorer == 0 || record.ids.is_empty() || whole
        })?;
        let Some(field) = self.policy.gate().field().filter(|_| !record.ids.is_empty()) else {
            return Some((record, None));
        };
        let scores = self.ledger.corpus_scores(&key.scores(field, beside))?;
        (scores.len() == record.ids.len()).then_some((record, Some(scores)))
    }

    /// Version of the scores of a shard.
    fn beside(&self, shard: &Shard, read: &ReadOptions) -> Result<u64> {
        let Some(field) = self.policy.gate().field() else { return Ok(0) };
        let read = ReadOptions { score_field: Some(field.to_owned()), ..read.clone() };
        Ok(scores_version(shard.version_until(true, None)?.as_deref(), &read))
    }

    /// All windows of `shard`; `None` where one is not known.
    pub(super) fn windows(&self, shard: &Shard, read: &ReadOptions) -> Result<Option<Windows>> {
        let (mut key, beside) = (self.key(shard, read)?, self.beside(shard, read)?);
        let mut windows = vec![];
        while let Some((record, scores)) = self.window(&key, beside) {
            let ends = record.ids.len() < self.policy.selection.window;
            if !record.ids.is_empty() {
                windows.push((key, record, scores));
            }
            if ends {
                return Ok(Some(windows));
            }
            key.window += 1;
        }
        Ok(None)
    }

    /// How many of the `length` samples of `shard` are in windows that are not known.
    pub(super) fn lacking(&self, shard: &Shard, read: &ReadOptions, length: u64) -> Result<u64> {
        let (mut key, beside) = (self.key(shard, read)?, self.beside(shard, read)?);
        let size = self.policy.selection.window as u64;
        let mut lacking = 0;
        for window in 0..length.div_ceil(size) {
            key.window = window;
            match self.window(&key, beside) {
                Some((record, _)) if (record.ids.len() as u64) < size => break,
                Some(_) => {}
                None => lacking += size.min(length - window * size),
            }
        }
        Ok(lacking)
    }
}
