//! Whose decisions are asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cluster::Clusters;
use crate::config::Selection;
use crate::error::{Error, Result};
use crate::jobs::recorded::Wanted;
use crate::loader::PlanFile;
use crate::select::Policy;

/// What says which samples are kept.
#[derive(Debug, Clone)]
pub enum ExportBy {
    /// A plan of the corpus: this file.
    Plan(PathBuf),
    /// A policy, window by window, in epoch 0, with these clusters; without, it may only look at scores that the corpus
    /// has.
    Policy(Box<Policy>, Option<Arc<Clusters>>),
    /// Nothing: every usable sample counts as kept.
    All,
}

/// Whose decisions are asked for.
#[derive(Debug, Clone)]
pub struct DecisionsJob {
    /// Folder of the ledger.
    pub ledger: PathBuf,
    /// What decides.
    pub by: ExportBy,
    /// The clusters that a plan was made with. It needs them where it dropped near-duplicates, or gated within clusters.
    pub clusters: Option<Arc<Clusters>>,
    /// Which of the ledger's recordings is meant; a plan says so itself.
    pub wanted: Wanted,
    /// Fingerprint of the generation settings whose captions are meant, where there are several.
    pub generation: Option<u64>,
    /// Field of a score of the corpus; a plan or a policy that goes by one says so itself.
    pub score_field: Option<String>,
    /// Whether generated captions bring samples back that the gate drops, as under `rescue`: by what the judge said, which
    /// the ledger has.
    pub rescue: bool,
}

impl DecisionsJob {
    /// The decisions of `by` on the only recording of a ledger.
    pub fn new(ledger: impl Into<PathBuf>, by: ExportBy) -> Self {
        let (ledger, wanted) = (ledger.into(), Wanted::default());
        Self { ledger, by, clusters: None, wanted, generation: None, score_field: None, rescue: false }
    }

    /// The fingerprint of captions that `text` writes.
    ///
    /// # Errors
    /// It is no number of 16 hexadecimal digits.
    pub fn generation_of(text: &str) -> Result<u64> {
        let expected = "a fingerprint, 16 hexadecimal digits";
        u64::from_str_radix(text, 16).map_err(|_| Error::option("generation", text, expected))
    }

    /// The decisions of `plan`, else those of `selection` where it, or a captioner, is given, else those of nothing.
    /// `fitted` is the fingerprint of the captioner and its clusters.
    ///
    /// # Errors
    /// A selection beside a plan; a captioner that the plan was not made with; a plan that cannot be read; as
    /// [`Selection::resolved`].
    pub fn of(
        ledger: impl Into<PathBuf>,
        plan: Option<&Path>,
        fitted: Option<(u64, Arc<Clusters>)>,
        selection: &Selection,
        seed: u64,
    ) -> Result<Self> {
        let plain = Selection { window: selection.window, ..Selection::default() };
        let (scorer, clusters) = fitted.unzip();
        let by = match plan {
            Some(_) if *selection != plain => {
                let why = "with a plan, which has a policy of its own";
                return Err(Error::unused("selection", "given", why));
            }
            Some(plan) => {
                let made_with = PlanFile::load(plan)?.captioner;
                if let Some(other) = scorer.filter(|&scorer| scorer != made_with) {
                    let accepted = format!("the plan's, {made_with:016x}");
                    return Err(Error::option("captioner", format!("{other:016x}"), accepted));
                }
                ExportBy::Plan(plan.into())
            }
            None if clusters.is_none() && *selection == plain => ExportBy::All,
            None => {
                let policy = Policy::new(selection.resolved(clusters.is_some())?, seed);
                ExportBy::Policy(Box::new(policy), clusters.clone())
            }
        };
        let window = (selection.window != Selection::default().window).then_some(selection.window);
        let wanted = Wanted { scorer, window, ..Wanted::default() };
        Ok(Self { clusters, wanted, ..Self::new(ledger, by) })
    }
}
