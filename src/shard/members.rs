//! The tar layer: regular files of an archive, in order, with their offsets.
//!
//! USTAR, GNU and PAX: long names and sizes over 8 GiB. Directories, links and devices are
//! skipped. After a damaged header the next valid one is looked for. What a group of members
//! is, and what becomes of a cut one, is for [`reader`](super::reader) to say.

use std::mem;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::foreign;
use crate::shard::store::Stream;

/// Bytes of a tar block.
const BLOCK: usize = 512;

/// Longest name or PAX record set that is believed. Linux stops paths at 4 KiB; PAX records may
/// hold extended attributes.
const MAX_METADATA: u64 = 1 << 20;

/// Zeros after an end marker that are taken for padding: tar fills up records of 10 KiB, others more.
const PADDING: u64 = 1 << 20;

/// A regular file of the archive.
#[derive(Debug)]
pub(super) struct Member {
    /// Its path; bytes that are not UTF-8 are written as `\xE9`.
    pub(super) name: String,
    /// Offset of its first header (that of its long name, where it has one).
    pub(super) offset: u64,
    /// Offset of its data.
    pub(super) data: u64,
    /// Bytes of its data, as the header says.
    pub(super) size: u64,
}

/// What comes next in an archive.
#[derive(Debug)]
pub(super) enum Step {
    /// A regular file, whose data can be read now.
    Member(Member),
    /// Bytes that are not a header, up to the next valid one.
    Damage {
        /// Offset of the first bad byte.
        at: u64,
        /// Bytes skipped.
        bytes: u64,
    },
    /// The end marker of one archive, behind which another one starts: what lies on its two sides is not one sample.
    Seam,
    /// Nothing more, now and ever.
    End(End),
}

/// How an archive ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// With an end-of-archive marker, and no more than `0` bytes after it that are no archive.
    Marked(u64),
    /// With a marker, after which the data cannot be decompressed any further: says how. What the
    /// shard held was read, but perhaps not as it was written.
    Damaged(String),
    /// After a whole member, without a marker: cut exactly there, or written carelessly.
    Unmarked,
    /// Inside a member or a header; says how.
    Cut(String),
}

/// Reads the members of one archive.
pub(super) struct Members {
    stream: Stream,
    /// Bytes of the current member, with its padding, that were not read yet.
    unread: u64,
    /// Bytes of data among `unread`.
    data: u64,
    /// A header that was read ahead, and its offset.
    held: Option<(u64, [u8; BLOCK])>,
    /// Whether a valid header was seen.
    started: bool,
    end: Option<End>,
    /// Entries that are no regular files: directories, links, devices.
    skipped_members: u64,
}

/// The next block of a stream, or less at its end.
enum Block {
    /// Its offset and content.
    Whole(u64, [u8; BLOCK]),
    /// Nothing.
    None,
    /// A part, of so many bytes.
    Part([u8; BLOCK], usize),
}

/// What metadata entries say of the file that follows them.
#[derive(Default)]
struct Overrides {
    offset: Option<u64>,
    gnu_name: Option<Vec<u8>>,
    pax_name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
    /// Whether something in them cannot be understood: name and size of the file are then unknown.
    damaged: bool,
}

impl Members {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, unread: 0, data: 0, held: None, started: false, end: None, skipped_members: 0 }
    }

    /// Directories, links and devices met so far.
    pub(super) fn skipped_members(&self) -> u64 {
        self.skipped_members
    }

    /// Goes to the next member, past whatever was not read of the current one.
    ///
    /// # Errors
    /// A fault of the store; bytes that are no tar archive at all; a sparse member.
    pub(super) fn next(&mut self) -> Result<Step> {
        if let Some(end) = &self.end {
            return Ok(Step::End(end.clone()));
        }
        let mut overrides = Overrides::default();
        loop {
            self.data = 0;
            let unread = mem::take(&mut self.unread);
            if self.stream.skip(unread).map_err(cannot_read)? < unread {
                return self.cut("inside a member");
            }
            let (at, block) = match self.block()? {
                // What names a file stands before its header, and before nothing else.
                Block::Whole(at, block) if is_zero(&block) => match overrides.offset {
                    Some(offset) => return self.resync(offset, false),
                    None => match self.after_zeros(at)? {
                        Some(step) => return Ok(step),
                        None => continue,
                    },
                },
                Block::Whole(at, block) => (at, block),
                Block::None if self.stream.damage().is_some() => return self.cut("after a member"),
                Block::None if self.stream.offset() == 0 => return self.cut("before its first byte"),
                Block::None if overrides.offset.is_some() => return self.cut("after a long name"),
                Block::None => return Ok(self.finish(End::Unmarked)),
                Block::Part(block, filled) => return self.part(&block[..filled]),
            };
            let Some(header) = Header::parse(&block) else {
                if let (0, Some(refusal)) = (at, foreign::refusal(&block, self.stream.format())) {
                    return Err(shard_error(refusal, 0));
                }
                return self.resync(at, false);
            };
            self.started = true;
            let offset = *overrides.offset.get_or_insert(at);
            let size = overrides.size.unwrap_or(header.size);
            let is_metadata = matches!(header.kind, b'L' | b'K' | b'x' | b'X' | b'g');
            let size = if is_metadata { header.size } else { size };
            let Some(padded) = size.checked_next_multiple_of(BLOCK as u64) else {
                return self.resync(at, false);
            };
            // Links and directories have no data, whatever their size.
            if overrides.damaged && !is_metadata && !matches!(header.kind, b'1'..=b'6') {
                return self.resync(offset, false);
            }
            match header.kind {
                b'L' | b'x' | b'X' => {
                    if size > MAX_METADATA {
                        return self.resync(at, false);
                    }
                    (self.unread, self.data) = (padded, size);
                    let mut content = Vec::new();
                    self.read(&mut content)?;
                    if header.kind == b'L' {
                        content.truncate(content.iter().position(|&b| b == 0).unwrap_or(content.len()));
                        overrides.gnu_name = Some(content);
                    } else {
                        overrides.damaged |= overrides.pax(&content).is_none();
                    }
                }
                b'K' | b'g' => self.unread = padded,
                b'0' | 0 | b'7' | b'S' => {
                    let name = overrides.pax_name.take().or(overrides.gnu_name.take()).unwrap_or(header.name);
                    let name = text(&name);
                    if header.kind == b'S' || overrides.sparse {
                        return Err(sparse(&name, offset));
                    }
                    overrides = Overrides::default();
                    // Archives older than USTAR mark a directory by its name alone.
                    if header.kind == 0 && name.ends_with('/') {
                        self.skipped_members += 1;
                    } else {
                        (self.unread, self.data) = (padded, size);
                        let data = self.stream.offset();
                        return Ok(Step::Member(Member { name, offset, data, size }));
                    }
                }
                // Links, devices, directories: their size, where given, is not that of data.
                b'1'..=b'6' => {
                    self.skipped_members += 1;
                    overrides = Overrides::default();
                }
                _ => {
                    self.skipped_members += 1;
                    self.unread = padded;
                    overrides = Overrides::default();
                }
            }
        }
    }

    /// Appends the data of the current member to `into`: all of it, or, where the shard ends
    /// before, what there is; then the next step is [`End::Cut`].
    pub(super) fn read(&mut self, into: &mut Vec<u8>) -> Result<()> {
        let read = self.stream.read(self.data, into).map_err(cannot_read)?;
        self.data -= read;
        self.unread -= read;
        Ok(())
    }

    fn block(&mut self) -> Result<Block> {
        if let Some((at, block)) = self.held.take() {
            return Ok(Block::Whole(at, block));
        }
        let at = self.stream.offset();
        let mut block = [0; BLOCK];
        let filled = self.stream.fill(&mut block).map_err(cannot_read)?;
        Ok(match filled {
            BLOCK => Block::Whole(at, block),
            0 => Block::None,
            _ => Block::Part(block, filled),
        })
    }

    /// What it means that the stream ends with `part` of a block.
    fn part(&mut self, part: &[u8]) -> Result<Step> {
        if self.stream.damage().is_some() {
            return self.cut("inside a tar header");
        }
        if is_zero(part) {
            return Ok(self.finish(End::Marked(0)));
        }
        if self.started {
            return self.cut("inside a tar header");
        }
        if let Some(refusal) = foreign::refusal(part, self.stream.format()) {
            return Err(shard_error(refusal, 0));
        }
        if !foreign::starts_header(part) {
            return Err(no_archive());
        }
        // One word may be a name that is cut, or what a server said.
        let shown = part.split(|&byte| byte == 0).next().unwrap_or_default();
        self.cut(&format!("inside its first tar header, which starts with \"{}\"", text(shown)))
    }

    /// Decides what zero blocks, the first of them at `start`, mean: the end, or, where more follows, a hole (`None`:
    /// the next header is held) or the seam of two archives put end to end. An end marker has two blocks or more.
    fn after_zeros(&mut self, start: u64) -> Result<Option<Step>> {
        let first = self.stream.offset();
        loop {
            let at = self.stream.offset();
            match self.block()? {
                Block::Whole(_, block) if is_zero(&block) => {}
                Block::Whole(at, block) if Header::parse(&block).is_some() => {
                    self.held = Some((at, block));
                    return Ok((at - start >= 2 * BLOCK as u64).then_some(Step::Seam));
                }
                Block::Whole(at, _) => return self.resync(at, true).map(Some),
                Block::Part(block, filled) if !is_zero(&block[..filled]) => {
                    return Ok(Some(self.marked(at, false)));
                }
                Block::None | Block::Part(..) => return Ok(Some(self.marked(first, true))),
            }
        }
    }

    /// Looks for the next valid header after the bad one at `at`. `marked`: an end-of-archive
    /// marker stood before, so that bytes without any header are no loss.
    fn resync(&mut self, at: u64, marked: bool) -> Result<Step> {
        loop {
            match self.block()? {
                Block::Whole(found, block) => {
                    if Header::parse(&block).is_some() {
                        self.held = Some((found, block));
                        return Ok(Step::Damage { at, bytes: found - at });
                    }
                }
                Block::None | Block::Part(..) if marked => return Ok(self.marked(at, false)),
                Block::None | Block::Part(..) if self.started => {
                    let bytes = self.stream.offset() - at;
                    let detail = format!(
                        "the tar header at byte {at} is damaged and no valid one follows: {bytes} bytes lost"
                    );
                    return Ok(self.finish(End::Cut(detail)));
                }
                Block::None | Block::Part(..) => return Err(no_archive()),
            }
        }
    }

    /// The archive has ended, and so has the stream. What follows the marker from `from` on is said:
    /// zeros only where they are more than padding.
    fn marked(&mut self, from: u64, zeros: bool) -> Step {
        if let Some(damage) = self.stream.damage() {
            let detail = format!("after its end marker, at byte {}: {damage}", self.stream.offset());
            return self.finish(End::Damaged(detail));
        }
        let after = self.stream.offset().saturating_sub(from);
        self.finish(End::Marked(if zeros && after <= PADDING { 0 } else { after }))
    }

    /// The archive ends `place` (a phrase), by its length or because it cannot be decompressed.
    fn cut(&mut self, place: &str) -> Result<Step> {
        let at = self.stream.offset();
        let detail = match self.stream.damage() {
            Some(damage) if at == 0 && damage.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(shard_error(format!("nothing of it can be decompressed: {damage}"), 0));
            }
            Some(damage) => format!("the shard ends {place}, at byte {at}: {damage}"),
            None => format!("the shard ends {place}, at byte {at}"),
        };
        Ok(self.finish(End::Cut(detail)))
    }

    fn finish(&mut self, end: End) -> Step {
        self.end = Some(end.clone());
        Step::End(end)
    }
}

impl Overrides {
    /// Takes over the records of a PAX header, `LENGTH KEY=VALUE\n` each, up to its end or a zero. `None` where one is
    /// malformed, or the size is no number.
    fn pax(&mut self, mut records: &[u8]) -> Option<()> {
        while records.first().is_some_and(|&byte| byte != 0) {
            let (record, rest) = pax_record(records)?;
            records = rest;
            let equals = record.iter().position(|&b| b == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.pax_name = Some(value.to_vec()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        Some(())
    }
}

/// The first record of `records` (without its length and newline) and what follows it. Records
/// are taken by length: values may hold newlines.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().position(|&b| b == b' ')?;
    let len: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..len)?;
    Some((record.strip_suffix(b"\n")?, &records[len..]))
}

/// The fields of a valid header that matter here.
struct Header {
    kind: u8,
    size: u64,
    name: Vec<u8>,
}

impl Header {
    /// `None` unless the checksum is right and the size can be read and padded.
    fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        let header = tar::Header::from_byte_slice(block);
        let field = 148..156;
        // The checksum counts its own field as spaces. Some old tars add signed bytes: a name that is not ASCII tells.
        let sum = |value: fn(u8) -> i64| {
            let of = |bytes: &[u8]| bytes.iter().map(|&b| value(b)).sum::<i64>();
            of(block) - of(&block[field.clone()]) + value(b' ') * field.len() as i64
        };
        let found = i64::from(header.cksum().ok()?);
        if found != sum(i64::from) && found != sum(|byte| i64::from(byte.cast_signed())) {
            return None;
        }
        let blank = header.as_old().size.iter().all(|b| matches!(b, 0 | b' '));
        let size = if blank { 0 } else { header.entry_size().ok()? };
        size.checked_next_multiple_of(BLOCK as u64)?;
        Some(Self { kind: header.entry_type().as_byte(), size, name: header.path_bytes().into_owned() })
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&b| b == 0)
}

/// Text of a name. Bytes that are not UTF-8 are escaped, not replaced: two names stay two.
fn text(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    out
}

fn cannot_read(error: std::io::Error) -> Error {
    Error::io("read the shard", error)
}

fn shard_error(detail: impl Into<String>, offset: u64) -> Error {
    let kind = ErrorKind::Shard { detail: detail.into() };
    Error { kind, shard: None, key: None, offset: Some(offset) }
}

fn no_archive() -> Error {
    shard_error("it is not a tar file, plain or compressed with gzip or zstd: no tar header was found", 0)
}

fn sparse(name: &str, offset: u64) -> Error {
    shard_error(format!("{name} is a sparse file, which is not read; pack it without --sparse"), offset)
}
