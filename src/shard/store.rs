//! Where the bytes of a shard come from: the one place that opens shards and decompresses them.
//!
//! Everything above sees a [`Stream`]: decompressed bytes in order, with their offset. A local,
//! uncompressed file is skipped by seeking; anything else is read through. A fault of the store
//! is an `Err` and ends the run; a stream that stops early or cannot be decompressed any further
//! is data that is damaged, which is shorter, not an error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::GzDecoder;

use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::shard::local::LocalFile;
use crate::shard::location::Location;
use crate::shard::remote::RemoteReader;
use crate::shard::version::Version;

/// Bytes of a stream buffered ahead: several small members.
const BUFFER: usize = 32 << 10;

/// Bytes reserved for a member before they are there: a header may promise any size.
const RESERVE: u64 = 64 << 20;

/// Decompressed bytes of a shard, in order.
pub(super) struct Stream {
    input: Input,
    offset: u64,
    /// Set when the store itself failed, as opposed to what it delivered.
    store_failed: Arc<AtomicBool>,
    damage: Option<io::Error>,
    /// What is read, where it can be read at random.
    mark: Option<Version>,
    format: ShardFormat,
}

enum Input {
    File(LocalFile),
    Any(Box<dyn Read + Send>),
}

impl Stream {
    /// Opens the file or object of `shard`. Where it is remote, a read fails within a second of
    /// `stop` being set.
    ///
    /// # Errors
    /// The shard cannot be opened or its first bytes cannot be read.
    pub(super) fn open(shard: &Shard, stop: Option<&Arc<AtomicBool>>) -> Result<Self> {
        match &shard.location {
            Location::Local => {
                // The system waits for a disk, and cannot be told to stop.
                let _ = stop;
                Self::open_file(shard)
            }
            Location::Remote(object) => {
                let mut stream = RemoteReader::whole(object, stop.cloned())
                    .and_then(Self::over)
                    .map_err(|error| Error::io(format!("open {}", shard.url), error))?;
                // The first bytes have come, and with them the version.
                stream.mark =
                    object.version().filter(|_| stream.format == ShardFormat::Tar).map(Version::Object);
                Ok(stream)
            }
        }
    }

    fn open_file(shard: &Shard) -> Result<Self> {
        let cannot = |error| Error::io(format!("open {}", shard.url), error);
        let mut file = File::open(&*shard.url).map_err(cannot)?;
        let Some((mark, len)) = Version::of_file(&file).map_err(cannot)? else {
            return Self::over(file).map_err(cannot);
        };
        let magic = first_bytes(&mut file).map_err(cannot)?;
        file.rewind().map_err(cannot)?;
        if ShardFormat::of(&magic) != ShardFormat::Tar {
            return Self::over(file).map_err(cannot);
        }
        let input = Input::File(LocalFile::new(file, len));
        Ok(Self {
            input,
            offset: 0,
            store_failed: Arc::new(AtomicBool::new(true)),
            damage: None,
            mark: Some(mark),
            format: ShardFormat::Tar,
        })
    }

    /// Reads from `bytes`, which are a tar file, compressed or not.
    pub(super) fn over(bytes: impl Read + Send + 'static) -> io::Result<Self> {
        let store_failed = Arc::new(AtomicBool::new(false));
        let mut bytes = Watched { inner: bytes, failed: Arc::clone(&store_failed) };
        let magic = first_bytes(&mut bytes)?;
        let format = ShardFormat::of(&magic);
        let bytes = BufReader::with_capacity(BUFFER, io::Cursor::new(magic).chain(bytes));
        let input: Box<dyn Read + Send> = match format {
            // By its bytes nothing is taken for a Parquet file.
            ShardFormat::Tar | ShardFormat::Parquet => Box::new(bytes),
            ShardFormat::Gzip => Box::new(Gzip(Some(GzDecoder::new(bytes)))),
            ShardFormat::Zstd => Box::new(zstd::Decoder::with_buffer(bytes)?),
        };
        Ok(Self { input: Input::Any(input), offset: 0, store_failed, damage: None, mark: None, format })
    }

    /// What is read, where it can be read at random.
    pub(super) fn mark(&self) -> Option<Version> {
        self.mark.clone()
    }

    /// How the bytes were packed.
    pub(super) fn format(&self) -> ShardFormat {
        self.format
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What the decompressor found wrong, where the stream ended for that reason.
    pub(super) fn damage(&self) -> Option<&io::Error> {
        self.damage.as_ref()
    }

    /// Fills `buffer`; less than its length is returned at the end of the stream only.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && self.damage.is_none() {
            let read = match &mut self.input {
                Input::File(file) => file.read(&mut buffer[filled..]),
                Input::Any(any) => any.read(&mut buffer[filled..]),
            };
            match read {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.blame(error)?,
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    /// Appends the next `n` bytes to `into`; fewer at the end of the stream only.
    pub(super) fn read(&mut self, n: u64, into: &mut Vec<u8>) -> io::Result<u64> {
        if self.damage.is_some() {
            return Ok(0);
        }
        let before = into.len();
        into.reserve_exact(n.min(RESERVE) as usize);
        match &mut self.input {
            // What was read of a file before it failed is of no use: only a store fails here.
            Input::File(_) => self.read_file(n, into)?,
            Input::Any(any) => {
                let read = any.take(n).read_to_end(into);
                self.offset += (into.len() - before) as u64;
                if let Err(error) = read {
                    self.blame(error)?;
                }
            }
        }
        Ok((into.len() - before) as u64)
    }

    /// Appends up to `n` bytes of a file, in parts of [`RESERVE`].
    fn read_file(&mut self, n: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let mut left = n;
        while left > 0 {
            let (start, part) = (into.len(), left.min(RESERVE) as usize);
            into.resize(start + part, 0);
            let filled = self.fill(&mut into[start..])?;
            into.truncate(start + filled);
            if filled < part {
                break;
            }
            left -= part as u64;
        }
        Ok(())
    }

    /// Skips the next `n` bytes and returns how many of them there were.
    pub(super) fn skip(&mut self, n: u64) -> io::Result<u64> {
        if let Input::File(file) = &mut self.input {
            let there = file.skip(n);
            self.offset += there;
            return Ok(there);
        }
        let mut scratch = [0; 8 << 10];
        let mut skipped = 0;
        while skipped < n {
            let part = (n - skipped).min(scratch.len() as u64) as usize;
            let filled = self.fill(&mut scratch[..part])?;
            skipped += filled as u64;
            if filled < part {
                break;
            }
        }
        Ok(skipped)
    }

    /// Passes a fault of the store on; keeps one of the data.
    fn blame(&mut self, error: io::Error) -> io::Result<()> {
        if self.store_failed.load(Ordering::Relaxed) {
            return Err(error);
        }
        self.damage = Some(error);
        Ok(())
    }
}

/// Notes that the store failed, so that its faults are told from those of the decompressor.
struct Watched<R> {
    inner: R,
    failed: Arc<AtomicBool>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        if read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            self.failed.store(true, Ordering::Relaxed);
        }
        read
    }
}

/// How a shard is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardFormat {
    /// A plain tar file.
    Tar,
    /// A tar file in gzip.
    Gzip,
    /// A tar file in zstd.
    Zstd,
    /// A Parquet file, whose rows are samples.
    Parquet,
}

impl ShardFormat {
    /// `tar`, `gzip`, `zstd` or `parquet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Parquet => "parquet",
        }
    }

    /// By the first bytes; names are not trusted.
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame (pzstd and seekable files start with one).
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::Tar,
        }
    }
}

/// The members of a gzip file, one after the other. Zeros behind one are padding, as for Python's `gzip`.
struct Gzip<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.0 else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let goes_on = skip_zeros(member.get_mut())?;
            self.0 = self.0.take().filter(|_| goes_on).map(|member| GzDecoder::new(member.into_inner()));
        }
    }
}

/// Reads past zeros; whether another byte follows.
fn skip_zeros(bytes: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let ahead = bytes.fill_buf()?;
        let zeros = ahead.iter().take_while(|&&byte| byte == 0).count();
        if zeros == 0 {
            return Ok(!ahead.is_empty());
        }
        bytes.consume(zeros);
    }
}

/// The first four bytes, or what there is of them.
fn first_bytes(bytes: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut magic = Vec::with_capacity(4);
    bytes.take(4).read_to_end(&mut magic)?;
    Ok(magic)
}
