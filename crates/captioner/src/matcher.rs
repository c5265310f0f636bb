//! Whether a text belongs to an image, by the image-text matching head of a BLIP for retrieval
//! (`BlipForImageTextRetrieval`; Li et al., arXiv 2201.12086, section 3.2): a text encoder that attends to
//! the image, and two logits on its first token.
//!
//! It writes nothing, so it may judge what others write: by itself as the `judge` of a loader, or beside
//! a captioner as the measure of its alignment.

use std::path::Path;
use std::sync::OnceLock;

use ndarray::{Array2, ArrayView4};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::bert::{Bert, Sight};
use crate::config::{CaptionerConfig, DecodeFrom, DecoderConfig, Specials, VisionConfig};
use crate::device::{Inference, Precision, check_device, describe};
use crate::error::{Error, Result};
use crate::files::{
    CONFIG, MODEL, TOKENIZER, check_own, check_vocabulary, model_files, place, read_json, tensors_hash,
};
use crate::generation::GenerationConfig;
use crate::layers::Linear;
use crate::projections::{Projections, hash_words, to_device};
use crate::vit::VisionModel;
use crate::weights::{NamedTensors, Weights, to_f32, unit_rows};
use tldr_loader::hash;
use tldr_loader::model::{Identity, PreviewFilter, Scorer, Signals};
use tldr_loader::text::Tokenizer;

/// What `kind` says in the configuration of such a directory.
const KIND: &str = "matcher";

/// What `config.json` of a matcher directory says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatcherConfig {
    /// `matcher`: tells the directory from a captioner's.
    kind: String,
    /// Side of the square previews, in pixels; a multiple of `patch_size`.
    pub preview_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// How a picture is squashed to a preview.
    pub preview_filter: PreviewFilter,
    /// Mean by channel (RGB, pixels in [0, 1]) that is subtracted from a preview.
    pub mean: [f32; 3],
    /// Standard deviation by channel that a preview is divided by.
    pub std: [f32; 3],
    /// Rows of every batch.
    pub batch_size: usize,
    /// The image encoder.
    pub vision: VisionConfig,
    /// The text encoder; `max_tokens` counts the tokens of a text, start and end included.
    pub text: DecoderConfig,
    /// Length of an image embedding.
    pub embedding_dim: usize,
}

impl MatcherConfig {
    /// The parts of a captioner's configuration, and the length of the image embedding.
    pub(super) fn new(shared: CaptionerConfig, embedding_dim: usize) -> Self {
        Self {
            kind: KIND.into(),
            preview_size: shared.preview_size,
            patch_size: shared.patch_size,
            preview_filter: shared.preview_filter,
            mean: shared.mean,
            std: shared.std,
            batch_size: shared.batch_size,
            vision: shared.vision,
            text: shared.decoder,
            embedding_dim,
        }
    }

    /// A captioner's configuration of the same sizes, for what both have in common.
    pub(super) fn shared(&self) -> CaptionerConfig {
        CaptionerConfig {
            preview_size: self.preview_size,
            patch_size: self.patch_size,
            preview_filter: self.preview_filter,
            mean: self.mean,
            std: self.std,
            batch_size: self.batch_size,
            vision: self.vision.clone(),
            codebook: None,
            decode_from: DecodeFrom::Raw,
            decoder: self.text.clone(),
            generation: GenerationConfig::greedy(self.batch_size, 0, 1),
        }
    }

    /// # Errors
    /// Names the first field that does not fit, its value and what is accepted.
    pub(super) fn validate(&self) -> Result<()> {
        if self.kind != KIND {
            return Err(Error::option("kind", &self.kind, KIND));
        }
        if !(1..=1 << 16).contains(&self.embedding_dim) {
            return Err(Error::option("embedding_dim", self.embedding_dim, "a number from 1 to 65536"));
        }
        if self.text.specials.is_none() {
            return Err(Error::option("text.specials", "none", "the ids that start, end and pad a text"));
        }
        self.shared().validate()
    }
}

/// An image-text matching model on one device.
///
/// As an [`Scorer`] its alignment is the probability of a match, in [0, 1]: not a quantile of a corpus. All
/// images are of one cluster.
#[derive(Debug)]
pub struct Matcher {
    pub(super) config: MatcherConfig,
    tokenizer: Tokenizer,
    pub(super) device: Device,
    parts: Parts,
    tensors: NamedTensors,
    projections: Projections,
    precision: Precision,
    hash: OnceLock<u64>,
}

/// Texts as the encoder takes them.
pub(super) struct MatchedTexts {
    /// `[rows, length]`, i64.
    ids: Tensor,
    /// True where it is not padding, `[rows, 1, 1, length]`.
    mask: Tensor,
}

/// What computes.
#[derive(Debug)]
struct Parts {
    vision: VisionModel,
    text: Bert,
    head: Linear,
    /// Class token to image embedding.
    projection: Linear,
}

impl Parts {
    fn new(weights: &mut Weights, config: &MatcherConfig, device: Device) -> Result<Self> {
        let (vision, text) = (config.vision.dim as i64, config.text.dim as i64);
        Ok(Self {
            vision: VisionModel::new(weights, &config.shared(), device)?,
            text: Bert::new(weights, "text_encoder", vision, &config.text)?,
            head: Linear::new(weights, "itm_head", text, 2)?,
            projection: Linear::new(weights, "vision_proj", vision, config.embedding_dim as i64)?,
        })
    }
}

impl Matcher {
    pub(super) fn build(
        config: MatcherConfig,
        tokenizer: Tokenizer,
        device: Device,
        mut weights: Weights,
    ) -> Result<Self> {
        config.validate()?;
        let parts = Parts::new(&mut weights, &config, device)?;
        let projections = Projections::new(config.embedding_dim, device)?;
        let precision = Precision::Float32;
        let hash = OnceLock::new();
        let tensors = weights.finish()?;
        let mut matcher = Self { tensors, config, tokenizer, device, parts, projections, precision, hash };
        matcher.set_precision(Precision::of(device))?;
        Ok(matcher)
    }

    /// Whether `dir` holds a matcher.
    pub fn is_at(dir: impl AsRef<Path>) -> bool {
        let config = std::fs::read_to_string(dir.as_ref().join(CONFIG)).unwrap_or_default();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
        config.get("kind").and_then(|kind| kind.as_str()) == Some(KIND)
    }

    /// Reads a matcher directory onto `device`.
    ///
    /// # Errors
    /// A file that is missing, damaged or truncated; a tensor that is missing, unknown or of another shape
    /// than the configuration says; a device that is not there. The message names file and tensor.
    pub fn load(dir: impl AsRef<Path>, device: Device) -> Result<Self> {
        let dir = dir.as_ref();
        check_device(device)?;
        let path = dir.join(CONFIG);
        let config: MatcherConfig = read_json(&path, "a matcher's configuration")?;
        let name = path.display().to_string();
        config.validate().map_err(|e| Error::format(name, "sizes that fit together", e))?;
        let tokenizer = Tokenizer::from_file(dir.join(TOKENIZER))?;
        check_vocabulary(&dir.join(TOKENIZER), &tokenizer, config.text.vocab)?;
        let weights = Weights::from_file(&dir.join(MODEL), device)?;
        Self::build(config, tokenizer, device, weights)
    }

    /// Writes the matcher directory, making it where needed. Each file is written aside and renamed into
    /// place.
    ///
    /// # Errors
    /// A file that cannot be written; a folder that holds another kind of model, which stays.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|e| Error::io(format!("create {}", dir.display()), e))?;
        check_own(dir, "matcher", |config| config.get("kind").and_then(|kind| kind.as_str()) == Some(KIND))?;
        let files = model_files(dir, &self.config, &self.tokenizer, &self.tensors)?;
        files.into_iter().try_for_each(place)?;
        Ok(Identity::save(self, None, tensors_hash(&self.tensors), dir)?)
    }

    /// Sizes and settings.
    pub fn config(&self) -> &MatcherConfig {
        &self.config
    }

    /// The tokenizer of the texts.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.tensors.values().map(Tensor::numel).sum()
    }

    /// Number type of the arithmetic: bf16 on a GPU, f32 elsewhere, unless it is set. What is saved stays
    /// f32.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        if precision == self.precision {
            return Ok(());
        }
        let mut weights = Weights::converted(&self.tensors, self.device, precision.kind());
        self.parts = Parts::new(&mut weights, &self.config, self.device)?;
        self.precision = precision;
        Ok(())
    }

    /// Log-odds of a match of each image with its text, in nats, f32 `[rows]`, and the class tokens of the
    /// images, f32 `[rows, dim]`; for previews `[rows, 3, size, size]`, u8, on the device.
    pub(super) fn log_odds(&self, previews: &Tensor, texts: &MatchedTexts) -> Result<(Tensor, Tensor)> {
        let parts = &self.parts;
        let visual = parts.vision.forward(previews)?;
        let memory = parts.text.memory(&visual)?;
        let hidden = parts.text.hidden(&texts.ids, &memory, Sight::Marked(&texts.mask))?;
        let logits = head(&parts.head, &hidden.f_select(1, 0)?)?;
        Ok((logits.f_select(1, 1)?.f_sub(&logits.f_select(1, 0)?)?, visual.f_select(1, 0)?))
    }

    /// Texts between start and end, padded to one length, on the device. What is too long is cut before
    /// the end token.
    pub(super) fn texts(&self, texts: &[&str]) -> Result<MatchedTexts> {
        let length = self.config.text.max_tokens;
        let Some(Specials { start, end, pad }) = self.config.text.specials else {
            return Err(Error::captioner("a matcher without ids around a text")); // its configuration was checked
        };
        let mut values = Vec::with_capacity(texts.len() * length);
        let mut used = Vec::with_capacity(texts.len() * length);
        for text in texts {
            let mut ids = self.tokenizer.ids(text);
            ids.truncate(length.saturating_sub(2));
            let count = ids.len() + 2;
            let row = std::iter::once(start).chain(ids).chain([end]).chain(std::iter::repeat(pad));
            values.extend(row.take(length).map(i64::from));
            used.extend((0..length).map(|place| place < count));
        }
        let shape = [texts.len() as i64, length as i64];
        let ids = Tensor::f_from_slice(&values)?.f_view(shape)?.f_to_device(self.device)?;
        let mask = Tensor::f_from_slice(&used)?.f_view([shape[0], 1, 1, shape[1]])?;
        Ok(MatchedTexts { ids, mask: mask.f_to_device(self.device)? })
    }

    /// Identifies everything that scores depend on.
    pub(super) fn score_fingerprint(&self) -> u64 {
        let config = serde_json::to_string(&self.config).unwrap_or_default();
        let weights = *self.hash.get_or_init(|| tensors_hash(&self.tensors));
        hash::combine(&[hash::hash_str(&config), weights, self.tokenizer.fingerprint()])
    }

    /// As [`Scorer::signals`].
    fn compute_signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        let _inference = Inference::on(self.device);
        let (batch, dim) = (self.config.batch_size, self.config.embedding_dim);
        if captions.len() != batch {
            return Err(Error::format("captions", format!("{batch} of them"), captions.len()));
        }
        let (previews, texts) =
            (to_device(previews, batch, self.config.preview_size, self.device)?, self.texts(captions)?);
        let (log_odds, class) = self.log_odds(&previews, &texts)?;
        let projection = &self.parts.projection;
        let class = class.f_to_kind(self.precision.kind())?;
        let embedding = unit_rows(&projection.forward(&class)?.f_to_kind(Kind::Float)?)?;
        let packed = Tensor::f_cat(
            &[log_odds.f_sigmoid()?.f_unsqueeze(1)?, self.projections.semantic_hash(&embedding)?, embedding],
            1,
        )?;
        let values = to_f32(&packed)?;
        let width = values.len() / batch.max(1);
        let pieces = width - 1 - dim;
        let rows = || values.chunks(width.max(1));
        let embedding: Vec<f32> = rows().flat_map(|row| &row[1 + pieces..]).copied().collect();
        Ok(Signals {
            cluster: vec![0; batch],
            alignment: rows().map(|row| row[0]).collect(),
            embedding: Array2::from_shape_vec((batch, dim), embedding).map_err(Error::captioner)?,
            semantic_hash: rows().map(|row| hash_words(&row[1..=pieces])).collect(),
        })
    }
}

impl Scorer for Matcher {
    fn dim(&self) -> usize {
        self.config.embedding_dim
    }

    fn preview_size(&self) -> usize {
        self.config.preview_size
    }

    fn preview_filter(&self) -> PreviewFilter {
        self.config.preview_filter
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn clusters(&self) -> usize {
        1
    }

    fn fingerprint(&self) -> u64 {
        self.score_fingerprint()
    }

    fn compute(&self) -> String {
        describe(self.device, self.precision)
    }

    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> tldr_loader::Result<Signals> {
        Ok(self.compute_signals(previews, captions)?)
    }
}

/// The two logits of each row, f32 `[rows, 2]`, for f32 or bf16 `[rows, dim]`. As sums over rows of products: a matrix
/// product of two columns is rounded by where a row stands among its neighbours, on some processors.
fn head(layer: &Linear, rows: &Tensor) -> Result<Tensor> {
    let weight = layer.weight.f_to_kind(Kind::Float)?;
    let products = rows.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&weight)?;
    let sums = products.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?;
    Ok(sums.f_add(&layer.bias.f_to_kind(Kind::Float)?)?)
}
