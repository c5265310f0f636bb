//! What a metadata file says of the samples of a shard.

use std::collections::HashMap;

use serde_json::Value;

use crate::shard::join::plain;

/// Chosen columns of the metadata of a shard's samples, by key.
///
/// Memory: the values of the chosen columns, and about 100 bytes a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardMetadata {
    pub(super) file: String,
    pub(super) columns: Vec<String>,
    pub(super) chosen: Vec<String>,
    pub(super) rows: HashMap<Box<str>, Box<[Value]>>,
    /// Chosen columns of rows that are not a number there; in `rows` they are null.
    pub(super) not_numbers: HashMap<Box<str>, Vec<usize>>,
}

impl ShardMetadata {
    /// Path or URL of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Names of all columns of the file.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Keys of the samples as they stand there, without a leading `./`, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(|key| &**key)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no samples.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What stands in `column` for the sample `key`; `None` where there is no such sample, or the
    /// column is not there or was not chosen. `./` before a key makes no difference.
    pub fn value(&self, key: &str, column: &str) -> Option<&Value> {
        let row = self.rows.get(plain(key))?;
        row.get(self.chosen.iter().position(|chosen| chosen == column)?)
    }

    /// Whether what stands there is no number, `NaN`; its value is null then.
    pub(in crate::shard) fn is_nan(&self, key: &str, column: &str) -> bool {
        let columns = self.not_numbers.get(plain(key)).map_or(&[][..], |columns| columns);
        columns.iter().any(|&at| self.chosen.get(at).is_some_and(|chosen| chosen == column))
    }
}
