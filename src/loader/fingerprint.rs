//! Fingerprints of a configuration: a saved state fits a loader whose three are the same.

use crate::hash;
use crate::loader::decider::Decider;
use crate::loader::spec::Spec;
use crate::text::{Fuse, Tokenizer};

/// Fingerprint of everything that decides which samples survive, in which order, with which
/// pixels and tokens. Threads, ranks and prefetching are not part of it.
pub(crate) fn policy(spec: &Spec) -> u64 {
    let mut text = format!(
        "{:?} {:?} {} {} {} {:x} {:?} {} {:?}",
        spec.mode,
        spec.selector.as_ref().map(Decider::fingerprint),
        spec.seed,
        spec.window,
        spec.shuffle_windows,
        spec.pipeline_fingerprint,
        spec.pixels,
        spec.context_length,
        spec.tokenizer.as_ref().map(Tokenizer::fingerprint),
    );
    if spec.defer_duplicates {
        text.push_str(" defer_duplicates");
    }
    hash::hash_str(&text)
}

/// Fingerprint of the shards, their lengths, how they are read, and how they are mixed.
pub(crate) fn data(spec: &Spec) -> u64 {
    let mut parts = spec.reading().to_vec();
    for (shard, &length) in spec.shards.iter().zip(&spec.lengths) {
        parts.extend([shard.hash, length]);
    }
    if spec.mix.fingerprint != 0 {
        parts.push(spec.mix.fingerprint);
    }
    hash::combine(&parts)
}

/// Fingerprint of the captioner and of what is done with its captions.
pub(crate) fn captioner(spec: &Spec) -> u64 {
    let Some(model) =
        spec.model.as_ref().filter(|_| spec.needs_signals || !matches!(spec.fuse, Fuse::Original))
    else {
        return 0;
    };
    let captions = model.caption.map_or(0, |c| c.fingerprint);
    let mut parts =
        vec![model.fingerprint, captions, spec.fuse.fingerprint(), spec.replace_repetitive.into()];
    parts.extend(spec.judge.iter().flat_map(|judge| [judge.fingerprint, spec.rescue.into()]));
    hash::combine(&parts)
}
