//! What named fields say of a sample, in its json or in the metadata beside its shard: its caption, and
//! whether a filter lets it pass.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::error::{FailReason, Result};
use crate::shard::{Filter, ReadOptions, Shard, ShardMetadata};

/// Samples of a shard that may lack the field, all of the first ones, before that is worth a word.
const LACKING: u64 = 64;

/// Why a sample cannot be used, and what exactly was found.
pub(super) type Unusable = (FailReason, String);

/// Looks fields up: the one that `caption_key` names, and those of the filter, if any.
pub(super) struct Captions {
    field: Option<Arc<str>>,
    filter: Option<Arc<Filter>>,
    metadata: Beside,
    /// For the caption's field and then those of the filter: samples asked for, until one has it.
    lacking: Vec<Option<u64>>,
}

/// Metadata are read when a sample's own json lacks a field: most corpora never need them.
enum Beside {
    Unread(Shard),
    Read(Option<ShardMetadata>),
}

/// What the fields say of a sample.
pub(super) enum Found {
    /// The filter does not let it pass.
    Excluded,
    /// The caption; `None` where its field is absent or null, or none is named.
    Caption(Option<Result<String, Unusable>>),
}

impl Captions {
    pub(super) fn new(shard: &Shard, options: &ReadOptions) -> Self {
        let columns = options.filter.as_ref().map_or(0, |filter| filter.columns().len());
        Self {
            field: options.caption_key.as_deref().map(Arc::from),
            filter: options.filter.clone().map(Arc::new),
            metadata: Beside::Unread(shard.clone()),
            lacking: vec![Some(0); 1 + columns],
        }
    }

    /// The name of the caption's field.
    pub(super) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// What the fields say of the sample `key`, whose json member is given.
    ///
    /// # Errors
    /// Those of [`ShardMetadata::beside`].
    pub(super) fn of(&mut self, key: &str, json: Option<&[u8]>) -> Result<Found> {
        if self.field.is_none() && self.filter.is_none() {
            return Ok(Found::Caption(None));
        }
        let member = match json.map(serde_json::from_slice) {
            None => Map::new(),
            Some(Ok(Value::Object(member))) => member,
            Some(Ok(_)) => return Ok(bad_json("it is not an object".into())),
            Some(Err(error)) => return Ok(bad_json(error.to_string())),
        };
        if let Some(filter) = self.filter.clone()
            && !self.passes(&filter, key, &member)?
        {
            return Ok(Found::Excluded);
        }
        let Some(field) = self.field.clone() else { return Ok(Found::Caption(None)) };
        let value = self.value(0, &field, key, &member)?;
        Ok(Found::Caption(value.and_then(|value| text(&value, &field))))
    }

    fn passes(&mut self, filter: &Filter, key: &str, member: &Map<String, Value>) -> Result<bool> {
        let mut values = Vec::with_capacity(filter.columns().len());
        for (i, column) in filter.columns().iter().enumerate() {
            values.push(self.value(1 + i, column, key, member)?.unwrap_or_default());
        }
        Ok(filter.passes(&values))
    }

    /// What stands in `column`, the `i`-th that is looked for; `None` where it is absent or null.
    fn value(
        &mut self,
        i: usize,
        column: &str,
        key: &str,
        member: &Map<String, Value>,
    ) -> Result<Option<Value>> {
        let mut found = member.get(column).filter(|value| !value.is_null()).cloned();
        if found.is_none() {
            if let Beside::Unread(shard) = &self.metadata {
                let filter = self.filter.iter().flat_map(|filter| filter.columns());
                let columns: Vec<&str> = self.field().into_iter().chain(filter.map(String::as_str)).collect();
                self.metadata = Beside::Read(ShardMetadata::beside(shard, &columns)?);
            }
            if let Beside::Read(Some(metadata)) = &self.metadata {
                found = metadata.value(key, column).filter(|value| !value.is_null()).cloned();
            }
        }
        let lacking = &mut self.lacking[i];
        *lacking = lacking.filter(|_| found.is_none()).map(|lacking| lacking + 1);
        if *lacking == Some(LACKING) {
            warn_of_absent(column, i == 0);
        }
        Ok(found)
    }
}

fn bad_json(detail: String) -> Found {
    Found::Caption(Some(Err((FailReason::BadJson, detail))))
}

/// Says, once per field, that no sample has it: a slip in its name would pass unseen where samples
/// have a `.txt` too.
fn warn_of_absent(field: &str, is_caption: bool) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(field.to_owned()) {
        let (option, consequence) = match is_caption {
            true => ("caption_key", "their .txt is used where there is one"),
            false => ("where", "a test of it is true of none of them, but for `is null`"),
        };
        tracing::warn!(
            "{option}: none of the first {LACKING} samples of a shard has a {field:?} in its json or its \
             metadata; {consequence}"
        );
    }
}

/// The caption that `field` holds; `None` for null.
fn text(value: &Value, field: &str) -> Option<Result<String, Unusable>> {
    let kind = match value {
        Value::Null => return None,
        Value::String(caption) => return Some(trimmed(caption, field)),
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
    };
    Some(Err((FailReason::BadJson, format!("{field:?} is {kind}, not a string"))))
}

/// A caption without white space around it, and without a byte order mark.
pub(super) fn trimmed(caption: &str, place: &str) -> Result<String, Unusable> {
    let caption = caption.trim_start_matches('\u{feff}').trim();
    if caption.is_empty() {
        return Err((FailReason::EmptyCaption, format!("nothing in {place}")));
    }
    Ok(caption.to_owned())
}
