//! The synthetic corpus on disk: same options, same bytes; copies scattered; a clean test split.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use tldr_loader::image::{DecodeOptions, RgbImage, decode};
use tldr_loader::shard::{ReadOptions, ShardReader};
use tldr_loader::{ErrorKind, Sample};
use tldr_synth::{CLASSES, Corpus, Noise, SynthOptions, Truth, write_corpus};

fn options() -> SynthOptions {
    SynthOptions { samples: 2_000, shards: 8, test_samples: 300, size: 32, ..Default::default() }
}

fn write(options: &SynthOptions) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_corpus(folder.path(), options, &mut |_, _| {}).unwrap();
    folder
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    ["train", "test"]
        .iter()
        .flat_map(|split| std::fs::read_dir(folder.join(split)).unwrap())
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            (name, std::fs::read(&path).unwrap())
        })
        .collect()
}

/// Samples of a split by shard, with their truth.
fn read(folder: &Path, split: &str) -> Vec<Vec<(Sample, Truth)>> {
    let pattern = folder.join(split).join("*.tar").display().to_string();
    let shards = tldr_loader::shard::list(&[pattern], None, &Default::default()).unwrap();
    shards
        .iter()
        .map(|shard| {
            let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
            let mut samples = Vec::new();
            while let Some(group) = reader.next_group().unwrap() {
                let sample = group.unwrap();
                let truth = serde_json::from_slice(sample.json.as_deref().unwrap()).unwrap();
                samples.push((sample, truth));
            }
            samples
        })
        .collect()
}

#[test]
fn same_options_same_bytes_for_any_number_of_threads() {
    let one = write(&SynthOptions { threads: 1, ..options() });
    let three = write(&SynthOptions { threads: 3, ..options() });
    let (one, three) = (files(one.path()), files(three.path()));
    assert_eq!(one.len(), 8 + 1 + 2);
    assert!(one == three, "bytes differ");
    let other = write(&SynthOptions { seed: 1, ..options() });
    assert!(files(other.path())["train/00000.tar"] != one["train/00000.tar"]);
}

#[test]
fn shards_hold_what_the_corpus_says() {
    let folder = write(&options());
    let corpus = Corpus::new(&options()).unwrap();
    let shards = read(folder.path(), "train");
    let sizes: BTreeMap<String, usize> =
        serde_json::from_slice(&std::fs::read(folder.path().join("train/sizes.json")).unwrap()).unwrap();
    assert_eq!(sizes.values().copied().collect::<Vec<_>>(), shards.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(sizes.keys().next().map(String::as_str), Some("00000.tar"));
    let samples: Vec<_> = shards.into_iter().flatten().collect();
    assert_eq!(samples.len(), 2_000);
    for (position, (sample, truth)) in samples.iter().enumerate().step_by(37) {
        let expected = corpus.sample(position as u64).unwrap();
        assert_eq!(*sample.key, format!("{position:09}"));
        assert!(sample.image == expected.jpeg, "image of {position}");
        assert_eq!((&sample.caption, truth), (&expected.caption, &expected.truth));
        assert!((truth.class as usize) < CLASSES);
    }
}

#[test]
fn copies_are_complete_and_scattered() {
    // The 4 copies of a scene fall into 8 shards of 250 at random. All are in different shards
    // with probability (1750/1999)(1500/1998)(1250/1997) = 0.411; over 500 scenes sd = 0.022.
    let folder = write(&options());
    let mut shards_of: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut copies: HashSet<(u64, u64)> = HashSet::new();
    for (shard, samples) in read(folder.path(), "train").iter().enumerate() {
        for (_, truth) in samples {
            shards_of.entry(truth.scene).or_default().push(shard);
            assert!(copies.insert((truth.scene, truth.copy)) && truth.copy < 4);
        }
    }
    assert_eq!(shards_of.len(), 500);
    assert!(shards_of.values().all(|shards| shards.len() == 4));
    let apart = shards_of.values().filter(|s| s.iter().collect::<HashSet<_>>().len() == 4).count();
    let share = apart as f64 / 500.0;
    assert!((share - 0.411).abs() < 5.0 * 0.022, "{share}");
}

#[test]
fn the_test_split_is_clean_distinct_and_unseen() {
    let folder = write(&options());
    let train: Vec<_> = read(folder.path(), "train").into_iter().flatten().collect();
    let test: Vec<_> = read(folder.path(), "test").into_iter().flatten().collect();
    let seen: HashSet<&str> = train
        .iter()
        .flat_map(|(sample, truth)| [sample.caption.as_str(), truth.caption_truth.as_str()])
        .collect();
    let scenes: HashSet<u64> = train.iter().map(|(_, truth)| truth.scene).collect();
    let captions: HashSet<&str> = test.iter().map(|(sample, _)| sample.caption.as_str()).collect();
    assert_eq!((test.len(), captions.len()), (300, 300));
    assert!(captions.is_disjoint(&seen));
    for (sample, truth) in &test {
        assert_eq!((truth.noise, &truth.caption_truth), (Noise::None, &sample.caption));
        assert!(!scenes.contains(&truth.scene));
    }
}

#[test]
fn captions_differ_between_copies() {
    // A scene has more than a thousand raw captions; generic and very terse ones may repeat.
    let corpus = Corpus::new(&options()).unwrap();
    let mut captions: HashMap<u64, HashSet<String>> = HashMap::new();
    for position in 0..2_000 {
        let sample = corpus.sample(position).unwrap();
        captions.entry(sample.truth.scene).or_default().insert(sample.caption);
    }
    let mean = captions.values().map(HashSet::len).sum::<usize>() as f64 / captions.len() as f64;
    assert!(mean > 3.9, "{mean} different captions of 4");
}

#[test]
fn copies_look_more_alike_than_other_scenes() {
    let corpus = Corpus::new(&SynthOptions { samples: 200, size: 64, ..options() }).unwrap();
    let drawn: Vec<(u64, Vec<u8>)> = (0..200)
        .map(|position| {
            let sample = corpus.sample(position).unwrap();
            let mut image = RgbImage::default();
            decode(&sample.jpeg, &DecodeOptions::default(), &mut image).unwrap();
            assert_eq!((image.width, image.height), (64, 64));
            (sample.truth.scene, image.data)
        })
        .collect();
    // Mean square difference, over all pairs of a kind.
    let distance = |a: &[u8], b: &[u8]| -> f64 {
        let sum: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
        sum as f64 / a.len() as f64
    };
    let (mut copies, mut others, mut nearest_is_copy) = (Vec::new(), Vec::new(), 0);
    for (i, (scene, pixels)) in drawn.iter().enumerate() {
        let mut nearest = (f64::INFINITY, false);
        for (j, (other, other_pixels)) in drawn.iter().enumerate().filter(|(j, _)| *j != i) {
            let (d, is_copy) = (distance(pixels, other_pixels), scene == other);
            if is_copy { &mut copies } else { &mut others }.push(d);
            if d < nearest.0 {
                nearest = (d, is_copy);
            }
            assert!(d > 0.0, "{i} and {j}: copies are near, not equal");
        }
        nearest_is_copy += usize::from(nearest.1);
    }
    let mean = |d: &[f64]| d.iter().sum::<f64>() / d.len() as f64;
    assert!(mean(&copies) * 5.0 < mean(&others), "{} and {}", mean(&copies), mean(&others));
    assert!(nearest_is_copy >= 196, "nearest image is a copy for {nearest_is_copy} of 200");
}

#[test]
fn a_used_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("test")).unwrap();
    std::fs::write(folder.path().join("test/keep.txt"), "mine").unwrap();
    let error = write_corpus(folder.path(), &options(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Option { option: "out", .. }), "{error}");
    assert!(!folder.path().join("train").exists());
    assert_eq!(std::fs::read_to_string(folder.path().join("test/keep.txt")).unwrap(), "mine");
}

#[test]
fn progress_ends_at_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let mut calls = Vec::new();
    let options = SynthOptions { samples: 600, shards: 3, test_samples: 10, ..options() };
    let summary =
        write_corpus(folder.path(), &options, &mut |done, total| calls.push((done, total))).unwrap();
    assert_eq!(calls.last(), Some(&(610, 610)));
    assert!(calls.is_sorted());
    assert_eq!((summary.samples, summary.scenes, summary.test_samples), (600, 150, 10));
    assert_eq!(summary.noise.iter().map(|(_, count)| count).sum::<u64>(), 600);
}
