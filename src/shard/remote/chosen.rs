//! Chosen ranges of an object, read one by one, asked for together.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::shard::remote::identity::Identity;
use crate::shard::remote::ranges::{MAX_GAP, merge};
use crate::shard::remote::reader::RemoteReader;
use crate::shard::remote::store::Object;

/// Reads ranges of one version of an object. Those that ascend and lie close together come with one
/// request, and what lies between them is skipped.
pub(crate) struct ChosenReader {
    object: Object,
    version: Identity,
    stop: Option<Arc<AtomicBool>>,
    /// Stretches that were not begun: merged ranges that ascend.
    stretches: VecDeque<Vec<Range<u64>>>,
    /// What is left of the stretch that is read; the first one's start is the next byte.
    ranges: VecDeque<Range<u64>>,
    bytes: Option<RemoteReader>,
}

impl ChosenReader {
    /// Will read `wanted`, in this order. A range that starts before the end of the one before it
    /// begins a new stretch, with requests of its own.
    pub(crate) fn new(
        object: Object,
        version: Identity,
        wanted: impl IntoIterator<Item = Range<u64>>,
        stop: Option<Arc<AtomicBool>>,
    ) -> Self {
        let mut stretches: Vec<Vec<Range<u64>>> = Vec::new();
        for range in wanted.into_iter().filter(|range| range.start < range.end) {
            match stretches.last_mut() {
                Some(stretch) if stretch.last().is_none_or(|last| last.end <= range.start) => {
                    stretch.push(range);
                }
                _ => stretches.push(vec![range]),
            }
        }
        let stretches = stretches.into_iter().map(|stretch| merge(stretch, MAX_GAP)).collect();
        Self { object, version, stop, stretches, ranges: VecDeque::new(), bytes: None }
    }

    /// The bytes of the next wanted range.
    ///
    /// # Errors
    /// As a [`RemoteReader`]'s; a range that is not the next wanted one.
    pub(crate) fn read(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut data = vec![0; range.end.saturating_sub(range.start) as usize];
        if data.is_empty() {
            return Ok(data);
        }
        while self.ranges.front().is_none_or(|next| range.start < next.start || next.end < range.end) {
            self.ranges.pop_front();
            if self.ranges.is_empty() {
                self.begin()?;
            }
        }
        let unasked = || io::Error::other("bytes were not asked for, which is a bug");
        let (Some(next), Some(bytes)) = (self.ranges.front_mut(), &mut self.bytes) else {
            return Err(unasked());
        };
        let gap = range.start - next.start;
        if io::copy(&mut bytes.by_ref().take(gap), &mut io::sink())? < gap {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.read_exact(&mut data)?;
        next.start = range.end;
        Ok(data)
    }

    /// Asks for the next stretch.
    fn begin(&mut self) -> io::Result<()> {
        let Some(stretch) = self.stretches.pop_front() else {
            return Err(io::Error::other("bytes were not asked for, which is a bug"));
        };
        let (version, stop) = (Some(self.version.clone()), self.stop.clone());
        self.bytes = Some(RemoteReader::ranges(&self.object, stretch.clone(), version, stop)?);
        self.ranges = stretch.into();
        Ok(())
    }
}
