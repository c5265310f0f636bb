//! Reads chosen samples from their shards, by index where that is possible, and makes thumbnails of them.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use tldr_loader::config::Source;
use tldr_loader::image::{DecodeOptions, RgbImage, Scratch, Thumbnail, preview, thumbnail};
use tldr_loader::ledger::WindowRecord;
use tldr_loader::model::PreviewFilter;
use tldr_loader::shard::{Group, ReadOptions, ShardFetcher, ShardIndex, ShardReader};
use tldr_loader::{Result, Sample, Shard};

use crate::draw::Place;

/// Longest side of a tile, in pixels.
pub(crate) const SIDE: usize = 96;

/// What another caption of the sample itself is called.
pub(crate) const ANOTHER: &str = "another";

/// What was read of a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// Its picture, small.
    pub(crate) tile: Option<RgbImage>,
    /// Width and height of its picture.
    pub(crate) size: Option<(usize, usize)>,
    /// Its original caption.
    pub(crate) caption: Option<String>,
    /// Its other captions, where it has several.
    pub(crate) others: Vec<(String, String)>,
    /// Why there is no picture.
    pub(crate) why: Option<String>,
    /// What a scorer sees of it, where it wants to.
    pub(crate) preview: Option<Vec<u8>>,
}

/// A chosen sample.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) place: Place,
    /// The window that it is in.
    pub(crate) record: Arc<WindowRecord>,
    /// Whether a scorer wants to see it.
    pub(crate) is_scored: bool,
}

/// How pictures are decoded, and what a scorer's previews are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoding {
    pub(crate) options: DecodeOptions,
    pub(crate) preview: Option<(usize, PreviewFilter)>,
}

/// The shards of the sources, by their hashes, and how each is read.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    found: HashMap<u64, (Shard, Arc<ReadOptions>)>,
    /// Names of files that are missing.
    missing: Vec<String>,
}

impl Shards {
    pub(crate) fn of(source: &Source) -> Result<Self> {
        let read = Arc::new(source.open()?);
        let (shards, missing) = source.list_present()?;
        let found = shards.into_iter().map(|shard| (shard.hash, (shard, Arc::clone(&read)))).collect();
        Ok(Self { found, missing })
    }

    /// Adds those of another source.
    pub(crate) fn extend(&mut self, other: Self) {
        self.found.extend(other.found);
        self.missing.extend(other.missing);
    }

    pub(crate) fn contains(&self, shard: u64) -> bool {
        self.found.contains_key(&shard)
    }

    /// Reads the samples, `[wanted]`. A shard that cannot be read costs its samples their pictures. Memory is that of
    /// one encoded picture for each thread, and of the thumbnails.
    pub(crate) fn read(&self, wanted: &[Wanted], decode: &Decoding) -> Vec<Seen> {
        let mut by_shard: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, Wanted { place, .. }) in wanted.iter().enumerate() {
            by_shard.entry(place.shard).or_default().push(at);
        }
        let shards: Vec<(u64, Vec<usize>)> = by_shard.into_iter().collect();
        let mut seen = vec![Seen::default(); wanted.len()];
        let read: Vec<Vec<(usize, Seen)>> =
            shards.par_iter().map(|(shard, own)| self.read_shard(*shard, own, wanted, decode)).collect();
        read.into_iter().flatten().for_each(|(at, one)| seen[at] = one);
        seen
    }

    fn read_shard(
        &self,
        shard: u64,
        own: &[usize],
        wanted: &[Wanted],
        decode: &Decoding,
    ) -> Vec<(usize, Seen)> {
        let mut found: BTreeMap<usize, Seen> = BTreeMap::new();
        let Some((shard, read)) = self.found.get(&shard) else {
            let why = || {
                let missing = match self.missing.first() {
                    Some(first) => {
                        format!("; of these {} are missing, the first is {first}", self.missing.len())
                    }
                    None => String::new(),
                };
                Some(format!("its shard is not among those that were given{missing}"))
            };
            return own.iter().map(|&at| (at, Seen { why: why(), ..Seen::default() })).collect();
        };
        let (mut scratch, mut scanned) = (Scratch::default(), None);
        let mut by_window: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        own.iter().for_each(|&at| by_window.entry(wanted[at].place.window).or_default().push(at));
        let mut by_index = || -> Result<bool> {
            for at in by_window.values_mut() {
                at.sort_by_key(|&at| wanted[at].place.row);
                let record = &wanted[at[0]].record;
                let Some(index) = &record.index else { return Ok(false) };
                let Some(mut fetcher) = ShardFetcher::open(shard, index, read, None)? else {
                    return Ok(false);
                };
                let rows: Vec<usize> = at.iter().map(|&at| wanted[at].place.row).collect();
                let mut next = at.iter();
                fetcher.fetch(index, &rows, &mut |_, group| {
                    if let Some(&at) = next.next() {
                        found.insert(
                            at,
                            seen(group, read, &wanted[at], decode, &mut scratch, || {
                                member(shard, &wanted[at], &mut scanned)
                            }),
                        );
                    }
                    Ok(())
                })?;
            }
            Ok(true)
        };
        let outcome = match by_index() {
            Ok(false) => in_order(shard, read, own, wanted, decode, &mut found),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        let why =
            outcome.err().map_or("it is not where the ledger says".to_owned(), |error| error.to_string());
        let of = |&at: &usize| {
            (at, found.remove(&at).unwrap_or_else(|| Seen { why: Some(why.clone()), ..Seen::default() }))
        };
        own.iter().map(of).collect()
    }
}

/// Reads a shard from its start, up to the last of the samples.
fn in_order(
    shard: &Shard,
    read: &ReadOptions,
    own: &[usize],
    wanted: &[Wanted],
    decode: &Decoding,
    found: &mut BTreeMap<usize, Seen>,
) -> Result<()> {
    let position = |at: usize| {
        let Wanted { place, record, .. } = &wanted[at];
        let first = record.index.as_ref().map(|index| index.first());
        first.unwrap_or_default() + place.row as u64
    };
    let mut open: BTreeMap<u64, usize> = own.iter().map(|&at| (position(at), at)).collect();
    let (mut reader, mut scratch) = (ShardReader::open(shard, read)?, Scratch::default());
    while !open.is_empty() {
        let Some(at) = open.remove(&reader.position()) else {
            if !reader.skip_group()? {
                return Ok(());
            }
            continue;
        };
        let Some(group) = reader.next_group()? else { return Ok(()) };
        found.insert(at, seen(group, read, &wanted[at], decode, &mut scratch, || None));
    }
    Ok(())
}

/// What is shown of a group; `image` gives the bytes of the image of one that failed, where they can be had.
fn seen(
    group: Group,
    read: &ReadOptions,
    wanted: &Wanted,
    decode: &Decoding,
    scratch: &mut Scratch,
    image: impl FnOnce() -> Option<Vec<u8>>,
) -> Seen {
    match group {
        Ok(sample) => of_sample(sample, read, wanted, decode, scratch),
        Err(failed) => {
            let tile = image().and_then(|bytes| thumbnail(&bytes, SIDE, &decode.options, scratch).ok());
            let size = tile.as_ref().map(|tile| tile.of);
            let why = Some(format!("{}: {}", failed.reason, failed.detail));
            Seen { tile: tile.map(|tile| tile.image), size, why, ..Seen::default() }
        }
    }
}

fn of_sample(
    sample: Sample,
    read: &ReadOptions,
    wanted: &Wanted,
    decode: &Decoding,
    scratch: &mut Scratch,
) -> Seen {
    let own = sample.captions.iter().filter(|other| **other != sample.caption);
    let mut others: Vec<(String, String)> = own.map(|text| (ANOTHER.to_owned(), text.clone())).collect();
    for (name, _) in read.captions.iter().flat_map(|tables| tables.iter()) {
        let tables = read.captions.iter().flat_map(|tables| tables.captions(name, &sample));
        others.extend(tables.map(|text| (name.to_string(), text)));
    }
    let scored = decode.preview.filter(|_| wanted.is_scored).and_then(|(size, filter)| {
        let mut out = vec![0; 3 * size * size];
        preview(&sample.image, size, filter, &decode.options, scratch, &mut out).ok().map(|()| out)
    });
    let seen = Seen { caption: Some(sample.caption), others, preview: scored, ..Seen::default() };
    match thumbnail(&sample.image, SIDE, &decode.options, scratch) {
        Ok(Thumbnail { image, of }) => Seen { tile: Some(image), size: Some(of), ..seen },
        Err(error) => Seen { why: Some(error.to_string()), ..seen },
    }
}

/// The image member of a sample that failed, of a local shard: the ledger does not say where it lies, so the headers of
/// the shard are scanned, once.
fn member(shard: &Shard, wanted: &Wanted, scanned: &mut Option<ShardIndex>) -> Option<Vec<u8>> {
    const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
    /// What is read of a sample that failed, at most.
    const MOST: u64 = 32 << 20;
    let own = wanted
        .record
        .index
        .as_ref()
        .filter(|index| index.is_random_access() && Path::new(&*shard.url).is_file())?;
    if scanned.is_none() {
        *scanned = ShardIndex::scan(shard).ok();
    }
    let row = (own.first() as usize).checked_add(wanted.place.row)?;
    let image = scanned.as_ref()?.members(row).find(|member| EXTENSIONS.contains(&member.extension))?;
    let length = image.range.end.checked_sub(image.range.start).filter(|&length| length <= MOST)?;
    let mut bytes = vec![0; length as usize];
    std::fs::File::open(&*shard.url).ok()?.read_exact_at(&mut bytes, image.range.start).ok()?;
    Some(bytes)
}
