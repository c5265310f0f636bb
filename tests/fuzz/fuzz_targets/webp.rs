//! Any bytes as a WebP image: an error or as many pixels as its header says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tldr_loader::image::{DecodeOptions, RgbImage, decode, probe};

fuzz_target!(|data: &[u8]| {
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
});
