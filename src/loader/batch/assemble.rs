//! The assembling stage: every global batch takes the same number of kept samples from every lane, and of every
//! source its share.
//!
//! Which kept sample fills which row is decided here, one batch after the other; `filling` makes the
//! examples, two batches at a time. A row that lacks a
//! kept sample (the lane ran out, or an image proved undecodable) is filled with one of the lane's
//! first kept samples, chosen by hash(seed, epoch, step, row): a function of the row alone, so
//! that a resumed run fills it alike.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use crate::config::{Mode, OnError};
use crate::error::{Error, Result};
use crate::hash::{self, Purpose};
use crate::image::ImageError;
use crate::loader::batch::arrays::Batch;
use crate::loader::batch::deferring::Deferring;
use crate::loader::batch::filling::{Filled, Filling, Ordered};
use crate::loader::batch::memory::HostArray;
use crate::loader::batch::row::{BatchRow, Filler};
use crate::loader::channel::{Message, receive};
use crate::loader::decide::deciding::failed_image;
use crate::loader::kept::{Kept, KeptGroup};
use crate::loader::lane::Stream;
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::stats::LaneCounts;
use crate::loader::observe::watchdog::{Doing, Post, Slot};
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;
use crate::loader::window::raised;
use crate::sample::SampleId;

/// First kept samples of a lane that are held to fill batch_rows.
const REPEAT_POOL: usize = 64;

/// The kept samples that one lane has of one source, one by one.
pub(crate) struct LaneFeed {
    stream: Stream,
    groups: Receiver<Message<KeptGroup>>,
    queue: VecDeque<Arc<Kept>>,
    deferring: Deferring<Arc<Kept>>,
    first: Arc<[Arc<Kept>]>,
    ended: bool,
    slot: Arc<Slot>,
}

impl LaneFeed {
    /// `slot`: where the stage that takes them says what it waits for.
    pub(crate) fn new(stream: Stream, groups: Receiver<Message<KeptGroup>>, slot: &Arc<Slot>) -> Self {
        let slot = Arc::clone(slot);
        Self {
            stream,
            groups,
            queue: VecDeque::new(),
            deferring: Deferring::default(),
            first: Arc::new([]),
            ended: false,
            slot,
        }
    }

    fn next(&mut self) -> Result<Option<Arc<Kept>>> {
        self.load()?;
        Ok(self.queue.pop_front())
    }

    /// Position of the kept sample that comes next; `None` where none will come.
    pub(crate) fn position(&mut self) -> Result<Option<u64>> {
        self.load()?;
        Ok(self.queue.front().map(|kept| kept.position))
    }

    /// The next kept sample, where its position is before `end`.
    pub(crate) fn next_before(&mut self, end: u64) -> Result<Option<Arc<Kept>>> {
        if self.position()?.is_some_and(|position| position < end) { self.next() } else { Ok(None) }
    }

    pub(crate) fn lane(&self) -> usize {
        self.stream.lane
    }

    /// The kept samples that fill batch_rows, once the first of all is there.
    pub(crate) fn first(&self) -> Arc<[Arc<Kept>]> {
        Arc::clone(&self.first)
    }

    /// Waits until there is a kept sample to take, or none will come.
    fn load(&mut self) -> Result<()> {
        while self.queue.is_empty() && !self.ended {
            let _mark = self.slot.mark(Doing::Await(Post::Select(self.stream)));
            match receive(&self.groups, Stage::Select)? {
                Some(group) => {
                    if self.first.is_empty() {
                        self.first = group.iter().take(REPEAT_POOL).cloned().collect();
                    }
                    self.queue = group.into();
                }
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// The next `n` kept samples, or as many as there are, none of them like another where `defer` is on and
    /// it can be helped; and how many that put off.
    fn take(&mut self, n: usize, defer: bool) -> Result<(Vec<Arc<Kept>>, u64)> {
        let mut deferring = std::mem::take(&mut self.deferring);
        let taken = if defer {
            deferring.take(n, || self.next())
        } else {
            (0..n).map_while(|_| self.next().transpose()).collect::<Result<_>>().map(|taken| (taken, 0))
        };
        self.deferring = deferring;
        taken
    }

    /// Whether `n` kept samples can be taken without waiting, as far as can be told.
    pub(crate) fn has(&self, n: usize) -> bool {
        self.deferring.len() + self.queue.len() >= n || self.ended || !self.groups.is_empty()
    }
}

/// What the assembling stage needs.
pub(crate) struct Assembling<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) epoch: u64,
    pub(crate) first_step: u64,
    pub(crate) recorder: &'a Recorder,
    /// Where it says what it does.
    pub(crate) slot: &'a Slot,
    /// Kept samples that proved undecodable: each is counted once, whatever batch_rows it was to fill.
    pub(crate) undecodable: RefCell<HashSet<(u64, SampleId)>>,
}

impl Assembling<'_> {
    /// Makes all batches of the epoch from `first_step` on.
    pub(crate) fn run(&self, mut feeds: Vec<LaneFeed>, out: &Sender<Message<Batch>>) -> Result<()> {
        let _mark = self.slot.mark(Doing::Work("puts batches together", None));
        let filling =
            Filling { spec: self.spec, epoch: self.epoch, recorder: self.recorder, slot: self.slot };
        filling.two_at_a_time(|ordered| match self.spec.config.mode {
            Mode::Eval => self.run_eval(&filling, ordered, &mut feeds, out),
            Mode::Reduced | Mode::Full => self.run_steps(&filling, ordered, &mut feeds, out),
        })
    }

    /// Modes `Reduced` and `Full`: the same number of batches on every rank.
    fn run_steps(
        &self,
        filling: &Filling<'_>,
        ordered: &mut Ordered<'_>,
        feeds: &mut [LaneFeed],
        out: &Sender<Message<Batch>>,
    ) -> Result<()> {
        let all = self.spec.num_batches(self.epoch);
        let mut steps = 0..all;
        loop {
            // While a lane would have to be waited for, what is being made goes out first.
            let may_wait =
                ordered.is_empty() || feeds.iter().all(|feed| feed.has(self.due(feed.stream, steps.start)));
            let next = if ordered.has_room() && may_wait { steps.next() } else { None };
            if let Some(step) = next {
                let batch_rows = self.batch_rows(step, feeds)?;
                if step >= self.first_step {
                    ordered.start(step, batch_rows)?;
                }
            } else if let Some(filled) = ordered.next()? {
                let batch = self.recorder.time(Stage::Batch, || self.complete(filling, filled))?;
                if batch.step + 1 == all {
                    decide_the_rest(feeds)?;
                }
                if !self.hand_over(batch, out) {
                    return Ok(());
                }
            } else {
                break;
            }
        }
        let _ = out.send(Message::End);
        Ok(())
    }

    /// Sends a batch and counts the time it waited; `false` when nobody takes batches any more.
    pub(crate) fn hand_over(&self, batch: Batch, out: &Sender<Message<Batch>>) -> bool {
        let start = Instant::now();
        let _mark = self.slot.mark(Doing::Offer);
        let taken = out.send(Message::Item(batch)).is_ok();
        self.recorder.waited_for_consumer(start.elapsed());
        taken
    }

    /// Kept samples that batch `step` takes from `stream`.
    fn due(&self, stream: Stream, step: u64) -> usize {
        self.spec.mix.at(self.epoch).shares.at(stream.source, stream.lane, step) as usize
    }

    /// Takes the kept samples of one step from every lane.
    fn batch_rows(&self, step: u64, feeds: &mut [LaneFeed]) -> Result<Vec<BatchRow>> {
        let (per_lane, shares) = (self.spec.per_lane(), &self.spec.mix.at(self.epoch).shares);
        let mut batch_rows = Vec::with_capacity(self.spec.config.batch_size);
        // Lane by lane, and in each source by source.
        for feeds in feeds.chunks_mut(shares.sources()) {
            let Some(lane) = feeds.first().map(|feed| feed.stream.lane) else { continue };
            let mut taken = Vec::with_capacity(feeds.len());
            for feed in feeds.iter_mut() {
                let (own, deferred) =
                    feed.take(self.due(feed.stream, step), self.spec.config.selection.defer_duplicates)?;
                if step >= self.first_step {
                    self.recorder.deferred.fetch_add(deferred, Ordering::Relaxed);
                }
                taken.push(own.into_iter());
            }
            for (slot, source) in shares.order(lane, step).into_iter().enumerate() {
                let global = (lane * per_lane + slot) as u64;
                let found = taken[source].next();
                let first = first_of(feeds, source)?;
                let kept = match found {
                    Some(kept) => {
                        if step < self.first_step {
                            self.recorder.replayed.fetch_add(1, Ordering::Relaxed);
                        }
                        kept
                    }
                    None => {
                        if step >= self.first_step {
                            self.recorder.repeat(lane);
                        }
                        self.repeat(lane, &first, step, global, 0)?
                    }
                };
                batch_rows.push(BatchRow { kept, filler: Filler::Own, lane, first, global });
            }
        }
        Ok(batch_rows)
    }

    /// One of the lane's first kept samples, chosen by the row and the attempt.
    fn repeat(
        &self,
        lane: usize,
        first: &[Arc<Kept>],
        step: u64,
        global: u64,
        attempt: u64,
    ) -> Result<Arc<Kept>> {
        if first.is_empty() {
            return Err(self.empty(lane));
        }
        let key = hash::combine(&[self.epoch, step, global, attempt]);
        let choice = hash::hash(self.spec.config.seed, Purpose::Repeat, key) % first.len() as u64;
        Ok(Arc::clone(&first[choice as usize]))
    }

    /// The error of a lane that has nothing to give: what became of its samples.
    fn empty(&self, lane: usize) -> Error {
        let LaneCounts { counts, .. } = self.recorder.lane(lane);
        let advice = match self.spec.config.mode {
            Mode::Reduced
                if counts.dropped_gate > 0
                    && counts.dropped_gate + counts.failures() + counts.excluded == counts.read =>
            {
                "the gate drops all that can be used: widen it, or fit the captioner to this corpus"
            }
            Mode::Reduced => "use fewer lanes, or a larger keep_ratio",
            Mode::Full | Mode::Eval => "use fewer lanes, or mend the shards",
        };
        let found = if counts.read == 0 {
            "its part of the shards holds none: are the lengths right?".to_owned()
        } else {
            format!("of {} that were read for it {}", counts.read, counts.in_words(&self.spec.excluded_by()))
        };
        Error::no_samples(format!(
            "lane {lane} of {} has none to give in epoch {}: {found}; {advice}",
            self.spec.lanes, self.epoch
        ))
    }

    /// Counts the kept samples that proved undecodable, and fills their batch_rows with others.
    fn complete(&self, filling: &Filling<'_>, filled: Filled) -> Result<Batch> {
        let Filled { mut batch_rows, mut batch, mut captions, mut failed } = filled;
        let mut attempt = 0;
        while !failed.is_empty() {
            let mut todo = Vec::with_capacity(failed.len());
            for (row, error) in failed {
                let batch_row = &mut batch_rows[row];
                // One that is counted has, or had, a row of its own that something else fills.
                if self.late_failure(batch_row.lane, &batch_row.kept, error)? {
                    self.recorder.repeat(batch_row.lane);
                }
                attempt_limit(attempt, &batch_row.kept)?;
                batch_row.kept =
                    self.repeat(batch_row.lane, &batch_row.first, batch.step, batch_row.global, attempt + 1)?;
                todo.push(row);
            }
            attempt += 1;
            failed = filling.decode(&batch_rows, &todo, &mut batch, &mut captions, self.slot)?;
        }
        self.describe(&mut batch, &batch_rows, captions)?;
        self.count_yielded(&batch_rows);
        Ok(batch)
    }

    /// Counts what a batch is made of.
    pub(crate) fn count_yielded(&self, batch_rows: &[BatchRow]) {
        let own = || batch_rows.iter().filter(|batch_row| batch_row.filler == Filler::Own);
        let rows = own().count();
        self.recorder.yielded.fetch_add(rows as u64, Ordering::Relaxed);
        self.recorder.padded.fetch_add((batch_rows.len() - rows) as u64, Ordering::Relaxed);
        own().for_each(|batch_row| self.recorder.yielded_of(batch_row.kept.source));
    }

    /// Copies what is known of the kept samples into the batch, and counts what it amounts to.
    ///
    /// # Errors
    /// Json that waits in a file cannot be read back; no memory.
    pub(crate) fn describe(
        &self,
        batch: &mut Batch,
        batch_rows: &[BatchRow],
        captions: Vec<String>,
    ) -> Result<()> {
        describe(batch, batch_rows, captions)?;
        batch.policy = self.spec.policy;
        for (name, at) in &self.spec.score_columns {
            let score = |row: &BatchRow| {
                // Tables of another source, which may have other columns.
                let Some(scores) = &row.kept.read.scores else { return f32::NAN };
                let own =
                    if scores.columns().nth(*at) == Some(name) { Some(*at) } else { scores.column(name) };
                let attached = row.kept.sample.attached.as_ref();
                attached.and_then(|attached| attached.scores.get(own?)).copied().unwrap_or(f32::NAN)
            };
            batch.scores.insert(Arc::clone(name), batch_rows.iter().map(score).collect());
        }
        for (at, name) in self.spec.config.fields.iter().enumerate() {
            let value = |row: &BatchRow| {
                let attached = row.kept.sample.attached.as_ref();
                attached.and_then(|attached| attached.fields.get(at)).cloned().unwrap_or_default()
            };
            batch.fields.insert(name.as_str().into(), batch_rows.iter().map(value).collect());
        }
        if self.spec.config.selection.weights {
            let mut weights = HostArray::zeros(&[batch.len()])?;
            for (weight, (pi, batch_row)) in
                weights.as_mut_slice().iter_mut().zip(batch.pi.iter().zip(batch_rows))
            {
                // Without a probability nothing was selected: it was there for certain.
                *weight = if batch_row.filler == Filler::Own { pi.map_or(1.0, |pi| 1.0 / pi) } else { 0.0 };
            }
            batch.weights = Some(weights);
        }
        let rows = batch_rows.iter().zip(batch.pi.iter().zip(&batch.captions));
        let own = rows.filter(|(batch_row, _)| batch_row.filler == Filler::Own);
        self.recorder.batch(
            own.map(|(batch_row, (pi, caption))| (*pi, caption.as_str(), batch_row.kept.semantic_hash)),
        );
        Ok(())
    }

    /// Counts a kept sample that proved undecodable; `false` where it was counted before.
    pub(crate) fn late_failure(&self, lane: usize, kept: &Kept, error: ImageError) -> Result<bool> {
        if !self.undecodable.borrow_mut().insert((kept.pass, kept.sample.id)) {
            return Ok(false);
        }
        let failed = failed_image(&kept.sample, error);
        if self.spec.config.runtime.on_error == OnError::Raise {
            return Err(raised(&failed).in_shard(&kept.shard));
        }
        self.recorder.failed_late(lane, &kept.shard, &failed, self.spec.max_errors)?;
        Ok(true)
    }
}

/// Lanes decide what is left before an epoch's last batch is handed over, so that with it every sample of the epoch
/// is counted and recorded: few training loops ask for a batch more.
fn decide_the_rest(feeds: &mut [LaneFeed]) -> Result<()> {
    for feed in feeds {
        while feed.next()?.is_some() {}
    }
    Ok(())
}

/// What fills the batch_rows that a lane's source has no kept sample for: its first kept samples, or where it has none
/// at all, those of another source of the lane.
fn first_of(feeds: &mut [LaneFeed], source: usize) -> Result<Arc<[Arc<Kept>]>> {
    if feeds[source].first.is_empty() {
        for feed in feeds.iter_mut() {
            feed.load()?;
            if !feed.first.is_empty() {
                return Ok(Arc::clone(&feed.first));
            }
        }
    }
    Ok(Arc::clone(&feeds[source].first))
}

/// Gives up when replacement after replacement cannot be decoded.
fn attempt_limit(attempt: u64, kept: &Kept) -> Result<()> {
    if attempt < 4 * REPEAT_POOL as u64 {
        return Ok(());
    }
    let detail = format!(
        "none of the {attempt} that were tried instead of key {} can be decoded; mend the shards, or use fewer \
         lanes",
        kept.sample.key
    );
    Err(Error::no_samples(detail).in_shard(&kept.shard))
}

/// Copies what is known of the kept samples into the batch.
///
/// # Errors
/// Json that waits in a file cannot be read back.
fn describe(batch: &mut Batch, batch_rows: &[BatchRow], captions: Vec<String>) -> Result<()> {
    for (valid, batch_row) in batch.valid.as_mut_slice().iter_mut().zip(batch_rows) {
        *valid = batch_row.filler == Filler::Own;
    }
    batch_rows.iter().try_for_each(|batch_row| batch.rows.push(&batch_row.kept))?;
    batch.captions = captions;
    Ok(())
}
