//! Captions: cleaned, tokenised, fused.
//!
//! [`clean()`] repairs raw captions as open_clip does, [`Tokenizer`] turns them into ids, and
//! [`Fuse`] makes one caption of those that a sample has.

mod beside;
pub mod clean;
pub mod fuse;
mod keywords;
mod layout;
mod merges;
mod mojibake;
mod mojibake_tables;
mod repetition;
pub mod tokenizer;
mod wordpiece;
mod words;

pub use clean::clean;
pub use fuse::{Chosen, Evidence, Fuse};
pub use keywords::{keywords, words};
pub use repetition::is_repetitive;
pub use tokenizer::Tokenizer;
