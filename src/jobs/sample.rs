//! A seeded sample of a corpus: windows of neighbouring samples from everywhere in it, decoded as
//! previews.
//!
//! Windows are drawn by hash over all shards, so that every sample has the same chance to be in, and
//! are read in the order of the shards, so that each is opened once. Where a filter or faults leave too
//! few, more are drawn in another round, as many as the share that was usable so far asks for. Several
//! shards are read at a time; the order of what comes out depends on the seed only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use ndarray::{Array4, Axis};
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::{self, Purpose};
use crate::image::{DecodeOptions, Scratch, preview};
use crate::model::PreviewFilter;
use crate::sample::{Sample, SampleId};
use crate::shard::{ReadOptions, Shard, ShardReader};

/// Samples of a window: so few that a sample has many places, so many that a seek pays.
const WINDOW: u64 = 64;
/// Shards that are read at a time, and windows that each reader is ahead.
const READERS: usize = 8;
const AHEAD: usize = 2;
/// Share of unusable samples that ends a fit, judged from that many samples on, as in a loader, and at its
/// end.
const MAX_ERRORS: f64 = 0.1;
const JUDGED_FROM: u64 = 1000;

/// What is sampled.
pub struct Sampled<'a> {
    pub(crate) shards: &'a [Shard],
    pub(crate) lengths: &'a [u64],
    pub(crate) read: &'a ReadOptions,
    pub(crate) decode: DecodeOptions,
    pub(crate) seed: u64,
    /// Side of the previews.
    pub(crate) size: usize,
    /// How pictures are squashed to it.
    pub(crate) filter: PreviewFilter,
    /// Samples of a batch.
    pub(crate) batch: usize,
}

/// Samples of a batch, decoded. All vectors have one entry per used row.
pub struct SampledBatch {
    /// `[batch, 3, size, size]`; rows that are not used are blank.
    pub previews: Array4<u8>,
    /// Of each sample.
    pub ids: Vec<SampleId>,
    /// Of each sample.
    pub captions: Vec<String>,
    /// Index of the shard in the list.
    pub shards: Vec<usize>,
}

/// A stretch of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    shard: usize,
    first: u64,
    end: u64,
}

/// All windows, in the order that they are drawn in.
fn windows(sampled: &Sampled<'_>) -> Vec<Window> {
    let mut all: Vec<Window> = vec![];
    for (shard, &length) in sampled.lengths.iter().enumerate() {
        let firsts = (0..length).step_by(WINDOW as usize);
        all.extend(firsts.map(|first| Window { shard, first, end: (first + WINDOW).min(length) }));
    }
    let draw = |w: &Window| {
        let id = hash::combine(&[sampled.shards[w.shard].hash, w.first]);
        (hash::hash(sampled.seed, Purpose::Fit, id), *w)
    };
    all.sort_by_cached_key(draw);
    all
}

/// How many windows from the first on hold `wanted` samples at least; all where there are fewer.
fn holding(drawn: &[Window], wanted: u64) -> usize {
    let mut held = 0;
    let last = drawn.iter().position(|w| {
        held += w.end - w.first;
        held >= wanted
    });
    last.map_or(drawn.len(), |last| last + 1)
}

/// What has come in of a sample.
#[derive(Default)]
struct Intake {
    /// Decoded, with the shard and the pixels, and in no batch yet.
    waiting: Vec<(usize, Sample, Vec<u8>)>,
    /// Samples that were in batches.
    taken: u64,
    /// Samples that passed the filter, and those of them that were unusable.
    read: u64,
    failed: u64,
}

impl Intake {
    fn usable(&self) -> u64 {
        self.taken + self.waiting.len() as u64
    }

    /// Fails where too many samples are unusable.
    fn check(&self) -> Result<()> {
        let Self { failed, read, .. } = *self;
        if failed as f64 <= MAX_ERRORS * read as f64 {
            return Ok(());
        }
        let limit = format!("a share of {MAX_ERRORS}");
        let reasons = "`tldr-loader inspect --decode` names them".into();
        Err(ErrorKind::TooManyErrors { failed, read, limit, reasons }.into())
    }
}

/// What a reader says: samples of a window, those that were unusable, or why it ends.
type Word = Result<(usize, Vec<Sample>, u64)>;

impl Sampled<'_> {
    /// Hands batches of sampled pairs to `each`, until there are `wanted` or it says that this is
    /// enough. Unusable samples are skipped; says how many they were.
    ///
    /// # Errors
    /// A shard that cannot be read; too many unusable samples; what `each` returns.
    pub fn for_each(&self, wanted: u64, each: &mut dyn FnMut(&SampledBatch) -> Result<bool>) -> Result<u64> {
        let drawn = windows(self);
        let (mut rest, mut looked_at, mut intake) = (&drawn[..], 0u64, Intake::default());
        while intake.usable() < wanted && !rest.is_empty() {
            let missing = wanted - intake.usable();
            let wanted_of_rest = match intake.usable() {
                0 => missing.max(looked_at),
                usable => (missing as f64 * looked_at as f64 / usable as f64).ceil() as u64,
            };
            let (round, later) = rest.split_at(holding(rest, wanted_of_rest));
            rest = later;
            looked_at += round.iter().map(|w| w.end - w.first).sum::<u64>();
            let mut round = round.to_vec();
            round.sort_unstable();
            let stop = Arc::new(AtomicBool::new(false));
            let goes_on = std::thread::scope(|scope| {
                let found = self.read_all(scope, &round, &stop, wanted, &mut intake, each);
                // Readers may wait for a store, or for room in a channel that is gone by now.
                stop.store(true, Ordering::SeqCst);
                found
            })?;
            if !goes_on {
                return Ok(intake.failed);
            }
        }
        intake.check()?;
        if !intake.waiting.is_empty() {
            each(&self.batch_of(intake.waiting))?;
        }
        Ok(intake.failed)
    }

    /// Reads one round of windows, given in the order of the shards. Says whether more may come.
    fn read_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        windows: &[Window],
        stop: &Arc<AtomicBool>,
        wanted: u64,
        intake: &mut Intake,
        each: &mut dyn FnMut(&SampledBatch) -> Result<bool>,
    ) -> Result<bool> {
        let by_shard: Vec<Vec<Window>> =
            windows.chunk_by(|a, b| a.shard == b.shard).map(<[Window]>::to_vec).collect();
        let readers: Vec<Receiver<Word>> = (0..READERS.min(by_shard.len()))
            .map(|reader| {
                let own: Vec<Vec<Window>> = by_shard.iter().skip(reader).step_by(READERS).cloned().collect();
                let (send, receive) = sync_channel(AHEAD);
                let stop = Arc::clone(stop);
                scope.spawn(move || {
                    if let Err(error) = self.read(&own, &send, &stop) {
                        // Nobody listens where the run has ended.
                        drop(send.send(Err(error)));
                    }
                });
                receive
            })
            .collect();
        for (place, own) in by_shard.iter().enumerate() {
            for _ in own {
                let word = readers[place % READERS].recv();
                let (shard, samples, lost) = word.map_err(|_| {
                    let detail = "its thread has ended without a word".into();
                    Error::from(ErrorKind::Stage { stage: "sample", detail })
                })??;
                intake.read += samples.len() as u64 + lost;
                let decoded: Vec<Option<(Sample, Vec<u8>)>> =
                    samples.into_par_iter().map_init(Scratch::default, |s, x| self.decode(x, s)).collect();
                intake.failed += lost + decoded.iter().filter(|d| d.is_none()).count() as u64;
                let usable = decoded.into_iter().flatten().map(|(sample, pixels)| (shard, sample, pixels));
                intake.waiting.extend(usable);
                if intake.read >= JUDGED_FROM {
                    intake.check()?;
                }
                while intake.waiting.len() >= self.batch {
                    let rest = intake.waiting.split_off(self.batch);
                    let full = std::mem::replace(&mut intake.waiting, rest);
                    intake.taken += full.len() as u64;
                    if !each(&self.batch_of(full))? || intake.taken >= wanted {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Reads windows, given shard by shard, in order.
    fn read(&self, shards: &[Vec<Window>], send: &SyncSender<Word>, stop: &Arc<AtomicBool>) -> Result<()> {
        for windows in shards {
            let Some(shard) = windows.first().map(|w| w.shard) else { continue };
            let mut reader = ShardReader::open_until(&self.shards[shard], self.read, stop)?;
            for window in windows {
                while reader.position() < window.first && reader.skip_group()? {}
                let (mut samples, mut lost) = (vec![], 0);
                while reader.position() < window.end {
                    // Shorter than its length said?
                    let Some(group) = reader.next_group()? else { break };
                    reader.say_gaps(&self.shards[shard].url);
                    match group {
                        Ok(sample) => samples.push(sample),
                        Err(failed) => lost += u64::from(failed.reason.is_fault()),
                    }
                }
                if send.send(Ok((shard, samples, lost))).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn decode(&self, sample: Sample, scratch: &mut Scratch) -> Option<(Sample, Vec<u8>)> {
        let mut pixels = vec![0u8; 3 * self.size * self.size];
        preview(&sample.image, self.size, self.filter, &self.decode, scratch, &mut pixels).ok()?;
        Some((sample, pixels))
    }

    fn batch_of(&self, rows: Vec<(usize, Sample, Vec<u8>)>) -> SampledBatch {
        let mut batch = SampledBatch {
            previews: Array4::zeros((self.batch, 3, self.size, self.size)),
            ids: vec![],
            captions: vec![],
            shards: vec![],
        };
        for (mut place, (shard, sample, pixels)) in batch.previews.axis_iter_mut(Axis(0)).zip(rows) {
            place.iter_mut().zip(&pixels).for_each(|(to, from)| *to = *from);
            batch.ids.push(sample.id);
            batch.captions.push(sample.caption);
            batch.shards.push(shard);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::Alpha;
    use crate::shard::Store;
    use tldr_synth::{SynthOptions, write_corpus};

    #[test]
    fn windows_come_from_all_shards_and_every_sample_is_as_likely() {
        let lengths: Vec<u64> = (0..20).map(|i| 500 + 37 * i).collect();
        let total: u64 = lengths.iter().sum();
        let shards: Vec<Shard> = (0..20).map(|i| Shard::local(&format!("x/{i:02}.tar"), "x")).collect();
        let read = ReadOptions::default();
        let mut hits = [0u32; 20];
        let seeds = 200;
        for seed in 0..seeds {
            let sampled = Sampled {
                shards: &shards,
                lengths: &lengths,
                read: &read,
                decode: DecodeOptions::default(),
                seed,
                size: 16,
                filter: PreviewFilter::Bilinear,
                batch: 8,
            };
            let drawn = windows(&sampled);
            let chosen = &drawn[..holding(&drawn, total / 4)];
            let taken: u64 = chosen.iter().map(|w| w.end - w.first).sum();
            assert!((total / 4..total / 4 + WINDOW).contains(&taken), "{taken}");
            chosen.iter().for_each(|w| hits[w.shard] += (w.end - w.first) as u32);
            assert_eq!(holding(&drawn, total), drawn.len());
            assert_eq!(holding(&drawn, u64::MAX), drawn.len());
        }
        // A shard of L samples has about L / 64 windows, each in with probability 1/4: over 200 seeds
        // the mean share is 0.25 with a standard deviation of sqrt(0.1875 / (8 * 200)) = 0.011; 5 of
        // those, and a window more than a quarter in each draw.
        for (hits, length) in hits.iter().zip(&lengths) {
            let share = f64::from(*hits) / (*length as f64 * seeds as f64);
            assert!((share - 0.25).abs() < 0.055 + 64.0 / total as f64, "{share}");
        }
    }

    #[test]
    fn batches_are_those_of_reading_in_order_and_depend_on_the_seed_only() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SynthOptions { samples: 700, shards: 9, test_samples: 0, size: 16, ..Default::default() };
        write_corpus(dir.path(), &options, &mut |_, _| {}).unwrap();
        let pattern = dir.path().join("train/{00000..00008}.tar").to_string_lossy().into_owned();
        let shards = crate::shard::list(&[pattern], None, &Store::default()).unwrap();
        let lengths = crate::shard::lengths(&shards, &mut |_, _| {}).unwrap();
        let read = ReadOptions::default();
        let draw = |seed, wanted| {
            let sampled = Sampled {
                shards: &shards,
                lengths: &lengths,
                read: &read,
                decode: DecodeOptions::default(),
                seed,
                size: 16,
                filter: PreviewFilter::Bilinear,
                batch: 32,
            };
            let mut rows = vec![];
            sampled
                .for_each(wanted, &mut |batch| {
                    assert_eq!(batch.previews.dim(), (32, 3, 16, 16));
                    let all = batch.ids.iter().zip(&batch.captions).zip(&batch.shards);
                    rows.extend(all.map(|((id, caption), shard)| (*shard, *id, caption.clone())));
                    Ok(true)
                })
                .unwrap();
            rows
        };
        let mut expected = vec![];
        for (i, shard) in shards.iter().enumerate() {
            let mut reader = ShardReader::open(shard, &read).unwrap();
            while let Some(group) = reader.next_group().unwrap() {
                let sample = group.unwrap();
                expected.push((i, sample.id, sample.caption));
            }
        }
        assert_eq!(draw(3, u64::MAX), expected);
        let part = draw(3, 200);
        assert_eq!(part, draw(3, 200));
        assert_ne!(part, draw(4, 200));
        assert!((200..200 + 64).contains(&part.len()), "{}", part.len());
        assert!(part.iter().all(|row| expected.contains(row)));
    }

    #[test]
    fn only_what_passes_a_filter_counts() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SynthOptions { samples: 700, shards: 9, test_samples: 0, size: 16, ..Default::default() };
        write_corpus(dir.path(), &options, &mut |_, _| {}).unwrap();
        let pattern = dir.path().join("train/{00000..00008}.tar").to_string_lossy().into_owned();
        let shards = crate::shard::list(&[pattern], None, &Store::default()).unwrap();
        let lengths = crate::shard::lengths(&shards, &mut |_, _| {}).unwrap();
        let draw = |filter: Option<&str>, wanted| {
            let filter = filter.map(|text| text.parse().unwrap());
            let read = ReadOptions { filter, ..ReadOptions::default() };
            let sampled = Sampled {
                shards: &shards,
                lengths: &lengths,
                read: &read,
                decode: DecodeOptions::default(),
                seed: 3,
                size: 16,
                filter: PreviewFilter::Bilinear,
                batch: 32,
            };
            let mut ids = std::collections::BTreeSet::new();
            let mut rows = 0;
            let each = &mut |batch: &SampledBatch| {
                rows += batch.ids.len();
                ids.extend(batch.ids.iter().copied());
                Ok(true)
            };
            assert_eq!(sampled.for_each(wanted, each).unwrap(), 0);
            assert_eq!(rows, ids.len(), "no sample comes twice");
            ids
        };
        let all = draw(None, u64::MAX);
        assert_eq!(all.len(), 700);
        let passing = draw(Some("class = 0"), u64::MAX);
        let wanted = passing.len() / 2;
        assert!(wanted > 20 && passing.len() < 350, "{}", passing.len());
        let found = draw(Some("class = 0"), wanted as u64);
        assert!((wanted..wanted + WINDOW as usize).contains(&found.len()), "{} for {wanted}", found.len());
        assert!(found.is_subset(&passing));
        assert!(draw(Some("class = -1"), 10).is_empty());
    }

    #[test]
    fn an_error_of_the_caller_ends_the_readers() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SynthOptions { samples: 700, shards: 9, test_samples: 0, size: 16, ..Default::default() };
        write_corpus(dir.path(), &options, &mut |_, _| {}).unwrap();
        let pattern = dir.path().join("train/{00000..00008}.tar").to_string_lossy().into_owned();
        let shards = crate::shard::list(&[pattern], None, &Store::default()).unwrap();
        let lengths = crate::shard::lengths(&shards, &mut |_, _| {}).unwrap();
        let read = ReadOptions::default();
        let sampled = Sampled {
            shards: &shards,
            lengths: &lengths,
            read: &read,
            decode: DecodeOptions::default(),
            seed: 0,
            size: 16,
            filter: PreviewFilter::Bilinear,
            batch: 32,
        };
        let error = sampled.for_each(600, &mut |_| Err(Error::captioner("enough"))).unwrap_err();
        assert!(error.to_string().contains("enough"), "{error}");
    }

    #[test]
    fn images_are_decoded_as_the_corpus_says() {
        let dir = tempfile::tempdir().unwrap();
        let transparent = image::RgbaImage::from_pixel(8, 8, image::Rgba([200, 100, 50, 0]));
        let mut png = std::io::Cursor::new(Vec::new());
        transparent.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let path = dir.path().join("0.tar");
        let mut writer = crate::shard::ShardWriter::create(&path).unwrap();
        writer.write("0", &[("png", &png.into_inner()), ("txt", b"nothing")]).unwrap();
        writer.finish().unwrap();
        let source = crate::config::Source::new(vec![path.to_string_lossy().into_owned()]);
        for (alpha, pixel) in
            [(Alpha::White, [255, 255, 255]), (Alpha::Black, [0; 3]), (Alpha::Drop, [200, 100, 50])]
        {
            let decode = DecodeOptions { alpha, ..DecodeOptions::default() };
            let corpus = crate::jobs::Corpus::of(&source, decode).unwrap();
            let mut seen = vec![];
            let each = &mut |batch: &SampledBatch| {
                seen.push([0, 1, 2].map(|channel| batch.previews[[0, channel, 3, 3]]));
                Ok(true)
            };
            corpus.sampled(8, PreviewFilter::Bilinear, 1, 0).for_each(1, each).unwrap();
            assert_eq!(seen, [pixel], "{alpha:?}");
        }
    }
}
