//! Token ids by the loader's own rules: what a framework's tokenizer is compared with, and what a scorer gets.

use std::path::PathBuf;

use pyo3::prelude::*;
use tldr_loader::text::Tokenizer;
use tldr_python::array::Array;
use tldr_python::errors::OrRaise;

/// The tokenizer of a file, and whether captions are cleaned before.
fn opened(file: &std::path::Path, context_length: usize, cleans: bool) -> tldr_loader::Result<Tokenizer> {
    let tokenizer = Tokenizer::from_file(file)?;
    tokenizer.check_rows(context_length)?;
    Ok(if cleans { tokenizer } else { tokenizer.without_cleaning() })
}

/// The one that `tokens`, of `_scorer_tokens.Tokens`, asks for, and ids of a caption.
pub(crate) fn tokenizer(tokens: &Bound<'_, PyAny>) -> PyResult<(Tokenizer, usize)> {
    let file: PathBuf = tokens.getattr("file")?.extract()?;
    let context_length = tokens.getattr("context_length")?.extract()?;
    let cleans = tokens.getattr("cleans")?.extract()?;
    let py = tokens.py();
    Ok((py.detach(|| opened(&file, context_length, cleans)).or_raise(py)?, context_length))
}

/// Ids of `texts`, int64 `[texts, context_length]`.
#[pyfunction]
pub(crate) fn _token_ids(
    py: Python<'_>,
    file: PathBuf,
    texts: Vec<String>,
    context_length: usize,
    cleans: bool,
) -> PyResult<Array> {
    let ids = py.detach(|| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        opened(&file, context_length, cleans).map(|tokenizer| tokenizer.encode_all(&texts, context_length))
    });
    Ok(Array::from_vec(ids.or_raise(py)?, &[texts.len(), context_length]))
}
