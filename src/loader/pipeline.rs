//! The threads of an epoch on one rank, and how they end.
//!
//! Per lane and source a reading and a deciding thread, one assembling thread for the rank, a pool for
//! pixels and the captioner's own thread; bounded channels between them. An error travels down
//! the channels as itself; a channel that closes without [`Message::End`] means that its thread
//! died, which is reported instead of taken for the end of the data.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::Result;
use crate::loader::batch::arrays::Batch;
use crate::loader::batch::assemble::{Assembling, LaneFeed};
use crate::loader::channel::{Message, panic_message};
use crate::loader::decide::deciding::Deciding;
use crate::loader::kept::KeptGroup;
use crate::loader::lane::Stream;
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::watchdog::{Doing, Patience, Post};
use crate::loader::read::reading::Reading;
use crate::loader::spec::Spec;
use crate::loader::stage::Stage;

/// A running epoch. Dropping it stops and joins every thread.
pub(crate) struct Running {
    pub(crate) batches: Receiver<Message<Batch>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the threads of `epoch` from batch `first_step` on.
pub(crate) fn start(
    spec: &Arc<Spec>,
    epoch: u64,
    first_step: u64,
    recorder: &Arc<Recorder>,
) -> Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let (batch_out, batches) = bounded(spec.config.runtime.prefetch.max(1));
    let mut running = Running { batches, stop, threads: vec![] };
    let lanes = running.lanes(spec, epoch, first_step, recorder, false)?;
    let slot = recorder.board.post(Post::Batch);
    let feeds = lanes.into_iter().map(|(stream, groups)| LaneFeed::new(stream, groups, &slot)).collect();
    let (spec, recorder) = (Arc::clone(spec), Arc::clone(recorder));
    running.spawn(Stage::Batch, "", batch_out, move |out| {
        let undecodable = Default::default();
        Assembling { spec: &spec, epoch, first_step, recorder: &recorder, slot: &slot, undecodable }
            .run(feeds, out)
    })?;
    Ok(running)
}

/// Reads and decides all lanes of the rank to the end and yields nothing: what the ledger does not
/// cover is encoded and recorded. `watch` is called about five times a second; an error from it ends
/// the pass.
///
/// # Errors
/// The first error of any stage; [`ErrorKind::Stall`] where nothing was read for longer than `stall_timeout`: the
/// threads are then left to end by themselves.
pub(crate) fn record(
    spec: &Arc<Spec>,
    epoch: u64,
    recorder: &Arc<Recorder>,
    watch: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut running =
        Running { batches: bounded(0).1, stop: Arc::new(AtomicBool::new(false)), threads: vec![] };
    let slot = recorder.board.post(Post::Batch);
    let (mut patience, mut read) = (Patience::new(spec.config.runtime.stall_timeout), 0);
    for (stream, groups) in running.lanes(spec, epoch, 0, recorder, true)? {
        let _mark = slot.mark(Doing::Await(Post::Select(stream)));
        loop {
            match groups.recv_timeout(WATCH) {
                Ok(Message::Item(_)) => {}
                Ok(Message::End) => break,
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {
                    watch()?;
                    let now = recorder.snapshot().counts.read;
                    if now > read {
                        (read, patience) = (now, Patience::new(spec.config.runtime.stall_timeout));
                    } else if let Err(stall) = patience.waited(WATCH, &recorder.board) {
                        running.leave();
                        return Err(stall);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Stage::Select.gone());
                }
            }
        }
    }
    watch()
}

/// How often a recording pass is looked at.
const WATCH: Duration = Duration::from_millis(200);

/// Kept samples of a lane, group by group.
type Groups = Receiver<Message<KeptGroup>>;

impl Running {
    /// Ends the threads of an epoch without waiting for them: one of them hangs.
    pub(crate) fn leave(self) {
        let held = Arc::new(Mutex::new(Some(self)));
        let own = Arc::clone(&held);
        let end = move || drop(own.lock().unwrap_or_else(PoisonError::into_inner).take());
        if std::thread::Builder::new().name("tldr-stop".into()).spawn(end).is_err() {
            // Nobody can wait for them.
            std::mem::forget(held);
        }
    }

    /// Starts the reading and the deciding thread of each lane of the rank and source. With `satisfied` nobody
    /// wants kept samples: their bytes are not read where the ledger knows them, and none come.
    fn lanes(
        &mut self,
        spec: &Arc<Spec>,
        epoch: u64,
        first_step: u64,
        recorder: &Arc<Recorder>,
        satisfied: bool,
    ) -> Result<Vec<(Stream, Groups)>> {
        spec.streams()?
            .map(|stream| Ok((stream, self.lane(stream, spec, epoch, first_step, recorder, satisfied)?)))
            .collect()
    }

    fn lane(
        &mut self,
        stream: Stream,
        spec: &Arc<Spec>,
        epoch: u64,
        first_step: u64,
        recorder: &Arc<Recorder>,
        satisfied: bool,
    ) -> Result<Groups> {
        let satisfied = Arc::new(AtomicBool::new(satisfied));
        let name = match spec.mix.sources.len() {
            1 => stream.lane.to_string(),
            _ => format!("{}-{}", stream.lane, stream.source),
        };
        // A window that is read waits in the reading thread itself: one read ahead, one worked on.
        let (raw_out, raw_in) = bounded(0);
        {
            let (spec, recorder, stop) = (Arc::clone(spec), Arc::clone(recorder), Arc::clone(&self.stop));
            let satisfied = Arc::clone(&satisfied);
            self.spawn(Stage::Read, &name, raw_out, move |out| {
                let slot = recorder.board.post(Post::Read(stream));
                let (spec, recorder, slot) = (&*spec, &*recorder, &*slot);
                Reading { spec, epoch, recorder, stop: &stop, satisfied: &satisfied, slot }.run(stream, out)
            })?;
        }
        // One group of kept samples is used up while the next one is made.
        let (group_out, group_in) = bounded(1);
        {
            let (spec, recorder, stop) = (Arc::clone(spec), Arc::clone(recorder), Arc::clone(&self.stop));
            self.spawn(Stage::Select, &name, group_out, move |out| {
                Deciding::new(&spec, stream, epoch, first_step, &recorder, &stop, &satisfied)
                    .run(&raw_in, out)
            })?;
        }
        Ok(group_in)
    }

    /// Starts a thread whose error, or panic, becomes the last message of its channel.
    fn spawn<T: Send + 'static>(
        &mut self,
        stage: Stage,
        of: &str,
        out: Sender<Message<T>>,
        body: impl FnOnce(&Sender<Message<T>>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let work = move || {
            let result = catch_unwind(AssertUnwindSafe(|| body(&out)))
                .unwrap_or_else(|panic| Err(stage.died(panic_message(&*panic))));
            if let Err(error) = result {
                let _ = out.send(Message::Failed(error)); // nobody listens any more: no one to tell
            }
        };
        let thread = stage.thread(of).spawn(work).map_err(|e| stage.unstarted(e))?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Closing this end wakes the assembler, whose end wakes the lanes, and so on.
        self.batches = bounded(0).1;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
