//! The corpus in memory: any sample of it, in any order, from its number alone.

use std::collections::HashSet;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::caption::{self, Attribute, Claims};
use crate::draw::{View, render};
use crate::options::{Noise, SynthOptions};
use crate::scene::{Attributes, CLASSES, Point, Scene, SceneSource};
use tldr_loader::error::{Error, Result};
use tldr_loader::hash::{Purpose, Rng, combine, hash_str};

/// Scene ids of the test split start here, beyond any of the training split.
const TEST_SCENES: u64 = 1 << 40;
/// Test scenes that may be drawn for each one that is wanted, before giving up.
const TEST_TRIES: u64 = 20;
/// Scenes that are tried as the owner of a foreign caption, before an attribute is made wrong
/// instead. Only a corpus of very few scenes needs more than two.
const FOREIGN_TRIES: usize = 16;

/// Salts: what a stream draws (1 to 3 belong to `scene`).
const STREAM_ORDER: u64 = 4;
const STREAM_CAPTION: u64 = 5;
const STREAM_VIEW: u64 = 6;

/// One pair of image and caption, with what is true of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthSample {
    /// Encoded image, `size` x `size` pixels, RGB.
    pub jpeg: Vec<u8>,
    /// The caption as a web page would carry it.
    pub caption: String,
    /// What is true of the picture and of the caption.
    pub truth: Truth,
}

/// Ground truth of a sample: its json member.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Truth {
    /// Scene that the picture shows; copies share it, splits never do.
    pub scene: u64,
    /// Number of the copy, from 0.
    pub copy: u64,
    /// Class of the scene by rank, from 0, the commonest; below [`CLASSES`](super::CLASSES).
    pub class: u32,
    /// Colour and shape of the class: "red circle".
    pub class_name: String,
    /// Clean caption that names every attribute of the scene. Equal for two scenes only if
    /// captions cannot tell them apart.
    pub caption_truth: String,
    /// What is wrong with the caption.
    pub noise: Noise,
    /// The attribute that is wrong, where `noise` is [`Noise::Attribute`].
    pub wrong: Option<Attribute>,
    /// Scene that the caption was written for; none where it was written for no scene.
    pub caption_scene: Option<u64>,
}

/// What a sample says and shows, before it is drawn.
#[derive(Debug)]
struct Pair {
    scene: Scene,
    copy: u64,
    said: Said,
    noise: Noise,
    wrong: Option<Attribute>,
    caption_scene: Option<u64>,
}

/// A caption before it is put into words.
#[derive(Debug)]
enum Said {
    Claims(Claims),
    Generic(String),
}

impl Said {
    fn text(&self) -> String {
        match self {
            Self::Claims(claims) => claims.text(),
            Self::Generic(text) => text.clone(),
        }
    }
}

/// A synthetic corpus: options, order and test split, but no pixels.
///
/// Memory: 4 bytes per sample, and 4 per scene.
#[derive(Debug, Clone)]
pub struct Corpus {
    options: SynthOptions,
    source: SceneSource,
    /// `scene * duplicates + copy` of the sample at each position, `[samples]`.
    order: Vec<u32>,
    /// Scenes of each class, ascending, `[CLASSES]`.
    by_class: Vec<Vec<u32>>,
    /// Scene ids of the test split, `[test_samples]`.
    test_scenes: Vec<u64>,
}

impl Corpus {
    /// Lays out a corpus: O(samples) hashes, no drawing. Choosing a test split also needs 16
    /// bytes per sample for a moment.
    ///
    /// # Errors
    /// Options that cannot be used ([`SynthOptions::validate`]), and a `test_samples` for which
    /// there are not enough scenes that the training split does not show.
    pub fn new(options: &SynthOptions) -> Result<Self> {
        options.validate()?;
        let source = SceneSource::new(options.seed, options.zipf);
        // `validate` bounds samples below u32::MAX.
        let mut order: Vec<u32> = (0..options.samples as u32).collect();
        // Copies of a scene end up anywhere in the corpus, so that no window sees them all.
        Rng::new(options.seed, Purpose::Synth, combine(&[STREAM_ORDER])).shuffle(&mut order);
        let mut by_class = vec![Vec::new(); CLASSES];
        for scene in 0..scenes(options) {
            by_class[source.scene(scene).class as usize].push(scene as u32);
        }
        let mut corpus = Self { options: options.clone(), source, order, by_class, test_scenes: Vec::new() };
        if options.test_samples > 0 {
            corpus.test_scenes = corpus.choose_test_scenes()?;
        }
        Ok(corpus)
    }

    /// The options it was laid out with.
    pub fn options(&self) -> &SynthOptions {
        &self.options
    }

    /// Number of distinct scenes of the training split (some may look alike by chance).
    pub fn scenes(&self) -> u64 {
        scenes(&self.options)
    }

    /// The training sample at a position, `0..samples`. About 0.2 ms at 64 pixels.
    ///
    /// # Errors
    /// A position beyond the corpus.
    pub fn sample(&self, position: u64) -> Result<SynthSample> {
        let pair = self.pair(self.at(position)?);
        self.draw(pair)
    }

    /// The test sample at a position, `0..test_samples`: its caption is the truth, differs from
    /// every other test caption and from every training caption, and its scene differs in
    /// something that captions name from every training scene.
    ///
    /// # Errors
    /// A position beyond the split.
    pub fn test_sample(&self, position: u64) -> Result<SynthSample> {
        let Some(&id) = usize::try_from(position).ok().and_then(|p| self.test_scenes.get(p)) else {
            let accepted = format!("below test_samples = {}", self.test_scenes.len());
            return Err(Error::option("position", position, accepted));
        };
        let scene = self.source.scene(id);
        let said = Said::Claims(Claims::full(&scene.attributes));
        self.draw(Pair { scene, copy: 0, said, noise: Noise::None, wrong: None, caption_scene: Some(id) })
    }

    /// Number of the sample at a position, in order of scene and copy.
    fn at(&self, position: u64) -> Result<u64> {
        match usize::try_from(position).ok().and_then(|p| self.order.get(p)) {
            Some(&number) => Ok(u64::from(number)),
            None => {
                let accepted = format!("below samples = {}", self.options.samples);
                Err(Error::option("position", position, accepted))
            }
        }
    }

    /// Scene and caption of a training sample, by number.
    fn pair(&self, number: u64) -> Pair {
        let (id, copy) = (number / self.options.duplicates, number % self.options.duplicates);
        let scene = self.source.scene(id);
        let mut rng = Rng::new(self.options.seed, Purpose::Synth, combine(&[STREAM_CAPTION, number]));
        // Drawn in this order, a sample that is noise at one `misaligned` is so at every larger.
        let (is_noise, kind) = (rng.unit() < self.options.misaligned, rng.unit());
        let kind = if is_noise { self.options.noise.pick(kind) } else { Noise::None };
        let (said, noise, wrong, caption_scene) = match kind {
            Noise::None => (Said::Claims(Claims::raw(&scene.attributes, &mut rng)), kind, None, Some(id)),
            Noise::Generic => (Said::Generic(caption::generic(&mut rng)), kind, None, None),
            Noise::Swapped | Noise::SameClass | Noise::Attribute => {
                let owner = match kind {
                    Noise::Attribute => None,
                    _ => self.foreign(&scene, kind == Noise::SameClass, &mut rng),
                };
                match owner {
                    Some((owner, claims)) => (Said::Claims(claims), kind, None, Some(owner)),
                    None => {
                        let mut claims = Claims::raw(&scene.attributes, &mut rng);
                        let wrong = claims.corrupt(&mut rng);
                        (Said::Claims(claims), Noise::Attribute, Some(wrong), Some(id))
                    }
                }
            }
        };
        Pair { scene, copy, said, noise, wrong, caption_scene }
    }

    /// A raw caption of another scene that says something false of this one, with its owner.
    fn foreign(&self, scene: &Scene, same_class: bool, rng: &mut Rng) -> Option<(u64, Claims)> {
        let class = &self.by_class[scene.class as usize];
        (0..FOREIGN_TRIES).find_map(|_| {
            let owner = if same_class {
                u64::from(class[rng.below(class.len())])
            } else {
                rng.below(self.scenes() as usize) as u64
            };
            let claims = Claims::raw(&self.source.scene(owner).attributes, rng);
            (!claims.hold_for(&scene.attributes)).then_some((owner, claims))
        })
    }

    fn draw(&self, pair: Pair) -> Result<SynthSample> {
        let Pair { scene, copy, said, noise, wrong, caption_scene } = pair;
        let mut rng = Rng::new(self.options.seed, Purpose::Synth, combine(&[STREAM_VIEW, scene.id, copy]));
        let view = View {
            shift: Point { x: rng.range(-0.03, 0.03) as f32, y: rng.range(-0.03, 0.03) as f32 },
            zoom: rng.range(0.94, 1.06) as f32,
            gain: rng.range(0.92, 1.08) as f32,
        };
        let quality = 55 + rng.below(41) as u8;
        let size = self.options.size;
        let pixels = render(&scene, &self.source.layout(&scene), &view, size);
        let mut jpeg = Vec::with_capacity(pixels.len() / 4);
        let mut encoder = Encoder::new(&mut jpeg, quality);
        // At 32 pixels a lesser object is 7 wide: at half the colour resolution its shape is gone.
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
        encoder
            .encode(&pixels, size as u16, size as u16, ColorType::Rgb)
            .map_err(|e| Error::format("synthetic image", "pixels that encode as JPEG", e))?;
        let truth = Truth {
            scene: scene.id,
            copy,
            class: scene.class,
            class_name: self.source.class_name(scene.class),
            caption_truth: Claims::full(&scene.attributes).text(),
            noise,
            wrong,
            caption_scene,
        };
        Ok(SynthSample { jpeg, caption: said.text(), truth })
    }

    /// The first test scenes whose attributes are new to training and to each other, and whose
    /// caption no training sample carries by chance.
    fn choose_test_scenes(&self) -> Result<Vec<u64>> {
        let mut seen: HashSet<Attributes> =
            (0..self.scenes()).map(|id| self.source.scene(id).attributes).collect();
        let captions: HashSet<u64> =
            (0..self.options.samples).map(|number| hash_str(&self.pair(number).said.text())).collect();
        let wanted = self.options.test_samples as usize;
        let mut chosen = Vec::with_capacity(wanted);
        for id in TEST_SCENES..TEST_SCENES + TEST_TRIES * self.options.test_samples {
            let attributes = self.source.scene(id).attributes;
            let is_new = !captions.contains(&hash_str(&Claims::full(&attributes).text()));
            if is_new && seen.insert(attributes) {
                chosen.push(id);
                if chosen.len() == wanted {
                    return Ok(chosen);
                }
            }
        }
        let accepted = format!(
            "at most about {} scenes are left that training does not show; ask for fewer",
            chosen.len()
        );
        Err(Error::option("test_samples", wanted, accepted))
    }
}

/// Number of distinct training scenes.
fn scenes(options: &SynthOptions) -> u64 {
    options.samples.div_ceil(options.duplicates)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::options::NoiseShares;

    fn corpus(samples: u64, test_samples: u64) -> Corpus {
        Corpus::new(&SynthOptions { samples, test_samples, ..Default::default() }).unwrap()
    }

    /// Named attributes in which two scenes differ.
    fn differences(a: &Attributes, b: &Attributes) -> usize {
        let others = a.others.iter().zip(&b.others).map(|pair| match pair {
            (Some(a), Some(b)) => usize::from(a.shape != b.shape) + usize::from(a.colour != b.colour),
            (a, b) => usize::from(a != b) * 2,
        });
        usize::from(a.main.shape != b.main.shape)
            + usize::from(a.main.colour != b.main.colour)
            + usize::from(a.size != b.size)
            + usize::from(a.fill != b.fill)
            + usize::from(a.place != b.place)
            + usize::from(a.pattern != b.pattern)
            + usize::from(a.ground != b.ground)
            + others.sum::<usize>()
    }

    #[test]
    fn noise_is_false_of_the_picture_and_the_rest_is_true() {
        let corpus = corpus(8_000, 0);
        for number in 0..8_000 {
            let pair = corpus.pair(number);
            match &pair.said {
                Said::Claims(claims) => {
                    let holds = claims.hold_for(&pair.scene.attributes);
                    assert_eq!(holds, pair.noise == Noise::None, "{number}: {}", claims.text());
                }
                Said::Generic(_) => assert_eq!(pair.noise, Noise::Generic),
            }
        }
    }

    #[test]
    fn foreign_captions_hold_for_their_owner() {
        let corpus = corpus(8_000, 0);
        let mut seen = 0;
        for number in 0..8_000 {
            let pair = corpus.pair(number);
            let (Some(owner), Said::Claims(claims)) = (pair.caption_scene, &pair.said) else { continue };
            let owner = corpus.source.scene(owner);
            if pair.noise == Noise::Attribute {
                assert_eq!(owner, pair.scene);
            } else {
                assert!(claims.hold_for(&owner.attributes));
            }
            if pair.noise == Noise::SameClass {
                assert_eq!(owner.class, pair.scene.class);
                assert_ne!(owner.id, pair.scene.id);
                seen += 1;
            }
        }
        assert!(seen > 300, "{seen}");
    }

    #[test]
    fn attribute_noise_differs_in_exactly_one_attribute() {
        let noise = NoiseShares { swapped: 0.0, generic: 0.0, attribute: 1.0, same_class: 0.0 };
        let options =
            SynthOptions { samples: 4_000, misaligned: 1.0, noise, test_samples: 0, ..Default::default() };
        let corpus = Corpus::new(&options).unwrap();
        let mut kinds = HashSet::new();
        for number in 0..options.samples {
            let pair = corpus.pair(number);
            let Said::Claims(claims) = &pair.said else { panic!("{:?}", pair.said) };
            assert_eq!(differences(&claims.attributes, &pair.scene.attributes), 1, "{}", claims.text());
            kinds.insert(pair.wrong.unwrap());
        }
        assert_eq!(kinds.len(), 9, "every attribute is wrong somewhere: {kinds:?}");
    }

    #[test]
    fn noise_shares_are_as_stated() {
        // A count of n draws with probability p is binomial: sd = sqrt(n p (1 - p)). Bound at
        // 5 sd, passed by chance in 1 of 2 million; captions of too few scenes would show here.
        let corpus = corpus(20_000, 0);
        let n = 20_000.0;
        let shares = NoiseShares::default();
        let count = |kind| (0..20_000).filter(|&i| corpus.pair(i).noise == kind).count() as f64;
        let expected = [
            (Noise::None, 0.5),
            (Noise::Swapped, 0.5 * shares.swapped),
            (Noise::Generic, 0.5 * shares.generic),
            (Noise::Attribute, 0.5 * shares.attribute),
            (Noise::SameClass, 0.5 * shares.same_class),
        ];
        for (kind, p) in expected {
            let (count, mean, sd) = (count(kind), n * p, (n * p * (1.0 - p)).sqrt());
            assert!((count - mean).abs() < 5.0 * sd, "{kind:?}: {count}, expected {mean} +- {sd}");
        }
    }

    #[test]
    fn more_noise_keeps_the_noise_there_was() {
        let at = |misaligned| {
            let options = SynthOptions { samples: 2_000, misaligned, test_samples: 0, ..Default::default() };
            let corpus = Corpus::new(&options).unwrap();
            (0..2_000).map(|i| corpus.pair(i).noise).collect::<Vec<_>>()
        };
        let (none, some, all) = (at(0.0), at(0.4), at(1.0));
        assert!(none.iter().all(|&noise| noise == Noise::None));
        assert!(all.iter().all(|&noise| noise != Noise::None));
        assert!(some.iter().zip(&all).all(|(some, all)| *some == Noise::None || some == all));
    }

    #[test]
    fn classes_follow_zipf() {
        // Chi-square of 64 classes against their stated shares: 63 degrees of freedom, mean 63,
        // sd sqrt(126); bound at 5 sd. Equal shares would score above 10,000.
        let n = 20_000u64;
        let source = SceneSource::new(3, 1.0);
        let mut counts = [0f64; CLASSES];
        for id in 0..n {
            counts[source.scene(id).class as usize] += 1.0;
        }
        let total: f64 = (1..=CLASSES).map(|r| 1.0 / r as f64).sum();
        let chi: f64 = (1..=CLASSES)
            .map(|rank| {
                let expected = n as f64 / rank as f64 / total;
                (counts[rank - 1] - expected).powi(2) / expected
            })
            .sum();
        assert!(chi < 63.0 + 5.0 * 126f64.sqrt(), "{chi}");
        // Slope of log count over log rank, weighted by count. The sd of log count is about
        // 1/sqrt(count), so that of the slope is 1/sqrt(sum of count * (log rank - mean)^2).
        let weighted = |f: &dyn Fn(f64) -> f64| -> f64 {
            counts.iter().enumerate().map(|(i, &c)| c * f((i as f64 + 1.0).ln())).sum::<f64>() / n as f64
        };
        let mean = weighted(&|x| x);
        let spread = weighted(&|x| (x - mean) * (x - mean));
        let rise: f64 =
            counts.iter().enumerate().map(|(i, &c)| c * ((i as f64 + 1.0).ln() - mean) * c.ln()).sum();
        let (slope, sd) = (rise / (spread * n as f64), 1.0 / (spread * n as f64).sqrt());
        assert!((slope + 1.0).abs() < 5.0 * sd, "{slope} +- {sd}");
    }

    #[test]
    fn every_class_has_its_own_object() {
        let source = SceneSource::new(0, 1.0);
        let names: HashSet<String> = (0..CLASSES as u32).map(|class| source.class_name(class)).collect();
        assert_eq!(names.len(), CLASSES);
    }

    #[test]
    fn objects_keep_apart_and_inside() {
        let source = SceneSource::new(1, 1.0);
        for id in 0..2_000 {
            let scene = source.scene(id);
            let layout = source.layout(&scene);
            assert_eq!(layout.others.len(), scene.attributes.others().count());
            let poses: Vec<_> = std::iter::once(&layout.main).chain(&layout.others).collect();
            for (i, a) in poses.iter().enumerate() {
                for centre in [a.centre.x, a.centre.y] {
                    assert!(centre > a.radius * 0.85 && centre < 1.0 - a.radius * 0.85, "{id}: {a:?}");
                }
                for b in &poses[..i] {
                    let gap = (a.centre.x - b.centre.x).hypot(a.centre.y - b.centre.y);
                    assert!(gap > (a.radius + b.radius) * 0.98, "{id}: {a:?} and {b:?}");
                }
            }
        }
    }

    #[test]
    fn test_scenes_are_new_and_distinct() {
        let corpus = corpus(4_000, 1_000);
        let attributes = |id| corpus.source.scene(id).attributes;
        let train: HashSet<Attributes> = (0..corpus.scenes()).map(attributes).collect();
        let test: HashSet<Attributes> = corpus.test_scenes.iter().map(|&id| attributes(id)).collect();
        assert_eq!(test.len(), 1_000);
        assert!(train.is_disjoint(&test));
    }

    #[test]
    fn truths_tell_scenes_apart() {
        // Equal truths if and only if equal attributes: the words lose nothing.
        let source = SceneSource::new(0, 1.0);
        let scenes: Vec<Attributes> = (0..20_000).map(|id| source.scene(id).attributes).collect();
        let attributes: HashSet<&Attributes> = scenes.iter().collect();
        let texts: HashSet<String> = scenes.iter().map(|a| Claims::full(a).text()).collect();
        assert_eq!(attributes.len(), texts.len());
    }

    #[test]
    fn tiny_corpora_work() {
        // One scene: no other scene can lend a caption, so an attribute goes wrong instead.
        let options = SynthOptions {
            samples: 3,
            shards: 1,
            duplicates: 3,
            misaligned: 1.0,
            noise: NoiseShares { swapped: 1.0, generic: 0.0, attribute: 0.0, same_class: 1.0 },
            test_samples: 1,
            ..Default::default()
        };
        let corpus = Corpus::new(&options).unwrap();
        for position in 0..3 {
            assert_eq!(corpus.sample(position).unwrap().truth.noise, Noise::Attribute);
        }
        assert!(corpus.sample(3).unwrap_err().to_string().contains("below samples = 3"));
        assert!(corpus.test_sample(1).unwrap_err().to_string().contains("below test_samples = 1"));
    }

    #[test]
    fn value_stability() {
        // Frozen: benchmarks name a seed, and a seed must keep its pictures and captions.
        let corpus = corpus(1_000, 10);
        let mut parts = Vec::new();
        for sample in (0..32).map(|i| corpus.sample(i)).chain((0..10).map(|i| corpus.test_sample(i))) {
            let sample = sample.unwrap();
            parts.push(hash_str(&sample.caption));
            parts.push(hash_str(&serde_json::to_string(&sample.truth).unwrap()));
            parts.push(tldr_loader::hash::hash_bytes(&sample.jpeg));
        }
        assert_eq!(combine(&parts), 15_131_302_098_086_735_823);
    }
}
