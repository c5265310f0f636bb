//! Captions that a model got stuck in: the same words over and over.

/// Words of the longest phrase that is looked for.
const LONGEST: usize = 4;

/// Times in a row from which a phrase is too much: people write a word twice.
const TIMES: usize = 3;

/// Whether a phrase of one to four words stands three times in a row, whatever its case.
///
/// O(words).
pub fn is_repetitive(caption: &str) -> bool {
    let words: Vec<String> = caption.split_whitespace().map(str::to_lowercase).collect();
    (1..=LONGEST).any(|length| {
        // Equal words at this distance, counted in a row.
        let mut run = 0;
        words.iter().zip(words.iter().skip(length)).any(|(word, later)| {
            run = if word == later { run + 1 } else { 0 };
            run == length * (TIMES - 1)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_three_times_in_a_row_are_repetitive() {
        for stuck in [
            "dog dog dog",
            "a red a red A Red",
            "picture of a dog of a dog of a dog",
            "on the left side on the left side on the left side",
            "start one two three four one two three four one two three four end",
        ] {
            assert!(is_repetitive(stuck), "{stuck}");
        }
        for fine in [
            "",
            "dog",
            "a very very old dog",
            "a dog and a cat and a bird and a fish",
            "of a dog of a dog",
            "one two three four five one two three four five one two three four five",
        ] {
            assert!(!is_repetitive(fine), "{fine}");
        }
    }
}
