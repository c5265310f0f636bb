//! A row as the json that a sample has beside its image.

use parquet::record::Field;
use serde_json::Value;

use crate::shard::metadata::json;

/// The columns of a row as an object. Lists, structs and maps keep their shape; a number that json does not have
/// stands there as Python writes it.
pub(super) fn of_row<'a>(columns: impl Iterator<Item = (&'a String, &'a Field)>) -> Vec<u8> {
    let mut out = String::from("{");
    for (name, field) in columns {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(&Value::from(name.as_str()).to_string());
        out.push_str(": ");
        write(field, &mut out);
    }
    out.push('}');
    out.into_bytes()
}

fn write(field: &Field, out: &mut String) {
    match field {
        Field::Float16(value) => number(value.to_f64(), out),
        Field::Float(value) => number(f64::from(*value), out),
        Field::Double(value) => number(*value, out),
        Field::Group(row) => {
            let inner = row.get_column_iter();
            out.push_str(&String::from_utf8_lossy(&of_row(inner)));
        }
        Field::ListInternal(list) => {
            out.push('[');
            for (i, field) in list.elements().iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write(field, out);
            }
            out.push(']');
        }
        Field::MapInternal(map) => {
            out.push('{');
            for (i, (key, value)) in map.entries().iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                let key = match json(key.clone()) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                out.push_str(&Value::from(key).to_string());
                out.push_str(": ");
                write(value, out);
            }
            out.push('}');
        }
        plain => out.push_str(&json(plain.clone()).to_string()),
    }
}

fn number(value: f64, out: &mut String) {
    let text = match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => Value::from(value).to_string(),
    };
    out.push_str(&text);
}
