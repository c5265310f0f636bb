//! The iterator over an epoch: what comes out of the pipeline, one batch at a time.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::config::Mode;
use crate::error::{ErrorKind, Result};
use crate::loader::batch::arrays::Batch;
use crate::loader::channel::Message;
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::stats::{HANDED_WARNINGS, Stats};
use crate::loader::observe::watchdog::Patience;
use crate::loader::pipeline::{self, Running};
use crate::loader::shared::{Shared, check_process};
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;

/// The batches of one epoch, which begins with the first. Dropping it stops its threads.
pub struct Batches {
    spec: Arc<Spec>,
    shared: Arc<Shared>,
    phase: Phase,
    /// What nobody was handed yet.
    warnings: Vec<String>,
    patience: Patience,
    process: u32,
}

/// How far an iterator is.
enum Phase {
    /// Nothing was asked of it.
    Before,
    /// Its epoch is running.
    During(Box<Epoch>),
    /// Its epoch has ended, or failed.
    Over,
}

/// An epoch under way.
struct Epoch {
    running: Running,
    recorder: Arc<Recorder>,
    number: u64,
    /// Moves of the loader before it began.
    moves: u64,
    /// Whether its last batch was handed over.
    complete: bool,
    /// What was taken from the pipeline and not handed over.
    ahead: Option<Message<Batch>>,
}

impl Drop for Batches {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // Its threads are in the other process: there is nothing to stop or join here.
            std::mem::forget(std::mem::replace(&mut self.phase, Phase::Over));
        }
    }
}

/// What [`Batches::next_within`] found.
#[derive(Debug)]
pub enum Next {
    /// A batch.
    Batch(Box<Batch>),
    /// Nothing yet: ask again.
    Waiting,
    /// The epoch is over.
    End,
}

impl Batches {
    /// Those of a loader that the process `process` made.
    pub(crate) fn new(spec: Arc<Spec>, shared: Arc<Shared>, process: u32) -> Self {
        let patience = Patience::new(spec.config.runtime.stall_timeout);
        Self { spec, shared, phase: Phase::Before, warnings: vec![], patience, process }
    }

    /// The next batch, waiting for at most `limit`: for callers that must look up from time to
    /// time.
    ///
    /// # Errors
    /// The first error of any stage; the epoch is over after it. [`ErrorKind::State`] where the loader was moved to
    /// another epoch or state meanwhile. [`ErrorKind::Stall`] where a stage has held
    /// up the epoch for longer than `stall_timeout`: its threads are left to end by themselves.
    pub fn next_within(&mut self, limit: Duration) -> Result<Next> {
        if let Err(error) = check_process(self.process) {
            // Its threads are not there to be joined.
            std::mem::forget(std::mem::replace(&mut self.phase, Phase::Over));
            return Err(error);
        }
        if matches!(self.phase, Phase::Before) {
            self.phase = self.begin()?;
        }
        if let Phase::During(epoch) = &self.phase
            && self.shared.progress.moves() != epoch.moves
        {
            if epoch.complete {
                self.phase = Phase::Over;
                return Ok(Next::End);
            }
            let text = format!(
                "an iterator over epoch {} was asked for more after set_epoch or load_state had moved its loader: \
                 take a new one",
                epoch.number
            );
            self.phase = Phase::Over;
            return Err(ErrorKind::State(text).into());
        }
        let Some(message) = self.wait(limit) else { return Ok(Next::End) };
        match message {
            Ok(Message::Item(batch)) => {
                self.patience.rest();
                let all = self.spec.num_batches(batch.epoch);
                // Where a shard of mode `Eval` is longer than was said there are more.
                self.shared.progress.handed_over(batch.epoch, (batch.step + 1).min(all));
                if batch.step + 1 == all {
                    self.complete();
                }
                Ok(Next::Batch(Box::new(batch)))
            }
            Ok(Message::End) => {
                self.complete();
                if let Phase::During(epoch) = std::mem::replace(&mut self.phase, Phase::Over) {
                    self.shared.progress.used_up(epoch.number);
                }
                Ok(Next::End)
            }
            Ok(Message::Failed(error)) => {
                self.phase = Phase::Over;
                Err(error)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Next::Waiting),
            Err(RecvTimeoutError::Disconnected) => {
                self.phase = Phase::Over;
                Err(Stage::Batch.gone())
            }
        }
    }

    /// The batch that comes next, where it is ready: whoever copies batches to a device can begin with it before it is
    /// asked for. It is handed over, and counts, with the next call of [`next_within`](Self::next_within).
    pub fn ahead(&mut self) -> Option<&mut Batch> {
        let Phase::During(epoch) = &mut self.phase else { return None };
        if epoch.ahead.is_none() {
            epoch.ahead = epoch.running.batches.try_recv().ok();
        }
        match &mut epoch.ahead {
            Some(Message::Item(batch)) => Some(batch),
            _ => None,
        }
    }

    /// Starts what comes next.
    fn begin(&mut self) -> Result<Phase> {
        let shared = Arc::clone(&self.shared);
        let progress = &shared.progress;
        let begin = progress.next(|epoch| self.spec.num_batches(epoch));
        let (number, first_step) = (begin.epoch, begin.first_step);
        let recorder = Arc::new(Recorder::of(&self.spec, number));
        let all = self.spec.num_batches(number);
        let is_left = first_step < all || first_step == 0;
        let running =
            if is_left { Some(pipeline::start(&self.spec, number, first_step, &recorder)?) } else { None };
        progress.begun(&begin);
        *shared.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&recorder);
        // To evaluate a part, again and again, is no oversight.
        if let Some(step) = begin.repeats.filter(|_| self.spec.config.mode != Mode::Eval) {
            self.warn(format!(
                "epoch {number} was broken off after {step} of {all} batches and starts again: the same samples come \
                 in the same order. Call set_epoch({}) first for the next epoch, or set_epoch({number}) to say that \
                 this one is to start again; where it is to go on, load the state that was saved",
                number.saturating_add(1)
            ));
        }
        let Some(running) = running else {
            progress.used_up(number);
            return Ok(Phase::Over);
        };
        Ok(Phase::During(Box::new(Epoch {
            running,
            recorder,
            number,
            moves: begin.moves,
            complete: false,
            ahead: None,
        })))
    }

    /// Says once what should be known of an epoch that is complete.
    fn complete(&mut self) {
        let Phase::During(epoch) = &mut self.phase else { return };
        if std::mem::replace(&mut epoch.complete, true) {
            return;
        }
        let stats = Stats { world_size: self.spec.world.world_size, ..epoch.recorder.snapshot() };
        let warnings = stats.warnings(self.spec.config.batch_size);
        warnings.into_iter().for_each(|warning| self.warn(warning));
    }

    fn warn(&mut self, warning: String) {
        tracing::warn!(target: HANDED_WARNINGS, "{warning}");
        self.warnings.push(warning);
    }
}

impl Batches {
    /// What should be known of the epoch, each thing once: that it starts again, that a wait has become long, and with
    /// the last batch what was odd about its samples. All of it is logged as well.
    pub fn warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.patience.warning());
        warnings
    }

    /// Waits for a message for at most `limit`, and looks after the stages meanwhile; `None` where the epoch
    /// is over.
    fn wait(&mut self, limit: Duration) -> Option<std::result::Result<Message<Batch>, RecvTimeoutError>> {
        if let Phase::During(epoch) = &mut self.phase
            && let Some(message) = epoch.ahead.take()
        {
            return Some(Ok(message));
        }
        let start = Instant::now();
        loop {
            let Phase::During(epoch) = &self.phase else { return None };
            let since = Instant::now();
            let left = limit.saturating_sub(start.elapsed());
            let message = epoch.running.batches.recv_timeout(self.patience.until_look(left));
            epoch.recorder.waited_for_loader(since.elapsed());
            if !matches!(message, Err(RecvTimeoutError::Timeout)) {
                return Some(message);
            }
            if let Err(stall) = self.patience.waited(since.elapsed(), &epoch.recorder.board) {
                if let Phase::During(epoch) = std::mem::replace(&mut self.phase, Phase::Over) {
                    epoch.running.leave();
                }
                return Some(Ok(Message::Failed(stall)));
            }
            if start.elapsed() >= limit {
                return Some(message);
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        loop {
            return match self.next_within(Duration::from_secs(3600)) {
                Ok(Next::Batch(batch)) => Some(Ok(*batch)),
                Ok(Next::Waiting) => continue,
                Ok(Next::End) => None,
                Err(error) => Some(Err(error)),
            };
        }
    }
}
