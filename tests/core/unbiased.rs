//! The promise "unbiased": inclusion is pi for every group of candidates, whatever its cluster's
//! size and whenever it arrives. The same test rejects the roundings that break the promise.
//!
//! The test. For seed s and group g let x[s, g] be the number of kept candidates of g less pi
//! times their number. Gate and clusters do not depend on the seed, so neither do the groups. An
//! unbiased rule has mean 0 for each g; how far the mean over seeds may be from 0 depends on the
//! variance of the design. That variance is not binomial: v_i = frac(U + i * phi) within a run are
//! strongly (mostly negatively) dependent, so counts vary far less than those of independent
//! draws, and by different amounts for groups that lie in one stretch of a run (clusters) and
//! groups strewn over runs (deciles). But seeds are independent replicates of the entire design
//! (every U and every order within a cluster is drawn anew from the seed), so the covariance over
//! seeds, S, estimates the design's covariance without bias, whatever the dependence inside one
//! seed. Then T² = n * mean' S^-1 mean, Hotelling's statistic, tends to a chi-square with as many
//! degrees of freedom as there are groups (n = 2,000 seeds against 10 groups). With D degrees it
//! has mean D and variance 2 D; the bound is 6 standard deviations above the mean, which a
//! chi-square with 10 degrees exceeds with a probability below 1e-4. Binomial variance in the
//! place of S would hide a bias of totals four times as large.
//!
//! Tenths by arrival are ten lanes. T² takes in every sum of groups, so that what is fair for lanes is fair
//! for the ranks that own them, in every world size that divides ten.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::select_stream::{Stream, stream};
use tldr_loader::config::{Gate, Quota, Selection};
use tldr_loader::hash::{Purpose, Rng, hash};
use tldr_loader::select::{Policy, Rates, Selector};

const GROUPS: usize = 10;

/// One candidate of the stream: passed the gate, usable.
struct Candidate {
    window: usize,
    row: usize,
    cluster: u32,
    id: u64,
}

struct Design {
    stream: Stream,
    policy: Policy,
    /// Where all candidates have one rate: it.
    pi: f64,
    /// Rate of each candidate.
    rates: Vec<f64>,
    candidates: Vec<Candidate>,
    /// Group of each candidate: by size of its cluster, and by place in the stream.
    by_size: Vec<usize>,
    by_arrival: Vec<usize>,
    /// And by place in its window.
    by_position: Vec<usize>,
}

fn design(policy: Policy) -> Design {
    let stream = stream(1000, 4, 1024, 0.02, 1);
    let gate = policy.gate().share().unwrap_or(1.0);
    let mut candidates = Vec::new();
    for (window, held) in stream.windows.iter().enumerate() {
        for row in 0..held.ids.len() {
            if held.failed[row].is_none() && f64::from(held.signals.alignment[row]) >= 1.0 - gate {
                let (cluster, id) = (held.signals.cluster[row], held.ids[row].0);
                candidates.push(Candidate { window, row, cluster, id });
            }
        }
    }
    let n = candidates.len();
    let by_arrival = (0..n).map(|i| i * GROUPS / n).collect();
    // Deciles of candidates, from those in the smallest clusters to those in the largest.
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| {
        let share = |i: usize| stream.clusters.shares[candidates[i].cluster as usize];
        share(a).total_cmp(&share(b))
    });
    let mut by_size = vec![0; n];
    order.iter().enumerate().for_each(|(rank, &i)| by_size[i] = rank * GROUPS / n);
    let by_position =
        candidates.iter().map(|c| c.row * GROUPS / stream.windows[c.window].ids.len()).collect();
    let rates = Rates::solve(&policy, Some(&stream.clusters)).unwrap();
    let rates = candidates.iter().map(|c| rates.rate(c.cluster).value()).collect();
    Design {
        pi: policy.keep_ratio() / gate,
        rates,
        stream,
        policy,
        candidates,
        by_size,
        by_arrival,
        by_position,
    }
}

/// Hotelling's T² of the means of `samples` `[seeds][GROUPS]` against 0.
fn hotelling(samples: &[[f64; GROUPS]]) -> f64 {
    let n = samples.len() as f64;
    let mean: [f64; GROUPS] = std::array::from_fn(|g| samples.iter().map(|x| x[g]).sum::<f64>() / n);
    let mut matrix = [[0.0; GROUPS]; GROUPS];
    for x in samples {
        for (g, row) in matrix.iter_mut().enumerate() {
            for (h, cell) in row.iter_mut().enumerate() {
                *cell += (x[g] - mean[g]) * (x[h] - mean[h]) / (n - 1.0);
            }
        }
    }
    // A rule whose counts do not vary at all (floor) has no covariance to invert; a variance of
    // 1e-6 samples is nothing next to an honest one, which is about 10.
    (0..GROUPS).for_each(|g| matrix[g][g] += 1e-6);
    // Gaussian elimination: a covariance with a ridge is positive definite and needs no pivoting.
    let mut solution = mean;
    for g in 0..GROUPS {
        for h in g + 1..GROUPS {
            let factor = matrix[h][g] / matrix[g][g];
            let pivot = matrix[g];
            matrix[h].iter_mut().zip(pivot).for_each(|(cell, above)| *cell -= factor * above);
            solution[h] -= factor * solution[g];
        }
    }
    for g in (0..GROUPS).rev() {
        let known: f64 = (g + 1..GROUPS).map(|h| matrix[g][h] * solution[h]).sum();
        solution[g] = (solution[g] - known) / matrix[g][g];
    }
    n * mean.iter().zip(solution).map(|(m, s)| m * s).sum::<f64>()
}

/// T² by cluster size, by arrival and by position in the window, for a rule that says of each candidate whether it is kept.
fn chi_squares(design: &Design, seeds: u64, keep: impl Fn(&Design, u64) -> Vec<bool>) -> [f64; 3] {
    let mut samples = [const { Vec::new() }; 3];
    for seed in 0..seeds {
        let mut counts = [[0.0; GROUPS]; 3];
        for (i, kept) in keep(design, seed).into_iter().enumerate() {
            let excess = f64::from(u8::from(kept)) - design.rates[i];
            counts[0][design.by_size[i]] += excess;
            counts[1][design.by_arrival[i]] += excess;
            counts[2][design.by_position[i]] += excess;
        }
        samples.iter_mut().zip(counts).for_each(|(samples, counts)| samples.push(counts));
    }
    samples.map(|samples| hotelling(&samples))
}

fn bound() -> f64 {
    GROUPS as f64 + 6.0 * (2.0 * GROUPS as f64).sqrt()
}

/// The rule under test, in some epoch.
fn selector(epoch: u64) -> impl Fn(&Design, u64) -> Vec<bool> {
    move |design, seed| {
        let policy = Policy { seed, ..design.policy.clone() };
        let selector = Selector::new(policy, Some(design.stream.clusters.clone())).unwrap();
        let outcomes: Vec<_> = design
            .stream
            .windows
            .iter()
            .map(|held| selector.decide(&held.window(), epoch).unwrap())
            .collect();
        design.candidates.iter().map(|c| outcomes[c.window][c.row].is_kept()).collect()
    }
}

/// A rule that keeps, in each cluster of each window, the `count(pi * n)` of smallest hash.
fn rounded(count: fn(f64) -> f64) -> impl Fn(&Design, u64) -> Vec<bool> {
    move |design, seed| {
        let mut cells: BTreeMap<(usize, u32), Vec<usize>> = BTreeMap::new();
        for (i, c) in design.candidates.iter().enumerate() {
            cells.entry((c.window, c.cluster)).or_default().push(i);
        }
        let mut kept = vec![false; design.candidates.len()];
        for mut cell in cells.into_values() {
            cell.sort_by_key(|&i| hash(seed, Purpose::Candidate, design.candidates[i].id));
            let count = count(design.pi * cell.len() as f64) as usize;
            cell.iter().take(count).for_each(|&i| kept[i] = true);
        }
        kept
    }
}

/// Carries each cluster's remainder from sample to sample, from 0: the k-th candidate of a cluster
/// (windows in order of arrival, by hash within one) is kept where floor(pi * k) steps up.
fn carried(random_start: bool) -> impl Fn(&Design, u64) -> Vec<bool> {
    move |design, seed| {
        let mut order: Vec<usize> = (0..design.candidates.len()).collect();
        order.sort_by_key(|&i| {
            let c = &design.candidates[i];
            (c.window, hash(seed, Purpose::Candidate, c.id))
        });
        let mut carry: BTreeMap<u32, f64> = BTreeMap::new();
        let mut kept = vec![false; order.len()];
        for i in order {
            let cluster = design.candidates[i].cluster;
            let start = || {
                if random_start { Rng::new(seed, Purpose::Fit, u64::from(cluster)).unit() } else { 0.0 }
            };
            let carry = carry.entry(cluster).or_insert_with(start);
            *carry += design.pi;
            if *carry >= 1.0 {
                *carry -= 1.0;
                kept[i] = true;
            }
        }
        kept
    }
}

#[test]
fn every_group_is_kept_with_probability_pi() {
    let gated = Policy {
        selection: Selection {
            keep_ratio: Some(0.15.into()),
            gate: Some(Gate::top(0.5)),
            ..Selection::default()
        },
        ..Policy::default()
    };
    for policy in [Policy::default(), gated] {
        let chi = chi_squares(&design(policy.clone()), 2000, selector(0));
        assert!(chi.iter().all(|&x| x < bound()), "{policy:?}: by size, arrival, position {chi:?}");
    }
}

#[test]
fn later_epochs_in_rotation_are_as_fair() {
    let policy = Policy {
        selection: Selection { keep_ratio: Some(0.3.into()), rotate: true, ..Selection::default() },
        ..Policy::default()
    };
    // Epoch 3 takes the last tenth of the pool and begins again.
    let chi = chi_squares(&design(policy), 1000, selector(3));
    assert!(chi.iter().all(|&x| x < bound()), "by size, arrival, position {chi:?}");
}

#[test]
fn a_random_quota_is_as_fair() {
    let policy = Policy {
        selection: Selection { quota: Some(Quota::Random), ..Selection::default() },
        ..Policy::default()
    };
    let chi = chi_squares(&design(policy), 1000, selector(0));
    assert!(chi.iter().all(|&x| x < bound()), "by size, arrival, position {chi:?}");
}

#[test]
fn quotas_with_a_rate_for_each_cluster_are_as_fair() {
    for quota in [Quota::Cap, Quota::CapAt(3), Quota::Tempered(0.5)] {
        let policy = Policy {
            selection: Selection { quota: Some(quota), ..Selection::default() },
            corpus: Some(4 * 1024),
            ..Policy::default()
        };
        let design = design(policy);
        let (least, most) = design.rates.iter().fold((1.0f64, 0.0f64), |(a, b), &r| (a.min(r), b.max(r)));
        assert!(most > 2.0 * least, "{quota}: rates from {least} to {most} would test nothing");
        let chi = chi_squares(&design, 1000, selector(0));
        assert!(chi.iter().all(|&x| x < bound()), "{quota}: by size, arrival, position {chi:?}");
    }
}

#[test]
fn the_test_accepts_another_fair_rule() {
    // So it is not that only the rule under test passes.
    let chi = chi_squares(&design(Policy::default()), 1000, carried(true));
    assert!(chi.iter().all(|&x| x < bound()), "by size, arrival, position {chi:?}");
}

#[test]
fn wrong_roundings_are_rejected() {
    let design = design(Policy::default());
    let rejected = |name: &str, chi: [f64; 3]| {
        assert!(chi.iter().any(|&x| x > 2.0 * bound()), "{name}: by size, arrival, position {chi:?}");
    };
    rejected("floor", chi_squares(&design, 200, rounded(f64::floor)));
    rejected("ceil", chi_squares(&design, 200, rounded(f64::ceil)));
    rejected("round", chi_squares(&design, 200, rounded(f64::round)));
    rejected("at least 1", chi_squares(&design, 200, rounded(|x| x.round().max(1.0))));
    let chi = chi_squares(&design, 200, carried(false));
    rejected("carry without a random start", chi);
    assert!(chi[1] > 2.0 * bound(), "carrying starves the first arrivals: {chi:?}");
}

#[test]
fn small_biases_are_seen_through_honest_variance() {
    // The roundings above have no variance of their own. These start from the fair rule.
    let design = design(Policy::default());
    let at_least_one = |design: &Design, seed: u64| {
        let mut kept = selector(0)(design, seed);
        let mut cells: BTreeMap<(usize, u32), Vec<usize>> = BTreeMap::new();
        for (i, c) in design.candidates.iter().enumerate() {
            cells.entry((c.window, c.cluster)).or_default().push(i);
        }
        for cell in cells.into_values().filter(|cell| cell.len() >= 3) {
            if !cell.iter().any(|&i| kept[i]) {
                kept[cell[0]] = true;
            }
        }
        kept
    };
    let chi = chi_squares(&design, 1000, at_least_one);
    assert!(chi.iter().any(|&x| x > bound()), "at least 1 in clusters of 3 and more: {chi:?}");
    // 3% fewer of the tenth of the candidates with the smallest clusters.
    let starved = |design: &Design, seed: u64| {
        let mut kept = selector(0)(design, seed);
        for (i, kept) in kept.iter_mut().enumerate() {
            let thinned = hash(seed, Purpose::Fit, design.candidates[i].id) % 100 < 3;
            *kept &= design.by_size[i] > 0 || !thinned;
        }
        kept
    };
    let chi = chi_squares(&design, 1000, starved);
    assert!(chi[0] > bound(), "3% of the tail missing: {chi:?}");
}

/// In how many of `batches` of seeds the interval of 95% around the mean of Horvitz-Thompson's totals, sum of
/// y / pi over what is kept, covers the truth. Seeds are replicates of the whole design, so that the variance
/// between them is its own, and the interval that of Student's t with 19 degrees of freedom.
fn coverage(design: &Design, batches: u64, keep: impl Fn(&Design, u64) -> Vec<bool>) -> u64 {
    const REPLICATES: u64 = 20;
    const T: f64 = 2.093;
    // Larger for late arrivals and for small clusters, so that favours for either show.
    let n = design.candidates.len() as f64;
    let y = |i: usize| 1.0 + i as f64 / n + f64::from(u8::from(design.by_size[i] == 0));
    let truth: f64 = (0..design.candidates.len()).map(y).sum();
    let total = |seed: u64| -> f64 {
        let kept = keep(design, seed).into_iter().enumerate().filter(|(_, kept)| *kept);
        kept.map(|(i, _)| y(i) / design.rates[i]).sum()
    };
    let covers = |batch: &u64| {
        let totals: Vec<f64> = (0..REPLICATES).map(|s| total(batch * REPLICATES + s)).collect();
        let mean = totals.iter().sum::<f64>() / REPLICATES as f64;
        let variance = totals.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / (REPLICATES - 1) as f64;
        (mean - truth).abs() <= T * (variance / REPLICATES as f64).sqrt()
    };
    (0..batches).filter(covers).count() as u64
}

#[test]
fn horvitz_thompson_totals_cover_the_truth() {
    // Of 100 intervals 95 cover, with a standard deviation of 2.2; fewer than 85 do with a probability of
    // 5e-5 (binomial).
    for quota in [Quota::Proportional, Quota::Tempered(0.5), Quota::Cap] {
        let design = design(Policy {
            selection: Selection { quota: Some(quota), ..Selection::default() },
            ..Policy::default()
        });
        let covered = coverage(&design, 100, selector(0));
        assert!(covered >= 85, "{quota}: {covered} of 100 intervals cover the truth");
    }
    let covered = coverage(&design(Policy::default()), 20, rounded(|x| x.round().max(1.0)));
    assert!(covered < 10, "at least 1: {covered} of 20 intervals cover what it misses");
}

#[test]
fn counts_vary_far_less_than_random_ones() {
    // 3,000 clusters and a window of 2,048: the totals of independent draws have a standard
    // deviation of sqrt(2048 * 0.25 * 0.75) = 19.6. Here each of 64 runs is off by a fraction.
    let stream = stream(3000, 1, 2048, 0.0, 1);
    let held = &stream.windows[0];
    let clusters = &stream.clusters;
    let mut candidates = vec![0.0; clusters.run_count()];
    held.signals.cluster.iter().for_each(|&c| candidates[clusters.runs[c as usize] as usize] += 1.0);
    let mut totals = Vec::new();
    let mut most_off: f64 = 0.0;
    for seed in 0..500 {
        let selector =
            Selector::new(Policy { seed, ..Policy::default() }, Some(stream.clusters.clone())).unwrap();
        let outcomes = selector.decide(&held.window(), 0).unwrap();
        let mut kept = vec![0.0; candidates.len()];
        for (outcome, &cluster) in outcomes.iter().zip(&held.signals.cluster) {
            kept[clusters.runs[cluster as usize] as usize] += f64::from(u8::from(outcome.is_kept()));
        }
        for (kept, candidates) in kept.iter().zip(&candidates) {
            most_off = most_off.max((kept - 0.25 * candidates).abs());
        }
        totals.push(kept.iter().sum::<f64>());
    }
    let mean = totals.iter().sum::<f64>() / 500.0;
    let sd = (totals.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / 499.0).sqrt();
    assert!(most_off <= 3.0, "a run is off by {most_off}");
    assert!(sd < 0.3 * 19.6, "standard deviation {sd}");
    // The mean of 500 has a standard deviation of sd / sqrt(500) < 0.3: 5 of them.
    assert!((mean - 512.0).abs() < 1.5, "mean {mean}");
}
