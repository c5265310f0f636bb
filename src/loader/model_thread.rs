//! The thread that owns a model: the captioner, or the judge.
//!
//! One thread per device owns the model and serves all lanes through one bounded channel, first
//! come first served. Batches are always of the model's own shape, so that a result depends on
//! the request only and never on which lane asked first. Buffers of previews come back with the
//! answer and are used again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use ndarray::Array4;

use crate::error::{Error, Result};
use crate::loader::channel::panic_message;
use crate::loader::observe::recorder::Recorder;
use crate::loader::observe::watchdog::{Doing, Post};
use crate::loader::stage::Stage;
use crate::model::{PreviewFilter, Scorer, Signals};
use crate::sample::SampleId;

/// Requests that may wait for the model: enough that it never idles between two batches.
const QUEUE: usize = 4;

/// An answer, and the buffer of previews to use again.
pub(crate) type Answer<T> = (Result<T>, Array4<u8>);

enum Request {
    Encode {
        previews: Array4<u8>,
        captions: Vec<String>,
        recorder: Arc<Recorder>,
        reply: Sender<Answer<Signals>>,
    },
    Caption {
        previews: Array4<u8>,
        ids: Vec<SampleId>,
        recorder: Arc<Recorder>,
        reply: Sender<Answer<Vec<String>>>,
    },
}

impl Request {
    fn previews(&self) -> &Array4<u8> {
        match self {
            Self::Encode { previews, .. } | Self::Caption { previews, .. } => previews,
        }
    }
}

/// What the lanes need to know of the captioner's captions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaptionShape {
    pub(crate) batch_size: usize,
    pub(crate) fingerprint: u64,
}

/// What a model is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Signals and captions.
    Captioner,
    /// Scores of captions that another model wrote.
    Judge,
}

impl Role {
    /// The option that it was given for.
    fn name(self) -> &'static str {
        match self {
            Self::Captioner => "captioner",
            Self::Judge => "judge",
        }
    }

    /// What its calls are.
    fn stage(self) -> Stage {
        match self {
            Self::Captioner => Stage::Encode,
            Self::Judge => Stage::Judge,
        }
    }

    /// Where the thread says what it does.
    fn post(self) -> Post {
        match self {
            Self::Captioner => Post::Encode,
            Self::Judge => Post::Judge,
        }
    }
}

/// Handle to the thread; dropping it joins the thread.
pub(crate) struct ModelThread {
    pub(crate) preview_size: usize,
    pub(crate) preview_filter: PreviewFilter,
    pub(crate) batch_size: usize,
    pub(crate) fingerprint: u64,
    /// How it computes, in words.
    pub(crate) compute: Arc<str>,
    /// Whether all that it says is in a ledger.
    pub(crate) stands_in: bool,
    /// Whether a row's signals are the same wherever it stands in a batch.
    pub(crate) is_exact: bool,
    pub(crate) caption: Option<CaptionShape>,
    role: Role,
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl ModelThread {
    /// Moves the model into a thread of its own.
    pub(crate) fn spawn(mut model: Box<dyn Scorer>, role: Role) -> Result<Self> {
        let (preview_size, batch_size, fingerprint) =
            (model.preview_size(), model.batch_size(), model.fingerprint());
        if preview_size == 0 || batch_size == 0 {
            let given = format!("preview_size {preview_size}, batch_size {batch_size}");
            return Err(Error::option(
                role.name(),
                given,
                "a model whose preview_size and batch_size are at least 1",
            ));
        }
        let (model_filter, compute) = (model.preview_filter(), model.compute().into());
        let (stands_in, is_exact) = (model.stands_in(), model.is_exact());
        let caption = model.recaptioner().map(|r| CaptionShape {
            batch_size: r.caption_batch_size().max(1),
            fingerprint: r.caption_fingerprint(),
        });
        let (requests, inbox) = bounded(QUEUE);
        let serving = move || serve(model.as_mut(), &inbox, role);
        let thread = role.stage().thread("").spawn(serving).map_err(|e| role.stage().unstarted(e))?;
        Ok(Self {
            preview_size,
            preview_filter: model_filter,
            batch_size,
            fingerprint,
            compute,
            stands_in,
            is_exact,
            caption,
            role,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// A zeroed buffer of previews, `[rows, 3, preview_size, preview_size]`.
    pub(crate) fn buffer(&self, rows: usize) -> Array4<u8> {
        Array4::zeros((rows, 3, self.preview_size, self.preview_size))
    }

    /// Queues a batch for encoding; waits while the queue is full.
    pub(crate) fn encode(
        &self,
        previews: Array4<u8>,
        captions: Vec<String>,
        recorder: &Arc<Recorder>,
    ) -> Result<Receiver<Answer<Signals>>> {
        let (reply, answer) = bounded(1);
        self.send(Request::Encode { previews, captions, recorder: Arc::clone(recorder), reply })?;
        Ok(answer)
    }

    /// Queues a batch for captioning; waits while the queue is full.
    pub(crate) fn caption(
        &self,
        previews: Array4<u8>,
        ids: Vec<SampleId>,
        recorder: &Arc<Recorder>,
    ) -> Result<Receiver<Answer<Vec<String>>>> {
        let (reply, answer) = bounded(1);
        self.send(Request::Caption { previews, ids, recorder: Arc::clone(recorder), reply })?;
        Ok(answer)
    }

    fn send(&self, request: Request) -> Result<()> {
        self.requests.as_ref().and_then(|r| r.send(request).ok()).ok_or_else(|| self.role.stage().gone())
    }

    /// Waits for an answer of this model.
    pub(crate) fn wait<T>(&self, answer: &Receiver<Answer<T>>) -> Result<(T, Array4<u8>)> {
        wait_for(self.role, answer)
    }
}

/// Waits for an answer of the captioner.
pub(crate) fn wait<T>(answer: &Receiver<Answer<T>>) -> Result<(T, Array4<u8>)> {
    wait_for(Role::Captioner, answer)
}

fn wait_for<T>(role: Role, answer: &Receiver<Answer<T>>) -> Result<(T, Array4<u8>)> {
    let (result, buffer) = answer.recv().map_err(|_| role.stage().gone())?;
    Ok((result?, buffer))
}

impl Drop for ModelThread {
    fn drop(&mut self) {
        self.requests = None; // closes the channel: the thread leaves its loop
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(model: &mut dyn Scorer, inbox: &Receiver<Request>, role: Role) {
    let mut waiting = None;
    while let Some(request) = waiting.take().or_else(|| inbox.recv().ok()) {
        waiting = inbox.try_recv().ok();
        let expected = waiting.as_ref().map(Request::previews);
        // A reply that nobody waits for any more (the epoch was dropped) is no error.
        match request {
            Request::Encode { previews, captions, recorder, reply } => {
                let slot = recorder.board.post(role.post());
                let _mark = slot.mark(Doing::Work("encodes images", None));
                let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
                let result = recorder.time(role.stage(), || {
                    guarded(role, || {
                        expected.map_or(Ok(()), |next| model.expect(next.view()))?;
                        let signals = model.signals(previews.view(), &captions)?;
                        check(role, &signals, captions.len(), model.clusters())?;
                        Ok(signals)
                    })
                });
                let _ = reply.send((result, previews));
            }
            Request::Caption { previews, ids, recorder, reply } => {
                let slot = recorder.board.post(role.post());
                let _mark = slot.mark(Doing::Work("writes captions", None));
                let result = recorder.time(Stage::Caption, || {
                    guarded(role, || {
                        expected.map_or(Ok(()), |next| model.expect(next.view()))?;
                        let writer = model.recaptioner().ok_or_else(|| {
                            Error::captioner("captions are needed, but this scorer writes none")
                        })?;
                        let captions = writer.caption(previews.view(), &ids)?;
                        let used = ids.len();
                        if captions.len() < used {
                            let found = captions.len();
                            return Err(Error::captioner(format!("{used} captions expected, {found} found")));
                        }
                        Ok(captions)
                    })
                });
                let _ = reply.send((result, previews));
            }
        }
    }
}

/// Runs the model; a panic in it becomes an error of the caller instead of a hang.
fn guarded<T>(role: Role, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let detail = panic_message(&*panic);
        Err(role.stage().died(detail))
    })
}

/// Checks the shape of signals, since scorers may be the user's own.
fn check(role: Role, signals: &Signals, rows: usize, clusters: usize) -> Result<()> {
    let lengths = [
        signals.cluster.len(),
        signals.alignment.len(),
        signals.embedding.nrows(),
        signals.semantic_hash.len(),
    ];
    if lengths.iter().any(|&n| n != rows) {
        return Err(Error::captioner(format!(
            "signals of {rows} rows expected of the {}, found [cluster, alignment, embedding, semantic_hash] \
             of {lengths:?}",
            role.name()
        )));
    }
    if let Some(cluster) = signals.cluster.iter().find(|&&c| c as usize >= clusters) {
        let name = role.name();
        let found = format!("cluster {cluster} found in signals of the {name}, which has only {clusters}");
        return Err(Error::captioner(found));
    }
    Ok(())
}
