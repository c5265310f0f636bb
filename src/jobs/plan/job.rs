//! What to plan.

use std::path::Path;

use crate::config::{Config, Gate, Priority, Quota, Selection, Source};
use crate::error::{Error, Result};
use crate::select::Policy;
use crate::shard::Store;

/// What to plan, by which selection.
#[derive(Debug, Clone, Default)]
pub struct PlanJob {
    /// The sources, the selection, the seed, and the folder of the ledger, which is begun where nothing is. Its `dedup` is
    /// the cosine of near-duplicates in the whole corpus. The captioner is given open.
    pub config: Config,
    /// Whether embeddings say in the end what is a near-duplicate, and not semantic hashes alone. They are
    /// kept in the ledger; windows without are encoded again.
    pub embeddings: bool,
    /// Whether near-duplicates fill the quota for which nothing else is left.
    pub fill_with_copies: bool,
    /// Only record the shards whose index in the list is `.0` modulo `.1`, and do not plan.
    pub part: Option<(usize, usize)>,
}

impl PlanJob {
    /// The defaults for a corpus and a ledger: the paper's selection without a gate, windows of 2,048.
    pub fn new(urls: Vec<String>, ledger: impl AsRef<Path>) -> Self {
        let selection = Selection { gate: Some(Gate::OFF), ..Selection::default() };
        let ledger = Some(ledger.as_ref().to_string_lossy().into_owned());
        let config = Config { sources: vec![Source::new(urls)], selection, ledger, ..Config::default() };
        Self { config, ..Self::default() }
    }

    /// Whether windows must have embeddings.
    pub(super) fn needs_embeddings(&self) -> bool {
        let selection = &self.config.selection;
        self.embeddings && selection.dedup.is_some() || selection.priority == Priority::Diverse
    }

    /// The policy, as far as nothing of the corpus has to be known; `has_clusters` says whether there is a scorer.
    ///
    /// # Errors
    /// As [`Selection::resolved`].
    pub fn policy(&self, has_clusters: bool) -> Result<Policy> {
        Ok(Policy::new(self.config.selection.resolved(has_clusters)?, self.config.seed))
    }

    /// The ledger's folder.
    pub(super) fn ledger(&self) -> Result<&str> {
        self.config.ledger.as_deref().ok_or_else(|| {
            Error::option("ledger", "none", "the folder of a ledger, which signals are recorded in")
        })
    }

    /// How the ledger's folder is asked.
    pub(super) fn store(&self) -> Store {
        self.config.sources.first().map(|source| source.store.clone()).unwrap_or_default()
    }

    /// Refuses what cannot work before anything is read.
    pub(super) fn check(&self) -> Result<()> {
        let selection = &self.config.selection;
        if self.fill_with_copies && matches!(selection.quota, Some(Quota::CapAt(_))) {
            let accepted = "with quota=cap(samples), whose clusters have no room to spare";
            return Err(Error::unused("fill_with_copies", true, accepted));
        }
        if selection.window == 0 {
            return Err(Error::option("window", 0, "at least 1"));
        }
        let only_of_loaders =
            [("defer_duplicates", selection.defer_duplicates), ("weights", selection.weights)];
        if let Some((option, _)) = only_of_loaders.into_iter().find(|(_, given)| *given) {
            return Err(Error::unused(option, true, "in a plan: it is an option of loaders"));
        }
        let idle = [("fill_with_copies", self.fill_with_copies), ("embeddings", self.embeddings)];
        if let Some((option, _)) = idle.into_iter().find(|(_, given)| *given && selection.dedup.is_none()) {
            return Err(Error::unused(option, true, "without dedup, which finds near-duplicates"));
        }
        match self.part {
            Some((part, of)) if part >= of => {
                let given = format!("{part}/{of}");
                Err(Error::option("part", given, "i/n with i from 0 to n - 1"))
            }
            _ => Ok(()),
        }
    }
}
