//! One object as a stream of bytes, fetched ahead of whoever reads.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::iter::once;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::shard::remote::fault::FaultKind;
use crate::shard::remote::identity::Identity;
use crate::shard::remote::ranges::{Pieces, cut};
use crate::shard::remote::retry::{Fetch, Frame, Part};
use crate::shard::remote::runtime;
use crate::shard::remote::store::Object;

/// Time between two looks at the wish to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Reads an object, or ranges of it, in order.
///
/// Memory: `ranges_ahead * range_bytes` of the object at most, as each piece that was asked for
/// counts until its last byte was read; from a server that knows no ranges the same, and one
/// buffer of the connection. Dropping it cancels its requests.
///
/// A read fails once the retries of a fault are used up, and ever after.
#[derive(Debug)]
pub(crate) struct RemoteReader {
    object: Object,
    runtime: Handle,
    stop: Option<Arc<AtomicBool>>,
    /// What is wanted; `None`: everything.
    ranges: Option<Vec<Range<u64>>>,
    /// What was not asked for yet.
    pieces: Pieces,
    /// Pieces that were asked for and not read to their end, in order.
    running: VecDeque<Piece>,
    /// What came last of the first piece.
    current: Bytes,
    identity: Option<Identity>,
    /// Whether its version is asked for first, since the cache may have ranges of it.
    looking: bool,
    /// Ranges of this version that the cache has.
    kept: Vec<Range<u64>>,
    /// Bytes that may wait, where one answer holds everything.
    room: Option<Arc<Semaphore>>,
    failed: Option<(io::ErrorKind, String)>,
}

/// A piece on its way. Dropping it ends its task and closes its connection.
#[derive(Debug)]
struct Piece {
    frames: Receiver<Frame>,
    task: JoinHandle<()>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RemoteReader {
    /// Reads all of `object`. A read fails within a second of `stop` being set.
    ///
    /// # Errors
    /// The threads that wait for sockets cannot be started.
    pub(crate) fn whole(object: &Object, stop: Option<Arc<AtomicBool>>) -> io::Result<Self> {
        Self::new(object, None, None, stop)
    }

    /// Reads the bytes of `ranges`, one range after the other, as if they were one file, of the
    /// version `known` of the object (of any, where that is `None`).
    ///
    /// # Errors
    /// As [`whole`](Self::whole).
    pub(crate) fn ranges(
        object: &Object,
        ranges: Vec<Range<u64>>,
        known: Option<Identity>,
        stop: Option<Arc<AtomicBool>>,
    ) -> io::Result<Self> {
        Self::new(object, Some(ranges), known, stop)
    }

    fn new(
        object: &Object,
        ranges: Option<Vec<Range<u64>>>,
        known: Option<Identity>,
        stop: Option<Arc<AtomicBool>>,
    ) -> io::Result<Self> {
        let most = object.options.range_bytes;
        // Of a whole object the first piece is known; the answer to it tells the rest.
        let pieces = match &ranges {
            None => Pieces::new(once(0..most as u64), most),
            Some(ranges) => Pieces::new(ranges.iter().cloned(), most),
        };
        let mut reader = Self {
            object: object.clone(),
            runtime: runtime()?,
            stop,
            ranges,
            pieces,
            running: VecDeque::new(),
            current: Bytes::new(),
            identity: known,
            looking: false,
            kept: vec![],
            room: None,
            failed: None,
        };
        if object.learnt.whole_only.load(Ordering::Relaxed) {
            reader.take_whole();
        } else if object.cache.as_ref().is_some_and(|cache| cache.knows(&object.cache_key())) {
            // What is kept is read where the store still has it in that version.
            reader.looking = true;
            reader.start(Part::Look);
        } else {
            reader.ask();
        }
        Ok(reader)
    }

    /// Asks for as much as may be on its way: one piece until the object's size is known.
    fn ask(&mut self) {
        if self.looking {
            return;
        }
        let most = if self.identity.is_some() { self.object.options.ranges_ahead } else { 1 };
        while self.room.is_none() && self.running.len() < most {
            let Some(piece) = self.pieces.next() else { return };
            self.start(Part::Range(piece));
        }
    }

    /// Reads on from one answer that holds everything.
    fn take_whole(&mut self) {
        let options = &self.object.options;
        let room = options.ranges_ahead.saturating_mul(options.range_bytes).min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(room));
        self.running.clear();
        self.looking = false;
        self.room = Some(Arc::clone(&room));
        let wanted = self.ranges.clone();
        self.pieces = Pieces::new([], 1);
        if wanted.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.start < range.end)) {
            self.start(Part::Whole(wanted, room));
        }
    }

    fn start(&mut self, part: Part) {
        let (out, frames) = channel();
        let kept = match &part {
            Part::Range(piece) => {
                self.kept.iter().find(|kept| kept.start <= piece.start && piece.end <= kept.end).cloned()
            }
            _ => None,
        };
        let fetch = Fetch::new(self.object.clone(), part, self.identity.clone(), out).kept(kept);
        self.running.push_back(Piece { frames, task: self.runtime.spawn(fetch.run()) });
    }

    /// The next bytes; `None` at the end.
    fn next_bytes(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            self.ask();
            let Some(piece) = self.running.front() else { return Ok(None) };
            let frame = loop {
                if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return Err(io::Error::other("reading was stopped"));
                }
                match piece.frames.recv_timeout(LOOK) {
                    Ok(frame) => break frame,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(io::Error::other("the task that reads the store died, which is a bug"));
                    }
                }
            };
            match frame {
                Frame::Bytes(bytes) => return Ok(Some(bytes)),
                Frame::Opened(identity) => self.opened(identity)?,
                Frame::Failed(fault, ..) if self.is_answered_whole(fault.kind) => self.take_whole(),
                Frame::Failed(fault, tried, attempts) => return Err(fault.into_io(&tried, attempts)),
                Frame::End => {
                    self.running.pop_front();
                }
            }
        }
    }

    /// Plans the rest once the first answer has come.
    fn opened(&mut self, identity: Identity) -> io::Result<()> {
        let looked = std::mem::take(&mut self.looking);
        if self.identity.is_some() && !looked {
            return Ok(());
        }
        let size = identity.size;
        let most = self.object.options.range_bytes;
        if looked && let Some(cache) = &self.object.cache {
            self.kept = cache
                .shelf(&self.object.cache_key(), &identity)
                .map(|shelf| shelf.ranges())
                .unwrap_or_default();
        }
        match &self.ranges {
            None if looked => self.pieces = Pieces::new(cut(once(0..size), &self.kept), most),
            None if self.room.is_none() => {
                self.pieces = Pieces::new(once(most as u64..size.max(most as u64)), most);
            }
            None => {}
            Some(ranges) => {
                if let Some(range) = ranges.iter().find(|range| range.start < range.end && range.end > size) {
                    let message = format!(
                        "it has {size} bytes, where bytes {} to {} are wanted: has the shard changed?",
                        range.start,
                        range.end - 1
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                if looked {
                    self.pieces = Pieces::new(cut(ranges.iter().cloned(), &self.kept), most);
                }
            }
        }
        self.object.learnt.read(&identity);
        self.identity = Some(identity);
        Ok(())
    }

    /// Whether a range request met a server without ranges, or an object without bytes, which
    /// has no range that could be asked for.
    fn is_answered_whole(&self, fault: FaultKind) -> bool {
        let first = self.identity.is_none() && self.room.is_none();
        match fault {
            FaultKind::WholeOnly if first => {
                self.object.learnt.whole_only.store(true, Ordering::Relaxed);
                true
            }
            FaultKind::OutOfRange => first && self.ranges.is_none(),
            _ => false,
        }
    }
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((kind, message)) = &self.failed {
            return Err(io::Error::new(*kind, message.clone()));
        }
        while self.current.is_empty() && !buffer.is_empty() {
            match self.next_bytes() {
                Ok(Some(bytes)) => self.current = bytes,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failed = Some((error.kind(), error.to_string()));
                    self.running.clear();
                    return Err(error);
                }
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        if let Some(room) = &self.room {
            room.add_permits(n);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

    use std::time::Duration;

    use super::*;
    use crate::shard::Store;
    use crate::shard::remote::fault_server::{Reply, Request, Server};
    use crate::shard::remote::{Address, Stores};

    fn object(server: &Server) -> Object {
        let options = Store {
            range_bytes: 100,
            ranges_ahead: 3,
            // A connection that the server closed without a word may cost one more.
            retries: 3,
            read_timeout: Duration::from_secs(10),
            ..Store::default()
        };
        Stores::new(&options).object(&Address::parse(&server.url("/file")).unwrap()).unwrap()
    }

    fn content() -> Vec<u8> {
        (0..5000u32).map(|i| (i * 7 / 5) as u8).collect()
    }

    fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::start([("/file".into(), content())], answer)
    }

    fn read(object: &Object, ranges: &[Range<u64>]) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        RemoteReader::ranges(object, ranges.to_vec(), None, None)?.read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn ranges_read_as_one_file() {
        for known in [true, false] {
            let server = server(move |request| Reply {
                ranges: known,
                cut: (request.repeats == 0).then_some(60),
                ..Reply::default()
            });
            let object = object(&server);
            for ranges in [vec![], vec![7..7], vec![0..5000], vec![3..40, 40..41, 900..1333, 4990..5000]] {
                let expected: Vec<u8> = ranges
                    .iter()
                    .flat_map(|r| content()[r.start as usize..r.end as usize].to_vec())
                    .collect();
                assert_eq!(read(&object, &ranges).unwrap(), expected, "{ranges:?}, ranges known: {known}");
            }
        }
    }

    #[test]
    fn ranges_beyond_the_end_are_an_error() {
        for known in [true, false] {
            let server = server(move |_| Reply { ranges: known, ..Reply::default() });
            for ranges in [vec![4990..5001], vec![5000..5001], vec![0..10, 6000..6100]] {
                assert!(read(&object(&server), &ranges).is_err(), "{ranges:?}, ranges known: {known}");
            }
        }
    }

    #[test]
    fn a_reader_that_failed_fails_ever_after() {
        let server = server(|_| Reply::status(500));
        let mut reader = RemoteReader::whole(&object(&server), None).unwrap();
        let first = reader.read(&mut [0; 9]).unwrap_err().to_string();
        assert_eq!(reader.read(&mut [0; 9]).unwrap_err().to_string(), first);
        assert_eq!(server.requests().len(), 4);
    }

    #[test]
    fn a_dropped_reader_closes_its_connection() {
        // Everything fits into the buffers of the system: only a closed connection stops the server.
        let server = server(|_| Reply { ranges: false, trickle: Some(1), ..Reply::default() });
        let mut reader = RemoteReader::whole(&object(&server), None).unwrap();
        reader.read_exact(&mut [0; 5]).unwrap();
        drop(reader);
        std::thread::sleep(Duration::from_millis(200));
        let sent = server.sent();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(server.sent(), sent);
        assert!(sent < 5000, "everything was sent");
    }
}
