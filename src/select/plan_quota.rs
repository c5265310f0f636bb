//! Exact quotas: how many samples of each cluster a plan keeps.
//!
//! A cluster's share of the slots is what its rate says, min(room, k * n^alpha) with one k for all
//! (the `quota` of a policy, solved with counts in the draw of estimates). Shares are
//! rounded systematically (Madow 1949): with one random start U, cluster c gets the whole numbers in
//! (S, S + share] + U, where S is the sum of the shares before it. So each quota is its share rounded
//! down or up, is its share in expectation, and all of them add up to the total.

use crate::hash::{self, Purpose};

/// Slots in units of 2^-32: sums of them are exact.
const UNIT: f64 = (1u64 << 32) as f64;

/// The shares and quotas of all clusters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quotas {
    /// Slots of each cluster before rounding, `[clusters]`.
    pub(super) shares: Vec<f64>,
    /// Slots of each cluster, `[clusters]`; at most its room.
    pub(super) slots: Vec<u64>,
}

/// Divides `total` slots over clusters in proportion to `weights`, none of which gets more than its
/// `room`; what a full cluster leaves goes to the others in the same proportion (water-filling).
/// Where `total` is more than there is room for, everything is full. O(clusters * log).
pub(super) fn divide(total: u64, weights: &[f64], room: &[u64], seed: u64) -> Quotas {
    let total = total.min(room.iter().sum());
    let mut shares = vec![0.0; room.len()];
    // The clusters whose room is smallest for their weight are full first.
    let mut order: Vec<usize> = (0..room.len()).filter(|&c| room[c] > 0 && weights[c] > 0.0).collect();
    order.sort_by(|&a, &b| {
        (room[a] as f64 / weights[a]).total_cmp(&(room[b] as f64 / weights[b])).then(a.cmp(&b))
    });
    let mut open: f64 = order.iter().map(|&c| weights[c]).sum();
    let mut left = total as f64;
    let mut filled = order.len();
    for (at, &c) in order.iter().enumerate() {
        if left / open * weights[c] < room[c] as f64 {
            filled = at;
            break;
        }
        shares[c] = room[c] as f64;
        left -= shares[c];
        open -= weights[c];
    }
    for &c in &order[filled..] {
        shares[c] = (left / open * weights[c]).clamp(0.0, room[c] as f64);
    }
    let slots = rounded(total, &shares, room, seed);
    Quotas { shares, slots }
}

/// Rounds `shares` systematically to whole numbers that add up to `total`.
fn rounded(total: u64, shares: &[f64], room: &[u64], seed: u64) -> Vec<u64> {
    let mut fixed: Vec<u128> = shares.iter().map(|share| (share * UNIT).round() as u128).collect();
    settle(u128::from(total) << 32, &mut fixed, room);
    let start = u128::from(hash::hash(seed, Purpose::RunStart, hash::hash_str("quotas of a plan")) >> 32);
    let mut sum = start;
    fixed
        .into_iter()
        .map(|share| {
            let before = sum >> 32;
            sum += share;
            ((sum >> 32) - before) as u64
        })
        .collect()
}

/// Moves what floating point is off (millionths of a draw) to the clusters that can take it.
fn settle(total: u128, fixed: &mut [u128], room: &[u64]) {
    let sum: u128 = fixed.iter().sum();
    let (mut lacking, mut excess) = (total.saturating_sub(sum), sum.saturating_sub(total));
    let mut order: Vec<usize> = (0..fixed.len()).collect();
    // The widest first: there it is the smallest part of what is there.
    order.sort_by_key(|&c| (std::cmp::Reverse(room[c]), c));
    for c in order {
        let whole = u128::from(room[c]) << 32;
        // A cluster that is exactly full stays so.
        let can_give = if fixed[c] == whole { 0 } else { fixed[c] };
        let (more, less) = (lacking.min(whole - fixed[c].min(whole)), excess.min(can_give));
        fixed[c] = fixed[c] + more - less;
        lacking -= more;
        excess -= less;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Rng;

    /// Random rooms, some of them 0, with the weights n^alpha of larger counts.
    fn clusters(rng: &mut Rng, count: usize, alpha: f64) -> (Vec<f64>, Vec<u64>) {
        let counts: Vec<u64> = (0..count).map(|_| (rng.unit().powi(4) * 500.0) as u64).collect();
        let room = counts.iter().map(|&n| (n as f64 * rng.range(0.2, 1.0)) as u64).collect();
        (counts.iter().map(|&n| if n == 0 { 0.0 } else { (n as f64).powf(alpha) }).collect(), room)
    }

    #[test]
    fn quotas_add_up_and_are_shares_rounded() {
        let mut rng = Rng::new(0, Purpose::Synth, 1);
        for round in 0..300 {
            let alpha = [1.0, 0.5, 0.0][round % 3];
            let (weights, room) = clusters(&mut rng, 1 + round, alpha);
            let all: u64 = room.iter().sum();
            let total = (all as f64 * rng.unit()) as u64;
            let quotas = divide(total, &weights, &room, round as u64);
            assert_eq!(quotas.slots.iter().sum::<u64>(), total, "round {round}");
            for (c, (&slots, &share)) in quotas.slots.iter().zip(&quotas.shares).enumerate() {
                assert!(slots <= room[c]);
                assert!((slots as f64 - share).abs() < 1.0 + 1e-6, "{slots} for {share}");
                if share == room[c] as f64 {
                    assert_eq!(slots, room[c], "a full cluster is full");
                }
            }
        }
        let full = divide(u64::MAX, &[1.0, 1.0], &[3, 5], 0);
        assert_eq!(full.slots, [3, 5]);
        assert!(divide(3, &[], &[], 0).slots.is_empty());
    }

    /// By bisection on k, which knows nothing of orders.
    #[test]
    fn shares_are_those_of_one_level() {
        let mut rng = Rng::new(0, Purpose::Synth, 2);
        for alpha in [1.0, 0.3, 0.0] {
            let (weights, room) = clusters(&mut rng, 200, alpha);
            let total = room.iter().sum::<u64>() / 3;
            let at = |k: f64| -> Vec<f64> {
                weights.iter().zip(&room).map(|(w, &room)| (k * w).min(room as f64)).collect()
            };
            let (mut low, mut high) = (0.0, 1e9);
            for _ in 0..200 {
                let middle = (low + high) / 2.0;
                if at(middle).iter().sum::<f64>() < total as f64 { low = middle } else { high = middle }
            }
            let shares = divide(total, &weights, &room, 0).shares;
            for (share, expected) in shares.iter().zip(at(low)) {
                assert!((share - expected).abs() < 1e-6, "alpha {alpha}: {share} for {expected}");
            }
        }
    }

    #[test]
    fn rounding_is_fair() {
        // Over n seeds the mean of a share rounded up with probability p has a standard deviation of
        // sqrt(p (1 - p) / n) <= 0.5 / sqrt(n): 5 of them.
        let mut rng = Rng::new(0, Purpose::Synth, 3);
        let (weights, room) = clusters(&mut rng, 60, 1.0);
        let total = room.iter().sum::<u64>() / 4;
        let n = 4000;
        let mut sums = vec![0u64; room.len()];
        for seed in 0..n {
            let quotas = divide(total, &weights, &room, seed);
            sums.iter_mut().zip(quotas.slots).for_each(|(sum, slots)| *sum += slots);
        }
        let shares = divide(total, &weights, &room, 0).shares;
        for (sum, share) in sums.iter().zip(shares) {
            let off = (*sum as f64 / n as f64 - share).abs();
            assert!(off < 5.0 * 0.5 / (n as f64).sqrt(), "{off} from {share}");
        }
    }
}
