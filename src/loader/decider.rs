//! What decides which samples of a window are kept: a policy window by window, or a plan of the whole
//! corpus.

use std::sync::Arc;

use crate::config::Priority;
use crate::error::Result;
use crate::loader::plan::PlanFile;
use crate::sample::Outcome;
use crate::select::{Selector, Window};
use crate::shard::Count;

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

    /// Whether it says of each kept sample how likely it was to be kept.
    pub(crate) fn states_pi(&self) -> bool {
        match self {
            Self::Select(selector) => selector.policy().priority() == Priority::Uniform,
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

    /// Kept samples of a corpus in `epoch` of which so many samples count as `counts` says: expected, or exactly those of the
    /// plan.
    pub(crate) fn expected(&self, counts: &[Count], epoch: u64) -> u64 {
        let candidates = || counts.iter().map(|count| count.candidates).sum::<u64>();
        match self {
            Self::Select(selector) => {
                let cut = selector.policy().cut;
                let samples = match cut.filter(|cut| cut.pass_rate > 0.0) {
                    // Rates are solved for the pass rate that was measured: what passes is kept at these.
                    Some(cut) if !selector.keeps_everything(epoch) => candidates() as f64 / cut.pass_rate,
                    _ => counts.iter().map(|count| count.included).sum::<u64>() as f64,
                };
                // Rounded up a hair, so that 0.3 of 10 is 3 and not 2.9999...
                (selector.expected_share(epoch) * samples + 1e-9 * samples) as u64
            }
            Self::Plan(_) => candidates(),
        }
    }

    /// First epoch of each stretch of epochs with as many kept samples.
    pub(crate) fn stretches(&self) -> Vec<u64> {
        self.selector().map_or(vec![0], |selector| selector.stretches().collect())
    }
}
