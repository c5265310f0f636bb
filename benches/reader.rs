//! What a picture costs: decoding, resizing, both, and the preview, over synthesised JPEGs.
//!
//!     cargo bench --bench reader
//!
//! With `-- --test` each runs once.

mod photographs;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use photographs::photograph;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{
    DecodeOptions, ImagePipeline, ImageTransform, Normalize, RgbImage, Scratch, decode, preview,
};
use tldr_loader::model::PreviewFilter;

fn check<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn pictures(criterion: &mut Criterion) {
    let limits = DecodeOptions::default();
    for (width, height) in [(64, 64), (640, 480), (1280, 960)] {
        let bytes = photograph(u64::from(width), width, height);
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
