//! A look into a corpus, before it is read: which share of it counts, and what scores it has.
//!
//! A function of the shards, their lengths and the reading options, so that every rank finds the same.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::Result;
use crate::hash::{self, Purpose};
use crate::json::Fields;
use crate::sample::SampleId;
use crate::shard::caption::{OUTSIDE, score};
use crate::shard::join::{JoinBy, Names, UID, of_uid, of_uid_value};
use crate::shard::{Filter, ReadOptions, Shard, ShardMetadata, ShardReader};

/// Stretches of consecutive groups that are looked at.
const STRETCHES: usize = 16;

/// Groups of a stretch where only a share is to be known, and where scores are: 16 of them tell a pass
/// rate of a half with a standard deviation of 0.4%.
const GROUPS: u64 = 256;
const SCORED_GROUPS: u64 = 1024;

/// Names of fields that are told of.
const NAMED_FIELDS: usize = 32;

/// What a look into a corpus found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// Groups that were looked at.
    pub looked_at: u64,
    /// Of these, those that filter and subset let pass.
    pub included: u64,
    /// Scores of the usable ones among them, not a number where there is none; empty where no score was
    /// asked for.
    pub scores: Vec<f32>,
    /// Names of the fields that were there, sorted, 32 at most.
    pub fields: Vec<String>,
    /// Groups that the subset names.
    pub in_subset: u64,
    /// Groups whose captions or scores may come from tables.
    pub joinable: u64,
    /// Of these, those that each table of captions has, in the order of their names.
    pub in_captions: Vec<u64>,
    /// Of these, those that each table of scores has.
    pub in_scores: Vec<u64>,
    /// What the first group is called.
    pub example: Option<Example>,
}

/// What a sample is called, for those who wonder why a table does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its key.
    pub key: String,
    /// Its identity.
    pub id: SampleId,
    /// Its uid; `None` where it has none, or nobody asked for it.
    pub uid: Option<String>,
}

impl Example {
    /// What it is called in the column that a table is joined by.
    pub fn name(&self, by: JoinBy) -> Option<String> {
        match by {
            JoinBy::Key => Some(self.key.clone()),
            JoinBy::Uid => self.uid.clone(),
            // As `export` writes it.
            JoinBy::Id => Some((self.id.0 as i64).to_string()),
        }
    }
}

impl Survey {
    /// Share of the samples that count; of p, it has a standard deviation of about
    /// sqrt(p (1 - p) / looked at), and more where shards differ.
    pub fn share(&self) -> f64 {
        self.included as f64 / self.looked_at.max(1) as f64
    }

    /// Whether a sample had a score.
    pub fn has_scores(&self) -> bool {
        self.scores.iter().any(|score| !score.is_nan())
    }
}

/// Looks at 16 shards, chosen by hash, or into all where there are fewer. Where the Parquet file beside one
/// has all columns that `read` asks for, that is read, and nothing else; else groups of the shard: 256 of each, and
/// 1,024 where `read` has a `score_field`, from its start, or in several stretches where shards are fewer than 16. Images
/// are skipped, which a plain local file is not read for.
///
/// # Errors
/// As [`ShardReader`] and [`ShardMetadata`].
pub fn survey(shards: &[Shard], lengths: &[u64], read: &ReadOptions) -> Result<Survey> {
    survey_of(shards.iter().zip(lengths).map(|(shard, &length)| (shard, length, read)))
}

/// As [`survey`], of shards with their lengths that are read in different ways; of all, scores are asked for or of none.
///
/// # Errors
/// As [`survey`].
pub(crate) fn survey_of<'a>(
    corpus: impl Iterator<Item = (&'a Shard, u64, &'a ReadOptions)>,
) -> Result<Survey> {
    let mut chosen: Vec<(&Shard, u64, &ReadOptions)> = corpus.collect();
    chosen.sort_unstable_by_key(|(shard, ..)| shard.hash);
    chosen.truncate(STRETCHES);
    let mut found = Survey::default();
    let mut fields = BTreeSet::new();
    let stretches = STRETCHES.div_ceil(chosen.len().max(1)) as u64;
    for (shard, length, read) in chosen {
        fields.extend(read.scores.iter().flat_map(|scores| scores.columns()).map(|name| name.to_string()));
        found.in_captions.resize(read.captions.as_ref().map_or(0, |tables| tables.iter().count()), 0);
        found.in_scores.resize(read.scores.as_ref().map_or(0, |scores| scores.tables().len()), 0);
        let of_file = of_metadata(shard, read, &mut |score| {
            found.included += 1;
            if read.score_field.is_some() {
                found.scores.push(score);
            }
        })?;
        match of_file {
            Some(metadata) => {
                found.looked_at += metadata.len() as u64;
                fields.extend(metadata.columns().iter().cloned());
                of_tables(&metadata, shard, read, &mut found);
            }
            None => of_groups(shard, length, stretches, read, &mut found, &mut fields)?,
        }
    }
    found.fields = fields.into_iter().take(NAMED_FIELDS).collect();
    Ok(found)
}

/// Hands the score of every sample that the Parquet file beside `shard` names, and that filter and subset let pass, to
/// `each`, not a number where there is none; `None` where no file says all that `read` asks for.
///
/// # Errors
/// As [`ShardMetadata`].
pub(super) fn of_metadata(
    shard: &Shard,
    read: &ReadOptions,
    each: &mut dyn FnMut(f32),
) -> Result<Option<ShardMetadata>> {
    let filter = read.filter.as_ref();
    let subset = read.subset.as_deref();
    let in_table = |name: &str| read.scores.as_ref().and_then(|scores| scores.column(name));
    let of_filter = filter.map_or(&[][..], Filter::columns).iter().map(String::as_str);
    let asked = of_filter.chain(read.score_field.as_deref()).filter(|name| in_table(name).is_none());
    let columns: Vec<&str> = asked.chain(read.needs_uid().then_some(UID)).collect();
    let Some(metadata) = ShardMetadata::beside(shard, &columns)? else { return Ok(None) };
    if !columns.iter().all(|column| metadata.columns().iter().any(|own| own == column)) {
        return Ok(None);
    }
    let mut rows = vec![];
    for key in metadata.keys() {
        // Nobody asks what a sample may be called where nothing is joined.
        let names =
            if read.scores.is_some() || subset.is_some() { &names(&metadata, shard, key)[..] } else { &[] };
        if let Some(scores) = &read.scores {
            names.iter().find(|names| {
                scores.find(names, &mut rows);
                rows.iter().any(Option::is_some)
            });
        }
        let value = |column: &str| match read.scores.as_ref().and_then(|s| Some((s, s.column(column)?))) {
            Some((scores, at)) => scores.value(at, &rows).unwrap_or_default(),
            None => metadata.value(key, column).cloned().unwrap_or_default(),
        };
        let is_inside = subset.is_none_or(|subset| is_in(names, subset.by(), |hash| subset.contains(hash)));
        let passes = |filter: &Filter| {
            filter.passes(&filter.columns().iter().map(|column| value(column)).collect::<Vec<_>>())
        };
        let is_held = read.share.is_none_or(|share| share.contains(SampleId::new(shard.hash, key)));
        if is_held && is_inside && filter.is_none_or(passes) {
            let of_field = |field: &str| match read.scores.as_ref().and_then(|s| Some((s, s.column(field)?)))
            {
                Some((scores, at)) => Some(scores.score(at, &rows)),
                None => score(&value(field)),
            };
            each(read.score_field.as_deref().and_then(of_field).unwrap_or(f32::NAN));
        }
    }
    Ok(Some(metadata))
}

/// What the sample `key` of `metadata` may be called: the file has no `./`, which the shard may have.
fn names<'a>(metadata: &ShardMetadata, shard: &Shard, key: &'a str) -> [Names<'a>; 2] {
    let uid = metadata.value(key, UID).and_then(of_uid_value);
    ["", "./"].map(|folder| Names { key, id: SampleId::new(shard.hash, &format!("{folder}{key}")), uid })
}

/// Whether a table joined by `by`, which `contains` some hashes, has a sample of one of these names.
fn is_in(names: &[Names<'_>], by: JoinBy, contains: impl Fn(u64) -> bool) -> bool {
    names.iter().any(|names| names.of(by).is_some_and(&contains))
}

/// Counts a sample of one of these `names`, where the tables of `read` know it.
fn join(names: &[Names<'_>], read: &ReadOptions, found: &mut Survey) {
    found.joinable += 1;
    let captions = read.captions.iter().flat_map(|captions| captions.iter());
    for (count, (_, table)) in found.in_captions.iter_mut().zip(captions) {
        *count += u64::from(is_in(names, table.by(), |hash| table.contains(hash)));
    }
    let scores = read.scores.iter().flat_map(|scores| scores.tables());
    for (count, table) in found.in_scores.iter_mut().zip(scores) {
        *count += u64::from(is_in(names, table.by(), |hash| table.row(hash).is_some()));
    }
}

/// Counts the samples of `metadata` that the tables of `read` know.
fn of_tables(metadata: &ShardMetadata, shard: &Shard, read: &ReadOptions, found: &mut Survey) {
    for key in metadata.keys() {
        if found.example.is_none() {
            let uid = metadata.value(key, UID).and_then(|uid| match uid {
                Value::String(uid) => Some(uid.clone()),
                Value::Number(uid) => Some(uid.to_string()),
                _ => None,
            });
            found.example = Some(Example { key: key.to_owned(), id: SampleId::new(shard.hash, key), uid });
        }
        let names = names(metadata, shard, key);
        let in_subset = read.subset.as_ref().is_some_and(|s| is_in(&names, s.by(), |hash| s.contains(hash)));
        found.in_subset += u64::from(in_subset);
        join(&names, read, found);
    }
}

/// Takes what groups of `shard` say, in `stretches` of them.
fn of_groups(
    shard: &Shard,
    length: u64,
    stretches: u64,
    read: &ReadOptions,
    found: &mut Survey,
    fields: &mut BTreeSet<String>,
) -> Result<()> {
    let groups = if read.score_field.is_some() { SCORED_GROUPS } else { GROUPS };
    let mut reader = ShardReader::open(shard, read)?.without_images();
    for first in starts(shard.hash, length, stretches, groups) {
        while reader.position() < first {
            if !reader.skip_group()? {
                return Ok(());
            }
        }
        while reader.position() < first + groups {
            let Some(group) = reader.next_group()? else { return Ok(()) };
            found.looked_at += 1;
            // Whether a sample can be used is another question than whether it counts.
            found.included += u64::from(!matches!(&group, Err(failed) if !failed.reason.is_fault()));
            found.in_subset += u64::from(!matches!(&group, Err(failed) if failed.detail == OUTSIDE));
            let uid = reader.take_uid();
            let (key, id) = group.as_ref().map_or_else(|f| (&f.key, f.id), |sample| (&sample.key, sample.id));
            // Of what is excluded, or cannot be read at all, no uid was looked for.
            if group.is_ok() {
                join(&[Names { key, id, uid: uid.as_deref().map(of_uid) }], read, found);
            }
            if found.example.is_none() {
                found.example = Some(Example { key: key.to_string(), id, uid });
            }
            let Ok(sample) = group else { continue };
            if read.score_field.is_some() {
                found.scores.push(sample.score.unwrap_or(f32::NAN));
            }
            if fields.len() < NAMED_FIELDS
                && let Some(Ok(own)) = sample.json.as_deref().map(|json| Fields::read(json, |_| true))
            {
                fields.extend(own.names().map(str::to_owned));
            }
        }
    }
    Ok(())
}

/// First groups of the stretches of a shard, ascending: evenly spaced from a place that its hash says.
fn starts(shard: u64, length: u64, stretches: u64, groups: u64) -> Vec<u64> {
    // Of neighbours that would touch, one long stretch is made.
    let room = length / stretches.max(1);
    if stretches <= 1 || room <= groups {
        return (0..stretches.max(1)).map(|i| i * groups).collect();
    }
    let place = hash::unit(hash::hash(0, Purpose::Fit, shard));
    let offset = (place * (room - groups) as f64) as u64;
    (0..stretches).map(|i| i * room + offset).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shard::ShardWriter;

    #[test]
    fn stretches_lie_in_the_shard_and_do_not_touch() {
        for (length, stretches, groups) in [(100_000, 16, 1024), (5000, 4, 256), (100, 16, 256), (9, 1, 4)] {
            let starts = starts(77, length, stretches, groups);
            assert_eq!(starts.len() as u64, stretches);
            assert!(starts.windows(2).all(|pair| pair[0] + groups <= pair[1]), "{starts:?}");
            let fits = length / stretches > groups;
            assert!(!fits || starts.last().unwrap() + groups <= length, "{starts:?}");
        }
    }

    #[test]
    fn few_large_shards_are_looked_at_all_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000.tar");
        let mut writer = ShardWriter::create(&path).unwrap();
        // Sorted by score, as some lists are: the first thousand say nothing of the rest.
        for i in 0..40_000 {
            let json = format!("{{\"score\": {}, \"other\": 1}}", f64::from(i) / 40_000.0);
            let key = format!("{i:06}");
            writer.write(&key, &[("png", b"x"), ("txt", b"text"), ("json", json.as_bytes())]).unwrap();
        }
        writer.finish().unwrap();
        let shard = Shard::local(path.to_str().unwrap(), "test");
        let read = ReadOptions { score_field: Some("score".into()), ..ReadOptions::default() };
        let found = survey(std::slice::from_ref(&shard), &[40_000], &read).unwrap();
        assert_eq!((found.looked_at, found.included, found.scores.len()), (16_384, 16_384, 16_384));
        assert_eq!(found.fields, ["other", "score"]);
        let above = found.scores.iter().filter(|score| **score >= 0.5).count() as f64 / 16_384.0;
        // Sixteen stretches of 1,024 in steps of 2,500: the middle falls within one of them or between two.
        assert!((above - 0.5).abs() <= 1.0 / 32.0, "{above}");
        let filter = ReadOptions { filter: Some("score < 0.25".parse().unwrap()), ..ReadOptions::default() };
        let found = survey(&[shard], &[40_000], &filter).unwrap();
        assert!((found.share() - 0.25).abs() <= 1.0 / 32.0 && !found.has_scores());
    }
}
