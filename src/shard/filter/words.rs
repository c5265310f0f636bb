//! The words of a filter: names, values and comparisons, and where each begins.

use std::cmp::Ordering;

use serde_json::Number;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Compare {
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// A number as it is written: whole ones are compared as such, since beyond 2^53 a float is another number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure {
    pub(super) real: f64,
    whole: Option<i128>,
}

impl Figure {
    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            real: text.parse().ok().filter(|real: &f64| real.is_finite())?,
            whole: text.parse().ok(),
        })
    }

    /// How `value` compares with it.
    pub(super) fn order(self, value: &Number) -> Option<Ordering> {
        let own = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        match (own, self.whole) {
            (Some(own), Some(whole)) => Some(own.cmp(&whole)),
            _ => value.as_f64()?.partial_cmp(&self.real),
        }
    }
}

/// Where a text stops being a filter, and what should stand there.
pub(super) type Wrong = (usize, String);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or keyword, as written.
    Word(String),
    /// A name in double quotes.
    Name(String),
    Text(String),
    Number(Figure),
    Compare(Compare),
    Open,
    Close,
    Comma,
}

/// The tokens of `text` and where each begins.
pub(super) fn tokens(text: &str) -> std::result::Result<Vec<(usize, Token)>, Wrong> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let start = at;
        at += first.len_utf8();
        let next = bytes.get(at).copied();
        let token = match first {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '=' => {
                // `==` is what programmers write.
                at += usize::from(next == Some(b'='));
                Token::Compare(Compare::Equal)
            }
            '!' if next == Some(b'=') => {
                at += 1;
                Token::Compare(Compare::Unequal)
            }
            '<' | '>' => {
                let (compare, long) = match (first, next) {
                    ('<', Some(b'>')) => (Compare::Unequal, true),
                    ('<', Some(b'=')) => (Compare::AtMost, true),
                    ('>', Some(b'=')) => (Compare::AtLeast, true),
                    ('<', _) => (Compare::Less, false),
                    _ => (Compare::More, false),
                };
                at += usize::from(long);
                Token::Compare(compare)
            }
            '\'' | '"' => {
                let quote = first;
                let mut content = String::new();
                loop {
                    let rest = &text[at..];
                    let Some(length) = rest.find(quote) else {
                        return Err((start, format!("a closing {quote}")));
                    };
                    content.push_str(&rest[..length]);
                    at += length + 1;
                    if !text[at..].starts_with(quote) {
                        break;
                    }
                    content.push(quote);
                    at += 1;
                }
                if quote == '"' { Token::Name(content) } else { Token::Text(content) }
            }
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => {
                let is_number = |i: usize, b: u8| {
                    b.is_ascii_alphanumeric()
                        || matches!(b, b'.' | b'_')
                        || (matches!(b, b'-' | b'+') && matches!(bytes[i - 1], b'e' | b'E'))
                };
                while bytes.get(at).is_some_and(|&b| is_number(at, b)) {
                    at += 1;
                }
                match Figure::parse(&text[start..at]) {
                    Some(number) => Token::Number(number),
                    None => return Err((start, "a number".into())),
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = text[at..].find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')));
                at = end.map_or(text.len(), |end| at + end);
                Token::Word(text[start..at].to_owned())
            }
            _ => return Err((start, "a name, a value, a comparison or a parenthesis".into())),
        };
        tokens.push((start, token));
    }
    Ok(tokens)
}
