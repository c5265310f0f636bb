//! What every image target promises.

use tldr_loader::image::{DecodeOptions, RgbImage, decode, probe};

/// Any bytes as an image: an error that says why, or as many pixels as the header says.
pub fn check(data: &[u8]) {
    let options = DecodeOptions { max_pixels: 1 << 20, exif_orientation: true };
    let mut image = RgbImage::default();
    match decode(data, &options, &mut image) {
        Ok(()) => {
            assert_eq!(image.data.len(), 3 * image.width * image.height);
            let header = probe(data).unwrap();
            assert_eq!(u64::from(header.width) * u64::from(header.height), (image.width * image.height) as u64);
        }
        Err(error) => assert!(!error.detail.contains("panicked"), "{error}"),
    }
}
