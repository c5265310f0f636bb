//! A group of members that share a key, and the sample that it makes.
//!
//! Grouping is WebDataset's: the key is a member's path up to the first dot of its file name.
//! A group is filled as its members pass by ([`Open::add`]) or from a place in an index, and then
//! judged: a [`Sample`], or the reason why there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, FailReason, Result};
use crate::sample::{FailedSample, Sample, SampleId};
use crate::shard::caption::{CaptionReader, Unusable, trimmed};
use crate::shard::row_groups::{Layout, RowReader, Unread};

/// Extensions of images, best first: a group with several has the first one for its image, as
/// in open_clip.
const IMAGES: [&str; 4] = ["jpg", "png", "jpeg", "webp"];

/// Extensions of captions, best first.
const CAPTIONS: [&str; 2] = ["txt", "caption"];

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
            Self::Other
        }
    }
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
    /// Which key or member is there twice.
    pub(super) repeated: Option<String>,
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
    image: Option<(usize, Vec<u8>)>,
    caption: Option<(usize, Vec<u8>)>,
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
            image: None,
            caption: None,
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
            self.harm.repeated = Some(format!("{}.{} is there more than once", self.key, extent.extension));
            return Ok(());
        }
        if let Some(read) = read {
            let slot = match Role::of(&extent.extension) {
                Role::Image(rank) => better(&mut self.image, rank),
                Role::Caption(rank) => better(&mut self.caption, rank),
                Role::Json => Some(self.json.insert(Vec::new())),
                Role::Other => None,
            };
            slot.map_or(Ok(()), read)?;
        }
        self.members.push(extent);
        Ok(())
    }

    /// The members that a sample is made of (the best image, the best caption, the json), in
    /// order of their offsets.
    pub(super) fn used(&self) -> Vec<Used> {
        let (mut image, mut caption, mut json) = (None, None, None);
        for extent in &self.members {
            let used = Used { role: Role::of(&extent.extension), offset: extent.offset, size: extent.size };
            let rank = |held: Option<Used>| match held.map(|held| held.role) {
                Some(Role::Image(rank) | Role::Caption(rank)) => rank,
                _ => usize::MAX,
            };
            match used.role {
                Role::Image(new) if new < rank(image) => image = Some(used),
                Role::Caption(new) if new < rank(caption) => caption = Some(used),
                Role::Json => json = Some(used),
                _ => {}
            }
        }
        let mut all: Vec<Used> = [image, caption, json].into_iter().flatten().collect();
        all.sort_by_key(|used| used.offset);
        all
    }

    /// Gives a member of [`used`](Self::used) its data.
    pub(super) fn set(&mut self, used: &Used, data: Vec<u8>) {
        match used.role {
            Role::Image(rank) => self.image = Some((rank, data)),
            Role::Caption(rank) => self.caption = Some((rank, data)),
            Role::Json => self.json = Some(data),
            Role::Other => {}
        }
    }

    /// Whether the members that are there can make a sample at all: if not, their data need not
    /// be read for [`judge`](Self::judge) to say why.
    pub(super) fn is_hopeless(&self, captions: &CaptionReader) -> bool {
        let has = |wanted: fn(Role) -> bool| self.members.iter().any(|p| wanted(Role::of(&p.extension)));
        let caption = has(|role| matches!(role, Role::Caption(_))) || captions.elsewhere().is_some();
        let fault = self.harm.cut.is_some()
            || self.harm.repeated.is_some()
            || !caption
            || !has(|role| matches!(role, Role::Image(_)));
        captions.is_outside(&self.key, self.id) || fault && !captions.subset_needs_json()
    }

    /// Makes a sample of the group, or says why it cannot be used.
    ///
    /// # Errors
    /// Those of the metadata beside the shard, where `captions` needs them.
    pub(super) fn judge(self, position: u64, captions: &mut CaptionReader) -> Result<Group> {
        let found = captions.of(&self.key, self.id, self.json.as_deref(), self.fault())?;
        let found = found.and_then(|mut found| {
            let caption = found.caption.take();
            let caption = caption.unwrap_or_else(|| self.own_caption(captions.elsewhere()))?;
            // Only now: what a filter excludes is no fault.
            self.null_image.clone().map_or(Ok((caption, found)), |null| Err((FailReason::MissingImage, null)))
        });
        let (id, key, offset) = (self.id, self.key, self.offset);
        Ok(match found {
            Ok((caption, found)) => {
                let image = self.image.map(|(_, bytes)| bytes).unwrap_or_default();
                let (from_table, score) = (found.from_table, found.score);
                Ok(Sample { id, key, position, offset, image, caption, from_table, score, json: self.json })
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
        if let Some(detail) = &self.harm.repeated {
            return Some((FailReason::RepeatedKey, detail.clone()));
        }
        let has_image = self.members.iter().any(|p| matches!(Role::of(&p.extension), Role::Image(_)));
        (!has_image).then(|| self.missing(FailReason::MissingImage, "no jpg, png, jpeg or webp"))
    }

    /// The caption of the text member; what is said of `elsewhere` was looked for in vain.
    fn own_caption(&self, elsewhere: Option<String>) -> Result<String, Unusable> {
        let Some((rank, bytes)) = &self.caption else {
            let what = match elsewhere {
                Some(elsewhere) if self.layout.is_some() => elsewhere,
                Some(elsewhere) => format!("{elsewhere}, no txt, no caption"),
                None if self.layout.is_some() => {
                    "no column caption, text or txt: name one by caption_key".into()
                }
                None => "no txt, no caption".to_owned(),
            };
            return Err(self.missing(FailReason::MissingCaption, &what));
        };
        let caption = std::str::from_utf8(bytes)
            .map_err(|error| (FailReason::CaptionNotUtf8, format!(".{}: {error}", CAPTIONS[*rank])))?;
        trimmed(caption, CAPTIONS[*rank])
    }

    /// `reason`, unless damage nearby explains what is missing.
    fn missing(&self, reason: FailReason, what: &str) -> Unusable {
        if let Some(layout) = &self.layout {
            return (reason, format!("{what}; the columns are {}", layout.columns));
        }
        let names: BTreeSet<&str> = self.members.iter().map(|p| p.extension.as_str()).collect();
        let more = if names.len() > MAX_NAMED { ", ..." } else { "" };
        let names: Vec<&str> = names.into_iter().take(MAX_NAMED).collect();
        let found = format!("{what}; its members are {}{more}", names.join(", "));
        match &self.harm.touched {
            Some(damage) => (FailReason::TruncatedSample, format!("{found}; {damage}")),
            None => (reason, found),
        }
    }
}

/// The slot's bytes, to be read anew, unless what is there ranks higher.
fn better(slot: &mut Option<(usize, Vec<u8>)>, rank: usize) -> Option<&mut Vec<u8>> {
    let better = slot.as_ref().is_none_or(|(held, _)| rank < *held);
    better.then(|| &mut slot.insert((rank, Vec::new())).1)
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
