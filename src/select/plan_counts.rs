//! What a plan counts.

/// What went into a plan and came out.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlanCounts {
    /// Samples of the corpus.
    pub samples: u64,
    /// Of these, excluded by the filter on metadata.
    #[serde(default)]
    pub excluded: u64,
    /// Of these, unusable otherwise.
    pub failed: u64,
    /// Usable samples below the gate.
    pub gated: u64,
    /// Samples that passed the gate.
    pub candidates: u64,
    /// Candidates without a semantic hash, which are never found to be copies.
    pub unhashed: u64,
    /// Candidates dropped as near-duplicates of one that stays.
    pub copies: u64,
    /// Slots: round(keep_ratio * readable), or what caps in samples allow.
    pub slots: u64,
    /// Samples kept; fewer than `slots` only where so few candidates are left.
    pub kept: u64,
    /// Of these, near-duplicates that fill slots for want of others.
    pub refilled: u64,
    /// Of these, kept by the draw of their window too.
    pub kept_by_window: u64,
    /// Clusters with candidates.
    pub clusters: u64,
}

impl PlanCounts {
    /// Samples of which keep_ratio is a share.
    pub fn readable(&self) -> u64 {
        self.samples - self.excluded - self.failed
    }
}
