//! Where a run stands: small, global, the same on every rank.
//!
//! Rank 0's copy is enough, and any world size that divides the lanes may resume it, because the
//! global sequence of batches depends on the lanes and not on the world size.

use crate::error::{Error, ErrorKind, Result};

/// Layout of the state; a state of another version is refused.
const VERSION: u32 = 1;

/// The position of a loader and the fingerprints of what led there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LoaderState {
    /// Version of this layout.
    pub version: u32,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Batches of that epoch already handed over.
    pub step: u64,
    /// Samples per global batch.
    pub global_batch: u64,
    /// Canonical streams: a state resumes with the lanes it was made with.
    pub lanes: u64,
    /// Fingerprint of shards and their lengths.
    pub data: u64,
    /// Fingerprint of everything that decides which samples survive and in which order.
    pub policy: u64,
    /// Fingerprint of captioner directory and caption fusion.
    pub captioner: u64,
}

impl LoaderState {
    /// The state of a loader at the start of epoch 0.
    pub(crate) fn new(global_batch: u64, lanes: u64, data: u64, policy: u64, captioner: u64) -> Self {
        Self { version: VERSION, epoch: 0, step: 0, global_batch, lanes, data, policy, captioner }
    }

    /// Checks that `saved` can be resumed by the loader whose current state is `self`.
    ///
    /// # Errors
    /// [`ErrorKind::State`] that lists every difference.
    pub(crate) fn check(&self, saved: &LoaderState, num_batches: u64) -> Result<()> {
        let mut differences = vec![];
        let mut compare = |what: &str, own: u64, theirs: u64| {
            if own != theirs {
                differences.push(format!("{what}: this loader has {own:016x}, the state {theirs:016x}"));
            }
        };
        compare("shards and lengths", self.data, saved.data);
        compare("policy, seed, window, shuffle, pixels or tokens", self.policy, saved.policy);
        compare("captioner or caption fusion", self.captioner, saved.captioner);
        if self.version != saved.version {
            differences.push(format!("version: expected {}, found {}", self.version, saved.version));
        }
        if self.global_batch != saved.global_batch {
            differences.push(format!(
                "global batch (batch_size x world_size): this loader has {}, the state {}",
                self.global_batch, saved.global_batch
            ));
        }
        if self.lanes != saved.lanes {
            differences.push(format!(
                "lanes: this loader has {}, the state {}; build the loader with lanes = {1}",
                self.lanes, saved.lanes
            ));
        }
        if saved.step > num_batches {
            differences.push(format!("step {}: an epoch has {num_batches} batches", saved.step));
        }
        if differences.is_empty() {
            return Ok(());
        }
        let text =
            format!("cannot resume, it was saved by another configuration: {}", differences.join("; "));
        Err(Error::from(ErrorKind::State(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_spelt_out() {
        let own = LoaderState::new(256, 4, 1, 2, 3);
        assert!(own.check(&LoaderState { epoch: 4, step: 10, ..own.clone() }, 10).is_ok());
        let other = LoaderState { data: 9, global_batch: 128, lanes: 8, step: 11, ..own.clone() };
        let message = own.check(&other, 10).unwrap_err().to_string();
        for part in [
            "shards and lengths",
            "0000000000000009",
            "has 256, the state 128",
            "build the loader with lanes = 8",
            "step 11",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("policy"), "{message}");
    }
}
