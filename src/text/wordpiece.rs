//! WordPiece vocabularies of BERT models as their `vocab.txt` gives them, with BERT's own rules.

use tokenizers::AddedToken;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;

use crate::error::{Error, Result};

/// Tokens that text may hold but that a caption never shows, where the vocabulary has them.
const SPECIALS: [&str; 7] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"];

/// Builds the tokenizer of `vocab`, one token per line in the order of their ids; `name` is that of
/// the file.
///
/// # Errors
/// A token that stands twice; no `[UNK]`.
pub(super) fn wordpiece(vocab: &str, lowercase: bool, name: &str) -> Result<tokenizers::Tokenizer> {
    let failed = |error: tokenizers::Error| Error::format(name, "a WordPiece vocabulary", error);
    let mut ids = Vocab::default();
    for (id, token) in (0u32..).zip(vocab.lines()) {
        if let Some(first) = ids.insert(token.to_owned(), id) {
            let what = format!("{name}, line {}", id + 1);
            return Err(Error::format(
                what,
                "each token once",
                format!("{token:?} again, as on line {}", first + 1),
            ));
        }
    }
    if !ids.contains_key("[UNK]") {
        return Err(Error::format(
            name,
            "a vocab.txt with the token [UNK]",
            format!("{} tokens without", ids.len()),
        ));
    }
    let known: Vec<AddedToken> = SPECIALS
        .iter()
        .filter(|token| ids.contains_key(**token))
        .map(|&t| AddedToken::from(t, true))
        .collect();
    let model = WordPiece::builder().vocab(ids).unk_token("[UNK]".to_owned()).build().map_err(failed)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    // Accents go where case goes, as in BERT.
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, lowercase))).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    tokenizer.add_special_tokens(known).map_err(failed)?;
    if let (Some(start), Some(end)) = (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")) {
        tokenizer
            .with_post_processor(Some(BertProcessing::new(("[SEP]".into(), end), ("[CLS]".into(), start))));
    }
    Ok(tokenizer)
}
