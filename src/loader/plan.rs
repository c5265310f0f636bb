//! A plan in a file: one Parquet table of the kept samples, and what the plan is a plan of in its
//! metadata.
//!
//! | column | |
//! | --- | --- |
//! | `shard` | number of the shard in the list of the metadata |
//! | `window` | index of the window in the shard |
//! | `id` | identity of the sample, as in the ledger's captions |
//! | `cluster` | its cluster |
//!
//! The metadata have the key `plan`: JSON with the policy, the counts, the rate of each cluster, the
//! fingerprints of captioner and reading options, window size, shards with their samples, and the
//! fingerprint of all of this and the kept samples. The same plan has the same bytes.

use std::collections::HashMap;
use std::path::Path;

use crate::aside;
use crate::cluster::GateWorth;
use crate::error::{Error, Result};
use crate::hash;
use crate::select::Plan;
use crate::select::{PlanCounts, Policy};
use crate::shard::Shard;

/// A shard of a planned corpus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct PlannedShard {
    /// Name of its source.
    pub source: String,
    /// Its path below the source's root: the file name.
    pub path: String,
    /// [`SampleId::shard_hash`](crate::SampleId::shard_hash) of the two.
    pub hash: u64,
    /// Samples in it, unusable ones included.
    pub samples: u64,
}

/// A [`Plan`], and what it is a plan of.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanFile {
    /// Which samples are kept.
    pub plan: Plan,
    /// Fingerprint of the scorer whose signals decided.
    pub captioner: u64,
    /// Fingerprint of the reading options.
    pub reading: u64,
    /// Samples per window.
    pub window: usize,
    /// The corpus, sorted.
    pub shards: Vec<PlannedShard>,
    /// What the gate is worth, where one by alignment was used and was measured. No decision depends on it, and no
    /// fingerprint.
    pub worth: Option<GateWorth>,
}

/// What stands in the metadata.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Version of this layout.
    layout: u32,
    fingerprint: String,
    policy: Policy,
    counts: PlanCounts,
    rates: Vec<f32>,
    captioner: u64,
    reading: u64,
    window: usize,
    shards: Vec<PlannedShard>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worth: Option<GateWorth>,
}

/// Version of the layout.
const LAYOUT: u32 = 2;

/// Name of the metadata.
const NOTE: &str = "plan";

impl PlanFile {
    /// Identifies decisions and corpus. O(kept).
    pub fn fingerprint(&self) -> u64 {
        let mut parts = vec![self.plan.fingerprint(), self.captioner, self.reading, self.window as u64];
        self.shards.iter().for_each(|shard| parts.extend([shard.hash, shard.samples]));
        hash::combine(&parts)
    }

    /// Samples of each of `shards`, which must be the planned ones in any order, of the lengths that
    /// are `given`, if any. `path` names the plan in errors.
    ///
    /// # Errors
    /// Another corpus; the error names what differs.
    pub(crate) fn lengths(&self, path: &Path, shards: &[Shard], given: Option<&[u64]>) -> Result<Vec<u64>> {
        let refuse = |difference: String| {
            let accepted =
                format!("a plan of these shards: {difference}; plan again, or read what was planned");
            Error::option("plan", format!("{:?}", path.display()), accepted)
        };
        let planned: HashMap<u64, u64> = self.shards.iter().map(|s| (s.hash, s.samples)).collect();
        let mut lengths = Vec::with_capacity(shards.len());
        for shard in shards {
            let length = planned.get(&shard.hash).copied().ok_or_else(|| {
                refuse(format!("{} of the source {:?} is not in it", shard.path, &*shard.source))
            })?;
            lengths.push(length);
        }
        if let Some(lacking) = self.shards.iter().find(|s| shards.iter().all(|own| own.hash != s.hash)) {
            let more = self.shards.len() - shards.len();
            return Err(refuse(format!(
                "it has {more} more, {} of the source {:?} first",
                lacking.path, lacking.source
            )));
        }
        if let Some(given) = given.filter(|given| **given != lengths) {
            let at = given.iter().zip(&lengths).position(|(a, b)| a != b);
            let difference = match at {
                Some(at) => format!(
                    "lengths says {} samples for {}, where it found {}",
                    given[at], shards[at].path, lengths[at]
                ),
                None => format!("lengths has {} numbers for {} shards", given.len(), shards.len()),
            };
            return Err(refuse(difference));
        }
        Ok(lengths)
    }

    /// Writes the plan to the file `path`: aside first, then renamed into place.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        use crate::ledger::{Column, Table};

        let path = path.as_ref();
        let numbers: HashMap<u64, i32> =
            self.shards.iter().enumerate().map(|(number, shard)| (shard.hash, number as i32)).collect();
        let n = self.plan.counts().kept as usize;
        let (mut shards, mut windows) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut ids, mut clusters) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for kept in self.plan.kept() {
            shards.push(numbers.get(&kept.shard).copied());
            windows.push(Some(kept.window as i64));
            ids.push(Some(kept.id.0 as i64));
            clusters.push(Some(kept.cluster as i32));
        }
        let header = Header {
            layout: LAYOUT,
            fingerprint: format!("{:016x}", self.fingerprint()),
            policy: self.plan.policy().clone(),
            counts: self.plan.counts().clone(),
            rates: self.plan.rates().to_vec(),
            captioner: self.captioner,
            reading: self.reading,
            window: self.window,
            shards: self.shards.clone(),
            worth: self.worth,
        };
        let action = || format!("write the plan {}", path.display());
        let cannot = |error: String| Error::io(action(), std::io::Error::other(error));
        let header = serde_json::to_string(&header).map_err(|error| cannot(error.to_string()))?;
        let columns = vec![
            ("shard".to_owned(), Column::I32(shards)),
            ("window".to_owned(), Column::I64(windows)),
            ("id".to_owned(), Column::I64(ids)),
            ("cluster".to_owned(), Column::I32(clusters)),
        ];
        let table = Table { columns, notes: vec![(NOTE.to_owned(), header)] };
        let content = table.write().map_err(|error| cannot(error.to_string()))?;
        aside::write(path, content).map_err(|error| Error::io(action(), error))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// The file cannot be read, is no plan, is of another version or is damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let content = std::fs::read(path)
            .map_err(|error| Error::io(format!("read the plan {}", path.display()), error))?;
        Self::parse(content).map_err(|found| {
            let expected = "a plan, as tldr-loader plan of this version writes it; plan again";
            Error::format(path.display().to_string(), expected, found)
        })
    }

    fn parse(content: Vec<u8>) -> std::result::Result<Self, String> {
        use crate::ledger::{Column, Table};
        use crate::sample::SampleId;
        use crate::select::plan::Kept;

        let mut table = Table::read(content)?;
        let note = table.note(NOTE).ok_or("a Parquet file without the metadata of a plan")?;
        let header: serde_json::Value =
            serde_json::from_str(note).map_err(|error| format!("metadata that are no JSON: {error}"))?;
        if header.get("layout") != Some(&LAYOUT.into()) {
            return Err(format!("layout {}, not {LAYOUT}", header.get("layout").unwrap_or(&header)));
        }
        let header: Header =
            serde_json::from_value(header).map_err(|error| format!("metadata of another kind: {error}"))?;
        let columns = [table.take("shard"), table.take("window"), table.take("id"), table.take("cluster")];
        let [
            Some(Column::I32(shards)),
            Some(Column::I64(windows)),
            Some(Column::I64(ids)),
            Some(Column::I32(clusters)),
        ] = columns
        else {
            return Err("not the columns shard, window, id and cluster".into());
        };
        if [windows.len(), ids.len(), clusters.len()].iter().any(|&n| n != shards.len()) {
            return Err("columns of different lengths".into());
        }
        let rows = shards.into_iter().zip(windows).zip(ids).zip(clusters);
        let kept = rows.map(|(((shard, window), id), cluster)| {
            let shard = header.shards.get(usize::try_from(shard?).ok()?)?.hash;
            let (window, cluster) = (u64::try_from(window?).ok()?, u32::try_from(cluster?).ok()?);
            Some(Kept { shard, window, id: SampleId(id? as u64), cluster })
        });
        let kept: Option<Vec<Kept>> = kept.collect();
        let kept = kept.ok_or("a row that is null, or names no shard of it")?;
        let plan =
            Plan::new(header.policy, header.counts, header.rates, kept).map_err(|error| error.to_string())?;
        let Header { captioner, reading, window, shards, fingerprint, worth, .. } = header;
        let file = Self { plan, captioner, reading, window, shards, worth };
        let found = format!("{:016x}", file.fingerprint());
        if found != fingerprint {
            return Err(format!("content with the fingerprint {found}, not {fingerprint}: it is damaged"));
        }
        Ok(file)
    }
}
