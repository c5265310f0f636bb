//! Rank and world size, where they are not given: as torchrun sets them.

use crate::error::{Error, Result};

/// `given`, else what the environment's `variable` says, else `default`.
pub(crate) fn from_world(
    given: Option<usize>,
    variable: &str,
    option: &'static str,
    default: usize,
) -> Result<usize> {
    if let Some(value) = given {
        return Ok(value);
    }
    match std::env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => text.trim().parse().map_err(|_| {
            Error::option(
                option,
                &text,
                format!("the environment variable {variable} must be a whole number"),
            )
        }),
    }
}
