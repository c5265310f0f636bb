//! How a window stands in its file: one row per sample, one column per thing that is known of it.
//!
//! | column | |
//! | --- | --- |
//! | `shard`, `key` | file name of the shard, key of the sample |
//! | `failed`, `detail` | why the sample cannot be used; null where it can |
//! | `offset` | byte offset of its first header in the decompressed shard |
//! | `caption_chars` | length of the original caption |
//! | `caption_from` | `table` where the caption is that of a table; only where there is one |
//! | `cluster`, `alignment` | signals; null where no scorer ran, the sample failed, or a thinned stream dropped it |
//! | `semantic_hash` | 32 bytes, little-endian; null also where the gate dropped the sample |
//! | `embedding` | f32, little-endian; null unless the policy needed embeddings |
//! | `image`, `image_at`, `image_size` | extension, offset from `offset`, and bytes of the image member |
//! | `caption`, `caption_at`, `caption_size`; `json_at`, `json_size` | likewise |

use std::sync::Arc;

use ndarray::Array2;

use crate::error::FailReason;
use crate::ledger::parquet_table::{Column, Table};
use crate::ledger::record::{WindowKey, WindowRecord};
use crate::model::{SEMANTIC_HASH_BITS, Signals, UNKNOWN_HASH};
use crate::sample::{FailedSample, Outcome, SampleId};
use crate::shard::{MemberRange, Shard, ShardIndex};

/// Version of this layout.
const LAYOUT: &str = "1";

/// The same where some rows were not encoded, which a reader has to look for.
const LAYOUT_OF_A_PART: &str = "2";

/// Bytes of a semantic hash.
const HASH_BYTES: usize = SEMANTIC_HASH_BITS / 8;

/// The members that a sample is made of, and the columns that say where they are.
const MEMBERS: [(&str, &[&str]); 3] =
    [("image", &["jpg", "png", "jpeg", "webp"]), ("caption", &["txt", "caption"]), ("json", &["json"])];

/// The table of `record`; `outcomes` say which samples the gate dropped. `None` where the keys are
/// not known.
pub(super) fn table(
    key: &WindowKey,
    record: &WindowRecord,
    outcomes: &[Outcome],
    shard: &Shard,
) -> Option<Table> {
    let index = record.index.as_ref().filter(|index| index.len() == record.ids.len())?;
    let n = record.ids.len();
    let rows = 0..n;
    let is_usable = |row: usize| record.failed.get(row).is_some_and(Option::is_none);
    let detail = |row: usize| {
        let position = index.first() + row as u64;
        record.failures.iter().find(|failure| failure.position == position).map(|f| f.detail.clone())
    };
    let mut columns: Vec<(String, Column)> = vec![
        ("shard".into(), Column::Text(vec![Some(shard.path.to_string()); n])),
        ("key".into(), Column::Text(rows.clone().map(|row| index.key(row).map(str::to_owned)).collect())),
        (
            "failed".into(),
            Column::Text(record.failed.iter().map(|f| f.map(|reason| reason.to_string())).collect()),
        ),
        ("detail".into(), Column::Text(rows.clone().map(detail).collect())),
        (
            "offset".into(),
            Column::I64(rows.clone().map(|row| index.offset(row).map(|at| at as i64)).collect()),
        ),
        (
            "caption_chars".into(),
            Column::I32(record.caption_chars.iter().map(|&chars| i32::try_from(chars).ok()).collect()),
        ),
    ];
    if let Some(signals) = &record.signals {
        let usable = |row: usize| (is_usable(row) && record.is_encoded(row)).then_some(row);
        let is_candidate = |row: usize| {
            usable(row).filter(|_| {
                !matches!(outcomes.get(row), Some(Outcome::Dropped(crate::sample::DropReason::Gate)))
            })
        };
        let cluster = |row: usize| usable(row).map(|row| signals.cluster[row] as i32);
        columns.push(("cluster".into(), Column::I32(rows.clone().map(cluster).collect())));
        let alignment = |row: usize| usable(row).map(|row| signals.alignment[row]);
        columns.push(("alignment".into(), Column::F32(rows.clone().map(alignment).collect())));
        let hash = |row: usize| {
            is_candidate(row)
                .filter(|&row| signals.semantic_hash[row] != UNKNOWN_HASH)
                .map(|row| signals.semantic_hash[row].iter().flat_map(|w| w.to_le_bytes()).collect())
        };
        columns.push(("semantic_hash".into(), Column::Bytes(HASH_BYTES, rows.clone().map(hash).collect())));
        if record.has_embedding {
            let embedding = |row: usize| {
                usable(row)
                    .map(|row| signals.embedding.row(row).iter().flat_map(|v| v.to_le_bytes()).collect())
            };
            let width = 4 * signals.embedding.ncols();
            columns.push(("embedding".into(), Column::Bytes(width, rows.clone().map(embedding).collect())));
        }
    }
    for (name, extensions) in MEMBERS {
        let (mut kinds, mut at, mut sizes) =
            (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        for row in rows.clone() {
            let members: Vec<MemberRange<'_>> =
                if is_usable(row) { index.members(row).collect() } else { vec![] };
            let member = extensions.iter().find_map(|&e| members.iter().find(|member| member.extension == e));
            let offset = index.offset(row).unwrap_or_default();
            kinds.push(member.map(|member| member.extension.to_owned()));
            at.push(member.map(|member| member.range.start.saturating_sub(offset) as i64));
            sizes.push(member.map(|member| (member.range.end - member.range.start) as i64));
        }
        if name != "json" {
            columns.push((name.into(), Column::Text(kinds)));
        }
        columns.push((format!("{name}_at"), Column::I64(at)));
        columns.push((format!("{name}_size"), Column::I64(sizes)));
    }
    let notes = [
        ("layout", if record.encoded.is_some() { LAYOUT_OF_A_PART } else { LAYOUT }.to_owned()),
        ("source", shard.source.to_string()),
        ("shard", shard.path.to_string()),
        ("mark", index.version().unwrap_or_default()),
        ("first", index.first().to_string()),
        ("compute", record.compute.to_string()),
    ];
    let notes = notes.into_iter().chain(of_key(key)).map(|(name, value)| (name.to_owned(), value)).collect();
    Some(Table { columns, notes })
}

/// What is noted of the key: a file at another's place is not taken for it.
fn of_key(key: &WindowKey) -> [(&'static str, String); 6] {
    [
        ("shard_hash", format!("{:016x}", key.shard)),
        ("window", key.window.to_string()),
        ("size", key.size.to_string()),
        ("version", format!("{:016x}", key.version)),
        ("scorer", format!("{:016x}", key.scorer)),
        ("reading", format!("{:016x}", key.reading)),
    ]
}

/// The record in `table`.
///
/// # Errors
/// What is wrong with it, in words: it belongs to something else, or is no such table.
pub(super) fn record(key: &WindowKey, mut table: Table) -> Result<WindowRecord, String> {
    let noted = |table: &Table, name: &str| table.note(name).unwrap_or("nothing").to_owned();
    let layout = noted(&table, "layout");
    if ![LAYOUT, LAYOUT_OF_A_PART].contains(&layout.as_str()) {
        return Err(format!("its layout is {layout}, not {LAYOUT}: another version wrote it"));
    }
    for (name, expected) in of_key(key) {
        let found = noted(&table, name);
        if found != expected {
            return Err(format!("its {name} is {found}, not {expected}"));
        }
    }
    let first: u64 =
        noted(&table, "first").parse().map_err(|_| "its first sample is no number".to_owned())?;
    let mark = noted(&table, "mark");
    // Files of versions that did not note it say nothing.
    let compute: Arc<str> = table.note("compute").unwrap_or_default().into();
    let mut columns = Columns { table: &mut table, rows: 0 };
    let keys = columns.text("key")?;
    columns.rows = keys.len();
    let keys: Vec<String> = keys.into_iter().collect::<Option<_>>().ok_or("a key is null")?;
    let (reasons, details) = (columns.text("failed")?, columns.text("detail")?);
    let offsets = columns.i64("offset")?;
    let caption_chars = columns.i32("caption_chars")?;
    let mut places = Vec::with_capacity(MEMBERS.len());
    for (name, _) in MEMBERS {
        let kinds =
            if name == "json" { vec![Some("json".to_owned()); keys.len()] } else { columns.text(name)? };
        places.push((kinds, columns.i64(&format!("{name}_at"))?, columns.i64(&format!("{name}_size"))?));
    }
    let (signals, known) = match columns.has("cluster") {
        true => columns.signals().map(|(signals, known)| (Some(signals), known))?,
        false => (None, vec![]),
    };
    let mut index = ShardIndex::restored(key.shard, first, &mark);
    let mut record = WindowRecord {
        ids: Vec::with_capacity(keys.len()),
        failed: Vec::with_capacity(keys.len()),
        caption_chars: caption_chars.into_iter().map(|chars| chars.unwrap_or(0).max(0) as u32).collect(),
        has_embedding: signals.as_ref().is_some_and(|signals| signals.embedding.ncols() > 0),
        signals,
        encoded: None,
        compute,
        failures: vec![],
        index: None,
    };
    for (row, name) in keys.iter().enumerate() {
        let id = SampleId::new(key.shard, name);
        let offset = u64::try_from(offsets[row].ok_or("an offset is null")?).map_err(|e| e.to_string())?;
        let reason: Option<FailReason> = match &reasons[row] {
            None => None,
            Some(name) => Some(FailReason::from_name(name).ok_or(format!("{name} is no reason"))?),
        };
        let mut members = Vec::with_capacity(MEMBERS.len());
        for (kinds, at, sizes) in &places {
            if let (Some(kind), Some(at), Some(size)) = (&kinds[row], at[row], sizes[row]) {
                let at = u64::try_from(at).map_err(|e| e.to_string())?;
                let size = u64::try_from(size).map_err(|e| e.to_string())?;
                members.push((kind.as_str(), offset.saturating_add(at), size));
            }
        }
        members.sort_by_key(|&(_, at, _)| at);
        index.restore(name, offset, members);
        record.ids.push(id);
        record.failed.push(reason);
        if let Some(reason) = reason {
            record.failures.push(FailedSample {
                id,
                key: name.as_str().into(),
                position: first + row as u64,
                offset,
                reason,
                detail: details[row].clone().unwrap_or_default(),
            });
        }
    }
    if known.contains(&false) {
        let encoded: Vec<bool> =
            record.failed.iter().zip(known).map(|(failed, known)| known || failed.is_some()).collect();
        record.encoded = encoded.contains(&false).then_some(encoded);
    }
    record.index = Some(index);
    Ok(record)
}

/// Columns of a table, all of `rows` values.
struct Columns<'a> {
    table: &'a mut Table,
    rows: usize,
}

impl Columns<'_> {
    fn has(&self, name: &str) -> bool {
        self.table.columns.iter().any(|(column, _)| column == name)
    }

    fn checked<T>(&self, name: &str, values: Vec<T>) -> Result<Vec<T>, String> {
        // The first column says how many there are.
        if name != "key" && values.len() != self.rows {
            return Err(format!("{name} has {} rows, and key {}", values.len(), self.rows));
        }
        Ok(values)
    }

    fn text(&mut self, name: &str) -> Result<Vec<Option<String>>, String> {
        match self.table.take(name) {
            Some(Column::Text(values)) => self.checked(name, values),
            _ => Err(format!("it has no text column {name}")),
        }
    }

    fn i32(&mut self, name: &str) -> Result<Vec<Option<i32>>, String> {
        match self.table.take(name) {
            Some(Column::I32(values)) => self.checked(name, values),
            _ => Err(format!("it has no int32 column {name}")),
        }
    }

    fn i64(&mut self, name: &str) -> Result<Vec<Option<i64>>, String> {
        match self.table.take(name) {
            Some(Column::I64(values)) => self.checked(name, values),
            _ => Err(format!("it has no int64 column {name}")),
        }
    }

    fn f32(&mut self, name: &str) -> Result<Vec<Option<f32>>, String> {
        match self.table.take(name) {
            Some(Column::F32(values)) => self.checked(name, values),
            _ => Err(format!("it has no float column {name}")),
        }
    }

    /// The signals, and which rows have some.
    fn signals(&mut self) -> Result<(Signals, Vec<bool>), String> {
        let cluster = self.i32("cluster")?;
        let known = cluster.iter().map(Option::is_some).collect();
        // Rows of failed samples may hold anything.
        let cluster = cluster.into_iter().map(|c| c.map_or(0, |c| c.max(0) as u32)).collect();
        let alignment = self.f32("alignment")?.into_iter().map(Option::unwrap_or_default).collect();
        let hashes = match self.table.take("semantic_hash") {
            Some(Column::Bytes(HASH_BYTES, values)) => self.checked("semantic_hash", values)?,
            _ => return Err(format!("it has no column semantic_hash of {HASH_BYTES} bytes")),
        };
        let semantic_hash = hashes
            .into_iter()
            .map(|hash| {
                let mut words = [0; HASH_BYTES / 8];
                let hash = hash.unwrap_or_default();
                for (word, bytes) in words.iter_mut().zip(hash.as_chunks().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
                words
            })
            .collect();
        let embedding = match self.table.take("embedding") {
            None => Array2::zeros((self.rows, 0)),
            Some(Column::Bytes(width, values)) => {
                let values = self.checked("embedding", values)?;
                let mut flat: Vec<f32> = Vec::with_capacity(values.len() * width / 4);
                for value in values {
                    let bytes = value.unwrap_or_else(|| vec![0; width]);
                    flat.extend(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
                }
                Array2::from_shape_vec((self.rows, width / 4), flat).map_err(|error| error.to_string())?
            }
            Some(_) => return Err("its column embedding has another type".into()),
        };
        Ok((Signals { cluster, alignment, embedding, semantic_hash }, known))
    }
}
