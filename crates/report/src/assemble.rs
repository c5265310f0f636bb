//! Puts the page's data together: counts, then the samples that are shown, read shard by shard.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use tldr_loader::Result;
use tldr_loader::cluster::GateWorth;
use tldr_loader::config::Source;
use tldr_loader::image::RgbImage;
use tldr_loader::jobs::{Decisions, Explained, ExportBy, NearDuplicate};
use tldr_loader::model::Scorer;

use crate::captions::Training;
use crate::choose::{Chosen, clusters_shown, near, nearest, shards_shown};
use crate::draw::{Least, Place, rank};
use crate::gather::{Excludes, Funnel, Gathered, gather};
use crate::looked::{Looked, look};
use crate::model::{
    CaptionFacts, ClusterRow, EdgeLists, ExcludedRow, FailureRow, GateFacts, GroupRow, Head, Member, Model,
    NearFacts, SampleRow, ShardRow, SourceRow, Swapped, Tiles,
};
use crate::page::thousands;
use crate::pictures::{Decoding, SIDE, Shards};
use crate::scored::swapped;
use crate::sprites::{COLUMNS, ON_A_SHEET};
use crate::words::Counts;
use crate::{ReportJob, ReportStage};

/// Pairs that a scorer scores anew.
const SCORED: usize = 256;
/// Shards that are listed, at most.
const SHARDS: usize = 200;
/// Longest caption on the page, in characters.
const CAPTION_CHARS: usize = 600;
/// AUC from which a gate is called good: it is right in three of four cases.
const GOOD: f64 = 0.75;
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
        let random = gathered.clusters[cluster].random.values();
        let random = random.filter(|place| !middle[cluster].contains(place)).take(sizes.of_cluster);
        let random = chosen.list(random);
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
    let excluded = excluded(&gathered, shards, &mut chosen);
    let (captions, seed) = (&job.captions, job.loader_seed);
    let training = Training { captions, tokenizer: job.tokenizer.as_ref(), seed };
    let captions = CaptionFacts {
        generated: gathered.captions,
        fuse: captions.fuse.to_string(),
        changes: training.changes(shards.choices()),
        context_length: captions.context_length,
        is_cut: job.tokenizer.is_some(),
        judges: judges(&gathered, decisions.judgement_sets()),
        rescue: captions.rescue.then(|| rescue(&gathered)),
        shown: chosen.list(gathered.captioned.values()),
        rescued: chosen.list(gathered.brought_back.values()),
    };
    let preview = scorer.as_ref().map(|scorer| (scorer.preview_size(), scorer.preview_filter()));
    let decoding = Decoding { options: job.decode, seed, preview };
    let scored = browse.iter().take(SCORED).copied().collect();
    let looked = look(decisions, shards, &chosen.places, &decoding, &scored, progress)?;
    let swaps = match scorer {
        Some(scorer) => {
            let pairs: Vec<(Vec<u8>, String)> = looked
                .iter()
                .filter_map(|one| Some((one.seen.preview.clone()?, one.seen.caption.clone()?)))
                .collect();
            swapped(scorer, &pairs)?
        }
        None => None,
    };
    let (near, pairs) = with_pairs(near, &looked);
    let corpus = Counts::of(browse.iter().filter_map(|&at| looked[at].seen.caption.as_deref()));
    let rows = cluster_rows(&gathered, &of_clusters, &corpus, &looked);
    let mut tiles = vec![];
    let by_cluster = decisions.gate().is_by_cluster();
    let samples: Vec<SampleRow> =
        looked.into_iter().map(|one| sample(one, &training, by_cluster, &mut tiles)).collect();
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
    head.notes = notes(&gathered, &samples, browse.len(), tiles.len(), job);
    let (cluster_nearest, cluster_label) = nearest_words(&gathered);
    let model = Model {
        version: 1,
        head,
        funnel: gathered.funnel,
        sources: sources.collect(),
        shards: listed.collect(),
        shard_count: gathered.shards.len(),
        histograms,
        edge,
        gate: gate(job, decisions, &gathered.funnel, swaps),
        clusters: rows,
        cluster_nearest,
        cluster_label,
        near,
        captions,
        failures,
        excluded,
        browse,
        samples,
        caption_chars: CAPTION_CHARS,
        tiles: Tiles { side: SIDE, columns: COLUMNS, on_a_sheet: ON_A_SHEET, quality: 0 },
    };
    Ok(Assembled { model, tiles, pairs })
}

/// What excludes samples, and some of those.
fn excluded(gathered: &Gathered, shards: &Shards, chosen: &mut Chosen) -> Vec<ExcludedRow> {
    let of = |((source, by), (count, drawn)): (&(String, Excludes), &(u64, Least<Place>))| {
        let condition = drawn.values().find_map(|place| shards.condition(place.shard, *by));
        let otherwise = match by {
            Excludes::Filter => "where of the source does not let them pass",
            Excludes::Subset => "not in the subset of the source",
        };
        let condition = condition.unwrap_or(otherwise).to_owned();
        ExcludedRow { source: source.clone(), condition, count: *count, shown: chosen.list(drawn.values()) }
    };
    gathered.excluded.iter().map(of).collect()
}

/// The pairs of the groups, with the bits and cosines of those that were dropped.
fn with_pairs(mut near: NearFacts, looked: &[Looked]) -> (NearFacts, Vec<Explained>) {
    let mut found = vec![];
    for mut group in std::mem::take(&mut near.groups) {
        let mut of_group = vec![];
        let keeper = &looked[group.keeper].explained;
        for member in &mut group.members {
            let mut one = looked[member.sample].explained.clone();
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
            of_group.push(one);
        }
        found.push((group, of_group));
    }
    // Pairs that are none show among the least certain.
    let doubt = |member: &Member| match (member.cosine, member.bits) {
        (Some(cosine), _) => rank(-cosine),
        (None, bits) => i64::from(bits.unwrap_or_default()),
    };
    let kind =
        |group: &GroupRow| ["sources", "shards", "shard"].iter().position(|kind| *kind == group.across);
    found.sort_by_key(|(group, _)| (kind(group), Reverse(group.members.iter().map(doubt).max())));
    let (groups, pairs): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    near.groups = groups;
    (near, pairs.concat())
}

/// What the pictures nearest to the middle of a cluster are: a sentence, and a few words.
fn nearest_words(gathered: &Gathered) -> (String, &'static str) {
    let by = match gathered.embeddings {
        true => "by the scorer's embeddings",
        false => "by their semantic hashes, 256 bits that sum up what the scorer sees",
    };
    let sentence =
        format!("Nearest to the middle are the pictures most like the rest of their cluster, {by}.");
    match gathered.measured_out == 0 && gathered.funnel.gate > 0 {
        // A recording under a gate spares what the gate drops.
        true => {
            let lacks = "The ledger has these of what passed the gate only: what the gate dropped is among the random ones.";
            (format!("{sentence} {lacks}"), "nearest to the middle, of what passed the gate")
        }
        false => (sentence, "nearest to the middle"),
    }
}

fn cluster_rows(
    gathered: &Gathered,
    shown: &BTreeMap<u32, (Vec<usize>, Vec<usize>)>,
    corpus: &Counts,
    looked: &[Looked],
) -> Vec<ClusterRow> {
    let mut rows: Vec<ClusterRow> = gathered
        .clusters
        .iter()
        .map(|(&cluster, of)| {
            let (nearest, random) = shown.get(&cluster).cloned().unwrap_or_default();
            let mut all: Vec<usize> = nearest.iter().chain(&random).copied().collect();
            all.sort_unstable();
            all.dedup();
            let captions: Vec<&str> =
                all.iter().filter_map(|&at| looked[at].seen.caption.as_deref()).collect();
            let words = Counts::of(captions.iter().copied()).against(corpus, WORDS);
            ClusterRow { cluster, funnel: of.funnel, words, captions: captions.len(), nearest, random }
        })
        .collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.funnel.usable), row.cluster));
    rows
}

/// What the ledger has of judges.
fn judges(gathered: &Gathered, sets: usize) -> String {
    match (sets, gathered.judged) {
        (0, _) => "The ledger has no judge's scores of generated captions.".into(),
        (1, judged) => format!("A judge scored the generated captions of {} samples.", thousands(judged)),
        (sets, _) => format!("The ledger has {sets} sets of judge's scores: which is meant is not known."),
    }
}

/// What a rescue does.
fn rescue(gathered: &Gathered) -> String {
    format!(
        "Of what is kept, the gate had dropped {} samples: their generated caption brought them back (rescue=true), and they \
         are trained on with it. The ledger has no generated caption of samples that the gate drops and the judge refuses.",
        thousands(gathered.rescued)
    )
}

fn sample(looked: Looked, training: &Training<'_>, by_cluster: bool, tiles: &mut Vec<RgbImage>) -> SampleRow {
    let trained = training.caption(&looked).map(|trained| (trained.text, trained.cut));
    let (trained_on, cut_off) = trained.unzip();
    let Looked { explained, seen } = looked;
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
        least: explained.gate.filter(|_| by_cluster).map(|gate| gate.least),
        near: explained.near.map(|near| near.id.to_string()),
        pi: explained.pi,
        caption: seen.caption.map(cut),
        generated: explained.caption.map(cut),
        trained_on: trained_on.map(cut),
        cut: cut_off.map(cut).unwrap_or_default(),
        judged: explained.judged,
        rescued: explained.rescued,
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
        refills: decisions.plan().is_some_and(|plan| plan.plan.counts().refilled > 0),
        export: export(job),
        notes: vec![],
    }
}

/// The command that leaves samples out: of what the plan keeps, else of all that is usable.
fn export(job: &ReportJob) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    let quoted = |path: &Path| match path.display().to_string() {
        path if path.chars().all(is_plain) => path,
        path => format!("'{}'", path.replace('\'', "'\\''")),
    };
    let ledger = quoted(&job.decisions.ledger);
    let from = match &job.decisions.by {
        ExportBy::Plan(plan) => format!("{} --ledger {ledger}", quoted(plan)),
        ExportBy::Policy(..) | ExportBy::All => ledger,
    };
    format!("tldr-loader export {from} --exclude exclude.jsonl --out subset.parquet")
}

/// What was sampled, in sentences.
fn notes(
    gathered: &Gathered,
    samples: &[SampleRow],
    drawn: usize,
    tiles: usize,
    job: &ReportJob,
) -> Vec<String> {
    let others = match samples.len() - drawn {
        0 => String::new(),
        others => format!(
            "; {} others are here for the gate's edge, clusters, near-duplicates, captions and failures",
            thousands(others as u64)
        ),
    };
    let mut notes = vec![format!(
        "Counts and histograms of alignments, scores, caption lengths and pi are of all {} samples of the ledger. {} samples are \
         on this page, {} with a picture: {} were drawn at random with seed {}, and sizes of pictures and the words of the \
         corpus are of these{others}.",
        thousands(gathered.funnel.read),
        thousands(samples.len() as u64),
        thousands(tiles as u64),
        thousands(drawn as u64),
        job.seed
    )];
    let is_usable = |sample: &&SampleRow| !["failed", "excluded"].contains(&sample.outcome);
    let bare = || samples.iter().filter(is_usable).filter(|sample| sample.tile.is_none());
    let lacking = bare().count();
    if lacking > 0 {
        let why = bare().next().and_then(|sample| sample.why.clone()).unwrap_or_default();
        notes.push(format!(
            "{lacking} usable samples are shown without their picture, the first since: {why}"
        ));
    }
    notes
}

fn gate(job: &ReportJob, decisions: &Decisions, funnel: &Funnel, swapped: Option<Swapped>) -> GateFacts {
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
            "It goes by {field}, a score that the corpus has: look at the pairs above and below the cut to judge it."
        ),
        None => match worth {
            Some(worth) => measured(&worth),
            None => "Whether the scorer tells true captions from swapped ones is known where the captioner directory \
                     (--captioner) is given, whose fit measured it."
                .into(),
        },
    };
    let is_on = policy
        .is_some_and(|policy| policy.has_scores() || policy.gate().share().is_some_and(|share| share < 1.0));
    GateFacts {
        by: field.unwrap_or("alignment").to_owned(),
        text: policy.map_or("none".into(), |policy| policy.gate().to_string()),
        is_on,
        least,
        passing: funnel.usable - funnel.thin - funnel.gate,
        is_by_cluster,
        answer: answer(worth.as_ref().filter(|_| field.is_none()), is_on),
        sentence,
        warning: worth.as_ref().and_then(GateWorth::warning).filter(|_| field.is_none()),
        auc: worth.map(|worth| worth.validation.auc),
        auc_error: worth.map(|worth| worth.validation.auc_error),
        pairs: worth.map(|worth| worth.validation.pairs),
        swapped,
    }
}

/// Whether a gate is any good, by what is known of its `worth`.
fn answer(worth: Option<&GateWorth>, is_on: bool) -> String {
    let gate = if is_on { "the gate" } else { "a gate by alignment, which is open," };
    let Some(worth) = worth else { return "Not measured.".into() };
    let (auc, error) = (worth.validation.auc, worth.validation.auc_error);
    match worth.warning() {
        // An AUC that is no number is one of these.
        Some(_) if auc > 0.5 + 2.0 * error => format!("Hardly: {gate} is little better than guessing."),
        Some(_) => format!("No: {gate} is no better than guessing."),
        None if auc < GOOD => format!("Somewhat: {gate} is better than guessing, and is often wrong."),
        None => format!("Yes: {gate} tells true captions from swapped ones."),
    }
}

/// How that is known.
fn measured(GateWorth { validation, on }: &GateWorth) -> String {
    format!(
        "Measured on {} pairs {on}: in {:.0} of 100 cases a true caption aligns better than that of another picture, where \
         guessing gets 50 (AUC {:.3} ± {:.3}).",
        thousands(validation.pairs),
        100.0 * validation.auc,
        validation.auc,
        validation.auc_error
    )
}

#[cfg(test)]
mod tests {
    use tldr_loader::cluster::{MeasuredOn, Validation};

    use super::*;

    #[test]
    fn the_gate_is_answered_for_as_it_is_warned_of() {
        for (auc, error, said) in [
            (0.497, 0.032, "No: the gate is no better"),
            (0.536, 0.056, "No: the gate is no better"),
            (0.61, 0.06, "No: the gate is no better"),
            (f64::NAN, 0.01, "No: the gate is no better"),
            (0.59, 0.001, "Hardly: the gate is little better"),
            (0.65, 0.02, "Somewhat: the gate is better"),
            (0.9, 0.02, "Yes: the gate tells"),
        ] {
            let validation = Validation { pairs: 1040, lm_loss: Some(3.0), auc, auc_error: error };
            let worth = GateWorth { validation, on: MeasuredOn::HeldOut };
            let found = answer(Some(&worth), true);
            assert!(found.starts_with(said), "{auc} ± {error}: {found}");
            assert_eq!(worth.warning().is_some(), found.starts_with(['N', 'H']));
            assert!(measured(&worth).starts_with("Measured on 1,040 pairs held out of the training: in "));
        }
        assert_eq!(answer(None, true), "Not measured.");
    }
}
