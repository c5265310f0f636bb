//! Pairs of near-duplicates as a table, for those who want to look at all that were sampled.

use std::path::Path;

use crate::aside;
use crate::error::{Error, Result};
use crate::jobs::explain::Explained;
use crate::ledger::{Column, Table};

/// Writes pairs of near-duplicates as a Parquet file: first what is dropped, then what it fell to. Columns `shard`, `key`,
/// `id`, `outcome` of each, the others' with `near_` before them, and `bits` and `cosine`.
///
/// # Errors
/// The file cannot be written.
pub fn write_pairs(out: &Path, pairs: &[Explained]) -> Result<()> {
    let near = || pairs.iter().map(|pair| pair.near.as_ref());
    let text = |of: &dyn Fn(&Explained) -> Option<String>| Column::Text(pairs.iter().map(of).collect());
    let columns = vec![
        ("shard".to_owned(), text(&|pair| Some(pair.shard.clone()))),
        ("key".to_owned(), text(&|pair| pair.key.clone())),
        ("id".to_owned(), Column::I64(pairs.iter().map(|pair| Some(pair.id as i64)).collect())),
        ("outcome".to_owned(), text(&|pair| Some(pair.outcome.to_owned()))),
        ("near_shard".to_owned(), text(&|pair| Some(pair.near.as_ref()?.shard.clone()))),
        ("near_key".to_owned(), text(&|pair| pair.near.as_ref()?.key.clone())),
        ("near_id".to_owned(), Column::I64(near().map(|near| Some(near?.id as i64)).collect())),
        (
            "near_outcome".to_owned(),
            text(&|pair| Some(if pair.near.as_ref()?.kept { "kept" } else { "dropped" }.to_owned())),
        ),
        ("bits".to_owned(), Column::I32(near().map(|near| Some(near?.bits? as i32)).collect())),
        ("cosine".to_owned(), Column::F32(near().map(|near| near?.cosine).collect())),
    ];
    let cannot = |error: std::io::Error| Error::io(format!("write {}", out.display()), error);
    let content =
        Table { columns, notes: vec![] }.write().map_err(|error| cannot(std::io::Error::other(error)))?;
    aside::write(out, content).map_err(cannot)
}
