//! Images: from encoded bytes to pixels, and from pixels to what a model takes.
//!
//! [`decode`] turns JPEG, PNG and WebP into RGB; [`transform`] resizes, crops and normalises,
//! as open_clip does with PIL. Nothing here reads files or knows of shards.

pub mod decode;
pub mod transform;

pub use decode::{DecodeLimits, ImageError, RgbImage, decode};
pub use transform::{ImagePipeline, ImageTransform, Normalize, Scratch, preview};
