//! Images: from encoded bytes to pixels, and from pixels to what a model takes.
//!
//! [`decode()`] turns JPEG, PNG and WebP into RGB; [`transform`] crops and resizes as open_clip does
//! with PIL, [`pipeline`] goes from bytes to normalised planes. Nothing here reads files or knows of shards.

pub mod decode;
mod error;
pub mod pipeline;
pub mod probe;
pub mod transform;

pub use decode::{DecodeOptions, RgbImage, decode};
pub use error::ImageError;
pub(crate) use pipeline::{DECODER, PREVIEWS};
pub use pipeline::{ImagePipeline, Normalize, Pixel, Scratch, preview};
pub use probe::{ImageFormat, ImageHeader, probe};
pub use transform::ImageTransform;
