//! The corpus in memory: any sample of it, in any order, from its number alone.

use std::collections::HashSet;

use jpeg_encoder::{ColorType, Encoder};

use crate::error::{Error, Result};
use crate::hash::{Purpose, Rng, combine, hash_str};
use crate::synth::caption::{self, Attribute, Claims};
use crate::synth::draw::{View, render};
use crate::synth::options::{Noise, SynthOptions};
use crate::synth::scene::{Attributes, CLASSES, Point, Scene, SceneSource};

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
        self.draw(Pair {
            scene,
            copy: 0,
            said,
            noise: Noise::None,
            wrong: None,
            caption_scene: Some(id),
        })
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
        let quality = 50 + rng.below(46) as u8;
        let size = self.options.size;
        let pixels = render(&scene, &self.source.layout(&scene), &view, size);
        let mut jpeg = Vec::with_capacity(pixels.len() / 4);
        Encoder::new(&mut jpeg, quality)
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
        let accepted =
            format!("at most about {} scenes are left that training does not show; ask for fewer", chosen.len());
        Err(Error::option("test_samples", wanted, accepted))
    }
}

/// Number of distinct training scenes.
fn scenes(options: &SynthOptions) -> u64 {
    options.samples.div_ceil(options.duplicates)
}
