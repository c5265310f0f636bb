//! What a fit says beside clusters: whether the captioner tells true captions from swapped ones, and whether what it
//! writes is worth reading.
//!
//! Both are measured on a bounded part of the fit's sample, spread evenly over it: 1,024 pairs, each of which costs
//! about as much again as fitting it does, and 64 generated captions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ndarray::{Array3, Array4, Axis};

use crate::jobs::train::Origin;
use crate::{Captioner, LearnedBy, Scores};
use tldr_loader::cluster::{GateWorth, MeasuredOn};
use tldr_loader::error::Result;
use tldr_loader::jobs::{Corpus, SampledBatch};
use tldr_loader::model::{Recaptioner, Scorer};
use tldr_loader::sample::SampleId;
use tldr_loader::text::is_repetitive;

/// Pairs that are scored with their own and a swapped caption: at chance the AUC of as many has a standard error of
/// 0.013.
const PAIRS: u64 = 1024;
/// Captions that are generated.
const CAPTIONS: u64 = 64;

/// Captions that were generated for a part of the sample.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CaptionSample {
    /// How many.
    pub sampled: u64,
    /// Of these, those without a word.
    pub empty: u64,
    /// Of the others, those that repeat a phrase three times in a row.
    pub repetitive: u64,
    /// Of the others, those that an earlier picture of the sample got too.
    pub equal: u64,
    /// The one that was written most often, the first of equals.
    pub commonest: String,
}

impl CaptionSample {
    /// Of captions of different pictures.
    pub fn of(captions: &[String]) -> Self {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut found = Self { sampled: captions.len() as u64, ..Self::default() };
        for caption in captions.iter().map(|caption| caption.trim()) {
            let before = counts.entry(caption).or_default();
            *before += 1;
            match caption {
                "" => found.empty += 1,
                _ if is_repetitive(caption) => found.repetitive += 1,
                _ => found.equal += u64::from(*before > 1),
            }
        }
        let most = counts.values().copied().max().unwrap_or_default();
        let commonest = counts.into_iter().find(|(_, count)| *count == most);
        found.commonest = commonest.map_or(String::new(), |(caption, _)| caption.to_owned());
        found
    }

    /// What should be known before such captions are trained on: more than half of them are of no use.
    pub fn warning(&self) -> Option<String> {
        (2 * (self.empty + self.repetitive + self.equal) > self.sampled).then(|| {
            format!(
                "{self}; the commonest is {:?}: train on originals (fuse=original), or get a better captioner, by more \
                 pairs, longer training or a BLIP",
                self.commonest
            )
        })
    }
}

impl fmt::Display for CaptionSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sampled, empty, repetitive, equal, .. } = self;
        write!(
            f,
            "of {sampled} captions that were generated {empty} are empty, {repetitive} repetitive, and {equal} equal to \
             another picture's"
        )
    }
}

/// Takes its part of a sample as it comes in.
pub(super) struct Measuring {
    /// What training measured.
    known: Option<GateWorth>,
    trained_on: Vec<u64>,
    /// Which pairs are scored, and of each shard whether its pairs are.
    on: MeasuredOn,
    scored: Vec<bool>,
    scores: Scores,
    /// A batch of so many is scored, and one of so many lends as many rows to be captioned.
    every: u64,
    caption_every: u64,
    caption_rows: usize,
    batches: u64,
    pictures: Vec<(SampleId, Array3<u8>)>,
    warnings: Vec<String>,
}

/// What was found.
pub(super) struct Found {
    pub(super) worth: Option<GateWorth>,
    pub(super) trained_on: Vec<u64>,
    pub(super) captions: CaptionSample,
    pub(super) warnings: Vec<String>,
}

impl Measuring {
    /// For `wanted` samples of `corpus`, and the captioner of the folder `dir`.
    ///
    /// # Errors
    /// A model that cannot be read.
    pub(super) fn new(dir: &Path, captioner: &Captioner, corpus: &Corpus, wanted: u64) -> Result<Self> {
        let (mut known, mut trained_on, mut warnings) = (None, vec![], vec![]);
        let learned_by = captioner.config().codebook.as_ref().map(|codebook| codebook.learned_by);
        if learned_by == Some(LearnedBy::Training) {
            match (Origin::of(dir)?, captioner.clusters().filter(|before| !before.trained_on.is_empty())) {
                (Origin::Trained { validation, trained_on: marks }, _) => {
                    let on = MeasuredOn::HeldOut;
                    (known, trained_on) = (validation.map(|validation| GateWorth { validation, on }), marks);
                }
                // An earlier fit knew it.
                (Origin::Unknown(_), Some(before)) => {
                    trained_on.clone_from(&before.trained_on);
                    known = before.worth.filter(|worth| worth.on == MeasuredOn::HeldOut);
                }
                (Origin::Unknown(why), None) => warnings.push(format!(
                    "{why}: whether the captioner was trained on these shards is not known. If it was, it does worse on \
                     new pairs than is measured here, and its captions are no news to them"
                )),
            }
        }
        let shards = corpus.shards.iter().zip(&corpus.lengths);
        let seen: Vec<bool> = shards.map(|(shard, &length)| shard.is_marked(length, &trained_on)).collect();
        let is_new = !seen.contains(&true);
        // What was measured elsewhere, or of another measure of alignment, says little of this gate.
        let known = known.filter(|_| !is_new && captioner.matcher().is_none());
        let on = if seen.contains(&false) { MeasuredOn::Sample } else { MeasuredOn::Trained };
        let scored: Vec<bool> = seen.iter().map(|seen| on == MeasuredOn::Trained || !seen).collect();
        let samples = |of: &dyn Fn(usize) -> bool| -> u64 {
            let lengths = corpus.lengths.iter().enumerate().filter(|(shard, _)| of(*shard));
            lengths.fold(0, |sum, (_, &length)| sum.saturating_add(length))
        };
        let share = samples(&|shard| scored[shard]) as f64 / samples(&|_| true).max(1) as f64;
        let batches = wanted.div_ceil(captioner.batch_size() as u64).max(1);
        let caption_every = (batches / CAPTIONS).max(1);
        Ok(Self {
            every: ((wanted as f64 * share / PAIRS as f64).ceil() as u64).max(1),
            caption_every,
            caption_rows: CAPTIONS.div_ceil(batches.div_ceil(caption_every)) as usize,
            scored: if known.is_some() { vec![] } else { scored },
            known,
            trained_on,
            on,
            scores: Scores::default(),
            batches: 0,
            pictures: vec![],
            warnings,
        })
    }

    /// Takes a batch.
    pub(super) fn push(&mut self, captioner: &mut Captioner, batch: &SampledBatch) -> Result<()> {
        if self.batches.is_multiple_of(self.caption_every) {
            let left = (CAPTIONS as usize).saturating_sub(self.pictures.len()).min(self.caption_rows);
            let pictures = batch.ids.iter().zip(batch.previews.axis_iter(Axis(0))).take(left);
            self.pictures.extend(pictures.map(|(id, picture)| (*id, picture.to_owned())));
        }
        if self.batches.is_multiple_of(self.every) && self.scores.pairs() < PAIRS {
            let is_scored = |row: &usize| self.scored.get(batch.shards[*row]).copied().unwrap_or(false);
            let rows: Vec<usize> = (0..batch.ids.len()).filter(is_scored).collect();
            if rows.len() >= 2 {
                let mut previews = Array4::zeros(batch.previews.raw_dim());
                for (mut to, &row) in previews.axis_iter_mut(Axis(0)).zip(&rows) {
                    to.assign(&batch.previews.index_axis(Axis(0), row));
                }
                let captions: Vec<&str> = rows.iter().map(|&row| batch.captions[row].as_str()).collect();
                captioner.score(previews.view(), &captions, &mut self.scores)?;
            }
        }
        self.batches += 1;
        Ok(())
    }

    /// Writes captions, and says what was found.
    pub(super) fn finish(mut self, captioner: &mut Captioner) -> Result<Found> {
        let measured = self.scores.summary().map(|validation| GateWorth { validation, on: self.on });
        let worth = self.known.or(measured);
        let captions = CaptionSample::of(&self.captions(captioner)?);
        self.warnings.extend(worth.and_then(|worth| worth.warning()));
        self.warnings.extend(captions.warning());
        Ok(Found { worth, trained_on: self.trained_on, captions, warnings: self.warnings })
    }

    fn captions(&self, captioner: &mut Captioner) -> Result<Vec<String>> {
        let (rows, size) = (captioner.caption_batch_size().max(1), captioner.preview_size());
        let mut captions = vec![];
        for pictures in self.pictures.chunks(rows) {
            let mut previews = Array4::zeros((rows, 3, size, size));
            for (mut to, (_, picture)) in previews.axis_iter_mut(Axis(0)).zip(pictures) {
                to.assign(picture);
            }
            let ids: Vec<SampleId> = pictures.iter().map(|(id, _)| *id).collect();
            captions.extend(captioner.caption(previews.view(), &ids)?.into_iter().take(ids.len()));
        }
        Ok(captions)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(captions: &[&str]) -> CaptionSample {
        CaptionSample::of(&captions.iter().map(|caption| (*caption).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn captions_of_which_more_than_half_say_nothing_are_warned_of() {
        let stuck = "a man in a man in a man in a table";
        assert!(is_repetitive(stuck));
        let found = of(&[stuck, stuck, "a red ball", "", "a dog", "a dog", "a dog ", "a cat"]);
        let parts = (found.sampled, found.empty, found.repetitive, found.equal);
        assert_eq!(parts, (8, 1, 2, 2));
        assert_eq!(found.commonest, "a dog");
        let warning = found.warning().unwrap();
        assert!(
            warning.starts_with("of 8 captions that were generated 1 are empty, 2 repetitive, and 2 equal"),
            "{warning}"
        );
        assert!(warning.contains("fuse=original"), "{warning}");
        // Half is not more than half.
        assert_eq!(of(&["a dog", "a dog", "", "a cat"]).warning(), None);
        assert_eq!(of(&["a man", "a dog", "a cat"]).warning(), None);
        assert_eq!(of(&[]).warning(), None);
    }
}
