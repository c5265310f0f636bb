//! A ledger as data: the windows that a captioner's signals are recorded for, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, FailReason, Result};
use crate::image::DecodeOptions;
use crate::ledger::{CorpusScores, Ledger, RecordedShard, Recording, WindowKey, WindowRecord};
use crate::loader::reading_fingerprint;
use crate::sample::Outcome;
use crate::select::{Policy, ScoreCut, Selector, Window};
use crate::shard::{ReadOptions, Store};

/// Bytes of the ledger in memory: windows are looked at once.
const CACHE_BYTES: u64 = 64 << 20;

/// Which recording of a ledger is meant, where there may be several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Fingerprint of the scorer; 0 for windows that were recorded without one.
    pub scorer: Option<u64>,
    /// Fingerprint of the reading options.
    pub reading: Option<u64>,
    /// Samples per window.
    pub window: Option<usize>,
}

impl Wanted {
    /// The recording by `scorer` of samples that are read so; reading options at their defaults name none.
    pub fn read_as(scorer: Option<u64>, read: &ReadOptions, decode: &DecodeOptions) -> Self {
        let is_plain = *read == ReadOptions::default() && *decode == DecodeOptions::default();
        let reading = (!is_plain).then(|| reading_fingerprint(read, decode));
        Self { scorer, reading, window: None }
    }
}

/// One recording of a ledger in a folder.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) ledger: Ledger,
    pub(super) recording: Recording,
}

impl Recorded {
    /// Opens the ledger in `path`.
    ///
    /// # Errors
    /// No ledger is there, or none or several of its recordings are what is wanted; the error names
    /// what there is.
    pub(super) fn open(path: &Path, wanted: Wanted) -> Result<Self> {
        let refuse = |accepted: String| Error::option("ledger", format!("{:?}", path.display()), accepted);
        if !Ledger::is_at(path, &Store::default())? {
            return Err(refuse("the folder of a ledger".into()));
        }
        let ledger = Ledger::open(path, Some(CACHE_BYTES))?;
        let all = ledger.recordings()?;
        // Windows without signals are meant where there are no others.
        let has_signals = all.iter().any(|r| r.scorer != 0);
        let fits = |r: &&Recording| {
            wanted.scorer.map_or(r.scorer != 0 || !has_signals, |scorer| scorer == r.scorer)
                && wanted.reading.is_none_or(|reading| reading == r.reading)
                && wanted.window.is_none_or(|window| window == r.size)
        };
        let fitting: Vec<&Recording> = all.iter().filter(fits).collect();
        // Who names no reading options means none, where there are several.
        let plain = reading_fingerprint(&ReadOptions::default(), &DecodeOptions::default());
        let plainly: Vec<&Recording> = fitting.iter().copied().filter(|r| r.reading == plain).collect();
        let found = if wanted.reading.is_none() && fitting.len() > 1 { &plainly } else { &fitting };
        match (found.first(), found.get(1)) {
            (Some(one), None) => Ok(Self { recording: Recording::clone(one), ledger }),
            (None, _) if all.is_empty() => Err(refuse("a ledger with windows; this one has none".into())),
            (first, _) => {
                let several = first.is_some() || fitting.len() > 1;
                let named = if several { fitting.clone() } else { all.iter().collect() };
                let names: Vec<String> = named.into_iter().map(name).collect();
                let what = if several { "several that fit" } else { "none that fits" };
                Err(refuse(format!(
                    "a ledger with one recording of this captioner, window size and reading options; of the \
                     recordings here there are {what}: {}; say which with captioner, window, caption_key, caption_choice, \
                     where, subset, captions, scores, alpha, exif_orientation and max_image_pixels",
                    names.join(", ")
                )))
            }
        }
    }

    pub(super) fn key(&self, shard: &RecordedShard, window: u64) -> WindowKey {
        let Recording { scorer, reading, size, .. } = self.recording;
        WindowKey { shard: shard.hash, window, size, version: shard.version, scorer, reading }
    }

    /// Scores of the corpus for the samples of a window, by the field `name`.
    ///
    /// # Errors
    /// They are not there: an option that names the field.
    pub(super) fn scores(&self, key: &WindowKey, record: &WindowRecord, name: &str) -> Result<CorpusScores> {
        let found = self.ledger.corpus_scores_of(key, name).filter(|scores| scores.len() == record.ids.len());
        found.ok_or_else(|| {
            let accepted = "a field whose scores the ledger has, of one version: those of a loader or a plan with a gate \
                            by this field";
            Error::option("gate", format!("by={name}"), accepted)
        })
    }

    /// `policy` with the gate of its score, if it has one, measured on all that is recorded.
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    pub(super) fn with_scores(&self, policy: &Policy) -> Result<Policy> {
        let Some(field) = policy.gate().field() else { return Ok(policy.clone()) };
        let mut all = vec![];
        for shard in &self.recording.shards {
            for key in shard.windows.iter().map(|&window| self.key(shard, window)) {
                let Some(record) = self.window(&key).filter(|record| !record.ids.is_empty()) else {
                    continue;
                };
                let scores = self.scores(&key, &record, field)?;
                let usable = record.failed.iter().zip(scores.iter()).filter(|(failed, _)| failed.is_none());
                all.extend(usable.map(|(_, score)| *score));
            }
        }
        Ok(Policy { cut: Some(ScoreCut::measured(policy.gate(), &all)), ..policy.clone() })
    }

    /// Source and path of each shard, by its hash.
    pub(super) fn names(&self) -> BTreeMap<u64, (String, String)> {
        let of = |shard: &RecordedShard| {
            let first = self.key(shard, *shard.windows.first()?);
            Some((shard.hash, self.ledger.shard_of(&first)?))
        };
        self.recording.shards.iter().filter_map(of).collect()
    }

    /// What is known of a window; `None`, and a warning, where its files are damaged.
    pub(super) fn window(&self, key: &WindowKey) -> Option<Arc<WindowRecord>> {
        let is_whole = |record: &Arc<WindowRecord>| {
            self.recording.scorer == 0 || record.ids.is_empty() || record.signals.is_some()
        };
        self.ledger.window(key).filter(is_whole)
    }
}

fn name(recording: &Recording) -> String {
    let Recording { scorer, reading, size, shards, .. } = recording;
    format!(
        "captioner {scorer:016x}, reading options {reading:016x}, windows of {size} ({} shards)",
        shards.len()
    )
}

/// Samples of a window that the filter of its recording let pass.
pub(super) fn included(record: &WindowRecord) -> u64 {
    record.failed.iter().filter(|failed| failed.is_none_or(FailReason::is_fault)).count() as u64
}

/// How many samples that the policy looks at have no signals; `None` where all have.
pub(super) fn lacking(key: &WindowKey, record: &WindowRecord, selector: &Selector) -> Option<usize> {
    let share = selector.thin_share(view(key, record, None).id, &record.failed, 0);
    let lacks = |row: &usize| !record.is_encoded(*row) && share.as_ref().is_none_or(|share| share[*row]);
    Some((0..record.ids.len()).filter(lacks).count()).filter(|&lacking| lacking > 0)
}

/// Samples of a recording that its filter let pass.
pub(super) fn samples(recorded: &Recorded) -> u64 {
    let shards = recorded.recording.shards.iter();
    let keys = shards.flat_map(|shard| shard.windows.iter().map(|&window| recorded.key(shard, window)));
    keys.filter_map(|key| recorded.window(&key)).map(|record| included(&record)).sum()
}

/// The captions that are meant; `None` where there are none.
pub(super) fn generation(given: Option<u64>, recorded: &Recorded) -> Result<Option<u64>> {
    let found = &recorded.recording.generations;
    match (given, &found[..]) {
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(*only)),
        (Some(wanted), _) if found.contains(&wanted) => Ok(Some(wanted)),
        (given, _) => {
            let names: Vec<String> = found.iter().map(|generation| format!("{generation:016x}")).collect();
            let given = given.map_or("none".to_owned(), |given| format!("{given:016x}"));
            let accepted = format!("one of the captions in the ledger: {}", names.join(", "));
            Err(Error::option("generation", given, accepted))
        }
    }
}

/// The selector's view of a window.
///
/// # Errors
/// The policy looks at embeddings, which were not recorded: an option that names them.
pub(super) fn window_of<'a>(
    key: &WindowKey,
    record: &'a WindowRecord,
    scores: Option<&'a [f32]>,
    selector: &Selector,
) -> Result<Window<'a>> {
    if selector.needs_embedding() && !record.has_embedding && !record.ids.is_empty() {
        let accepted = "a ledger with embeddings, which dedup and priority=diverse look at: that of a loader \
                        with this policy, or of plan --embeddings; or leave these options out";
        return Err(Error::option("ledger", "signals without embeddings", accepted));
    }
    Ok(view(key, record, scores))
}

/// As [`window_of`], where no embedding is looked at.
pub(super) fn view<'a>(key: &WindowKey, record: &'a WindowRecord, scores: Option<&'a [f32]>) -> Window<'a> {
    Window {
        id: crate::hash::combine(&[key.shard, key.window]),
        ids: &record.ids,
        failed: &record.failed,
        caption_chars: &record.caption_chars,
        signals: record.signals.as_ref(),
        judged: None,
        scores,
    }
}

/// Every usable sample as kept: no policy decides.
pub(super) fn all_kept(record: &WindowRecord) -> Vec<Outcome> {
    record.failed.iter().map(|failed| failed.map_or(Outcome::Kept { pi: None }, Outcome::Failed)).collect()
}
