//! What lanes cost on one rank: an epoch in 4 of them and in 8, the default, by time and by the most memory that
//! the process ever held.
//!
//!     make bench-lanes     # cargo bench --bench lanes -- [--lanes 4,8] [--rounds 5]
//!
//! Each epoch runs in a process of its own, so that its memory is its own; rounds are interleaved, and ratios are
//! medians of those within a round. The corpus has as many windows a lane as one of 65,000 samples has at the default
//! window. As a test, one small round.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "photographs/mod.rs"]
mod photographs;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tldr_loader::config::{Mode, PixelType};
use tldr_loader::loader::Loader;
use tldr_loader::shard::ShardWriter;

const PICTURES: u64 = 40;
const WINDOW: usize = 512;
const SHARDS: usize = 16;

struct Options {
    lanes: Vec<usize>,
    rounds: usize,
    samples: usize,
}

/// Seconds of an epoch, and kilobytes that the process held at most (Linux).
#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    peak: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [one, lanes, mode, corpus] = &arguments[..]
        && one == "--one"
    {
        epoch(lanes.parse().unwrap(), mode, corpus);
        return;
    }
    let options = options(arguments);
    let scratch = tempfile::tempdir().unwrap();
    let corpus = corpus(scratch.path(), options.samples);
    for mode in ["full", "reduced"] {
        let mut costs: Vec<Vec<Cost>> = vec![vec![]; options.lanes.len()];
        for _ in 0..options.rounds {
            for (lanes, costs) in options.lanes.iter().zip(&mut costs) {
                costs.push(alone(*lanes, mode, &corpus));
            }
        }
        for (lanes, own) in options.lanes.iter().zip(&costs) {
            let ratio = |of: fn(&Cost) -> f64| median(own.iter().zip(&costs[0]).map(|(a, b)| of(a) / of(b)));
            println!(
                "{mode}, {lanes} lanes: {:.2} s, {:.0} MB; {:.3} of the time and {:.3} of the memory of {} lanes",
                median(own.iter().map(|cost| cost.seconds)),
                median(own.iter().map(|cost| cost.peak)) / 1024.0,
                ratio(|cost| cost.seconds),
                ratio(|cost| cost.peak),
                options.lanes[0]
            );
        }
    }
}

fn options(mut arguments: Vec<String>) -> Options {
    let mut options = Options { lanes: vec![4, 8], rounds: 1, samples: 2048 };
    // The flag of cargo comes last, and must not undo the options before it.
    arguments.sort_by_key(|argument| argument != "--bench");
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().unwrap();
        match name.as_str() {
            "--bench" => (options.samples, options.rounds) = (16_384, 5),
            "--lanes" => options.lanes = value().split(',').map(|n| n.parse().unwrap()).collect(),
            "--rounds" => options.rounds = value().parse().unwrap(),
            "--samples" => options.samples = value().parse().unwrap(),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// Shards of photographs of 320 x 240 pixels, and how to name them.
fn corpus(folder: &Path, samples: usize) -> String {
    let pictures: Vec<Vec<u8>> = (0..PICTURES).map(|n| photographs::photograph(n, 320, 240)).collect();
    for shard in 0..SHARDS {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for n in shard * samples / SHARDS..(shard + 1) * samples / SHARDS {
            let caption = format!("drawing number {n}");
            let picture = &pictures[n % pictures.len()];
            writer.write(&format!("{n:07}"), &[("jpg", picture), ("txt", caption.as_bytes())]).unwrap();
        }
        writer.finish().unwrap();
    }
    folder.display().to_string()
}

/// An epoch in a process of its own.
fn alone(lanes: usize, mode: &str, corpus: &str) -> Cost {
    let program = std::env::current_exe().unwrap();
    let done = Command::new(program).args(["--one", &lanes.to_string(), mode, corpus]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let (seconds, peak) = text.trim().split_once(' ').unwrap();
    Cost { seconds: seconds.parse().unwrap(), peak: peak.parse().unwrap() }
}

/// Runs an epoch and says what it cost.
fn epoch(lanes: usize, mode: &str, corpus: &str) {
    let builder = Loader::builder(corpus)
        .batch_size(64)
        .image_size(64)
        .dtype(PixelType::U8)
        .window(WINDOW)
        .threads(2)
        .rank(0)
        .world_size(1);
    let builder = if mode == "full" { builder.mode(Mode::Full) } else { builder.keep_ratio(0.25) };
    let loader = builder.lanes(lanes).build().unwrap();
    let begun = Instant::now();
    for batch in loader.iter().unwrap() {
        black_box(batch.unwrap());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    println!("{seconds} {}", peak.trim().trim_end_matches(" kB"));
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
