//! The reading stage of a lane: windows of encoded samples, in order.
//!
//! Where the ledger knows a window's signals, the decision is taken here and the bytes of samples
//! that are not kept are never read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use crate::config::{Mode, OnError};
use crate::error::{Error, Result};
use crate::ledger::WindowRecord;
use crate::loader::buffer::{Encoded, Keeping};
use crate::loader::channel::Message;
use crate::loader::ladder;
use crate::loader::lane::{Segment, Stream};
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::watchdog::{Doing, Slot};
use crate::loader::read::locating::Locating;
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;
use crate::loader::window::{CHANGED, Decided, Known, Row, Scores, Waiting, Window, is_as_recorded, raised};
use crate::sample::{FailedSample, Sample};
use crate::shard::{Group, ShardFetcher, ShardIndex, ShardReader};

/// What the reading stage of one lane needs.
pub(crate) struct Reading<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) epoch: u64,
    pub(crate) recorder: &'a Recorder,
    pub(crate) stop: &'a Arc<AtomicBool>,
    /// Set once the lane has given all it has to give: bytes are no longer needed.
    pub(crate) satisfied: &'a AtomicBool,
    /// Where it says what it does.
    pub(crate) slot: &'a Slot,
}

/// What stays open from window to window of one shard.
#[derive(Default)]
struct OpenShard {
    /// In the order of the shard.
    reader: Option<(usize, ShardReader)>,
    /// By index.
    fetcher: Option<(usize, ShardFetcher)>,
}

/// How far the reading of a segment came.
enum Reached {
    /// The end of its window; the shard goes on.
    Window,
    /// The end of the shard.
    ShardEnd,
    /// Nobody wants more.
    Stop,
}

impl Reading<'_> {
    /// Reads all windows of `stream` in order into `out`. Ends early when `out` is closed or
    /// `stop` is set.
    pub(crate) fn run(&self, stream: Stream, out: &Sender<Message<Window>>) -> Result<()> {
        let (spec, epoch) = (self.spec, self.epoch);
        let mut open = OpenShard::default();
        let mut keeping = Keeping::new(&spec.buffer);
        let locating = Locating { spec, epoch, stop: self.stop, slot: self.slot };
        let piece = spec.mix.piece(stream, epoch, spec.lanes);
        for ranks in spec.mix.line(stream.source, epoch).parts(epoch, piece) {
            let shard = ranks.shard.index;
            let part = ranks.place(|rank| locating.behind(shard, rank));
            let part = part.map_err(|error| error.in_shard(&spec.shards[shard].url))?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(()); // the cut may be any
            }
            for segment in part.segments(self.spec.config.selection.window) {
                match self.segment(segment, &mut open, &mut keeping, out)? {
                    Reached::Window => {}
                    // If the table says more than there is, that was reported.
                    Reached::ShardEnd => break,
                    Reached::Stop => return Ok(()),
                }
            }
        }
        let _ = out.send(Message::End);
        Ok(())
    }

    /// Reads one segment, and behind a shard's last one whatever the shard holds beyond it.
    fn segment(
        &self,
        mut segment: Segment,
        open: &mut OpenShard,
        keeping: &mut Keeping,
        out: &Sender<Message<Window>>,
    ) -> Result<Reached> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Reached::Stop);
            }
            let url = &self.spec.shards[segment.shard].url;
            let mark = self.slot.mark(Doing::Work("reads a window", Some(Arc::clone(url))));
            let raw = self
                .recorder
                .time(Stage::Read, || self.window(segment, open, keeping))
                .map_err(|e| e.in_shard(url))?;
            drop(mark);
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Reached::Stop); // the window may be cut short: nobody must take it for whole
            }
            let rows = raw.rows.len();
            let mark = self.slot.mark(Doing::Offer);
            if rows > 0 && out.send(Message::Item(raw)).is_err() {
                return Ok(Reached::Stop);
            }
            drop(mark);
            if rows == 0 && segment.window == 0 {
                self.recorder.empty_shard(url);
                self.spec.config.runtime.on_error.empty_shard(url)?;
            }
            self.check_length(&segment, rows)?;
            if (rows as u64) < self.spec.window() {
                return Ok(Reached::ShardEnd);
            }
            if !segment.tail {
                return Ok(Reached::Window);
            }
            // The window is full and the table says that the shard ends here: look further.
            let next = (segment.window + 1) * self.spec.window();
            segment = Segment { window: segment.window + 1, start: next, end: next, ..segment };
        }
    }

    /// Reports a shard that is shorter or longer than the table says.
    ///
    /// # Errors
    /// It is, and the ranks have agreed on their rows by the table.
    fn check_length(&self, segment: &Segment, rows: usize) -> Result<()> {
        let expected = self.spec.lengths[segment.shard];
        let known = segment.window * self.spec.window() + rows as u64;
        let is_end = (rows as u64) < self.spec.window();
        let wrong = if segment.tail { is_end && known != expected } else { known < segment.end };
        if !wrong {
            return Ok(());
        }
        let url = &self.spec.shards[segment.shard].url;
        self.recorder.length_mismatch(url, expected, known);
        if !self.spec.pads() {
            return Ok(());
        }
        let expected = format!(
            "{expected}, by lengths, sizes.json, _stats.json or .parquet (mode eval on several ranks shares samples \
             out by these numbers): correct them, or mend the shard"
        );
        Err(Error::format("samples in the shard", expected, known).in_shard(url))
    }

    fn window(&self, segment: Segment, open: &mut OpenShard, keeping: &mut Keeping) -> Result<Window> {
        let spec = self.spec;
        let key = spec.window_key(segment.shard, segment.window, self.stop)?;
        let scores = spec.score_key(segment.shard, &key, self.stop)?;
        let scores = scores.map(|key| Scores { values: spec.ledger.corpus_scores(&key), key });
        let known = ladder::known(spec, &key, scores.as_ref(), segment.pass)?;
        let mut window = Window { segment, key, known, scores, rows: vec![], index: None };
        if spec.config.runtime.on_error == OnError::Raise {
            self.raise_recorded(&window)?;
        }
        if let Known::Decided(Decided { record, outcomes, .. }) = &window.known {
            let own = |row| window.in_lane(row);
            if window.is_shared() {
                self.recorder.gaps_read_by_another(&window.key, own, &spec.shards[segment.shard].url);
            }
            let satisfied = || self.satisfied.load(Ordering::Relaxed);
            let wanted: Vec<bool> =
                (0..outcomes.len()).map(|row| outcomes[row].is_kept() && own(row) && !satisfied()).collect();
            window.rows = self.read_known(&segment, record, &wanted, open, keeping)?;
        } else {
            // A decision needs the whole window; without one, only the lane's own part is read.
            let all = spec.config.mode == Mode::Reduced;
            (window.rows, window.index) = self.read_new(&window, all, open, keeping)?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(window);
            }
            if let Some(record) = window.known.record() {
                is_as_recorded(&window.rows, record)?;
            }
            if all && window.rows.is_empty() {
                // The shard ends where the last window was full. Without a record of that, every epoch
                // would go through the shard to see it again.
                let record = Arc::new(WindowRecord::empty(window.index.take()));
                spec.ledger.record_window(key, &spec.shards[segment.shard], record, &[]);
            }
        }
        Ok(window)
    }

    /// Fails where the ledger knows of a failed sample of the lane.
    fn raise_recorded(&self, window: &Window) -> Result<()> {
        let segment = &window.segment;
        let Some(record) = window.known.record() else { return Ok(()) };
        let decider = self.spec.selector.as_ref();
        let share =
            decider.and_then(|decider| ladder::share(decider, &window.key, &record.failed, segment.pass));
        let mine = |failed: &&FailedSample| {
            let row = (failed.position - segment.window * window.key.size as u64) as usize;
            // What is not in the share is not decoded: nobody would know.
            let seen = !failed.reason.is_of_pixels() || share.as_ref().is_none_or(|share| share[row]);
            failed.reason.is_fault() && seen && window.in_lane(row)
        };
        record.failures.iter().find(mine).map_or(Ok(()), |failed| Err(raised(failed)))
    }

    /// Reads the wanted rows of a window that the ledger knows: by its index where there is one and
    /// the shard can be read at random, else in order.
    fn read_known(
        &self,
        segment: &Segment,
        record: &WindowRecord,
        wanted: &[bool],
        open: &mut OpenShard,
        keeping: &mut Keeping,
    ) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = wanted.iter().map(|_| Row::Skipped).collect();
        let Some(last) = wanted.iter().rposition(|&w| w) else { return Ok(rows) };
        if let Some(index) = &record.index
            && let Some(fetcher) = self.fetcher(segment.shard, index, open)?
        {
            let chosen: Vec<usize> = (0..=last).filter(|&row| wanted[row]).collect();
            fetcher.fetch(index, &chosen, &mut |row, group| {
                self.slot.tick();
                rows[row] = self.known(group, record, row, keeping)?;
                Ok(())
            })?;
            return Ok(rows);
        }
        if wanted.contains(&false) {
            self.recorder.streamed(&self.spec.shards[segment.shard].url);
        }
        let reader = self.reader_at(segment, open)?;
        for (row, &wanted) in wanted.iter().enumerate().take(last + 1) {
            self.slot.tick();
            let missing = || {
                let at = segment.window * self.spec.window() + row as u64;
                Error::ledger(format!("the shard ends before sample {at}, which the ledger knows; {CHANGED}"))
            };
            if wanted {
                rows[row] = self.known(reader.next_group()?.ok_or_else(missing)?, record, row, keeping)?;
            } else if !reader.skip_group()? {
                return Err(missing());
            }
        }
        Ok(rows)
    }

    /// The shard opened for reading by `index`; `None` where it has to be read in order.
    fn fetcher<'o>(
        &self,
        shard: usize,
        index: &ShardIndex,
        open: &'o mut OpenShard,
    ) -> Result<Option<&'o mut ShardFetcher>> {
        if !open.fetcher.as_ref().is_some_and(|(at, fetcher)| *at == shard && fetcher.fits(index)) {
            open.fetcher = ShardFetcher::open(
                &self.spec.shards[shard],
                index,
                &self.spec.reads[shard],
                Some(self.stop),
            )?
            .map(|fetcher| (shard, fetcher));
        }
        Ok(open.fetcher.as_mut().map(|(_, fetcher)| fetcher))
    }

    /// Reads a window that the ledger does not know: up to `window` groups.
    fn read_new(
        &self,
        raw: &Window,
        all: bool,
        open: &mut OpenShard,
        keeping: &mut Keeping,
    ) -> Result<(Vec<Row>, Option<ShardIndex>)> {
        let reader = self.reader_at(&raw.segment, open)?;
        reader.take_index(); // of what came before the window
        let mut rows = Vec::new();
        while (rows.len() as u64) < self.spec.window() && !self.stop.load(Ordering::Relaxed) {
            self.slot.tick();
            let row = if all || raw.in_lane(rows.len()) {
                let Some(group) = reader.next_group()? else { break };
                let gaps = reader.take_gaps();
                let shard = &self.spec.shards[raw.segment.shard].url;
                let key = group.as_ref().map_or_else(|failed| &failed.key, |sample| &sample.key);
                if all && raw.is_shared() {
                    let is_own = raw.in_lane(rows.len());
                    self.recorder.shared_gaps((&raw.key, rows.len()), is_own, shard, key, gaps);
                } else {
                    self.recorder.gaps(shard, key, gaps);
                }
                match group {
                    Ok(sample) => Row::Sample(self.keep(sample, keeping)?),
                    Err(failed) => self.failed(failed)?,
                }
            } else if reader.skip_group()? {
                Row::Skipped
            } else {
                break;
            };
            rows.push(row);
        }
        self.recorder.skipped_bytes(&self.spec.shards[raw.segment.shard].url, reader.skipped_bytes());
        let index = reader.take_index();
        Ok((rows, Some(index)))
    }

    /// A row read again, which must be the one that the ledger knows.
    fn known(&self, group: Group, record: &WindowRecord, row: usize, keeping: &mut Keeping) -> Result<Row> {
        let (id, key, at) = match &group {
            Ok(sample) => (sample.id, &sample.key, sample.offset),
            Err(failed) => (failed.id, &failed.key, failed.offset),
        };
        if record.ids.get(row) != Some(&id) {
            let detail = format!("the shard holds another sample here than the ledger knows; {CHANGED}");
            return Err(Error::ledger(detail).at_sample(key, at));
        }
        Ok(match group {
            Ok(sample) => Row::Sample(self.keep(sample, keeping)?),
            Err(failed) => Row::Failed(failed),
        })
    }

    /// Moves the image and the json of `sample` into the buffer.
    fn keep(&self, mut sample: Sample, keeping: &mut Keeping) -> Result<Waiting> {
        let image = keeping.keep(std::mem::take(&mut sample.image))?;
        let json = sample.json.take().map(|json| keeping.keep(json)).transpose()?;
        let spilled = image.spilled() + json.as_ref().map_or(0, Encoded::spilled);
        self.recorder.spilled.fetch_add(spilled, Ordering::Relaxed);
        Ok(Waiting { sample, image, json })
    }

    fn failed(&self, failed: FailedSample) -> Result<Row> {
        match self.spec.config.runtime.on_error {
            OnError::Raise if failed.reason.is_fault() => Err(raised(&failed)),
            OnError::Raise | OnError::Skip => Ok(Row::Failed(failed)),
        }
    }

    /// The shard's reader at the first group of the segment's window, opened anew if it is at
    /// another shard or past that point.
    fn reader_at<'o>(&self, segment: &Segment, open: &'o mut OpenShard) -> Result<&'o mut ShardReader> {
        let target = segment.window * self.spec.window();
        let reusable =
            open.reader.as_ref().is_some_and(|(at, r)| *at == segment.shard && r.position() <= target);
        let reader = match open.reader.take().filter(|_| reusable) {
            Some((_, reader)) => reader,
            None => {
                let (shard, read) = (&self.spec.shards[segment.shard], &self.spec.reads[segment.shard]);
                let reader = ShardReader::open_until(shard, read, self.stop)?;
                if self.spec.needs_images { reader } else { reader.without_images() }
            }
        };
        let (_, reader) = open.reader.insert((segment.shard, reader));
        while reader.position() < target && !self.stop.load(Ordering::Relaxed) {
            self.slot.tick();
            if !reader.skip_group()? {
                break;
            }
        }
        Ok(reader)
    }
}
