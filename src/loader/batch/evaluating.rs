//! Mode `Eval`: every sample has its row, and a row is never another sample's.
//!
//! Batch n of a rank has the batch_rows n * batch_size to (n + 1) * batch_size of its lane. Where a sample cannot be used,
//! one process yields a row less. Several yield a row that is not real instead, and whole batches of them where a
//! rank has fewer samples than another: collectives of the loop that evaluates then meet everywhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;

use crate::error::Result;
use crate::loader::batch::arrays::Batch;
use crate::loader::batch::assemble::{Assembling, LaneFeed};
use crate::loader::batch::filling::{Filled, Filling, Ordered};
use crate::loader::batch::row::{BatchRow, Filler};
use crate::loader::buffer::Keeping;
use crate::loader::channel::Message;
use crate::loader::kept::Kept;
use crate::loader::stage::Stage;
use crate::sample::{Sample, SampleId};

impl Assembling<'_> {
    /// Makes all batches from `first_step` on.
    pub(crate) fn run_eval(
        &self,
        filling: &Filling<'_>,
        ordered: &mut Ordered<'_>,
        feeds: &mut [LaneFeed],
        out: &Sender<Message<Batch>>,
    ) -> Result<()> {
        let promised = self.spec.num_batches(self.epoch);
        let blank = Arc::new(self.blank()?);
        // A rank has one lane, and weights are refused.
        for feed in feeds {
            let mut next = 0;
            loop {
                let may_wait = ordered.is_empty() || feed.has(self.spec.config.batch_size);
                if ordered.has_room()
                    && may_wait
                    && let Some((step, batch_rows)) = self.next_rows(next, feed, &blank)?
                {
                    next = step + 1;
                    if step >= self.first_step {
                        ordered.start(step, batch_rows)?;
                    } else {
                        let own =
                            batch_rows.iter().filter(|batch_row| batch_row.filler == Filler::Own).count();
                        self.recorder.replayed.fetch_add(own as u64, Ordering::Relaxed);
                    }
                    continue;
                }
                let Some(filled) = ordered.next()? else { break };
                let completed =
                    self.recorder.time(Stage::Batch, || self.complete_eval(filling, filled, &blank))?;
                let Some(batch) = completed else { continue };
                if batch.step + 1 == promised {
                    // With the last batch everything is counted, and shards that are too long have been noticed.
                    feed.position()?;
                }
                if !self.hand_over(batch, out) {
                    return Ok(());
                }
            }
        }
        let _ = out.send(Message::End);
        Ok(())
    }

    /// The batch_rows of batch `next`, or on one process of the first after it that has a sample, and which that is;
    /// `None` at the end.
    fn next_rows(
        &self,
        next: u64,
        feed: &mut LaneFeed,
        blank: &Arc<Kept>,
    ) -> Result<Option<(u64, Vec<BatchRow>)>> {
        let rows = self.spec.config.batch_size as u64;
        let step = match feed.position()? {
            _ if self.spec.pads() => next,
            Some(position) => position / rows,
            None => return Ok(None),
        };
        if self.spec.pads() && step >= self.spec.num_batches(self.epoch) {
            return Ok(None);
        }
        let mut own = vec![];
        while let Some(kept) = feed.next_before((step + 1) * rows)? {
            own.push(kept);
        }
        let (lane, first) = (feed.lane(), feed.first());
        let filled = |row: u64, kept: Arc<Kept>, filler| BatchRow {
            kept,
            filler,
            lane,
            first: Arc::clone(&first),
            global: lane as u64 * rows + row,
        };
        let mut own = own.into_iter().peekable();
        let mut batch_rows = Vec::with_capacity(self.spec.config.batch_size);
        for row in 0..rows {
            if let Some(kept) = own.next_if(|kept| kept.position == step * rows + row) {
                batch_rows.push(filled(row, kept, Filler::Own));
            } else if self.spec.pads() {
                let (kept, filler) = stand_in(&first, row, 0, blank);
                batch_rows.push(filled(row, kept, filler));
            }
        }
        Ok(Some((step, batch_rows)))
    }

    /// Takes the rows out that could not be decoded, or puts others in; `None` where no row is left.
    fn complete_eval(
        &self,
        filling: &Filling<'_>,
        filled: Filled,
        blank: &Arc<Kept>,
    ) -> Result<Option<Batch>> {
        let Filled { mut batch_rows, mut batch, mut captions, mut failed } = filled;
        let rows = self.spec.config.batch_size as u64;
        let mut attempt = 0;
        let mut real = vec![true; batch_rows.len()];
        while !failed.is_empty() {
            attempt += 1;
            let mut todo = Vec::with_capacity(failed.len());
            for (row, error) in failed {
                let batch_row = &mut batch_rows[row];
                self.late_failure(batch_row.lane, &batch_row.kept, error)?;
                (batch_row.kept, batch_row.filler) =
                    stand_in(&batch_row.first, batch_row.global % rows, attempt, blank);
                real[row] = false;
                todo.push(row);
            }
            failed = if self.spec.pads() {
                filling.decode(&batch_rows, &todo, &mut batch, &mut captions, self.slot)?
            } else {
                vec![]
            };
        }
        if !self.spec.pads() && real.contains(&false) {
            batch.keep_rows(&real);
            let mut row = real.iter();
            batch_rows.retain(|_| row.next().is_some_and(|&real| real));
            let mut row = real.iter();
            captions.retain(|_| row.next().is_some_and(|&real| real));
        }
        if batch_rows.is_empty() {
            return Ok(None);
        }
        self.describe(&mut batch, &batch_rows, captions)?;
        self.count_yielded(&batch_rows);
        Ok(Some(batch))
    }

    /// What stands in a row where the rank has no sample.
    fn blank(&self) -> Result<Kept> {
        let sample = Sample {
            id: SampleId(0),
            key: "".into(),
            position: 0,
            offset: 0,
            image: vec![],
            caption: String::new(),
            captions: vec![],
            score: None,
            attached: None,
            json: None,
        };
        Ok(Kept {
            sample,
            image: Keeping::new(&self.spec.buffer).keep(vec![])?,
            json: None,
            shard: "".into(),
            read: Arc::default(),
            cluster: None,
            alignment: None,
            pi: None,
            semantic_hash: None,
            look: None,
            text: None,
            generated: None,
            judged: None,
            rescued: false,
            source: 0,
            pass: 0,
            position: 0,
        })
    }
}

/// What fills a row that has no sample: the rank's first ones in turn, each at another attempt, and a blank one where
/// none of them can be decoded.
fn stand_in(first: &[Arc<Kept>], row: u64, attempt: usize, blank: &Arc<Kept>) -> (Arc<Kept>, Filler) {
    if first.is_empty() || attempt > first.len() {
        return (Arc::clone(blank), Filler::Blank);
    }
    let choice = (row + attempt as u64) % first.len() as u64;
    (Arc::clone(&first[choice as usize]), Filler::Other)
}
