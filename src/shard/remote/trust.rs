//! Credentials for HTTP servers: which server gets which.

use std::collections::HashMap;
use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::error::{Error, Result};
use crate::options::HIDDEN;
use crate::shard::Store;

/// Tokens for HTTP servers: `TOKEN@HOST`, joined by semicolons, as Deno's `DENO_AUTH_TOKENS` has it.
pub(super) const TOKENS: &str = "TLDR_LOADER_HTTP_TOKENS";

/// What servers get to see, by server.
#[derive(Default)]
pub(super) struct Credentials {
    /// For the one server that the options are for.
    given: HeaderMap,
    /// By server, of the environment.
    tokens: HashMap<String, HeaderValue>,
}

/// Says nothing of them.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Those of `options`, and of the environment for servers that those are silent about.
    ///
    /// # Errors
    /// An environment variable that cannot be read.
    pub(super) fn web(options: &Store) -> Result<Self> {
        let environment = std::env::var(TOKENS).unwrap_or_default();
        Ok(Self { given: given(options, None)?, tokens: tokens(&environment)? })
    }

    /// Those for the hub: the token of `options`, else `token`.
    ///
    /// # Errors
    /// A token that no header can have.
    pub(super) fn hub(options: &Store, token: Option<&str>) -> Result<Self> {
        Ok(Self { given: given(options, token)?, tokens: HashMap::new() })
    }

    /// What the server of `url` gets.
    pub(super) fn of(&self, url: &Url) -> HeaderMap {
        let mut headers = self.given.clone();
        if let (false, Some(token)) = (headers.contains_key(AUTHORIZATION), self.tokens.get(&authority(url)))
        {
            headers.insert(AUTHORIZATION, token.clone());
        }
        headers
    }

    /// Whether the server of `url` gets any.
    pub(super) fn any_for(&self, url: &Url) -> bool {
        !self.given.is_empty() || self.tokens.contains_key(&authority(url))
    }
}

fn given(options: &Store, token: Option<&str>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let refused = || Error::option("headers", "a header", "a name and a value that HTTP has");
    for (name, value) in options.headers.iter() {
        let name: HeaderName = name.parse().map_err(|_| refused())?;
        let mut value: HeaderValue = value.parse().map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let token = options.token.as_ref().map(|token| token.text()).or(token);
    if let (Some(token), false) = (token, headers.contains_key(AUTHORIZATION)) {
        let bad = || {
            Error::refused("HF_TOKEN", HIDDEN, "expected a token in ASCII, there or in the file of the login")
        };
        headers.insert(AUTHORIZATION, bearer(token).ok_or_else(bad)?);
    }
    Ok(headers)
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads `TOKEN@HOST[:PORT]`, joined by semicolons.
fn tokens(text: &str) -> Result<HashMap<String, HeaderValue>> {
    let refuse = || {
        let expected = "the environment variable is not TOKEN@HOST, or several of these joined by semicolons";
        Error::refused(TOKENS, HIDDEN, expected)
    };
    let mut tokens = HashMap::new();
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (token, host) = entry.rsplit_once('@').ok_or_else(refuse)?;
        if token.is_empty() || host.is_empty() || host.contains('/') {
            return Err(refuse());
        }
        tokens.insert(host.to_ascii_lowercase(), bearer(token).ok_or_else(refuse)?);
    }
    Ok(tokens)
}

/// The host of `url`, with the port where that is not the scheme's own.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Scheme, host and port of `url`, as people write them.
pub(super) fn server(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_of_the_environment_is_for_one_server() {
        let tokens = tokens("a@b@h.org; c@h.org:8080 ;d@[::1]:9;").unwrap();
        let credentials = Credentials { tokens, ..Credentials::default() };
        for (url, expected) in [
            ("https://h.org/0.tar", Some("Bearer a@b")),
            ("https://H.org:443/0.tar", Some("Bearer a@b")),
            ("https://h.org:8080/0.tar", Some("Bearer c")),
            ("http://[::1]:9/0.tar", Some("Bearer d")),
            ("https://h.org:81/0.tar", None),
            ("https://x.h.org/0.tar", None),
            ("https://h.org.evil.org/0.tar", None),
        ] {
            let url = Url::parse(url).unwrap();
            let headers = credentials.of(&url);
            let token = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
            assert_eq!(token, expected, "{url}");
            assert_eq!(credentials.any_for(&url), expected.is_some());
            assert!(!format!("{credentials:?} {headers:?}").contains("Bearer"));
        }
    }

    #[test]
    fn an_environment_that_cannot_be_read_is_not_shown() {
        for text in ["s3cret", "@h", "s3cret@", "s3cret@h/x", "s3cret\u{7f}@h"] {
            let message = tokens(text).unwrap_err().to_string();
            assert!(message.contains(TOKENS) && !message.contains("s3cret"), "{message}");
        }
    }
}
