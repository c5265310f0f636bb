//! The deciding stage of a lane: signals, decisions, captions, and the order in which kept samples
//! leave.
//!
//! Windows come in order. A new window is encoded and decided, and its signals go to the ledger;
//! the bytes of what is dropped are freed at once. Under `rescue`, what the gate drops gets a
//! generated caption and a judge's score before the decision. The kept samples of a shuffle group get their
//! captions when the group is whole, and leave in hash order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::config::Mode;
use crate::error::{Error, Result};
use crate::image::ImageError;
use crate::ledger::{CorpusScores, WindowKey, WindowRecord};
use crate::loader::channel::{Message, receive};
use crate::loader::decide::captions::{Captioning, caption_of};
use crate::loader::decider::Decider;
use crate::loader::duplicates::Seen;
use crate::loader::kept::{Kept, KeptGroup};
use crate::loader::ladder;
use crate::loader::lane::{self, Stream};
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::watchdog::{Doing, Post, Slot};
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;
use crate::loader::window::{CHANGED, Decided, Known, Row, Waiting, Window, window_of};
use crate::model::UNKNOWN_HASH;
use crate::sample::{FailedSample, Outcome, Sample};
use crate::select::Selector;

/// What the deciding stage of one lane and source needs, and where it stands.
pub(crate) struct Deciding<'a> {
    pub(super) spec: &'a Spec,
    pub(super) stream: Stream,
    pub(super) epoch: u64,
    pub(super) recorder: &'a Arc<Recorder>,
    pub(super) stop: &'a AtomicBool,
    pub(super) satisfied: &'a AtomicBool,
    /// Where it says what it does.
    pub(super) slot: Arc<Slot>,
    /// Kept samples of this epoch that were handed over before the run was resumed.
    pub(super) replayed: u64,
    /// Kept samples sent on so far.
    pub(super) sent: u64,
    /// Samples of the stream that count, so far.
    pub(super) positions: u64,
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
        let slot = recorder.board.post(Post::Select(stream));
        let replayed = spec.lane_quota_before(stream, epoch, first_step);
        Self { spec, stream, epoch, recorder, stop, satisfied, slot, replayed, sent: 0, positions: 0 }
    }

    /// Decides all windows that come in, in order.
    pub(crate) fn run(
        mut self,
        input: &Receiver<Message<Window>>,
        out: &Sender<Message<KeptGroup>>,
    ) -> Result<()> {
        let slot = Arc::clone(&self.slot);
        let (mut group, mut group_index) = (vec![], 0);
        loop {
            let mark = slot.mark(Doing::Await(Post::Read(self.stream)));
            let window = receive(input, Stage::Read)?;
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
                let mark = slot.mark(Doing::Work("completes a group of kept samples", None));
                let kept_samples = self.close(std::mem::take(&mut group))?;
                drop(mark);
                let _mark = slot.mark(Doing::Offer);
                if !kept_samples.is_empty() && out.send(Message::Item(kept_samples)).is_err() {
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

    /// Decides one window and returns the kept samples of the lane's part, in window order.
    fn window(&mut self, mut raw: Window) -> Result<Vec<Kept>> {
        let decided = match (std::mem::replace(&mut raw.known, Known::New), &self.spec.selector) {
            (Known::Decided(decided), _) => Some(decided),
            (known, Some(decider)) => match self.decide(&mut raw, known, decider)? {
                None => return Ok(vec![]), // the run is to stop
                decided => decided,
            },
            (_, None) => None,
        };
        let (record, judged, outcomes) = match decided {
            Some(Decided { record, judged, outcomes }) => (Some(record), judged, outcomes),
            None => (None, None, raw.rows.iter().map(all_kept).collect()),
        };
        self.count(&raw, record.as_deref(), &outcomes)?;
        if self.satisfied.load(Ordering::Relaxed) {
            let kept = (0..outcomes.len()).filter(|&row| outcomes[row].is_kept() && raw.in_lane(row)).count();
            self.recorder.surplus.fetch_add(kept as u64, Ordering::Relaxed);
            return Ok(vec![]);
        }
        self.kept_samples(raw, record.as_deref(), judged.as_deref(), &outcomes)
    }

    /// Decides a window whose rows were read: encodes what the ledger lacks, and records it. `None` where the run is to
    /// stop.
    fn decide(&self, raw: &mut Window, mut known: Known, decider: &Decider) -> Result<Option<Decided>> {
        let spec = self.spec;
        self.read_scores(raw);
        // Held until the window is recorded.
        let mut claim = None;
        if !matches!(known, Known::NeedsScores(_)) {
            claim = spec.claims.take(raw.key, self.stream, &self.slot, self.stop);
            if claim.is_none() {
                return Ok(None);
            }
            known = ladder::known_now(spec, decider, raw, known)?;
        }
        let (partial, recorded) = match known {
            Known::New => (None, None),
            Known::Partial(record, lacking) => (Some((record, lacking)), None),
            Known::NeedsScores(record) | Known::Decided(Decided { record, .. }) => (None, Some(record)),
        };
        let is_new = recorded.is_none();
        let record = match recorded {
            Some(record) => record,
            None => Arc::new(self.complete(raw, partial, decider)?),
        };
        let mut judged = None;
        if let Some(selector) = decider.selector().filter(|_| spec.config.captions.rescue) {
            judged = self.captioning().rescue(&raw.key, selector, &raw.rows, &record)?;
            if judged.is_none() {
                return Ok(None);
            }
        }
        let scores = raw.scores.as_ref().and_then(|scores| scores.of(raw.rows.len()));
        let view = window_of(&raw.key, &record, judged.as_deref(), scores);
        let outcomes = self.recorder.time(Stage::Select, || decider.decide(&view, raw.segment.pass))?;
        if is_new {
            // Less is written of what the gate drops, unless it may be compared one day.
            let outcomes: &[Outcome] = if spec.config.selection.defer_duplicates { &[] } else { &outcomes };
            spec.ledger.record_window(
                raw.key,
                &spec.shards[raw.segment.shard],
                Arc::clone(&record),
                outcomes,
            );
        }
        drop(claim);
        Ok(Some(Decided { record, judged, outcomes }))
    }

    /// Takes the scores of a window whose rows were read, where the ledger has none.
    fn read_scores(&self, raw: &mut Window) {
        let Some(scores) = raw.scores.as_mut().filter(|scores| scores.of(raw.rows.len()).is_none()) else {
            return;
        };
        let score = |row: &Row| match row {
            Row::Sample(waiting) => waiting.sample.score.unwrap_or(f32::NAN),
            Row::Failed(_) | Row::Skipped => f32::NAN,
        };
        let values: CorpusScores = raw.rows.iter().map(score).collect();
        if let Some(field) = &self.spec.reads[raw.segment.shard].score_field {
            self.spec.ledger.record_corpus_scores(scores.key, field, Arc::clone(&values));
        }
        scores.values = Some(values);
    }

    fn kept_samples(
        &mut self,
        mut raw: Window,
        record: Option<&WindowRecord>,
        judged: Option<&[f32]>,
        outcomes: &[Outcome],
    ) -> Result<Vec<Kept>> {
        let rows = std::mem::take(&mut raw.rows);
        let shard = &self.spec.shards[raw.segment.shard].url;
        let read = &self.spec.reads[raw.segment.shard];
        let signals = record.and_then(|r| r.signals.as_ref());
        let mut kept_samples = vec![];
        for (row, data) in rows.into_iter().enumerate() {
            if !raw.in_lane(row) {
                continue;
            }
            let position = self.positions;
            self.positions += u64::from(self.spec.has_position(outcomes[row]));
            let Outcome::Kept { pi } = outcomes[row] else { continue };
            let Waiting { sample, image, json } = match data {
                Row::Sample(waiting) if record.is_none_or(|r| r.ids[row] == waiting.sample.id) => waiting,
                Row::Sample(waiting) => return Err(changed(&waiting.sample.key)),
                Row::Failed(failed) => return Err(changed(&failed.key)),
                Row::Skipped => continue, // the lane became satisfied while this was read
            };
            // A plan's kept samples may be of a window that another run has thinned.
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
            let mut kept = Kept {
                sample,
                image,
                json,
                shard: Arc::clone(shard),
                read: Arc::clone(read),
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
                position,
            };
            kept.draw_caption(self.spec.config.seed);
            kept_samples.push(kept);
        }
        for (name, _) in read.captions.iter().flat_map(|captions| captions.iter()) {
            let matched = kept_samples.iter().filter(|kept| kept.has_caption(name)).count();
            self.recorder.joined(name, matched as u64, kept_samples.len() as u64);
        }
        Ok(kept_samples)
    }

    /// Counts the outcomes of the lane's part of a window.
    fn count(&self, raw: &Window, record: Option<&WindowRecord>, outcomes: &[Outcome]) -> Result<()> {
        let spec = self.spec;
        let url = &spec.shards[raw.segment.shard].url;
        let base = raw.segment.window * spec.window();
        let mine = |row: usize| raw.in_lane(row);
        let part = outcomes.iter().enumerate().filter(|(row, _)| mine(*row)).map(|(_, &o)| o);
        let scores = raw.scores.as_ref().and_then(|scores| scores.of(outcomes.len()));
        let is_unscored = |row: usize| {
            let usable = !matches!(outcomes[row], Outcome::Failed(_));
            usable && scores.is_some_and(|scores| scores[row].is_nan())
        };
        let count = |what: &dyn Fn(usize) -> bool| -> u64 {
            (0..outcomes.len()).filter(|&row| mine(row) && what(row)).count() as u64
        };
        self.recorder.unscored.fetch_add(count(&is_unscored), Ordering::Relaxed);
        if let Some(record) = record {
            let seen = |row: usize| mine(row) && matches!(outcomes[row], Outcome::Failed(_));
            let failures = record.failures.iter().filter(|f| seen((f.position - base) as usize));
            self.recorder.window(self.stream.lane, url, part, failures, spec.max_errors)
        } else {
            let failures = raw.rows.iter().enumerate().filter_map(|(row, r)| match r {
                Row::Failed(f) if mine(row) => Some(f),
                _ => None,
            });
            self.recorder.window(self.stream.lane, url, part, failures, spec.max_errors)
        }
    }

    /// Closes a shuffle group: captions where they are needed, then hash order, then what the
    /// lane still has to give; the rest is surplus.
    fn close(&mut self, mut windows: Vec<(WindowKey, Vec<Kept>)>) -> Result<KeptGroup> {
        let total = windows.iter().map(|(_, kept_samples)| kept_samples.len()).sum::<usize>() as u64;
        // Kept samples that were handed over before a resume need no caption, but those of the first
        // group do: they fill rows that lack a kept sample.
        let compares = self.spec.config.selection.defer_duplicates;
        if compares || self.sent == 0 || self.sent + total > self.replayed {
            for (key, kept_samples) in &mut windows {
                self.captioning().complete(key, self.epoch, kept_samples)?;
            }
        }
        if compares {
            for kept in windows.iter_mut().flat_map(|(_, kept_samples)| kept_samples) {
                kept.text = Some(Seen::caption(&caption_of(self.spec, kept, self.epoch)));
            }
        }
        let mut group: KeptGroup =
            windows.into_iter().flat_map(|(_, kept_samples)| kept_samples).map(Arc::new).collect();
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
fn all_kept(row: &Row) -> Outcome {
    match row {
        Row::Failed(failed) => Outcome::Failed(failed.reason),
        Row::Sample(_) | Row::Skipped => Outcome::Kept { pi: None },
    }
}

fn changed(key: &Arc<str>) -> Error {
    Error::ledger(format!("key {key} is not what the ledger knows; {CHANGED}"))
}

/// The failed form of a sample whose image proved unusable.
pub(crate) fn failed_image(sample: &Sample, error: ImageError) -> FailedSample {
    sample.failed(error.reason, error.detail)
}
