//! Promise: what a loader yields does not change with its versions, where nothing says so: frozen hashes of
//! whole epochs, with the ids and captions in order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support::{corpus, epoch, full, with_judge, with_stub};
use tldr_loader::hash;
use tldr_loader::loader::LoaderBuilder;

/// The second epoch and the hundredth, batch by batch.
fn digest(builder: LoaderBuilder) -> u64 {
    let loader = builder.build().unwrap();
    let mut text = String::new();
    for number in [1, 100] {
        loader.set_epoch(number);
        for batch in epoch(&loader) {
            for row in batch {
                text += &format!("{:016x} {}\n", row.id, row.caption);
            }
            text += "\n";
        }
    }
    hash::hash_str(&text)
}

#[test]
fn value_stability() {
    let folder = tempfile::tempdir().unwrap();
    // Cuts fall inside shards and inside windows.
    let urls = corpus(folder.path(), 5, 210);
    let with_stub = |urls: &str| with_stub(urls).lanes(4);
    let found = [
        digest(with_stub(&urls)),
        digest(full(&urls).lanes(4)),
        digest(with_stub(&urls).rotate(true).fuse("coin(0.5)".parse().unwrap())),
        digest(with_judge(&urls).lanes(8)),
    ];
    let frozen: [u64; 4] =
        [0x240e_803c_f53d_55fe, 0x64dd_ccb2_9d70_1f6f, 0x2b3e_278f_9c41_136b, 0xe18f_58a1_62b1_955d];
    assert_eq!(found, frozen, "{found:x?}");
}
