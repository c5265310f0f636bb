//! A kept sample between deciding and the batch.

use std::sync::Arc;

use crate::loader::buffer::Encoded;
use crate::loader::moment::Moment;
use crate::model::SemanticHash;
use crate::sample::Sample;
use crate::shard::ReadOptions;

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
    /// What chance goes by where something is done to it.
    pub(crate) fn moment(&self, seed: u64) -> Moment {
        Moment::new(seed, self.pass, self.sample.id)
    }

    /// Takes the caption that is drawn for this pass, where the sample has several.
    pub(crate) fn draw_caption(&mut self, seed: u64) {
        let captions = std::mem::take(&mut self.sample.captions);
        if let Some(drawn) = self.moment(seed).caption(captions) {
            self.sample.caption = drawn;
        }
    }

    /// Whether the table of captions `name` has one of it.
    pub(crate) fn has_caption(&self, name: &str) -> bool {
        self.read.captions.as_ref().is_some_and(|tables| tables.has(name, &self.sample))
    }
}

/// Kept samples that leave a lane together.
pub(crate) type KeptGroup = Vec<Arc<Kept>>;
