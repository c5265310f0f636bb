//! The one notation of values that take arguments: `top(0.5, by=clip)`, `cap(100)`, `coin({0: 0.2, 10: 0.5})`.
//!
//! Names are case-insensitive and may lack their parentheses where nothing is given: `Top(0.5)` is `top(0.5)`, and
//! `concat` is `concat()`. A text may stand in quotes: it has to where it holds a comma, a parenthesis or a brace.

use std::fmt::{Display, Write as _};

/// A name with its arguments, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// In lower case, with `_` for `-`.
    pub(crate) name: String,
    /// Those without a name, in order, then those with one.
    plain: Vec<String>,
    named: Vec<(String, String)>,
}

impl Call {
    /// Reads one; `None` where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, inner) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')')?),
            None => (text, ""),
        };
        let name = name.trim().to_lowercase().replace('-', "_");
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let mut call = is_name.then_some(Self { name, plain: vec![], named: vec![] })?;
        for argument in arguments(inner)? {
            match argument.split_once('=').filter(|(name, _)| is_identifier(name.trim())) {
                Some((name, value)) => call.named.push((name.trim().to_owned(), unquoted(value))),
                // What follows a named argument has a name, too.
                None if call.named.is_empty() => call.plain.push(unquoted(argument)),
                None => return None,
            }
        }
        Some(call)
    }

    /// Takes the argument `name`, or the first of those without a name.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        match self.named.iter().position(|(own, _)| own == name) {
            Some(at) => Some(self.named.remove(at).1),
            None if self.plain.is_empty() => None,
            None => Some(self.plain.remove(0)),
        }
    }

    /// Takes the argument `name`, which only goes by its name.
    pub(crate) fn take_named(&mut self, name: &str) -> Option<String> {
        self.named.iter().position(|(own, _)| own == name).map(|at| self.named.remove(at).1)
    }

    /// Whether every argument was taken.
    pub(crate) fn is_spent(&self) -> bool {
        self.plain.is_empty() && self.named.is_empty()
    }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The arguments, cut at commas outside of quotes and brackets; `None` where those do not match.
fn arguments(inner: &str) -> Option<Vec<&str>> {
    let (mut depth, mut quote, mut start) = (0i32, None, 0);
    let mut found = vec![];
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{' | '(' | '[') => depth += 1,
            (None, '}' | ')' | ']') => depth -= 1,
            (None, ',') if depth == 0 => {
                found.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    found.push(inner[start..].trim());
    let is_whole = depth == 0 && quote.is_none();
    let empty = found.iter().filter(|argument| argument.is_empty()).count();
    match (is_whole, found.len(), empty) {
        (true, 1, 1) => Some(vec![]),
        (true, _, 0) => Some(found),
        _ => None,
    }
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text).to_owned()
}

/// Writes a name and its arguments: one without a name has an empty one, and one that is `None` is not written.
pub(crate) fn show(name: &str, arguments: &[(&str, Option<&dyn Display>)]) -> String {
    let mut shown = String::new();
    for (name, value) in arguments.iter().filter_map(|(name, value)| Some((name, (*value)?.to_string()))) {
        if !shown.is_empty() {
            shown.push_str(", ");
        }
        if !name.is_empty() {
            let _ = write!(shown, "{name}=");
        }
        let needs_quotes =
            !value.starts_with('{') && value.contains([',', '(', ')', '{', '}', '=', '"', '\'']);
        let _ = if needs_quotes { write!(shown, "{value:?}") } else { write!(shown, "{value}") };
    }
    if shown.is_empty() { name.to_owned() } else { format!("{name}({shown})") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_are_taken_by_place_and_by_name() {
        let mut call = Call::parse("Top(0.5, by=clip_l14, within = \"cluster\")").unwrap();
        assert_eq!(call.name, "top");
        assert_eq!(call.take("share").as_deref(), Some("0.5"));
        assert_eq!(call.take_named("by").as_deref(), Some("clip_l14"));
        assert!(!call.is_spent());
        assert_eq!(call.take("within").as_deref(), Some("cluster"));
        assert!(call.is_spent() && call.take("more").is_none());

        let mut coin = Call::parse(" coin({0: 0.2, 10: 0.5}) ").unwrap();
        assert_eq!(coin.take("p").as_deref(), Some("{0: 0.2, 10: 0.5}"));
        assert_eq!(Call::parse("every-nth").unwrap().name, "every_nth");
        assert!(Call::parse("concat()").unwrap().is_spent());
    }

    #[test]
    fn what_is_no_call_is_none() {
        for text in [
            "",
            "top(0.5",
            "top(0.5))",
            "top(,)",
            "top(0.5,)",
            "0.5 0.6",
            "top({0: 1)",
            "top(by=a, 0.5)",
            "a(\"b)",
        ] {
            assert_eq!(Call::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for by in ["clip", "a,b", "f(x)", "it's"] {
            let text = show("top", &[("", Some(&0.25)), ("by", Some(&by)), ("within", None)]);
            let mut call = Call::parse(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(call.take("share").as_deref(), Some("0.25"));
            assert_eq!(call.take_named("by").as_deref(), Some(by), "{text}");
        }
        assert_eq!(show("cap", &[("", None::<&dyn Display>)]), "cap");
        assert_eq!(show("coin", &[("", Some(&"{0: 0.2, 10: 0.5}"))]), "coin({0: 0.2, 10: 0.5})");
    }
}
