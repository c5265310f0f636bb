//! Where the rows of a batch come from.

use std::sync::Arc;

use crate::loader::kept::Kept;

/// What fills a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filler {
    /// A kept sample of the policy's: one that is due, or in training one that is repeated.
    Own,
    /// In mode `Eval`, another sample of the rank: the row is not real.
    Other,
    /// Nothing, for want of samples.
    Blank,
}

/// One row of a batch on its way to being filled.
#[derive(Clone)]
pub(crate) struct BatchRow {
    pub(crate) kept: Arc<Kept>,
    pub(crate) filler: Filler,
    pub(crate) lane: usize,
    /// The lane's first kept samples.
    pub(crate) first: Arc<[Arc<Kept>]>,
    /// Index of the row in the global batch.
    pub(crate) global: u64,
}
