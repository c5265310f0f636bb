//! `fast_image_resize` behind one function that is not generic.
//!
//! The kernels of `fast_image_resize` are generic over views of pictures, so that they are compiled
//! in the crate that calls them: half of that crate's time to build, at that crate's level of
//! optimisation. Here they are compiled once, and optimised in every profile.

use std::fmt;

use fast_image_resize as fir;
use fir::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fir::pixels::U8x3;

/// Kernel of a separable convolution, widened when it shrinks (antialias).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Linear: PIL's and torchvision's `BILINEAR`.
    Bilinear,
    /// Cubic with a = -0.5: PIL's `BICUBIC`.
    CatmullRom,
}

/// Part of a picture, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Columns before it.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A picture that does not fit its buffer, or cannot be resized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Buffers and coefficients of one thread.
#[derive(Default)]
pub struct Resizer(fir::Resizer);

impl fmt::Debug for Resizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resizer").finish_non_exhaustive()
    }
}

impl Resizer {
    /// Resizes the view `crop` of `pixels`, u8 RGB `[height, width, 3]` with `(width, height)` =
    /// `size`, to `target` (width, height), `out`. Columns first, then rows.
    ///
    /// The kernel does not see beyond the crop.
    ///
    /// # Errors
    /// `pixels` do not fit `size`, or `crop` does not lie inside; no pixels.
    pub fn resize(
        &mut self,
        pixels: &[u8],
        size: (usize, usize),
        crop: Crop,
        target: (usize, usize),
        filter: Filter,
        out: &mut Vec<u8>,
    ) -> Result<(), Unusable> {
        let unusable = |error: &dyn fmt::Display| Unusable(error.to_string());
        let source = TypedImageRef::<U8x3>::from_buffer(side(size.0), side(size.1), pixels)
            .map_err(|e| unusable(&e))?;
        // A view, never the crop box of the resizer: with a fractional box, version 6.1 reads
        // outside its buffers where an edge falls on the middle of a pixel.
        let source = TypedCroppedImage::new(
            source,
            side(crop.left),
            side(crop.top),
            side(crop.width),
            side(crop.height),
        )
        .map_err(|e| unusable(&e))?;
        out.resize(3 * target.0 * target.1, 0);
        let mut to =
            TypedImage::<U8x3>::from_buffer(side(target.0), side(target.1), out).map_err(|e| unusable(&e))?;
        let filter = match filter {
            Filter::Bilinear => fir::FilterType::Bilinear,
            Filter::CatmullRom => fir::FilterType::CatmullRom,
        };
        let options =
            fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter)).use_alpha(false);
        self.0.resize_typed(&source, &mut to, &options).map_err(|e| unusable(&e))
    }
}

/// A length as the resizer takes it. A longer one cannot fit its buffer, which is then the error.
fn side(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
