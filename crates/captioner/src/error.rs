//! The error of this crate: tldr-loader's, with libtorch's among the causes.

use std::fmt;
use std::ops::{Deref, DerefMut};

use tch::TchError;
use tldr_loader::ErrorKind;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A [`tldr_loader::Error`], which `?` makes of it. A type of its own because libtorch's errors cannot be turned into
/// another crate's.
#[derive(Debug)]
pub struct Error(tldr_loader::Error);

impl Error {
    /// As [`tldr_loader::Error::option`].
    pub fn option(option: &'static str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self(tldr_loader::Error::option(option, given, expected))
    }

    /// As [`tldr_loader::Error::unused`].
    pub fn unused(option: &'static str, given: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self(tldr_loader::Error::unused(option, given, why))
    }

    /// As [`tldr_loader::Error::io`].
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self(tldr_loader::Error::io(action, source))
    }

    /// As [`tldr_loader::Error::format`].
    pub fn format(what: impl Into<String>, expected: impl Into<String>, found: impl fmt::Display) -> Self {
        Self(tldr_loader::Error::format(what, expected, found))
    }

    /// As [`tldr_loader::Error::captioner`].
    pub fn captioner(message: impl fmt::Display) -> Self {
        Self(tldr_loader::Error::captioner(message))
    }
}

impl Deref for Error {
    type Target = tldr_loader::Error;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        let message = match error {
            TchError::Torch(message) | TchError::Kind(message) | TchError::Shape(message) => message,
            other => other.to_string(),
        };
        // The first line says what is wrong; a C++ stack trace follows.
        Self::captioner(message.lines().next().unwrap_or_default())
    }
}

impl From<tldr_loader::Error> for Error {
    fn from(error: tldr_loader::Error) -> Self {
        Self(error)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(kind.into())
    }
}

impl From<Error> for tldr_loader::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}
