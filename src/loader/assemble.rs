//! The assembling stage: every global batch takes the same number of survivors from every lane, and of every
//! source its share.
//!
//! Which survivor takes which place is decided here, one batch after the other; `filling` makes the
//! examples, two batches at a time. A place that lacks a
//! survivor (the lane ran out, or an image proved undecodable) is filled with one of the lane's
//! first survivors, chosen by hash(seed, epoch, step, place): a function of the place alone, so
//! that a resumed run fills it alike.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, Result};
use crate::hash::{self, Purpose};
use crate::image::ImageError;
use crate::loader::batch::Batch;
use crate::loader::deciding::{Survivor, SurvivorGroup, failed_image};
use crate::loader::deferring::Deferring;
use crate::loader::device::HostArray;
use crate::loader::filling::{Filled, Filling, Ordered};
use crate::loader::pipeline::{Message, receive};
use crate::loader::reading::raised;
use crate::loader::recorder::Recorder;
use crate::loader::spec::{Mode, OnError, Spec, Stream};
use crate::loader::stats::{LaneCounts, Stage};
use crate::loader::watchdog::{Doing, Post, Slot};

/// First survivors of a lane that are held to fill places.
const REPEAT_POOL: usize = 64;

/// The survivors that one lane has of one source, one by one.
pub(crate) struct LaneFeed {
    stream: Stream,
    groups: Receiver<Message<SurvivorGroup>>,
    queue: VecDeque<Arc<Survivor>>,
    deferring: Deferring<Arc<Survivor>>,
    first: Arc<[Arc<Survivor>]>,
    ended: bool,
    slot: Arc<Slot>,
}

impl LaneFeed {
    /// `slot`: where the stage that takes them says what it waits for.
    pub(crate) fn new(stream: Stream, groups: Receiver<Message<SurvivorGroup>>, slot: &Arc<Slot>) -> Self {
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

    fn next(&mut self) -> Result<Option<Arc<Survivor>>> {
        self.load()?;
        Ok(self.queue.pop_front())
    }

    /// Waits until there is a survivor to take, or none will come.
    fn load(&mut self) -> Result<()> {
        while self.queue.is_empty() && !self.ended {
            let _mark = self.slot.mark(Doing::Await(Post::Decide(self.stream)));
            match receive(&self.groups, "select")? {
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

    /// The next `n` survivors, or as many as there are, none of them like another where `defer` is on and
    /// it can be helped; and how many that put off.
    fn take(&mut self, n: usize, defer: bool) -> Result<(Vec<Arc<Survivor>>, u64)> {
        let mut deferring = std::mem::take(&mut self.deferring);
        let taken = if defer {
            deferring.take(n, || self.next())
        } else {
            (0..n).map_while(|_| self.next().transpose()).collect::<Result<_>>().map(|taken| (taken, 0))
        };
        self.deferring = deferring;
        taken
    }

    /// Whether `n` survivors can be taken without waiting, as far as can be told.
    fn has(&self, n: usize) -> bool {
        self.deferring.len() + self.queue.len() >= n || self.ended || !self.groups.is_empty()
    }
}

/// One place of a batch on its way to being filled.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) survivor: Arc<Survivor>,
    lane: usize,
    /// The lane's first survivors.
    first: Arc<[Arc<Survivor>]>,
    /// Index of the place in the global batch.
    global: u64,
}

/// What the assembling stage needs.
pub(crate) struct Assembling<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) epoch: u64,
    pub(crate) first_step: u64,
    pub(crate) recorder: &'a Recorder,
    /// Where it says what it does.
    pub(crate) slot: &'a Slot,
    /// Survivors that proved undecodable: each is counted once, whatever places it was to fill.
    pub(crate) undecodable: RefCell<HashSet<u64>>,
}

impl Assembling<'_> {
    /// Makes all batches of the epoch from `first_step` on.
    pub(crate) fn run(&self, mut feeds: Vec<LaneFeed>, out: &Sender<Message<Batch>>) -> Result<()> {
        let _mark = self.slot.mark(Doing::Work("puts batches together", None));
        let filling =
            Filling { spec: self.spec, epoch: self.epoch, recorder: self.recorder, slot: self.slot };
        filling.two_at_a_time(|ordered| match self.spec.mode {
            Mode::Eval => self.run_eval(ordered, &mut feeds, out),
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
        let mut steps = 0..self.spec.num_batches(self.epoch);
        loop {
            // While a lane would have to be waited for, what is being made goes out first.
            let may_wait =
                ordered.is_empty() || feeds.iter().all(|feed| feed.has(self.due(feed.stream, steps.start)));
            let next = if ordered.has_room() && may_wait { steps.next() } else { None };
            if let Some(step) = next {
                let places = self.places(step, feeds)?;
                if step >= self.first_step {
                    ordered.start(step, places)?;
                }
            } else if let Some(filled) = ordered.next()? {
                let batch = self.complete(filling, filled)?;
                if !self.hand_over(batch, out) {
                    return Ok(());
                }
            } else {
                break;
            }
        }
        // Lanes go on deciding what is left, so that every sample of the epoch is counted.
        for feed in feeds {
            while feed.next()?.is_some() {}
        }
        let _ = out.send(Message::End);
        Ok(())
    }

    /// Sends a batch and counts the time it waited; `false` when nobody takes batches any more.
    fn hand_over(&self, batch: Batch, out: &Sender<Message<Batch>>) -> bool {
        let start = Instant::now();
        let _mark = self.slot.mark(Doing::Offer);
        let taken = out.send(Message::Item(batch)).is_ok();
        self.recorder.add_time(Stage::WaitConsumer, start.elapsed());
        taken
    }

    /// Survivors that batch `step` takes from `stream`.
    fn due(&self, stream: Stream, step: u64) -> usize {
        self.spec.mix.at(self.epoch).shares.at(stream.source, stream.lane, step) as usize
    }

    /// Takes the survivors of one step from every lane.
    fn places(&self, step: u64, feeds: &mut [LaneFeed]) -> Result<Vec<Place>> {
        let (per_lane, shares) = (self.spec.per_lane(), &self.spec.mix.at(self.epoch).shares);
        let mut places = Vec::with_capacity(self.spec.batch_size);
        // Lane by lane, and in each source by source.
        for feeds in feeds.chunks_mut(shares.sources()) {
            let Some(lane) = feeds.first().map(|feed| feed.stream.lane) else { continue };
            let mut taken = Vec::with_capacity(feeds.len());
            for feed in feeds.iter_mut() {
                let (own, deferred) = feed.take(self.due(feed.stream, step), self.spec.defer_duplicates)?;
                if step >= self.first_step {
                    self.recorder.deferred.fetch_add(deferred, Ordering::Relaxed);
                }
                taken.push(own.into_iter());
            }
            for (slot, source) in shares.order(lane, step).into_iter().enumerate() {
                let global = (lane * per_lane + slot) as u64;
                let found = taken[source].next();
                let first = first_of(feeds, source)?;
                let survivor = match found {
                    Some(survivor) => {
                        if step < self.first_step {
                            self.recorder.replayed.fetch_add(1, Ordering::Relaxed);
                        }
                        survivor
                    }
                    None => {
                        if step >= self.first_step {
                            self.recorder.repeat(lane);
                        }
                        self.repeat(lane, &first, step, global, 0)?
                    }
                };
                places.push(Place { survivor, lane, first, global });
            }
        }
        Ok(places)
    }

    /// One of the lane's first survivors, chosen by the place and the attempt.
    fn repeat(
        &self,
        lane: usize,
        first: &[Arc<Survivor>],
        step: u64,
        global: u64,
        attempt: u64,
    ) -> Result<Arc<Survivor>> {
        if first.is_empty() {
            return Err(self.empty(lane));
        }
        let place = hash::combine(&[self.epoch, step, global, attempt]);
        let choice = hash::hash(self.spec.seed, Purpose::Repeat, place) % first.len() as u64;
        Ok(Arc::clone(&first[choice as usize]))
    }

    /// The error of a lane that has nothing to give: what became of its samples.
    fn empty(&self, lane: usize) -> Error {
        let LaneCounts { counts, .. } = self.recorder.lane(lane);
        let advice = match self.spec.mode {
            Mode::Reduced => "use fewer lanes, or a larger keep_ratio",
            Mode::Full | Mode::Eval => "use fewer lanes, or mend the shards",
        };
        let found = if counts.read == 0 {
            "its part of the shards holds none: are the lengths right?".to_owned()
        } else {
            format!(
                "of {} that were read for it {}",
                counts.read,
                counts.in_words(&self.spec.read.excluded_by())
            )
        };
        Error::no_samples(format!(
            "lane {lane} of {} has none to give in epoch {}: {found}; {advice}",
            self.spec.lanes, self.epoch
        ))
    }

    /// Counts the survivors that proved undecodable, and fills their places with others.
    fn complete(&self, filling: &Filling<'_>, filled: Filled) -> Result<Batch> {
        let Filled { mut places, mut batch, mut captions, mut failed } = filled;
        let mut attempt = 0;
        while !failed.is_empty() {
            let mut todo = Vec::with_capacity(failed.len());
            for (row, error) in failed {
                let place = &mut places[row];
                // One that is counted has, or had, a place of its own that something else fills.
                if self.late_failure(place.lane, &place.survivor, error)? {
                    self.recorder.repeat(place.lane);
                }
                attempt_limit(attempt, &place.survivor)?;
                place.survivor =
                    self.repeat(place.lane, &place.first, batch.step, place.global, attempt + 1)?;
                todo.push(row);
            }
            attempt += 1;
            failed = filling.decode(&places, &todo, &mut batch, &mut captions, self.slot)?;
        }
        self.describe(&mut batch, &places, captions)?;
        self.count_yielded(&places);
        Ok(batch)
    }

    /// Counts what a batch is made of.
    fn count_yielded(&self, places: &[Place]) {
        self.recorder.yielded.fetch_add(places.len() as u64, Ordering::Relaxed);
        places.iter().for_each(|place| self.recorder.yielded_of(place.survivor.source));
    }

    /// Mode `Eval`: every readable sample once, in order, and a short last batch.
    fn run_eval(
        &self,
        ordered: &mut Ordered<'_>,
        feeds: &mut [LaneFeed],
        out: &Sender<Message<Batch>>,
    ) -> Result<()> {
        let size = self.spec.batch_size;
        let mut step = 0;
        // Survivors that were taken and are in no batch.
        let mut waiting: VecDeque<Place> = VecDeque::new();
        loop {
            let may_wait = ordered.is_empty() || feeds.iter().all(|feed| feed.has(size));
            if ordered.has_room() && may_wait {
                while waiting.len() < size
                    && let Some(place) = next_place(feeds)?
                {
                    waiting.push_back(place);
                }
                let rows = waiting.len().min(size);
                if rows > 0 {
                    ordered.start(step + ordered.len() as u64, waiting.drain(..rows).collect())?;
                    continue;
                }
            }
            let Some(filled) = ordered.next()? else { break };
            if filled.failed.is_empty() {
                step += 1;
                if !self.yield_eval(filled, out)? {
                    return Ok(());
                }
                continue;
            }
            // Without the failed ones everything moves up: what was begun after them is begun anew.
            let mut gone = vec![false; filled.places.len()];
            for (row, error) in filled.failed {
                let Place { survivor, lane, .. } = &filled.places[row];
                self.late_failure(*lane, survivor, error)?;
                gone[row] = true;
            }
            let kept = filled.places.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(place, _)| place);
            let mut again: VecDeque<Place> = kept.collect();
            while let Some(later) = ordered.next()? {
                again.extend(later.places);
            }
            again.append(&mut waiting);
            waiting = again;
        }
        let _ = out.send(Message::End);
        Ok(())
    }

    /// Hands a batch of mode `Eval` over, or passes it over where it was handed over before;
    /// `false` when nobody takes batches any more.
    fn yield_eval(&self, filled: Filled, out: &Sender<Message<Batch>>) -> Result<bool> {
        let Filled { places, mut batch, captions, .. } = filled;
        let rows = places.len() as u64;
        if batch.step < self.first_step {
            self.recorder.replayed.fetch_add(rows, Ordering::Relaxed);
            return Ok(true);
        }
        self.describe(&mut batch, &places, captions)?;
        self.count_yielded(&places);
        Ok(self.hand_over(batch, out))
    }

    /// Copies what is known of the survivors into the batch, and counts what it amounts to.
    ///
    /// # Errors
    /// Json that waits in a file cannot be read back; no memory.
    fn describe(&self, batch: &mut Batch, places: &[Place], captions: Vec<String>) -> Result<()> {
        describe(batch, places, captions)?;
        batch.policy = self.spec.policy;
        if self.spec.weights {
            let mut weights = HostArray::zeros(&[batch.len()])?;
            for (weight, pi) in weights.as_mut_slice().iter_mut().zip(&batch.pi) {
                // Without a probability nothing was selected: it was there for certain.
                *weight = pi.map_or(1.0, |pi| 1.0 / pi);
            }
            batch.weights = Some(weights);
        }
        let images = places.iter().map(|place| place.survivor.semantic_hash);
        self.recorder.batch(&batch.pi, &batch.captions, images);
        Ok(())
    }

    /// Counts a survivor that proved undecodable; `false` where it was counted before.
    fn late_failure(&self, lane: usize, survivor: &Survivor, error: ImageError) -> Result<bool> {
        if !self.undecodable.borrow_mut().insert(survivor.moment()) {
            return Ok(false);
        }
        let failed = failed_image(&survivor.sample, error);
        if self.spec.on_error == OnError::Raise {
            return Err(raised(&failed).in_shard(&survivor.shard));
        }
        self.recorder.failed_late(lane, &survivor.shard, &failed, self.spec.max_errors)?;
        Ok(true)
    }
}

/// What fills the places that a lane's source has no survivor for: its first survivors, or where it has none
/// at all, those of another source of the lane.
fn first_of(feeds: &mut [LaneFeed], source: usize) -> Result<Arc<[Arc<Survivor>]>> {
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
fn attempt_limit(attempt: u64, survivor: &Survivor) -> Result<()> {
    if attempt < 4 * REPEAT_POOL as u64 {
        return Ok(());
    }
    let detail = format!(
        "none of the {attempt} that were tried in the place of key {} can be decoded; mend the shards, or use fewer \
         lanes",
        survivor.sample.key
    );
    Err(Error::no_samples(detail).in_shard(&survivor.shard))
}

/// Copies what is known of the survivors into the batch.
///
/// # Errors
/// Json that waits in a file cannot be read back.
fn describe(batch: &mut Batch, places: &[Place], captions: Vec<String>) -> Result<()> {
    for survivor in places.iter().map(|place| &place.survivor) {
        batch.ids.push(survivor.sample.id);
        batch.keys.push(Arc::clone(&survivor.sample.key));
        let json = survivor.json.as_ref().map(|json| json.bytes().map(Cow::into_owned));
        batch.json.push(json.transpose()?);
        batch.clusters.push(survivor.cluster);
        batch.alignment.push(survivor.alignment);
        batch.pi.push(survivor.pi);
        batch.original.push(survivor.sample.caption.clone());
        batch.generated.push(survivor.generated.clone());
        batch.judged.push(survivor.judged);
        batch.rescued.push(survivor.rescued);
    }
    batch.captions = captions;
    Ok(())
}

/// The next survivor of the first lane that has one.
fn next_place(feeds: &mut [LaneFeed]) -> Result<Option<Place>> {
    for feed in feeds {
        if let Some(survivor) = feed.next()? {
            let first = Arc::clone(&feed.first);
            return Ok(Some(Place { survivor, lane: feed.stream.lane, first, global: 0 }));
        }
    }
    Ok(None)
}
