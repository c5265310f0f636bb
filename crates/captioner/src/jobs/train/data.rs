//! What a training run reads: which shards, or samples, it trains on, which it keeps to validate on,
//! which belong to another fold.

use crate::jobs::previews::largest_divisor;
use crate::jobs::train::TrainJob;
use tldr_loader::config::{Config, Mode, PixelType, Source, Transform};
use tldr_loader::error::{Error, Result};
use tldr_loader::hash::{self, Purpose};
use tldr_loader::jobs::{listed, nothing_in};
use tldr_loader::loader::{Loader, LoaderBuilder, check_tables};
use tldr_loader::shard::{self, ReadOptions, Shard, ShardReader, Share};

/// Captions that a tokenizer is trained on and keywords are counted in: more change little, and
/// reading them takes time.
const CAPTIONS: usize = 200_000;

/// Pairs that are held out by default: the loss and the AUC of as many are known to a hundredth or so.
const HELD_OUT_PAIRS: u64 = 2048;
/// Part of the corpus that is held out by default at most, and pairs of which that has to be worth it: the AUC of
/// fewer than 16 is known to 0.1 at best.
const HELD_OUT_PART: u64 = 10;
const FEWEST_PAIRS: u64 = 16;

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
    /// How samples are made of members, and which of them count.
    read: ReadOptions,
    /// Trained on, in the order of the list.
    pub(super) trained: Part,
    /// Validated on, never trained on: but for `share`, where there is one.
    pub(super) held_out: Part,
    /// Samples that are held out of shards that are trained on.
    share: Option<Share>,
}

/// What is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum HeldOut {
    Nothing,
    /// As many shards, in hash order.
    Shards(usize),
    /// A share of the samples.
    Samples(f64),
}

impl Data {
    /// Lists the shards of `job` and cuts off what is not trained on: first the other fold, then what
    /// is held out of its own. Both go by hash(seed, shard).
    ///
    /// # Errors
    /// Errors of listing and counting; too few shards to keep any out.
    pub(super) fn of(job: &TrainJob) -> Result<Self> {
        let (shards, lengths) = listed(&job.source)?;
        let read = job.source.open()?;
        let all: Vec<(Shard, u64)> =
            shards.into_iter().zip(lengths).filter(|(_, length)| *length > 0).collect();
        if all.is_empty() {
            return Err(nothing_in(&job.source, "shards with samples to train on"));
        }
        if read.has_tables() {
            let (shards, lengths): (Vec<Shard>, Vec<u64>) = all.iter().cloned().unzip();
            let found = shard::survey(&shards, &lengths, &read)?;
            check_tables(&read, &found, lengths.iter().sum())?;
        }
        let own = match job.fold {
            None => all,
            Some(fold) => fold_of(&all, fold, job.seed)?,
        };
        let rank = ranks(&own, job.seed, HELD_OUT);
        let mut drawn = vec![0; own.len()];
        own.iter().zip(&rank).for_each(|((_, length), &rank)| drawn[rank] = *length);
        let held_out = match held_out(&drawn, job.validate)? {
            HeldOut::Nothing => 0,
            HeldOut::Shards(count) => count,
            HeldOut::Samples(share) => {
                let share = Some(Share::drawn(job.seed, share));
                let whole = Part::of(&own);
                return Ok(Self { read, trained: whole.clone(), held_out: whole, share });
            }
        };
        let part = |kept: &dyn Fn(usize) -> bool| -> Part {
            let chosen = own.iter().zip(&rank).filter(|(_, r)| kept(**r)).map(|(s, _)| s.clone());
            Part::of(&chosen.collect::<Vec<_>>())
        };
        let (trained, held_out) = (part(&|rank| rank >= held_out), part(&|rank| rank < held_out));
        Ok(Self { read, trained, held_out, share: None })
    }

    /// Every sample to train on with its original caption, as a preview of `size` pixels.
    ///
    /// # Errors
    /// Fewer samples than a batch has.
    pub(super) fn training_stream(&self, job: &TrainJob, size: usize) -> Result<Loader> {
        stream(job, &self.trained, self.trained_read(), size)
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
        let read = ReadOptions { share: self.share, ..self.read.clone() };
        stream(job, &self.held_out, read, size).mode(Mode::Eval).batch_size(batch).build().map(Some)
    }

    /// How what is trained on is read.
    fn trained_read(&self) -> ReadOptions {
        ReadOptions { share: self.share.map(Share::others), ..self.read.clone() }
    }

    /// [Marks](Shard::marks) of the shards that are trained on, ascending.
    pub(super) fn trained_on(&self) -> Vec<u64> {
        let Part { shards, lengths } = &self.trained;
        let marks = shards.iter().zip(lengths).flat_map(|(shard, &length)| shard.marks(length));
        let mut marks: Vec<u64> = marks.collect();
        marks.sort_unstable();
        marks
    }

    /// Captions to learn words from: of shards in hash order, until there are enough.
    ///
    /// # Errors
    /// A shard that cannot be read; not one readable caption.
    pub(super) fn captions(&self, job: &TrainJob) -> Result<Vec<String>> {
        let mut shards: Vec<&Shard> = self.trained.shards.iter().collect();
        shards.sort_by_key(|s| hash::hash(job.seed, Purpose::Fit, s.hash));
        let read = self.trained_read();
        let mut captions: Vec<String> = vec![];
        'shards: for shard in shards {
            let mut reader = ShardReader::open(shard, &read)?;
            while let Some(group) = reader.next_group()? {
                reader.say_gaps(&shard.url);
                captions.extend(group.ok().map(|sample| sample.caption));
                if captions.len() >= CAPTIONS {
                    break 'shards;
                }
            }
        }
        if captions.is_empty() {
            return Err(nothing_in(&job.source, "shards with readable captions"));
        }
        Ok(captions)
    }
}

fn stream(job: &TrainJob, part: &Part, read: ReadOptions, size: usize) -> LoaderBuilder {
    let source =
        Source { lengths: Some(part.lengths.clone()), store: job.source.store.clone(), ..Source::default() };
    let builder = Loader::from_config(Config { sources: vec![source], ..Config::default() })
        .shards(part.shards.clone())
        .transform(Transform::Preview)
        .dtype(PixelType::U8)
        .image_size(size)
        .decode(job.decode)
        .seed(job.seed)
        .rank(0)
        .world_size(1);
    builder.read_options(read)
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

/// What to hold out of shards of these lengths, in hash order.
fn held_out(lengths: &[u64], validate: Option<f64>) -> Result<HeldOut> {
    let shards = lengths.len();
    let Some(validate) = validate else { return Ok(held_out_by_default(lengths)) };
    let accepted = format!(
        "0 for no validation, a share below 1, or a whole number below the {shards} shards that there are"
    );
    let wrong = || Error::option("validate", validate, accepted.clone());
    if validate.is_nan() || validate < 0.0 || (validate >= 1.0 && validate.fract() != 0.0) {
        return Err(wrong());
    }
    match validate {
        0.0 => Ok(HeldOut::Nothing),
        share if share * (shards as f64) < 1.0 => Ok(HeldOut::Samples(share)),
        _ => {
            let count = if validate < 1.0 { (validate * shards as f64).round() } else { validate };
            if count as usize >= shards { Err(wrong()) } else { Ok(HeldOut::Shards(count as usize)) }
        }
    }
}

/// Whole shards, which cost no reading, where they make about as many pairs as are wanted.
fn held_out_by_default(lengths: &[u64]) -> HeldOut {
    let total = lengths.iter().fold(0u64, |sum, &length| sum.saturating_add(length));
    let most = total / HELD_OUT_PART;
    let wanted = most.min(HELD_OUT_PAIRS);
    if wanted < FEWEST_PAIRS {
        return HeldOut::Nothing;
    }
    let mut held = 0;
    let count = lengths
        .iter()
        .take_while(|length| {
            let takes = held < wanted && **length <= most - held;
            held += if takes { **length } else { 0 };
            takes
        })
        .count();
    if held >= wanted / 2 { HeldOut::Shards(count) } else { HeldOut::Samples(wanted as f64 / total as f64) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use tldr_synth::{SynthOptions, write_corpus};

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
        assert!(
            message.starts_with("invalid folds=2: expected at most the number of shards, 1"),
            "{message}"
        );
    }

    #[test]
    fn what_is_validated_on_is_never_trained_on_and_nothing_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SynthOptions { samples: 240, shards: 3, test_samples: 0, size: 32, ..Default::default() };
        write_corpus(dir.path(), &options, &mut |_, _| {}).unwrap();
        let urls = vec![dir.path().join("train").display().to_string()];
        // Samples, and whole shards.
        for (validate, least, most) in [(None, 10, 40), (Some(0.5), 100, 160), (Some(1.0), 80, 80)] {
            let job =
                TrainJob { validate, batch_size: 1, ..TrainJob::new(urls.clone(), dir.path().join("out")) };
            let data = Data::of(&job).unwrap();
            let keys = |loader: Loader| -> BTreeSet<String> {
                let batches = loader.iter().unwrap();
                batches.flat_map(|batch| batch.unwrap().rows.keys).map(|key| key.to_string()).collect()
            };
            let trained = keys(data.training_stream(&job, 16).unwrap());
            let held_out = keys(data.validation_stream(&job, 16, 8).unwrap().unwrap());
            assert!((least..=most).contains(&held_out.len()), "{validate:?}: {}", held_out.len());
            assert!(trained.is_disjoint(&held_out), "{validate:?}");
            // A stream of an estimated length may leave a few over.
            let all = trained.len() + held_out.len();
            assert!((232..=240).contains(&all), "{validate:?}: {all}");
            let words = data.captions(&job).unwrap();
            assert_eq!(words.len(), 240 - held_out.len(), "words are learned from what is trained on");
            assert_eq!(data.trained_on().len(), 2 * data.trained.shards.len());
        }
        let none = TrainJob { validate: Some(0.0), ..TrainJob::new(urls, dir.path().join("out")) };
        assert!(Data::of(&none).unwrap().validation_stream(&none, 16, 8).unwrap().is_none());
    }

    #[test]
    fn shares_and_counts_are_held_out() {
        let of = |validate| held_out(&[10; 10], Some(validate)).unwrap();
        assert_eq!(of(0.0), HeldOut::Nothing);
        for (validate, count) in [(0.1, 1), (0.2, 2), (0.25, 3), (1.0, 1), (9.0, 9)] {
            assert_eq!(of(validate), HeldOut::Shards(count), "{validate}");
        }
        // Less than a shard is a share of the samples.
        assert_eq!(of(0.01), HeldOut::Samples(0.01));
        assert_eq!(held_out(&[10], Some(0.1)).unwrap(), HeldOut::Samples(0.1));
        for validate in [-0.1, f64::NAN, 1.5, 10.0, f64::INFINITY, 0.99] {
            let message = held_out(&[10; 10], Some(validate)).unwrap_err().to_string();
            assert!(message.contains("validate") && message.contains("below the 10 shards"), "{message}");
        }
    }

    #[test]
    fn a_tenth_at_most_is_held_out_by_default_and_whole_shards_where_they_do() {
        let of = |lengths: &[u64]| held_out(lengths, None).unwrap();
        // As many as are needed, and no more.
        assert_eq!(of(&[10_000; 332]), HeldOut::Shards(1));
        assert_eq!(of(&[500; 300]), HeldOut::Shards(5));
        // Few shards: samples of all of them.
        assert_eq!(of(&[1041]), HeldOut::Samples(104.0 / 1041.0));
        assert_eq!(of(&[625; 8]), HeldOut::Samples(0.1));
        assert_eq!(of(&[1_000_000; 4]), HeldOut::Samples(2048.0 / 4e6));
        // Shards of very different lengths.
        assert_eq!(of(&[50, 9000, 50, 900]), HeldOut::Samples(0.1));
        assert_eq!(of(&[100; 12]), HeldOut::Shards(1));
        // So few that they would say nothing.
        assert_eq!(of(&[16; 9]), HeldOut::Nothing);
        assert_eq!(of(&[]), HeldOut::Nothing);
        for lengths in [vec![7; 400], vec![160], vec![3, 5000, 20, 1], vec![u64::MAX, 5]] {
            let total: f64 = lengths.iter().map(|&n| n as f64).sum();
            let share = match of(&lengths) {
                HeldOut::Nothing => 0.0,
                HeldOut::Shards(count) => lengths[..count].iter().map(|&n| n as f64).sum::<f64>() / total,
                HeldOut::Samples(share) => share,
            };
            assert!(share <= 0.1 + 1e-9, "{lengths:?}");
        }
    }
}
