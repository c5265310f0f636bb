//! The tar layer: regular files of an archive, in order, with their offsets.
//!
//! USTAR, GNU and PAX: long names and sizes over 8 GiB. Directories, links and devices are
//! skipped. After a damaged header the next valid one is looked for. What a group of members
//! is, and what becomes of a cut one, is for [`reader`](super::reader) to say.

use std::mem;

use crate::error::{Error, ErrorKind, Result};
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
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, for the length of a call")]
enum Block {
    /// Its offset and content.
    Whole(u64, [u8; BLOCK]),
    /// Nothing.
    None,
    /// A part; `zero`: of zeros only, which is how no header starts; `text`: something that is
    /// no part of a header.
    Part { zero: bool, text: bool },
}

/// What metadata entries say of the file that follows them.
#[derive(Default)]
struct Overrides {
    offset: Option<u64>,
    gnu_name: Option<Vec<u8>>,
    pax_name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
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
                Block::Whole(_, block) if is_zero(&block) => match self.after_zeros()? {
                    Some(step) => return Ok(step),
                    None => continue,
                },
                Block::Whole(at, block) => (at, block),
                Block::None if self.stream.damage().is_some() => return self.cut("after a member"),
                Block::None if self.stream.offset() == 0 => return self.cut("before its first byte"),
                Block::None if overrides.offset.is_some() => return self.cut("after a long name"),
                Block::None => return Ok(self.finish(End::Unmarked)),
                Block::Part { zero: true, .. } if self.stream.damage().is_none() => {
                    return Ok(self.finish(End::Marked(0)));
                }
                Block::Part { text: true, .. } if !self.started && self.stream.damage().is_none() => {
                    return Err(no_archive());
                }
                Block::Part { .. } => return self.cut("inside a tar header"),
            };
            let Some(header) = Header::parse(&block) else { return self.resync(at, false) };
            self.started = true;
            let offset = *overrides.offset.get_or_insert(at);
            let size = overrides.size.unwrap_or(header.size);
            let is_metadata = matches!(header.kind, b'L' | b'K' | b'x' | b'X' | b'g');
            let size = if is_metadata { header.size } else { size };
            let Some(padded) = size.checked_next_multiple_of(BLOCK as u64) else {
                return self.resync(at, false);
            };
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
                        overrides.pax(&content);
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
            _ => Block::Part { zero: is_zero(&block), text: is_text(&block[..filled]) },
        })
    }

    /// Decides what zero blocks mean: the end, or, where more follows, a hole or the seam of two
    /// archives put end to end. `None`: the next header is held.
    fn after_zeros(&mut self) -> Result<Option<Step>> {
        let first = self.stream.offset();
        loop {
            let at = self.stream.offset();
            match self.block()? {
                Block::Whole(_, block) if is_zero(&block) => {}
                Block::Whole(at, block) if Header::parse(&block).is_some() => {
                    self.held = Some((at, block));
                    return Ok(None);
                }
                Block::Whole(at, _) => return self.resync(at, true).map(Some),
                Block::Part { zero: false, .. } => return Ok(Some(self.marked(at, false))),
                Block::None | Block::Part { .. } => return Ok(Some(self.marked(first, true))),
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
                Block::None | Block::Part { .. } if marked => return Ok(self.marked(at, false)),
                Block::None | Block::Part { .. } if self.started => {
                    let bytes = self.stream.offset() - at;
                    let detail = format!(
                        "the tar header at byte {at} is damaged and no valid one follows: {bytes} bytes lost"
                    );
                    return Ok(self.finish(End::Cut(detail)));
                }
                Block::None | Block::Part { .. } => {
                    return Err(no_archive());
                }
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
    /// Takes over the records of a PAX header, `LENGTH KEY=VALUE\n` each; reading stops at the
    /// first malformed one.
    fn pax(&mut self, mut records: &[u8]) {
        while let Some((record, rest)) = pax_record(records) {
            records = rest;
            let Some(equals) = record.iter().position(|&b| b == b'=') else { return };
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.pax_name = Some(value.to_vec()),
                b"size" => self.size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()),
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
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
        // The checksum counts its own field as spaces.
        let sum = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
        let expected = sum(block) - sum(&block[field.clone()]) + u32::from(b' ') * field.len() as u32;
        if header.cksum().ok()? != expected {
            return None;
        }
        let blank = header.as_old().size.iter().all(|b| matches!(b, 0 | b' '));
        let size = if blank { 0 } else { header.entry_size().ok()? };
        size.checked_next_multiple_of(BLOCK as u64)?;
        Some(Self { kind: header.entry_type().as_byte(), size, name: header.path_bytes().into_owned() })
    }
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&b| b == 0)
}

/// Whether a part of a block is text, an error page or a list of shards say: without a zero, which ends
/// the field of a name, and longer than that field, or with what names of members do not have.
fn is_text(part: &[u8]) -> bool {
    let is_foreign = |byte: &u8| matches!(byte, b'<' | b'>' | b'{' | b'}' | b'"' | b'\n' | b'\r');
    !part.contains(&0) && (part.len() > 100 || part.iter().any(is_foreign))
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
