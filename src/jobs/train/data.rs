//! What a training run reads: which shards it trains on, which it keeps to validate on, which
//! belong to another fold.

use crate::error::{Error, Result};
use crate::hash::{self, Purpose};
use crate::image::ImageTransform;
use crate::jobs::previews::largest_divisor;
use crate::jobs::train::TrainJob;
use crate::loader::{Loader, LoaderBuilder, Mode, PixelType};
use crate::shard::{self, Shard, ShardReader};

/// Captions that a tokenizer is trained on and keywords are counted in: more change little, and
/// reading them takes time.
const CAPTIONS: usize = 200_000;

/// Keep the shards that are held out and those of a fold apart from other choices by shard.
const HELD_OUT: u64 = 0x4E1D;
const FOLD: u64 = 0xF01D;

/// Shards with their lengths.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) shards: Vec<Shard>,
    pub(super) lengths: Vec<u64>,
}

impl Part {
    fn of(shards: &[(Shard, u64)]) -> Self {
        let (shards, lengths) = shards.iter().cloned().unzip();
        Self { shards, lengths }
    }
}

/// The shards of a run.
pub(super) struct Data {
    /// Trained on, in the order of the list.
    pub(super) trained: Part,
    /// Validated on, never trained on.
    pub(super) held_out: Part,
}

impl Data {
    /// Lists the shards of `job` and cuts off what is not trained on: first the other fold, then what
    /// is held out of its own. Both go by hash(seed, shard).
    ///
    /// # Errors
    /// Errors of listing and counting; too few shards to keep any out.
    pub(super) fn of(job: &TrainJob) -> Result<Self> {
        let shards = shard::list(&job.urls, None, &job.stores)?;
        let lengths = match &job.lengths {
            None => shard::lengths(&shards, &mut |_, _| {})?,
            Some(lengths) if lengths.len() == shards.len() => lengths.clone(),
            Some(lengths) => {
                let accepted = format!("one number for each of the {} shards", shards.len());
                return Err(Error::option("lengths", format!("{} numbers", lengths.len()), accepted));
            }
        };
        let all: Vec<(Shard, u64)> =
            shards.into_iter().zip(lengths).filter(|(_, length)| *length > 0).collect();
        if all.is_empty() {
            return Err(Error::option("urls", job.urls.join(" "), "shards with samples to train on"));
        }
        let own = match job.fold {
            None => all,
            Some(fold) => fold_of(&all, fold, job.seed)?,
        };
        let held_out = held_out(own.len(), job.validate)?;
        let rank = ranks(&own, job.seed, HELD_OUT);
        let part = |kept: &dyn Fn(usize) -> bool| -> Part {
            let chosen = own.iter().zip(&rank).filter(|(_, r)| kept(**r)).map(|(s, _)| s.clone());
            Part::of(&chosen.collect::<Vec<_>>())
        };
        Ok(Self { trained: part(&|rank| rank >= held_out), held_out: part(&|rank| rank < held_out) })
    }

    /// Every sample to train on with its original caption, as a preview of `size` pixels.
    ///
    /// # Errors
    /// Fewer samples than a batch has.
    pub(super) fn training_stream(&self, job: &TrainJob, size: usize) -> Result<Loader> {
        stream(job, &self.trained, size)
            .mode(Mode::Full)
            .batch_size(job.batch_size)
            .lanes(largest_divisor(job.batch_size, 4))
            .build()
    }

    /// The held-out samples in order, `batch` at a time; `None` where nothing is held out.
    ///
    /// # Errors
    /// Errors of making a loader.
    pub(super) fn validation_stream(
        &self,
        job: &TrainJob,
        size: usize,
        batch: usize,
    ) -> Result<Option<Loader>> {
        if self.held_out.shards.is_empty() {
            return Ok(None);
        }
        stream(job, &self.held_out, size).mode(Mode::Eval).batch_size(batch).build().map(Some)
    }

    /// Captions to learn words from: of shards in hash order, until there are enough.
    ///
    /// # Errors
    /// A shard that cannot be read; not one readable caption.
    pub(super) fn captions(&self, job: &TrainJob) -> Result<Vec<String>> {
        let mut shards: Vec<&Shard> = self.trained.shards.iter().collect();
        shards.sort_by_key(|s| hash::hash(job.seed, Purpose::Fit, s.hash));
        let mut captions: Vec<String> = vec![];
        'shards: for shard in shards {
            let mut reader = ShardReader::open(shard, &job.read)?;
            while let Some(group) = reader.next_group()? {
                captions.extend(group.ok().map(|sample| sample.caption));
                if captions.len() >= CAPTIONS {
                    break 'shards;
                }
            }
        }
        if captions.is_empty() {
            return Err(Error::option("urls", job.urls.join(" "), "shards with readable captions"));
        }
        Ok(captions)
    }
}

fn stream(job: &TrainJob, part: &Part, size: usize) -> LoaderBuilder {
    let builder = Loader::builder(job.urls.clone())
        .shards(part.shards.clone())
        .lengths(part.lengths.clone())
        .stores(job.stores.clone())
        .transform(ImageTransform::Preview)
        .pixels(PixelType::U8)
        .image_size(size)
        .seed(job.seed)
        .rank(0)
        .world_size(1);
    builder.read_options(job.read.clone())
}

/// Shards of fold `index` of `of`: every `of`-th in hash order, so that folds differ by one shard at
/// most.
fn fold_of(shards: &[(Shard, u64)], (index, of): (usize, usize), seed: u64) -> Result<Vec<(Shard, u64)>> {
    if shards.len() < of {
        let accepted =
            format!("at most the number of shards, {}: folds are made of whole shards", shards.len());
        return Err(Error::option("folds", of, accepted));
    }
    let rank = ranks(shards, seed, FOLD);
    Ok(shards.iter().zip(rank).filter(|(_, rank)| rank % of == index).map(|(s, _)| s.clone()).collect())
}

/// Place of each shard in the order of hash(seed, purpose, shard).
fn ranks(shards: &[(Shard, u64)], seed: u64, salt: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..shards.len()).collect();
    order.sort_by_key(|&s| (hash::hash(seed, Purpose::Train, hash::combine(&[salt, shards[s].0.hash])), s));
    let mut rank = vec![0; shards.len()];
    order.into_iter().enumerate().for_each(|(place, shard)| rank[shard] = place);
    rank
}

/// Number of shards to hold out: a share of them (one at least), or a count.
fn held_out(shards: usize, validate: f64) -> Result<usize> {
    let accepted = format!("0, a share below 1, or a whole number below the {shards} shards that there are");
    let wrong = || Error::option("validate", validate, accepted.clone());
    if validate.is_nan() || validate < 0.0 || (validate >= 1.0 && validate.fract() != 0.0) {
        return Err(wrong());
    }
    let count = match validate {
        0.0 => 0,
        share if share < 1.0 => ((share * shards as f64).round() as usize).max(1),
        count => count as usize,
    };
    if count > 0 && count >= shards { Err(wrong()) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shards(count: usize) -> Vec<(Shard, u64)> {
        (0..count).map(|i| (Shard::local(&format!("x/{i:05}.tar"), "x"), 10 + i as u64)).collect()
    }

    #[test]
    fn folds_share_nothing_and_leave_nothing_out() {
        for count in [2, 3, 9, 40] {
            let all = shards(count);
            let folds: Vec<Vec<u64>> = (0..2)
                .map(|i| fold_of(&all, (i, 2), 7).unwrap().iter().map(|(_, length)| *length).collect())
                .collect();
            assert!(folds[0].len().abs_diff(folds[1].len()) <= 1);
            let mut together: Vec<u64> = folds.concat();
            together.sort_unstable();
            assert_eq!(together, (10..10 + count as u64).collect::<Vec<_>>());
        }
        let message = fold_of(&shards(1), (0, 2), 0).unwrap_err().to_string();
        assert!(message.starts_with("folds = 2: at most the number of shards, 1"), "{message}");
    }

    #[test]
    fn shares_and_counts_are_held_out() {
        let count = |validate| held_out(10, validate).unwrap();
        assert_eq!([0.0, 0.01, 0.2, 0.25, 1.0, 9.0].map(count), [0, 1, 2, 3, 1, 9]);
        for validate in [-0.1, f64::NAN, 1.5, 10.0, f64::INFINITY] {
            let message = held_out(10, validate).unwrap_err().to_string();
            assert!(
                message.starts_with("validate = ") && message.contains("below the 10 shards"),
                "{message}"
            );
        }
        assert!(held_out(1, 0.1).is_err(), "nothing would be left to train on");
    }
}
