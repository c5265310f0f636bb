//! What images look like.

use crate::config::Mode;
use crate::error::{Error, Result};
use crate::image::{Alpha, DecodeOptions, ImageTransform, Normalize};
use crate::options::text_settings;

crate::group! {
    /// Decoding, cropping and number type of the images.
    pub struct Images, fields of images {
        /// Side of the square images, in pixels. Default: 224.
        Pixels image_size: usize = 224;
        /// How images are cropped and resized: `train` (random resized crop), `eval` (resize, centre crop), `squash`
        /// (both sides, bicubic) or `preview` (both sides, bilinear). Default: `train`; `eval` in mode `eval`.
        Pixels transform: Option<Transform> = None, some Transform;
        /// Least and greatest share of the area, for `train`. Default: 0.9 to 1.
        Pixels crop_scale: Option<[f64; 2]> = None, some [f64; 2];
        /// Least and greatest width over height, for `train`. Default: 3/4 to 4/3.
        Pixels crop_ratio: Option<[f64; 2]> = None, some [f64; 2];
        /// Probability of a horizontal flip, for `train`. Default: 0.
        Pixels flip: Option<f64> = None, some f64;
        /// Mean of red, green and blue, for pixels in [0, 1]. Default: CLIP's.
        Pixels mean: [f32; 3] = Normalize::CLIP.mean;
        /// Standard deviation of red, green and blue. Default: CLIP's.
        Pixels std: [f32; 3] = Normalize::CLIP.std;
        /// Number type of the pixels: `float32` or `bfloat16`, normalised; or `uint8`, as decoded and resized. Default:
        /// `float32`.
        Pixels dtype: PixelType = PixelType::F32;
        /// Pixels an image may have; larger ones are refused from their header. Default: 100 million.
        Reading max_image_pixels: u64 = DecodeOptions::MAX_PIXELS;
        /// Whether images are turned as their EXIF data or XMP say. Default: false, as CLIP trainers do.
        Reading exif_orientation: bool = false;
        /// What becomes of transparent pixels: they lie on `white` or `black`, or `drop` takes their colours as they are
        /// stored, as PIL's `convert("RGB")` does, and so open_clip. For previews too. Default: `white`.
        Reading alpha: Alpha = Alpha::White;
        /// Whether the random crop of a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and full size at which it is
        /// still twice the image size or more, each way: less work for large photographs, and pixels that differ a little
        /// (docs/benchmarks.md). Default: false, full size.
        Pixels scaled_decoding: bool = false;
    }
}

impl Images {
    /// How images are decoded.
    pub fn decode(&self) -> DecodeOptions {
        let (max_pixels, exif_orientation) = (self.max_image_pixels, self.exif_orientation);
        DecodeOptions { max_pixels, exif_orientation, alpha: self.alpha }
    }

    /// What the pixels are normalised by.
    pub fn normalize(&self) -> Normalize {
        Normalize { mean: self.mean, std: self.std }
    }

    /// The transform in `mode`.
    ///
    /// # Errors
    /// Numbers of the random crop beside another transform.
    pub fn transform_in(&self, mode: Mode) -> Result<ImageTransform> {
        let by_mode = if mode == Mode::Eval { Transform::Eval } else { Transform::Train };
        let chosen = self.transform.unwrap_or(by_mode);
        let crop = [
            ("crop_scale", self.crop_scale.map(|range| format!("{range:?}"))),
            ("crop_ratio", self.crop_ratio.map(|range| format!("{range:?}"))),
            ("flip", self.flip.map(|p| p.to_string())),
        ];
        match chosen {
            Transform::Train => {
                let pair =
                    |range: Option<[f64; 2]>, default: (f64, f64)| range.map_or(default, |[a, b]| (a, b));
                let (scale, ratio) = (ImageTransform::SCALE, ImageTransform::RATIO);
                let (scale, ratio) = (pair(self.crop_scale, scale), pair(self.crop_ratio, ratio));
                Ok(ImageTransform::Train { scale, ratio, flip: self.flip.unwrap_or(0.0) })
            }
            other => match crop.into_iter().find_map(|(option, given)| Some((option, given?))) {
                Some((option, given)) => {
                    let accepted = format!("with transform={}, which has no random crop", other.name());
                    Err(Error::unused(option, given, accepted))
                }
                None => Ok(match other {
                    Transform::Eval => ImageTransform::Eval,
                    Transform::Squash => ImageTransform::Squash,
                    _ => ImageTransform::Preview,
                }),
            },
        }
    }
}

/// How images are cropped and resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// Random resized crop, and a flip.
    Train,
    /// Resize the shorter side, then crop the centre.
    Eval,
    /// Squash the whole picture to the square, bicubic.
    Squash,
    /// The same, bilinear.
    Preview,
}

crate::names!(
    Transform { Train => "train", Eval => "eval", Squash => "squash", Preview => "preview" },
    option "transform", "one of train, eval, squash, preview"
);

/// Number type of the pixels of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelType {
    /// `f32`, normalised.
    F32,
    /// `bf16`, normalised.
    Bf16,
    /// `u8`, as decoded and resized.
    U8,
}

crate::names!(
    PixelType { F32 => "float32", Bf16 => "bfloat16", U8 => "uint8" },
    option "dtype", "one of float32, bfloat16, uint8"
);

text_settings! {
    Alpha: "Literal['white', 'black', 'drop']", "one of white, black, drop";
    Transform: "Literal['train', 'eval', 'squash', 'preview']", "one of train, eval, squash, preview";
    PixelType: "Literal['float32', 'bfloat16', 'uint8']", "one of float32, bfloat16, uint8";
}
