//! Decisions per second on one core: 3,000 clusters, windows of 2,048.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/core/select_stream/mod.rs"]
mod select_stream;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tldr_loader::config::{Gate, Priority, Selection};
use tldr_loader::select::{Policy, Selector};

const WINDOW: usize = 2048;

fn decide(criterion: &mut Criterion) {
    let stream = select_stream::stream(3000, 8, WINDOW, 0.01, 256);
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(WINDOW as u64));
    let policy = Policy::default();
    for (name, policy) in [
        ("uniform", policy.clone()),
        (
            "gate 0.5, uniform",
            Policy {
                selection: Selection { gate: Some(Gate::top(0.5)), ..policy.selection.clone() },
                ..policy.clone()
            },
        ),
        (
            "longest",
            Policy {
                selection: Selection { priority: Priority::Longest, ..policy.selection.clone() },
                ..policy.clone()
            },
        ),
        (
            "diverse, 256-d",
            Policy {
                selection: Selection { priority: Priority::Diverse, ..policy.selection.clone() },
                ..policy.clone()
            },
        ),
        (
            "dedup, 256-d",
            Policy { selection: Selection { dedup: Some(0.95), ..policy.selection.clone() }, ..policy },
        ),
    ] {
        let selector = Selector::new(policy, Some(Arc::clone(&stream.clusters))).unwrap();
        let mut windows = stream.windows.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let held = windows.next().unwrap();
                black_box(selector.decide(&held.window(), 0).unwrap())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
