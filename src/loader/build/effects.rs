//! Which options have an effect: one that asks for something and has none is an error, never skipped.
//!
//! One table says of each option when it is asked. Options that only bound or place something (threads, memory,
//! time, `strict`) hold wherever nothing comes to the bound, and a seed where nothing is drawn: they are not in
//! it. Those that contradict each other, or need another one to make sense, are refused where they are checked
//! (`checks`, `mix`, `planned`, [`Selector`](crate::select::Selector)).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{Mode, OnError, PixelType};
use crate::error::{Error, Result};
use crate::loader::build::listing::Listing;
use crate::loader::build::parts::LoaderBuilder;
use crate::loader::decider::Decider;
use crate::options::{Class, Group as _};
use crate::shard::ReadOptions;

/// When options have an effect, and what to do where they have none.
struct Rule {
    options: &'static [&'static str],
    applies: fn(&LoaderBuilder) -> bool,
    otherwise: fn(&LoaderBuilder) -> String,
}

/// Every class of options.
const ALL: [Class; 5] = [Class::Policy, Class::Reading, Class::Pixels, Class::Order, Class::Runtime];

const RULES: [Rule; 7] = [
    Rule {
        options: &[
            "captioner",
            "judge",
            "keep_ratio",
            "gate",
            "dedup",
            "quota",
            "priority",
            "rotate",
            "thin",
            "fuse",
            "rescue",
            "replace_repetitive",
        ],
        applies: |b| b.config.mode == Mode::Reduced,
        otherwise: |b| {
            let mode = b.config.mode.name();
            format!("with mode={mode}, which yields every sample with its own caption")
        },
    },
    Rule {
        options: &["lanes", "shuffle_windows", "defer_duplicates"],
        applies: |b| b.config.mode != Mode::Eval,
        otherwise: |_| "with mode=eval, which yields every sample once and in order".into(),
    },
    Rule {
        options: &["replace_repetitive"],
        applies: |b| b.config.captions.fuse.is_generated() || b.config.captions.rescue,
        otherwise: |b| format!("with fuse={}, for which no captions are generated", b.config.captions.fuse),
    },
    Rule {
        options: &["context_length"],
        applies: |b| b.parts.tokenizer.is_some() || b.config.tokenizer.is_some(),
        otherwise: |_| "without a tokenizer, whose token ids it counts".into(),
    },
    Rule {
        options: &["mean", "std"],
        applies: |b| b.config.images.dtype != PixelType::U8,
        otherwise: |_| "with dtype=uint8, whose pixels are as decoded and resized".into(),
    },
    Rule {
        options: &["max_errors", "max_errors_per_shard"],
        applies: |b| b.config.runtime.on_error != OnError::Raise,
        otherwise: |_| "with on_error=raise, which ends the run at the first failed sample".into(),
    },
    Rule {
        options: &["name"],
        applies: |b| b.parts.shards.is_none(),
        otherwise: |_| "with shards, which were listed with theirs".into(),
    },
];

impl LoaderBuilder {
    /// Refuses the first option that differs from its default and has no effect beside the others.
    pub(crate) fn check_effects(&self) -> Result<()> {
        let mut given = self.config.entries(&ALL);
        given.extend(self.config.sources.iter().flat_map(|source| source.entries(&ALL)));
        let models = [("captioner", self.parts.scorer.is_some()), ("judge", self.parts.judge.is_some())];
        given.extend(
            models.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| (name, "given".into())),
        );
        for rule in RULES.iter().filter(|rule| !(rule.applies)(self)) {
            if let Some((option, value)) = given.iter().find(|(option, _)| rule.options.contains(option)) {
                return Err(Error::unused(option, value, (rule.otherwise)(self)));
            }
        }
        Ok(())
    }

    /// Refuses a captioner that nothing asks: neither the policy nor the captions. A plan compares itself with
    /// it.
    pub(crate) fn check_captioner(&self, decider: Option<&Decider>) -> Result<()> {
        let Some(selector) = decider.and_then(Decider::selector) else { return Ok(()) };
        let captions = &self.config.captions;
        let asked = selector.needs_signals()
            || captions.fuse.is_generated()
            || captions.fuse.needs_alignment()
            || captions.rescue;
        if self.parts.scorer.is_none() || asked {
            return Ok(());
        }
        let accepted = format!(
            "with quota={}, priority={}, fuse={} and no gate on alignments, where nothing asks it",
            selector.policy().quota(),
            selector.policy().priority().name(),
            captions.fuse
        );
        Err(Error::unused("captioner", "given", accepted))
    }

    /// Refuses a table of captions that nothing takes captions from, and a name in `fuse` that no table has.
    pub(crate) fn check_tables_of_captions(&self, listing: &Listing) -> Result<()> {
        // Jobs read shards that were listed before, and train on none of their captions.
        if self.parts.shards.is_some() {
            return Ok(());
        }
        let fuse = &self.config.captions.fuse;
        let reads = listing.stretches();
        let of = |(_, read): &(_, &Arc<ReadOptions>)| {
            read.captions
                .iter()
                .flat_map(|captions| captions.iter().map(|(name, _)| Arc::clone(name)))
                .collect::<Vec<_>>()
        };
        let names: BTreeSet<Arc<str>> = reads.iter().flat_map(of).collect();
        if let Some(lacking) = fuse.tables().into_iter().find(|name| !names.contains(*name)) {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            let names = if names.is_empty() { "no table".to_owned() } else { names.join(", ") };
            let accepted = format!(
                "original, generated, a form with numbers, or the name of a table of captions={{NAME: FILE}}: {lacking:?} is none; \
                 captions has {names}"
            );
            return Err(Error::option("fuse", fuse, accepted));
        }
        for (_, read) in &reads {
            for (name, _) in read.captions.iter().flat_map(|captions| captions.iter()) {
                if read.caption_key.as_deref() != Some(&**name) && !fuse.tables().contains(&&**name) {
                    let accepted = format!("with fuse={fuse}: name it there, or in caption_key");
                    return Err(Error::unused("captions", name, accepted));
                }
            }
        }
        Ok(())
    }

    /// Refuses what the options name and nobody has opened: models are no plain data.
    pub(crate) fn check_models(&self) -> Result<()> {
        let named = [
            ("captioner", &self.config.captioner, self.parts.scorer.is_some()),
            ("judge", &self.config.captions.judge, self.parts.judge.is_some()),
        ];
        for (option, path, is_open) in named {
            if let (Some(path), false) = (path, is_open) {
                let accepted = format!(
                    "a model that is open: the core has none of its own; give it to the builder's `{option}`"
                );
                return Err(Error::option(option, path.display(), accepted));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Gate, Priority, Quota};
    use crate::loader::Loader;
    use crate::text::Tokenizer;

    type Set = fn(LoaderBuilder) -> LoaderBuilder;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["a dog", "a cat"].into_iter(), 260).unwrap()
    }

    /// Each option of the rules with a value that asks for something.
    const OPTIONS: [(&str, Set); 19] = [
        ("keep_ratio", |b| b.keep_ratio(0.25)),
        ("gate", |b| b.gate(Gate::top(0.5))),
        ("dedup", |b| b.dedup(0.95)),
        ("quota", |b| b.quota(Quota::Random)),
        ("priority", |b| b.priority(Priority::Longest)),
        ("rotate", |b| b.rotate(true)),
        ("thin", |b| b.thin(true)),
        ("fuse", |b| b.fuse("concat".parse().unwrap())),
        ("rescue", |b| b.rescue(true)),
        ("replace_repetitive", |b| b.replace_repetitive(false)),
        ("lanes", |b| b.lanes(4)),
        ("shuffle_windows", |b| b.shuffle_windows(9)),
        ("defer_duplicates", |b| b.defer_duplicates(true)),
        ("context_length", |b| b.context_length(76)),
        ("mean", |b| b.mean([0.5; 3])),
        ("std", |b| b.std([0.5; 3])),
        ("max_errors", |b| b.max_errors(0.2)),
        ("max_errors_per_shard", |b| b.max_errors_per_shard(0.1)),
        ("name", |b| b.name("cc3m")),
    ];

    /// Each situation with the options that have no effect in it.
    const IDLE: [(&str, Set, &str); 6] = [
        (
            "full",
            |b| b.mode(Mode::Full).tokenizer(tokenizer()),
            "keep_ratio gate dedup quota priority rotate thin fuse rescue replace_repetitive",
        ),
        (
            "eval",
            |b| b.mode(Mode::Eval).tokenizer(tokenizer()),
            "keep_ratio gate dedup quota priority rotate thin fuse rescue replace_repetitive lanes shuffle_windows \
             defer_duplicates",
        ),
        ("reduced", |b| b.tokenizer(tokenizer()), "replace_repetitive"),
        ("captions", |b| b.fuse("generated".parse().unwrap()).tokenizer(tokenizer()), ""),
        ("no tokenizer, uint8", |b| b.dtype(PixelType::U8), "replace_repetitive context_length mean std"),
        (
            "raise",
            |b| b.on_error(OnError::Raise).tokenizer(tokenizer()).shards(vec![]),
            "replace_repetitive max_errors max_errors_per_shard name",
        ),
    ];

    #[test]
    fn what_is_asked_for_has_an_effect_or_is_refused_by_name() {
        for (situation, set, idle) in IDLE {
            for (option, ask) in OPTIONS {
                // What makes the situation is not tried against it.
                if situation == "captions" && ["fuse", "rescue"].contains(&option) {
                    continue;
                }
                let found = ask(set(Loader::builder("x.tar"))).check_effects();
                let expected = idle.split_whitespace().any(|name| name == option);
                assert_eq!(found.is_err(), expected, "{option} in {situation}: {found:?}");
                if let Err(error) = found {
                    let text = error.to_string();
                    assert!(text.starts_with(&format!("invalid {option}=")), "{situation}: {text}");
                    assert!(text.contains(": it has no effect with"), "{text}");
                }
                assert!(set(Loader::builder("x.tar")).check_effects().is_ok(), "{situation}");
            }
        }
    }

    #[test]
    fn every_option_of_a_rule_is_tried() {
        let tried: Vec<&str> = OPTIONS.iter().map(|(option, _)| *option).collect();
        // Those that need a model are tried in tests/core/effects.rs.
        for option in RULES.iter().flat_map(|rule| rule.options) {
            assert!(tried.contains(option) || ["captioner", "judge"].contains(option), "{option}");
        }
    }
}
