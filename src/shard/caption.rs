//! What named fields, and tables beside the corpus, say of a sample: whether it counts, its caption, its
//! scores. Fields are in its json or in the metadata beside its shard; of one name, a column of a table comes first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::error::{FailReason, Result};
use crate::json::Fields;
use crate::sample::{self, Attached, SampleId};
use crate::shard::join::{JoinBy, Names, UID, of_id, of_key, of_uid_value};
use crate::shard::{
    CaptionChoice, CaptionTable, Filter, ReadOptions, ScoreTables, Shard, ShardMetadata, Share, Subset,
};

/// Samples of a shard that may lack the field, all of the first ones, before that is worth a word.
const LACKING: u64 = 64;

/// What is put between the captions of a sample where all count, as between the two of `fuse=concat`.
pub(crate) const BETWEEN: &str = "; ";

/// What is noted of a sample that a subset does not name, where a filter leaves no word.
pub(crate) const OUTSIDE: &str = "not in the subset";

/// Why a sample cannot be used, and what exactly was found.
pub(super) type Unusable = (FailReason, String);

/// Looks fields and tables up.
pub(super) struct CaptionReader {
    field: Option<Arc<str>>,
    /// Where fields stand, in words.
    place: &'static str,
    choice: Option<CaptionChoice>,
    filter: Option<Arc<Filter>>,
    score: Option<Arc<str>>,
    subset: Option<Arc<Subset>>,
    share: Option<Share>,
    /// The table that captions are taken from.
    table: Option<Arc<CaptionTable>>,
    /// Name of a table of other captions, for messages.
    other: Option<Arc<str>>,
    scores: Option<Arc<ScoreTables>>,
    /// Fields that come along.
    fields: Arc<[String]>,
    needs_uid: bool,
    /// Whether samples that the filter excludes come with the clauses that fail: for single ones.
    names_clauses: bool,
    metadata: Beside,
    /// Names of all fields that may be asked for, but for columns of tables.
    columns: Vec<String>,
    /// Rows of the tables of scores for the last sample.
    rows: Vec<Option<usize>>,
    /// What the last sample was asked for in vain.
    gaps: Gaps,
    /// The last uid that was found, as it stands there.
    uid: Option<Value>,
    /// For the fields of caption, uid and score, then those of the filter, then those that come along: samples asked
    /// for, until one has it.
    lacking: Vec<Option<u64>>,
}

/// Places in [`CaptionReader::lacking`].
const CAPTION_AT: usize = 0;
const UID_AT: usize = 1;
const SCORE_AT: usize = 2;
const FILTER_AT: usize = 3;

/// Metadata are read when a sample's own json lacks a field: most corpora never need them.
enum Beside {
    Unread(Shard),
    Read(Option<ShardMetadata>),
}

/// What was asked of a sample's json in vain, although there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Fields that are `NaN`, in the json or in the Parquet file beside the shard: no value.
    pub(crate) not_numbers: Vec<Arc<str>>,
    /// Why the json cannot be read, although the sample can be used without.
    pub(crate) unread: Option<String>,
}

impl Gaps {
    /// Says it in the log, once per field: for jobs that keep no statistics.
    pub(crate) fn say(&self, shard: &str) {
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let is_new = |what: &str| SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned());
        for field in self.not_numbers.iter().filter(|field| is_new(field)) {
            tracing::warn!(
                "{shard}: {field:?} is NaN, which counts as no value; others like it are not named"
            );
        }
        if let Some(detail) = self.unread.as_ref().filter(|_| is_new("")) {
            tracing::warn!(
                "{shard}: json cannot be read ({detail}): none of its fields counts; others are not named"
            );
        }
    }
}

/// What is known of a sample that counts.
#[derive(Default)]
pub(super) struct Found {
    /// The captions, at least one; `None` where text members have them.
    pub(super) captions: Option<Result<Vec<String>, Unusable>>,
    /// The score; `None` where it is absent or no number, or none is named.
    pub(super) score: Option<f32>,
    /// What comes along.
    pub(super) attached: Attached,
}

impl CaptionReader {
    pub(super) fn new(shard: &Shard, options: &ReadOptions) -> Self {
        let filter = options.filter.as_ref().map_or(&[][..], Filter::columns);
        let table = options.caption_table();
        let field = options.caption_key.as_deref().filter(|_| table.is_none());
        let named = field.into_iter().chain(options.score_field.as_deref());
        let asked =
            filter.iter().map(String::as_str).chain(named).chain(options.fields.iter().map(String::as_str));
        let needs_uid = options.needs_uid();
        let in_table =
            |name: &&str| options.scores.as_ref().is_some_and(|scores| scores.column(name).is_some());
        let own = asked.filter(|name| !in_table(name)).map(str::to_owned);
        Self {
            columns: own.chain(needs_uid.then(|| UID.to_owned())).collect(),
            gaps: Gaps::default(),
            uid: None,
            place: "json",
            field: field.map(Arc::from),
            choice: options.caption_choice,
            filter: options.filter.clone().map(Arc::new),
            score: options.score_field.as_deref().map(Arc::from),
            subset: options.subset.clone(),
            share: options.share,
            table: table.cloned(),
            other: options
                .captions
                .as_ref()
                .and_then(|tables| tables.iter().next())
                .map(|(name, _)| Arc::clone(name)),
            scores: options.scores.clone(),
            fields: Arc::clone(&options.fields),
            needs_uid,
            names_clauses: false,
            metadata: Beside::Unread(shard.clone()),
            rows: vec![],
            lacking: vec![Some(0); FILTER_AT + filter.len() + options.fields.len()],
        }
    }

    /// For the rows of a Parquet file: captions are in `column` where no other is named, and where a table that is has
    /// none.
    pub(super) fn of_rows(mut self, column: Option<&str>) -> Self {
        self.place = "row";
        if self.field.is_none() {
            self.field = column.map(Arc::from);
            self.columns.extend(column.map(str::to_owned));
        }
        self
    }

    /// From here on samples that the filter excludes come with the clauses that fail.
    pub(super) fn name_clauses(&mut self) {
        self.names_clauses = true;
    }

    /// Names of all fields that may be asked for.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether more than the first of a sample's captions counts.
    pub(super) fn wants_all(&self) -> bool {
        matches!(self.choice, Some(CaptionChoice::Random | CaptionChoice::All))
    }

    /// What a sample has of its `captions`, of which there is at least one: its caption, and those that one is drawn of.
    pub(super) fn chosen(&self, mut captions: Vec<String>) -> (String, Vec<String>) {
        match self.choice {
            Some(CaptionChoice::All) => (captions.join(BETWEEN), vec![]),
            Some(CaptionChoice::Random) if captions.len() > 1 => (captions[0].clone(), captions),
            Some(CaptionChoice::Random | CaptionChoice::First) | None => {
                if captions.len() > 1 {
                    self.say_several();
                }
                captions.truncate(1);
                (captions.pop().unwrap_or_default(), vec![])
            }
        }
    }

    /// Says, once, that samples have captions which nobody asked for.
    pub(super) fn say_several(&self) {
        static SAID: AtomicBool = AtomicBool::new(false);
        if self.choice.is_none() && !SAID.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "samples have several captions, of which the first is used: caption_choice=random draws one for each \
                 sample and epoch, all joins them, first is as it is without this warning"
            );
        }
    }

    /// Where else than in the text member a caption may stand, in words.
    pub(super) fn elsewhere(&self) -> Option<String> {
        let place = self.place;
        match (&self.field, &self.table) {
            (Some(field), Some(_)) => Some(format!("no caption in the table, no {place} with a {field:?}")),
            (Some(field), None) => Some(format!("no {place} with a {field:?}")),
            (None, Some(_)) => Some("no caption in the table".into()),
            (None, None) => None,
        }
    }

    /// A table that may have the caption of a sample without one of its own, if somebody says so.
    pub(super) fn other_table(&self) -> Option<&str> {
        self.other.as_deref().filter(|_| self.table.is_none())
    }

    /// Whether a sample is outside of the share, or of the subset by its name alone: nothing of it need be read.
    pub(super) fn is_outside(&self, key: &str, id: SampleId) -> bool {
        let beyond = self.share.is_some_and(|share| !share.contains(id));
        beyond
            || self.subset.as_ref().is_some_and(|subset| match subset.by() {
                JoinBy::Key => !subset.contains(of_key(key)),
                JoinBy::Id => !subset.contains(of_id(id)),
                JoinBy::Uid => false,
            })
    }

    /// Whether the subset goes by a field: the json must be read to know what is outside.
    pub(super) fn subset_needs_json(&self) -> bool {
        self.subset.as_ref().is_some_and(|subset| subset.by() == JoinBy::Uid)
    }

    /// Whether a field of the json is looked at.
    pub(super) fn needs_json(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether a sample whose json cannot be read cannot be used.
    fn fails_without_json(&self) -> bool {
        let by_uid = self.scores.as_ref().is_some_and(|scores| scores.needs_uid());
        let is_field = |column: &String| by_uid || self.columns.contains(column);
        self.field.is_some()
            || self.filter.as_ref().is_some_and(|filter| filter.columns().iter().any(is_field))
    }

    /// What is known of the sample `key`, whose json member is given; why it cannot be used, where that is
    /// so. `fault` is what is wrong with it whatever its fields say, unless the subset does not name it.
    ///
    /// # Errors
    /// Those of [`ShardMetadata::beside`].
    pub(super) fn of(
        &mut self,
        key: &str,
        id: SampleId,
        json: Option<&[u8]>,
        fault: Option<Unusable>,
    ) -> Result<Result<Found, Unusable>> {
        self.gaps = Gaps::default();
        if self.is_outside(key, id) {
            return Ok(Err((FailReason::Excluded, OUTSIDE.into())));
        }
        if let Some(fault) = &fault
            && !self.subset_needs_json()
        {
            return Ok(Err(fault.clone()));
        }
        let (mut member, mut bad) = (Fields::default(), None);
        if let Some(json) = json.filter(|_| self.needs_json()) {
            match Fields::read(json, |name| self.columns.iter().any(|column| column == name)) {
                Ok(fields) => member = fields,
                Err(error) => bad = Some(error),
            }
        }
        let uid = if self.needs_uid { self.uid(key, &member)? } else { None };
        if let Some(subset) = self.subset.as_ref().filter(|subset| subset.by() == JoinBy::Uid)
            && !uid.is_some_and(|uid| subset.contains(uid))
        {
            // Whether a sample is in the subset that nobody can read the uid of is not known.
            return Ok(Err(match bad.filter(|_| uid.is_none()) {
                Some(detail) => (FailReason::BadJson, detail),
                None => (FailReason::Excluded, OUTSIDE.into()),
            }));
        }
        if let Some(fault) = fault {
            return Ok(Err(fault));
        }
        if let Some(detail) = bad {
            if self.fails_without_json() {
                return Ok(Err((FailReason::BadJson, detail)));
            }
            self.gaps.unread = Some(detail);
        }
        let names = Names { key, id, uid };
        if let Some(scores) = &self.scores {
            scores.find(&names, &mut self.rows);
        }
        if let Some(filter) = self.filter.clone() {
            let values = self.filtered(&filter, key, &member)?;
            if !filter.passes(&values) {
                let failing = || format!("it does not pass where: {}", filter.failing(&values).join(", "));
                return Ok(Err((FailReason::Excluded, self.names_clauses.then(failing).unwrap_or_default())));
            }
        }
        let mut found = Found { attached: Attached { uid, ..Attached::default() }, ..Found::default() };
        if let Some(table) = &self.table {
            found.captions = names.of(table.by()).and_then(|name| table.captions(name)).map(Ok);
        }
        if let Some(field) = self.field.clone().filter(|_| found.captions.is_none()) {
            let value = self.value(CAPTION_AT, &field, key, &member)?;
            found.captions = value.and_then(|value| texts(&value, &field));
        }
        if let Some(field) = self.score.clone() {
            let of_table = self.scores.as_ref().and_then(|scores| Some((scores, scores.column(&field)?)));
            found.score = match of_table {
                Some((scores, at)) => Some(scores.score(at, &self.rows)).filter(|score| !score.is_nan()),
                None => self.value(SCORE_AT, &field, key, &member)?.as_ref().and_then(score),
            };
        }
        let first = self.lacking.len() - self.fields.len();
        for (at, field) in Arc::clone(&self.fields).iter().enumerate() {
            found.attached.fields.push(self.value(first + at, field, key, &member)?.unwrap_or_default());
        }
        Ok(Ok(found))
    }

    /// What the tables of scores say of the last sample, `[columns]`: asked for where it is made, not where it is counted.
    pub(super) fn scores(&self) -> Vec<f32> {
        self.scores.as_ref().map_or(vec![], |scores| scores.scores(&self.rows))
    }

    /// The hash of the sample's uid.
    fn uid(&mut self, key: &str, member: &Fields) -> Result<Option<u64>> {
        self.uid = self.value(UID_AT, UID, key, member)?;
        Ok(self.uid.as_ref().and_then(of_uid_value))
    }

    /// The values that a filter looks at.
    fn filtered(&mut self, filter: &Filter, key: &str, member: &Fields) -> Result<Vec<Value>> {
        let mut values = Vec::with_capacity(filter.columns().len());
        for (i, column) in filter.columns().iter().enumerate() {
            values.push(self.value(FILTER_AT + i, column, key, member)?.unwrap_or_default());
        }
        Ok(values)
    }

    /// The last uid that was looked up, where there is one.
    pub(super) fn take_uid(&mut self) -> Option<String> {
        match self.uid.take()? {
            Value::String(uid) => Some(uid),
            Value::Number(uid) => Some(uid.to_string()),
            _ => None,
        }
    }

    /// What the last sample was asked for in vain.
    pub(super) fn take_gaps(&mut self) -> Gaps {
        std::mem::take(&mut self.gaps)
    }

    /// Says in the log, once per field, which fields none of the samples so far had, at least `least` of them.
    pub(super) fn say_absent(&self, least: u64) {
        let named = [&self.field, &self.score];
        let named = [(CAPTION_AT, named[0]), (SCORE_AT, named[1])].into_iter();
        let named = named.filter_map(|(at, field)| field.as_deref().map(|field| (at, field)));
        let of_filter = self.filter.iter().flat_map(|filter| filter.columns()).map(String::as_str);
        let fields = of_filter.chain(self.fields.iter().map(String::as_str));
        for (at, field) in named.chain((FILTER_AT..).zip(fields)) {
            if self.scores.as_ref().is_some_and(|scores| scores.column(field).is_some()) {
                continue;
            }
            if let Some(lacking) = self.lacking.get(at).copied().flatten().filter(|lacking| *lacking >= least)
            {
                warn_of_absent(field, self.kind_of(at), lacking);
            }
        }
    }

    /// What stands in `column`, the `i`-th that is looked for; `None` where it is absent, null or not a number.
    fn value(&mut self, i: usize, column: &str, key: &str, member: &Fields) -> Result<Option<Value>> {
        if let Some((scores, at)) = self.scores.as_ref().and_then(|s| Some((s, s.column(column)?))) {
            return Ok(scores.value(at, &self.rows));
        }
        let mut found = member.value(column).cloned();
        let mut is_nan = member.is_nan(column);
        if found.is_none() {
            if let Beside::Unread(shard) = &self.metadata {
                let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
                self.metadata = Beside::Read(ShardMetadata::beside(shard, &columns)?);
            }
            if let Beside::Read(Some(metadata)) = &self.metadata {
                found = metadata.value(key, column).filter(|value| !value.is_null()).cloned();
                is_nan |= metadata.is_nan(key, column);
            }
        }
        if is_nan && found.is_none() && !self.gaps.not_numbers.iter().any(|name| **name == *column) {
            self.gaps.not_numbers.push(column.into());
        }
        let lacking = &mut self.lacking[i];
        // A field that is not a number is there.
        *lacking = lacking.filter(|_| found.is_none() && !is_nan).map(|lacking| lacking + 1);
        if *lacking == Some(LACKING) {
            warn_of_absent(column, self.kind_of(i), LACKING);
        }
        Ok(found)
    }

    /// What asks for the field at `at`, and what follows where no sample has it.
    fn kind_of(&self, at: usize) -> (&'static str, &'static str) {
        match at {
            CAPTION_AT => ("caption_key", "their .txt is used where there is one"),
            UID_AT => ("subset, scores or captions", "none of them is in a table of uids"),
            SCORE_AT => ("gate", "none of them passes a gate"),
            _ if at < self.lacking.len() - self.fields.len() => {
                ("where", "a test of it is true of none of them, but for `is null`")
            }
            _ => ("fields", "batches have none of it"),
        }
    }
}

/// The score that `value` holds: a number, or a text that is one, since some tools write every field so.
pub(super) fn score(value: &Value) -> Option<f32> {
    let score = match value {
        Value::Number(number) => number.as_f64()? as f32,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (!score.is_nan()).then_some(score)
}

/// Says, once per field, that no sample has it: a slip in its name would pass unseen where samples
/// have a `.txt` too.
fn warn_of_absent(field: &str, (option, consequence): (&str, &str), samples: u64) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(field.to_owned()) {
        tracing::warn!(
            "{option}: none of the first {samples} samples of a shard has a {field:?} in its json or its \
             metadata; {consequence}"
        );
    }
}

/// The captions that `field` holds, as a text or a list of texts; `None` for null.
fn texts(value: &Value, field: &str) -> Option<Result<Vec<String>, Unusable>> {
    match value {
        Value::Null => None,
        Value::String(caption) => Some(trimmed(caption, field).map(|caption| vec![caption])),
        Value::Array(entries) => Some(listed(entries, field)),
        other => {
            let found = format!("{field:?} is {}, neither a string nor a list of strings", kind(other));
            Some(Err((FailReason::BadJson, found)))
        }
    }
}

/// The captions of a list, without null and empty ones.
fn listed(entries: &[Value], field: &str) -> Result<Vec<String>, Unusable> {
    let mut captions = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry {
            Value::Null => {}
            Value::String(caption) => captions.extend(trimmed(caption, field).ok()),
            other => {
                let found = format!("an entry of {field:?} is {}, not a string", kind(other));
                return Err((FailReason::BadJson, found));
            }
        }
    }
    some(captions, || format!("nothing in the list {field:?}"))
}

/// The captions, unless there is none.
pub(super) fn some(captions: Vec<String>, none: impl Fn() -> String) -> Result<Vec<String>, Unusable> {
    if captions.is_empty() { Err((FailReason::EmptyCaption, none())) } else { Ok(captions) }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
    }
}

/// A caption without white space around it.
pub(super) fn trimmed(caption: &str, place: &str) -> Result<String, Unusable> {
    let caption = sample::trimmed(caption);
    if sample::is_blank(caption) {
        return Err((FailReason::EmptyCaption, format!("nothing in {place}")));
    }
    Ok(caption.to_owned())
}
