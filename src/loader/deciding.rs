//! The deciding stage of a lane: signals, decisions, captions, and the order in which survivors
//! leave.
//!
//! Windows come in order. A new window is encoded and decided, and its signals go to the ledger;
//! the bytes of what is dropped are freed at once. Under `rescue`, what the gate drops gets a
//! generated caption and a judge's score before the decision. The survivors of a shuffle group get their
//! captions when the group is whole, and leave in hash order.

mod encoding;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::config::Mode;
use crate::error::{Error, Result};
use crate::hash;
use crate::image::ImageError;
use crate::ledger::{CorpusScores, WindowKey, WindowRecord};
use crate::loader::alike::Seen;
use crate::loader::buffer::Encoded;
use crate::loader::captions::{Captioning, caption_of};
use crate::loader::decider::Decider;
use crate::loader::lane;
use crate::loader::pipeline::{Message, receive};
use crate::loader::raw::{CHANGED, Known, RawRow, RawWindow, Waiting, window_of};
use crate::loader::recorder::Recorder;
use crate::loader::spec::{Spec, Stream};
use crate::loader::stats::Stage;
use crate::loader::watchdog::{Doing, Post, Slot};
use crate::model::{SemanticHash, UNKNOWN_HASH};
use crate::sample::{FailedSample, Outcome, Sample};
use crate::select::Selector;

/// A sample that was kept, with what is known of it.
pub(crate) struct Survivor {
    /// All of it but image and json, which are empty here.
    pub(crate) sample: Sample,
    pub(crate) image: Encoded,
    pub(crate) json: Option<Encoded>,
    pub(crate) shard: Arc<str>,
    pub(crate) cluster: Option<u32>,
    pub(crate) alignment: Option<f32>,
    pub(crate) pi: Option<f32>,
    /// Hash of the image by its content; `None` where it is not known.
    pub(crate) semantic_hash: Option<SemanticHash>,
    /// The same, where others of its lane's batch are compared with it.
    pub(crate) look: Option<SemanticHash>,
    /// Identity of the caption to train on, where others of its lane's batch are compared with it.
    pub(crate) text: Option<u64>,
    pub(crate) generated: Option<Arc<str>>,
    /// What the judge says of the generated caption.
    pub(crate) judged: Option<f32>,
    /// Whether the gate dropped it and its generated caption brought it back.
    pub(crate) rescued: bool,
    /// Its corpus.
    pub(crate) source: usize,
    /// The pass over its corpus in which it survived.
    pub(crate) pass: u64,
    /// Its place in its stream: how many samples that count come before it, unusable ones among them.
    pub(crate) place: u64,
}

impl Survivor {
    /// What chance has to go by where something is done to it: sample and pass. An epoch may have a sample
    /// in several passes.
    pub(crate) fn moment(&self) -> u64 {
        hash::combine(&[self.pass, self.sample.id.0])
    }
}

/// Survivors that leave a lane together.
pub(crate) type SurvivorGroup = Vec<Arc<Survivor>>;

/// What the deciding stage of one lane and source needs, and where it stands.
pub(crate) struct Deciding<'a> {
    spec: &'a Spec,
    stream: Stream,
    epoch: u64,
    recorder: &'a Arc<Recorder>,
    stop: &'a AtomicBool,
    satisfied: &'a AtomicBool,
    /// Where it says what it does.
    slot: Arc<Slot>,
    /// Survivors of this epoch that were handed over before the run was resumed.
    replayed: u64,
    /// Survivors sent on so far.
    sent: u64,
    /// Samples of the stream that count, so far.
    places: u64,
}

impl<'a> Deciding<'a> {
    pub(crate) fn new(
        spec: &'a Spec,
        stream: Stream,
        epoch: u64,
        first_step: u64,
        recorder: &'a Arc<Recorder>,
        stop: &'a AtomicBool,
        satisfied: &'a AtomicBool,
    ) -> Self {
        let slot = recorder.board.post(Post::Decide(stream));
        let replayed = spec.lane_quota_before(stream, epoch, first_step);
        Self { spec, stream, epoch, recorder, stop, satisfied, slot, replayed, sent: 0, places: 0 }
    }

    /// Decides all windows that come in, in order.
    pub(crate) fn run(
        mut self,
        input: &Receiver<Message<RawWindow>>,
        out: &Sender<Message<SurvivorGroup>>,
    ) -> Result<()> {
        let slot = Arc::clone(&self.slot);
        let (mut group, mut group_index) = (vec![], 0);
        loop {
            let mark = slot.mark(Doing::Await(Post::Read(self.stream)));
            let window = receive(input, "read")?;
            drop(mark);
            let ended = window.is_none();
            if let Some(raw) = window {
                let shard = Arc::clone(&self.spec.shards[raw.segment.shard].url);
                let key = raw.key;
                let _mark = slot.mark(Doing::Work("decides a window", Some(Arc::clone(&shard))));
                group.push((key, self.window(raw).map_err(|e| e.in_shard(&shard))?));
            }
            if ended || group.len() >= lane::group_size(group_index, self.spec.config.runtime.shuffle_windows)
            {
                let mark = slot.mark(Doing::Work("completes a group of survivors", None));
                let survivors = self.close(std::mem::take(&mut group))?;
                drop(mark);
                let _mark = slot.mark(Doing::Offer);
                if !survivors.is_empty() && out.send(Message::Item(survivors)).is_err() {
                    return Ok(());
                }
                group_index += 1;
            }
            if ended {
                let _ = out.send(Message::End);
                return Ok(());
            }
        }
    }

    fn captioning(&self) -> Captioning<'_> {
        Captioning { spec: self.spec, recorder: self.recorder, stop: self.stop, slot: &self.slot }
    }

    /// Decides one window and returns the survivors of the lane's part, in window order.
    fn window(&mut self, mut raw: RawWindow) -> Result<Vec<Survivor>> {
        let (record, judged, outcomes) = match (raw.known.take(), &self.spec.selector) {
            (Some(Known { record, judged, outcomes }), _) => (Some(record), judged, outcomes),
            (None, Some(selector)) => {
                self.read_scores(&mut raw);
                let mut recorded = raw.undecided.take();
                // Held until the window is recorded.
                let mut claim = None;
                if recorded.is_none() {
                    let (claims, slot) = (&self.spec.claims, &self.slot);
                    claim = claims.take(raw.key, self.stream, slot, self.stop);
                    if claim.is_none() {
                        return Ok(vec![]); // the run is to stop
                    }
                    recorded = self.encoded_meanwhile(&mut raw, selector)?;
                }
                let is_new = recorded.is_none();
                let record = match recorded {
                    Some(record) => record,
                    None => {
                        let mut record = self.complete(&mut raw, selector)?;
                        record.index = raw.index.take();
                        Arc::new(record)
                    }
                };
                let mut judged = None;
                if let Some(selector) = selector.selector().filter(|_| self.spec.config.captions.rescue) {
                    judged = self.captioning().rescue(&raw.key, selector, &raw.rows, &record)?;
                    if judged.is_none() {
                        return Ok(vec![]); // the run is to stop
                    }
                }
                let view = window_of(&raw.key, &record, judged.as_deref(), raw.scores.as_deref());
                let pass = raw.segment.pass;
                let outcomes = self.recorder.time(Stage::Select, || selector.decide(&view, pass))?;
                if is_new {
                    let shard = &self.spec.shards[raw.segment.shard];
                    // Less is written of what the gate drops, unless it may be compared one day.
                    let outcomes: &[Outcome] =
                        if self.spec.config.selection.defer_duplicates { &[] } else { &outcomes };
                    self.spec.ledger.record_window(raw.key, shard, Arc::clone(&record), outcomes);
                }
                drop(claim);
                (Some(record), judged, outcomes)
            }
            (None, None) => (None, None, raw.rows.iter().map(all_kept).collect()),
        };
        self.count(&raw, record.as_deref(), &outcomes)?;
        if self.satisfied.load(Ordering::Relaxed) {
            let kept = (0..outcomes.len())
                .filter(|&row| outcomes[row].is_kept() && raw.in_lane(row, self.spec.config.selection.window))
                .count();
            self.recorder.surplus.fetch_add(kept as u64, Ordering::Relaxed);
            return Ok(vec![]);
        }
        self.survivors(raw, record.as_deref(), judged.as_deref(), &outcomes)
    }

    /// Takes the scores of a window whose rows were read, where the ledger has none.
    fn read_scores(&self, raw: &mut RawWindow) {
        if raw.score_key.is_some() && raw.scores.as_ref().is_none_or(|s| s.len() != raw.rows.len()) {
            let score = |row: &RawRow| match row {
                RawRow::Sample(waiting) => waiting.sample.score.unwrap_or(f32::NAN),
                RawRow::Failed(_) | RawRow::Skipped => f32::NAN,
            };
            let scores: CorpusScores = raw.rows.iter().map(score).collect();
            if let (Some(key), Some(field)) = (raw.score_key, &self.spec.reads[raw.segment.shard].score_key) {
                self.spec.ledger.record_corpus_scores(key, field, Arc::clone(&scores));
            }
            raw.scores = Some(scores);
        }
    }

    fn survivors(
        &mut self,
        mut raw: RawWindow,
        record: Option<&WindowRecord>,
        judged: Option<&[f32]>,
        outcomes: &[Outcome],
    ) -> Result<Vec<Survivor>> {
        let rows = std::mem::take(&mut raw.rows);
        let shard = &self.spec.shards[raw.segment.shard].url;
        let signals = record.and_then(|r| r.signals.as_ref());
        let mut survivors = vec![];
        for (row, data) in rows.into_iter().enumerate() {
            if !raw.in_lane(row, self.spec.config.selection.window) {
                continue;
            }
            let place = self.places;
            self.places += u64::from(self.spec.has_place(outcomes[row]));
            let Outcome::Kept { pi } = outcomes[row] else { continue };
            let Waiting { sample, image, json } = match data {
                RawRow::Sample(waiting) if record.is_none_or(|r| r.ids[row] == waiting.sample.id) => waiting,
                RawRow::Sample(waiting) => return Err(changed(&waiting.sample.key)),
                RawRow::Failed(failed) => return Err(changed(&failed.key)),
                RawRow::Skipped => continue, // the lane became satisfied while this was read
            };
            // A plan's survivors may be of a window that another run has thinned.
            let signals = signals.filter(|_| record.is_some_and(|record| record.is_encoded(row)));
            let alignment = signals.map(|s| s.alignment[row]);
            let semantic_hash = signals.map(|s| s.semantic_hash[row]).filter(|hash| *hash != UNKNOWN_HASH);
            // In an epoch that keeps everything, what the gate drops is there by itself too.
            let judgement = judged.map(|scores| scores[row]);
            let brought_back = |selector: &Selector| {
                signals.zip(judgement).is_some_and(|(s, judgement)| {
                    selector.is_gated_out(s.alignment[row], s.cluster[row])
                        && selector.is_rescued_by(judgement, s.cluster[row])
                })
            };
            let rescued = self.spec.selector.as_ref().and_then(Decider::selector).is_some_and(brought_back);
            self.recorder.rescued.fetch_add(rescued.into(), Ordering::Relaxed);
            survivors.push(Survivor {
                sample,
                image,
                json,
                shard: Arc::clone(shard),
                cluster: signals.map(|s| s.cluster[row]),
                alignment,
                pi,
                semantic_hash,
                // Without need for signals it depends on the ledger whether there are any.
                look: semantic_hash
                    .filter(|_| self.spec.config.selection.defer_duplicates && self.spec.needs_signals),
                text: None,
                generated: None,
                judged: judgement.filter(|_| rescued),
                rescued,
                source: self.stream.source,
                pass: raw.segment.pass,
                place,
            });
        }
        Ok(survivors)
    }

    /// Counts the outcomes of the lane's part of a window.
    fn count(&self, raw: &RawWindow, record: Option<&WindowRecord>, outcomes: &[Outcome]) -> Result<()> {
        let spec = self.spec;
        let url = &spec.shards[raw.segment.shard].url;
        let base = raw.segment.window * spec.config.selection.window as u64;
        let mine = |row: usize| raw.in_lane(row, spec.config.selection.window);
        let part = outcomes.iter().enumerate().filter(|(row, _)| mine(*row)).map(|(_, &o)| o);
        let from_table = |row: usize| match (record, raw.rows.get(row)) {
            (Some(record), _) => record.from_table.get(row).copied().unwrap_or(false),
            (None, Some(RawRow::Sample(waiting))) => waiting.sample.from_table,
            (None, _) => false,
        };
        let is_unscored = |row: usize| {
            let usable = !matches!(outcomes[row], Outcome::Failed(_));
            usable && raw.scores.as_ref().is_some_and(|scores| scores[row].is_nan())
        };
        let count = |what: &dyn Fn(usize) -> bool| -> u64 {
            (0..outcomes.len()).filter(|&row| mine(row) && what(row)).count() as u64
        };
        self.recorder.from_table.fetch_add(count(&from_table), Ordering::Relaxed);
        self.recorder.unscored.fetch_add(count(&is_unscored), Ordering::Relaxed);
        if let Some(record) = record {
            let seen = |row: usize| mine(row) && matches!(outcomes[row], Outcome::Failed(_));
            let failures = record.failures.iter().filter(|f| seen((f.position - base) as usize));
            self.recorder.window(self.stream.lane, url, part, failures, spec.max_errors)
        } else {
            let failures = raw.rows.iter().enumerate().filter_map(|(row, r)| match r {
                RawRow::Failed(f) if mine(row) => Some(f),
                _ => None,
            });
            self.recorder.window(self.stream.lane, url, part, failures, spec.max_errors)
        }
    }

    /// Closes a shuffle group: captions where they are needed, then hash order, then what the
    /// lane still has to give; the rest is surplus.
    fn close(&mut self, mut windows: Vec<(WindowKey, Vec<Survivor>)>) -> Result<SurvivorGroup> {
        let total = windows.iter().map(|(_, survivors)| survivors.len()).sum::<usize>() as u64;
        // Survivors that were handed over before a resume need no caption, but those of the first
        // group do: they fill places that lack a survivor.
        let compares = self.spec.config.selection.defer_duplicates;
        if compares || self.sent == 0 || self.sent + total > self.replayed {
            for (key, survivors) in &mut windows {
                self.captioning().complete(key, self.epoch, survivors)?;
            }
        }
        if compares {
            for survivor in windows.iter_mut().flat_map(|(_, survivors)| survivors) {
                survivor.text = Some(Seen::caption(&caption_of(self.spec, survivor, self.epoch)));
            }
        }
        let mut group: SurvivorGroup =
            windows.into_iter().flat_map(|(_, survivors)| survivors).map(Arc::new).collect();
        if self.spec.config.mode != Mode::Eval {
            group.sort_by_cached_key(|s| (self.spec.shuffle_hash(s), s.sample.id));
        }
        let quota = self.spec.lane_quota(self.stream, self.epoch);
        let room = (quota - self.sent).min(total);
        group.truncate(room as usize);
        self.recorder.surplus.fetch_add(total - room, Ordering::Relaxed);
        self.sent += room;
        if self.sent == quota {
            self.satisfied.store(true, Ordering::Relaxed);
        }
        Ok(group)
    }
}

/// Without a selector every readable sample is kept.
fn all_kept(row: &RawRow) -> Outcome {
    match row {
        RawRow::Failed(failed) => Outcome::Failed(failed.reason),
        RawRow::Sample(_) | RawRow::Skipped => Outcome::Kept { pi: None },
    }
}

fn changed(key: &Arc<str>) -> Error {
    Error::ledger(format!("key {key} is not what the ledger knows; {CHANGED}"))
}

/// The failed form of a sample whose image proved unusable.
pub(crate) fn failed_image(sample: &Sample, error: ImageError) -> FailedSample {
    sample.failed(error.reason, error.detail)
}
