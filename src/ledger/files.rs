//! The folder of a ledger: files that are there whole or not at all, and never changed.
//!
//! A file's name ends in the hash of its content. So a file that is cut or damaged is no file of the
//! ledger, and two lanes (or ranks, or runs) that write the same window write the same file.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::aside;
use crate::error::{Error, Result};
use crate::hash;
use crate::ledger::root::Root;

/// Says what the folder is, and in which layout.
const MARKER: &str = "ledger.json";
const MARKER_CONTENT: &str = "{\"format\": \"tldr-loader ledger\", \"layout\": 1}\n";

/// Looks for a marker, and waits between them, where others begin the same ledger.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Numbers of windows, and the names of the files of each.
type Listing = HashMap<u64, Vec<Box<str>>>;

/// Folders, one for each shard and kind of content, whose listings are held: those of 32 lanes.
const LISTINGS: NonZeroUsize = NonZeroUsize::new(128).unwrap();

#[derive(Debug)]
pub(super) struct Folder {
    root: Root,
    /// Folders that were listed lately, which files written since were added to.
    listed: Mutex<LruCache<PathBuf, Listing>>,
    warned: AtomicBool,
}

impl Folder {
    /// Opens the ledger in `root`, or begins one where nothing is.
    ///
    /// # Errors
    /// The folder holds something else, cannot be made, or cannot be written.
    pub(super) fn open(root: Root) -> Result<Self> {
        let cannot = |error| Error::io(format!("open the ledger {}", root.name()), error);
        let marker = Path::new(MARKER);
        let mut patience = PATIENCE;
        loop {
            match root.read(marker).map_err(cannot)? {
                Some(content) if content == MARKER_CONTENT.as_bytes() => break,
                Some(content) => {
                    let expected = format!(
                        "{}; use another folder, or the version that wrote it",
                        MARKER_CONTENT.trim()
                    );
                    let found = String::from_utf8_lossy(&content).trim().to_owned();
                    return Err(Error::format(root.name_of(marker), expected, found));
                }
                None => {}
            }
            root.make().map_err(cannot)?;
            let others = root.list(Path::new("")).map_err(cannot)?;
            if others.iter().all(|entry| entry.name.starts_with(aside::PREFIX)) {
                root.write(marker, MARKER_CONTENT.as_bytes()).map_err(cannot)?;
                break;
            }
            // Another rank may have begun the ledger meanwhile, and its marker may take a while to show.
            if patience == 0 {
                let accepted = "a folder of its own: one that is not there, is empty, or holds a ledger";
                return Err(Error::option("ledger", format!("{:?}", root.name()), accepted));
            }
            patience -= 1;
            std::thread::sleep(PAUSE);
        }
        Ok(Self { root, listed: Mutex::new(LruCache::new(LISTINGS)), warned: AtomicBool::new(false) })
    }

    /// Whether there is a ledger in `root`.
    ///
    /// # Errors
    /// It cannot be looked into.
    pub(super) fn is_at(root: &Root) -> Result<bool> {
        let marker = root.read(Path::new(MARKER));
        let marker = marker.map_err(|e| Error::io(format!("open the ledger {}", root.name()), e))?;
        Ok(marker.is_some())
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// The files of `window` in the folder `below` the root, in order of their names.
    pub(super) fn files(&self, below: &Path, window: u64) -> Vec<PathBuf> {
        self.with_listing(below, |listing| {
            listing.get(&window).into_iter().flatten().map(|name| below.join(&**name)).collect()
        })
    }

    /// The content of a file; `None`, and a warning, where it cannot be read or is not what its name
    /// says.
    pub(super) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let found =
            self.root.read(path).and_then(|content| content.ok_or_else(|| ErrorKind::NotFound.into()));
        let content = match found {
            Ok(content) => content,
            Err(error) => {
                self.warn(&format!("{} cannot be read and is skipped: {error}", self.root.name_of(path)));
                return None;
            }
        };
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.rsplit('-').next() != Some(digest(&content).as_str()) {
            let name = self.root.name_of(path);
            self.warn(&format!("{name} is damaged and is skipped; it may be deleted"));
            return None;
        }
        Some(content)
    }

    /// Writes a file of `window` into the folder `below` the root. Where that fails, a warning says
    /// so, once: a ledger is a cache.
    pub(super) fn write(&self, below: &Path, window: u64, content: &[u8]) {
        let name = format!("{window:06}-{}.parquet", digest(content));
        let path = below.join(&name);
        match self.root.write(&path, content) {
            Ok(()) => self.with_listing(below, |listing| {
                let files = listing.entry(window).or_default();
                if files.iter().all(|known| **known != *name) {
                    files.push(name.into());
                    files.sort();
                }
            }),
            Err(error) => self.warn(&format!(
                "the ledger cannot be written, and what is not in it will be computed again: {}: {error}",
                self.root.name_of(&path)
            )),
        }
    }

    /// Tells of a fault: the first time as a warning.
    pub(super) fn warn(&self, what: &str) {
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!("{what}");
        } else {
            tracing::warn!("{what} (the first of its kind; others are not named)");
        }
    }

    fn with_listing<T>(&self, below: &Path, work: impl FnOnce(&mut Listing) -> T) -> T {
        let lock = || self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = lock().get_mut(below) {
            return work(listing);
        }
        // A store may take its time: others go on meanwhile. Who was first stays, and knows what was written
        // since.
        let fresh = self.list(below);
        work(lock().get_or_insert_mut(below.to_owned(), || fresh))
    }

    /// The Parquet files of a folder, by window; none where there is no folder.
    fn list(&self, below: &Path) -> Listing {
        let entries = self.root.list(below).unwrap_or_else(|error| {
            self.warn(&format!("{} cannot be listed: {error}", self.root.name_of(below)));
            vec![]
        });
        let mut listing = Listing::new();
        for name in entries.into_iter().map(|entry| entry.name) {
            if let Some(window) = window_of(&name) {
                listing.entry(window).or_default().push(name.into());
            }
        }
        listing
    }
}

/// The window that a file of this name holds; `None` of other names.
pub(super) fn window_of(name: &str) -> Option<u64> {
    name.strip_suffix(".parquet")?.split_once('-')?.0.parse().ok()
}

fn digest(content: &[u8]) -> String {
    format!("{:016x}", hash::hash_bytes(content))
}
