//! Which captions samples have.

use std::path::PathBuf;

use crate::text::Fuse;

/// Token ids per caption by default: CLIP's.
const CONTEXT_LENGTH: usize = 77;

crate::group! {
    /// The captions of kept samples.
    pub struct Captions, fields of captions {
        /// The caption of a kept sample: `original`, `generated`, the name of a table in `captions` of the sources,
        /// `mix({original: 0.5, blip2: 0.5})` (one of these by its share, drawn for each sample and epoch), `concat(16)`
        /// (original and generated, with 16 tokens for the generated part), `best(0.5)` (the generated one below this
        /// alignment), `coin(0.3)` (the generated one with this probability, drawn for each sample and epoch; `coin({0: 0.2,
        /// 10: 0.5})` changes it from an epoch on) or `gated(0.5)` (each caption must pass: a fair coin where both do, the
        /// original where none does). With `other=NAME` concat, best and coin take the caption of a table in place of the
        /// generated one. A sample that a table lacks keeps its original. Default: `original`.
        Policy fuse: Fuse = Fuse::Original;
        /// Directory of a model that scores generated captions, for `gated` and `rescue`: a captioner that was trained on
        /// other data than the one that writes them, or an image-text matching model. Default: none.
        Runtime judge: Option<PathBuf> = None, own setter;
        /// Whether samples that the gate drops come back with their generated caption, where the judge scores it as high
        /// as the gate asks. They share the quota of their window with those that pass by themselves: `keep_ratio`, and
        /// its maximum, mean what they mean without. Every sample that the gate drops then costs a caption. Default:
        /// false.
        Policy rescue: bool = false;
        /// Whether a generated caption that repeats a phrase three times in a row gives way to the original, as an empty
        /// one always does. Default: true.
        Policy replace_repetitive: bool = true;
        /// Token ids per caption. Default: 77.
        Pixels context_length: usize = CONTEXT_LENGTH;
    }
}
