//! A plan in the place of a policy: checked against the options, and chosen as what decides.

use std::sync::Arc;

use super::LoaderBuilder;
use crate::cluster::Clusters;
use crate::error::{Error, Result};
use crate::hash;
use crate::image::DecodeOptions;
use crate::loader::decider::Decider;
use crate::loader::plan::PlanFile;
use crate::loader::spec::{Mode, reading};
use crate::select::Priority;
use crate::shard::ReadOptions;

impl LoaderBuilder {
    /// The plan, checked against the options; what it says of shards is checked when they are listed.
    pub(super) fn load_plan(&self) -> Result<Option<Arc<PlanFile>>> {
        let Some(path) = &self.plan else { return Ok(None) };
        let plan = PlanFile::load(path)?;
        let mut differences = vec![];
        let mut compare = |what: &str, own: String, planned: String| {
            if own != planned {
                differences.push(format!("{what} is {own}, and {planned} in the plan"));
            }
        };
        if self.mode != Mode::Reduced {
            compare("mode", format!("{:?}", self.mode), format!("{:?}", Mode::Reduced));
        }
        let policy = plan.plan.policy();
        let shown = |gate: Option<f64>| gate.map_or("none".to_owned(), |gate| gate.to_string());
        compare("window", self.window.to_string(), plan.window.to_string());
        if let Some(keep_ratio) = self.keep_ratio {
            compare("keep_ratio", keep_ratio.to_string(), policy.keep_ratio.to_string());
        }
        if let Some(gate) = self.gate {
            compare("gate", shown(gate), shown(policy.gate));
        }
        if let Some(quota) = self.quota {
            compare("quota", quota.to_string(), policy.quota.to_string());
        }
        if self.dedup.is_some() {
            let shown = |dedup: Option<f32>| dedup.map_or("none".to_owned(), |dedup| dedup.to_string());
            compare("dedup", shown(self.dedup), shown(policy.dedup));
        }
        if self.priority != Priority::Uniform {
            compare("priority", format!("{:?}", self.priority), format!("{:?}", policy.priority));
        }
        if self.rotate {
            compare("rotate", "true".into(), "false".into());
        }
        if let Some((encoder, _)) = &self.encoder {
            let own = format!("{:016x}", encoder.fingerprint());
            compare("the captioner's fingerprint", own, format!("{:016x}", plan.captioner));
        }
        let read = ReadOptions { caption_key: self.caption_key.clone() };
        let decode =
            DecodeOptions { max_pixels: self.max_image_pixels, exif_orientation: self.exif_orientation };
        let own = format!("{:016x}", hash::combine(&reading(&read, &decode)));
        let what = "the fingerprint of caption_key, max_image_pixels and exif_orientation";
        compare(what, own, format!("{:016x}", plan.reading));
        if differences.is_empty() {
            return Ok(Some(Arc::new(plan)));
        }
        let accepted = format!(
            "a plan of this configuration: {}; leave these options out where the plan's will do, or plan again",
            differences.join("; ")
        );
        Err(Error::option("plan", format!("{:?}", path.display()), accepted))
    }

    /// What decides in mode `Reduced`: the plan, else a selector of the policy.
    pub(super) fn decider(
        &self,
        clusters: Option<&Arc<Clusters>>,
        corpus: u64,
        plan: Option<&Arc<PlanFile>>,
    ) -> Result<Option<Decider>> {
        match plan {
            Some(plan) => Ok(Some(Decider::Plan(Arc::clone(plan)))),
            None => Ok(self.selector(clusters, corpus)?.map(|selector| Decider::Select(Box::new(selector)))),
        }
    }
}
