//! What a training run says of itself, on its way and at its end.

use crate::StepReport;
use tldr_loader::cluster::{GateWorth, MeasuredOn, Validation};

/// Where a training run stands.
#[derive(Debug, Clone, Copy)]
pub struct TrainProgress {
    /// Fold that is trained, and how many there are; `(0, 1)` without folds.
    pub fold: (usize, usize),
    /// Steps of the whole run.
    pub steps: u64,
    /// What the last step did.
    pub report: StepReport,
    /// What was measured on held-out pairs last.
    pub validation: Option<Validation>,
    /// Images per second since the run was started or resumed, reading and validation included.
    pub images_per_s: f64,
    /// Seconds that the rest takes at that speed.
    pub seconds_left: f64,
}

/// How a training run ended.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct TrainSummary {
    /// Steps done.
    pub steps: u64,
    /// Steps that were done before: by the run of a checkpoint, or all where the captioner was whole.
    pub resumed_at: u64,
    /// Pairs seen, repeats included.
    pub pairs: u64,
    /// What the last step did.
    pub last: StepReport,
    /// What was measured on held-out pairs at the end; `None` where none were held out.
    pub validation: Option<Validation>,
    /// Keywords that codes started from, where they started from keywords.
    pub keywords: Option<usize>,
    /// Trained numbers in the captioner.
    pub weights: usize,
    /// Seconds of the whole run, reading included.
    pub seconds: f64,
}

impl TrainSummary {
    /// What a gate by this captioner's alignment is worth, where it was measured.
    pub fn worth(&self) -> Option<GateWorth> {
        self.validation.map(|validation| GateWorth { validation, on: MeasuredOn::HeldOut })
    }
}
