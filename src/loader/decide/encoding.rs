//! Signals of a window: what the ledger lacks is decoded and encoded, batch by batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use ndarray::{Array2, Array4, s};

use crate::config::OnError;
use crate::error::{FailReason, Result};
use crate::ledger::WindowRecord;
use crate::loader::buffer::Encoded;
use crate::loader::decide::deciding::{Deciding, failed_image};
use crate::loader::decide::join::joined;
use crate::loader::decide::previews::decode_previews;
use crate::loader::decider::Decider;
use crate::loader::ladder::share;
use crate::loader::model_thread::{Answer, ModelThread, wait};
use crate::loader::observe::watchdog::{Doing, Post};
use crate::loader::stage::Stage;
use crate::loader::window::{Row, Waiting, Window, raised};
use crate::model::{Signals, UNKNOWN_HASH};

/// Batches of one lane that may be with the captioner at a time: one worked on, one ready.
const IN_FLIGHT: usize = 2;

impl Deciding<'_> {
    /// What is known of a window once all is encoded that this epoch needs and the ledger lacks.
    pub(crate) fn complete(
        &self,
        raw: &mut Window,
        partial: Option<(Arc<WindowRecord>, Vec<bool>)>,
        selector: &Decider,
    ) -> Result<WindowRecord> {
        let rows = &mut raw.rows;
        let mut record = match partial {
            Some((old, lacking)) => {
                let fresh = self.record(rows, &lacking, old.has_embedding)?;
                joined(&old, fresh, &lacking)
            }
            None => {
                let failed: Vec<Option<FailReason>> = rows
                    .iter()
                    .map(|row| match row {
                        Row::Failed(failed) => Some(failed.reason),
                        Row::Sample(_) | Row::Skipped => None,
                    })
                    .collect();
                let encodable =
                    || failed.iter().map(|failed| failed.is_none_or(FailReason::is_fault)).collect();
                // What the filter excludes is not encoded, and has signals of zeros.
                let wanted = share(selector, &raw.key, &failed, raw.segment.pass).unwrap_or_else(encodable);
                self.record(rows, &wanted, selector.needs_embedding())?
            }
        };
        record.index = raw.index.take();
        Ok(record)
    }

    /// Collects what the ledger will remember of a new window; runs the scorer over the rows that are
    /// `wanted`, where signals are needed. Rows whose preview cannot be decoded become failed rows.
    fn record(&self, rows: &mut [Row], wanted: &[bool], keep_embedding: bool) -> Result<WindowRecord> {
        let signals = if self.spec.needs_signals { self.encode(rows, wanted)? } else { None };
        let mut record = WindowRecord {
            ids: Vec::with_capacity(rows.len()),
            failed: Vec::with_capacity(rows.len()),
            caption_chars: Vec::with_capacity(rows.len()),
            compute: self.spec.compute(),
            signals,
            encoded: None,
            has_embedding: false,
            failures: vec![],
            index: None,
        };
        for row in rows.iter() {
            match row {
                Row::Sample(Waiting { sample, .. }) => {
                    record.ids.push(sample.id);
                    record.failed.push(None);
                    record.caption_chars.push(sample.caption.chars().count() as u32);
                }
                Row::Failed(failed) => {
                    record.ids.push(failed.id);
                    record.failed.push(Some(failed.reason));
                    record.caption_chars.push(0);
                    record.failures.push(failed.clone());
                }
                Row::Skipped => {
                    let detail = "a window was to be decided of which not all was read";
                    return Err(Stage::Select.died(detail));
                }
            }
        }
        let encoded: Vec<bool> =
            wanted.iter().zip(&record.failed).map(|(wanted, failed)| *wanted || failed.is_some()).collect();
        record.encoded = (record.signals.is_some() && encoded.contains(&false)).then_some(encoded);
        record.has_embedding = keep_embedding && record.signals.is_some();
        if let (false, Some(signals)) = (keep_embedding, &mut record.signals) {
            signals.embedding = Array2::zeros((signals.embedding.nrows(), 0));
        }
        Ok(record)
    }

    /// Runs the scorer over the rows of a window that are `wanted`, packed densely; the others have
    /// signals of zeros.
    fn encode(&self, rows: &mut [Row], wanted: &[bool]) -> Result<Option<Signals>> {
        let wanted: Vec<usize> = (0..rows.len()).filter(|&row| wanted[row]).collect();
        if wanted.len() == rows.len() {
            return self.encode_all(rows);
        }
        let take = |row: &usize| std::mem::replace(&mut rows[*row], Row::Skipped);
        let mut some: Vec<Row> = wanted.iter().map(take).collect();
        let found = self.encode_all(&mut some)?;
        wanted.iter().zip(some).for_each(|(&row, seen)| rows[row] = seen);
        if self.spec.model.is_none() {
            return Ok(None);
        }
        let dim = found.as_ref().map_or(0, |found| found.embedding.ncols());
        let mut signals = Signals {
            cluster: vec![0; rows.len()],
            alignment: vec![0.0; rows.len()],
            embedding: Array2::zeros((rows.len(), dim)),
            semantic_hash: vec![UNKNOWN_HASH; rows.len()],
        };
        if let Some(found) = found {
            for (at, row) in wanted.into_iter().enumerate() {
                signals.cluster[row] = found.cluster[at];
                signals.alignment[row] = found.alignment[at];
                signals.semantic_hash[row] = found.semantic_hash[at];
                signals.embedding.row_mut(row).assign(&found.embedding.row(at));
            }
        }
        Ok(Some(signals))
    }

    /// Runs the scorer over `rows`, in batches that are slices of them in order. While the
    /// captioner works on one batch, the pool decodes the previews of the next.
    fn encode_all(&self, rows: &mut [Row]) -> Result<Option<Signals>> {
        let Some(model) = &self.spec.model else { return Ok(None) };
        let mut signals: Option<Signals> = None;
        let mut in_flight: VecDeque<(usize, Receiver<Answer<Signals>>)> = VecDeque::new();
        let mut spare: Option<Array4<u8>> = None;
        let total = rows.len();
        for chunk in rows.chunks_mut(model.batch_size) {
            if in_flight.len() >= IN_FLIGHT {
                spare = Some(self.gather(&mut in_flight, &mut signals, total)?);
            }
            let mut previews = spare.take().unwrap_or_else(|| model.buffer(model.batch_size));
            self.previews(model, chunk, &mut previews)?;
            let mut captions: Vec<String> = chunk.iter().map(original).collect();
            captions.resize(model.batch_size, String::new());
            let _mark = self.slot.mark(Doing::Await(Post::Encode));
            in_flight.push_back((chunk.len(), model.encode(previews, captions, self.recorder)?));
            self.recorder.encoded.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        while !in_flight.is_empty() {
            self.gather(&mut in_flight, &mut signals, total)?;
        }
        Ok(signals)
    }

    /// Waits for the oldest batch and appends its signals.
    fn gather(
        &self,
        in_flight: &mut VecDeque<(usize, Receiver<Answer<Signals>>)>,
        signals: &mut Option<Signals>,
        total: usize,
    ) -> Result<Array4<u8>> {
        let Some((used, answer)) = in_flight.pop_front() else {
            return Err(Stage::Encode.died("nothing is in flight"));
        };
        let mark = self.slot.mark(Doing::Await(Post::Encode));
        let (batch, buffer) = wait(&answer)?;
        drop(mark);
        let all = signals.get_or_insert_with(|| Signals {
            cluster: Vec::with_capacity(total),
            alignment: Vec::with_capacity(total),
            embedding: Array2::zeros((total, batch.embedding.ncols())),
            semantic_hash: Vec::with_capacity(total),
        });
        let at = all.cluster.len();
        all.cluster.extend_from_slice(&batch.cluster[..used]);
        all.alignment.extend_from_slice(&batch.alignment[..used]);
        all.semantic_hash.extend_from_slice(&batch.semantic_hash[..used]);
        all.embedding.slice_mut(s![at..at + used, ..]).assign(&batch.embedding.slice(s![..used, ..]));
        Ok(buffer)
    }

    /// Decodes the previews of `rows` into the first slots of `previews` and blanks the rest. A
    /// row that cannot be decoded becomes a failed row with a blank slot.
    fn previews(&self, model: &ModelThread, rows: &mut [Row], previews: &mut Array4<u8>) -> Result<()> {
        let images: Vec<Option<&Encoded>> = rows
            .iter()
            .map(|row| match row {
                Row::Sample(waiting) => Some(&waiting.image),
                Row::Failed(_) | Row::Skipped => None,
            })
            .collect();
        let errors = decode_previews(self.spec, self.recorder, model, &images, previews)?;
        for (row, error) in rows.iter_mut().zip(errors) {
            if let (Row::Sample(waiting), Some(error)) = (&*row, error) {
                let failed = failed_image(&waiting.sample, error);
                if self.spec.config.runtime.on_error == OnError::Raise {
                    return Err(raised(&failed));
                }
                *row = Row::Failed(failed);
            }
        }
        Ok(())
    }
}

fn original(row: &Row) -> String {
    match row {
        Row::Sample(waiting) => waiting.sample.caption.clone(),
        Row::Failed(_) | Row::Skipped => String::new(),
    }
}
