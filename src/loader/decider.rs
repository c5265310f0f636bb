//! What decides which samples of a window survive: a policy window by window, or a plan of the whole
//! corpus.

use std::sync::Arc;

use crate::error::Result;
use crate::loader::plan::PlanFile;
use crate::sample::Outcome;
use crate::select::{Priority, Selector, Window};

/// A source of decisions about windows. Holds no state.
pub(crate) enum Decider {
    /// The policy, from the signals of each window.
    Select(Box<Selector>),
    /// Decisions that were taken before.
    Plan(Arc<PlanFile>),
}

impl Decider {
    /// The plan, where there is one.
    pub(crate) fn plan(&self) -> Option<&PlanFile> {
        match self {
            Self::Select(_) => None,
            Self::Plan(plan) => Some(plan),
        }
    }

    /// The selector, where no plan decides.
    pub(crate) fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Select(selector) => Some(selector),
            Self::Plan(_) => None,
        }
    }

    /// As [`Selector::needs_signals`].
    pub(crate) fn needs_signals(&self) -> bool {
        match self {
            Self::Select(selector) => selector.needs_signals(),
            Self::Plan(_) => false,
        }
    }

    /// As [`Selector::needs_embedding`].
    pub(crate) fn needs_embedding(&self) -> bool {
        match self {
            Self::Select(selector) => selector.needs_embedding(),
            Self::Plan(_) => false,
        }
    }

    /// As [`Selector::needs_scores`].
    pub(crate) fn needs_scores(&self) -> bool {
        match self {
            Self::Select(selector) => selector.needs_scores(),
            Self::Plan(_) => false,
        }
    }

    /// As [`Selector::keeps_everything`].
    pub(crate) fn keeps_everything(&self, epoch: u64) -> bool {
        self.selector().is_some_and(|selector| selector.keeps_everything(epoch))
    }

    /// Whether it says of each survivor how likely it was to be kept.
    pub(crate) fn states_pi(&self) -> bool {
        match self {
            Self::Select(selector) => selector.policy().priority == Priority::Uniform,
            Self::Plan(plan) => !plan.plan.rates().is_empty(),
        }
    }

    /// As [`Selector::decide`]; a plan decides the same in every epoch.
    pub(crate) fn decide(&self, window: &Window<'_>, epoch: u64) -> Result<Vec<Outcome>> {
        match self {
            Self::Select(selector) => selector.decide(window, epoch),
            Self::Plan(plan) => plan.plan.decide(window),
        }
    }

    /// Survivors of a corpus of `samples` in `epoch`: expected, or exactly those of the plan.
    pub(crate) fn expected(&self, samples: u64, epoch: u64) -> u64 {
        match self {
            // Rounded up a hair, so that 0.3 of 10 is 3 and not 2.9999...
            Self::Select(selector) => {
                (selector.expected_share(epoch) * samples as f64 + 1e-9 * samples as f64) as u64
            }
            Self::Plan(plan) => plan.plan.counts().kept,
        }
    }

    /// First epoch of each stretch of epochs with as many survivors.
    pub(crate) fn stretches(&self) -> Vec<u64> {
        self.selector().map_or(vec![0], |selector| selector.stretches().collect())
    }
}
