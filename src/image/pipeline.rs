//! From encoded bytes to what a model takes: decode, transform, normalise, in one call.
//!
//! Values are looked up, not computed: a channel of a picture has 256 of them.

use half::bf16;
use tldr_jpeg::Scale;

use super::decode::{DecodeOptions, Part, RgbImage, decode_part};
use super::error::ImageError;
use super::transform::{ImageTransform, ResizeScratch, Shown, planes, resize};
use crate::error::{Error, Result};
use crate::hash::Rng;
use crate::model::PreviewFilter;

/// Mean and standard deviation per channel of pixels in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalize {
    /// Mean of R, G, B.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B; above 0.
    pub std: [f32; 3],
}

impl Normalize {
    /// CLIP's.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
}

impl Default for Normalize {
    /// CLIP's.
    fn default() -> Self {
        Self::CLIP
    }
}

/// Buffers that one thread uses again for every picture.
#[derive(Default)]
pub struct Scratch {
    pub(super) image: RgbImage,
    pub(super) resize: ResizeScratch,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("image_bytes", &self.image.data.capacity()).finish_non_exhaustive()
    }
}

/// A number type of pixels.
pub trait Pixel: Copy + Send {
    /// The value of a byte whose channel is normalised by `table`.
    fn normalised(byte: u8, table: &[f32; 256]) -> Self;
}

impl Pixel for f32 {
    fn normalised(byte: u8, table: &[f32; 256]) -> Self {
        table[usize::from(byte)]
    }
}

/// Rounded to nearest, ties to even, as torch does.
impl Pixel for bf16 {
    fn normalised(byte: u8, table: &[f32; 256]) -> Self {
        Self::from_f32(table[usize::from(byte)])
    }
}

/// Not normalised.
impl Pixel for u8 {
    fn normalised(byte: u8, _: &[f32; 256]) -> Self {
        byte
    }
}

/// A transform with its size and normalisation: immutable, shared by all threads.
#[derive(Debug, Clone)]
pub struct ImagePipeline {
    transform: ImageTransform,
    size: usize,
    /// Whether JPEGs much larger than `size` are decoded at a smaller scale.
    scaled_decoding: bool,
    /// Normalised value of every byte, per channel; exactly torch's `(v / 255 - mean) / std`.
    table: Box<[[f32; 256]; 3]>,
}

impl ImagePipeline {
    /// A pipeline that ends in squares of `size` pixels.
    ///
    /// # Errors
    /// Names the option (`image_size`, `crop_scale`, `crop_ratio`, `flip`, `mean`, `std`) that cannot be used.
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
        Ok(Self { transform, size, scaled_decoding: false, table })
    }

    /// Whether a random crop of a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and full size at which it is
    /// still twice the size or more, each way. [`load`](Self::load) only. Default: false, full size.
    ///
    /// # Errors
    /// A transform other than [`ImageTransform::Train`]: evaluation and previews have their own rule.
    pub fn scaled_decoding(mut self, scaled_decoding: bool) -> Result<Self> {
        if scaled_decoding && !matches!(self.transform, ImageTransform::Train { .. }) {
            let accepted = "false with a transform that is not the random crop of training: the others decode \
                            at full size";
            return Err(Error::option("scaled_decoding", true, accepted));
        }
        self.scaled_decoding = scaled_decoding;
        Ok(self)
    }

    /// Side of the output in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Values of one output: `3 * size * size`.
    pub fn output_len(&self) -> usize {
        3 * self.size * self.size
    }

    /// Transforms `image` to `out`, `[3, size, size]`: normalised where `T` is a floating-point
    /// type, 0 to 255 where it is `u8`. Only [`ImageTransform::Train`] draws from `rng`.
    ///
    /// # Errors
    /// An image without pixels, or whose buffer does not fit its width and height.
    ///
    /// # Panics
    /// When `out` is not [`output_len`](Self::output_len) long.
    pub fn apply<T: Pixel>(
        &self,
        image: &RgbImage,
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut [T],
    ) -> Result<(), ImageError> {
        if image.width == 0 || image.height == 0 {
            return Err(ImageError::undecodable(format!(
                "an image of {}x{} pixels",
                image.width, image.height
            )));
        }
        let shown = self.transform.shown(image.width, image.height, rng);
        self.resized(image, shown, &mut scratch.resize, out)
    }

    /// Decodes `bytes` and transforms the picture to `out`, as [`apply`](Self::apply) does.
    ///
    /// # Errors
    /// Those of [`decode`](super::decode::decode).
    ///
    /// # Panics
    /// When `out` is not [`output_len`](Self::output_len) long.
    pub fn load<T: Pixel>(
        &self,
        bytes: &[u8],
        options: &DecodeOptions,
        rng: &mut Rng,
        scratch: &mut Scratch,
        out: &mut [T],
    ) -> Result<(), ImageError> {
        let mut mirrored = false;
        let part = |width, height| {
            let shown = self.transform.shown(width, height, rng);
            mirrored = shown.mirrored;
            let side = shown.crop.width.min(shown.crop.height);
            let scale = if self.scaled_decoding {
                smallest_scale(side, TRAINING_DETAIL * self.size)
            } else {
                Scale::Full
            };
            Part { crop: shown.crop, scale }
        };
        let crop = decode_part(bytes, options, part, &mut scratch.image)?;
        self.resized(&scratch.image, Shown { crop, mirrored }, &mut scratch.resize, out)
    }

    fn resized<T: Pixel>(
        &self,
        image: &RgbImage,
        shown: Shown,
        scratch: &mut ResizeScratch,
        out: &mut [T],
    ) -> Result<(), ImageError> {
        let placed = resize(self.transform, self.size, image, shown, scratch)?;
        planes(&scratch.pixels, placed, self.size, out, |c, v| T::normalised(v, &self.table[c]));
        Ok(())
    }
}

/// Times the target that a side keeps at least under `scaled_decoding`: below it, the decoder's own filter
/// shows.
const TRAINING_DETAIL: usize = 2;

/// Times its side that a picture keeps at least when it is decoded for a preview. With 1, a fifth of the samples would
/// change its cluster (docs/benchmarks.md).
const PREVIEW_DETAIL: usize = 2;

/// What decodes JPEGs, in words: pixels of another decoder are others.
pub(crate) const DECODER: &str = "libjpeg-turbo 3";

/// How previews are decoded, in words: signals of other previews must not be mixed with these.
pub(crate) const PREVIEWS: &str = "libjpeg-turbo, smallest scale not below twice the preview";

/// By what pictures are turned, in words: as [`PREVIEWS`].
pub(crate) const ORIENTATION: &str = "EXIF and XMP, as PIL";

/// The smallest scale at which a side of `length` pixels still has `wanted`.
pub(super) fn smallest_scale(length: usize, wanted: usize) -> Scale {
    let fits = |scale: &Scale| length / scale.denominator() as usize >= wanted;
    Scale::SMALLEST_FIRST.into_iter().find(fits).unwrap_or_default()
}

/// Decodes `bytes` to a preview for the scorer, `out`: u8 `[3, size, size]`, made with `filter`. A JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and full
/// size whose shorter side is not below twice `size`.
///
/// # Errors
/// Those of [`decode`](super::decode::decode).
///
/// # Panics
/// When `out` is not `3 * size * size` long.
pub fn preview(
    bytes: &[u8],
    size: usize,
    filter: PreviewFilter,
    options: &DecodeOptions,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let part = |width: usize, height: usize| Part {
        scale: smallest_scale(width.min(height), PREVIEW_DETAIL * size),
        ..Part::whole(width, height)
    };
    let crop = decode_part(bytes, options, part, &mut scratch.image)?;
    let (transform, shown) = (ImageTransform::preview(filter), Shown { crop, mirrored: false });
    let placed = resize(transform, size, &scratch.image, shown, &mut scratch.resize)?;
    planes(&scratch.resize.pixels, placed, size, out, |_, v| v);
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
