//! What a run was configured to, in words: a saved state fits a loader whose settings are the same, and
//! where they are not, the names of those that differ are what the user needs.
//!
//! Only what changes the sequence of batches is here: threads, ranks and prefetching are not. What is too
//! large for words (shards, tables, models) stands as a number of its content. Nothing depends on where
//! the data lie.

use std::collections::BTreeMap;

use crate::hash;
use crate::loader::decider::Decider;
use crate::loader::spec::Spec;
use crate::text::{Fuse, Tokenizer};

/// Value of each setting by its name: the option's, where there is one.
pub(crate) type Settings = BTreeMap<String, String>;

/// Identifies settings.
pub(crate) fn fingerprint(settings: &Settings) -> u64 {
    let parts: Vec<u64> =
        settings.iter().flat_map(|(name, value)| [name, value].map(|text| hash::hash_str(text))).collect();
    hash::combine(&parts)
}

/// A number of something's content, as it stands among settings.
fn content(fingerprint: u64) -> String {
    format!("content {fingerprint:016x}")
}

/// Everything that decides which samples survive, in which order, with which pixels and tokens.
pub(crate) fn policy(spec: &Spec) -> Settings {
    let mut settings = Settings::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    set("mode", format!("{:?}", spec.mode).to_lowercase());
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
    set("seed", spec.seed.to_string());
    set("window", spec.window.to_string());
    set("shuffle_windows", spec.shuffle_windows.to_string());
    for (name, value) in &spec.pixel_settings {
        set(name, value.clone());
    }
    set("pixels", spec.pixels.name().into());
    set("context_length", spec.context_length.to_string());
    let tokenizer = spec.tokenizer.as_ref().map(Tokenizer::fingerprint);
    set("tokenizer", tokenizer.map_or("none".into(), content));
    set("defer_duplicates", spec.defer_duplicates.to_string());
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
    let read = &spec.read;
    let optional = |value: Option<String>| value.unwrap_or_else(|| "none".into());
    set("caption_key", optional(read.caption_key.clone()));
    set("where", optional(read.filter.as_ref().map(ToString::to_string)));
    set("subset", optional(read.subset.as_ref().map(|subset| content(subset.fingerprint()))));
    set("captions", optional(read.captions.as_ref().map(|captions| content(captions.fingerprint()))));
    set("max_image_pixels", spec.decode.max_pixels.to_string());
    set("exif_orientation", spec.decode.exif_orientation.to_string());
    if spec.mix.fingerprint != 0 {
        let share = |source: &crate::loader::mix::Source| {
            let first = source.shards.clone().next().map_or("", |at| &*spec.shards[at].source);
            format!("{first:?}: {:.4}", source.share)
        };
        set("shares of the sources", spec.mix.sources.iter().map(share).collect::<Vec<_>>().join(", "));
        let samples = spec.num_batches(0) * spec.global_batch() as u64;
        set("samples of an epoch", samples.to_string());
        set("places of the sources in an epoch", content(spec.mix.fingerprint));
    }
    settings
}

/// The captioner and what is done with its captions; none where no model has a say.
pub(crate) fn captioner(spec: &Spec) -> Settings {
    let mut settings = Settings::new();
    let Some(model) =
        spec.model.as_ref().filter(|_| spec.needs_signals || !matches!(spec.fuse, Fuse::Original))
    else {
        return settings;
    };
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    set("captioner", content(model.fingerprint));
    set("generation", model.caption.map_or("none".into(), |c| content(c.fingerprint)));
    set("fuse", spec.fuse.to_string());
    set("replace_repetitive", spec.replace_repetitive.to_string());
    set("judge", spec.judge.as_ref().map_or("none".into(), |judge| content(judge.fingerprint)));
    set("rescue", spec.rescue.to_string());
    settings
}
