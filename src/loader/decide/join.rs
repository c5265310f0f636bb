//! Joins what a window's rows gave when they were encoded with what was known of the others.

use ndarray::Array2;

use crate::ledger::WindowRecord;
use crate::model::Signals;

/// The record of a window whose rows `wanted` were encoded now, with what is known of the others.
pub(crate) fn joined(old: &WindowRecord, mut fresh: WindowRecord, wanted: &[bool]) -> WindowRecord {
    let (Some(from), Some(to)) = (&old.signals, &mut fresh.signals) else { return fresh };
    let rows = old.ids.len();
    if old.has_embedding && to.embedding.ncols() == 0 {
        to.embedding = Array2::zeros((rows, from.embedding.ncols()));
    }
    fresh.has_embedding = old.has_embedding;
    let known = |row: usize| !wanted[row] && old.is_encoded(row);
    for row in (0..rows).filter(|&row| known(row)) {
        copy_row(from, to, row);
        if old.failed[row].is_some() {
            fresh.failed[row] = old.failed[row];
            fresh.caption_chars[row] = 0;
        }
    }
    for failure in &old.failures {
        if fresh.failures.iter().all(|other| other.position != failure.position) {
            let row = old.ids.iter().position(|id| *id == failure.id);
            if row.is_some_and(known) {
                fresh.failures.push(failure.clone());
            }
        }
    }
    fresh.failures.sort_by_key(|failure| failure.position);
    let encoded: Vec<bool> =
        (0..rows).map(|row| fresh.failed[row].is_some() || wanted[row] || old.is_encoded(row)).collect();
    fresh.encoded = encoded.contains(&false).then_some(encoded);
    if fresh.compute.is_empty() {
        fresh.compute = old.compute.clone();
    } else if !old.compute.is_empty() && old.compute != fresh.compute {
        fresh.compute = format!("{}; and {}", old.compute, fresh.compute).into();
    }
    fresh
}

fn copy_row(from: &Signals, to: &mut Signals, row: usize) {
    to.cluster[row] = from.cluster[row];
    to.alignment[row] = from.alignment[row];
    to.semantic_hash[row] = from.semantic_hash[row];
    if to.embedding.ncols() == from.embedding.ncols() {
        to.embedding.row_mut(row).assign(&from.embedding.row(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailReason;
    use crate::sample::{FailedSample, SampleId};

    fn record(encoded: [bool; 4], value: u32, failed: Option<usize>) -> WindowRecord {
        let reason = |row| (failed == Some(row)).then_some(FailReason::UndecodableImage);
        WindowRecord {
            ids: (0..4).map(SampleId).collect(),
            failed: (0..4).map(reason).collect(),
            caption_chars: vec![7; 4],
            signals: Some(Signals {
                cluster: encoded.iter().map(|&e| if e { value } else { 0 }).collect(),
                alignment: encoded.iter().map(|&e| if e { 0.5 } else { 0.0 }).collect(),
                embedding: Array2::zeros((4, 0)),
                semantic_hash: encoded.map(|e| [u64::from(e), 0, 0, 0]).to_vec(),
            }),
            encoded: encoded.contains(&false).then(|| encoded.to_vec()),
            compute: "cpu".into(),
            has_embedding: false,
            failures: failed
                .map(|row| FailedSample {
                    id: SampleId(row as u64),
                    key: "k".into(),
                    position: row as u64,
                    offset: 0,
                    reason: FailReason::UndecodableImage,
                    detail: String::new(),
                })
                .into_iter()
                .collect(),
            index: None,
        }
    }

    #[test]
    fn rows_of_both_are_there() {
        let old = record([true, true, false, false], 3, Some(1));
        let fresh = WindowRecord { compute: "cuda".into(), ..record([false, false, true, false], 5, None) };
        let joined = joined(&old, fresh, &[false, false, true, false]);
        assert_eq!(joined.signals.as_ref().map(|s| s.cluster.clone()), Some(vec![3, 3, 5, 0]));
        assert_eq!(joined.encoded, Some(vec![true, true, true, false]));
        assert_eq!(joined.failed[1], Some(FailReason::UndecodableImage));
        assert_eq!((joined.failures.len(), &*joined.compute), (1, "cpu; and cuda"));
        let rest = record([false, false, false, true], 6, Some(3));
        let whole = super::joined(&joined, rest, &[false, false, false, true]);
        assert_eq!(whole.encoded, None);
        assert_eq!(whole.failures.iter().map(|f| f.position).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(whole.signals.map(|s| s.cluster), Some(vec![3, 3, 5, 6]));
    }
}
