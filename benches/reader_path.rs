//! What the reader costs beside what nothing can avoid: the ceiling is a bare JPEG decoder, a bare
//! resizer and a normalisation over images that lie in memory, on as many threads.
//!
//!     cargo bench --bench reader_path -- [--data DIR] [--threads 2] [--rounds 5]
//!
//! prints one line of JSON per measurement; `benches/reader.py` runs it among other loaders and
//! draws the table. `--only NAME` measures one thing; as a test it does everything once, on a few
//! images. Without `--data` it draws photographs of its own. Every measurement of a round covers at least
//! `--decodes` images, from page cache.

#![allow(clippy::print_stdout)] // what it found is its output

mod photographs;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tldr_jpeg::{Jpeg, Limits, Region, Scale};
use tldr_loader::config::Mode;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{DecodeOptions, RgbImage, decode};
use tldr_loader::loader::Loader;
use tldr_loader::shard::{ReadOptions, ShardFetcher, ShardIndex, ShardReader, ShardWriter, lengths, list};
use tldr_loader::{Result, Shard};
use tldr_resize::{Crop, Filter, Resizer};

/// Side of the images that come out.
const SIZE: usize = 224;
/// Side of the previews that are decoded for.
const PREVIEW: u32 = 112;

struct Options {
    data: Option<PathBuf>,
    threads: usize,
    rounds: usize,
    decodes: usize,
    only: Option<String>,
}

fn main() {
    // The flag of cargo comes last, and must not undo the options before it.
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.sort_by_key(|argument| argument != "--bench");
    let options = match Options::parse(arguments.into_iter()) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("error: {wrong}");
            std::process::exit(2);
        }
    };
    if let Err(error) = run(&options) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> std::result::Result<Self, String> {
        let mut options = Self { data: None, threads: 2, rounds: 1, decodes: 160, only: None };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
            match arg.as_str() {
                "--data" => options.data = Some(value()?.into()),
                "--threads" => options.threads = number(value()?)?,
                "--rounds" => options.rounds = number(value()?)?,
                "--decodes" => options.decodes = number(value()?)?,
                "--only" => options.only = Some(value()?),
                // `cargo bench` says so; `cargo test --benches` says nothing, and wants one quick run.
                "--bench" => (options.rounds, options.decodes) = (5, 5000),
                other => return Err(format!("unknown option {other}")),
            }
        }
        Ok(options)
    }
}

/// Says what was measured: `amount` of `unit` in `seconds`.
fn say(what: &str, round: usize, amount: f64, unit: &str, seconds: f64) {
    println!(
        "{{\"what\": \"{what}\", \"round\": {round}, \"{unit}\": {amount:.0}, \"seconds\": {seconds:.6}, \
         \"{unit}_per_s\": {:.1}}}",
        amount / seconds
    );
}

fn run(options: &Options) -> Result<()> {
    let scratch = tempfile::tempdir().map_err(|e| tldr_loader::Error::io("make a folder", e))?;
    let source = match &options.data {
        Some(folder) => folder.clone(),
        None => photographs::shard(scratch.path(), 20),
    };
    let shards = list(&[source.display().to_string()], None, &Default::default())?;
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let images = if wanted("ceiling") || wanted("decode") { in_memory(&shards)? } else { vec![] };
    let samples: u64 = lengths(&shards, &mut |_, _| {})?.iter().sum();
    let times = options.decodes.div_ceil(samples.max(1) as usize);
    let corpus = repeated(&shards, scratch.path(), times)?;
    for round in 0..options.rounds {
        if wanted("ceiling") {
            ceiling(&images, times, options.threads, round);
        }
        if wanted("train") {
            loader(&corpus, Mode::Full, options.threads, round)?;
        }
        if wanted("eval") {
            loader(&corpus, Mode::Eval, options.threads, round)?;
        }
        if wanted("scaled") {
            loader_of("scaled", &corpus, Mode::Full, options.threads, round, true)?;
        }
        if wanted("decode") {
            decoding(&images, round);
        }
        if wanted("scan") {
            scan(&shards, round)?;
        }
        if wanted("index") {
            quarter(&shards, scratch.path(), round)?;
        }
        // Alone, since what it measures is the most that this process ever held.
        if options.only.as_deref() == Some("memory") {
            memory(&corpus, options.threads)?;
        }
    }
    Ok(())
}

/// Every image of `shards`, encoded.
fn in_memory(shards: &[Shard]) -> Result<Vec<Vec<u8>>> {
    let mut images = Vec::new();
    for shard in shards {
        let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
        while let Some(group) = reader.next_group()? {
            images.extend(group.ok().map(|sample| sample.image));
        }
    }
    Ok(images)
}

/// The same shards `times` times under other names: one file each, so all in page cache once.
fn repeated(shards: &[Shard], scratch: &Path, times: usize) -> Result<PathBuf> {
    let folder = scratch.join("repeated");
    let cannot = |e| tldr_loader::Error::io("link the shards", e);
    std::fs::create_dir_all(&folder).map_err(cannot)?;
    for time in 0..times {
        for (i, shard) in shards.iter().enumerate() {
            let target = Path::new(&*shard.url).canonicalize().map_err(cannot)?;
            std::os::unix::fs::symlink(target, folder.join(format!("{time:03}-{i:05}.tar")))
                .map_err(cannot)?;
        }
    }
    Ok(folder)
}

/// Decoding, resizing and normalising with nothing around it, image by image off a counter.
fn ceiling(images: &[Vec<u8>], times: usize, threads: usize, round: usize) {
    let next = AtomicUsize::new(0);
    let total = images.len() * times;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut image, mut resizer) = (RgbImage::default(), Resizer::default());
                let mut small = vec![0; 3 * SIZE * SIZE];
                let mut out = vec![0f32; 3 * SIZE * SIZE];
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= total {
                        return;
                    }
                    bare_decode(&images[i % images.len()], &mut image);
                    bare_resize(&image, &mut resizer, &mut small);
                    bare_normalise(&small, &mut out);
                    black_box(&mut out);
                }
            });
        }
    });
    say("ceiling", round, total as f64, "images", start.elapsed().as_secs_f64());
}

/// JPEG by libjpeg-turbo as it comes; what is no JPEG by this crate's decoder.
fn bare_decode(bytes: &[u8], image: &mut RgbImage) {
    if bytes.starts_with(&[0xFF, 0xD8]) {
        jpeg_part(bytes, image, |width, height| (Scale::Full, Region { left: 0, top: 0, width, height }));
    } else {
        let _ = decode(bytes, &DecodeOptions::default(), image);
    }
}

/// The part that `wanted` says of a JPEG's width and height.
fn jpeg_part(bytes: &[u8], image: &mut RgbImage, wanted: impl FnOnce(u32, u32) -> (Scale, Region)) {
    let Ok(jpeg) = Jpeg::open(bytes) else { return };
    let (scale, region) = wanted(jpeg.width(), jpeg.height());
    let limits = Limits { memory: usize::MAX >> 1, scans: u16::MAX };
    if let Ok(region) = jpeg.decode(scale, region, &limits, &mut image.data) {
        (image.width, image.height) = (region.width as usize, region.height as usize);
    }
}

fn bare_resize(image: &RgbImage, resizer: &mut Resizer, small: &mut Vec<u8>) {
    let (width, height) = (image.width, image.height);
    let crop = Crop { left: 0, top: 0, width, height };
    let _ = resizer.resize(&image.data, (width, height), crop, (SIZE, SIZE), Filter::CatmullRom, small);
}

fn bare_normalise(small: &[u8], out: &mut [f32]) {
    const SCALE: [f32; 3] = [3.7, 3.8, 3.6];
    for (channel, plane) in out.chunks_exact_mut(SIZE * SIZE).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(small.chunks_exact(3)) {
            *value = f32::from(pixel[channel]) * (SCALE[channel] / 255.0) - 1.7;
        }
    }
}

/// An epoch of the loader, from tar files to normalised batches.
fn loader(corpus: &Path, mode: Mode, threads: usize, round: usize) -> Result<()> {
    let name = if mode == Mode::Eval { "eval" } else { "train" };
    loader_of(name, corpus, mode, threads, round, false)
}

fn loader_of(
    name: &str,
    corpus: &Path,
    mode: Mode,
    threads: usize,
    round: usize,
    scaled: bool,
) -> Result<()> {
    let loader = Loader::builder(corpus.display().to_string())
        .mode(mode)
        .batch_size(64)
        .image_size(SIZE)
        .threads(threads)
        .scaled_decoding(scaled)
        .build()?;
    let start = Instant::now();
    let mut images = 0;
    for batch in loader.iter()? {
        images += black_box(batch?).len();
    }
    say(name, round, images as f64, "images", start.elapsed().as_secs_f64());
    Ok(())
}

/// One thread, decoding only: whole pictures, random crops of 0.08 to 1 of the area, and for previews.
fn decoding(images: &[Vec<u8>], round: usize) {
    let jpegs: Vec<&Vec<u8>> = images.iter().filter(|bytes| bytes.starts_with(&[0xFF, 0xD8])).collect();
    let mut image = RgbImage::default();
    let mut timed = |what: &str, wanted: &mut dyn FnMut(u32, u32) -> (Scale, Region)| {
        let start = Instant::now();
        for bytes in &jpegs {
            jpeg_part(bytes, &mut image, &mut *wanted);
        }
        say(what, round, jpegs.len() as f64, "images", start.elapsed().as_secs_f64());
    };
    timed("decode", &mut |width, height| (Scale::Full, Region { left: 0, top: 0, width, height }));
    let mut rng = Rng::new(0, Purpose::Augment, 0);
    timed("decode crop", &mut |width, height| {
        let share = rng.range(0.08, 1.0).sqrt();
        let part = |side: u32| ((f64::from(side) * share) as u32).max(1);
        let (w, h) = (part(width), part(height));
        let mut place = |room: u32| rng.below(room as usize + 1) as u32;
        (Scale::Full, Region { left: place(width - w), top: place(height - h), width: w, height: h })
    });
    timed("decode preview", &mut |width, height| {
        let fits = |scale: &Scale| width.min(height) / scale.denominator() >= 2 * PREVIEW;
        let scale = Scale::SMALLEST_FIRST.into_iter().find(fits).unwrap_or_default();
        (scale, Region { left: 0, top: 0, width: scale.of(width), height: scale.of(height) })
    });
}

/// Headers only.
fn scan(shards: &[Shard], round: usize) -> Result<()> {
    let (mut bytes, mut samples) = (0, 0);
    let start = Instant::now();
    for shard in shards {
        samples += black_box(ShardIndex::scan(shard)?).len();
        bytes += std::fs::metadata(&*shard.url).map_or(0, |meta| meta.len());
    }
    let seconds = start.elapsed().as_secs_f64();
    say("scan", round, bytes as f64, "bytes", seconds);
    say("scan samples", round, samples as f64, "samples", seconds);
    Ok(())
}

/// A quarter of the samples by index, against shards that hold nothing else.
fn quarter(shards: &[Shard], scratch: &Path, round: usize) -> Result<()> {
    let options = ReadOptions::default();
    let folder = scratch.join("quarter");
    if round == 0 {
        std::fs::create_dir_all(&folder).map_err(|e| tldr_loader::Error::io("make a folder", e))?;
        for (i, shard) in shards.iter().enumerate() {
            let mut writer = ShardWriter::create(folder.join(format!("{i:05}.tar")))?;
            let mut reader = ShardReader::open(shard, &options)?;
            while let Some(group) = reader.next_group()? {
                if let Ok(sample) = group
                    && sample.position % 4 == 1
                {
                    let json = sample.json.unwrap_or_default();
                    let members: [(&str, &[u8]); 3] =
                        [("jpg", &sample.image), ("txt", sample.caption.as_bytes()), ("json", &json)];
                    writer.write(&sample.key, &members)?;
                }
            }
            writer.finish()?;
        }
    }
    let only = list(&[folder.display().to_string()], None, &Default::default())?;
    let indexes: Vec<ShardIndex> = shards.iter().map(ShardIndex::scan).collect::<Result<_>>()?;
    // Often enough to take a while.
    let times = 20;
    let (mut samples, start) = (0, Instant::now());
    for _ in 0..times {
        for shard in &only {
            let mut reader = ShardReader::open(shard, &options)?;
            while let Some(group) = reader.next_group()? {
                samples += usize::from(black_box(group).is_ok());
            }
        }
    }
    say("quarter alone", round, samples as f64, "samples", start.elapsed().as_secs_f64());
    let (mut samples, start) = (0, Instant::now());
    for _ in 0..times {
        for (shard, index) in shards.iter().zip(&indexes) {
            let Some(mut fetcher) = ShardFetcher::open(shard, index, &options, None)? else { continue };
            let rows: Vec<usize> = (1..index.len()).step_by(4).collect();
            fetcher.fetch(index, &rows, &mut |_, group| {
                samples += usize::from(black_box(group).is_ok());
                Ok(())
            })?;
        }
    }
    say("quarter by index", round, samples as f64, "samples", start.elapsed().as_secs_f64());
    Ok(())
}

/// Encoded images that may wait in the measurement of memory: less than the smallest corpus holds.
const BUFFER_BYTES: u64 = 128 << 20;

/// An epoch of one lane whose shuffle groups do not grow, so that ten shards fill every buffer, and how
/// much memory this process held at most (Linux).
fn memory(corpus: &Path, threads: usize) -> Result<()> {
    let loader = Loader::builder(corpus.display().to_string())
        .mode(Mode::Full)
        .buffer_bytes(BUFFER_BYTES)
        .shuffle_windows(1)
        .lanes(1)
        .batch_size(64)
        .image_size(SIZE)
        .threads(threads)
        .build()?;
    for batch in loader.iter()? {
        black_box(batch?);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0").trim();
    let kilobytes = peak.trim_end_matches(" kB");
    let spilled = loader.stats().spilled_bytes;
    println!("{{\"what\": \"memory\", \"peak_kb\": {kilobytes}, \"spilled_bytes\": {spilled}}}");
    Ok(())
}
