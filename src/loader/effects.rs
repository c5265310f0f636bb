//! Which options have an effect: one that was given and has none is an error, never passed over.
//!
//! One table says of each option when it is asked. Options that only bound or place something (threads, memory,
//! time, `strict`) hold wherever nothing comes to the bound, and a seed where nothing is drawn: they are not in
//! it. Those that contradict each other, or need another one to make sense, are refused where they are checked
//! (`checks`, `mix`, `planned`, [`Selector`](crate::select::Selector)).

use crate::error::{Error, Result};
use crate::loader::batch::PixelType;
use crate::loader::builder::LoaderBuilder;
use crate::loader::decider::Decider;
use crate::loader::spec::{Mode, OnError};
use crate::text::Fuse;

/// When options have an effect, and what to do where they have none.
struct Rule {
    options: &'static [&'static str],
    applies: fn(&LoaderBuilder) -> bool,
    otherwise: fn(&LoaderBuilder) -> String,
}

const RULES: [Rule; 8] = [
    Rule {
        options: &[
            "captioner",
            "judge",
            "keep_ratio",
            "gate",
            "gate_by",
            "score_key",
            "threshold",
            "dedup",
            "quota",
            "priority",
            "rotate",
            "thin",
            "fuse",
            "rescue",
            "replace_repetitive",
        ],
        applies: |b| b.mode == Mode::Reduced,
        otherwise: |b| {
            format!("left out with mode = {}, which yields every sample with its own caption", b.mode.name())
        },
    },
    Rule {
        options: &["lanes", "shuffle_windows", "defer_duplicates"],
        applies: |b| b.mode != Mode::Eval,
        otherwise: |_| "left out with mode = eval, which yields every sample once and in order".into(),
    },
    Rule {
        options: &["gate_by"],
        applies: |b| b.plan.is_some() || b.has_gate(),
        otherwise: |_| "left out without a gate".into(),
    },
    Rule {
        options: &["replace_repetitive"],
        applies: |b| b.fuse != Fuse::Original || b.rescue,
        otherwise: |_| "left out with fuse = original, for which no captions are generated".into(),
    },
    Rule {
        options: &["context_length"],
        applies: |b| b.tokenizer.is_some(),
        otherwise: |_| "left out without a tokenizer, whose token ids it counts".into(),
    },
    Rule {
        options: &["normalize"],
        applies: |b| b.pixels != PixelType::U8,
        otherwise: |_| "left out with pixels = uint8, which are as decoded and resized".into(),
    },
    Rule {
        options: &["max_errors", "max_errors_per_shard"],
        applies: |b| b.on_error != OnError::Raise,
        otherwise: |_| "left out with on_error = raise, which ends the run at the first failed sample".into(),
    },
    Rule {
        options: &["source"],
        applies: |b| b.shards.is_none(),
        otherwise: |_| "left out with shards, which were listed with theirs".into(),
    },
];

impl LoaderBuilder {
    /// Refuses the first option that was given and has no effect beside the others.
    pub(super) fn check_effects(&self) -> Result<()> {
        for rule in RULES.iter().filter(|rule| !(rule.applies)(self)) {
            for &option in rule.options.iter().filter(|option| self.given.contains(*option)) {
                if let Some(value) = self.value(option) {
                    return Err(Error::option(name(option), value, (rule.otherwise)(self)));
                }
            }
        }
        Ok(())
    }

    /// Refuses a captioner that nothing asks: neither the policy nor the captions. A plan compares itself with
    /// it.
    pub(super) fn check_captioner(&self, decider: Option<&Decider>) -> Result<()> {
        let Some(selector) = decider.and_then(Decider::selector) else { return Ok(()) };
        let asked = selector.needs_signals() || self.fuse != Fuse::Original || self.rescue;
        if self.encoder.is_none() || asked {
            return Ok(());
        }
        let accepted = format!(
            "left out with quota = {}, priority = {}, fuse = original and no gate on alignments, where nothing asks it",
            selector.policy().quota,
            selector.policy().priority.name()
        );
        Err(Error::option("captioner", "given", accepted))
    }

    /// Whether a gate by a share is in force.
    fn has_gate(&self) -> bool {
        let measured = self.encoder.is_some() || self.score.is_some();
        self.gate.map_or(measured && self.threshold.is_none(), |gate| gate.is_some())
    }

    /// The value of an option that was given, in words; `None` where it asks for nothing, as without it.
    fn value(&self, option: &str) -> Option<String> {
        let on = |is_on: bool| is_on.then(|| "true".to_owned());
        match option {
            "keep_ratio" => self.keep_ratio.as_ref().map(ToString::to_string),
            "gate" => self.gate.flatten().map(|gate| gate.to_string()),
            "gate_by" => Some(self.gate_by.name().to_owned()),
            "score_key" => self.score.as_ref().map(|score| format!("{:?}", score.key)),
            "threshold" => self.threshold.map(|threshold| threshold.to_string()),
            "dedup" => self.dedup.map(|cosine| cosine.to_string()),
            "quota" => self.quota.map(|quota| quota.to_string()),
            "priority" => Some(self.priority.name().to_owned()),
            "rotate" => on(self.rotate),
            "thin" => on(self.thin),
            "fuse" => (self.fuse != Fuse::Original).then(|| self.fuse.to_string()),
            "rescue" => on(self.rescue),
            "replace_repetitive" => Some(self.replace_repetitive.to_string()),
            "defer_duplicates" => on(self.defer_duplicates),
            "lanes" => self.lanes.map(|lanes| lanes.to_string()),
            "shuffle_windows" => Some(self.shuffle_windows.to_string()),
            "context_length" => Some(self.context_length.to_string()),
            "max_errors" => Some(self.max_errors.to_string()),
            "max_errors_per_shard" => Some(self.max_errors_per_shard.to_string()),
            "source" => self.source.as_ref().map(|source| format!("{source:?}")),
            _ => Some("given".to_owned()),
        }
    }
}

/// The option's name in messages.
fn name(option: &'static str) -> &'static str {
    if option == "normalize" { "mean and std" } else { option }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::Normalize;
    use crate::loader::Loader;
    use crate::select::{GateBy, Priority, Quota};
    use crate::text::Tokenizer;

    type Set = fn(LoaderBuilder) -> LoaderBuilder;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["a dog", "a cat"].into_iter(), 260).unwrap()
    }

    /// Each option of the rules with a value that asks for something, and one that asks for nothing, if any.
    const OPTIONS: [(&str, Set, Option<Set>); 20] = [
        ("keep_ratio", |b| b.keep_ratio(0.25), None),
        ("gate", |b| b.gate(Some(0.5)), Some(|b| b.gate(None))),
        ("gate_by", |b| b.gate_by(GateBy::Corpus), None),
        ("score_key", |b| b.score_key("clip"), None),
        ("threshold", |b| b.threshold(0.3), None),
        ("dedup", |b| b.dedup(Some(0.95)), Some(|b| b.dedup(None))),
        ("quota", |b| b.quota(Quota::Random), None),
        ("priority", |b| b.priority(Priority::Uniform), None),
        ("rotate", |b| b.rotate(true), Some(|b| b.rotate(false))),
        ("thin", |b| b.thin(true), Some(|b| b.thin(false))),
        ("fuse", |b| b.fuse("concat".parse().unwrap()), Some(|b| b.fuse(Fuse::Original))),
        ("rescue", |b| b.rescue(true), Some(|b| b.rescue(false))),
        ("replace_repetitive", |b| b.replace_repetitive(true), None),
        ("lanes", |b| b.lanes(4), None),
        ("shuffle_windows", |b| b.shuffle_windows(8), None),
        ("defer_duplicates", |b| b.defer_duplicates(true), Some(|b| b.defer_duplicates(false))),
        ("context_length", |b| b.context_length(77), None),
        ("mean and std", |b| b.normalize(Normalize::default()), None),
        ("max_errors", |b| b.max_errors(0.1), None),
        ("max_errors_per_shard", |b| b.max_errors_per_shard(0.1), None),
    ];

    /// Each situation with the options that have no effect in it.
    const IDLE: [(&str, Set, &str); 9] = [
        (
            "full",
            |b| b.mode(Mode::Full).tokenizer(tokenizer()),
            "keep_ratio gate gate_by score_key threshold dedup quota priority rotate thin fuse rescue replace_repetitive",
        ),
        (
            "eval",
            |b| b.mode(Mode::Eval).tokenizer(tokenizer()),
            "keep_ratio gate gate_by score_key threshold dedup quota priority rotate thin fuse rescue replace_repetitive \
             lanes shuffle_windows defer_duplicates",
        ),
        ("reduced", |b| b.tokenizer(tokenizer()), "gate_by replace_repetitive"),
        ("a gate", |b| b.gate(Some(0.5)).tokenizer(tokenizer()), "replace_repetitive"),
        ("a gate that is off", |b| b.gate(None).tokenizer(tokenizer()), "gate_by replace_repetitive"),
        ("captions", |b| b.fuse("generated".parse().unwrap()).tokenizer(tokenizer()), "gate_by"),
        (
            "a threshold",
            |b| b.score_key("clip").threshold(0.3).tokenizer(tokenizer()),
            "gate_by replace_repetitive",
        ),
        (
            "no tokenizer, uint8",
            |b| b.pixels(PixelType::U8),
            "gate_by replace_repetitive context_length mean and std",
        ),
        (
            "raise",
            |b| b.on_error(OnError::Raise).tokenizer(tokenizer()),
            "gate_by replace_repetitive max_errors max_errors_per_shard",
        ),
    ];

    #[test]
    fn what_is_given_has_an_effect_or_is_refused_by_name() {
        for (situation, set, idle) in IDLE {
            for (option, give, ask_for_nothing) in OPTIONS {
                // What makes the situation is not tried against it.
                let own = set(Loader::builder("x.tar")).given;
                if own.contains(option) || (situation == "captions" && option == "rescue") {
                    continue;
                }
                let found = give(set(Loader::builder("x.tar"))).check_effects();
                let expected = idle.split(' ').any(|name| name == option)
                    || option == "mean and std" && idle.ends_with(option);
                // Giving one may make another one's ground.
                let refused = found.as_ref().is_err();
                assert_eq!(refused, expected, "{option} in {situation}: {found:?}");
                if let Err(error) = found {
                    let text = error.to_string();
                    assert!(text.starts_with(&format!("{option} = ")), "{situation}: {text}");
                    assert!(text.contains(": left out with"), "{text}");
                }
                if let Some(ask_for_nothing) = ask_for_nothing {
                    let found = ask_for_nothing(set(Loader::builder("x.tar"))).check_effects();
                    assert!(found.is_ok(), "{option}, off, in {situation}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn every_option_of_a_rule_is_tried() {
        let tried: Vec<&str> = OPTIONS.iter().map(|(option, ..)| *option).collect();
        // Those that need a model are tried in tests/core/effects.rs, `source` beside `shards` in this file.
        let elsewhere = ["captioner", "judge", "source"];
        for option in RULES.iter().flat_map(|rule| rule.options) {
            assert!(tried.contains(&name(option)) || elsewhere.contains(option), "{option}");
        }
        let error = Loader::builder("x.tar").shards(vec![]).source("cc3m").check_effects().unwrap_err();
        assert!(error.to_string().starts_with("source = \"cc3m\": left out with shards"), "{error}");
    }
}
