//! Reads one group again, whatever became of it: to say why, and to show what is there.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use crate::error::{Error, Result};
use crate::shard::index::ShardIndex;
use crate::shard::location::Location;
use crate::shard::reader::{Reread, ShardReader};
use crate::shard::remote::RemoteReader;
use crate::shard::version::Version;
use crate::shard::{ReadOptions, Shard};

/// Bytes that are asked of a store for a group whose end is not known.
const MOST: u64 = 8 << 20;
/// Zero bytes that end a tar file.
const END: u64 = 1024;

/// Reads group `row` of `index` again; `None` where the shard has no such group, or a local file was replaced. An index holds where each group
/// starts, also of those that are excluded or failed: of a plain tar file or object no more than the group is read, of a
/// compressed one all before it. A repeated key is not noticed, since the groups before are not looked at.
///
/// # Errors
/// The shard cannot be read; an object is no longer the one that the index was made of.
pub fn reread(
    shard: &Shard,
    index: &ShardIndex,
    row: usize,
    options: &ReadOptions,
) -> Result<Option<Reread>> {
    let Some(offset) = index.offset(row) else { return Ok(None) };
    let cannot = |error| Error::io(format!("open {}", shard.url), error).in_shard(&shard.url);
    let mut reader = match (&shard.location, index.mark()) {
        (Location::Local, Some(Version::File(..))) if !shard.has_rows() => {
            let mut file = File::open(&*shard.url).map_err(cannot)?;
            let now = Version::of_file(&file).map_err(cannot)?.map(|(mark, _)| mark);
            if now.as_ref() != index.mark() {
                return Ok(None);
            }
            file.seek(SeekFrom::Start(offset)).map_err(cannot)?;
            ShardReader::over(shard, file, options)?
        }
        (Location::Remote(object), Some(Version::Object(version))) if !shard.has_rows() => {
            let end = index.offset(row + 1).unwrap_or(offset + MOST).min(version.size);
            let range = std::iter::once(offset..end).collect();
            let bytes = RemoteReader::ranges(object, range, Some(version.clone()), None);
            // Where the next group starts the shard goes on: it is not cut there.
            let bytes = bytes.map_err(cannot)?.chain(std::io::repeat(0).take(END));
            ShardReader::over(shard, bytes, options)?
        }
        _ => {
            let mut reader = ShardReader::open(shard, options)?;
            while reader.position() < index.first() + row as u64 {
                if !reader.skip_group()? {
                    return Ok(None);
                }
            }
            reader
        }
    };
    reader.next_explained()
}
