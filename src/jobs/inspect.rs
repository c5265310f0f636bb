//! What shards hold, and what is wrong with them.
//!
//! Every shard is read once, several at a time; of images only the header, or all of them where
//! decoding is asked for.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, ErrorKind, FailReason, Result};
use crate::image::decode::check_size;
use crate::image::{DecodeOptions, ImageFormat, RgbImage, decode, probe};
use crate::jobs::checksums::{Checksums, Expected};
use crate::sample::{FailedSample, Sample, SampleId};
use crate::shard::{Listed, ReadOptions, Shard, ShardFormat, ShardMetadata, ShardReader, listed};

/// Failed samples that are named, per shard.
const NAMED: usize = 16;

/// How to look.
#[derive(Debug, Clone, Default)]
pub struct InspectJob {
    /// How samples are made of members.
    pub read: ReadOptions,
    /// What images may cost.
    pub limits: DecodeOptions,
    /// Whether to decode every image, which finds those that cannot be.
    pub decode: bool,
    /// Whether to compare the bytes of each image with the `sha256` in its json, or in the Parquet file beside its shard.
    pub checksums: bool,
}

/// What was found in all shards.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Groups of members, usable or not.
    pub groups: u64,
    /// Usable samples.
    pub samples: u64,
    /// Usable samples with different identities.
    pub distinct: u64,
    /// Bytes of the shards as they lie there; of local files.
    pub bytes: u64,
    /// Encoded bytes of images, per usable sample.
    pub image_bytes: Spread,
    /// Pixels in a row.
    pub width: Spread,
    /// Rows of pixels.
    pub height: Spread,
    /// Characters of captions.
    pub caption_chars: Spread,
    /// Images by format.
    pub image_formats: BTreeMap<ImageFormat, u64>,
    /// Shards by packing.
    pub shard_formats: BTreeMap<ShardFormat, u64>,
    /// Unusable samples by reason.
    pub failed: BTreeMap<FailReason, u64>,
    /// What became of the checksums, where they were asked for.
    pub checksums: Option<Checksums>,
    /// Everything that is wrong, in words, a kind each; none where nothing is. What a filter excludes is not wrong.
    pub faults: Vec<String>,
    /// Each shard, in the order of the list.
    pub shards: Vec<ShardInspection>,
}

impl Inspection {
    /// The error of one that has faults, where that is asked for.
    pub fn refused(&self) -> Error {
        let first = self.shards.iter().find_map(|shard| Some((shard, shard.failures.first()?)));
        let first = first.map(|(shard, fault)| {
            format!("; the first is {} of {}: {} ({})", fault.key, shard.url, fault.reason, fault.detail)
        });
        let found = format!("{}{}", self.faults.join(", "), first.unwrap_or_default());
        Error::format("shards that are inspected strictly", "no fault at all", found)
    }

    /// What is wrong, in words.
    fn all_faults(&self) -> Vec<String> {
        let faults = self.failed.iter().filter(|(reason, _)| reason.is_fault());
        let mut faults: Vec<String> = faults.map(|(reason, n)| format!("{n} {reason}")).collect();
        let mut shards = |what: &str, is: &dyn Fn(&ShardInspection) -> bool| {
            let n = self.shards.iter().filter(|shard| is(shard)).count();
            if n > 0 {
                faults.push(format!("{n} {} {what}", if n == 1 { "shard" } else { "shards" }));
            }
        };
        shards("that cannot be read", &|shard| shard.error.is_some());
        shards("not whole", &|shard| shard.error.is_none() && (shard.skipped_bytes > 0 || !shard.is_whole()));
        shards("without a usable sample", &ShardInspection::is_barren);
        let other = self.checksums.map_or(0, |checksums| checksums.different);
        if other > 0 {
            faults.push(format!(
                "{other} {} with another checksum",
                if other == 1 { "image" } else { "images" }
            ));
        }
        faults
    }
}

/// What was found in one shard.
#[derive(Debug, Clone, Serialize)]
pub struct ShardInspection {
    /// Where it is.
    pub url: Arc<str>,
    /// How it is packed; `None` where nothing of it could be read.
    pub format: Option<ShardFormat>,
    /// Why it could not be read, or not to its end: the loader would stop here.
    pub error: Option<String>,
    /// Groups of members, usable or not.
    pub groups: u64,
    /// Usable samples.
    pub samples: u64,
    /// Bytes skipped: after damaged tar headers, and behind the end marker.
    pub skipped_bytes: u64,
    /// Directories, links and devices: skipped.
    pub skipped_members: u64,
    /// Groups that a file beside the shard promises (`sizes.json` and the like).
    pub listed: Option<u64>,
    /// That file.
    pub listed_in: Option<String>,
    /// What it is: `sizes.json`, `_stats.json`, `.parquet` or `__len__`.
    pub listed_by: Option<&'static str>,
    /// The Parquet file beside it.
    pub metadata: Option<MetadataInspection>,
    /// Unusable samples by reason.
    pub failed: BTreeMap<FailReason, u64>,
    /// The first unusable samples.
    pub failures: Vec<Fault>,
    /// What became of the checksums, where they were asked for.
    pub checksums: Option<Checksums>,
    /// Keys of the first samples whose image has another checksum.
    pub different: Vec<Arc<str>>,
}

impl ShardInspection {
    /// Whether it could be read and has nothing to use: no samples, or only faulty ones.
    pub fn is_barren(&self) -> bool {
        let excluded = self.failed.get(&FailReason::Excluded).copied().unwrap_or_default();
        self.error.is_none() && self.samples == 0 && excluded == 0
    }

    /// Whether it is as long as the files beside it promise.
    pub fn is_whole(&self) -> bool {
        self.listed.is_none_or(|listed| listed == self.groups)
            && self.metadata.as_ref().is_none_or(|metadata| metadata.absent == 0)
    }
}

/// What the Parquet file beside a shard holds.
#[derive(Debug, Clone, Serialize)]
pub struct MetadataInspection {
    /// Where it is.
    pub file: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Samples that it names.
    pub samples: u64,
    /// Those of them that are not in the shard.
    pub absent: u64,
    /// The least key of these.
    pub first_absent: Option<String>,
}

impl MetadataInspection {
    fn of(metadata: &ShardMetadata, shard_hash: u64, seen: &HashSet<SampleId>) -> Self {
        // `./` before the names of members is no part of the keys of the file.
        let is_there = |key: &str| {
            ["", "./"]
                .iter()
                .any(|folder| seen.contains(&SampleId::new(shard_hash, &format!("{folder}{key}"))))
        };
        let absent = || metadata.keys().filter(|key| !is_there(key));
        Self {
            file: metadata.file().to_owned(),
            columns: metadata.columns().to_vec(),
            samples: metadata.len() as u64,
            absent: absent().count() as u64,
            first_absent: absent().min().map(str::to_owned),
        }
    }
}

/// An unusable sample.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Its key.
    pub key: Arc<str>,
    /// Byte offset of its first header in the decompressed shard.
    pub offset: u64,
    /// Why it cannot be used.
    pub reason: FailReason,
    /// What exactly was found.
    pub detail: String,
}

/// Least, median, greatest and mean of a number; all 0 of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Least.
    pub min: u64,
    /// The lower median.
    pub median: u64,
    /// Greatest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

impl Spread {
    fn of(mut values: Vec<u64>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable();
        let sum: u128 = values.iter().map(|&v| u128::from(v)).sum();
        Self {
            min: values[0],
            median: values[(values.len() - 1) / 2],
            max: values[values.len() - 1],
            mean: sum as f64 / values.len() as f64,
        }
    }
}

/// What one shard adds to the whole.
struct Part {
    shard: ShardInspection,
    bytes: u64,
    ids: Vec<SampleId>,
    image_bytes: Vec<u64>,
    width: Vec<u64>,
    height: Vec<u64>,
    caption_chars: Vec<u64>,
    image_formats: BTreeMap<ImageFormat, u64>,
}

/// Reads all of `shards`; `progress(done)` is called once for each. Memory: 40 bytes a
/// sample, and 100 per sample of a shard with a Parquet file beside it, of one shard per core.
///
/// What is wrong with single samples is counted. A shard that is missing, must not be read or is no
/// shard, or has a damaged Parquet file beside it, is named ([`ShardInspection::error`]).
///
/// # Errors
/// A store that fails otherwise; those of [`listed`].
pub fn inspect(shards: &[Shard], job: &InspectJob, progress: &(dyn Fn(usize) + Sync)) -> Result<Inspection> {
    let done = AtomicUsize::new(0);
    let listed = listed(shards)?;
    let parts: Vec<Part> = shards
        .par_iter()
        .zip(listed)
        .map(|(shard, listed)| {
            let part = one(shard, listed, job)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(part)
        })
        .collect::<Result<_>>()?;
    let distinct: HashSet<SampleId> = parts.iter().flat_map(|p| p.ids.iter().copied()).collect();
    let all = |of: fn(&Part) -> &Vec<u64>| Spread::of(parts.iter().flat_map(of).copied().collect());
    let mut whole = Inspection {
        groups: 0,
        samples: 0,
        distinct: distinct.len() as u64,
        bytes: 0,
        image_bytes: all(|p| &p.image_bytes),
        width: all(|p| &p.width),
        height: all(|p| &p.height),
        caption_chars: all(|p| &p.caption_chars),
        image_formats: BTreeMap::new(),
        shard_formats: BTreeMap::new(),
        failed: BTreeMap::new(),
        checksums: None,
        faults: vec![],
        shards: Vec::with_capacity(parts.len()),
    };
    for part in parts {
        whole.groups += part.shard.groups;
        whole.samples += part.shard.samples;
        whole.bytes += part.bytes;
        if let Some(format) = part.shard.format {
            *whole.shard_formats.entry(format).or_default() += 1;
        }
        part.image_formats.iter().for_each(|(&f, n)| *whole.image_formats.entry(f).or_default() += n);
        part.shard.failed.iter().for_each(|(&r, n)| *whole.failed.entry(r).or_default() += n);
        if let Some(checksums) = part.shard.checksums {
            whole.checksums.get_or_insert_default().add(checksums);
        }
        whole.shards.push(part.shard);
    }
    whole.faults = whole.all_faults();
    Ok(whole)
}

fn one(shard: &Shard, listed: Option<Listed>, job: &InspectJob) -> Result<Part> {
    let mut part = Part {
        shard: ShardInspection {
            url: Arc::clone(&shard.url),
            format: None,
            error: None,
            groups: 0,
            samples: 0,
            skipped_bytes: 0,
            skipped_members: 0,
            listed: listed.as_ref().map(|listed| listed.samples),
            listed_by: listed.as_ref().map(|listed| listed.kind),
            listed_in: listed.map(|listed| listed.file),
            metadata: None,
            failed: BTreeMap::new(),
            failures: vec![],
            checksums: job.checksums.then(Checksums::default),
            different: vec![],
        },
        // Only files have a size that is known without asking.
        bytes: std::fs::metadata(&*shard.url).map_or(0, |meta| meta.len()),
        ids: vec![],
        image_bytes: vec![],
        width: vec![],
        height: vec![],
        caption_chars: vec![],
        image_formats: BTreeMap::new(),
    };
    match part.read(shard, job) {
        Err(error) if is_of_shard(&error) => {
            // Which shard it is stands beside it.
            part.shard.error = Some(Error { shard: None, ..error }.to_string());
            part.shard.format = part.shard.format.filter(|_| part.shard.groups > 0);
        }
        read => read?,
    }
    Ok(part)
}

/// Whether the next shard may be read where this one was not.
fn is_of_shard(error: &Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    match &error.kind {
        ErrorKind::Shard { .. } | ErrorKind::Format { .. } => true,
        ErrorKind::Io { source, .. } => matches!(source.kind(), NotFound | PermissionDenied | IsADirectory),
        _ => false,
    }
}

impl Part {
    fn read(&mut self, shard: &Shard, job: &InspectJob) -> Result<()> {
        let mut reader = ShardReader::open(shard, &job.read)?;
        self.shard.format = Some(reader.format());
        let mut image = RgbImage::default();
        let (mut seen, mut apart) = (HashSet::new(), HashSet::new());
        let expected = if job.checksums { Some(Expected::beside(shard)?) } else { None };
        while let Some(group) = reader.next_group()? {
            reader.take_gaps().say(&shard.url);
            self.shard.groups += 1;
            seen.insert(group.as_ref().map_or_else(|failed| failed.id, |sample| sample.id));
            let failed = match group {
                Ok(sample) => {
                    if let Some(expected) = &expected {
                        self.compare(expected, &sample);
                    }
                    match self.look_at(&sample, job, &mut image) {
                        Ok(()) => continue,
                        Err(error) => sample.failed(error.reason, error.detail),
                    }
                }
                Err(failed) => failed,
            };
            if failed.reason == FailReason::MembersApart {
                apart.insert(Arc::clone(&failed.key));
            }
            *self.shard.failed.entry(failed.reason).or_default() += 1;
            if self.shard.failures.len() < NAMED && failed.reason.is_fault() {
                let FailedSample { key, offset, reason, detail, .. } = failed;
                self.shard.failures.push(Fault { key, offset, reason, detail });
            }
        }
        reader.say_absent();
        // What the first part of a sample lacks is there, but elsewhere.
        for fault in &mut self.shard.failures {
            let lacks = matches!(fault.reason, FailReason::MissingImage | FailReason::MissingCaption);
            if lacks && apart.contains(&fault.key) {
                fault.detail.push_str("; others with its key come later in the shard: they are not adjacent");
            }
        }
        self.shard.skipped_bytes = reader.skipped_bytes();
        self.shard.skipped_members = reader.skipped_members();
        self.shard.metadata = ShardMetadata::beside(shard, &[])?
            .map(|metadata| MetadataInspection::of(&metadata, shard.hash, &seen));
        Ok(())
    }

    /// Compares the bytes of the image with the checksum that the corpus has for it.
    fn compare(&mut self, expected: &Expected, sample: &Sample) {
        let same = expected.compare(sample);
        self.shard.checksums.get_or_insert_default().count(same);
        if same == Some(false) && self.shard.different.len() < NAMED {
            self.shard.different.push(Arc::clone(&sample.key));
        }
    }

    fn look_at(
        &mut self,
        sample: &Sample,
        job: &InspectJob,
        image: &mut RgbImage,
    ) -> Result<(), crate::image::ImageError> {
        let header = probe(&sample.image)?;
        check_size(header.width.into(), header.height.into(), &job.limits)?;
        if job.decode {
            decode(&sample.image, &job.limits, image)?;
        }
        self.shard.samples += 1;
        self.ids.push(sample.id);
        self.image_bytes.push(sample.image.len() as u64);
        self.width.push(header.width.into());
        self.height.push(header.height.into());
        self.caption_chars.push(sample.caption.chars().count() as u64);
        *self.image_formats.entry(header.format).or_default() += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_its_values() {
        assert_eq!(Spread::of(vec![]), Spread::default());
        assert_eq!(Spread::of(vec![7]), Spread { min: 7, median: 7, max: 7, mean: 7.0 });
        assert_eq!(Spread::of(vec![9, 1, 2, 4]), Spread { min: 1, median: 2, max: 9, mean: 4.0 });
    }
}
