//! Promise: a plan's quotas are exact, no near-duplicates stay in the whole corpus, freed places are
//! filled, window kept samples come first; and it is a function of the signals, the policy and the seed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::select_stream::{Held, stream, zipf_clusters};
use tldr_loader::cluster::Clusters;
use tldr_loader::config::{Gate, Priority, Quota, Selection};
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::select::plan::Kept;
use tldr_loader::select::{Plan, Planner, Policy, Selector};
use tldr_loader::{DropReason, Outcome, SampleId};

/// A corpus of windows, two to a shard, with what is known of its samples.
struct Corpus {
    clusters: Arc<Clusters>,
    windows: Vec<Held>,
}

const SHARD: u64 = 1000;

fn place(index: usize) -> (u64, u64) {
    (SHARD + index as u64 / 2, index as u64 % 2)
}

/// As [`stream`], with places in shards and random hashes, one in `copied` of which is within `bits`
/// bits of another's.
fn corpus(clusters: usize, windows: usize, n: usize, copied: f64, bits: usize) -> Corpus {
    let mut stream = stream(clusters, windows, n, 0.02, 0);
    let mut rng = Rng::new(9, Purpose::Synth, 0);
    let mut originals = vec![];
    for (index, held) in stream.windows.iter_mut().enumerate() {
        let (shard, number) = place(index);
        held.id = hash::combine(&[shard, number]);
        for hash in &mut held.signals.semantic_hash {
            if originals.is_empty() || rng.unit() >= copied {
                *hash = [0; 4].map(|_| rng.next_u64());
                originals.push(*hash);
            } else {
                *hash = originals[rng.below(originals.len())];
                for _ in 0..rng.below(bits / 2 + 1) {
                    let bit = rng.below(256);
                    hash[bit / 64] ^= 1 << (bit % 64);
                }
            }
        }
    }
    Corpus { clusters: stream.clusters, windows: stream.windows }
}

fn plan_in(
    corpus: &Corpus,
    policy: &Policy,
    order: impl Iterator<Item = usize>,
) -> tldr_loader::Result<Plan> {
    let selector = Selector::new(policy.clone(), Some(Arc::clone(&corpus.clusters)))?;
    let mut planner = Planner::new(selector, 0)?;
    for index in order {
        let (shard, number) = place(index);
        planner.add(shard, number, &corpus.windows[index].window())?;
    }
    planner.decide()
}

fn plan(corpus: &Corpus, policy: &Policy) -> Plan {
    plan_in(corpus, policy, 0..corpus.windows.len()).unwrap()
}

/// Cluster, hash and whether its window keeps it, of every candidate.
fn candidates(corpus: &Corpus, policy: &Policy) -> BTreeMap<u64, (u32, [u64; 4], bool)> {
    let uncopied =
        Policy { selection: Selection { dedup: None, ..policy.selection.clone() }, ..policy.clone() };
    let selector = Selector::new(uncopied, Some(Arc::clone(&corpus.clusters))).unwrap();
    let mut all = BTreeMap::new();
    for held in &corpus.windows {
        for (row, outcome) in selector.decide(&held.window(), 0).unwrap().into_iter().enumerate() {
            if !matches!(outcome, Outcome::Failed(_) | Outcome::Dropped(DropReason::Gate)) {
                let signals = &held.signals;
                let of = (signals.cluster[row], signals.semantic_hash[row], outcome.is_kept());
                all.insert(held.ids[row].0, of);
            }
        }
    }
    all
}

fn differing(a: &[u64; 4], b: &[u64; 4]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// Cosine whose hashes are expected to differ in this many bits.
fn cosine(bits: u32) -> f32 {
    (f64::from(bits) / 256.0 * std::f64::consts::PI).cos() as f32
}

fn gated() -> Policy {
    let selection = Selection {
        keep_ratio: Some(0.2.into()),
        gate: Some(Gate::top(0.5)),
        quota: Some(Quota::Proportional),
        ..Selection::default()
    };
    Policy { corpus: Some(8 * 512), ..Policy::new(selection, 3) }
}

#[test]
fn the_order_of_windows_changes_nothing() {
    let corpus = corpus(100, 8, 512, 0.3, 10);
    for quota in [Quota::Proportional, Quota::Cap, Quota::Tempered(0.5), Quota::Random] {
        let policy = Policy {
            selection: Selection { dedup: Some(cosine(12)), quota: Some(quota), ..gated().selection.clone() },
            ..gated()
        };
        let expected = plan(&corpus, &policy);
        assert!(expected.counts().copies > 100);
        for seed in 0..4 {
            let mut order: Vec<usize> = (0..8).collect();
            Rng::new(seed, Purpose::Fit, 0).shuffle(&mut order);
            let found = plan_in(&corpus, &policy, order.into_iter()).unwrap();
            assert_eq!(found, expected);
            assert_eq!(found.fingerprint(), expected.fingerprint());
        }
        let other = plan(&corpus, &Policy { seed: 4, ..policy });
        assert_ne!(other.fingerprint(), expected.fingerprint());
    }
}

#[test]
fn quotas_are_exact_and_window_kept_samples_come_first() {
    let corpus = corpus(100, 8, 512, 0.0, 0);
    for policy in [
        gated(),
        Policy {
            selection: Selection {
                gate: Some(Gate::OFF),
                keep_ratio: Some(0.37.into()),
                ..gated().selection.clone()
            },
            ..gated()
        },
    ] {
        let (plan, all) = (plan(&corpus, &policy), candidates(&corpus, &policy));
        let counts = plan.counts();
        assert_eq!((counts.samples, counts.candidates), (8 * 512, all.len() as u64));
        let readable = counts.samples - counts.failed;
        assert_eq!(counts.kept, (policy.keep_ratio() * readable as f64).round() as u64);
        let pi = counts.kept as f64 / all.len() as f64;
        let kept: BTreeSet<u64> = plan.kept().map(|kept| kept.id.0).collect();
        for cluster in 0..100 {
            let members: Vec<(&u64, bool)> =
                all.iter().filter(|(_, c)| c.0 == cluster).map(|(id, c)| (id, c.2)).collect();
            let of_plan = members.iter().filter(|(id, _)| kept.contains(id)).count();
            let expected = pi * members.len() as f64;
            assert!((of_plan as f64 - expected).abs() < 1.0 + 1e-6, "{of_plan} for {expected}");
            // All kept samples and perhaps others, or kept samples only.
            let kept_samples = members.iter().filter(|(_, is_kept)| *is_kept).count();
            let both = members.iter().filter(|(id, is_kept)| *is_kept && kept.contains(id)).count();
            assert_eq!(both, kept_samples.min(of_plan), "cluster {cluster}");
        }
        let both = all.iter().filter(|(id, c)| c.2 && kept.contains(id)).count() as u64;
        assert_eq!(counts.kept_by_window, both);
        assert!(both as f64 > 0.9 * counts.kept as f64, "{both} of {}", counts.kept);
    }
}

#[test]
fn quotas_by_cluster_follow_their_rule() {
    let corpus = corpus(100, 8, 512, 0.0, 0);
    let sizes = |policy: &Policy| {
        let mut sizes = BTreeMap::<u32, (u64, u64)>::new();
        candidates(&corpus, policy).values().for_each(|c| sizes.entry(c.0).or_default().0 += 1);
        plan(&corpus, policy).kept().for_each(|kept| sizes.entry(kept.cluster).or_default().1 += 1);
        sizes.into_values().collect::<Vec<_>>()
    };
    let capped = sizes(&Policy {
        selection: Selection { quota: Some(Quota::Cap), ..gated().selection.clone() },
        ..gated()
    });
    let level = capped.iter().filter(|(n, kept)| kept < n).map(|(_, kept)| *kept).collect::<Vec<_>>();
    let (low, high) = (level.iter().min().unwrap(), level.iter().max().unwrap());
    assert!(high - low <= 1 && level.len() > 5, "clusters are cut down to one size: {level:?}");
    assert!(capped.iter().all(|(n, kept)| n == kept || kept >= low), "smaller ones stay whole");
    let capped = sizes(&Policy {
        selection: Selection { quota: Some(Quota::CapAt(7)), ..gated().selection.clone() },
        ..gated()
    });
    assert!(capped.iter().all(|&(n, kept)| kept == n.min(7)));
    // kept / n^0.5 is the same for all that are not full, to within the rounding of kept.
    let tempered = sizes(&Policy {
        selection: Selection { quota: Some(Quota::Tempered(0.5)), ..gated().selection.clone() },
        ..gated()
    });
    let k: Vec<(f64, f64)> = tempered
        .iter()
        .filter(|(n, kept)| kept < n)
        .map(|&(n, kept)| ((kept as f64 - 1.0) / (n as f64).sqrt(), (kept as f64 + 1.0) / (n as f64).sqrt()))
        .collect();
    let (low, high) = k.iter().fold((0.0f64, f64::MAX), |(a, b), k| (a.max(k.0), b.min(k.1)));
    assert!(low <= high && k.len() > 50, "no one level: above {low}, below {high}");
}

#[test]
fn no_near_copies_stay_and_each_has_one_that_does() {
    let corpus = corpus(50, 8, 512, 0.5, 10);
    for distance in [6, 12, 20] {
        let policy = Policy {
            selection: Selection {
                dedup: Some(cosine(distance)),
                keep_ratio: Some(0.45.into()),
                gate: Some(Gate::OFF),
                ..gated().selection.clone()
            },
            ..gated()
        };
        let (plan, all) = (plan(&corpus, &policy), candidates(&corpus, &policy));
        let kept: Vec<(u64, [u64; 4])> = plan.kept().map(|kept| (kept.id.0, all[&kept.id.0].1)).collect();
        for (i, (_, a)) in kept.iter().enumerate() {
            assert!(kept[..i].iter().all(|(_, b)| differing(a, b) > distance));
        }
        // Copies are dropped before quotas: every dropped one is near some candidate.
        let near =
            all.values().filter(|a| all.values().filter(|b| differing(&a.1, &b.1) <= distance).count() > 1);
        let (near, copies) = (near.count() as u64, plan.counts().copies);
        assert!(copies > 500 && copies < near, "{copies} of {near}");
        let readable = (plan.counts().samples - plan.counts().failed) as f64;
        assert_eq!(plan.counts().kept, (0.45 * readable).round() as u64, "freed places are filled");
    }
}

#[test]
fn embeddings_say_in_the_end_what_is_a_copy() {
    // All hashes are one; embeddings are on a circle, half of them at 0.
    let mut corpus = corpus(1, 4, 256, 0.0, 0);
    let mut angle = 0.0f32;
    for held in &mut corpus.windows {
        let n = held.ids.len();
        held.signals.semantic_hash = vec![[5; 4]; n];
        held.signals.embedding = ndarray::Array2::zeros((n, 2));
        for (row, mut embedding) in held.signals.embedding.outer_iter_mut().enumerate() {
            let at = if row % 2 == 0 { 0.0 } else { angle };
            angle += 0.005;
            embedding.assign(&ndarray::arr1(&[at.cos(), at.sin()]));
        }
    }
    let policy = Policy {
        selection: Selection {
            dedup: Some(0.999),
            keep_ratio: Some(0.05.into()),
            gate: Some(Gate::OFF),
            ..gated().selection.clone()
        },
        ..gated()
    };
    let copies = |corpus: &Corpus| plan(corpus, &policy).counts().copies;
    // 5.12 radians, on which those that stay are at least acos(0.999) = 0.0447 apart, and neighbours
    // among them less than twice that.
    let stay = 4 * 256 - plan(&corpus, &policy).counts().failed - copies(&corpus);
    assert!((57..=116).contains(&stay), "{stay} stay");
    // Without some of them hashes alone tell: one stays.
    corpus.windows[2].signals.embedding = ndarray::Array2::zeros((256, 0));
    assert_eq!(copies(&corpus), 4 * 256 - plan(&corpus, &policy).counts().failed - 1);
}

#[test]
fn places_that_no_cluster_can_fill_are_counted() {
    let corpus = corpus(20, 4, 256, 0.9, 4);
    let policy = Policy {
        selection: Selection {
            dedup: Some(cosine(15)),
            keep_ratio: Some(0.5.into()),
            gate: Some(Gate::OFF),
            ..gated().selection.clone()
        },
        ..gated()
    };
    let plan = plan(&corpus, &policy);
    let counts = plan.counts();
    assert_eq!(counts.kept, counts.candidates - counts.copies, "all that is left is kept");
    assert!(counts.kept < counts.slots);
    assert!(plan.rates().iter().all(|&rate| rate == 1.0 || rate == 0.0));
}

#[test]
fn lower_ratios_are_subsets_but_for_the_rounding() {
    let corpus = corpus(100, 8, 512, 0.2, 8);
    let kept = |keep_ratio: f64| {
        let policy = Policy {
            selection: Selection {
                keep_ratio: Some(keep_ratio.into()),
                dedup: Some(cosine(10)),
                ..gated().selection.clone()
            },
            ..gated()
        };
        plan(&corpus, &policy).kept().map(|kept| kept.id).collect::<BTreeSet<_>>()
    };
    let sets = [0.05, 0.1, 0.2, 0.3].map(kept);
    for pair in sets.windows(2) {
        let outside = pair[0].difference(&pair[1]).count();
        // A cluster's quota is its share rounded; the larger share is rarely rounded to less.
        assert!(outside <= 10, "{outside} of {}", pair[0].len());
    }
}

#[test]
fn priorities_keep_their_window_kept_samples_first() {
    let corpus = corpus(30, 4, 256, 0.0, 0);
    let policy = Policy {
        selection: Selection { priority: Priority::Longest, ..gated().selection.clone() },
        ..gated()
    };
    let (plan, all) = (plan(&corpus, &policy), candidates(&corpus, &policy));
    let kept: BTreeSet<u64> = plan.kept().map(|kept| kept.id.0).collect();
    for cluster in 0..30 {
        let of = |is_kept: bool| {
            let members = all.iter().filter(move |(_, c)| c.0 == cluster && c.2 == is_kept);
            members.map(|(id, _)| kept.contains(id)).collect::<Vec<_>>()
        };
        let others = of(false).contains(&true);
        assert!(!others || of(true).iter().all(|&kept| kept), "cluster {cluster}");
    }
    assert!(plan.rates().is_empty());
}

#[test]
fn inclusion_is_the_rate_whatever_the_cluster_or_the_arrival() {
    let corpus = corpus(200, 4, 512, 0.0, 0);
    let all = candidates(&corpus, &gated());
    let index: BTreeMap<u64, usize> = {
        let ids = corpus.windows.iter().flat_map(|held| &held.ids).filter(|id| all.contains_key(&id.0));
        ids.enumerate().map(|(i, id)| (id.0, i)).collect()
    };
    let n = index.len();
    let mut sizes = BTreeMap::<u32, usize>::new();
    all.values().for_each(|c| *sizes.entry(c.0).or_default() += 1);
    let mut by_size: Vec<u64> = all.keys().copied().collect();
    by_size.sort_by_key(|id| (sizes[&all[id].0], all[id].0));
    let size_rank: BTreeMap<u64, usize> = by_size.iter().enumerate().map(|(rank, id)| (*id, rank)).collect();
    const GROUPS: usize = 8;
    let seeds = 600;
    let (mut sums, mut squares) = ([[0.0f64; GROUPS]; 2], [[0.0f64; GROUPS]; 2]);
    for seed in 0..seeds {
        let plan = plan(&corpus, &Policy { seed, ..gated() });
        let mut excess = [[0.0f64; GROUPS]; 2];
        let group = |id: u64| [size_rank[&id] * GROUPS / n, index[&id] * GROUPS / n];
        for (id, c) in &all {
            let rate = f64::from(plan.rates()[c.0 as usize]);
            group(*id).into_iter().enumerate().for_each(|(by, g)| excess[by][g] -= rate);
        }
        for kept in plan.kept() {
            group(kept.id.0).into_iter().enumerate().for_each(|(by, g)| excess[by][g] += 1.0);
        }
        for by in 0..2 {
            for g in 0..GROUPS {
                sums[by][g] += excess[by][g];
                squares[by][g] += excess[by][g].powi(2);
            }
        }
    }
    // The mean over seeds, which are independent, has the standard deviation sd / sqrt(seeds), with the
    // sd that is found; quotas that hardly vary leave the bias of order 1 / n_c: 0.02 samples a group.
    for by in 0..2 {
        for g in 0..GROUPS {
            let mean = sums[by][g] / seeds as f64;
            let sd = (squares[by][g] / seeds as f64 - mean * mean).max(0.0).sqrt();
            assert!(mean.abs() < 4.5 * sd / (seeds as f64).sqrt() + 0.02, "{by}, {g}: {mean} with sd {sd}");
        }
    }
}

#[test]
fn a_plan_decides_the_windows_it_was_made_of() {
    let corpus = corpus(40, 6, 300, 0.3, 8);
    let policy =
        Policy { selection: Selection { dedup: Some(cosine(10)), ..gated().selection.clone() }, ..gated() };
    let plan = plan(&corpus, &policy);
    let mut kept = vec![];
    for (index, held) in corpus.windows.iter().enumerate() {
        let (shard, window) = place(index);
        let outcomes = plan.decide(&held.window()).unwrap();
        for (row, outcome) in outcomes.iter().enumerate() {
            assert_eq!(held.failed[row].is_some(), matches!(outcome, Outcome::Failed(_)));
            if let Outcome::Kept { pi } = outcome {
                let cluster = held.signals.cluster[row];
                assert_eq!(*pi, Some(plan.rates()[cluster as usize]));
                kept.push(Kept { shard, window, id: held.ids[row], cluster });
            }
        }
    }
    kept.sort_unstable();
    assert_eq!(kept, plan.kept().collect::<Vec<_>>());
    let again = Plan::new(policy, plan.counts().clone(), plan.rates().to_vec(), kept.clone()).unwrap();
    assert_eq!(again, plan);
    // Another window's content under this name.
    let mut changed = corpus.windows[0].clone();
    let at = changed.ids.iter().position(|id| kept.iter().any(|kept| kept.id == *id)).unwrap();
    changed.ids[at] = SampleId(1);
    let error = plan.decide(&changed.window()).unwrap_err().to_string();
    assert!(error.contains("has the shard changed"), "{error}");
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let corpus = corpus(20, 4, 256, 0.0, 0);
    let refused = |policy: Policy, order: &[usize]| {
        plan_in(&corpus, &policy, order.iter().copied()).unwrap_err().to_string()
    };
    let twice = refused(gated(), &[0, 1, 0]);
    assert!(twice.contains("each window once"), "{twice}");
    let rotating = refused(
        Policy { selection: Selection { rotate: true, ..gated().selection.clone() }, ..gated() },
        &[0],
    );
    assert!(rotating.contains("rotate"), "{rotating}");
    let far = refused(
        Policy { selection: Selection { dedup: Some(0.8), ..gated().selection.clone() }, ..gated() },
        &[0],
    );
    assert!(far.contains("invalid dedup=0.8") && far.contains("0.93"), "{far}");
    // The fit says that half passes; here hardly anything does.
    let mut poor = Corpus { clusters: Arc::clone(&corpus.clusters), windows: corpus.windows.clone() };
    poor.windows.iter_mut().flat_map(|held| &mut held.signals.alignment).for_each(|a| *a *= 0.6);
    let few = plan_in(&poor, &gated(), 0..4).unwrap_err().to_string();
    assert!(few.contains("invalid keep_ratio=0.2: expected at most 0.1"), "{few}");
    let selector = Selector::new(gated(), Some(Arc::new(zipf_clusters(20)))).unwrap();
    let mut planner = Planner::new(selector, 0).unwrap();
    assert!(planner.add(1, 1, &corpus.windows[0].window()).is_err(), "a window of another place");
}

/// Scenes with four copies each, in different shards, half of the pairs wrong: what a plan is for.
/// The scorer sees the truth with noise.
#[test]
fn a_quarter_of_a_corpus_with_four_copies_of_each_scene_is_distinct_scenes() {
    const SCENES: usize = 3000;
    let mut rng = Rng::new(11, Purpose::Synth, 0);
    let mut samples: Vec<(usize, bool)> = (0..4 * SCENES).map(|i| (i % SCENES, rng.unit() < 0.5)).collect();
    rng.shuffle(&mut samples);
    let hashes: Vec<[u64; 4]> = (0..SCENES).map(|_| [0; 4].map(|_| rng.next_u64())).collect();
    let clusters = Arc::new(zipf_clusters(64));
    let cluster_of: Vec<u32> = (0..SCENES).map(|_| rng.below(64) as u32).collect();
    // At a gate of 0.5 none of a scene's four pairs passes for one scene in 16: too few would be left to
    // fill a quarter with distinct ones. At 0.6 it is one in 39.
    let policy = Policy {
        selection: Selection {
            keep_ratio: Some(0.25.into()),
            gate: Some(Gate::top(0.6)),
            dedup: Some(cosine(14)),
            ..Selection::default()
        },
        ..Policy::default()
    };
    let selector = Selector::new(policy, Some(Arc::clone(&clusters))).unwrap();
    let mut planner = Planner::new(selector, samples.len()).unwrap().fill_with_copies(true);
    let mut truth = BTreeMap::new();
    for (shard, of_shard) in samples.chunks(1000).enumerate() {
        let mut held = stream(1, 1, of_shard.len(), 0.0, 0).windows.remove(0);
        held.id = hash::combine(&[shard as u64, 0]);
        for (row, &(scene, clean)) in of_shard.iter().enumerate() {
            held.ids[row] = SampleId(rng.next_u64());
            // Alignment: clean pairs in the upper half, with a tenth of each kind misjudged.
            let judged = clean != (rng.unit() < 0.1);
            held.signals.alignment[row] = rng.range(0.0, 0.5) as f32 + if judged { 0.5 } else { 0.0 };
            held.signals.cluster[row] = cluster_of[scene];
            let mut hash = hashes[scene];
            (0..rng.below(7)).map(|_| rng.below(256)).for_each(|bit| hash[bit / 64] ^= 1 << (bit % 64));
            held.signals.semantic_hash[row] = hash;
            truth.insert(held.ids[row].0, (scene, clean));
        }
        planner.add(shard as u64, 0, &held.window()).unwrap();
    }
    let plan = planner.decide().unwrap();
    let kept: Vec<(usize, bool)> = plan.kept().map(|kept| truth[&kept.id.0]).collect();
    let distinct: BTreeSet<usize> = kept.iter().map(|kept| kept.0).collect();
    let clean: BTreeSet<usize> = samples.iter().filter(|s| s.1).map(|s| s.0).collect();
    let covered = clean.intersection(&distinct).count();
    assert!(distinct.len() as f64 >= 0.95 * kept.len() as f64);
    assert!(covered as f64 >= 0.9 * clean.len() as f64, "{covered} of {}", clean.len());
    // Every scene that has a candidate is kept, once; copies fill the places of those that have none.
    let counts = plan.counts();
    assert_eq!((counts.kept, counts.slots), (SCENES as u64, SCENES as u64), "the quota is full");
    assert_eq!(counts.refilled, counts.slots - (counts.candidates - counts.copies));
    assert_eq!(distinct.len() as u64, counts.kept - counts.refilled);
    assert!(plan.rates().is_empty(), "what fills the last places has another probability");
}
