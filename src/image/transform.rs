//! From pixels to model input: random resized crop, resize with centre crop, squash; then
//! NCHW, normalised f32 or plain u8.
//!
//! Resizing is PIL's: separable cubic convolution (Catmull-Rom, a = -0.5) whose kernel widens
//! when it shrinks (antialias), u8 between the two passes. The crops are torchvision's, with
//! their rounding. Crops are views, so the picture is read once and never copied.

use fast_image_resize as fir;
use fir::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use fir::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::decode::{DecodeLimits, ImageError, RgbImage, decode};
use crate::error::{Error, Result};
use crate::hash::{self, Purpose, Rng};

/// Which part of a picture the model sees, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ImageTransform {
    /// Random resized crop (torchvision's `RandomResizedCrop`, bicubic) and optional flip.
    Train {
        /// Least and greatest share of the picture's area, in (0, 1].
        scale: (f64, f64),
        /// Least and greatest width over height of the crop.
        ratio: (f64, f64),
        /// Probability of a horizontal flip.
        flip: f64,
    },
    /// Resize the shorter side to the size (bicubic), then crop the centre.
    Eval,
    /// Squash the whole picture to the square (bilinear, antialiased): what the captioner sees.
    Preview,
}

impl ImageTransform {
    /// open_clip's training default: scale 0.9 to 1, ratio 3/4 to 4/3, no flip.
    pub const TRAIN: Self = Self::Train { scale: (0.9, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0), flip: 0.0 };

    /// Identifies the transform and its parameters.
    pub fn fingerprint(&self) -> u64 {
        hash::hash_str(&format!("{self:?}"))
    }

    fn check(&self) -> Result<()> {
        let Self::Train { scale, ratio, flip } = *self else { return Ok(()) };
        if !(0.0 < scale.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
            return Err(Error::option(
                "scale",
                format!("{scale:?}"),
                "two shares, 0 < least <= greatest <= 1",
            ));
        }
        if !(0.0 < ratio.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
            return Err(Error::option("ratio", format!("{ratio:?}"), "two ratios, 0 < least <= greatest"));
        }
        if !(0.0..=1.0).contains(&flip) {
            return Err(Error::option("flip", flip, "a probability in [0, 1]"));
        }
        Ok(())
    }
}

/// Mean and standard deviation per channel of pixels in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalize {
    /// Mean of R, G, B.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B; above 0.
    pub std: [f32; 3],
}

impl Default for Normalize {
    /// CLIP's.
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_1],
        }
    }
}

/// Buffers that one thread uses again for every picture.
#[derive(Default)]
pub struct Scratch {
    image: RgbImage,
    resize: ResizeScratch,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("image_bytes", &self.image.data.capacity()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct ResizeScratch {
    resizer: Resizer,
    /// The resized picture, `[size, size, 3]`.
    pixels: Vec<u8>,
}

/// A transform with its size and normalisation: immutable, shared by all threads.
#[derive(Debug, Clone)]
pub struct ImagePipeline {
    transform: ImageTransform,
    size: usize,
    /// Normalised value of every byte, per channel; exactly torch's `(v / 255 - mean) / std`.
    table: Box<[[f32; 256]; 3]>,
}

impl ImagePipeline {
    /// A pipeline that ends in squares of `size` pixels.
    ///
    /// # Errors
    /// Names the option (`image_size`, `scale`, `ratio`, `flip`, `mean`, `std`) that cannot be used.
    pub fn new(transform: ImageTransform, size: usize, normalize: Normalize) -> Result<Self> {
        transform.check()?;
        check_size(size)?;
        if normalize.mean.iter().any(|m| !m.is_finite()) {
            return Err(Error::option("mean", format!("{:?}", normalize.mean), "three finite numbers"));
        }
        if normalize.std.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(Error::option("std", format!("{:?}", normalize.std), "three numbers above 0"));
        }
        let mut table = Box::new([[0.0; 256]; 3]);
        for (c, channel) in table.iter_mut().enumerate() {
            for (v, value) in channel.iter_mut().enumerate() {
                *value = (v as f32 / 255.0 - normalize.mean[c]) / normalize.std[c];
            }
        }
        Ok(Self { transform, size, table })
    }

    /// Side of the output in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Values of one output: `3 * size * size`.
    pub fn output_len(&self) -> usize {
        3 * self.size * self.size
    }

    /// Transforms `image` to `out`, `[3, size, size]`, normalised. Only [`ImageTransform::Train`]
    /// draws from `rng`.
    ///
    /// # Errors
    /// An image without pixels, or whose buffer does not fit its width and height.
    ///
    /// # Panics
    /// When `out` is not [`output_len`](Self::output_len) long.
    pub fn apply(
        &self,
        image: &RgbImage,
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), ImageError> {
        self.apply_f32(image, rng, &mut scratch.resize, out)
    }

    /// Transforms `image` to `out`, `[3, size, size]`, not normalised.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    ///
    /// # Panics
    /// When `out` is not [`output_len`](Self::output_len) long.
    pub fn apply_u8(
        &self,
        image: &RgbImage,
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        let flip = resize(self.transform, self.size, image, rng, &mut scratch.resize)?;
        planes(&scratch.resize.pixels, self.size, flip, out, |_, v| v);
        Ok(())
    }

    /// Decodes `bytes` and transforms the picture to `out`, as [`apply`](Self::apply) does.
    ///
    /// # Errors
    /// Those of [`decode`].
    ///
    /// # Panics
    /// When `out` is not [`output_len`](Self::output_len) long.
    pub fn load(
        &self,
        bytes: &[u8],
        limits: &DecodeLimits,
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), ImageError> {
        decode(bytes, limits, &mut scratch.image)?;
        self.apply_f32(&scratch.image, rng, &mut scratch.resize, out)
    }

    /// Decodes `bytes` and transforms the picture to `out`, as [`apply_u8`](Self::apply_u8) does.
    ///
    /// # Errors
    /// Those of [`decode`].
    ///
    /// # Panics
    /// When `out` is not [`output_len`](Self::output_len) long.
    pub fn load_u8(
        &self,
        bytes: &[u8],
        limits: &DecodeLimits,
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        decode(bytes, limits, &mut scratch.image)?;
        let flip = resize(self.transform, self.size, &scratch.image, rng, &mut scratch.resize)?;
        planes(&scratch.resize.pixels, self.size, flip, out, |_, v| v);
        Ok(())
    }

    fn apply_f32(
        &self,
        image: &RgbImage,
        rng: &mut Rng,
        scratch: &mut ResizeScratch,
        out: &mut [f32],
    ) -> Result<(), ImageError> {
        let flip = resize(self.transform, self.size, image, rng, scratch)?;
        planes(&scratch.pixels, self.size, flip, out, |c, v| self.table[c][usize::from(v)]);
        Ok(())
    }
}

/// Decodes `bytes` to a preview for the captioner, `out`: u8 `[3, size, size]`, the whole
/// picture squashed to a square.
///
/// # Errors
/// Those of [`decode`].
///
/// # Panics
/// When `out` is not `3 * size * size` long.
pub fn preview(
    bytes: &[u8],
    size: usize,
    limits: &DecodeLimits,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<(), ImageError> {
    decode(bytes, limits, &mut scratch.image)?;
    let mut unused = Rng::new(0, Purpose::Augment, 0);
    let mirrored = resize(ImageTransform::Preview, size, &scratch.image, &mut unused, &mut scratch.resize)?;
    planes(&scratch.resize.pixels, size, mirrored, out, |_, v| v);
    Ok(())
}

/// Sides beyond this are a mistake, and would overflow nothing below it.
const MAX_SIZE: usize = 8192;

fn check_size(size: usize) -> Result<()> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    Err(Error::option("image_size", size, format!("a number of pixels from 1 to {MAX_SIZE}")))
}

/// Part of a picture, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

/// Draws the crop of torchvision's `RandomResizedCrop`: ten tries at an area and a ratio
/// (uniform in its logarithm), then the largest central crop that keeps the ratio in bounds.
fn random_crop(width: usize, height: usize, scale: (f64, f64), ratio: (f64, f64), rng: &mut Rng) -> Crop {
    let area = width as f64 * height as f64;
    for _ in 0..10 {
        let target = area * rng.range(scale.0, scale.1);
        let aspect = rng.range(ratio.0.ln(), ratio.1.ln()).exp();
        let crop_width = (target * aspect).sqrt().round_ties_even() as usize;
        let crop_height = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            return Crop {
                left: rng.below(width - crop_width + 1),
                top: rng.below(height - crop_height + 1),
                width: crop_width,
                height: crop_height,
            };
        }
    }
    let whole = width as f64 / height as f64;
    let (crop_width, crop_height) = if whole < ratio.0 {
        (width, (width as f64 / ratio.0).round_ties_even() as usize)
    } else if whole > ratio.1 {
        ((height as f64 * ratio.1).round_ties_even() as usize, height)
    } else {
        (width, height)
    };
    // A picture of one pixel's width can round to nothing.
    let (crop_width, crop_height) = (crop_width.clamp(1, width), crop_height.clamp(1, height));
    Crop {
        left: (width - crop_width) / 2,
        top: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

/// Resizes `image` to `scratch.pixels`, `[size, size, 3]`; says whether the rows are to be
/// mirrored.
fn resize(
    transform: ImageTransform,
    size: usize,
    image: &RgbImage,
    rng: &mut Rng,
    scratch: &mut ResizeScratch,
) -> Result<bool, ImageError> {
    if image.width == 0 || image.height == 0 {
        return Err(ImageError::undecodable(format!("an image of {}x{} pixels", image.width, image.height)));
    }
    let whole = Crop { left: 0, top: 0, width: image.width, height: image.height };
    match transform {
        ImageTransform::Train { scale, ratio, flip } => {
            let crop = random_crop(image.width, image.height, scale, ratio, rng);
            let mirrored = flip > 0.0 && rng.unit() < flip;
            // A view, not a box: torchvision crops first, so the kernel must not see the
            // pixels beyond the crop.
            convolve(image, crop, None, size, FilterType::CatmullRom, scratch)?;
            Ok(mirrored)
        }
        ImageTransform::Eval => {
            convolve(image, whole, Some(centre(image, size)), size, FilterType::CatmullRom, scratch)?;
            Ok(false)
        }
        ImageTransform::Preview => {
            convolve(image, whole, None, size, FilterType::Bilinear, scratch)?;
            Ok(false)
        }
    }
}

/// The part of `image`, in its own pixels, that "shorter side to `size`, then the centre"
/// shows: `(left, top, width, height)`.
///
/// torchvision resizes to whole pixels (the longer side rounded down) and rounds the offset of
/// the centre half to even; both are followed here, so that pixels fall on the same places.
fn centre(image: &RgbImage, size: usize) -> (f64, f64, f64, f64) {
    let (width, height) = (image.width as f64, image.height as f64);
    let target = size as f64;
    let short = width.min(height);
    let axis = |length: f64| {
        let resized = if length == short { target } else { (target * length / short).floor() };
        let offset = ((resized - target) / 2.0).round_ties_even();
        let start = offset * length / resized;
        // Rounding may put the far edge outside by a few ulp.
        (start, (target * length / resized).min(length - start))
    };
    let ((left, shown_width), (top, shown_height)) = (axis(width), axis(height));
    (left, top, shown_width, shown_height)
}

/// Resizes the part `shown` (left, top, width, height; all of it if `None`) of the view `crop`.
fn convolve(
    image: &RgbImage,
    crop: Crop,
    shown: Option<(f64, f64, f64, f64)>,
    size: usize,
    filter: FilterType,
    scratch: &mut ResizeScratch,
) -> Result<(), ImageError> {
    // One concrete view type for all transforms: each more doubles the time to compile this file.
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let source = TypedImageRef::<U8x3>::from_buffer(side(image.width), side(image.height), &image.data)
        .map_err(unusable)?;
    let source =
        TypedCroppedImage::new(source, side(crop.left), side(crop.top), side(crop.width), side(crop.height))
            .map_err(unusable)?;
    scratch.pixels.resize(3 * size * size, 0);
    let mut target =
        TypedImage::<U8x3>::from_buffer(side(size), side(size), &mut scratch.pixels).map_err(unusable)?;
    let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    if let Some((left, top, width, height)) = shown {
        options = options.crop(left, top, width, height);
    }
    scratch.resizer.resize_typed(&source, &mut target, &options).map_err(unusable)
}

fn unusable(error: impl std::fmt::Display) -> ImageError {
    ImageError::undecodable(format!("cannot resize: {error}"))
}

/// Splits interleaved `pixels` `[size, size, 3]` into planes `out` `[3, size, size]`.
fn planes<T>(pixels: &[u8], size: usize, mirrored: bool, out: &mut [T], value: impl Fn(usize, u8) -> T) {
    assert_eq!(out.len(), 3 * size * size, "the output must be [3, {size}, {size}]");
    for (channel, plane) in out.chunks_exact_mut(size * size).enumerate() {
        for (row, target) in pixels.chunks_exact(3 * size).zip(plane.chunks_exact_mut(size)) {
            let source = row.chunks_exact(3).map(|pixel| value(channel, pixel[channel]));
            if mirrored {
                target.iter_mut().rev().zip(source).for_each(|(t, v)| *t = v);
            } else {
                target.iter_mut().zip(source).for_each(|(t, v)| *t = v);
            }
        }
    }
}
