//! The caption in a named field: of a sample's json, or of the metadata beside its shard.

use serde_json::Value;

use crate::error::{FailReason, Result};
use crate::shard::{ReadOptions, Shard, ShardMetadata};

/// Why a sample cannot be used, and what exactly was found.
pub(super) type Unusable = (FailReason, String);

/// Looks captions up in the field that `caption_key` names, if any.
pub(super) struct Captions {
    field: Option<String>,
    metadata: Beside,
}

/// Metadata are read when a sample's own json has no caption: most corpora never need them.
enum Beside {
    Unread(Shard),
    Read(Option<ShardMetadata>),
}

impl Captions {
    pub(super) fn new(shard: &Shard, options: &ReadOptions) -> Self {
        Self { field: options.caption_key.clone(), metadata: Beside::Unread(shard.clone()) }
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
                return Ok(Some(found));
            }
        }
        if let Beside::Unread(shard) = &self.metadata {
            self.metadata = Beside::Read(ShardMetadata::beside(shard, &[field])?);
        }
        let Beside::Read(Some(metadata)) = &self.metadata else { return Ok(None) };
        Ok(metadata.value(key, field).and_then(|value| text(value, field)))
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
