//! What a selector goes by: a selection whose defaults are filled in, and what was learned of the corpus.

use serde::{Deserialize, Serialize};

use crate::config::{Gate, Priority, Quota, Selection, Within};
use crate::error::{Error, Result};
use crate::hash;
use crate::options::{Class, Group as _};
use crate::select::score::ScoreCut;

/// How much to keep, and by which rules. [`Selector::new`](crate::select::Selector::new) checks it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What the user asks for. Of what is not given, a keep_ratio is 0.25, a gate open and a quota proportional:
    /// [`Selection::resolved`] knows better.
    pub selection: Selection,
    /// Seed of every random choice.
    pub seed: u64,
    /// Samples of the corpus: what a quota that counts samples needs.
    pub corpus: Option<u64>,
    /// Where the scores of the corpus are cut, by which the gate goes.
    pub cut: Option<ScoreCut>,
}

/// The paper's.
const KEEP_RATIO: f64 = 0.25;

impl Policy {
    /// The selection, of a corpus that nothing is known of.
    pub fn new(selection: Selection, seed: u64) -> Self {
        Self { selection, seed, corpus: None, cut: None }
    }

    /// The same but for what `change` makes of its selection.
    #[must_use]
    pub fn but(&self, change: impl FnOnce(&mut Selection)) -> Self {
        let mut other = self.clone();
        change(&mut other.selection);
        other
    }

    /// Share of the readable samples to keep from epoch 0 on. [`Quota::CapAt`] sets it itself.
    pub fn keep_ratio(&self) -> f64 {
        self.selection.keep_ratio.as_ref().map_or(KEEP_RATIO, |ratio| ratio.first())
    }

    /// That share, and those of later epochs: first epoch and share, ascending. Where there are any, a share of 1 keeps
    /// every readable sample, whatever gate, dedup and quota say.
    ///
    /// # Errors
    /// A ratio outside of (0, 1]; a schedule that does not name each epoch once, from 0 on.
    pub(crate) fn ratios(&self) -> Result<(f64, &[(u64, f64)])> {
        let accepted = "a number in (0, 1]";
        self.selection
            .keep_ratio
            .as_ref()
            .map_or(Ok((KEEP_RATIO, &[])), |ratio| ratio.checked("keep_ratio", accepted, is_ratio))
    }

    /// What passes.
    pub fn gate(&self) -> &Gate {
        self.selection.gate.as_ref().unwrap_or(&Gate::OFF)
    }

    /// Of what the gate lets its share pass.
    pub fn within(&self) -> Within {
        self.gate().within()
    }

    /// How the kept share is spread over clusters.
    pub fn quota(&self) -> Quota {
        self.selection.quota.unwrap_or_default()
    }

    /// Which candidates fill a quota first.
    pub fn priority(&self) -> Priority {
        self.selection.priority
    }

    /// Whether decisions look at scores that the corpus has.
    pub fn has_scores(&self) -> bool {
        self.gate().field().is_some()
    }

    /// Where scores are cut.
    ///
    /// # Errors
    /// That was not measured.
    pub(crate) fn measured_cut(&self) -> Result<ScoreCut> {
        self.cut.ok_or_else(|| {
            let accepted = "a policy whose scores were measured on the corpus: ScoreCut::measured";
            Error::option("gate", self.gate(), accepted)
        })
    }

    /// Every option that decisions depend on and that is not at its default, by its name, with its value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.selection.entries(&[Class::Policy]);
        settings.push(("seed", self.seed.to_string()));
        if let (Quota::CapAt(_), Some(samples)) = (self.quota(), self.corpus) {
            settings.push(("samples that the cap is of", samples.to_string()));
        }
        if let Some(cut) = self.cut {
            let least = cut.least.map_or("any score".into(), |least| format!("a score of {least}"));
            settings.push((
                "what the gate lets pass",
                format!("from {least} on, {} of the samples", cut.pass_rate),
            ));
        }
        settings
    }

    /// Identifies the policy: decisions of different policies may differ. An option at its default has no part in it.
    pub fn fingerprint(&self) -> u64 {
        hash::pairs(self.settings())
    }
}

/// Whether a ratio can be meant.
pub(crate) fn is_ratio(ratio: f64) -> bool {
    ratio > 0.0 && ratio <= 1.0
}
