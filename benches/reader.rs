//! What a picture costs: decoding, resizing, both, and the preview, over synthesised JPEGs.
//!
//!     cargo bench --no-default-features --bench reader
//!
//! With `-- --test` each runs once.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jpeg_encoder::{ColorType, Encoder};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{
    DecodeOptions, ImagePipeline, ImageTransform, Normalize, RgbImage, Scratch, decode, preview,
};
use tldr_loader::model::PreviewFilter;

/// A JPEG of `width` x `height`: waves of every frequency and some noise, about as many bytes
/// per pixel as a photograph.
fn photograph(width: u16, height: u16) -> Vec<u8> {
    let mut rng = Rng::new(0, Purpose::Synth, u64::from(width));
    let mut pixels = Vec::with_capacity(3 * usize::from(width) * usize::from(height));
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (f64::from(x), f64::from(y));
            let wave = 60.0 * (x / 37.0).sin() + 40.0 * (y / 11.0).cos() + 20.0 * (x * y / 900.0).sin();
            let noise = rng.range(-12.0, 12.0);
            pixels.extend([128.0, 110.0, 90.0].map(|base| (base + wave + noise) as u8));
        }
    }
    let mut bytes = Vec::new();
    let encoder = Encoder::new(&mut bytes, 85);
    if let Err(error) = encoder.encode(&pixels, width, height, ColorType::Rgb) {
        panic!("cannot draw the picture: {error}");
    }
    bytes
}

fn check<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn pictures(criterion: &mut Criterion) {
    let limits = DecodeOptions::default();
    for (width, height) in [(64, 64), (640, 480), (1280, 960)] {
        let bytes = photograph(width, height);
        let mut group = criterion.benchmark_group(format!("{width}x{height}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));

        let mut image = RgbImage::default();
        group.bench_function("decode", |bencher| {
            bencher.iter(|| check(decode(black_box(&bytes), &limits, &mut image)));
        });

        let mut scratch = Scratch::default();
        for (name, transform) in [
            ("train", ImageTransform::TRAIN),
            ("eval", ImageTransform::Eval),
            ("squash", ImageTransform::Preview),
        ] {
            let Ok(pipeline) = ImagePipeline::new(transform, 224, Normalize::default()) else { continue };
            let mut out = vec![0.0; pipeline.output_len()];
            let mut rng = Rng::new(0, Purpose::Augment, 0);
            group.bench_function(name, |bencher| {
                bencher.iter(|| check(pipeline.apply(black_box(&image), &mut rng, &mut scratch, &mut out)));
            });
        }

        let mut out = vec![0; 3 * 224 * 224];
        group.bench_function("preview", |bencher| {
            bencher.iter(|| {
                check(preview(
                    black_box(&bytes),
                    224,
                    PreviewFilter::Bilinear,
                    &limits,
                    &mut scratch,
                    &mut out,
                ))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, pictures);
criterion_main!(benches);
