//! Number of groups in each shard: from the small files that lie beside shards, or from a scan.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::json::Fields;
use crate::shard::beside::Sidecar;
use crate::shard::list::count_beside;
use crate::shard::metadata::{successes, warn_of_skipped};
use crate::shard::scan::each;
use crate::shard::{ReadOptions, Shard, ShardReader};

/// Names of the files that say lengths; before the second comes the name of the shard.
const SIZES: &str = "sizes.json";
const STATS: &str = "_stats.json";
const LEN: &str = "__len__";

/// Empty shards that a warning names.
const NAMED: usize = 16;

/// The number of groups in a shard by a file beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Groups.
    pub samples: u64,
    /// Path or URL of the file.
    pub file: String,
    /// What the file is: `sizes.json`, `_stats.json`, `.parquet` or `__len__`.
    pub kind: &'static str,
}

/// Number of groups in each of `shards`, unusable ones included. The first of these that is there
/// is believed:
///
/// 1. `sizes.json` in the shard's folder, `{"00000.tar": 1234}`, where it names the shard;
/// 2. `00000_stats.json` beside it, as img2dataset writes it: its `successes`, unless 0;
/// 3. `00000.parquet` beside it, as img2dataset writes it: its rows with the status `success`, unless
///    there are none;
/// 4. `__len__` in its folder, one number for the whole folder, where the shard is the only one
///    there (not asked of HTTP servers, whose folders cannot be listed);
/// 5. a scan: the footer of a Parquet file; header by header where the shard is a plain local tar file, else it is read and decompressed
///    whole; one shard per core at a time, or 8 where some are remote.
///
/// `progress(done, of)` is called, on this thread, once per shard scanned.
///
/// A `_stats.json` or `.parquet` that is damaged is skipped with a warning. Shards that hold no samples are named in
/// a warning.
///
/// # Errors
/// A file of these that cannot be read; a `sizes.json` or `__len__` that holds something else; a
/// `sizes.json` that says 0 (leave
/// empty shards out of the list); as [`ShardReader`] for shards that are scanned.
pub fn lengths(shards: &[Shard], progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<u64>> {
    let mut known: Vec<Option<u64>> =
        listed(shards)?.into_iter().map(|listed| listed.map(|listed| listed.samples)).collect();
    scan_rest(shards, &mut known, progress)?;
    // Every shard is known or was scanned.
    let lengths: Vec<u64> = known.into_iter().map(Option::unwrap_or_default).collect();
    warn_of_empty(shards, &lengths);
    Ok(lengths)
}

/// As [`lengths`], of the files beside `shards` only, and which told; `None` where none of them does.
///
/// # Errors
/// As [`lengths`], without scans.
pub fn listed(shards: &[Shard]) -> Result<Vec<Option<Listed>>> {
    let mut known = vec![None; shards.len()];
    of_sizes(shards, &mut known)?;
    of_stats(shards, &mut known)?;
    of_metadata(shards, &mut known)?;
    of_folders(shards, &mut known)?;
    Ok(known)
}

/// Numbers of the shards of each folder, in order of first appearance.
fn folders(shards: &[Shard]) -> Vec<Vec<usize>> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut folders: Vec<Vec<usize>> = vec![];
    for (i, shard) in shards.iter().enumerate() {
        let folder = shard.url.rsplit_once('/').map_or("", |(folder, _)| folder);
        let number = *numbers.entry(folder).or_insert(folders.len());
        if number == folders.len() {
            folders.push(vec![]);
        }
        folders[number].push(i);
    }
    folders
}

fn of_sizes(shards: &[Shard], known: &mut [Option<Listed>]) -> Result<()> {
    let folders = folders(shards);
    let files: Vec<Sidecar> =
        folders.iter().map(|members| Sidecar::beside(&shards[members[0]], SIZES)).collect::<Result<_>>()?;
    for ((members, file), content) in folders.iter().zip(&files).zip(Sidecar::read(&files)?) {
        let Some(content) = content else { continue };
        let expected = "a map of shard names to numbers of samples, like {\"00000.tar\": 1234}";
        let names: HashSet<&str> = members.iter().map(|&i| &*shards[i].path).collect();
        let sizes = Fields::read(&content, |name| names.contains(name))
            .map_err(|error| Error::format(file.name(), expected, error))?;
        for &i in members {
            if sizes.is_nan(&shards[i].path) {
                let file = file.name();
                tracing::warn!("{file}: NaN for {} is no number; its samples are counted", shards[i].path);
            }
            let size = match sizes.value(&shards[i].path) {
                Some(size) => Some(size.as_u64().ok_or_else(|| {
                    let found = format!("{size} for {}", shards[i].path);
                    Error::format(file.name(), expected, found).in_shard(&shards[i].url)
                })?),
                None => None,
            };
            if size == Some(0) {
                let expected =
                    format!("at least 1 for {}; leave empty shards out of the list", shards[i].path);
                return Err(Error::format(file.name(), expected, 0).in_shard(&shards[i].url));
            }
            known[i] = size.map(|samples| Listed { samples, file: file.name(), kind: SIZES });
        }
    }
    Ok(())
}

/// Shards of no known length that img2dataset may have written files beside. A Parquet file says itself how many rows
/// it has.
fn unknown_tars(shards: &[Shard], known: &[Option<Listed>]) -> Vec<usize> {
    (0..shards.len()).filter(|&i| known[i].is_none() && !shards[i].has_rows()).collect()
}

fn of_stats(shards: &[Shard], known: &mut [Option<Listed>]) -> Result<()> {
    let unknown = unknown_tars(shards, known);
    let mut files = Vec::with_capacity(unknown.len());
    for &i in &unknown {
        files.push(Sidecar::beside(&shards[i], &format!("{}{STATS}", shards[i].stem()))?);
    }
    for ((&i, file), content) in unknown.iter().zip(&files).zip(Sidecar::read(&files)?) {
        let Some(content) = content else { continue };
        let stats = match Fields::read(&content, |name| name == "successes") {
            Ok(stats) => stats,
            Err(error) => {
                let expected = "json, as img2dataset writes it";
                warn_of_skipped(&Error::format(file.name(), expected, error));
                continue;
            }
        };
        let samples = stats.value("successes").and_then(serde_json::Value::as_u64).filter(|&n| n > 0);
        known[i] = samples.map(|samples| Listed { samples, file: file.name(), kind: STATS });
    }
    Ok(())
}

fn of_metadata(shards: &[Shard], known: &mut [Option<Listed>]) -> Result<()> {
    let unknown = unknown_tars(shards, known);
    let files: Vec<&Shard> = unknown.iter().map(|&i| &shards[i]).collect();
    for (&i, found) in unknown.iter().zip(successes(&files)?) {
        known[i] = found.map(|(samples, file)| Listed { samples, file, kind: ".parquet" });
    }
    Ok(())
}

fn of_folders(shards: &[Shard], known: &mut [Option<Listed>]) -> Result<()> {
    let alone: Vec<usize> = folders(shards)
        .into_iter()
        .filter_map(|members| if let [only] = members[..] { Some(only) } else { None })
        .filter(|&i| known[i].is_none())
        .collect();
    let files: Vec<Sidecar> =
        alone.iter().map(|&i| Sidecar::beside(&shards[i], LEN)).collect::<Result<_>>()?;
    for ((&i, file), content) in alone.iter().zip(&files).zip(Sidecar::read(&files)?) {
        let Some(content) = content else { continue };
        if count_beside(&shards[i])? != Some(1) {
            continue;
        }
        let text = String::from_utf8_lossy(&content);
        let length = text.trim_start_matches('\u{feff}').trim().parse().ok().filter(|&n: &u64| n > 0);
        let wrong = || Error::format(file.name(), "the number of samples in its folder", format!("{text:?}"));
        known[i] = Some(Listed { samples: length.ok_or_else(wrong)?, file: file.name(), kind: LEN });
    }
    Ok(())
}

/// Scans what is not known, several shards at a time.
fn scan_rest(
    shards: &[Shard],
    known: &mut [Option<u64>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let unknown: Vec<usize> = (0..shards.len()).filter(|&i| known[i].is_none()).collect();
    let found = each(shards, &unknown, &|i| scan(&shards[i]), progress)?;
    unknown.into_iter().zip(found).for_each(|(i, length)| known[i] = Some(length));
    Ok(())
}

fn scan(shard: &Shard) -> Result<u64> {
    let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
    while reader.skip_group()? {}
    Ok(reader.position())
}

/// Names the shards that hold no samples in one warning.
fn warn_of_empty(shards: &[Shard], lengths: &[u64]) {
    let mut empty = shards.iter().zip(lengths).filter(|(_, length)| **length == 0).map(|(s, _)| &*s.url);
    let named: Vec<&str> = empty.by_ref().take(NAMED).collect();
    if named.is_empty() {
        return;
    }
    let (more, of) = (empty.count(), shards.len());
    let (n, named) = (named.len() + more, named.join(", "));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    tracing::warn!(
        "{n} of {of} shards hold no samples: {named}{more}; they may be cut, or zeros: write them again, or leave \
         them out of the list"
    );
}
