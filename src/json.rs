//! json as Python reads and writes it: RFC 8259, and what `json.dumps` adds to it.
//!
//! Python writes `NaN`, `Infinity` and `-Infinity` for numbers that json does not have, and half of a
//! surrogate pair as an escape. Files from other systems open with a byte order mark. Numbers beyond
//! an f64 are infinite to Python. Ordinary json is read by serde_json alone; only what that refuses is
//! rewritten and read again.

use std::fmt;
use std::str::from_utf8;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What `Infinity` is read as, since a [`Value`] has no infinite number; as an f32 it is infinite. In text and
/// as a number.
const INFINITY: &str = "1e308";
const LARGEST: f64 = 1e308;

const MARK: &[u8] = b"\xEF\xBB\xBF";

/// The fields of an object, as far as they were asked for. Lists have their entries; of objects, and of lists in lists,
/// only the kind is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    values: Map<String, Value>,
    /// Names of fields that are not a number, `NaN`; in `values` they are null.
    not_numbers: Vec<String>,
}

impl Fields {
    /// Reads the fields of the object in `json` whose names are `wanted`. All else is skipped: a fault of
    /// what nobody asked for costs nothing, as long as the text is json in outline. Linear; no recursion.
    ///
    /// # Errors
    /// What is no json even to Python, with line and column, or no object.
    pub fn read(json: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Self, String> {
        let json = json.strip_prefix(MARK).unwrap_or(json);
        let error = match object(json, &wanted) {
            Ok(values) => return Ok(Self { values, not_numbers: vec![] }),
            Err(error) if error.is_data() => return Err("no object".into()),
            Err(error) => error.to_string(),
        };
        let Some(rewritten) = Rewritten::of(json) else { return Err(error) };
        // What is wrong in this text is wrong to Python, too; its lines are those of the other.
        let values = object(&rewritten.text, &wanted).map_err(|error| error.to_string())?;
        let not_numbers = rewritten.not_numbers.into_iter().filter(|name| wanted(name)).collect();
        Ok(Self { values, not_numbers })
    }

    /// The value of `name`; `None` where it is absent, null or [not a number](Self::is_nan).
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// Whether `name` is `NaN`.
    pub fn is_nan(&self, name: &str) -> bool {
        self.not_numbers.iter().any(|own| own == name) && self.value(name).is_none()
    }

    /// Names of the fields that are there, null or not.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

/// Reads a whole document, whatever Python may have written in it; `NaN` is null.
///
/// # Errors
/// What is no json even to Python, or not of this type; the message names line and column.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let json = json.strip_prefix(MARK).unwrap_or(json);
    serde_json::from_slice(json).or_else(|error| match Rewritten::of(json) {
        Some(rewritten) => serde_json::from_slice(&rewritten.text),
        None => Err(error),
    })
}

/// A number of a table as json has it: null for `NaN`, 1e308 for an infinite one.
pub fn number(value: f64) -> Value {
    let finite = if value.is_infinite() { LARGEST.copysign(value) } else { value };
    Number::from_f64(finite).map_or(Value::Null, Value::Number)
}

fn object(json: &[u8], wanted: &dyn Fn(&str) -> bool) -> serde_json::Result<Map<String, Value>> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let fields = Object(wanted).deserialize(&mut reader)?;
    reader.end()?;
    Ok(fields)
}

/// Takes the wanted fields of an object.
struct Object<'a>(&'a dyn Fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key_seed(Name(self.0))? {
            match name {
                // Of a name that is there twice the last counts, as in Python.
                Some(name) => drop(fields.insert(name, map.next_value_seed(Plain { is_entry: false })?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// Takes a name, if it is wanted.
struct Name<'a>(&'a dyn Fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok((self.0)(name).then(|| name.to_owned()))
    }
}

/// Takes a text, a number, a boolean or null, and lists of these; of objects, and of lists in lists, that they are one.
/// So no depth is too much for the stack.
struct Plain {
    is_entry: bool,
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut entries = vec![];
        if self.is_entry {
            while list.next_element::<IgnoredAny>()?.is_some() {}
        } else {
            while let Some(entry) = list.next_element_seed(Plain { is_entry: true })? {
                entries.push(entry);
            }
        }
        Ok(Value::Array(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(Map::new()))
    }
}

/// Text in which everything that is json to Python alone has become json to all: `NaN` null, infinite
/// numbers 1e308, halves of surrogate pairs U+FFFD, as ftfy makes them.
struct Rewritten {
    text: Vec<u8>,
    /// Fields of the outermost object that were `NaN`.
    not_numbers: Vec<String>,
}

impl Rewritten {
    /// `None` where nothing had to be rewritten. What is no json stays none.
    fn of(json: &[u8]) -> Option<Self> {
        let (mut text, mut not_numbers) = (Vec::with_capacity(json.len() + 64), vec![]);
        let (mut at, mut depth, mut changed) = (0, 0usize, false);
        // The last text directly in the outermost object: before a value, that is its name.
        let mut name: &[u8] = b"";
        while let Some(&byte) = json.get(at) {
            let rest = &json[at..];
            let ends = |length: usize| !rest.get(length).is_some_and(|b| is_of_word(*b));
            let begins = !text.last().is_some_and(|b| is_of_word(*b));
            let taken = match byte {
                b'"' => {
                    let length = string(rest, &mut text, &mut changed);
                    if depth == 1 {
                        name = &rest[..length];
                    }
                    length
                }
                b'N' if begins && rest.starts_with(b"NaN") && ends(3) => {
                    text.extend_from_slice(b"null");
                    changed = true;
                    if depth == 1 {
                        not_numbers.extend(read::<String>(name).ok());
                    }
                    3
                }
                b'I' | b'-' if begins && infinite(rest).is_some_and(ends) => {
                    text.extend_from_slice(if byte == b'-' { b"-" } else { b"" });
                    text.extend_from_slice(INFINITY.as_bytes());
                    changed = true;
                    infinite(rest).unwrap_or_default()
                }
                b'-' | b'0'..=b'9' if begins => {
                    let length = rest.iter().take_while(|b| is_of_word(**b)).count();
                    let number = from_utf8(&rest[..length]).unwrap_or_default();
                    if is_beyond(number) {
                        text.extend_from_slice(if byte == b'-' { b"-" } else { b"" });
                        text.extend_from_slice(INFINITY.as_bytes());
                        changed = true;
                    } else {
                        text.extend_from_slice(&rest[..length]);
                    }
                    length
                }
                _ => {
                    match byte {
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    text.push(byte);
                    1
                }
            };
            at += taken;
        }
        changed.then_some(Self { text, not_numbers })
    }
}

/// Whether `byte` may be part of a number or of a word.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Length of an infinite number at the start of `text`.
fn infinite(text: &[u8]) -> Option<usize> {
    [&b"Infinity"[..], b"-Infinity"].into_iter().find(|word| text.starts_with(word)).map(<[u8]>::len)
}

/// Whether `number` is one in json, but too large for an f64 as serde_json reads it.
fn is_beyond(number: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(number).is_ok() && serde_json::from_str::<f64>(number).is_err()
}

/// Copies the text that starts `json` to `out`, halves of surrogate pairs replaced; its length in `json`.
fn string(json: &[u8], out: &mut Vec<u8>, changed: &mut bool) -> usize {
    let mut at = 1;
    out.push(b'"');
    while let Some(&byte) = json.get(at) {
        let rest = &json[at..];
        if byte == b'"' {
            out.push(byte);
            return at + 1;
        }
        let first = unit(rest);
        let second = first.and_then(|(_, length)| unit(&rest[length..]));
        let (taken, replaced) = match (first, second) {
            // A pair is one character, however its halves are written; as two escapes it is json.
            (Some((0xD800..=0xDBFF, 6)), Some((0xDC00..=0xDFFF, 6))) => (12, None),
            (Some((high @ 0xD800..=0xDBFF, one)), Some((low @ 0xDC00..=0xDFFF, two))) => {
                (one + two, char::decode_utf16([high, low]).next().and_then(Result::ok))
            }
            (Some((0xD800..=0xDFFF, length)), _) => (length, Some('\u{FFFD}')),
            (Some((_, length)), _) => (length, None),
            (None, _) if byte == b'\\' => (rest.len().min(2), None),
            (None, _) => (1, None),
        };
        match replaced {
            Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => out.extend_from_slice(&rest[..taken]),
        }
        *changed |= replaced.is_some();
        at += taken;
    }
    at
}

/// The UTF-16 unit that an escape at the start of `text` stands for, or half a surrogate pair there that was written
/// as if UTF-8 had it; and its length.
fn unit(text: &[u8]) -> Option<(u16, usize)> {
    if let [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, ..] = *text {
        return Some((0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F), 3));
    }
    let digits = text.strip_prefix(b"\\u")?.get(..4).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    Some((u16::from_str_radix(from_utf8(digits).ok()?, 16).ok()?, 6))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn all(json: impl AsRef<[u8]>) -> Result<Fields, String> {
        Fields::read(json.as_ref(), |_| true)
    }

    #[test]
    fn what_python_writes_is_read() {
        let text =
            r#"{"a": NaN, "b": -Infinity, "c": "\ud83d!", "d": "\ud83d\ude00", "e": [NaN], "n": 1e999}"#;
        let fields = all([MARK, text.as_bytes()].concat()).unwrap();
        assert!(fields.is_nan("a") && !fields.is_nan("e") && !fields.is_nan("b"));
        assert_eq!(fields.value("a"), None);
        assert_eq!(fields.value("b"), Some(&json!(-1e308)));
        assert_eq!(fields.value("c"), Some(&json!("\u{FFFD}!")));
        assert_eq!(fields.value("d"), Some(&json!("😀")));
        assert_eq!(fields.value("n"), Some(&json!(1e308)));
        assert_eq!(fields.names().collect::<String>(), "abcden");
        let escaped = all(r#"{"\u0061": NaN, "b": {"a": NaN}, "c": "NaN"}"#).unwrap();
        assert!(escaped.is_nan("a") && !escaped.is_nan("b"));
        assert_eq!(escaped.value("c"), Some(&json!("NaN")));
        // The last of two counts.
        let twice = all(r#"{"a": NaN, "a": 1}"#).unwrap();
        assert!(!twice.is_nan("a") && twice.value("a") == Some(&json!(1)));
        // Halves that were written as if UTF-8 had them, and pairs of these.
        let raw = all(b"{\"a\": \"\\ud83d\xED\xB8\x80\", \"b\": \"\xED\xA0\xBD\xED\xB8\x80\xED\xB8\x80\"}")
            .unwrap();
        assert_eq!((raw.value("a"), raw.value("b")), (Some(&json!("😀")), Some(&json!("😀\u{FFFD}"))));
        assert_eq!(all(b"{\"a\": \"\xED\xA0\x80\"}").unwrap().value("a"), Some(&json!("\u{FFFD}")));
    }

    #[test]
    fn what_nobody_asked_for_costs_nothing() {
        let deep = format!(
            r#"{{"x": {}1{}, "y": 1e999, "z": "\udfff", "a": 7}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        let fields = Fields::read(deep.as_bytes(), |name| name == "a").unwrap();
        assert_eq!((fields.value("a"), fields.value("x")), (Some(&json!(7)), None));
        assert_eq!(
            all(&deep).unwrap().value("x"),
            Some(&json!([[]])),
            "of a list in a list only that it is one"
        );
        let list = all(r#"{"a": ["x", null, 1, {"b": 2}, ["y"], "\ud800", NaN]}"#).unwrap();
        assert_eq!(list.value("a"), Some(&json!(["x", null, 1, {}, [], "\u{FFFD}", null])));
    }

    #[test]
    fn what_python_refuses_is_refused_with_its_place() {
        for wrong in [
            "",
            "{",
            "[1]",
            "7",
            "nan",
            "{\"a\": nan}",
            "{\"a\": NaNs}",
            "{\"a\": -NaN}",
            "{\"a\": 1NaN}",
            "{\"a\": +Infinity}",
            "{\"a\": Infinity5}",
            "{\"a\": 01e999}",
            "{\"a\": 1.e999}",
            "{\"a\": inf}",
            "{\"a\": \"\\ud83\"}",
            "{\"a\": NaN,}",
            "{\"a\": NaN} x",
            "{\"a\": \"\\ud800}",
            "{NaN: 1}",
            "{\"a\": --Infinity}",
            "{\"a\": \"\u{1}\", \"b\": NaN}",
        ] {
            assert!(all(wrong).is_err(), "{wrong}");
        }
        let error = all("{\"a\": NaN,\n \"b\": x}").unwrap_err();
        assert!(error.contains("line 2 column 7"), "{error}");
        assert_eq!(all("[1, 2]").unwrap_err(), "no object");
    }

    #[test]
    fn whole_documents_are_read_likewise() {
        let found: Value = read(b"\xEF\xBB\xBF{\"a\": [NaN, -Infinity], \"b\": \"\\udc00\"}").unwrap();
        assert_eq!(found, json!({"a": [null, -1e308], "b": "\u{FFFD}"}));
        assert!(read::<Value>(b"{\"a\": NaN]").is_err());
        assert_eq!((number(f64::NAN), number(f64::INFINITY)), (Value::Null, json!(1e308)));
    }

    /// Any document, up to three levels deep.
    fn document() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(number),
            ".{0,8}".prop_map(Value::from),
        ];
        let any = plain.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map(".{0,4}", any, 0..5)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn ordinary_json_is_serde_jsons(value in document()) {
            let text = value.to_string();
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(Rewritten::of(text.as_bytes()).is_none());
            let fields = all(&text).unwrap();
            for (name, own) in value.as_object().unwrap() {
                let kind = |value: &Value| match value {
                    Value::Array(_) => json!([]),
                    Value::Object(_) => json!({}),
                    plain => plain.clone(),
                };
                let outline = match own {
                    Value::Array(entries) => entries.iter().map(kind).collect(),
                    other => kind(other),
                };
                prop_assert_eq!(fields.value(name).cloned().unwrap_or_default(), outline);
            }
            prop_assert_eq!(read::<Value>(text.as_bytes()).unwrap(), value);
        }

        #[test]
        fn any_bytes_are_json_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[-\\[\\]{}:,\"NaInfity\\\\ud8c0-9.eE ]{0,40}") {
            let _ = all(&bytes);
            let _ = all(&text);
            let _ = all(format!("{{{text}}}"));
            let _ = read::<Value>(text.as_bytes());
        }
    }
}
