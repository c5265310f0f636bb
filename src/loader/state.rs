//! Where a run stands: small, global, the same on every rank.
//!
//! Rank 0's copy is enough, and any world size that divides the lanes may resume it, because the
//! global sequence of batches depends on the lanes and not on the world size.

use crate::error::{Error, ErrorKind, Result};
use crate::loader::settings::{Settings, default_of};

/// Layout of the state; a state of another version is refused.
const VERSION: u32 = 3;

/// The position of a loader, and the configuration that led there.
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
    /// Fingerprint of everything that decides which samples are kept and in which order.
    #[serde(default)]
    pub policy: u64,
    /// Everything that the sequence of batches depends on, in words, by the name of the option: what
    /// decides whether a state fits. Shards, tables and models stand as a number of their content.
    #[serde(default)]
    pub settings: Settings,
}

impl LoaderState {
    /// The state of a loader at the start of epoch 0.
    pub(crate) fn new(global_batch: u64, lanes: u64, policy: u64, settings: Settings) -> Self {
        Self { version: VERSION, epoch: 0, step: 0, global_batch, lanes, policy, settings }
    }

    /// Checks that `saved` can be resumed by the loader whose current state is `self`, on `world_size` ranks, where an
    /// epoch has `num_batches`.
    ///
    /// # Errors
    /// [`ErrorKind::State`] that lists every difference.
    pub(crate) fn check(&self, saved: &LoaderState, world_size: u64, num_batches: u64) -> Result<()> {
        let mut differences = vec![];
        let mut compare = |what: &str, own: &str, theirs: &str, remedy: &str| {
            if own != theirs {
                differences.push(format!("{what}: this loader has {own}, the state {theirs}{remedy}"));
            }
        };
        if self.version != saved.version {
            let text = format!(
                "cannot resume: version {} of states is read, and this one is of version {}; resume it with \
                 the release that saved it, or begin the epoch anew with set_epoch({})",
                self.version, saved.version, saved.epoch
            );
            return Err(Error::from(ErrorKind::State(text)));
        }
        if saved.settings.is_empty() {
            let text = "cannot resume: the state has no settings, so that nobody can tell what it is of";
            return Err(Error::from(ErrorKind::State(text.into())));
        }
        let (own, theirs) = (self.global_batch.to_string(), saved.global_batch.to_string());
        compare("global batch (batch_size x world_size)", &own, &theirs, "");
        let remedy = lanes_remedy(saved, world_size);
        compare("lanes", &self.lanes.to_string(), &saved.lanes.to_string(), &remedy);
        let names = self
            .settings
            .keys()
            .chain(saved.settings.keys().filter(|name| !self.settings.contains_key(*name)));
        for name in names {
            let value = |settings: &Settings| settings.get(name).cloned().unwrap_or_else(|| default_of(name));
            compare(name, &value(&self.settings), &value(&saved.settings), "");
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

/// What to do where a state has other lanes than the loader.
fn lanes_remedy(saved: &LoaderState, world_size: u64) -> String {
    let lanes = saved.lanes.max(1);
    if saved.settings.get("mode").is_some_and(|mode| mode == "eval") {
        return format!("; in mode eval every rank is a lane, and the state resumes on {lanes} ranks");
    }
    if lanes.is_multiple_of(world_size) {
        return format!("; build the loader with lanes={lanes}");
    }
    let fitting: Vec<String> =
        (1..=lanes.min(4096)).filter(|n| lanes.is_multiple_of(*n)).map(|n| n.to_string()).collect();
    // The least common multiple.
    let grown = (1..=world_size).filter_map(|n| lanes.checked_mul(n)).find(|n| n.is_multiple_of(world_size));
    format!(
        ": each lane belongs to one rank, so that the state resumes on {} ranks and not on {world_size}. Start the run \
         with lanes={} next time (what the global batch has to be a multiple of), and it may grow to {world_size} ranks; \
         now finish it on as many as before, or begin an epoch anew",
        listed(&fitting),
        grown.unwrap_or(lanes)
    )
}

/// `1, 2 or 4`.
fn listed(numbers: &[String]) -> String {
    match numbers {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => numbers.join(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn differences_are_spelt_out() {
        let own = settings(&[("keep_ratio", "0.25"), ("seed", "0"), ("gate", "0.5")]);
        let own = LoaderState::new(256, 4, 1, own);
        assert!(own.check(&LoaderState { epoch: 4, step: 10, ..own.clone() }, 4, 10).is_ok());
        let settings = settings(&[("keep_ratio", "0.3"), ("seed", "0"), ("plan", "content 9")]);
        let other = LoaderState { settings, global_batch: 128, lanes: 8, step: 11, ..own.clone() };
        let message = own.check(&other, 4, 10).unwrap_err().to_string();
        for part in [
            "keep_ratio: this loader has 0.25, the state 0.3",
            "gate: this loader has 0.5, the state none",
            "plan: this loader has none, the state content 9",
            "has 256, the state 128",
            "build the loader with lanes=8",
            "step 11",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("seed"), "{message}");
        let old = LoaderState { version: 1, settings: Settings::new(), ..own.clone() };
        let message = own.check(&old, 4, 10).unwrap_err().to_string();
        assert!(message.contains("version 1") && !message.contains("keep_ratio"), "{message}");
    }

    #[test]
    fn lanes_that_cannot_be_shared_say_where_they_can_and_what_to_do_next_time() {
        let saved = LoaderState::new(256, 4, 1, settings(&[("mode", "full")]));
        let check = |world_size, saved: &LoaderState| {
            let own = LoaderState { lanes: world_size, ..saved.clone() };
            own.check(saved, world_size, 10).unwrap_err().to_string()
        };
        let message = check(8, &saved);
        for part in
            ["this loader has 8, the state 4", "on 1, 2 or 4 ranks and not on 8", "with lanes=8 next time"]
        {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("build the loader with lanes"), "no way out that is none: {message}");
        assert!(check(6, &saved).contains("lanes=12 next time"));
        assert!(check(2, &saved).contains("build the loader with lanes=4"));
        let eval = LoaderState { settings: settings(&[("mode", "eval")]), ..saved };
        assert!(check(2, &eval).contains("resumes on 4 ranks"));
    }
}
