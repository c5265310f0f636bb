//! Tables of samples that users bring along: a list of those that count, or their captions.
//!
//! Tables of scores are read by [`score_table`](super::score_table).
//!
//! | ending | rows |
//! | --- | --- |
//! | `.parquet` | the columns `uid` or `key`, and `caption`; or what `tldr-loader export` writes |
//! | `.jsonl` | objects with the same fields, one a line |
//! | `.tsv` | columns between tabs, named in the first line; captions |
//! | `.txt` | one key a line; a list |
//! | `.npy` | uids, as DataComp's files have them; a list |

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::Fields;
use crate::shard::join::{JoinBy, of_key};
use crate::shard::metadata::{Cell, Columns};
use crate::shard::npy;
use crate::shard::patterns::local_files;

/// Name of the column of captions.
const CAPTION: &str = "caption";

/// What is wrong with a table, in words.
pub(super) type Wrong = String;

/// A row that has a name.
pub(super) struct Row<'a> {
    /// Hash of the name.
    pub(super) name: u64,
    /// Writes the name as the file has it.
    pub(super) text: &'a dyn Fn() -> String,
    /// The captions that it has.
    pub(super) captions: Vec<&'a str>,
}

type Each<'a> = dyn FnMut(Row<'_>) -> std::result::Result<(), Wrong> + 'a;

/// Rows of a format: `None` is one without a name.
type EachRow<'a> = dyn FnMut(Option<Row<'_>>) -> std::result::Result<(), Wrong> + 'a;

/// Hands every row of the table at `path`, a file or a pattern of its parts, to `each`; with captions if `with_captions`. Rows
/// without a name are skipped, and counted in a warning.
///
/// # Errors
/// A file that cannot be read, is none of these or lacks a column; parts with other names; the error names `option`, which
/// it was given for.
pub(super) fn rows(
    option: &'static str,
    path: &Path,
    with_captions: bool,
    each: &mut Each<'_>,
) -> Result<JoinBy> {
    let mut found: Option<(JoinBy, PathBuf)> = None;
    for part in local_files(option, path)? {
        let by = rows_of(option, &part, with_captions, each)?;
        match &found {
            Some((first, other)) if *first != by => {
                let given = format!("{:?} and {:?}", other.display(), part.display());
                let accepted = format!("parts of one table: the first has {first}, the other {by}");
                return Err(Error::option(option, given, accepted));
            }
            Some(_) => {}
            None => found = Some((by, part)),
        }
    }
    let none = || Error::option(option, format!("{:?}", path.display()), "a file");
    found.map(|(by, _)| by).ok_or_else(none)
}

/// As [`rows`], of one file.
fn rows_of(option: &'static str, path: &Path, with_captions: bool, each: &mut Each<'_>) -> Result<JoinBy> {
    let (mut count, mut nameless, mut first) = (0u64, 0u64, 0);
    let by = all_rows(option, path, with_captions, &mut |row| {
        count += 1;
        match row {
            Some(row) => each(row),
            None => {
                nameless += 1;
                first = if nameless == 1 { count } else { first };
                Ok(())
            }
        }
    })?;
    if nameless > 0 {
        tracing::warn!(
            "{option}={:?}: {nameless} of {count} rows have no {by} and are skipped; the first is row {first}",
            path.display()
        );
    }
    Ok(by)
}

fn all_rows(
    option: &'static str,
    path: &Path,
    with_captions: bool,
    each: &mut EachRow<'_>,
) -> Result<JoinBy> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let given = format!("{:?}", path.display());
    if !path.is_file() {
        return Err(Error::option(option, given, "a local file that is there, or a pattern of such"));
    }
    let found = match (ending, with_captions) {
        ("parquet", _) => of_parquet(path, with_captions, each),
        ("jsonl", _) => of_jsonl(path, with_captions, each),
        ("tsv", true) => of_tsv(path, each),
        ("txt", false) => of_text(path, each),
        ("npy", false) => of_npy(path, each),
        (_, true) => return Err(Error::option(option, given, "a .parquet, .jsonl or .tsv with captions")),
        (_, false) => return Err(Error::option(option, given, "a .parquet, .jsonl, .txt or .npy")),
    };
    found.map_err(|found| {
        let expected = match (ending, with_captions) {
            ("txt", _) => "one key a line, in UTF-8",
            ("npy", _) => "uids, as np.dtype(\"u8,u8\") or text",
            (_, true) => "rows of `key` or `uid`, and `caption`",
            (_, false) => "rows of `key` or `uid`, or an export of a ledger",
        };
        Error::format(format!("{option}={given}"), expected, found)
    })
}

pub(super) fn no_name(columns: &[String]) -> Wrong {
    format!("none of these among its columns: {}", columns.join(", "))
}

fn of_parquet(
    path: &Path,
    with_captions: bool,
    each: &mut EachRow<'_>,
) -> std::result::Result<JoinBy, Wrong> {
    let columns = Columns::open(path)?;
    let names = columns.names();
    let by = JoinBy::of(|name| names.iter().any(|own| own == name)).ok_or_else(|| no_name(&names))?;
    let wanted = if with_captions { vec![by.name(), CAPTION] } else { vec![by.name()] };
    columns.each(&wanted, &mut |row| {
        let cell = row[0].take();
        let name = hash_of(by, cell.as_ref())?;
        let text = || text_of(cell.as_ref());
        let captions = match row.get_mut(1).and_then(Option::take) {
            Some(Cell::Text(text)) => vec![text],
            Some(Cell::Texts(texts)) => texts,
            Some(number) => return Err(format!("the caption {}, no text", text_of(Some(&number)))),
            None => vec![],
        };
        let captions = captions.iter().map(String::as_str).collect();
        each(name.map(|name| Row { name, text: &text, captions }))
    })?;
    Ok(by)
}

/// The hash of a name in a column that is joined `by`; `None` where the cell is empty.
pub(super) fn hash_of(by: JoinBy, cell: Option<&Cell>) -> std::result::Result<Option<u64>, Wrong> {
    match cell {
        Some(Cell::Text(text)) => by.of_text(text).map(Some).ok_or_else(|| not_an_id(text)),
        Some(Cell::Number(number)) => Ok(Some(by.of_number(*number))),
        None => Ok(None),
        Some(Cell::Real(number)) => {
            Err(format!("the {by} {number} in a column of floats: write texts or whole numbers"))
        }
        other => Err(format!("the {by} {}, neither a text nor a whole number", text_of(other))),
    }
}

/// A cell as messages show it.
pub(super) fn text_of(cell: Option<&Cell>) -> String {
    match cell {
        Some(Cell::Text(text)) => text.clone(),
        Some(Cell::Number(number)) => number.to_string(),
        Some(Cell::Real(number)) => number.to_string(),
        Some(Cell::Truth(truth)) => truth.to_string(),
        Some(Cell::Texts(texts)) => format!("{texts:?}"),
        None => String::new(),
    }
}

fn not_an_id(text: &str) -> Wrong {
    format!("the id {text:?}, no number of 64 bits")
}

/// Hands the lines of the file to `each`, numbered from 1, without their ends and empty ones.
fn lines(
    path: &Path,
    each: &mut dyn FnMut(usize, &str) -> std::result::Result<(), Wrong>,
) -> std::result::Result<(), Wrong> {
    let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
    let (mut bytes, mut number) = (Vec::new(), 0);
    loop {
        bytes.clear();
        number += 1;
        if file.read_until(b'\n', &mut bytes).map_err(|error| error.to_string())? == 0 {
            return Ok(());
        }
        let line = std::str::from_utf8(&bytes).map_err(|error| format!("line {number}: {error}"))?;
        let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
        if !line.trim_ascii().is_empty() {
            each(number, line)?;
        }
    }
}

fn of_text(path: &Path, each: &mut EachRow<'_>) -> std::result::Result<JoinBy, Wrong> {
    lines(path, &mut |_, line| {
        let key = line.trim_ascii();
        each(Some(Row { name: of_key(key), text: &|| key.to_owned(), captions: vec![] }))
    })?;
    Ok(JoinBy::Key)
}

fn of_npy(path: &Path, each: &mut EachRow<'_>) -> std::result::Result<JoinBy, Wrong> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let (by, _) = npy::items(BufReader::new(file), &mut |name, text, _| {
        each(Some(Row { name, text, captions: vec![] }))
    })?;
    Ok(by)
}

/// A line that is an object.
pub(super) struct Line<'a> {
    number: usize,
    /// The column of names.
    pub(super) by: JoinBy,
    /// The name as the file has it, and its hash; `None` where it has none.
    pub(super) name: Option<(u64, String)>,
    /// The fields that were asked for; of the first line all.
    pub(super) fields: &'a Fields,
}

impl Line<'_> {
    /// What is wrong with it, with its number.
    fn wrong(&self, what: &str) -> Wrong {
        format!("line {}: {what}", self.number)
    }
}

/// Hands every line of the file to `each`, with its name and the fields that are `wanted`.
pub(super) fn objects(
    path: &Path,
    wanted: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(&Line<'_>) -> std::result::Result<(), Wrong>,
) -> std::result::Result<JoinBy, Wrong> {
    let mut by: Option<JoinBy> = None;
    lines(path, &mut |number, line| {
        let wrong = |what: &str| format!("line {number}: {what}");
        // The first row says what all have.
        let wanted = |name: &str| by.is_none_or(|by| name == by.name() || wanted(name));
        let fields = Fields::read(line.as_bytes(), wanted).map_err(|error| wrong(&error))?;
        let by = match by {
            Some(by) => by,
            None => {
                let names: Vec<String> = fields.names().map(str::to_owned).collect();
                *by.insert(
                    JoinBy::of(|name| names.iter().any(|own| own == name)).ok_or_else(|| no_name(&names))?,
                )
            }
        };
        let text = match fields.value(by.name()) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(value)) => Some(value.to_string()),
            None => None,
            Some(_) => return Err(wrong(&format!("the {by} is neither a text nor a number"))),
        };
        let named = |text: String| match by.of_text(&text) {
            Some(hash) => Ok((hash, text)),
            None => Err(wrong(&not_an_id(&text))),
        };
        let name = text.map(named).transpose()?;
        each(&Line { number, by, name, fields: &fields })
    })?;
    by.ok_or_else(|| "no line".into())
}

fn of_jsonl(path: &Path, with_captions: bool, each: &mut EachRow<'_>) -> std::result::Result<JoinBy, Wrong> {
    objects(path, &|name| with_captions && name == CAPTION, &mut |line| {
        let captions = match line.fields.value(CAPTION).filter(|_| with_captions) {
            Some(Value::Array(entries)) => entries.iter().filter(|entry| !entry.is_null()).collect(),
            caption => Vec::from_iter(caption),
        };
        let captions: Option<Vec<&str>> = captions.into_iter().map(Value::as_str).collect();
        let captions = captions.ok_or_else(|| line.wrong("the caption is no text, and no list of texts"))?;
        let Some((name, text)) = &line.name else { return each(None) };
        each(Some(Row { name: *name, text: &|| text.clone(), captions }))
    })
}

fn of_tsv(path: &Path, each: &mut EachRow<'_>) -> std::result::Result<JoinBy, Wrong> {
    let mut columns: Option<(JoinBy, usize, usize, usize)> = None;
    lines(path, &mut |number, line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let Some((by, name, caption, count)) = columns else {
            let names: Vec<String> = cells.iter().map(|name| name.trim().to_owned()).collect();
            let at = |wanted: &str| names.iter().position(|name| name == wanted);
            let by = JoinBy::of(|name| at(name).is_some()).ok_or_else(|| no_name(&names))?;
            let (Some(name), Some(caption)) = (at(by.name()), at(CAPTION)) else {
                return Err(no_name(&names));
            };
            columns = Some((by, name, caption, names.len()));
            return Ok(());
        };
        if cells.len() != count {
            return Err(format!("line {number}: {} columns, not the {count} of the first line", cells.len()));
        }
        let text = cells[name].trim_ascii();
        let name = by.of_text(text).ok_or_else(|| format!("line {number}: {}", not_an_id(text)))?;
        each(Some(Row { name, text: &|| text.to_owned(), captions: vec![cells[caption]] }))
    })?;
    columns.map(|(by, ..)| by).ok_or_else(|| "no line".into())
}
