//! What is checked of a loader's options, and what follows from them, before a thread starts.

use std::sync::Arc;

use crate::cluster::Clusters;
use crate::error::{Error, Result};
use crate::loader::builder::LoaderBuilder;
use crate::loader::decider::Decider;
use crate::loader::model_thread::ModelThread;
use crate::loader::plan::PlanFile;
use crate::loader::spec::Mode;
use crate::select::{GateBy, Policy, Quota, ScoreGate, Selector};
use crate::shard::{self, Shard};
use crate::text::Fuse;

/// Lanes by default, the first of these that fits world size and global batch: a run may then go on with twice as
/// many ranks, or with half. Else the world size.
const LANES: [usize; 4] = [8, 4, 2, 1];
/// Share of the readable samples that is kept by default where something tells them apart: the paper's.
const KEEP_RATIO: f64 = 0.25;
/// Threads that decode at most: more than machines have cores.
const MAX_THREADS: usize = 4096;
/// Batches that may wait at most: more hide nothing and fill the memory.
const MAX_PREFETCH: usize = 1024;

impl LoaderBuilder {
    pub(super) fn check_numbers(&self) -> Result<()> {
        self.stores.check()?;
        self.check_mix()?;
        let positive: [(&'static str, usize); 5] = [
            ("batch_size", self.batch_size),
            ("window", self.window),
            ("shuffle_windows", self.shuffle_windows),
            ("prefetch", self.prefetch),
            ("context_length", self.context_length),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(Error::option(option, value, "at least 1"));
            }
        }
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.check_rows(self.context_length)?;
        }
        if self.prefetch > MAX_PREFETCH {
            return Err(Error::option("prefetch", self.prefetch, format!("at most {MAX_PREFETCH}")));
        }
        if self.threads > MAX_THREADS {
            return Err(Error::option("threads", self.threads, format!("at most {MAX_THREADS}")));
        }
        if self.max_image_pixels == 0 {
            return Err(Error::option("max_image_pixels", 0, "at least 1"));
        }
        if self.stall_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::option("stall_timeout", 0, "more than 0 seconds, or none to wait for ever"));
        }
        // Also where the mode does not use it: what cannot be meant is never passed over.
        self.score_gate_in_force()?;
        if let Some(keep_ratio) = &self.keep_ratio {
            keep_ratio.checked()?;
        }
        for (option, limit) in
            [("max_errors", self.max_errors), ("max_errors_per_shard", self.max_errors_per_shard)]
        {
            if limit.is_nan() || limit < 0.0 {
                return Err(Error::option(option, limit, "a count, or a share below 1"));
            }
        }
        Ok(())
    }

    pub(super) fn check_lanes(&self, world_size: usize) -> Result<usize> {
        if self.mode == Mode::Eval {
            return Ok(world_size);
        }
        let global = self.batch_size * world_size;
        let fits = |lanes: &usize| lanes.is_multiple_of(world_size) && global.is_multiple_of(*lanes);
        let lanes = self.lanes.unwrap_or(LANES.into_iter().find(fits).unwrap_or(world_size));
        if lanes == 0 || !lanes.is_multiple_of(world_size) {
            let accepted = format!(
                "a multiple of the world size, {world_size}, since each lane belongs to one rank; a state \
                 resumes on as many ranks as divide the lanes it was saved with, and a run that is to grow starts with \
                 a multiple of every world size that is planned"
            );
            return Err(Error::option("lanes", lanes, accepted));
        }
        if !global.is_multiple_of(lanes) {
            let accepted = format!(
                "the global batch, batch_size x world_size = {global}, must be a multiple of lanes = {lanes}; \
                 change batch_size or lanes"
            );
            return Err(Error::option("batch_size", self.batch_size, accepted));
        }
        Ok(lanes)
    }

    /// The selector of mode `Reduced`. `corpus`: its number of samples.
    pub(super) fn selector(&self, clusters: Option<&Arc<Clusters>>, corpus: u64) -> Result<Option<Selector>> {
        if self.mode != Mode::Reduced {
            return Ok(None);
        }
        let with = clusters.is_some();
        if let (Some(Quota::CapAt(_)), Some(keep_ratio)) = (self.quota, &self.keep_ratio) {
            let accepted = "left out with quota = cap(samples), which sets it; or quota = cap";
            return Err(Error::option("keep_ratio", keep_ratio, accepted));
        }
        let score = self.score_gate_in_force()?;
        let gate = match &score {
            Some(ScoreGate { threshold: Some(_), .. }) => self.gate.flatten(),
            _ => self.gate.unwrap_or((with || score.is_some()).then_some(0.5)),
        };
        // Before the corpus was looked at, what is asked for is taken to pass.
        let score = score.map(|score| match score.measured {
            Some(_) => score,
            None => score.assumed(gate),
        });
        let (keep_ratio, later_ratios) = match &self.keep_ratio {
            Some(keep_ratio) => keep_ratio.checked()?,
            None if with || score.is_some() => (KEEP_RATIO, vec![]),
            None => {
                let accepted = "a number in (0, 1], the share of samples to keep: without a captioner, score_key or \
                                plan it has to be given; mode = full keeps all";
                return Err(Error::option("keep_ratio", "none", accepted));
            }
        };
        let policy = Policy {
            keep_ratio,
            later_ratios,
            gate,
            gate_by: self.gate_by,
            dedup: self.dedup,
            quota: self.quota.unwrap_or(if with { Quota::Proportional } else { Quota::Random }),
            priority: self.priority,
            rotate: self.rotate,
            thin: self.thin,
            seed: self.seed,
            corpus: Some(corpus),
            score,
        };
        Selector::new(policy, clusters.cloned()).map(Some)
    }

    /// What decides in mode `Reduced`: the plan, else a selector of the policy.
    pub(super) fn decider(
        &self,
        clusters: Option<&Arc<Clusters>>,
        corpus: u64,
        plan: Option<&Arc<PlanFile>>,
    ) -> Result<Option<Decider>> {
        match plan {
            Some(plan) => Ok(Some(Decider::Plan(Arc::clone(plan)))),
            None => Ok(self.selector(clusters, corpus)?.map(|selector| Decider::Select(Box::new(selector)))),
        }
    }

    /// The clusters of the encoder, of the same fit.
    pub(super) fn clusters(&self) -> Result<Option<Arc<Clusters>>> {
        let Some((encoder, clusters)) = &self.encoder else { return Ok(None) };
        if self.mode == Mode::Reduced && encoder.clusters() != clusters.len() {
            let accepted =
                format!("the encoder has {} clusters: both must come from one fit", encoder.clusters());
            return Err(Error::option("captioner", format!("{} clusters", clusters.len()), accepted));
        }
        Ok(Some(Arc::clone(clusters)))
    }

    pub(super) fn needs_signals(
        &self,
        selector: Option<&Decider>,
        model: Option<&ModelThread>,
    ) -> Result<bool> {
        let Some(selector) = selector else { return Ok(false) };
        let writes = model.is_some_and(|m| m.caption.is_some());
        if !matches!(self.fuse, Fuse::Original) && !writes {
            let accepted =
                "only `original` without a captioner that writes captions; give one with `captioner`";
            return Err(Error::option("fuse", &self.fuse, accepted));
        }
        if self.rescue && !writes {
            let accepted = "only false without a captioner that writes captions; give one with `captioner`";
            return Err(Error::option("rescue", self.rescue, accepted));
        }
        self.warn_of_idle_fusion(selector);
        Ok(selector.needs_signals() || self.fuse.needs_alignment())
    }

    /// `best` looks at what the gate has looked at already.
    fn warn_of_idle_fusion(&self, selector: &Decider) {
        let gate = selector.selector().and_then(|selector| selector.policy().gate);
        if let (Fuse::Best { threshold }, Some(gate), GateBy::Corpus, false) =
            (&self.fuse, gate, self.gate_by, self.rescue)
            && 1.0 - gate >= f64::from(*threshold)
        {
            tracing::warn!(
                "fuse = {}: the gate of {gate} lets nothing through below an alignment of {:.2}, so that every survivor \
                 keeps its original caption; use a higher best:Q, a wider gate, or fuse = original",
                self.fuse,
                1.0 - gate
            );
        }
    }

    /// Fails where generated captions would have to be judged and nothing may judge them.
    pub(super) fn check_judge(&self, selector: Option<&Decider>) -> Result<()> {
        let Some(decider) = selector else { return Ok(()) };
        if self.rescue && decider.plan().is_some() {
            let accepted = "only false with a plan, which has decided already";
            return Err(Error::option("rescue", self.rescue, accepted));
        }
        if self.rescue && decider.needs_scores() {
            let accepted = "only false with score_key, whose scores no judge gives";
            return Err(Error::option("rescue", self.rescue, accepted));
        }
        if self.rescue && decider.selector().is_some_and(|selector| selector.policy().gate.is_none()) {
            let accepted = "only false without a gate, which drops what it brings back; set `gate`";
            return Err(Error::option("rescue", self.rescue, accepted));
        }
        if self.rescue && self.thin {
            let accepted =
                "only false with thin: what is left out of the share would be missing among the rescued";
            return Err(Error::option("rescue", self.rescue, accepted));
        }
        let needs = if self.fuse.needs_judge() {
            Some(("fuse", self.fuse.to_string()))
        } else {
            self.rescue.then(|| ("rescue", self.rescue.to_string()))
        };
        match (needs, &self.judge) {
            (Some((option, given)), None) => {
                let accepted = "a judge beside it, since a generated caption is not judged by its own generator: \
                                set `judge` to a captioner that was trained on other data, or to an image-text \
                                matching model";
                Err(Error::option(option, given, accepted))
            }
            (None, Some(_)) => {
                let accepted = "left out, or `fuse` = gated or `rescue` = true, which ask it";
                Err(Error::option("judge", "given", accepted))
            }
            (Some(_), Some(judge)) => {
                let own =
                    self.encoder.as_ref().is_some_and(|(own, _)| own.fingerprint() == judge.fingerprint());
                if own {
                    let accepted = "another model: a generated caption is not judged by its own generator";
                    return Err(Error::option("judge", "the captioner itself", accepted));
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Fails where weights are asked for and the probabilities that they come from are not known.
    pub(super) fn check_weights(&self, selector: Option<&Decider>) -> Result<()> {
        let Some(decider) = selector.filter(|decider| self.weights && !decider.states_pi()) else {
            return Ok(());
        };
        let accepted = match decider.selector() {
            Some(selector) => format!(
                "only false with priority = {}, which depends on the sample, so that no probability is known; or                  priority = uniform",
                selector.policy().priority.name()
            ),
            None => "only false with this plan, which states no probabilities".to_owned(),
        };
        Err(Error::option("weights", self.weights, accepted))
    }

    /// The score's key and threshold together.
    fn score_gate_in_force(&self) -> Result<Option<ScoreGate>> {
        match (&self.score, self.threshold) {
            (None, Some(threshold)) => {
                let accepted = "left out without score_key, whose least score it is; of alignments a share passes, \
                                `gate`";
                Err(Error::option("threshold", threshold, accepted))
            }
            (score, threshold) => {
                Ok(score.clone().map(|score| ScoreGate { threshold: score.threshold.or(threshold), ..score }))
            }
        }
    }

    pub(super) fn check_lengths(
        &self,
        shards: &[Shard],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<u64>> {
        match &self.lengths {
            None => shard::lengths(shards, progress),
            Some(lengths) if lengths.contains(&0) => {
                let accepted = "at least 1 for every shard; leave empty shards out of the list";
                Err(Error::option("lengths", format!("{lengths:?}"), accepted))
            }
            Some(lengths) if lengths.len() == shards.len() => Ok(lengths.clone()),
            Some(lengths) => {
                let given = format!("{} numbers", lengths.len());
                Err(Error::option("lengths", given, format!("one for each of the {} shards", shards.len())))
            }
        }
    }

    /// Batches of an epoch that is expected to yield `expected` of the `samples` in the shards: the same on
    /// every rank.
    pub(super) fn num_batches(
        &self,
        epoch: u64,
        samples: u64,
        expected: u64,
        world_size: usize,
    ) -> Result<u64> {
        let global = (self.batch_size * world_size) as u64;
        if self.mode == Mode::Eval {
            return Ok(samples.div_ceil(world_size as u64).div_ceil(self.batch_size as u64));
        }
        if expected < global && !self.only_recording {
            let accepted = format!(
                "at most {expected}, the samples expected in epoch {epoch} ({samples} in the shards), \
                 divided by the world size, {world_size}"
            );
            return Err(Error::option("batch_size", self.batch_size, accepted));
        }
        Ok(expected / global)
    }
}

/// Samples of all shards.
pub(super) fn total(lengths: &[u64]) -> Result<u64> {
    let sum = lengths.iter().try_fold(0u64, |sum, &n| sum.checked_add(n));
    sum.filter(|&n| n < 1 << 53)
        .ok_or_else(|| Error::option("lengths", "a sum of 2^53 or more", "the samples of each shard"))
}
