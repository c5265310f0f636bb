//! What the training loop gets.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use half::bf16;
use serde_json::Value;

use crate::config::PixelType;
use crate::error::Result;
use crate::loader::batch::memory::{HostArray, Stock};
use crate::loader::batch::rows::Rows;

/// Pixels of a batch, `[batch, 3, height, width]`.
#[derive(Debug)]
pub enum Images {
    /// Normalised by mean and standard deviation.
    F32(HostArray<f32>),
    /// Normalised, in half the memory.
    Bf16(HostArray<bf16>),
    /// RGB as decoded and resized, 0..=255.
    U8(HostArray<u8>),
}

impl Images {
    /// `[batch, 3, height, width]`.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::Bf16(a) => a.shape(),
            Self::U8(a) => a.shape(),
        }
    }

    /// The pixels; `None` where the loader does not yield `f32`.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Self::F32(a) => Some(a.as_slice()),
            _ => None,
        }
    }

    /// The pixels; `None` where the loader does not yield `bf16`.
    pub fn as_bf16(&self) -> Option<&[bf16]> {
        match self {
            Self::Bf16(a) => Some(a.as_slice()),
            _ => None,
        }
    }

    /// The pixels; `None` where the loader does not yield `u8`.
    pub fn as_u8(&self) -> Option<&[u8]> {
        match self {
            Self::U8(a) => Some(a.as_slice()),
            _ => None,
        }
    }
}

/// One batch of kept samples on one rank. All vectors have one entry per row.
#[derive(Debug)]
pub struct Batch {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Index of the batch in the epoch, from 0.
    pub step: u64,
    /// Pixels, `[batch, 3, height, width]`.
    pub images: Images,
    /// Token ids of `captions`, `[batch, context_length]`; `None` without a tokenizer.
    pub tokens: Option<HostArray<i64>>,
    /// Whether a row is a sample's own, `[batch]`. Always true but in mode `Eval` on several ranks, where rows
    /// that are not real make every batch of every rank as long as the others: they repeat samples of the
    /// rank, or are blank (pixels 0, an empty caption, identity 0) where it has none.
    pub valid: HostArray<bool>,
    /// 1 / pi, `[batch]`; 1 where nothing was selected, 0 where a row is not [valid](Self::valid). `None` unless the loader was asked for
    /// [weights](crate::loader::LoaderBuilder::weights).
    pub weights: Option<HostArray<f32>>,
    /// Fingerprint of what decided which samples are here, as in
    /// [`LoaderState::policy`](crate::loader::LoaderState::policy).
    pub policy: u64,
    /// The captions to train on, as `fuse` makes them. `tokens` are theirs.
    pub captions: Vec<String>,
    /// What the tables of scores say of the rows, `[batch]` by column; not a number where they say nothing.
    pub scores: BTreeMap<Arc<str>, Vec<f32>>,
    /// Values of the [fields](crate::config::Config::fields) that were asked for, `[batch]` by name; null where a row has
    /// none.
    pub fields: BTreeMap<Arc<str>, Vec<Value>>,
    /// What else is known of the rows; a batch gives its columns as its own: `batch.keys`.
    pub rows: Rows,
}

impl Deref for Batch {
    type Target = Rows;

    fn deref(&self) -> &Rows {
        &self.rows
    }
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// An empty batch with memory for `rows` rows of pixels and tokens, from `stock` where it has some.
    pub(crate) fn allocate(
        epoch: u64,
        step: u64,
        rows: usize,
        size: usize,
        pixels: PixelType,
        context: Option<usize>,
        stock: &Stock,
    ) -> Result<Self> {
        let shape = [rows, 3, size, size];
        let mut valid = HostArray::zeros(&[rows])?;
        valid.as_mut_slice().fill(true);
        let mut tokens = context.map(|c| HostArray::to_be_written(&[rows, c], stock)).transpose()?;
        tokens.iter_mut().for_each(|tokens| tokens.as_mut_slice().fill(0));
        Ok(Self {
            epoch,
            step,
            images: match pixels {
                PixelType::F32 => Images::F32(HostArray::to_be_written(&shape, stock)?),
                PixelType::Bf16 => Images::Bf16(HostArray::to_be_written(&shape, stock)?),
                PixelType::U8 => Images::U8(HostArray::to_be_written(&shape, stock)?),
            },
            tokens,
            valid,
            weights: None,
            policy: 0,
            captions: Vec::with_capacity(rows),
            scores: BTreeMap::new(),
            fields: BTreeMap::new(),
            rows: Rows::with_capacity(rows),
        })
    }

    /// Drops the rows of pixels and tokens that `kept`, `[rows]`, does not name: before the others are described.
    pub(crate) fn keep_rows(&mut self, kept: &[bool]) {
        match &mut self.images {
            Images::F32(a) => a.keep_rows(kept),
            Images::Bf16(a) => a.keep_rows(kept),
            Images::U8(a) => a.keep_rows(kept),
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.keep_rows(kept);
        }
        self.valid.keep_rows(kept);
    }
}
