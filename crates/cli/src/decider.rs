//! What decides, of subcommands that say what became of samples: a plan, a policy, or nothing.

use std::path::{Path, PathBuf};

use tldr_loader::config::Selection;
use tldr_loader::jobs::DecisionsJob;
use tldr_loader::{Error, Result};

use crate::Models;
use crate::options::{Reading, SelectionFlags};
use crate::policy::Fitted;

/// What was given to say it.
pub(crate) struct Decider<'a> {
    pub(crate) plan: Option<&'a PathBuf>,
    pub(crate) ledger: Option<&'a PathBuf>,
    pub(crate) captioner: Option<&'a Path>,
    pub(crate) selection: &'a SelectionFlags,
    pub(crate) seed: u64,
    pub(crate) reading: &'a Reading,
    pub(crate) rescue: bool,
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
        let fitted = fitted.map(|Fitted { scorer, clusters }| (scorer, clusters));
        let scorer = fitted.as_ref().map(|(scorer, _)| *scorer);
        let mut selection = Selection::default();
        self.selection.apply(&mut selection)?;
        let plan = self.plan.map(PathBuf::as_path);
        let wanted = self.reading.wanted(scorer, self.selection.window()?)?;
        Ok(DecisionsJob {
            wanted,
            rescue: self.rescue,
            ..DecisionsJob::of(ledger, plan, fitted, &selection, self.seed)?
        })
    }
}
