//! Makes one caption of the original and the generated one.
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

use std::fmt;
use std::str::FromStr;

use super::tokenizer::Tokenizer;
use crate::error::Error;
use crate::hash;
use crate::options::{ByEpoch, Call, show, text_settings};
use crate::sample::trimmed;

/// Stands between the two captions.
const SEPARATOR: &str = "; ";

/// How the caption of a kept sample is made. Written as `original`, `generated`, `concat(20)`, `best(0.5)`,
/// `coin(0.5)`, `coin({0: 0.2, 10: 0.5})` or `gated(0.5)`; without a number each has the one that stands here.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fuse {
    /// The original caption.
    Original,
    /// The generated caption.
    Generated,
    /// Original, "; ", generated.
    Concat {
        /// Tokens that the generated part may claim from a long original; it may use what a
        /// short one leaves, too.
        generated_tokens: usize,
    },
    /// The original where it is aligned, the generated caption where it is not.
    Best {
        /// Least alignment, as a quantile in [0, 1], at which the original stays.
        threshold: f32,
    },
    /// The generated caption with a probability, else the original: drawn for each sample and epoch. Training on either
    /// keeps both kinds of text in the data (VeCLIP, arXiv 2310.07699; MetaCLIP 1.2 mixes likewise); a schedule moves
    /// from one to the other.
    Coin(ByEpoch),
    /// CapFilt: each caption must pass. Where both do, a fair coin of sample and epoch; where one does,
    /// that one; where none does, the original. The original is judged by its alignment, the
    /// generated caption by a judge that did not write it.
    Gated {
        /// Least alignment, in [0, 1], at which a caption passes.
        threshold: f32,
    },
}

/// What is known of a sample's two captions.
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
    pub const CONCAT: Self = Self::Concat { generated_tokens: 20 };

    /// `best` with the better aligned half of the corpus kept as it is.
    pub const BEST: Self = Self::Best { threshold: 0.5 };

    /// `gated` at the median.
    pub const GATED: Self = Self::Gated { threshold: 0.5 };

    /// The generated caption with a probability, or with one from each of several epochs on.
    ///
    /// # Errors
    /// A number outside of [0, 1]; a schedule that does not name each epoch once, from 0 on.
    pub fn coin(probability: impl Into<ByEpoch>) -> Result<Self, Error> {
        let coin = probability.into();
        coin.checked("fuse", "a probability of the generated caption, in [0, 1],", |p| {
            (0.0..=1.0).contains(&p)
        })?;
        Ok(Self::Coin(coin))
    }

    /// Whether the sample needs a generated caption; a judge's score does not matter here.
    pub fn needs_generated(&self, known: &Evidence) -> bool {
        match self {
            Self::Original => false,
            Self::Generated | Self::Concat { .. } => true,
            Self::Best { threshold } => known.alignment.is_some_and(|alignment| alignment < *threshold),
            Self::Coin(coin) => known.draw < coin.at(known.epoch),
            // An original that passes and wins the coin stays whatever the other is worth.
            Self::Gated { threshold } => !passes(known.alignment, *threshold, true) || known.draw < 0.5,
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

    /// The caption of a sample whose row has `context` tokens, start and end included.
    ///
    /// An empty generated caption leaves the original. Without a tokenizer nothing is cut.
    pub fn fuse(
        &self,
        tokenizer: Option<&Tokenizer>,
        context: usize,
        original: &str,
        generated: Option<&str>,
        known: &Evidence,
    ) -> String {
        let generated = generated.map(str::trim).filter(|caption| !caption.is_empty());
        let Some(generated) = generated.filter(|_| self.needs_generated(known)) else {
            return original.to_owned();
        };
        match *self {
            Self::Concat { generated_tokens } => {
                concat(tokenizer, context, trimmed(original), generated, generated_tokens)
            }
            Self::Gated { threshold } if !passes(known.judged, threshold, false) => original.to_owned(),
            _ => generated.to_owned(),
        }
    }

    /// Identifies the way of fusing and its parameters.
    pub fn fingerprint(&self) -> u64 {
        hash::hash_str(&format!("{self:?}"))
    }
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
        let (name, argument): (&str, Option<&dyn fmt::Display>) = match self {
            Self::Original => ("original", None),
            Self::Generated => ("generated", None),
            Self::Concat { generated_tokens } => ("concat", Some(generated_tokens)),
            Self::Best { threshold } => ("best", Some(threshold)),
            Self::Coin(coin) => ("coin", Some(coin)),
            Self::Gated { threshold } => ("gated", Some(threshold)),
        };
        f.write_str(&show(name, &[("", argument)]))
    }
}

/// What is accepted.
const ACCEPTED: &str = "original, generated, concat(N), with N tokens for the generated part, best(Q), the generated \
                        caption below the alignment quantile Q, coin(P), the generated caption with probability P, or \
                        gated(Q), captions that pass Q";

impl FromStr for Fuse {
    type Err = Error;

    /// As [`Display`](fmt::Display) writes it; the numbers may be omitted.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::option("fuse", text, ACCEPTED);
        let mut call = Call::parse(text).ok_or_else(wrong)?;
        let quantile = |given: Option<String>| -> Result<f32, Error> {
            let Some(number) = given else { return Ok(0.5) };
            number.parse().ok().filter(|q| (0.0..=1.0).contains(q)).ok_or_else(wrong)
        };
        let fuse = match call.name.as_str() {
            "original" => Self::Original,
            "generated" => Self::Generated,
            "concat" => match call.take("generated_tokens") {
                Some(number) => Self::Concat { generated_tokens: number.parse().map_err(|_| wrong())? },
                None => Self::CONCAT,
            },
            "best" => Self::Best { threshold: quantile(call.take("threshold"))? },
            "coin" => {
                let coin: ByEpoch =
                    call.take("probability").map_or(Ok(0.5.into()), |p| p.parse().map_err(|_| wrong()))?;
                Self::coin(coin)?
            }
            "gated" => Self::Gated { threshold: quantile(call.take("threshold"))? },
            _ => return Err(wrong()),
        };
        if call.is_spent() { Ok(fuse) } else { Err(wrong()) }
    }
}

text_settings! {
    Fuse: "Concat | Best | Coin | Gated | Literal['original', 'generated'] | str", ACCEPTED;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ORIGINAL: &str =
        "a very long original caption that goes on, and on, about the photographer and the weather!";
    const GENERATED: &str = "a dog on grass";
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
                let fuse = Fuse::Concat { generated_tokens: claimed };
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
        let fused = Fuse::Concat { generated_tokens: 2 }.fuse(
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
        let tokenizer = tokenizer();
        let best = Fuse::Best { threshold: 0.6 };
        let fuse =
            |alignment| best.fuse(Some(&tokenizer), 77, "original", Some("generated"), &aligned(alignment));
        assert_eq!(fuse(Some(0.59)), "generated");
        assert_eq!(fuse(Some(0.6)), "original");
        assert_eq!(fuse(None), "original");
        assert!(
            best.needs_generated(&aligned(Some(0.0)))
                && !best.needs_generated(&aligned(Some(1.0)))
                && !best.needs_generated(&aligned(None))
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
                let text = fuse.fuse(None, 77, "original", Some("generated"), &known);
                assert_eq!(text == "generated", fuse.needs_generated(&known));
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
            gated.fuse(None, 77, "original", Some("generated"), &known)
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
        let needs = |alignment, draw| gated.needs_generated(&Evidence { draw, ..aligned(alignment) });
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
        for text in
            ["coin(0.25)", "coin(0)", "coin({0: 0.2, 10: 0.5})", "gated(0.3)", "best(1)", "concat(16)"]
        {
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
            "coins",
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
        ] {
            let error = wrong.parse::<Fuse>().unwrap_err().to_string();
            assert!(error.starts_with("invalid fuse=") && error.contains(says), "{wrong}: {error}");
        }
        let distinct = [Fuse::CONCAT, Fuse::Concat { generated_tokens: 3 }, Fuse::BEST, Fuse::Original];
        let prints: std::collections::HashSet<u64> = distinct.iter().map(Fuse::fingerprint).collect();
        assert_eq!(prints.len(), distinct.len());
    }
}
