//! Files that are there whole or not at all: each is written aside, in the folder where it belongs, and then
//! renamed into place.
//!
//! Two that write the same file write different ones aside, and the later one to finish stays. What is dropped
//! before it is in its place, because something failed, is gone. A process that is killed leaves its file
//! aside, with a name that begins with `.aside-`.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// What names of files begin with that are being written.
pub(crate) const PREFIX: &str = ".aside-";

/// A file that is written and not yet in its place. Dropped, it is gone.
#[derive(Debug)]
pub struct Aside {
    file: NamedTempFile,
    path: PathBuf,
}

impl Aside {
    /// Begins the file that is to be at `path`, whose folder is there.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As other files are made: those who may read the folder may read its files.
        let everyone = Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().prefix(PREFIX).permissions(everyone).tempfile_in(folder)?;
        Ok(Self { file, path })
    }

    /// The file that is to be at `path`, with all of its content: several can be written before the first is
    /// put in its place.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn of(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<Self> {
        let mut aside = Self::create(path)?;
        aside.write_all(content.as_ref())?;
        Ok(aside)
    }

    /// Where it is to be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, to be made durable.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Renames it to where it belongs, in the place of what is there.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn place(self) -> io::Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file: there is never half of it under the name `path`.
///
/// # Errors
/// It cannot be written; nothing is left behind then, and a file that was there stays.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
    Aside::of(path, content)?.place()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn two_writers_do_not_meet_and_one_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut outer = Aside::create(&path).unwrap();
        outer.write_all(b"out").unwrap();
        assert!(!path.exists());
        write(&path, b"inner").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"inner");
        outer.write_all(b"er").unwrap();
        outer.place().unwrap();
        let mut failed = Aside::create(&path).unwrap();
        failed.write_all(b"half").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop(failed);
        assert_eq!(std::fs::read(&path).unwrap(), b"outer");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn what_cannot_be_put_in_its_place_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        std::fs::create_dir_all(path.join("something")).unwrap();
        assert!(write(&path, b"content").is_err());
        assert_eq!(names(folder.path()), ["folder"]);
        assert!(write(folder.path().join("none/file"), b"content").is_err());
    }

    #[test]
    fn who_may_read_other_files_may_read_these() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, placed) = (folder.path().join("plain"), folder.path().join("placed"));
        std::fs::write(&plain, b"").unwrap();
        write(&placed, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&plain), mode(&placed));
    }
}
