//! Number of groups in each shard, from `sizes.json` or from a scan of tar headers.
//!
//! WebDataset's other convention, a `__len__` file, holds one total for its folder; it cannot
//! say where one shard ends, so it is not used.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::shard::{ReadOptions, Shard, ShardReader};

/// Groups by file name: what a `sizes.json` holds.
type Sizes = HashMap<String, u64>;

/// Number of groups in each of `shards`, unusable ones included.
///
/// A `sizes.json` beside a shard (`{"00000.tar": 1234}`) is believed; a shard it does not name,
/// or that has none beside it, is scanned: header by header where it is a plain local file, else
/// read and decompressed whole. `progress(done, of)` is called once per shard scanned.
///
/// # Errors
/// A `sizes.json` that cannot be read or is no map of names to counts; as [`ShardReader`] for
/// shards that are scanned.
pub fn lengths(shards: &[Shard], progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<u64>> {
    let mut tables: HashMap<PathBuf, Option<Sizes>> = HashMap::new();
    let mut known = Vec::with_capacity(shards.len());
    for shard in shards {
        let folder = Path::new(&*shard.url).parent().unwrap_or(Path::new(""));
        if !tables.contains_key(folder) {
            tables.insert(folder.to_owned(), sizes(folder)?);
        }
        let table = tables.get(folder).and_then(Option::as_ref);
        known.push(table.and_then(|sizes| sizes.get(&*shard.path).copied()));
    }
    let of = known.iter().filter(|length| length.is_none()).count();
    let mut done = 0;
    let mut lengths = Vec::with_capacity(shards.len());
    for (shard, known) in shards.iter().zip(known) {
        lengths.push(match known {
            Some(length) => length,
            None => {
                let length = scan(shard)?;
                done += 1;
                progress(done, of);
                length
            }
        });
    }
    Ok(lengths)
}

/// The `sizes.json` of a folder, where it has one.
fn sizes(folder: &Path) -> Result<Option<Sizes>> {
    let path = folder.join("sizes.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
    };
    let expected = "a map of shard names to numbers of samples, like {\"00000.tar\": 1234}";
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::format(path.display().to_string(), expected, error))
}

fn scan(shard: &Shard) -> Result<u64> {
    let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
    while reader.skip_group()? {}
    Ok(reader.position())
}
