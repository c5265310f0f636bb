//! How much each epoch keeps: the rates of a keep_ratio, or everything.

use crate::cluster::Clusters;
use crate::config::Quota;
use crate::error::{Error, ErrorKind, Result};
use crate::select::policy::Policy;
use crate::select::quota::Rates;
use crate::select::reservoir::Rate;
use crate::select::schedule::Schedule;

/// How much is kept for some epochs.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The rates of the clusters.
    Share(Rates),
    /// Every readable sample.
    Everything,
}

impl Phase {
    pub(super) fn rate(&self, cluster: u32) -> Rate {
        match self {
            Self::Share(rates) => rates.rate(cluster),
            Self::Everything => Rate::new(1.0),
        }
    }
}

/// Solves the rates of every epoch.
pub(super) fn phases(policy: &Policy, clusters: Option<&Clusters>) -> Result<Schedule<Phase>> {
    let (first, later) = policy.ratios()?;
    if later.is_empty() {
        let rates = Rates::solve(policy, clusters)?;
        return Ok(Schedule::new(Phase::Share(rates), vec![]));
    }
    if let (Quota::CapAt(_), Some(schedule)) = (policy.quota(), &policy.selection.keep_ratio) {
        let accepted = "with quota=cap(samples), which sets it";
        return Err(Error::unused("keep_ratio", schedule, accepted));
    }
    Schedule::new(first, later.to_vec()).map(|from, &ratio| {
        if ratio == 1.0 {
            return Ok(Phase::Everything);
        }
        let own = policy.but(|selection| selection.keep_ratio = Some(ratio.into()));
        Rates::solve(&own, clusters).map(Phase::Share).map_err(|error| match error.kind {
            ErrorKind::Option { option: option @ "keep_ratio", given, problem } => {
                let given = format!("{given} (from epoch {from} on)");
                Error::refused(option, given, format!("{problem}, or 1 to keep everything in these epochs"))
            }
            kind => kind.into(),
        })
    })
}
