//! Training of the captioner, one step at a time: language modelling and vector quantisation,
//! one to one (TL;DR, arXiv 2305.20087, section 3.1).
//!
//! A [`Trainer`] does not know where its batches come from; whole runs over a stream of shards are
//! composed elsewhere.

use std::ops::Range;
use std::time::Instant;

use ndarray::{ArrayView4, s};
use tch::{Device, Kind, Reduction, Tensor};

use crate::adamw::AdamW;
use crate::autocast::Autocast;
use crate::codebook::CODES;
use crate::error::{Error, Result};
use crate::model::{Captioner, Codes, TextBatch};
use crate::train_options::TrainOptions;
use crate::weights::to_f32;
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::sample::SampleId;

/// What a training step did.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// `lm_loss + vq_loss`.
    pub loss: f64,
    /// Mean negative log-likelihood of a caption token, in nats.
    pub lm_loss: f64,
    /// Commitment loss, and the codebook loss where codes follow it.
    pub vq_loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// exp(entropy) of the codes' moving shares.
    pub perplexity: f64,
    /// Codes that are in use, by their moving counts.
    pub used_codes: usize,
    /// Images of the batch over the seconds of the step.
    pub images_per_s: f64,
}

/// Trains a captioner step by step.
///
/// On a CPU a batch is cut into parts that run side by side, each in a thread of its own with one
/// intra-op thread: they meet once per step, where libtorch's own threads would meet at every
/// operation and wait for whoever was interrupted.
pub struct Trainer {
    pub(super) captioner: Captioner,
    /// Models that share the captioner's weights and have gradients of their own.
    replicas: Vec<Captioner>,
    options: TrainOptions,
    pub(super) optimizer: AdamW,
    pub(super) step: u64,
}

impl Trainer {
    /// Takes a captioner into training. Clusters that it had are dropped: they do not fit the
    /// codes to come. On a CPU, sets the calling thread's intra-op threads to one.
    ///
    /// # Errors
    /// An option out of its range, by name; a captioner that was loaded from BLIP.
    pub fn new(mut captioner: Captioner, options: TrainOptions) -> Result<Self> {
        options.validate()?;
        captioner.trained()?;
        captioner.set_clusters(None)?;
        let mut replicas = Vec::new();
        if captioner.device == Device::Cpu {
            tch::set_num_threads(1);
            for _ in 1..options.threads {
                replicas.push(captioner.replica()?);
            }
        }
        let optimizer = AdamW::new(&captioner.tensors, options.weight_decay)?;
        Ok(Self { captioner, replicas, options, optimizer, step: 0 })
    }

    /// The captioner as it is now.
    pub fn captioner(&self) -> &Captioner {
        &self.captioner
    }

    /// The captioner as it is now, to encode and caption with between steps.
    pub fn captioner_mut(&mut self) -> &mut Captioner {
        &mut self.captioner
    }

    /// Ends the training.
    pub fn into_captioner(self) -> Captioner {
        self.captioner
    }

    /// Steps taken.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// One step on `previews` `[rows, 3, preview_size, preview_size]`, `captions` and `ids`
    /// `[rows]`. Rows may change from step to step. Which images are dropped, and how they are
    /// shifted, depends on the seed, the step and the ids.
    ///
    /// # Errors
    /// No rows, or arrays that do not fit together; a loss or gradient that is not finite: the
    /// weights are then those of the step before.
    pub fn step(
        &mut self,
        previews: ArrayView4<'_, u8>,
        captions: &[&str],
        ids: &[SampleId],
    ) -> Result<StepReport> {
        let started = Instant::now();
        let rows = captions.len();
        if rows == 0 || ids.len() != rows {
            return Err(Error::format(
                "batch",
                "as many ids as captions, at least one",
                format!("{} ids, {rows} captions", ids.len()),
            ));
        }
        self.captioner.check_previews(&previews, rows)?;
        let augmented = self.options.augment.apply(&previews, ids, self.options.seed, self.step);
        let previews = augmented.as_ref().map_or(previews, |augmented| augmented.view());
        let tokens = self.captioner.tokens(captions);
        let dropped: Vec<bool> = ids.iter().map(|id| self.drops_image(*id)).collect();
        let batch =
            Batch { previews, tokens: &tokens, dropped: &dropped, total: tokens.iter().map(Vec::len).sum() };
        let parts = self.backward(&batch)?;
        let norm = self.optimizer.gradient_norm()?;
        let sum = |f: &dyn Fn(&Part) -> &Tensor| -> Result<Tensor> {
            let losses: Vec<Tensor> = parts.iter().map(|part| f(part).shallow_clone()).collect();
            Ok(Tensor::f_stack(&losses, 0)?.f_sum(Kind::Float)?)
        };
        let numbers = Tensor::f_stack(&[sum(&|p| &p.lm_loss)?, sum(&|p| &p.vq_loss)?, norm], 0)?;
        let numbers = to_f32(&numbers)?;
        let [lm_loss, vq_loss, gradient_norm] = [numbers[0], numbers[1], numbers[2]].map(f64::from);
        if ![lm_loss, vq_loss, gradient_norm].iter().all(|x| x.is_finite()) {
            return Err(Error::captioner(format!(
                "training stopped at step {}: language loss {lm_loss}, quantisation loss {vq_loss}, gradient \
                 norm {gradient_norm}; the weights are those of the step before; try a lower learning_rate \
                 than {} or a longer warmup",
                self.step + 1,
                self.options.learning_rate,
            )));
        }
        let learning_rate = self.options.rate(self.step);
        let scale = (self.options.gradient_clip / gradient_norm.max(1e-12)).min(1.0);
        self.optimizer.step(learning_rate, scale)?;
        let mut rng = Rng::new(self.options.seed, Purpose::Train, hash::combine(&[RESEED, self.step]));
        let join = |f: &dyn Fn(&Part) -> &Tensor| -> Result<Tensor> {
            let tensors: Vec<Tensor> = parts.iter().map(|part| f(part).shallow_clone()).collect();
            Ok(Tensor::f_cat(&tensors, 0)?)
        };
        let (z, indices) = (join(&|p| &p.z)?, join(&|p| &p.indices)?);
        let Codes::Trained(codebook) = &mut self.captioner.codes else {
            return Err(Error::captioner("the codebook is gone"));
        };
        let usage = codebook.update(&z, &indices, &mut rng)?;
        self.optimizer.forget_rows(CODES, &usage.reseeded)?;
        self.captioner.weights_hash.take();
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            loss: lm_loss + vq_loss,
            lm_loss,
            vq_loss,
            gradient_norm,
            learning_rate,
            perplexity: usage.perplexity,
            used_codes: usage.used,
            images_per_s: rows as f64 / started.elapsed().as_secs_f64().max(1e-9),
        })
    }

    /// Whether this step replaces the image of a sample by the null image.
    fn drops_image(&self, id: SampleId) -> bool {
        let choice = hash::hash(self.options.seed, Purpose::Train, hash::combine(&[id.0, self.step]));
        hash::unit(choice) < self.options.null_probability
    }

    /// Leaves the gradient of the whole batch in the captioner's tensors.
    fn backward(&mut self, batch: &Batch<'_>) -> Result<Vec<Part>> {
        self.optimizer.zero_grad();
        for replica in &mut self.replicas {
            replica.tensors.values_mut().for_each(Tensor::zero_grad);
        }
        let rows = batch.tokens.len();
        let share = rows.div_ceil(self.options.accumulate).max(1);
        let mut parts = Vec::new();
        for start in (0..rows).step_by(share) {
            parts.extend(self.backward_side_by_side(batch, start..(start + share).min(rows))?);
        }
        // In the order of the replicas: sums of floats depend on it.
        for replica in &self.replicas {
            self.optimizer.add_gradients(&replica.tensors)?;
        }
        Ok(parts)
    }

    /// Adds the gradient of some rows, one stretch of them in each thread.
    fn backward_side_by_side(&mut self, batch: &Batch<'_>, rows: Range<usize>) -> Result<Vec<Part>> {
        let share = rows.len().div_ceil(self.replicas.len() + 1);
        let kind = self.options.autocast(self.captioner.device);
        let (captioner, end) = (&self.captioner, rows.end);
        std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .replicas
                .iter_mut()
                .enumerate()
                .map(|(i, replica)| {
                    let start = rows.start + (i + 1) * share;
                    (start.min(end)..(start + share).min(end), replica)
                })
                .filter(|(rows, _)| !rows.is_empty())
                .map(|(rows, replica)| {
                    scope.spawn(move || {
                        tch::set_num_threads(1);
                        backward(replica, batch, rows, kind)
                    })
                })
                .collect();
            let mut parts = vec![backward(captioner, batch, rows.start..(rows.start + share).min(end), kind)];
            parts.extend(workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(Error::captioner("a training thread panicked")))
            }));
            parts.into_iter().collect()
        })
    }
}

/// Keeps the stream of re-seeded codes apart from that of dropped images.
const RESEED: u64 = 0x5EED;

/// A batch on the host.
struct Batch<'a> {
    previews: ArrayView4<'a, u8>,
    /// Targets of each row, `[rows]`.
    tokens: &'a [Vec<u32>],
    /// Rows whose image is replaced, `[rows]`.
    dropped: &'a [bool],
    /// Tokens of all rows.
    total: usize,
}

/// What a part of a batch leaves besides gradients; losses are its share of the batch's.
struct Part {
    lm_loss: Tensor,
    vq_loss: Tensor,
    z: Tensor,
    indices: Tensor,
}

/// Adds the gradient of the rows `range` to the tensors of `model`, with matrix products in `kind`.
fn backward(model: &Captioner, batch: &Batch<'_>, range: Range<usize>, kind: Option<Kind>) -> Result<Part> {
    let rows = range.len();
    let previews = batch.previews.slice(s![range.clone(), .., .., ..]);
    let codebook = model.trained()?;
    let null_image = model.null_image.as_ref().ok_or_else(|| Error::captioner("no null image to train"))?;
    let tokens = {
        let _products = Autocast::to(kind);
        model.vision.forward(&model.previews(previews, rows)?)?
    };
    let visual = model.coded(&tokens)?;
    let quantised = codebook.quantised(&visual.indices)?;
    let part = rows as f64 / batch.tokens.len() as f64;
    let vq_loss = codebook.loss(&visual.z, &quantised)?.f_mul_scalar(part)?;
    let seen = codebook.straight_through(&visual.z, &quantised)?;
    let seen = codebook.visual(&seen)?;
    let dropped = Tensor::f_from_slice(&batch.dropped[range.clone()])?.f_view([rows as i64, 1, 1])?;
    let seen = null_image.f_where_self(&dropped.f_to_device(model.device)?, &seen)?;
    let text = model.text_batch(&batch.tokens[range], None)?;
    let lm_loss = {
        let _products = Autocast::to(kind);
        language_loss(model, &seen, &text, batch.total)?
    };
    lm_loss.f_add(&vq_loss)?.f_backward()?;
    Ok(Part {
        lm_loss: lm_loss.f_detach()?,
        vq_loss: vq_loss.f_detach()?,
        z: visual.z.f_detach()?,
        indices: visual.indices,
    })
}

/// Negative log-likelihood of the tokens that are not padding, over `total`. Only those are taken
/// to the vocabulary, where most of the cost is.
fn language_loss(model: &Captioner, visual: &Tensor, text: &TextBatch, total: usize) -> Result<Tensor> {
    let memory = model.decoder.memory(visual)?;
    let hidden = model.decoder.hidden(&text.ids, &memory)?;
    let (rows, length, dim) = hidden.size3()?;
    let used: Vec<i64> = text
        .lengths
        .iter()
        .enumerate()
        .flat_map(|(row, &used)| (0..used as i64).map(move |t| row as i64 * length + t))
        .collect();
    let used = Tensor::f_from_slice(&used)?.f_to_device(model.device)?;
    let hidden = hidden.f_view([rows * length, dim])?.f_index_select(0, &used)?;
    let targets = text.targets.f_view([-1])?.f_index_select(0, &used)?;
    let logits = model.decoder.logits(&hidden)?.f_to_kind(Kind::Float)?;
    let loss = logits.f_cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Sum, -100, 0.0)?;
    Ok(loss.f_div_scalar(total as f64)?)
}
