//! Decodes JPEG, PNG and WebP, recognised by content, to 8-bit RGB.
//!
//! Every colour type comes out as RGB: grey is repeated, palettes are looked up, CMYK is
//! converted as PIL does (Adobe's inverted convention), 16-bit samples keep their high byte,
//! and alpha is composited on white unless another [`Alpha`] is asked for. ICC profiles are ignored, and so is the
//! orientation that EXIF or XMP says unless it is asked for, as CLIP trainers do. Of several pictures the first is taken.
//!
//! A truncated image is an error, although most decoders would fill the rest with grey: half a
//! picture under a whole caption is noise that nobody would notice.
//!
//! JPEG goes through libjpeg-turbo (`tldr_jpeg`), and so do the pixels of all who train CLIP with PIL. Of
//! a JPEG it decodes the part that is shown, and no more.

use std::any::Any;
use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, Limits};
use tldr_jpeg::{Jpeg, Limits as JpegLimits, Region, Scale};
use tldr_resize::Crop;

use super::chunks;
use super::colour::{Alpha, to_rgb};
use super::error::ImageError;
use super::orientation::orientation;
use super::probe::ImageFormat;
use crate::error::FailReason;

/// Pixels of an image: `u8` RGB, `[height, width, 3]`, rows from the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// A black image.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; width * height * 3] }
    }
}

/// What an image may cost, and how it is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most pixels (width times height) of an image that is decoded. Checked against the header,
    /// before anything is allocated. Memory while decoding is up to 11 bytes per pixel (progressive
    /// CMYK JPEG; 9 in colour).
    pub max_pixels: u64,
    /// Whether the orientation in an image's EXIF data or XMP is applied, as viewers do.
    pub exif_orientation: bool,
    /// What becomes of transparent pixels.
    pub alpha: Alpha,
}

impl DecodeOptions {
    /// Most pixels of an image by default: 100 megapixels.
    pub const MAX_PIXELS: u64 = 100_000_000;
}

impl Default for DecodeOptions {
    /// 100 megapixels, as they are stored (as CLIP trainers take them), on white.
    fn default() -> Self {
        Self { max_pixels: Self::MAX_PIXELS, exif_orientation: false, alpha: Alpha::White }
    }
}

/// Decodes `bytes` into `out`, whose buffer is re-used.
///
/// After an error `out` holds nothing of use. A panic inside a decoder is reported as an error.
///
/// # Errors
/// [`FailReason::ImageTooLarge`] when the header promises more than `options` allow;
/// [`FailReason::UndecodableImage`] for anything else: another format, damage, truncation.
pub fn decode(bytes: &[u8], options: &DecodeOptions, out: &mut RgbImage) -> Result<(), ImageError> {
    decode_part(bytes, options, Part::whole, out).map(|_| ())
}

/// What of a picture is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// In pixels of the picture at its full size.
    pub(super) crop: Crop,
    /// At which size it will do, where the format can be decoded at another.
    pub(super) scale: Scale,
}

impl Part {
    /// All of a picture of that width and height.
    pub(super) fn whole(width: usize, height: usize) -> Self {
        Self { crop: Crop { left: 0, top: 0, width, height }, scale: Scale::Full }
    }
}

/// Decodes of `bytes` what `part` says of the picture's width and height, or more of it, into `out`. Returns
/// where in `out` the part lies.
///
/// At [`Scale::Full`] its pixels are those of the whole picture. `part` is called once, unless the header
/// is an error already.
///
/// # Errors
/// As [`decode`]: damage beyond the part is an error too.
pub(super) fn decode_part(
    bytes: &[u8],
    options: &DecodeOptions,
    part: impl FnOnce(usize, usize) -> Part,
    out: &mut RgbImage,
) -> Result<Crop, ImageError> {
    // `out` is overwritten whole by the next call, so no broken invariant can outlive a panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        match ImageFormat::of(bytes) {
            Some(ImageFormat::Jpeg) => return decode_jpeg(bytes, options, part, out),
            Some(ImageFormat::Png) => decode_png(bytes, options, out)?,
            Some(ImageFormat::Webp) => decode_webp(bytes, options, out)?,
            None => return Err(ImageError::unknown(bytes)),
        }
        Ok(part(out.width, out.height).crop)
    }));
    decoded.unwrap_or_else(|panic| Err(ImageError::undecodable(panic_message(&*panic))))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| Cow::Borrowed(*s));
    let text = text.or_else(|| panic.downcast_ref::<String>().map(|s| Cow::Borrowed(s.as_str())));
    format!("the decoder panicked: {}", text.unwrap_or_default())
}

/// Refuses an image by the size its header promises.
pub(crate) fn check_size(width: u64, height: u64, options: &DecodeOptions) -> Result<(), ImageError> {
    let pixels = width.saturating_mul(height);
    if pixels == 0 {
        return Err(ImageError::undecodable(format!("the header says {width}x{height} pixels")));
    }
    if pixels > options.max_pixels {
        return Err(ImageError {
            reason: FailReason::ImageTooLarge,
            detail: format!(
                "the header promises {width}x{height} pixels, more than max_image_pixels={}",
                options.max_pixels
            ),
        });
    }
    Ok(())
}

/// Scans of a JPEG that are read: libjpeg-turbo's own fuzzers stop there too. Encoders write 10, and
/// those that search for the smallest file up to 64.
const MAX_SCANS: u16 = 500;

fn decode_jpeg(
    bytes: &[u8],
    options: &DecodeOptions,
    part: impl FnOnce(usize, usize) -> Part,
    out: &mut RgbImage,
) -> Result<Crop, ImageError> {
    let jpeg = Jpeg::open(bytes).or_else(|error| {
        if let tldr_jpeg::Error::TooLarge { width, height } = error {
            check_size(u64::from(width), u64::from(height), options)?;
        }
        Err(ImageError::from(error))
    })?;
    let (width, height) = (jpeg.width(), jpeg.height());
    check_size(u64::from(width), u64::from(height), options)?;
    let orientation = said(bytes, ImageFormat::Jpeg, options);
    let across = orientation.is_some_and(|orientation| {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
    });
    let (shown_width, shown_height) = if across { (height, width) } else { (width, height) };
    let Part { crop, scale } = part(shown_width as usize, shown_height as usize);
    let scale = if jpeg.is_scalable() { scale } else { Scale::Full };
    let (left, shown_width) = scaled(crop.left, crop.width, shown_width, scale);
    let (top, shown_height) = scaled(crop.top, crop.height, shown_height, scale);
    // A picture that is turned is turned whole.
    let region = match orientation {
        Some(_) => Region { left: 0, top: 0, width: scale.of(width), height: scale.of(height) },
        None => Region { left, top, width: shown_width, height: shown_height },
    };
    // The coefficients of four components, and what pads them to whole blocks in the sparsest sampling.
    let memory = usize::try_from(options.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let limits = JpegLimits { memory: memory.saturating_add(64 << 20), scans: MAX_SCANS };
    let decoded = jpeg.decode(scale, region, &limits, &mut out.data)?;
    (out.width, out.height) = (decoded.width as usize, decoded.height as usize);
    turn(out, orientation);
    let (left, top) = match orientation {
        Some(_) => (left, top),
        None => (left - decoded.left, top - decoded.top),
    };
    Ok(Crop {
        left: left as usize,
        top: top as usize,
        width: shown_width as usize,
        height: shown_height as usize,
    })
}

/// Start and length of a span of a side of `whole` pixels, at `scale`: its ends are rounded to pixels there.
fn scaled(start: usize, length: usize, whole: u32, scale: Scale) -> (u32, u32) {
    let (most, denominator) = (scale.of(whole), scale.denominator() as usize);
    // Sides of a JPEG fit 16 bits, and a part lies inside.
    let place = |at: usize| ((at + denominator / 2) / denominator) as u32;
    let end = if start + length >= whole as usize { most } else { place(start + length).clamp(1, most) };
    let start = place(start).min(end - 1);
    (start, end - start)
}

impl From<tldr_jpeg::Error> for ImageError {
    fn from(error: tldr_jpeg::Error) -> Self {
        match error {
            tldr_jpeg::Error::TooLarge { .. } => {
                Self { reason: FailReason::ImageTooLarge, detail: error.to_string() }
            }
            _ => Self::undecodable(format!("JPEG: {error}")),
        }
    }
}

fn decode_png(bytes: &[u8], options: &DecodeOptions, out: &mut RgbImage) -> Result<(), ImageError> {
    let orientation = said(bytes, ImageFormat::Png, options);
    let mut decode = |bytes: &[u8]| {
        let decoder = PngDecoder::with_limits(Cursor::new(bytes), Limits::no_limits());
        decode_with(
            decoder.map_err(|error| ImageError::undecodable(error.to_string()))?,
            orientation,
            options,
            out,
        )
    };
    decode(bytes).or_else(|error| match chunks::ended(bytes) {
        // Its pixels may all be there.
        Some(ended) if error.reason == FailReason::UndecodableImage => decode(&ended).map_err(|_| error),
        _ => Err(error),
    })
}

fn decode_webp(bytes: &[u8], options: &DecodeOptions, out: &mut RgbImage) -> Result<(), ImageError> {
    let decoder = WebPDecoder::new(Cursor::new(chunks::unblended(bytes)))
        .map_err(|error| ImageError::undecodable(error.to_string()))?;
    decode_with(decoder, said(bytes, ImageFormat::Webp, options), options, out)
}

/// How the picture has to be turned, where that is asked for.
fn said(bytes: &[u8], format: ImageFormat, options: &DecodeOptions) -> Option<Orientation> {
    options.exif_orientation.then(|| orientation(bytes, format)).flatten()
}

fn decode_with(
    mut decoder: impl ImageDecoder,
    orientation: Option<Orientation>,
    options: &DecodeOptions,
    out: &mut RgbImage,
) -> Result<(), ImageError> {
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), options)?;
    // The pixels were admitted above; what remains bounds side data (profiles, text chunks):
    // 8 bytes a pixel is RGBA with 16 bits, 64 MB the rest.
    let mut memory = Limits::no_limits();
    memory.max_alloc = Some(options.max_pixels.saturating_mul(8).saturating_add(64 << 20));
    let failed = |error: image::ImageError| ImageError::undecodable(error.to_string());
    decoder.set_limits(memory).map_err(failed)?;
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    (out.width, out.height) = (width as usize, height as usize);
    to_rgb(image, options.alpha, &mut out.data)?;
    turn(out, orientation);
    Ok(())
}

fn turn(image: &mut RgbImage, orientation: Option<Orientation>) {
    let Some(orientation) = orientation else { return };
    // Sides beyond 32 bits do not come out of any decoder above.
    let (width, height) = (image.width as u32, image.height as u32);
    let data = std::mem::take(&mut image.data);
    let Some(pixels) = image::RgbImage::from_raw(width, height, data) else { return };
    let mut turned = DynamicImage::ImageRgb8(pixels);
    turned.apply_orientation(orientation);
    (image.width, image.height) = (turned.width() as usize, turned.height() as usize);
    image.data = turned.into_rgb8().into_raw();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    /// The images of `tests/golden/images.py`, by name.
    fn golden_images() -> Vec<(String, Vec<u8>)> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let images = paths.iter().map(|path| (name(path), std::fs::read(path).unwrap()));
        images.filter(|(name, _)| !name.ends_with(".decoded.png") && !name.ends_with(".eval.png")).collect()
    }

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)
    }

    fn admitting(max_pixels: u64) -> DecodeOptions {
        DecodeOptions { max_pixels, ..DecodeOptions::default() }
    }

    fn decoded(bytes: &[u8]) -> Result<RgbImage, ImageError> {
        let mut image = RgbImage::default();
        decode(bytes, &DecodeOptions::default(), &mut image).map(|()| image)
    }

    #[test]
    fn every_colour_type_comes_out_as_pillow_reads_it() {
        let images = golden_images();
        assert!(images.len() >= 18, "{}", images.len());
        for (name, bytes) in images {
            let image = decoded(&bytes).unwrap();
            let expected = std::fs::read(golden(&format!("{}.decoded.png", name.replace('.', "-")))).unwrap();
            let expected = decoded(&expected).unwrap();
            assert_eq!((image.width, image.height), (expected.width, expected.height), "{name}");
            let differences = || image.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b));
            let largest = differences().max().unwrap();
            let mean = differences().map(f64::from).sum::<f64>() / image.data.len() as f64;
            // Decoders of lossy WebP may round transforms and chroma differently; JPEG's is PIL's own.
            let (most, most_mean) = if name == "lossy.webp" { (6, 0.6) } else { (0, 0.0) };
            assert!(largest <= most && mean <= most_mean, "{name}: largest {largest}, mean {mean}");
        }
    }

    #[test]
    fn a_cut_image_is_an_error_wherever_it_is_cut() {
        for (name, bytes) in golden_images() {
            // What ends a PNG (the end chunk, checksums, the code that ends its data) or pads a WebP may be missing: the
            // pixels are there.
            let spare = match name.rsplit('.').next() {
                Some("png") => 24,
                Some("webp") => 14,
                _ => 0,
            };
            let needed = bytes.len() - spare;
            for length in (0..needed).step_by(7).chain(needed.saturating_sub(20)..needed) {
                let error = decoded(&bytes[..length]).err();
                let reason =
                    error.unwrap_or_else(|| panic!("{name} cut to {length} of {}", bytes.len())).reason;
                assert_eq!(reason, FailReason::UndecodableImage);
            }
        }
    }

    #[test]
    fn a_png_without_its_end_is_whole_where_its_pixels_are() {
        for (name, bytes) in golden_images().into_iter().filter(|(name, _)| name.ends_with(".png")) {
            let whole = decoded(&bytes);
            for cut in 1..=20 {
                assert_eq!(
                    decoded(&bytes[..bytes.len() - cut]),
                    whole,
                    "{name} without its last {cut} bytes"
                );
            }
            // A cut file of several chunks of pixels, at the end of one of them.
            let of_pixels = bytes.windows(4).position(|window| window == b"IDAT").unwrap();
            let data = &bytes[of_pixels + 4..bytes.len() - 16];
            let mut several = bytes[..of_pixels - 4].to_vec();
            let (first, second) = data.split_at(data.len() / 2);
            for part in [first, second] {
                chunks::push(&mut several, b"IDAT", part);
            }
            assert_eq!(decoded(&several), whole, "{name}");
            let error = decoded(&several[..several.len() - second.len() - 12]).unwrap_err();
            assert_eq!(error.reason, FailReason::UndecodableImage, "{name}");
        }
    }

    #[test]
    fn too_large_an_image_is_refused_by_its_header() {
        let mut jpeg = std::fs::read(golden("420-wide.jpg")).unwrap();
        let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].fill(0xFF);
        let error = decoded(&jpeg).unwrap_err();
        assert_eq!(error.reason, FailReason::ImageTooLarge);
        assert!(error.detail.contains("65535x65535") && error.detail.contains("max_image_pixels"), "{error}");

        for name in ["420-wide.jpg", "rgb.png", "lossy.webp"] {
            let bytes = std::fs::read(golden(name)).unwrap();
            let image = decoded(&bytes).unwrap();
            let pixels = (image.width * image.height) as u64;
            let mut out = RgbImage::default();
            decode(&bytes, &admitting(pixels), &mut out).unwrap();
            let error = decode(&bytes, &admitting(pixels - 1), &mut out).unwrap_err();
            assert_eq!(error.reason, FailReason::ImageTooLarge, "{name}");
        }
    }

    #[test]
    fn a_header_tells_format_and_size() {
        for (name, bytes) in golden_images() {
            let header = crate::image::probe(&bytes).unwrap();
            let image = decoded(&bytes).unwrap();
            assert_eq!(
                (header.width as usize, header.height as usize),
                (image.width, image.height),
                "{name}"
            );
            let extension = name.rsplit('.').next().unwrap();
            assert_eq!(header.format.name(), extension.replace("jpg", "jpeg"), "{name}");
        }
        assert_eq!(crate::image::probe(b"GIF89a").unwrap_err(), decoded(b"GIF89a").unwrap_err());
    }

    #[test]
    fn what_follows_a_jpeg_does_not_matter() {
        let bytes = std::fs::read(golden("420-wide.jpg")).unwrap();
        let mut longer = bytes.clone();
        longer.extend_from_slice(b"\0\0trailing \xFF\xDA bytes");
        assert_eq!(decoded(&longer), decoded(&bytes));
    }

    #[test]
    fn another_format_is_named_by_its_first_bytes() {
        let error = decoded(b"GIF89a\x01\x00").unwrap_err();
        assert_eq!(error.reason, FailReason::UndecodableImage);
        let expected = "expected JPEG, PNG or WebP, found a GIF: 8 bytes that start with [47, 49";
        assert!(error.detail.contains(expected), "{error}");
        let error = decoded(b"\0\0\0\x20ftypavif\0\0").unwrap_err();
        assert!(error.detail.contains("found an AVIF: "), "{error}");
        assert!(decoded(b"<!DOCTYPE HTML><p>").unwrap_err().detail.contains("found an HTML page: "));
        assert!(decoded(b"12345678").unwrap_err().detail.contains("found 8 bytes that start"));
        assert!(decoded(b"").unwrap_err().detail.contains("0 bytes"));
    }

    #[test]
    fn a_used_buffer_changes_nothing() {
        let mut used = RgbImage::default();
        for (name, bytes) in golden_images() {
            decode(&bytes, &DecodeOptions::default(), &mut used).unwrap();
            assert_eq!(Ok(used.clone()), decoded(&bytes), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn damaged_images_never_panic(
            which in 0usize..64,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
            cuts in any::<bool>(),
        ) {
            let images = golden_images();
            let mut bytes = images[which % images.len()].1.clone();
            for (place, value) in edits {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            let options = DecodeOptions { exif_orientation: true, ..admitting(1 << 20) };
            let mut image = RgbImage::default();
            match decode(&bytes, &options, &mut image) {
                Ok(()) => prop_assert_eq!(image.data.len(), image.width * image.height * 3),
                Err(error) => prop_assert!(
                    !error.detail.contains("panicked")
                        && matches!(error.reason, FailReason::UndecodableImage | FailReason::ImageTooLarge),
                    "{}", error
                ),
            }
        }
    }
}
