//! The facts of one sample: what became of it, and by which numbers.

use serde::Serialize;

use crate::error::{FailReason, Result};
use crate::jobs::decisions::DecidedWindow;
use crate::sample::{DropReason, Outcome};

/// What became of one sample, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Explained {
    /// Name of its source.
    pub source: String,
    /// Path of its shard below the source's root.
    pub shard: String,
    /// Its key; `None` where the ledger has no index of the shard.
    pub key: Option<String>,
    /// Its identity, as in batches and exports.
    pub id: u64,
    /// `kept`, `dropped`, `excluded` or `failed`; `usable` where nothing decides; `unknown` where the recording does not have
    /// it: then `key` is what was asked for, and nothing else is known.
    pub outcome: &'static str,
    /// Of what is dropped `gate`, `near-duplicate`, `quota` or `thin`; of what failed the reason's name.
    pub reason: Option<&'static str>,
    /// What exactly was found of a sample that failed; of one that is excluded the condition, where that is known.
    pub detail: Option<String>,
    /// Length of its original caption in characters; `None` of what failed.
    pub caption_chars: Option<u32>,
    /// Its generated caption, where the ledger has one.
    pub caption: Option<String>,
    /// Its cluster, where it was encoded.
    pub cluster: Option<u32>,
    /// Its alignment: the share of the corpus that aligns worse.
    pub alignment: Option<f32>,
    /// Its score, where the corpus has them and they are asked for.
    pub score: Option<f32>,
    /// Where the gate cuts, if it does.
    pub gate: Option<GateCut>,
    /// The near-duplicate that it fell to.
    pub near: Option<NearDuplicate>,
    /// Its place in the draw of its cluster.
    pub quota: Option<QuotaPlace>,
    /// Probability with which such a sample is kept; `None` of what is not kept, and where it depends on the sample.
    pub pi: Option<f32>,
    /// What a judge says of its generated caption, where the ledger has that.
    pub judged: Option<f32>,
    /// Whether the gate drops it and its generated caption brought it back.
    pub rescued: bool,
    /// In which epochs a rotating policy keeps it.
    pub epochs: Option<Epochs>,
    /// All of this in a sentence.
    pub sentence: String,
    /// Whether quotas are of clusters.
    #[serde(skip)]
    pub by_cluster: bool,
}

/// Where a gate cuts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateCut {
    /// `alignment`, or the field of the score.
    pub by: String,
    /// The least that passes.
    pub least: f32,
}

/// The near-duplicate that a sample fell to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NearDuplicate {
    /// Path of its shard.
    pub shard: String,
    /// Its key.
    pub key: Option<String>,
    /// Its identity.
    pub id: u64,
    /// Whether it is kept itself: the quota may have dropped it.
    pub kept: bool,
    /// Bits of 256 in which the semantic hashes differ.
    pub bits: Option<u32>,
    /// Cosine of the embeddings, where the decision looked at them.
    pub cosine: Option<f32>,
}

/// Where a candidate stands in the draw of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QuotaPlace {
    /// Its draw, in [0, 1): candidates are kept from the least on, unless a priority says otherwise.
    pub draw: f64,
    /// The rate of its cluster in a window; `None` under a plan, whose quotas are counts.
    pub rate: Option<f64>,
    /// Under a plan, its place in its cluster, from 1 on.
    pub place: Option<u64>,
    /// Under a plan, candidates of its cluster that are left without near-duplicates.
    pub left: Option<u64>,
    /// Under a plan, how many of them are kept.
    pub slots: Option<u64>,
}

/// Epochs in which a sample is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Epochs {
    /// Their numbers.
    pub kept: Vec<u64>,
    /// Of how many, from 0 on.
    pub of: u64,
}

/// Names of an outcome and of its reason; `decided` says whether anything decides.
pub(in crate::jobs) fn named(outcome: Outcome, decided: bool) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::Kept { .. } if decided => ("kept", None),
        Outcome::Kept { .. } => ("usable", None),
        Outcome::Failed(FailReason::Excluded) => ("excluded", None),
        Outcome::Failed(reason) => ("failed", Some(reason.name())),
        Outcome::Dropped(DropReason::Gate) => ("dropped", Some("gate")),
        Outcome::Dropped(DropReason::Dedup) => ("dropped", Some("near-duplicate")),
        Outcome::Dropped(DropReason::Quota) => ("dropped", Some("quota")),
        Outcome::Dropped(DropReason::Thin) => ("dropped", Some("thin")),
    }
}

impl Explained {
    /// The answer to a `name` that the recording does not have.
    pub(super) fn unknown(name: &str) -> Self {
        let mut unknown = Self { key: Some(name.to_owned()), outcome: "unknown", ..Self::default() };
        unknown.say();
        unknown
    }
}

impl DecidedWindow<'_> {
    /// What became of sample `row`, and why. Looks the near-duplicate that it fell to up in the ledger.
    ///
    /// # Errors
    /// None yet: a near-duplicate that the ledger does not name is given without its key.
    pub fn explained(&self, row: usize) -> Result<Explained> {
        let (record, outcome) = (&self.record, self.outcomes[row]);
        let (name, reason) = named(outcome, self.decisions.policy().is_some());
        let id = record.ids[row];
        let is_usable = record.failed[row].is_none();
        let key = record.index.as_ref().and_then(|index| index.key(row)).map(str::to_owned);
        let failure = record.failures.iter().find(|failed| failed.id == id && !is_usable);
        let signals = record.signals.as_ref().filter(|_| is_usable && record.is_encoded(row));
        let cluster = signals.map(|signals| signals.cluster[row]);
        let score =
            self.scores.as_ref().map(|scores| scores[row]).filter(|score| !score.is_nan() && is_usable);
        let mut explained = Explained {
            source: self.source.to_owned(),
            shard: self.shard.to_owned(),
            key,
            id: id.0,
            outcome: name,
            reason,
            detail: failure.map(|failed| failed.detail.clone()).filter(|detail| !detail.is_empty()),
            caption_chars: is_usable.then_some(record.caption_chars[row]),
            caption: self.captions.as_ref().and_then(|captions| captions.get(id)).map(str::to_owned),
            cluster,
            alignment: signals.map(|signals| signals.alignment[row]),
            score,
            gate: self.gate_cut(cluster).filter(|_| is_usable),
            near: self.near(row),
            quota: self.quota(row),
            pi: match outcome {
                Outcome::Kept { pi } => pi,
                _ => None,
            },
            judged: self.judgement(row).filter(|_| is_usable),
            rescued: self.is_rescued(row),
            epochs: None,
            sentence: String::new(),
            by_cluster: self.decisions.policy().is_some_and(|policy| policy.quota().is_by_cluster()),
        };
        explained.say();
        Ok(explained)
    }

    /// Where the gate cuts samples of a cluster.
    fn gate_cut(&self, cluster: Option<u32>) -> Option<GateCut> {
        let policy = self.decisions.policy()?;
        match policy.gate().field() {
            Some(field) => Some(GateCut { by: field.to_owned(), least: policy.cut?.least? }),
            None => {
                let least = self.decisions.gate().least(cluster?)?;
                Some(GateCut { by: "alignment".to_owned(), least })
            }
        }
    }

    /// The near-duplicate that sample `row` fell to.
    pub fn near(&self, row: usize) -> Option<NearDuplicate> {
        if let Some(near) = self.place(row).and_then(|place| place.near) {
            let (record, id) = (&self.record, self.record.ids[near.row]);
            return Some(NearDuplicate {
                shard: self.shard.to_owned(),
                key: record.index.as_ref().and_then(|index| index.key(near.row)).map(str::to_owned),
                id: id.0,
                kept: self.outcomes[near.row].is_kept(),
                bits: Some(near.bits),
                cosine: Some(near.cosine),
            });
        }
        let other = self.fate(row)?.duplicate?;
        let (_, shard) = self.decisions.name(other.shard).unwrap_or_default();
        Some(NearDuplicate {
            shard: shard.to_owned(),
            key: self.decisions.key_of(other.shard, other.window, other.id),
            id: other.id.0,
            kept: other.is_kept,
            bits: Some(other.bits),
            cosine: other.cosine,
        })
    }

    /// The place of sample `row` in the draw of its cluster; `None` of near-duplicates.
    pub fn quota(&self, row: usize) -> Option<QuotaPlace> {
        if let Some(place) = self.place(row).filter(|place| place.near.is_none()) {
            let (draw, rate) = (place.draw, Some(place.rate));
            return Some(QuotaPlace { draw, rate, place: None, left: None, slots: None });
        }
        let fate = self.fate(row).filter(|fate| fate.duplicate.is_none())?;
        let (left, slots) = (Some(fate.of.left), Some(fate.of.slots));
        Some(QuotaPlace { draw: fate.draw, rate: None, place: Some(fate.place), left, slots })
    }
}
