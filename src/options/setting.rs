//! The types that options have, each with its one form in JSON.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Number, Value};

use crate::options::{Field, Group, HIDDEN, SECRET};

/// A type of options.
pub trait Setting: Sized {
    /// What is accepted, as messages end: "a number in (0, 1]".
    const ACCEPTED: &'static str;
    /// Its type in Python.
    const PYTHON: &'static str;
    /// Its fields, where it is a group.
    const GROUP: Option<&'static [Field]> = None;
    /// The name and the fields of what it is a list of, where that is a group.
    const EACH: Option<(&'static str, &'static [Field])> = None;

    /// The value of this form; `None` where it is not of this type.
    fn from_value(value: &Value) -> Option<Self>;

    /// Its form; null says that there is none.
    fn to_value(&self) -> Value;

    /// As [`from_value`](Self::from_value), where it may fail with an error of its own.
    ///
    /// # Errors
    /// What is wrong with the value, in place of [`ACCEPTED`](Self::ACCEPTED).
    fn read(value: &Value) -> Result<Self, Refused> {
        Self::from_value(value).ok_or(Refused::Type)
    }

    /// Sets it to a value; of a group, those of its fields that are given.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn update(&mut self, value: &Value) -> Result<(), Refused> {
        *self = Self::read(value)?;
        Ok(())
    }

    /// Sets it to what a text writes: the value as it is, or the number, truth or list that it writes. Of a group the
    /// field that `path` names.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn set_text(&mut self, _path: &[&str], text: &str) -> Result<(), Refused> {
        *self = from_text(text)?;
        Ok(())
    }
}

/// Why a value was not taken.
#[derive(Debug)]
pub enum Refused {
    /// It is of another type: the field says what is accepted.
    Type,
    /// It is of the right type, and cannot be used.
    Because(crate::Error),
}

impl Refused {
    /// The error of the option `name`.
    pub fn error(self, name: &'static str, given: &str, accepted: &str) -> crate::Error {
        match self {
            Self::Type => crate::Error::option(name, given, accepted),
            Self::Because(error) => error,
        }
    }
}

impl From<crate::Error> for Refused {
    fn from(error: crate::Error) -> Self {
        Self::Because(error)
    }
}

/// Key of a value that JSON has no word for, and that no type accepts: what messages say of it stands there.
const FOREIGN: &str = "\0foreign";

/// A value that no option takes, such as an object of a foreign type: `shown` is what messages say of it.
pub fn foreign(shown: impl Into<String>) -> Value {
    Value::Object(Map::from_iter([(FOREIGN.to_owned(), Value::String(shown.into()))]))
}

/// Whether no option takes the value, whatever its type.
pub fn is_foreign(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.contains_key(FOREIGN))
}

/// A value as messages and states have it: texts without quotes where they cannot be mistaken.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && text.trim() == text => text.clone(),
        Value::Object(fields) => match fields.get(FOREIGN) {
            Some(Value::String(shown)) => shown.clone(),
            _ => without_secrets(value).to_string(),
        },
        _ => without_secrets(value).to_string(),
    }
}

/// A value without what nobody may see of it.
fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_secrets).collect(),
        Value::Object(fields) if fields.contains_key(FOREIGN) => fields[FOREIGN].clone(),
        Value::Object(fields) => {
            let show = |(name, value): (&String, &Value)| {
                let is_secret = SECRET.contains(&name.as_str());
                (name.clone(), if is_secret { HIDDEN.into() } else { without_secrets(value) })
            };
            Value::Object(fields.iter().map(show).collect())
        }
        plain => plain.clone(),
    }
}

/// Text of a command line, or of another place that has texts only, as the value that a type takes: as it is, or as the
/// number, truth or list that it writes.
fn from_text<T: Setting>(text: &str) -> Result<T, Refused> {
    let written = serde_json::from_str::<Value>(text);
    // A list or an object is one, where the type has such a form: a text could be anything.
    if let Ok(value @ (Value::Array(_) | Value::Object(_))) = &written {
        match T::read(value) {
            Err(Refused::Type) => {}
            read => return read,
        }
    }
    let as_text = T::read(&Value::String(text.to_owned()));
    match (as_text, written) {
        (Ok(value), _) => Ok(value),
        (Err(Refused::Type), Ok(value)) => T::read(&value),
        (Err(refused), _) => Err(refused),
    }
}

macro_rules! settings {
    ($($type:ty, $python:literal, $accepted:literal: |$value:ident| $read:expr, |$own:ident| $write:expr;)*) => {
        $(impl Setting for $type {
            const ACCEPTED: &'static str = $accepted;
            const PYTHON: &'static str = $python;

            fn from_value($value: &Value) -> Option<Self> {
                $read
            }

            fn to_value(&self) -> Value {
                let $own = self;
                $write
            }
        })*
    };
}

settings! {
    bool, "bool", "true or false": |value| value.as_bool(), |own| Value::Bool(*own);
    u64, "int", "a whole number, 0 or more": |value| value.as_u64(), |own| (*own).into();
    u32, "int", "a whole number, 0 or more": |value| value.as_u64()?.try_into().ok(), |own| (*own).into();
    usize, "int", "a whole number, 0 or more": |value| value.as_u64()?.try_into().ok(), |own| (*own).into();
    f64, "float", "a number": |value| value.as_f64(), |own| number(*own);
    // By its shortest decimal: 0.95 stays 0.95.
    f32, "float", "a number": |value| Some(value.as_f64()? as f32),
        |own| own.to_string().parse().map_or(Value::Null, number);
    String, "str", "a text": |value| value.as_str().map(str::to_owned), |own| Value::String(own.clone());
    PathBuf, "str | os.PathLike[str]", "a path": |value| value.as_str().map(PathBuf::from),
        |own| Value::String(own.to_string_lossy().into_owned());
    Duration, "float", "a number of seconds":
        |value| Self::try_from_secs_f64(value.as_f64()?).ok(), |own| number(own.as_secs_f64());
}

fn number(value: f64) -> Value {
    // A whole number is written as one, as people do.
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Value::Number((value as i64).into());
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

impl<T: Setting> Setting for Option<T> {
    const ACCEPTED: &'static str = T::ACCEPTED;
    const PYTHON: &'static str = T::PYTHON;
    const GROUP: Option<&'static [Field]> = T::GROUP;

    fn from_value(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_value(value).map(Some) }
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }

    fn read(value: &Value) -> Result<Self, Refused> {
        if value.is_null() { Ok(None) } else { T::read(value).map(Some) }
    }
}

impl<T: Setting, const N: usize> Setting for [T; N] {
    const ACCEPTED: &'static str = match N {
        2 => "two numbers, the least and the greatest",
        3 => "three numbers, of red, green and blue",
        _ => "numbers",
    };
    const PYTHON: &'static str = "Sequence[float]";

    fn from_value(value: &Value) -> Option<Self> {
        let items: Option<Vec<T>> = value.as_array()?.iter().map(T::from_value).collect();
        items?.try_into().ok()
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(T::to_value).collect())
    }
}

impl Setting for Vec<u64> {
    const ACCEPTED: &'static str = "a list of whole numbers";
    const PYTHON: &'static str = "Sequence[int]";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(u64::from_value).collect()
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(u64::to_value).collect())
    }
}

/// One text, or several.
impl Setting for Vec<String> {
    const ACCEPTED: &'static str = "a text, or a list of them";
    const PYTHON: &'static str = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(one) => Some(vec![one.clone()]),
            _ => value.as_array()?.iter().map(String::from_value).collect(),
        }
    }

    fn to_value(&self) -> Value {
        match &self[..] {
            [one] => Value::String(one.clone()),
            several => Value::Array(several.iter().map(String::to_value).collect()),
        }
    }
}

/// One path, or several.
impl Setting for Vec<PathBuf> {
    const ACCEPTED: &'static str = "a path, or a list of them";
    const PYTHON: &'static str = <Vec<String> as Setting>::PYTHON;

    fn from_value(value: &Value) -> Option<Self> {
        Some(Vec::<String>::from_value(value)?.into_iter().map(PathBuf::from).collect())
    }

    fn to_value(&self) -> Value {
        match &self[..] {
            [one] => one.to_value(),
            several => Value::Array(several.iter().map(PathBuf::to_value).collect()),
        }
    }
}

/// For the groups that are fields of others.
pub fn read_group<G: Group>(value: &Value) -> Result<G, Refused> {
    let mut group = G::default();
    update_group(&mut group, value)?;
    Ok(group)
}

/// As [`read_group`], over what is there.
pub fn update_group<G: Group>(group: &mut G, value: &Value) -> Result<(), Refused> {
    let given = value.as_object().filter(|fields| !fields.contains_key(FOREIGN)).ok_or(Refused::Type)?;
    Ok(group.update(given)?)
}

/// As [`read_group`], the other way.
pub fn write_group<G: Group>(group: &G) -> Value {
    Value::Object(group.write())
}

/// Gives types their one form as a text, by `FromStr` and `Display`; numbers are taken for what they write.
macro_rules! text_settings {
    ($($type:ty: $python:literal, $accepted:expr;)*) => {
        $(impl $crate::options::Setting for $type {
            const ACCEPTED: &'static str = $accepted;
            const PYTHON: &'static str = $python;

            fn from_value(value: &::serde_json::Value) -> Option<Self> {
                <Self as $crate::options::Setting>::read(value).ok()
            }

            fn to_value(&self) -> ::serde_json::Value {
                ::serde_json::Value::String(self.to_string())
            }

            fn read(value: &::serde_json::Value) -> Result<Self, $crate::options::Refused> {
                match value.as_str() {
                    Some(text) => Ok(text.parse().map_err($crate::Error::from)?),
                    None => Err($crate::options::Refused::Type),
                }
            }
        })*
    };
}
pub(crate) use text_settings;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn round_trip<T: Setting + PartialEq + std::fmt::Debug>(value: T) {
        assert_eq!(T::from_value(&value.to_value()), Some(value));
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        round_trip(true);
        round_trip(u64::MAX);
        round_trip(0.1);
        round_trip(0.95_f32);
        round_trip(1e300);
        round_trip(String::from("a b"));
        round_trip(PathBuf::from("/a/b"));
        round_trip(Duration::from_millis(1500));
        round_trip(Some(3_usize));
        round_trip(None::<f64>);
        round_trip([0.5, 1.0]);
        round_trip(vec![1_u64, 2]);
        round_trip(vec![String::from("a")]);
        round_trip(vec![String::from("a"), String::from("b")]);
        assert_eq!(0.95_f32.to_value().to_string(), "0.95");
        assert_eq!(30.0_f64.to_value().to_string(), "30");
    }

    #[test]
    fn other_types_are_not_taken() {
        assert_eq!(bool::from_value(&1.into()), None);
        assert_eq!(u64::from_value(&(-1).into()), None);
        assert_eq!(f64::from_value(&true.into()), None);
        assert_eq!(<[f64; 2]>::from_value(&serde_json::json!([1, 2, 3])), None);
        assert_eq!(Duration::from_value(&(-1).into()), None);
        let odd = foreign("an object of type x.Y");
        assert!(String::from_value(&odd).is_none() && Option::<u64>::from_value(&odd).is_none());
        assert_eq!(shown(&odd), "an object of type x.Y");
    }

    #[test]
    fn a_text_may_write_numbers_and_lists() {
        assert_eq!(from_text::<f64>("0.25").unwrap(), 0.25);
        assert!(from_text::<bool>("true").unwrap());
        assert_eq!(from_text::<[f64; 2]>("[0.5, 1]").unwrap(), [0.5, 1.0]);
        assert_eq!(from_text::<String>("12").unwrap(), "12");
        assert_eq!(from_text::<String>("[1]").unwrap(), "[1]");
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(from_text::<Vec<PathBuf>>("[\"a\", \"b\"]").unwrap(), paths(&["a", "b"]));
        assert_eq!(from_text::<Vec<PathBuf>>("[a].npy").unwrap(), paths(&["[a].npy"]));
        assert!(matches!(from_text::<u64>("many"), Err(Refused::Type)));
    }
}
