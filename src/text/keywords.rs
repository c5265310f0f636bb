//! The words that captions speak of most: what a codebook may start from (TL;DR, arXiv 2305.20087,
//! section 3.1).

use std::collections::HashMap;

use crate::text::clean;

/// English words that say little by themselves, in alphabetical order: articles, pronouns,
/// prepositions, auxiliaries and what captions are padded with.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "been",
    "before", "being", "between", "both", "but", "by", "can", "could", "did", "do", "does", "during", "each",
    "for", "from", "had", "has", "have", "he", "her", "here", "him", "his", "how", "if", "in", "into", "is",
    "it", "its", "just", "like", "may", "more", "most", "much", "my", "near", "no", "nor", "not", "of",
    "off", "on", "one", "only", "onto", "or", "other", "our", "out", "over", "own", "photo", "picture", "s",
    "she", "should", "so", "some", "such", "t", "than", "that", "the", "their", "them", "then", "there",
    "these", "they", "this", "those", "through", "to", "too", "under", "until", "up", "very", "was", "we",
    "were", "what", "when", "where", "which", "while", "who", "will", "with", "would", "you", "your",
];

/// The `count` words that occur in the most captions, the commonest first and ties in alphabetical
/// order; fewer where there are not as many. Words are runs of letters of cleaned, lower-cased
/// captions, of two letters or more and no stop words. O(characters).
pub fn keywords<'a>(captions: impl Iterator<Item = &'a str>, count: usize) -> Vec<String> {
    let mut found: HashMap<String, u64> = HashMap::new();
    for caption in captions {
        words(caption).into_iter().for_each(|word| *found.entry(word).or_default() += 1);
    }
    let mut ranked: Vec<(String, u64)> = found.into_iter().collect();
    ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked.into_iter().take(count).map(|(word, _)| word).collect()
}

/// The words of a caption that say something, each once, in alphabetical order: runs of letters of the cleaned,
/// lower-cased caption, of two letters or more and no stop words. O(characters).
pub fn words(caption: &str) -> Vec<String> {
    let text = clean(caption);
    let letters = text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
    let mut words: Vec<String> = letters
        .filter(|word| word.chars().nth(1).is_some() && STOP_WORDS.binary_search(&word.as_str()).is_err())
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_in_order() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn words_are_ranked_by_captions_that_have_them() {
        let captions = [
            "A dog, a dog and a DOG on the beach",
            "the beach at dusk",
            "Beach house &amp; boat",
            "a boat's photo of x",
        ];
        assert_eq!(keywords(captions.into_iter(), 10), ["beach", "boat", "dog", "dusk", "house"]);
        assert_eq!(keywords(captions.into_iter(), 2), ["beach", "boat"]);
        assert!(keywords(["the of and 12 3"].into_iter(), 5).is_empty());
    }
}
