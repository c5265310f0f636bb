//! Generated captions, and what the judge says of them: looked up in the ledger, or made now.
//!
//! Two moments need them. When a window is decided under `rescue`, the samples that the gate drops get a
//! caption and a score, so that the decision knows who comes back. When a shuffle group closes, its
//! kept samples get what fusion needs. Both are functions of the window, and both are remembered, the
//! scores under a fingerprint of generator and judge and of how they compute.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;

use crate::error::Result;
use crate::ledger::{Scores, WindowKey, WindowRecord};
use crate::loader::buffer::Encoded;
use crate::loader::decide::previews::decode_previews;
use crate::loader::kept::Kept;
use crate::loader::ladder;
use crate::loader::model_thread::{Answer, CaptionShape, ModelThread};
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::watchdog::{Doing, Post, Slot};
use crate::loader::spec::Spec;
use crate::loader::window::Row;
use crate::sample::SampleId;
use crate::select::Selector;
use crate::text::{Chosen, is_repetitive};

/// Batches of one lane that may be with a model at a time: one worked on, one ready.
const IN_FLIGHT: usize = 2;

/// What writing and judging captions takes.
pub(crate) struct Captioning<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) recorder: &'a Arc<Recorder>,
    pub(crate) stop: &'a AtomicBool,
    /// Where the lane says what it does.
    pub(crate) slot: &'a Slot,
}

/// A caption that was just written.
struct Written {
    caption: Arc<str>,
    /// Whether there was a picture: one that cannot be decoded is found and counted when its example is
    /// made, and what is written for a blank preview is not remembered.
    seen: bool,
}

/// Captions that are being written, and which of their pictures could be decoded.
type Awaited = (Vec<bool>, Receiver<Answer<Vec<String>>>);

impl Captioning<'_> {
    /// Gives the kept samples of one window, in order, the captions and scores that fusion needs in
    /// `epoch`. Does nothing once the run is to stop.
    pub(crate) fn complete(&self, window: &WindowKey, epoch: u64, kept_samples: &mut [Kept]) -> Result<()> {
        let Some((model, shape)) = self.writer() else { return Ok(()) };
        let key = window.captions(shape.fingerprint);
        let known = self.spec.ledger.captions_of(&key);
        for kept in kept_samples.iter_mut().filter(|s| self.needs_caption(s, epoch)) {
            kept.generated = known.get(kept.sample.id).map(Arc::from);
        }
        let is_missing = |s: &Kept| s.generated.is_none() && self.needs_caption(s, epoch);
        let missing: Vec<(SampleId, &Encoded)> =
            kept_samples.iter().filter(|s| is_missing(s)).map(|s| (s.sample.id, &s.image)).collect();
        let Some(written) = self.write(model, shape, &missing)? else { return Ok(()) };
        let mut new: Vec<(SampleId, Arc<str>)> = vec![];
        for (kept, written) in kept_samples.iter_mut().filter(|s| is_missing(s)).zip(written) {
            if written.seen {
                new.push((kept.sample.id, Arc::clone(&written.caption)));
            }
            kept.generated = Some(written.caption);
        }
        self.spec.ledger.record_captions(key, new.into_iter().collect());
        kept_samples.iter().filter_map(|s| s.generated.as_deref()).for_each(|c| self.recorder.generated(c));
        if self.spec.config.captions.fuse.needs_judge() {
            self.judge_kept(window, kept_samples)
        } else {
            Ok(())
        }
    }

    fn needs_caption(&self, kept: &Kept, epoch: u64) -> bool {
        kept.rescued || chosen(self.spec, kept, epoch) == Chosen::Generated
    }

    /// Scores of the kept samples' generated captions, where there are none yet.
    fn judge_kept(&self, window: &WindowKey, kept_samples: &mut [Kept]) -> Result<()> {
        let (Some(judge), Some(key)) = (&self.spec.judge, ladder::judge_key(self.spec, window)) else {
            return Ok(());
        };
        let known = self.spec.ledger.scores_of(&key);
        let usable = |s: &Kept| s.generated.as_deref().is_some_and(|c| is_usable(self.spec, c));
        for kept in kept_samples.iter_mut().filter(|s| s.judged.is_none() && usable(s)) {
            kept.judged = known.get(&kept.sample.id).copied();
        }
        let is_missing = |s: &Kept| s.judged.is_none() && usable(s);
        let missing: Vec<(&Encoded, &str)> = kept_samples
            .iter()
            .filter(|s| is_missing(s))
            .filter_map(|s| Some((&s.image, s.generated.as_deref()?)))
            .collect();
        let Some(scores) = self.judge(judge, &missing)? else { return Ok(()) };
        let mut new = Scores::new();
        for (kept, score) in kept_samples.iter_mut().filter(|s| is_missing(s)).zip(scores) {
            kept.judged = Some(score);
            new.insert(kept.sample.id, score);
        }
        self.spec.ledger.record_scores(key, new);
        Ok(())
    }

    /// What the judge says of generated captions for the samples of a window that the gate drops,
    /// `[rows]`; not a number for the others, and where a caption says nothing. `None` once the run is
    /// to stop.
    pub(crate) fn rescue(
        &self,
        window: &WindowKey,
        selector: &Selector,
        rows: &[Row],
        record: &WindowRecord,
    ) -> Result<Option<Vec<f32>>> {
        let (Some((model, shape)), Some(judge), Some(key)) =
            (self.writer(), &self.spec.judge, ladder::judge_key(self.spec, window))
        else {
            return Ok(Some(vec![f32::NAN; rows.len()]));
        };
        let known = self.spec.ledger.scores_of(&key);
        let images: Vec<(SampleId, &Encoded)> = rows
            .iter()
            .zip(ladder::gated_out(selector, record))
            .filter_map(|(row, gated_out)| match row {
                Row::Sample(waiting) if gated_out => Some((waiting.sample.id, &waiting.image)),
                _ => None,
            })
            .filter(|(id, _)| !known.contains_key(id))
            .collect();
        let Some(written) = self.write(model, shape, &images)? else { return Ok(None) };
        let pairs: Vec<(SampleId, &Encoded, &Arc<str>)> = images
            .iter()
            .zip(&written)
            .filter(|(_, w)| w.seen && is_usable(self.spec, &w.caption))
            .map(|(&(id, image), w)| (id, image, &w.caption))
            .collect();
        let judged: Vec<(&Encoded, &str)> =
            pairs.iter().map(|&(_, image, caption)| (image, &**caption)).collect();
        let Some(scores) = self.judge(judge, &judged)? else { return Ok(None) };
        // Also where nothing could be judged: the next epoch must not try again.
        let mut new: Scores = images.iter().map(|&(id, _)| (id, f32::NAN)).collect();
        let mut captions: Vec<(SampleId, Arc<str>)> = vec![];
        let signals = record.signals.iter().flat_map(|signals| &signals.cluster);
        let clusters: HashMap<SampleId, u32> = record.ids.iter().copied().zip(signals.copied()).collect();
        for ((id, _, caption), score) in pairs.into_iter().zip(scores) {
            new.insert(id, score);
            if clusters.get(&id).is_some_and(|&cluster| selector.is_rescued_by(score, cluster)) {
                captions.push((id, Arc::clone(caption)));
            }
        }
        self.spec.ledger.record_captions(window.captions(shape.fingerprint), captions.into_iter().collect());
        let scores = |id: &SampleId| new.get(id).or(known.get(id)).copied().unwrap_or(f32::NAN);
        let gated_out = ladder::gated_out(selector, record);
        let all = record.ids.iter().zip(gated_out).map(|(id, out)| if out { scores(id) } else { f32::NAN });
        let all = all.collect();
        self.spec.ledger.record_scores(key, new);
        Ok(Some(all))
    }

    /// The model that writes captions, where there is one.
    fn writer(&self) -> Option<(&ModelThread, CaptionShape)> {
        let model = self.spec.model.as_ref()?;
        Some((model, model.caption?))
    }

    /// Writes a caption for each sample, in batches that are slices of them. `None` once the run is to
    /// stop.
    fn write(
        &self,
        model: &ModelThread,
        shape: CaptionShape,
        samples: &[(SampleId, &Encoded)],
    ) -> Result<Option<Vec<Written>>> {
        let mut in_flight: VecDeque<Awaited> = VecDeque::new();
        let mut written = Vec::with_capacity(samples.len());
        let mut take = |(seen, answer): Awaited| -> Result<()> {
            let _mark = self.slot.mark(Doing::Await(Post::Encode));
            let captions = model.wait(&answer)?.0.into_iter().zip(seen);
            written.extend(captions.map(|(caption, seen)| Written { caption: caption.into(), seen }));
            Ok(())
        };
        for chunk in samples.chunks(shape.batch_size) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if in_flight.len() >= IN_FLIGHT {
                in_flight.pop_front().map(&mut take).transpose()?;
            }
            let images: Vec<Option<&Encoded>> = chunk.iter().map(|&(_, image)| Some(image)).collect();
            let mut previews = model.buffer(shape.batch_size);
            let errors = decode_previews(self.spec, self.recorder, model, &images, &mut previews)?;
            let ids = chunk.iter().map(|&(id, _)| id).collect();
            let seen = errors.iter().map(Option::is_none).collect();
            let _mark = self.slot.mark(Doing::Await(Post::Encode));
            in_flight.push_back((seen, model.caption(previews, ids, self.recorder)?));
        }
        in_flight.into_iter().try_for_each(&mut take)?;
        self.recorder.captioned.fetch_add(written.len() as u64, Ordering::Relaxed);
        Ok(Some(written))
    }

    /// The judge's score of each picture with its caption, in batches that are slices of them. `None` once
    /// the run is to stop.
    fn judge(&self, judge: &ModelThread, pairs: &[(&Encoded, &str)]) -> Result<Option<Vec<f32>>> {
        let mut in_flight = VecDeque::new();
        let mut scores: Vec<f32> = Vec::with_capacity(pairs.len());
        let mut take = |(rows, answer): (usize, Receiver<Answer<crate::model::Signals>>)| -> Result<()> {
            let _mark = self.slot.mark(Doing::Await(Post::Judge));
            scores.extend_from_slice(&judge.wait(&answer)?.0.alignment[..rows]);
            Ok(())
        };
        for chunk in pairs.chunks(judge.batch_size) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if in_flight.len() >= IN_FLIGHT {
                in_flight.pop_front().map(&mut take).transpose()?;
            }
            let images: Vec<Option<&Encoded>> = chunk.iter().map(|&(image, _)| Some(image)).collect();
            let mut previews = judge.buffer(judge.batch_size);
            decode_previews(self.spec, self.recorder, judge, &images, &mut previews)?;
            let mut captions: Vec<String> = chunk.iter().map(|&(_, caption)| caption.to_owned()).collect();
            captions.resize(judge.batch_size, String::new());
            let _mark = self.slot.mark(Doing::Await(Post::Judge));
            in_flight.push_back((chunk.len(), judge.encode(previews, captions, self.recorder)?));
        }
        in_flight.into_iter().try_for_each(&mut take)?;
        self.recorder.judged.fetch_add(scores.len() as u64, Ordering::Relaxed);
        Ok(Some(scores))
    }
}

/// Which caption goes with the original of a kept sample in `epoch`, or takes its place.
fn chosen<'s>(spec: &'s Spec, kept: &Kept, epoch: u64) -> Chosen<'s> {
    spec.config.captions.fuse.chosen(&spec.evidence(kept, epoch), &|table| kept.has_caption(table))
}

/// The caption that a kept sample is trained on in `epoch`: original and other, fused.
pub(crate) fn caption_of(spec: &Spec, kept: &Kept, epoch: u64) -> String {
    let generated = kept.generated.as_deref().filter(|caption| is_usable(spec, caption));
    if let Some(generated) = generated.filter(|_| kept.rescued) {
        // It is there for the sake of this caption: the gate dropped it with the other.
        return generated.trim().to_owned();
    }
    let other = match chosen(spec, kept, epoch) {
        Chosen::Original => None,
        Chosen::Generated => generated.map(Cow::Borrowed),
        Chosen::Table(table) => {
            let moment = kept.moment(spec.config.seed);
            moment.caption_of(&kept.read, table, &kept.sample).map(Cow::Owned)
        }
    };
    spec.config.captions.fuse.fuse(
        spec.tokenizer.as_ref(),
        spec.config.captions.context_length,
        &kept.sample.caption,
        other.as_deref(),
        &spec.evidence(kept, epoch),
    )
}

/// Whether a generated caption says something: others give way to the original, and are not judged.
fn is_usable(spec: &Spec, caption: &str) -> bool {
    let says_nothing =
        caption.trim().is_empty() || spec.config.captions.replace_repetitive && is_repetitive(caption);
    !says_nothing
}
