//! What became of every sample of a recording, with the reason: by a plan, by a policy, or by nothing.
//!
//! A plan holds the samples that it keeps and no more. Why the others are dropped is found by planning again, on the
//! same ledger with the plan's own policy; that must keep the same samples.

mod job;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::jobs::recorded::{Recorded, Wanted, all_kept, generation, lacking, samples, view, window_of};
use crate::ledger::{CorpusScores, Scores, WindowCaptions, WindowKey, WindowRecord};
use crate::loader::{PlanFile, gated_out};
use crate::sample::{DropReason, Outcome, SampleId};
use crate::select::gate::GateRule;
use crate::select::{Fate, Fates, Place, Planner, Policy, Selector, Window};

pub use job::{DecisionsJob, ExportBy};

/// What decides.
enum By {
    /// The fates are those of planning again; `None` where the plan tells all by itself.
    Plan(Box<PlanFile>, Option<Box<Fates>>),
    Policy(Box<Selector>),
    Nothing,
}

/// Decisions on a ledger, window by window.
pub struct Decisions {
    recorded: Recorded,
    by: By,
    gate: GateRule,
    generation: Option<u64>,
    /// The one set of judged captions that the ledger has, if it has one.
    judgement: Option<u64>,
    rescue: bool,
    score_field: Option<String>,
    /// Source and path of each shard, by its hash.
    names: BTreeMap<u64, (String, String)>,
}

/// A window, and what became of its samples.
pub struct DecidedWindow<'a> {
    /// What decided.
    pub decisions: &'a Decisions,
    /// Name of its source.
    pub source: &'a str,
    /// Path of its shard below the source's root.
    pub shard: &'a str,
    /// Which window it is.
    pub key: WindowKey,
    /// What the ledger holds of it.
    pub record: Arc<WindowRecord>,
    /// Scores of the corpus, where they are asked for, `[n]`.
    pub scores: Option<CorpusScores>,
    /// Generated captions, where there are any.
    pub captions: Option<Arc<WindowCaptions>>,
    /// What a judge said of generated captions, where the ledger has one set of judgements.
    pub judged: Option<Arc<Scores>>,
    /// What became of each sample, `[n]`.
    pub outcomes: Vec<Outcome>,
    places: Vec<Option<Place>>,
}

impl DecidedWindow<'_> {
    /// Where the policy's draw puts a sample; `None` under a plan, and of what is no candidate.
    pub fn place(&self, row: usize) -> Option<Place> {
        self.places.get(row).copied().flatten()
    }

    /// What a judge said of the generated caption of a sample, where it was asked and the caption says something.
    pub fn judgement(&self, row: usize) -> Option<f32> {
        let score = self.judged.as_ref()?.get(self.record.ids.get(row)?).copied()?;
        (!score.is_nan()).then_some(score)
    }

    /// Whether the gate drops a sample that its generated caption brought back.
    pub fn is_rescued(&self, row: usize) -> bool {
        let (Some(selector), Some(signals)) = (self.decisions.selector(), &self.record.signals) else {
            return false;
        };
        self.decisions.rescue
            && self.outcomes[row].is_kept()
            && selector.is_gated_out(signals.alignment[row], signals.cluster[row])
    }

    /// What `selector`, by which this window was decided, makes of its samples in `epoch`, `[n]`.
    ///
    /// # Errors
    /// As [`Decisions::each`].
    pub(super) fn decided_in(&self, selector: &Selector, epoch: u64) -> Result<Vec<Outcome>> {
        let judged = self.decisions.judged(&self.key, &self.record, selector)?;
        let view = view(&self.key, &self.record, self.scores.as_deref());
        selector.decide(&Window { judged: judged.as_deref(), ..view }, epoch)
    }

    /// What the plan made of a sample; `None` under a policy, and of what is no candidate.
    pub fn fate(&self, row: usize) -> Option<Fate> {
        match &self.decisions.by {
            By::Plan(_, Some(fates)) => fates.of(self.key.shard, self.key.window, *self.record.ids.get(row)?),
            _ => None,
        }
    }
}

impl Decisions {
    /// Opens the ledger and, for a plan, plans again where its reasons need that. `progress(done, total)` is called with
    /// shards.
    ///
    /// # Errors
    /// As [`without_reasons`](Self::without_reasons); a plan whose reasons need the clusters, or that the ledger does not
    /// give again.
    pub fn open(job: &DecisionsJob, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Self> {
        let mut decisions = Self::without_reasons(job)?;
        match decisions.by {
            By::Plan(plan, _) => {
                decisions.by = By::Nothing;
                decisions.replay(job, *plan, progress)?;
            }
            by => decisions.by = by,
        }
        Ok(decisions)
    }

    /// Opens the ledger. What a plan does not keep counts as dropped by its quota.
    ///
    /// # Errors
    /// A ledger that is not there, has several recordings that fit, or several sets of captions; a plan or a policy that
    /// cannot be used; a rescue that the ledger has no judge's scores for.
    pub fn without_reasons(job: &DecisionsJob) -> Result<Self> {
        let plan = match &job.by {
            ExportBy::Plan(path) => Some(PlanFile::load(path)?),
            ExportBy::Policy(..) | ExportBy::All => None,
        };
        let wanted = plan.as_ref().map_or(job.wanted, |plan| Wanted {
            scorer: Some(plan.captioner),
            reading: Some(plan.reading),
            window: Some(plan.window),
        });
        let mut recorded = Recorded::open(&job.ledger, wanted)?;
        if let Some(plan) = &plan {
            // Another corpus may be in the ledger too.
            let planned: HashSet<u64> = plan.shards.iter().map(|shard| shard.hash).collect();
            recorded.recording.shards.retain(|shard| planned.contains(&shard.hash));
        }
        let generation = generation(job.generation, &recorded)?;
        let names = recorded.names();
        let judgement = match recorded.recording.judgements[..] {
            [only] => Some(only),
            _ => None,
        };
        let mut decisions = Self {
            recorded,
            by: By::Nothing,
            gate: GateRule::new(&Policy::default(), None),
            generation,
            judgement,
            rescue: job.rescue,
            score_field: job.score_field.clone(),
            names,
        };
        match (&job.by, plan) {
            (ExportBy::Policy(policy, clusters), _) => {
                let recorded = &decisions.recorded;
                let policy = Policy { corpus: Some(samples(recorded)), ..recorded.with_scores(policy)? };
                decisions.gate = GateRule::new(&policy, clusters.as_deref());
                decisions.by = By::Policy(Box::new(Selector::new(policy, clusters.clone())?));
            }
            (_, Some(plan)) => decisions.by = By::Plan(Box::new(plan), None),
            _ => {}
        }
        decisions.check_rescue()?;
        let of_policy = decisions.policy().and_then(|policy| policy.gate().field()).map(str::to_owned);
        decisions.score_field = of_policy.or(decisions.score_field.take());
        Ok(decisions)
    }

    /// Fails where samples cannot be rescued.
    fn check_rescue(&self) -> Result<()> {
        let judgements = self.recorded.recording.judgements.len();
        match (&self.by, judgements) {
            _ if !self.rescue => Ok(()),
            (By::Policy(_), 1) => Ok(()),
            (By::Policy(_), found) => {
                let given = format!("a ledger with {found} sets of judged captions");
                let accepted = "one with one set: that of a loader with this gate, judge and rescue=true";
                Err(Error::option("rescue", given, accepted))
            }
            _ => Err(Error::unused("rescue", true, "without a policy: a plan rescues nothing")),
        }
    }

    /// Plans again.
    fn replay(
        &mut self,
        job: &DecisionsJob,
        plan: PlanFile,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let policy = plan.plan.policy().clone();
        let is_by_cluster =
            policy.gate().share().is_some() && policy.within() == crate::config::Within::Cluster;
        let needs_clusters = policy.selection.dedup.is_some() || is_by_cluster;
        self.gate = GateRule::new(&policy, job.clusters.as_deref());
        self.score_field = policy.gate().field().map(str::to_owned);
        let selector = match (Selector::new(policy, job.clusters.clone()), needs_clusters) {
            (Ok(selector), _) => selector,
            (Err(_), false) => {
                // What passed the gate and is not kept fell to its quota.
                self.by = By::Plan(Box::new(plan), None);
                return Ok(());
            }
            (Err(_), true) => {
                let accepted = "the captioner directory that the plan was made with: its clusters say in which order \
                                near-duplicates were dropped, and what the gate of each cluster is";
                return Err(Error::option("captioner", "none", accepted));
            }
        };
        // The file does not say whether embeddings were looked at.
        let ways = if selector.policy().selection.dedup.is_some() { &[false, true][..] } else { &[false] };
        for &embeddings in ways {
            let planner = Planner::new(selector.clone(), plan.plan.counts().candidates as usize)?;
            let planner = if embeddings { planner } else { planner.without_embeddings() };
            let mut planner = planner.fill_with_copies(plan.plan.counts().refilled > 0);
            self.walk(
                &mut |key, record, scores| {
                    let scores = scores.map(|scores| &scores[..]);
                    planner.add(key.shard, key.window, &view(key, record, scores))
                },
                progress,
            )?;
            let found = planner.decide_in_full();
            if let Ok((again, fates)) = found
                && again.kept().eq(plan.plan.kept())
            {
                self.by = By::Plan(Box::new(plan), Some(Box::new(fates)));
                return Ok(());
            }
        }
        let accepted = "the ledger and the captioner that the plan was made with: planning again with its policy keeps \
                        other samples; plan again";
        Err(Error::option("ledger", format!("{:?}", job.ledger.display()), accepted))
    }

    /// The policy that decides, if any.
    pub fn policy(&self) -> Option<&Policy> {
        match &self.by {
            By::Plan(plan, _) => Some(plan.plan.policy()),
            By::Policy(selector) => Some(selector.policy()),
            By::Nothing => None,
        }
    }

    /// The plan that decides, if any.
    pub fn plan(&self) -> Option<&PlanFile> {
        match &self.by {
            By::Plan(plan, _) => Some(plan),
            By::Policy(_) | By::Nothing => None,
        }
    }

    /// What became of the candidates of a plan, where planning again was needed and possible.
    pub fn fates(&self) -> Option<&Fates> {
        match &self.by {
            By::Plan(_, fates) => fates.as_deref(),
            By::Policy(_) | By::Nothing => None,
        }
    }

    /// What applies the policy, where one decides window by window.
    pub fn selector(&self) -> Option<&Selector> {
        match &self.by {
            By::Policy(selector) => Some(selector),
            By::Plan(..) | By::Nothing => None,
        }
    }

    /// The gate in force.
    pub fn gate(&self) -> &GateRule {
        &self.gate
    }

    /// The score of the corpus that is looked at, if any.
    pub fn score_field(&self) -> Option<&str> {
        self.score_field.as_deref()
    }

    /// Fingerprints of the scorer and of the reading options, and samples per window.
    pub fn recording(&self) -> (u64, u64, usize) {
        let recording = &self.recorded.recording;
        (recording.scorer, recording.reading, recording.size)
    }

    /// How many sets of judged captions the ledger has; what a judge said is known where it is one.
    pub fn judgement_sets(&self) -> usize {
        self.recorded.recording.judgements.len()
    }

    /// Hashes of the shards, in order.
    pub fn shards(&self) -> impl Iterator<Item = u64> + '_ {
        self.recorded.recording.shards.iter().map(|shard| shard.hash)
    }

    /// Source and path of a shard.
    pub fn name(&self, shard: u64) -> Option<(&str, &str)> {
        self.names.get(&shard).map(|(source, path)| (source.as_str(), path.as_str()))
    }

    /// What the ledger holds of window `number` of a shard.
    pub fn record(&self, shard: u64, number: u64) -> Option<Arc<WindowRecord>> {
        let shards = &self.recorded.recording.shards;
        let at = shards.binary_search_by_key(&shard, |shard| shard.hash).ok()?;
        self.recorded.window(&self.recorded.key(&shards[at], number))
    }

    /// Key of a sample.
    pub fn key_of(&self, shard: u64, number: u64, id: SampleId) -> Option<String> {
        let record = self.record(shard, number)?;
        let row = record.ids.iter().position(|&own| own == id)?;
        record.index.as_ref()?.key(row).map(str::to_owned)
    }

    /// Calls `each` with every window that has samples: in order of shard hash and position. `progress(done, total)` is
    /// called with shards.
    ///
    /// # Errors
    /// As [`export`](super::export()); what `each` and `progress` return.
    pub fn each(
        &self,
        each: &mut dyn FnMut(&DecidedWindow<'_>) -> Result<()>,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut kept = 0;
        self.walk(
            &mut |key, record, scores| {
                let window = self.decided(key, record, scores)?;
                kept += window.outcomes.iter().filter(|outcome| outcome.is_kept()).count() as u64;
                each(&window)
            },
            progress,
        )?;
        match self.plan().map(|plan| plan.plan.counts().kept).filter(|&planned| planned != kept) {
            Some(planned) => {
                let accepted =
                    format!("the ledger that the plan was made with: it has {kept} of its {planned} samples");
                Err(Error::option("ledger", self.recorded.ledger.location().unwrap_or_default(), accepted))
            }
            None => Ok(()),
        }
    }

    /// Window `number` of a shard with what became of its samples; `None` where the ledger does not have it.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn window(&self, shard: u64, number: u64) -> Result<Option<DecidedWindow<'_>>> {
        let shards = &self.recorded.recording.shards;
        let Ok(at) = shards.binary_search_by_key(&shard, |shard| shard.hash) else { return Ok(None) };
        let key = self.recorded.key(&shards[at], number);
        let Some(record) = self.recorded.window(&key).filter(|record| !record.ids.is_empty()) else {
            return Ok(None);
        };
        let scores = self.scores(&key, &record)?;
        self.decided(&key, &record, scores.as_ref()).map(Some)
    }

    /// Calls `each` with what is recorded of every window that has samples, undecided.
    ///
    /// # Errors
    /// What `each` and `progress` return.
    pub fn each_recorded(
        &self,
        each: &mut dyn FnMut(&WindowKey, &WindowRecord) -> Result<()>,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        self.walk(&mut |key, record, _| each(key, record), progress)
    }

    /// The scores of the corpus for a window, where they are looked at.
    fn scores(&self, key: &WindowKey, record: &WindowRecord) -> Result<Option<CorpusScores>> {
        self.score_field.as_deref().map(|name| self.recorded.scores(key, record, name)).transpose()
    }

    /// Decides one window.
    fn decided<'a>(
        &'a self,
        key: &WindowKey,
        record: &Arc<WindowRecord>,
        scores: Option<&CorpusScores>,
    ) -> Result<DecidedWindow<'a>> {
        let (source, shard) = self.name(key.shard).unwrap_or_default();
        let values = scores.map(|scores| &scores[..]);
        let (outcomes, places) = match &self.by {
            By::Nothing => (all_kept(record), vec![]),
            By::Policy(selector) => {
                if let Some(lacking) = lacking(key, record, selector) {
                    let given =
                        format!("window {} of {shard} lacks signals of {lacking} samples", key.window);
                    let accepted = "a ledger with signals of every sample that the policy looks at: that of a loader \
                                    with this policy, or of one without thin";
                    return Err(Error::option("ledger", given, accepted));
                }
                let judged = self.judged(key, record, selector)?;
                let window =
                    Window { judged: judged.as_deref(), ..window_of(key, record, values, selector)? };
                (selector.decide(&window, 0)?, selector.places(&window, 0)?)
            }
            By::Plan(plan, fates) => {
                let mut outcomes = plan.plan.decide(&view(key, record, values))?;
                for (row, outcome) in outcomes.iter_mut().enumerate() {
                    if matches!(outcome, Outcome::Dropped(_)) {
                        let fate =
                            fates.as_ref().and_then(|fates| fates.of(key.shard, key.window, record.ids[row]));
                        *outcome = Outcome::Dropped(match fate {
                            _ if !self.passes(record, row, values) => DropReason::Gate,
                            Some(Fate { duplicate: Some(_), .. }) => DropReason::Dedup,
                            _ => DropReason::Quota,
                        });
                    }
                }
                (outcomes, vec![])
            }
        };
        let generated = |generation| self.recorded.ledger.captions_of(&key.captions(generation));
        Ok(DecidedWindow {
            decisions: self,
            source,
            shard,
            key: *key,
            record: Arc::clone(record),
            scores: scores.cloned(),
            captions: self.generation.map(generated),
            judged: self.judgements(key),
            outcomes,
            places,
        })
    }

    /// Under a rescue what the judge said of the generated captions of samples that the gate drops, `[n]`; not a number for
    /// the others.
    fn judged(
        &self,
        key: &WindowKey,
        record: &WindowRecord,
        selector: &Selector,
    ) -> Result<Option<Vec<f32>>> {
        if !self.rescue {
            return Ok(None);
        }
        let known = self.judgements(key).unwrap_or_default();
        let rows = record.ids.iter().zip(gated_out(selector, record));
        let found = rows.map(|(id, out)| if out { known.get(id).copied() } else { Some(f32::NAN) });
        found.collect::<Option<Vec<f32>>>().map(Some).ok_or_else(|| {
            let given =
                format!("window {} lacks the judge's scores of samples that the gate drops", key.window);
            let accepted =
                "a ledger with all of them: that of a loader with this gate, judge and rescue=true";
            Error::option("ledger", given, accepted)
        })
    }

    /// What a judge said of generated captions of a window.
    fn judgements(&self, key: &WindowKey) -> Option<Arc<Scores>> {
        Some(self.recorded.ledger.scores_of(&key.captions(self.judgement?)))
    }

    /// Whether the gate lets a sample pass.
    fn passes(&self, record: &WindowRecord, row: usize, scores: Option<&[f32]>) -> bool {
        let signals = record.signals.as_ref();
        scores.is_none_or(|scores| self.gate.passes_score(scores[row]))
            && signals.is_none_or(|signals| self.gate.passes(signals.alignment[row], signals.cluster[row]))
    }

    /// Calls `each` with what is recorded of every window that has samples.
    fn walk(
        &self,
        each: &mut EachRecorded<'_>,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let shards = &self.recorded.recording.shards;
        for (done, shard) in shards.iter().enumerate() {
            for &window in &shard.windows {
                let key = self.recorded.key(shard, window);
                let Some(record) = self.recorded.window(&key).filter(|record| !record.ids.is_empty()) else {
                    continue;
                };
                let scores = self.scores(&key, &record)?;
                let path = || self.name(shard.hash).map_or("", |(_, path)| path).into();
                each(&key, &record, scores.as_ref()).map_err(|error| error.in_shard(&path()))?;
            }
            progress(done as u64 + 1, shards.len() as u64)?;
        }
        Ok(())
    }
}

/// What is called with every recorded window.
type EachRecorded<'a> = dyn FnMut(&WindowKey, &Arc<WindowRecord>, Option<&CorpusScores>) -> Result<()> + 'a;
