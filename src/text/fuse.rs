//! Makes one caption of the original and the generated one.
//!
//! The paper concatenates: original + "; " + generated. Its code then cuts the text to 30 words,
//! so that a long original loses the generated part altogether; here a budget of tokens keeps
//! room for it. Where the captioner is weaker than the caption, concatenation hurts: `best`
//! takes the generated caption only where the original does not fit its image.

use std::fmt;
use std::str::FromStr;

use super::tokenizer::Tokenizer;
use crate::error::Error;
use crate::hash;

/// Stands between the two captions.
const SEPARATOR: &str = "; ";

/// How the caption of a survivor is made. Parsed from and shown as `original`, `generated`,
/// `concat` or `best`.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

impl Fuse {
    /// `concat` with room for 20 generated tokens, the longest caption of BLIP's settings.
    pub const CONCAT: Self = Self::Concat { generated_tokens: 20 };

    /// `best` with the better aligned half of the corpus kept as it is.
    pub const BEST: Self = Self::Best { threshold: 0.5 };

    /// Whether a sample of this alignment needs a generated caption. Without an alignment
    /// nothing speaks against the original.
    pub fn needs_generated(&self, alignment: Option<f32>) -> bool {
        match *self {
            Self::Original => false,
            Self::Generated | Self::Concat { .. } => true,
            Self::Best { threshold } => alignment.is_some_and(|alignment| alignment < threshold),
        }
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
        alignment: Option<f32>,
    ) -> String {
        let generated = generated.map(str::trim).filter(|caption| !caption.is_empty());
        let Some(generated) = generated.filter(|_| self.needs_generated(alignment)) else {
            return original.to_owned();
        };
        match *self {
            Self::Concat { generated_tokens } => {
                concat(tokenizer, context.saturating_sub(2), original.trim(), generated, generated_tokens)
            }
            _ => generated.to_owned(),
        }
    }

    /// Identifies the way of fusing and its parameters.
    pub fn fingerprint(&self) -> u64 {
        hash::hash_str(&format!("{self:?}"))
    }
}

/// Fits both captions into `budget` tokens.
fn concat(
    tokenizer: Option<&Tokenizer>,
    budget: usize,
    original: &str,
    generated: &str,
    claimed: usize,
) -> String {
    if original.is_empty() {
        return generated.to_owned();
    }
    let whole = format!("{original}{SEPARATOR}{generated}");
    let Some(tokenizer) = tokenizer else { return whole };
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
        match self {
            Self::Original => f.write_str("original"),
            Self::Generated => f.write_str("generated"),
            Self::Concat { generated_tokens } => write!(f, "concat:{generated_tokens}"),
            Self::Best { threshold } => write!(f, "best:{threshold}"),
        }
    }
}

impl FromStr for Fuse {
    type Err = Error;

    /// `original`, `generated`, `concat`, `best`; the last two take a number, as in `concat:16` or
    /// `best:0.3`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            let accepted = "one of original, generated, concat, best; concat:N gives the generated part N \
                            tokens, best:Q keeps originals from the alignment quantile Q on";
            Error::option("fuse", text, accepted)
        };
        match text.split_once(':') {
            None => match text {
                "original" => Ok(Self::Original),
                "generated" => Ok(Self::Generated),
                "concat" => Ok(Self::CONCAT),
                "best" => Ok(Self::BEST),
                _ => Err(unknown()),
            },
            Some(("concat", number)) => {
                number.parse().map(|n| Self::Concat { generated_tokens: n }).map_err(|_| unknown())
            }
            Some(("best", number)) => match number.parse() {
                Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(Self::Best { threshold }),
                _ => Err(unknown()),
            },
            Some(_) => Err(unknown()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ORIGINAL: &str =
        "a very long original caption that goes on, and on, about the photographer and the weather!";
    const GENERATED: &str = "a dog on grass";

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
                let fused = fuse.fuse(Some(&tokenizer), context, ORIGINAL, Some(GENERATED), None);
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
        let fused =
            Fuse::Concat { generated_tokens: 2 }.fuse(Some(&tokenizer), 16, "a dog", Some(ORIGINAL), None);
        assert!(tokenizer.ids(&fused).len() >= 12, "{fused:?}");
    }

    #[test]
    fn best_takes_the_generated_caption_below_the_threshold() {
        let tokenizer = tokenizer();
        let best = Fuse::Best { threshold: 0.6 };
        let fuse = |alignment| best.fuse(Some(&tokenizer), 77, "original", Some("generated"), alignment);
        assert_eq!(fuse(Some(0.59)), "generated");
        assert_eq!(fuse(Some(0.6)), "original");
        assert_eq!(fuse(None), "original");
        assert!(
            best.needs_generated(Some(0.0))
                && !best.needs_generated(Some(1.0))
                && !best.needs_generated(None)
        );
    }

    #[test]
    fn an_empty_generated_caption_leaves_the_original() {
        let tokenizer = tokenizer();
        for fuse in [Fuse::Original, Fuse::Generated, Fuse::CONCAT, Fuse::BEST] {
            for generated in [None, Some(""), Some(" \n")] {
                assert_eq!(fuse.fuse(Some(&tokenizer), 77, "original", generated, Some(0.0)), "original");
            }
        }
    }

    #[test]
    fn names_are_parsed_and_shown() {
        for fuse in [Fuse::Original, Fuse::Generated, Fuse::CONCAT, Fuse::BEST] {
            assert_eq!(fuse.to_string().parse::<Fuse>().unwrap(), fuse);
        }
        assert_eq!("concat".parse::<Fuse>().unwrap(), Fuse::CONCAT);
        assert_eq!("concat:16".parse::<Fuse>().unwrap(), Fuse::Concat { generated_tokens: 16 });
        assert_eq!("best:0.3".parse::<Fuse>().unwrap(), Fuse::Best { threshold: 0.3 });
        for wrong in ["coin", "concat:", "concat:-1", "best:2", "best:NaN", "original:1"] {
            let error = wrong.parse::<Fuse>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("fuse = {wrong}: one of original")), "{error}");
        }
        let distinct = [Fuse::CONCAT, Fuse::Concat { generated_tokens: 3 }, Fuse::BEST, Fuse::Original];
        let prints: std::collections::HashSet<u64> = distinct.iter().map(Fuse::fingerprint).collect();
        assert_eq!(prints.len(), distinct.len());
    }
}
