//! Clusters of similar images, found from bags of codes.

pub mod alignment;
pub mod clusters;
