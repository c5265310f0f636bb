//! The gate: only what is well aligned with its caption goes on.

use crate::cluster::alignment::passes_gate;

/// Lets the best aligned share of a corpus through, by quantiles fixed at fit time. Whether a
/// sample passes depends on that sample only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    share: Option<f64>,
}

impl Gate {
    /// A gate for the best `share`; `None` lets everything through.
    pub fn new(share: Option<f64>) -> Self {
        Self { share }
    }

    /// Whether there is anything to pass.
    pub fn is_open(self) -> bool {
        self.share.is_none()
    }

    /// Whether an alignment (a quantile in [0, 1]) passes: it must be at least 1 - share. An
    /// alignment that is not a number passes an open gate only.
    pub fn passes(self, alignment: f32) -> bool {
        self.share.is_none_or(|share| passes_gate(alignment, share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_half_passes() {
        let gate = Gate::new(Some(0.5));
        assert!(gate.passes(0.5) && gate.passes(1.0) && !gate.passes(0.499) && !gate.passes(f32::NAN));
        assert!(Gate::new(Some(1.0)).passes(0.0));
        assert!(Gate::new(None).is_open() && Gate::new(None).passes(f32::NAN));
    }
}
