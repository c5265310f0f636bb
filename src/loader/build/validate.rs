//! What is checked of a loader's options, and what follows from them, before a thread starts.

use std::sync::Arc;

use crate::cluster::Clusters;
use crate::config::{Mode, Within};
use crate::error::{Error, Result};
use crate::loader::build::listing::Listing;
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::decider::Decider;
use crate::loader::model_thread::ModelThread;
use crate::loader::plan::PlanFile;
use crate::select::{Policy, ScoreCut, Selector, is_ratio};
use crate::shard;
use crate::text::Fuse;

/// Lanes by default, the first of these that fits world size and global batch: a run may then go on with twice as
/// many ranks, or with half. Else the world size.
const LANES: [usize; 4] = [8, 4, 2, 1];
/// Threads that decode at most: more than machines have cores.
const MAX_THREADS: usize = 4096;
/// Batches that may wait at most: more hide nothing and fill the memory.
const MAX_PREFETCH: usize = 1024;

impl LoaderBuilder {
    pub(crate) fn check_numbers(&self) -> Result<()> {
        let config = &self.config;
        for source in &config.sources {
            source.store.check()?;
        }
        self.check_mix()?;
        let positive: [(&'static str, usize); 5] = [
            ("batch_size", config.batch_size),
            ("window", config.selection.window),
            ("shuffle_windows", config.runtime.shuffle_windows),
            ("prefetch", config.runtime.prefetch),
            ("context_length", config.captions.context_length),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(Error::option(option, value, "at least 1"));
            }
        }
        if let Some(tokenizer) = &self.parts.tokenizer {
            tokenizer.check_rows(config.captions.context_length)?;
        }
        let most = [
            ("prefetch", config.runtime.prefetch, MAX_PREFETCH),
            ("threads", config.runtime.threads, MAX_THREADS),
        ];
        for (option, value, most) in most {
            if value > most {
                return Err(Error::option(option, value, format!("at most {most}")));
            }
        }
        if config.images.max_image_pixels == 0 {
            return Err(Error::option("max_image_pixels", 0, "at least 1"));
        }
        if config.runtime.stall_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::option("stall_timeout", 0, "more than 0 seconds, or none to wait for ever"));
        }
        // Also where the mode does not use it: what cannot be meant is never skipped.
        if let Some(gate) = &config.selection.gate {
            gate.check()?;
        }
        if let Some(keep_ratio) = &config.selection.keep_ratio {
            keep_ratio.checked("keep_ratio", "a number in (0, 1]", is_ratio)?;
        }
        let limits = [
            ("max_errors", Some(config.runtime.max_errors)),
            ("max_errors_per_shard", config.runtime.max_errors_per_shard),
        ];
        for (option, limit) in limits.into_iter().filter_map(|(option, limit)| Some((option, limit?))) {
            if limit.is_nan() || limit < 0.0 {
                return Err(Error::option(option, limit, "a count, or a share below 1"));
            }
        }
        Ok(())
    }

    pub(crate) fn check_lanes(&self, world_size: usize) -> Result<usize> {
        if self.config.mode == Mode::Eval {
            return Ok(world_size);
        }
        let global = self.config.batch_size * world_size;
        let fits = |lanes: &usize| lanes.is_multiple_of(world_size) && global.is_multiple_of(*lanes);
        let lanes = self.config.world.lanes.unwrap_or(LANES.into_iter().find(fits).unwrap_or(world_size));
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
                "the global batch, batch_size x world_size = {global}, must be a multiple of lanes={lanes}; \
                 change batch_size or lanes"
            );
            return Err(Error::refused("batch_size", self.config.batch_size, accepted));
        }
        Ok(lanes)
    }

    /// The selector of mode `Reduced`. `corpus`: its number of samples.
    pub(crate) fn selector(&self, clusters: Option<&Arc<Clusters>>, corpus: u64) -> Result<Option<Selector>> {
        if self.config.mode != Mode::Reduced {
            return Ok(None);
        }
        let selection = self.config.selection.resolved(clusters.is_some())?;
        let mut policy = Policy { corpus: Some(corpus), ..Policy::new(selection, self.config.seed) };
        if policy.has_scores() {
            // Before the corpus was looked at, what is asked for is taken to pass.
            policy.cut = Some(self.parts.cut.unwrap_or_else(|| ScoreCut::assumed(policy.gate())));
        }
        Selector::new(policy, clusters.cloned()).map(Some)
    }

    /// What decides in mode `Reduced`: the plan, else a selector of the policy.
    pub(crate) fn decider(
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

    /// The clusters of the scorer, of the same fit.
    pub(crate) fn clusters(&self) -> Result<Option<Arc<Clusters>>> {
        let Some((scorer, clusters)) = &self.parts.scorer else { return Ok(None) };
        if self.config.mode == Mode::Reduced && scorer.clusters() != clusters.len() {
            let accepted = format!("the scorer has {}: both must come from one fit", scorer.clusters());
            return Err(Error::refused("captioner", format!("{} clusters", clusters.len()), accepted));
        }
        Ok(Some(Arc::clone(clusters)))
    }

    pub(crate) fn needs_signals(
        &self,
        selector: Option<&Decider>,
        model: Option<&ModelThread>,
    ) -> Result<bool> {
        let Some(selector) = selector else { return Ok(false) };
        let writes = model.is_some_and(|m| m.caption.is_some());
        if self.config.captions.fuse.is_generated() && !writes {
            let accepted = "`original`, or a table of captions, without a captioner that writes captions; give one with \
                            `captioner`";
            return Err(Error::option("fuse", &self.config.captions.fuse, accepted));
        }
        if self.config.captions.fuse.needs_alignment() && model.is_none() {
            let accepted =
                "a form that looks at no alignments, without a captioner; give one with `captioner`";
            return Err(Error::option("fuse", &self.config.captions.fuse, accepted));
        }
        if self.config.captions.rescue && !writes {
            let accepted = "false without a captioner that writes captions; give one with `captioner`";
            return Err(Error::option("rescue", self.config.captions.rescue, accepted));
        }
        self.warn_of_idle_fusion(selector);
        Ok(selector.needs_signals() || self.config.captions.fuse.needs_alignment())
    }

    /// `best` looks at what the gate has looked at already.
    fn warn_of_idle_fusion(&self, selector: &Decider) {
        let gate = selector.selector().map(|selector| selector.policy().gate());
        let gate = gate.filter(|gate| gate.is_by_alignment() && gate.within() == Within::Corpus);
        let captions = &self.config.captions;
        if let (Fuse::Best { threshold, .. }, Some(share), false) =
            (&captions.fuse, gate.and_then(|gate| gate.share()), captions.rescue)
            && 1.0 - share >= f64::from(*threshold)
        {
            tracing::warn!(
                "fuse={}: the gate of {share} lets nothing through below an alignment of {:.2}, so that every kept \
                 sample keeps its original caption; use a higher best(Q), a wider gate, or fuse=original",
                captions.fuse,
                1.0 - share
            );
        }
    }

    /// Fails where generated captions would have to be judged and nothing may judge them.
    pub(crate) fn check_judge(&self, selector: Option<&Decider>) -> Result<()> {
        let Some(decider) = selector else { return Ok(()) };
        if self.config.captions.rescue && decider.plan().is_some() {
            let accepted = "false with a plan, which has decided already";
            return Err(Error::option("rescue", self.config.captions.rescue, accepted));
        }
        if self.config.captions.rescue && decider.needs_scores() {
            let accepted = "false with a gate by a score of the corpus, which no judge gives";
            return Err(Error::option("rescue", self.config.captions.rescue, accepted));
        }
        if self.config.captions.rescue
            && decider.selector().is_some_and(|selector| !selector.policy().gate().is_by_alignment())
        {
            let accepted = "false without a gate, which drops what it brings back; set `gate`";
            return Err(Error::option("rescue", self.config.captions.rescue, accepted));
        }
        if self.config.captions.rescue && self.config.selection.thin {
            let accepted = "false with thin: what is not in the share would be missing among the rescued";
            return Err(Error::option("rescue", self.config.captions.rescue, accepted));
        }
        let needs = if self.config.captions.fuse.needs_judge() {
            Some(("fuse", self.config.captions.fuse.to_string()))
        } else {
            self.config.captions.rescue.then(|| ("rescue", self.config.captions.rescue.to_string()))
        };
        match (needs, &self.parts.judge) {
            (Some((option, given)), None) => {
                let accepted = "a judge beside it, since a generated caption is not judged by its own generator: \
                                set `judge` to a captioner that was trained on other data, or to an image-text \
                                matching model";
                Err(Error::option(option, given, accepted))
            }
            (None, Some(_)) => {
                let accepted = "without fuse=gated(Q) or rescue=true, which ask it";
                Err(Error::unused("judge", "given", accepted))
            }
            (Some(_), Some(judge)) => {
                let own = self
                    .parts
                    .scorer
                    .as_ref()
                    .is_some_and(|(own, _)| own.fingerprint() == judge.fingerprint());
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
    pub(crate) fn check_weights(&self, selector: Option<&Decider>) -> Result<()> {
        let Some(decider) = selector.filter(|decider| self.config.selection.weights && !decider.states_pi())
        else {
            return Ok(());
        };
        let accepted = match decider.selector() {
            Some(selector) => format!(
                "false with priority={}, which depends on the sample, so that no probability is known; or priority=uniform",
                selector.policy().priority().name()
            ),
            None => "false with this plan, which states no probabilities".to_owned(),
        };
        Err(Error::option("weights", self.config.selection.weights, accepted))
    }

    /// Samples of each shard: as given, or found.
    pub(crate) fn check_lengths(
        &self,
        listing: &Listing,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<u64>> {
        let Some(lengths) = self.given_lengths()? else { return shard::lengths(&listing.shards, progress) };
        if lengths.contains(&0) {
            let accepted = "at least 1 for every shard; leave empty shards out of the list";
            return Err(Error::option("lengths", format!("{lengths:?}"), accepted));
        }
        if lengths.len() != listing.shards.len() {
            let given = format!("{} numbers", lengths.len());
            let accepted = format!("one for each of the {} shards", listing.shards.len());
            return Err(Error::option("lengths", given, accepted));
        }
        Ok(lengths)
    }

    /// The lengths that the sources give, source by source; `None` where they give none.
    ///
    /// # Errors
    /// Some do, and some do not.
    pub(crate) fn given_lengths(&self) -> Result<Option<Vec<u64>>> {
        let sources = &self.config.sources;
        let given: Vec<&Vec<u64>> = sources.iter().filter_map(|source| source.lengths.as_ref()).collect();
        match given.len() {
            0 => Ok(None),
            n if n == sources.len() => Ok(Some(given.into_iter().flatten().copied().collect())),
            n => {
                let given = format!("those of {n} of {} sources", sources.len());
                Err(Error::option("lengths", given, "those of every source, or of none"))
            }
        }
    }

    /// Batches of an epoch that is expected to yield `expected` of the `samples` in the shards: the same on
    /// every rank.
    pub(crate) fn num_batches(
        &self,
        epoch: u64,
        samples: u64,
        expected: u64,
        world_size: usize,
    ) -> Result<u64> {
        let global = (self.config.batch_size * world_size) as u64;
        if self.config.mode == Mode::Eval {
            return Ok(samples.div_ceil(world_size as u64).div_ceil(self.config.batch_size as u64));
        }
        if expected < global && !self.parts.only_recording {
            let accepted = format!(
                "at most {expected}, the samples expected in epoch {epoch} ({samples} in the shards), \
                 divided by the world size, {world_size}"
            );
            return Err(Error::option("batch_size", self.config.batch_size, accepted));
        }
        Ok(expected / global)
    }
}

/// Samples of all shards.
pub(crate) fn total(lengths: &[u64]) -> Result<u64> {
    let sum = lengths.iter().try_fold(0u64, |sum, &n| sum.checked_add(n));
    sum.filter(|&n| n < 1 << 53)
        .ok_or_else(|| Error::option("lengths", "a sum of 2^53 or more", "the samples of each shard"))
}
