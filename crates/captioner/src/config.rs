//! What `config.json` of a captioner directory says: sizes of the parts, and the presets.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::generation::GenerationConfig;
use tldr_loader::model::PreviewFilter;

/// Mean of CLIP's training images, RGB, pixels scaled to [0, 1].
pub(super) const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training images.
pub(super) const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Sizes and settings of a captioner: all that is needed to build it, its weights aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionerConfig {
    /// Side of the square previews, in pixels; a multiple of `patch_size`.
    pub preview_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// How a picture is squashed to a preview: as the model was trained.
    #[serde(default, skip_serializing_if = "PreviewFilter::is_bilinear")]
    pub preview_filter: PreviewFilter,
    /// Mean by channel (RGB, pixels in [0, 1]) that is subtracted from a preview.
    pub mean: [f32; 3],
    /// Standard deviation by channel that a preview is divided by.
    pub std: [f32; 3],
    /// Rows of every encode batch. Part of the captioner, since numerics may depend on it.
    pub batch_size: usize,
    /// The image encoder.
    pub vision: VisionConfig,
    /// The codebook; none in a loaded BLIP until `fit` learns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codebook: Option<CodebookConfig>,
    /// What the decoder attends to.
    #[serde(default)]
    pub decode_from: DecodeFrom,
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
    /// Added to the variance in layer norms.
    #[serde(default = "vision_eps")]
    pub eps: f64,
    /// Between the two layers of a perceptron.
    #[serde(default)]
    pub activation: Activation,
}

/// A non-linearity, by the name that Hugging Face's configurations give it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x times the normal distribution function of x.
    #[default]
    Gelu,
    /// The same by a formula with tanh.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// x times the logistic function of 1.702 x.
    QuickGelu,
    /// The positive part.
    Relu,
}

/// What the decoder attends to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodeFrom {
    /// The codes of the patches: what a captioner that was trained with its codebook knows.
    #[default]
    Quantised,
    /// The class token and the patches themselves: what BLIP knows.
    Raw,
}

tldr_loader::names!(DecodeFrom { Raw => "raw", Quantised => "quantised" }, option "decode_from");

/// How a codebook came to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LearnedBy {
    /// Together with encoder and decoder.
    #[default]
    Training,
    /// By k-means on the patches of a finished model.
    Fit,
}

/// How codes follow the patches that choose them, in training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CodebookUpdate {
    /// As moving averages of them.
    #[default]
    Ema,
    /// By the gradient of a codebook loss of weight 1: the paper's way.
    Loss,
}

tldr_loader::names!(CodebookUpdate { Ema => "ema", Loss => "loss" }, option "codebook_update");

impl CodebookUpdate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// As in `BlipVisionConfig`.
fn vision_eps() -> f64 {
    1e-5
}

/// As in `BlipTextConfig`.
fn decoder_eps() -> f64 {
    1e-12
}

fn yes() -> bool {
    true
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
    /// How codes follow their patches in training.
    #[serde(default, skip_serializing_if = "CodebookUpdate::is_default")]
    pub update: CodebookUpdate,
    /// How it came to be.
    #[serde(default)]
    pub learned_by: LearnedBy,
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
    /// Added to the variance in layer norms.
    #[serde(default = "decoder_eps")]
    pub eps: f64,
    /// Between the two layers of a perceptron.
    #[serde(default)]
    pub activation: Activation,
    /// Whether the output weights are the word embeddings.
    #[serde(default = "yes")]
    pub tied: bool,
    /// Ids that start, end and pad captions; the tokenizer's own where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specials: Option<Specials>,
}

/// Ids around a caption, for a decoder that was trained with others than its tokenizer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specials {
    /// Before the first token; may lie outside the tokenizer's vocabulary.
    pub start: u32,
    /// After the last.
    pub end: u32,
    /// Behind the end.
    pub pad: u32,
}

impl CaptionerConfig {
    /// The smallest captioner that has every part, for tests: 16-pixel previews, 16 codes.
    pub fn tiny(vocab: usize) -> Self {
        Self {
            preview_size: 16,
            patch_size: 4,
            preview_filter: PreviewFilter::Bilinear,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            batch_size: 8,
            vision: VisionConfig::new(32, 2, 2, 64),
            codebook: Some(CodebookConfig::new(16, 8, 0.9)),
            decode_from: DecodeFrom::Quantised,
            decoder: DecoderConfig::new([32, 2, 2, 64], vocab, 12, 12),
            generation: GenerationConfig::greedy(4, 1, 10),
        }
    }

    /// A captioner for demonstrations, small enough to be trained on a CPU while one waits:
    /// see [`TrainOptions::small`](crate::TrainOptions::small).
    pub fn small(vocab: usize) -> Self {
        Self {
            preview_size: 48,
            patch_size: 8,
            preview_filter: PreviewFilter::Bilinear,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            batch_size: 64,
            vision: VisionConfig::new(128, 3, 4, 384),
            codebook: Some(CodebookConfig::new(256, 32, 0.98)),
            decode_from: DecodeFrom::Quantised,
            decoder: DecoderConfig::new([128, 2, 4, 384], vocab, 30, 30),
            generation: GenerationConfig::greedy(64, 3, 29),
        }
    }

    /// The paper's captioner: ViT-B/16 at 224 pixels, 3,000 codes, captions of 5 to 20 tokens.
    pub fn base(vocab: usize) -> Self {
        Self {
            preview_size: 224,
            patch_size: 16,
            preview_filter: PreviewFilter::Bilinear,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            batch_size: 256,
            vision: VisionConfig::new(768, 12, 12, 3072),
            codebook: Some(CodebookConfig::new(3000, 768, 0.99)),
            decode_from: DecodeFrom::Quantised,
            decoder: DecoderConfig::new([768, 12, 12, 3072], vocab, 512, 30),
            generation: GenerationConfig::beam(256, 5, 20),
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

    /// Number of codes; 0 without a codebook.
    pub fn codes(&self) -> usize {
        self.codebook.as_ref().map_or(0, |codebook| codebook.codes)
    }

    /// Length of an image embedding: of a code, or without a codebook of a patch token.
    pub fn embedding_dim(&self) -> usize {
        self.codebook.as_ref().map_or(self.vision.dim, |codebook| codebook.code_dim)
    }

    /// Patches of a preview.
    pub fn patches(&self) -> usize {
        self.patch_rows().pow(2)
    }

    /// Rows of patches of a preview, and columns.
    pub(super) fn patch_rows(&self) -> usize {
        self.preview_size / self.patch_size.max(1)
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
            ("codebook.code_dim", self.codebook.as_ref().map_or(1, |c| c.code_dim)),
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
        for (field, eps) in [("vision.eps", self.vision.eps), ("decoder.eps", self.decoder.eps)] {
            if !(eps.is_finite() && eps > 0.0) {
                return Err(Error::option(field, eps, "a positive number"));
            }
        }
        self.validate_codebook()?;
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
        if let Some(ids) = self.decoder.specials {
            for (field, id) in
                [("specials.start", ids.start), ("specials.end", ids.end), ("specials.pad", ids.pad)]
            {
                if id as usize >= self.decoder.vocab {
                    let accepted = format!("below decoder.vocab ({})", self.decoder.vocab);
                    return Err(Error::option(field, id, accepted));
                }
            }
        }
        self.generation.validate()
    }

    fn validate_codebook(&self) -> Result<()> {
        let Some(codebook) = &self.codebook else {
            return match self.decode_from {
                DecodeFrom::Raw => Ok(()),
                DecodeFrom::Quantised => Err(Error::option(
                    "decode_from",
                    "quantised",
                    "raw without a codebook, which `fit` learns",
                )),
            };
        };
        // Codes travel to the host as f32, which is exact up to 2^24.
        if !(2..=1 << 24).contains(&codebook.codes) {
            return Err(Error::option("codebook.codes", codebook.codes, "a number from 2 to 2^24"));
        }
        if !(0.0..1.0).contains(&codebook.decay) {
            return Err(Error::option("codebook.decay", codebook.decay, "a number in [0, 1)"));
        }
        if !(codebook.commitment.is_finite() && codebook.commitment >= 0.0) {
            return Err(Error::option("codebook.commitment", codebook.commitment, "a number from 0 on"));
        }
        match codebook.learned_by {
            LearnedBy::Training if self.decode_from == DecodeFrom::Raw => {
                Err(Error::option("decode_from", "raw", "quantised: this decoder was trained on codes"))
            }
            LearnedBy::Fit if codebook.code_dim != self.vision.dim => Err(Error::option(
                "codebook.code_dim",
                codebook.code_dim,
                format!("vision.dim ({}) where fit learned the codebook", self.vision.dim),
            )),
            _ => Ok(()),
        }
    }
}

impl VisionConfig {
    fn new(dim: usize, layers: usize, heads: usize, mlp: usize) -> Self {
        Self { dim, layers, heads, mlp, eps: vision_eps(), activation: Activation::Gelu }
    }
}

impl CodebookConfig {
    pub(super) fn new(codes: usize, code_dim: usize, decay: f64) -> Self {
        Self {
            codes,
            code_dim,
            commitment: 0.25,
            decay,
            update: CodebookUpdate::Ema,
            learned_by: LearnedBy::Training,
        }
    }
}

impl DecoderConfig {
    fn new(sizes: [usize; 4], vocab: usize, positions: usize, max_tokens: usize) -> Self {
        let [dim, layers, heads, mlp] = sizes;
        Self {
            dim,
            layers,
            heads,
            mlp,
            vocab,
            positions,
            max_tokens,
            eps: decoder_eps(),
            activation: Activation::Gelu,
            tied: true,
            specials: None,
        }
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
        let cases: [(&str, Change); 23] = [
            ("preview_size", |c| c.preview_size = 50),
            ("patch_size", |c| c.patch_size = 0),
            ("patch_size", |c| (c.preview_size, c.patch_size) = (1024, 2)),
            ("vision.heads", |c| c.vision.heads = 5),
            ("vision.mlp", |c| c.vision.mlp = 1 << 40),
            ("decoder.heads", |c| c.decoder.heads = 7),
            ("std", |c| c.std[1] = 0.0),
            ("codebook.codes", |c| c.codebook.as_mut().unwrap().codes = 1),
            ("codebook.decay", |c| c.codebook.as_mut().unwrap().decay = 1.0),
            ("codebook.commitment", |c| c.codebook.as_mut().unwrap().commitment = f64::NAN),
            ("decoder.vocab", |c| c.decoder.vocab = 0),
            ("decoder.max_tokens", |c| c.decoder.max_tokens = 1),
            ("decoder.positions", |c| c.decoder.positions = 20),
            ("generation.min_tokens", |c| c.generation.min_tokens = 30),
            ("generation.beams", |c| c.generation.beams = 0),
            ("generation.top_p", |c| c.generation.top_p = 1.5),
            ("generation.temperature", |c| c.generation.temperature = 0.0),
            ("generation.repetition_penalty", |c| c.generation.repetition_penalty = 0.0),
            ("generation.length_penalty", |c| c.generation.length_penalty = f64::NAN),
            ("decode_from", |c| c.decode_from = DecodeFrom::Raw),
            ("decode_from", |c| c.codebook = None),
            ("vision.eps", |c| c.vision.eps = 0.0),
            ("specials.end", |c| c.decoder.specials = Some(Specials { start: 0, end: 1000, pad: 1 })),
        ];
        for (field, change) in cases {
            let mut config = CaptionerConfig::small(1000);
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("invalid {field}=")), "{field}: {message}");
        }
    }
}
