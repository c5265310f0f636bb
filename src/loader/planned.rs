//! A plan in the place of a policy: checked against the options.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hash;
use crate::image::DecodeOptions;
use crate::loader::builder::LoaderBuilder;
use crate::loader::plan::PlanFile;
use crate::loader::spec::{Mode, reading};
use crate::select::{GateBy, Priority};

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
        if let Some(keep_ratio) = &self.keep_ratio {
            compare("keep_ratio", keep_ratio.to_string(), policy.keep_ratio.to_string());
        }
        if let Some(gate) = self.gate {
            compare("gate", shown(gate), shown(policy.gate));
        }
        if self.gate_by != GateBy::Corpus {
            compare("gate_by", format!("{:?}", self.gate_by), format!("{:?}", policy.gate_by));
        }
        let of_plan = policy.score.as_ref();
        if let Some(score) = &self.score {
            compare("score_key", score.key.clone(), of_plan.map_or("none".into(), |s| s.key.clone()));
        }
        if self.threshold.is_some() {
            compare("threshold", shown(self.threshold), shown(of_plan.and_then(|score| score.threshold)));
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
        if self.thin {
            compare("thin", "true".into(), "false".into());
        }
        if self.rotate {
            compare("rotate", "true".into(), "false".into());
        }
        if let Some((encoder, _)) = &self.encoder {
            let own = format!("{:016x}", encoder.fingerprint());
            compare("the captioner's fingerprint", own, format!("{:016x}", plan.captioner));
        }
        let decode =
            DecodeOptions { max_pixels: self.max_image_pixels, exif_orientation: self.exif_orientation };
        let own = format!("{:016x}", hash::combine(&reading(&self.read, &decode)));
        let what = "the fingerprint of caption_key, where, subset, captions, max_image_pixels, exif_orientation and decoder";
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
}
