//! A local folder of ranges that were read of remote objects, bounded in bytes.
//!
//! A file holds one range of one version of an object: `AB/ABCDEF0123456789/VERSION-START-LENGTH.range`, where the folder is
//! the hash of the URL. It begins with a magic, what it is of, and a checksum of every 64 KiB, so that what is damaged is
//! noticed and read anew. Files are written aside and renamed: processes may share the folder. The times of change say
//! what was used last. Nothing is deleted or replaced that has not both a name and a beginning as this module writes them.
//!
//! A cache never ends a run: where the folder cannot be written, or the disk is full, a warning says so.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::aside::{self, Aside};
use crate::hash;
use crate::shard::remote::identity::Identity;

/// What every file begins with; its end is the version of the format.
const MAGIC: [u8; 16] = *b"tldr-range-v001\n";

/// Ending of every file.
const ENDING: &str = ".range";

/// Bytes that have one checksum.
const BLOCK: u64 = 64 << 10;

/// Bytes before the checksums: the magic, the hashes of URL and version, the start and the length.
const HEAD: usize = 16 + 4 * 8;

/// How long nothing is written after something could not be.
const PAUSE: Duration = Duration::from_secs(60);

/// What is written between two looks at what others wrote, as a part of the bound.
const LOOK: u64 = 32;

/// What is freed at a time, as a part of the bound.
const FREED: u64 = 16;

/// Age from which a file aside was left behind by a process that is gone.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// A folder of ranges.
pub(super) struct Cache {
    folder: PathBuf,
    /// Bytes that it may hold.
    most: u64,
    state: Mutex<State>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cache").field(&self.folder).field(&self.most).finish()
    }
}

#[derive(Default)]
struct State {
    /// Bytes in the folder at the last look, and what was written since.
    total: u64,
    /// Bytes of files that are being written: a look does not see them.
    pending: u64,
    /// Bytes written since the last look; `None` before it.
    written: Option<u64>,
    /// Until when nothing is written.
    paused: Option<Instant>,
    /// Faults so far.
    faults: u64,
}

/// The ranges of one version of an object.
#[derive(Debug)]
pub(super) struct Shelf {
    cache: Arc<Cache>,
    folder: PathBuf,
    url: u64,
    version: u64,
}

/// A file of the cache.
struct Entry {
    used: SystemTime,
    size: u64,
    path: PathBuf,
}

impl Cache {
    /// The cache in `folder`, one for all lists of this process. Nothing is opened yet.
    pub(super) fn at(folder: &Path, most: u64) -> Arc<Self> {
        static OPEN: Mutex<Vec<Arc<Cache>>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = open.iter().find(|cache| cache.folder == folder && cache.most == most) {
            return Arc::clone(cache);
        }
        let cache = Arc::new(Self { folder: folder.to_owned(), most, state: Mutex::default() });
        open.push(Arc::clone(&cache));
        cache
    }

    /// Where ranges of `version` of the object `url` are; `None` where nothing would tell that it was replaced.
    pub(super) fn shelf(self: &Arc<Self>, url: &str, version: &Identity) -> Option<Shelf> {
        let (url, folder) = self.folder_of(url);
        let version = version.tells().then(|| hash::hash_str(&version.to_string()))?;
        Some(Shelf { cache: Arc::clone(self), folder, url, version })
    }

    /// Whether it may have ranges of the object `url`, in any version.
    pub(super) fn knows(&self, url: &str) -> bool {
        self.folder_of(url).1.exists()
    }

    fn folder_of(&self, url: &str) -> (u64, PathBuf) {
        let hash = hash::hash_str(url);
        let name = format!("{hash:016x}");
        (hash, self.folder.join(&name[..2]).join(name))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `size` more bytes may be written now; makes room for them.
    fn admits(&self, size: u64) -> bool {
        let mut state = self.state();
        let coming = state.pending.saturating_add(size);
        if coming > self.most || state.paused.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let is_due = state.written.is_none_or(|written| written + size > self.most / LOOK);
        if is_due || state.total.saturating_add(size) > self.most {
            let goal = self.most - coming;
            state.total = shrink(&self.folder, goal, self.most / FREED).saturating_add(state.pending);
            state.written = Some(0);
        }
        if state.total.saturating_add(size) > self.most {
            return false;
        }
        state.total += size;
        state.pending = coming;
        state.written = state.written.map(|written| written + size);
        true
    }

    /// Tells of what could not be written, and pauses.
    fn cannot(&self, path: &Path, error: &io::Error) {
        let mut state = self.state();
        state.paused = Some(Instant::now() + PAUSE);
        state.faults += 1;
        if state.faults.is_power_of_two() {
            tracing::warn!(
                faults = state.faults,
                "the shard cache {} cannot be written, and reading goes on without it for {} s: {}: {error}",
                self.folder.display(),
                PAUSE.as_secs(),
                path.display()
            );
        }
    }

    /// Tells of a file that is not as it was written.
    fn damaged(&self, path: &Path) {
        let mut state = self.state();
        state.faults += 1;
        if state.faults.is_power_of_two() {
            tracing::warn!(
                faults = state.faults,
                "{} in the shard cache is damaged; its range is read from the store again",
                path.display()
            );
        }
    }
}

impl Shelf {
    /// The ranges that are there, sorted by their starts.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = names(&self.folder)
            .filter_map(|name| parse(&name))
            .filter(|(version, _)| *version == self.version)
            .map(|(_, range)| range)
            .collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        ranges
    }

    /// The bytes `wanted` of the range `kept`, which holds them; `None` where they cannot be read any more.
    pub(super) fn read(&self, kept: &Range<u64>, wanted: &Range<u64>) -> Option<Vec<u8>> {
        let path = self.path(kept);
        let mut file = File::open(&path).ok()?;
        let bytes = self.part(&mut file, kept, wanted);
        if bytes.is_none() {
            self.cache.damaged(&path);
            if is_own(&path) {
                // Another process may have deleted it, or may be reading what is there of it.
                let _ = fs::remove_file(&path);
            }
            return None;
        }
        // Whoever may not note that it was used sees it deleted a little earlier.
        let _ = file.set_modified(SystemTime::now());
        bytes
    }

    fn part(&self, file: &mut File, kept: &Range<u64>, wanted: &Range<u64>) -> Option<Vec<u8>> {
        let blocks = (kept.end - kept.start).div_ceil(BLOCK);
        let mut head = vec![0; HEAD + 8 * blocks as usize + 8];
        file.read_exact(&mut head).ok()?;
        let (sums, own) = head.split_last_chunk::<8>()?;
        let is_whole = xxh3_64(sums).to_le_bytes() == *own && sums[..HEAD] == self.head(kept);
        let first = (wanted.start - kept.start) / BLOCK;
        let last = (wanted.end - kept.start).div_ceil(BLOCK);
        let (start, end) = (first * BLOCK, (last * BLOCK).min(kept.end - kept.start));
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, head.len() as u64 + start).ok()?;
        let known = sums[HEAD..].chunks(8).skip(first as usize);
        let found = bytes.chunks(BLOCK as usize).map(|block| xxh3_64(block).to_le_bytes());
        if !is_whole || !found.zip(known).all(|(found, known)| found == known) {
            return None;
        }
        let from = (wanted.start - kept.start - start) as usize;
        bytes.truncate(from + (wanted.end - wanted.start) as usize);
        bytes.drain(..from);
        Some(bytes)
    }

    /// Keeps what was read from `start` on.
    pub(super) fn write(&self, start: u64, parts: &[Bytes]) {
        let bytes: Vec<u8> = parts.concat();
        let range = start..start + bytes.len() as u64;
        if bytes.is_empty() {
            return;
        }
        let mut head = self.head(&range);
        for block in bytes.chunks(BLOCK as usize) {
            head.extend(xxh3_64(block).to_le_bytes());
        }
        let sum = xxh3_64(&head);
        head.extend(sum.to_le_bytes());
        let path = self.path(&range);
        // What is there under this name and is of somebody else stays.
        if path.symlink_metadata().is_ok() && !is_own(&path) {
            return;
        }
        let size = (head.len() + bytes.len()) as u64;
        if !self.cache.admits(size) {
            return;
        }
        let put = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = Aside::create(&path)?;
            file.write_all(&head)?;
            file.write_all(&bytes)?;
            file.place()
        };
        // A folder that is empty may be removed between the two steps by whoever makes room.
        let put_again =
            |error: io::Error| if error.kind() == io::ErrorKind::NotFound { put() } else { Err(error) };
        let done = put().or_else(put_again);
        self.cache.state().pending -= size;
        if let Err(error) = done {
            self.cache.cannot(&path, &error);
        }
    }

    fn head(&self, range: &Range<u64>) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        for number in [self.url, self.version, range.start, range.end - range.start] {
            head.extend(number.to_le_bytes());
        }
        head
    }

    fn path(&self, range: &Range<u64>) -> PathBuf {
        let (start, length) = (range.start, range.end - range.start);
        self.folder.join(format!("{:016x}-{start:x}-{length:x}{ENDING}", self.version))
    }
}

/// The version and the range that a name is of.
fn parse(name: &str) -> Option<(u64, Range<u64>)> {
    let mut parts = name.strip_suffix(ENDING)?.splitn(3, '-').map(|part| u64::from_str_radix(part, 16));
    let (version, start, length) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let range = start..start.checked_add(length)?;
    let is_written = name == format!("{version:016x}-{start:x}-{length:x}{ENDING}") && length > 0;
    is_written.then_some((version, range))
}

/// Names of what is in a folder; none where it cannot be read.
fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether a file begins as this module writes them.
fn is_own(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    let is_file = path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    is_file && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == MAGIC
}

/// Deletes what was used longest ago where the folder holds more than `goal` bytes, and `more` bytes beyond that. Returns
/// what it holds then.
fn shrink(folder: &Path, goal: u64, more: u64) -> u64 {
    let mut entries = entries(folder);
    let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
    if total <= goal {
        return total;
    }
    entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    for entry in entries {
        if total <= goal.saturating_sub(more) {
            break;
        }
        if !is_own(&entry.path) {
            // It is of somebody else, or is gone already.
            total -= entry.size;
            continue;
        }
        match fs::remove_file(&entry.path) {
            Ok(()) => total -= entry.size,
            Err(error) if error.kind() == io::ErrorKind::NotFound => total -= entry.size,
            Err(_) => {}
        }
        // Only what is empty is removed.
        if let Some(folder) = entry.path.parent() {
            let _ = fs::remove_dir(folder);
        }
    }
    total
}

/// The files with names of the cache; those aside where whoever wrote them is gone.
fn entries(folder: &Path) -> Vec<Entry> {
    let is_hash = |name: &String, digits: usize| {
        name.len() == digits && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut found = Vec::new();
    for outer in names(folder).filter(|name| is_hash(name, 2)) {
        let outer = folder.join(outer);
        for inner in names(&outer).filter(|name| is_hash(name, 16)) {
            let inner = outer.join(inner);
            for name in names(&inner) {
                let path = inner.join(&name);
                let Ok(meta) = path.symlink_metadata() else { continue };
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let is_left =
                    || name.starts_with(aside::PREFIX) && used.elapsed().is_ok_and(|age| age > LEFT_BEHIND);
                if meta.is_file() && (parse(&name).is_some() || is_left()) {
                    found.push(Entry { used, size: meta.len(), path });
                }
            }
        }
    }
    found
}
