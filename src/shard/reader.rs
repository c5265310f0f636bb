//! One shard, read group by group: members that share a key become a sample.
//!
//! Grouping is WebDataset's. The key is the member's path up to the first dot of the file name,
//! the extension is the rest, in lower case. Consecutive members with one key form a group.
//! Directories, links, files without an extension, hidden files and `__name__` files are not
//! members of any group. A group that cannot be used is a [`FailedSample`] at its own position;
//! reading goes on after it.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, FailReason, Result};
use crate::sample::{FailedSample, Sample, SampleId};
use crate::shard::Shard;
use crate::shard::members::{End, Members, Step};
use crate::shard::store::Stream;

/// Extensions of images, best first: a group with several has the first one for its image, as
/// in open_clip.
const IMAGES: [&str; 4] = ["jpg", "png", "jpeg", "webp"];

/// Extensions of captions, best first.
const CAPTIONS: [&str; 2] = ["txt", "caption"];

/// Most extensions that a message names.
const MAX_NAMED: usize = 8;

/// How samples are made of members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Field of the json member that holds the caption; where it is absent or null, the `.txt`
    /// or `.caption` member is used, as it is when this is `None`.
    pub caption_key: Option<String>,
}

/// A sample, or what is known of a group that cannot be used.
pub type Group = std::result::Result<Sample, FailedSample>;

/// Reads one shard, group by group, in order.
///
/// The format (tar, or tar in gzip or zstd) is told by content. Memory: one group, 32 KiB of
/// buffer and 8 to 16 bytes per group read (the ids that were seen).
///
/// A shard that ends early, or whose compressed data is damaged, yields the group that is cut as
/// [`FailReason::TruncatedSample`] and then ends. After a damaged tar header the next valid one
/// is looked for; [`skipped_bytes`](Self::skipped_bytes) says what that cost.
pub struct ShardReader {
    shard: Shard,
    caption_key: Option<String>,
    members: Members,
    /// First member of the next group; its data is the current one of `members`.
    waiting: Option<Named>,
    /// Damage met since the last member, which the groups on both sides may have lost something to.
    damage: Option<String>,
    seen: HashSet<SampleId>,
    position: u64,
    skipped_bytes: u64,
    ended: bool,
}

/// A member that belongs to a group.
struct Named {
    key: Arc<str>,
    extension: String,
    offset: u64,
}

/// A group while its members arrive.
struct Open {
    key: Arc<str>,
    id: SampleId,
    offset: u64,
    extensions: BTreeSet<String>,
    image: Option<(usize, Vec<u8>)>,
    caption: Option<(usize, Vec<u8>)>,
    json: Option<Vec<u8>>,
    /// Why something is certainly missing.
    cut: Option<String>,
    /// Why something may be missing.
    touched: Option<String>,
    repeated: Option<String>,
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
        let stream = Stream::open(shard, stop).map_err(|error| error.in_shard(&shard.url))?;
        Ok(Self::new(shard, stream, options))
    }

    /// Reads `shard` from `bytes`, wherever they come from; `bytes` may return short reads. An
    /// error of `bytes` ends the iteration as an `Err`, never as a failed sample.
    ///
    /// # Errors
    /// The first bytes cannot be read.
    pub fn over(shard: &Shard, bytes: impl Read + Send + 'static, options: &ReadOptions) -> Result<Self> {
        let stream = Stream::over(bytes)
            .map_err(|error| Error::io(format!("open {}", shard.url), error).in_shard(&shard.url))?;
        Ok(Self::new(shard, stream, options))
    }

    fn new(shard: &Shard, stream: Stream, options: &ReadOptions) -> Self {
        Self {
            shard: shard.clone(),
            caption_key: options.caption_key.clone(),
            members: Members::new(stream),
            waiting: None,
            damage: None,
            seen: HashSet::new(),
            position: 0,
            skipped_bytes: 0,
            ended: false,
        }
    }

    /// Reads the next group; `None` at the end, and ever after an error.
    ///
    /// # Errors
    /// The store fails, the file is no tar file at all, or a member is sparse. Whatever is wrong
    /// with a single group is a [`FailedSample`] instead.
    pub fn next_group(&mut self) -> Result<Option<Group>> {
        let position = self.position;
        Ok(self.advance(true)?.map(|open| open.judge(position, self.caption_key.as_deref())))
    }

    /// Passes over the next group without reading its data (a plain local file is seeked, other
    /// streams are read through); `false` at the end. Groups are the same as those of
    /// [`next_group`](Self::next_group), faults included, and both can be mixed freely.
    ///
    /// # Errors
    /// As [`next_group`](Self::next_group).
    pub fn skip_group(&mut self) -> Result<bool> {
        Ok(self.advance(false)?.is_some())
    }

    /// Index of the next group, counting unusable groups too.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes passed over so far, looking for a valid tar header after a damaged one.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    fn advance(&mut self, read: bool) -> Result<Option<Open>> {
        if self.ended {
            return Ok(None);
        }
        let group = self.group(read).map_err(|error| {
            self.ended = true;
            error.in_shard(&self.shard.url)
        })?;
        self.position += u64::from(group.is_some());
        Ok(group)
    }

    /// Collects the members of the next group; their data too, if `read`.
    fn group(&mut self, read: bool) -> Result<Option<Open>> {
        let mut group = match self.waiting.take() {
            Some(member) => Some(self.start(member, read)?),
            None => None,
        };
        loop {
            let member = match self.members.next()? {
                Step::Member(member) => member,
                Step::Damage { at, bytes } => {
                    self.skipped_bytes += bytes;
                    self.damage =
                        Some(format!("the tar header at byte {at} is damaged: {bytes} bytes skipped"));
                    continue;
                }
                Step::End(end) => {
                    self.ended = true;
                    return Ok(self.close(group, end));
                }
            };
            let Some((key, extension)) = split(&member.name) else { continue };
            match &mut group {
                Some(open) if *open.key == *key => {
                    if let Some(damage) = self.damage.take() {
                        open.cut = Some(damage);
                    }
                    open.add(extension, &mut self.members, read)?;
                }
                None => {
                    let named = Named { key: key.into(), extension, offset: member.offset };
                    group = Some(self.start(named, read)?);
                }
                Some(open) => {
                    open.touched = self.damage.clone().or(open.touched.take());
                    self.waiting = Some(Named { key: key.into(), extension, offset: member.offset });
                    return Ok(group);
                }
            }
        }
    }

    fn start(&mut self, member: Named, read: bool) -> Result<Open> {
        let mut open = Open::new(member.key, self.shard.hash, member.offset);
        open.touched = self.damage.take();
        if !self.seen.insert(open.id) {
            open.repeated = Some(format!("the key {} was seen before in this shard", open.key));
        }
        open.add(member.extension, &mut self.members, read)?;
        Ok(open)
    }

    /// What the end of the shard means for the open group. Where none is open, but something was
    /// lost, the loss is a group without a name.
    fn close(&mut self, group: Option<Open>, end: End) -> Option<Open> {
        let damage = self.damage.take();
        let lost = matches!(end, End::Cut(_)) || damage.is_some();
        let mut open = match group {
            Some(open) => open,
            None if lost => Open::new("".into(), self.shard.hash, 0),
            None => return None,
        };
        match end {
            End::Cut(detail) => open.cut = Some(detail),
            End::Unmarked => open.touched = damage.or(Some("the shard ends without an end marker".into())),
            End::Marked => open.touched = damage.or(open.touched),
        }
        Some(open)
    }
}

impl Open {
    fn new(key: Arc<str>, shard_hash: u64, offset: u64) -> Self {
        Self {
            id: SampleId::new(shard_hash, &key),
            key,
            offset,
            extensions: BTreeSet::new(),
            image: None,
            caption: None,
            json: None,
            cut: None,
            touched: None,
            repeated: None,
        }
    }

    /// Adds the current member of `members`, reading its data if that is wanted and of use.
    fn add(&mut self, extension: String, members: &mut Members, read: bool) -> Result<()> {
        if self.extensions.contains(&extension) {
            self.repeated = Some(format!("{}.{extension} is there more than once", self.key));
        } else if read {
            if let Some(rank) = IMAGES.iter().position(|&e| e == extension) {
                read_better(&mut self.image, rank, members)?;
            } else if let Some(rank) = CAPTIONS.iter().position(|&e| e == extension) {
                read_better(&mut self.caption, rank, members)?;
            } else if extension == "json" {
                members.read(self.json.insert(Vec::new()))?;
            }
        }
        self.extensions.insert(extension);
        Ok(())
    }

    /// Makes a sample of the group, or says why it cannot be used.
    fn judge(self, position: u64, caption_key: Option<&str>) -> Group {
        match self.content(caption_key) {
            Ok(caption) => Ok(Sample {
                id: self.id,
                key: self.key,
                position,
                offset: self.offset,
                image: self.image.map(|(_, bytes)| bytes).unwrap_or_default(),
                caption,
                json: self.json,
            }),
            Err((reason, detail)) => Err(FailedSample {
                id: self.id,
                key: self.key,
                position,
                offset: self.offset,
                reason,
                detail,
            }),
        }
    }

    /// The caption of a usable group.
    fn content(&self, caption_key: Option<&str>) -> Result<String, (FailReason, String)> {
        if let Some(detail) = &self.cut {
            return Err((FailReason::TruncatedSample, detail.clone()));
        }
        if let Some(detail) = &self.repeated {
            return Err((FailReason::RepeatedKey, detail.clone()));
        }
        let missing = |reason, what: &str| {
            let names: Vec<&str> = self.extensions.iter().take(MAX_NAMED).map(String::as_str).collect();
            let more = if self.extensions.len() > MAX_NAMED { ", ..." } else { "" };
            let found = format!("{what}; its members are {}{more}", names.join(", "));
            match &self.touched {
                Some(damage) => (FailReason::TruncatedSample, format!("{found}; {damage}")),
                None => (reason, found),
            }
        };
        if self.image.is_none() {
            return Err(missing(FailReason::MissingImage, "no jpg, png, jpeg or webp"));
        }
        if let (Some(field), Some(json)) = (caption_key, &self.json)
            && let Some(caption) = json_caption(json, field)?
        {
            return trimmed(&caption, field);
        }
        let Some((rank, bytes)) = &self.caption else {
            let what = match caption_key {
                Some(field) => format!("no json with a {field:?}, no txt, no caption"),
                None => "no txt, no caption".to_owned(),
            };
            return Err(missing(FailReason::MissingCaption, &what));
        };
        let caption = std::str::from_utf8(bytes)
            .map_err(|error| (FailReason::CaptionNotUtf8, format!(".{}: {error}", CAPTIONS[*rank])))?;
        trimmed(caption, CAPTIONS[*rank])
    }
}

/// Reads the current member into `slot`, unless what is there ranks higher.
fn read_better(slot: &mut Option<(usize, Vec<u8>)>, rank: usize, members: &mut Members) -> Result<()> {
    if slot.as_ref().is_none_or(|(held, _)| rank < *held) {
        members.read(&mut slot.insert((rank, Vec::new())).1)?;
    }
    Ok(())
}

/// The caption in `field` of a json member; `None` where it is absent or null.
fn json_caption(json: &[u8], field: &str) -> Result<Option<String>, (FailReason, String)> {
    let bad = |detail: String| (FailReason::BadJson, detail);
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    match value.get(field) {
        None if !value.is_object() => Err(bad("it is not an object".into())),
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(caption)) => Ok(Some(caption.clone())),
        Some(other) => {
            let kind = match other {
                serde_json::Value::Array(_) => "a list",
                serde_json::Value::Object(_) => "an object",
                serde_json::Value::Bool(_) => "a boolean",
                _ => "a number",
            };
            Err(bad(format!("{field:?} is {kind}, not a string")))
        }
    }
}

/// A caption without white space around it, and without a byte order mark.
fn trimmed(caption: &str, place: &str) -> Result<String, (FailReason, String)> {
    let caption = caption.trim_start_matches('\u{feff}').trim();
    if caption.is_empty() {
        return Err((FailReason::EmptyCaption, format!("nothing in {place}")));
    }
    Ok(caption.to_owned())
}

/// Key and extension of a member's path; `None` for files that belong to no group: without a
/// dot, hidden, or below a first component like `__meta__`.
pub(super) fn split(path: &str) -> Option<(&str, String)> {
    let first = path.split('/').next().unwrap_or(path);
    if first.len() >= 4 && first.starts_with("__") && first.ends_with("__") {
        return None;
    }
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[start..].find('.')? {
        0 => None,
        dot => Some((&path[..start + dot], path[start + dot + 1..].to_ascii_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_webdataset() {
        // Left: what webdataset's base_plus_ext and its meta rule say.
        for (path, expected) in [
            ("000.jpg", Some(("000", "jpg"))),
            ("a.b/000.seg.PNG", Some(("a.b/000", "seg.png"))),
            ("./000.txt", Some(("./000", "txt"))),
            ("__key.jpg", Some(("__key", "jpg"))),
            ("__meta__/000.jpg", None),
            ("__index__", None),
            ("README", None),
            (".000.jpg", None),
            ("a/.hidden.jpg", None),
            ("a.b/README", None),
        ] {
            assert_eq!(split(path), expected.map(|(k, e)| (k, e.to_owned())), "{path}");
        }
    }
}
