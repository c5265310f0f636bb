//! What every image target promises.

use tldr_loader::hash::{Purpose, Rng, hash_bytes};
use tldr_loader::image::{
    DecodeOptions, ImagePipeline, ImageTransform, Normalize, RgbImage, Scratch, decode, preview, probe,
};
use tldr_loader::model::PreviewFilter;

/// Any bytes as an image: an error that says why, or as many pixels as the header says. A random crop has
/// the pixels of the whole picture, and a preview can be made where a picture can.
pub fn check(data: &[u8]) {
    let options = DecodeOptions { max_pixels: 1 << 20, exif_orientation: true, ..DecodeOptions::default() };
    let mut image = RgbImage::default();
    let decoded = decode(data, &options, &mut image);
    match &decoded {
        Ok(()) => {
            assert_eq!(image.data.len(), 3 * image.width * image.height);
            let header = probe(data).unwrap();
            assert_eq!(u64::from(header.width) * u64::from(header.height), (image.width * image.height) as u64);
            let transform = ImageTransform::Train { scale: (0.02, 1.0), ratio: (0.2, 5.0), flip: 0.5 };
            let pipeline = ImagePipeline::new(transform, 8, Normalize::default()).unwrap();
            let mut scratch = Scratch::default();
            let rng = || Rng::new(0, Purpose::Augment, hash_bytes(data));
            let (mut part, mut whole) = ([0u8; 192], [0u8; 192]);
            pipeline.load(data, &options, &mut rng(), &mut scratch, &mut part).unwrap();
            pipeline.apply(&image, &mut rng(), &mut scratch, &mut whole).unwrap();
            assert_eq!(part, whole);
        }
        Err(error) => assert!(!error.detail.contains("panicked"), "{error}"),
    }
    let mut small = [0; 192];
    let preview =
        preview(data, 8, PreviewFilter::Bilinear, &options, &mut Scratch::default(), &mut small);
    assert_eq!(preview.err().map(|error| error.reason), decoded.err().map(|error| error.reason));
}
