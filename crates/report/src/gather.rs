//! One pass over the decisions: what is counted, and which samples are drawn to be looked at.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use tldr_loader::jobs::{DecidedWindow, Decisions};
use tldr_loader::model::Signals;
use tldr_loader::{DropReason, FailReason, Outcome, Result, SampleId};

use crate::draw::{Least, Place, lot, rank};
use crate::histogram::Histogram;

/// Bins of alignments: a step is half a percent.
const BINS: usize = 200;
/// Bins of the lengths of captions: four for each doubling.
pub(crate) const LENGTH_BINS: usize = 60;
/// Bits of a semantic hash.
const BITS: usize = 256;
/// Candidates whose hashes are looked at for near-duplicates where the policy drops none.
const SEARCHED: usize = 200_000;

/// How many samples are drawn for each part of the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// At random, to browse.
    pub(crate) browse: usize,
    /// For each list at the gate's edge.
    pub(crate) edge: usize,
    /// Clusters with pictures.
    pub(crate) clusters: usize,
    /// Pictures of each kind for a cluster.
    pub(crate) of_cluster: usize,
    /// Groups of near-duplicates.
    pub(crate) groups: usize,
    /// Samples of a group.
    pub(crate) of_group: usize,
    /// Samples of each reason of failure, and of each condition that excludes.
    pub(crate) failures: usize,
    /// Samples with a generated caption.
    pub(crate) captions: usize,
    /// Samples that a rescue brings back.
    pub(crate) rescued: usize,
}

/// What became of samples, in order of the funnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Funnel {
    pub(crate) read: u64,
    pub(crate) failed: u64,
    pub(crate) excluded: u64,
    pub(crate) usable: u64,
    pub(crate) thin: u64,
    pub(crate) gate: u64,
    pub(crate) dedup: u64,
    pub(crate) quota: u64,
    pub(crate) kept: u64,
}

impl Funnel {
    fn count(&mut self, outcome: Outcome) {
        self.read += 1;
        self.usable += u64::from(!matches!(outcome, Outcome::Failed(_)));
        match outcome {
            Outcome::Failed(FailReason::Excluded) => self.excluded += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Dropped(DropReason::Gate) => self.gate += 1,
            Outcome::Dropped(DropReason::Dedup) => self.dedup += 1,
            Outcome::Dropped(DropReason::Quota) => self.quota += 1,
            Outcome::Dropped(DropReason::Thin) => self.thin += 1,
            Outcome::Kept { .. } => self.kept += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.read += other.read;
        self.failed += other.failed;
        self.excluded += other.excluded;
        self.usable += other.usable;
        self.thin += other.thin;
        self.gate += other.gate;
        self.dedup += other.dedup;
        self.quota += other.quota;
        self.kept += other.kept;
    }
}

/// What is known of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct OfCluster {
    pub(crate) funnel: Funnel,
    /// Sum of the embeddings, and of how many.
    pub(crate) sum: Vec<f64>,
    pub(crate) embedded: u64,
    /// Set bits of the semantic hashes, and of how many.
    pub(crate) bits: Vec<u32>,
    pub(crate) hashed: u64,
    pub(crate) random: Least<Place>,
}

/// Histograms of the samples of one source.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OfSource {
    pub(crate) alignment: Histogram,
    pub(crate) score: Histogram,
    pub(crate) caption_chars: Histogram,
    pub(crate) pi: Histogram,
}

impl OfSource {
    fn new() -> Self {
        Self {
            alignment: Histogram::over(0.0, 1.0, BINS),
            score: Histogram::growing(BINS),
            caption_chars: Histogram::over(0.0, LENGTH_BINS as f64, LENGTH_BINS),
            pi: Histogram::over(0.0, 1.0, 50),
        }
    }
}

/// What excludes samples of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Excludes {
    /// Its `where`.
    Filter,
    /// Its subset.
    Subset,
}

/// A group of near-duplicates: the one that stays, and some that fell to it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) keeper: (u64, u64, SampleId),
    pub(crate) members: Least<Place>,
}

/// The lists at the gate's edge.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) above: Least<Place>,
    pub(crate) below: Least<Place>,
    pub(crate) best: Least<Place>,
    pub(crate) worst: Least<Place>,
    pub(crate) random: Least<Place>,
}

/// Hashes of usable samples, drawn by lot.
pub(crate) type Hashes = Least<(Place, [u64; 4])>;

/// What the pass found.
pub(crate) struct Gathered {
    pub(crate) funnel: Funnel,
    pub(crate) sources: BTreeMap<String, (Funnel, OfSource)>,
    pub(crate) shards: BTreeMap<(String, String), Funnel>,
    pub(crate) clusters: BTreeMap<u32, OfCluster>,
    pub(crate) failures: BTreeMap<&'static str, (u64, Least<Place>)>,
    /// By source and what excludes them.
    pub(crate) excluded: BTreeMap<(String, Excludes), (u64, Least<Place>)>,
    pub(crate) edge: Edge,
    pub(crate) browse: Least<Place>,
    pub(crate) captioned: Least<Place>,
    pub(crate) captions: u64,
    /// Samples whose generated caption a judge scored.
    pub(crate) judged: u64,
    pub(crate) rescued: u64,
    pub(crate) brought_back: Least<Place>,
    /// Groups across sources, across shards, and within one.
    pub(crate) groups: [BTreeMap<u64, Group>; 3],
    /// How many fell to each keeper, by its lot.
    pub(crate) fallen: HashMap<u64, u64>,
    /// Samples that the gate dropped and that have what nearness to a cluster's middle is measured by.
    pub(crate) measured_out: u64,
    pub(crate) hashes: Hashes,
    pub(crate) embeddings: bool,
}

/// Reads the decisions once.
pub(crate) fn gather(
    decisions: &Decisions,
    sizes: Sizes,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Gathered> {
    let least = || Least::new(sizes.edge);
    let edge = Edge { above: least(), below: least(), best: least(), worst: least(), random: least() };
    let dedups = decisions.policy().is_some_and(|policy| policy.selection.dedup.is_some());
    let mut found = Gathered {
        funnel: Funnel::default(),
        sources: BTreeMap::new(),
        shards: BTreeMap::new(),
        clusters: BTreeMap::new(),
        failures: BTreeMap::new(),
        excluded: BTreeMap::new(),
        edge,
        browse: Least::new(sizes.browse),
        captioned: Least::new(sizes.captions),
        captions: 0,
        judged: 0,
        rescued: 0,
        brought_back: Least::new(sizes.rescued),
        groups: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
        fallen: HashMap::new(),
        measured_out: 0,
        hashes: Least::new(if dedups { 0 } else { SEARCHED }),
        embeddings: false,
    };
    decisions.each(
        &mut |window| {
            found.window(window, sizes, seed);
            Ok(())
        },
        progress,
    )?;
    Ok(found)
}

impl Gathered {
    fn window(&mut self, window: &DecidedWindow<'_>, sizes: Sizes, seed: u64) {
        let record = &window.record;
        let by_score = window.decisions.score_field().is_some();
        self.embeddings |= record.has_embedding;
        let source = window.source.to_owned();
        let (of_all, of_source) =
            self.sources.entry(source.clone()).or_insert_with(|| (Funnel::default(), OfSource::new()));
        let mut funnel = Funnel::default();
        let outside: HashSet<SampleId> = record
            .failures
            .iter()
            .filter(|failed| failed.reason == FailReason::Excluded && !failed.detail.is_empty())
            .map(|failed| failed.id)
            .collect();
        for (row, &outcome) in window.outcomes.iter().enumerate() {
            let (id, place) =
                (record.ids[row], Place { shard: window.key.shard, window: window.key.window, row });
            let lot = |purpose: &str| lot(seed, purpose, id);
            funnel.count(outcome);
            if let Outcome::Failed(reason) = outcome {
                let few = || (0, Least::new(sizes.failures));
                let (count, drawn) = if reason.is_fault() {
                    self.failures.entry(reason.name()).or_insert_with(few)
                } else {
                    let by = if outside.contains(&id) { Excludes::Subset } else { Excludes::Filter };
                    self.excluded.entry((source.clone(), by)).or_insert_with(few)
                };
                *count += 1;
                drawn.offer(0, lot("failures"), || place);
                continue;
            }
            let is_kept = outcome.is_kept();
            let chars = record.caption_chars[row].max(1) as f32;
            of_source.caption_chars.add(4.0 * chars.log2(), is_kept);
            if let Outcome::Kept { pi: Some(pi) } = outcome {
                of_source.pi.add(pi, true);
            }
            self.browse.offer(0, lot("browse"), || place);
            let has_caption = window.captions.as_ref().is_some_and(|captions| captions.get(id).is_some());
            if has_caption {
                self.captions += 1;
                self.captioned.offer(0, lot("captions"), || place);
            }
            self.judged += u64::from(window.judgement(row).is_some());
            if window.is_rescued(row) {
                self.rescued += 1;
                self.brought_back.offer(0, lot("rescued"), || place);
            }
            let score = window.scores.as_ref().map(|scores| scores[row]);
            if let Some(score) = score {
                of_source.score.add(score, is_kept);
            }
            let signals = record.signals.as_ref().filter(|_| record.is_encoded(row));
            if let Some(signals) = signals {
                of_source.alignment.add(signals.alignment[row], is_kept);
                let cluster = self.clusters.entry(signals.cluster[row]);
                let cluster = cluster.or_insert_with(|| OfCluster::new(sizes));
                cluster.funnel.count(outcome);
                cluster.random.offer(0, lot("cluster"), || place);
                let is_measured = cluster.add(signals, row);
                self.measured_out += u64::from(is_measured && outcome == Outcome::Dropped(DropReason::Gate));
            }
            let alignment = signals.map(|signals| signals.alignment[row]);
            if let Some(value) = if by_score { score } else { alignment }.filter(|value| value.is_finite()) {
                let least = if by_score {
                    window.decisions.policy().and_then(|policy| policy.cut?.least)
                } else {
                    signals.and_then(|signals| window.decisions.gate().least(signals.cluster[row]))
                };
                self.edge.offer(value, least, lot("edge"), place);
            }
            if let Some(signals) = signals.filter(|signals| signals.semantic_hash[row] != [0; 4]) {
                self.hashes.offer(0, lot("hashes"), || (place, signals.semantic_hash[row]));
            }
            if outcome == Outcome::Dropped(DropReason::Dedup) {
                near(&mut self.groups, &mut self.fallen, window, row, place, sizes, seed);
            }
        }
        of_all.add(funnel);
        self.funnel.add(funnel);
        self.shards.entry((source, window.shard.to_owned())).or_default().add(funnel);
    }
}

impl OfCluster {
    fn new(sizes: Sizes) -> Self {
        Self {
            funnel: Funnel::default(),
            sum: vec![],
            embedded: 0,
            bits: vec![0; BITS],
            hashed: 0,
            // Some of them may be nearest to the middle too, and are shown as that.
            random: Least::new(2 * sizes.of_cluster),
        }
    }

    /// Adds up embedding and hash of a sample, and says whether there is one of them.
    fn add(&mut self, signals: &Signals, row: usize) -> bool {
        if signals.embedding.ncols() > 0 {
            self.sum.resize(signals.embedding.ncols(), 0.0);
            self.sum
                .iter_mut()
                .zip(signals.embedding.row(row))
                .for_each(|(sum, &value)| *sum += f64::from(value));
            self.embedded += 1;
        }
        let hash = signals.semantic_hash[row];
        if hash != [0; 4] {
            self.hashed += 1;
            for (bit, count) in self.bits.iter_mut().enumerate() {
                *count += (hash[bit / 64] >> (bit % 64)) as u32 & 1;
            }
        }
        hash != [0; 4] || signals.embedding.ncols() > 0
    }
}

/// Takes a near-duplicate into its group.
fn near(
    groups: &mut [BTreeMap<u64, Group>; 3],
    fallen: &mut HashMap<u64, u64>,
    window: &DecidedWindow<'_>,
    row: usize,
    place: Place,
    sizes: Sizes,
    seed: u64,
) {
    let in_window = window.place(row).and_then(|place| place.near);
    let keeper = match (in_window, window.fate(row).and_then(|fate| fate.duplicate)) {
        (Some(near), _) => (place.shard, place.window, window.record.ids[near.row]),
        (None, Some(other)) => (other.shard, other.window, other.id),
        (None, None) => return,
    };
    let source = window.decisions.name(keeper.0).map(|(source, _)| source);
    let how_near = match (source == Some(window.source), keeper.0 == place.shard) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    let groups = &mut groups[how_near];
    let drawn = lot(seed, "groups", keeper.2);
    *fallen.entry(drawn).or_default() += 1;
    let is_in =
        groups.len() < sizes.groups || groups.last_key_value().is_some_and(|(last, _)| *last >= drawn);
    if !is_in {
        return;
    }
    let group = groups.entry(drawn).or_insert_with(|| Group { keeper, members: Least::new(sizes.of_group) });
    group.members.offer(0, lot(seed, "members", window.record.ids[row]), || place);
    if groups.len() > sizes.groups {
        groups.pop_last();
    }
}

impl Edge {
    fn offer(&mut self, value: f32, least: Option<f32>, lot: u64, place: Place) {
        if let Some(least) = least {
            if value >= least {
                self.above.offer(rank(value - least), lot, || place);
            } else {
                self.below.offer(rank(least - value), lot, || place);
            }
        }
        self.best.offer(-rank(value), lot, || place);
        self.worst.offer(rank(value), lot, || place);
        self.random.offer(0, lot, || place);
    }
}
