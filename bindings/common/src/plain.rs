//! Plain data, as serde sees it, as Python's dicts and lists and back.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList};
use serde_json::{Map, Value};

/// Dicts, lists, numbers, strings and `None`.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(b) => b.into_pyobject(py)?.to_owned().into_any(),
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => n.into_pyobject(py)?.into_any(),
            (None, Some(n)) => n.into_pyobject(py)?.into_any(),
            (None, None) => n.as_f64().into_pyobject(py)?.into_any(),
        },
        Value::String(s) => s.into_pyobject(py)?.into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (name, field) in fields {
                dict.set_item(name, to_python(py, field)?)?;
            }
            dict.into_any()
        }
    })
}

/// A dict of whole numbers, strings and such dicts, as a loader's state is one.
///
/// # Errors
/// `TypeError` that names the field, for other values.
pub fn from_python(dict: &Bound<'_, PyDict>) -> PyResult<Value> {
    let mut fields = Map::new();
    for (name, value) in dict {
        let value = if let Ok(text) = value.extract::<String>() {
            Value::from(text)
        } else if let Ok(dict) = value.cast::<PyDict>() {
            from_python(dict)?
        } else {
            let number = value.extract::<u64>().ok().filter(|_| !value.is_instance_of::<PyBool>());
            let unreadable = || {
                let found =
                    format!("{name}: a whole number, a text or a dict is expected, and this is {value}");
                PyTypeError::new_err(found)
            };
            Value::from(number.ok_or_else(unreadable)?)
        };
        fields.insert(name.extract()?, value);
    }
    Ok(Value::Object(fields))
}

/// Anything that serde can write, as plain data.
///
/// # Errors
/// `ValueError` where JSON has no word for it.
pub fn of(value: &impl serde::Serialize) -> PyResult<Value> {
    serde_json::to_value(value).map_err(|e| PyValueError::new_err(e.to_string()))
}
