//! From pixels to model input: random resized crop, resize with centre crop, squash; then
//! NCHW, normalised f32 or plain u8.
//!
//! Resizing is PIL's: separable cubic convolution (Catmull-Rom, a = -0.5) whose kernel widens
//! when it shrinks (antialias), u8 between the two passes. The crops are torchvision's, with
//! their rounding. What is shown is known before decoding, so that of a JPEG no more is decoded; crops
//! are views, so nothing is copied. Evaluation follows PIL to the order of
//! the passes; training takes the faster order, which differs from PIL only where edges clip.

use tldr_resize::{Crop, Filter, Resizer};

use super::decode::RgbImage;
use super::error::ImageError;
use crate::error::{Error, Result};
use crate::hash::Rng;
use crate::model::PreviewFilter;

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
    /// Squash the whole picture to the square with PIL's bicubic filter: SigLIP's evaluation in open_clip.
    Squash,
    /// Squash the whole picture to the square (bilinear, antialiased): what a captioner of our own sees.
    Preview,
    /// The same with PIL's bicubic filter, rows first: what a loaded BLIP sees.
    PreviewBicubic,
}

impl ImageTransform {
    /// Share of the area of open_clip's training crops.
    pub const SCALE: (f64, f64) = (0.9, 1.0);

    /// Width over height of open_clip's training crops.
    pub const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

    /// open_clip's training default: scale 0.9 to 1, ratio 3/4 to 4/3, no flip.
    pub const TRAIN: Self = Self::Train { scale: Self::SCALE, ratio: Self::RATIO, flip: 0.0 };

    /// What makes a preview with `filter`.
    pub fn preview(filter: PreviewFilter) -> Self {
        match filter {
            PreviewFilter::Bilinear => Self::Preview,
            PreviewFilter::Bicubic => Self::PreviewBicubic,
            PreviewFilter::BicubicCrop => Self::Eval,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Self::Train { scale, ratio, flip } = *self else { return Ok(()) };
        if !(0.0 < scale.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
            return Err(Error::option(
                "crop_scale",
                format!("{scale:?}"),
                "two shares, 0 < least <= greatest <= 1",
            ));
        }
        if !(0.0 < ratio.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
            return Err(Error::option(
                "crop_ratio",
                format!("{ratio:?}"),
                "two ratios, 0 < least <= greatest",
            ));
        }
        if !(0.0..=1.0).contains(&flip) {
            return Err(Error::option("flip", flip, "a probability in [0, 1]"));
        }
        Ok(())
    }
}

/// Buffers of the resizer.
#[derive(Default)]
pub(super) struct ResizeScratch {
    resizer: Resizer,
    /// After the first of two passes, `[crop height, width, 3]`.
    rows: Vec<u8>,
    /// The resized picture, `[height, width, 3]`, from which [`Placed`] takes a square.
    pub(super) pixels: Vec<u8>,
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

/// Where the square of a transform lies in the resized pixels of a [`ResizeScratch`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Pixels in a row of the resized picture.
    row: usize,
    left: usize,
    top: usize,
    /// Whether rows are to be read from the right.
    mirrored: bool,
}

impl Placed {
    /// The resized picture is the square itself.
    pub(super) fn whole(size: usize) -> Self {
        Self { row: size, left: 0, top: 0, mirrored: false }
    }
}

/// What of a picture a transform shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// In pixels of the picture.
    pub(super) crop: Crop,
    /// Whether rows are to be read from the right.
    pub(super) mirrored: bool,
}

impl ImageTransform {
    /// What is shown of a picture of that width and height, both at least 1. Only [`Self::Train`] draws.
    pub(super) fn shown(&self, width: usize, height: usize, rng: &mut Rng) -> Shown {
        let whole = Crop { left: 0, top: 0, width, height };
        match *self {
            Self::Train { scale, ratio, flip } => {
                let crop = random_crop(width, height, scale, ratio, rng);
                Shown { crop, mirrored: flip > 0.0 && rng.unit() < flip }
            }
            Self::Eval => Shown { crop: not_a_ribbon(whole), mirrored: false },
            Self::Squash | Self::Preview | Self::PreviewBicubic => Shown { crop: whole, mirrored: false },
        }
    }
}

/// Resizes what `transform` shows of a picture, which lies at `shown` in `image`, to `scratch.pixels`.
pub(super) fn resize(
    transform: ImageTransform,
    size: usize,
    image: &RgbImage,
    shown: Shown,
    scratch: &mut ResizeScratch,
) -> Result<Placed, ImageError> {
    let Shown { crop, mirrored } = shown;
    match transform {
        ImageTransform::Train { .. } => {
            convolve(image, crop, (size, size), Filter::CatmullRom, scratch)?;
            Ok(Placed { mirrored, ..Placed::whole(size) })
        }
        ImageTransform::Eval => {
            let (width, height) = shorter_side_to(size, crop);
            convolve_as_pil(image, crop, (width, height), Filter::CatmullRom, scratch)?;
            let (left, top) = (centred(width - size), centred(height - size));
            Ok(Placed { row: width, left, top, mirrored: false })
        }
        ImageTransform::Squash => {
            convolve_as_pil(image, crop, (size, size), Filter::CatmullRom, scratch)?;
            Ok(Placed::whole(size))
        }
        ImageTransform::Preview => {
            convolve(image, crop, (size, size), Filter::Bilinear, scratch)?;
            Ok(Placed::whole(size))
        }
        ImageTransform::PreviewBicubic => {
            convolve_rows_first(image, crop, (size, size), Filter::CatmullRom, scratch)?;
            Ok(Placed::whole(size))
        }
    }
}

/// Longer side over shorter side beyond which only the middle of a picture is resized for
/// [`ImageTransform::Eval`], which bounds the memory: no more than `3 * 32 * size^2` bytes.
const RIBBON: usize = 32;

/// Cuts a ribbon down to its middle, which still holds the square that is shown. Places it off
/// by half a pixel at most.
fn not_a_ribbon(whole: Crop) -> Crop {
    let longest = RIBBON.saturating_mul(whole.width.min(whole.height));
    let (width, height) = (whole.width.min(longest), whole.height.min(longest));
    Crop { left: (whole.width - width) / 2, top: (whole.height - height) / 2, width, height }
}

/// Width and height after torchvision's `Resize(size)`: the longer side is rounded down.
fn shorter_side_to(size: usize, crop: Crop) -> (usize, usize) {
    let short = crop.width.min(crop.height);
    (size * crop.width / short, size * crop.height / short)
}

/// Offset of torchvision's `CenterCrop` where `spare` pixels are cut: half of them, to even.
fn centred(spare: usize) -> usize {
    (spare as f64 / 2.0).round_ties_even() as usize
}

/// Resizes the view `crop` of `image` to `target` (width, height), `scratch.pixels`: torchvision
/// crops before it resizes, so that the kernel does not see beyond the crop.
pub(super) fn convolve(
    image: &RgbImage,
    crop: Crop,
    target: (usize, usize),
    filter: Filter,
    scratch: &mut ResizeScratch,
) -> Result<(), ImageError> {
    let size = (image.width, image.height);
    scratch.resizer.resize(&image.data, size, crop, target, filter, &mut scratch.pixels).map_err(unusable)
}

/// As [`convolve`], with PIL's order of the passes: along rows first, then along columns (since
/// Pillow 13 the other way round for pictures that lose much more height than width).
///
/// What overshoots 0 to 255 at an edge is clipped after each pass, so the order shows where
/// edges cross: by more than 20 levels in drawings, where the same order stays within 3. The
/// resizer by itself always does columns first, which takes a third to a half less time.
fn convolve_as_pil(
    image: &RgbImage,
    crop: Crop,
    (width, height): (usize, usize),
    filter: Filter,
    scratch: &mut ResizeScratch,
) -> Result<(), ImageError> {
    // Found by trying Pillow 13.0; earlier versions differ for these pictures only.
    if crop.height > height && crop.height + 2 * width > height + 2 * crop.width {
        return convolve(image, crop, (width, height), filter, scratch);
    }
    convolve_rows_first(image, crop, (width, height), filter, scratch)
}

/// As [`convolve`], along rows first, then along columns: torchvision's order, and so that of transformers'
/// image processors.
fn convolve_rows_first(
    image: &RgbImage,
    crop: Crop,
    (width, height): (usize, usize),
    filter: Filter,
    scratch: &mut ResizeScratch,
) -> Result<(), ImageError> {
    let ResizeScratch { resizer, rows, pixels } = scratch;
    let size = (image.width, image.height);
    resizer.resize(&image.data, size, crop, (width, crop.height), filter, rows).map_err(unusable)?;
    let whole = Crop { left: 0, top: 0, width, height: crop.height };
    resizer.resize(rows, (width, crop.height), whole, (width, height), filter, pixels).map_err(unusable)
}

fn unusable(error: impl std::fmt::Display) -> ImageError {
    ImageError::undecodable(format!("cannot resize: {error}"))
}

/// Splits the square at `placed` of interleaved `pixels` into planes `out` `[3, size, size]`.
pub(super) fn planes<T>(
    pixels: &[u8],
    placed: Placed,
    size: usize,
    out: &mut [T],
    value: impl Fn(usize, u8) -> T,
) {
    assert_eq!(out.len(), 3 * size * size, "the output must be [3, {size}, {size}]");
    for (channel, plane) in out.chunks_exact_mut(size * size).enumerate() {
        let rows = pixels.chunks_exact(3 * placed.row).skip(placed.top);
        for (row, target) in rows.zip(plane.chunks_exact_mut(size)) {
            let row = row[3 * placed.left..].chunks_exact(3).take(size);
            let source = row.map(|pixel| value(channel, pixel[channel]));
            if placed.mirrored {
                target.iter_mut().rev().zip(source).for_each(|(t, v)| *t = v);
            } else {
                target.iter_mut().zip(source).for_each(|(t, v)| *t = v);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::hash::{Purpose, Rng};
    use crate::image::{DecodeOptions, ImagePipeline, Normalize, Scratch, decode, preview};

    fn golden(name: &str) -> RgbImage {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name);
        let mut image = RgbImage::default();
        decode(&std::fs::read(path).unwrap(), &DecodeOptions::default(), &mut image).unwrap();
        image
    }

    fn rng(id: u64) -> Rng {
        Rng::new(0, Purpose::Augment, id)
    }

    fn pixels(transform: ImageTransform, size: usize, image: &RgbImage, id: u64) -> Vec<u8> {
        let pipeline = ImagePipeline::new(transform, size, Normalize::default()).unwrap();
        let mut out = vec![0; pipeline.output_len()];
        pipeline.apply(image, &mut rng(id), &mut Scratch::default(), &mut out).unwrap();
        out
    }

    #[test]
    fn eval_equals_open_clips() {
        let names = [
            ("420-wide.jpg", 6),
            ("444-tall.jpg", 6),
            ("422-progressive.jpg", 6),
            ("420-small.jpg", 6),
            ("grey.jpg", 6),
            ("cmyk.jpg", 6),
            ("lossy.webp", 6),
            // The same pixels go in: what differs is the rounding of the last bit.
            ("lossless.webp", 1),
            ("rgb.png", 1),
        ];
        for (name, most) in names {
            let found = pixels(ImageTransform::Eval, 48, &golden(name), 0);
            let expected = golden(&format!("{}.eval.png", name.replace('.', "-")));
            let mut planar = vec![0; expected.data.len()];
            planes(&expected.data, Placed::whole(48), 48, &mut planar, |_, v| v);
            let differences = || found.iter().zip(&planar).map(|(a, b)| a.abs_diff(*b));
            let largest = differences().max().unwrap();
            let mean = differences().map(f64::from).sum::<f64>() / found.len() as f64;
            assert!(largest <= most && mean < 1.0, "{name}: largest {largest}, mean {mean}");
        }
    }

    #[test]
    fn bicubic_previews_equal_those_of_blips_processor() {
        // tests/golden/blip_matcher.py resized what PIL decoded; the same pixels go in here.
        let names = ["420-wide-jpg", "444-tall-jpg", "420-small-jpg", "rgb-png", "lossless-webp", "grey-jpg"];
        for name in names {
            let path = format!("../blip_matcher/{name}.preview.png");
            let (image, expected) = (golden(&format!("{name}.decoded.png")), golden(&path));
            let found = pixels(ImageTransform::PreviewBicubic, 40, &image, 0);
            let mut planar = vec![0; expected.data.len()];
            planes(&expected.data, Placed::whole(40), 40, &mut planar, |_, v| v);
            let largest = found.iter().zip(&planar).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(largest <= 2, "{name}: {largest}");
            assert_ne!(found, pixels(ImageTransform::Preview, 40, &image, 0), "{name}");
        }
    }

    #[test]
    fn normalised_pixels_equal_torchs() {
        let normalize = Normalize::default();
        let pipeline = ImagePipeline::new(ImageTransform::Eval, 32, normalize).unwrap();
        let image = golden("rgb.png");
        let mut out = vec![0.0; pipeline.output_len()];
        pipeline.apply(&image, &mut rng(0), &mut Scratch::default(), &mut out).unwrap();
        let bytes = pixels(ImageTransform::Eval, 32, &image, 0);
        for (place, (&value, &byte)) in out.iter().zip(&bytes).enumerate() {
            let channel = place / (32 * 32);
            assert_eq!(value, (f32::from(byte) / 255.0 - normalize.mean[channel]) / normalize.std[channel]);
        }
        // open_clip's transform of a white picture.
        let mut white = RgbImage::new(5, 9);
        white.data.fill(255);
        pipeline.apply(&white, &mut rng(0), &mut Scratch::default(), &mut out).unwrap();
        for (channel, expected) in [1.930_336_2, 2.074_883_7, 2.145_897].into_iter().enumerate() {
            assert!((out[channel * 1024] - expected).abs() < 1e-6, "{}", out[channel * 1024]);
        }
    }

    #[test]
    fn training_crops_are_distributed_as_torchvisions() {
        #[derive(serde::Deserialize)]
        struct Case {
            width: usize,
            height: usize,
            scale: (f64, f64),
            ratio: (f64, f64),
            draws: f64,
            area: Vec<(f64, f64)>,
            aspect: Vec<(f64, f64)>,
            left: f64,
            top: f64,
        }
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/golden/crops.json")).unwrap();
        for case in cases {
            let mut rng = rng(case.width as u64);
            let draws = 20_000;
            let crops: Vec<Crop> = (0..draws)
                .map(|_| random_crop(case.width, case.height, case.scale, case.ratio, &mut rng))
                .collect();
            assert!(crops.iter().all(|c| c.left + c.width <= case.width && c.top + c.height <= case.height));
            assert!(crops.iter().all(|c| c.width > 0 && c.height > 0));
            // Shares of two samples of n and m draws differ with a variance of p(1-p)(1/n + 1/m);
            // 5 standard deviations.
            let spread =
                |p: f64| 5.0 * (p * (1.0 - p) * (1.0 / f64::from(draws) + 1.0 / case.draws)).sqrt() + 1e-3;
            let check = |what: &str, shares: &[(f64, f64)], value: &dyn Fn(&Crop) -> f64| {
                for &(threshold, share) in shares {
                    let found =
                        crops.iter().filter(|c| value(c) <= threshold).count() as f64 / f64::from(draws);
                    assert!(
                        (found - share).abs() <= spread(share),
                        "{}x{} {what} <= {threshold}: {found}, torchvision {share}",
                        case.width,
                        case.height
                    );
                }
            };
            let whole = (case.width * case.height) as f64;
            check("area", &case.area, &|c| (c.width * c.height) as f64 / whole);
            check("aspect", &case.aspect, &|c| c.width as f64 / c.height as f64);
            let mean = |room: &dyn Fn(&Crop) -> (usize, usize)| {
                let shares: Vec<f64> =
                    crops.iter().map(room).filter(|r| r.1 > 0).map(|r| r.0 as f64 / r.1 as f64).collect();
                if shares.is_empty() { 0.5 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
            };
            // Offsets lie in [0, 1]: their variance is at most 1/4.
            assert!((mean(&|c| (c.left, case.width - c.width)) - case.left).abs() < spread(0.5));
            assert!((mean(&|c| (c.top, case.height - c.height)) - case.top).abs() < spread(0.5));
        }
    }

    #[test]
    fn a_training_crop_sees_nothing_beyond_itself() {
        let image = golden("rgb.png");
        let (scale, ratio) = ((0.2, 0.6), (0.5, 2.0));
        for id in 0..20 {
            let crop = random_crop(image.width, image.height, scale, ratio, &mut rng(id));
            let mut copy = RgbImage { width: crop.width, height: crop.height, data: Vec::new() };
            for y in crop.top..crop.top + crop.height {
                let start = 3 * (y * image.width + crop.left);
                copy.data.extend_from_slice(&image.data[start..start + 3 * crop.width]);
            }
            let whole = Crop { left: 0, top: 0, ..crop };
            let mut scratch = ResizeScratch::default();
            convolve(&copy, whole, (24, 24), Filter::CatmullRom, &mut scratch).unwrap();
            let mut expected = vec![0; 3 * 24 * 24];
            planes(&scratch.pixels, Placed::whole(24), 24, &mut expected, |_, v| v);
            let train = ImageTransform::Train { scale, ratio, flip: 0.0 };
            assert_eq!(pixels(train, 24, &image, id), expected);
        }
    }

    #[test]
    fn a_flip_mirrors_the_rows_of_the_same_crop() {
        let image = golden("rgb.png");
        let train = |flip| ImageTransform::Train { scale: (0.5, 1.0), ratio: (0.75, 4.0 / 3.0), flip };
        let plain = pixels(train(0.0), 16, &image, 3);
        let flipped = pixels(train(1.0), 16, &image, 3);
        for (row, mirrored) in plain.chunks_exact(16).zip(flipped.chunks_exact(16)) {
            assert!(row.iter().eq(mirrored.iter().rev()));
        }
        // 400 flips at p = 0.25: mean 100, sd 8.7; 5 sd.
        let mirrored =
            (0..400).filter(|&id| pixels(train(0.25), 4, &image, id) != pixels(train(0.0), 4, &image, id));
        let count = mirrored.count() as f64;
        assert!((count - 100.0).abs() < 5.0 * 8.7, "{count}");
    }

    #[test]
    fn used_buffers_change_nothing() {
        let pipeline = ImagePipeline::new(ImageTransform::TRAIN, 20, Normalize::default()).unwrap();
        let mut scratch = Scratch::default();
        for (id, name) in ["444-tall.jpg", "rgba.png", "420-wide.jpg", "rgba.png"].into_iter().enumerate() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name);
            let bytes = std::fs::read(path).unwrap();
            let load = |scratch: &mut Scratch| {
                let mut out = vec![0.0; pipeline.output_len()];
                pipeline
                    .load(&bytes, &DecodeOptions::default(), &mut rng(id as u64), scratch, &mut out)
                    .unwrap();
                let mut previews = vec![];
                for filter in [PreviewFilter::Bilinear, PreviewFilter::Bicubic] {
                    let mut small = vec![0; 3 * 8 * 8];
                    preview(&bytes, 8, filter, &DecodeOptions::default(), scratch, &mut small).unwrap();
                    if name.ends_with(".png") {
                        assert_eq!(small, pixels(ImageTransform::preview(filter), 8, &golden(name), 0));
                    }
                    previews.push(small);
                }
                (out, previews)
            };
            assert_eq!(load(&mut scratch), load(&mut Scratch::default()), "{name}");
        }
    }

    #[test]
    fn options_that_cannot_be_used_are_named() {
        let train = |scale, ratio, flip| ImageTransform::Train { scale, ratio, flip };
        let error = |transform, size, normalize| {
            ImagePipeline::new(transform, size, normalize).unwrap_err().to_string()
        };
        let normal = Normalize::default();
        assert!(
            error(train((0.0, 1.0), (0.75, 1.3), 0.0), 224, normal)
                .starts_with("invalid crop_scale=(0.0, 1.0)")
        );
        assert!(error(train((0.9, 1.1), (0.75, 1.3), 0.0), 224, normal).starts_with("invalid crop_scale"));
        assert!(error(train((0.9, 1.0), (1.3, 0.75), 0.0), 224, normal).starts_with("invalid crop_ratio"));
        assert!(error(train((0.9, 1.0), (0.75, 1.3), f64::NAN), 224, normal).starts_with("invalid flip=NaN"));
        assert!(
            error(ImageTransform::Eval, 0, normal)
                .starts_with("invalid image_size=0: expected a number of pixels from 1")
        );
        let flat = Normalize { std: [0.2, 0.0, 0.2], ..normal };
        assert!(error(ImageTransform::Eval, 224, flat).starts_with("invalid std="));
    }

    #[test]
    fn an_image_without_pixels_is_an_error() {
        for image in [RgbImage::default(), RgbImage { width: 4, height: 4, data: vec![0; 47] }] {
            let pipeline = ImagePipeline::new(ImageTransform::Eval, 8, Normalize::default()).unwrap();
            let mut out = vec![0; pipeline.output_len()];
            assert!(pipeline.apply(&image, &mut rng(0), &mut Scratch::default(), &mut out).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Of a picture of one colour every transform is of that colour: kernels sum to one and
        /// no crop leaves the picture.
        #[test]
        fn one_colour_stays_itself(
            width in 1usize..400, height in 1usize..400, thin in 0u8..4, size in 1usize..40,
            color in any::<[u8; 3]>(), which in 0usize..6, id in any::<u64>(),
        ) {
            let (width, height) = match thin { 0 => (1, height), 1 => (width, 1), _ => (width, height) };
            let image = RgbImage { width, height, data: color.repeat(width * height) };
            let transform = [
                ImageTransform::TRAIN,
                ImageTransform::Train { scale: (0.01, 1.0), ratio: (0.1, 10.0), flip: 0.5 },
                ImageTransform::Eval,
                ImageTransform::Squash,
                ImageTransform::Preview,
                ImageTransform::PreviewBicubic,
            ][which];
            let out = pixels(transform, size, &image, id);
            for (channel, plane) in out.chunks_exact(size * size).enumerate() {
                prop_assert!(plane.iter().all(|&v| v == color[channel]));
            }
        }
    }
}
