//! Which samples of a batch repeat another: equal captions, and near-equal images.
//!
//! A contrastive loss takes every other pair of a batch for a wrong one. Where two captions are the
//! same, or two images nearly are, it is told something false.

use std::collections::{HashMap, HashSet};

use crate::hash;
use crate::model::SemanticHash;
use crate::select::plan_copies::{BANDS, differing, value};

/// Most bits in which the hashes of near-equal images differ: as many as one band can find, and what a cosine
/// of 0.983 lets expect, 256 arccos(0.983) / pi = 15.0.
const NEAR_BITS: u32 = 15;

// Two hashes that differ in fewer bits than there are bands agree in one of them.
const _: () = assert!((NEAR_BITS as usize) < BANDS);

/// The captions and images of a stretch of samples, as far as it was gone through.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    captions: HashSet<u64>,
    /// Hashes by number and bits of each band.
    images: HashMap<(usize, usize), Vec<SemanticHash>>,
}

impl Seen {
    /// Identity of a caption.
    pub(crate) fn caption(text: &str) -> u64 {
        hash::hash_str(text)
    }

    /// Whether an earlier caption is the same.
    pub(crate) fn has_caption(&self, caption: u64) -> bool {
        self.captions.contains(&caption)
    }

    /// Whether an earlier image is nearly the same. About 16 comparisons for every 65,536 images.
    pub(crate) fn has_image(&self, image: &SemanticHash) -> bool {
        let shares = |band| self.images.get(&(band, value(image, band)));
        (0..BANDS).filter_map(shares).flatten().any(|other| differing(other, image) <= NEAR_BITS)
    }

    /// Adds a caption.
    pub(crate) fn add_caption(&mut self, caption: u64) {
        self.captions.insert(caption);
    }

    /// Adds an image.
    pub(crate) fn add_image(&mut self, image: &SemanticHash) {
        for band in 0..BANDS {
            self.images.entry((band, value(image, band))).or_default().push(*image);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Purpose, Rng};

    #[test]
    fn near_images_are_all_found_and_no_others() {
        let mut rng = Rng::new(1, Purpose::Synth, 0);
        for _ in 0..2000 {
            let image: SemanticHash = std::array::from_fn(|_| rng.next_u64());
            let mut seen = Seen::default();
            // Others that share bands with it must not hide it, nor count.
            seen.add_image(&std::array::from_fn(|i| if i == 0 { image[0] } else { rng.next_u64() }));
            seen.add_image(&image);
            let mut other = image;
            let flips = rng.below(25);
            for _ in 0..flips {
                let bit = rng.below(256);
                other[bit / 64] ^= 1 << (bit % 64);
            }
            // A bit may have been flipped back.
            let differ: u32 = image.iter().zip(&other).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(seen.has_image(&other), differ <= NEAR_BITS, "{differ} bits");
        }
    }

    #[test]
    fn captions_are_the_same_or_not() {
        let mut seen = Seen::default();
        seen.add_caption(Seen::caption("a dog"));
        assert!(seen.has_caption(Seen::caption("a dog")) && !seen.has_caption(Seen::caption("a dog.")));
    }
}
