//! What decides, of subcommands that say what became of samples: a plan, a policy, or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tldr_loader::config::Source;
use tldr_loader::jobs::{DecisionsJob, ExportBy, Wanted};
use tldr_loader::loader::PlanFile;
use tldr_loader::{Error, Result};

use crate::Models;
use crate::options::{Flags, SelectionFlags};
use crate::policy::{Fitted, policy, reading};

/// What was given to say it.
pub(crate) struct Decider<'a> {
    pub(crate) plan: Option<&'a PathBuf>,
    pub(crate) ledger: Option<&'a PathBuf>,
    pub(crate) captioner: Option<&'a Path>,
    pub(crate) selection: &'a SelectionFlags,
    pub(crate) seed: u64,
    pub(crate) source: &'a Flags<Source>,
}

impl Decider<'_> {
    /// Whose decisions these are.
    ///
    /// # Errors
    /// No ledger; options of a policy beside a plan; one that needs a captioner, without one; a captioner that the plan was not made with.
    pub(crate) fn decisions(&self, models: &dyn Models) -> Result<DecisionsJob> {
        let Some(ledger) = self.ledger else {
            return Err(Error::option(
                "ledger",
                "none",
                "the folder of the ledger, which has keys and signals",
            ));
        };
        let of_policy = self.selection.first().filter(|(option, _)| *option != "window");
        if let (Some((option, given)), true) = (of_policy, self.plan.is_some()) {
            return Err(Error::unused(option, given, "with a plan, which has a policy of its own"));
        }
        let fitted = self.captioner.map(|directory| Fitted::load(directory, models)).transpose()?;
        let (by, clusters) = match (self.plan, &fitted) {
            (Some(plan), fitted) => {
                let made_with = PlanFile::load(plan)?.captioner;
                if let Some(other) = fitted.as_ref().filter(|fitted| fitted.scorer != made_with) {
                    let given = format!("{:016x}", other.scorer);
                    return Err(Error::option("captioner", given, format!("the plan's, {made_with:016x}")));
                }
                (ExportBy::Plan(plan.clone()), fitted.as_ref().map(|fitted| Arc::clone(&fitted.clusters)))
            }
            (None, None) if of_policy.is_none() => (ExportBy::All, None),
            (None, fitted) => {
                let policy = Box::new(policy(self.selection, self.seed, fitted.is_some())?);
                (ExportBy::Policy(policy, fitted.as_ref().map(|fitted| Arc::clone(&fitted.clusters))), None)
            }
        };
        let wanted = Wanted {
            scorer: fitted.map(|fitted| fitted.scorer),
            reading: reading(self.source)?,
            window: self.selection.window()?,
        };
        Ok(DecisionsJob { clusters, wanted, ..DecisionsJob::new(ledger, by) })
    }
}
