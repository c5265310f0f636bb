//! How ids become a row: what stands before and after them, where a row is cut, what fills it up.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{PaddingDirection, PaddingParams, Tokenizer, TruncationDirection, TruncationParams};

use super::beside::Beside;
use crate::error::{Error, Result};

/// Texts by which the work of a post-processor is seen: none, a word, several.
const SEEN_BY: [&str; 4] = ["", "a", "a photo of two dogs", "Two cats; 3 dogs."];

/// How a file pads and cuts rows. To what length is the loader's business.
#[derive(Debug, Default)]
pub(super) struct Limits {
    padding: Option<PaddingParams>,
    truncation: Option<TruncationParams>,
}

impl Limits {
    /// Takes them from `tokenizer`, which does neither from here on.
    pub(super) fn take(tokenizer: &mut Tokenizer) -> tokenizers::Result<Self> {
        let found = Self {
            padding: tokenizer.get_padding().cloned(),
            truncation: tokenizer.get_truncation().cloned(),
        };
        tokenizer.with_padding(None).with_truncation(None)?;
        Ok(found)
    }
}

/// A row of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Ids before and after those of a caption.
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
    /// What fills a row up; `None` where nothing says.
    pub(super) pad: Option<u32>,
    /// Whether it fills up on the left, and whether the first ids of a long caption are cut off instead
    /// of the last.
    pub(super) pads_left: bool,
    pub(super) cuts_left: bool,
    /// An id that a row has 0 for.
    pub(super) stripped: Option<u32>,
}

impl Layout {
    /// Start, caption, end and padding.
    pub(super) fn around(start: u32, end: u32, pad: u32) -> Self {
        Self {
            before: vec![start],
            after: vec![end],
            pad: Some(pad),
            pads_left: false,
            cuts_left: false,
            stripped: None,
        }
    }

    /// As the file of `tokenizer` says, which is called `name`, and what lies `beside` it; `limits` are its own
    /// padding and truncation, and `pad` is what its vocabulary has for padding.
    ///
    /// # Errors
    /// A post-processor that does anything but place tokens before and after a text; a token that is not in the
    /// vocabulary; files that contradict each other.
    pub(super) fn of(
        tokenizer: &mut Tokenizer,
        limits: &Limits,
        beside: &Beside,
        pad: Option<u32>,
        name: &str,
    ) -> Result<Self> {
        let (before, after) = placed(tokenizer, name)?;
        let id = |token: &str, what: &str| {
            let missing = || Error::format(name, format!("the {what} {token:?} in the vocabulary"), "none");
            tokenizer.token_to_id(token).ok_or_else(missing)
        };
        for (said, own, what) in
            [(&beside.starts, &before, "add_bos_token"), (&beside.ends, &after, "add_eos_token")]
        {
            let Some((wanted, token)) = said else { continue };
            let has = own.contains(&id(token, "token")?);
            if has != *wanted {
                let found = format!(
                    "a post-processor that {} {token}, and {what} = {wanted} in the tokenizer_config.json beside it",
                    if has { "places" } else { "does not place" },
                );
                let expected = "files that say the same; save the tokenizer again with the version of transformers \
                                that trains";
                return Err(Error::format(name, expected, found));
            }
        }
        let padding = limits.padding.as_ref();
        let pad = match &beside.pad {
            Some(token) => Some(id(token, "padding token")?),
            None => padding.map(|padding| padding.pad_id).or(pad),
        };
        let is_left = |padding: &PaddingParams| matches!(padding.direction, PaddingDirection::Left);
        let cuts_left = limits.truncation.as_ref().map(|t| t.direction == TruncationDirection::Left);
        Ok(Self {
            before,
            after,
            pad,
            pads_left: beside.pads_left.or(padding.map(is_left)).unwrap_or(false),
            cuts_left: beside.cuts_left.or(cuts_left).unwrap_or(false),
            stripped: beside.stripped.as_deref().map(|token| id(token, "end token")).transpose()?,
        })
    }

    /// Ids of a row that are none of the caption's.
    pub(super) fn added(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Writes `ids` to `row`, in the places that it has.
    pub(super) fn fill(&self, mut ids: Vec<u32>, row: &mut [i64]) {
        let room = row.len().saturating_sub(self.added());
        let beyond = ids.len().saturating_sub(room);
        if self.cuts_left {
            ids.drain(..beyond);
        } else {
            ids.truncate(room);
        }
        let used = (ids.len() + self.added()).min(row.len());
        row.fill(i64::from(self.pad.unwrap_or_default()));
        let first = if self.pads_left { row.len() - used } else { 0 };
        let all = self.before.iter().chain(&ids).chain(&self.after);
        for (place, &id) in row[first..].iter_mut().zip(all) {
            *place = i64::from(id);
        }
        if let Some(stripped) = self.stripped {
            row.iter_mut().filter(|id| **id == i64::from(stripped)).for_each(|id| *id = 0);
        }
    }
}

/// Ids of [`SEEN_BY`].
fn ids(tokenizer: &Tokenizer) -> tokenizers::Result<Vec<Vec<u32>>> {
    let encode = |text: &&str| -> tokenizers::Result<Vec<u32>> {
        Ok(tokenizer.encode_fast(*text, true)?.get_ids().to_vec())
    };
    SEEN_BY.iter().map(encode).collect()
}

/// What the post-processor of `tokenizer`, which neither pads nor cuts, places before and after a text.
fn placed(tokenizer: &mut Tokenizer, name: &str) -> Result<(Vec<u32>, Vec<u32>)> {
    let processor = tokenizer.get_post_processor().cloned();
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    let bare = ids(tokenizer);
    // A model without an unknown token fails on text it cannot spell; better now than later.
    let any = tokenizer.encode_fast("a photo of \u{1F98A} 狐 0x", true);
    tokenizer.with_post_processor(processor.clone());
    let wrong = |error: tokenizers::Error| Error::format(name, "a tokenizer that can encode any text", error);
    let bare = any.and(bare).map_err(wrong)?;
    if processor.is_none() {
        return Ok((vec![], vec![]));
    }
    let expected = "a post-processor that places tokens before and after a text";
    // The crate indexes what a template names without asking whether it is there.
    let whole = catch_unwind(AssertUnwindSafe(|| ids(tokenizer)))
        .map_err(|_| Error::format(name, expected, "one that names what is not there"))?
        .map_err(|error| Error::format(name, expected, error))?;
    // Where a text begins may be seen in several ways: the one is taken that is right for all.
    for before in 0..=whole[1].len().saturating_sub(bare[1].len()) {
        let (head, tail) = (&whole[1][..before], &whole[1][(before + bare[1].len()).min(whole[1].len())..]);
        if bare.iter().zip(&whole).all(|(bare, whole)| *whole == [head, bare, tail].concat()) {
            return Ok((head.to_vec(), tail.to_vec()));
        }
    }
    Err(Error::format(name, expected, format!("one that makes {:?} of {:?}", whole[2], bare[2])))
}
