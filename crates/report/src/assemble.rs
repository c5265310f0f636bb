//! Puts the page's data together: counts, then the samples that are shown, read shard by shard.

use std::collections::BTreeMap;

use tldr_loader::Result;
use tldr_loader::cluster::GateWorth;
use tldr_loader::config::{Captions, Source};
use tldr_loader::image::RgbImage;
use tldr_loader::jobs::{Decisions, Explained, NearDuplicate};
use tldr_loader::model::Scorer;
use tldr_loader::text::{self, Evidence, Fuse, is_repetitive};

use crate::choose::{Chosen, clusters_shown, near, nearest, shards_shown};
use crate::draw::Place;
use crate::gather::{Gathered, gather};
use crate::model::{
    CaptionFacts, ClusterRow, EdgeLists, FailureRow, GateFacts, Head, Model, NearFacts, SampleRow, ShardRow,
    SourceRow, Tiles,
};
use crate::pictures::{Decoding, SIDE, Seen, Shards, Wanted};
use crate::scored::swapped;
use crate::sprites::{COLUMNS, ON_A_SHEET};
use crate::words::Counts;
use crate::{ReportJob, ReportStage};

/// Shards that are read at a time: the windows of as many are held.
const AT_A_TIME: usize = 8;
/// Pairs that a scorer scores anew.
const SCORED: usize = 256;
/// Shards that are listed, at most.
const SHARDS: usize = 200;
/// Longest caption on the page, in characters.
const CAPTION_CHARS: usize = 600;
/// Words of a cluster.
const WORDS: usize = 8;

/// The data, the tiles in order, and the pairs of near-duplicates.
pub(crate) struct Assembled {
    pub(crate) model: Model,
    pub(crate) tiles: Vec<RgbImage>,
    pub(crate) pairs: Vec<Explained>,
}

pub(crate) fn assemble(
    job: &ReportJob,
    decisions: &Decisions,
    shards: &Shards,
    scorer: Option<&mut dyn Scorer>,
    progress: &mut dyn FnMut(ReportStage, u64, u64) -> Result<()>,
) -> Result<Assembled> {
    let sizes = job.sizes();
    let gathered =
        gather(decisions, sizes, job.seed, &mut |done, of| progress(ReportStage::Ledger, done, of))?;
    let clusters = clusters_shown(&gathered, sizes);
    let middle = nearest(decisions, &gathered, &clusters, sizes, job.seed, &mut |done, of| {
        progress(ReportStage::Ledger, done, of)
    })?;
    let mut chosen = Chosen::default();
    let browse = chosen.list(gathered.browse.values());
    let edge = EdgeLists {
        above: chosen.list(gathered.edge.above.values()),
        below: chosen.list(gathered.edge.below.values()),
        best: chosen.list(gathered.edge.best.values()),
        worst: chosen.list(gathered.edge.worst.values()),
        random: chosen.list(gathered.edge.random.values()),
    };
    let mut of_clusters: BTreeMap<u32, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for cluster in &clusters {
        let nearest = chosen.list(middle[cluster].iter());
        let random = chosen.list(gathered.clusters[cluster].random.values());
        of_clusters.insert(*cluster, (nearest, random));
    }
    let near = near(decisions, &gathered, sizes, &mut chosen);
    let failures: Vec<FailureRow> = gathered
        .failures
        .iter()
        .map(|(&reason, (count, drawn))| FailureRow {
            reason,
            count: *count,
            shown: chosen.list(drawn.values()),
        })
        .collect();
    let shown = chosen.list(gathered.captioned.values());
    let fuse = &job.captions.fuse;
    let captions =
        CaptionFacts { generated: gathered.captions, fuse: fuse.to_string(), untold: untold(fuse), shown };
    let preview = scorer.as_ref().map(|scorer| (scorer.preview_size(), scorer.preview_filter()));
    let decoding = Decoding { options: job.decode, preview };
    let (explained, seen) = read(decisions, shards, &chosen.places, &decoding, &browse, progress)?;
    let swaps = match scorer {
        Some(scorer) => {
            let pairs: Vec<(Vec<u8>, String)> =
                seen.iter().filter_map(|seen| Some((seen.preview.clone()?, seen.caption.clone()?))).collect();
            swapped(scorer, &pairs)?
        }
        None => None,
    };
    let (near, pairs) = with_pairs(near, &explained);
    let corpus = Counts::of(browse.iter().filter_map(|&at| seen[at].caption.as_deref()));
    let rows = cluster_rows(&gathered, &of_clusters, &corpus, &seen);
    let mut tiles = vec![];
    let samples: Vec<SampleRow> = explained
        .into_iter()
        .zip(seen)
        .map(|(explained, seen)| sample(explained, seen, &job.captions, &mut tiles))
        .collect();
    let listed = shards_shown(&gathered, SHARDS).into_iter().map(|name| {
        let funnel = gathered.shards[&name];
        ShardRow { source: name.0, shard: name.1, funnel }
    });
    let sources =
        gathered.sources.iter().map(|(name, (funnel, _))| SourceRow { name: name.clone(), funnel: *funnel });
    let mut histograms: BTreeMap<String, _> = BTreeMap::new();
    for (name, (_, of)) in &gathered.sources {
        let mut of = of.clone();
        of.score = of.score.trimmed();
        histograms.insert(name.clone(), of);
    }
    let mut head = head(job, decisions);
    head.notes = notes(&gathered, &samples, tiles.len(), job);
    let model = Model {
        version: 1,
        head,
        funnel: gathered.funnel,
        sources: sources.collect(),
        shards: listed.collect(),
        shard_count: gathered.shards.len(),
        histograms,
        edge,
        gate: gate(job, decisions, swaps),
        clusters: rows,
        cluster_distance: if gathered.embeddings {
            "cosine of the embeddings with the cluster's mean"
        } else {
            "bits of the semantic hash, against those that most of the cluster have"
        },
        near,
        captions,
        failures,
        browse,
        samples,
        tiles: Tiles { side: SIDE, columns: COLUMNS, on_a_sheet: ON_A_SHEET, quality: 0 },
    };
    Ok(Assembled { model, tiles, pairs })
}

/// Explains and reads the chosen samples, `[places]`.
fn read(
    decisions: &Decisions,
    shards: &Shards,
    places: &[Place],
    decoding: &Decoding,
    browse: &[usize],
    progress: &mut dyn FnMut(ReportStage, u64, u64) -> Result<()>,
) -> Result<(Vec<Explained>, Vec<Seen>)> {
    let mut by_shard: BTreeMap<u64, BTreeMap<u64, Vec<usize>>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        by_shard.entry(place.shard).or_default().entry(place.window).or_default().push(at);
    }
    let scored: std::collections::HashSet<usize> = browse.iter().take(SCORED).copied().collect();
    let mut found: BTreeMap<usize, (Explained, Seen)> = BTreeMap::new();
    let by_shard: Vec<(u64, BTreeMap<u64, Vec<usize>>)> = by_shard.into_iter().collect();
    for (done, part) in by_shard.chunks(AT_A_TIME).enumerate() {
        let (mut numbers, mut explained, mut wanted) = (vec![], vec![], vec![]);
        for (shard, windows) in part {
            for (&number, rows) in windows {
                let Some(window) = decisions.window(*shard, number)? else { continue };
                for &at in rows {
                    let is_scored = decoding.preview.is_some() && scored.contains(&at);
                    explained.push(window.explained(places[at].row)?);
                    wanted.push(Wanted { place: places[at], record: window.record.clone(), is_scored });
                    numbers.push(at);
                }
            }
        }
        let seen = shards.read(&wanted, decoding);
        found.extend(numbers.into_iter().zip(explained.into_iter().zip(seen)));
        let so_far = (done * AT_A_TIME + part.len()) as u64;
        progress(ReportStage::Pictures, so_far, by_shard.len() as u64)?;
    }
    if found.len() != places.len() {
        let lacking = places.len() - found.len();
        return Err(tldr_loader::Error::ledger(format!(
            "{lacking} samples that were there are gone: is another process changing the ledger?"
        )));
    }
    Ok(found.into_values().unzip())
}

/// The pairs of the groups, with the bits and cosines of those that were dropped.
fn with_pairs(mut near: NearFacts, explained: &[Explained]) -> (NearFacts, Vec<Explained>) {
    let mut pairs = vec![];
    for group in &mut near.groups {
        let keeper = &explained[group.keeper];
        for member in &mut group.members {
            let mut one = explained[member.sample].clone();
            if near.is_on {
                member.bits = one.near.as_ref().and_then(|near| near.bits);
                member.cosine = one.near.as_ref().and_then(|near| near.cosine);
            } else {
                one.near = Some(NearDuplicate {
                    shard: keeper.shard.clone(),
                    key: keeper.key.clone(),
                    id: keeper.id,
                    kept: keeper.outcome == "kept",
                    bits: member.bits,
                    cosine: member.cosine,
                });
            }
            pairs.push(one);
        }
    }
    (near, pairs)
}

fn cluster_rows(
    gathered: &Gathered,
    shown: &BTreeMap<u32, (Vec<usize>, Vec<usize>)>,
    corpus: &Counts,
    seen: &[Seen],
) -> Vec<ClusterRow> {
    let mut rows: Vec<ClusterRow> = gathered
        .clusters
        .iter()
        .map(|(&cluster, of)| {
            let (nearest, random) = shown.get(&cluster).cloned().unwrap_or_default();
            let mut all: Vec<usize> = nearest.iter().chain(&random).copied().collect();
            all.sort_unstable();
            all.dedup();
            let captions: Vec<&str> = all.iter().filter_map(|&at| seen[at].caption.as_deref()).collect();
            let words = Counts::of(captions.iter().copied()).against(corpus, WORDS);
            ClusterRow { cluster, funnel: of.funnel, words, captions: captions.len(), nearest, random }
        })
        .collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.funnel.usable), row.cluster));
    rows
}

/// Why the caption that a sample is trained on cannot be told from the ledger.
fn untold(fuse: &Fuse) -> Option<&'static str> {
    match fuse {
        Fuse::Coin { .. } | Fuse::Mix(_) => Some("it is drawn anew in every epoch"),
        Fuse::Gated { .. } => Some("it depends on a judge, and is drawn anew in every epoch"),
        _ => None,
    }
}

/// The caption that a kept sample is trained on, in full length.
fn trained_on(explained: &Explained, seen: &Seen, captions: &Captions) -> Option<String> {
    let original = seen.caption.as_deref();
    let original = original.filter(|_| explained.outcome == "kept" && untold(&captions.fuse).is_none())?;
    let known = Evidence { alignment: explained.alignment, ..Evidence::default() };
    let generated = explained.caption.as_deref();
    let generated = generated.filter(|caption| !(captions.replace_repetitive && is_repetitive(caption)));
    let of_table =
        |table: &str| seen.others.iter().find(|(name, _)| name == table).map(|(_, text)| text.as_str());
    let other = match captions.fuse.chosen(&known, &|table| of_table(table).is_some()) {
        text::Chosen::Original => None,
        // What needs a generated caption that the ledger does not have is told by the loader that writes it.
        text::Chosen::Generated if explained.caption.is_none() => return None,
        text::Chosen::Generated => generated,
        text::Chosen::Table(table) => of_table(table),
    };
    Some(captions.fuse.fuse(None, captions.context_length, original, other, &known))
}

fn sample(explained: Explained, seen: Seen, captions: &Captions, tiles: &mut Vec<RgbImage>) -> SampleRow {
    let trained_on = trained_on(&explained, &seen, captions).map(cut);
    let tile = seen.tile.map(|tile| {
        let (width, height) = (tile.width, tile.height);
        tiles.push(tile);
        (tiles.len() - 1, width, height)
    });
    SampleRow {
        id: explained.id.to_string(),
        source: explained.source,
        shard: explained.shard,
        key: explained.key,
        outcome: explained.outcome,
        reason: explained.reason,
        sentence: cut(explained.sentence),
        cluster: explained.cluster,
        alignment: explained.alignment,
        score: explained.score,
        pi: explained.pi,
        caption: seen.caption.map(cut),
        generated: explained.caption.map(cut),
        trained_on,
        others: seen.others.into_iter().take(4).map(|(name, text)| (name, cut(text))).collect(),
        size: seen.size,
        tile,
        why: seen.why.map(cut),
    }
}

/// A text of bounded length.
fn cut(text: String) -> String {
    match text.char_indices().nth(CAPTION_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn head(job: &ReportJob, decisions: &Decisions) -> Head {
    let (scorer, reading, window) = decisions.recording();
    let policy = decisions.policy();
    let hex = |number: u64| format!("{number:016x}");
    let decides = match (decisions.plan(), policy) {
        (Some(_), _) => "a plan of the whole corpus",
        (None, Some(_)) => "a policy, window by window, in epoch 0",
        (None, None) => "nothing: no plan and no policy was given, and every usable sample counts as kept",
    };
    let conditions: Vec<String> = job.sources.iter().filter_map(Source::conditions).collect();
    Head {
        version: env!("CARGO_PKG_VERSION"),
        command: job.command.clone(),
        decides: decides.into(),
        scorer: hex(scorer),
        reading: hex(reading),
        policy: policy.map(|policy| hex(policy.fingerprint())),
        plan: decisions.plan().map(|plan| hex(plan.fingerprint())),
        window,
        seed: job.seed,
        settings: policy
            .map(|policy| policy.settings())
            .unwrap_or_default()
            .into_iter()
            .map(|(n, v)| (n.into(), v))
            .collect(),
        conditions: (!conditions.is_empty()).then(|| conditions.join("; ")),
        keep_ratio: policy.map(|policy| policy.keep_ratio()),
        notes: vec![],
    }
}

/// What was sampled, in sentences.
fn notes(gathered: &Gathered, samples: &[SampleRow], tiles: usize, job: &ReportJob) -> Vec<String> {
    let mut notes = vec![format!(
        "Counts and histograms of alignments, scores, caption lengths and pi are of all {} samples of the ledger. Pictures, \
         captions, sizes and words are of {} samples that were drawn with seed {}, {} of them with a picture.",
        gathered.funnel.read,
        samples.len(),
        job.seed,
        tiles
    )];
    let lacking = samples.iter().filter(|sample| sample.tile.is_none() && sample.outcome != "failed").count();
    if lacking > 0 {
        let example = samples.iter().find(|sample| sample.tile.is_none() && sample.outcome != "failed");
        let why = example.and_then(|sample| sample.why.clone()).unwrap_or_default();
        notes.push(format!(
            "{lacking} usable samples are shown without their picture, the first since: {why}"
        ));
    }
    notes
}

fn gate(job: &ReportJob, decisions: &Decisions, swapped: Option<crate::model::Swapped>) -> GateFacts {
    let policy = decisions.policy();
    let field = decisions.score_field();
    let is_by_cluster = decisions.gate().is_by_cluster();
    let least = match policy.and_then(|policy| policy.cut) {
        Some(cut) => cut.least,
        None => decisions.gate().least(0).filter(|_| !is_by_cluster),
    };
    let worth =
        decisions.plan().and_then(|plan| plan.worth).or(job.clusters.as_ref().and_then(|of| of.worth));
    let sentence = match field {
        Some(field) => format!(
            "The gate goes by {field}, a score that the corpus has: look at the pairs above and below the cut to judge it."
        ),
        None => match worth {
            Some(worth) => format!("{worth}."),
            None => "Not measured: whether the scorer tells true captions from swapped ones is not known here. Give the captioner \
                     directory (--captioner), whose fit measured it."
                .into(),
        },
    };
    GateFacts {
        by: field.unwrap_or("alignment").to_owned(),
        text: policy.map_or("none".into(), |policy| policy.gate().to_string()),
        is_on: policy.is_some_and(|policy| {
            policy.has_scores() || policy.gate().share().is_some_and(|share| share < 1.0)
        }),
        least,
        is_by_cluster,
        sentence,
        warning: worth.as_ref().and_then(GateWorth::warning).filter(|_| field.is_none()),
        auc: worth.map(|worth| worth.validation.auc),
        auc_error: worth.map(|worth| worth.validation.auc_error),
        pairs: worth.map(|worth| worth.validation.pairs),
        swapped,
    }
}
