//! CLIP's rules for words, as open_clip has them: what a word is, how its bytes are written, and how pieces of
//! words become text again.

use std::collections::HashMap;

use regex::Regex;
use tokenizers::models::ModelWrapper;

use super::merges::END_OF_WORD;

/// CLIP's words: contractions, runs of letters, single digits, runs of anything else.
pub(super) const CLIP_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's rules: lower case, words by a pattern, bytes written as characters.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// [`CLIP_PATTERN`] and the specials' names: open_clip lets a caption contain them.
    pub(super) pattern: Regex,
    bytes: [char; 256],
    pub(super) chars: HashMap<char, u8>,
}

impl Words {
    pub(super) fn new(specials: &[String]) -> Self {
        let specials: String = specials.iter().map(|s| format!("{}|", regex::escape(s))).collect();
        // Python's `regex` folds case in classes, too: U+0345, which folds to a letter and is none,
        // matches nothing there.
        let pattern = format!(
            r"(?i:{specials}'s|'t|'re|'ve|'m|'ll|'d)|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}\x{{345}}]+"
        );
        #[expect(clippy::expect_used, reason = "a constant pattern and escaped names")]
        let pattern = Regex::new(&pattern).expect("a valid pattern");
        let bytes = byte_characters();
        let chars = bytes.iter().copied().zip(0..=255).collect();
        Self { pattern, bytes, chars }
    }

    /// The bytes of `word`, each written as its character.
    pub(super) fn write_bytes(&self, word: &str) -> String {
        word.bytes().map(|b| self.bytes[usize::from(b)]).collect()
    }
}

/// Bytes in the order in which CLIP numbers them: printable ones first.
pub(super) fn clip_byte_order() -> impl Iterator<Item = u8> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    (0..=255u8).filter(printable).chain((0..=255u8).filter(move |b| !printable(b)))
}

/// GPT-2's writing of bytes as characters: printable ones as themselves, others from U+0100 on.
pub(super) fn byte_characters() -> [char; 256] {
    let mut chars = ['\0'; 256];
    for (place, byte) in clip_byte_order().enumerate() {
        let shifted = u32::try_from(place.saturating_sub(188)).ok().and_then(|n| char::from_u32(0x100 + n));
        chars[usize::from(byte)] = if place < 188 { char::from(byte) } else { shifted.unwrap_or_default() };
    }
    chars
}

/// Drops the spaces that word pieces leave before punctuation and contractions.
pub(super) fn tidy(text: &str) -> String {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let closing = word.chars().all(|c| matches!(c, '.' | ',' | '!' | '?' | ';' | ':' | ')' | '%'));
        if !(out.is_empty() || closing || CONTRACTIONS.contains(&word)) {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Whether the normalizer of `tokenizer` writes letters in lower case.
pub(super) fn lowers(tokenizer: &tokenizers::Tokenizer) -> bool {
    let json = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default().to_string();
    json.contains("\"Lowercase\"")
}

/// Whether a file's vocabulary is meant for CLIP's rules, whatever wrote it: then open_clip's
/// own are followed to the letter.
pub(super) fn follows_clip(tokenizer: &tokenizers::Tokenizer) -> bool {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return false };
    let json = |part: serde_json::Result<serde_json::Value>| part.unwrap_or_default().to_string();
    let pattern = serde_json::Value::from(CLIP_PATTERN).to_string();
    model.end_of_word_suffix.as_deref() == Some(END_OF_WORD)
        && lowers(tokenizer)
        && json(serde_json::to_value(tokenizer.get_pre_tokenizer())).contains(pattern.trim_matches('"'))
}
