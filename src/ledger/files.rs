//! The folder of a ledger: files that are written aside, renamed into place and never changed.
//!
//! A file's name ends in the hash of its content. So a file that is cut or damaged is no file of the
//! ledger, and two lanes (or ranks, or runs) that write the same window write the same file.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::error::{Error, Result};
use crate::hash;

/// Says what the folder is, and in which layout.
const MARKER: &str = "ledger.json";
const MARKER_CONTENT: &str = "{\"format\": \"tldr-loader ledger\", \"layout\": 1}\n";

/// What names of files begin with that are being written.
const ASIDE: &str = ".aside-";

/// Looks for a marker, and waits between them, where others begin the same ledger.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Numbers of windows, and the files of each.
type Listing = HashMap<u64, Vec<PathBuf>>;

/// Folders, one for each shard and kind of content, whose listings are held: those of far more lanes than
/// a rank has.
const LISTINGS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Folders that were listed lately, which files written since were added to.
    listed: Mutex<LruCache<PathBuf, Listing>>,
    warned: AtomicBool,
}

impl Folder {
    /// Opens the ledger in `root`, or begins one where nothing is.
    ///
    /// # Errors
    /// The folder holds something else, cannot be made, or cannot be written.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let cannot = |error| Error::io(format!("open the ledger {}", root.display()), error);
        let marker = root.join(MARKER);
        let mut patience = PATIENCE;
        loop {
            match fs::read_to_string(&marker) {
                Ok(content) if content == MARKER_CONTENT => break,
                Ok(content) => {
                    let expected = format!(
                        "{}; use another folder, or the version that wrote it",
                        MARKER_CONTENT.trim()
                    );
                    return Err(Error::format(marker.display().to_string(), expected, content.trim()));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(cannot(error)),
            }
            fs::create_dir_all(root).map_err(cannot)?;
            let mut others = fs::read_dir(root).map_err(cannot)?.flatten().map(|entry| entry.file_name());
            if !others.any(|name| !name.to_string_lossy().starts_with(ASIDE)) {
                place(&marker, MARKER_CONTENT.as_bytes()).map_err(cannot)?;
                break;
            }
            // Another rank may have begun the ledger meanwhile, and its marker may take a while to show.
            if patience == 0 {
                let accepted = "a folder of its own: one that is not there, is empty, or holds a ledger";
                return Err(Error::option("ledger", format!("{:?}", root.display()), accepted));
            }
            patience -= 1;
            std::thread::sleep(PAUSE);
        }
        Ok(Self {
            root: root.to_owned(),
            listed: Mutex::new(LruCache::new(LISTINGS)),
            warned: AtomicBool::new(false),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The files of `window` in the folder `below` the root, in order of their names.
    pub(super) fn files(&self, below: &Path, window: u64) -> Vec<PathBuf> {
        self.with_listing(below, |listing| listing.get(&window).cloned().unwrap_or_default())
    }

    /// The content of a file; `None`, and a warning, where it cannot be read or is not what its name
    /// says.
    pub(super) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(error) => {
                self.warn(&format!("{} cannot be read and is passed over: {error}", path.display()));
                return None;
            }
        };
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.rsplit('-').next() != Some(digest(&content).as_str()) {
            self.warn(&format!("{} is damaged and is passed over; it may be deleted", path.display()));
            return None;
        }
        Some(content)
    }

    /// Writes a file of `window` into the folder `below` the root. Where that fails, a warning says
    /// so, once: a ledger is a cache.
    pub(super) fn write(&self, below: &Path, window: u64, content: &[u8]) {
        let folder = self.root.join(below);
        let path = folder.join(format!("{window:06}-{}.parquet", digest(content)));
        let written = fs::create_dir_all(&folder).and_then(|()| place(&path, content));
        match written {
            Ok(()) => self.with_listing(below, |listing| {
                let files = listing.entry(window).or_default();
                if !files.contains(&path) {
                    files.push(path.clone());
                    files.sort();
                }
            }),
            Err(error) => self.warn(&format!(
                "the ledger cannot be written, and what is not in it will be computed again: {}: {error}",
                path.display()
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
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        // Listing happens under the lock: two lanes rarely begin the same shard, and a listing is short.
        work(listed.get_or_insert_mut(below.to_owned(), || list(&self.root.join(below))))
    }
}

/// The Parquet files of a folder, by window; none where there is no folder.
fn list(folder: &Path) -> Listing {
    let mut listing = Listing::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let window = name.strip_suffix(".parquet").and_then(|stem| stem.split_once('-')?.0.parse().ok());
        if let Some(window) = window {
            listing.entry(window).or_default().push(path);
        }
    }
    listing.values_mut().for_each(|files| files.sort());
    listing
}

fn digest(content: &[u8]) -> String {
    format!("{:016x}", hash::hash_bytes(content))
}

/// Writes `content` aside and renames it to `path`: there is never half a file of that name.
pub(crate) fn place(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As other files are made: those who may read the folder may read its files.
    let everyone = fs::Permissions::from_mode(0o666);
    let mut aside = tempfile::Builder::new().prefix(ASIDE).permissions(everyone).tempfile_in(folder)?;
    aside.write_all(content)?;
    aside.persist(path).map_err(|error| error.error)?;
    Ok(())
}
