//! Learns byte-pair merges (Sennrich et al. 2016, arXiv 1508.07909) from counted words.
//!
//! Deterministic: the commonest pair is merged first, ties go to the pair whose symbols are
//! older. (The trainer of the `tokenizers` crate numbers its symbols in hash-map order.)

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

/// Marks the last symbol of a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// A pair that is seen only once is a name or a typing error.
const MIN_COUNT: u64 = 2;

type Pair = (usize, usize);

/// What was learned: every symbol, and the merges in order.
pub(super) struct Learned {
    pub(super) symbols: Vec<String>,
    pub(super) merges: Vec<(String, String)>,
}

/// Learns merges until there are `size` symbols or no pair occurs twice.
///
/// `symbols` holds the alphabet at first: every character of `words`, with and without
/// [`END_OF_WORD`]. Time is proportional to the words touched by each merge.
pub(super) fn learn(words: &BTreeMap<String, u64>, symbols: Vec<String>, size: usize) -> Learned {
    let mut learned = Learned { symbols, merges: Vec::new() };
    let index: HashMap<&str, usize> =
        learned.symbols.iter().enumerate().map(|(i, s)| (s.as_str(), i)).collect();
    let mut texts: Vec<(Vec<usize>, u64)> = Vec::with_capacity(words.len());
    for (word, &count) in words {
        let mut text = Vec::with_capacity(word.len());
        let mut chars = word.chars().peekable();
        while let Some(c) = chars.next() {
            let suffix = if chars.peek().is_none() { END_OF_WORD } else { "" };
            text.extend(index.get(format!("{c}{suffix}").as_str()));
        }
        texts.push((text, count));
    }

    let mut counts: HashMap<Pair, u64> = HashMap::new();
    let mut places: HashMap<Pair, BTreeSet<usize>> = HashMap::new();
    for (place, (text, count)) in texts.iter().enumerate() {
        for pair in text.windows(2).map(|w| (w[0], w[1])) {
            *counts.entry(pair).or_default() += count;
            places.entry(pair).or_default().insert(place);
        }
    }
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> =
        counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();

    while learned.symbols.len() < size {
        let Some((queued, Reverse(pair))) = queue.pop() else { break };
        let count = counts.get(&pair).copied().unwrap_or(0);
        if count < MIN_COUNT {
            continue;
        }
        if count != queued {
            // Counts change while an entry waits; it goes back with the present one.
            queue.push((count, Reverse(pair)));
            continue;
        }
        let merged = learned.symbols.len();
        let (left, right) = (learned.symbols[pair.0].clone(), learned.symbols[pair.1].clone());
        learned.symbols.push(format!("{left}{right}"));
        learned.merges.push((left, right));
        let mut changed: BTreeSet<Pair> = BTreeSet::new();
        for place in places.remove(&pair).unwrap_or_default() {
            let (text, count) = &mut texts[place];
            for old in text.windows(2).map(|w| (w[0], w[1])) {
                if let Some(total) = counts.get_mut(&old) {
                    *total -= *count;
                }
            }
            merge(text, pair, merged);
            for new in text.windows(2).map(|w| (w[0], w[1])) {
                *counts.entry(new).or_default() += *count;
                places.entry(new).or_default().insert(place);
                changed.insert(new);
            }
        }
        queue.extend(changed.into_iter().map(|pair| (counts[&pair], Reverse(pair))));
    }
    learned
}

/// Replaces each `pair` in `text`, from the left, by `merged`.
fn merge(text: &mut Vec<usize>, pair: Pair, merged: usize) {
    let mut write = 0;
    let mut read = 0;
    while read < text.len() {
        if text[read] == pair.0 && text.get(read + 1) == Some(&pair.1) {
            text[write] = merged;
            read += 2;
        } else {
            text[write] = text[read];
            read += 1;
        }
        write += 1;
    }
    text.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same algorithm, recounting everything for each merge.
    fn brute_force(
        words: &BTreeMap<String, u64>,
        mut symbols: Vec<String>,
        size: usize,
    ) -> Vec<(String, String)> {
        let mut texts: Vec<(Vec<String>, u64)> = words
            .iter()
            .map(|(word, &count)| {
                let mut text: Vec<String> = word.chars().map(String::from).collect();
                text.last_mut().into_iter().for_each(|last| last.push_str(END_OF_WORD));
                (text, count)
            })
            .collect();
        let mut merges = Vec::new();
        while symbols.len() < size {
            let mut counts: HashMap<(usize, usize), u64> = HashMap::new();
            let id = |s: &String| symbols.iter().position(|t| t == s).unwrap_or(usize::MAX);
            for (text, count) in &texts {
                for pair in text.windows(2) {
                    *counts.entry((id(&pair[0]), id(&pair[1]))).or_default() += count;
                }
            }
            let best =
                counts.into_iter().filter(|(_, n)| *n >= MIN_COUNT).max_by_key(|&(p, n)| (n, Reverse(p)));
            let Some(((left, right), _)) = best else { break };
            let (left, right) = (symbols[left].clone(), symbols[right].clone());
            for (text, _) in &mut texts {
                let mut merged = Vec::new();
                let mut at = 0;
                while at < text.len() {
                    if text[at] == left && text.get(at + 1) == Some(&right) {
                        merged.push(format!("{left}{right}"));
                        at += 2;
                    } else {
                        merged.push(text[at].clone());
                        at += 1;
                    }
                }
                *text = merged;
            }
            symbols.push(format!("{left}{right}"));
            merges.push((left, right));
        }
        merges
    }

    #[test]
    fn merges_equal_a_recount() {
        let text =
            "a red circle left of a blue square and a red ring above aaaa bbbb aabb banana bandana red red";
        let mut words: BTreeMap<String, u64> = BTreeMap::new();
        for word in text.split(' ') {
            *words.entry(word.to_owned()).or_default() += 1;
        }
        let alphabet: Vec<String> =
            ('a'..='z').map(String::from).chain(('a'..='z').map(|c| format!("{c}{END_OF_WORD}"))).collect();
        for size in [52, 60, 80, 200] {
            let learned = learn(&words, alphabet.clone(), size);
            assert_eq!(learned.merges, brute_force(&words, alphabet.clone(), size), "{size}");
            assert!(learned.symbols.len() <= size.max(52));
        }
    }
}
