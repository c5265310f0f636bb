//! The bytes of a Parquet file, by range: of a local file where they lie, of an object through a reader that goes
//! ahead of the column with the images.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::iter::once;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::shard::remote::{Identity, Object, RemoteReader};

/// Bytes at the end of an object that are asked for first: the footer of most files, in one request.
const TAIL: u64 = 64 << 10;

/// Bytes that a page header is looked for in: writers leave statistics of long values out of it.
const HEADER: usize = 64 << 10;

/// Bytes by which Parquet files start.
const MAGIC: u64 = 4;

/// What is said of a server without ranges.
const WHOLE_ONLY: &str = "the server answers range requests with the whole file, and a Parquet file is read in parts: \
                          copy it to a disk or a store";

type Parsed<T> = Result<T, ParquetError>;

/// A file or an object that is read at any place. Clones are of one.
#[derive(Clone)]
pub(super) struct Chunks(Arc<Inner>);

struct Inner {
    input: Input,
    len: u64,
    /// What the store or the disk said last, where it failed: damage is told from it by this.
    failed: Mutex<Option<io::Error>>,
}

enum Input {
    File(Arc<File>),
    Object(Box<Remote>),
}

struct Remote {
    object: Object,
    identity: Identity,
    stop: Option<Arc<AtomicBool>>,
    held: Mutex<Held>,
}

impl Remote {
    fn read(&self, ranges: Vec<Range<u64>>) -> io::Result<RemoteReader> {
        RemoteReader::ranges(&self.object, ranges, Some(self.identity.clone()), self.stop.clone())
    }
}

/// What was read of an object.
#[derive(Default)]
struct Held {
    /// Small ranges, whole.
    parts: Vec<(u64, Bytes)>,
    ahead: Option<Ahead>,
}

/// Reads ranges of an object in order, a little ahead.
struct Ahead {
    reader: RemoteReader,
    /// What is left of the ranges; the first one's start is the reader's place.
    ranges: Vec<Range<u64>>,
    /// Bytes that were looked at, from `at` on; the reader's place is behind them.
    seen: Vec<u8>,
    at: u64,
}

impl Chunks {
    pub(super) fn of_file(file: File, len: u64) -> Self {
        Self::new(Input::File(Arc::new(file)), len)
    }

    /// The version `known` of `object`, else the one that is there.
    ///
    /// # Errors
    /// The store fails, or knows no ranges.
    pub(super) fn of_object(
        object: &Object,
        known: Option<Identity>,
        stop: Option<&Arc<AtomicBool>>,
    ) -> io::Result<Self> {
        let identity = match known {
            Some(identity) => identity,
            None => {
                // The answer to the first bytes tells the version, and whether parts can be asked for.
                let start = RemoteReader::ranges(object, once(0..MAGIC).collect(), None, stop.cloned());
                start?.read_exact(&mut [0; MAGIC as usize])?;
                object.version().ok_or_else(|| io::Error::other(WHOLE_ONLY))?
            }
        };
        let len = identity.size;
        let remote = Remote { object: object.clone(), identity, stop: stop.cloned(), held: Mutex::default() };
        let input = Input::Object(Box::new(remote));
        let chunks = Self::new(input, len);
        let tail = len.saturating_sub(TAIL)..len;
        chunks.hold(vec![tail])?;
        Ok(chunks)
    }

    fn new(input: Input, len: u64) -> Self {
        Self(Arc::new(Inner { input, len, failed: Mutex::default() }))
    }

    /// Which version of an object is read.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match &self.0.input {
            Input::File(_) => None,
            Input::Object(remote) => Some(&remote.identity),
        }
    }

    /// Reads `small` ranges of an object into memory, in place of those that are held.
    ///
    /// # Errors
    /// The store fails.
    pub(super) fn hold(&self, small: Vec<Range<u64>>) -> io::Result<()> {
        let Input::Object(remote) = &self.0.input else { return Ok(()) };
        let mut reader = remote.read(small.clone())?;
        let mut parts = Vec::with_capacity(small.len());
        for range in small {
            let mut part = vec![0; (range.end - range.start) as usize];
            reader.read_exact(&mut part)?;
            parts.push((range.start, part.into()));
        }
        remote.held.lock().unwrap_or_else(PoisonError::into_inner).parts = parts;
        Ok(())
    }

    /// Will read `ranges` of an object in order, each from its start on: asks for the first bytes.
    ///
    /// # Errors
    /// The threads that wait for sockets cannot be started.
    pub(super) fn go_ahead(&self, ranges: Vec<Range<u64>>) -> io::Result<()> {
        let Input::Object(remote) = &self.0.input else { return Ok(()) };
        let mut held = remote.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that is on its way there, and not beyond, goes on.
        let goes_there = held.ahead.as_ref().is_some_and(|ahead| {
            let starts = ranges.first().is_some_and(|range| ahead.at <= range.start);
            starts && ahead.ranges.ends_with(&ranges)
        });
        if !goes_there {
            let reader = remote.read(ranges.clone())?;
            let at = ranges.first().map_or(0, |range| range.start);
            held.ahead = Some(Ahead { reader, ranges, seen: vec![], at });
        }
        Ok(())
    }

    /// What the store or the disk said, where the last failure was theirs.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The `length` bytes from `start` on; `peek`: as many of them as there are, which may be read again.
    fn bytes(&self, start: u64, length: usize, peek: bool) -> io::Result<Bytes> {
        let length = if peek { length.min(self.0.len.saturating_sub(start) as usize) } else { length };
        if start.checked_add(length as u64).is_none_or(|end| end > self.0.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.0.input {
            Input::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start)?;
                Ok(bytes.into())
            }
            Input::Object(remote) => {
                let mut held = remote.held.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(bytes) = held.part(start, length, peek) {
                    return Ok(bytes);
                }
                if let Some(ahead) = &mut held.ahead
                    && let Some(bytes) = ahead.bytes(start, length, peek)?
                {
                    return Ok(bytes);
                }
                let mut reader = remote.read(once(start..start + length as u64).collect())?;
                let mut bytes = vec![0; length];
                reader.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    fn noted<T>(&self, found: io::Result<T>) -> Parsed<T> {
        found.map_err(|error| {
            let said = ParquetError::General(error.to_string());
            // A range beyond the end is what the file says, not a fault of the store.
            if error.kind() != io::ErrorKind::UnexpectedEof {
                *self.0.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            said
        })
    }
}

impl Held {
    /// The bytes from `start` on, where a part has them; with `peek`, as many of them as it has.
    fn part(&self, start: u64, length: usize, peek: bool) -> Option<Bytes> {
        self.parts.iter().find_map(|(at, part)| {
            let from = usize::try_from(start.checked_sub(*at)?).ok().filter(|from| *from < part.len())?;
            let end = from.checked_add(length)?;
            let end = if peek { end.min(part.len()) } else { end };
            (end <= part.len()).then(|| part.slice(from..end))
        })
    }
}

impl Ahead {
    /// The bytes from `start` on; `None` where they lie behind, or in none of the ranges. What lies between is read
    /// through.
    fn bytes(&mut self, start: u64, length: usize, peek: bool) -> io::Result<Option<Bytes>> {
        if start < self.at {
            return Ok(None);
        }
        let Some(number) = self.ranges.iter().position(|range| range.contains(&start)) else {
            return Ok(None);
        };
        let end = self.ranges[number].end;
        let length = if peek { length.min((end - start) as usize) } else { length };
        if start + length as u64 > end {
            return Ok(None);
        }
        if number > 0 {
            // The seen bytes are of an earlier range: all of them, and what is left of that, are skipped.
            let place = self.at + self.seen.len() as u64;
            let left = |range: &Range<u64>| range.end - range.start.max(place);
            let skipped: u64 = self.ranges[..number].iter().map(left).sum();
            self.skip(skipped)?;
            self.ranges.drain(..number);
            (self.at, self.seen) = (self.ranges[0].start, vec![]);
        }
        let seen = ((start - self.at) as usize).min(self.seen.len());
        self.seen.drain(..seen);
        let gap = start - self.at - seen as u64;
        self.skip(gap)?;
        self.at = start;
        if self.seen.len() < length {
            let from = self.seen.len();
            self.seen.resize(length, 0);
            self.reader.read_exact(&mut self.seen[from..])?;
        }
        if peek {
            return Ok(Some(Bytes::copy_from_slice(&self.seen[..length])));
        }
        let rest = self.seen.split_off(length);
        self.at += length as u64;
        Ok(Some(std::mem::replace(&mut self.seen, rest).into()))
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())? < bytes {
            return Err(io::Error::other("the object ended early, which is a bug"));
        }
        Ok(())
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len
    }
}

impl ChunkReader for Chunks {
    type T = Place;

    fn get_read(&self, start: u64) -> Parsed<Place> {
        Ok(match &self.0.input {
            Input::File(file) => Place::File(BufReader::new(From { file: Arc::clone(file), at: start })),
            Input::Object(_) => Place::Bytes(self.noted(self.bytes(start, HEADER, true))?.reader()),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Parsed<Bytes> {
        self.noted(self.bytes(start, length, false))
    }
}

/// Reads on from a place.
pub(super) enum Place {
    File(BufReader<From>),
    Bytes(bytes::buf::Reader<Bytes>),
}

impl Read for Place {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

/// A file from a place on, whatever others read of it.
pub(super) struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
