//! Windows, captions, scores of captions and scores of the corpus in the folder of a ledger.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::ledger::captions::WindowCaptions;
use crate::ledger::columns;
use crate::ledger::files::Folder;
use crate::ledger::parquet_table::{Column, Table};
use crate::ledger::record::{CaptionKey, ScoreKey, Scores, WindowKey, WindowRecord};
use crate::ledger::root::Root;
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
    pub(super) fn open(root: Root) -> Result<Self> {
        Ok(Self { folder: Folder::open(root)? })
    }

    pub(super) fn root(&self) -> &Root {
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
                Err(why) => {
                    self.folder.warn(&format!("{} is skipped: {why}", self.folder.root().name_of(&path)))
                }
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
    pub(super) fn captions(&self, key: &CaptionKey) -> WindowCaptions {
        let mut captions: Vec<(SampleId, String)> = vec![];
        if key.version == 0 {
            return WindowCaptions::default();
        }
        for path in self.folder.files(&captions_of(key), key.window) {
            let Some(content) = self.folder.read(&path) else { continue };
            let table = Table::read(content).map(|mut table| (table.take("id"), table.take("caption")));
            let Ok((Some(Column::I64(ids)), Some(Column::Text(texts)))) = table else {
                self.folder.warn(&format!(
                    "{} is skipped: it is no table of captions",
                    self.folder.root().name_of(&path)
                ));
                continue;
            };
            let known =
                ids.into_iter().zip(texts).filter_map(|(id, text)| Some((SampleId(id? as u64), text?)));
            captions.extend(known);
        }
        captions.into_iter().collect()
    }

    /// Writes captions of a window, beside those that are there.
    pub(super) fn record_captions(&self, key: &CaptionKey, captions: &WindowCaptions) {
        if key.version == 0 {
            return;
        }
        let ids = captions.iter().map(|(id, _)| Some(id.0 as i64)).collect();
        let texts = captions.iter().map(|(_, text)| Some(text.to_owned())).collect();
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
                self.folder.warn(&format!(
                    "{} is skipped: it is no table of scores",
                    self.folder.root().name_of(&path)
                ));
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

    /// The scores of the corpus for a window, which were read from what was `beside` it; where that is `None`,
    /// from whatever was, if all files say the same.
    pub(super) fn corpus_scores(&self, key: &ScoreKey, beside: Option<u64>) -> Option<Vec<f32>> {
        if key.version == 0 {
            return None;
        }
        let mut found: Option<Vec<f32>> = None;
        for path in self.folder.files(&corpus_scores_of(key), key.window) {
            let Some(content) = self.folder.read(&path) else { continue };
            let mut table = match Table::read(content) {
                Ok(table) => table,
                Err(why) => {
                    self.folder.warn(&format!("{} is skipped: {why}", self.folder.root().name_of(&path)));
                    continue;
                }
            };
            // The folder's name says the rest.
            let is_of = |name: &str, value: String| table.note(name) == Some(value.as_str());
            let fits = is_of("window", key.window.to_string())
                && beside.is_none_or(|beside| is_of("beside", format!("{beside:016x}")));
            let Some(Column::F32(scores)) = table.take("score").filter(|_| fits) else { continue };
            let scores: Vec<f32> = scores.into_iter().map(|score| score.unwrap_or(f32::NAN)).collect();
            let same =
                |other: &Vec<f32>| other.iter().map(|s| s.to_bits()).eq(scores.iter().map(|s| s.to_bits()));
            if found.as_ref().is_some_and(|other| !same(other)) {
                return None;
            }
            found = Some(scores);
        }
        found
    }

    /// Writes the scores of the corpus for a window.
    pub(super) fn record_corpus_scores(&self, key: &ScoreKey, field: &str, scores: &[f32]) {
        if key.version == 0 {
            return;
        }
        let values = scores.iter().map(|&score| Some(score).filter(|score| !score.is_nan())).collect();
        let columns = vec![("score".to_owned(), Column::F32(values))];
        let notes = [
            ("score_key", field.to_owned()),
            ("window", key.window.to_string()),
            ("beside", format!("{:016x}", key.beside)),
        ];
        let notes = notes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.write(&corpus_scores_of(key), key.window, &Table { columns, notes });
    }

    fn write(&self, below: &Path, window: u64, table: &Table) {
        match table.write() {
            Ok(content) => self.folder.write(below, window, &content),
            Err(error) => self.folder.warn(&format!("a window cannot be written to the ledger: {error}")),
        }
    }
}

fn signals_of(key: &WindowKey) -> PathBuf {
    let settings = format!("{:016x}-{:016x}-{}", key.scorer, key.reading, key.size);
    ["signals", &settings, &shard_of(key.shard, key.version)].iter().collect()
}

fn captions_of(key: &CaptionKey) -> PathBuf {
    made_for("captions", key)
}

fn scores_of(key: &CaptionKey) -> PathBuf {
    made_for("scores", key)
}

fn corpus_scores_of(key: &ScoreKey) -> PathBuf {
    let settings = format!("{:016x}-{:016x}-{}", key.field, key.reading, key.size);
    ["corpus_scores", &settings, &shard_of(key.shard, key.version)].iter().collect()
}

fn made_for(what: &str, key: &CaptionKey) -> PathBuf {
    let settings = format!("{:016x}-{:016x}-{}", key.generation, key.reading, key.size);
    [what, &settings, &shard_of(key.shard, key.version)].iter().collect()
}

fn shard_of(shard: u64, version: u64) -> String {
    format!("{shard:016x}-{version:016x}")
}
