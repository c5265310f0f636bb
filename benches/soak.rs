//! Does memory grow with the stream? Two million samples through a stub captioner, a ledger in a folder
//! and the whole pipeline.
//!
//!     make soak        # cargo bench --bench soak
//!
//! After the first tenth, resident memory must stay within 5% of the most that the first tenth took, every
//! sample must have one outcome, and every batch must come. Exit status 1 where that does not hold. As a
//! test it checks the outcomes of a small stream.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/core/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use support::{StubCaptioner, clusters, corpus, pattern};
use tldr_loader::config::PixelType;
use tldr_loader::ledger::Ledger;
use tldr_loader::loader::Loader;

/// Samples of a shard.
const SHARD: usize = 10_000;

/// Shards that are written; the others are links to them, with identities of their own.
const WRITTEN: usize = 10;

/// Samples of a window. With 4 lanes that each hold 3 groups of 8 windows the pipeline is full after 50,000 samples,
/// a fortieth of the stream; with the default of 2,048 it would still be filling after the first tenth.
const WINDOW: usize = 512;

/// How far memory may grow.
const GROWTH: f64 = 1.05;

/// Bytes of resident memory; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn link(folder: &Path, shards: usize) {
    for shard in WRITTEN..shards {
        let whole = folder.join(format!("{:05}.tar", shard % WRITTEN));
        std::fs::hard_link(whole, folder.join(format!("{shard:05}.tar"))).unwrap();
    }
    let sizes: serde_json::Map<_, _> = (0..shards).map(|s| (format!("{s:05}.tar"), SHARD.into())).collect();
    std::fs::write(folder.join("sizes.json"), serde_json::to_string(&sizes).unwrap()).unwrap();
}

fn main() -> ExitCode {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let shards = if whole { 200 } else { WRITTEN };
    let samples = (shards * SHARD) as u64;
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path(), WRITTEN, SHARD);
    link(folder.path(), shards);
    let ledger = Ledger::open(folder.path().join("ledger"), Some(16 << 20)).unwrap();
    let loader = Loader::builder(pattern(folder.path(), shards).as_str())
        .captioner(StubCaptioner::new(), clusters())
        .fuse("concat".parse().unwrap())
        .ledger(ledger)
        .keep_ratio(0.25)
        .batch_size(256)
        .image_size(8)
        .dtype(PixelType::U8)
        .buffer_bytes(16 << 20)
        .window(WINDOW)
        .threads(2)
        .rank(0)
        .world_size(1)
        .build()
        .unwrap();
    let (begun, mut peaks, mut said) = (Instant::now(), [0u64; 10], 0);
    let mut yielded = 0;
    for (step, batch) in (0..).zip(loader.iter().unwrap()) {
        yielded += batch.unwrap().len() as u64;
        let tenth = (step * 10 / loader.num_batches()).min(9) as usize;
        peaks[tenth] = peaks[tenth].max(resident());
        if tenth > said {
            said = tenth;
            println!(
                "{}0%: {:.1} MB, {:.0} samples/s",
                tenth,
                peaks[tenth - 1] as f64 / 1e6,
                loader.stats().counts.read as f64 / begun.elapsed().as_secs_f64()
            );
        }
    }
    let stats = loader.stats();
    let most = peaks[1..].iter().copied().max().unwrap_or(0);
    let growth = most as f64 / peaks[0].max(1) as f64;
    println!(
        "{} samples in {:.0} s; peak {:.1} MB in the first tenth, {:.1} MB after it: {growth:.3}x",
        stats.counts.read,
        begun.elapsed().as_secs_f64(),
        peaks[0] as f64 / 1e6,
        most as f64 / 1e6
    );
    let mut wrong = vec![];
    if stats.counts.read != samples || !stats.counts.conserved() {
        wrong.push(format!("{samples} samples, and outcomes {:?}", stats.counts));
    }
    if yielded != loader.num_batches() * 256 || yielded != stats.counts.kept + stats.repeats - stats.surplus {
        wrong.push(format!("{yielded} yielded of {} kept", stats.counts.kept));
    }
    // A short stream is all beginning.
    if whole && growth > GROWTH {
        wrong.push(format!("memory grew {growth:.3} times, more than {GROWTH}"));
    }
    wrong.iter().for_each(|wrong| println!("wrong: {wrong}"));
    ExitCode::from(u8::from(!wrong.is_empty()))
}
