//! The watchdog: what every thread of an epoch is doing, and which of them holds up the others.
//!
//! Each stage of each stream has a [`Post`] on the [`Board`] and says there what it is doing and since when: a
//! few words at each step of its work, nothing per pixel. When the training loop has waited long for a batch,
//! following who waits for whom leads to the one that waits for nobody ([`Board::chain`]).
//! It is a stall where that one, too, has been at the same thing for longer than `stall_timeout`; a stage
//! that is merely slow goes on to the next thing again and again, and is only warned of.
//!
//! There is no thread of its own: whoever waits for a batch looks at the board meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::loader::lane::Stream;
use crate::loader::observe::stats::{Activity, HANDED_WARNINGS};
use crate::loader::stage::Stage;

/// A wait for a batch that is warned of; and again each time it has doubled.
const WARN_AFTER: Duration = Duration::from_secs(60);

/// A place of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Post {
    /// The assembling of batches.
    Batch,
    /// The making of examples; two batches at a time, of even and of odd steps.
    Example(bool),
    /// The deciding of a stream.
    Select(Stream),
    /// The reading of a stream.
    Read(Stream),
    /// The model that gives signals and captions.
    Encode,
    /// The model that scores captions.
    Judge,
}

impl Post {
    /// Of the examples of batch `step`.
    pub(crate) fn example(step: u64) -> Self {
        Self::Example(step % 2 == 1)
    }

    fn stage(self) -> Stage {
        match self {
            Self::Batch => Stage::Batch,
            Self::Example(_) => Stage::Example,
            Self::Select(_) => Stage::Select,
            Self::Read(_) => Stage::Read,
            Self::Encode => Stage::Encode,
            Self::Judge => Stage::Judge,
        }
    }
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("the assembling of batches"),
            Self::Example(_) => f.write_str("the making of examples"),
            Self::Select(stream) => write!(f, "deciding {stream}"),
            Self::Read(stream) => write!(f, "reading {stream}"),
            Self::Encode => f.write_str("the captioner"),
            Self::Judge => f.write_str("the judge"),
        }
    }
}

/// What is done at a post.
#[derive(Debug, Clone, Default)]
pub(crate) enum Doing {
    /// Nothing: no one has asked.
    #[default]
    Idle,
    /// Waiting for the result of another.
    Await(Post),
    /// Waiting for another to take a result.
    Offer,
    /// Work of this name, on this shard where it is on one.
    Work(&'static str, Option<Arc<str>>),
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("has nothing to do"),
            Self::Await(post) => write!(f, "waits for {post}"),
            Self::Offer => f.write_str("waits until its result is taken"),
            Self::Work(what, None) => f.write_str(what),
            Self::Work(what, Some(shard)) => write!(f, "{what} of shard {shard}"),
        }
    }
}

/// What one thread says of itself.
#[derive(Debug)]
pub(crate) struct Slot {
    begun: Instant,
    doing: Mutex<Doing>,
    /// Nanoseconds from `begun` to the last sign of life.
    since: AtomicU64,
}

impl Slot {
    fn new(begun: Instant) -> Self {
        Self { begun, doing: Mutex::default(), since: AtomicU64::new(begun.elapsed().as_nanos() as u64) }
    }

    /// Says what is done until the mark is dropped.
    pub(crate) fn mark(&self, doing: Doing) -> Mark<'_> {
        Mark { slot: self, before: Some(self.set(doing)) }
    }

    /// Says what is done from now on; returns what was.
    fn set(&self, doing: Doing) -> Doing {
        let before = {
            let mut held = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *held, doing)
        };
        self.tick();
        before
    }

    /// Says that the work goes on: a sign of life.
    pub(crate) fn tick(&self) {
        self.since.store(self.begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    fn look(&self) -> (Doing, Duration) {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let since = Duration::from_nanos(self.since.load(Ordering::Relaxed));
        (doing, self.begun.elapsed().saturating_sub(since))
    }
}

/// Something is done; dropping it ends that.
#[must_use]
pub(crate) struct Mark<'a> {
    slot: &'a Slot,
    before: Option<Doing>,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.slot.set(before);
        }
    }
}

/// What all threads of an epoch say of themselves.
#[derive(Debug)]
pub(crate) struct Board {
    begun: Instant,
    slots: Mutex<BTreeMap<Post, Arc<Slot>>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { begun: Instant::now(), slots: Mutex::default() }
    }
}

impl Board {
    /// The slot of `post`.
    pub(crate) fn post(&self, post: Post) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(post).or_insert_with(|| Arc::new(Slot::new(self.begun))))
    }

    fn look(&self, post: Post) -> (Doing, Duration) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(&post).map_or_else(|| (Doing::Idle, self.begun.elapsed()), |slot| slot.look())
    }

    /// Who waits for whom, from the assembling of batches on; the last waits for nobody.
    fn chain(&self) -> Vec<(Post, Doing, Duration)> {
        let mut chain: Vec<(Post, Doing, Duration)> = vec![];
        let mut next = Post::Batch;
        // They change while one looks: nobody is looked at twice.
        while chain.iter().all(|(post, ..)| *post != next) {
            let (doing, since) = self.look(next);
            let awaited = if let Doing::Await(post) = &doing { Some(*post) } else { None };
            chain.push((next, doing, since));
            let Some(post) = awaited else { break };
            next = post;
        }
        chain
    }

    /// What every thread is doing.
    pub(crate) fn activity(&self) -> Vec<Activity> {
        let slots: Vec<(Post, Arc<Slot>)> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().map(|(post, slot)| (*post, Arc::clone(slot))).collect()
        };
        let of = |(post, slot): (Post, Arc<Slot>)| {
            let (doing, since) = slot.look();
            Activity { stage: post.to_string(), doing: doing.to_string(), seconds: since.as_secs_f64() }
        };
        slots.into_iter().map(of).collect()
    }
}

/// The patience of one that waits for batches.
#[derive(Debug)]
pub(crate) struct Patience {
    timeout: Option<Duration>,
    waited: Duration,
    warn_at: Duration,
    /// What was not passed on yet.
    warning: Option<String>,
}

impl Patience {
    /// `timeout`: how long a stall may last.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, waited: Duration::ZERO, warn_at: WARN_AFTER, warning: None }
    }

    /// How long to wait before the board is looked at, `limit` at most.
    pub(crate) fn until_look(&self, limit: Duration) -> Duration {
        // A stage may have begun its work later than the wait: it is looked at again soon.
        let next = self.timeout.map_or(self.warn_at, |timeout| timeout.min(self.warn_at));
        let left = next.saturating_sub(self.waited);
        let again = self.timeout.map_or(WARN_AFTER, |timeout| (timeout / 8).min(WARN_AFTER));
        limit.min(left.max(again).max(Duration::from_millis(1)))
    }

    /// A batch came.
    pub(crate) fn rest(&mut self) {
        self.waited = Duration::ZERO;
        self.warn_at = WARN_AFTER;
    }

    /// What there is to say of the wait so far, once.
    pub(crate) fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Another `time` was waited for in vain: warns where it has become long.
    ///
    /// # Errors
    /// [`ErrorKind::Stall`] that names the stage at the end of the chain, where nothing happened there for
    /// longer than the timeout.
    pub(crate) fn waited(&mut self, time: Duration, board: &Board) -> Result<(), Error> {
        self.waited += time;
        let over = |timeout: &Duration| self.waited >= *timeout;
        if self.waited < self.warn_at && !self.timeout.as_ref().is_some_and(over) {
            return Ok(());
        }
        let chain = board.chain();
        let Some((post, doing, since)) = chain.last() else { return Ok(()) };
        let told = tell(&chain);
        if let Some(timeout) = self.timeout.filter(|timeout| over(timeout) && since >= timeout) {
            let kind = ErrorKind::Stall {
                stage: post.stage().name(),
                seconds: self.waited.as_secs_f64(),
                detail: format!("{told}; stall_timeout={}", timeout.as_secs_f64()),
            };
            let error = Error::from(kind);
            return Err(match doing {
                Doing::Work(_, Some(shard)) => error.in_shard(shard),
                _ => error,
            });
        }
        if self.waited >= self.warn_at {
            let warning = format!("no batch came for {:.0} s: {told}", self.waited.as_secs_f64());
            tracing::warn!(target: HANDED_WARNINGS, "{warning}");
            self.warning = Some(warning);
            while self.warn_at <= self.waited {
                self.warn_at = self.warn_at.saturating_mul(2);
            }
        }
        Ok(())
    }
}

/// The chain in words.
fn tell(chain: &[(Post, Doing, Duration)]) -> String {
    let mut told = String::new();
    for (i, (post, doing, since)) in chain.iter().enumerate() {
        let seconds = since.as_secs_f64();
        told += &match (i, doing) {
            (0, doing) => format!("{post} {doing}"),
            (_, Doing::Await(next)) => format!(", which waits for {next}"),
            (_, doing) => format!(", which {doing}"),
        };
        if i + 1 == chain.len() {
            told += &format!(" (for {seconds:.1} s)");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Stream = Stream { lane: 3, source: 0 };

    fn board() -> Board {
        let board = Board::default();
        board.post(Post::Batch).set(Doing::Await(Post::Select(STREAM)));
        board.post(Post::Select(STREAM)).set(Doing::Await(Post::Encode));
        board.post(Post::Encode).set(Doing::Work("encodes images", None));
        board
    }

    #[test]
    fn the_chain_ends_with_the_one_that_waits_for_nobody() {
        let board = board();
        assert_eq!(board.chain().last().map(|(post, ..)| *post), Some(Post::Encode));
        let told = tell(&board.chain());
        let expected = "the assembling of batches waits for deciding lane 3, which waits for the captioner, which \
                        encodes images (for 0.0 s)";
        assert_eq!(told, expected);
        // Threads change while one looks: a circle ends.
        board.post(Post::Encode).set(Doing::Await(Post::Batch));
        assert_eq!(board.chain().len(), 3);
    }

    #[test]
    fn a_mark_ends_with_its_scope() {
        let board = Board::default();
        let slot = board.post(Post::Judge);
        let outer = slot.mark(Doing::Work("outer", None));
        drop(slot.mark(Doing::Await(Post::Encode)));
        assert_eq!(board.look(Post::Judge).0.to_string(), "outer");
        drop(outer);
        assert_eq!(board.look(Post::Judge).0.to_string(), "has nothing to do");
    }

    #[test]
    fn only_a_stage_that_rests_is_a_stall() {
        let board = board();
        // Waited long, but the captioner has just begun: no error.
        let mut patience = Patience::new(Some(Duration::from_secs(1000)));
        assert!(patience.waited(Duration::from_secs(59), &board).is_ok());
        assert_eq!(patience.warning(), None);
        assert!(patience.waited(Duration::from_secs(4941), &board).is_ok());
        let warning = patience.warning().unwrap();
        assert!(warning.starts_with("no batch came for 5000 s: the assembling"), "{warning}");
        assert_eq!(patience.warning(), None, "said once");
        assert!(patience.waited(Duration::from_secs(100), &board).is_ok());
        assert_eq!(patience.warning(), None, "and again when it has doubled");
        // Whatever it began, no time at all is too long here.
        let mut patience = Patience::new(Some(Duration::ZERO));
        let error = patience.waited(Duration::ZERO, &board).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Stall { stage: "encode", .. }), "{error}");
        let mut patience = Patience::new(None);
        assert!(patience.waited(Duration::from_secs(1 << 40), &board).is_ok(), "never, without a timeout");
    }

    #[test]
    fn a_shard_is_named() {
        let board = Board::default();
        board.post(Post::Batch).set(Doing::Await(Post::Read(STREAM)));
        board.post(Post::Read(STREAM)).set(Doing::Work("reads window 2", Some("a.tar".into())));
        let error = Patience::new(Some(Duration::ZERO)).waited(Duration::ZERO, &board).unwrap_err();
        assert_eq!(error.shard.as_deref(), Some("a.tar"));
    }
}
