//! A kept sample between deciding and the batch.

use std::sync::Arc;

use crate::hash::{self, Purpose, Rng};
use crate::loader::buffer::Encoded;
use crate::model::SemanticHash;
use crate::sample::Sample;
use crate::shard::{BETWEEN, CaptionChoice, ReadOptions};

/// A sample that was kept, with what is known of it.
pub(crate) struct Kept {
    /// All of it but image and json, which are empty here.
    pub(crate) sample: Sample,
    pub(crate) image: Encoded,
    pub(crate) json: Option<Encoded>,
    pub(crate) shard: Arc<str>,
    /// How its shard is read.
    pub(crate) read: Arc<ReadOptions>,
    pub(crate) cluster: Option<u32>,
    pub(crate) alignment: Option<f32>,
    pub(crate) pi: Option<f32>,
    /// Hash of the image by its content; `None` where it is not known.
    pub(crate) semantic_hash: Option<SemanticHash>,
    /// The same, where others of its lane's batch are compared with it.
    pub(crate) look: Option<SemanticHash>,
    /// Identity of the caption to train on, where others of its lane's batch are compared with it.
    pub(crate) text: Option<u64>,
    pub(crate) generated: Option<Arc<str>>,
    /// What the judge says of the generated caption.
    pub(crate) judged: Option<f32>,
    /// Whether the gate dropped it and its generated caption brought it back.
    pub(crate) rescued: bool,
    /// Its corpus.
    pub(crate) source: usize,
    /// The pass over its corpus in which it was kept.
    pub(crate) pass: u64,
    /// Its position in its stream: how many samples that count come before it, unusable ones among them.
    pub(crate) position: u64,
}

impl Kept {
    /// What chance has to go by where something is done to it: sample and pass. An epoch may have a sample
    /// in several passes.
    pub(crate) fn moment(&self) -> u64 {
        hash::combine(&[self.pass, self.sample.id.0])
    }

    /// Takes the caption that is drawn for this pass, where the sample has several.
    pub(crate) fn draw_caption(&mut self, seed: u64) {
        let mut captions = std::mem::take(&mut self.sample.captions);
        if !captions.is_empty() {
            let drawn = Rng::new(seed, Purpose::Caption, self.moment()).below(captions.len());
            self.sample.caption = captions.swap_remove(drawn);
        }
    }

    /// Whether the table of captions `name` has one of it.
    pub(crate) fn has_caption(&self, name: &str) -> bool {
        self.read.captions.as_ref().is_some_and(|tables| tables.has(name, &self.sample))
    }

    /// Its caption in the table `name`; of several the one that is drawn for this pass, all, or the first.
    pub(crate) fn caption_of(&self, name: &str, seed: u64) -> Option<String> {
        let mut captions = self.read.captions.as_ref()?.captions(name, &self.sample);
        match self.read.caption_choice {
            Some(CaptionChoice::All) if !captions.is_empty() => Some(captions.join(BETWEEN)),
            Some(CaptionChoice::Random) if captions.len() > 1 => {
                let moment = hash::combine(&[self.moment(), hash::hash_str(name)]);
                let drawn = Rng::new(seed, Purpose::Caption, moment).below(captions.len());
                Some(captions.swap_remove(drawn))
            }
            _ => captions.into_iter().next(),
        }
    }
}

/// Kept samples that leave a lane together.
pub(crate) type KeptGroup = Vec<Arc<Kept>>;
