//! What a run was configured to, in words: a saved state fits a loader whose settings are the same, and
//! where they are not, the names of those that differ are what the user needs.
//!
//! Only what changes the sequence of batches is here: threads, ranks and prefetching are not. What is too
//! large for words (shards, tables, models) stands as a number of its content. Nothing depends on where
//! the data lie.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::Config;
use crate::hash;
use crate::image;
use crate::loader::decider::Decider;
use crate::loader::spec::Spec;
use crate::options::{Class, Field, Group as _, shown};
use crate::shard::CaptionChoice;
use crate::text::{Fuse, Tokenizer};

/// Value of each setting by its name: the option's, where there is one. One at its default has none.
pub(crate) type Settings = BTreeMap<String, String>;

/// Identifies settings.
pub(crate) fn fingerprint(settings: &Settings) -> u64 {
    hash::pairs(settings)
}

/// What a setting is that is not among those of a loader: the option's default.
pub(crate) fn default_of(name: &str) -> String {
    fn find(fields: &[Field], name: &str) -> Option<Value> {
        let of_groups =
            || fields.iter().filter_map(|field| field.group).find_map(|fields| find(fields, name));
        fields.iter().find(|field| field.name == name).map(|field| (field.default)()).or_else(of_groups)
    }
    match find(Config::FIELDS, name) {
        Some(value) if !value.is_null() => shown(&value),
        _ => "none".into(),
    }
}

/// A number of something's content, as it stands among settings.
fn content(fingerprint: u64) -> String {
    format!("content {fingerprint:016x}")
}

/// Everything that decides which samples are kept, in which order, with which pixels and tokens.
pub(crate) fn policy(spec: &Spec) -> Settings {
    let mut settings = Settings::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    for (name, value) in spec.config.entries(&[Class::Policy, Class::Pixels, Class::Order]) {
        // The batch size differs where the world size does; lanes and global batch are compared by themselves.
        if !["batch_size", "lanes", "fuse", "replace_repetitive", "rescue"].contains(&name) {
            set(name, value);
        }
    }
    match &spec.selector {
        Some(Decider::Select(selector)) => {
            for (name, value) in selector.settings() {
                set(name, value);
            }
        }
        Some(Decider::Plan(plan)) => {
            for (name, value) in plan.plan.policy().settings() {
                // The loader's own seed shuffles.
                set(if name == "seed" { "seed of the plan" } else { name }, value);
            }
            set("plan", content(plan.fingerprint()));
        }
        None => {}
    }
    set("seed", spec.config.seed.to_string());
    set("JPEG decoder", image::DECODER.into());
    let tokenizer = spec.tokenizer.as_ref().map(Tokenizer::fingerprint);
    set("tokenizer", tokenizer.map_or("none".into(), content));
    settings
}

/// The shards, their lengths, how they are read, and how they are mixed.
pub(crate) fn data(spec: &Spec) -> Settings {
    let mut settings = Settings::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    let mut parts = vec![];
    let mut by_source: BTreeMap<&str, u64> = BTreeMap::new();
    for (shard, &length) in spec.shards.iter().zip(&spec.lengths) {
        parts.extend([shard.hash, length]);
        *by_source.entry(&shard.source).or_default() += 1;
    }
    let sources: Vec<String> = by_source.iter().map(|(source, n)| format!("{n} of {source:?}")).collect();
    set("shards", sources.join(", "));
    set("samples in the shards", spec.lengths.iter().sum::<u64>().to_string());
    set("names, order and lengths of the shards", content(hash::combine(&parts)));
    if let Some((sum, counts)) = spec.counted {
        set("samples that count", sum.to_string());
        set("samples that count in each shard", content(counts));
    }
    for (name, value) in spec.config.images.entries(&[Class::Reading]) {
        set(name, value);
    }
    // Of each source that is read in a way of its own, in the order of its shards.
    let mut reads = spec.reads.clone();
    reads.dedup_by(|a, b| a == b);
    for (number, read) in reads.iter().enumerate() {
        let name = |option: &str| {
            if number == 0 { option.to_owned() } else { format!("{option} (of source {})", number + 1) }
        };
        let mut set = |option: &str, value: Option<String>| value.map(|value| set(&name(option), value));
        set("caption_key", read.caption_key.clone());
        let choice = read.caption_choice.filter(|choice| *choice != CaptionChoice::First);
        set("caption_choice", choice.map(|choice| choice.name().to_owned()));
        set("where", read.filter.as_ref().map(ToString::to_string));
        let mut tables: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (option, table) in read.tables() {
            tables.entry(option.to_owned()).or_default().push(table);
        }
        for (fused, captions) in read.captions.iter().flat_map(|captions| captions.iter()) {
            if spec.config.captions.fuse.tables().contains(&&**fused) {
                tables.insert(format!("captions of {fused}"), vec![captions.fingerprint()]);
            }
        }
        for (option, tables) in tables {
            let of_all = if let [only] = tables[..] { only } else { hash::combine(&tables) };
            set(&option, Some(content(of_all)));
        }
        let gate = Some(read.score_fingerprint()).filter(|scores| *scores != 0);
        set("scores of the gate", gate.map(content));
    }
    if spec.mix.fingerprint != 0 {
        let share = |source: &crate::loader::build::mix::MixedSource| {
            let first = source.shards.clone().next().map_or("", |at| &*spec.shards[at].source);
            format!("{first:?}: {:.4}", source.share)
        };
        set("shares of the sources", spec.mix.sources.iter().map(share).collect::<Vec<_>>().join(", "));
        let samples = spec.num_batches(0) * spec.global_batch() as u64;
        set("samples of an epoch", samples.to_string());
        set("rows of the sources in an epoch", content(spec.mix.fingerprint));
    }
    settings
}

/// The captioner, and which captions samples have; none where no model and no table has a say.
pub(crate) fn captioner(spec: &Spec) -> Settings {
    let mut settings = Settings::new();
    let captions = &spec.config.captions;
    let model = spec.model.as_ref().filter(|_| spec.needs_signals || captions.fuse.is_generated());
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    if let Some(model) = model {
        set("captioner", content(model.fingerprint));
        set("generation", model.caption.map_or("none".into(), |c| content(c.fingerprint)));
        if let Some(judge) = &spec.judge {
            set("judge", content(judge.fingerprint));
        }
    }
    if model.is_some() || captions.fuse != Fuse::Original {
        for (name, value) in captions.entries(&[Class::Policy]) {
            set(name, value);
        }
    }
    settings
}
