//! Makes one caption of those that a sample has: the original, the generated one, and those of tables.
//!
//! The paper concatenates: original + "; " + generated. Its code then cuts the text to 30 words,
//! so that a long original loses the generated part altogether; here a budget of tokens keeps
//! room for it. Where the captioner is weaker than the caption, concatenation hurts: `best`
//! takes the generated caption only where the original does not fit its image, and `gated` only
//! where something other than its generator says that it fits.
//!
//! `gated` is CapFilt (BLIP, arXiv 2201.12086, section 3.3), which adds both pairs of an image to
//! the corpus where both pass. A loader gives one caption at a time: a fair coin takes turns between
//! the two over the epochs, so that each is trained on as it was written. Where neither passes, the
//! original stays: dropping is the gate's business.
//!
//! In place of the generated caption, `other` names a table of captions. A sample that is not in it keeps its original.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::tokenizer::Tokenizer;
use crate::error::Error;
use crate::options::{ByEpoch, Call, show, text_settings};
use crate::sample::trimmed;

/// Stands between the two captions.
const SEPARATOR: &str = "; ";

/// Names of the captions that every sample may have.
const ORIGINAL: &str = "original";
const GENERATED: &str = "generated";

/// How the caption of a kept sample is made. Written as `original`, `generated`, `NAME` (of a table), `concat(20)`,
/// `best(0.5)`, `coin(0.5)`, `coin({0: 0.2, 10: 0.5})`, `gated(0.5)` or `mix({original: 0.5, blip2: 0.5})`; without a number
/// each has the one that is here. With `other=NAME` concat, best and coin take the caption of a table in place of the
/// generated one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fuse {
    /// The original caption.
    Original,
    /// The generated caption.
    Generated,
    /// The caption of a table.
    Table(String),
    /// One of several: drawn for each sample and epoch by these weights, which sum to 1, among those that the sample has.
    /// By name, `original` and `generated` among them.
    Mix(BTreeMap<String, f64>),
    /// Original, "; ", the other.
    Concat {
        /// Tokens that the other part may claim from a long original; it may use what a
        /// short one leaves, too.
        generated_tokens: usize,
        /// Table of the other caption; `None` for the generated one.
        other: Option<String>,
    },
    /// The original where it is aligned, the other caption where it is not.
    Best {
        /// Least alignment, as a quantile in [0, 1], at which the original stays.
        threshold: f32,
        /// As of [`Concat`](Self::Concat).
        other: Option<String>,
    },
    /// The other caption with a probability, else the original: drawn for each sample and epoch. Training on either
    /// keeps both kinds of text in the data (VeCLIP, arXiv 2310.07699; MetaCLIP 1.2 mixes likewise); a schedule moves
    /// from one to the other.
    Coin {
        /// Probability of the other.
        probability: ByEpoch,
        /// As of [`Concat`](Self::Concat).
        other: Option<String>,
    },
    /// CapFilt: each caption must pass. Where both do, a fair coin of sample and epoch; where one does,
    /// that one; where none does, the original. The original is judged by its alignment, the
    /// generated caption by a judge that did not write it.
    Gated {
        /// Least alignment, in [0, 1], at which a caption passes.
        threshold: f32,
    },
}

/// Which caption goes with the original, or takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen<'f> {
    /// None.
    Original,
    /// The generated one.
    Generated,
    /// That of a table.
    Table(&'f str),
}

impl<'f> Chosen<'f> {
    fn of(name: &'f str) -> Self {
        match name {
            ORIGINAL => Self::Original,
            GENERATED => Self::Generated,
            table => Self::Table(table),
        }
    }

    fn other(other: Option<&'f String>) -> Self {
        other.map_or(Self::Generated, |table| Self::Table(table))
    }
}

/// Whether a sample has a caption in the table of a name.
pub type Has<'a> = &'a dyn Fn(&str) -> bool;

/// What is known of a sample's captions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    /// Alignment of the original, a quantile in [0, 1]; without one nothing speaks against it.
    pub alignment: Option<f32>,
    /// What a judge says of the generated caption, in [0, 1]; without it nothing speaks for it.
    pub judged: Option<f32>,
    /// The sample's number in [0, 1) for this epoch: what a coin shows.
    pub draw: f64,
    /// Epoch, from 0.
    pub epoch: u64,
}

impl Fuse {
    /// `concat` with room for 20 generated tokens, the longest caption of BLIP's settings.
    pub const CONCAT: Self = Self::Concat { generated_tokens: 20, other: None };

    /// `best` with the better aligned half of the corpus kept as it is.
    pub const BEST: Self = Self::Best { threshold: 0.5, other: None };

    /// `gated` at the median.
    pub const GATED: Self = Self::Gated { threshold: 0.5 };

    /// The generated caption with a probability, or with one from each of several epochs on.
    ///
    /// # Errors
    /// A number outside of [0, 1]; a schedule that does not name each epoch once, from 0 on.
    pub fn coin(probability: impl Into<ByEpoch>) -> Result<Self, Error> {
        let coin = Self::Coin { probability: probability.into(), other: None };
        coin.check()?;
        Ok(coin)
    }

    /// Whether a table may have this name: a word that means nothing else here.
    pub(crate) fn is_name(name: &str) -> bool {
        let words = [ORIGINAL, GENERATED, "concat", "best", "coin", "gated", "mix"];
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        !name.is_empty() && name.chars().all(is_word) && !words.contains(&name.to_lowercase().as_str())
    }

    /// Fails where it cannot be meant.
    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Coin { probability, .. } => {
                let of = "a probability of the other caption, in [0, 1],";
                probability.checked("fuse", of, |p| (0.0..=1.0).contains(&p)).map(|_| ())
            }
            Self::Mix(weights) => {
                let sum: f64 = weights.values().sum();
                let is_share = |weight: &f64| (0.0..=1.0).contains(weight);
                if weights.values().all(is_share) && (sum - 1.0).abs() < 1e-6 {
                    return Ok(());
                }
                let accepted = format!("shares in [0, 1] that sum to 1, not to {sum}");
                Err(Error::option("fuse", self, accepted))
            }
            _ => Ok(()),
        }
    }

    /// The tables that it names.
    pub fn tables(&self) -> Vec<&str> {
        match self {
            Self::Table(name) => vec![name],
            Self::Mix(weights) => {
                let is_table = |name: &&str| matches!(Chosen::of(name), Chosen::Table(_));
                weights.keys().map(String::as_str).filter(is_table).collect()
            }
            Self::Concat { other, .. } | Self::Best { other, .. } | Self::Coin { other, .. } => {
                other.iter().map(String::as_str).collect()
            }
            Self::Original | Self::Generated | Self::Gated { .. } => vec![],
        }
    }

    /// Whether captions are generated for it.
    pub fn is_generated(&self) -> bool {
        match self {
            Self::Original | Self::Table(_) => false,
            Self::Mix(weights) => weights.get(GENERATED).is_some_and(|weight| *weight > 0.0),
            Self::Concat { other, .. } | Self::Best { other, .. } | Self::Coin { other, .. } => {
                other.is_none()
            }
            Self::Generated | Self::Gated { .. } => true,
        }
    }

    /// Which caption goes with the original or takes its place; a judge's score does not matter here. What a table lacks
    /// is not chosen.
    pub fn chosen(&self, known: &Evidence, has: Has<'_>) -> Chosen<'_> {
        let chosen = match self {
            Self::Original => Chosen::Original,
            Self::Generated => Chosen::Generated,
            Self::Table(name) => Chosen::Table(name),
            Self::Mix(weights) => drawn(weights, known.draw, has),
            Self::Concat { other, .. } => Chosen::other(other.as_ref()),
            Self::Best { threshold, other } => match known.alignment {
                Some(alignment) if alignment < *threshold => Chosen::other(other.as_ref()),
                _ => Chosen::Original,
            },
            Self::Coin { probability, other } if known.draw < probability.at(known.epoch) => {
                Chosen::other(other.as_ref())
            }
            Self::Coin { .. } => Chosen::Original,
            // An original that passes and wins the coin stays whatever the other is worth.
            Self::Gated { threshold } if !passes(known.alignment, *threshold, true) || known.draw < 0.5 => {
                Chosen::Generated
            }
            Self::Gated { .. } => Chosen::Original,
        };
        match chosen {
            Chosen::Table(name) if !has(name) => Chosen::Original,
            chosen => chosen,
        }
    }

    /// Whether alignments of originals are looked at.
    pub fn needs_alignment(&self) -> bool {
        matches!(self, Self::Best { .. } | Self::Gated { .. })
    }

    /// Whether generated captions must be judged.
    pub fn needs_judge(&self) -> bool {
        matches!(self, Self::Gated { .. })
    }

    /// The caption of a sample whose row has `context` tokens, start and end included; `other` is the one that was
    /// [chosen](Self::chosen).
    ///
    /// An empty one leaves the original. Without a tokenizer nothing is cut.
    pub fn fuse(
        &self,
        tokenizer: Option<&Tokenizer>,
        context: usize,
        original: &str,
        other: Option<&str>,
        known: &Evidence,
    ) -> String {
        let other = other.map(str::trim).filter(|caption| !caption.is_empty());
        match (self, other) {
            (_, None) => original.to_owned(),
            (Self::Concat { generated_tokens, .. }, Some(other)) => {
                concat(tokenizer, context, trimmed(original), other, *generated_tokens)
            }
            (Self::Gated { threshold }, Some(_)) if !passes(known.judged, *threshold, false) => {
                original.to_owned()
            }
            (_, Some(other)) => other.to_owned(),
        }
    }
}

/// The caption that is drawn by `weights`, among those that the sample has.
fn drawn<'f>(weights: &'f BTreeMap<String, f64>, draw: f64, has: Has<'_>) -> Chosen<'f> {
    let chosen = weights.iter().map(|(name, weight)| (Chosen::of(name), *weight));
    let there: Vec<_> = chosen.filter(|(own, _)| !matches!(own, Chosen::Table(name) if !has(name))).collect();
    let mut left = draw * there.iter().map(|(_, weight)| weight).sum::<f64>();
    let found = there.iter().find(|(_, weight)| {
        left -= weight;
        left < 0.0
    });
    // Nothing is left where all have a weight of 0, or by rounding.
    found
        .or_else(|| there.iter().rev().find(|(_, weight)| *weight > 0.0))
        .map_or(Chosen::Original, |(own, _)| *own)
}

/// Whether a score passes; one that is not a number does not.
fn passes(score: Option<f32>, threshold: f32, without: bool) -> bool {
    score.map_or(without, |score| score >= threshold)
}

/// Fits both captions into a row of `context` tokens.
fn concat(
    tokenizer: Option<&Tokenizer>,
    context: usize,
    original: &str,
    generated: &str,
    claimed: usize,
) -> String {
    if original.is_empty() {
        return generated.to_owned();
    }
    let whole = format!("{original}{SEPARATOR}{generated}");
    let Some(tokenizer) = tokenizer else { return whole };
    let budget = context.saturating_sub(tokenizer.added());
    if tokenizer.ids(&whole).len() <= budget {
        return whole;
    }
    let separator = tokenizer.ids(SEPARATOR).len();
    let left = budget.saturating_sub(tokenizer.ids(original).len() + separator);
    let generated = tokenizer.truncate(generated, left.max(claimed).min(budget));
    let mut room = budget.saturating_sub(tokenizer.ids(generated).len() + separator);
    while room > 0 {
        let kept = tokenizer.truncate(original, room);
        if kept.is_empty() {
            break;
        }
        let fused = format!("{kept}{SEPARATOR}{generated}");
        // A separator may join the original's last punctuation mark and cost other tokens.
        let over = tokenizer.ids(&fused).len().saturating_sub(budget);
        if over == 0 {
            return fused;
        }
        room = room.saturating_sub(over);
    }
    generated.to_owned()
}

impl fmt::Display for Fuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn named<'a>(
            first: &'a dyn fmt::Display,
            other: &'a Option<String>,
        ) -> [(&'static str, Option<&'a dyn fmt::Display>); 2] {
            [("", Some(first)), ("other", other.as_ref().map(|other| other as &dyn fmt::Display))]
        }
        let shown = match self {
            Self::Original => ORIGINAL.to_owned(),
            Self::Generated => GENERATED.to_owned(),
            Self::Table(name) => name.clone(),
            Self::Mix(weights) => {
                let shares: Vec<String> =
                    weights.iter().map(|(name, share)| format!("{name}: {share}")).collect();
                format!("mix({{{}}})", shares.join(", "))
            }
            Self::Concat { generated_tokens, other } => show("concat", &named(generated_tokens, other)),
            Self::Best { threshold, other } => show("best", &named(threshold, other)),
            Self::Coin { probability, other } => show("coin", &named(probability, other)),
            Self::Gated { threshold } => show("gated", &[("", Some(threshold))]),
        };
        f.write_str(&shown)
    }
}

/// What is accepted.
const ACCEPTED: &str = "original, generated, the NAME of a table of captions, concat(N), with N tokens for the generated \
                        part, best(Q), the generated caption below the alignment quantile Q, coin(P), the generated caption \
                        with probability P, each with other=NAME for that of a table, mix({NAME: SHARE, ..}), or gated(Q), \
                        captions that pass Q";

impl FromStr for Fuse {
    type Err = Error;

    /// As [`Display`](fmt::Display) writes it; the numbers may be omitted.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::option("fuse", text, ACCEPTED);
        if Self::is_name(text.trim()) {
            return Ok(Self::Table(text.trim().to_owned()));
        }
        let mut call = Call::parse(text).ok_or_else(wrong)?;
        let quantile = |given: Option<String>| -> Result<f32, Error> {
            let Some(number) = given else { return Ok(0.5) };
            number.parse().ok().filter(|q| (0.0..=1.0).contains(q)).ok_or_else(wrong)
        };
        let other = |call: &mut Call| match call.take_named("other") {
            Some(name) if name == GENERATED => Ok(None),
            Some(name) if Self::is_name(&name) => Ok(Some(name)),
            None => Ok(None),
            Some(_) => Err(wrong()),
        };
        let fuse = match call.name.as_str() {
            ORIGINAL => Self::Original,
            GENERATED => Self::Generated,
            "concat" => {
                let other = other(&mut call)?;
                let tokens = call.take("generated_tokens").map_or(Ok(20), |number| number.parse());
                Self::Concat { generated_tokens: tokens.map_err(|_| wrong())?, other }
            }
            "best" => {
                let other = other(&mut call)?;
                Self::Best { threshold: quantile(call.take("threshold"))?, other }
            }
            "coin" => {
                let other = other(&mut call)?;
                let probability =
                    call.take("probability").map_or(Ok(0.5.into()), |p| p.parse().map_err(|_| wrong()))?;
                Self::Coin { probability, other }
            }
            "mix" => Self::Mix(shares(&call.take("shares").ok_or_else(wrong)?).ok_or_else(wrong)?),
            "gated" => Self::Gated { threshold: quantile(call.take("threshold"))? },
            _ => return Err(wrong()),
        };
        if !call.is_spent() {
            return Err(wrong());
        }
        fuse.check()?;
        Ok(fuse)
    }
}

/// Reads `{original: 0.5, blip2: 0.5}`; `None` where a name stands twice, or is none.
fn shares(text: &str) -> Option<BTreeMap<String, f64>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut shares = BTreeMap::new();
    for share in inner.split(',') {
        let (name, share) = share.rsplit_once(':')?;
        let name = name.trim().trim_matches(['"', '\'']);
        let is_caption = [ORIGINAL, GENERATED].contains(&name) || Fuse::is_name(name);
        if !is_caption || shares.insert(name.to_owned(), share.trim().parse().ok()?).is_some() {
            return None;
        }
    }
    Some(shares)
}

text_settings! {
    Fuse: "Concat | Best | Coin | Gated | Mix | str", ACCEPTED;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hash;

    const ORIGINAL: &str =
        "a very long original caption that goes on, and on, about the photographer and the weather!";
    const GENERATED: &str = "a dog on grass";
    /// The caption of a sample that has a generated one, and one in the table `blip2`.
    fn made(fuse: &Fuse, known: &Evidence) -> String {
        let other = match fuse.chosen(known, &|table| table == "blip2") {
            Chosen::Original => None,
            Chosen::Generated => Some("generated".to_owned()),
            Chosen::Table(name) => Some(format!("of {name}")),
        };
        fuse.fuse(None, 77, "original", other.as_deref(), known)
    }

    fn needs_generated(fuse: &Fuse, known: &Evidence) -> bool {
        fuse.chosen(known, &|_| true) == Chosen::Generated
    }

    const NOTHING: Evidence = Evidence { alignment: None, judged: None, draw: 0.0, epoch: 0 };

    fn tokenizer() -> Tokenizer {
        Tokenizer::train([ORIGINAL, GENERATED].repeat(3).into_iter(), 600).unwrap()
    }

    #[test]
    fn concat_always_leaves_room_for_the_generated_part() {
        let tokenizer = tokenizer();
        let generated_len = tokenizer.ids(GENERATED).len();
        let whole = tokenizer.ids(&format!("{ORIGINAL}; {GENERATED}")).len() + 2;
        for context in 3..whole + 3 {
            for claimed in [0, 2, 20] {
                let fuse = Fuse::Concat { generated_tokens: claimed, other: None };
                let fused = fuse.fuse(Some(&tokenizer), context, ORIGINAL, Some(GENERATED), &NOTHING);
                assert!(tokenizer.ids(&fused).len() + 2 <= context, "{context} {claimed}: {fused:?}");
                if context >= whole {
                    assert_eq!(fused, format!("{ORIGINAL}; {GENERATED}"));
                } else if claimed >= generated_len && context >= generated_len + 2 {
                    assert!(fused.ends_with(GENERATED), "{context} {claimed}: {fused:?}");
                }
                if context >= generated_len + 5 && claimed == 20 {
                    assert!(fused.starts_with("a "), "the original keeps what is left: {fused:?}");
                }
            }
        }
    }

    #[test]
    fn a_short_original_gives_its_room_to_the_generated_part() {
        let tokenizer = tokenizer();
        let fused = Fuse::Concat { generated_tokens: 2, other: None }.fuse(
            Some(&tokenizer),
            16,
            "a dog",
            Some(ORIGINAL),
            &NOTHING,
        );
        assert!(tokenizer.ids(&fused).len() >= 12, "{fused:?}");
    }

    fn aligned(alignment: Option<f32>) -> Evidence {
        Evidence { alignment, ..NOTHING }
    }

    #[test]
    fn best_takes_the_generated_caption_below_the_threshold() {
        let best = Fuse::Best { threshold: 0.6, other: None };
        let fuse = |alignment| made(&best, &aligned(alignment));
        assert_eq!(fuse(Some(0.59)), "generated");
        assert_eq!(fuse(Some(0.6)), "original");
        assert_eq!(fuse(None), "original");
        assert!(
            needs_generated(&best, &aligned(Some(0.0)))
                && !needs_generated(&best, &aligned(Some(1.0)))
                && !needs_generated(&best, &aligned(None))
        );
    }

    #[test]
    fn a_coin_takes_the_generated_caption_as_often_as_it_says() {
        let fuse: Fuse = "coin({0: 0.2, 3: 0.5})".parse().unwrap();
        for (epoch, share) in [(0, 0.2), (2, 0.2), (3, 0.5), (9, 0.5)] {
            let n = 20_000u64;
            let generated = (0..n).filter(|&id| {
                let draw = hash::unit(hash::hash(1, hash::Purpose::Fuse, hash::combine(&[epoch, id])));
                let known = Evidence { draw, epoch, ..NOTHING };
                let text = made(&fuse, &known);
                assert_eq!(text == "generated", needs_generated(&fuse, &known));
                text == "generated"
            });
            // A binomial's deviation: 5 of them.
            let found = generated.count() as f64 / n as f64;
            assert!(
                (found - share).abs() < 5.0 * (share * (1.0 - share) / n as f64).sqrt(),
                "{epoch}: {found}"
            );
        }
    }

    #[test]
    fn gated_wants_each_caption_to_pass() {
        let gated = Fuse::Gated { threshold: 0.6 };
        let fuse = |alignment: f32, judged: Option<f32>, draw: f64| {
            let known = Evidence { alignment: Some(alignment), judged, draw, epoch: 0 };
            made(&gated, &known)
        };
        // Both pass: the coin. One: that one. None: the original.
        assert_eq!([fuse(0.6, Some(0.6), 0.49), fuse(0.6, Some(0.6), 0.5)], ["generated", "original"]);
        for draw in [0.0, 0.99] {
            assert_eq!(fuse(0.59, Some(0.9), draw), "generated");
            assert_eq!(fuse(0.9, Some(0.59), draw), "original");
            assert_eq!(fuse(0.1, Some(0.1), draw), "original");
            assert_eq!(fuse(0.1, None, draw), "original", "nobody judged it");
            assert_eq!(fuse(0.1, Some(f32::NAN), draw), "original");
        }
        let needs = |alignment, draw| needs_generated(&gated, &Evidence { draw, ..aligned(alignment) });
        assert!(
            needs(Some(0.9), 0.2) && !needs(Some(0.9), 0.7) && needs(Some(0.1), 0.7) && !needs(None, 0.7)
        );
    }

    #[test]
    fn an_empty_generated_caption_leaves_the_original() {
        let tokenizer = tokenizer();
        let sure: Fuse = "coin(1)".parse().unwrap();
        for fuse in [Fuse::Original, Fuse::Generated, Fuse::CONCAT, Fuse::BEST, Fuse::GATED, sure] {
            for generated in [None, Some(""), Some(" \n")] {
                let known = Evidence { judged: Some(1.0), ..aligned(Some(0.0)) };
                assert_eq!(fuse.fuse(Some(&tokenizer), 77, "original", generated, &known), "original");
            }
        }
    }

    #[test]
    fn names_are_parsed_and_shown() {
        for text in [
            "coin(0.25)",
            "coin(0)",
            "coin({0: 0.2, 10: 0.5})",
            "coin({0: 0.2, 10: 0.5}, other=blip2)",
            "gated(0.3)",
            "best(1)",
            "best(0.5, other=llava-1.6)",
            "concat(16)",
            "concat(16, other=blip2)",
            "mix({blip2: 0.25, original: 0.75})",
            "blip2",
        ] {
            assert_eq!(text.parse::<Fuse>().unwrap().to_string(), text);
        }
        for fuse in [Fuse::Original, Fuse::Generated, Fuse::CONCAT, Fuse::BEST, Fuse::GATED] {
            assert_eq!(fuse.to_string().parse::<Fuse>().unwrap(), fuse);
        }
        assert_eq!("concat".parse::<Fuse>().unwrap(), Fuse::CONCAT);
        assert_eq!("coin".parse::<Fuse>().unwrap(), Fuse::coin(0.5).unwrap());
        assert_eq!("Coin({10:1,0:0})".parse::<Fuse>().unwrap().to_string(), "coin({0: 0, 10: 1})");
        let wrongs = [
            "",
            "concat=16",
            "concat(-1)",
            "best(2)",
            "best(NaN)",
            "gated(-1)",
            "original(1)",
            "coin({})",
            "coin(0.5, other=original)",
            "concat(16, other=best)",
            "mix(0.5)",
            "mix({original: 0.5, original: 0.5})",
            "mix({best: 1})",
            "a b",
        ];
        for wrong in wrongs {
            let error = wrong.parse::<Fuse>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("invalid fuse={wrong}: expected original, generated")),
                "{error}"
            );
        }
        for (wrong, says) in [
            ("coin(2)", "in [0, 1]"),
            ("coin(NaN)", "in [0, 1]"),
            ("coin({1: 0.5})", "begins with epoch 0"),
            ("coin({0: 0.5, 0: 0.6})", "each epoch once"),
            ("mix({original: 0.5, blip2: 0.4})", "that sum to 1, not to 0.9"),
            ("mix({original: 2, blip2: -1})", "shares in [0, 1]"),
        ] {
            let error = wrong.parse::<Fuse>().unwrap_err().to_string();
            assert!(error.starts_with("invalid fuse=") && error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_mix_draws_as_often_as_it_says_among_what_a_sample_has() {
        let draws = |fuse: &str| -> BTreeMap<String, f64> {
            let fuse: Fuse = fuse.parse().unwrap();
            let n = 20_000u64;
            let mut found: BTreeMap<String, f64> = BTreeMap::new();
            for id in 0..n {
                let draw = hash::unit(hash::hash(1, hash::Purpose::Fuse, id));
                *found.entry(made(&fuse, &Evidence { draw, ..NOTHING })).or_default() += 1.0 / n as f64;
            }
            found
        };
        for (fuse, shares) in [
            (
                "mix({original: 0.5, blip2: 0.2, generated: 0.3})",
                &[("original", 0.5), ("of blip2", 0.2), ("generated", 0.3)][..],
            ),
            // A table that lacks the sample has no part.
            ("mix({original: 0.25, blip2: 0.25, absent: 0.5})", &[("original", 0.5), ("of blip2", 0.5)]),
            ("mix({absent: 1})", &[("original", 1.0)]),
            ("mix({original: 0, absent: 1})", &[("original", 1.0)]),
            ("blip2", &[("of blip2", 1.0)]),
            ("absent", &[("original", 1.0)]),
            ("coin(0.3, other=blip2)", &[("of blip2", 0.3), ("original", 0.7)]),
            ("coin(0.3, other=absent)", &[("original", 1.0)]),
            ("concat(9, other=blip2)", &[("original; of blip2", 1.0)]),
        ] {
            let found = draws(fuse);
            assert_eq!(found.len(), shares.len(), "{fuse}: {found:?}");
            for (text, share) in shares {
                // A binomial's deviation: 5 of them.
                let bound = 5.0 * (share * (1.0 - share) / 20_000.0_f64).sqrt() + 1e-9;
                assert!((found[*text] - share).abs() <= bound, "{fuse}: {found:?}");
            }
        }
    }

    #[test]
    fn it_is_known_what_is_named_and_what_is_generated() {
        for (fuse, tables, is_generated) in [
            ("original", &[][..], false),
            ("generated", &[], true),
            ("blip2", &["blip2"], false),
            ("coin(0.5)", &[], true),
            ("coin(0.5, other=blip2)", &["blip2"], false),
            ("best(0.5, other=generated)", &[], true),
            ("mix({b: 0.5, a: 0.5})", &["a", "b"], false),
            ("mix({b: 0.5, generated: 0.5})", &["b"], true),
            ("mix({b: 1, generated: 0})", &["b"], false),
        ] {
            let fuse: Fuse = fuse.parse().unwrap();
            assert_eq!((fuse.tables(), fuse.is_generated()), (tables.to_vec(), is_generated), "{fuse}");
        }
    }
}
