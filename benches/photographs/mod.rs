//! Pictures for benches: JPEGs with about as many bytes per pixel as photographs, and shards of them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use jpeg_encoder::{ColorType, Encoder};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::shard::ShardWriter;

/// The JPEG of that number, `width` x `height`: waves of every frequency and some noise.
pub fn photograph(number: u64, width: u16, height: u16) -> Vec<u8> {
    let mut rng = Rng::new(0, Purpose::Synth, number);
    let mut pixels = Vec::with_capacity(3 * usize::from(width) * usize::from(height));
    let (a, b) = (rng.range(20.0, 60.0), rng.range(5.0, 20.0));
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (f64::from(x), f64::from(y));
            let wave = 60.0 * (x / a).sin() + 40.0 * (y / b).cos() + 20.0 * (x * y / 900.0).sin();
            let noise = rng.range(-12.0, 12.0);
            pixels.extend([128.0, 110.0, 90.0].map(|base| (base + wave + noise) as u8));
        }
    }
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, 85).encode(&pixels, width, height, ColorType::Rgb).unwrap();
    bytes
}

/// A folder in `scratch` with one shard of `count` photographs of 640 x 480 pixels.
pub fn shard(scratch: &Path, count: u64) -> PathBuf {
    let folder = scratch.join("drawn");
    std::fs::create_dir_all(&folder).unwrap();
    let mut writer = ShardWriter::create(folder.join("00000.tar")).unwrap();
    for number in 0..count {
        let jpeg = photograph(number, 640, 480);
        let caption = format!("drawing number {number}");
        writer
            .write(&format!("{number:05}"), &[("jpg", &jpeg), ("txt", caption.as_bytes()), ("json", b"{}")])
            .unwrap();
    }
    writer.finish().unwrap();
    folder
}
