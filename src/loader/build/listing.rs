//! The shards of all sources, each with how it is read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::config::Source;
use crate::error::{Error, Result};
use crate::hash;
use crate::image::DecodeOptions;
use crate::loader::fingerprints::reading_fingerprint;
use crate::shard::{self, ReadOptions, Shard, Survey};

/// Name of the one source where no weights are given.
const ALL: &str = "all";

/// Shards in the order of their sources.
pub(crate) struct Listing {
    pub(crate) shards: Vec<Shard>,
    /// How each is read.
    pub(crate) reads: Vec<Arc<ReadOptions>>,
    /// The sources that are mixed; one, where there are no weights.
    pub(crate) sources: Vec<Listed>,
}

/// A source that was listed.
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) weight: f64,
    pub(crate) shards: Range<usize>,
}

impl Listing {
    /// Opens the tables of `sources` and lists their shards; `ledger` is the folder of a bucket, where one is.
    ///
    /// # Errors
    /// A table that cannot be opened; patterns that name nothing, or one shard twice; an option of stores that nothing asks,
    /// or a token for several servers.
    pub(crate) fn of(sources: &[Source], ledger: Option<&str>) -> Result<Self> {
        let (mut shards, mut reads, mut listed) = (vec![], vec![], vec![]);
        // What cannot be opened is said before anything is listed.
        let opened = sources.iter().map(|source| source.open().map(Arc::new)).collect::<Result<Vec<_>>>()?;
        for (source, read) in sources.iter().zip(opened) {
            let own = shard::shards_of(&source.urls, source.name.as_deref(), &source.store)?;
            shard::check_stores(&source.store, &own, ledger)?;
            let range = shards.len()..shards.len() + own.len();
            reads.resize(range.end, read);
            shards.extend(own);
            let name = source.name.clone().unwrap_or_else(|| shard::shown(&source.urls)).into();
            listed.push(Listed { name, weight: source.weight.unwrap_or(1.0), shards: range });
        }
        if let [_, _, ..] = sources {
            shard::refuse_shared_secrets(&shards)?;
            let name = sources.iter().find_map(|source| source.name.as_deref());
            shard::refuse_duplicates(&shards, name)?;
        }
        if sources.iter().all(|source| source.weight.is_none()) {
            listed = vec![Listed { name: ALL.into(), weight: 1.0, shards: 0..shards.len() }];
        }
        Ok(Self { shards, reads, sources: listed })
    }

    /// Shards that were listed before, all read alike.
    pub(crate) fn given(shards: Vec<Shard>, read: Arc<ReadOptions>) -> Self {
        let sources = vec![Listed { name: ALL.into(), weight: 1.0, shards: 0..shards.len() }];
        Self { reads: vec![read; shards.len()], shards, sources }
    }

    /// Reads all shards as `read` says.
    pub(crate) fn reading(mut self, read: ReadOptions) -> Self {
        let read = Arc::new(read);
        self.reads = vec![read; self.shards.len()];
        self
    }

    /// The shards whose index `is_in`, as one source.
    pub(crate) fn part(self, is_in: impl Fn(usize) -> bool) -> Self {
        let of = self.shards.into_iter().zip(self.reads).enumerate();
        let (shards, reads): (Vec<Shard>, Vec<_>) =
            of.filter(|(at, _)| is_in(*at)).map(|(_, one)| one).unzip();
        let sources = vec![Listed { name: ALL.into(), weight: 1.0, shards: 0..shards.len() }];
        Self { shards, reads, sources }
    }

    /// How each shard is read where `field` is read as its samples' score.
    pub(crate) fn scored(&self, field: &str) -> Vec<Arc<ReadOptions>> {
        self.changed(|read| read.score_field = Some(field.to_owned()))
    }

    /// A look at the scores of all shards, of these `lengths` ([`survey_of`](shard::survey_of)).
    ///
    /// # Errors
    /// As [`survey`](shard::survey).
    pub(crate) fn survey(&self, lengths: &[u64], field: &str) -> Result<Survey> {
        let reads = self.scored(field);
        let corpus = self.shards.iter().zip(lengths).zip(&reads);
        shard::survey_of(corpus.map(|((shard, &length), read)| (shard, length, &**read)))
    }

    /// Lets samples carry `fields`.
    pub(crate) fn carry(&mut self, fields: &[String]) {
        if !fields.is_empty() {
            self.reads = self.changed(|read| read.fields = fields.into());
        }
    }

    /// How each shard is read after a change; what was read alike still is.
    fn changed(&self, change: impl Fn(&mut ReadOptions)) -> Vec<Arc<ReadOptions>> {
        let mut reads = vec![];
        for (range, read) in self.stretches() {
            let mut read = ReadOptions::clone(read);
            change(&mut read);
            reads.resize(range.end, Arc::new(read));
        }
        reads
    }

    /// Columns of the tables of scores, sorted, each with its place in the tables of the first source that has it.
    pub(crate) fn score_columns(&self) -> Vec<(Arc<str>, usize)> {
        let mut columns = BTreeMap::new();
        for (_, read) in self.stretches() {
            for (at, name) in read.scores.iter().flat_map(|scores| scores.columns().enumerate()) {
                columns.entry(Arc::clone(name)).or_insert(at);
            }
        }
        columns.into_iter().collect()
    }

    /// Stretches of shards that are read alike.
    pub(crate) fn stretches(&self) -> Vec<(Range<usize>, &Arc<ReadOptions>)> {
        let mut alike: Vec<(Range<usize>, &Arc<ReadOptions>)> = vec![];
        for (at, read) in self.reads.iter().enumerate() {
            match alike.last_mut() {
                Some((range, last)) if Arc::ptr_eq(last, read) || last == &read => range.end = at + 1,
                _ => alike.push((at..at + 1, read)),
            }
        }
        alike
    }
}

/// Identifies how shards are read: that of all, where they are read alike.
pub(crate) fn readings(shards: &[Shard], reads: &[Arc<ReadOptions>], decode: &DecodeOptions) -> u64 {
    let mut of: Vec<(u64, u64)> = shards
        .iter()
        .zip(reads)
        .map(|(shard, read)| (shard.hash, reading_fingerprint(read, decode)))
        .collect();
    of.sort_unstable();
    match of.first() {
        Some((_, first)) if of.iter().all(|(_, reading)| reading == first) => *first,
        _ => hash::combine(&of.into_iter().flat_map(|(shard, reading)| [shard, reading]).collect::<Vec<_>>()),
    }
}

/// Refuses weights that cannot be meant, or that only some sources have.
pub(crate) fn check_weights(sources: &[Source]) -> Result<()> {
    let Some(unweighted) = sources.iter().find(|source| source.weight.is_none()) else {
        let wrong = |weight: &f64| !(weight.is_finite() && *weight > 0.0);
        let mut weights = sources.iter().filter_map(|source| Some((source, source.weight?)));
        return match weights.find(|(_, weight)| wrong(weight)) {
            Some((source, weight)) => {
                let given = format!("{weight} for {}", shard::shown(&source.urls));
                let accepted = "a finite number above 0; leave a source out that is not to be read";
                Err(Error::option("weight", given, accepted))
            }
            None => Ok(()),
        };
    };
    match sources.iter().find_map(|source| source.weight) {
        Some(weight) => {
            let given = format!("{weight}, and none for {}", shard::shown(&unweighted.urls));
            Err(Error::option("weight", given, "one for every source, or for none"))
        }
        None => Ok(()),
    }
}
