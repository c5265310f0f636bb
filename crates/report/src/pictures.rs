//! Reads chosen samples from their shards, by index where that is possible, and makes thumbnails of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use tldr_loader::config::Source;
use tldr_loader::image::{DecodeOptions, RgbImage, Scratch, Thumbnail, preview, thumbnail};
use tldr_loader::ledger::WindowRecord;
use tldr_loader::loader::Moment;
use tldr_loader::model::PreviewFilter;
use tldr_loader::shard::{CaptionChoice, Group, ReadOptions, ShardFetcher, ShardReader, reread};
use tldr_loader::{Error, FailReason, Result, Sample, Shard};

use crate::draw::Place;
use crate::gather::Excludes;

/// Longest side of a tile, in pixels.
pub(crate) const SIDE: usize = 96;

/// What another caption of the sample itself is called.
pub(crate) const ANOTHER: &str = "another";

/// Why there is no picture of a sample that the shard does not have.
const GONE: &str = "it is not where the ledger says";

/// What was read of a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// Its picture, small.
    pub(crate) tile: Option<RgbImage>,
    /// Width and height of its picture.
    pub(crate) size: Option<(usize, usize)>,
    /// Its original caption; of several the first.
    pub(crate) caption: Option<String>,
    /// The one that epoch 0 has.
    pub(crate) original: Option<String>,
    /// Its other captions, where it has several.
    pub(crate) others: Vec<(String, String)>,
    /// By table, the caption that epoch 0 has.
    pub(crate) of_tables: BTreeMap<String, String>,
    /// What excludes it.
    pub(crate) condition: Option<String>,
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
    /// Seed of the loader, by which captions are drawn.
    pub(crate) seed: u64,
    pub(crate) preview: Option<(usize, PreviewFilter)>,
}

/// How the shards of a source are read.
#[derive(Debug)]
struct Reading {
    options: ReadOptions,
    /// The same where nothing is excluded.
    whole: ReadOptions,
    /// What excludes samples, in words.
    filter: Option<String>,
    subset: Option<String>,
}

/// The shards of the sources, by their hashes, and how each is read.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    found: HashMap<u64, (Shard, Arc<Reading>)>,
    /// Names of files that are missing.
    missing: Vec<String>,
}

impl Shards {
    pub(crate) fn of(source: &Source) -> Result<Self> {
        let options = source.open()?;
        let whole = ReadOptions { filter: None, subset: None, share: None, ..options.clone() };
        let filter = source.filter.as_ref().map(|filter| format!("where {filter}"));
        let subset = source.subset.as_ref().map(|path| format!("not in the subset {}", path.display()));
        let reading = Arc::new(Reading { options, whole, filter, subset });
        let (shards, missing) = source.list_present()?;
        let found = shards.into_iter().map(|shard| (shard.hash, (shard, Arc::clone(&reading)))).collect();
        Ok(Self { found, missing })
    }

    /// How one of several captions is chosen, by shard.
    pub(crate) fn choices(&self) -> impl Iterator<Item = Option<CaptionChoice>> + '_ {
        self.found.values().map(|(_, reading)| reading.options.caption_choice)
    }

    /// What excludes a sample of a shard, in words; `None` where that is not known.
    pub(crate) fn condition(&self, shard: u64, by: Excludes) -> Option<&str> {
        let (_, reading) = self.found.get(&shard)?;
        match by {
            Excludes::Filter => reading.filter.as_deref(),
            Excludes::Subset => reading.subset.as_deref(),
        }
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
        let Some((shard, reading)) = self.found.get(&shard) else {
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
        let (read, mut scratch) = (&reading.options, Scratch::default());
        // The ledger says where the members of usable samples are, and of others where they start.
        let (usable, others): (Vec<usize>, Vec<usize>) =
            own.iter().partition(|&&at| wanted[at].record.failed[wanted[at].place.row].is_none());
        for at in others {
            let one = unusable(shard, reading, &wanted[at], decode, &mut scratch);
            let why = |error: Error| Seen { why: Some(error.to_string()), ..Seen::default() };
            found.insert(at, one.unwrap_or_else(why));
        }
        let mut by_window: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        usable.iter().for_each(|&at| by_window.entry(wanted[at].place.window).or_default().push(at));
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
                        found.insert(at, seen(group, read, &wanted[at], decode, &mut scratch));
                    }
                    Ok(())
                })?;
            }
            Ok(true)
        };
        let outcome = match by_index() {
            Ok(false) => in_order(shard, read, &usable, wanted, decode, &mut found),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        let why = outcome.err().map_or(GONE.to_owned(), |error| error.to_string());
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
        found.insert(at, seen(group, read, &wanted[at], decode, &mut scratch));
    }
    Ok(())
}

/// What is shown of a group.
fn seen(group: Group, read: &ReadOptions, wanted: &Wanted, decode: &Decoding, scratch: &mut Scratch) -> Seen {
    match group {
        Ok(sample) => of_sample(sample, read, wanted, decode, scratch),
        Err(failed) => Seen { why: Some(format!("{}: {}", failed.reason, failed.detail)), ..Seen::default() },
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
    let moment = Moment::new(decode.seed, 0, sample.id);
    let tables = read.captions.iter().flat_map(|tables| tables.iter());
    let of_tables =
        tables.filter_map(|(name, _)| Some((name.to_string(), moment.caption_of(read, name, &sample)?)));
    let seen = Seen {
        of_tables: of_tables.collect(),
        original: moment.caption(sample.captions).or_else(|| Some(sample.caption.clone())),
        caption: Some(sample.caption),
        others,
        preview: scored,
        ..Seen::default()
    };
    match thumbnail(&sample.image, SIDE, &decode.options, scratch) {
        Ok(Thumbnail { image, of }) => Seen { tile: Some(image), size: Some(of), ..seen },
        Err(error) => Seen { why: Some(error.to_string()), ..seen },
    }
}

/// What is shown of a sample that failed or is excluded: it is read again by itself. Its image may be sound where its
/// caption is not.
///
/// # Errors
/// The shard cannot be read.
fn unusable(
    shard: &Shard,
    reading: &Reading,
    wanted: &Wanted,
    decode: &Decoding,
    scratch: &mut Scratch,
) -> Result<Seen> {
    let row = wanted.place.row;
    let read = |options| match &wanted.record.index {
        Some(index) => reread(shard, index, row, options),
        None => Ok(None),
    };
    let Some(again) = read(&reading.options)? else {
        return Ok(Seen { why: Some(GONE.into()), ..Seen::default() });
    };
    let failed = match again.group {
        // What it failed by is not seen in itself: a repeated key.
        Ok(sample) => return Ok(of_sample(sample, &reading.options, wanted, decode, scratch)),
        Err(failed) => failed,
    };
    let tile = again.image.and_then(|image| thumbnail(&image, SIDE, &decode.options, scratch).ok());
    let size = tile.as_ref().map(|tile| tile.of);
    let found = Seen { tile: tile.map(|tile| tile.image), size, ..Seen::default() };
    if failed.reason != FailReason::Excluded {
        return Ok(found);
    }
    let whole = read(&reading.whole)?.and_then(|again| again.group.ok());
    let caption = whole.map(|sample| sample.caption);
    Ok(Seen { caption, condition: Some(failed.detail).filter(|detail| !detail.is_empty()), ..found })
}
