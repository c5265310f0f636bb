//! Whether images are the bytes that a corpus has checksums of.
//!
//! img2dataset writes `sha256` into the json and the Parquet file of each sample: of the file as it was downloaded. Unless
//! it was told not to (`disable_all_reencoding`, or `skip_reencode` for those it does not resize), it stores another
//! one, which it encoded anew.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::json::Fields;
use crate::sample::Sample;
use crate::shard::{Shard, ShardMetadata};

/// Field or column of the checksum, in hexadecimal digits.
const FIELD: &str = "sha256";

/// What comparing images with their checksums gave, in samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checksums {
    /// Their bytes have the checksum.
    pub same: u64,
    /// They have another one.
    pub different: u64,
    /// There is no checksum to compare with.
    pub absent: u64,
}

impl Checksums {
    pub(super) fn count(&mut self, same: Option<bool>) {
        match same {
            Some(true) => self.same += 1,
            Some(false) => self.different += 1,
            None => self.absent += 1,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.same += other.same;
        self.different += other.different;
        self.absent += other.absent;
    }
}

/// Checksums of the samples of a shard.
pub(super) struct Expected {
    beside: Option<ShardMetadata>,
}

impl Expected {
    /// Those in the Parquet file beside `shard`, for samples whose json has none.
    ///
    /// # Errors
    /// Those of [`ShardMetadata::beside`].
    pub(super) fn beside(shard: &Shard) -> Result<Self> {
        Ok(Self { beside: ShardMetadata::beside(shard, &[FIELD])? })
    }

    /// Whether the image of `sample` has its checksum; `None` where there is none.
    pub(super) fn compare(&self, sample: &Sample) -> Option<bool> {
        let json = sample.json.as_deref().and_then(|json| Fields::read(json, |name| name == FIELD).ok());
        let own = json.as_ref().and_then(|fields| fields.value(FIELD));
        let beside = || self.beside.as_ref().and_then(|beside| beside.value(&sample.key, FIELD));
        let expected = own.or_else(beside).and_then(Value::as_str)?;
        Some(hex(&Sha256::digest(&sample.image)).eq_ignore_ascii_case(expected.trim()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
