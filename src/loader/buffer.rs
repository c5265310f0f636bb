//! Encoded images and json that wait for a decision or for their batch: in memory up to a bound, and
//! behind it in files without a name, which the system removes with the process.
//!
//! Whether something waits here or there changes nothing but the time.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes in one file. It goes, and its space with it, when nothing in it is waited for.
const FILE: u64 = 256 << 20;

/// Room for what waits, shared by the lanes of a rank.
#[derive(Debug)]
pub(crate) struct Buffer {
    limit: u64,
    folder: PathBuf,
    held: AtomicU64,
}

impl Buffer {
    /// Room for `limit` bytes in memory; what is above goes to files in `folder`.
    pub(crate) fn new(limit: u64, folder: &Path) -> Arc<Self> {
        Arc::new(Self { limit, folder: folder.to_owned(), held: AtomicU64::new(0) })
    }

    /// Room for `n` bytes in memory, where there is some.
    fn room(self: &Arc<Self>, n: u64) -> Option<Room> {
        let more = |held: u64| held.checked_add(n).filter(|&sum| sum <= self.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Room { buffer: Arc::clone(self), n })
    }
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
struct Room {
    buffer: Arc<Buffer>,
    n: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.buffer.held.fetch_sub(self.n, Ordering::Relaxed);
    }
}

/// The bytes of one image, or of its json.
#[derive(Debug)]
pub(crate) struct Encoded(Held);

#[derive(Debug)]
enum Held {
    Memory { bytes: Vec<u8>, _room: Room },
    File { file: Arc<File>, at: u64, len: usize, buffer: Arc<Buffer> },
}

impl Encoded {
    /// The bytes; read again where they are in a file.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.0 {
            Held::Memory { bytes, .. } => Ok(Cow::Borrowed(bytes)),
            Held::File { file, at, len, buffer } => {
                let mut bytes = vec![0; *len];
                file.read_exact_at(&mut bytes, *at)
                    .map_err(|error| failed("read a sample back from", &buffer.folder, error))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Bytes that are in a file.
    pub(crate) fn spilled(&self) -> u64 {
        match &self.0 {
            Held::Memory { .. } => 0,
            Held::File { len, .. } => *len as u64,
        }
    }
}

/// Puts what one lane reads into the buffer.
pub(crate) struct Keeping {
    buffer: Arc<Buffer>,
    /// The file that grows, and its length.
    file: Option<(Arc<File>, u64)>,
}

impl Keeping {
    pub(crate) fn new(buffer: &Arc<Buffer>) -> Self {
        Self { buffer: Arc::clone(buffer), file: None }
    }

    /// Keeps `bytes` until they are dropped.
    ///
    /// # Errors
    /// They have to go to a file, and it cannot be made or written.
    pub(crate) fn keep(&mut self, bytes: Vec<u8>) -> Result<Encoded> {
        if let Some(room) = self.buffer.room(bytes.capacity() as u64) {
            return Ok(Encoded(Held::Memory { bytes, _room: room }));
        }
        let cannot = |error| failed("write a sample to", &self.buffer.folder, error);
        let (file, at) = match self.file.take() {
            Some((file, len)) if len < FILE => (file, len),
            _ => (Arc::new(tempfile::tempfile_in(&self.buffer.folder).map_err(cannot)?), 0),
        };
        file.write_all_at(&bytes, at).map_err(cannot)?;
        self.file = Some((Arc::clone(&file), at + bytes.len() as u64));
        Ok(Encoded(Held::File { file, at, len: bytes.len(), buffer: Arc::clone(&self.buffer) }))
    }
}

fn failed(what: &str, folder: &Path, error: std::io::Error) -> Error {
    let remedy = "where samples wait that `buffer_bytes` has no room for: give `spill_dir` a folder with room, \
                  or raise `buffer_bytes`";
    Error::io(format!("{what} a file without a name in {}, {remedy}", folder.display()), error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_comes_back_is_what_was_kept_wherever_it_waited() {
        let folder = tempfile::tempdir().unwrap();
        let buffer = Buffer::new(1000, folder.path());
        let mut lanes = [Keeping::new(&buffer), Keeping::new(&buffer)];
        let image = |i: usize| vec![i as u8; 1 + i * 7 % 90];
        let kept: Vec<Encoded> = (0..100).map(|i| lanes[i % 2].keep(image(i)).unwrap()).collect();
        for (i, encoded) in kept.iter().enumerate() {
            assert_eq!(*encoded.bytes().unwrap(), *image(i), "image {i}");
        }
        let in_memory: u64 =
            kept.iter().filter(|e| e.spilled() == 0).map(|e| e.bytes().unwrap().len() as u64).sum();
        assert!((900..=1000).contains(&in_memory), "{in_memory} bytes in memory of 1000");
        assert_eq!(buffer.held.load(Ordering::Relaxed), in_memory);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files have no names");
        drop(kept);
        assert_eq!(buffer.held.load(Ordering::Relaxed), 0);
        assert_eq!(lanes[0].keep(vec![1; 1000]).unwrap().spilled(), 0, "there is room again");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        let buffer = Buffer::new(0, Path::new("/nonexistent/folder"));
        let error = Keeping::new(&buffer).keep(vec![1]).unwrap_err().to_string();
        for part in ["/nonexistent/folder", "spill_dir", "buffer_bytes"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
