//! Decides for all samples of a window at once.

mod phase;
mod places;
mod priority;
mod thin;

use std::sync::Arc;

use ndarray::Array2;

use crate::cluster::Clusters;
use crate::config::{Gate, Priority};
use crate::error::{Error, FailReason, Result};
use crate::hash::{self, Purpose};
use crate::model::Signals;
use crate::sample::{DropReason, Outcome, SampleId};
use crate::select::dedup::near_duplicates;
use crate::select::gate::GateRule;
use crate::select::policy::{Policy, is_ratio};
use crate::select::reservoir::{Covered, Draw, Rate, draws};
use crate::select::schedule::Schedule;
use crate::select::selector::phase::{Phase, phases};

pub use places::{Near, Place};

/// Version of the rules, part of the fingerprint: raised whenever a decision could change.
const RULES: u64 = 2;

/// At most `window` consecutive samples of one shard, with all that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Identity: [`combine`](crate::hash::combine) of shard hash and index of the window in it.
    pub id: u64,
    /// Samples, `[n]`.
    pub ids: &'a [SampleId],
    /// Why a sample is unusable, `[n]`; `None` where it is usable.
    pub failed: &'a [Option<FailReason>],
    /// Length of the original captions in characters, `[n]`.
    pub caption_chars: &'a [u32],
    /// Signals, `[n]`; rows of failed samples may hold anything. `None` where
    /// [`Selector::needs_signals`] is false.
    pub signals: Option<&'a Signals>,
    /// What a judge says of generated captions, `[n]`, in [0, 1]: a sample that the gate drops becomes a
    /// candidate after all where it says enough. Not a number where nothing was judged; `None` where
    /// nothing is rescued.
    pub judged: Option<&'a [f32]>,
    /// Scores that the corpus has, `[n]`, not a number where a sample has none; `None` where
    /// [`Selector::needs_scores`] is false.
    pub scores: Option<&'a [f32]>,
}

/// Applies one [`Policy`] to windows. Holds no state: decisions about a window are the same
/// whenever and in whatever order they are asked for.
#[derive(Debug, Clone)]
pub struct Selector {
    policy: Policy,
    clusters: Option<Arc<Clusters>>,
    gate: GateRule,
    phases: Schedule<Phase>,
}

/// A candidate as a plan sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) row: usize,
    pub(super) cluster: u32,
    pub(super) draw: Draw,
    /// Whether the draw of its window keeps it.
    pub(super) is_kept: bool,
}

/// Where everything is kept, inclusion is certain.
const EVERY: Outcome = Outcome::Kept { pi: Some(1.0) };

/// A sample that passed the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    // In order of comparison: clusters in similarity order, within one by hash; the row only
    // decides between samples of one id.
    cluster: u32,
    hash: u64,
    row: u32,
    /// Whether it passes by its generated caption only.
    rescued: bool,
}

/// How much of their rates the candidates of a window have, where the rescued share its draws.
#[derive(Debug, Clone, Copy)]
struct Crowding(Option<f64>);

impl Crowding {
    fn of(self, rate: Rate) -> Rate {
        // Without rescue the rate stays as it is, to the last bit.
        self.0.map_or(rate, |share| Rate::new(rate.value() * share))
    }
}

/// The rates of one epoch in one window, and those of the epochs that it goes on from.
struct Turn<'a> {
    now: (&'a Phase, Crowding),
    /// Each with its number of epochs; none where nothing rotates.
    before: Vec<(&'a Phase, Crowding, u64)>,
}

impl Turn<'_> {
    fn rate(&self, cluster: u32) -> Rate {
        self.now.1.of(self.now.0.rate(cluster))
    }

    fn covered(&self, cluster: u32) -> Covered {
        self.before.iter().fold(Covered::default(), |covered, (phase, crowding, epochs)| {
            covered.and(crowding.of(phase.rate(cluster)), *epochs)
        })
    }
}

impl Selector {
    /// Checks `policy` and solves its rates.
    ///
    /// # Errors
    /// An option out of its range, or one that needs clusters where there are none, or a
    /// keep_ratio above what the gate lets through. The error names option, value and what is
    /// accepted.
    pub fn new(policy: Policy, clusters: Option<Arc<Clusters>>) -> Result<Self> {
        policy.ratios()?;
        policy.gate().check()?;
        let dedup = policy.selection.dedup;
        if let Some(dedup) = dedup.filter(|&cosine| !is_ratio(f64::from(cosine))) {
            return Err(Error::option("dedup", dedup, "a cosine in (0, 1], or none to keep near-duplicates"));
        }
        check_score(&policy)?;
        if clusters.is_none() {
            let needs = |why: &str| format!("a captioner directory with clusters, {why}");
            let by_score = policy.has_scores();
            if policy.gate().is_by_alignment() {
                return Err(Error::option(
                    "gate",
                    policy.gate(),
                    needs("for its alignments: run fit, or remove the gate"),
                ));
            }
            if let Some(dedup) = dedup {
                return Err(Error::option(
                    "dedup",
                    dedup,
                    needs("for its embeddings: run fit, or remove dedup"),
                ));
            }
            let priority = policy.priority();
            if priority == Priority::Diverse {
                return Err(Error::option(
                    "priority",
                    priority.name(),
                    needs("for its embeddings: run fit, or use uniform"),
                ));
            }
            if priority.needs_alignment() && !by_score {
                return Err(Error::option(
                    "priority",
                    priority.name(),
                    needs("for its alignments: run fit, or use uniform"),
                ));
            }
            if policy.quota().is_by_cluster() {
                return Err(Error::option(
                    "quota",
                    policy.quota(),
                    needs("by which it goes: run fit, or use random"),
                ));
            }
        }
        if policy.priority() == Priority::EveryNth && policy.selection.rotate {
            let accepted = "a fixed choice, with this priority: leave rotate out, or use uniform";
            return Err(Error::option("priority", policy.priority().name(), accepted));
        }
        Self::check_thin(&policy)?;
        let phases = phases(&policy, clusters.as_deref())?;
        let gate = GateRule::new(&policy, clusters.as_deref());
        Ok(Self { gate, phases, clusters, policy })
    }

    /// Whether the gate drops a sample of this alignment and cluster, which a rescue could bring back.
    pub fn is_gated_out(&self, alignment: f32, cluster: u32) -> bool {
        !self.gate.passes(alignment, cluster)
    }

    /// Whether a generated caption with this score is enough for a sample of this cluster that the gate
    /// drops.
    pub fn is_rescued_by(&self, judged: f32, cluster: u32) -> bool {
        !self.gate.is_open() && self.gate.passes(judged, cluster)
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether windows must bring signals: whether a captioner has to run.
    pub fn needs_signals(&self) -> bool {
        self.policy.quota().is_by_cluster()
            || !self.gate.is_open()
            || self.policy.priority().needs_alignment() && !self.needs_scores()
            || self.needs_embedding()
    }

    /// Whether windows must bring scores of the corpus.
    pub fn needs_scores(&self) -> bool {
        self.policy.has_scores()
    }

    /// Whether decisions look at embeddings.
    pub fn needs_embedding(&self) -> bool {
        self.policy.selection.dedup.is_some() || self.policy.priority() == Priority::Diverse
    }

    /// The policy in words, and what else decides, by name. O(size of the clusters).
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.policy.settings();
        let clusters = self.clusters.as_ref();
        let clusters =
            clusters.map(|clusters| format!("{}, content {:016x}", clusters.len(), clusters.fingerprint()));
        settings.push(("clusters", clusters.unwrap_or_else(|| "none".into())));
        settings.push(("rules of selection", format!("version {RULES}")));
        settings
    }

    /// Identifies policy, clusters and rules. O(size of the clusters).
    pub fn fingerprint(&self) -> u64 {
        let clusters = self.clusters.as_ref().map_or(0, |clusters| clusters.fingerprint());
        hash::combine(&[RULES, self.policy.fingerprint(), clusters])
    }

    /// Share of the readable samples that is kept in `epoch`, in expectation: its keep_ratio. Where
    /// `dedup` is on, near-duplicates go before the quota counts, so that somewhat less is kept.
    pub fn expected_share(&self, epoch: u64) -> f64 {
        match self.phases.at(epoch) {
            Phase::Share(rates) => rates.expected_share(),
            Phase::Everything => 1.0,
        }
    }

    /// Whether `epoch` keeps every readable sample, whatever the gate, near-duplicates and the quota.
    pub fn keeps_everything(&self, epoch: u64) -> bool {
        matches!(self.phases.at(epoch), Phase::Everything)
    }

    /// First epoch of each stretch of epochs that keep the same share, from 0 on.
    pub fn stretches(&self) -> impl Iterator<Item = u64> {
        self.phases.steps().map(|(from, _)| from)
    }

    /// Decides what becomes of each sample of `window`, `[n]`, in `epoch`. Without
    /// [`Selection::rotate`](crate::config::Selection::rotate) every epoch of the same keep_ratio gets the same decisions.
    ///
    /// O(n log n); `dedup` adds O(n² * dim), `diverse` O(run * kept of it * dim) for each run.
    ///
    /// # Errors
    /// Fields of different lengths, signals that are missing although they are needed, a cluster
    /// that does not exist.
    pub fn decide(&self, window: &Window<'_>, epoch: u64) -> Result<Vec<Outcome>> {
        let signals = self.check(window)?;
        let everything = self.keeps_everything(epoch);
        let usable = if everything { EVERY } else { Outcome::Dropped(DropReason::Quota) };
        let mut outcomes = before_decision(window, usable);
        if everything {
            return Ok(outcomes);
        }
        let share = self.thin_share(window.id, window.failed, epoch);
        if let Some(share) = &share {
            self.leave_out(share, window, &mut outcomes);
        }
        let mut candidates = self.candidates(window, signals, &mut outcomes)?;
        if let Some(turn) = self.thin_turn(epoch) {
            for c in candidates {
                outcomes[c.row as usize] = Outcome::Kept { pi: Some(turn.rate(0).value() as f32) };
            }
            return Ok(outcomes);
        }
        if let (Some(threshold), Some(signals)) = (self.policy.selection.dedup, signals) {
            candidates.sort_unstable_by_key(|c| (c.hash, c.row));
            let copies = near_duplicates(embeddings(signals, &candidates).view(), threshold);
            let mut copies = copies.into_iter();
            candidates.retain(|c| {
                let copy = copies.next() == Some(true);
                if copy {
                    outcomes[c.row as usize] = Outcome::Dropped(DropReason::Dedup);
                }
                !copy
            });
        }
        candidates.sort_unstable();
        let turn = self.turn(&candidates, epoch);
        for run in candidates.chunk_by(|a, b| self.run(a.cluster) == self.run(b.cluster)) {
            let number = run.first().map_or(0, |c| self.run(c.cluster));
            let drawn = run.iter().zip(draws(self.policy.seed, window.id, u64::from(number)));
            match self.policy.priority() {
                Priority::Uniform => {
                    for (c, draw) in drawn {
                        let rate = turn.rate(c.cluster);
                        if draw.is_kept(rate, turn.covered(c.cluster)) {
                            outcomes[c.row as usize] = Outcome::Kept { pi: Some(rate.value() as f32) };
                        }
                    }
                }
                _ => {
                    for row in self.by_priority(run, drawn, &turn, window, signals) {
                        outcomes[row as usize] = Outcome::Kept { pi: None };
                    }
                }
            }
        }
        Ok(outcomes)
    }

    /// What a plan looks at: the outcome of each sample that is none of its candidates, and the
    /// candidates with the draws that the draw gives them. Near-duplicates within the window are
    /// candidates here, since a plan drops them itself.
    pub(super) fn drawn(&self, window: &Window<'_>) -> Result<(Vec<Outcome>, Vec<Drawn>)> {
        let signals = self.check(window)?;
        let mut outcomes = before_decision(window, Outcome::Dropped(DropReason::Quota));
        let mut candidates = self.candidates(window, signals, &mut outcomes)?;
        candidates.sort_unstable();
        let mut drawn = Vec::with_capacity(candidates.len());
        for run in candidates.chunk_by(|a, b| self.run(a.cluster) == self.run(b.cluster)) {
            let number = run.first().map_or(0, |c| self.run(c.cluster));
            let draws = draws(self.policy.seed, window.id, u64::from(number));
            drawn.extend(run.iter().zip(draws).map(|(c, draw)| Drawn {
                row: c.row as usize,
                cluster: c.cluster,
                draw,
                is_kept: draw.is_kept(self.phases.at(0).rate(c.cluster), Covered::default()),
            }));
        }
        Ok((outcomes, drawn))
    }

    /// Number of clusters that samples are told apart by.
    pub(super) fn cluster_count(&self) -> usize {
        match &self.clusters {
            Some(clusters) if self.policy.quota().is_by_cluster() => clusters.len(),
            _ => 1,
        }
    }

    /// Usable samples that pass the gate, in order of arrival; the others' outcome is set.
    fn candidates(
        &self,
        window: &Window<'_>,
        signals: Option<&Signals>,
        outcomes: &mut [Outcome],
    ) -> Result<Vec<Candidate>> {
        let clusters = self.clusters.as_ref().map_or(0, |clusters| clusters.len());
        let mut candidates = Vec::with_capacity(window.ids.len());
        for (row, id) in window.ids.iter().enumerate() {
            let is_dropped =
                || self.policy.selection.thin && outcomes[row] == Outcome::Dropped(DropReason::Thin);
            if window.failed[row].is_some() || is_dropped() {
                continue;
            }
            let (mut cluster, mut rescued) = (0, false);
            if window.scores.is_some_and(|scores| !self.gate.passes_score(scores[row])) {
                outcomes[row] = Outcome::Dropped(DropReason::Gate);
                continue;
            }
            if let Some(signals) = signals {
                let own = signals.cluster[row];
                if (self.policy.quota().is_by_cluster() || self.gate.is_by_cluster())
                    && own as usize >= clusters
                {
                    let what = format!("cluster of sample {:016x}", id.0);
                    let expected = format!("a number below {clusters}, the clusters in force");
                    return Err(Error::format(what, expected, own));
                }
                if !self.gate.passes(signals.alignment[row], own) {
                    rescued = window.judged.is_some_and(|judged| self.gate.passes(judged[row], own));
                    if !rescued {
                        outcomes[row] = Outcome::Dropped(DropReason::Gate);
                        continue;
                    }
                }
                if self.policy.quota().is_by_cluster() {
                    cluster = own;
                }
            }
            let hash = hash::hash(self.policy.seed, Purpose::Candidate, id.0);
            candidates.push(Candidate { cluster, hash, row: row as u32, rescued });
        }
        Ok(candidates)
    }

    /// The rescued share the draws of those that pass by themselves, all alike: a window then keeps as
    /// many as without them in expectation, and keep_ratio stays a share of the readable samples.
    fn crowding(&self, phase: &Phase, candidates: &[Candidate]) -> Crowding {
        if matches!(phase, Phase::Everything) || candidates.iter().all(|c| !c.rescued) {
            return Crowding(None);
        }
        let sum = |rescued: bool| -> f64 {
            let some = candidates.iter().filter(|c| c.rescued == rescued);
            some.map(|c| phase.rate(c.cluster).value()).sum()
        };
        let (own, guests) = (sum(false), sum(true));
        Crowding((own + guests > 0.0).then(|| own / (own + guests)))
    }

    /// The rates of `epoch`, and in rotation of the epochs before it.
    fn turn(&self, candidates: &[Candidate], epoch: u64) -> Turn<'_> {
        let with = |phase| (phase, self.crowding(phase, candidates));
        let before = self.phases.before(if self.policy.selection.rotate { epoch } else { 0 });
        let before = before.map(|(phase, epochs)| (phase, self.crowding(phase, candidates), epochs));
        Turn { now: with(self.phases.at(epoch)), before: before.collect() }
    }

    /// Run of a cluster; a random quota has one run.
    fn run(&self, cluster: u32) -> u32 {
        match &self.clusters {
            Some(clusters) if self.policy.quota().is_by_cluster() => clusters.runs[cluster as usize],
            _ => 0,
        }
    }

    /// Checks that the fields of a window fit each other; returns the signals to look at.
    fn check<'a>(&self, window: &Window<'a>) -> Result<Option<&'a Signals>> {
        let n = window.ids.len();
        let mut lengths =
            vec![("failed", window.failed.len()), ("caption_chars", window.caption_chars.len())];
        let signals = window.signals.filter(|_| self.needs_signals());
        if let Some(judged) = window.judged {
            lengths.push(("judged", judged.len()));
        }
        match window.scores {
            Some(scores) => lengths.push(("scores", scores.len())),
            None if self.needs_scores() => {
                return Err(Error::format(
                    "scores of a window",
                    "those of the corpus, for this policy",
                    "none",
                ));
            }
            None => {}
        }
        if let Some(signals) = signals {
            lengths.push(("signals.cluster", signals.cluster.len()));
            lengths.push(("signals.alignment", signals.alignment.len()));
            if self.needs_embedding() {
                lengths.push(("signals.embedding", signals.embedding.nrows()));
            }
        } else if self.needs_signals() {
            return Err(Error::format(
                "signals of a window",
                "those of a captioner, for this policy",
                "none",
            ));
        }
        match lengths.into_iter().find(|(_, found)| *found != n) {
            Some((what, found)) => Err(Error::format(format!("{what} of a window"), format!("[{n}]"), found)),
            None => Ok(signals),
        }
    }
}

/// Embeddings of the candidates, `[candidates, dim]`.
fn embeddings(signals: &Signals, candidates: &[Candidate]) -> Array2<f32> {
    let rows: Vec<usize> = candidates.iter().map(|c| c.row as usize).collect();
    signals.embedding.select(ndarray::Axis(0), &rows)
}

/// Outcomes of the samples of a window of which nothing else is said, `[n]`.
fn before_decision(window: &Window<'_>, usable: Outcome) -> Vec<Outcome> {
    window.failed.iter().map(|failed| failed.map_or(usable, Outcome::Failed)).collect()
}

/// Refuses a gate by a score that nothing looks at, or whose scores were not measured.
fn check_score(policy: &Policy) -> Result<()> {
    let (gate, Some(field)) = (policy.gate(), policy.gate().field()) else { return Ok(()) };
    if field.is_empty() {
        return Err(Error::option("gate", gate, "by=FIELD, the name of a field or column"));
    }
    if *gate == Gate::OFF.by(field) && !policy.priority().needs_alignment() {
        let accepted = "a share below 1 or at_least(SCORE); or set priority=hard or priority=score, which look at scores";
        return Err(Error::option("gate", gate, accepted));
    }
    policy.measured_cut().map(drop)
}
