//! Captions of one window, in two blocks of memory: a ledger holds those of many.

use crate::sample::SampleId;

/// Generated captions of samples of one window. 16 bytes each, and their text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowCaptions {
    /// Sorted by sample; where each text ends.
    entries: Box<[(SampleId, usize)]>,
    text: Box<str>,
}

impl WindowCaptions {
    /// The caption of a sample. Logarithmic in their number.
    pub fn get(&self, id: SampleId) -> Option<&str> {
        let at = self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.at(at)
    }

    /// All of them, by sample.
    pub fn iter(&self) -> impl Iterator<Item = (SampleId, &str)> {
        let ids = self.entries.iter().map(|(id, _)| *id);
        ids.enumerate().filter_map(|(at, id)| Some((id, self.at(at)?)))
    }

    /// Number of captions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// These and those of `other`, which count where both have one.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Approximate size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.entries[..]) + self.text.len()
    }

    fn at(&self, at: usize) -> Option<&str> {
        let start = at.checked_sub(1).map_or(0, |before| self.entries[before].1);
        self.text.get(start..self.entries.get(at)?.1)
    }
}

impl<S: AsRef<str>> FromIterator<(SampleId, S)> for WindowCaptions {
    /// Of several captions of one sample the last one counts.
    fn from_iter<I: IntoIterator<Item = (SampleId, S)>>(captions: I) -> Self {
        let mut sorted: Vec<(SampleId, S)> = captions.into_iter().collect();
        sorted.sort_by_key(|(id, _)| *id);
        let is_last = |at: usize| sorted.get(at + 1).is_none_or(|(next, _)| *next != sorted[at].0);
        let kept: Vec<&(SampleId, S)> =
            (0..sorted.len()).filter(|&at| is_last(at)).map(|at| &sorted[at]).collect();
        let mut text = String::with_capacity(kept.iter().map(|(_, caption)| caption.as_ref().len()).sum());
        let entries = kept.iter().map(|(id, caption)| {
            text.push_str(caption.as_ref());
            (*id, text.len())
        });
        let entries = entries.collect();
        Self { entries, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As a hash map of texts, whatever comes in whatever order.
        #[test]
        fn is_a_map(
            first in proptest::collection::vec((0u64..20, "[a-zé]{0,4}"), 0..30),
            second in proptest::collection::vec((0u64..20, "[a-zé]{0,4}"), 0..30),
        ) {
            let pack = |pairs: &[(u64, String)]| -> WindowCaptions {
                pairs.iter().map(|(id, text)| (SampleId(*id), text)).collect()
            };
            let found = pack(&first).with(&pack(&second));
            let truth: HashMap<u64, String> = first.into_iter().chain(second).collect();
            prop_assert_eq!(found.len(), truth.len());
            prop_assert_eq!(found.is_empty(), truth.is_empty());
            for id in 0..20 {
                prop_assert_eq!(found.get(SampleId(id)), truth.get(&id).map(String::as_str));
            }
            let listed: HashMap<u64, String> = found.iter().map(|(id, text)| (id.0, text.to_owned())).collect();
            prop_assert_eq!(listed, truth);
        }
    }
}
