//! A local file, read where it is asked for: little after a jump, much in a row.
//!
//! A scan of headers jumps from member to member and needs a block or two at each; reading whole
//! samples goes straight on. One buffer serves both: after a jump it takes [`AFTER_JUMP`] bytes,
//! else [`IN_A_ROW`]. Reads are positioned (`pread`), so that nothing depends on a file cursor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read after a jump: the headers and the small members between two images, as a rule.
const AFTER_JUMP: usize = 4 << 10;

/// Bytes read where the last read ended: small members arrive together.
const IN_A_ROW: usize = 64 << 10;

/// A regular file with a position.
pub(super) struct LocalFile {
    file: File,
    len: u64,
    position: u64,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    start: u64,
}

impl LocalFile {
    /// `file` from its start, taken to be `len` bytes long.
    pub(super) fn new(file: File, len: u64) -> Self {
        Self { file, len, position: 0, buffer: Vec::new(), start: 0 }
    }

    /// Reads up to `out.len()` bytes; 0 at the end of the file.
    pub(super) fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ahead().is_empty() {
            if out.len() >= IN_A_ROW {
                let read = retried(|| self.file.read_at(out, self.position))?;
                self.position += read as u64;
                return Ok(read);
            }
            self.refill()?;
        }
        let ahead = self.ahead();
        let n = ahead.len().min(out.len());
        out[..n].copy_from_slice(&ahead[..n]);
        self.position += n as u64;
        Ok(n)
    }

    /// Skips the next `n` bytes without reading them; returns how many of them there are.
    pub(super) fn skip(&mut self, n: u64) -> u64 {
        let there = n.min(self.len.saturating_sub(self.position));
        self.position += there;
        there
    }

    /// What the buffer holds from the position on.
    fn ahead(&self) -> &[u8] {
        let at = self.position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.buffer.get(at..)).unwrap_or_default()
    }

    fn refill(&mut self) -> io::Result<()> {
        let goes_on = self.position == self.start + self.buffer.len() as u64;
        self.buffer.resize(if goes_on { IN_A_ROW } else { AFTER_JUMP }, 0);
        self.start = self.position;
        let (file, buffer) = (&self.file, &mut self.buffer);
        let read = retried(|| file.read_at(buffer, self.start));
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        read.map(drop)
    }
}

/// Calls `read` again where a signal interrupted it.
fn retried(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
