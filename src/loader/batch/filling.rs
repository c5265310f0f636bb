//! The filling of batches: kept samples are decoded straight into the memory of their batch.
//!
//! Two batches are made at a time and come out in order, so that neither the memory of a batch nor
//! its last, slowest image keeps the pool of pixel threads waiting.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::{Receiver, Sender, bounded};
use half::bf16;
use rayon::prelude::*;

use crate::error::Result;
use crate::hash::Purpose;
use crate::image::ImageError;
use crate::loader::batch::arrays::{Batch, Images};
use crate::loader::batch::row::{BatchRow, Filler};
use crate::loader::channel::panic_message;
use crate::loader::decide::captions::caption_of;
use crate::loader::decide::previews::with_scratch;
use crate::loader::kept::Kept;
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::watchdog::{Doing, Post, Slot};
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;

/// Batches that are made at a time.
const AT_A_TIME: usize = 2;

/// A batch whose batch_rows were decoded, as far as they can be.
pub(crate) struct Filled {
    pub(crate) batch_rows: Vec<BatchRow>,
    pub(crate) batch: Batch,
    pub(crate) captions: Vec<String>,
    /// The rows that cannot be decoded, in order.
    pub(crate) failed: Vec<(usize, ImageError)>,
}

/// A batch to be made, and whom to send it to.
struct Job {
    step: u64,
    batch_rows: Vec<BatchRow>,
    reply: Sender<Result<Filled>>,
}

/// Batches on their way, in order.
pub(crate) struct Ordered<'a> {
    jobs: Sender<Job>,
    running: VecDeque<(u64, Receiver<Result<Filled>>)>,
    slot: &'a Slot,
}

impl Ordered<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether another batch can be begun without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < AT_A_TIME
    }

    /// Begins a batch.
    pub(crate) fn start(&mut self, step: u64, batch_rows: Vec<BatchRow>) -> Result<()> {
        let (reply, filled) = bounded(1);
        self.jobs.send(Job { step, batch_rows, reply }).map_err(|_| Stage::Example.gone())?;
        self.running.push_back((step, filled));
        Ok(())
    }

    /// Waits for the batch that was begun first; `None` where there is none.
    pub(crate) fn next(&mut self) -> Result<Option<Filled>> {
        let Some((step, first)) = self.running.pop_front() else { return Ok(None) };
        let _mark = self.slot.mark(Doing::Await(Post::example(step)));
        first.recv().map_err(|_| Stage::Example.gone())?.map(Some)
    }
}

/// What making examples takes.
pub(crate) struct Filling<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) epoch: u64,
    pub(crate) recorder: &'a Recorder,
    /// Where the stage that takes the examples says what it waits for.
    pub(crate) slot: &'a Slot,
}

impl Filling<'_> {
    /// Runs `work` beside threads that make the batches it begins.
    pub(crate) fn two_at_a_time<T>(&self, work: impl FnOnce(&mut Ordered<'_>) -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            let (jobs, todo) = bounded::<Job>(AT_A_TIME);
            for i in 0..AT_A_TIME {
                let todo = todo.clone();
                let fill = move || {
                    for Job { step, batch_rows, reply } in todo {
                        let filled = catch_unwind(AssertUnwindSafe(|| self.fill(step, batch_rows)));
                        let filled =
                            filled.unwrap_or_else(|panic| Err(Stage::Example.died(panic_message(&*panic))));
                        let _ = reply.send(filled); // nobody waits any more: the epoch was dropped
                    }
                };
                let thread = Stage::Example.thread(&i.to_string());
                thread.spawn_scoped(scope, fill).map_err(|e| Stage::Example.unstarted(e))?;
            }
            drop(todo); // theirs alone, so that a job cannot wait for threads that are gone
            // Dropped at the end of `work`, which ends the threads.
            work(&mut Ordered { jobs, running: VecDeque::new(), slot: self.slot })
        })
    }

    /// Decodes all of a batch.
    fn fill(&self, step: u64, batch_rows: Vec<BatchRow>) -> Result<Filled> {
        let spec = self.spec;
        let context = spec.tokenizer.as_ref().map(|_| spec.config.captions.context_length);
        let size = spec.pipeline.size();
        let rows = batch_rows.len();
        let mut batch =
            Batch::allocate(self.epoch, step, rows, size, spec.config.images.dtype, context, &spec.stock)?;
        let mut captions = vec![String::new(); batch_rows.len()];
        let all: Vec<usize> = (0..batch_rows.len()).collect();
        let slot = self.recorder.board.post(Post::example(step));
        let _mark = slot.mark(Doing::Work("decodes the images of a batch", None));
        let failed = self.decode(&batch_rows, &all, &mut batch, &mut captions, &slot)?;
        Ok(Filled { batch_rows, batch, captions, failed })
    }

    /// Decodes, transforms, fuses and tokenises the rows of `todo` into their batch_rows of `batch`.
    /// Returns the rows that failed, in order. `slot` is told of each.
    ///
    /// # Errors
    /// Images that wait in files cannot be read back.
    pub(crate) fn decode(
        &self,
        batch_rows: &[BatchRow],
        todo: &[usize],
        batch: &mut Batch,
        captions: &mut [String],
        slot: &Slot,
    ) -> Result<Vec<(usize, ImageError)>> {
        let spec = self.spec;
        let mut wanted = vec![false; batch_rows.len()];
        for &row in todo {
            wanted[row] = true;
        }
        let context = if batch.tokens.is_some() { spec.config.captions.context_length } else { 0 };
        let mut no_tokens = vec![];
        let tokens: Vec<&mut [i64]> = match &mut batch.tokens {
            Some(tokens) if context > 0 => tokens.as_mut_slice().chunks_mut(context).collect(),
            _ => {
                no_tokens.resize_with(batch_rows.len(), || [0i64; 0]);
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
        let mut failed: Vec<(usize, ImageError)> = spec.pool.install(|| -> Result<_> {
            (batch_rows, pixels, tokens, captions)
                .into_par_iter()
                .enumerate()
                .filter(|(row, _)| wanted[*row])
                .filter_map(|(row, (batch_row, pixels, tokens, caption))| {
                    slot.tick();
                    if batch_row.filler == Filler::Blank {
                        self.blank(pixels, tokens);
                        return None;
                    }
                    let bytes = match batch_row.kept.image.bytes() {
                        Ok(bytes) => bytes,
                        Err(error) => return Some(Err(error)),
                    };
                    self.recorder
                        .time(Stage::Example, || {
                            self.example(&batch_row.kept, &bytes, pixels, tokens, caption)
                        })
                        .err()
                        .map(|error| Ok((row, error)))
                })
                .collect()
        })?;
        failed.sort_by_key(|(row, _)| *row);
        Ok(failed)
    }

    /// Makes the example of no sample: pixels of 0, and the tokens of an empty caption, which no text encoder fails at.
    fn blank(&self, pixels: Pixels<'_>, tokens: &mut [i64]) {
        match pixels {
            Pixels::F32(out) => out.fill(0.0),
            Pixels::Bf16(out) => out.fill(bf16::ZERO),
            Pixels::U8(out) => out.fill(0),
        }
        if let Some(tokenizer) = &self.spec.tokenizer {
            tokenizer.encode("", tokens);
        }
    }

    /// Makes one example. Random choices depend on the seed, the pass and the sample only.
    fn example(
        &self,
        kept: &Kept,
        bytes: &[u8],
        pixels: Pixels<'_>,
        tokens: &mut [i64],
        caption: &mut String,
    ) -> Result<(), ImageError> {
        let spec = self.spec;
        let mut rng = kept.moment(spec.config.seed).rng(Purpose::Augment);
        with_scratch(|scratch| match pixels {
            Pixels::F32(out) => spec.pipeline.load(bytes, &spec.decode, &mut rng, scratch, out),
            Pixels::Bf16(out) => spec.pipeline.load(bytes, &spec.decode, &mut rng, scratch, out),
            Pixels::U8(out) => spec.pipeline.load(bytes, &spec.decode, &mut rng, scratch, out),
        })?;
        *caption = caption_of(spec, kept, self.epoch);
        if let Some(tokenizer) = &spec.tokenizer {
            tokenizer.encode(caption, tokens);
        }
        Ok(())
    }
}

/// Where one image goes in the memory of a batch.
enum Pixels<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    U8(&'a mut [u8]),
}
