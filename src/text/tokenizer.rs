//! Turns captions into ids: CLIP's byte-pair encoding exactly as open_clip does it, any
//! `tokenizer.json`, and a small vocabulary trained from captions for the captioner.
//!
//! Captions are cleaned first ([`clean`]), as open_clip does for its own and for Hugging Face's tokenizers. A
//! `tokenizer.json` made for CLIP's rules follows open_clip's to the letter. Any other is obeyed: its
//! post-processor places start and end, and what lies beside it says how captions are cleaned and what pads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::utils::{Lowercase, Sequence as Normalizers};
use tokenizers::normalizers::{NFC, NormalizerWrapper, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, Model as _, SplitDelimiterBehavior};

use super::beside::Beside;
use super::clean::{Cleaning, clean};
use super::layout::{Layout, Limits};
use super::merges::{END_OF_WORD, learn};
use super::wordpiece::wordpiece;
use super::words::{CLIP_PATTERN, Words, byte_characters, clip_byte_order, follows_clip, lowers, tidy};
use crate::aside;
use crate::error::{Error, Result};
use crate::hash;

/// Merges of CLIP's vocabulary of 49,408: without 2 x 256 bytes and 2 specials. The file that
/// open_clip carries holds many more.
const CLIP_MERGES: usize = 49_152 - 256 - 2;

/// A tokenizer file larger than this is something else.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Names under which tokenizers know their specials, in order of preference.
const START: &[&str] = &["<start_of_text>", "<|startoftext|>", "<start>", "<bos>", "<s>", "[DEC]", "[CLS]"];
const END: &[&str] = &["<end_of_text>", "<|endoftext|>", "<end>", "<eos>", "</s>", "[SEP]"];
const PAD: &[&str] = &["<pad>", "[PAD]", "<|pad|>"];

/// Specials of a trained vocabulary, with ids 0 to 3.
const TRAINED: [&str; 4] = ["<pad>", "<start>", "<end>", "<unk>"];

/// A vocabulary with its rules. Cheap to clone; shared by threads.
#[derive(Debug, Clone)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// CLIP's rules, where the vocabulary is made for them; otherwise the file's own apply.
    words: Option<Words>,
    cleaning: Cleaning,
    layout: Layout,
    vocab_size: usize,
    /// Tokens around a caption by their names, for models that write captions.
    start: Option<u32>,
    end: Option<u32>,
    specials: HashSet<u32>,
    fingerprint: OnceLock<u64>,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`, or the merges file of open_clip
    /// (`bpe_simple_vocab_16e6.txt`, also gzipped), recognised by content. Beside a `tokenizer.json`,
    /// `open_clip_config.json`, `tokenizer_config.json` and `special_tokens_map.json` are obeyed where they are there.
    ///
    /// # Errors
    /// A file that cannot be read or is neither; what is asked for there and cannot be followed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |error| Error::io(format!("read tokenizer {name}"), error);
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.starts_with(&[0x1F, 0x8B]) {
            let mut inflated = Vec::new();
            let reader = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            reader.take(MAX_FILE_BYTES).read_to_end(&mut inflated).map_err(failed)?;
            bytes = inflated;
        }
        let expected = "a tokenizer.json or the merges file of open_clip (bpe_simple_vocab_16e6.txt[.gz])";
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::format(&name, expected, "bytes that are not UTF-8"))?;
        if text.trim_start().starts_with('{') {
            let tokenizer = tokenizers::Tokenizer::from_bytes(text.as_bytes())
                .map_err(|error| Error::format(&name, "a Hugging Face tokenizer.json", error))?;
            return Self::new(tokenizer, &Beside::read(path)?, &name);
        }
        let first = text.lines().next().unwrap_or_default();
        if !first.contains("#version") {
            let shown: String = first.chars().take(40).collect();
            return Err(Error::format(&name, expected, format!("a file that starts with {shown:?}")));
        }
        Self::from_merges(&text, &name)
    }

    /// Reads the vocabulary of a BERT model, `vocab.txt`: one WordPiece token per line, in the order
    /// of their ids. Text is split as BERT does, in lower case and without accents where `lowercase`.
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8, or lacks an unknown token or one that starts or ends
    /// a caption.
    pub fn from_wordpiece(path: impl AsRef<Path>, lowercase: bool) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|e| Error::io(format!("read tokenizer {name}"), e))?;
        Self::new(wordpiece(&text, lowercase, &name)?, &Beside::default(), &name)
    }

    /// The same vocabulary with other tokens around a caption. An id may lie outside it: a model can
    /// have tokens that its tokenizer has no text for.
    #[must_use]
    pub fn with_specials(&self, start: u32, end: u32, pad: u32) -> Self {
        let mut specials = self.0.specials.clone();
        specials.extend([start, end, pad]);
        self.with(|inner| Inner {
            layout: Layout::around(start, end, pad),
            start: Some(start),
            end: Some(end),
            specials,
            ..inner
        })
    }

    /// The same rules for captions as they are: nothing is mended or collapsed before.
    #[must_use]
    pub fn without_cleaning(&self) -> Self {
        self.with(|inner| Inner { cleaning: Cleaning::Nothing, ..inner })
    }

    fn with(&self, change: impl FnOnce(Inner) -> Inner) -> Self {
        let own = &*self.0;
        Self(Arc::new(change(Inner {
            tokenizer: own.tokenizer.clone(),
            words: own.words.clone(),
            cleaning: own.cleaning,
            layout: own.layout.clone(),
            vocab_size: own.vocab_size,
            start: own.start,
            end: own.end,
            specials: own.specials.clone(),
            fingerprint: OnceLock::new(),
        })))
    }

    /// CLIP's vocabulary as open_clip builds it: bytes, bytes that end a word, merges, specials.
    fn from_merges(text: &str, name: &str) -> Result<Self> {
        let mut merges = Vec::with_capacity(CLIP_MERGES);
        for (number, line) in text.lines().enumerate().skip(1).take(CLIP_MERGES) {
            let mut parts = line.split_whitespace();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(left), Some(right), None) => merges.push((left.to_owned(), right.to_owned())),
                (None, ..) => {}
                _ => {
                    let what = format!("{name}, line {}", number + 1);
                    return Err(Error::format(what, "two symbols of a merge", format!("{line:?}")));
                }
            }
        }
        let bytes = byte_characters();
        let mut vocab: Vec<String> = clip_byte_order().map(|b| bytes[usize::from(b)].to_string()).collect();
        vocab.extend_from_within(..);
        vocab[256..].iter_mut().for_each(|token| token.push_str(END_OF_WORD));
        vocab.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
        vocab.extend(["<start_of_text>".to_owned(), "<end_of_text>".to_owned()]);
        Self::assemble(vocab, merges, &["<start_of_text>", "<end_of_text>"], None, name)
    }

    /// Learns a lower-case vocabulary of at most `vocab_size` tokens from `captions`, with
    /// `<pad>`, `<start>`, `<end>` and `<unk>` as ids 0 to 3. Common words become one token.
    /// The same captions in any order give the same vocabulary.
    ///
    /// # Errors
    /// A `vocab_size` without room for the specials and the characters of the captions.
    pub fn train<'a>(captions: impl Iterator<Item = &'a str>, vocab_size: usize) -> Result<Self> {
        let words = Words::new(&[]);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for caption in captions {
            let caption = clean(caption).to_lowercase();
            for word in words.pattern.find_iter(&caption) {
                *counts.entry(words.write_bytes(word.as_str())).or_default() += 1;
            }
        }
        // Printable ASCII is always there, so that a new caption rarely meets an unknown byte.
        let mut alphabet: BTreeSet<char> = ('!'..='~').filter(|c| !c.is_ascii_uppercase()).collect();
        alphabet.extend(counts.keys().flat_map(|word| word.chars()));
        let mut symbols: Vec<String> = TRAINED.iter().map(|&special| special.to_owned()).collect();
        symbols.extend(alphabet.iter().map(char::to_string));
        symbols.extend(alphabet.iter().map(|c| format!("{c}{END_OF_WORD}")));
        if vocab_size < symbols.len() {
            let accepted =
                format!("at least {}, for the specials and the characters of the captions", symbols.len());
            return Err(Error::option("vocab_size", vocab_size, accepted));
        }
        let learned = learn(&counts, symbols, vocab_size);
        Self::assemble(learned.symbols, learned.merges, &TRAINED, Some("<unk>"), "trained tokenizer")
    }

    /// A tokenizer with CLIP's rules from tokens in the order of their ids.
    fn assemble(
        vocab: Vec<String>,
        merges: Vec<(String, String)>,
        specials: &[&str],
        unknown: Option<&str>,
        name: &str,
    ) -> Result<Self> {
        let failed = |error: tokenizers::Error| Error::format(name, "a byte-pair vocabulary", error);
        let vocab: Vocab = vocab.into_iter().zip(0u32..).collect();
        let mut model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .end_of_word_suffix(END_OF_WORD.to_owned())
            .fuse_unk(true);
        if let Some(unknown) = unknown {
            model = model.unk_token(unknown.to_owned());
        }
        let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(failed)?);
        // The pipeline of Hugging Face's CLIP, for those who open the saved file with it.
        let white_space =
            Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()), " ");
        let normalizers: Vec<NormalizerWrapper> =
            vec![NFC.into(), white_space.map_err(failed)?.into(), Lowercase.into()];
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
        let split =
            Split::new(SplitPattern::Regex(CLIP_PATTERN.to_owned()), SplitDelimiterBehavior::Removed, true)
                .map_err(failed)?;
        let bytes = ByteLevel::new(false, true, false);
        let pre: Vec<PreTokenizerWrapper> = vec![split.into(), bytes.into()];
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(pre)));
        tokenizer.with_decoder(Some(bytes));
        tokenizer.add_special_tokens(specials.iter().map(|&s| AddedToken::from(s, true))).map_err(failed)?;
        Self::new(tokenizer, &Beside::default(), name)
    }

    fn new(mut tokenizer: tokenizers::Tokenizer, beside: &Beside, name: &str) -> Result<Self> {
        let limits =
            Limits::take(&mut tokenizer).map_err(|error| Error::format(name, "a tokenizer", error))?;
        let find = |names: &[&str]| names.iter().find_map(|name| tokenizer.token_to_id(name));
        let start = find(START).or_else(|| find(&["<|endoftext|>"]));
        let (end, pad) = (find(END), find(PAD));
        let mut specials: HashSet<u32> = [start, end, pad].into_iter().flatten().collect();
        specials.extend(
            tokenizer.get_added_tokens_decoder().iter().filter(|(_, t)| t.special).map(|(id, _)| *id),
        );
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let by_clip =
            (start.zip(end)).filter(|_| beside.by_transformers != Some(true) && follows_clip(&tokenizer));
        let (words, layout) = match by_clip {
            Some((start, end)) => {
                let names: Vec<String> =
                    [start, end].iter().filter_map(|&id| tokenizer.id_to_token(id)).collect();
                // open_clip fills up with 0 what has no token for it.
                (Some(Words::new(&names)), Layout::around(start, end, pad.unwrap_or(0)))
            }
            None => {
                if let Some(class) = beside.lowers.as_ref().filter(|_| !lowers(&tokenizer)) {
                    let found = format!("none, and {class}Tokenizer in the tokenizer_config.json beside it");
                    return Err(Error::format(name, "a normalizer that lowers the case", found));
                }
                (None, Layout::of(&mut tokenizer, &limits, beside, pad, name)?)
            }
        };
        Ok(Self(Arc::new(Inner {
            tokenizer,
            words,
            cleaning: beside.cleaning,
            layout,
            // Ids may have gaps; what counts is the size of the table they index.
            vocab_size: highest as usize + 1,
            start,
            end,
            specials,
            fingerprint: OnceLock::new(),
        })))
    }

    /// Writes a `tokenizer.json` that [`from_file`](Self::from_file) and Hugging Face read.
    ///
    /// # Errors
    /// A path that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let json = self.to_json()?;
        aside::write(path, json)
            .map_err(|error| Error::io(format!("write tokenizer {}", path.display()), error))
    }

    /// What [`save`](Self::save) writes.
    ///
    /// # Errors
    /// A tokenizer that json cannot hold; none is known.
    pub fn to_json(&self) -> Result<String> {
        let json = self.0.tokenizer.to_string(true);
        json.map_err(|error| Error::io("write a tokenizer as json", std::io::Error::other(error)))
    }

    /// Rows that an embedding table needs: the highest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab_size
    }

    /// Id of the token that is written `token`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// Start, end and padding for a model that writes captions; padding is 0 where the vocabulary has none.
    ///
    /// # Errors
    /// A vocabulary without a token that starts, or one that ends a caption; a tokenizer whose captions are cleaned
    /// as the files beside it say, which a captioner's directory does not hold.
    pub fn specials(&self) -> Result<[u32; 3]> {
        let missing = |what: &str, names: &[&str]| {
            let expected = format!("a token that {what} a caption: one of {}", names.join(" "));
            Error::format("the captioner's tokenizer", expected, "none of them")
        };
        if self.0.cleaning != Cleaning::Whitespace || self.0.layout.stripped.is_some() {
            let expected = "one that takes captions as they are";
            let found = "one for which open_clip_config.json changes them";
            return Err(Error::format("the captioner's tokenizer", expected, found));
        }
        let start = self.0.start.ok_or_else(|| missing("starts", START))?;
        let end = self.0.end.ok_or_else(|| missing("ends", END))?;
        Ok([start, end, self.0.layout.pad.unwrap_or(0)])
    }

    /// Ids of a row that are none of the caption's: start and end, where there are both.
    pub fn added(&self) -> usize {
        self.0.layout.added()
    }

    /// Fails unless rows of `context` ids can be filled.
    ///
    /// # Errors
    /// A row without room for a token of the caption; a shorter caption would need a padding id that nothing says.
    pub fn check_rows(&self, context: usize) -> Result<()> {
        let least = self.added() + 1;
        if context < least {
            let accepted =
                format!("at least {least}: a token of the caption, and {} around it", self.added());
            return Err(Error::option("context_length", context, accepted));
        }
        if self.0.layout.pad.is_none() {
            let accepted = "a tokenizer.json that says what fills up a row: its padding, or the pad_token of a \
                            tokenizer_config.json beside it";
            return Err(Error::option("tokenizer", "one without a padding token", accepted));
        }
        Ok(())
    }

    /// Encodes `text` to `out` `[context]`: start, ids, end, padding, as far as the tokenizer has them. A
    /// longer caption is cut; start and end stay.
    pub fn encode(&self, text: &str, out: &mut [i64]) {
        self.0.layout.fill(self.ids(text), out);
    }

    /// As [`encode`](Self::encode), of many texts at once: `[texts, context]`, on all cores.
    pub fn encode_all(&self, texts: &[&str], context: usize) -> Vec<i64> {
        let mut ids = vec![0; texts.len() * context];
        ids.par_chunks_mut(context.max(1)).zip(texts).for_each(|(row, text)| self.encode(text, row));
        ids
    }

    /// Ids of `text`, cleaned, without start and end.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let text = self.0.cleaning.of(text);
        match &self.0.words {
            Some(words) => self.word_ids(words, &text.to_lowercase()),
            // Failing models are refused by `new`; an empty row is what remains for the rest.
            None => {
                self.0.tokenizer.encode_fast(text, false).map(|e| e.get_ids().to_vec()).unwrap_or_default()
            }
        }
    }

    fn word_ids(&self, words: &Words, text: &str) -> Vec<u32> {
        let model = self.0.tokenizer.get_model();
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        for word in words.pattern.find_iter(text) {
            let word = word.as_str();
            let special = word.starts_with('<').then(|| self.0.tokenizer.token_to_id(word)).flatten();
            if let Some(id) = special.filter(|&id| Some(id) == self.0.start || Some(id) == self.0.end) {
                ids.push(id);
            } else if let Ok(tokens) = model.tokenize(&words.write_bytes(word)) {
                ids.extend(tokens.iter().map(|token| token.id));
            }
        }
        ids
    }

    /// Text of `ids`: specials dropped, no space before punctuation. Ids outside the vocabulary
    /// are skipped.
    pub fn decode(&self, ids: &[u32]) -> String {
        let kept = ids.iter().copied().filter(|id| !self.0.specials.contains(id));
        let Some(words) = &self.0.words else {
            let known: Vec<u32> = kept.filter(|&id| (id as usize) < self.0.vocab_size).collect();
            return self.0.tokenizer.decode(&known, true).unwrap_or_default().trim().to_owned();
        };
        let mut bytes = Vec::new();
        for token in kept.filter_map(|id| self.0.tokenizer.id_to_token(id)) {
            let (symbols, ends) = match token.strip_suffix(END_OF_WORD) {
                Some(symbols) => (symbols, true),
                None => (token.as_str(), false),
            };
            bytes.extend(symbols.chars().filter_map(|c| words.chars.get(&c)));
            bytes.extend(ends.then_some(b' '));
        }
        tidy(&String::from_utf8_lossy(&bytes))
    }

    /// The longest start of `text`, cut between words, that has at most `max_tokens` ids. Only
    /// where not even the first word fits is it cut inside.
    ///
    /// Encodes O(log n) starts of the text.
    pub fn truncate<'t>(&self, text: &'t str, max_tokens: usize) -> &'t str {
        let fits = |end: usize| self.ids(&text[..end]).len() <= max_tokens;
        if max_tokens == 0 || fits(text.len()) {
            return if max_tokens == 0 { "" } else { text };
        }
        let longest = |ends: &[usize]| {
            let count = ends.partition_point(|&end| fits(end));
            // Cleaning may join what a cut separates, so lengths need not grow steadily.
            ends[..count].iter().rev().copied().find(|&end| fits(end)).unwrap_or(0)
        };
        let words: Vec<usize> = text
            .char_indices()
            .zip(text.chars().skip(1))
            .filter(|&((_, c), next)| !c.is_whitespace() && next.is_whitespace())
            .map(|((at, c), _)| at + c.len_utf8())
            .collect();
        match longest(&words) {
            0 => {
                let first = words.first().copied().unwrap_or(text.len());
                let chars: Vec<usize> = text[..first].char_indices().map(|(at, _)| at).collect();
                &text[..longest(&chars)]
            }
            end => &text[..end],
        }
    }

    /// Identifies vocabulary and rules: equal for equal ids.
    pub fn fingerprint(&self) -> u64 {
        *self.0.fingerprint.get_or_init(|| {
            let own = match self.0.tokenizer.to_string(false) {
                Ok(json) => hash::hash_str(&json),
                Err(error) => hash::hash_str(&error.to_string()),
            };
            // Rows of the usual kind follow from the file.
            let usual = self.specials().ok().map(|[start, end, pad]| Layout::around(start, end, pad));
            if usual.as_ref() == Some(&self.0.layout) {
                return own;
            }
            hash::combine(&[own, hash::hash_str(&format!("{:?} {:?}", self.0.cleaning, self.0.layout))])
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CAPTIONS: [&str; 6] = [
        "A red circle left of a blue square.",
        "a photo of a red circle and a green ring",
        "two blue squares above a red circle",
        "a large green ring on a blue background, with stripes",
        "the dog's ball isn't red",
        "photo 0123.jpg",
    ];

    fn trained() -> Tokenizer {
        Tokenizer::train(CAPTIONS.iter().cycle().take(60).copied(), 400).unwrap()
    }

    /// open_clip's merges file, which is not in this repository: from the virtual environment.
    fn clip() -> Option<Tokenizer> {
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
        let python = std::fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
        let file = "site-packages/open_clip/bpe_simple_vocab_16e6.txt.gz";
        let found = python.map(|path| path.join(file)).find(|path| path.exists());
        if found.is_none() {
            eprintln!("skipped: open_clip's {file} is not in .venv (run `make` once)");
        }
        found.map(|path| Tokenizer::from_file(path).unwrap())
    }

    fn assert_ids_equal_open_clips(tokenizer: &Tokenizer) {
        let golden = include_str!("../../tests/golden/captions.jsonl");
        let mut count = 0;
        for line in golden.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = line["text"].as_str().unwrap();
            let mut expected: Vec<i64> = serde_json::from_value(line["ids"].clone()).unwrap();
            expected.resize(77, 0);
            let mut ids = [-1; 77];
            tokenizer.encode(text, &mut ids);
            assert_eq!(ids.as_slice(), expected, "{text:?}");
            count += 1;
        }
        assert!(count > 500, "{count}");
    }

    #[test]
    fn clip_ids_equal_open_clips() {
        let Some(tokenizer) = clip() else { return };
        assert_eq!((tokenizer.vocab_size(), tokenizer.specials().unwrap()), (49408, [49406, 49407, 0]));
        assert_ids_equal_open_clips(&tokenizer);
    }

    #[test]
    fn clip_survives_as_tokenizer_json() {
        let Some(tokenizer) = clip() else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.json");
        tokenizer.save(&path).unwrap();
        let read = Tokenizer::from_file(&path).unwrap();
        assert_eq!(read.fingerprint(), tokenizer.fingerprint());
        assert_ids_equal_open_clips(&read);
        assert_eq!(read.decode(&read.ids("A dog's life, naïve & 狐!")), "a dog's life, naïve & 狐!");
    }

    #[test]
    fn a_cut_row_ends_with_the_end_token() {
        let tokenizer = trained();
        let text = CAPTIONS[3];
        let ids = tokenizer.ids(text);
        let [start, end_id, pad] = tokenizer.specials().unwrap();
        for context in 2..ids.len() + 4 {
            let mut row = vec![-1; context];
            tokenizer.encode(text, &mut row);
            let end = row.iter().position(|&id| id == i64::from(end_id)).unwrap();
            assert_eq!(end, (ids.len() + 1).min(context - 1));
            assert!(row[end + 1..].iter().all(|&id| id == i64::from(pad)));
            for (place, &id) in row[..end].iter().enumerate() {
                assert_eq!(id, i64::from(if place == 0 { start } else { ids[place - 1] }));
            }
        }
        tokenizer.encode(text, &mut []);
    }

    #[test]
    fn a_trained_vocabulary_is_small_and_knows_common_words() {
        let tokenizer = trained();
        assert_eq!(tokenizer.specials().unwrap(), [1, 2, 0]);
        assert!(tokenizer.vocab_size() <= 400);
        assert_eq!(tokenizer.ids("red circle square").len(), 3);
        for caption in CAPTIONS {
            let decoded = tokenizer.decode(&tokenizer.ids(caption));
            // Digits are words of their own, as in CLIP.
            assert_eq!(decoded.replace(' ', ""), caption.to_lowercase().replace(' ', ""));
        }
        assert_eq!(tokenizer.decode(&tokenizer.ids(CAPTIONS[4])), CAPTIONS[4]);
    }

    #[test]
    fn training_does_not_depend_on_the_order_of_captions() {
        let forward = trained();
        let backward = Tokenizer::train(CAPTIONS.iter().rev().cycle().take(60).copied(), 400).unwrap();
        assert_eq!(forward.fingerprint(), backward.fingerprint());
        assert_ne!(
            forward.fingerprint(),
            Tokenizer::train(["a dog"].into_iter(), 400).unwrap().fingerprint()
        );
    }

    #[test]
    fn a_trained_vocabulary_is_saved_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let tokenizer = trained();
        tokenizer.save(&path).unwrap();
        let read = Tokenizer::from_file(&path).unwrap();
        assert_eq!(read.fingerprint(), tokenizer.fingerprint());
        for text in CAPTIONS.into_iter().chain(["日本 unseen <end> & ÇA VA?", ""]) {
            assert_eq!(read.ids(text), tokenizer.ids(text));
        }
    }

    #[test]
    fn unknown_bytes_become_one_unknown_token_and_decode_to_nothing() {
        let tokenizer = trained();
        let ids = tokenizer.ids("red 日本 ring");
        assert_eq!(ids.len(), 3);
        assert_eq!(tokenizer.decode(&ids), "red ring");
        assert_eq!(tokenizer.decode(&[u32::MAX, ids[0], 2]), "red");
    }

    #[test]
    fn many_texts_at_once_are_each_as_alone() {
        let tokenizer = trained();
        let texts: Vec<&str> = CAPTIONS.iter().copied().cycle().take(100).chain([""]).collect();
        let all = tokenizer.encode_all(&texts, 12);
        for (row, text) in all.chunks(12).zip(&texts) {
            let mut alone = [0; 12];
            tokenizer.encode(text, &mut alone);
            assert_eq!(row, alone);
        }
        assert_eq!(all.len(), 12 * texts.len());
    }

    #[test]
    fn captions_as_they_are_keep_what_cleaning_takes() {
        let (tokenizer, ours) = (trained(), "a  red &amp; blue\tcircle");
        let plain = tokenizer.without_cleaning();
        assert_eq!(tokenizer.ids(ours), tokenizer.ids("a red & blue circle"));
        assert_ne!(plain.ids(ours), tokenizer.ids(ours));
        assert_eq!(plain.ids("a red circle"), tokenizer.ids("a red circle"));
        assert_ne!(plain.fingerprint(), tokenizer.fingerprint());
    }

    #[test]
    fn truncation_fits_and_cuts_between_words() {
        let tokenizer = trained();
        for text in
            CAPTIONS.into_iter().chain(["antidisestablishmentarianism", "  zürich — 日本語 &amp; x", ""])
        {
            for most in 0..12 {
                let cut = tokenizer.truncate(text, most);
                assert!(text.starts_with(cut) && tokenizer.ids(cut).len() <= most, "{text:?} {most} {cut:?}");
            }
            assert_eq!(tokenizer.truncate(text, 100), text);
        }
        assert_eq!(tokenizer.truncate("red circle left of", 2), "red circle");
        assert!(!tokenizer.truncate("antidisestablishmentarianism", 3).is_empty());
    }

    #[test]
    fn errors_name_the_file_and_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let message = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Tokenizer::from_file(&path).unwrap_err().to_string()
        };
        assert!(message(b"not a tokenizer").contains("starts with \"not a tokenizer\""));
        assert!(message(&[0xFF, 0xFE, 0]).contains("not UTF-8"));
        assert!(message(b"{}").contains("expected a Hugging Face tokenizer.json"));
        assert!(message(b"#version: 0.2\na b\na b c\n").contains("line 3: expected two symbols of a merge"));
        assert!(message(&[0x1F, 0x8B, 0, 1]).contains("cannot read tokenizer"));
        assert!(
            Tokenizer::from_file(folder.path().join("absent")).unwrap_err().to_string().contains("absent")
        );
        let small = Tokenizer::train(["a b"].into_iter(), 10).unwrap_err().to_string();
        assert!(small.starts_with("invalid vocab_size=10: expected at least 1"), "{small}");
    }

    #[test]
    fn other_tokenizers_follow_their_own_rules() {
        use tokenizers::models::wordpiece::WordPiece;
        use tokenizers::normalizers::bert::BertNormalizer;
        use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
        use tokenizers::processors::bert::BertProcessing;
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "##s", "!"];
        let vocab: Vocab = words.into_iter().map(String::from).zip(0..).collect();
        let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build().unwrap();
        let mut bert = tokenizers::Tokenizer::new(model);
        bert.with_normalizer(Some(BertNormalizer::default())).unwrap();
        bert.with_pre_tokenizer(Some(BertPreTokenizer));
        bert.with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
        bert.add_special_tokens(words[..4].iter().map(|&s| AddedToken::from(s, true))).unwrap();
        bert.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), 3), ("[CLS]".into(), 2))));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bert.json");
        bert.save(&path, false).unwrap();
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        let mut row = [9; 8];
        tokenizer.encode("A &quot; Dogs!", &mut row);
        assert_eq!(row, [2, 4, 1, 5, 6, 7, 3, 0]);
        assert_eq!(tokenizer.decode(&[2, 4, 5, 6, 7, 3, 0, 99]), "a dogs!");
    }
}
