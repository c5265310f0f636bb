//! From the colour types of decoders to 8-bit RGB.

use image::DynamicImage;

use super::error::ImageError;

/// What becomes of transparent pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Alpha {
    /// They are composited on white.
    #[default]
    White,
    /// They are composited on black.
    Black,
    /// Their colours are taken as they are stored, as PIL's `convert("RGB")` does.
    Drop,
}

crate::names!(
    Alpha { White => "white", Black => "black", Drop => "drop" },
    option "alpha", "one of white, black, drop"
);

/// Converts any colour type to RGB: grey is repeated, 16 bits keep the upper eight, and of alpha becomes what `alpha`
/// says.
pub(super) fn to_rgb(image: DynamicImage, alpha: Alpha, out: &mut Vec<u8>) -> Result<(), ImageError> {
    if let DynamicImage::ImageRgb8(image) = image {
        *out = image.into_raw();
        return Ok(());
    }
    out.clear();
    out.reserve(image.width() as usize * image.height() as usize * 3);
    match alpha {
        Alpha::White => convert(image, |sample, alpha| over(sample, alpha, 255), out),
        Alpha::Black => convert(image, |sample, alpha| over(sample, alpha, 0), out),
        Alpha::Drop => convert(image, |sample, _| sample, out),
    }
}

/// `sample` over a background.
fn over(sample: u8, alpha: u8, background: u32) -> u8 {
    let (sample, alpha) = (u32::from(sample), u32::from(alpha));
    ((sample * alpha + background * (255 - alpha) + 127) / 255) as u8
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

fn convert(image: DynamicImage, shown: impl Fn(u8, u8) -> u8, out: &mut Vec<u8>) -> Result<(), ImageError> {
    let rgb = |[r, g, b, a]: [u8; 4]| [shown(r, a), shown(g, a), shown(b, a)];
    match image {
        DynamicImage::ImageLuma8(image) => out.extend(image.iter().flat_map(|&y| [y; 3])),
        DynamicImage::ImageLumaA8(image) => {
            out.extend(image.pixels().flat_map(|p| [shown(p.0[0], p.0[1]); 3]));
        }
        DynamicImage::ImageRgba8(image) => out.extend(image.pixels().flat_map(|p| rgb(p.0))),
        DynamicImage::ImageLuma16(image) => out.extend(image.iter().flat_map(|&y| [high(y); 3])),
        DynamicImage::ImageLumaA16(image) => {
            out.extend(image.pixels().flat_map(|p| [shown(high(p.0[0]), high(p.0[1])); 3]));
        }
        DynamicImage::ImageRgb16(image) => out.extend(image.iter().map(|&s| high(s))),
        DynamicImage::ImageRgba16(image) => out.extend(image.pixels().flat_map(|p| rgb(p.0.map(high)))),
        other => {
            return Err(ImageError::undecodable(format!(
                "expected 8 or 16 bits per sample, found {:?}",
                other.color()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use image::{GrayAlphaImage, ImageBuffer, LumaA, Rgba, RgbaImage};

    use super::*;

    #[test]
    fn alpha_lies_on_white_or_black_or_is_dropped() {
        let rgba = RgbaImage::from_vec(3, 1, vec![10, 20, 30, 0, 10, 20, 30, 128, 10, 20, 30, 255]).unwrap();
        let grey = GrayAlphaImage::from_vec(3, 1, vec![10, 0, 10, 128, 10, 255]).unwrap();
        let deep = |image: &RgbaImage| {
            ImageBuffer::from_fn(3, 1, |x, y| Rgba(image.get_pixel(x, y).0.map(|v| u16::from(v) << 8 | 0x7F)))
        };
        let deep_grey =
            ImageBuffer::from_fn(3, 1, |x, y| LumaA(grey.get_pixel(x, y).0.map(|v| u16::from(v) << 8)));
        let colours: [(DynamicImage, bool); 4] = [
            (deep(&rgba).into(), false),
            (rgba.into(), false),
            (deep_grey.into(), true),
            (grey.into(), true),
        ];
        for (image, is_grey) in colours {
            for (alpha, expected) in [
                (Alpha::White, [255, 255, 255, 132, 137, 142, 10, 20, 30]),
                (Alpha::Black, [0, 0, 0, 5, 10, 15, 10, 20, 30]),
                (Alpha::Drop, [10, 20, 30, 10, 20, 30, 10, 20, 30]),
            ] {
                let expected =
                    if is_grey { [0, 0, 0, 3, 3, 3, 6, 6, 6].map(|at| expected[at]) } else { expected };
                let mut out = vec![];
                to_rgb(image.clone(), alpha, &mut out).unwrap();
                assert_eq!(out, expected, "{alpha:?} {:?}", image.color());
            }
        }
    }
}
