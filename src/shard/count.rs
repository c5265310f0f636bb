//! How many samples of each shard count: those that filter and subset let pass, and of these those whose score passes.
//!
//! A function of the shards, their lengths and the reading options, so that every rank finds the same. A ledger is never
//! asked: what it holds differs from run to run.

use crate::error::Result;
use crate::shard::location::Location;
use crate::shard::scan::each;
use crate::shard::survey::{of_metadata, survey};
use crate::shard::{ReadOptions, Shard, ShardReader};

/// Remote shards without a Parquet file that are read through to count their samples, at most: where there are more,
/// all of these are estimated.
const REMOTE_SHARDS: usize = 64;

/// Entries of a subset that should have been met, if all are in the corpus, before it counts that none was:
/// chance leaves none with a probability of e^-20.
const SURE_TO_MEET: f64 = 20.0;

/// Samples of a shard that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// Those that filter and subset let pass, usable or not.
    pub(crate) included: u64,
    /// Of these, those whose score passes; as many where no score is asked for.
    pub(crate) candidates: u64,
    /// Whether both are estimates.
    pub(crate) is_estimated: bool,
}

/// Whether a score passes.
pub(crate) type Passes<'a> = &'a (dyn Fn(f32) -> bool + Sync);

/// The samples of each of `shards`, which have so many as `lengths` says, that `read` lets pass and whose score `passes`.
/// The first of these that there is counts a shard, or the scan where `exact`:
///
/// 1. the subset, where it says in which shards its entries are and nothing else is asked for;
/// 2. the Parquet file beside the shard, where that has every column that is asked for and as many samples as the shard;
/// 3. a scan of its metadata: of a plain local file the json is read and nothing else, or where keys tell, the headers;
///    other shards are read through;
/// 4. where `exact` is false and more than 64 remote shards would have to be read through, the share that a
///    [`survey`] finds in 16 shards, of these.
///
/// `progress(done, of)` is called once per shard scanned.
///
/// # Errors
/// As [`ShardReader`] and [`ShardMetadata`](crate::shard::ShardMetadata).
pub(crate) fn count(
    shards: &[Shard],
    lengths: &[u64],
    read: &ReadOptions,
    passes: Passes<'_>,
    exact: bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Count>> {
    let read = of_selection(read);
    let all: Vec<usize> = (0..shards.len()).collect();
    let of_file = |i: usize| match by_list(&shards[i], lengths[i], &read) {
        Some(count) => Ok(Some(count)),
        None => by_metadata(&shards[i], lengths[i], &read, passes),
    };
    // Where nothing makes up for a count that is off, only reading tells: files beside shards may say something else.
    let asked: &[usize] = if exact { &[] } else { &all };
    let mut counts: Vec<Option<Count>> = each(shards, asked, &of_file, &mut |_, _| {})?;
    counts.resize(shards.len(), None);
    let unknown = |remote: bool| -> Vec<usize> {
        let is_remote = |i: usize| shards[i].location != Location::Local;
        all.iter().copied().filter(|&i| counts[i].is_none() && is_remote(i) == remote).collect()
    };
    let (mut scanned, remote) = (unknown(false), unknown(true));
    if exact || remote.len() <= REMOTE_SHARDS {
        scanned.extend(remote);
        scanned.sort_unstable();
    } else {
        estimate(&remote, shards, lengths, &read, passes, &mut counts)?;
    }
    if !scanned.is_empty() {
        tracing::info!(
            shards = scanned.len(),
            of = shards.len(),
            "the metadata of these shards is read once, to count the samples that pass {}: no Parquet file beside \
             them tells",
            counted_by(&read)
        );
        let found = each(shards, &scanned, &|i| by_scan(&shards[i], &read, passes), progress)?;
        scanned.into_iter().zip(found).for_each(|(i, count)| counts[i] = Some(count));
    }
    // Every shard is known, was scanned or estimated.
    Ok(counts.into_iter().map(Option::unwrap_or_default).collect())
}

/// What of `read` says which samples count.
pub(crate) fn of_selection(read: &ReadOptions) -> ReadOptions {
    ReadOptions { caption_key: None, caption_choice: None, captions: None, fields: [].into(), ..read.clone() }
}

/// What says which samples count, in words.
fn counted_by(read: &ReadOptions) -> String {
    let by = read.excluded_by();
    match &read.score_field {
        Some(key) if by.is_empty() => format!("the gate of {key:?}"),
        Some(key) => format!("{by} or the gate of {key:?}"),
        None => by,
    }
}

impl Count {
    fn add(&mut self, passes: bool) {
        self.included += 1;
        self.candidates += u64::from(passes);
    }
}

fn by_list(shard: &Shard, length: u64, read: &ReadOptions) -> Option<Count> {
    let subset = read
        .subset
        .as_ref()
        .filter(|_| read.filter.is_none() && read.score_field.is_none() && read.share.is_none())?;
    let included = subset.in_shard(shard.hash)?.min(length);
    Some(Count { included, candidates: included, is_estimated: false })
}

fn by_metadata(shard: &Shard, length: u64, read: &ReadOptions, passes: Passes<'_>) -> Result<Option<Count>> {
    let mut count = Count::default();
    let metadata = of_metadata(shard, read, &mut |score| count.add(passes(score)))?;
    Ok(metadata.filter(|metadata| metadata.len() as u64 == length).map(|_| count))
}

fn by_scan(shard: &Shard, read: &ReadOptions, passes: Passes<'_>) -> Result<Count> {
    let mut count = Count::default();
    let mut reader = ShardReader::open(shard, read)?.only_json();
    while let Some(standing) = reader.next_standing()? {
        if standing.counts {
            count.add(passes(standing.score));
        }
        // Of the shard's index nothing is wanted.
        if reader.position().is_multiple_of(4096) {
            reader.take_index();
        }
    }
    Ok(count)
}

/// Estimates the `remote` ones.
fn estimate(
    remote: &[usize],
    shards: &[Shard],
    lengths: &[u64],
    read: &ReadOptions,
    passes: Passes<'_>,
    counts: &mut [Option<Count>],
) -> Result<()> {
    let own: Vec<Shard> = remote.iter().map(|&i| shards[i].clone()).collect();
    let of: Vec<u64> = remote.iter().map(|&i| lengths[i]).collect();
    let found = survey(&own, &of, read)?;
    let passing = match read.score_field {
        Some(_) => found.scores.iter().filter(|score| passes(**score)).count() as f64,
        None => found.included as f64,
    };
    let samples: u64 = of.iter().sum();
    let share = |n: f64| n / found.looked_at.max(1) as f64;
    let (mut included, mut candidates) = (found.share(), share(passing));
    if let Some(subset) = read.subset.as_ref().filter(|_| found.included == 0) {
        // At most as many as it has entries can be there, and so few that none was met.
        let most = (subset.len() as u64).min(samples) as f64 / samples.max(1) as f64;
        if most * found.looked_at as f64 <= SURE_TO_MEET {
            (included, candidates) = (most, most);
        }
    }
    tracing::warn!(
        "{} remote shards have no Parquet file beside them that tells which samples pass {}, and are too many to be \
         read through for it: their number is estimated from {} samples, and lanes may run short; write such files, or \
         use a plan",
        remote.len(),
        counted_by(read),
        found.looked_at
    );
    for (&i, &length) in remote.iter().zip(&of) {
        let share = |share: f64| (share * length as f64).round() as u64;
        counts[i] =
            Some(Count { included: share(included), candidates: share(candidates), is_estimated: true });
    }
    Ok(())
}
