//! Repairs text that was decoded with the wrong code page ("sÃ³" for "só").
//!
//! A port of `fix_encoding` of ftfy 6.3 (Robyn Speer, Apache-2.0), because open_clip cleans
//! captions with ftfy before it tokenises them. Text that looks garbled (an unlikely
//! neighbourhood of characters) is encoded back with each of ten code pages, in order of their
//! frequency on the web; the first whose bytes are UTF-8 is believed.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use regex::bytes::Regex as BytesRegex;

use super::mojibake_tables as table;

/// Rounds of repair: text garbled this often in a row is not a caption, and input made to need
/// more must not stall a loader.
const MAX_ROUNDS: usize = 16;

/// Repairs `text`, as often as it helps. Linear in its length.
pub(super) fn fix_encoding(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..MAX_ROUNDS {
        match fix_once(&text) {
            Some(fixed) if fixed != text => text = fixed,
            _ => break,
        }
    }
    text
}

/// One code page: what its bytes 80 to FF mean.
struct CodePage {
    /// Whether U+FFFD stands for a byte that is lost (written 1A).
    lossy: bool,
    /// Whether a space may stand for byte A0. Not in MacRoman, where it follows an en dash.
    spaces: bool,
    bytes: HashMap<char, u8>,
}

impl CodePage {
    /// The bytes of `text`; `None` when a character is not in the code page.
    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |c: char| match c {
            '\u{1A}' if self.lossy => None,
            '\u{FFFD}' if self.lossy => Some(0x1A),
            '\0'..='\x7F' => Some(c as u8),
            _ => self.bytes.get(&c).copied(),
        };
        text.chars().map(byte).collect()
    }
}

/// The code pages in the order in which they are tried.
static CODE_PAGES: LazyLock<Vec<CodePage>> = LazyLock::new(|| {
    let latin_1: String = (0x80..=0xFFu8).map(char::from).collect();
    [
        (latin_1.as_str(), false, true),
        (table::WINDOWS_1252, true, true),
        (table::WINDOWS_1251, true, true),
        (table::WINDOWS_1250, true, true),
        (table::WINDOWS_1253, true, true),
        (table::WINDOWS_1254, true, true),
        (table::WINDOWS_1257, true, true),
        (table::ISO_8859_2, false, true),
        (table::MAC_ROMAN, false, false),
        (table::CP437, false, true),
    ]
    .into_iter()
    .map(|(chars, lossy, spaces)| CodePage { lossy, spaces, bytes: chars.chars().zip(0x80..=0xFF).collect() })
    .collect()
});

fn fix_once(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    for page in CODE_PAGES.iter() {
        if let Some(fixed) = page.encode(text).and_then(|bytes| redecode(bytes, page)) {
            return Some(fixed);
        }
    }
    let fixed = decode_inconsistent_utf8(text);
    if fixed != text {
        return Some(fixed);
    }
    // Latin-1 that was meant to be Windows-1252.
    if let Some(fixed) = latin_1_as_windows_1252(text) {
        return (fixed != text).then_some(fixed);
    }
    text.contains(is_c1).then(|| text.chars().map(fix_c1).collect())
}

/// Whether `text` holds a sequence that is more likely garbled than meant.
fn is_bad(text: &str) -> bool {
    static BADNESS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&badness_pattern()).ok());
    BADNESS.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Reads bytes that were encoded with `page` as UTF-8, allowing for what web text suffers.
fn redecode(mut bytes: Vec<u8>, page: &CodePage) -> Option<String> {
    if page.spaces {
        bytes = restore_byte_a0(bytes);
    }
    if page.lossy {
        bytes = LOSSY_UTF8.replace_all(&bytes, "\u{FFFD}".as_bytes()).into_owned();
    }
    if bytes.contains(&0xED) || bytes.contains(&0xC0) {
        return decode_utf8_variants(&bytes);
    }
    String::from_utf8(bytes).ok()
}

#[expect(clippy::expect_used, reason = "constant patterns, compiled by every test of this file")]
fn bytes_regex(pattern: &str) -> BytesRegex {
    BytesRegex::new(pattern).expect("a valid pattern")
}

/// UTF-8 in which a space took the place of byte A0.
static ALTERED_UTF8: LazyLock<BytesRegex> = LazyLock::new(|| {
    bytes_regex(concat!(
        r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9][ ]",
        r"|[\xe2\xe3][ ][\x80-\x84\x86-\x9f\xa1-\xbf]",
        r"|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][ ]",
        r"|[\xf0][ ][\x80-\xbf][\x80-\xbf]",
        r"|[\xf0][\x80-\xbf][ ][\x80-\xbf]",
        r"|[\xf0][\x80-\xbf][\x80-\xbf][ ]",
    ))
});

/// UTF-8 some of whose continuation bytes are lost: 1A, or a question mark.
static LOSSY_UTF8: LazyLock<BytesRegex> = LazyLock::new(|| {
    bytes_regex(concat!(
        r"(?-u)[\xc2-\xdf][\x1a]",
        r"|[\xc2-\xc3][?]",
        r"|\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
        r"|\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
        r"|[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
        r"|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
        r"|[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
        r"|\x1a",
    ))
});

/// Puts byte A0 back where a space made UTF-8 unreadable.
fn restore_byte_a0(bytes: Vec<u8>) -> Vec<u8> {
    if !ALTERED_UTF8.is_match(&bytes) {
        return bytes;
    }
    // "Ã " is "à " and its space, unless it is the start of one of these words.
    let mut restored = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        if first == 0xC3 && after.first() == Some(&b' ') {
            let next = &after[1..];
            let word = [b" ".as_slice(), b"quele", b"quela", b"quilo", b"s "];
            if !word.iter().any(|w| next.starts_with(w)) {
                restored.extend_from_slice(b"\xC3\xA0 ");
                rest = next;
                continue;
            }
        }
        restored.push(first);
        rest = after;
    }
    let replaced = ALTERED_UTF8.replace_all(&restored, |found: &regex::bytes::Captures<'_>| {
        found[0].iter().map(|&b| if b == b' ' { 0xA0 } else { b }).collect::<Vec<u8>>()
    });
    replaced.into_owned()
}

/// Decodes UTF-8, CESU-8 (surrogate pairs of three bytes each) and Java's null (C0 80).
fn decode_utf8_variants(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return Some(text);
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).ok()?);
                let (c, length) = match *invalid {
                    [0xC0, 0x80, ..] => ('\0', 2),
                    [0xED, a @ 0xA0..=0xAF, b @ 0x80..=0xBF, 0xED, c @ 0xB0..=0xBF, d @ 0x80..=0xBF, ..] => {
                        let high = (u32::from(a & 0x0F) << 16) + (u32::from(b & 0x3F) << 10);
                        let low = (u32::from(c & 0x0F) << 6) + u32::from(d & 0x3F);
                        (char::from_u32(high + low + 0x1_0000)?, 6)
                    }
                    _ => return None,
                };
                text.push(c);
                rest = &invalid[length..];
            }
        }
    }
}

/// Repairs garbled stretches of a text that as a whole fits no code page.
fn decode_inconsistent_utf8(text: &str) -> String {
    static DETECTOR: LazyLock<Option<(Regex, Regex)>> = LazyLock::new(|| {
        let sequences = format!(
            "(?:[{}][{next}]|[{}][{next}]{{2}}|[{}][{next}]{{3}})+",
            table::UTF8_FIRST_OF_2,
            table::UTF8_FIRST_OF_3,
            table::UTF8_FIRST_OF_4,
            next = table::UTF8_CONTINUATION,
        );
        let strict = format!("[{}]$", table::UTF8_CONTINUATION_STRICT);
        Some((Regex::new(&sequences).ok()?, Regex::new(&strict).ok()?))
    });
    let Some((sequences, strict)) = DETECTOR.as_ref() else { return text.to_owned() };
    let mut fixed = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = sequences.find_at(text, at) {
        // Not in the middle of a longer garble, where a partial repair makes matters worse.
        let previous = text[..found.start()].chars().next_back();
        if previous.is_some_and(|c| strict.is_match(c.encode_utf8(&mut [0; 4]))) {
            at = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        fixed.push_str(&text[copied..found.start()]);
        let stretch = found.as_str();
        if stretch.len() < text.len() && is_bad(stretch) {
            fixed.push_str(&fix_encoding(stretch));
        } else {
            fixed.push_str(stretch);
        }
        (copied, at) = (found.end(), found.end());
    }
    fixed.push_str(&text[copied..]);
    fixed
}

/// Latin-1 with C1 controls, read as Windows-1252; `None` where either does not have a
/// character.
fn latin_1_as_windows_1252(text: &str) -> Option<String> {
    let read = |c: char| match c {
        '\u{81}' | '\u{8D}' | '\u{8F}' | '\u{90}' | '\u{9D}' => None,
        '\0'..='\u{FF}' => Some(fix_c1(c)),
        _ => None,
    };
    text.chars().map(read).collect()
}

/// Whether `c` is a C1 control character.
pub(super) fn is_c1(c: char) -> bool {
    ('\u{80}'..='\u{9F}').contains(&c)
}

/// The Windows-1252 character that a C1 control character stands for; others unchanged.
pub(super) fn fix_c1(c: char) -> char {
    static CHARS: LazyLock<Vec<char>> = LazyLock::new(|| table::WINDOWS_1252.chars().collect());
    if is_c1(c) { CHARS.get(c as usize - 0x80).copied().unwrap_or(c) } else { c }
}

/// ftfy's `BADNESS_RE`: neighbourhoods that hardly occur in text that was decoded rightly.
/// `\s` and `\w` are spelt out as Python understands them.
fn badness_pattern() -> String {
    const ALTERNATIVES: &[&str] = &[
        "[{c1}]",
        "[{bad}{lower}{upper}{box}{start}{end}{currency}{numeric}{law}][{bad}]",
        "[a-zA-Z][{lower_common}{upper_common}][{bad}]",
        "[{bad}][{lower}{upper}{box}{start}{end}{currency}{numeric}{law}]",
        "[{lower}{lower_common}{box}{end}{currency}{numeric}][{upper}]",
        "[{box}{end}{currency}{numeric}][{lower}]",
        "[{lower}{box}{end}][{currency}]",
        r"[\s\x1c-\x1f][{upper}][{currency}]",
        "[{upper}{box}][{numeric}{law}]",
        "[{lower}{upper}{box}{currency}{end}][{start}][{numeric}]",
        "[{lower}{upper}{currency}{numeric}{box}{law}][{end}][{start}]",
        "[{currency}{numeric}{box}][{start}]",
        "[a-z][{upper}][{start}{currency}]",
        "[{box}][{kaomoji}]",
        "[{lower}{upper}{currency}{numeric}{start}{end}{law}][{box}]",
        "[{box}][{end}]",
        r"[{lower}{upper}][{start}{end}][\p{L}\p{N}_]",
        // The ligature before anything but a plain letter; degrees after a capital.
        "[Œœ][^A-Za-z]",
        "[{upper}]°",
        // Windows-1252: pairs not covered above, Arabic (four characters), South Asian scripts.
        r"[ÂÃÎÐ][€œŠš¢£Ÿž\xa0\xad®©°·»{start}{end}–—´]",
        "×[²³]",
        "[ØÙ][{common}{currency}{bad}{numeric}{start}ŸŠ®°µ»][ØÙ][{common}{currency}{bad}{numeric}{start}ŸŠ®°µ»]",
        "à[²µ¹¼½¾]",
        // MacRoman.
        "√[±∂†≠®™´≤≥¥µø]",
        "≈[°¢]",
        "‚Ä[ìîïòôúùû†°¢π]",
        "‚[âó][àä°ê]",
        // Windows-1251: punctuation, Latin-1 and Cyrillic, and on top of Windows-1252.
        "вЂ",
        "[ВГРС][{c1}{bad}{start}{end}{currency}°µ][ВГРС]",
        "ГўВЂВ.[A-Za-z ]",
        // Windows-1252 of à, á and the hard space.
        r"Ã[\xa0¡]",
        r"[a-z][\s\x1c-\x1f]?[ÃÂ][ ]",
        "^[ÃÂ][ ]",
        "[a-z.,?!{end}]Â[ {start}{end}]",
        // Windows-1253: punctuation, Latin-1 and Greek; Windows-1257.
        r"β€[™\xa0Ά\xad®°]",
        "[ΒΓΞΟ][{c1}{bad}{start}{end}{currency}°][ΒΓΞΟ]",
        "ā€",
    ];
    let classes = [
        ("{common}", table::COMMON),
        ("{c1}", table::C1),
        ("{bad}", table::BAD),
        ("{law}", table::LAW),
        ("{currency}", table::CURRENCY),
        ("{start}", table::START_PUNCTUATION),
        ("{end}", table::END_PUNCTUATION),
        ("{numeric}", table::NUMERIC),
        ("{kaomoji}", table::KAOMOJI),
        ("{upper}", table::UPPER_ACCENTED),
        ("{lower}", table::LOWER_ACCENTED),
        ("{upper_common}", table::UPPER_COMMON),
        ("{lower_common}", table::LOWER_COMMON),
        ("{box}", table::BOX),
    ];
    let pattern = ALTERNATIVES.join("|");
    classes.iter().fold(pattern, |pattern, (name, class)| pattern.replace(name, class))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        Regex::new(&badness_pattern()).unwrap();
        assert!(is_bad("sÃ³"));
        assert_eq!(decode_inconsistent_utf8("â€œx"), "\u{201c}x");
    }

    #[test]
    fn code_pages_have_128_characters() {
        assert_eq!(CODE_PAGES.len(), 10);
        for page in CODE_PAGES.iter() {
            assert_eq!(page.bytes.len(), 128);
        }
    }

    #[test]
    fn repairs_the_examples_of_ftfy() {
        for (garbled, meant) in [
            ("sÃ³", "só"),
            ("âœ” No problems", "✔ No problems"),
            ("voilÃ le travail", "voilà le travail"),
            ("â€œ like this â€\u{FFFD}", "“ like this \u{FFFD}"),
            ("l\u{92}été", "l’été"),
            ("Ørsted in Århus, naïve café £5 — “quoted”", "Ørsted in Århus, naïve café £5 — “quoted”"),
        ] {
            assert_eq!(fix_encoding(garbled), meant);
        }
    }

    #[test]
    fn surrogate_pairs_and_javas_null_are_utf8_variants() {
        assert_eq!(decode_utf8_variants(b"\xED\xA0\xBD\xED\xB2\xA9!").unwrap(), "💩!");
        assert_eq!(decode_utf8_variants(b"a\xC0\x80").unwrap(), "a\0");
        assert_eq!(decode_utf8_variants(b"\xED\xA0\xBD"), None);
        assert_eq!(decode_utf8_variants("í한".as_bytes()).unwrap(), "í한");
    }
}
