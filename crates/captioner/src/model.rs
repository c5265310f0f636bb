//! The captioner: its parts together, and what encoding, generation and training share.

use std::sync::{Arc, OnceLock};

use ndarray::ArrayView4;
use tch::{Device, Kind, Tensor};

use crate::codebook::Codebook;
use crate::config::{CaptionerConfig, DecodeFrom, LearnedBy, Specials};
use crate::decoder::{Memory, TextDecoder};
use crate::device::{Precision, check_device, device_name};
use crate::error::{Error, Result};
use crate::fitted::FittedCodebook;
use crate::matcher::Matcher;
use crate::projections::{Projections, check_previews, to_device};
use crate::vit::VisionModel;
use crate::weights::{Init, NamedTensors, Weights};
use tldr_loader::cluster::Clusters;
use tldr_loader::cluster::Discriminant;
use tldr_loader::model::PreviewFilter;
use tldr_loader::text::Tokenizer;

/// A codebook captioner on one device.
///
/// It comes from [`new`](Self::new) followed by training ([`Trainer`](crate::Trainer)),
/// from a Hugging Face BLIP ([`load_blip`](Self::load_blip)), or from a directory
/// ([`load`](Self::load)). As an [`Scorer`](tldr_loader::model::Scorer) it needs clusters, which
/// `fit` learns; as a [`Recaptioner`](tldr_loader::model::Recaptioner) it does not.
#[derive(Debug)]
pub struct Captioner {
    pub(super) config: CaptionerConfig,
    pub(super) tokenizer: Tokenizer,
    /// Ids around a caption.
    pub(super) specials: Specials,
    pub(super) clusters: Option<Arc<Clusters>>,
    pub(super) device: Device,
    pub(super) vision: VisionModel,
    pub(super) codes: Codes,
    pub(super) decoder: TextDecoder,
    /// What the decoder sees where there is no image, `[1, tokens, dim]`: learned in training, or
    /// the mean image of a fit.
    pub(super) null_image: Option<Tensor>,
    pub(super) tensors: NamedTensors,
    /// Constants on the device that encoding uses.
    pub(super) projections: Projections,
    /// Hash of the weights, until training changes them.
    pub(super) weights_hash: OnceLock<u64>,
    /// Measures alignment instead of the decoder, where there is one.
    pub(super) matcher: Option<Matcher>,
    precision: Precision,
    half: Option<Half>,
}

/// Encoder and decoder in bf16.
#[derive(Debug)]
struct Half {
    vision: VisionModel,
    decoder: TextDecoder,
    /// Hash of the weights that they were made of.
    of: u64,
}

/// How patches become codes.
#[derive(Debug)]
pub(super) enum Codes {
    /// By a codebook that was trained with encoder and decoder.
    Trained(Codebook),
    /// By one that `fit` learned.
    Fitted(FittedCodebook),
    /// Not yet.
    Missing,
}

/// Patches of a batch and their codes.
pub(super) struct Coded {
    /// Patches as codes are compared with them, `[batch, patches, code_dim]`.
    pub(super) z: Tensor,
    /// Nearest codes, `[batch, patches]`, i64.
    pub(super) indices: Tensor,
}

/// Captions of a batch as the decoder takes them.
pub(super) struct TextBatch {
    /// Start token and caption, padded, `[batch, length]`, i64.
    pub(super) ids: Tensor,
    /// Caption and end token, padded, `[batch, length]`, i64.
    pub(super) targets: Tensor,
    /// Targets of each row that are not padding.
    pub(super) lengths: Vec<usize>,
}

impl Captioner {
    /// A new captioner with weights drawn from `seed`: the same seed gives the same weights on
    /// every machine, whatever libtorch's own generator did before.
    ///
    /// # Errors
    /// A configuration that does not fit together or has fewer rows of embedding than the
    /// tokenizer has tokens; a device that is not there.
    pub fn new(config: CaptionerConfig, tokenizer: Tokenizer, device: Device, seed: u64) -> Result<Self> {
        check_device(device)?;
        if tokenizer.vocab_size() > config.decoder.vocab {
            return Err(Error::option(
                "decoder.vocab",
                config.decoder.vocab,
                format!("at least the tokenizer's vocabulary of {}", tokenizer.vocab_size()),
            ));
        }
        Self::build(config, tokenizer, None, device, Weights::seeded(seed, device))
    }

    pub(super) fn build(
        config: CaptionerConfig,
        tokenizer: Tokenizer,
        clusters: Option<Arc<Clusters>>,
        device: Device,
        mut weights: Weights,
    ) -> Result<Self> {
        config.validate()?;
        let (tokenizer, specials) = match config.decoder.specials {
            Some(ids) => (tokenizer.with_specials(ids.start, ids.end, ids.pad), ids),
            None => {
                let [start, end, pad] = tokenizer.specials()?;
                (tokenizer, Specials { start, end, pad })
            }
        };
        check_prompt(&config, &tokenizer)?;
        let vision = VisionModel::new(&mut weights, &config, device)?;
        let learned_by = config.codebook.as_ref().map(|codebook| codebook.learned_by);
        let codes = match learned_by {
            Some(LearnedBy::Training) => Codes::Trained(Codebook::new(&mut weights, &config)?),
            Some(LearnedBy::Fit) => Codes::Fitted(FittedCodebook::new(&mut weights, &config)?),
            None => Codes::Missing,
        };
        let decoder = TextDecoder::new(&mut weights, &config)?;
        let (patches, dim) = (config.patches() as i64, config.vision.dim as i64);
        let null_image = match learned_by {
            Some(LearnedBy::Training) => {
                Some(weights.parameter("null_image", &[1, patches, dim], Init::Normal(1.0))?)
            }
            Some(LearnedBy::Fit) => {
                Some(weights.buffer("null_image", &[1, 1 + patches, dim], Init::Normal(1.0))?)
            }
            None => None,
        };
        let projections = Projections::new(config.embedding_dim(), device)?;
        let mut captioner = Self {
            tensors: weights.finish()?,
            config,
            tokenizer,
            specials,
            clusters: None,
            device,
            vision,
            codes,
            decoder,
            null_image,
            projections,
            weights_hash: OnceLock::new(),
            matcher: None,
            precision: Precision::of(device),
            half: None,
        };
        captioner.set_clusters(clusters)?;
        Ok(captioner)
    }

    /// Sizes and settings.
    pub fn config(&self) -> &CaptionerConfig {
        &self.config
    }

    /// The tokenizer of the captions.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What `fit` learned about a corpus, if it has.
    pub fn clusters(&self) -> Option<&Arc<Clusters>> {
        self.clusters.as_ref()
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of weights, buffers included.
    pub fn weights(&self) -> usize {
        self.tensors.values().map(Tensor::numel).sum()
    }

    /// Puts clusters in place, or takes them away.
    ///
    /// # Errors
    /// Clusters of another codebook size.
    pub fn set_clusters(&mut self, clusters: Option<Arc<Clusters>>) -> Result<()> {
        if let Some(clusters) = &clusters {
            let (codes, found) = (self.config.codes(), clusters.centroids.ncols());
            if found != codes || clusters.idf.len() != codes {
                return Err(Error::format(
                    "clusters: centroids",
                    format!("one column per code of this captioner ({codes})"),
                    format!("{found} columns and {} idf weights: fit this captioner", clusters.idf.len()),
                ));
            }
        }
        if let Some(raw) = clusters.as_ref().and_then(|clusters| clusters.raw_index.as_ref())
            && raw.weights.ncols() != self.config.patches()
        {
            return Err(Error::format(
                "clusters: raw_index.weights",
                format!("one column per patch of this captioner ({})", self.config.patches()),
                format!("{} columns: fit this captioner", raw.weights.ncols()),
            ));
        }
        let learned = clusters.as_ref().and_then(|clusters| clusters.discriminant.as_ref());
        if let Some(learned) = learned.filter(|learned| learned.mean.len() != self.descriptor_len()) {
            return Err(Error::format(
                "clusters: discriminant.mean",
                format!("one value per feature of this captioner's descriptor ({})", self.descriptor_len()),
                format!("{} values: fit this captioner", learned.mean.len()),
            ));
        }
        let dim = learned.map_or(self.config.embedding_dim(), Discriminant::dim);
        self.projections.set_clusters(clusters.as_deref(), dim)?;
        self.clusters = clusters;
        Ok(())
    }

    /// The image-text matching model that measures alignment, where there is one.
    pub fn matcher(&self) -> Option<&Matcher> {
        self.matcher.as_ref()
    }

    /// Lets an image-text matching model measure alignment, or the decoder again. Clusters, whose
    /// quantiles hold for one of them, go.
    ///
    /// # Errors
    /// A matcher on another device, or with previews of another kind than the captioner's.
    pub fn set_matcher(&mut self, matcher: Option<Matcher>) -> Result<()> {
        if let Some(matcher) = &matcher {
            let own = (self.config.preview_size, self.config.preview_filter);
            let theirs = (matcher.config.preview_size, matcher.config.preview_filter);
            if own != theirs {
                let show = |(size, filter): (usize, PreviewFilter)| format!("{size} pixels, {filter:?}");
                return Err(Error::format("previews of the matcher", show(own), show(theirs)));
            }
            if matcher.device != self.device {
                let device = device_name(matcher.device);
                return Err(Error::format("device of the matcher", device_name(self.device), device));
            }
        }
        self.matcher = matcher;
        self.set_clusters(None)
    }

    /// Number type in which images are encoded, alignment is measured and captions are written.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Sets it: bf16 on a GPU and f32 elsewhere until then. Training and what is saved stay f32.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        self.precision = precision;
        self.half = None;
        self.prepare()?;
        self.matcher.as_mut().map_or(Ok(()), |matcher| matcher.set_precision(precision))
    }

    /// Makes the bf16 copies of encoder and decoder, where they are wanted and are not those of the
    /// weights as they are.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if self.precision == Precision::Float32 || self.is_prepared() {
            return Ok(());
        }
        let of = self.weights_hash();
        let mut weights = Weights::converted(&self.tensors, self.device, self.precision.kind());
        self.half = Some(Half {
            vision: VisionModel::new(&mut weights, &self.config, self.device)?,
            decoder: TextDecoder::new(&mut weights, &self.config)?,
            of,
        });
        Ok(())
    }

    fn is_prepared(&self) -> bool {
        self.half.as_ref().is_some_and(|half| self.weights_hash.get() == Some(&half.of))
    }

    /// The image encoder that inference uses.
    pub(super) fn vision_in_use(&self) -> &VisionModel {
        self.half.as_ref().filter(|_| self.is_prepared()).map_or(&self.vision, |half| &half.vision)
    }

    /// The decoder that inference uses.
    pub(super) fn decoder_in_use(&self) -> &TextDecoder {
        self.half.as_ref().filter(|_| self.is_prepared()).map_or(&self.decoder, |half| &half.decoder)
    }

    /// The same model with the same memory, but gradients of its own.
    pub(super) fn replica(&self) -> Result<Self> {
        let weights = Weights::shared(&self.tensors, self.device);
        Self::build(self.config.clone(), self.tokenizer.clone(), None, self.device, weights)
    }

    /// Fails unless previews are `[rows, 3, preview_size, preview_size]`.
    pub(super) fn check_previews(&self, previews: &ArrayView4<'_, u8>, rows: usize) -> Result<()> {
        check_previews(previews, rows, self.config.preview_size)
    }

    /// Previews as a tensor on the device, `[rows, 3, preview_size, preview_size]`, u8.
    pub(super) fn previews(&self, previews: ArrayView4<'_, u8>, rows: usize) -> Result<Tensor> {
        to_device(previews, rows, self.config.preview_size, self.device)
    }

    /// The codes of visual tokens `[batch, 1 + patches, dim]`.
    ///
    /// # Errors
    /// There is no codebook yet.
    pub(super) fn coded(&self, tokens: &Tensor) -> Result<Coded> {
        let patches = tokens.f_narrow(1, 1, self.config.patches() as i64)?;
        match &self.codes {
            Codes::Trained(codebook) => {
                let z = codebook.project(&patches)?;
                Ok(Coded { indices: codebook.nearest(&z.f_detach()?)?, z })
            }
            Codes::Fitted(codebook) => Ok(Coded { indices: codebook.nearest(&patches)?, z: patches }),
            Codes::Missing => Err(Error::captioner("no codebook: run `fit` on this captioner first")),
        }
    }

    /// What the decoder attends to, `[batch, tokens, dim]`, for visual tokens
    /// `[batch, 1 + patches, dim]` whose codes may be known.
    pub(super) fn seen(&self, tokens: &Tensor, coded: Option<&Coded>) -> Result<Tensor> {
        if self.config.decode_from == DecodeFrom::Raw {
            return Ok(tokens.shallow_clone());
        }
        let own;
        let coded = match coded {
            Some(coded) => coded,
            None => {
                own = self.coded(tokens)?;
                &own
            }
        };
        match &self.codes {
            Codes::Trained(codebook) => codebook.visual(&codebook.quantised(&coded.indices)?),
            Codes::Fitted(codebook) => {
                let class = tokens.f_narrow(1, 0, 1)?;
                Ok(Tensor::f_cat(&[class, codebook.quantised(&coded.indices)?], 1)?)
            }
            Codes::Missing => Err(Error::captioner("no codebook to decode from")),
        }
    }

    /// Keys and values of the null image for `batch` captions, as `decoder` makes them.
    pub(super) fn null_memory(&self, decoder: &TextDecoder, batch: usize) -> Result<Memory> {
        let null = self.null_image.as_ref();
        let null =
            null.ok_or_else(|| Error::captioner("no mean image: run `fit` on this captioner first"))?;
        decoder.memory(null)?.expand(batch as i64)
    }

    /// The codebook that is trained with the model.
    ///
    /// # Errors
    /// The model has another, or none.
    pub(super) fn trained(&self) -> Result<&Codebook> {
        match &self.codes {
            Codes::Trained(codebook) => Ok(codebook),
            _ => Err(Error::captioner("a loaded BLIP has no codebook that can be trained")),
        }
    }

    /// What the decoder has to predict for each caption: its tokens and the end token. What is
    /// beyond the configuration's `max_tokens` is cut off, and with it the end token.
    pub(super) fn tokens(&self, captions: &[&str]) -> Vec<Vec<u32>> {
        let row = |caption: &&str| {
            let mut ids = self.tokenizer.ids(caption);
            ids.push(self.specials.end);
            ids.truncate(self.config.decoder.max_tokens);
            ids
        };
        captions.iter().map(row).collect()
    }

    /// Rows of [`tokens`](Self::tokens) as tensors, padded to `length`, or to the longest.
    pub(super) fn text_batch(&self, rows: &[Vec<u32>], length: Option<usize>) -> Result<TextBatch> {
        let Specials { start, pad, .. } = self.specials;
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let length = length.unwrap_or_else(|| lengths.iter().copied().max().unwrap_or(1));
        let mut ids = vec![i64::from(pad); rows.len() * length];
        let mut targets = ids.clone();
        for (row, tokens) in rows.iter().enumerate() {
            let ids = &mut ids[row * length..(row + 1) * length];
            let targets = &mut targets[row * length..(row + 1) * length];
            ids[0] = i64::from(start);
            for (t, &token) in tokens.iter().enumerate() {
                targets[t] = i64::from(token);
                if t + 1 < tokens.len() {
                    ids[t + 1] = i64::from(token);
                }
            }
        }
        let tensor = |values: &[i64]| -> Result<Tensor> {
            let shape = [rows.len() as i64, length as i64];
            Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(self.device)?)
        };
        Ok(TextBatch { ids: tensor(&ids)?, targets: tensor(&targets)?, lengths })
    }

    /// 1 where a target is not padding, `[batch, length]`, f32.
    pub(super) fn mask(&self, text: &TextBatch) -> Result<Tensor> {
        let length = text.targets.size2()?.1 as usize;
        let values: Vec<f32> = text
            .lengths
            .iter()
            .flat_map(|&used| (0..length).map(move |t| if t < used { 1.0 } else { 0.0 }))
            .collect();
        let shape = [text.lengths.len() as i64, length as i64];
        let mask = Tensor::f_from_slice(&values)?.f_view(shape)?;
        Ok(mask.f_to_kind(Kind::Float)?.f_to_device(self.device)?)
    }
}

/// Fails unless the prompt leaves room for a caption.
pub(super) fn check_prompt(config: &CaptionerConfig, tokenizer: &Tokenizer) -> Result<()> {
    let generation = &config.generation;
    if tokenizer.ids(&generation.prompt).len() + generation.max_tokens < config.decoder.positions {
        return Ok(());
    }
    let accepted = format!(
        "a text that leaves room for generation.max_tokens ({}) in decoder.positions ({})",
        generation.max_tokens, config.decoder.positions
    );
    Err(Error::option("generation.prompt", format!("{:?}", generation.prompt), accepted))
}
