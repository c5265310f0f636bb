//! What `config.json` of a captioner directory says: sizes of the parts, and the presets.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Mean of CLIP's training images, RGB, pixels scaled to [0, 1].
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training images.
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Sizes and settings of a captioner: all that is needed to build it, its weights aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionerConfig {
    /// Side of the square previews, in pixels; a multiple of `patch_size`.
    pub preview_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Mean by channel (RGB, pixels in [0, 1]) that is subtracted from a preview.
    pub mean: [f32; 3],
    /// Standard deviation by channel that a preview is divided by.
    pub std: [f32; 3],
    /// Rows of every encode batch. Part of the captioner, since numerics may depend on it.
    pub batch_size: usize,
    /// The image encoder.
    pub vision: VisionConfig,
    /// The codebook.
    pub codebook: CodebookConfig,
    /// The text decoder.
    pub decoder: DecoderConfig,
    /// How captions are written.
    pub generation: GenerationConfig,
}

/// The image encoder, a ViT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Length of a patch token.
    pub dim: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of a block's perceptron.
    pub mlp: usize,
}

/// The codebook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodebookConfig {
    /// Number of codes (K of the paper).
    pub codes: usize,
    /// Length of a code. Where it differs from the vision dimension, patch tokens are projected
    /// down for the lookup and codes up for the decoder.
    pub code_dim: usize,
    /// Weight of the commitment loss.
    pub commitment: f64,
    /// Share of a code's statistics that a training step keeps, in [0, 1).
    pub decay: f64,
}

/// The text decoder, BERT-style with cross-attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Length of a token embedding.
    pub dim: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Width of the hidden layer of a block's perceptron.
    pub mlp: usize,
    /// Rows of the token embedding; at least the tokenizer's vocabulary.
    pub vocab: usize,
    /// Rows of the position embedding; at least `max_tokens`.
    pub positions: usize,
    /// Tokens of a caption that are scored, the end token included; the rest is cut off.
    pub max_tokens: usize,
}

/// How captions are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationConfig {
    /// Rows of every caption batch.
    pub batch_size: usize,
    /// Fewest tokens before the end token.
    pub min_tokens: usize,
    /// Most tokens before the end token; below the decoder's `positions`.
    pub max_tokens: usize,
}

impl CaptionerConfig {
    /// The smallest captioner that has every part, for tests: 16-pixel previews, 16 codes.
    pub fn tiny(vocab: usize) -> Self {
        Self {
            preview_size: 16,
            patch_size: 4,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            batch_size: 8,
            vision: VisionConfig { dim: 32, layers: 2, heads: 2, mlp: 64 },
            codebook: CodebookConfig { codes: 16, code_dim: 8, commitment: 0.25, decay: 0.9 },
            decoder: DecoderConfig {
                dim: 32,
                layers: 2,
                heads: 2,
                mlp: 64,
                vocab,
                positions: 12,
                max_tokens: 12,
            },
            generation: GenerationConfig { batch_size: 4, min_tokens: 1, max_tokens: 10 },
        }
    }

    /// A captioner for demonstrations, small enough to be trained on a CPU while one waits:
    /// see [`TrainOptions::small`](crate::captioner::TrainOptions::small).
    pub fn small(vocab: usize) -> Self {
        Self {
            preview_size: 48,
            patch_size: 8,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            batch_size: 64,
            vision: VisionConfig { dim: 128, layers: 3, heads: 4, mlp: 384 },
            codebook: CodebookConfig { codes: 256, code_dim: 32, commitment: 0.25, decay: 0.98 },
            decoder: DecoderConfig {
                dim: 128,
                layers: 2,
                heads: 4,
                mlp: 384,
                vocab,
                positions: 30,
                max_tokens: 30,
            },
            generation: GenerationConfig { batch_size: 64, min_tokens: 3, max_tokens: 29 },
        }
    }

    /// The paper's captioner: ViT-B/16 at 224 pixels, 3,000 codes, captions of 5 to 20 tokens.
    pub fn base(vocab: usize) -> Self {
        Self {
            preview_size: 224,
            patch_size: 16,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            batch_size: 256,
            vision: VisionConfig { dim: 768, layers: 12, heads: 12, mlp: 3072 },
            codebook: CodebookConfig { codes: 3000, code_dim: 768, commitment: 0.25, decay: 0.99 },
            decoder: DecoderConfig {
                dim: 768,
                layers: 12,
                heads: 12,
                mlp: 3072,
                vocab,
                positions: 512,
                max_tokens: 30,
            },
            generation: GenerationConfig { batch_size: 256, min_tokens: 5, max_tokens: 20 },
        }
    }

    /// The preset of that name: `tiny`, `small` or `base`.
    ///
    /// # Errors
    /// Another name.
    pub fn preset(name: &str, vocab: usize) -> Result<Self> {
        match name {
            "tiny" => Ok(Self::tiny(vocab)),
            "small" => Ok(Self::small(vocab)),
            "base" => Ok(Self::base(vocab)),
            _ => Err(Error::option("preset", name, "one of tiny, small, base")),
        }
    }

    /// Patches of a preview.
    pub fn patches(&self) -> usize {
        let side = self.preview_size / self.patch_size.max(1);
        side * side
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Names the first field that does not, its value and what is accepted.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("preview_size", self.preview_size),
            ("patch_size", self.patch_size),
            ("batch_size", self.batch_size),
            ("vision.dim", self.vision.dim),
            ("vision.layers", self.vision.layers),
            ("vision.heads", self.vision.heads),
            ("vision.mlp", self.vision.mlp),
            ("codebook.code_dim", self.codebook.code_dim),
            ("decoder.dim", self.decoder.dim),
            ("decoder.layers", self.decoder.layers),
            ("decoder.heads", self.decoder.heads),
            ("decoder.mlp", self.decoder.mlp),
            ("generation.batch_size", self.generation.batch_size),
            ("generation.max_tokens", self.generation.max_tokens),
        ];
        for (field, value) in positive {
            // Far above any model, and keeps products of sizes inside 64 bits.
            if value == 0 || value > MAX_SIZE {
                return Err(Error::option(field, value, format!("a number from 1 to {MAX_SIZE}")));
            }
        }
        if !self.preview_size.is_multiple_of(self.patch_size) {
            return Err(Error::option(
                "preview_size",
                self.preview_size,
                format!("a multiple of patch_size ({})", self.patch_size),
            ));
        }
        if self.preview_size / self.patch_size > MAX_SIDE {
            return Err(Error::option(
                "patch_size",
                self.patch_size,
                format!("at most {MAX_SIDE} patches along a side of preview_size ({})", self.preview_size),
            ));
        }
        for (field, heads, dim) in [
            ("vision.heads", self.vision.heads, self.vision.dim),
            ("decoder.heads", self.decoder.heads, self.decoder.dim),
        ] {
            if !dim.is_multiple_of(heads) {
                return Err(Error::option(field, heads, format!("a divisor of dim ({dim})")));
            }
        }
        for (channel, &std) in self.std.iter().enumerate() {
            if !(std.is_finite() && std > 0.0 && self.mean[channel].is_finite()) {
                return Err(Error::option(
                    "std",
                    format!("{:?} with mean = {:?}", self.std, self.mean),
                    "finite means and positive standard deviations, one per channel",
                ));
            }
        }
        // Codes travel to the host as f32, which is exact up to 2^24.
        if !(2..=1 << 24).contains(&self.codebook.codes) {
            return Err(Error::option("codebook.codes", self.codebook.codes, "a number from 2 to 2^24"));
        }
        if !(0.0..1.0).contains(&self.codebook.decay) {
            return Err(Error::option("codebook.decay", self.codebook.decay, "a number in [0, 1)"));
        }
        if !(self.codebook.commitment.is_finite() && self.codebook.commitment >= 0.0) {
            return Err(Error::option("codebook.commitment", self.codebook.commitment, "a number from 0 on"));
        }
        if !(4..=1 << 24).contains(&self.decoder.vocab) {
            return Err(Error::option(
                "decoder.vocab",
                self.decoder.vocab,
                "a number from 4 (start, end, padding and a word) to 2^24",
            ));
        }
        if !(2..=MAX_SIZE).contains(&self.decoder.max_tokens) {
            return Err(Error::option(
                "decoder.max_tokens",
                self.decoder.max_tokens,
                "at least 2: a word and the end token",
            ));
        }
        let needed = self.decoder.max_tokens.max(self.generation.max_tokens + 1);
        if !(needed..=MAX_SIZE).contains(&self.decoder.positions) {
            return Err(Error::option(
                "decoder.positions",
                self.decoder.positions,
                format!("at least {needed}: decoder.max_tokens, and generation.max_tokens + 1"),
            ));
        }
        if self.generation.min_tokens > self.generation.max_tokens {
            return Err(Error::option(
                "generation.min_tokens",
                self.generation.min_tokens,
                format!("at most generation.max_tokens ({})", self.generation.max_tokens),
            ));
        }
        Ok(())
    }
}

/// Largest accepted size of any single dimension.
const MAX_SIZE: usize = 1 << 16;

/// Most patches along a side: attention over their square is out of reach long before.
const MAX_SIDE: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_json() {
        for name in ["tiny", "small", "base"] {
            let config = CaptionerConfig::preset(name, 1000).unwrap();
            config.validate().unwrap();
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<CaptionerConfig>(&json).unwrap(), config);
        }
        assert!(CaptionerConfig::preset("huge", 1000).is_err());
    }

    #[test]
    fn errors_name_the_field() {
        type Change = fn(&mut CaptionerConfig);
        let cases: [(&str, Change); 14] = [
            ("preview_size", |c| c.preview_size = 50),
            ("patch_size", |c| c.patch_size = 0),
            ("patch_size", |c| (c.preview_size, c.patch_size) = (1024, 2)),
            ("vision.heads", |c| c.vision.heads = 5),
            ("vision.mlp", |c| c.vision.mlp = 1 << 40),
            ("decoder.heads", |c| c.decoder.heads = 7),
            ("std", |c| c.std[1] = 0.0),
            ("codebook.codes", |c| c.codebook.codes = 1),
            ("codebook.decay", |c| c.codebook.decay = 1.0),
            ("codebook.commitment", |c| c.codebook.commitment = f64::NAN),
            ("decoder.vocab", |c| c.decoder.vocab = 0),
            ("decoder.max_tokens", |c| c.decoder.max_tokens = 1),
            ("decoder.positions", |c| c.decoder.positions = 20),
            ("generation.min_tokens", |c| c.generation.min_tokens = 30),
        ];
        for (field, change) in cases {
            let mut config = CaptionerConfig::small(1000);
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{field} = ")), "{field}: {message}");
        }
    }
}
