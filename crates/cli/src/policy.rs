//! What subcommands that select take of a captioner directory and of a ledger.

use std::path::Path;
use std::sync::Arc;

use tldr_loader::cluster::{Clusters, GateWorth};
use tldr_loader::config::{Gate, Selection};
use tldr_loader::model::{Identity, Scorer as _};
use tldr_loader::select::Policy;
use tldr_loader::{Error, Result};

use crate::Models;
use crate::options::SelectionFlags;

/// The policy of what was given; `has_clusters` says whether there is a captioner.
///
/// # Errors
/// A value that is not accepted.
pub(crate) fn policy(selection: &SelectionFlags, seed: u64, has_clusters: bool) -> Result<Policy> {
    let mut own = Selection::default();
    selection.apply(&mut own)?;
    Ok(Policy::new(own.resolved(has_clusters)?, seed))
}

/// Says what the gate is worth, where the captioner's alignment gates.
pub(crate) fn say_worth(gate: &Gate, clusters: &Clusters) {
    if !gate.is_by_alignment() {
        return;
    }
    crate::say!("gate: {}", GateWorth::sentence(clusters.worth.as_ref()));
    if let Some(warning) = clusters.worth.and_then(|worth| worth.warning()) {
        crate::say!("warning: {warning}");
    }
}

/// What a policy takes of a captioner directory.
pub(crate) struct Fitted {
    pub(crate) clusters: Arc<Clusters>,
    /// Fingerprint of the model.
    pub(crate) scorer: u64,
}

impl Fitted {
    pub(crate) fn load(directory: &Path, models: &dyn Models) -> Result<Self> {
        let clusters = clusters(directory)?;
        let scorer = match Identity::load(directory)? {
            Some(identity) => identity.fingerprint(),
            None => models.open(directory, "cpu")?.fingerprint(),
        };
        Ok(Self { clusters, scorer })
    }
}

/// The clusters of a captioner directory.
pub(crate) fn clusters(directory: &Path) -> Result<Arc<Clusters>> {
    let path = directory.join(Clusters::FILE);
    if directory.is_dir() && !path.exists() {
        let accepted = "a captioner with clusters: run tldr-loader fit first";
        return Err(Error::option("captioner", directory.display(), accepted));
    }
    Clusters::load(path).map(Arc::new)
}
