//! Windows, captions and scores in the folder of a ledger.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::ledger::columns;
use crate::ledger::files::Folder;
use crate::ledger::record::{CaptionKey, Captions, Scores, WindowKey, WindowRecord};
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

    /// The record of a window: the one that knows most, where there are several.
    pub(super) fn window(&self, key: &WindowKey) -> Option<WindowRecord> {
        if key.version == 0 {
            return None;
        }
        let mut best: Option<WindowRecord> = None;
        for path in self.folder.files(&signals_of(key), key.window) {
            let Some(content) = self.folder.read(&path) else { continue };
            let record = Table::read(content).and_then(|table| columns::record(key, table));
            match record {
                Ok(record) if best.as_ref().is_none_or(|best| record.extent() > best.extent()) => {
                    best = Some(record);
                }
                Ok(_) => {}
                Err(why) => self.folder.warn(&format!("{} is passed over: {why}", path.display())),
            }
        }
        best
    }

    /// Source and file name of the shard of a window.
    pub(super) fn shard_of(&self, key: &WindowKey) -> Option<(String, String)> {
        let files = self.folder.files(&signals_of(key), key.window);
        files.iter().find_map(|path| {
            let table = Table::read(self.folder.read(path)?).ok()?;
            Some((table.note("source")?.to_owned(), table.note("shard")?.to_owned()))
        })
    }

    /// Writes a window. A window of a shard whose version is not known is not written: nothing could
    /// tell whether it still holds.
    pub(super) fn record_window(
        &self,
        key: &WindowKey,
        shard: &Shard,
        record: &WindowRecord,
        outcomes: &[Outcome],
    ) {
        if key.version == 0 {
            return;
        }
        if let Some(table) = columns::table(key, record, outcomes, shard) {
            self.write(&signals_of(key), key.window, &table);
        }
    }

    /// All captions of a window.
    pub(super) fn captions(&self, key: &CaptionKey) -> Captions {
        let mut captions = Captions::new();
        if key.version == 0 {
            return captions;
        }
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
        if key.version == 0 {
            return;
        }
        let mut sorted: Vec<_> = captions.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        let ids = sorted.iter().map(|(id, _)| Some(id.0 as i64)).collect();
        let texts = sorted.iter().map(|(_, text)| Some(text.to_string())).collect();
        let columns = vec![("id".to_owned(), Column::I64(ids)), ("caption".to_owned(), Column::Text(texts))];
        self.write(&captions_of(key), key.window, &Table { columns, notes: vec![] });
    }

    /// All scores of a window.
    pub(super) fn scores(&self, key: &CaptionKey) -> Scores {
        let mut scores = Scores::new();
        if key.version == 0 {
            return scores;
        }
        for path in self.folder.files(&scores_of(key), key.window) {
            let Some(content) = self.folder.read(&path) else { continue };
            let table = Table::read(content).map(|mut table| (table.take("id"), table.take("score")));
            let Ok((Some(Column::I64(ids)), Some(Column::F32(values)))) = table else {
                self.folder.warn(&format!("{} is passed over: it is no table of scores", path.display()));
                continue;
            };
            let known = ids.into_iter().zip(values).filter_map(|(id, score)| Some((id?, score)));
            // Null where there was nothing to judge.
            scores.extend(known.map(|(id, score)| (SampleId(id as u64), score.unwrap_or(f32::NAN))));
        }
        scores
    }

    /// Writes scores of a window, beside those that are there.
    pub(super) fn record_scores(&self, key: &CaptionKey, scores: &Scores) {
        if key.version == 0 {
            return;
        }
        let mut sorted: Vec<_> = scores.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        let ids = sorted.iter().map(|(id, _)| Some(id.0 as i64)).collect();
        let values = sorted.iter().map(|(_, score)| Some(**score).filter(|s| !s.is_nan())).collect();
        let columns = vec![("id".to_owned(), Column::I64(ids)), ("score".to_owned(), Column::F32(values))];
        self.write(&scores_of(key), key.window, &Table { columns, notes: vec![] });
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
    ["signals", &settings, &shard_of(key.shard, key.version)].iter().collect()
}

fn captions_of(key: &CaptionKey) -> PathBuf {
    made_for("captions", key)
}

fn scores_of(key: &CaptionKey) -> PathBuf {
    made_for("scores", key)
}

fn made_for(what: &str, key: &CaptionKey) -> PathBuf {
    let settings = format!("{:016x}-{:016x}-{}", key.generation, key.reading, key.size);
    [what, &settings, &shard_of(key.shard, key.version)].iter().collect()
}

fn shard_of(shard: u64, version: u64) -> String {
    format!("{shard:016x}-{version:016x}")
}
