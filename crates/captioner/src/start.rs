//! Where the codes of a new codebook stand before training: k-means centroids of patches, anywhere,
//! or the text embeddings of keywords (TL;DR, arXiv 2305.20087, section 3.1).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::learn::{PatchSample, kmeans};
use crate::model::{Captioner, Codes};
use crate::weights::unit_rows;
use tldr_loader::hash::{self, Purpose, Rng};

/// Where the codes of a new codebook stand before training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodebookStart {
    /// On badly represented patches of the first batch.
    #[default]
    Patches,
    /// On the centroids of patches of the first images.
    KMeans,
    /// Anywhere, all directions being equally likely.
    Uniform,
    /// On the text embeddings of the most frequent keywords of the captions: the paper's way.
    Keywords,
}

tldr_loader::names!(
    CodebookStart { Patches => "patches", KMeans => "kmeans", Uniform => "uniform", Keywords => "keywords" },
    option "codebook_start"
);

impl Captioner {
    /// Puts the codes onto k-means centroids of a sample of patches, as the encoder makes them now;
    /// `rows` are the images of a training step.
    ///
    /// # Errors
    /// Fewer sampled patches than codes; a captioner whose codebook is not trained with it.
    pub fn start_from_patches(&mut self, sample: &PatchSample, rows: usize, seed: u64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let (codes, found) = (self.config.codes(), sample.patches());
        if found < codes {
            let accepted =
                format!("patches, uniform or keywords: {found} patches are too few for {codes} codes");
            return Err(Error::option("codebook_start", "kmeans", accepted));
        }
        let patches = sample.all()?.f_to_device(self.device)?;
        let points = self.trained()?.project(&patches)?;
        let centroids = unit_rows(&kmeans(&points, codes, seed)?)?;
        self.start_codes(&centroids, rows)
    }

    /// Gives the codes random directions.
    ///
    /// # Errors
    /// A captioner whose codebook is not trained with it.
    pub fn start_uniformly(&mut self, rows: usize, seed: u64) -> Result<()> {
        let codes = self.random_directions(self.config.codes(), seed)?;
        self.start_codes(&codes, rows)
    }

    /// Puts the first codes onto the decoder's own embeddings of `keywords`, the mean of their tokens'
    /// rows, and gives random directions to those for which there is no keyword. Says how many
    /// keywords have a code.
    ///
    /// Codes that are shorter or longer than embeddings get a random projection of them, which keeps
    /// the angles between keywords, about.
    ///
    /// # Errors
    /// A captioner whose codebook is not trained with it.
    pub fn start_from_keywords(&mut self, keywords: &[String], rows: usize, seed: u64) -> Result<usize> {
        let _guard = tch::no_grad_guard();
        let words = self
            .tensors
            .get("text_decoder.bert.embeddings.word_embeddings.weight")
            .ok_or_else(|| Error::captioner("the decoder has no word embeddings"))?;
        let mut embedded = Vec::new();
        for keyword in keywords.iter().take(self.config.codes()) {
            let ids: Vec<i64> = self.tokenizer.ids(keyword).into_iter().map(i64::from).collect();
            if ids.is_empty() {
                continue;
            }
            let rows = words.f_index_select(0, &Tensor::f_from_slice(&ids)?.f_to_device(self.device)?)?;
            embedded.push(rows.f_mean_dim([0i64].as_slice(), false, Kind::Float)?);
        }
        let mut codes = self.random_directions(self.config.codes(), seed)?;
        if !embedded.is_empty() {
            let mut known = Tensor::f_stack(&embedded, 0)?;
            let (dim, code_dim) = (self.config.decoder.dim, self.config.embedding_dim());
            if dim != code_dim {
                let mut rng = Rng::new(seed, Purpose::Train, hash::combine(&[START, 1]));
                let values: Vec<f32> = (0..dim * code_dim).map(|_| rng.normal() as f32).collect();
                let projection = Tensor::f_from_slice(&values)?.f_view([dim as i64, code_dim as i64])?;
                known = known.f_mm(&projection.f_to_device(self.device)?)?;
            }
            let rest = codes.f_narrow(0, known.size()[0], codes.size()[0] - known.size()[0])?;
            codes = Tensor::f_cat(&[unit_rows(&known)?, rest], 0)?;
        }
        self.start_codes(&codes, rows)?;
        Ok(embedded.len())
    }

    /// Unit vectors `[codes, code_dim]` on the device.
    fn random_directions(&self, codes: usize, seed: u64) -> Result<Tensor> {
        let dim = self.config.embedding_dim();
        let mut rng = Rng::new(seed, Purpose::Train, hash::combine(&[START, 0]));
        let values: Vec<f32> = (0..codes * dim).map(|_| rng.normal() as f32).collect();
        let values = Tensor::f_from_slice(&values)?.f_view([codes as i64, dim as i64])?;
        unit_rows(&values.f_to_device(self.device)?)
    }

    fn start_codes(&mut self, codes: &Tensor, rows: usize) -> Result<()> {
        // What each would be chosen by in a step, were all chosen equally often.
        let size = (rows.max(1) * self.config.patches()) as f64 / self.config.codes().max(1) as f64;
        self.trained()?;
        if let Codes::Trained(codebook) = &mut self.codes {
            codebook.start_from(codes, size)?;
        }
        self.set_clusters(None)?;
        self.weights_hash.take();
        Ok(())
    }
}

/// Keeps these streams apart from those of training steps.
const START: u64 = 0x57A7;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::config::CaptionerConfig;
    use crate::weights::to_f32;
    use tldr_loader::text::Tokenizer;

    fn captioner() -> Captioner {
        let captions = ["a red dog on a green field", "a blue boat", "the red boat and the green dog"];
        let tokenizer = Tokenizer::train(captions.into_iter(), 200).unwrap();
        let config = CaptionerConfig::tiny(tokenizer.vocab_size());
        Captioner::new(config, tokenizer, Device::Cpu, 3).unwrap()
    }

    fn codes(captioner: &Captioner) -> Tensor {
        captioner.trained().unwrap().codes().copy()
    }

    /// Every row has length one, and no two are the same.
    fn are_distinct_directions(codes: &Tensor) {
        let products = codes.mm(&codes.tr());
        let own = to_f32(&products.diagonal(0, 0, 1)).unwrap();
        assert!(own.iter().all(|v| (v - 1.0).abs() < 1e-5), "{own:?}");
        let others = products - Tensor::eye(codes.size()[0], (Kind::Float, Device::Cpu)) * 2.0;
        assert!(others.max().double_value(&[]) < 0.9999);
    }

    #[test]
    fn uniform_codes_are_distinct_directions_by_seed() {
        let mut captioner = captioner();
        captioner.start_uniformly(8, 1).unwrap();
        let first = codes(&captioner);
        are_distinct_directions(&first);
        captioner.start_uniformly(8, 2).unwrap();
        assert!((codes(&captioner) - &first).abs().max().double_value(&[]) > 0.1);
        captioner.start_uniformly(8, 1).unwrap();
        assert_eq!(to_f32(&codes(&captioner)).unwrap(), to_f32(&first).unwrap());
    }

    #[test]
    fn keywords_that_share_tokens_get_codes_that_are_alike() {
        let mut captioner = captioner();
        let keywords: Vec<String> = ["red", "dog", "red dog", "zzz"].map(String::from).to_vec();
        assert_eq!(captioner.start_from_keywords(&keywords, 8, 5).unwrap(), 4);
        let codes = codes(&captioner);
        are_distinct_directions(&codes);
        let cosine = |a: i64, b: i64| (codes.get(a) * codes.get(b)).sum(Kind::Float).double_value(&[]);
        // "red dog" is the mean of two embeddings: at 45 degrees of each, but for the projection.
        assert!(cosine(0, 2) > 0.4 && cosine(1, 2) > 0.4, "{} {}", cosine(0, 2), cosine(1, 2));
        // More keywords than codes: the first ones.
        let many: Vec<String> = (0..40).map(|i| format!("red {i}")).collect();
        assert_eq!(captioner.start_from_keywords(&many, 8, 5).unwrap(), 16);
        assert_eq!(captioner.start_from_keywords(&[], 8, 5).unwrap(), 0);
    }

    #[test]
    fn centroids_of_patches_lie_among_them() {
        let mut captioner = captioner();
        let previews = ndarray::Array4::from_shape_fn((8, 3, 16, 16), |(i, c, y, x)| {
            (37 * i + 91 * c + 13 * (y / 4) * (i + 1) + 29 * (x / 4)) as u8
        });
        let ids: Vec<tldr_loader::SampleId> = (0..8).map(tldr_loader::SampleId).collect();
        let mut sample = PatchSample::new(16, 0);
        let few = captioner.start_from_patches(&sample, 8, 0).unwrap_err().to_string();
        assert!(
            few.starts_with("invalid codebook_start=kmeans: expected ") && few.contains("0 patches"),
            "{few}"
        );
        captioner.sample_patches(previews.view(), &ids, &mut sample).unwrap();
        captioner.start_from_patches(&sample, 8, 0).unwrap();
        let points = captioner.trained().unwrap().project(&sample.all().unwrap()).unwrap();
        let nearest = points.mm(&codes(&captioner).tr()).max_dim(1, false).0;
        let random = {
            captioner.start_uniformly(8, 0).unwrap();
            points.mm(&codes(&captioner).tr()).max_dim(1, false).0
        };
        let mean = |cosines: &Tensor| cosines.mean(Kind::Float).double_value(&[]);
        assert!(mean(&nearest) > mean(&random) + 0.05, "{} {}", mean(&nearest), mean(&random));
    }

    #[test]
    fn names_are_read() {
        for name in ["patches", "kmeans", "uniform", "keywords"] {
            assert_eq!(CodebookStart::from_name(name).unwrap().name(), name);
        }
        let message = CodebookStart::from_name("random").unwrap_err().to_string();
        assert!(message.starts_with("invalid codebook_start=random: expected "), "{message}");
    }
}
