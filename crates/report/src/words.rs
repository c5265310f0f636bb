//! The words that tell the captions of a cluster from those of the corpus.

use std::collections::HashMap;

use tldr_loader::text::words;

/// How many captions each word is in.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    captions: u64,
    words: HashMap<String, u64>,
}

impl Counts {
    pub(crate) fn of<'a>(captions: impl Iterator<Item = &'a str>) -> Self {
        let mut counts = Self::default();
        for caption in captions {
            counts.captions += 1;
            for word in words(caption) {
                *counts.words.entry(word).or_default() += 1;
            }
        }
        counts
    }

    /// The `count` words that are in at least two of the captions, and most often against their share of the captions of
    /// the `corpus`: by the difference of the log odds, with a half added to each count.
    pub(crate) fn against(&self, corpus: &Self, count: usize) -> Vec<String> {
        let odds = |n: u64, of: u64| ((n as f64 + 0.5) / (of.saturating_sub(n) as f64 + 0.5)).ln();
        let lift = |word: &str, n: u64| {
            odds(n, self.captions)
                - odds(corpus.words.get(word).copied().unwrap_or_default(), corpus.captions)
        };
        // Shorter ones are units, abbreviations and particles. By bytes, since a letter of Chinese is a word.
        let often = self.words.iter().filter(|(word, n)| **n >= 2 && word.len() >= 3);
        let mut ranked: Vec<(f64, u64, &String)> =
            often.map(|(word, &n)| (lift(word, n) * n as f64, n, word)).collect();
        ranked.retain(|(lift, ..)| *lift > 0.0);
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(b.2)));
        ranked.into_iter().take(count).map(|(.., word)| word.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_cluster_are_those_that_others_lack() {
        let own = ["a red dog runs", "the dog sleeps", "a dog and a cat"];
        let all = ["a red house", "a cat", "a cat sleeps", "red trees", "a boat"];
        let corpus = Counts::of(all.into_iter().chain(own));
        let found = Counts::of(own.into_iter()).against(&corpus, 2);
        assert_eq!(found, ["dog"]);
        let own = ["a view of nw rr", "nw of a view"];
        assert_eq!(Counts::of(own.into_iter()).against(&corpus, 9), ["view"]);
    }
}
