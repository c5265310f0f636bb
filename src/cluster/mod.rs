//! Clusters of similar images, found from bags of codes (TL;DR, arXiv 2305.20087, section 3.2,
//! with bags of codes in place of raw code indices).
//!
//! A captioner turns an image into one code per patch. [`signature`] counts them into a vector
//! with a metric, [`kmeans`] finds centroids, [`order`] lines similar centroids up and cuts the
//! line into runs of equal share, [`alignment`] turns raw alignments into quantiles, and [`fit()`]
//! does all of it once for a corpus. [`raw_index`] is an ablation, [`agreement`] compares with a truth. The result, [`Clusters`], is what selection works with; the
//! file `clusters.safetensors` of a captioner directory holds nothing else. [`GateWorth`] says how well the captioner
//! tells true captions from swapped ones.
//!
//! Plain arrays only: codes come in as numbers, whatever computed them.

pub mod agreement;
pub mod alignment;
pub mod clusters;
mod discriminant;
mod file;
pub mod fit;
mod fitted;
pub mod kmeans;
pub mod order;
pub mod raw_index;
pub mod signature;
mod worth;

pub use alignment::{AlignmentNorm, AlignmentTable, RawAlignment};
pub use clusters::{Clusters, GATE_STEPS};
pub use discriminant::Discriminant;
pub(crate) use fit::fit_embeddings_by;
pub use fit::{
    EmbeddedPoints, Features, FitOptions, FitPoints, FitReport, default_clusters, fit, fit_embeddings,
};
pub use fitted::Fitted;
pub(crate) use fitted::words;
pub use worth::{GateWorth, MeasuredOn, Validation};
