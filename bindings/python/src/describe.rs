//! What the options are: the reference, Python's classes and the stub are made of it (`reference.py`).

use pyo3::prelude::*;
use serde_json::{Value, json};
use tldr_loader::config::{Captions, Config, Images, Runtime, Selection, Source, World};
use tldr_loader::options::{Class, Field, Group, SECRET};
use tldr_loader::shard::Store;
use tldr_python::plain;

fn field(field: &Field) -> Value {
    let class = match field.class {
        Class::Policy => "policy",
        Class::Reading => "reading",
        Class::Pixels => "pixels",
        Class::Order => "order",
        Class::Runtime => "runtime",
    };
    json!({
        "name": field.name,
        "doc": field.doc,
        "class": class,
        "accepted": field.accepted,
        "python": field.python,
        "default": (field.default)(),
        "is_group": field.group.is_some(),
        "is_secret": SECRET.contains(&field.name),
    })
}

fn group<G: Group>() -> Value {
    json!({ "name": G::NAME, "doc": G::DOC, "fields": G::FIELDS.iter().map(field).collect::<Vec<_>>() })
}

/// Every group of options with its fields, in the order in which Python defines them.
#[pyfunction]
pub(crate) fn _describe(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let groups = [
        group::<Store>(),
        group::<Source>(),
        group::<Selection>(),
        group::<Captions>(),
        group::<Images>(),
        group::<Runtime>(),
        group::<World>(),
        group::<Config>(),
    ];
    plain::to_python(py, &Value::Array(groups.into()))
}
