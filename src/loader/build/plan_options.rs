//! A plan in the place of a selection: checked against the options.

use std::sync::Arc;

use crate::config::{Mode, Selection};
use crate::error::{Error, Result};
use crate::loader::build::listing::{Listing, readings};
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::plan::PlanFile;
use crate::loader::settings::default_of;
use crate::options::{Class, Group as _};

impl LoaderBuilder {
    /// The plan, checked against the options; what it says of shards is checked when they are listed.
    pub(crate) fn load_plan(&self) -> Result<Option<Arc<PlanFile>>> {
        let Some(path) = &self.config.plan else { return Ok(None) };
        let plan = PlanFile::load(path)?;
        let mut differences = vec![];
        if self.config.mode != Mode::Reduced {
            differences.push(format!("mode is {}, and reduced in the plan", self.config.mode.name()));
        }
        // What is not given is the plan's.
        let planned = Selection { window: plan.window, ..plan.plan.policy().selection.clone() };
        let planned = planned.entries(&[Class::Policy]);
        let of_plan =
            |name: &str| planned.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        let mut given = self.config.selection.entries(&[Class::Policy]);
        // Windows are cut the same way, given or not.
        if given.iter().all(|(name, _)| *name != "window") {
            given.push(("window", self.config.selection.window.to_string()));
        }
        for (name, own) in given {
            let planned = of_plan(name).map_or_else(|| default_of(name), str::to_owned);
            if own != planned {
                differences.push(format!("{name} is {own}, and {planned} in the plan"));
            }
        }
        if let Some((scorer, _)) = &self.parts.scorer
            && scorer.fingerprint() != plan.captioner
        {
            let (own, planned) = (scorer.fingerprint(), plan.captioner);
            differences
                .push(format!("the captioner's fingerprint is {own:016x}, and {planned:016x} in the plan"));
        }
        if differences.is_empty() { Ok(Some(Arc::new(plan))) } else { Err(self.other_plan(&differences)) }
    }

    /// Compares how shards are read with the plan.
    ///
    /// # Errors
    /// Otherwise than when it was made.
    pub(crate) fn check_reading(&self, plan: &PlanFile, listing: &Listing) -> Result<()> {
        let own = readings(&listing.shards, &listing.reads, &self.config.images.decode());
        if own == plan.reading {
            return Ok(());
        }
        let difference = format!(
            "the fingerprint of caption_key, where, subset, captions, max_image_pixels, exif_orientation, alpha and \
             decoder is {own:016x}, and {:016x} in the plan",
            plan.reading
        );
        Err(self.other_plan(&[difference]))
    }

    fn other_plan(&self, differences: &[String]) -> Error {
        let accepted = format!(
            "a plan of this configuration: {}; leave these options out where the plan's will do, or plan again",
            differences.join("; ")
        );
        let path = self.config.plan.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Error::option("plan", format!("{path:?}"), accepted)
    }
}
