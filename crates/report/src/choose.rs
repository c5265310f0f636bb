//! Which samples are shown, and where: every list of the page is one of places, until they are read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tldr_loader::config::Priority;
use tldr_loader::jobs::Decisions;
use tldr_loader::select::hash_duplicates;
use tldr_loader::{Result, SampleId};

use crate::draw::{Least, Place, lot, rank};
use crate::gather::{Gathered, OfCluster, Sizes};
use crate::model::{GroupRow, Member, NearFacts};
use crate::page::thousands;

/// Cosine by which near-duplicates are looked for where the policy drops none.
const NEAR: f32 = 0.95;
/// A cluster with fewer usable samples is not shown for its pass rate.
const FEW: u64 = 20;

/// Numbers the samples that are shown, each once.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    numbers: HashMap<Place, usize>,
    pub(crate) places: Vec<Place>,
}

impl Chosen {
    pub(crate) fn number(&mut self, place: Place) -> usize {
        *self.numbers.entry(place).or_insert_with(|| {
            self.places.push(place);
            self.places.len() - 1
        })
    }

    pub(crate) fn list<'a>(&mut self, places: impl Iterator<Item = &'a Place>) -> Vec<usize> {
        places.map(|&place| self.number(place)).collect()
    }
}

/// The clusters that are shown with pictures: the largest, and those with the lowest pass rate.
pub(crate) fn clusters_shown(gathered: &Gathered, sizes: Sizes) -> Vec<u32> {
    let mut by_size: Vec<(&u32, &OfCluster)> = gathered.clusters.iter().collect();
    by_size.sort_by_key(|(cluster, of)| (std::cmp::Reverse(of.funnel.usable), **cluster));
    let largest = sizes.clusters - sizes.clusters / 4;
    let mut shown: Vec<u32> = by_size.iter().take(largest).map(|(cluster, _)| **cluster).collect();
    let passing = |of: &OfCluster| 1.0 - of.funnel.gate as f64 / of.funnel.usable.max(1) as f64;
    let mut rest: Vec<(&u32, &OfCluster)> = by_size.into_iter().skip(largest).collect();
    rest.retain(|(_, of)| of.funnel.usable >= FEW);
    rest.sort_by(|a, b| passing(a.1).total_cmp(&passing(b.1)).then(a.0.cmp(b.0)));
    shown.extend(rest.into_iter().take(sizes.clusters / 4).map(|(cluster, _)| *cluster));
    shown
}

/// The pictures nearest to the middle of each of the clusters: by the mean of the embeddings, or by the bits that most
/// hashes have.
pub(crate) fn nearest(
    decisions: &Decisions,
    gathered: &Gathered,
    shown: &[u32],
    sizes: Sizes,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<BTreeMap<u32, Vec<Place>>> {
    let mut found: BTreeMap<u32, Least<Place>> =
        shown.iter().map(|&cluster| (cluster, Least::new(sizes.of_cluster))).collect();
    let middle = |of: &OfCluster| -> [u64; 4] {
        let mut hash = [0; 4];
        for (bit, &count) in of.bits.iter().enumerate() {
            hash[bit / 64] |= u64::from(2 * u64::from(count) > of.hashed) << (bit % 64);
        }
        hash
    };
    let middles: BTreeMap<u32, [u64; 4]> =
        shown.iter().map(|cluster| (*cluster, middle(&gathered.clusters[cluster]))).collect();
    decisions.each_recorded(
        &mut |key, record| {
            let Some(signals) = &record.signals else { return Ok(()) };
            for row in 0..record.ids.len() {
                if record.failed[row].is_some() || !record.is_encoded(row) {
                    continue;
                }
                let cluster = signals.cluster[row];
                let Some(least) = found.get_mut(&cluster) else { continue };
                let (of, hash) = (&gathered.clusters[&cluster], signals.semantic_hash[row]);
                let far = if of.embedded > 0 {
                    if signals.embedding.ncols() == 0 {
                        continue;
                    }
                    let pairs = signals.embedding.row(row).into_iter().zip(&of.sum);
                    -rank(
                        pairs.map(|(&value, sum)| f64::from(value) * sum).sum::<f64>() as f32
                            / of.embedded as f32,
                    )
                } else if hash == [0; 4] {
                    continue;
                } else {
                    i64::from(
                        hash.iter().zip(&middles[&cluster]).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(),
                    )
                };
                let place = Place { shard: key.shard, window: key.window, row };
                least.offer(far, lot(seed, "nearest", record.ids[row]), || place);
            }
            Ok(())
        },
        progress,
    )?;
    Ok(found.into_iter().map(|(cluster, least)| (cluster, least.into_values().collect())).collect())
}

/// Row of a sample in its window.
fn place_of(decisions: &Decisions, (shard, window, id): (u64, u64, SampleId)) -> Option<Place> {
    let record = decisions.record(shard, window)?;
    record.ids.iter().position(|&own| own == id).map(|row| Place { shard, window, row })
}

/// The groups of near-duplicates: those that the policy dropped, or those that a deduplication would drop.
pub(crate) fn near(
    decisions: &Decisions,
    gathered: &Gathered,
    sizes: Sizes,
    chosen: &mut Chosen,
) -> NearFacts {
    match decisions.policy().and_then(|policy| policy.selection.dedup) {
        Some(cosine) => dropped(decisions, gathered, cosine, sizes, chosen),
        None => searched(decisions, gathered, sizes, chosen),
    }
}

fn dropped(
    decisions: &Decisions,
    gathered: &Gathered,
    cosine: f32,
    sizes: Sizes,
    chosen: &mut Chosen,
) -> NearFacts {
    let mut facts = NearFacts { is_on: true, ..NearFacts::default() };
    // What fell to one keeper is one group, wherever it lies.
    let mut seen = HashSet::new();
    for (kind, across) in ["sources", "shards", "shard"].into_iter().enumerate() {
        for (drawn, group) in &gathered.groups[kind] {
            if facts.groups.len() == sizes.groups {
                break;
            }
            let Some(keeper) = place_of(decisions, group.keeper).filter(|_| seen.insert(*drawn)) else {
                continue;
            };
            let keeper = chosen.number(keeper);
            let of_all = gathered.groups[kind..].iter().filter_map(|groups| groups.get(drawn));
            let places = of_all.flat_map(|group| group.members.values()).take(sizes.of_group);
            let member = |sample| Member { sample, bits: None, cosine: None };
            let members = chosen.list(places).into_iter().map(member).collect();
            let size = gathered.fallen.get(drawn).copied().unwrap_or_default();
            facts.groups.push(GroupRow { keeper, members, size, across });
        }
    }
    let bits = decisions.fates().map(|fates| fates.distance());
    let how = match (bits, by_embeddings(decisions, gathered)) {
        (Some(bits), true) => format!(
            "in the whole corpus, by a cosine of {cosine} or more of the embeddings, among those whose semantic hashes \
             differ in at most {bits} of 256 bits"
        ),
        (None, _) => format!("within each window, by a cosine of {cosine} or more of the embeddings"),
        (Some(bits), false) => format!(
            "in the whole corpus, by semantic hashes that differ in at most {bits} of 256 bits (a cosine of about {cosine})"
        ),
    };
    // As `select::plan` and `select::dedup` go about it.
    let stays = match (bits, decisions.policy().map(|policy| policy.priority())) {
        (None, _) => {
            "Neither picture nor caption decides which of them stays: in the order of the hashes of their ids"
        }
        (Some(_), None | Some(Priority::Uniform)) => {
            "Neither picture nor caption decides which of them stays: in the order of the draw that fills the quota"
        }
        (Some(_), Some(_)) => "Which of them stays goes by the priority, then by the draw: in that order",
    };
    facts.sentence = format!(
        "{} near-duplicates are dropped, {how}. {stays}, each one goes that is near to one before it that stays. {}",
        thousands(gathered.funnel.dedup),
        shown(gathered, facts.groups.len(), gathered.fallen.len())
    );
    facts
}

/// How many of the groups are shown, and in which order.
fn shown(gathered: &Gathered, shown: usize, of: usize) -> String {
    let groups = match shown == of {
        true if of == 1 => "The one group is shown".into(),
        true => format!("All {} groups are shown", thousands(of as u64)),
        false => format!("{} of {} groups are shown, drawn at random", shown, thousands(of as u64)),
    };
    let order = match (gathered.sources.len() > 1, gathered.shards.len() > 1) {
        (true, _) => {
            "those across sources first, then those across shards; of each kind the least certain first"
        }
        (false, true) => "those across shards first; of each kind the least certain first",
        (false, false) => "the least certain first",
    };
    match shown {
        0 | 1 => format!("{groups}."),
        _ => format!("{groups}: {order}."),
    }
}

/// Whether the plan looked at embeddings, as its near-duplicates tell.
fn by_embeddings(decisions: &Decisions, gathered: &Gathered) -> bool {
    let first =
        gathered.groups.iter().flat_map(BTreeMap::values).flat_map(|group| group.members.values()).next();
    first.zip(decisions.fates()).is_some_and(|(place, fates)| {
        let record = decisions.record(place.shard, place.window);
        let id = record.and_then(|record| record.ids.get(place.row).copied());
        let fate = id.and_then(|id| fates.of(place.shard, place.window, id));
        fate.and_then(|fate| fate.duplicate?.cosine).is_some()
    })
}

fn searched(decisions: &Decisions, gathered: &Gathered, sizes: Sizes, chosen: &mut Chosen) -> NearFacts {
    let drawn: Vec<&(Place, [u64; 4])> = gathered.hashes.values().collect();
    let hashes: Vec<[u64; 4]> = drawn.iter().map(|(_, hash)| *hash).collect();
    let (found, distance) = hash_duplicates(&hashes, NEAR);
    let mut groups: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    let mut near = 0;
    for (at, (keeper, bits)) in
        found.iter().enumerate().filter_map(|(at, found)| Some((at as u32, (*found)?)))
    {
        groups.entry(keeper).or_default().push((at, bits));
        near += 1;
    }
    let source = |place: &Place| decisions.name(place.shard).map(|(source, _)| source.to_owned());
    let across = |keeper: &Place, members: &[(u32, u32)]| {
        let places = || members.iter().map(|(at, _)| &drawn[*at as usize].0);
        match () {
            () if places().any(|place| source(place) != source(keeper)) => (0, "sources"),
            () if places().any(|place| place.shard != keeper.shard) => (1, "shards"),
            () => (2, "shard"),
        }
    };
    let mut ranked: Vec<((u8, &'static str), u32)> = groups
        .iter()
        .map(|(&keeper, members)| (across(&drawn[keeper as usize].0, members), keeper))
        .collect();
    // Candidates came by lot, so their numbers are one.
    ranked.sort_unstable();
    let mut facts = NearFacts::default();
    for ((_, across), keeper) in ranked.into_iter().take(sizes.groups) {
        let members = &groups[&keeper];
        let mut nearest = members.clone();
        nearest.sort_by_key(|(at, bits)| (*bits, *at));
        let rows = nearest.iter().take(sizes.of_group).map(|&(at, bits)| Member {
            sample: chosen.number(drawn[at as usize].0),
            bits: Some(bits),
            cosine: None,
        });
        let members_shown = rows.collect();
        let keeper = chosen.number(drawn[keeper as usize].0);
        facts.groups.push(GroupRow { keeper, members: members_shown, size: members.len() as u64, across });
    }
    let of = match hashes.len() as u64 == gathered.funnel.usable {
        true => format!("all {} usable samples", thousands(hashes.len() as u64)),
        false => {
            let drawn = thousands(hashes.len() as u64);
            format!("{drawn} usable samples with a semantic hash, drawn at random,")
        }
    };
    facts.sentence = format!(
        "Near-duplicates stay: dedup is off. Of {of} dedup={NEAR} would drop {} (hashes that differ in at most \
         {distance} of 256 bits). Which of them would stay is drawn. {}",
        thousands(near),
        shown(gathered, facts.groups.len(), groups.len())
    );
    facts
}

/// The shards that are listed: all, or those with the lowest and the highest share of kept samples.
pub(crate) fn shards_shown(gathered: &Gathered, most: usize) -> Vec<(String, String)> {
    let share = |name: &(String, String)| {
        let funnel = &gathered.shards[name];
        funnel.kept as f64 / funnel.usable.max(1) as f64
    };
    let mut names: Vec<&(String, String)> = gathered.shards.keys().collect();
    if names.len() <= most {
        return names.into_iter().cloned().collect();
    }
    names.sort_by(|a, b| share(a).total_cmp(&share(b)).then(a.cmp(b)));
    let ends: BTreeSet<&(String, String)> =
        names.iter().take(most / 2).chain(names.iter().rev().take(most / 2)).copied().collect();
    ends.into_iter().cloned().collect()
}
