//! Windows and captions in the folder of a ledger.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::ledger::columns;
use crate::ledger::files::Folder;
use crate::ledger::record::{CaptionKey, Captions, WindowKey, WindowRecord};
use crate::ledger::table::{Column, Table};
use crate::sample::{Outcome, SampleId};
use crate::shard::Shard;

/// A ledger's files.
#[derive(Debug)]
pub(super) struct Stored {
    folder: Folder,
}

impl Stored {
    /// # Errors
    /// Those of [`Folder::open`].
    pub(super) fn open(root: &Path) -> Result<Self> {
        Ok(Self { folder: Folder::open(root)? })
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.root()
    }

    /// The record of a window of `shard` as it is now: the one with embeddings, where there are several.
    ///
    /// # Errors
    /// The shard's version has to be asked of its store, which fails.
    pub(super) fn window(&self, key: &WindowKey, shard: &Shard) -> Result<Option<WindowRecord>> {
        let files = self.folder.files(&signals_of(key), key.window);
        if files.is_empty() {
            return Ok(None);
        }
        let Some(version) = shard.version()? else { return Ok(None) };
        let mut best: Option<WindowRecord> = None;
        for path in files {
            let Some(content) = self.folder.read(&path) else { continue };
            let record = Table::read(content).and_then(|table| columns::record(key, table, &version));
            match record {
                Ok(record)
                    if best.as_ref().is_none_or(|best| record.has_embedding && !best.has_embedding) =>
                {
                    best = Some(record);
                }
                Ok(_) => {}
                Err(why) => self.folder.warn(&format!("{} is passed over: {why}", path.display())),
            }
        }
        Ok(best)
    }

    /// Writes a window. A window of a shard whose version is not known is not written: nothing could
    /// tell whether it still holds.
    ///
    /// # Errors
    /// The shard's version has to be asked of its store, which fails.
    pub(super) fn record_window(
        &self,
        key: &WindowKey,
        shard: &Shard,
        record: &WindowRecord,
        outcomes: &[Outcome],
    ) -> Result<()> {
        let read = record.index.as_ref().and_then(|index| index.version());
        let version = match read {
            Some(version) => Some(version),
            None => shard.version()?,
        };
        let Some(version) = version else { return Ok(()) };
        if let Some(table) = columns::table(key, record, outcomes, shard, &version) {
            self.write(&signals_of(key), key.window, &table);
        }
        Ok(())
    }

    /// All captions of a window.
    pub(super) fn captions(&self, key: &CaptionKey) -> Captions {
        let mut captions = Captions::new();
        for path in self.folder.files(&captions_of(key), key.window) {
            let Some(content) = self.folder.read(&path) else { continue };
            let table = Table::read(content).map(|mut table| (table.take("id"), table.take("caption")));
            let Ok((Some(Column::I64(ids)), Some(Column::Text(texts)))) = table else {
                self.folder.warn(&format!("{} is passed over: it is no table of captions", path.display()));
                continue;
            };
            for (id, text) in ids.into_iter().zip(texts) {
                if let (Some(id), Some(text)) = (id, text) {
                    captions.insert(SampleId(id as u64), text.into());
                }
            }
        }
        captions
    }

    /// Writes captions of a window, beside those that are there.
    pub(super) fn record_captions(&self, key: &CaptionKey, captions: &Captions) {
        let mut sorted: Vec<_> = captions.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        let ids = sorted.iter().map(|(id, _)| Some(id.0 as i64)).collect();
        let texts = sorted.iter().map(|(_, text)| Some(text.to_string())).collect();
        let columns = vec![("id".to_owned(), Column::I64(ids)), ("caption".to_owned(), Column::Text(texts))];
        self.write(&captions_of(key), key.window, &Table { columns, notes: vec![] });
    }

    fn write(&self, below: &Path, window: u64, table: &Table) {
        match table.write() {
            Ok(content) => self.folder.write(below, window, &content),
            Err(error) => self.folder.warn(&format!("a window cannot be written to the ledger: {error}")),
        }
    }
}

fn signals_of(key: &WindowKey) -> PathBuf {
    let settings = format!("{:016x}-{:016x}-{}", key.encoder, key.reading, key.size);
    ["signals", &settings, &format!("{:016x}", key.shard)].iter().collect()
}

fn captions_of(key: &CaptionKey) -> PathBuf {
    let settings = format!("{:016x}-{}", key.generation, key.size);
    ["captions", &settings, &format!("{:016x}", key.shard)].iter().collect()
}
