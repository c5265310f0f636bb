//! Promises of selection: conservation, purity, nested ratios, disjoint rotation, loud errors.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::select_stream::{Held, Stream, stream};
use ndarray::Array2;
use proptest::prelude::*;
use tldr_loader::cluster::GATE_STEPS;
use tldr_loader::config::{Gate, Priority, Quota, Selection};
use tldr_loader::hash::{Purpose, Rng, combine, hash, unit};
use tldr_loader::select::{Policy, Rates, Selector, Window};
use tldr_loader::{DropReason, FailReason, Outcome, SampleId};

fn selector(stream: &Stream, policy: Policy) -> Selector {
    Selector::new(policy, Some(Arc::clone(&stream.clusters))).unwrap()
}

/// Rows that an epoch keeps.
fn kept(selector: &Selector, held: &Held, epoch: u64) -> BTreeSet<usize> {
    let outcomes = selector.decide(&held.window(), epoch).unwrap();
    (0..outcomes.len()).filter(|&row| outcomes[row].is_kept()).collect()
}

fn policies() -> Vec<Policy> {
    let mut all = Vec::new();
    for priority in [Priority::Uniform, Priority::Diverse, Priority::Longest, Priority::Hard, Priority::Score]
    {
        for quota in [Quota::Proportional, Quota::Random, Quota::Tempered(0.5)] {
            for (gate, dedup) in [(None, None), (Some(0.5), None), (Some(0.5), Some(0.8))] {
                all.push(Policy {
                    selection: Selection {
                        gate: gate.map(Gate::top),
                        dedup,
                        quota: Some(quota),
                        priority,
                        ..Selection::default()
                    },
                    seed: 3,
                    ..Policy::default()
                });
            }
        }
    }
    all
}

#[test]
fn uniform_decisions_are_those_of_the_golden_ratio() {
    // The rule, written out a second time in floating point and without any cleverness.
    let stream = stream(50, 3, 400, 0.1, 2);
    for (gate, epoch) in [(None, 0), (Some(0.5), 0), (None, 7)] {
        let policy = Policy {
            selection: Selection {
                keep_ratio: Some(0.2.into()),
                gate: gate.map(Gate::top),
                rotate: epoch > 0,
                ..Selection::default()
            },
            seed: 11,
            ..Policy::default()
        };
        let pi = 0.2 / gate.unwrap_or(1.0);
        let selector = selector(&stream, policy);
        for held in &stream.windows {
            let mut expected = BTreeSet::new();
            for run in 0..stream.clusters.run_count() as u32 {
                let mut candidates: Vec<usize> = (0..400)
                    .filter(|&i| held.failed[i].is_none())
                    .filter(|&i| held.signals.alignment[i] >= 1.0 - gate.unwrap_or(1.0) as f32)
                    .filter(|&i| stream.clusters.runs[held.signals.cluster[i] as usize] == run)
                    .collect();
                candidates
                    .sort_by_key(|&i| (held.signals.cluster[i], hash(11, Purpose::Candidate, held.ids[i].0)));
                let u = unit(hash(11, Purpose::RunStart, combine(&[held.id, u64::from(run)])));
                for (i, &row) in candidates.iter().enumerate() {
                    let v = (u + i as f64 * 0.618_033_988_749_894_9).fract();
                    if (v - epoch as f64 * pi).rem_euclid(1.0) < pi {
                        expected.insert(row);
                    }
                }
            }
            assert_eq!(kept(&selector, held, epoch), expected, "gate {gate:?}, epoch {epoch}");
        }
    }
}

#[test]
fn every_sample_has_one_outcome_and_all_are_right() {
    let stream = stream(200, 2, 600, 0.1, 3);
    for policy in policies() {
        let selector = selector(&stream, policy.clone());
        let rates = Rates::solve(&policy, Some(&stream.clusters)).unwrap();
        for held in &stream.windows {
            let outcomes = selector.decide(&held.window(), 0).unwrap();
            assert_eq!(outcomes.len(), 600);
            for (row, outcome) in outcomes.iter().enumerate() {
                let gated = policy.gate().share().is_some() && held.signals.alignment[row] < 0.5;
                match (held.failed[row], *outcome) {
                    (Some(reason), Outcome::Failed(found)) => assert_eq!(reason, found),
                    (None, Outcome::Dropped(DropReason::Gate)) => assert!(gated),
                    (None, Outcome::Dropped(DropReason::Dedup)) => {
                        assert!(!gated && policy.selection.dedup.is_some())
                    }
                    (None, Outcome::Dropped(DropReason::Quota)) => assert!(!gated),
                    (None, Outcome::Kept { pi: None }) => {
                        assert!(!gated && policy.priority() != Priority::Uniform);
                    }
                    (None, Outcome::Kept { pi: Some(pi) }) => {
                        assert!(!gated && policy.priority() == Priority::Uniform);
                        let tempered = rates.rate(held.signals.cluster[row]).value();
                        let expected = match policy.quota() {
                            Quota::Tempered(_) => tempered as f32,
                            _ if policy.gate().share().is_some() => 0.5,
                            _ => 0.25,
                        };
                        assert!((pi - expected).abs() < 1e-6);
                    }
                    found => panic!("row {row}: {found:?}"),
                }
            }
        }
    }
}

#[test]
fn the_rescued_share_the_places_of_their_window() {
    let stream = stream(200, 2, 600, 0.05, 3);
    for quota in [Quota::Proportional, Quota::Tempered(0.5)] {
        let policy = |seed| Policy {
            selection: Selection {
                keep_ratio: Some(0.25.into()),
                gate: Some(Gate::top(0.5)),
                quota: Some(quota),
                ..Selection::default()
            },
            seed,
            ..Policy::default()
        };
        let rates = Rates::solve(&policy(0), Some(&stream.clusters)).unwrap();
        for held in &stream.windows {
            let passes = |row: usize| held.signals.alignment[row] >= 0.5;
            let mut rng = Rng::new(4, Purpose::Synth, held.id);
            let judged: Vec<f32> =
                (0..600).map(|row| if passes(row) { f32::NAN } else { rng.unit() as f32 }).collect();
            let readable: Vec<usize> = (0..600).filter(|&row| held.failed[row].is_none()).collect();
            let rate = |row: usize| rates.rate(held.signals.cluster[row]).value();
            let sum = |of: &dyn Fn(usize) -> bool| -> f64 {
                readable.iter().filter(|&&row| of(row)).map(|&row| rate(row)).sum()
            };
            let (own, guests) = (sum(&passes), sum(&|row| judged[row] >= 0.5));
            assert!(own > 50.0 && guests > 25.0, "{own} {guests}");
            let seeds = 300;
            let mut kept = vec![0u32; 600];
            for seed in 0..seeds {
                let selector = selector(&stream, policy(seed));
                let window = Window { judged: Some(&judged), ..held.window() };
                for (row, outcome) in selector.decide(&window, 0).unwrap().iter().enumerate() {
                    let candidate = held.failed[row].is_none() && (passes(row) || judged[row] >= 0.5);
                    match outcome {
                        Outcome::Kept { pi: Some(pi) } => {
                            assert!(candidate);
                            let expected = rate(row) * own / (own + guests);
                            assert!((f64::from(*pi) - expected).abs() < 1e-6, "{pi} {expected}");
                            kept[row] += 1;
                        }
                        Outcome::Dropped(DropReason::Gate) => {
                            assert!(held.failed[row].is_none() && !candidate);
                        }
                        Outcome::Dropped(DropReason::Quota) => assert!(candidate),
                        Outcome::Failed(_) => assert!(held.failed[row].is_some()),
                        other => panic!("row {row}: {other:?}"),
                    }
                }
            }
            // Those that pass and the rescued are kept as often as their rates say. A sum of draws that
            // repel one another varies less than one of independent draws: 5 deviations of the latter.
            for group in [&passes as &dyn Fn(usize) -> bool, &|row| judged[row] >= 0.5] {
                let scaled = |row: usize| rate(row) * own / (own + guests);
                let rows: Vec<usize> = readable.iter().copied().filter(|&row| group(row)).collect();
                let expected: f64 = rows.iter().map(|&row| scaled(row)).sum();
                let deviation: f64 = rows.iter().map(|&row| scaled(row) * (1.0 - scaled(row))).sum();
                let found = rows.iter().map(|&row| f64::from(kept[row])).sum::<f64>() / seeds as f64;
                let bound = 5.0 * (deviation / seeds as f64).sqrt();
                assert!((found - expected).abs() < bound, "{quota}: {found} of {expected}, bound {bound}");
            }
        }
    }
}

#[test]
fn a_decision_depends_on_its_own_window_only() {
    let mut stream = stream(200, 4, 300, 0.05, 3);
    for policy in policies() {
        let selector = selector(&stream, policy);
        let decide = |held: &Held| selector.decide(&held.window(), 0).unwrap();
        let forward: Vec<_> = stream.windows.iter().map(decide).collect();
        let mut backward: Vec<_> = stream.windows.iter().rev().map(decide).collect();
        backward.reverse();
        assert_eq!(forward, backward);

        // One more unusable sample in window 1: its row fails, other windows do not move.
        let usable = (0..300).find(|&i| stream.windows[1].failed[i].is_none()).unwrap();
        stream.windows[1].failed[usable] = Some(FailReason::EmptyCaption);
        let after: Vec<_> =
            stream.windows.iter().map(|held| selector.decide(&held.window(), 0).unwrap()).collect();
        assert_eq!(after[1][usable], Outcome::Failed(FailReason::EmptyCaption));
        for window in [0, 2, 3] {
            assert_eq!(forward[window], after[window]);
        }
    }
}

#[test]
fn the_order_of_arrival_within_a_window_does_not_matter() {
    let stream = stream(100, 1, 500, 0.05, 4);
    let held = &stream.windows[0];
    let mut order: Vec<usize> = (0..500).collect();
    Rng::new(8, Purpose::Synth, 1).shuffle(&mut order);
    let mut moved = held.clone();
    for (to, &from) in order.iter().enumerate() {
        moved.ids[to] = held.ids[from];
        moved.failed[to] = held.failed[from];
        moved.caption_chars[to] = held.caption_chars[from];
        moved.signals.cluster[to] = held.signals.cluster[from];
        moved.signals.alignment[to] = held.signals.alignment[from];
        moved.signals.embedding.row_mut(to).assign(&held.signals.embedding.row(from));
    }
    for policy in policies() {
        let selector = selector(&stream, policy);
        let (a, b) =
            (selector.decide(&held.window(), 0).unwrap(), selector.decide(&moved.window(), 0).unwrap());
        assert!(order.iter().enumerate().all(|(to, &from)| b[to] == a[from]));
    }
}

#[test]
fn rows_of_failed_samples_may_hold_anything() {
    let stream = stream(100, 1, 300, 0.2, 3);
    let mut rubbish = stream.windows[0].clone();
    for row in (0..300).filter(|&row| rubbish.failed[row].is_some()) {
        rubbish.signals.cluster[row] = u32::MAX;
        rubbish.signals.alignment[row] = f32::NAN;
        rubbish.signals.embedding.row_mut(row).fill(f32::NAN);
        rubbish.caption_chars[row] = u32::MAX;
    }
    for policy in policies() {
        let selector = selector(&stream, policy);
        let clean = selector.decide(&stream.windows[0].window(), 0).unwrap();
        assert_eq!(selector.decide(&rubbish.window(), 0).unwrap(), clean);
    }
}

#[test]
fn rotating_epochs_are_disjoint_until_the_pool_is_used_up() {
    let stream = stream(150, 2, 500, 0.05, 3);
    for keep_ratio in [0.05, 0.1, 0.25, 0.3, 1.0 / 3.0, 0.4] {
        let one_rate = |p: &Policy| *p.gate() == Gate::OFF && !matches!(p.quota(), Quota::Tempered(_));
        for policy in policies().into_iter().filter(one_rate) {
            let policy = Policy {
                selection: Selection {
                    keep_ratio: Some(keep_ratio.into()),
                    rotate: true,
                    ..policy.selection.clone()
                },
                ..policy
            };
            let selector = selector(&stream, policy.clone());
            let full_epochs = (1.0 / keep_ratio).floor() as u64;
            for held in &stream.windows {
                let pool = held.failed.iter().filter(|f| f.is_none()).count();
                let mut times = vec![0; 500];
                for epoch in 0..3 * full_epochs {
                    for row in kept(&selector, held, epoch) {
                        times[row] += 1;
                    }
                    if epoch + 1 == full_epochs {
                        assert!(times.iter().all(|&t| t <= 1), "{policy:?}");
                    }
                    // From then on, nobody is seen twice more often than another of the run; one
                    // round is over after 1 / keep_ratio epochs, rounded up.
                    if epoch >= full_epochs {
                        let usable = (0..500).filter(|&i| held.failed[i].is_none());
                        assert_eq!(usable.filter(|&i| times[i] > 0).count(), pool, "{policy:?}");
                    }
                }
                let usable: Vec<i32> =
                    (0..500).filter(|&i| held.failed[i].is_none()).map(|i| times[i]).collect();
                let (least, most) = (usable.iter().min().unwrap(), usable.iter().max().unwrap());
                assert!(most - least <= 1, "{policy:?}: {least} to {most}");
            }
        }
    }
}

#[test]
fn rotation_goes_on_where_the_ratio_changes() {
    let stream = stream(150, 2, 500, 0.05, 3);
    let ratios = [(2, 0.3), (3, 1.0), (5, 0.1), (9, 0.45)];
    for policy in policies()
        .into_iter()
        .filter(|p| !matches!(p.quota(), Quota::Tempered(_)) && p.selection.dedup.is_none())
    {
        let policy = policy.but(|selection| {
            selection.keep_ratio = Some([vec![(0, 0.07)], ratios.to_vec()].concat().into());
            selection.rotate = true;
        });
        let gate = policy.gate().share().unwrap_or(1.0);
        let rate = |epoch| match epoch {
            0..2 => 0.07 / gate,
            2 => 0.3 / gate,
            3..5 => 1.0,
            5..9 => 0.1 / gate,
            _ => 0.45 / gate,
        };
        let selector = selector(&stream, policy.clone());
        for held in &stream.windows {
            let pool: Vec<usize> = (0..500)
                .filter(|&i| held.failed[i].is_none() && f64::from(held.signals.alignment[i]) >= 1.0 - gate)
                .collect();
            let (mut times, mut covered) = (vec![0; 500], 0.0);
            for epoch in 0..30 {
                kept(&selector, held, epoch).into_iter().for_each(|row| times[row] += 1);
                covered += rate(epoch);
                let own = |&i: &usize| times[i];
                let (least, most) = (pool.iter().map(own).min(), pool.iter().map(own).max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{policy:?}, epoch {epoch}: {times:?}");
                // So long as the circle was not gone round once more, nobody comes once more.
                let turns = f64::ceil(covered - 1e-9) as i32;
                if policy.priority() == Priority::Uniform {
                    assert!(most.unwrap() <= turns, "{policy:?}, epoch {epoch}");
                }
            }
        }
    }
}

#[test]
fn a_schedule_keeps_what_each_ratio_keeps() {
    let stream = stream(150, 1, 500, 0.1, 3);
    let held = &stream.windows[0];
    let decide = |policy: Policy, epoch| selector(&stream, policy).decide(&held.window(), epoch).unwrap();
    for policy in policies() {
        let scheduled = policy
            .but(|selection| selection.keep_ratio = Some([(0, 0.1), (3, 0.4), (5, 1.0), (6, 0.2)].into()));
        for (epoch, ratio) in [(0, 0.1), (2, 0.1), (3, 0.4), (4, 0.4), (6, 0.2), (99, 0.2)] {
            let alone = decide(
                Policy {
                    selection: Selection { keep_ratio: Some(ratio.into()), ..policy.selection.clone() },
                    ..policy.clone()
                },
                epoch,
            );
            assert_eq!(decide(scheduled.clone(), epoch), alone, "{policy:?}, epoch {epoch}");
        }
        for (row, outcome) in decide(scheduled, 5).into_iter().enumerate() {
            let expected = held.failed[row].map_or(Outcome::Kept { pi: Some(1.0) }, Outcome::Failed);
            assert_eq!(outcome, expected, "{policy:?}");
        }
    }
}

#[test]
fn rotation_keeps_each_sample_as_often_as_its_rate_says() {
    let stream = stream(150, 2, 500, 0.05, 3);
    let policy = Policy {
        selection: Selection { quota: Some(Quota::Tempered(0.3)), rotate: true, ..Selection::default() },
        ..Policy::default()
    };
    let rates = Rates::solve(&policy, Some(&stream.clusters)).unwrap();
    let selector = selector(&stream, policy);
    for held in &stream.windows {
        let mut times = vec![0; 500];
        for epoch in 1..30 {
            kept(&selector, held, epoch - 1).into_iter().for_each(|row| times[row] += 1);
            for row in (0..500).filter(|&row| held.failed[row].is_none()) {
                let expected = epoch as f64 * rates.rate(held.signals.cluster[row]).value();
                let off = (f64::from(times[row]) - expected).abs();
                assert!(off < 1.0 + 1e-9, "row {row}, {epoch} epochs: {} for {expected}", times[row]);
            }
        }
    }
}

#[test]
fn without_rotation_every_epoch_is_the_same() {
    let stream = stream(150, 1, 500, 0.0, 3);
    for policy in policies() {
        let selector = selector(&stream, policy);
        assert_eq!(kept(&selector, &stream.windows[0], 0), kept(&selector, &stream.windows[0], 5));
    }
}

#[test]
fn near_copies_lose_to_the_smallest_hash() {
    let mut stream = stream(20, 1, 400, 0.0, 8);
    // Groups of four copies, the second half of the window repeating the first.
    let held = &mut stream.windows[0];
    for row in 0..400 {
        let source = held.signals.embedding.row(row % 100).to_owned();
        held.signals.embedding.row_mut(row).assign(&source);
    }
    let policy = Policy {
        selection: Selection { keep_ratio: Some(1.0.into()), dedup: Some(0.99), ..Selection::default() },
        ..Policy::default()
    };
    let outcomes = selector(&stream, policy).decide(&stream.windows[0].window(), 0).unwrap();
    for row in 0..100 {
        let group = [row, row + 100, row + 200, row + 300];
        let smallest =
            group.into_iter().min_by_key(|&i| hash(0, Purpose::Candidate, stream.windows[0].ids[i].0));
        for i in group {
            let expected = if Some(i) == smallest {
                Outcome::Kept { pi: Some(1.0) }
            } else {
                Outcome::Dropped(DropReason::Dedup)
            };
            assert_eq!(outcomes[i], expected);
        }
    }
}

#[test]
fn priorities_fill_the_same_counts_by_their_own_order() {
    let mut stream = stream(100, 1, 600, 0.0, 4);
    stream.windows[0].caption_chars[5] = 5000;
    let counts = |priority| {
        let policy = Policy {
            selection: Selection { priority, ..Selection::default() },
            seed: 5,
            ..Policy::default()
        };
        let rows = kept(&selector(&stream, policy), &stream.windows[0], 0);
        let mut counts = vec![0; stream.clusters.run_count()];
        rows.iter().for_each(|&row| counts[run_of(&stream, row) as usize] += 1);
        (rows, counts)
    };
    let (uniform, expected) = counts(Priority::Uniform);
    let (longest, by_length) = counts(Priority::Longest);
    let (diverse, by_distance) = counts(Priority::Diverse);
    assert_eq!((&by_length, &by_distance), (&expected, &expected));
    assert!(uniform != longest && uniform != diverse);
    let (hard, by_score) = counts(Priority::Hard);
    assert_eq!(by_score, expected);
    let (score, by_score) = counts(Priority::Score);
    assert_eq!(by_score, expected);
    let alignment = |row: usize| stream.windows[0].signals.alignment[row];
    let others = |of: &BTreeSet<usize>, row: usize| {
        let of = of.clone();
        (0..600)
            .filter(move |i| !of.contains(i))
            .filter(|&i| run_of(&stream, i) == run_of(&stream, row))
            .collect::<Vec<_>>()
    };
    assert!(hard.iter().all(|&row| others(&hard, row).iter().all(|&i| alignment(i) >= alignment(row))));
    assert!(score.iter().all(|&row| others(&score, row).iter().all(|&i| alignment(i) <= alignment(row))));
    let (every, by_place) = counts(Priority::EveryNth);
    assert_eq!(by_place, expected);
    for run in 0..stream.clusters.run_count() as u32 {
        // In order of cluster and arrival, the gaps between the kept differ by one at most.
        let cluster = |row: usize| stream.windows[0].signals.cluster[row];
        let mut rows: Vec<usize> = (0..600).filter(|&row| run_of(&stream, row) == run).collect();
        rows.sort_by_key(|&row| (cluster(row), row));
        let places: Vec<usize> = (0..rows.len()).filter(|&i| every.contains(&rows[i])).collect();
        let gaps: BTreeSet<usize> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() <= 2 && gaps.last().unwrap_or(&0) - gaps.first().unwrap_or(&0) <= 1, "{gaps:?}");
        assert!(places.first().is_none_or(|&first| first == 0));
    }
    let chars = |row: usize| stream.windows[0].caption_chars[row];
    for &row in &longest {
        let is_dropped =
            (0..600).filter(|i| !longest.contains(i) && run_of(&stream, *i) == run_of(&stream, row));
        assert!(is_dropped.into_iter().all(|i| chars(i) <= chars(row)));
    }
}

/// Alignments of some clusters are better than those of others: the better half of the corpus is not
/// the better half of each.
#[test]
fn a_gate_by_cluster_passes_its_share_of_each() {
    let mut stream = stream(20, 8, 2000, 0.0, 2);
    // In cluster c, uniform from a multiple of 0.05 up, so that the fit's steps meet it.
    let least = |c: usize| (c % 15) as f64 * 0.05;
    let clusters = Arc::make_mut(&mut stream.clusters);
    for c in 0..20 {
        for step in 0..GATE_STEPS {
            let passing = ((1.0 - step as f64 / GATE_STEPS as f64) / (1.0 - least(c))).min(1.0);
            clusters.gated[[c, step]] = clusters.shares[c] * passing;
        }
    }
    for held in &mut stream.windows {
        for (alignment, &cluster) in held.signals.alignment.iter_mut().zip(&held.signals.cluster) {
            let least = least(cluster as usize);
            *alignment = (least + (1.0 - least) * f64::from(*alignment)) as f32;
        }
    }
    for quota in [Quota::Proportional, Quota::Random] {
        let policy = Policy::new(
            Selection {
                gate: Some(Gate::top(0.3).within_cluster()),
                keep_ratio: Some(0.3.into()),
                quota: Some(quota),
                ..Selection::default()
            },
            0,
        );
        let selector = selector(&stream, policy);
        assert!((selector.expected_share(0) - 0.3).abs() < 1e-12);
        let mut counts = vec![(0u32, 0u32); 20];
        for held in &stream.windows {
            let outcomes = selector.decide(&held.window(), 0).unwrap();
            for (outcome, &cluster) in outcomes.iter().zip(&held.signals.cluster) {
                counts[cluster as usize].0 += 1;
                counts[cluster as usize].1 += u32::from(outcome.is_kept());
            }
        }
        for (c, (all, kept)) in counts.into_iter().enumerate() {
            // Binomial, 6 standard deviations: 40 clusters pass with a probability of 1 - 1e-7.
            let bound = 6.0 * (f64::from(all) * 0.3 * 0.7).sqrt();
            assert!((f64::from(kept) - 0.3 * f64::from(all)).abs() <= bound, "cluster {c}: {kept} of {all}");
        }
    }
}

fn run_of(stream: &Stream, row: usize) -> u32 {
    stream.clusters.runs[stream.windows[0].signals.cluster[row] as usize]
}

#[test]
fn diverse_keeps_one_of_each_group_of_copies() {
    let mut stream = stream(1, 1, 200, 0.0, 8);
    let held = &mut stream.windows[0];
    for row in 0..200 {
        let source = held.signals.embedding.row(row % 50).to_owned();
        held.signals.embedding.row_mut(row).assign(&source);
    }
    let policy = Policy {
        selection: Selection { priority: Priority::Diverse, ..Selection::default() },
        ..Policy::default()
    };
    let rows = kept(&selector(&stream, policy), &stream.windows[0], 0);
    let distinct: BTreeSet<usize> = rows.iter().map(|row| row % 50).collect();
    assert_eq!(distinct.len(), rows.len().min(50));
}

#[test]
fn unusable_options_are_named_at_construction() {
    let stream = stream(10, 1, 10, 0.0, 1);
    let some = || Some(Arc::clone(&stream.clusters));
    let random = Policy {
        selection: Selection { quota: Some(Quota::Random), ..Selection::default() },
        ..Policy::default()
    };
    let with = |change: fn(&mut Selection)| random.but(change);
    let cases = [
        (
            with(|p| p.keep_ratio = Some(0.0.into())),
            some(),
            "invalid keep_ratio=0: expected a number in (0, 1]",
        ),
        (
            with(|p| p.keep_ratio = Some(1.5.into())),
            some(),
            "invalid keep_ratio=1.5: expected a number in (0, 1]",
        ),
        (
            with(|p| p.keep_ratio = Some(f64::NAN.into())),
            some(),
            "invalid keep_ratio=NaN: expected a number in (0, 1]",
        ),
        (
            with(|p| (p.gate, p.keep_ratio) = (Some(Gate::top(0.5)), Some([(0, 0.25), (7, 0.6)].into()))),
            some(),
            "invalid keep_ratio=0.6 (from epoch 7 on): expected at most 0.5, the share that gate=top(0.5)",
        ),
        (
            with(|p| (p.quota, p.keep_ratio) = (Some(Quota::CapAt(3)), Some([(0, 0.25), (7, 0.6)].into()))),
            some(),
            "invalid keep_ratio={0: 0.25, 7: 0.6}: it has no effect with quota=cap(samples)",
        ),
        (with(|p| p.keep_ratio = Some([(0, 0.25), (0, 0.5)].into())), some(), "names each epoch once"),
        (
            with(|p| p.gate = Some(Gate::top(0.0))),
            some(),
            "invalid gate=top(0): expected top(SHARE) with a share in (0, 1]",
        ),
        (with(|p| p.dedup = Some(2.0)), some(), "invalid dedup=2: expected a cosine in (0, 1]"),
        (
            with(|p| p.gate = Some(Gate::top(0.2))),
            some(),
            "invalid keep_ratio=0.25: expected at most 0.2, the share that gate=top(0.2)",
        ),
        (
            with(|p| p.gate = Some(Gate::top(0.5))),
            None,
            "invalid gate=top(0.5): expected a captioner directory with clusters",
        ),
        (
            with(|p| p.dedup = Some(0.9)),
            None,
            "invalid dedup=0.9: expected a captioner directory with clusters",
        ),
        (
            with(|p| p.priority = Priority::Diverse),
            None,
            "invalid priority=diverse: expected a captioner directory",
        ),
        (
            with(|p| p.quota = Some(Quota::Proportional)),
            None,
            "invalid quota=proportional: expected a captioner directory",
        ),
    ];
    for (policy, clusters, message) in cases {
        let error = Selector::new(policy, clusters).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn windows_that_do_not_fit_are_errors() {
    let stream = stream(10, 1, 20, 0.0, 2);
    let held = &stream.windows[0];
    let decide = |window: Window<'_>| {
        selector(
            &stream,
            Policy { selection: Selection { dedup: Some(0.9), ..Selection::default() }, ..Policy::default() },
        )
        .decide(&window, 0)
    };
    let error = |window: Window<'_>| decide(window).unwrap_err().to_string();
    assert!(error(Window { signals: None, ..held.window() }).contains("signals of a window"));
    assert!(error(Window { failed: &held.failed[1..], ..held.window() }).contains("failed of a window"));
    let mut signals = held.signals.clone();
    signals.cluster[7] = 10;
    let found = error(Window { signals: Some(&signals), ..held.window() });
    assert!(found.contains("a number below 10") && found.contains("found 10"), "{found}");
    let mut signals = held.signals.clone();
    signals.embedding = Array2::zeros((3, 2));
    assert!(error(Window { signals: Some(&signals), ..held.window() }).contains("signals.embedding"));
    let nothing: [SampleId; 0] = [];
    let empty = Window {
        id: 0,
        ids: &nothing,
        failed: &[],
        caption_chars: &[],
        signals: None,
        judged: None,
        scores: None,
    };
    let random = Policy {
        selection: Selection { quota: Some(Quota::Random), ..Selection::default() },
        ..Policy::default()
    };
    let selector = Selector::new(random, None).unwrap();
    assert!(!selector.needs_signals() && selector.decide(&empty, 0).unwrap().is_empty());
}

#[test]
fn needs_follow_from_the_policy() {
    let stream = stream(10, 1, 20, 0.0, 2);
    let needs = |policy| {
        let selector = selector(&stream, policy);
        (selector.needs_signals(), selector.needs_embedding())
    };
    let random = || Policy {
        selection: Selection { quota: Some(Quota::Random), ..Selection::default() },
        ..Policy::default()
    };
    assert_eq!(needs(Policy::default()), (true, false));
    assert_eq!(needs(random()), (false, false));
    assert_eq!(
        needs(Policy {
            selection: Selection { gate: Some(Gate::top(0.5)), ..random().selection.clone() },
            ..random()
        }),
        (true, false)
    );
    assert_eq!(
        needs(Policy { selection: Selection { dedup: Some(0.5), ..random().selection.clone() }, ..random() }),
        (true, true)
    );
    assert_eq!(
        needs(Policy {
            selection: Selection { priority: Priority::Longest, ..random().selection.clone() },
            ..random()
        }),
        (false, false)
    );
    assert_eq!(
        needs(Policy {
            selection: Selection { priority: Priority::Diverse, ..random().selection.clone() },
            ..random()
        }),
        (true, true)
    );
    assert_eq!(
        needs(Policy {
            selection: Selection { priority: Priority::Hard, ..random().selection.clone() },
            ..random()
        }),
        (true, false)
    );
}

#[test]
fn every_option_is_in_the_fingerprint() {
    let stream = stream(10, 1, 20, 0.0, 2);
    let base = Policy {
        selection: Selection { gate: Some(Gate::top(0.9)), ..Selection::default() },
        ..Policy::default()
    };
    let changes: [fn(&mut Selection); 12] = [
        |_| (),
        |p| p.keep_ratio = Some([(0, 0.25), (3, 0.3)].into()),
        |p| p.keep_ratio = Some([(0, 0.25), (4, 0.3)].into()),
        |p| p.keep_ratio = Some([(0, 0.25), (3, 0.3), (4, 0.4)].into()),
        |p| p.keep_ratio = Some(0.3.into()),
        |p| p.gate = Some(Gate::OFF),
        |p| p.gate = Some(Gate::top(0.9).within_cluster()),
        |p| p.priority = Priority::Hard,
        |p| p.dedup = Some(0.9),
        |p| p.quota = Some(Quota::Random),
        |p| p.priority = Priority::Longest,
        |p| p.rotate = true,
    ];
    let fingerprints: BTreeSet<u64> = changes
        .iter()
        .map(|change| base.but(change))
        .chain([Policy { seed: 1, ..base.clone() }])
        .map(|policy| selector(&stream, policy).fingerprint())
        .collect();
    assert_eq!(fingerprints.len(), 13);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn kept_samples_are_nested_in_keep_ratio(a in 0.001..1.0f64, b in 0.001..1.0f64, seed: u64, kind in 0..policies().len()) {
        let stream = stream(60, 1, 250, 0.05, 3);
        let policy = Policy { seed, ..policies()[kind].clone() };
        let most = policy.gate().share().unwrap_or(1.0);
        let rows = |ratio: f64| {
            let policy = Policy { selection: Selection { keep_ratio: Some((ratio * most).into()), ..policy.selection.clone() }, ..policy.clone() };
            kept(&selector(&stream, policy), &stream.windows[0], 0)
        };
        prop_assert!(rows(a.min(b)).is_subset(&rows(a.max(b))));
    }
}
