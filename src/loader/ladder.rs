//! The ladder of a window: from what the ledger knows of it to what is read and encoded.
//!
//! Signals of a sample do not depend on its neighbours, so a window can be completed row by row. Rows are lacking where
//! a run that thins its stream wrote the window, or where the semantic hash of a sample that its gate dropped was not
//! kept and is asked for now.

use std::sync::Arc;

use crate::error::{FailReason, Result};
use crate::hash;
use crate::ledger::{CaptionKey, WindowKey, WindowRecord};
use crate::loader::decider::Decider;
use crate::loader::model_thread::ModelThread;
use crate::loader::spec::Spec;
use crate::loader::window::{Decided, Known, Scores, Window, is_as_recorded, window_of};
use crate::model::{Signals, UNKNOWN_HASH};
use crate::select::Selector;

/// What is known of a window in `pass`, before anything is read of it.
///
/// # Errors
/// As [`Spec::check_compute`], and as [`Decider::decide`].
pub(crate) fn known(spec: &Spec, key: &WindowKey, scores: Option<&Scores>, pass: u64) -> Result<Known> {
    let Some(decider) = &spec.selector else { return Ok(Known::New) };
    let Some(record) = spec.recorded(key) else { return Ok(Known::New) };
    spec.check_compute(&record)?;
    if record.ids.is_empty() {
        return Ok(Known::Decided(Decided { record, judged: None, outcomes: vec![] }));
    }
    let record = match of_signals(spec, decider, key, record, pass) {
        Known::NeedsScores(record) => record,
        other => return Ok(other),
    };
    let values = scores.map(|scores| scores.of(record.ids.len()));
    let rescuer = decider.selector().filter(|_| spec.config.captions.rescue);
    let judged = rescuer.map(|rescuer| judged(spec, key, rescuer, &record));
    if matches!(values, Some(None)) || matches!(judged, Some(None)) {
        return Ok(Known::NeedsScores(record));
    }
    let judged = judged.flatten();
    let outcomes = decider.decide(&window_of(key, &record, judged.as_deref(), values.flatten()), pass)?;
    Ok(Known::Decided(Decided { record, judged, outcomes }))
}

/// What is known of a window whose rows were read, now that nobody else encodes it: another lane may have recorded it
/// since.
///
/// # Errors
/// The shard holds other samples than were recorded.
pub(crate) fn known_now(spec: &Spec, decider: &Decider, window: &Window, before: Known) -> Result<Known> {
    let Some(record) = spec.recorded(&window.key).filter(|record| !record.ids.is_empty()) else {
        return Ok(before);
    };
    let now = of_signals(spec, decider, &window.key, record, window.segment.pass);
    let Some(record) = now.record() else { return Ok(before) };
    is_as_recorded(&window.rows, record)?;
    Ok(now)
}

/// How far signals go: never as far as a decision.
fn of_signals(
    spec: &Spec,
    decider: &Decider,
    key: &WindowKey,
    record: Arc<WindowRecord>,
    pass: u64,
) -> Known {
    let has_embedding = record.has_embedding || !decider.needs_embedding();
    if !has_embedding || (spec.needs_signals && record.signals.is_none()) {
        return Known::New;
    }
    match lacking(spec, decider, key, &record, pass) {
        Some(rows) => Known::Partial(record, rows),
        None => Known::NeedsScores(record),
    }
}

/// Which rows of a recorded window `epoch` needs more of than the record has, `[rows]`; `None` where it
/// has all that is needed.
fn lacking(
    spec: &Spec,
    decider: &Decider,
    key: &WindowKey,
    record: &WindowRecord,
    epoch: u64,
) -> Option<Vec<bool>> {
    let signals = record.signals.as_ref().filter(|_| spec.needs_signals)?;
    let share = share(decider, key, &record.failed, epoch);
    // Hashes of what the gate drops matter where it may be kept all the same.
    let may_be_kept = |row: usize| {
        let gated_out = |s: &Selector| s.is_gated_out(signals.alignment[row], signals.cluster[row]);
        spec.config.captions.rescue
            || decider.keeps_everything(epoch)
            || !decider.selector().is_some_and(gated_out)
    };
    let lacks = |row: usize| {
        let usable = record.failed[row].is_none() && share.as_ref().is_none_or(|share| share[row]);
        let unknown = || {
            spec.config.selection.defer_duplicates
                && signals.semantic_hash[row] == UNKNOWN_HASH
                && may_be_kept(row)
        };
        usable && (!record.is_encoded(row) || unknown())
    };
    let lacking: Vec<bool> = (0..record.ids.len()).map(lacks).collect();
    lacking.contains(&true).then_some(lacking)
}

/// Which rows of a window are in the share that `epoch` keeps of the stream, `[rows]`; `None` where all
/// are.
pub(crate) fn share(
    decider: &Decider,
    key: &WindowKey,
    failed: &[Option<FailReason>],
    epoch: u64,
) -> Option<Vec<bool>> {
    decider.selector()?.thin_share(hash::combine(&[key.shard, key.window]), failed, epoch)
}

/// The scores of a known window, where the ledger has them all.
fn judged(spec: &Spec, window: &WindowKey, selector: &Selector, record: &WindowRecord) -> Option<Vec<f32>> {
    let known = spec.ledger.scores_of(&judge_key(spec, window)?);
    let rows = record.ids.iter().zip(gated_out(selector, record));
    rows.map(|(id, out)| if out { known.get(id).copied() } else { Some(f32::NAN) }).collect()
}

/// Which rows of a window the gate drops, `[rows]`.
pub(crate) fn gated_out<'r>(
    selector: &'r Selector,
    record: &'r WindowRecord,
) -> impl Iterator<Item = bool> + 'r {
    (0..record.ids.len()).map(move |row| {
        let drops = |signals: &Signals| selector.is_gated_out(signals.alignment[row], signals.cluster[row]);
        record.failed[row].is_none() && record.signals.as_ref().is_some_and(drops)
    })
}

/// Where the scores of a window are: those of another generator, another judge, another way of computing
/// in either, or another idea of what says nothing are not mixed with them. The last bits of a score, and
/// with them a decision, may depend on the device. A stand-in answers for a model that computed as the window's
/// signals were computed.
pub(crate) fn judge_key(spec: &Spec, window: &WindowKey) -> Option<CaptionKey> {
    let writer = spec.model.as_ref()?;
    let judge = spec.judge.as_ref()?;
    let shape = writer.caption?;
    let compute = |model: &ModelThread| match spec.ledger.window(window) {
        Some(record) if model.stands_in => hash::hash_str(&record.compute),
        _ => hash::hash_str(&model.compute),
    };
    let parts = [
        shape.fingerprint,
        judge.fingerprint,
        spec.config.captions.replace_repetitive.into(),
        compute(writer),
        compute(judge),
    ];
    Some(window.captions(hash::combine(&parts)))
}
