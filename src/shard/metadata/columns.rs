//! Single columns of a Parquet file of any size, a few thousand rows at a time.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use half::f16;
use parquet::basic::{LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;

/// Rows that are in memory at a time.
const ROWS: usize = 8192;

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::shard) enum Cell {
    Text(String),
    Number(i64),
    Real(f64),
    Truth(bool),
    /// Of a list of texts, without nulls.
    Texts(Vec<String>),
}

/// Takes the values of a row.
pub(in crate::shard) type EachRow<'a> = dyn FnMut(&mut [Option<Cell>]) -> Result<(), String> + 'a;

/// An open file.
pub(in crate::shard) struct Columns {
    file: SerializedFileReader<File>,
}

impl Columns {
    /// # Errors
    /// What is wrong with the file, in words.
    pub(in crate::shard) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        guarded(|| Ok(Self { file: SerializedFileReader::new(file)? }))
    }

    /// Names of the columns that are not nested.
    pub(in crate::shard) fn names(&self) -> Vec<String> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        let plain = schema.columns().iter().filter(|column| column.path().parts().len() == 1);
        plain.map(|column| column.name().to_owned()).collect()
    }

    /// Names of the columns of numbers or truth values that are not nested.
    pub(in crate::shard) fn numbers(&self) -> Vec<String> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        let is_number = |column: &ColumnDescPtr| {
            let plain = matches!(
                column.logical_type_ref(),
                None | Some(LogicalType::Integer { .. } | LogicalType::Float16)
            );
            let kind = column.physical_type();
            let is_half = matches!(column.logical_type_ref(), Some(LogicalType::Float16));
            plain
                && (is_half
                    || matches!(kind, Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE | Type::BOOLEAN))
        };
        let plain =
            schema.columns().iter().filter(|column| column.path().parts().len() == 1 && is_number(column));
        plain.map(|column| column.name().to_owned()).collect()
    }

    /// Hands the values of `columns` to `each`, row by row: texts, numbers, truth values and lists of texts, null as `None`.
    ///
    /// # Errors
    /// A column that is not there, is nested or holds something else; damage; what `each` says.
    pub(in crate::shard) fn each(&self, columns: &[&str], each: &mut EachRow<'_>) -> Result<(), String> {
        // What `each` says passes through the guard beside the errors of the crate.
        let mut said = Ok(());
        guarded(|| self.rows(columns, each, &mut said))?;
        said
    }

    fn rows(
        &self,
        columns: &[&str],
        each: &mut EachRow<'_>,
        said: &mut Result<(), String>,
    ) -> Result<(), ParquetError> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        let mut at = Vec::with_capacity(columns.len());
        for name in columns {
            // A list has its entries in a group of its own, whose names differ from writer to writer.
            let is_it = |column: &ColumnDescPtr| match column.path().parts() {
                [own] => own == name,
                [own, ..] => own == name && column.max_rep_level() == 1,
                [] => false,
            };
            let mut found = (0..schema.num_columns()).filter(|&index| is_it(&schema.column(index)));
            let (Some(index), None) = (found.next(), found.next()) else {
                let what = format!("no column {name:?} of plain values or lists of them");
                return Err(ParquetError::General(what));
            };
            at.push((index, schema.column(index)));
        }
        for group in 0..self.file.num_row_groups() {
            let rows = self.file.get_row_group(group)?;
            let mut left = usize::try_from(rows.metadata().num_rows()).unwrap_or(0);
            let mut readers = Vec::with_capacity(columns.len());
            for (index, _) in &at {
                readers.push(rows.get_column_reader(*index)?);
            }
            while left > 0 {
                let wanted = left.min(ROWS);
                let mut values = Vec::with_capacity(columns.len());
                for ((reader, (_, column)), name) in readers.iter_mut().zip(&at).zip(columns) {
                    let cells = cells(reader, wanted, column, name)?;
                    if cells.len() != wanted {
                        let what = format!("{name:?} has fewer rows than the file says");
                        return Err(ParquetError::General(what));
                    }
                    values.push(cells.into_iter());
                }
                for _ in 0..wanted {
                    let mut row: Vec<Option<Cell>> =
                        values.iter_mut().map(|cells| cells.next().flatten()).collect();
                    if let Err(why) = each(&mut row) {
                        *said = Err(why);
                        return Ok(());
                    }
                }
                left -= wanted;
            }
        }
        Ok(())
    }
}

/// The next `wanted` values of a column.
fn cells(
    reader: &mut ColumnReader,
    wanted: usize,
    column: &ColumnDescPtr,
    name: &str,
) -> Result<Vec<Option<Cell>>, ParquetError> {
    let optional = column.max_def_level() > 0;
    match reader {
        ColumnReader::ByteArrayColumnReader(reader) if column.max_rep_level() > 0 => {
            lists(reader, wanted, column.max_def_level())
        }
        _ if column.max_rep_level() > 0 => {
            Err(ParquetError::General(format!("the column {name:?} holds lists of other values than texts")))
        }
        ColumnReader::ByteArrayColumnReader(column) => {
            let text = |value: ByteArray| Ok(Cell::Text(value.as_utf8()?.to_owned()));
            values(column, wanted, optional, text)
        }
        ColumnReader::Int64ColumnReader(column) => values(column, wanted, optional, |n| Ok(Cell::Number(n))),
        ColumnReader::Int32ColumnReader(column) => {
            values(column, wanted, optional, |n| Ok(Cell::Number(n.into())))
        }
        ColumnReader::FloatColumnReader(column) => {
            values(column, wanted, optional, |n| Ok(Cell::Real(n.into())))
        }
        ColumnReader::DoubleColumnReader(column) => values(column, wanted, optional, |n| Ok(Cell::Real(n))),
        // Half floats, and the 16 bytes of a UUID.
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            let is_half = matches!(column.logical_type_ref(), Some(LogicalType::Float16));
            values(reader, wanted, optional, |value| match *value.data() {
                [low, high] if is_half => Ok(Cell::Real(f16::from_le_bytes([low, high]).into())),
                ref bytes if bytes.len() == 16 => {
                    Ok(Cell::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
                }
                _ => {
                    Err(ParquetError::General(format!("the column {name:?} holds neither texts nor numbers")))
                }
            })
        }
        ColumnReader::BoolColumnReader(column) => values(column, wanted, optional, |n| Ok(Cell::Truth(n))),
        _ => Err(ParquetError::General(format!("the column {name:?} holds neither texts nor numbers"))),
    }
}

/// The next `wanted` lists of texts of a column; null where a list has no text. An entry is there where its definition
/// level is the highest.
fn lists(
    column: &mut ColumnReaderImpl<ByteArrayType>,
    wanted: usize,
    defined: i16,
) -> Result<Vec<Option<Cell>>, ParquetError> {
    let (mut definitions, mut repetitions, mut found) = (vec![], vec![], vec![]);
    column.read_records(wanted, Some(&mut definitions), Some(&mut repetitions), &mut found)?;
    let (mut found, mut rows) = (found.into_iter(), Vec::<Vec<String>>::with_capacity(wanted));
    for (definition, repetition) in definitions.into_iter().zip(repetitions) {
        if repetition == 0 {
            rows.push(vec![]);
        }
        if definition == defined
            && let (Some(row), Some(value)) = (rows.last_mut(), found.next())
        {
            row.push(value.as_utf8()?.to_owned());
        }
    }
    Ok(rows.into_iter().map(|row| (!row.is_empty()).then_some(Cell::Texts(row))).collect())
}

fn values<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    wanted: usize,
    optional: bool,
    cell: impl Fn(T::T) -> Result<Cell, ParquetError>,
) -> Result<Vec<Option<Cell>>, ParquetError> {
    let (mut levels, mut found) = (Vec::with_capacity(wanted), Vec::with_capacity(wanted));
    let (records, _, _) = column.read_records(wanted, optional.then_some(&mut levels), None, &mut found)?;
    let mut found = found.into_iter();
    if !optional {
        return found.map(|value| cell(value).map(Some)).collect();
    }
    let missing = || ParquetError::General("it has fewer values than it says".into());
    levels.truncate(records);
    levels
        .into_iter()
        .map(
            |level| {
                if level > 0 { found.next().ok_or_else(missing).and_then(&cell).map(Some) } else { Ok(None) }
            },
        )
        .collect()
}

/// Runs `work`. The crate checks what it reads, but not everywhere: damage must cost an error, no more.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| "pages that cannot be decoded".to_owned())?
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    #[test]
    fn rows_of_all_groups_come_in_order() {
        let columns = Columns::open(&golden("subset/captions.parquet")).unwrap();
        assert_eq!(columns.names(), ["url", "uid", "caption", "score"]);
        let mut rows = vec![];
        columns
            .each(&["caption", "uid"], &mut |row| {
                rows.push((row[0].take(), row[1].take()));
                Ok(())
            })
            .unwrap();
        let captions: Vec<Option<Cell>> = rows.iter().map(|(caption, _)| caption.clone()).collect();
        let text = |text: &str| Some(Cell::Text(text.into()));
        let expected =
            [text("a red kite"), None, text("snow\non a ridge"), text(""), text("é"), text("lost")];
        assert_eq!(captions, expected);
        assert_eq!((rows[5].1.clone(), rows[0].1.clone()), (None, text("000000000000000000000000000000ff")));
        let stopped = columns.each(&["uid"], &mut |_| Err("enough".into()));
        assert_eq!(stopped, Err("enough".to_owned()));
    }

    #[test]
    fn numbers_are_read() {
        let columns = Columns::open(&golden("metadata.parquet")).unwrap();
        let mut widths = vec![];
        let mut read = |name: &str| {
            columns.each(&[name], &mut |row| {
                widths.push(row[0].take());
                Ok(())
            })
        };
        read("width").unwrap();
        read("similarity").unwrap();
        assert!(columns.numbers().iter().any(|name| name == "similarity"));
        assert!(columns.numbers().iter().all(|name| name != "tags" && name != "caption"));
        let mut tags = vec![];
        let mut read_tags = |row: &mut [Option<Cell>]| {
            tags.push(row[0].take());
            Ok(())
        };
        columns.each(&["tags"], &mut read_tags).unwrap();
        let texts = |texts: &[&str]| Some(Cell::Texts(texts.iter().map(|&text| text.into()).collect()));
        assert_eq!(tags, [texts(&["bird"]), None, texts(&["snow", "rock"]), None, None, None]);
        assert!(read("nothing").unwrap_err().contains("no column \"nothing\""));
        assert_eq!(widths[..2], [Some(Cell::Number(640)), None]);
        assert!(widths[6..].iter().flatten().all(|cell| matches!(cell, Cell::Real(_))), "{widths:?}");
    }

    #[test]
    fn damage_is_an_error_or_other_values_never_a_panic() {
        let whole = std::fs::read(golden("subset/captions.parquet")).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            std::fs::write(file.path(), damaged).unwrap();
            if let Ok(columns) = Columns::open(file.path()) {
                let _ = columns.each(&["uid", "caption"], &mut |_| Ok(()));
            }
        }
    }
}
