//! The name that was probably meant.

/// The one of `names` that `given` was probably meant to be: the nearest by insertions, deletions and replacements of
/// letters, where these are a third of its length at the most. O(length² * names).
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distances = names.map(|name| (distance(given, name), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (3 * distance <= name.chars().count().max(3)).then_some(name)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let names = || ["keep_ratio", "gate", "quota", "rotate", "seed"].into_iter();
        for (given, meant) in [
            ("keep_ration", Some("keep_ratio")),
            ("kep_ratio", Some("keep_ratio")),
            ("gates", Some("gate")),
            ("rotat", Some("rotate")),
            ("sede", None),
            ("batch_size", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, names()), meant, "{given}");
        }
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "")), (3, 3, 3));
    }
}
