//! Scenes: what can be seen in a picture, and where exactly.
//!
//! [`Attributes`] are what captions can name; [`Layout`] is what they cannot (jitter). Both are
//! functions of (seed, scene id, class).

use tldr_loader::hash::{Purpose, Rng, combine};

/// Declares a closed vocabulary: an enum, all of its values, and the word for each.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(super) enum $name { $($value),+ }

        impl $name {
            pub(super) const ALL: &'static [Self] = &[$(Self::$value),+];

            pub(super) fn word(self) -> &'static str {
                match self { $(Self::$value => $word),+ }
            }
        }

        impl Choice for $name {
            const ALL: &'static [Self] = Self::ALL;
        }
    };
}

/// A vocabulary that can be drawn from.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// Any value, equally likely.
    fn any(rng: &mut Rng) -> Self {
        Self::ALL[rng.below(Self::ALL.len())]
    }

    /// Any other value, equally likely.
    fn other(self, rng: &mut Rng) -> Self {
        // A step of 1..len from here, so that `self` cannot come out.
        let here = Self::ALL.iter().position(|&v| v == self).unwrap_or(0);
        Self::ALL[(here + 1 + rng.below(Self::ALL.len() - 1)) % Self::ALL.len()]
    }
}

vocabulary!(
    /// Outline of an object.
    Shape {
        Circle = "circle", Square = "square", Triangle = "triangle", Star = "star",
        Ring = "ring", Cross = "cross", Diamond = "diamond", Moon = "moon",
    }
);
vocabulary!(
    /// Colour of an object.
    Colour {
        Red = "red", Orange = "orange", Yellow = "yellow", Green = "green",
        Cyan = "cyan", Blue = "blue", Purple = "purple", Pink = "pink",
    }
);
vocabulary!(
    /// Size of the main object; the lesser ones are smaller still.
    Size { Small = "small", Large = "large" }
);
vocabulary!(
    /// Texture of the main object; the lesser ones are solid.
    Fill { Solid = "solid", Striped = "striped", Spotted = "spotted" }
);
vocabulary!(
    /// Where the main object stands, in reading order of a 3 x 3 grid.
    Place {
        TopLeft = "top left", Top = "top", TopRight = "top right",
        Left = "left", Center = "center", Right = "right",
        BottomLeft = "bottom left", Bottom = "bottom", BottomRight = "bottom right",
    }
);
vocabulary!(
    /// Texture of the background.
    Pattern { Plain = "plain", Striped = "striped", Dotted = "dotted", Checkered = "checkered" }
);
vocabulary!(
    /// Colour of the background.
    Ground { White = "white", Gray = "gray", Black = "black", Beige = "beige", Brown = "brown", Navy = "navy" }
);

/// Number of classes: one for each shape and colour of the main object.
pub const CLASSES: usize = Shape::ALL.len() * Colour::ALL.len();

/// Most objects beside the main one.
pub(super) const MAX_OTHERS: usize = 2;

/// An object as captions know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Object {
    pub(super) shape: Shape,
    pub(super) colour: Colour,
}

impl Object {
    /// The object of a class number, `0..CLASSES`.
    fn of_class(class: usize) -> Self {
        let colours = Colour::ALL.len();
        Self { shape: Shape::ALL[class / colours % Shape::ALL.len()], colour: Colour::ALL[class % colours] }
    }
}

/// Everything about a scene that captions can name. Scenes with equal attributes look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Attributes {
    pub(super) main: Object,
    pub(super) size: Size,
    pub(super) fill: Fill,
    pub(super) place: Place,
    /// Lesser objects, sorted, so that equal sets are equal attributes; unused places last.
    pub(super) others: [Option<Object>; MAX_OTHERS],
    pub(super) pattern: Pattern,
    pub(super) ground: Ground,
}

impl Attributes {
    /// Lesser objects that are there.
    pub(super) fn others(&self) -> impl Iterator<Item = Object> + '_ {
        self.others.iter().flatten().copied()
    }
}

/// A position in the picture: both coordinates in [0, 1], y downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// Where an object stands exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    pub(super) centre: Point,
    /// Radius of the circle around the shape, as a share of the image's side.
    pub(super) radius: f32,
    /// Cosine and sine of the rotation.
    pub(super) turn: (f32, f32),
}

/// What captions do not name: exact positions, rotations and colours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) main: Pose,
    /// One for each of the scene's other objects, in their order.
    pub(super) others: Vec<Pose>,
    /// Offset of the background's pattern, as a share of its period, each in [0, 1).
    pub(super) phase: Point,
    /// Added to each object's colour channels (main first), of 255.
    pub(super) tint: [[f32; 3]; MAX_OTHERS + 1],
}

/// A scene: the same for all of its copies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    pub(super) id: u64,
    /// Rank of the class in Zipf's law, from 0, the commonest.
    pub(super) class: u32,
    pub(super) attributes: Attributes,
}

/// Draws scenes: holds the order of the classes and their cumulated shares.
#[derive(Debug, Clone)]
pub(super) struct SceneSource {
    seed: u64,
    /// Object of each class, by rank.
    objects: Vec<Object>,
    /// Share of this rank and all before it.
    cumulated: Vec<f64>,
}

/// Salts: which part of a scene a stream draws.
const STREAM_CLASSES: u64 = 1;
const STREAM_ATTRIBUTES: u64 = 2;
const STREAM_LAYOUT: u64 = 3;

impl SceneSource {
    pub(super) fn new(seed: u64, zipf: f64) -> Self {
        let mut objects: Vec<Object> = (0..CLASSES).map(Object::of_class).collect();
        Rng::new(seed, Purpose::Synth, combine(&[STREAM_CLASSES])).shuffle(&mut objects);
        let weights: Vec<f64> = (1..=CLASSES).map(|rank| (rank as f64).powf(-zipf)).collect();
        let total: f64 = weights.iter().sum();
        let cumulated = weights
            .iter()
            .scan(0.0, |sum, w| {
                *sum += w / total;
                Some(*sum)
            })
            .collect();
        Self { seed, objects, cumulated }
    }

    /// Name of a class, e.g. "red circle".
    pub(super) fn class_name(&self, class: u32) -> String {
        self.objects
            .get(class as usize)
            .map_or_else(String::new, |o| format!("{} {}", o.colour.word(), o.shape.word()))
    }

    /// The scene of an id: one to three objects (equally likely), all else uniform but the class.
    pub(super) fn scene(&self, id: u64) -> Scene {
        let mut rng = Rng::new(self.seed, Purpose::Synth, combine(&[STREAM_ATTRIBUTES, id]));
        let u = rng.unit();
        let class = self.cumulated.partition_point(|&c| c <= u).min(CLASSES - 1);
        let main = self.objects[class];
        let mut others = [None; MAX_OTHERS];
        let count = rng.below(MAX_OTHERS + 1);
        for i in 0..count {
            // No two objects of a scene are alike: "a red star with a red star" names neither.
            others[i] = loop {
                let object = Object { shape: Shape::any(&mut rng), colour: Colour::any(&mut rng) };
                if object != main && !others[..i].contains(&Some(object)) {
                    break Some(object);
                }
            };
        }
        others[..count].sort_unstable();
        let attributes = Attributes {
            main,
            size: Size::any(&mut rng),
            fill: Fill::any(&mut rng),
            place: Place::any(&mut rng),
            others,
            pattern: Pattern::any(&mut rng),
            ground: Ground::any(&mut rng),
        };
        Scene { id, class: class as u32, attributes }
    }

    /// Exact positions of a scene's objects: nothing overlaps, nothing leaves the picture.
    pub(super) fn layout(&self, scene: &Scene) -> Layout {
        let mut rng = Rng::new(self.seed, Purpose::Synth, combine(&[STREAM_LAYOUT, scene.id]));
        let attributes = &scene.attributes;
        let radius = match attributes.size {
            Size::Small => SMALL,
            Size::Large => LARGE,
        };
        let main = pose(&mut rng, cell(attributes.place, MAIN_CELLS), radius);
        let mut free: Vec<Point> = Place::ALL
            .iter()
            .map(|&place| cell(place, OTHER_CELLS))
            .filter(|p| (p.x - main.centre.x).hypot(p.y - main.centre.y) > radius + OTHER + GAP)
            .collect();
        rng.shuffle(&mut free);
        let others = attributes.others().zip(&free).map(|(_, &at)| pose(&mut rng, at, OTHER)).collect();
        let phase = Point { x: rng.unit() as f32, y: rng.unit() as f32 };
        let mut tint = [[0.0; 3]; MAX_OTHERS + 1];
        for channel in tint.iter_mut().flatten() {
            *channel = rng.range(-10.0, 10.0) as f32;
        }
        Layout { main, others, phase, tint }
    }
}

/// Radii, as shares of the side: far enough apart that size and rank can be seen at 32 px.
const LARGE: f32 = 0.235;
const SMALL: f32 = 0.16;
const OTHER: f32 = 0.105;
/// Clear space between main and lesser objects, with room for the jitter of both.
const GAP: f32 = 0.035;
/// Largest jitter of a centre, each way.
const JITTER: f64 = 0.015;
/// Rows and columns for main objects, and for lesser ones nearer to the edge.
const MAIN_CELLS: [f32; 3] = [0.28, 0.5, 0.72];
const OTHER_CELLS: [f32; 3] = [0.15, 0.5, 0.85];

fn cell(place: Place, cells: [f32; 3]) -> Point {
    let index = place as usize;
    Point { x: cells[index % 3], y: cells[index / 3] }
}

fn pose(rng: &mut Rng, at: Point, radius: f32) -> Pose {
    let mut jitter = || rng.range(-JITTER, JITTER) as f32;
    let centre = Point { x: at.x + jitter(), y: at.y + jitter() };
    // Half-angle form of a turn by up to 9 degrees: exact arithmetic on every platform, and a
    // square never looks like a diamond.
    let t = rng.range(-0.08, 0.08) as f32;
    let turn = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
    Pose { centre, radius, turn }
}
