//! Parquet files of plain columns: what the files of the ledger are made of.
//!
//! One row group, zstd, no nesting, so that any Parquet reader opens them. A file is made and read
//! in memory: it holds one window.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType, Encoding, Repetition, Type as Physical, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type};

/// The values of a column, `[rows]`; `None` is null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Column {
    Text(Vec<Option<String>>),
    I32(Vec<Option<i32>>),
    I64(Vec<Option<i64>>),
    F32(Vec<Option<f32>>),
    /// Of this many bytes each.
    Bytes(usize, Vec<Option<Vec<u8>>>),
}

/// A table, and what is noted of it as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<(String, Column)>,
    pub(crate) notes: Vec<(String, String)>,
}

impl Table {
    /// The column `name`, taken out; `None` where it is not there.
    pub(crate) fn take(&mut self, name: &str) -> Option<Column> {
        let at = self.columns.iter().position(|(column, _)| column == name)?;
        Some(self.columns.swap_remove(at).1)
    }

    /// What is noted under `name`.
    pub(crate) fn note(&self, name: &str) -> Option<&str> {
        self.notes.iter().find(|(note, _)| note == name).map(|(_, value)| value.as_str())
    }

    /// The table as a Parquet file; the same bytes for the same table.
    pub(crate) fn write(&self) -> Result<Vec<u8>> {
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_dictionary_enabled(false);
        for (name, column) in &self.columns {
            let path = ColumnPath::from(name.as_str());
            let (physical, width) = match column {
                Column::Text(_) => {
                    // Few texts differ where they are reasons or extensions; keys all do, and the
                    // dictionary is given up for them by itself.
                    properties = properties.set_column_dictionary_enabled(path, true);
                    (Physical::BYTE_ARRAY, 0)
                }
                Column::I32(_) => {
                    properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
                    (Physical::INT32, 0)
                }
                Column::I64(_) => {
                    properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
                    (Physical::INT64, 0)
                }
                Column::F32(_) => {
                    properties = properties.set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
                    (Physical::FLOAT, 0)
                }
                Column::Bytes(width, _) => (Physical::FIXED_LEN_BYTE_ARRAY, *width as i32),
            };
            let converted = match physical {
                Physical::BYTE_ARRAY => ConvertedType::UTF8,
                // Identities have all 64 bits.
                Physical::INT64 if name == "id" || name.ends_with("_id") => ConvertedType::UINT_64,
                _ => ConvertedType::NONE,
            };
            let field = Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_converted_type(converted)
                .with_length(width)
                .build()?;
            fields.push(Arc::new(field));
        }
        let notes = self.notes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let properties = properties.set_key_value_metadata(Some(notes.collect())).build();
        let schema = Type::group_type_builder("ledger").with_fields(fields).build()?;
        let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
        let mut rows = writer.next_row_group()?;
        for (_, column) in &self.columns {
            let Some(mut out) = rows.next_column()? else { break };
            match (column, out.untyped()) {
                (Column::Text(values), ColumnWriter::ByteArrayColumnWriter(out)) => {
                    let (levels, values) = split(values, |text| ByteArray::from(text.as_str()));
                    out.write_batch(&values, Some(&levels), None)?;
                }
                (Column::I32(values), ColumnWriter::Int32ColumnWriter(out)) => {
                    let (levels, values) = split(values, |&value| value);
                    out.write_batch(&values, Some(&levels), None)?;
                }
                (Column::I64(values), ColumnWriter::Int64ColumnWriter(out)) => {
                    let (levels, values) = split(values, |&value| value);
                    out.write_batch(&values, Some(&levels), None)?;
                }
                (Column::F32(values), ColumnWriter::FloatColumnWriter(out)) => {
                    let (levels, values) = split(values, |&value| value);
                    out.write_batch(&values, Some(&levels), None)?;
                }
                (Column::Bytes(_, values), ColumnWriter::FixedLenByteArrayColumnWriter(out)) => {
                    let (levels, values) = split(values, |bytes| FixedLenByteArray::from(bytes.clone()));
                    out.write_batch(&values, Some(&levels), None)?;
                }
                _ => return Err(ParquetError::General("a column of another type than its field".into())),
            }
            out.close()?;
        }
        rows.close()?;
        writer.into_inner()
    }

    /// Reads what [`write`](Self::write) wrote. Errors say what is wrong; nothing panics.
    pub(crate) fn read(content: Vec<u8>) -> std::result::Result<Self, String> {
        // The crate checks what it reads, but not everywhere.
        catch_unwind(AssertUnwindSafe(|| Self::parse(content)))
            .map_err(|_| "it cannot be decoded".to_owned())?
            .map_err(|error| error.to_string())
    }

    fn parse(content: Vec<u8>) -> Result<Self> {
        let reader = SerializedFileReader::new(Bytes::from(content))?;
        let file = reader.metadata().file_metadata();
        let notes = file.key_value_metadata().into_iter().flatten();
        let notes = notes.map(|note| (note.key.clone(), note.value.clone().unwrap_or_default())).collect();
        let mut columns = Vec::new();
        if reader.num_row_groups() != 1 {
            return Err(ParquetError::General("it has not one row group".into()));
        }
        let rows = reader.get_row_group(0)?;
        let n = rows.metadata().num_rows() as usize;
        for (i, descriptor) in file.schema_descr().columns().iter().enumerate() {
            let column = match rows.get_column_reader(i)? {
                ColumnReader::ByteArrayColumnReader(mut column) => {
                    let (mut levels, mut values) = (Vec::new(), Vec::new());
                    column.read_records(n, Some(&mut levels), None, &mut values)?;
                    let text = |value: ByteArray| value.as_utf8().map(str::to_owned);
                    Column::Text(joined(&levels, values.into_iter().map(text))?)
                }
                ColumnReader::Int32ColumnReader(mut column) => {
                    let (mut levels, mut values) = (Vec::new(), Vec::new());
                    column.read_records(n, Some(&mut levels), None, &mut values)?;
                    Column::I32(joined(&levels, values.into_iter().map(Ok))?)
                }
                ColumnReader::Int64ColumnReader(mut column) => {
                    let (mut levels, mut values) = (Vec::new(), Vec::new());
                    column.read_records(n, Some(&mut levels), None, &mut values)?;
                    Column::I64(joined(&levels, values.into_iter().map(Ok))?)
                }
                ColumnReader::FloatColumnReader(mut column) => {
                    let (mut levels, mut values) = (Vec::new(), Vec::new());
                    column.read_records(n, Some(&mut levels), None, &mut values)?;
                    Column::F32(joined(&levels, values.into_iter().map(Ok))?)
                }
                ColumnReader::FixedLenByteArrayColumnReader(mut column) => {
                    let (mut levels, mut values) = (Vec::new(), Vec::new());
                    column.read_records(n, Some(&mut levels), None, &mut values)?;
                    let bytes = |value: FixedLenByteArray| Ok(value.data().to_vec());
                    let width = descriptor.type_length().max(0) as usize;
                    Column::Bytes(width, joined(&levels, values.into_iter().map(bytes))?)
                }
                _ => return Err(ParquetError::General(format!("{} has a foreign type", descriptor.name()))),
            };
            columns.push((descriptor.name().to_owned(), column));
        }
        Ok(Self { columns, notes })
    }
}

/// Definition levels (1 where there is a value), and the values.
fn split<T, V>(values: &[Option<T>], value: impl Fn(&T) -> V) -> (Vec<i16>, Vec<V>) {
    let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
    (levels, values.iter().flatten().map(value).collect())
}

/// The reverse of [`split`].
fn joined<T>(levels: &[i16], mut values: impl Iterator<Item = Result<T>>) -> Result<Vec<Option<T>>> {
    let missing = || ParquetError::General("it has fewer values than it says".into());
    levels
        .iter()
        .map(|&level| if level > 0 { values.next().ok_or_else(missing)?.map(Some) } else { Ok(None) })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn table() -> Table {
        Table {
            columns: vec![
                ("key".into(), Column::Text(vec![Some("a".into()), None, Some("ü/1".into())])),
                ("size".into(), Column::I32(vec![Some(3), Some(-1), None])),
                ("offset".into(), Column::I64(vec![Some(1 << 40), Some(0), Some(7)])),
                ("score".into(), Column::F32(vec![None, Some(f32::MIN_POSITIVE), Some(-0.0)])),
                ("hash".into(), Column::Bytes(3, vec![Some(vec![1, 2, 3]), None, Some(vec![0; 3])])),
            ],
            notes: vec![("version".into(), "1".into())],
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let bytes = table().write().unwrap();
        assert_eq!(bytes, table().write().unwrap(), "the same bytes each time");
        let mut read = Table::read(bytes).unwrap();
        assert_eq!(read.note("version"), Some("1"));
        assert_eq!(read.columns, table().columns);
        assert_eq!(read.take("size"), Some(Column::I32(vec![Some(3), Some(-1), None])));
        assert_eq!(read.take("size"), None);
        let none = Table { columns: vec![("key".into(), Column::Text(vec![]))], notes: vec![] };
        assert_eq!(Table::read(none.write().unwrap()).unwrap().columns, none.columns);
    }

    #[test]
    fn damage_is_an_error_or_another_table_never_a_panic() {
        let whole = table().write().unwrap();
        for cut in 0..whole.len() {
            assert!(Table::read(whole[..cut].to_vec()).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = Table::read(damaged);
        }
    }
}
