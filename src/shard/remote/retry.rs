//! Requests that are made again: a part of an object, a small object.
//!
//! A part is handed out as its bytes come in. Where an answer breaks off, the next request starts
//! at the first byte that is missing.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use object_store::{Extensions, GetOptions, GetRange, GetResult};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::shard::remote::answer::Answer;
use crate::shard::remote::cache::Shelf;
use crate::shard::remote::fault::{self, Fault, FaultKind, Patience};
use crate::shard::remote::identity::Identity;
use crate::shard::remote::runtime;
use crate::shard::remote::store::Object;

/// Small files that are read at a time.
const SMALL_AT_ONCE: usize = 16;

/// How often a wish to stop is looked for.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Most bytes of a file that is held whole.
const MAX_SMALL: u64 = 256 << 20;

/// What a fetching task says.
#[derive(Debug)]
pub(super) enum Frame {
    /// The first answer has come.
    Opened(Identity),
    /// The next bytes.
    Bytes(Bytes),
    /// Everything was handed out.
    End,
    /// There are no more bytes, for this reason; what was tried, and how often.
    Failed(Fault, String, u32),
}

/// What of an object a task fetches.
#[derive(Debug)]
pub(super) enum Part {
    /// Nothing but its version.
    Look,
    /// One range; cut at the object's end where that is not known yet.
    Range(Range<u64>),
    /// Ranges (`None`: everything) out of one answer with everything, for servers that know no
    /// ranges. A permit is a byte that may wait.
    Whole(Option<Vec<Range<u64>>>, Arc<Semaphore>),
}

/// A part on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    object: Object,
    part: Part,
    /// The version that was seen first, by this task or before.
    known: Option<Identity>,
    opened: bool,
    /// First byte that was not handed out.
    at: u64,
    out: Sender<Frame>,
    /// The range of the cache that holds all of this one, where there is one.
    kept: Option<Range<u64>>,
    /// What was handed out since `from`, where it is to be kept.
    read: Vec<Bytes>,
    from: Option<u64>,
}

/// Nobody listens any more.
struct Deserted;

impl Fetch {
    pub(super) fn new(object: Object, part: Part, known: Option<Identity>, out: Sender<Frame>) -> Self {
        let at = match &part {
            Part::Range(range) => range.start,
            Part::Whole(..) | Part::Look => 0,
        };
        let is_kept = matches!(part, Part::Range(_)) && object.cache.is_some();
        let from = is_kept.then_some(at);
        Self { object, part, known, opened: false, at, out, kept: None, read: vec![], from }
    }

    /// As it is, with all of its range in the range `kept` of the cache.
    pub(super) fn kept(self, kept: Option<Range<u64>>) -> Self {
        Self { kept, ..self }
    }

    /// Hands the part out, then ends.
    pub(super) async fn run(mut self) {
        if self.take_kept().await {
            let _ = self.out.send(Frame::End);
            return;
        }
        let range_bytes = self.object.options.range_bytes as u64;
        let mut patience = Patience::new(self.object.options.retries);
        let mut since = self.at;
        while let Err(mut fault) = self.attempt().await {
            if self.at - since >= range_bytes {
                patience = Patience::new(self.object.options.retries);
                since = self.at;
            }
            let tried = self.tried();
            let Some(wait) = patience.after(&mut fault) else {
                // A reader that is gone needs no reason.
                let _ = self.out.send(Frame::Failed(fault, tried, patience.attempts()));
                return;
            };
            fault::tell(&self.object, &tried, &fault, wait);
            sleep(wait).await;
        }
        self.keep().await;
        let _ = self.out.send(Frame::End);
    }

    /// Hands out a range that was kept; whether it was.
    async fn take_kept(&mut self) -> bool {
        let (Part::Range(range), Some(shelf), Some(kept)) = (&self.part, self.shelf(), self.kept.take())
        else {
            return false;
        };
        let range = range.clone();
        let bytes = tokio::task::spawn_blocking(move || shelf.read(&kept, &range)).await;
        let Ok(Some(bytes)) = bytes else { return false };
        // A reader that is gone needs nothing.
        let _ = self.hand_out(self.at, bytes.into()).await;
        true
    }

    /// Keeps the range that was handed out.
    async fn keep(&mut self) {
        let read = std::mem::take(&mut self.read);
        if let (Part::Range(_), Some(shelf), Some(from)) = (&self.part, self.shelf(), self.from) {
            // What cannot be kept is told of there.
            let _ = tokio::task::spawn_blocking(move || shelf.write(from, &read)).await;
        }
    }

    /// Where the version that is read is kept.
    fn shelf(&self) -> Option<Shelf> {
        let cache = self.object.cache.as_ref()?;
        cache.shelf(&self.object.cache_key(), self.known.as_ref()?)
    }

    fn tried(&self) -> String {
        match &self.part {
            Part::Look => "asking for its version".into(),
            Part::Range(range) => format!("reading bytes {} to {}", self.at, range.end.saturating_sub(1)),
            Part::Whole(..) => format!("reading from byte {} (by an answer with everything)", self.at),
        }
    }

    /// One request, up to its end or its fault.
    async fn attempt(&mut self) -> std::result::Result<(), Fault> {
        let range = match &self.part {
            Part::Look => Some(0..1),
            Part::Range(range) => Some(self.at..range.end),
            Part::Whole(..) => None,
        };
        let condition = self.known.as_ref().and_then(Identity::condition);
        let answer = get(&self.object, range, condition).await?;
        let identity = Identity::of(&answer.meta);
        if let Some(how) = self.known.as_ref().and_then(|known| known.replaced_by(&identity)) {
            return Err(Fault::new(FaultKind::Replaced, how));
        }
        if let Part::Range(range) = &mut self.part {
            range.end = range.end.min(identity.size);
        }
        if !self.opened {
            self.opened = true;
            self.known.get_or_insert_with(|| identity.clone());
            if self.out.send(Frame::Opened(identity.clone())).is_err() {
                return Ok(());
            }
        }
        let end = match &self.part {
            Part::Look => return Ok(()),
            Part::Range(range) => range.end,
            Part::Whole(None, _) => identity.size,
            Part::Whole(Some(ranges), _) => ranges.iter().map(|range| range.end).max().unwrap_or(0),
        };
        let mut position = answer.range.start;
        let mut body = answer.into_stream();
        while self.at < end {
            let Some(bytes) = next(&mut body, &self.object).await? else {
                let missing = end - self.at;
                let cause = format!("the answer ended at byte {}, {missing} bytes early", self.at);
                return Err(Fault::new(FaultKind::Passing, cause));
            };
            let start = position;
            position += bytes.len() as u64;
            if position <= self.at {
                continue;
            }
            let from = self.at.max(start);
            let new = bytes.slice((from - start) as usize..(position.min(end) - start) as usize);
            if self.hand_out(from, new).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes on what is wanted of `bytes`, which start at `from`.
    async fn hand_out(&mut self, from: u64, bytes: Bytes) -> std::result::Result<(), Deserted> {
        let until = from + bytes.len() as u64;
        if let Part::Whole(wanted, room) = &self.part {
            let everything = from..until;
            let most = self.object.options.range_bytes.min(Semaphore::MAX_PERMITS / 2).min(u32::MAX as usize);
            for range in wanted.as_deref().unwrap_or(std::slice::from_ref(&everything)) {
                let (mut start, end) = (range.start.max(from), range.end.min(until));
                while start < end {
                    let stop = end.min(start + most as u64);
                    let permits = room.acquire_many((stop - start) as u32).await.map_err(|_| Deserted)?;
                    // Whoever takes the bytes gives the room back.
                    permits.forget();
                    let piece = bytes.slice((start - from) as usize..(stop - from) as usize);
                    self.out.send(Frame::Bytes(piece)).map_err(|_| Deserted)?;
                    start = stop;
                }
            }
        } else {
            if self.from.is_some() {
                self.read.push(bytes.clone());
            }
            self.out.send(Frame::Bytes(bytes)).map_err(|_| Deserted)?;
        }
        self.at = until;
        Ok(())
    }
}

/// Asks for `range` of `object`, or for everything, and waits for the answer's head.
async fn get(
    object: &Object,
    range: Option<Range<u64>>,
    if_match: Option<String>,
) -> std::result::Result<GetResult, Fault> {
    let answer = Answer::default();
    let mut extensions = Extensions::new();
    extensions.insert(answer.clone());
    extensions.insert(Arc::clone(&object.learnt.landing));
    let if_match = if_match.filter(|_| object.may_demand());
    let range = range.map(GetRange::Bounded);
    let is_range = range.is_some();
    let options = GetOptions { range, if_match, extensions, ..GetOptions::default() };
    let limit = object.options.read_timeout;
    let (store, path) = object.store().map_err(|error| Fault::of_request(&error, &answer.said(), object))?;
    match timeout(limit, store.get_opts(&path, options)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            let mut fault = Fault::of_request(&error, &answer.said(), object);
            if fault.kind == FaultKind::WholeOnly && !is_range {
                fault.kind = FaultKind::Lasting;
            }
            Err(fault)
        }
        Err(_) => Err(Fault::new(FaultKind::Passing, format!("no answer within {limit:?}"))),
    }
}

/// Waits for the next bytes of an answer; `None` at its end.
async fn next(
    body: &mut (impl Stream<Item = object_store::Result<Bytes>> + Unpin),
    object: &Object,
) -> std::result::Result<Option<Bytes>, Fault> {
    let limit = object.options.read_timeout;
    match timeout(limit, body.next()).await {
        Ok(next) => next.transpose().map_err(|error| Fault::of_body(&error, object)),
        Err(_) => Err(Fault::new(FaultKind::Passing, format!("nothing came for {limit:?}"))),
    }
}

/// Makes a request until it succeeds or its fault lasts.
pub(super) async fn persist<T, F>(
    object: &Object,
    tried: &str,
    once: impl Fn() -> F,
) -> std::result::Result<T, (Fault, u32)>
where
    F: Future<Output = std::result::Result<T, Fault>>,
{
    let mut patience = Patience::new(object.options.retries);
    loop {
        let mut fault = match once().await {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        let Some(wait) = patience.after(&mut fault) else {
            return Err((fault, patience.attempts()));
        };
        fault::tell(object, tried, &fault, wait);
        sleep(wait).await;
    }
}

/// The contents of small objects, by the numbers they came with; `None` for those that are not
/// there or must not be read.
///
/// # Errors
/// The first, in order, that cannot be read for another reason.
pub(crate) fn read_small(objects: Vec<(usize, Object)>) -> Result<Vec<(usize, Option<Vec<u8>>)>> {
    let runtime = runtime().map_err(|error| Error::io("start the threads that read stores", error))?;
    let reads = objects.into_iter().map(|(i, object)| async move {
        match persist(&object, "reading it", || small(&object)).await {
            Ok(bytes) => Ok((i, Some(bytes))),
            Err((fault, _)) if matches!(fault.kind, FaultKind::Missing | FaultKind::Denied) => Ok((i, None)),
            Err((fault, attempts)) => {
                Err(Error::io(format!("read {}", object.url()), fault.into_io("it", attempts)))
            }
        }
    });
    runtime.block_on(stream::iter(reads).buffered(SMALL_AT_ONCE).try_collect())
}

/// The version of `object` now: its first byte is asked for.
///
/// # Errors
/// The store fails, or has no such object; `stop` was set meanwhile.
pub(crate) fn version_now(object: &Object, stop: Option<&Arc<AtomicBool>>) -> Result<Identity> {
    let cannot = |error| Error::io(format!("read {}", object.url()), error);
    let runtime = runtime().map_err(cannot)?;
    let ask = || async {
        let answer = match get(object, Some(0..1), None).await {
            // A server that knows no ranges: its answer's head is enough.
            Err(fault) if fault.kind == FaultKind::WholeOnly => get(object, None, None).await,
            answer => answer,
        };
        answer.map(|answer| Identity::of(&answer.meta))
    };
    let found = runtime.block_on(async {
        let mut asking = std::pin::pin!(persist(object, "asking for its version", ask));
        loop {
            match timeout(LOOK_UP, asking.as_mut()).await {
                Ok(found) => return Ok(found),
                Err(_) if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) => {
                    return Err(std::io::Error::other("the run was stopped"));
                }
                Err(_) => {}
            }
        }
    });
    found
        .map_err(cannot)?
        .map_err(|(fault, attempts)| cannot(fault.into_io("asking for its version", attempts)))
}

async fn small(object: &Object) -> std::result::Result<Vec<u8>, Fault> {
    let answer = get(object, None, None).await?;
    let size = answer.meta.size;
    if size > MAX_SMALL {
        let cause = format!("it has {size} bytes, more than the {MAX_SMALL} that such a file may have");
        return Err(Fault::new(FaultKind::Lasting, cause));
    }
    let mut body = answer.into_stream();
    let mut content = Vec::new();
    while let Some(bytes) = next(&mut body, object).await? {
        content.extend_from_slice(&bytes);
    }
    if (content.len() as u64) < size {
        let cause = format!("the answer ended after {} of {size} bytes", content.len());
        return Err(Fault::new(FaultKind::Passing, cause));
    }
    Ok(content)
}
