//! Reads the Parquet files of [`ShardMetadata`]: the owner of the crate `parquet`.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::Value;

use super::rows::ShardMetadata;
use crate::error::{Error, Result};
use crate::json::number;
use crate::shard::join::plain;

/// Holds the keys of samples, as they are in the shard.
const KEY: &str = "key";

/// `success` where the sample is in the shard.
const STATUS: &str = "status";

/// The metadata in `content`; `None` where it has no column [`KEY`].
pub(super) fn read(file: String, content: Vec<u8>, columns: &[&str]) -> Result<Option<ShardMetadata>> {
    let wrong = |found: &dyn std::fmt::Display| {
        Error::format(&*file, "a Parquet file, as img2dataset writes it beside a shard", found)
    };
    // The crate checks what it reads, but not everywhere: damage must cost an error, no more.
    let table = catch_unwind(AssertUnwindSafe(|| Table::read(content, columns)))
        .map_err(|_| wrong(&"pages that cannot be decoded"))?
        .map_err(|error| wrong(&error))?;
    let Some(table) = table else {
        tracing::warn!("{file} has no column {KEY:?}: it is not taken for metadata of samples");
        return Ok(None);
    };
    let (mut rows, mut not_numbers) = (HashMap::with_capacity(table.rows.len()), HashMap::new());
    for Row { key, values, not_numbers: columns } in table.rows {
        if rows.contains_key(&key) {
            let expected = "one row for each key; write the rows of each shard to its own file";
            return Err(Error::format(&*file, expected, format!("the key {key:?} twice")));
        }
        if !columns.is_empty() {
            not_numbers.insert(key.clone(), columns);
        }
        rows.insert(key, values);
    }
    Ok(Some(ShardMetadata { file, columns: table.columns, chosen: table.chosen, rows, not_numbers }))
}

/// What is read of a file.
struct Table {
    columns: Vec<String>,
    chosen: Vec<String>,
    rows: Vec<Row>,
}

/// The chosen values of a sample.
struct Row {
    key: Box<str>,
    values: Box<[Value]>,
    not_numbers: Vec<usize>,
}

impl Table {
    fn read(content: Vec<u8>, columns: &[&str]) -> Result<Option<Self>, ParquetError> {
        let reader = SerializedFileReader::new(Bytes::from(content))?;
        let schema = reader.metadata().file_metadata().schema();
        let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        if !names.iter().any(|name| name == KEY) {
            return Ok(None);
        }
        let is_wanted = |name: &str| name == KEY || name == STATUS || columns.contains(&name);
        let fields: Vec<Arc<Type>> =
            schema.get_fields().iter().filter(|field| is_wanted(field.name())).cloned().collect();
        let projection = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
        let chosen: Vec<String> =
            names.iter().filter(|name| columns.contains(&name.as_str())).cloned().collect();
        let mut rows = Vec::new();
        for row in reader.get_row_iter(Some(projection))? {
            let (mut key, mut succeeded) = (None, true);
            let mut values = vec![Value::Null; chosen.len()];
            let mut not_numbers = vec![];
            for (name, field) in row?.into_columns() {
                let is_nan = is_nan(&field);
                let value = json(field);
                if name == STATUS {
                    succeeded = value == "success";
                }
                if name == KEY {
                    key = value.as_str().map(Into::into).or((!value.is_null()).then(|| value.to_string()));
                }
                if let Some(slot) = chosen.iter().position(|chosen| *chosen == name) {
                    not_numbers.extend(is_nan.then_some(slot));
                    values[slot] = value;
                }
            }
            if let (Some(key), true) = (key, succeeded) {
                let key = plain(&key).into();
                rows.push(Row { key, values: values.into_boxed_slice(), not_numbers });
            }
        }
        Ok(Some(Self { columns: names, chosen, rows }))
    }
}

fn is_nan(field: &Field) -> bool {
    match field {
        Field::Float16(value) => value.is_nan(),
        Field::Float(value) => value.is_nan(),
        Field::Double(value) => value.is_nan(),
        _ => false,
    }
}

/// A plain value as json has it; null for a nested one.
pub(in crate::shard) fn json(field: Field) -> Value {
    match field {
        Field::Null | Field::Group(_) | Field::MapInternal(_) => Value::Null,
        Field::ListInternal(list) => list.elements().iter().cloned().map(json).collect(),
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => number(value.to_f64()),
        Field::Float(value) => number(value.into()),
        Field::Double(value) => number(value),
        Field::Str(text) => text.into(),
        // Columns of text that older writers did not mark as such.
        Field::Bytes(bytes) => {
            std::str::from_utf8(bytes.data()).map_or(Value::Null, |text| Value::String(text.to_owned()))
        }
        other => other.to_string().into(),
    }
}
