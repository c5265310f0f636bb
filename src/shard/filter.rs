//! Filters on the metadata of samples: `NSFW = 'UNLIKELY' and width >= 200`.
//!
//! A small part of SQL, so that nobody has to learn it:
//!
//! ```text
//! filter  = and ("or" and)*
//! and     = not ("and" not)*
//! not     = "not" not | "(" filter ")" | test
//! test    = column compare value
//!         | column ["not"] "in" "(" value ("," value)* ")"
//!         | column "is" ["not"] "null"
//! compare = "=" | "!=" | "<>" | "<" | "<=" | ">" | ">="
//! value   = number | 'text' | true | false
//! column  = a name of letters, digits, "_" and ".", or any name in double quotes
//! ```
//!
//! Words may be written in capitals. A quote inside a text or a quoted name is doubled. As in SQL, a
//! test of a field that is absent, null, or of another kind than the value is neither true nor false,
//! and a sample passes only where the whole filter is true. A text that is a number counts as one
//! where it is compared with a number, since some tools write every field as text.

mod words;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::error::{Error, Result};
use words::{Compare, Figure, Token, Wrong, tokens};

/// Deepest nesting of parentheses and `not`: each is a level of recursion.
const MAX_DEPTH: usize = 64;
/// Characters of a value that a message shows.
const MAX_SHOWN: usize = 60;

/// A condition on the metadata of a sample. Parsed from text and shown as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    text: String,
    /// What is joined by `and` at the outermost level: all of them must hold.
    clauses: Vec<Clause>,
    columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Clause {
    /// As it was written.
    text: String,
    node: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    /// Whether the column, by its number, compares so with the value.
    Compare(usize, Compare, Literal),
    In(usize, Vec<Literal>),
    IsNull(usize),
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Number(Figure),
    Text(String),
    Bool(bool),
}

impl Literal {
    /// How `value` compares with it; `None` where it does not.
    fn order(&self, value: &Value) -> Option<Ordering> {
        match (value, self) {
            (Value::Number(value), Self::Number(number)) => number.order(value),
            (Value::String(text), Self::Number(number)) => {
                text.trim().parse::<f64>().ok()?.partial_cmp(&number.real)
            }
            (Value::String(value), Self::Text(text)) => Some(value.as_str().cmp(text)),
            (Value::Bool(value), Self::Bool(literal)) => Some(value.cmp(literal)),
            _ => None,
        }
    }
}

impl Filter {
    /// Names of the fields that it looks at, each once, in order of appearance.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether a sample passes; `values` are those of [`columns`](Self::columns), in their order, null
    /// where a field is absent.
    pub fn passes(&self, values: &[Value]) -> bool {
        self.clauses.iter().all(|clause| clause.node.is_true(values) == Some(true))
    }

    /// Those clauses of `... and ...` that are not true, each with what it looked at: `width >= 200 (width is 150)`. Empty
    /// where the sample passes. `values` as of [`passes`](Self::passes).
    pub fn failing(&self, values: &[Value]) -> Vec<String> {
        let shown = |&column: &usize| match values.get(column).filter(|value| !value.is_null()) {
            Some(value) => {
                let text = value.to_string();
                let end = text.char_indices().nth(MAX_SHOWN).map(|(at, _)| at);
                let text = end.map_or(text.clone(), |at| format!("{}...", &text[..at]));
                format!("{} is {text}", self.columns[column])
            }
            None => format!("{} is absent", self.columns[column]),
        };
        let failing = self.clauses.iter().filter(|clause| clause.node.is_true(values) != Some(true));
        failing
            .map(|clause| {
                let columns = clause.node.columns();
                format!("{} ({})", clause.text, columns.iter().map(shown).collect::<Vec<_>>().join(", "))
            })
            .collect()
    }
}

impl Node {
    /// Numbers of the columns that it looks at, in order of appearance.
    fn columns(&self) -> Vec<usize> {
        let mut found = vec![];
        let mut open = vec![self];
        while let Some(node) = open.pop() {
            match node {
                Self::Or(nodes) | Self::And(nodes) => open.extend(nodes.iter().rev()),
                Self::Not(node) => open.push(node),
                Self::Compare(column, ..) | Self::In(column, _) | Self::IsNull(column) => {
                    if !found.contains(column) {
                        found.push(*column);
                    }
                }
            }
        }
        found
    }

    /// `None`: unknown.
    fn is_true(&self, values: &[Value]) -> Option<bool> {
        let value = |column: &usize| values.get(*column).unwrap_or(&Value::Null);
        match self {
            // As in SQL, the unknown decides nothing where another part decides alone.
            Self::Or(nodes) => any(nodes.iter().map(|node| node.is_true(values))),
            Self::And(nodes) => any(nodes.iter().map(|node| node.is_true(values).map(|t| !t))).map(|t| !t),
            Self::Not(node) => node.is_true(values).map(|t| !t),
            Self::Compare(column, compare, literal) => {
                literal.order(value(column)).map(|order| compare.holds(order))
            }
            Self::In(column, literals) => {
                any(literals.iter().map(|literal| literal.order(value(column)).map(Ordering::is_eq)))
            }
            Self::IsNull(column) => Some(value(column).is_null()),
        }
    }
}

/// Whether one of `truths` is true; unknown where one may be.
fn any(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut found = Some(false);
    for truth in truths {
        match truth {
            Some(true) => return Some(true),
            Some(false) => {}
            None => found = None,
        }
    }
    found
}

/// Numbers are finite, and so equal to themselves.
impl Eq for Filter {}

crate::options::text_settings! {
    Filter: "str", "a condition as in SQL: \"width >= 200 and NSFW = 'UNLIKELY'\"";
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Filter {
    type Err = Error;

    /// # Errors
    /// What is no filter, with the place where it stops being one.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |(at, expected): (usize, String)| {
            let found = match text[at..].split_whitespace().next() {
                Some(word) => format!("{word:?}"),
                None => "the end".to_owned(),
            };
            let before: String =
                text[..at].chars().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect();
            let place = format!("at character {}, after {before:?}", text[..at].chars().count() + 1);
            Error::refused(
                "where",
                format!("{text:?}"),
                format!("{place}: expected {expected}, found {found}"),
            )
        };
        let tokens = tokens(text).map_err(wrong)?;
        let mut parser = Parser { tokens: &tokens, next: 0, end: text.len(), depth: 0, columns: vec![] };
        let clauses = parser.clauses(text).map_err(wrong)?;
        if parser.next < tokens.len() {
            return Err(wrong((parser.at(), "`and`, `or` or the end".into())));
        }
        Ok(Self { text: text.trim().to_owned(), clauses, columns: parser.columns })
    }
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    next: usize,
    /// Length of the text.
    end: usize,
    depth: usize,
    columns: Vec<String>,
}

impl Parser<'_> {
    /// Where the next token begins.
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn wrong<T>(&self, expected: &str) -> std::result::Result<T, Wrong> {
        Err((self.at(), expected.to_owned()))
    }

    /// Takes the token, if it is next.
    fn takes(&mut self, token: &Token) -> bool {
        let is = self.peek() == Some(token);
        self.next += usize::from(is);
        is
    }

    /// Takes the keyword, if it is next.
    fn takes_word(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
        self.next += usize::from(is);
        is
    }

    /// The whole filter, which is `text`.
    fn clauses(&mut self, text: &str) -> std::result::Result<Vec<Clause>, Wrong> {
        let mut clauses = vec![];
        loop {
            let start = self.at();
            let node = self.not()?;
            clauses.push(Clause { text: text[start..self.at()].trim_end().to_owned(), node });
            if !self.takes_word("and") {
                break;
            }
        }
        if !self.takes_word("or") {
            return Ok(clauses);
        }
        // One clause: any of its parts is enough.
        let mut nodes = vec![Node::And(clauses.into_iter().map(|clause| clause.node).collect())];
        nodes.push(self.or()?);
        Ok(vec![Clause { text: text.trim().to_owned(), node: Node::Or(nodes) }])
    }

    fn or(&mut self) -> std::result::Result<Node, Wrong> {
        let mut nodes = vec![self.and()?];
        while self.takes_word("or") {
            nodes.push(self.and()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Or(nodes) })
    }

    fn and(&mut self) -> std::result::Result<Node, Wrong> {
        let mut nodes = vec![self.not()?];
        while self.takes_word("and") {
            nodes.push(self.not()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::And(nodes) })
    }

    fn not(&mut self) -> std::result::Result<Node, Wrong> {
        if self.depth == MAX_DEPTH {
            return self.wrong(&format!("no more than {MAX_DEPTH} levels of parentheses and `not`"));
        }
        self.depth += 1;
        let node = if self.takes_word("not") {
            Node::Not(Box::new(self.not()?))
        } else if self.takes(&Token::Open) {
            let inner = self.or()?;
            if !self.takes(&Token::Close) {
                return self.wrong("`and`, `or` or `)`");
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> std::result::Result<Node, Wrong> {
        let column = self.column()?;
        if let Some(&Token::Compare(compare)) = self.peek() {
            self.next += 1;
            return Ok(Node::Compare(column, compare, self.value()?));
        }
        if self.takes_word("is") {
            let not = self.takes_word("not");
            if !self.takes_word("null") {
                return self.wrong(if not { "`null`" } else { "`null` or `not null`" });
            }
            return Ok(negated(Node::IsNull(column), not));
        }
        let not = self.takes_word("not");
        if !self.takes_word("in") {
            return self.wrong(if not { "`in`" } else { "a comparison (= != < <= > >=), `in` or `is null`" });
        }
        if !self.takes(&Token::Open) {
            return self.wrong("`(`");
        }
        let mut literals = vec![self.value()?];
        while self.takes(&Token::Comma) {
            literals.push(self.value()?);
        }
        if !self.takes(&Token::Close) {
            return self.wrong("`,` or `)`");
        }
        Ok(negated(Node::In(column, literals), not))
    }

    /// Number of the column whose name is next.
    fn column(&mut self) -> std::result::Result<usize, Wrong> {
        let keyword = |word: &str| {
            ["and", "or", "not", "in", "is", "null", "true", "false"]
                .iter()
                .any(|k| word.eq_ignore_ascii_case(k))
        };
        let name = match self.peek() {
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Word(word)) if !keyword(word) => word.clone(),
            _ => return self.wrong("the name of a column"),
        };
        self.next += 1;
        let known = self.columns.iter().position(|column| *column == name);
        Ok(known.unwrap_or_else(|| {
            self.columns.push(name);
            self.columns.len() - 1
        }))
    }

    fn value(&mut self) -> std::result::Result<Literal, Wrong> {
        let literal = match self.peek() {
            Some(Token::Number(number)) => Literal::Number(*number),
            Some(Token::Text(text)) => Literal::Text(text.clone()),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("null") => {
                return self.wrong("a value (for null: `is null`)");
            }
            _ => return self.wrong("a number, a 'text', true or false"),
        };
        self.next += 1;
        Ok(literal)
    }
}

fn negated(node: Node, not: bool) -> Node {
    if not { Node::Not(Box::new(node)) } else { node }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Whether the object passes.
    fn passes(filter: &str, fields: &Value) -> bool {
        let filter: Filter = filter.parse().unwrap();
        let values: Vec<Value> =
            filter.columns().iter().map(|name| fields.get(name).cloned().unwrap_or(Value::Null)).collect();
        filter.passes(&values)
    }

    #[test]
    fn clauses_that_fail_are_named_with_what_they_looked_at() {
        let row = json!({"width": 150, "height": 480, "NSFW": "UNSURE", "long": "x".repeat(100)});
        let failing = |filter: &str| {
            let filter: Filter = filter.parse().unwrap();
            let values: Vec<Value> =
                filter.columns().iter().map(|name| row.get(name).cloned().unwrap_or(Value::Null)).collect();
            filter.failing(&values)
        };
        for (filter, expected) in [
            ("width >= 100 and height > 10", vec![]),
            ("width >= 200 and height > 10", vec!["width >= 200 (width is 150)"]),
            (
                " width >= 200  AND  NSFW = 'UNLIKELY' and (height < 5 or sharp is not null) ",
                vec![
                    "width >= 200 (width is 150)",
                    "NSFW = 'UNLIKELY' (NSFW is \"UNSURE\")",
                    "(height < 5 or sharp is not null) (height is 480, sharp is absent)",
                ],
            ),
            (
                "width > 200 and height > 1 or height < 3",
                vec!["width > 200 and height > 1 or height < 3 (width is 150, height is 480)"],
            ),
        ] {
            assert_eq!(failing(filter), expected, "{filter}");
        }
        let [long] = &failing("long = 'y'")[..] else { panic!("one clause") };
        assert!(long.ends_with("x...)") && long.len() < 100, "{long}");
    }

    #[test]
    fn what_sql_lets_through_passes() {
        let row = json!({
            "NSFW": "UNLIKELY", "width": 640, "height": "480", "similarity": 0.31, "a b": "it's", "ok": true,
            "none": null, "tags": ["x"], "exif.model": "m", "id": (1_u64 << 60) + 1, "big": u64::MAX,
        });
        for filter in [
            "NSFW = 'UNLIKELY' and width >= 200",
            "nothing = 1 or width = 640",
            "not (width < 200 or similarity < 0.3)",
            "width in (1, 640) AND NSFW NOT IN ('NSFW', 'UNSURE')",
            "none is null and absent is null and width IS NOT NULL",
            "\"a b\" = 'it''s'",
            "height > 479.5 and height <= 4.8e2",
            "ok = true and ok != false",
            "width <> -1 and width==640",
            // Whole numbers are themselves, where floats are not.
            "id = 1152921504606846977 and id > 1152921504606846976 and id in (1, 1152921504606846977)",
            "id < 1152921504606846978 and id > 1.1e18 and big = 18446744073709551615",
            "exif.model >= 'l'",
            "NSFW < 'V'",
            "width = 1 and width = 2 or width = 640",
        ] {
            assert!(passes(filter, &row), "{filter}");
            assert!(!passes(&format!("not ({filter})"), &row), "not {filter}");
        }
        // Neither true nor false.
        for filter in [
            "absent = 1",
            "none != 1",
            "NSFW > 3",
            "tags = 'x'",
            "ok = 1",
            "width = '640'",
            "absent in (1, 2)",
            "NSFW = 'UNLIKELY' and absent > 0",
            "NSFW = 'x' or absent > 0",
        ] {
            assert!(!passes(filter, &row), "{filter}");
            assert!(!passes(&format!("not ({filter})"), &row), "not {filter}");
        }
    }

    #[test]
    fn columns_are_named_once_in_order() {
        let filter: Filter = " b > 1 and (a = 2 or b < 3) ".parse().unwrap();
        assert_eq!(filter.columns(), ["b", "a"]);
        assert_eq!(filter.to_string(), "b > 1 and (a = 2 or b < 3)");
    }

    #[test]
    fn what_is_no_filter_is_refused_at_its_place() {
        for (text, at, expected) in [
            ("", 1, "the name of a column, found the end"),
            ("width", 6, "`in` or `is null`, found the end"),
            ("width >= ", 10, "a number, a 'text', true or false, found the end"),
            ("width >= tall", 10, "found \"tall\""),
            ("width > 1 height > 2", 11, "`and`, `or` or the end, found \"height\""),
            ("(width > 1", 11, "`)`, found the end"),
            ("width > 1)", 10, "the end, found \")\""),
            ("größe > 'a", 9, "a closing '"),
            ("a = null", 5, "for null: `is null`"),
            ("a is 3", 6, "`null` or `not null`"),
            ("a in 3", 6, "`(`"),
            ("a in (3; 4)", 8, "found \";\""),
            ("a in ()", 7, "a number"),
            ("a > 1.2.3", 5, "a number, found \"1.2.3\""),
            ("a > 1e999", 5, "a number"),
            ("and = 1", 1, "the name of a column"),
            ("a & b", 3, "a comparison"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("character {at},")) && error.contains(expected),
                "{text:?}: {error}"
            );
        }
        let deep = format!("{}a = 1{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(deep.parse::<Filter>().unwrap_err().to_string().contains("levels of parentheses"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ab1\"'()=<>!,. \u{e9}-]{0,30}|(not |a|and |or |in |is null|1|'|\\(|\\)|,){0,12}") {
            if let Ok(filter) = text.parse::<Filter>() {
                filter.passes(&[json!(1), json!("x")]);
                prop_assert_eq!(filter.to_string().parse::<Filter>().unwrap(), filter);
            }
        }
    }
}
