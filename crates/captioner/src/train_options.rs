//! How a captioner is trained: everything that is decided before the first step.

use tch::{Device, Kind};

use crate::augment::Augment;
use crate::device::Precision;
use crate::error::{Error, Result};

/// Factor of the paper's step decay, once an epoch (`lr_decay_rate` of the public code).
const STEP_DECAY: f64 = 0.9;

/// What the learning rate does after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Decay {
    /// Half a cosine down to the final learning rate at the last step.
    #[default]
    Cosine,
    /// Times 0.9 after every epoch, never below the final learning rate: the paper's.
    Step,
}

tldr_loader::names!(Decay { Cosine => "cosine", Step => "step" }, option "schedule");

/// How a captioner is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Steps of the whole run: a cosine ends with the last.
    pub steps: u64,
    /// Steps of an epoch, after which [`Decay::Step`] decays.
    pub epoch_steps: u64,
    /// Highest learning rate, reached after `warmup` steps.
    pub learning_rate: f64,
    /// Lowest learning rate after the warm-up.
    pub final_learning_rate: f64,
    /// What the learning rate does after the warm-up.
    pub schedule: Decay,
    /// Steps of linear warm-up; cut to a tenth of `steps` where that is less.
    pub warmup: u64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Share of the images that are replaced by the learned null image, in [0, 1).
    pub null_probability: f64,
    /// Gradients are scaled down to this norm.
    pub gradient_clip: f64,
    /// Parts that a batch is cut into and worked on one after the other, so that it may be larger
    /// than memory allows. The gradient is that of the whole batch, up to rounding.
    pub accumulate: usize,
    /// Numbers that matrix products are computed in; bf16 on a GPU and f32 on a CPU where `None`.
    /// Weights, norms, losses and the lookup of codes are f32 in any case.
    pub precision: Option<Precision>,
    /// What is done to previews.
    pub augment: Augment,
    /// Seed of everything random in a step.
    pub seed: u64,
    /// Parts that a batch is cut into on a CPU, one thread for each. The gradient is that of the
    /// whole batch, up to rounding. A GPU takes every batch whole.
    pub threads: usize,
}

impl TrainOptions {
    /// The paper's settings over `steps` steps: AdamW from 3e-4 to 1e-6, weight decay 0.05,
    /// 3,000 warm-up steps; a cosine in between.
    pub fn new(steps: u64) -> Self {
        Self {
            steps,
            epoch_steps: steps,
            learning_rate: 3e-4,
            final_learning_rate: 1e-6,
            schedule: Decay::Cosine,
            warmup: 3000,
            weight_decay: 0.05,
            null_probability: 0.1,
            gradient_clip: 1.0,
            accumulate: 1,
            precision: None,
            augment: Augment::None,
            seed: 0,
            threads: 1,
        }
    }

    /// Settings for the preset `small` and batches of 32: a higher learning rate, as narrow
    /// models take it.
    pub fn small(steps: u64) -> Self {
        Self { learning_rate: 1e-3, ..Self::new(steps) }
    }

    /// What matrix products are computed in on `device`, where that is not f32.
    pub(super) fn autocast(&self, device: Device) -> Option<Kind> {
        let precision = self.precision.unwrap_or(Precision::of(device));
        (precision == Precision::Bfloat16).then_some(Kind::BFloat16)
    }

    pub(super) fn validate(&self) -> Result<()> {
        let positive = [("learning_rate", self.learning_rate), ("gradient_clip", self.gradient_clip)];
        for (option, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::option(option, value, "a positive number"));
            }
        }
        for (option, value) in
            [("final_learning_rate", self.final_learning_rate), ("weight_decay", self.weight_decay)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::option(option, value, "a number from 0 on"));
            }
        }
        if !(0.0..1.0).contains(&self.null_probability) {
            return Err(Error::option("null_probability", self.null_probability, "a number in [0, 1)"));
        }
        for (option, value) in [("steps", self.steps), ("epoch_steps", self.epoch_steps)] {
            if value == 0 {
                return Err(Error::option(option, value, "at least 1"));
            }
        }
        if self.accumulate == 0 {
            return Err(Error::option("accumulate", self.accumulate, "at least 1"));
        }
        if !(1..=1024).contains(&self.threads) {
            return Err(Error::option("threads", self.threads, "a number from 1 to 1024"));
        }
        Ok(())
    }

    /// Learning rate of a step, counted from 0: linear warm-up, then the decay.
    pub fn rate(&self, step: u64) -> f64 {
        let warmup = self.warmup.min(self.steps.div_ceil(10));
        if step < warmup {
            return self.learning_rate * (step + 1) as f64 / warmup as f64;
        }
        match self.schedule {
            Decay::Cosine => {
                let done = (step - warmup) as f64 / (self.steps.saturating_sub(warmup).max(1)) as f64;
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
                self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * cosine
            }
            Decay::Step => {
                let epoch = (step / self.epoch_steps.max(1)).min(i32::MAX as u64) as i32;
                (self.learning_rate * STEP_DECAY.powi(epoch)).max(self.final_learning_rate)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cosine_starts_high_passes_the_middle_and_ends_low() {
        let options =
            TrainOptions { learning_rate: 1.0, final_learning_rate: 0.2, ..TrainOptions::new(1000) };
        // Warm-up is cut to a tenth of the run.
        assert!((options.rate(0) - 0.01).abs() < 1e-12 && (options.rate(99) - 1.0).abs() < 1e-12);
        assert!((options.rate(100) - 1.0).abs() < 1e-12);
        assert!((options.rate(550) - 0.6).abs() < 1e-12);
        assert!((options.rate(1000) - 0.2).abs() < 1e-12 && (options.rate(5000) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn step_decay_is_the_papers() {
        let options =
            TrainOptions { schedule: Decay::Step, warmup: 10, epoch_steps: 500, ..TrainOptions::new(20_000) };
        assert_eq!(options.rate(499), 3e-4);
        assert!((options.rate(500) - 3e-4 * 0.9).abs() < 1e-12);
        assert!((options.rate(1499) - 3e-4 * 0.81).abs() < 1e-12);
        let floor = TrainOptions { final_learning_rate: 2e-4, ..options };
        assert_eq!(floor.rate(19_999), 2e-4);
    }

    #[test]
    fn names_are_read() {
        for name in ["cosine", "step"] {
            assert_eq!(Decay::from_name(name).unwrap().name(), name);
        }
        assert!(
            Decay::from_name("linear")
                .unwrap_err()
                .to_string()
                .starts_with("invalid schedule=linear: expected ")
        );
        let autocast =
            |precision, device| TrainOptions { precision, ..TrainOptions::new(1) }.autocast(device);
        assert_eq!(autocast(None, Device::Cpu), None);
        assert_eq!(autocast(None, Device::Cuda(1)), Some(Kind::BFloat16));
        assert_eq!(autocast(Some(Precision::Float32), Device::Cuda(0)), None);
    }
}
