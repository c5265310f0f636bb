//! Why samples are excluded, by reading them again: the ledger has that they are, and no more.

use std::collections::HashMap;

use crate::config::Source;
use crate::error::Result;
use crate::jobs::decisions::DecidedWindow;
use crate::shard::{ReadOptions, Shard, reread};

/// The shards of a source and its conditions.
pub(super) struct Excluded {
    shards: HashMap<u64, Shard>,
    read: ReadOptions,
    conditions: Option<String>,
}

impl Excluded {
    /// # Errors
    /// Shards that cannot be listed; tables that cannot be opened.
    pub(super) fn of(source: &Source) -> Result<Self> {
        let shards = if source.urls.is_empty() { vec![] } else { source.list_present()?.0 };
        let shards = shards.into_iter().map(|shard| (shard.hash, shard)).collect();
        Ok(Self { shards, read: source.open()?, conditions: source.conditions() })
    }

    /// What excludes sample `row` of a window: the clause where its shard is at hand, else all conditions.
    pub(super) fn detail(&self, window: &DecidedWindow<'_>, row: usize) -> Option<String> {
        let (shard, index) = (self.shards.get(&window.key.shard), window.record.index.as_ref());
        let again = shard.zip(index).map(|(shard, index)| reread(shard, index, row, &self.read));
        match again {
            Some(Ok(Some(again))) => {
                let detail = again.group.err().map(|failed| failed.detail);
                detail.filter(|detail| !detail.is_empty()).or_else(|| self.conditions.clone())
            }
            Some(Err(error)) => {
                let conditions = self.conditions.as_deref().unwrap_or("where, or a subset");
                Some(format!("{conditions}; which clause is not known, since {error}"))
            }
            Some(Ok(None)) | None => self.conditions.clone(),
        }
    }
}
