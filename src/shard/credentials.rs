//! Options that hold secrets: a token, and headers. They are shown nowhere, and no state or file has them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::error::Error;
use crate::options::{HIDDEN, Refused, Setting, is_foreign, shown};

/// A bearer token. Its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// The token as a header takes it, without white space around it.
    pub fn new(token: &str) -> Self {
        Self(token.trim().into())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Setting for Token {
    const ACCEPTED: &'static str = "a token, in visible ASCII";
    const PYTHON: &'static str = "str";

    fn from_value(value: &Value) -> Option<Self> {
        let token = Self::new(value.as_str()?);
        let is_sendable = !token.0.is_empty() && token.0.bytes().all(|byte| byte.is_ascii_graphic());
        is_sendable.then_some(token)
    }

    // What is written down holds no token.
    fn to_value(&self) -> Value {
        Value::Null
    }

    fn read(value: &Value) -> Result<Self, Refused> {
        Self::from_value(value).ok_or_else(|| refused("token", value, Self::ACCEPTED).into())
    }
}

/// The error of a value that is not shown, but for its type where that is wrong.
fn refused(option: &'static str, value: &Value, accepted: &'static str) -> Error {
    let is_type = |text: &String| is_foreign(value) && text.starts_with("an object of type ");
    Error::option(option, Some(shown(value)).filter(is_type).unwrap_or(HIDDEN.to_owned()), accepted)
}

/// Headers by their names, in lower case. Their `Debug` has the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, Arc<str>>);

/// Headers that requests have themselves.
const OWN: [&str; 8] =
    ["connection", "content-length", "host", "if-match", "range", "te", "transfer-encoding", "upgrade"];

impl Headers {
    /// Headers of these names and values.
    ///
    /// # Errors
    /// A name or value that no header can have; a header that requests have themselves.
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> crate::Result<Self> {
        let mut read = BTreeMap::new();
        for (name, value) in headers {
            let refuse = |what: &str| Error::option("headers", format!("{name:?}: {HIDDEN}"), what);
            let lower = name.to_ascii_lowercase();
            // A token of RFC 9110, 5.6.2.
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if lower.is_empty() || !lower.bytes().all(is_name) {
                return Err(refuse("the name of a header, like X-Api-Key"));
            }
            if OWN.contains(&&*lower) {
                return Err(refuse("a header that requests do not have by themselves"));
            }
            if !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
                return Err(refuse("a value in ASCII, on one line"));
            }
            read.insert(lower, value.into());
        }
        Ok(Self(read))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, HIDDEN))).finish()
    }
}

impl Setting for Headers {
    const ACCEPTED: &'static str = "texts by the names of headers, like {\"X-Api-Key\": \"...\"}";
    const PYTHON: &'static str = "Mapping[str, str]";

    fn from_value(value: &Value) -> Option<Self> {
        Self::read(value).ok()
    }

    fn to_value(&self) -> Value {
        Value::Null
    }

    fn read(value: &Value) -> Result<Self, Refused> {
        let refused = || refused("headers", value, Self::ACCEPTED);
        let fields = value.as_object().filter(|_| !is_foreign(value)).ok_or_else(refused)?;
        let pairs = fields.iter().map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let pairs: Vec<_> = pairs.collect::<Option<_>>().ok_or_else(refused)?;
        Ok(Self::new(pairs)?)
    }

    fn set_text(&mut self, _path: &[&str], text: &str) -> Result<(), Refused> {
        *self = Self::read(&serde_json::from_str(text).unwrap_or(Value::Null))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::config::{Config, Source};
    use crate::options::{Class, Group};
    use crate::shard::Store;

    const ALL: [Class; 5] = [Class::Policy, Class::Reading, Class::Pixels, Class::Order, Class::Runtime];

    fn given() -> Value {
        json!({"sources": [{"urls": "https://h/0.tar", "store": {
            "token": "s3cret", "headers": {"X-Key": "s3cret too"}, "retries": 3,
        }}]})
    }

    fn read<G: Group>(given: Value) -> crate::Result<G> {
        G::read(given.as_object().unwrap())
    }

    #[test]
    fn secrets_are_read_and_shown_nowhere() {
        let config = read::<Config>(given()).unwrap();
        let store = &config.sources[0].store;
        assert_eq!(store.token.as_ref().unwrap().text(), "s3cret");
        assert_eq!(store.headers.iter().collect::<Vec<_>>(), [("x-key", "s3cret too")]);
        let written = serde_json::to_string(&config).unwrap();
        let entries = format!("{:?}", config.entries(&ALL));
        let of_source = format!("{:?}", config.sources[0].entries(&ALL));
        for text in [format!("{config:?}"), written, entries, of_source] {
            assert!(text.contains("retries") && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn more_options_of_a_store_leave_its_token() {
        let mut source = Source::default();
        for given in [json!({"store": {"token": "a"}}), json!({"store": {"retries": 3}})] {
            Group::update(&mut source, given.as_object().unwrap()).unwrap();
        }
        assert_eq!((source.store.token, source.store.retries), (Some(Token::new("a")), 3));
    }

    #[test]
    fn errors_do_not_show_what_was_given() {
        let store = |given: Value| read::<Store>(given).unwrap_err();
        let source = |given: Value| read::<Source>(given).unwrap_err();
        let sources = |given: Value| read::<Config>(given).unwrap_err();
        let mut text = Store::default();
        for (error, expected) in [
            (store(json!({"token": "s3c ret"})), "invalid token=(hidden): expected a token"),
            (store(json!({"token": ["s3cret"]})), "invalid token=(hidden)"),
            (store(json!({"tokn": "s3cret"})), "unknown option tokn=(hidden)"),
            (store(json!({"header": "s3cret"})), "the nearest is headers"),
            (
                store(json!({"headers": {"a b": "s3cret"}})),
                "invalid headers=\"a b\": (hidden): expected the name",
            ),
            (store(json!({"headers": {"Range": "s3cret"}})), "requests do not have by themselves"),
            (store(json!({"headers": {"a": "s3cret\n"}})), "on one line"),
            (store(json!({"headers": "s3cret"})), "invalid headers=(hidden): expected texts by the names"),
            (source(json!({"token": "s3cret"})), "store=Store(token=..)"),
            (source(json!({"store": [{"token": "s3cret"}]})), "invalid store"),
            (sources(json!({"sources": [{"store": {"token": "s3cret"}}, 5]})), "invalid sources"),
            (Group::set_text(&mut text, &["token"], "s3c ret").unwrap_err(), "invalid token=(hidden)"),
            (Group::set_text(&mut text, &["headers"], "s3cret").unwrap_err(), "invalid headers=(hidden)"),
        ] {
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected) && !shown.contains("s3c"), "{shown}");
        }
        Group::set_text(&mut text, &["headers"], r#"{"X-Key": "a"}"#).unwrap();
        assert_eq!(text.headers.iter().count(), 1);
    }
}
