//! Writes WebDataset shards: the same groups give the same bytes.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::aside::Aside;
use crate::error::{Error, Result};
use crate::shard::group::split;

/// Writes one shard, plain or compressed by its name.
///
/// Members are USTAR entries (GNU ones where a name is longer than USTAR holds) with fixed
/// owner, mode and time. The shard is written aside, in its own folder, and renamed into place by
/// [`finish`](Self::finish); a writer that is dropped before leaves nothing behind.
pub struct ShardWriter {
    /// `None` once the archive was taken out to be completed.
    archive: Option<tar::Builder<Output>>,
    path: PathBuf,
    keys: HashSet<String>,
}

/// The file, through the compression that its name asks for.
enum Output {
    Plain(BufWriter<Aside>),
    Gzip(flate2::write::GzEncoder<BufWriter<Aside>>),
    Zstd(zstd::Encoder<'static, BufWriter<Aside>>),
}

impl ShardWriter {
    /// Starts a shard at `path`, which ends in `.tar`, `.tar.gz`, `.tgz` or `.tar.zst`. A file
    /// that is there is replaced when the shard is finished.
    ///
    /// # Errors
    /// Another name; a folder that cannot be written to.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let gzip = name.ends_with(".tar.gz") || name.ends_with(".tgz");
        let zstd = name.ends_with(".tar.zst");
        if !gzip && !zstd && !name.ends_with(".tar") {
            let accepted = "a name that ends in .tar, .tar.gz, .tgz or .tar.zst";
            return Err(Error::option("path", path.display(), accepted));
        }
        let cannot = |error| Error::io(format!("create {}", path.display()), error);
        let file = BufWriter::new(Aside::create(&path).map_err(cannot)?);
        let output = if gzip {
            Output::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default()))
        } else if zstd {
            Output::Zstd(zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(cannot)?)
        } else {
            Output::Plain(file)
        };
        Ok(Self { archive: Some(tar::Builder::new(output)), path, keys: HashSet::new() })
    }

    /// Appends one group: `members` are (extension without its dot, data).
    ///
    /// # Errors
    /// A key or extension that would not be read back as it is (empty, a repetition, a hidden or
    /// `__meta__` file, a dot in the key's last component); a failed write.
    pub fn write(&mut self, key: &str, members: &[(&str, &[u8])]) -> Result<()> {
        let what = format!("key {key:?} of {}", self.path.display());
        if members.is_empty() {
            return Err(Error::format(what, "at least one member", "none"));
        }
        let mut extensions = HashSet::new();
        for (extension, _) in members {
            let name = format!("{key}.{extension}");
            let lower = extension.to_ascii_lowercase();
            let is_path =
                name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\0');
            if lower.is_empty() || !is_path || split(&name) != Some((key, lower.clone())) {
                let expected = "a relative path, its last component without a dot, and an extension, \
                                of a file that is neither hidden nor below a folder like __name__";
                return Err(Error::format(what, expected, format!("{name:?}")));
            }
            if !extensions.insert(lower) {
                return Err(Error::format(what, "different extensions", format!("{extension:?} twice")));
            }
        }
        if !self.keys.insert(key.to_owned()) {
            return Err(Error::format(what, "a key of its own for each group", "the same key twice"));
        }
        let cannot = |error| Error::io(format!("write {}", self.path.display()), error);
        let Some(archive) = &mut self.archive else { return Ok(()) };
        for (extension, data) in members {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(data.len() as u64);
            archive.append_data(&mut header, format!("{key}.{extension}"), *data).map_err(cannot)?;
        }
        Ok(())
    }

    /// Completes the shard, makes it durable and renames it into place.
    ///
    /// # Errors
    /// A failed write or rename; then nothing is left behind.
    pub fn finish(mut self) -> Result<()> {
        let cannot = |error| Error::io(format!("write {}", self.path.display()), error);
        let Some(archive) = self.archive.take() else { return Ok(()) };
        let shard = archive.into_inner().and_then(Output::complete).map_err(cannot)?;
        shard.file().sync_all().map_err(cannot)?;
        shard.place().map_err(cannot)
    }
}

impl Output {
    fn complete(self) -> io::Result<Aside> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Gzip(gzip) => gzip.finish()?,
            Self::Zstd(zstd) => zstd.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
            Self::Zstd(zstd) => zstd.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(gzip) => gzip.flush(),
            Self::Zstd(zstd) => zstd.flush(),
        }
    }
}
