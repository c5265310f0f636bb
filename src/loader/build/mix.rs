//! Corpora that are mixed by a stated proportion, and epochs of a stated size.
//!
//! A [`Mix`] has one [`MixedSource`] for each corpus: its line of samples ([`Line`]), how much of the line an
//! epoch takes, and its slots in the batches ([`Shares`]). An epoch of N samples gives a source of weight w
//! w N slots, and takes the stretch of its line that is expected to have as many kept samples: a large source
//! is used in part, a small one in several passes, and the next epoch goes on where this one stops. Without
//! weights all shards are one source, and without `samples_per_epoch` an epoch is one pass over it.
//!
//! Sources stand in an order of their own, whatever the order they are given in.

use std::ops::Range;
use std::sync::Arc;

use crate::config::Mode;
use crate::error::{Error, Result};
use crate::hash;
use crate::loader::build::listing::{Listed, check_weights};
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::build::shares::{Shares, apportion};
use crate::loader::decider::Decider;
use crate::loader::lane::Stream;
use crate::loader::lane::{Line, LineShard};
use crate::select::Schedule;
use crate::shard::{Count, Shard};

/// Samples of an epoch at most, as of a corpus.
const MOST: u64 = 1 << 53;

/// One corpus of a mix.
#[derive(Debug)]
pub(crate) struct MixedSource {
    /// Its patterns, as they were given.
    pub(crate) name: Arc<str>,
    /// Its share of the samples that are yielded.
    pub(crate) share: f64,
    pub(crate) line: Line,
    /// Its line in epochs that keep everything, where others go by a score.
    everything: Option<Line>,
    /// Its shards, of the loader's list.
    pub(crate) shards: Range<usize>,
}

/// The corpora of a loader, and how batches are made of them.
#[derive(Debug)]
pub(crate) struct Mix {
    pub(crate) sources: Vec<MixedSource>,
    /// By epoch: a keep_ratio may change.
    epochs: Schedule<Places>,
    /// Identifies what of each source an epoch reads and yields; 0 where neither weights nor its size are given.
    pub(crate) fingerprint: u64,
}

/// How the slots of an epoch are shared out.
#[derive(Debug)]
pub(crate) struct Places {
    /// Batches of the epoch, on every rank.
    pub(crate) num_batches: u64,
    pub(crate) shares: Shares,
    /// Whether every sample is kept that filter and subset let pass.
    keeps_everything: bool,
}

impl LoaderBuilder {
    /// Checks weights and size of the epoch, as far as nothing has to be read.
    pub(crate) fn check_mix(&self) -> Result<()> {
        let config = &self.config;
        if let Some(samples) = config.samples_per_epoch {
            if config.mode == Mode::Eval {
                let accepted = "with mode=eval, which yields every sample once";
                return Err(Error::unused("samples_per_epoch", samples, accepted));
            }
            if samples == 0 || samples >= MOST {
                return Err(Error::option("samples_per_epoch", samples, "at least 1, and less than 2^53"));
            }
        }
        if let Some(schedule) = config.selection.keep_ratio.as_ref().filter(|ratio| ratio.is_schedule())
            && (self.is_mixed() || config.samples_per_epoch.is_some())
        {
            let accepted = "one number with weights or samples_per_epoch, which say how much an epoch yields";
            return Err(Error::option("keep_ratio", schedule, accepted));
        }
        let sources = &config.sources;
        if sources.is_empty() && self.parts.shards.is_none() {
            return Err(Error::option("sources", "none", "at least one"));
        }
        check_weights(sources)?;
        if let (Some(weight), true) =
            (sources.first().and_then(|source| source.weight), config.mode == Mode::Eval)
        {
            let accepted = "with mode=eval, which yields every sample once";
            return Err(Error::unused("weight", weight, accepted));
        }
        Ok(())
    }

    /// Whether sources are mixed by weights.
    pub(crate) fn is_mixed(&self) -> bool {
        self.config.sources.iter().any(|source| source.weight.is_some())
    }

    /// The mix: the same on every rank. `counts` says how many samples of each shard count.
    ///
    /// # Errors
    /// Fewer samples than a global batch; a source of which none would be yielded.
    pub(crate) fn mix(
        &self,
        listed: Vec<Listed>,
        (shards, lengths): (&[Shard], &[u64]),
        counts: &[Count],
        decider: Option<&Decider>,
        (lanes, world_size): (usize, usize),
    ) -> Result<Mix> {
        let (is_mixed, is_sized) = (self.is_mixed(), self.config.samples_per_epoch.is_some());
        // By the smallest hash of a shard: no other source has it.
        let place = |source: &Listed| shards[source.shards.clone()].iter().map(|shard| shard.hash).min();
        let mut candidates: Vec<(Option<u64>, Listed)> =
            listed.into_iter().map(|source| (place(&source), source)).collect();
        candidates.sort_by_key(|(place, _)| *place);
        let included = |counts: &[Count]| counts.iter().map(|count| count.included).sum::<u64>();
        let expected = |(_, source): &(Option<u64>, Listed), epoch: u64| {
            let own = &counts[source.shards.clone()];
            match (self.config.mode, decider) {
                (Mode::Reduced, Some(decider)) => decider.expected(own, epoch),
                _ => included(own),
            }
        };
        let global = (self.config.batch_size * world_size) as u64;
        let weights: Vec<f64> = candidates.iter().map(|(_, source)| source.weight).collect();
        let batches_of = |epoch: u64| -> Result<u64> {
            match self.config.samples_per_epoch {
                Some(samples) => self.batches_of(samples, world_size),
                None => {
                    let all = candidates.iter().map(|candidate| expected(candidate, epoch)).sum();
                    self.num_batches(epoch, included(counts), all, world_size)
                }
            }
        };
        let mut epochs = vec![];
        for epoch in decider.map_or(vec![0], Decider::stretches) {
            let num_batches = batches_of(epoch)?;
            let slots = apportion(num_batches.saturating_mul(global), &weights);
            epochs.push((epoch, slots, num_batches));
        }
        let all_of = |epoch: u64| decider.is_some_and(|decider| decider.keeps_everything(epoch));
        let keeps_everything = epochs.iter().any(|(epoch, ..)| all_of(*epoch));
        // With weights, or a size, all epochs are alike.
        let slots = epochs.first().map(|(_, slots, _)| slots.clone()).unwrap_or_default();
        let all: u64 = slots.iter().sum();
        let seed = (self.config.mode != Mode::Eval).then_some(self.config.seed);
        let mut parts = vec![];
        let mut sources = vec![];
        for (candidate, &n) in candidates.iter().zip(&slots) {
            let (place, source) = candidate;
            let line_of = |counted: fn(&Count) -> u64| {
                let shard = |index: usize| LineShard {
                    index,
                    hash: shards[index].hash,
                    samples: lengths[index],
                    counted: counted(&counts[index]),
                    is_estimated: counts[index].is_estimated,
                };
                Line::new(source.shards.clone().map(shard).collect(), seed)
            };
            let mut line = line_of(|count| count.candidates);
            let everything = keeps_everything.then(|| line_of(|count| count.included));
            if (is_mixed || is_sized) && !self.parts.only_recording {
                let expected = expected(candidate, 0);
                self.check_source(source, n, expected)?;
                line = taking(line, n, expected);
            }
            parts.extend([place.unwrap_or_default(), source.shards.len() as u64, n, line.stretch()]);
            let share = n as f64 / all.max(1) as f64;
            sources.push(MixedSource {
                name: Arc::clone(&source.name),
                share,
                line,
                everything,
                shards: source.shards.clone(),
            });
        }
        let fingerprint = if is_mixed || is_sized { hash::combine(&parts) } else { 0 };
        let mut epochs = epochs.into_iter().map(|(epoch, slots, num_batches)| {
            let shares = Shares::new(&slots, lanes, num_batches);
            (epoch, Places { num_batches, shares, keeps_everything: all_of(epoch) })
        });
        let first = epochs.next().map(|(_, first)| first);
        let first = first.unwrap_or_else(|| Places {
            num_batches: 0,
            shares: Shares::new(&slots, lanes, 0),
            keeps_everything: false,
        });
        Ok(Mix { sources, epochs: Schedule::new(first, epochs.collect()), fingerprint })
    }

    /// Whole global batches in `samples`.
    fn batches_of(&self, samples: u64, world_size: usize) -> Result<u64> {
        let global = (self.config.batch_size * world_size) as u64;
        if samples < global && !self.parts.only_recording {
            let accepted = format!("at least one global batch, batch_size x world_size = {global}");
            return Err(Error::option("samples_per_epoch", samples, accepted));
        }
        Ok(samples / global)
    }

    /// Fails where a source has no place in an epoch, or nothing to put there.
    fn check_source(&self, source: &Listed, slots: u64, expected: u64) -> Result<()> {
        let given = format!("{} for {}", source.weight, source.name);
        if slots == 0 {
            let accepted = "enough for one sample in an epoch; raise the weight, or samples_per_epoch";
            return Err(Error::option("weight", given, accepted));
        }
        if expected == 0 && !self.is_mixed() {
            let accepted = "nothing of these shards is expected to be kept; raise keep_ratio";
            return Err(Error::refused("samples_per_epoch", slots, accepted));
        }
        if expected == 0 {
            let accepted = "a source of which something is kept: nothing of this one is expected to be kept";
            return Err(Error::option("weight", given, accepted));
        }
        Ok(())
    }
}

/// `line`, of which an epoch takes as many positions as are expected to have `slots` kept samples, where one
/// pass has `expected`.
fn taking(line: Line, slots: u64, expected: u64) -> Line {
    let positions = (u128::from(slots) * u128::from(line.samples())).div_ceil(u128::from(expected.max(1)));
    line.taking(u64::try_from(positions).unwrap_or(u64::MAX))
}

impl Mix {
    /// The slots of `epoch`.
    pub(crate) fn at(&self, epoch: u64) -> &Places {
        self.epochs.at(epoch)
    }

    /// The line of a source that `epoch` takes its samples from.
    pub(crate) fn line(&self, source: usize, epoch: u64) -> &Line {
        let MixedSource { line, everything, .. } = &self.sources[source];
        everything.as_ref().filter(|_| self.at(epoch).keeps_everything).unwrap_or(line)
    }

    /// The piece of its source's stretch that is a lane's own: as long, beside the others', as its slots
    /// are many.
    pub(crate) fn piece(&self, stream: Stream, epoch: u64, lanes: usize) -> Range<u64> {
        let shares = &self.at(epoch).shares;
        let slots =
            |lanes: usize| -> u64 { (0..lanes).map(|lane| shares.of_lane(stream.source, lane)).sum() };
        let line = self.line(stream.source, epoch);
        match slots(lanes) {
            // Nothing is yielded where a loader only records.
            0 => line.cut(stream.lane as u64, lanes as u64)..line.cut(stream.lane as u64 + 1, lanes as u64),
            all => line.cut(slots(stream.lane), all)..line.cut(slots(stream.lane + 1), all),
        }
    }
}
