//! The rows of files of scores, as they come: `.parquet`, `.jsonl` and `.npy`.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::shard::join::JoinBy;
use crate::shard::join_table::{Wrong, hash_of, no_name, objects, text_of};
use crate::shard::metadata::{Cell, Columns};
use crate::shard::npy;

/// The option that names tables.
pub(super) const OPTION: &str = "scores";

/// A value as it comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw {
    Missing,
    Truth(bool),
    Whole(i64),
    Real(f64),
}

impl Raw {
    pub(super) fn real(self) -> f64 {
        match self {
            Self::Missing => f64::NAN,
            Self::Truth(truth) => truth.into(),
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    /// Tells values apart: every not-a-number is one.
    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Whole(number) if number as f64 as i128 != i128::from(number) => number as u64,
            other if other.real().is_nan() => u64::MAX,
            other => other.real().to_bits(),
        }
    }
}

/// Rows as they come.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) names: Vec<u64>,
    pub(super) columns: Vec<(String, Vec<Raw>)>,
    pub(super) example: String,
    rows: u64,
    nameless: u64,
}

impl Rows {
    /// Begins a row; `false` where it has no name and is skipped.
    fn begin(&mut self, name: Option<u64>, text: &dyn Fn() -> String) -> bool {
        self.rows += 1;
        let Some(name) = name else {
            self.nameless += 1;
            return false;
        };
        if self.names.is_empty() {
            self.example = text();
        }
        self.names.push(name);
        true
    }

    /// The column of this name, with a value for every row before the last one.
    fn column(&mut self, name: &str) -> &mut Vec<Raw> {
        let at = match self.columns.iter().position(|(own, _)| own == name) {
            Some(at) => at,
            None => {
                self.columns.push((name.to_owned(), vec![]));
                self.columns.len() - 1
            }
        };
        let column = &mut self.columns[at].1;
        column.resize(self.names.len() - 1, Raw::Missing);
        column
    }
}

/// The rows of one file, or of several that are parts of one table.
pub(super) struct ScoreFile {
    pub(super) by: JoinBy,
    pub(super) rows: Rows,
    /// Paths, as they were given.
    paths: Vec<PathBuf>,
}

impl ScoreFile {
    /// # Errors
    /// As [`ScoreTable::open`](crate::shard::ScoreTable::open).
    pub(super) fn open(path: &Path) -> Result<Self> {
        let given = format!("{:?}", path.display());
        if !path.is_file() {
            return Err(Error::option(OPTION, given, "a local file that is there, or a pattern of such"));
        }
        let mut rows = Rows::default();
        let found = match path.extension().and_then(|ending| ending.to_str()) {
            Some("parquet") => of_parquet(path, &mut rows),
            Some("jsonl") => of_jsonl(path, &mut rows),
            Some("npy") => of_npy(path, &mut rows),
            _ => return Err(Error::option(OPTION, given, "a .parquet, .jsonl or .npy")),
        };
        let by = found.map_err(|found| wrong(&given, found))?;
        if rows.nameless > 0 {
            let Rows { nameless, rows, .. } = rows;
            tracing::warn!("{OPTION}={given}: {nameless} of {rows} rows have no {by} and are skipped");
        }
        if rows.names.is_empty() {
            return Err(wrong(&given, "no row"));
        }
        if rows.columns.is_empty() {
            return Err(wrong(&given, format!("no column of numbers beside {by}")));
        }
        let len = rows.names.len();
        rows.columns.iter_mut().for_each(|(_, values)| values.resize(len, Raw::Missing));
        Ok(Self { by, rows, paths: vec![path.to_owned()] })
    }

    /// Whether it has the same columns and kind of names: it is then another part of the same table.
    pub(super) fn is_part_of(&self, other: &Self) -> bool {
        let names = |file: &Self| -> BTreeSet<String> {
            file.rows.columns.iter().map(|(name, _)| name.clone()).collect()
        };
        self.by == other.by && names(self) == names(other)
    }

    /// Adds the rows of another part.
    pub(super) fn extend(&mut self, mut other: Self) {
        self.rows.names.append(&mut other.rows.names);
        for (name, values) in &mut self.rows.columns {
            if let Some((_, more)) = other.rows.columns.iter_mut().find(|(own, _)| own == name) {
                values.append(more);
            }
        }
        self.paths.append(&mut other.paths);
    }

    /// Its name in messages, and that of its first file.
    pub(super) fn named(&self) -> (String, String) {
        let Some(first) = self.paths.first() else { return Default::default() };
        let others = self.paths.len() - 1;
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        let name = first.file_name().unwrap_or(first.as_os_str()).to_string_lossy();
        (format!("{:?}{more}", first.display()), format!("{name}{more}"))
    }
}

/// The error of a file, or of several, that hold something else.
pub(super) fn wrong(given: &str, found: impl std::fmt::Display) -> Error {
    let expected = "rows of `uid` or `key`, or an export of a ledger, with numbers beside it";
    Error::format(format!("{OPTION}={given}"), expected, found)
}

fn of_parquet(path: &Path, rows: &mut Rows) -> std::result::Result<JoinBy, Wrong> {
    let file = Columns::open(path)?;
    let names = file.names();
    let by = JoinBy::of(|name| names.iter().any(|own| own == name)).ok_or_else(|| no_name(&names))?;
    let scores: Vec<String> = file.numbers().into_iter().filter(|name| !is_name(name, by)).collect();
    let wanted: Vec<&str> = [by.name()].into_iter().chain(scores.iter().map(String::as_str)).collect();
    rows.columns.extend(scores.iter().map(|name| (name.clone(), vec![])));
    file.each(&wanted, &mut |row| {
        let Some((name, values)) = row.split_first() else { return Ok(()) };
        if rows.begin(hash_of(by, name.as_ref())?, &|| text_of(name.as_ref())) {
            for ((_, column), cell) in rows.columns.iter_mut().zip(values) {
                column.push(match cell {
                    Some(Cell::Number(number)) => Raw::Whole(*number),
                    Some(Cell::Real(number)) => Raw::Real(*number),
                    Some(Cell::Truth(truth)) => Raw::Truth(*truth),
                    Some(Cell::Text(_) | Cell::Texts(_)) | None => Raw::Missing,
                });
            }
        }
        Ok(())
    })?;
    Ok(by)
}

/// Whether a column names samples and is no score.
fn is_name(name: &str, by: JoinBy) -> bool {
    name == by.name() || JoinBy::ALL.iter().any(|by| by.name() == name)
}

fn of_npy(path: &Path, rows: &mut Rows) -> std::result::Result<JoinBy, Wrong> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut values: Vec<Vec<Raw>> = vec![];
    let (by, columns) = npy::items(BufReader::new(file), &mut |name, text, numbers| {
        rows.begin(Some(name), text);
        values.resize_with(numbers.len(), Vec::new);
        values.iter_mut().zip(numbers).for_each(|(column, value)| column.push(raw(*value)));
        Ok(())
    })?;
    rows.columns = columns.into_iter().zip(values).collect();
    Ok(by)
}

/// A number of numpy, which may be a whole one.
fn raw(value: f64) -> Raw {
    let whole = value as i64;
    if value.is_nan() {
        Raw::Missing
    } else if whole as f64 == value && whole.unsigned_abs() < 1 << 53 {
        Raw::Whole(whole)
    } else {
        Raw::Real(value)
    }
}

fn of_jsonl(path: &Path, rows: &mut Rows) -> std::result::Result<JoinBy, Wrong> {
    objects(path, &|_| true, &mut |line| {
        let text = || line.name.as_ref().map_or(String::new(), |(_, text)| text.clone());
        if !rows.begin(line.name.as_ref().map(|(hash, _)| *hash), &text) {
            return Ok(());
        }
        for name in line.fields.names().filter(|name| !is_name(name, line.by)) {
            let value = match line.fields.value(name) {
                Some(Value::Number(number)) => {
                    number.as_i64().map(Raw::Whole).or(number.as_f64().map(Raw::Real))
                }
                Some(Value::Bool(truth)) => Some(Raw::Truth(*truth)),
                Some(Value::String(text)) => text.trim().parse().ok().map(Raw::Real),
                _ => None,
            };
            if let Some(value) = value {
                rows.column(name).push(value);
            }
        }
        Ok(())
    })
}
