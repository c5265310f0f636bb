//! The caption in a named field: of a sample's json, or of the metadata beside its shard.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::{FailReason, Result};
use crate::shard::{ReadOptions, Shard, ShardMetadata};

/// Samples of a shard that may lack the field, all of the first ones, before that is worth a word.
const LACKING: u64 = 64;

/// Why a sample cannot be used, and what exactly was found.
pub(super) type Unusable = (FailReason, String);

/// Looks captions up in the field that `caption_key` names, if any.
pub(super) struct Captions {
    field: Option<String>,
    metadata: Beside,
    /// Samples asked for, until one of them has the field.
    lacking: Option<u64>,
}

/// Metadata are read when a sample's own json has no caption: most corpora never need them.
enum Beside {
    Unread(Shard),
    Read(Option<ShardMetadata>),
}

impl Captions {
    pub(super) fn new(shard: &Shard, options: &ReadOptions) -> Self {
        let metadata = Beside::Unread(shard.clone());
        Self { field: options.caption_key.clone(), metadata, lacking: Some(0) }
    }

    /// The name of the field.
    pub(super) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// What the field says of the sample `key`, whose json member is given; `None` where it is
    /// absent or null.
    ///
    /// # Errors
    /// Those of [`ShardMetadata::beside`].
    pub(super) fn of(&mut self, key: &str, json: Option<&[u8]>) -> Result<Option<Result<String, Unusable>>> {
        let Some(field) = &self.field else { return Ok(None) };
        if let Some(json) = json {
            let member = match serde_json::from_slice(json) {
                Ok(Value::Object(member)) => member,
                Ok(_) => return Ok(Some(Err((FailReason::BadJson, "it is not an object".into())))),
                Err(error) => return Ok(Some(Err((FailReason::BadJson, error.to_string())))),
            };
            if let Some(found) = member.get(field).and_then(|value| text(value, field)) {
                self.lacking = None;
                return Ok(Some(found));
            }
        }
        if let Beside::Unread(shard) = &self.metadata {
            self.metadata = Beside::Read(ShardMetadata::beside(shard, &[field])?);
        }
        let found = match &self.metadata {
            Beside::Read(Some(metadata)) => metadata.value(key, field).and_then(|value| text(value, field)),
            _ => None,
        };
        self.lacking = self.lacking.filter(|_| found.is_none()).map(|lacking| lacking + 1);
        if self.lacking == Some(LACKING) {
            warn_of_absent(field);
        }
        Ok(found)
    }
}

/// Says, once per field, that no sample has it: a slip in its name would pass unseen where samples
/// have a `.txt` too.
fn warn_of_absent(field: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(field.to_owned()) {
        tracing::warn!(
            "caption_key: none of the first {LACKING} samples of a shard has a {field:?} in its json or its \
             metadata; their .txt is used where there is one"
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
