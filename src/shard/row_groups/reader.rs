//! Rows of a Parquet file, read row group by row group.
//!
//! Of the column with the images, pages without a wanted row are skipped by their headers. The other columns of a
//! row group are small and read from its start on. A row fails by itself: whether it can be read depends on its
//! pages alone, and not on where reading started.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};

use crate::error::{Error, Result};
use crate::shard::location::{Location, Shard};
use crate::shard::remote::Identity;
use crate::shard::row_groups::chunks::Chunks;
use crate::shard::row_groups::layout::Layout;
use crate::shard::row_groups::row_json;
use crate::shard::version::Version;

/// What Parquet files begin with.
const MAGIC: [u8; 4] = *b"PAR1";

/// What is read of a row.
pub(crate) struct RowData {
    /// The encoded image; `None` where the column is null, or was not asked for.
    pub(crate) image: Option<Vec<u8>>,
    /// The other columns, as an object.
    pub(crate) json: Vec<u8>,
}

/// Why a row cannot be read.
pub(crate) enum Unread {
    /// Its pages are damaged.
    Damage(String),
    /// The store or the disk failed.
    Store(io::Error),
}

/// An open file.
pub(crate) struct RowReader {
    file: SerializedFileReader<Chunks>,
    chunks: Chunks,
    layout: Arc<Layout>,
    version: Version,
    /// First row of each row group, and the number of all rows.
    starts: Vec<u64>,
    group: Option<OpenGroup>,
    /// Row groups that will be read, in order.
    ahead: Vec<usize>,
    /// Names of the columns that are read; `None`: all.
    columns: Option<Vec<String>>,
}

/// A row group that is read.
struct OpenGroup {
    number: usize,
    image: Option<Column<Images>>,
    fields: Column<ReaderIter>,
    /// What is wrong with the other columns, from the row on that comes next.
    damaged: Option<String>,
}

type Images = ColumnReaderImpl<ByteArrayType>;

/// A column, or several, with the row of the group that comes next.
struct Column<T> {
    next: u64,
    reader: T,
}

impl RowReader {
    /// Opens `shard`, of the version `known`, or whatever is there.
    ///
    /// # Errors
    /// The file cannot be opened or read, is no Parquet file, or has no column with images.
    pub(crate) fn open(
        shard: &Shard,
        known: Option<&Identity>,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Self> {
        let cannot = |error| Error::io(format!("open {}", shard.url), error);
        let (chunks, version) = match &shard.location {
            Location::Local => {
                let file = File::open(&*shard.url).map_err(cannot)?;
                let Some((version, len)) = Version::of_file(&file).map_err(cannot)? else {
                    let message = "a Parquet file is read at any place, which a pipe cannot be";
                    return Err(cannot(io::Error::other(message)));
                };
                (Chunks::of_file(file, len), version)
            }
            Location::Remote(object) => {
                let chunks = Chunks::of_object(object, known.cloned(), stop).map_err(cannot)?;
                let Some(version) = chunks.identity().cloned().map(Version::Object) else {
                    return Err(cannot(io::Error::other("an object without a version, which is a bug")));
                };
                (chunks, version)
            }
        };
        let wrong = |found: String| {
            Error::format(
                "shard",
                "a Parquet file with a column of encoded images (image, image.bytes, jpg)",
                found,
            )
        };
        let start = guarded(&chunks, || chunks.get_bytes(0, MAGIC.len().min(chunks.len() as usize)));
        match start {
            Err(Unread::Store(error)) => return Err(cannot(error)),
            Ok(bytes) if bytes.is_empty() => return Err(wrong("an empty file".into())),
            Ok(bytes) if *bytes != MAGIC => {
                let found = "a file that does not begin as one; if it is a tar file, give it that ending";
                return Err(wrong(found.into()));
            }
            _ => {}
        }
        let opened = guarded(&chunks, || SerializedFileReader::new(chunks.clone()));
        let file = opened.map_err(|unread| match unread {
            Unread::Store(error) => cannot(error),
            Unread::Damage(what) => wrong(format!("{what} (its end says what it holds: it may be cut off)")),
        })?;
        let metadata = file.metadata();
        let layout = Layout::of(metadata.file_metadata().schema_descr()).map_err(|found| {
            wrong(format!("{found}; if it describes tar files beside it, list those instead"))
        })?;
        let mut starts = vec![0_u64];
        for group in metadata.row_groups() {
            let rows =
                u64::try_from(group.num_rows()).map_err(|_| wrong("a negative number of rows".into()))?;
            starts.push(starts[starts.len() - 1].saturating_add(rows));
        }
        let ahead = (0..starts.len() - 1).collect();
        let layout = Arc::new(layout);
        Ok(Self { file, chunks, layout, version, starts, group: None, ahead, columns: None })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// What the columns are.
    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Which version of the file is read.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// From here on only these columns are read, beside the image.
    pub(crate) fn only(&mut self, columns: Vec<String>) {
        self.columns = Some(columns);
        self.group = None;
    }

    /// Says which rows will be read, so that nothing else is asked for ahead.
    pub(crate) fn expect(&mut self, rows: impl Iterator<Item = u64>) {
        self.ahead = rows.map(|row| self.group_of(row)).collect();
        self.ahead.dedup();
    }

    /// Place in the file of the row group that holds `row`: its first byte.
    pub(crate) fn offset(&self, row: u64) -> u64 {
        let groups = self.file.metadata().row_groups();
        let group = groups.get(self.group_of(row));
        let first = group.and_then(|group| (0..group.num_columns()).map(|i| bytes_of(group, i).start).min());
        first.unwrap_or(0)
    }

    /// Reads `row`, counted from 0; its image only if `image`. Rows that ascend are read in one go.
    ///
    /// # Errors
    /// As [`Unread`]; another row may be readable.
    pub(crate) fn read(&mut self, row: u64, image: bool) -> Result<RowData, Unread> {
        let number = self.group_of(row);
        let at = row.saturating_sub(self.starts[number]);
        if self.group.as_ref().is_none_or(|open| open.number != number || open.fields.next > at) {
            self.group = None;
            self.group = Some(self.open_group(number)?);
        }
        // It was opened just now, where it was not open.
        let Some(open) = &mut self.group else { return Err(Unread::Damage("no row group".into())) };
        if let Some(what) = &open.damaged {
            return Err(Unread::Damage(what.clone()));
        }
        let json = guarded(&self.chunks, || open.fields.read(at)).inspect_err(|unread| {
            // Every reader starts with the group's first row: none gets further.
            if let Unread::Damage(what) = unread {
                open.damaged = Some(what.clone());
            }
        })?;
        if !image {
            return Ok(RowData { image: None, json });
        }
        let usable = open.image.take().filter(|column| column.next <= at);
        let mut column = match usable {
            Some(column) => column,
            None => self.open_images(number)?,
        };
        let image = guarded(&self.chunks, || column.read(at, self.layout.present))?;
        if let Some(open) = &mut self.group {
            open.image = Some(column);
        }
        Ok(RowData { image, json })
    }

    fn group_of(&self, row: u64) -> usize {
        let behind = self.starts.partition_point(|&start| start <= row);
        behind.saturating_sub(1).min(self.starts.len().saturating_sub(2))
    }

    fn open_group(&self, number: usize) -> Result<OpenGroup, Unread> {
        let group = self.file.metadata().row_groups().get(number);
        let group = group.ok_or_else(|| Unread::Damage(format!("there is no row group {number}")))?;
        let is_read = |field: &&Arc<Type>| {
            self.columns.as_ref().is_none_or(|columns| columns.iter().any(|name| name == field.name()))
        };
        let fields: Vec<Arc<Type>> = self.layout.fields.iter().filter(is_read).cloned().collect();
        let is_field = |i: &usize| {
            let path = group.column(*i).column_path();
            path.parts().first().is_some_and(|name| fields.iter().any(|field| field.name() == name))
        };
        let mut small: Vec<Range<u64>> =
            (0..group.num_columns()).filter(is_field).map(|i| bytes_of(group, i)).collect();
        small.sort_by_key(|range| range.start);
        self.chunks.hold(small).map_err(Unread::Store)?;
        guarded(&self.chunks, || {
            let rows = self.file.get_row_group(number)?;
            let reader = TreeBuilder::new().as_iter(descriptor(&fields)?, &*rows)?;
            Ok(OpenGroup { number, image: None, fields: Column { next: 0, reader }, damaged: None })
        })
    }

    fn open_images(&self, number: usize) -> Result<Column<Images>, Unread> {
        let from = self.ahead.iter().position(|&ahead| ahead == number);
        let ahead = from.map_or(std::slice::from_ref(&number), |from| &self.ahead[from..]);
        let groups = self.file.metadata().row_groups();
        let images = ahead.iter().filter_map(|&at| groups.get(at)).map(|g| bytes_of(g, self.layout.leaf));
        self.chunks.go_ahead(images.collect()).map_err(Unread::Store)?;
        guarded(&self.chunks, || {
            match self.file.get_row_group(number)?.get_column_reader(self.layout.leaf)? {
                ColumnReader::ByteArrayColumnReader(reader) => Ok(Column { next: 0, reader }),
                _ => Err(ParquetError::General("the column with images holds no bytes".into())),
            }
        })
    }
}

fn descriptor(fields: &[Arc<Type>]) -> Parsed<SchemaDescPtr> {
    let root = Type::group_type_builder("row").with_fields(fields.to_vec()).build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

/// Where the pages of a column lie.
fn bytes_of(group: &RowGroupMetaData, column: usize) -> Range<u64> {
    // Checked: `byte_range` panics where a damaged footer has a negative number.
    let chunk = group.column(column);
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let start = u64::try_from(start).unwrap_or(0);
    start..start.saturating_add(u64::try_from(chunk.compressed_size()).unwrap_or(0))
}

impl Column<Images> {
    /// The bytes of row `at`, which is not behind.
    fn read(&mut self, at: u64, present: i16) -> Parsed<Option<Vec<u8>>> {
        let skipped = at - self.next;
        let wanted = usize::try_from(skipped).unwrap_or(usize::MAX);
        let (mut levels, mut values) = (vec![], Vec::<ByteArray>::with_capacity(1));
        let found = self.reader.skip_records(wanted)?;
        let (read, ..) = self.reader.read_records(1, Some(&mut levels), None, &mut values)?;
        if found < wanted || read == 0 {
            return Err(ParquetError::General(
                "the column with images has fewer rows than the file says".into(),
            ));
        }
        self.next = at + 1;
        let is_there = present == 0 || levels.first() == Some(&present);
        Ok(values.pop().filter(|_| is_there).map(|bytes| bytes.data().to_vec()))
    }
}

impl Column<ReaderIter> {
    /// The json of row `at`, which is not behind.
    fn read(&mut self, at: u64) -> Parsed<Vec<u8>> {
        let fewer = || ParquetError::General("a column has fewer rows than the file says".into());
        while self.next < at {
            self.reader.next().ok_or_else(fewer)??;
            self.next += 1;
        }
        let row = self.reader.next().ok_or_else(fewer)??;
        self.next = at + 1;
        Ok(row_json::of_row(row.get_column_iter()))
    }
}

type Parsed<T> = std::result::Result<T, ParquetError>;

/// What `work` says of the file. The crate checks what it reads, but not everywhere: damage must cost rows, no more.
fn guarded<T>(chunks: &Chunks, work: impl FnOnce() -> Parsed<T>) -> Result<T, Unread> {
    let found = catch_unwind(AssertUnwindSafe(work));
    if let Some(error) = chunks.take_failure() {
        return Err(Unread::Store(error));
    }
    match found {
        Ok(found) => found.map_err(|error| Unread::Damage(error.to_string())),
        Err(_) => Err(Unread::Damage("pages that cannot be decoded".into())),
    }
}
