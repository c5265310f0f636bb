//! A plan for a million samples on one core: 3,000 clusters, 64 shards of 8 windows, half of the
//! samples within 10 bits of another. `PLAN_SAMPLES` sets another number; the CPU time of each part and the
//! most memory that was in use are printed.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/core/select_stream/mod.rs"]
mod select_stream;

use std::sync::Arc;

use tldr_loader::config::{Gate, Selection};
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::select::{Planner, Policy, Selector};

const WINDOW: usize = 2048;

fn main() {
    // As `cargo test --benches` runs it: small.
    let is_test = !std::env::args().any(|arg| arg == "--bench");
    let wanted: usize = match std::env::var("PLAN_SAMPLES") {
        Ok(text) => text.parse().unwrap(),
        Err(_) if is_test => 20_000,
        Err(_) => 1_000_000,
    };
    let windows = wanted.div_ceil(WINDOW);
    for (name, policy) in [
        (
            "quotas",
            Policy {
                selection: Selection { gate: Some(Gate::top(0.5)), ..Selection::default() },
                ..Policy::default()
            },
        ),
        ("quotas, no gate", Policy::default()),
        (
            "near-duplicates up to 15 bits",
            Policy {
                selection: Selection {
                    gate: Some(Gate::top(0.5)),
                    dedup: Some(0.983),
                    ..Selection::default()
                },
                ..Policy::default()
            },
        ),
        (
            "near-duplicates up to 15 bits, no gate",
            Policy {
                selection: Selection { dedup: Some(0.983), ..Selection::default() },
                ..Policy::default()
            },
        ),
        (
            "near-duplicates up to 28 bits",
            Policy {
                selection: Selection {
                    gate: Some(Gate::top(0.5)),
                    dedup: Some(0.94),
                    ..Selection::default()
                },
                ..Policy::default()
            },
        ),
        (
            "near-duplicates up to 28 bits, no gate",
            Policy {
                selection: Selection { dedup: Some(0.94), ..Selection::default() },
                ..Policy::default()
            },
        ),
    ] {
        // Windows are made as they are added: a corpus of 40 million is not held as well.
        let model = select_stream::stream(3000, 8, WINDOW, 0.01, 0);
        let selector = Selector::new(policy, Some(Arc::clone(&model.clusters))).unwrap();
        let mut planner = Planner::new(selector, 0).unwrap();
        let mut rng = Rng::new(5, Purpose::Synth, 0);
        let mut originals: Vec<[u64; 4]> = vec![];
        let mut adding = 0.0;
        for index in 0..windows {
            let (shard, number) = (index as u64 / 8, index as u64 % 8);
            let mut held = model.windows[index % 8].clone();
            held.id = hash::combine(&[shard, number]);
            held.ids.iter_mut().for_each(|id| id.0 = rng.next_u64());
            for hash in &mut held.signals.semantic_hash {
                if originals.is_empty() || rng.unit() < 0.5 {
                    *hash = [0; 4].map(|_| rng.next_u64());
                    // Enough of them to be copied from.
                    if originals.len() < 1 << 20 {
                        originals.push(*hash);
                    }
                } else {
                    *hash = originals[rng.below(originals.len())];
                    (0..rng.below(6)).map(|_| rng.below(256)).for_each(|b| hash[b / 64] ^= 1 << (b % 64));
                }
            }
            let start = cpu_seconds();
            planner.add(shard, number, &held.window()).unwrap();
            adding += cpu_seconds() - start;
        }
        drop(originals);
        let start = cpu_seconds();
        // What `plan` prints of near-duplicates that stay.
        let near = planner.near_duplicates(0.95);
        if let Some(dropped) = near.dropped {
            let counting = cpu_seconds() - start;
            println!(
                "{name}: {dropped} near-duplicates counted in {counting:.2} s, {} of one picture",
                near.same_picture
            );
        }
        let start = cpu_seconds();
        let plan = planner.decide().unwrap();
        let (deciding, counts) = (cpu_seconds() - start, plan.counts());
        println!(
            "{name}: {} samples, {} candidates, {} copies, {} kept; {adding:.2} s to add, {deciding:.2} s to \
             decide; {:.0} MB at the most so far",
            counts.samples,
            counts.candidates,
            counts.copies,
            counts.kept,
            peak_megabytes()
        );
    }
}

/// CPU time of the process, in steps of 10 ms; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold spaces: user and system time are fields 12 and 13 from there.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Most memory of the process so far; 0 where the system does not say.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1e3
}
