//! The assembling stage: every global batch takes the same number of survivors from every lane.
//!
//! Survivors are decoded straight into the memory of the batch, on the pool. A place that lacks a
//! survivor (the lane ran out, or an image proved undecodable) is filled with one of the lane's
//! first survivors, chosen by hash(seed, epoch, step, place): a function of the place alone, so
//! that a resumed run fills it alike.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use half::bf16;
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::{self, Purpose};
use crate::image::ImageError;
use crate::loader::batch::{Batch, Images};
use crate::loader::deciding::{Survivor, SurvivorGroup, failed_image, with_scratch};
use crate::loader::pipeline::{Message, receive};
use crate::loader::reading::raised;
use crate::loader::recorder::Recorder;
use crate::loader::spec::{Mode, OnError, Spec};
use crate::loader::stats::Stage;

/// First survivors of a lane that are held to fill places.
const REPEAT_POOL: usize = 64;

/// The survivors of one lane, one by one.
pub(crate) struct LaneFeed {
    lane: usize,
    groups: Receiver<Message<SurvivorGroup>>,
    queue: VecDeque<Arc<Survivor>>,
    first: Vec<Arc<Survivor>>,
    ended: bool,
}

impl LaneFeed {
    pub(crate) fn new(lane: usize, groups: Receiver<Message<SurvivorGroup>>) -> Self {
        Self { lane, groups, queue: VecDeque::new(), first: vec![], ended: false }
    }

    fn next(&mut self) -> Result<Option<Arc<Survivor>>> {
        while self.queue.is_empty() && !self.ended {
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
        Ok(self.queue.pop_front())
    }
}

/// One place of a batch on its way to being filled.
struct Place {
    survivor: Arc<Survivor>,
    /// Index of its lane's feed.
    feed: usize,
    /// Index of the place in the global batch.
    global: u64,
}

/// What the assembling stage needs.
pub(crate) struct Assembling<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) epoch: u64,
    pub(crate) first_step: u64,
    pub(crate) recorder: &'a Recorder,
}

impl Assembling<'_> {
    /// Makes all batches of the epoch from `first_step` on.
    pub(crate) fn run(&self, mut feeds: Vec<LaneFeed>, out: &Sender<Message<Batch>>) -> Result<()> {
        if self.spec.mode == Mode::Eval {
            return self.run_eval(&mut feeds, out);
        }
        for step in 0..self.spec.num_batches {
            let places = self.places(step, &mut feeds)?;
            if step < self.first_step {
                continue;
            }
            let batch = self.fill(step, places, &feeds)?;
            self.recorder.yielded.fetch_add(batch.len() as u64, Ordering::Relaxed);
            if !self.hand_over(batch, out) {
                return Ok(());
            }
        }
        // Lanes go on deciding what is left, so that every sample of the epoch is counted.
        for feed in &mut feeds {
            while feed.next()?.is_some() {}
        }
        let _ = out.send(Message::End);
        Ok(())
    }

    /// Sends a batch and counts the time it waited; `false` when nobody takes batches any more.
    fn hand_over(&self, batch: Batch, out: &Sender<Message<Batch>>) -> bool {
        let start = Instant::now();
        let taken = out.send(Message::Item(batch)).is_ok();
        self.recorder.add_time(Stage::WaitConsumer, start.elapsed());
        taken
    }

    /// Takes the survivors of one step from every lane.
    fn places(&self, step: u64, feeds: &mut [LaneFeed]) -> Result<Vec<Place>> {
        let per_lane = self.spec.per_lane();
        let mut places = Vec::with_capacity(self.spec.batch_size);
        for (f, feed) in feeds.iter_mut().enumerate() {
            for slot in 0..per_lane {
                let global = (feed.lane * per_lane + slot) as u64;
                let survivor = match feed.next()? {
                    Some(survivor) => {
                        if step < self.first_step {
                            self.recorder.replayed.fetch_add(1, Ordering::Relaxed);
                        }
                        survivor
                    }
                    None => {
                        if step >= self.first_step {
                            self.recorder.repeats.fetch_add(1, Ordering::Relaxed);
                        }
                        self.repeat(feed, step, global, 0)?
                    }
                };
                places.push(Place { survivor, feed: f, global });
            }
        }
        Ok(places)
    }

    /// One of the lane's first survivors, chosen by the place and the attempt.
    fn repeat(&self, feed: &LaneFeed, step: u64, global: u64, attempt: u64) -> Result<Arc<Survivor>> {
        if feed.first.is_empty() {
            let given = format!("{} (lane {} of this epoch)", self.spec.lanes, feed.lane);
            let accepted = "every lane needs at least one survivor; use fewer lanes or a larger keep_ratio";
            return Err(Error::option("lanes", given, accepted));
        }
        let place = hash::combine(&[self.epoch, step, global, attempt]);
        let choice = hash::hash(self.spec.seed, Purpose::Repeat, place) % feed.first.len() as u64;
        Ok(Arc::clone(&feed.first[choice as usize]))
    }

    /// Decodes the survivors of a batch; undecodable ones are counted and replaced.
    fn fill(&self, step: u64, mut places: Vec<Place>, feeds: &[LaneFeed]) -> Result<Batch> {
        let mut batch = self.allocate(step, places.len())?;
        let mut todo: Vec<usize> = (0..places.len()).collect();
        let mut attempt = 0;
        let mut captions = vec![String::new(); places.len()];
        while !todo.is_empty() {
            let survivors: Vec<&Survivor> = places.iter().map(|p| &*p.survivor).collect();
            let failed = self.decode(&survivors, &todo, &mut batch, &mut captions);
            todo = Vec::with_capacity(failed.len());
            for (row, error) in failed {
                if attempt == 0 {
                    self.late_failure(&places[row].survivor, error)?;
                    self.recorder.repeats.fetch_add(1, Ordering::Relaxed);
                }
                attempt_limit(attempt, &places[row].survivor)?;
                let feed = &feeds[places[row].feed];
                places[row].survivor = self.repeat(feed, step, places[row].global, attempt + 1)?;
                todo.push(row);
            }
            attempt += 1;
        }
        describe(&mut batch, places.iter().map(|p| &*p.survivor), captions);
        Ok(batch)
    }

    /// Mode `Eval`: every readable sample once, in order, and a short last batch.
    fn run_eval(&self, feeds: &mut [LaneFeed], out: &Sender<Message<Batch>>) -> Result<()> {
        let mut step = 0;
        let mut rows: Vec<Arc<Survivor>> = vec![];
        loop {
            while rows.len() < self.spec.batch_size {
                let mut next = None;
                for feed in feeds.iter_mut() {
                    next = feed.next()?;
                    if next.is_some() {
                        break;
                    }
                }
                let Some(survivor) = next else { break };
                rows.push(survivor);
            }
            if rows.is_empty() {
                let _ = out.send(Message::End);
                return Ok(());
            }
            let full = rows.len() == self.spec.batch_size;
            let mut batch = self.allocate(step, rows.len())?;
            let mut captions = vec![String::new(); rows.len()];
            let survivors: Vec<&Survivor> = rows.iter().map(|s| &**s).collect();
            let all: Vec<usize> = (0..rows.len()).collect();
            let failed = self.decode(&survivors, &all, &mut batch, &mut captions);
            if !failed.is_empty() {
                // Leave the failed ones out and fill up from the stream.
                let mut gone = vec![false; rows.len()];
                for (row, error) in failed {
                    self.late_failure(&rows[row], error)?;
                    gone[row] = true;
                }
                let mut gone = gone.into_iter();
                rows.retain(|_| !gone.next().unwrap_or(false));
                continue;
            }
            describe(&mut batch, rows.iter().map(|s| &**s), captions);
            if step >= self.first_step {
                self.recorder.yielded.fetch_add(batch.len() as u64, Ordering::Relaxed);
                if !self.hand_over(batch, out) {
                    return Ok(());
                }
            } else {
                self.recorder.replayed.fetch_add(rows.len() as u64, Ordering::Relaxed);
            }
            rows.clear();
            step += 1;
            if !full {
                let _ = out.send(Message::End);
                return Ok(());
            }
        }
    }

    fn allocate(&self, step: u64, rows: usize) -> Result<Batch> {
        let spec = self.spec;
        let context = spec.tokenizer.as_ref().map(|_| spec.context_length);
        Batch::allocate(self.epoch, step, rows, spec.pipeline.size(), spec.pixels, context)
    }

    fn late_failure(&self, survivor: &Survivor, error: ImageError) -> Result<()> {
        let failed = failed_image(&survivor.sample, error);
        if self.spec.on_error == OnError::Raise {
            return Err(raised(&failed).in_shard(&survivor.shard));
        }
        self.recorder.failed_late(&survivor.shard, &failed, self.spec.max_errors)
    }

    /// Decodes, transforms, fuses and tokenises the rows of `todo` into their places of `batch`.
    /// Returns the rows that failed, in order.
    fn decode(
        &self,
        survivors: &[&Survivor],
        todo: &[usize],
        batch: &mut Batch,
        captions: &mut [String],
    ) -> Vec<(usize, ImageError)> {
        let spec = self.spec;
        let mut wanted = vec![false; survivors.len()];
        for &row in todo {
            wanted[row] = true;
        }
        let context = if batch.tokens.is_some() { spec.context_length } else { 0 };
        let mut no_tokens = vec![];
        let tokens: Vec<&mut [i64]> = match &mut batch.tokens {
            Some(tokens) if context > 0 => tokens.as_mut_slice().chunks_mut(context).collect(),
            _ => {
                no_tokens.resize_with(survivors.len(), || [0i64; 0]);
                no_tokens.iter_mut().map(|t| &mut t[..]).collect()
            }
        };
        let pixels: Vec<Pixels<'_>> = match &mut batch.images {
            Images::F32(a) => {
                let row = a.row_len();
                a.as_mut_slice().chunks_mut(row).map(Pixels::F32).collect()
            }
            Images::Bf16(a) => {
                let row = a.row_len();
                a.as_mut_slice().chunks_mut(row).map(Pixels::Bf16).collect()
            }
            Images::U8(a) => {
                let row = a.row_len();
                a.as_mut_slice().chunks_mut(row).map(Pixels::U8).collect()
            }
        };
        let mut failed: Vec<(usize, ImageError)> = spec.pool.install(|| {
            (survivors.par_iter(), pixels, tokens, captions)
                .into_par_iter()
                .enumerate()
                .filter(|(row, _)| wanted[*row])
                .filter_map(|(row, (survivor, pixels, tokens, caption))| {
                    self.recorder
                        .time(Stage::Example, || self.example(survivor, pixels, tokens, caption))
                        .err()
                        .map(|error| (row, error))
                })
                .collect()
        });
        failed.sort_by_key(|(row, _)| *row);
        failed
    }

    /// Makes one example. Random choices depend on the seed, the epoch and the sample only.
    fn example(
        &self,
        survivor: &Survivor,
        pixels: Pixels<'_>,
        tokens: &mut [i64],
        caption: &mut String,
    ) -> Result<(), ImageError> {
        let spec = self.spec;
        let id = hash::combine(&[self.epoch, survivor.sample.id.0]);
        let mut rng = hash::Rng::new(spec.seed, Purpose::Augment, id);
        let bytes = &survivor.sample.image;
        with_scratch(|scratch| match pixels {
            Pixels::F32(out) => spec.pipeline.load(bytes, &spec.decode, &mut rng, scratch, out),
            Pixels::Bf16(out) => spec.pipeline.load(bytes, &spec.decode, &mut rng, scratch, out),
            Pixels::U8(out) => spec.pipeline.load(bytes, &spec.decode, &mut rng, scratch, out),
        })?;
        *caption = spec.fuse.fuse(
            spec.tokenizer.as_ref(),
            spec.context_length,
            &survivor.sample.caption,
            survivor.generated.as_deref(),
            survivor.alignment,
        );
        if let Some(tokenizer) = &spec.tokenizer {
            tokenizer.encode_clip(caption, tokens);
        }
        Ok(())
    }
}

/// The place of one image in the memory of a batch.
enum Pixels<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    U8(&'a mut [u8]),
}

/// Gives up when replacement after replacement cannot be decoded.
fn attempt_limit(attempt: u64, survivor: &Survivor) -> Result<()> {
    if attempt < 4 * REPEAT_POOL as u64 {
        return Ok(());
    }
    let detail = format!(
        "no decodable survivor was found in {attempt} attempts to fill the place of key {}",
        survivor.sample.key
    );
    Err(Error::from(ErrorKind::Shard { detail }).in_shard(&survivor.shard))
}

/// Copies what is known of the survivors into the batch.
fn describe<'s>(batch: &mut Batch, survivors: impl Iterator<Item = &'s Survivor>, captions: Vec<String>) {
    for survivor in survivors {
        batch.ids.push(survivor.sample.id);
        batch.keys.push(Arc::clone(&survivor.sample.key));
        batch.json.push(survivor.sample.json.clone());
        batch.clusters.push(survivor.cluster);
        batch.alignment.push(survivor.alignment);
        batch.pi.push(survivor.pi);
        batch.original.push(survivor.sample.caption.clone());
        batch.generated.push(survivor.generated.clone());
    }
    batch.captions = captions;
}
