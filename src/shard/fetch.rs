//! Reads chosen samples of a shard by its index, and nothing else.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::group::{Group, Open};
use crate::shard::index::{FileMark, ShardIndex};
use crate::shard::{ReadOptions, Shard};

/// Members no larger than this, and no further apart, are read together.
const SMALL: u64 = 16 << 10;

/// A shard that is read by index.
pub struct ShardFetcher {
    shard: Shard,
    caption_key: Option<String>,
    file: File,
    mark: FileMark,
    /// Small members that were read together.
    together: Vec<u8>,
}

impl ShardFetcher {
    /// Opens `shard` for reading by `index`; `None` where it has to be read in order, since it is
    /// compressed or no regular file, or since it is not the file that the index was made of
    /// (another size or time of change).
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(shard: &Shard, index: &ShardIndex, options: &ReadOptions) -> Result<Option<Self>> {
        let Some(mark) = index.file() else { return Ok(None) };
        let cannot = |error| Error::io(format!("open {}", shard.url), error).in_shard(&shard.url);
        let file = File::open(&*shard.url).map_err(cannot)?;
        if FileMark::of(&file).map_err(cannot)? != Some(mark) {
            return Ok(None);
        }
        let caption_key = options.caption_key.clone();
        Ok(Some(Self { shard: shard.clone(), caption_key, file, mark, together: Vec::new() }))
    }

    /// Whether `index` was made of the file that is open.
    pub fn fits(&self, index: &ShardIndex) -> bool {
        index.file() == Some(self.mark)
    }

    /// Reads group `row` of `index`: what reading in order gives at its position. Only the image,
    /// the caption and the json are read, with one call for small members that lie together.
    ///
    /// # Errors
    /// The file cannot be read, or has no such row.
    pub fn fetch(&mut self, index: &ShardIndex, row: usize) -> Result<Group> {
        let position = index.first() + row as u64;
        let mut open = index.open(row).ok_or_else(|| {
            let detail = format!("its index has no sample {position}");
            Error::from(ErrorKind::Shard { detail }).in_shard(&self.shard.url)
        })?;
        if !open.is_hopeless(self.caption_key.as_deref()) {
            self.load(&mut open).map_err(|error| {
                let action = format!("read sample {} of {}", open.key, self.shard.url);
                Error::io(action, error).in_shard(&self.shard.url).at_sample(&open.key, open.offset)
            })?;
        }
        Ok(open.judge(position, self.caption_key.as_deref()))
    }

    /// Reads the members that `open` uses.
    fn load(&mut self, open: &mut Open) -> std::io::Result<()> {
        let used = open.used();
        let mut next = 0;
        while next < used.len() {
            let (start, first) = (used[next].offset, &used[next]);
            let mut last = next;
            // Small ones that follow closely come with the first.
            while first.size <= SMALL
                && used.get(last + 1).is_some_and(|m| {
                    m.size <= SMALL && m.offset.checked_sub(used[last].end()).is_some_and(|gap| gap <= SMALL)
                })
            {
                last += 1;
            }
            if last == next {
                let mut data = vec![0; first.size as usize];
                self.file.read_exact_at(&mut data, start)?;
                open.set(first, data);
            } else {
                self.together.resize((used[last].end() - start) as usize, 0);
                self.file.read_exact_at(&mut self.together, start)?;
                for member in &used[next..=last] {
                    let at = (member.offset - start) as usize;
                    open.set(member, self.together[at..at + member.size as usize].to_vec());
                }
            }
            next = last + 1;
        }
        Ok(())
    }
}

impl FileMark {
    /// The mark of an open file; `None` where it is no regular file.
    pub(super) fn of(file: &File) -> std::io::Result<Option<Self>> {
        let meta = file.metadata()?;
        Ok(meta.is_file().then(|| Self { len: meta.len(), modified: meta.modified().ok() }))
    }
}
