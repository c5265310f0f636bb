//! What is kept of the corpus.

use crate::config::{Gate, Priority, Quota};
use crate::error::{Error, Result};
use crate::options::ByEpoch;

/// Share of the readable samples that is kept by default where something tells them apart: the paper's.
const KEEP_RATIO: f64 = 0.25;
/// Share that passes the gate by default where there are alignments: the paper's.
const GATE: f64 = 0.5;

crate::group! {
    /// Which samples are kept.
    pub struct Selection, fields of selection {
        /// Share of the readable samples to keep, in (0, 1]: one number, or one from each of several epochs on, as in
        /// `{0: 0.25, 28: 1.0}`, where 1 keeps every readable sample, whatever gate, dedup and quota say. Default: 0.25
        /// with a captioner, or a gate by a score of the corpus; without either, and without a plan, it has to be given.
        Policy keep_ratio: Option<ByEpoch> = None, into ByEpoch;
        /// Which samples pass, by the alignment of image and original caption: the best share, `top(0.5)`, of the corpus
        /// or `within=cluster`. Or by a score that the corpus has, such as a CLIP similarity, for which no captioner is
        /// needed: `top(0.3, by=similarity)`, `at_least(0.28, by=similarity)`, by the name of a column of a table of `scores`,
        /// of a field of the json member, or of a column of the Parquet file beside the shard. It takes the place of the alignment in the priorities
        /// `hard` and `score`, too; a sample without one does not pass. `top(1)` lets everything pass. Default:
        /// `top(0.5)` with a captioner, no gate without.
        Policy gate: Option<Gate> = None, some Gate;
        /// How likely a sample is kept, by the size n of its cluster: `proportional` (the same for all), `cap` (clusters
        /// above one size are cut down to it), `cap(100)` (to 100 samples; keep_ratio follows), `tempered(0.5)` (between
        /// them, as n^(0.5 - 1)), or `random` (clusters do not count). Default: `proportional` with a captioner,
        /// `random` without.
        Policy quota: Option<Quota> = None, some Quota;
        /// Which candidates fill a quota first: `uniform`, `diverse` (farthest first, of the embeddings in a window),
        /// `hard` (worst aligned) or `score` (best aligned); `longest` (captions) and `every-nth` (as the paper's code)
        /// are ablations. Default: `uniform`.
        Policy priority: Priority = Priority::Uniform;
        /// Cosine of image embeddings from which two samples of a window are near-duplicates, of which one is kept.
        /// Default: no deduplication.
        Policy dedup: Option<f32> = None, some f32;
        /// Whether epochs keep disjoint subsets until the pool is used up. Default: false.
        Policy rotate: bool = false;
        /// Whether the draw comes before everything else: a share of keep_ratio / gate of the stream is taken, and what
        /// of it passes the gate is kept. Nothing else is decoded or scored, so that a kept sample costs 1 / gate scored
        /// ones instead of 1 / keep_ratio. Its price: a cluster has its quota in expectation only. With quota
        /// `proportional` or `random` and priority `uniform`. Default: false.
        Policy thin: bool = false;
        /// Samples per decision window. Default: 2048.
        Policy window: usize = 2048;
        /// Whether a kept sample whose caption, or nearly whose image, stands in its lane's part of a batch already waits
        /// for a later batch of the lane (64 at a time may wait). Images are compared where signals are. Not in mode
        /// `eval`. Default: false.
        Order defer_duplicates: bool = false;
        /// Whether batches carry `weights`, 1 / pi. With them sums over the kept samples are unbiased for all that pass
        /// gate and dedup; they do not debias a contrastive loss, whose terms are not sums over samples. Default: false.
        Runtime weights: bool = false;
    }
}

impl Selection {
    /// The paper's: of the better aligned half a uniform quarter of every cluster.
    pub fn tldr() -> Self {
        Self {
            keep_ratio: Some(KEEP_RATIO.into()),
            gate: Some(Gate::top(GATE)),
            quota: Some(Quota::Proportional),
            ..Self::default()
        }
    }

    /// A plain random share.
    pub fn random(keep_ratio: f64) -> Self {
        let (gate, quota) = (Some(Gate::OFF), Some(Quota::Random));
        Self { keep_ratio: Some(keep_ratio.into()), gate, quota, ..Self::default() }
    }

    /// Everything, through the same pipeline.
    pub fn full() -> Self {
        Self::random(1.0)
    }

    /// The selection with every default that depends on others filled in; `has_clusters` says whether there is a
    /// captioner.
    ///
    /// # Errors
    /// A keep_ratio that has to be given and is not, or that is given beside a quota that sets it.
    pub fn resolved(&self, has_clusters: bool) -> Result<Self> {
        let gate = self.gate.clone().unwrap_or(if has_clusters { Gate::top(GATE) } else { Gate::OFF });
        let quota = self.quota.unwrap_or(if has_clusters { Quota::Proportional } else { Quota::Random });
        let keep_ratio = match (&self.keep_ratio, quota) {
            (Some(keep_ratio), Quota::CapAt(_)) => {
                let accepted = "with quota=cap(samples), which sets it";
                return Err(Error::unused("keep_ratio", keep_ratio, accepted));
            }
            (Some(keep_ratio), _) => keep_ratio.clone(),
            (None, _) if has_clusters || gate.field().is_some() => KEEP_RATIO.into(),
            (None, _) => {
                let accepted = "a number in (0, 1], the share of samples to keep: without a captioner, a gate by a score \
                                or a plan it has to be given; mode=full keeps all";
                return Err(Error::option("keep_ratio", "none", accepted));
            }
        };
        Ok(Self { keep_ratio: Some(keep_ratio), gate: Some(gate), quota: Some(quota), ..self.clone() })
    }
}
