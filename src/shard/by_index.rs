//! Reads chosen samples of a shard by its index, and nothing else.
//!
//! From a local file each member is read where it lies, small neighbours with one call. From a
//! store the members' ranges are merged where little lies between them, and asked for several at a
//! time, ahead of the samples that are made of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::shard::caption::CaptionReader;
use crate::shard::group::{Group, Open, Used};
use crate::shard::index::ShardIndex;
use crate::shard::location::Location;
use crate::shard::remote::{ChosenReader, Identity, Object};
use crate::shard::row_groups::RowReader;
use crate::shard::version::Version;
use crate::shard::{ReadOptions, Shard};

/// Members no larger than this, and no further apart, are read together from a file.
const SMALL: u64 = 16 << 10;

/// A shard that is read by index.
pub struct ShardFetcher {
    shard: Shard,
    captions: CaptionReader,
    mark: Version,
    input: Input,
    stop: Option<Arc<AtomicBool>>,
}

enum Input {
    File(File),
    Object(Arc<Object>, Identity),
    Rows(Box<RowReader>),
}

impl ShardFetcher {
    /// Opens `shard` for reading by `index`; `None` where it has to be read in order, since it is
    /// compressed, no regular file, or on a server that knows no ranges, or since a local file is
    /// not the one that the index was made of (another size or time of change). Once `stop` is set,
    /// a read that waits for a store fails within a second.
    ///
    /// # Errors
    /// The file cannot be opened. An object is not asked for yet.
    pub fn open(
        shard: &Shard,
        index: &ShardIndex,
        options: &ReadOptions,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Option<Self>> {
        if shard.has_rows() {
            return Self::of_rows(shard, index, options, stop);
        }
        let input = match (&shard.location, index.mark()) {
            (Location::Local, Some(Version::File(..))) => {
                let cannot = |error| Error::io(format!("open {}", shard.url), error).in_shard(&shard.url);
                let file = File::open(&*shard.url).map_err(cannot)?;
                let now = Version::of_file(&file).map_err(cannot)?;
                if now.as_ref().map(|(mark, _)| mark) != index.mark() {
                    return Ok(None);
                }
                Input::File(file)
            }
            (Location::Remote(object), Some(Version::Object(version))) => {
                Input::Object(Arc::clone(object), version.clone())
            }
            _ => return Ok(None),
        };
        let Some(mark) = index.mark().cloned() else { return Ok(None) };
        let captions = CaptionReader::new(shard, options);
        Ok(Some(Self { shard: shard.clone(), captions, mark, input, stop: stop.cloned() }))
    }

    fn of_rows(
        shard: &Shard,
        index: &ShardIndex,
        options: &ReadOptions,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Option<Self>> {
        let known = match index.mark() {
            Some(Version::Object(identity)) => Some(identity),
            _ => None,
        };
        let rows = RowReader::open(shard, known, stop).map_err(|error| error.in_shard(&shard.url))?;
        let mark = rows.version().clone();
        if index.mark() != Some(&mark) {
            return Ok(None);
        }
        let captions = CaptionReader::new(shard, options).of_rows(rows.layout().caption.as_deref());
        let input = Input::Rows(Box::new(rows));
        Ok(Some(Self { shard: shard.clone(), captions, mark, input, stop: stop.cloned() }))
    }

    /// Whether `index` was made of the shard that is open.
    pub fn fits(&self, index: &ShardIndex) -> bool {
        index.mark() == Some(&self.mark)
    }

    /// Reads groups `rows` of `index` and hands each to `each`, in the order of `rows`: what
    /// reading in order gives at their positions. Only images, captions and json are read. From a
    /// store, rows that do not ascend cost a request each.
    ///
    /// # Errors
    /// The shard cannot be read, is another version than the index was made of, or has no such row;
    /// what `each` returns.
    pub fn fetch(
        &mut self,
        index: &ShardIndex,
        rows: &[usize],
        each: &mut dyn FnMut(usize, Group) -> Result<()>,
    ) -> Result<()> {
        let mut groups = Vec::with_capacity(rows.len());
        for &row in rows {
            let position = index.first() + row as u64;
            let mut open = index.open(row).ok_or_else(|| {
                let expected = format!("sample {position}, counted from {}", index.first());
                let found = format!("{} samples", index.len());
                Error::format("index of the shard", expected, found).in_shard(&self.shard.url)
            })?;
            open.wants_all = self.captions.wants_all();
            // What cannot become a sample is judged without its data.
            let used = if open.is_hopeless(&self.captions) { vec![] } else { open.used() };
            groups.push((row, position, open, used));
        }
        let used = groups.iter().flat_map(|(_, _, _, used)| used);
        let mut source = match &mut self.input {
            Input::File(file) => Source::File { file, together: Vec::new() },
            Input::Object(object, version) => {
                let wanted = used.map(|member| member.offset..member.end());
                let (object, version) = (Object::clone(object), version.clone());
                Source::Object(Box::new(ChosenReader::new(object, version, wanted, self.stop.clone())))
            }
            Input::Rows(reader) => {
                reader.expect(rows.iter().map(|&row| index.first() + row as u64));
                Source::Rows(reader)
            }
        };
        for (row, position, mut open, used) in groups {
            let loaded = source.load(&mut open, &used, position);
            loaded.map_err(|error| error.in_shard(&self.shard.url).at_sample(&open.key, open.offset))?;
            let judged = open.judge(position, &mut self.captions);
            each(row, judged.map_err(|error| error.in_shard(&self.shard.url))?)?;
        }
        Ok(())
    }
}

/// Gives members their data.
enum Source<'a> {
    File {
        file: &'a File,
        /// Small members that were read together.
        together: Vec<u8>,
    },
    Object(Box<ChosenReader>),
    Rows(&'a mut RowReader),
}

impl Source<'_> {
    /// Reads `used` into `open`, the group at `position`.
    fn load(&mut self, open: &mut Open, used: &[Used], position: u64) -> Result<()> {
        let loaded = match self {
            Self::File { file, together } => from_file(file, together, open, used),
            Self::Object(bytes) => used.iter().try_for_each(|member| {
                open.set(member, bytes.read(member.offset..member.end())?);
                Ok(())
            }),
            Self::Rows(reader) => {
                open.layout = Some(Arc::clone(reader.layout()));
                return if used.is_empty() { Ok(()) } else { open.read_row(reader, position, true) };
            }
        };
        loaded.map_err(|error| Error::io(format!("read sample {}", open.key), error))
    }
}

/// Reads `used`, small members that lie together with one call.
fn from_file(file: &File, together: &mut Vec<u8>, open: &mut Open, used: &[Used]) -> io::Result<()> {
    let mut next = 0;
    while next < used.len() {
        let (start, first) = (used[next].offset, &used[next]);
        let mut last = next;
        while first.size <= SMALL
            && used.get(last + 1).is_some_and(|m| {
                m.size <= SMALL && m.offset.checked_sub(used[last].end()).is_some_and(|gap| gap <= SMALL)
            })
        {
            last += 1;
        }
        if last == next {
            let mut data = vec![0; first.size as usize];
            file.read_exact_at(&mut data, start)?;
            open.set(first, data);
        } else {
            together.resize((used[last].end() - start) as usize, 0);
            file.read_exact_at(together, start)?;
            for member in &used[next..=last] {
                let at = (member.offset - start) as usize;
                open.set(member, together[at..at + member.size as usize].to_vec());
            }
        }
        next = last + 1;
    }
    Ok(())
}
