//! Where a lane is cut inside of a shard of which some samples do not count: behind the sample of a given rank among those
//! that do.
//!
//! How many count in a shard is known when the loader is made, which ones they are only when it is read. So the part of
//! the shard before the cut is gone through once more: of a plain local file its json, or only headers where keys tell or a
//! plan names the window. The ledger is not asked for what counts, so that a cut never depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::hash;
use crate::loader::decider::Decider;
use crate::loader::observe::watchdog::{Doing, Slot};
use crate::loader::spec::Spec;
use crate::sample::SampleId;
use crate::shard::{ReadOptions, ShardReader, of_selection};

/// What looks for the cuts of a lane.
pub(crate) struct Locating<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) epoch: u64,
    pub(crate) stop: &'a Arc<AtomicBool>,
    /// Where it says what it does.
    pub(crate) slot: &'a Slot,
}

impl Locating<'_> {
    /// The position behind the `rank`-th sample of `shard` that counts; the end of the shard where it has fewer. Any
    /// position once `stop` is set.
    ///
    /// # Errors
    /// As [`ShardReader`]; a sample that a plan keeps is not there.
    pub(crate) fn behind(&self, shard: usize, rank: u64) -> Result<u64> {
        let url = Arc::clone(&self.spec.shards[shard].url);
        let _mark = self.slot.mark(Doing::Work("looks for the cut of its lane", Some(url)));
        match self.spec.selector.as_ref().and_then(Decider::plan) {
            Some(plan) => {
                let planned =
                    |window| plan.plan.kept_of(hash::combine(&[self.spec.shards[shard].hash, window]));
                self.by_plan(shard, rank, &planned)
            }
            None => self.by_metadata(shard, rank),
        }
    }

    fn by_metadata(&self, shard: usize, rank: u64) -> Result<u64> {
        let spec = self.spec;
        let selector = spec.selector.as_ref().and_then(Decider::selector);
        let cut = selector.filter(|selector| !selector.keeps_everything(self.epoch));
        let cut = cut.and_then(|selector| selector.policy().cut);
        let read = ReadOptions {
            score_field: spec.reads[shard].score_field.clone().filter(|_| cut.is_some()),
            ..of_selection(&spec.reads[shard])
        };
        let mut reader = ShardReader::open_until(&spec.shards[shard], &read, self.stop)?.only_json();
        let mut before = 0;
        while let Some(standing) = reader.next_standing()? {
            before += u64::from(standing.counts && cut.is_none_or(|cut| cut.passes(standing.score)));
            if before == rank || self.pause(&mut reader) {
                return Ok(reader.position());
            }
        }
        Ok(reader.position().max(spec.lengths[shard]))
    }

    fn by_plan<'p>(&self, shard: usize, rank: u64, planned: &dyn Fn(u64) -> &'p [SampleId]) -> Result<u64> {
        let (size, length) = (self.spec.window(), self.spec.lengths[shard]);
        let mut before = 0;
        let counts = |window| planned(window).len() as u64;
        let window = (0..length.div_ceil(size)).find(|&window| {
            before += counts(window);
            before >= rank
        });
        let Some(window) = window else { return Ok(length) };
        before -= counts(window);
        let read = ReadOptions::default();
        let mut reader = ShardReader::open_until(&self.spec.shards[shard], &read, self.stop)?;
        while reader.position() < window * size {
            if !reader.skip_group()? || self.pause(&mut reader) {
                return Ok(length);
            }
        }
        let (kept, mut found) = (planned(window), 0);
        while reader.position() < (window + 1) * size
            && let Some(standing) = reader.next_standing()?
        {
            found += usize::from(kept.binary_search(&standing.id).is_ok());
            if before + found as u64 == rank || self.pause(&mut reader) {
                return Ok(reader.position());
            }
        }
        let expected = format!("all {} samples that the plan keeps of a window", kept.len());
        let found = format!("{} that are not there: has the shard changed? Plan again", kept.len() - found);
        Err(Error::format("plan", expected, found))
    }

    /// A sign of life; whether nobody waits any more.
    fn pause(&self, reader: &mut ShardReader) -> bool {
        self.slot.tick();
        // Of the shard's index nothing is wanted.
        if reader.position().is_multiple_of(4096) {
            reader.take_index();
        }
        self.stop.load(Ordering::Relaxed)
    }
}
