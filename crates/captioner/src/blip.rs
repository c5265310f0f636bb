//! Hugging Face's BLIP captioning models (`BlipForConditionalGeneration`, Li et al., arXiv
//! 2201.12086) as captioners: their configuration, weights and tokenizer, of any size.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::config::{
    Activation, CLIP_MEAN, CLIP_STD, CaptionerConfig, DecodeFrom, DecoderConfig, Specials, VisionConfig,
};
use crate::device::check_device;
use crate::error::{Error, Result};
use crate::files::{check_vocabulary, read_json};
use crate::generation::GenerationConfig;
use crate::matcher::{Matcher, MatcherConfig};
use crate::model::Captioner;
use crate::weights::Weights;
use tldr_loader::model::PreviewFilter;
use tldr_loader::text::Tokenizer;

/// Tokens of a caption that are scored, the end token included: the paper's number. Every caption of
/// a batch costs as much as one of this length.
const MAX_TOKENS: usize = 30;

/// Tokens of a text that is matched, start and end included: those of BLIP's retrieval.
const MAX_MATCHED: usize = 35;

/// What BLIP's files leave open.
#[derive(Debug, Clone, PartialEq)]
pub struct BlipOptions {
    /// Side of the previews, a multiple of the patch size; the model's own where `None`. For another
    /// size its position embeddings are interpolated.
    pub preview_size: Option<usize>,
    /// Rows of every encode batch.
    pub batch_size: usize,
    /// How captions are written.
    pub generation: GenerationConfig,
}

impl Default for BlipOptions {
    /// The model's own size, batches of 32, captions as BLIP writes them: three beams, 5 to 20
    /// tokens.
    fn default() -> Self {
        Self { preview_size: None, batch_size: 32, generation: GenerationConfig::beam(32, 5, 20) }
    }
}

impl Captioner {
    /// Reads a BLIP captioning model as `save_pretrained` writes it, onto `device`: `config.json`,
    /// `model.safetensors`, `tokenizer.json` or `vocab.txt`, and `preprocessor_config.json` where
    /// there is one. [`save`](Self::save) then makes a captioner directory of it. It writes captions
    /// at once; as an encoder it needs a codebook and clusters, which `fit` learns.
    ///
    /// # Errors
    /// Another kind of model; a file that is missing, damaged or truncated; a tensor that is missing,
    /// unknown, or of another shape than the configuration says; a tokenizer with more tokens than
    /// the embedding has rows; a pickle (`.bin`, `.pt`), which is never read. The message names file,
    /// tensor, what was expected, what was found and what to do.
    pub fn load_blip(dir: impl AsRef<Path>, options: &BlipOptions, device: Device) -> Result<Self> {
        let dir = dir.as_ref();
        check_device(device)?;
        let file = dir.join("config.json");
        let blip: Blip = read_config(&file)?;
        blip.check(&file, BlipKind::Captioning)?;
        let mut config = blip.captioner_config(dir, options)?;
        let mut weights = Weights::from_file(&dir.join("model.safetensors"), device)?;
        config.decoder.tied = tie(&mut weights, blip.is_tied(), &dir.join("model.safetensors"))?;
        let invalid = |e| Error::format(file.display().to_string(), "sizes that fit together", e);
        config.validate().map_err(invalid)?;
        interpolate_positions(&mut weights, blip.patches_per_side(), &config)?;
        let tokenizer = tokenizer(dir)?;
        check_vocabulary(dir, &tokenizer, config.decoder.vocab)?;
        Self::build(config, tokenizer, None, device, weights)
    }
}

/// What a BLIP was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlipKind {
    /// Writing captions: `BlipForConditionalGeneration`.
    Captioning,
    /// Telling whether a text belongs to an image: `BlipForImageTextRetrieval`.
    Matching,
}

impl BlipKind {
    /// What the model in `dir` was made for: captions, where its configuration does not say.
    ///
    /// # Errors
    /// No configuration of a BLIP.
    pub fn of(dir: impl AsRef<Path>) -> Result<Self> {
        let blip: Blip = read_config(&dir.as_ref().join("config.json"))?;
        let names = blip.architectures.unwrap_or_default();
        Ok(if names.iter().any(|n| n == Self::Matching.architecture()) {
            Self::Matching
        } else {
            Self::Captioning
        })
    }

    fn architecture(self) -> &'static str {
        match self {
            Self::Captioning => "BlipForConditionalGeneration",
            Self::Matching => "BlipForImageTextRetrieval",
        }
    }
}

impl Matcher {
    /// Reads a BLIP for image-text retrieval as `save_pretrained` writes it, onto `device`; the files are
    /// those of [`Captioner::load_blip`], and of `options` the generation settings do not matter.
    ///
    /// Texts are cut to 35 tokens, start and end included, as in BLIP's own evaluation.
    ///
    /// # Errors
    /// Those of [`Captioner::load_blip`].
    pub fn load_blip(dir: impl AsRef<Path>, options: &BlipOptions, device: Device) -> Result<Self> {
        let dir = dir.as_ref();
        check_device(device)?;
        let file = dir.join("config.json");
        let blip: Blip = read_config(&file)?;
        blip.check(&file, BlipKind::Matching)?;
        let mut shared = blip.captioner_config(dir, options)?;
        let tokenizer = tokenizer(dir)?;
        check_vocabulary(dir, &tokenizer, shared.decoder.vocab)?;
        let (text, name) = (&mut shared.decoder, file.display().to_string());
        text.max_tokens = MAX_MATCHED.min(text.positions);
        // A text for an encoder starts otherwise than one for a decoder, and config.json names the latter.
        let start = tokenizer.token_id("[CLS]").ok_or_else(|| {
            Error::format(dir.display().to_string(), "a tokenizer with the token [CLS]", "none of that name")
        })?;
        text.specials = text.specials.map(|ids| Specials { start, ..ids });
        let config = MatcherConfig::new(shared, blip.image_text_hidden_size);
        config.validate().map_err(|e| Error::format(name, "sizes that fit together", e))?;
        let mut weights = Weights::from_file(&dir.join("model.safetensors"), device)?;
        // Of the contrastive head, which is not used, only the image's half says something of its own.
        for unused in ["text_proj.weight", "text_proj.bias"] {
            weights.take(unused);
        }
        interpolate_positions(&mut weights, blip.patches_per_side(), &config.shared())?;
        Self::build(config, tokenizer, device, weights)
    }
}

/// The parts of `BlipConfig` that matter; what is missing has the default of transformers.
#[derive(Debug, Deserialize)]
struct Blip {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    #[serde(default)]
    vision_config: Vision,
    #[serde(default)]
    text_config: Text,
    tie_word_embeddings: Option<bool>,
    /// Length of the embeddings of the contrastive head.
    #[serde(default = "contrastive")]
    image_text_hidden_size: usize,
}

/// As in `BlipConfig`.
fn contrastive() -> usize {
    256
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Vision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: Side,
    patch_size: Side,
    hidden_act: Activation,
    layer_norm_eps: f64,
}

impl Default for Vision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: Side::One(384),
            patch_size: Side::One(16),
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Text {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
    bos_token_id: u32,
    sep_token_id: u32,
    pad_token_id: u32,
    tie_word_embeddings: Option<bool>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            vocab_size: 30524,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            bos_token_id: 30522,
            sep_token_id: 102,
            pad_token_id: 0,
            tie_word_embeddings: None,
        }
    }
}

/// A size in pixels: a number, or height and width.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Side {
    One(usize),
    Two([usize; 2]),
}

impl Side {
    /// `None` where height and width differ.
    fn of_square(self) -> Option<usize> {
        match self {
            Self::One(side) => Some(side),
            Self::Two([height, width]) => (height == width).then_some(height),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Preprocessor {
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self { image_mean: CLIP_MEAN, image_std: CLIP_STD }
    }
}

impl Blip {
    fn check(&self, file: &Path, kind: BlipKind) -> Result<()> {
        let name = file.display().to_string();
        if self.model_type.as_deref() != Some("blip") {
            let found = self.model_type.as_deref().unwrap_or("no model_type");
            return Err(Error::format(
                name,
                "model_type \"blip\", a BLIP for captions or retrieval",
                format!("{found:?}"),
            ));
        }
        let expected = kind.architecture();
        if let Some(other) = self.architectures.as_ref().filter(|list| list.iter().all(|a| a != expected)) {
            let purpose = match kind {
                BlipKind::Captioning => "a model that writes captions",
                BlipKind::Matching => "a model that matches images and texts",
            };
            let expected = format!("architectures [\"{expected}\"], {purpose}");
            return Err(Error::format(name, expected, format!("{other:?}")));
        }
        for (field, side) in
            [("image_size", self.vision_config.image_size), ("patch_size", self.vision_config.patch_size)]
        {
            if side.of_square().is_none_or(|side| side == 0) {
                let what = format!("{name}: vision_config.{field}");
                return Err(Error::format(what, "the side of a square", format!("{side:?}")));
            }
        }
        Ok(())
    }

    fn is_tied(&self) -> bool {
        self.tie_word_embeddings.unwrap_or(true) && self.text_config.tie_word_embeddings.unwrap_or(true)
    }

    fn patches_per_side(&self) -> usize {
        let side = |side: Side| side.of_square().unwrap_or(0);
        side(self.vision_config.image_size) / side(self.vision_config.patch_size).max(1)
    }

    fn captioner_config(&self, dir: &Path, options: &BlipOptions) -> Result<CaptionerConfig> {
        let (vision, text) = (&self.vision_config, &self.text_config);
        let side = |side: Side| side.of_square().unwrap_or(0);
        let image: Preprocessor = optional(&dir.join("preprocessor_config.json"))?.unwrap_or_default();
        Ok(CaptionerConfig {
            preview_size: options.preview_size.unwrap_or(side(vision.image_size)),
            patch_size: side(vision.patch_size),
            preview_filter: PreviewFilter::Bicubic,
            mean: image.image_mean,
            std: image.image_std,
            batch_size: options.batch_size,
            vision: VisionConfig {
                dim: vision.hidden_size,
                layers: vision.num_hidden_layers,
                heads: vision.num_attention_heads,
                mlp: vision.intermediate_size,
                eps: vision.layer_norm_eps,
                activation: vision.hidden_act,
            },
            codebook: None,
            decode_from: DecodeFrom::Raw,
            decoder: DecoderConfig {
                dim: text.hidden_size,
                layers: text.num_hidden_layers,
                heads: text.num_attention_heads,
                mlp: text.intermediate_size,
                vocab: text.vocab_size,
                positions: text.max_position_embeddings,
                max_tokens: MAX_TOKENS.min(text.max_position_embeddings),
                eps: text.layer_norm_eps,
                activation: text.hidden_act,
                tied: true,
                specials: Some(Specials {
                    start: text.bos_token_id,
                    end: text.sep_token_id,
                    pad: text.pad_token_id,
                }),
            },
            generation: options.generation.clone(),
        })
    }
}

/// Leaves one copy of what BLIP's files may hold once or twice: the output bias, and the output
/// weights, which are the word embeddings where `tied`. Says whether they are.
fn tie(weights: &mut Weights, tied: bool, file: &Path) -> Result<bool> {
    let head = "text_decoder.cls.predictions";
    let words = "text_decoder.bert.embeddings.word_embeddings.weight";
    let (bias, copy, output) =
        (format!("{head}.bias"), format!("{head}.decoder.bias"), format!("{head}.decoder.weight"));
    let differs = |name: &str, from: &str| {
        Error::format(
            format!("{}: tensor {name}", file.display()),
            format!("the values of {from}, to which it is tied"),
            "other values; remove this tensor, or where it is meant set tie_word_embeddings to false in config.json",
        )
    };
    if let Some(second) = weights.take(&copy) {
        match weights.take(&bias) {
            // Where both are there, the layer's own is the one that transformers uses untied.
            Some(first) if tied && !same(&first, &second)? => return Err(differs(&copy, &bias)),
            _ => weights.put(&bias, second),
        }
    }
    if !tied {
        return Ok(false);
    }
    match (weights.take(words), weights.take(&output)) {
        (Some(words), Some(second)) if !same(&words, &second)? => {
            Err(differs(&output, "the word embeddings"))
        }
        // Some versions of transformers keep the last of the two names instead of the first.
        (Some(kept), _) | (None, Some(kept)) => {
            weights.put(words, kept);
            Ok(true)
        }
        (None, None) => Ok(true),
    }
}

fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.size() == b.size() && a.f_equal(b)?)
}

/// Changes the position embeddings of a square of `side` patches to those of the configuration's
/// size: the class token keeps its own, those of the patches are interpolated bicubically.
fn interpolate_positions(weights: &mut Weights, side: usize, config: &CaptionerConfig) -> Result<()> {
    let wanted = (config.preview_size / config.patch_size) as i64;
    let name = "vision_model.embeddings.position_embedding";
    let (from, dim) = (side as i64, config.vision.dim as i64);
    if from == wanted {
        return Ok(());
    }
    let Some(positions) = weights.take(name) else { return Ok(()) };
    if positions.size() != [1, from * from + 1, dim] {
        return Err(Error::format(
            format!("tensor {name}"),
            format!("shape {:?}, as config.json says", [1, from * from + 1, dim]),
            format!("shape {:?}", positions.size()),
        ));
    }
    let class = positions.f_narrow(1, 0, 1)?;
    let patches = positions
        .f_narrow(1, 1, from * from)?
        .f_view([1, from, from, dim])?
        .f_permute([0, 3, 1, 2])?
        .f_upsample_bicubic2d([wanted, wanted], false, None, None)?
        .f_permute([0, 2, 3, 1])?
        .f_reshape([1, wanted * wanted, dim])?;
    weights.put(name, Tensor::f_cat(&[class, patches], 1)?.f_to_kind(Kind::Float)?);
    Ok(())
}

/// The tokenizer of a model directory: `tokenizer.json`, else `vocab.txt`.
fn tokenizer(dir: &Path) -> Result<Tokenizer> {
    #[derive(Default, Deserialize)]
    struct TokenizerConfig {
        do_lower_case: Option<bool>,
    }
    let (json, vocab) = (dir.join("tokenizer.json"), dir.join("vocab.txt"));
    if json.exists() {
        return Ok(Tokenizer::from_file(json)?);
    }
    if !vocab.exists() {
        return Err(Error::format(
            dir.display().to_string(),
            "tokenizer.json or vocab.txt",
            "neither; save them with the model's processor: BlipProcessor.save_pretrained",
        ));
    }
    let config: TokenizerConfig = optional(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    Ok(Tokenizer::from_wordpiece(vocab, config.do_lower_case.unwrap_or(true))?)
}

fn optional<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read_config(path)).transpose()
}

fn read_config<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    read_json(path, "a configuration of Hugging Face's BLIP")
}
