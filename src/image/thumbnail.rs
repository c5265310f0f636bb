//! A whole picture, small: for people to look at.

use super::decode::{DecodeOptions, Part, RgbImage, decode_part};
use super::error::ImageError;
use super::pipeline::{Scratch, smallest_scale};
use super::transform::convolve;
use tldr_resize::Filter;

/// A small picture, and the size of the one that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Its pixels.
    pub image: RgbImage,
    /// Width and height of the picture itself.
    pub of: (usize, usize),
}

/// Decodes `bytes` to a picture whose longer side is `side` pixels, or its own length where that is less. A JPEG is
/// decoded at a small scale.
///
/// # Errors
/// Those of [`decode`](super::decode::decode).
pub fn thumbnail(
    bytes: &[u8],
    side: usize,
    options: &DecodeOptions,
    scratch: &mut Scratch,
) -> Result<Thumbnail, ImageError> {
    let mut of = (0, 0);
    let part = |width: usize, height: usize| {
        of = (width, height);
        Part { scale: smallest_scale(width.max(height), side), ..Part::whole(width, height) }
    };
    let crop = decode_part(bytes, options, part, &mut scratch.image)?;
    let longer = of.0.max(of.1).max(1);
    let target =
        |length: usize| (length * side.min(longer) + longer / 2).checked_div(longer).unwrap_or(1).max(1);
    let (width, height) = (target(of.0), target(of.1));
    convolve(&scratch.image, crop, (width, height), Filter::Bilinear, &mut scratch.resize)?;
    let data = scratch.resize.pixels.get(..3 * width * height).unwrap_or_default().to_vec();
    Ok(Thumbnail { image: RgbImage { width, height, data }, of })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longer_side_is_as_asked_and_the_aspect_stays() {
        for (size, expected) in
            [((200, 100), (96, 48)), ((50, 20), (50, 20)), ((1000, 2), (96, 1)), ((3, 900), (1, 96))]
        {
            let picture = image::RgbImage::from_fn(size.0, size.1, |x, _| {
                image::Rgb([(x * 255 / size.0) as u8, 40, 200])
            });
            let mut png = std::io::Cursor::new(vec![]);
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let found =
                thumbnail(&png.into_inner(), 96, &DecodeOptions::default(), &mut Scratch::default()).unwrap();
            assert_eq!((found.image.width, found.image.height), expected);
            assert_eq!(found.of, (size.0 as usize, size.1 as usize));
            assert_eq!(found.image.data.len(), 3 * expected.0 * expected.1);
            assert!(found.image.data.chunks(3).all(|pixel| pixel[1] == 40 && pixel[2] == 200));
        }
        assert!(thumbnail(b"no picture", 96, &DecodeOptions::default(), &mut Scratch::default()).is_err());
    }
}
