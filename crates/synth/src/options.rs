//! What can be asked of a synthetic corpus, and the kinds of noise in its captions.

use tldr_loader::error::{Error, Result};

/// Smallest image side, in pixels: below it the shapes cannot be told apart.
const MIN_SIZE: u32 = 16;
/// Largest image side, in pixels: scenes hold no detail that would need more.
const MAX_SIZE: u32 = 1024;

/// How a corpus is drawn. Equal options give equal bytes, except for `threads`, which changes
/// nothing but the time.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthOptions {
    /// Samples of the training split.
    pub samples: u64,
    /// Shards of the training split.
    pub shards: u64,
    /// Samples of the clean test split; 0 writes none.
    pub test_samples: u64,
    /// Side of the square images, in pixels (16 to 1024).
    pub size: u32,
    /// Share of training captions that are noise, in [0, 1].
    pub misaligned: f64,
    /// How the noise is made up.
    pub noise: NoiseShares,
    /// Near-duplicates of each scene: `samples / duplicates` scenes, rounded up, are distinct.
    pub duplicates: u64,
    /// Exponent of Zipf's law for the classes: the share of rank r is proportional to
    /// `r^-zipf`. 0 makes all classes equally common.
    pub zipf: f64,
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads that draw; 0 means one per core.
    pub threads: usize,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self {
            samples: 12_000,
            shards: 12,
            test_samples: 1_000,
            size: 64,
            misaligned: 0.5,
            noise: NoiseShares::default(),
            duplicates: 4,
            zipf: 1.0,
            seed: 0,
            threads: 0,
        }
    }
}

impl SynthOptions {
    /// Checks every option.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](tldr_loader::ErrorKind::Option) names the first one that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if self.samples == 0 {
            return Err(Error::option("samples", self.samples, "at least 1"));
        }
        // Positions are held as u32 and keys have nine digits.
        if self.samples > 999_999_999 {
            return Err(Error::option("samples", self.samples, "at most 999999999"));
        }
        if self.test_samples > 1_000_000 {
            return Err(Error::option("test_samples", self.test_samples, "at most 1000000"));
        }
        if self.shards == 0 || self.shards > self.samples {
            let accepted = format!("between 1 and samples = {}", self.samples);
            return Err(Error::option("shards", self.shards, accepted));
        }
        if !(MIN_SIZE..=MAX_SIZE).contains(&self.size) {
            let accepted = format!("a side of {MIN_SIZE} to {MAX_SIZE} pixels");
            return Err(Error::option("size", self.size, accepted));
        }
        if !(0.0..=1.0).contains(&self.misaligned) {
            return Err(Error::option("misaligned", self.misaligned, "a share in [0, 1]"));
        }
        if self.duplicates == 0 || self.duplicates > self.samples {
            let accepted = format!("between 1 (no copies) and samples = {}", self.samples);
            return Err(Error::option("duplicates", self.duplicates, accepted));
        }
        if !(0.0..=4.0).contains(&self.zipf) {
            return Err(Error::option("zipf", self.zipf, "an exponent in [0, 4]"));
        }
        self.noise.validate()
    }
}

/// What is wrong with a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Nothing: all that it says is true of the picture.
    None,
    /// It is the caption of any other scene, and at least one thing it says is false here.
    Swapped,
    /// It says nothing of the picture: "photo 0123.jpg".
    Generic,
    /// Exactly one thing that it says is false.
    Attribute,
    /// It is the caption of another scene of the same class, and at least one thing it says is
    /// false here.
    SameClass,
}

tldr_loader::names!(Noise {
    None => "none",
    Swapped => "swapped",
    Generic => "generic",
    Attribute => "attribute",
    SameClass => "same-class",
});

/// Weights of the kinds of noise among the noisy captions; they need not sum to 1.
///
/// By default half of the noise belongs to another image, a fifth is generic, and the hard
/// kinds share the rest: web noise is mostly coarse, but a gate that only finds coarse noise
/// should be seen to fall short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseShares {
    /// Weight of [`Noise::Swapped`].
    pub swapped: f64,
    /// Weight of [`Noise::Generic`].
    pub generic: f64,
    /// Weight of [`Noise::Attribute`].
    pub attribute: f64,
    /// Weight of [`Noise::SameClass`].
    pub same_class: f64,
}

impl Default for NoiseShares {
    fn default() -> Self {
        Self { swapped: 0.5, generic: 0.2, attribute: 0.15, same_class: 0.15 }
    }
}

impl NoiseShares {
    /// The weights with their kinds.
    pub fn weights(&self) -> [(Noise, f64); 4] {
        [
            (Noise::Swapped, self.swapped),
            (Noise::Generic, self.generic),
            (Noise::Attribute, self.attribute),
            (Noise::SameClass, self.same_class),
        ]
    }

    /// The kind at `u` in [0, 1) of the cumulated weights.
    pub(super) fn pick(&self, u: f64) -> Noise {
        let total: f64 = self.weights().iter().map(|(_, w)| w).sum();
        let mut left = u * total;
        let mut last = Noise::Swapped;
        for (kind, weight) in self.weights() {
            if weight > 0.0 {
                if left < weight {
                    return kind;
                }
                last = kind;
                left -= weight;
            }
        }
        last // `left` rounded up to the total
    }

    fn validate(&self) -> Result<()> {
        let weights = self.weights();
        if weights.iter().any(|(_, w)| !w.is_finite() || *w < 0.0) || weights.iter().all(|(_, w)| *w == 0.0) {
            let given: Vec<String> = weights.iter().map(|(kind, w)| format!("{} {w}", kind.name())).collect();
            return Err(Error::option(
                "noise_shares",
                given.join(", "),
                "four weights that are finite and not negative, at least one above 0",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tldr_loader::error::ErrorKind;

    #[test]
    fn defaults_are_valid() {
        SynthOptions::default().validate().unwrap();
    }

    #[test]
    fn bad_options_are_named() {
        let base = SynthOptions::default();
        let noise = |swapped| NoiseShares { swapped, generic: 0.0, attribute: 0.0, same_class: 0.0 };
        let cases = [
            ("samples", SynthOptions { samples: 0, ..base.clone() }),
            ("samples", SynthOptions { samples: 1 << 40, ..base.clone() }),
            ("test_samples", SynthOptions { test_samples: 1 << 40, ..base.clone() }),
            ("shards", SynthOptions { shards: 0, ..base.clone() }),
            ("shards", SynthOptions { shards: 12_001, ..base.clone() }),
            ("size", SynthOptions { size: 8, ..base.clone() }),
            ("misaligned", SynthOptions { misaligned: 1.5, ..base.clone() }),
            ("misaligned", SynthOptions { misaligned: f64::NAN, ..base.clone() }),
            ("duplicates", SynthOptions { duplicates: 0, ..base.clone() }),
            ("zipf", SynthOptions { zipf: -1.0, ..base.clone() }),
            ("zipf", SynthOptions { zipf: f64::NAN, ..base.clone() }),
            ("noise_shares", SynthOptions { noise: noise(0.0), ..base.clone() }),
            ("noise_shares", SynthOptions { noise: noise(-1.0), ..base.clone() }),
            ("noise_shares", SynthOptions { noise: noise(f64::INFINITY), ..base.clone() }),
        ];
        for (name, options) in cases {
            let error = options.validate().unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Option { option, .. } if option == name), "{error}");
        }
    }

    #[test]
    fn kinds_without_weight_are_never_picked() {
        let shares = NoiseShares { swapped: 0.0, generic: 1.0, attribute: 0.0, same_class: 3.0 };
        assert_eq!(shares.pick(0.0), Noise::Generic);
        assert_eq!(shares.pick(0.2499), Noise::Generic);
        assert_eq!(shares.pick(0.25), Noise::SameClass);
        assert_eq!(shares.pick(1.0), Noise::SameClass);
    }
}
