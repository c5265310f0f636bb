//! Images: from encoded bytes to pixels, and from pixels to what a model takes.
//!
//! [`decode()`] turns JPEG, PNG and WebP into RGB, transparent pixels on white unless another [`Alpha`] is asked for;
//! [`transform`] crops and resizes as open_clip does with PIL, [`pipeline`] goes from bytes to normalised planes.
//! Nothing here reads files or knows of shards.

mod chunks;
mod colour;
pub mod decode;
mod error;
mod orientation;
pub mod pipeline;
pub mod probe;
mod thumbnail;
pub mod transform;

pub use colour::Alpha;
pub use decode::{DecodeOptions, RgbImage, decode};
pub use error::ImageError;
pub(crate) use pipeline::{DECODER, ORIENTATION, PREVIEWS};
pub use pipeline::{ImagePipeline, Normalize, Pixel, Scratch, preview};
pub use probe::{ImageFormat, ImageHeader, probe};
pub use thumbnail::{Thumbnail, thumbnail};
pub use transform::ImageTransform;
