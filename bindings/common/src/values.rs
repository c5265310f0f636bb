//! Python's values as options: plain data, paths, groups of options and what is written with arguments.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PySet, PyString, PyTuple};
use serde_json::{Map, Value};
use tldr_loader::config::Source;
use tldr_loader::options::{Setting, foreign};
use tldr_loader::{Error, Result};

use crate::errors::OrRaise;

/// A value as options take it: text, numbers, lists and dicts as they are; a path as its text; a group of options
/// (`_options.Group`) by its fields; what has a notation of its own (`_notation.Notation`) as that. What is of another
/// type becomes a value that no option accepts.
///
/// # Errors
/// What a value of Python raises when it is asked.
pub fn value_of(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Value::Bool(truth.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        let number =
            value.extract::<u64>().map(Value::from).or_else(|_| value.extract::<i64>().map(Value::from));
        return Ok(number.unwrap_or_else(|_| foreign(shown(value))));
    }
    if value.is_instance_of::<PyFloat>() {
        let number: f64 = value.extract()?;
        let is_plain = number.is_finite();
        return Ok(if is_plain { Value::from(number) } else { foreign(number.to_string()) });
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text.extract::<String>().map_or_else(|_| foreign(shown(value)), Value::String));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return object(dict);
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items: PyResult<Vec<Value>> = value.try_iter()?.map(|item| value_of(&item?)).collect();
        return Ok(Value::Array(items?));
    }
    let kind = value.get_type();
    if kind.hasattr("_fields_given")? {
        return object(value.call_method0("_fields_given")?.cast::<PyDict>()?);
    }
    if kind.hasattr("_notation")? {
        return Ok(Value::String(value.call_method0("_notation")?.extract()?));
    }
    let module: String = kind.module()?.extract()?;
    if value.hasattr("__fspath__")? || (module == "torch" && kind.name()? == "device") {
        let text = if value.hasattr("__fspath__")? {
            value.call_method0("__fspath__")?
        } else {
            value.str()?.into_any()
        };
        return Ok(text.extract::<String>().map_or_else(|_| foreign(shown(value)), Value::String));
    }
    // Numbers of NumPy and torch, which say that they are some.
    if !value.is_instance_of::<PyBytes>() {
        if value.hasattr("__index__")?
            && let Ok(number) = value.call_method0("__index__")
        {
            return value_of(&number);
        }
        if value.hasattr("dtype")?
            && value.hasattr("__float__")?
            && let Ok(number) = value.call_method0("__float__")
        {
            return value_of(&number);
        }
        if value.hasattr("tolist")?
            && let Ok(list) = value.call_method0("tolist")
        {
            return value_of(&list);
        }
    }
    Ok(foreign(shown(value)))
}

fn object(dict: &Bound<'_, PyDict>) -> PyResult<Value> {
    let mut fields = Map::new();
    for (name, value) in dict {
        fields.insert(name.str()?.extract()?, value_of(&value)?);
    }
    Ok(Value::Object(fields))
}

/// A value as messages show it: plain data as Python writes them, cut short; of anything else the type.
pub fn shown(value: &Bound<'_, PyAny>) -> String {
    let is_plain = value.is_none()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>()
        || value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.is_instance_of::<PyDict>()
        || value.is_instance_of::<PySet>();
    let text = || -> PyResult<String> {
        if is_plain {
            return value.py().import("reprlib")?.call_method1("repr", (value,))?.extract();
        }
        Ok(format!("an object of type {}", value.get_type().fully_qualified_name()?))
    };
    text().unwrap_or_else(|_| "a value that cannot be shown".into())
}

/// What a corpus is given as: patterns, or a `Source`.
///
/// # Errors
/// `ConfigError` where it is neither, or is several.
pub fn source(value: &Bound<'_, PyAny>) -> PyResult<Source> {
    let sources = sources(value)?;
    let one = || -> Result<Source> {
        match <[Source; 1]>::try_from(sources) {
            Ok([source]) => Ok(source),
            Err(several) => Err(Error::option("source", format!("{} sources", several.len()), "one")),
        }
    };
    one().or_raise(value.py())
}

/// What one corpus or several are given as.
///
/// # Errors
/// `ConfigError` where it is none.
pub fn sources(value: &Bound<'_, PyAny>) -> PyResult<Vec<Source>> {
    let given = value_of(value)?;
    let read = || -> Result<Vec<Source>> {
        <Vec<Source> as Setting>::read(&given).map_err(|refused| {
            let accepted = format!("{}; of a generator, list(...)", <Vec<Source>>::ACCEPTED);
            refused.error("source", &tldr_loader::options::shown(&given), &accepted)
        })
    };
    read().or_raise(value.py())
}
