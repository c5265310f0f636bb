//! Writes a corpus as WebDataset shards: `train/` and `test/`, each with its `sizes.json`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::corpus::{Corpus, SynthSample};
use crate::options::{Noise, SynthOptions};
use tldr_loader::error::{Error, Result};
use tldr_loader::shard::ShardWriter;

/// Samples that are drawn in parallel before they are written in order: about 4 MB at 64 pixels.
const BATCH: u64 = 1024;
/// Samples of a test shard. A test split is read whole, so a few large shards do.
const TEST_SHARD: u64 = 5_000;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthSummary {
    /// Training samples.
    pub samples: u64,
    /// Distinct training scenes.
    pub scenes: u64,
    /// Training shards.
    pub shards: u64,
    /// Test samples.
    pub test_samples: u64,
    /// Training captions by noise, in the order of [`Noise::ALL`].
    pub noise: [(Noise, u64); Noise::ALL.len()],
    /// Bytes of all images and captions.
    pub bytes: u64,
}

/// Writes `out/train/00000.tar` and on, `out/test/00000.tar` and on, and a `sizes.json` in each
/// folder, last: where it stands, the split is complete. Each sample is a `jpg`, a `txt` and a
/// `json` member ([`Truth`](crate::Truth)) under a nine-digit key, its position.
///
/// `progress(done, total)` is called from this thread, in samples of both splits. Time goes into
/// drawing and encoding, spread over `options.threads`; memory beyond [`Corpus`] is about
/// a thousand encoded samples.
///
/// # Errors
/// Options that cannot be used; an `out` in which `train` or `test` is not empty; a failed write.
pub fn write_corpus(
    out: &Path,
    options: &SynthOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SynthSummary> {
    options.validate()?;
    let (train, test) = (out.join("train"), out.join("test"));
    for folder in [&train, &test] {
        refuse_used(folder)?;
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| Error::refused("threads", options.threads, format!("cannot start them: {e}")))?;
    let corpus = Corpus::new(options)?;
    let mut summary = SynthSummary {
        samples: options.samples,
        scenes: corpus.scenes(),
        shards: options.shards,
        test_samples: options.test_samples,
        noise: Noise::ALL.map(|noise| (noise, 0)),
        bytes: 0,
    };
    let total = options.samples + options.test_samples;
    let mut done = 0;
    let mut count = |sample: &SynthSample, is_train: bool| {
        summary.bytes += (sample.jpeg.len() + sample.caption.len()) as u64;
        if is_train {
            for (noise, count) in &mut summary.noise {
                *count += u64::from(*noise == sample.truth.noise);
            }
        }
        done += 1;
        if done % 256 == 0 || done == total {
            progress(done, total);
        }
    };
    let draw = |position| corpus.sample(position);
    write_split(&train, options.samples, options.shards, &pool, &draw, &mut |s| count(s, true))?;
    if options.test_samples > 0 {
        let shards = options.test_samples.div_ceil(TEST_SHARD);
        let draw = |position| corpus.test_sample(position);
        write_split(&test, options.test_samples, shards, &pool, &draw, &mut |s| count(s, false))?;
    }
    Ok(summary)
}

/// Writes `samples` samples as `shards` shards of equal length (give or take one).
fn write_split(
    folder: &Path,
    samples: u64,
    shards: u64,
    pool: &rayon::ThreadPool,
    draw: &(dyn Fn(u64) -> Result<SynthSample> + Sync),
    count: &mut dyn FnMut(&SynthSample),
) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::io(format!("create {}", folder.display()), e))?;
    let mut sizes = BTreeMap::new();
    for shard in 0..shards {
        let (start, end) = (samples * shard / shards, samples * (shard + 1) / shards);
        let name = format!("{shard:05}.tar");
        let mut writer = ShardWriter::create(folder.join(&name))?;
        for batch in batches(start..end) {
            let first = batch.start;
            let drawn: Vec<Result<SynthSample>> = pool.install(|| batch.into_par_iter().map(draw).collect());
            for (position, sample) in (first..).zip(drawn) {
                let sample = sample?;
                write_sample(&mut writer, position, &sample)?;
                count(&sample);
            }
        }
        writer.finish()?;
        sizes.insert(name, end - start);
    }
    let path = folder.join("sizes.json");
    let cannot = |e| Error::io(format!("write {}", path.display()), e);
    let mut text = serde_json::to_string_pretty(&sizes).map_err(|e| cannot(e.into()))?;
    text.push('\n');
    fs::write(&path, text).map_err(cannot)
}

fn batches(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(BATCH as usize).map(move |first| first..(first + BATCH).min(end))
}

fn write_sample(writer: &mut ShardWriter, position: u64, sample: &SynthSample) -> Result<()> {
    let key = format!("{position:09}");
    let truth = serde_json::to_vec(&sample.truth)
        .map_err(|e| Error::io(format!("write the truth of sample {key}"), e.into()))?;
    writer.write(&key, &[("jpg", &sample.jpeg), ("txt", sample.caption.as_bytes()), ("json", &truth)])
}

/// Refuses a folder that holds anything: shards of another corpus would be read with the new.
fn refuse_used(folder: &Path) -> Result<()> {
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::refused(
                "out",
                folder.display(),
                "the folder is not empty: delete it or write to another",
            )),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("list {}", folder.display()), e)),
    }
}
