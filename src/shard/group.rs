//! A group of members that share a key, and the sample that it makes.
//!
//! Grouping is WebDataset's: the key is a member's path up to the first dot of its file name.
//! A group is filled as its members pass by ([`Open::add`]) or from a place in an index, and then
//! judged: a [`Sample`], or the reason why there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, FailReason, Result};
use crate::sample::{Attached, FailedSample, Sample, SampleId};
use crate::shard::caption::{CaptionReader, Found, Unusable, some, trimmed};
use crate::shard::row_groups::{Layout, RowReader, Unread};

/// Extensions of images, best first: a group with several has the first one for its image, as
/// in open_clip.
const IMAGES: [&str; 4] = ["jpg", "png", "jpeg", "webp"];

/// Extensions of captions, best first. After them come those with a number, as `0.txt`, `txt2` and `caption_1`, in its
/// order.
const CAPTIONS: [&str; 2] = ["txt", "caption"];

/// What may stand between the number and the word of an extension.
const JOINTS: [char; 3] = ['.', '_', '-'];

/// Most extensions that a message names.
const MAX_NAMED: usize = 8;

/// A sample, or what is known of a group that cannot be used.
pub type Group = std::result::Result<Sample, FailedSample>;

/// What a group is to selection before its image and caption are looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    pub(crate) id: SampleId,
    /// Whether filter and subset let it pass; so do they what cannot be used for another reason.
    pub(crate) counts: bool,
    /// Its score; not a number where it has none, or cannot be used.
    pub(crate) score: f32,
}

/// What a member is to a sample, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An image; of several the one with the lowest number counts.
    Image(usize),
    /// A caption; likewise.
    Caption(usize),
    Json,
    /// Not used.
    Other,
}

impl Role {
    pub(super) fn of(extension: &str) -> Self {
        if let Some(rank) = IMAGES.iter().position(|&e| e == extension) {
            Self::Image(rank)
        } else if let Some(rank) = CAPTIONS.iter().position(|&e| e == extension) {
            Self::Caption(rank)
        } else if extension == "json" {
            Self::Json
        } else {
            numbered(extension).map_or(Self::Other, Self::Caption)
        }
    }
}

/// The rank of the caption of an extension with a number.
fn numbered(extension: &str) -> Option<usize> {
    let number = |text: &str| {
        let digits = text.trim_matches(JOINTS);
        // One joint at most: `1.seg.txt` is something else.
        let is_one = text.len() - digits.len() <= 1 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_one.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let of = |(rank, word): (usize, &&str)| {
        let rest = extension.strip_suffix(word).or_else(|| extension.strip_prefix(word))?;
        Some((1 + usize::from(number(rest)?)) * CAPTIONS.len() + rank)
    };
    CAPTIONS.iter().enumerate().find_map(of)
}

/// A member of a group: where its data lies in the decompressed shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) extension: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A member whose data a sample is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) role: Role,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Used {
    /// Offset of the byte after its last.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// What befell a group on the way, apart from what its members hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Harm {
    /// Why something is certainly missing.
    pub(super) cut: Option<String>,
    /// Why something may be missing.
    pub(super) touched: Option<String>,
    /// What is there twice.
    pub(super) repeated: Option<Repeated>,
}

/// What may be there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repeated {
    /// The key was seen before in the shard.
    Key,
    /// A member with this extension.
    Member(String),
    /// The key, by the group before the seam of two archives.
    Seam,
}

impl Harm {
    pub(super) fn is_none(&self) -> bool {
        self.cut.is_none() && self.touched.is_none() && self.repeated.is_none()
    }
}

/// Appends the data of a member to a vector.
pub(super) type Read<'a> = dyn FnMut(&mut Vec<u8>) -> Result<()> + 'a;

/// A group while its members arrive.
pub(super) struct Open {
    pub(super) key: Arc<str>,
    pub(super) id: SampleId,
    pub(super) offset: u64,
    /// Its members in order, without repeated ones.
    pub(super) members: Vec<Extent>,
    pub(super) harm: Harm,
    /// Whether its data are of no use: the subset does not name it.
    pub(super) is_outside: bool,
    /// Why the row has no image.
    null_image: Option<String>,
    /// Whose row it is, where the shard is a Parquet file.
    pub(super) layout: Option<Arc<Layout>>,
    /// Whether all of its captions count, not only the best one.
    pub(super) wants_all: bool,
    image: Option<(usize, Vec<u8>)>,
    /// Those that were read: the best one, or all.
    captions: Vec<(usize, Vec<u8>)>,
    json: Option<Vec<u8>>,
}

impl Open {
    pub(super) fn new(key: Arc<str>, shard_hash: u64, offset: u64) -> Self {
        Self {
            id: SampleId::new(shard_hash, &key),
            key,
            offset,
            members: Vec::new(),
            harm: Harm::default(),
            is_outside: false,
            layout: None,
            null_image: None,
            wants_all: false,
            image: None,
            captions: vec![],
            json: None,
        }
    }

    /// Row `row` of a Parquet file, without any data, as one of an image and a json member. It has both, whatever the
    /// columns hold, so that it is the same whether they were read or not.
    pub(super) fn of_row(shard_hash: u64, row: u64, offset: u64, layout: &Arc<Layout>) -> Self {
        let mut open = Self::new(format!("{row:09}").into(), shard_hash, offset);
        let member = |extension: &str| Extent { extension: extension.into(), offset, size: 0 };
        open.members = vec![member(IMAGES[0]), member("json")];
        open.layout = Some(Arc::clone(layout));
        open
    }

    /// Gives a row its data, that of the image only if `image`. Damage is noted.
    ///
    /// # Errors
    /// The store or the disk fails.
    pub(super) fn read_row(&mut self, rows: &mut RowReader, row: u64, image: bool) -> Result<()> {
        let data = match rows.read(row, image) {
            Ok(data) => data,
            Err(Unread::Damage(what)) => {
                self.harm.cut = Some(what);
                return Ok(());
            }
            Err(Unread::Store(error)) => return Err(Error::io(format!("read row {row}"), error)),
        };
        if let (Some(layout), None, true) = (&self.layout, &data.image, image) {
            self.null_image = Some(format!(
                "the column {} is null here; where a column says so (status = 'success'), `where` excludes such rows",
                layout.image
            ));
        }
        self.image = data.image.map(|image| (0, image));
        self.json = Some(data.json);
        Ok(())
    }

    /// Adds a member, and its data where they are of use and `read` gives them.
    pub(super) fn add(&mut self, extent: Extent, read: Option<&mut Read<'_>>) -> Result<()> {
        if self.members.iter().any(|other| other.extension == extent.extension) {
            self.harm.repeated = Some(Repeated::Member(extent.extension));
            return Ok(());
        }
        if let Some(read) = read {
            let slot = match Role::of(&extent.extension) {
                Role::Image(rank) => {
                    let is_better = self.image.as_ref().is_none_or(|(held, _)| rank < *held);
                    is_better.then(|| &mut self.image.insert((rank, Vec::new())).1)
                }
                Role::Caption(rank) => {
                    let is_better = self.captions.iter().all(|(held, _)| rank < *held);
                    if is_better && !self.wants_all {
                        self.captions.clear();
                    }
                    if is_better || self.wants_all {
                        self.captions.push((rank, Vec::new()));
                        self.captions.last_mut().map(|(_, bytes)| bytes)
                    } else {
                        None
                    }
                }
                Role::Json => Some(self.json.insert(Vec::new())),
                Role::Other => None,
            };
            slot.map_or(Ok(()), read)?;
        }
        self.members.push(extent);
        Ok(())
    }

    /// The members that a sample is made of (the best image, the best caption or all, the json), in
    /// order of their offsets.
    pub(super) fn used(&self) -> Vec<Used> {
        let (mut image, mut caption, mut json, mut all) = (None, None, None, vec![]);
        for extent in &self.members {
            let used = Used { role: Role::of(&extent.extension), offset: extent.offset, size: extent.size };
            let rank = |held: Option<Used>| match held.map(|held| held.role) {
                Some(Role::Image(rank) | Role::Caption(rank)) => rank,
                _ => usize::MAX,
            };
            match used.role {
                Role::Image(new) if new < rank(image) => image = Some(used),
                Role::Caption(_) if self.wants_all => all.push(used),
                Role::Caption(new) if new < rank(caption) => caption = Some(used),
                Role::Json => json = Some(used),
                _ => {}
            }
        }
        all.extend([image, caption, json].into_iter().flatten());
        all.sort_by_key(|used| used.offset);
        all
    }

    /// Gives a member of [`used`](Self::used) its data.
    pub(super) fn set(&mut self, used: &Used, data: Vec<u8>) {
        match used.role {
            Role::Image(rank) => self.image = Some((rank, data)),
            Role::Caption(rank) => self.captions.push((rank, data)),
            Role::Json => self.json = Some(data),
            Role::Other => {}
        }
    }

    /// The bytes of its image, where they were read.
    pub(super) fn image(&self) -> Option<&[u8]> {
        self.image.as_ref().map(|(_, bytes)| &bytes[..])
    }

    /// Whether the members that are there can make a sample at all: if not, their data need not
    /// be read for [`judge`](Self::judge) to say why.
    pub(super) fn is_hopeless(&self, captions: &CaptionReader) -> bool {
        let caption = self.has(is_caption) || captions.elsewhere().is_some();
        let fault =
            self.harm.cut.is_some() || self.harm.repeated.is_some() || !caption || !self.has(is_image);
        captions.is_outside(&self.key, self.id) || fault && !captions.subset_needs_json()
    }

    /// Makes a sample of the group, or says why it cannot be used.
    ///
    /// # Errors
    /// Those of the metadata beside the shard, where `captions` needs them.
    pub(super) fn judge(mut self, position: u64, captions: &mut CaptionReader) -> Result<Group> {
        let found = captions.of(&self.key, self.id, self.json.as_deref(), self.fault())?;
        let found = found.and_then(|mut found| {
            let own = found.captions.take().unwrap_or_else(|| self.own_captions(captions))?;
            // Only now: what a filter excludes is no fault.
            self.null_image.clone().map_or(Ok((own, found)), |null| Err((FailReason::MissingImage, null)))
        });
        let (id, key, offset) = (self.id, self.key, self.offset);
        Ok(match found {
            Ok((several, found)) => {
                let Found { score, mut attached, .. } = found;
                attached.scores = captions.scores();
                let (caption, captions) = captions.chosen(several);
                let image = self.image.map(|(_, bytes)| bytes).unwrap_or_default();
                let attached = (attached != Attached::default()).then(|| Box::new(attached));
                let json = self.json;
                Ok(Sample { id, key, position, offset, image, caption, captions, score, attached, json })
            }
            Err((reason, detail)) => Err(FailedSample { id, key, position, offset, reason, detail }),
        })
    }

    /// What the group is to selection. A caption is not looked for.
    ///
    /// # Errors
    /// As [`judge`](Self::judge).
    pub(super) fn standing(self, captions: &mut CaptionReader) -> Result<Standing> {
        let found = captions.of(&self.key, self.id, self.json.as_deref(), self.fault())?;
        let (counts, score) = match found {
            Ok(found) => (true, found.score),
            Err((reason, _)) => (reason.is_fault(), None),
        };
        Ok(Standing { id: self.id, counts, score: score.unwrap_or(f32::NAN) })
    }

    /// Why the group cannot be used, whatever its caption is.
    fn fault(&self) -> Option<Unusable> {
        if let Some(detail) = &self.harm.cut {
            return Some((FailReason::TruncatedSample, detail.clone()));
        }
        let has_image = self.has(is_image);
        match &self.harm.repeated {
            Some(Repeated::Member(extension)) => {
                let detail = format!("{}.{extension} is there more than once", self.key);
                return Some((FailReason::RepeatedKey, detail));
            }
            Some(Repeated::Key) => return Some(self.again(has_image)),
            Some(Repeated::Seam) => {
                let detail = format!(
                    "the key {} was seen right before the seam of two archives put end to end, which divides samples: \
                     write them into one archive",
                    self.key
                );
                return Some((FailReason::RepeatedKey, detail));
            }
            None => {}
        }
        (!has_image).then(|| self.missing(FailReason::MissingImage, "no jpg, png, jpeg or webp", is_image))
    }

    /// What is wrong where the key was seen before.
    fn again(&self, has_image: bool) -> Unusable {
        let seen = format!("the key {} was seen before in this shard", self.key);
        let dots = self.dots(is_image).or_else(|| self.dots(is_caption)).unwrap_or_default();
        if has_image && self.has(|role| is_caption(role) || role == Role::Json) {
            return (FailReason::RepeatedKey, format!("{seen}{dots}"));
        }
        let apart = format!(
            "{seen}, and here it has only {}: the members of a sample must be adjacent; sort the tar by name (tar \
             --sort=name){dots}",
            self.names()
        );
        (FailReason::MembersApart, apart)
    }

    fn has(&self, wanted: fn(Role) -> bool) -> bool {
        self.members.iter().any(|member| wanted(Role::of(&member.extension)))
    }

    /// The captions of the text members: the best one, or all that are not empty.
    fn own_captions(&mut self, reader: &CaptionReader) -> Result<Vec<String>, Unusable> {
        self.captions.sort_by_key(|(rank, _)| *rank);
        let of_rank = |rank| {
            let found = self.members.iter().find(|member| Role::of(&member.extension) == Role::Caption(rank));
            found.map_or("", |member| &member.extension)
        };
        let text = |(rank, bytes): &(usize, Vec<u8>)| {
            let text = std::str::from_utf8(bytes)
                .map_err(|error| (FailReason::CaptionNotUtf8, format!(".{}: {error}", of_rank(*rank))))?;
            Ok(trimmed(text, of_rank(*rank)))
        };
        if self.captions.is_empty() {
            let what = match reader.elsewhere() {
                Some(elsewhere) if self.layout.is_some() => elsewhere,
                Some(elsewhere) => format!("{elsewhere}, no txt, no caption"),
                None if self.layout.is_some() => {
                    "no column caption, text or txt: name one by caption_key".into()
                }
                None if self.has(|role| role == Role::Json) => {
                    "no txt, no caption (caption_key names a field of the json)".to_owned()
                }
                None => "no txt, no caption".to_owned(),
            };
            let what = match reader.other_table() {
                Some(name) => format!("{what} (caption_key={name:?} takes the table's for the original)"),
                None => what,
            };
            return Err(self.missing(FailReason::MissingCaption, &what, is_caption));
        }
        let captions = self.captions.iter().map(text).collect::<Result<Vec<_>, Unusable>>()?;
        if !self.wants_all {
            // `txt` beside `caption` is one of two names for it.
            let numbered = |role| matches!(role, Role::Caption(rank) if rank >= CAPTIONS.len());
            if self.has(numbered)
                && self.members.iter().filter(|m| is_caption(Role::of(&m.extension))).count() > 1
            {
                reader.say_several();
            }
            return captions.into_iter().take(1).collect();
        }
        some(captions.into_iter().filter_map(Result::ok).collect(), || format!("nothing in {}", self.names()))
    }

    /// What dots in names have to do with a member that is missing, where one would be it by its last extension.
    fn dots(&self, wanted: fn(Role) -> bool) -> Option<String> {
        let would_be =
            |extension: &str| extension.rsplit_once('.').is_some_and(|(_, last)| wanted(Role::of(last)));
        let found = self.members.iter().find(|member| would_be(&member.extension))?;
        let (key, extension) = (&self.key, &found.extension);
        Some(format!(
            "; {key}.{extension} is no {}, since keys end at the first dot of the file name, as in WebDataset: here \
             the key is {key} and the extension {extension}; write names with one dot",
            if wanted(Role::Image(0)) { "image" } else { "caption" }
        ))
    }

    /// Its extensions, for messages.
    fn names(&self) -> String {
        let names: BTreeSet<&str> = self.members.iter().map(|p| p.extension.as_str()).collect();
        let more = if names.len() > MAX_NAMED { ", ..." } else { "" };
        let names: Vec<&str> = names.into_iter().take(MAX_NAMED).collect();
        format!("{}{more}", names.join(", "))
    }

    /// `reason`, unless damage nearby explains what is missing.
    fn missing(&self, reason: FailReason, what: &str, wanted: fn(Role) -> bool) -> Unusable {
        if let Some(layout) = &self.layout {
            return (reason, format!("{what}; the columns are {}", layout.columns));
        }
        let dots = self.dots(wanted).unwrap_or_default();
        let found = format!("{what}; its members are {}{dots}", self.names());
        match &self.harm.touched {
            Some(damage) => (FailReason::TruncatedSample, format!("{found}; {damage}")),
            None => (reason, found),
        }
    }
}

fn is_image(role: Role) -> bool {
    matches!(role, Role::Image(_))
}

fn is_caption(role: Role) -> bool {
    matches!(role, Role::Caption(_))
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
