//! Named hash streams: the only source of randomness in the crate.
//!
//! Every random choice is `hash(seed, purpose, id)`: it depends on what it is for and on what it
//! is about, never on how many choices were made before it. So the same inputs give the same
//! kept samples and the same batches, whatever the threads, ranks or machine load.

/// What a random choice is for. Two purposes never share a stream. Their numbers are frozen: they are in every
/// choice that was ever made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Order of candidates inside a cluster (design: `hash(seed, id)`).
    Candidate = 0,
    /// Random start `U` of a run in a window.
    RunStart = 1,
    /// Permutation of the shards of an epoch.
    ShardOrder = 2,
    /// Order in which kept samples of a shuffle group leave a lane.
    Shuffle = 3,
    /// Which of a lane's first kept samples fills a missing place.
    Repeat = 4,
    /// Random resized crop and flip of one sample in one epoch.
    Augment = 5,
    /// Choice between original and generated caption.
    Fuse = 6,
    /// Sampling of points at fit time.
    Fit = 7,
    /// Initial centroids.
    KMeans = 8,
    /// Initial weights, re-seeded codes and dropped images while training the captioner.
    Train = 9,
    /// Random directions of the semantic hash.
    SemanticHash = 10,
    /// Drawing of the synthetic corpus.
    Synth = 11,
    /// Tokens of captions that are drawn.
    Generate = 12,
    /// Near-duplicates of images at fit time.
    NearCopy = 13,
    /// Random directions that long patches are projected on.
    PatchDirections = 14,
    /// Which of a sample's captions an epoch has.
    Caption = 15,
}

impl Purpose {
    /// Fixed salt of the stream.
    const fn salt(self) -> u64 {
        // Odd multiples of the golden ratio, one per purpose.
        (2 * (self as u64) + 1).wrapping_mul(GOLDEN)
    }
}

/// 2^64 divided by the golden ratio, made odd (Steele et al., SplitMix64).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Stafford's variant 13 of the 64-bit finaliser (as in SplitMix64): a bijection of `u64`.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Hashes `id` in the stream of (`seed`, `purpose`). For a fixed seed and purpose it is a
/// bijection of `id`, so distinct ids never tie.
pub const fn hash(seed: u64, purpose: Purpose, id: u64) -> u64 {
    mix(id ^ mix(seed.wrapping_add(purpose.salt())))
}

/// Combines several numbers into one id, order-sensitively: `combine(&[window, run])`.
pub fn combine(parts: &[u64]) -> u64 {
    parts.iter().fold(GOLDEN, |acc, &p| mix(acc.rotate_left(23) ^ mix(p.wrapping_add(GOLDEN))))
}

/// Hashes text to 64 bits (XXH3). Frozen across versions and platforms.
pub fn hash_str(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// Hashes names and their values, order-sensitively.
pub fn pairs(pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> u64 {
    let parts =
        pairs.into_iter().flat_map(|(name, value)| [hash_str(name.as_ref()), hash_str(value.as_ref())]);
    combine(&parts.collect::<Vec<_>>())
}

/// Hashes bytes to 64 bits (XXH3): fingerprints of files and tables.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Hashes all that is read to 64 bits, as [`hash_bytes`] does, in constant memory.
///
/// # Errors
/// What the reader says.
pub fn hash_reader(mut reader: impl std::io::Read) -> std::io::Result<u64> {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut piece = vec![0; 1 << 18];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(hasher.digest()),
            n => hasher.update(&piece[..n]),
        }
    }
}

/// Maps a hash to [0, 1) with 53 bits.
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// A sequence of random numbers for one purpose and one id (SplitMix64 from `hash`).
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The sequence of (`seed`, `purpose`, `id`).
    pub fn new(seed: u64, purpose: Purpose, id: u64) -> Self {
        Self { state: hash(seed, purpose, id) }
    }

    /// Next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Next number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// Next number in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Next integer in `0..n`; 0 when `n` is 0. Bias below 2^-32 for `n < 2^32`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Next standard normal number (Box-Muller; uses two uniforms).
    pub fn normal(&mut self) -> f64 {
        let u = 1.0 - self.unit();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_stability() {
        // Frozen: kept samples of published runs depend on these numbers. The second is what the
        // xxhash package of PyPI gives.
        assert_eq!(hash(0, Purpose::Candidate, 0), mix(mix(GOLDEN)));
        assert_eq!(hash_str("tldr"), 0xfafc_2738_2c75_c934);
        let long = vec![7; 700_000];
        assert_eq!(hash_reader(&long[..]).unwrap(), hash_bytes(&long));
    }

    #[test]
    fn purposes_keep_their_numbers() {
        use Purpose::*;
        let frozen = [
            (Candidate, 0),
            (RunStart, 1),
            (ShardOrder, 2),
            (Shuffle, 3),
            (Repeat, 4),
            (Augment, 5),
            (Fuse, 6),
            (Fit, 7),
            (KMeans, 8),
            (Train, 9),
            (SemanticHash, 10),
            (Synth, 11),
            (Generate, 12),
            (NearCopy, 13),
            (PatchDirections, 14),
            (Caption, 15),
        ];
        for (purpose, number) in frozen {
            assert_eq!(purpose as u64, number, "{purpose:?}");
            assert_eq!(purpose.salt(), (2 * number + 1).wrapping_mul(GOLDEN), "{purpose:?}");
        }
    }

    #[test]
    fn streams_are_uncorrelated() {
        // Correlation of n independent uniforms has standard deviation 1/sqrt(n): 5 sigma.
        let n = 20_000u64;
        let pairs = [(Purpose::Candidate, Purpose::Shuffle), (Purpose::RunStart, Purpose::Augment)];
        for (a, b) in pairs {
            let sum: f64 = (0..n).map(|i| (unit(hash(7, a, i)) - 0.5) * (unit(hash(7, b, i)) - 0.5)).sum();
            let correlation = sum / n as f64 * 12.0;
            assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "{a:?} and {b:?}: {correlation}");
        }
    }

    #[test]
    fn neighbouring_seeds_differ() {
        let same = (0..64u64)
            .filter(|&s| hash(s, Purpose::Candidate, 1) == hash(s + 1, Purpose::Candidate, 1))
            .count();
        assert_eq!(same, 0);
    }

    #[test]
    fn below_is_uniform() {
        // Chi-square with 9 degrees of freedom: mean 9, sd sqrt(18); bound at 5 sd.
        let mut rng = Rng::new(1, Purpose::Fit, 2);
        let mut counts = [0f64; 10];
        for _ in 0..100_000 {
            counts[rng.below(10)] += 1.0;
        }
        let chi: f64 = counts.iter().map(|c| (c - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 9.0 + 5.0 * 18f64.sqrt(), "{chi}");
    }
}
