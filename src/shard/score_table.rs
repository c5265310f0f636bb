//! Scores from tables beside the corpus: columns of numbers, joined to samples by uid, key or id.
//!
//! | ending | rows |
//! | --- | --- |
//! | `.parquet` | `uid` or `key` (or as `tldr-loader export` writes it), and columns of numbers |
//! | `.jsonl` | objects with the same fields, one a line |
//! | `.npy` | a structured array of a uid (`u8,u8` or text) or a key (text), and numbers |
//!
//! Texts and lists are skipped, but for texts of json that are numbers. A truth value counts as 1 or 0 where a score is
//! asked for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::hash;
use crate::json;
use crate::shard::join::{JoinBy, Names};
use crate::shard::join_table::Wrong;
use crate::shard::patterns::local_files;
use crate::shard::score_rows::{OPTION, Raw, Rows, ScoreFile, wrong};

/// One table of scores. In memory 8 bytes a row, and 4 for each column (8 where its numbers are not all an f32).
#[derive(Debug)]
pub struct ScoreTable {
    by: JoinBy,
    /// Hashes of names, ascending.
    names: Vec<u64>,
    columns: Vec<Column>,
    example: Box<str>,
    file: Box<str>,
}

/// A column, in the order of the names; not a number where a sample has none.
#[derive(Debug)]
struct Column {
    name: Arc<str>,
    kind: Kind,
    values: Values,
    fingerprint: u64,
}

/// What all values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Truth,
    Whole,
    Real,
}

/// Where a value is missing there is no number, or the least whole one.
#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

impl Values {
    /// Without loss in as few bytes as go.
    fn of(values: &[Raw]) -> Self {
        let exact = |real: f64, value: &Raw| match value {
            Raw::Whole(number) => real as i128 == i128::from(*number),
            other => real == other.real() || real.is_nan(),
        };
        if values.iter().all(|value| exact((value.real() as f32).into(), value)) {
            return Self::F32(values.iter().map(|value| value.real() as f32).collect());
        }
        if values.iter().all(|value| exact(value.real(), value)) {
            return Self::F64(values.iter().map(|value| value.real()).collect());
        }
        let whole = |value: &Raw| match *value {
            Raw::Whole(number) => Some(number),
            Raw::Truth(truth) => Some(truth.into()),
            Raw::Missing => Some(i64::MIN),
            Raw::Real(_) => None,
        };
        match values.iter().map(whole).collect() {
            Some(whole) => Self::I64(whole),
            None => Self::F64(values.iter().map(|value| value.real()).collect()),
        }
    }
}

impl Column {
    fn of(name: String, values: &[Raw], fingerprint: u64) -> Self {
        let is = |kind: fn(&Raw) -> bool| values.iter().all(|value| kind(value) || *value == Raw::Missing);
        let kind = if is(|value| matches!(value, Raw::Truth(_))) {
            Kind::Truth
        } else if is(|value| matches!(value, Raw::Whole(_))) {
            Kind::Whole
        } else {
            Kind::Real
        };
        Self { name: name.into(), kind, values: Values::of(values), fingerprint }
    }

    /// The value of a row, as a field of json would have it; `None` where there is none.
    fn value(&self, row: usize) -> Option<Value> {
        let real = match &self.values {
            Values::I64(values) => {
                return values.get(row).filter(|number| **number != i64::MIN).map(|number| (*number).into());
            }
            Values::F32(values) => f64::from(*values.get(row)?),
            Values::F64(values) => *values.get(row)?,
        };
        match self.kind {
            _ if real.is_nan() => None,
            Kind::Truth => Some(Value::Bool(real != 0.0)),
            Kind::Whole => Some((real as i64).into()),
            Kind::Real => Some(json::number(real)),
        }
    }

    /// The same as a score.
    fn score(&self, row: usize) -> f32 {
        match &self.values {
            Values::F32(values) => values.get(row).copied().unwrap_or(f32::NAN),
            Values::F64(values) => values.get(row).map_or(f32::NAN, |value| *value as f32),
            Values::I64(values) => values
                .get(row)
                .filter(|number| **number != i64::MIN)
                .map_or(f32::NAN, |number| *number as f32),
        }
    }
}

impl ScoreTable {
    /// Reads a table. O(rows log rows).
    ///
    /// # Errors
    /// A file that cannot be read or is of another kind; no column of names, or none of numbers; two rows of one sample
    /// that differ.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_file(ScoreFile::open(path.as_ref())?)
    }

    fn of_file(file: ScoreFile) -> Result<Self> {
        let (given, name) = file.named();
        Self::of(file.by, file.rows, &name).map_err(|found| wrong(&given, found))
    }

    fn of(by: JoinBy, rows: Rows, file: &str) -> std::result::Result<Self, Wrong> {
        let Rows { names, columns, example, .. } = rows;
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|&row| names[row]);
        for pair in order.windows(2).filter(|pair| names[pair[0]] == names[pair[1]]) {
            let differs =
                |(_, values): &&(String, Vec<Raw>)| values[pair[0]].bits() != values[pair[1]].bits();
            if let Some((name, values)) = columns.iter().find(differs) {
                let (a, b) = (values[pair[0]].real(), values[pair[1]].real());
                let (first, second) = (pair[0].min(pair[1]) + 1, pair[0].max(pair[1]) + 1);
                return Err(format!(
                    "two rows for one {by}, {first} and {second} of those with one, with {name:?} {a} and {b}"
                ));
            }
        }
        order.dedup_by_key(|row| names[*row]);
        let sorted: Vec<u64> = order.iter().map(|&row| names[row]).collect();
        let all = hash::combine(&sorted);
        let column = |(name, values): (String, Vec<Raw>)| {
            let values: Vec<Raw> = order.iter().map(|&row| values[row]).collect();
            let content = hash::combine(&values.iter().map(|value| value.bits()).collect::<Vec<_>>());
            let fingerprint =
                hash::combine(&[hash::hash_str(by.name()), all, hash::hash_str(&name), content]);
            Column::of(name, &values, fingerprint)
        };
        let columns = columns.into_iter().map(column).collect();
        Ok(Self { by, names: sorted, columns, example: example.into(), file: file.into() })
    }

    /// What samples are found by.
    pub fn by(&self) -> JoinBy {
        self.by
    }

    /// Number of samples with a row.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of its first row, as the file has it.
    pub fn example(&self) -> &str {
        &self.example
    }

    /// Name of its file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Row of the sample with this hash. O(log rows).
    pub(super) fn row(&self, hash: u64) -> Option<usize> {
        self.names.binary_search(&hash).ok()
    }
}

/// The tables of a source, whose columns have different names.
#[derive(Debug)]
pub struct ScoreTables {
    tables: Vec<ScoreTable>,
    /// Name, table and column, in the order of the names.
    columns: Vec<(Arc<str>, usize, usize)>,
}

impl ScoreTables {
    /// Opens all of `paths`: files, or patterns of files with braces and globs. Files with the same columns are parts of
    /// one table.
    ///
    /// # Errors
    /// As [`ScoreTable::open`]; a pattern that no file matches; two tables that share some columns, but not all.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut files: Vec<ScoreFile> = vec![];
        for path in paths {
            for path in local_files(OPTION, path.as_ref())? {
                let file = ScoreFile::open(&path)?;
                match files.iter_mut().find(|other| file.is_part_of(other)) {
                    Some(other) => other.extend(file),
                    None => files.push(file),
                }
            }
        }
        let names: Vec<String> = files.iter().map(|file| file.named().0).collect();
        let tables = files.into_iter().map(ScoreTable::of_file).collect::<Result<Vec<_>>>()?;
        let mut columns: BTreeMap<Arc<str>, (usize, usize)> = BTreeMap::new();
        for (at, table) in tables.iter().enumerate() {
            for (i, column) in table.columns.iter().enumerate() {
                if let Some((other, _)) = columns.insert(Arc::clone(&column.name), (at, i)) {
                    let given = format!("{} and {}", names[other], names[at]);
                    let accepted = format!(
                        "tables with columns of different names, or all of the same: both have {:?}",
                        column.name
                    );
                    return Err(Error::option(OPTION, given, accepted));
                }
            }
        }
        let columns = columns.into_iter().map(|(name, (table, column))| (name, table, column)).collect();
        Ok(Self { tables, columns })
    }

    /// Each table.
    pub fn tables(&self) -> &[ScoreTable] {
        &self.tables
    }

    /// Names of all columns, sorted.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.columns.iter().map(|(name, ..)| name)
    }

    /// Place of the column of this name among [`columns`](Self::columns).
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.binary_search_by(|(own, ..)| (**own).cmp(name)).ok()
    }

    /// Identifies the values of a column, by place, and what they are joined by.
    pub fn fingerprint(&self, column: usize) -> u64 {
        let (_, table, column) = &self.columns[column];
        self.tables[*table].columns[*column].fingerprint
    }

    /// Whether a table is joined by uids.
    pub(super) fn needs_uid(&self) -> bool {
        self.tables.iter().any(|table| table.by == JoinBy::Uid)
    }

    /// Sets `rows` to the row of each table that a sample of these names has.
    pub(super) fn find(&self, names: &Names<'_>, rows: &mut Vec<Option<usize>>) {
        rows.clear();
        rows.extend(self.tables.iter().map(|table| names.of(table.by).and_then(|hash| table.row(hash))));
    }

    /// The value of a column, by place, in what [`find`](Self::find) found, as a field of json would have it; `None` where
    /// there is none.
    pub(super) fn value(&self, column: usize, rows: &[Option<usize>]) -> Option<Value> {
        let (_, table, column) = self.columns.get(column)?;
        self.tables[*table].columns[*column].value(rows.get(*table).copied().flatten()?)
    }

    /// The same as a score; not a number where there is none.
    pub(super) fn score(&self, column: usize, rows: &[Option<usize>]) -> f32 {
        let (_, table, column) = &self.columns[column];
        let row = rows.get(*table).copied().flatten();
        row.map_or(f32::NAN, |row| self.tables[*table].columns[*column].score(row))
    }

    /// The scores of all columns, `[columns]`.
    pub(super) fn scores(&self, rows: &[Option<usize>]) -> Vec<f32> {
        (0..self.columns.len()).map(|column| self.score(column, rows)).collect()
    }
}

impl PartialEq for ScoreTables {
    fn eq(&self, other: &Self) -> bool {
        let all = |own: &Self| -> Vec<u64> { (0..own.columns.len()).map(|at| own.fingerprint(at)).collect() };
        all(self) == all(other)
    }
}

impl Eq for ScoreTables {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::sample::SampleId;

    fn write(folder: &Path, name: &str, content: &str) -> std::path::PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn values(tables: &ScoreTables, key: &str) -> Vec<Option<Value>> {
        let mut rows = vec![];
        tables.find(&Names { key, id: SampleId(0), uid: None }, &mut rows);
        (0..tables.columns().len()).map(|at| tables.value(at, &rows)).collect()
    }

    #[test]
    fn columns_of_numbers_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let lines = "{\"key\": \"b\", \"clip\": 0.7, \"note\": \"x\"}\n{\"key\": \"a\", \"clip\": null, \"ok\": true}\n\
                     {\"clip\": 3}\n{\"key\": \"a\", \"ok\": true}\n";
        let one = write(folder.path(), "a.jsonl", lines);
        let two = write(folder.path(), "b.jsonl", "{\"key\": \"b\", \"other\": -2}\n");
        let tables = ScoreTables::open(&[&one, &two]).unwrap();
        assert_eq!(tables.columns().map(|name| &**name).collect::<Vec<_>>(), ["clip", "ok", "other"]);
        // 0.7 is itself, and not the nearest f32: conditions compare it with 0.7.
        assert_eq!(values(&tables, "b"), [Some(json!(0.7)), None, Some(json!(-2))]);
        assert_eq!(values(&tables, "./a"), [None, Some(json!(true)), None]);
        assert_eq!(values(&tables, "c"), [const { None }; 3]);
        assert_eq!(tables.column("ok"), Some(1));
        assert_eq!(tables.column("nothing"), None);
        assert_eq!((tables.tables()[0].len(), tables.tables()[0].example()), (2, "b"));

        let turned = "{\"clip\": 0.7, \"key\": \"b\"}\n{\"key\": \"a\", \"ok\": true}\n";
        let turned = ScoreTables::open(&[write(folder.path(), "c.jsonl", turned), two.clone()]).unwrap();
        assert_eq!(tables, turned, "order and texts do not matter");
        let other = write(
            folder.path(),
            "d.jsonl",
            "{\"clip\": 0.8, \"key\": \"b\"}\n{\"key\": \"a\", \"ok\": true}\n",
        );
        let other = ScoreTables::open(&[other, two]).unwrap();
        let differ = |at| tables.fingerprint(at) != other.fingerprint(at);
        assert_eq!([0, 1, 2].map(differ), [true, false, false]);
    }

    #[test]
    fn whole_numbers_are_exact_and_texts_of_numbers_count() {
        let folder = tempfile::tempdir().unwrap();
        let large = (1_i64 << 60) + 1;
        let lines = format!(
            "{{\"key\": \"a\", \"big\": {large}, \"n\": 7, \"mixed\": {large}, \"text\": \"0.25\"}}\n\
             {{\"key\": \"b\", \"n\": -1, \"mixed\": 0.5, \"text\": \"none\"}}\n"
        );
        let tables = ScoreTables::open(&[write(folder.path(), "a.jsonl", &lines)]).unwrap();
        assert_eq!(tables.columns().map(|name| &**name).collect::<Vec<_>>(), ["big", "mixed", "n", "text"]);
        let found = values(&tables, "a");
        assert_eq!(
            (&found[0], &found[2], &found[3]),
            (&Some(json!(large)), &Some(json!(7)), &Some(json!(0.25)))
        );
        assert_eq!(values(&tables, "b"), [None, Some(json!(0.5)), Some(json!(-1)), None]);
        let mut rows = vec![];
        tables.find(&Names { key: "b", id: SampleId(0), uid: None }, &mut rows);
        let scores = tables.scores(&rows);
        assert!(scores[0].is_nan() && scores[1] == 0.5 && scores[2] == -1.0 && scores[3].is_nan());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, why) in [
            ("a.jsonl", "{\"name\": 1, \"s\": 2}\n", "none of these among its columns: name, s"),
            ("b.jsonl", "{\"key\": \"a\", \"s\": \"two\"}\n", "no column of numbers beside key"),
            (
                "c.jsonl",
                "{\"key\": \"a\", \"s\": 1}\n{\"key\": \"b\", \"s\": 1}\n{\"key\": \"a\", \"s\": 2}\n",
                "two rows for one key, 1 and 3 of those with one, with \"s\" 1 and 2",
            ),
            ("d.csv", "key,s\n", "a .parquet, .jsonl or .npy"),
            ("e.jsonl", "", "no line"),
            ("f.npy", "x", "ends early"),
            ("g.parquet", "x", "EOF"),
            ("h.jsonl", "{\"key\": [1], \"s\": 2}\n", "line 1: the key is neither a text nor a number"),
        ] {
            let error = ScoreTable::open(write(folder.path(), name, content)).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("scores="), "{error}");
        }
        let lines = ["{\"key\": \"a\", \"s\": 1}\n", "{\"key\": \"a\", \"s\": 1, \"t\": 2}\n"];
        let two = [("a.jsonl", lines[0]), ("b.jsonl", lines[1])]
            .map(|(name, lines)| write(folder.path(), name, lines));
        let error = ScoreTables::open(&two).unwrap_err().to_string();
        assert!(error.contains("both have \"s\"") && error.contains("a.jsonl"), "{error}");
        let error = ScoreTables::open(&[folder.path().join("*.csv2")]).unwrap_err().to_string();
        assert!(error.contains("no file matches"), "{error}");
    }

    #[test]
    fn files_with_the_same_columns_are_parts_of_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let line = |key: &str, s: f64, t: i64| format!("{{\"key\": \"{key}\", \"s\": {s}, \"t\": {t}}}\n");
        let whole = write(folder.path(), "whole.jsonl", &[line("a", 0.5, 1), line("b", 0.25, 2)].concat());
        let whole = ScoreTables::open(&[whole]).unwrap();
        write(folder.path(), "part-00.jsonl", &line("b", 0.25, 2));
        // Columns in another order.
        write(folder.path(), "part-01.jsonl", "{\"t\": 1, \"s\": 0.5, \"key\": \"a\"}\n");
        let other = write(folder.path(), "other.jsonl", "{\"key\": \"a\", \"u\": 3}\n");
        for pattern in ["part-{00..01}.jsonl", "part-*.jsonl", "part-0[01].jsonl"] {
            let parts = ScoreTables::open(&[folder.path().join(pattern)]).unwrap();
            assert_eq!((parts.tables().len(), parts.tables()[0].len()), (1, 2), "{pattern}");
            assert_eq!(parts, whole, "{pattern}");
            assert_eq!(parts.tables()[0].file(), "part-00.jsonl and 1 more");
            let both = ScoreTables::open(&[folder.path().join(pattern), other.clone()]).unwrap();
            assert_eq!(values(&both, "a"), [Some(json!(0.5)), Some(json!(1)), Some(json!(3))]);
        }
        // A sample has one row in all of them.
        write(folder.path(), "part-02.jsonl", &line("a", 0.5, 9));
        let error = ScoreTables::open(&[folder.path().join("part-*.jsonl")]).unwrap_err().to_string();
        assert!(
            error.contains("two rows for one key, 2 and 3 of those with one, with \"t\" 1 and 9"),
            "{error}"
        );
        assert!(error.contains("part-00.jsonl\" and 2 more"), "{error}");
        // A file that is there as it is written is no pattern.
        let odd = write(folder.path(), "x [1].jsonl", &line("a", 0.5, 1));
        assert_eq!(ScoreTables::open(&[odd]).unwrap().tables()[0].len(), 1);
    }

    #[test]
    fn numbers_of_a_parquet_file_are_read_and_texts_skipped() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/subset/captions.parquet");
        let tables = ScoreTables::open(&[golden]).unwrap();
        assert_eq!(tables.columns().map(|name| &**name).collect::<Vec<_>>(), ["score"]);
        assert!(tables.needs_uid());
    }
}
