//! How captions are written: what `generation` of a captioner's `config.json` says.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A way of choosing tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoding {
    /// The most likely token, one after the other.
    #[default]
    Greedy,
    /// The most likely of several captions that grow side by side.
    Beam,
    /// Drawn from the most likely tokens, by a seed and the sample's id.
    Nucleus,
}

/// How captions are written. Lengths are of what is written after start token and prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationConfig {
    /// Rows of every caption batch.
    pub batch_size: usize,
    /// Fewest tokens before the end token.
    pub min_tokens: usize,
    /// Most tokens, the end token included where one comes in time.
    pub max_tokens: usize,
    /// How tokens are chosen.
    #[serde(default)]
    pub decoding: Decoding,
    /// Captions that grow side by side; for `beam`.
    #[serde(default = "three")]
    pub beams: usize,
    /// A caption's summed log-likelihood is divided by its length to this power, so that above 0
    /// longer captions win more often; for `beam`.
    #[serde(default = "one")]
    pub length_penalty: f64,
    /// Tokens are drawn from the smallest set with at least this probability, in (0, 1]; for
    /// `nucleus`.
    #[serde(default = "most")]
    pub top_p: f64,
    /// Divides the logits before drawing: below 1 likely tokens become likelier; for `nucleus`.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Seed of what is drawn; for `nucleus`.
    #[serde(default)]
    pub seed: u64,
    /// Text that every caption goes on from; it is not part of the caption.
    #[serde(default)]
    pub prompt: String,
    /// Scores of tokens that were written already are divided (or, where negative, multiplied) by
    /// this; 1 changes nothing (Keskar et al., arXiv 1909.05858).
    #[serde(default = "one")]
    pub repetition_penalty: f64,
}

/// Settings to change: those that are `None` stay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationChange {
    /// Rows of every caption batch.
    pub batch_size: Option<usize>,
    /// Fewest tokens.
    pub min_tokens: Option<usize>,
    /// Most tokens.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub decoding: Option<Decoding>,
    /// Captions that grow side by side; for `beam`.
    pub beams: Option<usize>,
    /// Above 0 longer captions win more often; for `beam`.
    pub length_penalty: Option<f64>,
    /// Probability of the tokens that are drawn from; for `nucleus`.
    pub top_p: Option<f64>,
    /// Divides the logits before drawing; for `nucleus`.
    pub temperature: Option<f64>,
    /// Seed of what is drawn; for `nucleus`.
    pub seed: Option<u64>,
    /// Text that every caption goes on from.
    pub prompt: Option<String>,
    /// Above 1 words are repeated less.
    pub repetition_penalty: Option<f64>,
}

impl GenerationChange {
    /// `config` with these settings, checked.
    ///
    /// # Errors
    /// Names the first setting that cannot work, or that has no effect with the decoding that follows.
    pub fn apply(self, config: GenerationConfig) -> Result<GenerationConfig> {
        let shown = |value: Option<&dyn std::fmt::Display>| value.map(ToString::to_string);
        let bound = [
            ("generation.beams", Decoding::Beam, shown(self.beams.as_ref().map(|n| n as _))),
            (
                "generation.length_penalty",
                Decoding::Beam,
                shown(self.length_penalty.as_ref().map(|n| n as _)),
            ),
            ("generation.top_p", Decoding::Nucleus, shown(self.top_p.as_ref().map(|n| n as _))),
            ("generation.temperature", Decoding::Nucleus, shown(self.temperature.as_ref().map(|n| n as _))),
            ("generation.seed", Decoding::Nucleus, shown(self.seed.as_ref().map(|n| n as _))),
        ];
        let changed = GenerationConfig {
            batch_size: self.batch_size.unwrap_or(config.batch_size),
            min_tokens: self.min_tokens.unwrap_or(config.min_tokens),
            max_tokens: self.max_tokens.unwrap_or(config.max_tokens),
            decoding: self.decoding.unwrap_or(config.decoding),
            beams: self.beams.unwrap_or(config.beams),
            length_penalty: self.length_penalty.unwrap_or(config.length_penalty),
            top_p: self.top_p.unwrap_or(config.top_p),
            temperature: self.temperature.unwrap_or(config.temperature),
            seed: self.seed.unwrap_or(config.seed),
            prompt: self.prompt.unwrap_or(config.prompt),
            repetition_penalty: self.repetition_penalty.unwrap_or(config.repetition_penalty),
        };
        changed.validate()?;
        for (option, decoding, given) in bound {
            if let Some(given) = given.filter(|_| decoding != changed.decoding) {
                let accepted = format!(
                    "with decoding={}, since it belongs to decoding={}",
                    changed.decoding.name(),
                    decoding.name()
                );
                return Err(Error::unused(option, given, accepted));
            }
        }
        Ok(changed)
    }
}

/// Beams of BLIP's own captions, and of the paper's.
fn three() -> usize {
    3
}

fn one() -> f64 {
    1.0
}

/// The probability of BLIP's own samples (CapFilt).
fn most() -> f64 {
    0.9
}

tldr_loader::names!(
    Decoding { Greedy => "greedy", Beam => "beam", Nucleus => "nucleus" },
    option "decoding", "one of greedy, beam, nucleus"
);

impl GenerationConfig {
    /// Captions of `min_tokens` to `max_tokens` tokens, the most likely token at every place.
    pub fn greedy(batch_size: usize, min_tokens: usize, max_tokens: usize) -> Self {
        Self {
            batch_size,
            min_tokens,
            max_tokens,
            decoding: Decoding::Greedy,
            beams: three(),
            length_penalty: one(),
            top_p: most(),
            temperature: one(),
            seed: 0,
            prompt: String::new(),
            repetition_penalty: one(),
        }
    }

    /// The same by a search with three beams, as BLIP writes captions.
    pub fn beam(batch_size: usize, min_tokens: usize, max_tokens: usize) -> Self {
        Self { decoding: Decoding::Beam, ..Self::greedy(batch_size, min_tokens, max_tokens) }
    }

    /// Checks that the settings can work together.
    ///
    /// # Errors
    /// Names the first that does not, its value and what is accepted.
    pub fn validate(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::option("generation.batch_size", 0, "at least 1"));
        }
        if self.max_tokens == 0 {
            return Err(Error::option("generation.max_tokens", 0, "at least 1"));
        }
        if self.min_tokens > self.max_tokens {
            return Err(Error::option(
                "generation.min_tokens",
                self.min_tokens,
                format!("at most generation.max_tokens ({})", self.max_tokens),
            ));
        }
        if !(1..=MAX_BEAMS).contains(&self.beams) {
            let accepted = format!("a number from 1 to {MAX_BEAMS}");
            return Err(Error::option("generation.beams", self.beams, accepted));
        }
        if !self.length_penalty.is_finite() {
            return Err(Error::option("generation.length_penalty", self.length_penalty, "a finite number"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::option("generation.top_p", self.top_p, "a probability in (0, 1]"));
        }
        for (field, value) in [
            ("generation.temperature", self.temperature),
            ("generation.repetition_penalty", self.repetition_penalty),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::option(field, value, "a positive number"));
            }
        }
        Ok(())
    }
}

/// Most beams: more find captions that are likelier, and worse.
const MAX_BEAMS: usize = 64;
