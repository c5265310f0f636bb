//! What chance goes by for a sample in one pass over its corpus: captions and pixels are drawn by it.

use crate::hash::{self, Purpose, Rng};
use crate::sample::{Sample, SampleId};
use crate::shard::{BETWEEN, CaptionChoice, ReadOptions};

/// A sample in one pass over its corpus, under a seed. An epoch may have a sample in several passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    seed: u64,
    /// Pass and sample.
    number: u64,
}

impl Moment {
    /// The sample `id` in pass `pass`, from 0, over its corpus.
    pub fn new(seed: u64, pass: u64, id: SampleId) -> Self {
        Self { seed, number: hash::combine(&[pass, id.0]) }
    }

    /// Its hash for `purpose`.
    pub(crate) fn hash(self, purpose: Purpose) -> u64 {
        hash::hash(self.seed, purpose, self.number)
    }

    /// Its random numbers for `purpose`.
    pub(crate) fn rng(self, purpose: Purpose) -> Rng {
        Rng::new(self.seed, purpose, self.number)
    }

    /// Its number in [0, 1) by which `fuse` draws: [`Evidence::draw`](crate::text::Evidence::draw).
    pub fn draw(self) -> f64 {
        hash::unit(self.hash(Purpose::Fuse))
    }

    /// The one of `captions` that is drawn, where there are some.
    pub fn caption(self, mut captions: Vec<String>) -> Option<String> {
        let drawn = (!captions.is_empty()).then(|| self.rng(Purpose::Caption).below(captions.len()))?;
        Some(captions.swap_remove(drawn))
    }

    /// The caption of `sample` in the table `name`; of several the one that is drawn, all, or the first, as `read` says.
    pub fn caption_of(self, read: &ReadOptions, name: &str, sample: &Sample) -> Option<String> {
        let captions = read.captions.as_ref()?.captions(name, sample);
        match read.caption_choice {
            Some(CaptionChoice::All) if !captions.is_empty() => Some(captions.join(BETWEEN)),
            Some(CaptionChoice::Random) if captions.len() > 1 => {
                let number = hash::combine(&[self.number, hash::hash_str(name)]);
                Self { number, ..self }.caption(captions)
            }
            _ => captions.into_iter().next(),
        }
    }
}
