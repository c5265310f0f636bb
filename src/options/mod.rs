//! How options are described: once, where they are declared.
//!
//! A group of options is a plain struct, made by [`group!`](crate::group) from its fields: each with its doc, its type,
//! its default and its [`Class`]. Everything else goes by that description: what a file, a command line or Python gives
//! is read by [`Group::read`], a saved state and the fingerprints have what [`Group::entries`] says, and the reference,
//! Python's classes and the flags of the command are made of [`Group::FIELDS`].
//!
//! Values travel as JSON ([`Value`]), in which each type has one form ([`Setting`]).

mod by_epoch;
mod group;
mod nearest;
mod notation;
mod setting;

use serde_json::{Map, Value};

pub use by_epoch::ByEpoch;
pub use nearest::nearest;
pub(crate) use notation::{Call, show};
pub(crate) use setting::text_settings;
pub use setting::{Refused, Setting, foreign, is_foreign, shown};
#[doc(hidden)]
pub use setting::{read_group, update_group, write_group};

use crate::error::{Error, ErrorKind, Result};

/// Options whose values are shown nowhere: not in messages, states or representations.
pub const SECRET: [&str; 2] = ["token", "headers"];

/// What is shown in place of their values.
pub const HIDDEN: &str = "(hidden)";

/// What an option has a say in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Which samples are kept, and with which captions.
    Policy,
    /// Which samples there are, and what is read of them.
    Reading,
    /// What images and tokens look like.
    Pixels,
    /// In which order, and in which batches, samples come.
    Order,
    /// How fast, where, and what happens when something goes wrong: nothing that a batch shows.
    Runtime,
}

/// One option, or a group of them.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name, the same everywhere: in Rust, Python, files, flags (with hyphens), states and messages.
    pub name: &'static str,
    /// What it does, as its doc comment says, in Markdown.
    pub doc: &'static str,
    /// What it has a say in; of a group, what its fields say counts.
    pub class: Class,
    /// What is accepted.
    pub accepted: &'static str,
    /// Its type in Python.
    pub python: &'static str,
    /// Its default; null where it depends on other options.
    pub default: fn() -> Value,
    /// Its fields, where it is a group.
    pub group: Option<&'static [Field]>,
    /// The name and the fields of what it is a list of, where that is a group.
    pub each: Option<(&'static str, &'static [Field])>,
}

/// A struct of options.
pub trait Group: Sized + Default {
    /// Its name, in Rust and Python.
    const NAME: &'static str;
    /// What it is about, in Markdown.
    const DOC: &'static str;
    /// Its options, in order.
    const FIELDS: &'static [Field];

    /// The value of each field, in their order.
    fn values(&self) -> Vec<Value>;

    /// Sets the field of this index; of a group, those of its fields that are given.
    ///
    /// # Errors
    /// [`ErrorKind::Option`]: the value is not what the field takes.
    fn set(&mut self, field: usize, value: &Value) -> Result<()>;

    /// Sets the field that `path` names, through groups in it, to what a text writes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn set_text(&mut self, path: &[&str], text: &str) -> Result<()>;

    /// Reads a group by the names of its fields. What is absent, or null, has its default.
    ///
    /// # Errors
    /// A name that no field has, with the nearest that one has; a value that is not accepted.
    fn read(given: &Map<String, Value>) -> Result<Self> {
        let mut group = Self::default();
        group.update(given)?;
        Ok(group)
    }

    /// As [`read`](Self::read), over what is there: other fields stay as they are, and so do those of groups in it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn update(&mut self, given: &Map<String, Value>) -> Result<()> {
        for (name, value) in given {
            let Some(at) = Self::FIELDS.iter().position(|field| field.name == name) else {
                return Err(unknown::<Self>(name, &shown(value)));
            };
            if !value.is_null() {
                self.set(at, value)?;
            }
        }
        Ok(())
    }

    /// The fields that differ from their defaults, by name.
    fn write(&self) -> Map<String, Value> {
        let fields = Self::FIELDS.iter().zip(self.values());
        let given = fields.filter(|(field, value)| !value.is_null() && *value != (field.default)());
        given.map(|(field, value)| (field.name.to_owned(), value)).collect()
    }

    /// Name and value, as people write it, of each field of `classes` that is not at its default; those of groups in it,
    /// too.
    fn entries(&self, classes: &[Class]) -> Vec<(&'static str, String)> {
        let mut entries = vec![];
        collect(Self::FIELDS, &self.values(), classes, &mut entries);
        entries
    }
}

fn collect(
    fields: &'static [Field],
    values: &[Value],
    classes: &[Class],
    entries: &mut Vec<(&'static str, String)>,
) {
    for (field, value) in fields.iter().zip(values) {
        match (field.group, value) {
            (Some(fields), Value::Object(own)) => {
                let value = |field: &Field| own.get(field.name).cloned().unwrap_or_else(field.default);
                collect(fields, &fields.iter().map(value).collect::<Vec<_>>(), classes, entries);
            }
            _ if classes.contains(&field.class) && !value.is_null() && *value != (field.default)() => {
                entries.push((field.name, shown(value)));
            }
            _ => {}
        }
    }
}

/// The value of a field. For [`group!`](crate::group).
#[doc(hidden)]
pub fn read_field<T: Setting>(own: &mut T, field: Field, value: &Value) -> Result<()> {
    // A text of which something else was expected is shown as one.
    let given = if value.is_string() { value.to_string() } else { shown(value) };
    own.update(value).map_err(|refused| refused.error(field.name, &given, field.accepted))
}

/// As [`read_field`], of a text.
#[doc(hidden)]
pub fn set_field<T: Setting>(field: &mut T, name: &'static str, path: &[&str], text: &str) -> Result<()> {
    field.set_text(path, text).map_err(|refused| refused.error(name, text, T::ACCEPTED))
}

/// The error of a name that no field of `G` has: where it would be, or the nearest.
#[doc(hidden)]
pub fn unknown<G: Group>(name: &str, given: &str) -> Error {
    let own = G::NAME;
    let close = nearest(name, SECRET.into_iter());
    let given = if close.is_some() { HIDDEN } else { given };
    let of_group =
        |field: &&Field| field.group.is_some_and(|fields| fields.iter().any(|field| field.name == name));
    let mut each = G::FIELDS.iter().filter_map(|field| field.each);
    let of_each = each.find(|(_, fields)| fields.iter().any(|field| field.name == name));
    let detail =
        match (G::FIELDS.iter().find(of_group), nearest(name, G::FIELDS.iter().map(|field| field.name))) {
            (Some(group), _) => {
                let (group, kind) = (group.name, group.python);
                format!(
                    "an option of {kind}: {group}={kind}({name}=..), or {name} in the table {group} of a file"
                )
            }
            _ if of_each.is_some() => {
                let (kind, _) = of_each.unwrap_or_default();
                format!("an option of {kind}: {kind}(.., {name}=..), or {name} of each of them in a file")
            }
            (None, Some(meant)) => format!("{own} has no option of this name; the nearest is {meant}"),
            (None, None) => {
                let names: Vec<&str> = G::FIELDS.iter().map(|field| field.name).collect();
                format!("{own} has no option of this name; it has {}", names.join(", "))
            }
        };
    ErrorKind::UnknownOption { name: name.to_owned(), detail: format!("{given}: {detail}") }.into()
}
