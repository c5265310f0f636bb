//! One shard, read group by group: members of a tar file that share a key become a sample, and so does each row of a
//! Parquet file.
//!
//! Grouping is WebDataset's. The key is the member's path up to the first dot of the file name,
//! the extension is the rest, in lower case. Consecutive members with one key form a group.
//! Directories, links, files without an extension, hidden files and `__name__` files are not
//! members of any group. A group that cannot be used is a [`FailedSample`] at its own position;
//! reading goes on after it.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::shard::caption::{CaptionReader, Gaps};
use crate::shard::group::{Extent, Group, Open, Repeated, Role, Standing, split};
use crate::shard::index::ShardIndex;
use crate::shard::location::Shard;
use crate::shard::members::{End, Member, Members, Step};
use crate::shard::read_options::ReadOptions;
use crate::shard::row_groups::RowReader;
use crate::shard::store::{ShardFormat, Stream};

/// Reads one shard, group by group, in order.
///
/// The format (tar, or tar in gzip or zstd) is told by content, but for Parquet files, whose name ends in `.parquet`. Memory: one group, a
/// buffer of 32 or 64 KiB, and per group read 8 to 16 bytes (the ids that were seen) and its part of the
/// index, about 75, until that is [taken](Self::take_index).
///
/// A shard that ends early, or whose compressed data is damaged, yields the group that is cut as
/// [`TruncatedSample`](crate::error::FailReason::TruncatedSample) and then ends. After a damaged tar header the next valid one
/// is looked for; [`skipped_bytes`](Self::skipped_bytes) says what that cost.
pub struct ShardReader {
    shard: Shard,
    captions: CaptionReader,
    input: Input,
    /// First member of the next group; its data is the current one of `members`.
    waiting: Option<Named>,
    /// Damage met since the last member, which the groups on both sides may have lost something to.
    damage: Option<String>,
    seen: HashSet<SampleId>,
    /// Key of the group that the seam of two archives ended.
    divided: Option<Arc<str>>,
    position: u64,
    skipped_bytes: u64,
    ended: bool,
    /// What is wrong with the shard as a whole, to be told after its last group.
    lost: Option<String>,
    format: ShardFormat,
    /// The groups passed since it was taken last.
    index: ShardIndex,
    /// What is read of a group.
    data: Data,
    /// Whether what is outside of the subset is read all the same.
    reads_outside: bool,
}

/// A group, and what is there of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reread {
    /// The sample, or why there is none. Of one that a filter excludes the detail names the clauses that fail, and their
    /// values.
    pub group: Group,
    /// The bytes of its image, where it has one.
    pub image: Option<Vec<u8>>,
}

impl ShardIndex {
    /// Reads the headers of `shard` and skips its data: a plain local file is seeked, all
    /// else is read through.
    ///
    /// # Errors
    /// As [`ShardReader`].
    pub fn scan(shard: &Shard) -> Result<Self> {
        let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
        while reader.skip_group()? {}
        Ok(reader.take_index())
    }
}

/// Samples of a whole shard that may lack a field before that is worth a word.
const FEW: u64 = 16;

/// What groups are made of.
enum Input {
    /// The members of a tar file.
    Members(Box<Members>),
    /// The rows of a Parquet file.
    Rows(Box<RowReader>),
}

/// What is read of a group's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    All,
    WithoutImages,
    Json,
}

/// A member that belongs to a group.
struct Named {
    key: Arc<str>,
    offset: u64,
    extent: Extent,
}

impl Named {
    /// `None` where the member belongs to no group.
    fn of(member: &Member) -> Option<Self> {
        let (key, extension) = split(&member.name)?;
        let extent = Extent { extension, offset: member.data, size: member.size };
        Some(Self { key: key.into(), offset: member.offset, extent })
    }
}

impl ShardReader {
    /// Opens `shard`.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(shard: &Shard, options: &ReadOptions) -> Result<Self> {
        Self::open_with(shard, options, None)
    }

    /// As [`open`](Self::open). Once `stop` is set, a read that waits for a store fails within a
    /// second, and so does every later one of that store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_until(shard: &Shard, options: &ReadOptions, stop: &Arc<AtomicBool>) -> Result<Self> {
        Self::open_with(shard, options, Some(stop))
    }

    fn open_with(shard: &Shard, options: &ReadOptions, stop: Option<&Arc<AtomicBool>>) -> Result<Self> {
        if shard.has_rows() {
            let rows = RowReader::open(shard, None, stop).map_err(|error| error.in_shard(&shard.url))?;
            let captions = CaptionReader::new(shard, options).of_rows(rows.layout().caption.as_deref());
            let index = ShardIndex::new(shard.hash, 0, Some(rows.version().clone()));
            return Ok(Self::new(shard, captions, ShardFormat::Parquet, index, Input::Rows(Box::new(rows))));
        }
        let stream = Stream::open(shard, stop).map_err(|error| error.in_shard(&shard.url))?;
        Ok(Self::of_stream(shard, stream, options))
    }

    /// Reads `shard` from `bytes`, wherever they come from; `bytes` may return short reads. An
    /// error of `bytes` ends the iteration as an `Err`, never as a failed sample.
    ///
    /// # Errors
    /// The first bytes cannot be read.
    pub fn over(shard: &Shard, bytes: impl Read + Send + 'static, options: &ReadOptions) -> Result<Self> {
        let stream = Stream::over(bytes)
            .map_err(|error| Error::io(format!("open {}", shard.url), error).in_shard(&shard.url))?;
        Ok(Self::of_stream(shard, stream, options))
    }

    fn of_stream(shard: &Shard, stream: Stream, options: &ReadOptions) -> Self {
        let captions = CaptionReader::new(shard, options);
        let (format, index) = (stream.format(), ShardIndex::new(shard.hash, 0, stream.mark()));
        Self::new(shard, captions, format, index, Input::Members(Box::new(Members::new(stream))))
    }

    fn new(
        shard: &Shard,
        captions: CaptionReader,
        format: ShardFormat,
        index: ShardIndex,
        input: Input,
    ) -> Self {
        Self {
            shard: shard.clone(),
            captions,
            format,
            index,
            input,
            waiting: None,
            damage: None,
            seen: HashSet::new(),
            divided: None,
            position: 0,
            skipped_bytes: 0,
            ended: false,
            lost: None,
            data: Data::All,
            reads_outside: false,
        }
    }

    /// From here on samples come without the data of their images, which a plain local file then need not
    /// be read for.
    pub(crate) fn without_images(mut self) -> Self {
        self.data = Data::WithoutImages;
        self
    }

    /// For [`next_standing`](Self::next_standing): from here on only json is read.
    pub(crate) fn only_json(mut self) -> Self {
        self.data = Data::Json;
        if let Input::Rows(rows) = &mut self.input {
            rows.only(self.captions.columns().to_vec());
        }
        self
    }

    /// Reads the next group; `None` at the end, and ever after an error.
    ///
    /// # Errors
    /// The store fails, the file is no tar file at all, or a member is sparse; a damaged Parquet file
    /// beside the shard, where captions are looked for in it. Whatever is wrong
    /// with a single group is a [`FailedSample`](crate::FailedSample) instead.
    pub fn next_group(&mut self) -> Result<Option<Group>> {
        let position = self.position;
        let Some(open) = self.advance(true)? else {
            self.captions.say_absent(FEW);
            return Ok(None);
        };
        let judged = open.judge(position, &mut self.captions);
        Ok(Some(judged.map_err(|error| {
            self.ended = true;
            error.in_shard(&self.shard.url)
        })?))
    }

    /// What the next group is to selection, by its json and what lies beside the shard; `None` at the end. Nothing else
    /// of it is read, and where only keys tell, nothing at all.
    ///
    /// # Errors
    /// As [`next_group`](Self::next_group).
    pub(crate) fn next_standing(&mut self) -> Result<Option<Standing>> {
        let Some(open) = self.advance(self.captions.needs_json())? else { return Ok(None) };
        let standing = open.standing(&mut self.captions);
        Ok(Some(standing.map_err(|error| {
            self.ended = true;
            error.in_shard(&self.shard.url)
        })?))
    }

    /// Skips the next group without reading its data (a plain local file is seeked, other
    /// streams are read through); `false` at the end. Groups are the same as those of
    /// [`next_group`](Self::next_group), faults included, and both can be mixed freely.
    ///
    /// # Errors
    /// As [`next_group`](Self::next_group).
    pub fn skip_group(&mut self) -> Result<bool> {
        Ok(self.advance(false)?.is_some())
    }

    /// The next group, with its image, whatever became of it: also of one that is excluded, which then says by which
    /// clause of the filter. `None` at the end.
    ///
    /// # Errors
    /// As [`next_group`](Self::next_group).
    pub(super) fn next_explained(&mut self) -> Result<Option<Reread>> {
        self.captions.name_clauses();
        self.reads_outside = true;
        let position = self.position;
        let Some(open) = self.advance(true)? else { return Ok(None) };
        let image = open.image().map(<[u8]>::to_vec);
        let group =
            open.judge(position, &mut self.captions).map_err(|error| error.in_shard(&self.shard.url))?;
        Ok(Some(Reread { group, image }))
    }

    /// Index of the next group, counting unusable groups too.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes skipped so far, looking for a valid tar header after a damaged one.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    /// How the shard is packed.
    pub fn format(&self) -> ShardFormat {
        self.format
    }

    /// Directories, links and devices met so far: they are skipped.
    pub fn skipped_members(&self) -> u64 {
        match &self.input {
            Input::Members(members) => members.skipped_members(),
            Input::Rows(_) => 0,
        }
    }

    /// Where the groups lie that were read or skipped since the last call (since the start, at
    /// first); costs nothing beyond the memory.
    pub fn take_index(&mut self) -> ShardIndex {
        let next = self.index.after();
        let mut taken = std::mem::replace(&mut self.index, next);
        taken.shrink_to_fit(); // a ledger holds many
        taken
    }

    /// Says in the log, once per field, what the json of the last group that was read was asked for in vain: for jobs that
    /// keep no statistics. `shard` names it.
    pub fn say_gaps(&mut self, shard: &str) {
        self.take_gaps().say(shard);
    }

    /// Says in the log, once per field, which of the fields that are asked for none of the samples so far had.
    pub fn say_absent(&self) {
        self.captions.say_absent(1);
    }

    /// What the json of the last group that was read was asked for in vain.
    pub(crate) fn take_gaps(&mut self) -> Gaps {
        self.captions.take_gaps()
    }

    /// The uid of the last group that was read, where a table goes by uids and it has one.
    pub(super) fn take_uid(&mut self) -> Option<String> {
        self.captions.take_uid()
    }

    fn advance(&mut self, read: bool) -> Result<Option<Open>> {
        let mut group = None;
        if !self.ended {
            let next = match self.input {
                Input::Members(_) => self.group(read),
                Input::Rows(_) => self.row(read),
            };
            group = next.map_err(|error| {
                self.ended = true;
                error.in_shard(&self.shard.url)
            })?;
        }
        if group.is_none()
            && let Some(lost) = self.lost.take()
        {
            let mut open = self.nameless();
            open.harm.cut = Some(lost);
            group = Some(open);
        }
        if let Some(open) = &group {
            self.index.push(open);
            self.position += 1;
        }
        Ok(group)
    }

    /// Collects the members of the next group; their data too, if `read`.
    fn group(&mut self, read: bool) -> Result<Option<Open>> {
        let mut group = match self.waiting.take() {
            Some(member) => Some(self.start(member, read)?),
            None => None,
        };
        loop {
            let Input::Members(members) = &mut self.input else { return Ok(None) };
            let member = match members.next()? {
                Step::Member(member) => member,
                Step::Damage { at, bytes } => {
                    self.skipped_bytes += bytes;
                    self.damage =
                        Some(format!("the tar header at byte {at} is damaged: {bytes} bytes skipped"));
                    continue;
                }
                Step::Seam => {
                    if let Some(open) = &mut group {
                        open.harm.touched = self.damage.take().or(open.harm.touched.take());
                        self.divided = Some(Arc::clone(&open.key));
                        return Ok(group);
                    }
                    continue;
                }
                Step::End(end) => {
                    self.ended = true;
                    return Ok(self.close(group, end));
                }
            };
            let Some(named) = Named::of(&member) else { continue };
            match &mut group {
                Some(open) if open.key == named.key => {
                    if let Some(damage) = self.damage.take() {
                        open.harm.cut = Some(damage);
                    }
                    add(open, named.extent, members, read, self.data)?;
                }
                None => group = Some(self.start(named, read)?),
                Some(open) => {
                    open.harm.touched = self.damage.clone().or(open.harm.touched.take());
                    self.waiting = Some(named);
                    return Ok(group);
                }
            }
        }
    }

    /// The next row of a Parquet file; its data too, if `read`.
    fn row(&mut self, read: bool) -> Result<Option<Open>> {
        let Input::Rows(rows) = &mut self.input else { return Ok(None) };
        if self.position >= rows.len() {
            self.ended = true;
            return Ok(None);
        }
        let (offset, layout) = (rows.offset(self.position), rows.layout());
        let mut open = Open::of_row(self.shard.hash, self.position, offset, layout);
        open.is_outside = read && !self.reads_outside && self.captions.is_outside(&open.key, open.id);
        if read && !open.is_outside {
            open.read_row(rows, self.position, self.data == Data::All)?;
        }
        Ok(Some(open))
    }

    /// A group that stands for what was lost.
    fn nameless(&self) -> Open {
        Open::new("".into(), self.shard.hash, 0)
    }

    fn start(&mut self, member: Named, read: bool) -> Result<Open> {
        let mut open = Open::new(member.key, self.shard.hash, member.offset);
        open.harm.touched = self.damage.take();
        let is_divided = self.divided.take().is_some_and(|key| key == open.key);
        if !self.seen.insert(open.id) {
            open.harm.repeated = Some(if is_divided { Repeated::Seam } else { Repeated::Key });
        }
        open.wants_all = self.captions.wants_all();
        open.is_outside = read && !self.reads_outside && self.captions.is_outside(&open.key, open.id);
        if let Input::Members(members) = &mut self.input {
            add(&mut open, member.extent, members, read, self.data)?;
        }
        Ok(open)
    }

    /// What the end of the shard means for the open group. Where none is open, but something was
    /// lost, the loss is a group without a name.
    fn close(&mut self, group: Option<Open>, end: End) -> Option<Open> {
        match &end {
            End::Marked(after) => self.skipped_bytes += after,
            End::Damaged(detail) => self.lost = Some(format!("the shard's data are damaged {detail}")),
            End::Cut(_) | End::Unmarked => {}
        }
        let damage = self.damage.take();
        let lost = matches!(end, End::Cut(_)) || damage.is_some();
        let mut open = match group {
            Some(open) => open,
            None if lost => self.nameless(),
            None => return None,
        };
        match end {
            End::Cut(detail) => open.harm.cut = Some(detail),
            End::Unmarked => {
                open.harm.touched = damage.or(Some("the shard ends without an end marker".into()))
            }
            End::Damaged(_) | End::Marked(_) => open.harm.touched = damage.or(open.harm.touched),
        }
        Some(open)
    }
}

/// Adds the current member of `members` to `open`, with its data if `read`, where they are of use.
fn add(open: &mut Open, extent: Extent, members: &mut Members, read: bool, data: Data) -> Result<()> {
    let is_wanted = match (data, Role::of(&extent.extension)) {
        (Data::All, _) | (_, Role::Json) => true,
        (Data::WithoutImages, role) => !matches!(role, Role::Image(_)),
        (Data::Json, _) => false,
    };
    let read = read && !open.is_outside && is_wanted;
    let mut data = |into: &mut Vec<u8>| members.read(into);
    open.add(extent, read.then_some(&mut data))
}
