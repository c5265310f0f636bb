//! Promise: in mode eval every sample has its place. On several ranks each yields as many batches of as many rows as
//! `num_batches` and `batch_size` say, and `valid` names each sample of the corpus once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;
use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{corpus, png, tokenizer};
use tldr_loader::ErrorKind;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::loader::{Batch, Loader, LoaderBuilder};
use tldr_loader::shard::ShardWriter;

/// What is wrong with a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Known when it is read.
    NoCaption,
    /// Known when its image is decoded.
    HalfImage,
}

/// Writes one shard; keys are `0000000` and so on.
fn shard(path: &Path, faults: &[Fault]) {
    let mut writer = ShardWriter::create(path).unwrap();
    for (i, fault) in faults.iter().enumerate() {
        let image = png([i as u8, 7, 90]);
        let half = &image[..image.len() - 40];
        let members: &[(&str, &[u8])] = match fault {
            Fault::None => &[("png", &image), ("txt", b"a picture")],
            Fault::NoCaption => &[("png", &image)],
            Fault::HalfImage => &[("png", half), ("txt", b"half a picture")],
        };
        writer.write(&format!("{i:07}"), members).unwrap();
    }
    writer.finish().unwrap();
}

fn eval(urls: &str) -> LoaderBuilder {
    support::eval(urls).max_errors(1e9)
}

fn batches(loader: &Loader) -> Vec<Batch> {
    loader.iter().unwrap().map(Result::unwrap).collect()
}

/// A row: whether it is real, its key, its pixels.
type Seen = (bool, String, Vec<u8>);

/// The rows of a batch.
fn rows(batch: &Batch) -> Vec<Seen> {
    let pixels = batch.images.as_u8().unwrap().chunks(3 * 8 * 8).map(<[u8]>::to_vec);
    let keys = batch.keys.iter().map(ToString::to_string);
    batch.valid.as_slice().iter().copied().zip(keys).zip(pixels).map(|((v, k), p)| (v, k, p)).collect()
}

/// Of every rank its rows, batch by batch; checks what holds for each of them.
fn of_ranks(urls: &str, ranks: usize, size: usize) -> Vec<Vec<Vec<Seen>>> {
    let mut all = vec![];
    for rank in 0..ranks {
        let loader = eval(urls).rank(rank).world_size(ranks).batch_size(size).build().unwrap();
        let found = batches(&loader);
        assert_eq!(found.len() as u64, loader.num_batches(), "rank {rank} of {ranks}");
        assert!(found.iter().all(|batch| batch.len() == size && batch.images.shape()[0] == size));
        assert!(found.iter().enumerate().all(|(i, batch)| batch.step == i as u64));
        let (stats, own) = (loader.stats(), found.iter().flat_map(rows).filter(|row| row.0).count() as u64);
        assert!(stats.counts.conserved());
        assert_eq!((stats.yielded, stats.yielded), (own, stats.counts.kept), "rank {rank}: {stats:?}");
        assert_eq!(stats.padded, (found.len() * size) as u64 - own);
        all.push(found.iter().map(rows).collect());
    }
    assert!(all.iter().all(|rank: &Vec<_>| rank.len() == all[0].len()), "as many on every rank");
    all
}

#[test]
fn every_rank_yields_what_len_says_and_every_sample_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(3, Purpose::Synth, 0);
    let mut cases = vec![(9, 2, 2), (3, 4, 2), (1, 3, 4), (64, 2, 16)];
    cases.extend((0..12).map(|_| (1 + rng.below(150), 1 + rng.below(5) + 1, 1 + rng.below(20))));
    for (case, (samples, ranks, size)) in cases.into_iter().enumerate() {
        // Whether samples fail, and how, in three of four cases.
        let mut fault = |_| match (case % 4, rng.below(6)) {
            (1.., 0) => Fault::NoCaption,
            (2.., 1) => Fault::HalfImage,
            _ => Fault::None,
        };
        let faults: Vec<Fault> = (0..samples).map(&mut fault).collect();
        let path = folder.path().join(format!("{case}.tar"));
        shard(&path, &faults);
        let all = of_ranks(&path.display().to_string(), ranks, size);
        assert_eq!(all[0].len(), samples.div_ceil(ranks).div_ceil(size), "case {case}");
        // The ranks' rows one after the other are the corpus in order.
        let keys = all.iter().flatten().flatten().filter(|row| row.0).map(|row| row.1.clone());
        let sound = (0..samples).filter(|&i| faults[i] == Fault::None).map(|i| format!("{i:07}"));
        assert!(keys.eq(sound), "case {case}: {samples} on {ranks}, {faults:?}");
        for rank in &all {
            let own: BTreeSet<&Seen> = rank.iter().flatten().filter(|row| row.0).collect();
            for (_, key, pixels) in rank.iter().flatten().filter(|row| !row.0) {
                let is_blank = key.is_empty() && pixels.iter().all(|&p| p == 0);
                let repeats = own.contains(&(true, key.clone(), pixels.clone()));
                assert!(repeats || is_blank, "case {case}: {key:?}");
                assert!(
                    repeats || own.is_empty() || faults.contains(&Fault::HalfImage),
                    "blank without need"
                );
            }
        }
    }
}

#[test]
fn nine_samples_on_two_ranks_and_three_on_four() {
    let folder = tempfile::tempdir().unwrap();
    let path = |n: usize| {
        let path = folder.path().join(format!("{n}.tar"));
        shard(&path, &vec![Fault::None; n]);
        path.display().to_string()
    };
    let shape = |urls: &str, ranks: usize| -> Vec<Vec<usize>> {
        let real = |rows: &Vec<Seen>| rows.iter().filter(|row| row.0).count();
        of_ranks(urls, ranks, 2).iter().map(|rank| rank.iter().map(real).collect()).collect()
    };
    assert_eq!(shape(&path(9), 2), [[2, 2, 0], [2, 2, 1]]);
    assert_eq!(shape(&path(3), 4), [[0], [1], [1], [1]]);
}

#[test]
fn a_rank_without_a_sample_yields_blank_rows_that_models_can_take() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    shard(&path, &[Fault::HalfImage, Fault::None]);
    for rank in 0..3 {
        let made = eval(&path.display().to_string()).rank(rank).world_size(3).batch_size(2).weights(true);
        let loader = made.tokenizer(tokenizer()).build().unwrap();
        let [batch] = &batches(&loader)[..] else { panic!("one batch each") };
        let real = rank == 2;
        assert_eq!(batch.valid.as_slice(), [real, false], "rank {rank}");
        assert_eq!(batch.weights.as_ref().unwrap().as_slice(), [f32::from(u8::from(real)), 0.0]);
        if !real {
            assert!(batch.keys.iter().all(|key| key.is_empty()) && batch.ids.iter().all(|id| id.0 == 0));
            // A start and an end token: what a text encoder looks for.
            let mut empty = vec![0; 77];
            tokenizer().encode("", &mut empty);
            assert_eq!(batch.tokens.as_ref().unwrap().as_slice(), [empty.clone(), empty].concat());
        }
    }
}

#[test]
fn on_one_process_a_sample_that_fails_shortens_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let mut faults = vec![Fault::None; 17];
    (faults[1], faults[6]) = (Fault::NoCaption, Fault::HalfImage);
    // All of the third batch.
    (8..12).for_each(|i| faults[i] = if i == 10 { Fault::NoCaption } else { Fault::HalfImage });
    shard(&path, &faults);
    let loader = eval(&path.display().to_string()).batch_size(4).build().unwrap();
    assert_eq!(loader.num_batches(), 5);
    let found = batches(&loader);
    let shape: Vec<(u64, usize)> = found.iter().map(|batch| (batch.step, batch.len())).collect();
    assert_eq!(shape, [(0, 3), (1, 3), (3, 4), (4, 1)]);
    for batch in &found {
        assert_eq!(batch.images.shape()[0], batch.len());
        assert!(batch.valid.as_slice().iter().all(|&valid| valid) && batch.valid.len() == batch.len());
        for (_, key, pixels) in rows(batch) {
            let number: u8 = key.parse().unwrap();
            assert!(pixels.iter().take(64).all(|&red| red == number), "the pixels of {key} are its own");
            assert_eq!(u64::from(number / 4), batch.step);
        }
    }
    let stats = loader.stats();
    assert_eq!((stats.yielded, stats.padded, stats.counts.failures()), (11, 0, 6));
}

#[test]
fn a_state_gives_the_rest_wherever_samples_fail() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let fault = |i: usize| if i % 5 == 3 { Fault::HalfImage } else { Fault::None };
    shard(&path, &(0..41).map(fault).collect::<Vec<_>>());
    for (rank, world) in [(0, 1), (0, 2), (1, 2)] {
        let make = || {
            let made = eval(&path.display().to_string()).rank(rank).world_size(world).batch_size(4);
            made.build().unwrap()
        };
        let whole: Vec<_> = batches(&make()).iter().map(rows).collect();
        for at in 0..whole.len() {
            let (first, second) = (make(), make());
            let taken: Vec<_> = first.iter().unwrap().take(at).map(|batch| rows(&batch.unwrap())).collect();
            assert_eq!(taken, whole[..at]);
            second.load_state(&first.state()).unwrap();
            let rest: Vec<_> = batches(&second).iter().map(rows).collect();
            assert_eq!(rest, whole[at..], "rank {rank} of {world}, from {at}");
        }
    }
}

#[test]
fn a_shard_of_another_length_ends_the_run_of_several_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let urls = corpus(folder.path(), 2, 30);
    for (lengths, expected) in [(vec![30, 28], 28), (vec![30, 33], 33), (vec![64, 30], 64)] {
        let failed = |rank: usize| {
            let made = eval(&urls).lengths(lengths.clone()).rank(rank).world_size(2).batch_size(8);
            made.build().unwrap().iter().unwrap().find_map(Result::err)
        };
        let errors: Vec<_> = (0..2).filter_map(failed).collect();
        let error = errors.first().expect("a rank that meets the end of the shard");
        assert!(matches!(error.kind, ErrorKind::Format { .. }), "{error}");
        assert!(error.shard.is_some());
        let text = error.to_string();
        for part in [format!("expected {expected}, by lengths"), "found 30".into(), "sizes.json".into()] {
            assert!(text.contains(&part), "{text}");
        }
    }
    // One process agrees with nobody: all that is there comes, and the lengths are warned of.
    let loader = eval(&urls).lengths(vec![30, 28]).batch_size(8).build().unwrap();
    assert_eq!(batches(&loader).iter().map(Batch::len).sum::<usize>(), 60);
    assert_eq!(loader.stats().length_mismatches.len(), 1);
}

#[test]
fn what_a_filter_excludes_takes_no_place_on_one_process_and_one_that_is_not_real_on_several() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    for i in 0..24u8 {
        let json = format!("{{\"width\": {i}}}");
        let image = png([i, 7, 90]);
        let members: [(&str, &[u8]); 3] = [("png", &image), ("txt", b"a picture"), ("json", json.as_bytes())];
        writer.write(&format!("{i:07}"), &members).unwrap();
    }
    writer.finish().unwrap();
    let urls = path.display().to_string();
    let make = || eval(&urls).filter("width >= 14".parse().unwrap()).batch_size(4);
    let sizes: Vec<usize> = batches(&make().build().unwrap()).iter().map(Batch::len).collect();
    assert_eq!(sizes, [4, 4, 2]);
    let mut found = vec![];
    for rank in 0..2 {
        let loader = make().rank(rank).world_size(2).build().unwrap();
        let own = batches(&loader);
        assert_eq!(own.len() as u64, loader.num_batches());
        assert!(own.iter().all(|batch| batch.len() == 4));
        found.extend(own.iter().flat_map(rows).filter(|row| row.0).map(|row| row.1));
    }
    assert!(found.into_iter().eq((14..24).map(|i| format!("{i:07}"))));
}
