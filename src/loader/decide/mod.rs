//! Deciding: signals, by the ledger or the captioner, which samples of a window are kept, and their captions.

pub(crate) mod captions;
pub(crate) mod deciding;
mod encoding;
mod join;
pub(crate) mod previews;
