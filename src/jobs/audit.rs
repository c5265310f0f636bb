//! Checks the promises of selection on the signals of a real ledger.
//!
//! The policy is run over recorded windows again and again, each time with another seed, and the
//! samples that it keeps are compared with the rates that it states. For a group of candidates (a
//! tenth of the stream, of the windows' positions, or of the clusters by size) let x be the number
//! kept less the sum of their rates. An unbiased rule has mean 0 in each group, and seeds are
//! independent replicates of the whole design; so with S the covariance of x over n seeds,
//! T² = n mean' S⁻¹ mean is Hotelling's statistic, about a chi-square with as many degrees of freedom
//! as groups, whatever the dependence within a seed. That variance is the design's own, which is far
//! below that of independent draws.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cluster::{Clusters, GateWorth};
use crate::config::{Gate, Priority, Quota};
use crate::error::{Error, Result};
use crate::hash::{self, Purpose};
use crate::jobs::recorded::{Recorded, Wanted, included, window_of};
use crate::ledger::{CorpusScores, WindowKey, WindowRecord};
use crate::sample::{DropReason, Outcome};
use crate::select::gate::GateRule;
use crate::select::{Policy, Rates, Selector};

/// Groups of each chi-square.
const GROUPS: usize = 10;
/// Standard deviations that T² may lie above its mean: with 400 seeds it does so in one audit in
/// 3,000.
const DEVIATIONS: f64 = 6.0;
/// Fewest seeds whose covariance of ten groups is good enough for the bound.
const MIN_SEEDS: u64 = 200;
/// Samples by which a run of a window may be off its expectation (docs/selection.md).
const RUN_OFF: f64 = 3.0;
/// Epochs of rotation that are looked at, at most.
const EPOCHS: u64 = 12;

/// What to audit.
#[derive(Debug, Clone)]
pub struct AuditJob {
    /// Folder of the ledger.
    pub ledger: PathBuf,
    /// Which of its recordings is meant.
    pub wanted: Wanted,
    /// The policy; its seed is the first of those that are tried.
    pub policy: Policy,
    /// Seeds that are tried.
    pub seeds: u64,
    /// Windows that are looked at, drawn by hash; all where there are fewer.
    pub windows: usize,
}

impl AuditJob {
    /// The defaults for a ledger and a policy: 400 seeds, 64 windows.
    pub fn new(ledger: impl Into<PathBuf>, policy: Policy) -> Self {
        Self { ledger: ledger.into(), wanted: Wanted::default(), policy, seeds: 400, windows: 64 }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What is promised.
    pub promise: String,
    /// What was found.
    pub found: String,
    /// What is accepted.
    pub accepted: String,
    /// Whether it holds; `None` where it is for information, or does not apply.
    pub holds: Option<bool>,
}

/// The checks of a ledger. [`Display`](fmt::Display) writes them as a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// What is audited, what is not, and what is known of that: lines that stand above the checks.
    pub scope: Vec<String>,
    /// In order.
    pub checks: Vec<Check>,
}

impl Audit {
    /// Promises that do not hold.
    pub fn broken(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.holds == Some(false))
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = [|c: &Check| c.promise.len(), |c: &Check| c.found.len(), |c: &Check| c.accepted.len()]
            .map(|len| self.checks.iter().map(len).max().unwrap_or(0));
        self.scope.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for check in &self.checks {
            let Check { promise, found, accepted, holds } = check;
            let verdict = match holds {
                Some(true) => "holds",
                Some(false) => "BROKEN",
                None => "-",
            };
            let [a, b, c] = widths;
            writeln!(f, "{promise:<a$}  {found:<b$}  {accepted:<c$}  {verdict}")?;
        }
        Ok(())
    }
}

/// Runs the job. Without `clusters` the policy may only look at scores that the corpus has. `progress(done, total)` is called
/// with seeds.
///
/// # Errors
/// Options by name; a ledger that is not there, has several recordings that fit, or no sound window;
/// as [`Selector::new`]. A promise that is broken is no error: see [`Audit::broken`].
pub fn audit(
    job: &AuditJob,
    clusters: Option<&Arc<Clusters>>,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Audit> {
    if job.seeds < MIN_SEEDS {
        return Err(Error::option("seeds", job.seeds, format!("at least {MIN_SEEDS}, for a covariance")));
    }
    if job.windows == 0 {
        return Err(Error::option("windows", 0, "at least 1"));
    }
    let recorded = Recorded::open(&job.ledger, job.wanted)?;
    let mut keys: Vec<WindowKey> = vec![];
    for shard in &recorded.recording.shards {
        keys.extend(shard.windows.iter().map(|&window| recorded.key(shard, window)));
    }
    let of_corpus = keys.len();
    keys.sort_by_key(|key| hash::hash(0, Purpose::Fit, hash::combine(&[key.shard, key.window])));
    keys.truncate(job.windows);
    keys.sort_by_key(|key| (key.shard, key.window));
    let mut windows: Vec<Looked> = vec![];
    for key in keys {
        let Some(record) =
            recorded.window(&key).filter(|record| !record.ids.is_empty() && record.encoded.is_none())
        else {
            continue;
        };
        let field = job.policy.gate().field();
        let scores = field.map(|field| recorded.scores(&key, &record, field)).transpose()?;
        windows.push((key, record, scores));
    }
    let samples: u64 = windows.iter().map(|(_, record, _)| record.ids.len() as u64).sum();
    let included: u64 = windows.iter().map(|(_, record, _)| included(record)).sum();
    if samples == 0 {
        let accepted = "a ledger with signals of samples, in some window of all";
        return Err(Error::option("ledger", format!("{:?}", job.ledger.display()), accepted));
    }
    // Seeds are tried in one epoch, and a thinned stream would need signals of what it leaves out.
    let policy = recorded.with_scores(&job.policy)?.but(|selection| {
        selection.keep_ratio = selection.keep_ratio.as_ref().map(|ratio| ratio.first().into());
        selection.thin = false;
    });
    // A cap in samples counts those of the corpus: about as many in each window.
    let policy =
        Policy { corpus: Some((included as f64 / windows.len() as f64 * of_corpus as f64) as u64), ..policy };
    let scope = scope(&policy, clusters.map(|clusters| &**clusters));
    let design = Design { policy, clusters, windows };
    let rule = |policy: &Policy, epoch: u64| -> Result<Vec<Vec<Outcome>>> {
        let selector = Selector::new(policy.clone(), clusters.map(Arc::clone))?;
        let windows = design.windows.iter().map(|(key, record, scores)| {
            selector.decide(&window_of(key, record, scores.as_deref(), &selector)?, epoch)
        });
        windows.collect()
    };
    let mut checks = vec![Check {
        promise: "windows looked at".into(),
        found: format!("{} of {of_corpus}, {samples} samples", design.windows.len()),
        accepted: "any".into(),
        holds: None,
    }];
    checks.extend(design.checks(&rule, job.seeds, progress)?);
    Ok(Audit { scope, checks })
}

/// What an audit can say of a policy, and what it cannot.
fn scope(policy: &Policy, clusters: Option<&Clusters>) -> Vec<String> {
    let audited = "audited: the sampling, whether samples are drawn as the policy says";
    if *policy.gate() == Gate::OFF {
        return vec![format!("{audited}; there is no gate")];
    }
    let mut lines =
        vec![format!("{audited}; not audited: what the gate is worth, whether what it drops is bad")];
    if policy.gate().is_by_alignment() {
        let worth = clusters.and_then(|clusters| clusters.worth);
        lines.push(format!("gate: {}", GateWorth::sentence(worth.as_ref())));
        lines.extend(worth.and_then(|worth| worth.warning()).map(|text| format!("warning: {text}")));
    }
    lines
}

/// A rule: what becomes of each sample of each window, by policy and epoch.
type Rule<'a> = dyn Fn(&Policy, u64) -> Result<Vec<Vec<Outcome>>> + 'a;

/// A recorded window, with the scores of the corpus where the policy looks at them.
type Looked = (WindowKey, Arc<WindowRecord>, Option<CorpusScores>);

/// Recorded windows and a policy.
struct Design<'a> {
    policy: Policy,
    clusters: Option<&'a Arc<Clusters>>,
    windows: Vec<Looked>,
}

impl Design<'_> {
    fn checks(
        &self,
        rule: &Rule<'_>,
        seeds: u64,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Vec<Check>> {
        let rates = Rates::solve(&self.policy, self.clusters.map(|clusters| &**clusters))?;
        let outcomes = rule(&self.policy, 0)?;
        let mut checks = vec![self.share(&outcomes, &rates), self.gate(&outcomes)];
        let uniform = self.policy.priority() == Priority::Uniform;
        if !uniform {
            checks.push(Check {
                promise: "inclusion is pi".into(),
                found: "the priority depends on the sample".into(),
                accepted: "no pi is stated".into(),
                holds: None,
            });
            return Ok(checks);
        }
        checks.extend(self.unbiased(rule, &rates, seeds, progress)?);
        checks.push(self.nested(rule)?);
        checks.push(self.rotating(rule, &rates)?);
        Ok(checks)
    }

    /// The rate of a sample; 0 where a policy of other clusters would be needed.
    fn rate(&self, rates: &Rates, record: &WindowRecord, row: usize) -> f64 {
        rates.rate(self.cluster(record, row)).value()
    }

    fn cluster(&self, record: &WindowRecord, row: usize) -> u32 {
        match &record.signals {
            Some(signals) if self.policy.quota().is_by_cluster() => signals.cluster[row],
            _ => 0,
        }
    }

    fn run(&self, cluster: u32) -> u32 {
        if !self.policy.quota().is_by_cluster() {
            return 0;
        }
        self.clusters.and_then(|clusters| clusters.runs.get(cluster as usize)).copied().unwrap_or(0)
    }

    fn share(&self, outcomes: &[Vec<Outcome>], rates: &Rates) -> Check {
        let all = || outcomes.iter().flatten();
        let readable = all().filter(|o| !matches!(o, Outcome::Failed(_))).count();
        let kept = all().filter(|o| o.is_kept()).count();
        Check {
            promise: "share of the readable samples that is kept".into(),
            found: format!("{:.4}", kept as f64 / readable.max(1) as f64),
            accepted: format!("{:.4}, by the shares of the fit; a plan is exact", rates.expected_share()),
            holds: None,
        }
    }

    fn gate(&self, outcomes: &[Vec<Outcome>]) -> Check {
        let all = || outcomes.iter().flatten();
        let readable = all().filter(|o| !matches!(o, Outcome::Failed(_))).count();
        let dropped = all().filter(|o| matches!(o, Outcome::Dropped(DropReason::Gate))).count();
        let expected =
            GateRule::passing(&self.policy, self.clusters.map(|clusters| &**clusters)).iter().sum::<f64>();
        Check {
            promise: "share of them that the gate lets through".into(),
            found: format!("{:.4}", (readable - dropped) as f64 / readable.max(1) as f64),
            accepted: format!(
                "{expected:.4}, by the {}",
                if self.policy.has_scores() { "scores" } else { "fit" }
            ),
            holds: None,
        }
    }

    /// Chi-squares by arrival, position and cluster size; and how far a run is off at the most.
    fn unbiased(
        &self,
        rule: &Rule<'_>,
        rates: &Rates,
        seeds: u64,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Vec<Check>> {
        let groupings = self.groupings();
        let mut samples: [Vec<[f64; GROUPS]>; 3] = Default::default();
        let mut most_off: f64 = 0.0;
        for number in 0..seeds {
            let seed = hash::combine(&[self.policy.seed, number]);
            let policy = Policy { seed, ..self.policy.but(|selection| selection.rotate = false) };
            let mut excess = [[0.0; GROUPS]; 3];
            for ((at, (_, record, _)), outcomes) in self.windows.iter().enumerate().zip(rule(&policy, 0)?) {
                let mut off: BTreeMap<u32, f64> = BTreeMap::new();
                for (row, outcome) in outcomes.into_iter().enumerate() {
                    let kept = match outcome {
                        Outcome::Kept { .. } => 1.0,
                        Outcome::Dropped(DropReason::Quota) => 0.0,
                        Outcome::Dropped(_) | Outcome::Failed(_) => continue,
                    };
                    let beyond = kept - self.rate(rates, record, row);
                    for (excess, groups) in excess.iter_mut().zip(&groupings) {
                        excess[groups[at][row] as usize] += beyond;
                    }
                    *off.entry(self.run(self.cluster(record, row))).or_default() += beyond;
                }
                most_off = off.into_values().fold(most_off, |most, off| most.max(off.abs()));
            }
            samples.iter_mut().zip(excess).for_each(|(samples, excess)| samples.push(excess));
            progress(number + 1, seeds)?;
        }
        let bound = GROUPS as f64 + DEVIATIONS * (2.0 * GROUPS as f64).sqrt();
        let names = ["arrival", "position in the window", "size of the cluster"];
        let mut checks: Vec<Check> = names
            .iter()
            .zip(&samples)
            .map(|(name, samples)| {
                // T² itself exceeds a chi-square where seeds are few: p (n - 1) / (n - p) F(p, n - p).
                let n = samples.len() as f64;
                let found = hotelling(samples) * (n - GROUPS as f64) / (n - 1.0);
                Check {
                    promise: format!("inclusion is pi by {name}"),
                    found: format!("chi-square {found:.1} of {GROUPS} groups, {seeds} seeds"),
                    accepted: format!("at most {bound:.1}"),
                    holds: Some(found <= bound),
                }
            })
            .collect();
        // Evenly spread places bound how far a stretch of one rate is off, not one of several.
        let one_rate = matches!(self.policy.quota(), Quota::Proportional | Quota::Random);
        checks.push(Check {
            promise: "samples that a run of a window is off by".into(),
            found: format!("{most_off:.2} at the most"),
            accepted: if one_rate { format!("at most {RUN_OFF}") } else { "any, where rates differ".into() },
            holds: one_rate.then_some(most_off <= RUN_OFF),
        });
        Ok(checks)
    }

    /// Group of each row of each window: by arrival, by position, and by how many rows its cluster has.
    fn groupings(&self) -> [Vec<Vec<u8>>; 3] {
        let total: usize = self.windows.iter().map(|(_, record, _)| record.ids.len()).sum();
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, record, _) in &self.windows {
            (0..record.ids.len()).for_each(|row| *sizes.entry(self.cluster(record, row)).or_default() += 1);
        }
        // Clusters from the smallest on; each group has about a tenth of the samples, and no cluster
        // is in two unless it is larger than that.
        let mut by_size: Vec<(usize, u32)> = sizes.iter().map(|(&cluster, &n)| (n, cluster)).collect();
        by_size.sort_unstable();
        let mut before = 0;
        let mut group_of = BTreeMap::new();
        for (n, cluster) in by_size {
            group_of.insert(cluster, ((before + n / 2) * GROUPS / total.max(1)).min(GROUPS - 1) as u8);
            before += n;
        }
        let mut arrived = 0;
        let mut groupings: [Vec<Vec<u8>>; 3] = Default::default();
        for (_, record, _) in &self.windows {
            let n = record.ids.len();
            groupings[0].push((arrived..arrived + n).map(|i| (i * GROUPS / total) as u8).collect());
            groupings[1].push((0..n).map(|row| (row * GROUPS / n) as u8).collect());
            groupings[2].push((0..n).map(|row| group_of[&self.cluster(record, row)]).collect());
            arrived += n;
        }
        groupings
    }

    /// Kept samples at half the keep_ratio are kept samples.
    fn nested(&self, rule: &Rule<'_>) -> Result<Check> {
        let whole = self.policy.but(|selection| selection.rotate = false);
        let half = whole.but(|selection| match whole.quota() {
            // Here keep_ratio follows from the cap.
            Quota::CapAt(samples) => selection.quota = Some(Quota::CapAt(samples.div_ceil(2))),
            _ => selection.keep_ratio = Some((whole.keep_ratio() / 2.0).into()),
        });
        let (few, many) = (rule(&half, 0)?, rule(&whole, 0)?);
        let pairs = || few.iter().flatten().zip(many.iter().flatten());
        let kept = pairs().filter(|(few, _)| few.is_kept()).count();
        let lost = pairs().filter(|(few, many)| few.is_kept() && !many.is_kept()).count();
        Ok(Check {
            promise: "kept samples of half the share are kept samples".into(),
            found: format!("{lost} of {kept} are not"),
            accepted: "0".into(),
            holds: Some(lost == 0),
        })
    }

    /// Rotating epochs are disjoint until a cluster's pool is used up.
    fn rotating(&self, rule: &Rule<'_>, rates: &Rates) -> Result<Check> {
        let policy = self.policy.but(|selection| selection.rotate = true);
        let mut times: Vec<Vec<u64>> =
            self.windows.iter().map(|(_, record, _)| vec![0; record.ids.len()]).collect();
        let mut twice = 0;
        for epoch in 0..EPOCHS {
            for ((times, (_, record, _)), outcomes) in
                times.iter_mut().zip(&self.windows).zip(rule(&policy, epoch)?)
            {
                for (row, outcome) in outcomes.into_iter().enumerate() {
                    times[row] += u64::from(outcome.is_kept());
                    // By then the epochs have gone round the pool so many times, or not yet.
                    let rounds =
                        ((epoch + 1) as f64 * self.rate(rates, record, row) - 1e-9).floor() as u64 + 1;
                    twice += u64::from(outcome.is_kept() && times[row] > rounds);
                }
            }
        }
        Ok(Check {
            promise: format!("{EPOCHS} rotating epochs go round the pool in turn"),
            found: format!("{twice} kept before their turn"),
            accepted: "0".into(),
            holds: Some(twice == 0),
        })
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
    // Groups without candidates, or of rules whose counts never vary, have no variance; 1e-6 samples are
    // nothing next to an honest one, and keep the matrix positive definite: no pivoting is needed.
    (0..GROUPS).for_each(|g| matrix[g][g] += 1e-6);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ndarray::Array2;

    use super::*;
    use crate::cluster::{AlignmentNorm, AlignmentTable, GATE_STEPS};
    use crate::config::Selection;
    use crate::hash::Rng;
    use crate::model::Signals;
    use crate::sample::SampleId;

    const CLUSTERS: usize = 60;

    /// Clusters with shares as 1, 2, 3, ...; six to a run.
    fn clusters() -> Arc<Clusters> {
        let total = (CLUSTERS * (CLUSTERS + 1) / 2) as f64;
        let shares: Vec<f64> = (1..=CLUSTERS).map(|rank| rank as f64 / total).collect();
        Arc::new(Clusters {
            idf: vec![1.0],
            centroids: Array2::ones((CLUSTERS, 1)),
            runs: (0..CLUSTERS as u32).map(|cluster| cluster / 6).collect(),
            gated: Array2::from_shape_fn((CLUSTERS, GATE_STEPS), |(c, i)| {
                shares[c] * (1.0 - i as f64 / GATE_STEPS as f64)
            }),
            alignment: AlignmentTable::fit(AlignmentNorm::Sum, &[], 10),
            points: 10_000,
            raw_index: None,
            discriminant: None,
            worth: None,
            trained_on: vec![],
            shares,
        })
    }

    fn windows(clusters: &Clusters, count: u64, n: usize) -> Vec<Looked> {
        let mut rng = Rng::new(1, Purpose::Synth, 0);
        let mut draw = || {
            let u = rng.unit();
            let mut sum = 0.0;
            let cluster = clusters.shares.iter().position(|share| {
                sum += share;
                u < sum
            });
            (SampleId(rng.next_u64()), cluster.unwrap_or(0) as u32, rng.unit() as f32)
        };
        (0..count)
            .map(|window| {
                let rows: Vec<_> = (0..n).map(|_| draw()).collect();
                let record = WindowRecord {
                    ids: rows.iter().map(|row| row.0).collect(),
                    failed: vec![None; n],
                    caption_chars: vec![20; n],
                    signals: Some(Signals {
                        cluster: rows.iter().map(|row| row.1).collect(),
                        alignment: rows.iter().map(|row| row.2).collect(),
                        embedding: Array2::zeros((n, 0)),
                        semantic_hash: vec![[0; 4]; n],
                    }),
                    encoded: None,
                    has_embedding: false,
                    failures: vec![],
                    compute: "".into(),
                    index: None,
                };
                let key = WindowKey { shard: 5, window, size: n, version: 1, scorer: 2, reading: 3 };
                (key, Arc::new(record), None)
            })
            .collect()
    }

    type Outcomes = Vec<Vec<Outcome>>;

    /// The promises that are broken when `change` has been at the outcomes of the rule.
    fn broken(policy: Policy, change: impl Fn(&Design<'_>, &Policy, u64, &mut Outcomes)) -> Vec<String> {
        let clusters = clusters();
        let design = Design { policy, windows: windows(&clusters, 4, 512), clusters: Some(&clusters) };
        let rule = |policy: &Policy, epoch: u64| {
            let selector = Selector::new(policy.clone(), Some(Arc::clone(&clusters)))?;
            let mut outcomes: Outcomes = design
                .windows
                .iter()
                .map(|(key, record, _)| selector.decide(&window_of(key, record, None, &selector)?, epoch))
                .collect::<Result<_>>()?;
            change(&design, policy, epoch, &mut outcomes);
            Ok(outcomes)
        };
        let checks = design.checks(&rule, 200, &mut |_, _| Ok(())).unwrap();
        Audit { scope: vec![], checks }.broken().map(|check| check.promise.clone()).collect()
    }

    fn policy() -> Policy {
        let selection = Selection {
            keep_ratio: Some(0.2.into()),
            gate: Some(Gate::top(0.6)),
            quota: Some(Quota::Proportional),
            ..Selection::default()
        };
        Policy { corpus: Some(4 * 512), ..Policy::new(selection, 1) }
    }

    #[test]
    fn the_rule_holds_for_every_quota() {
        for quota in ["proportional", "cap", "cap(20)", "tempered(0.5)", "random"] {
            let found = broken(
                Policy {
                    selection: Selection {
                        quota: Some(quota.parse().unwrap()),
                        ..policy().selection.clone()
                    },
                    ..policy()
                },
                |_, _, _, _| {},
            );
            assert!(found.is_empty(), "{quota}: {found:?}");
        }
    }

    #[test]
    fn wrong_rules_are_named() {
        let has = |found: &[String], part: &str| found.iter().any(|promise| promise.contains(part));
        // A cluster with candidates always keeps one: the tail is favoured.
        let at_least_one = broken(policy(), |design, _, _, outcomes| {
            for ((_, record, _), outcomes) in design.windows.iter().zip(outcomes) {
                let mut seen: BTreeMap<u32, (bool, usize)> = BTreeMap::new();
                for (row, outcome) in outcomes.iter().enumerate() {
                    if outcome.is_kept() || *outcome == Outcome::Dropped(DropReason::Quota) {
                        let entry = seen.entry(design.cluster(record, row)).or_insert((false, row));
                        entry.0 |= outcome.is_kept();
                    }
                }
                for (_, (kept, row)) in seen {
                    if !kept {
                        outcomes[row] = Outcome::Kept { pi: None };
                    }
                }
            }
        });
        assert!(has(&at_least_one, "size of the cluster"), "{at_least_one:?}");
        // The first rows of a window are favoured, the last ones pay.
        let early = broken(policy(), |_, _, _, outcomes| {
            for outcomes in outcomes {
                let n = outcomes.len();
                let lost = (n * 9 / 10..n).find(|&row| outcomes[row].is_kept());
                let won = (0..n / 10).find(|&row| outcomes[row] == Outcome::Dropped(DropReason::Quota));
                if let (Some(lost), Some(won)) = (lost, won) {
                    outcomes.swap(lost, won);
                }
            }
        });
        assert!(has(&early, "position in the window"), "{early:?}");
        // Random draws: fair, and far off.
        let random = broken(policy(), |design, policy, epoch, outcomes| {
            for ((_, record, _), outcomes) in design.windows.iter().zip(outcomes) {
                for (id, outcome) in record.ids.iter().zip(outcomes) {
                    if outcome.is_kept() || *outcome == Outcome::Dropped(DropReason::Quota) {
                        let seed = hash::combine(&[policy.seed, epoch, policy.keep_ratio().to_bits()]);
                        let kept =
                            hash::unit(hash::hash(seed, Purpose::Fit, id.0)) < policy.keep_ratio() / 0.6;
                        *outcome = if kept {
                            Outcome::Kept { pi: None }
                        } else {
                            Outcome::Dropped(DropReason::Quota)
                        };
                    }
                }
            }
        });
        for part in ["off by", "half the share", "rotating"] {
            assert!(has(&random, part), "{part}: {random:?}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_check() {
        let check = |promise: &str, holds| Check {
            promise: promise.into(),
            found: "0.25".into(),
            accepted: "any".into(),
            holds,
        };
        let audit = Audit {
            scope: vec![],
            checks: vec![check("a long promise", Some(true)), check("b", Some(false))],
        };
        let table = audit.to_string();
        assert_eq!(table, "a long promise  0.25  any  holds\nb               0.25  any  BROKEN\n");
        assert_eq!(audit.broken().count(), 1);
    }
}
