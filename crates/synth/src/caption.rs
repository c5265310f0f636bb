//! Captions: what is said of a scene, and in which words.
//!
//! [`Claims`] are a scene's attributes of which some are named; they can be checked against any
//! scene and put into words by several templates.

use std::fmt::Write;

use crate::scene::{Attributes, Choice, Colour, Ground, Object, Pattern, Shape, Size};
use tldr_loader::hash::Rng;

/// Share of truthful and foreign captions that leave details out.
const TERSE: f64 = 0.5;
/// Chance of each detail to be left out of such a caption.
const OMITTED: f64 = 0.4;
/// Share of raw captions that name the place of the picture.
const LOCATED: f64 = 0.25;

/// Place names, one for each pattern and colour of the background. Only raw captions know them:
/// no clean caption, and so no test caption, does.
const LOCATIONS: [&str; 24] = [
    "lisbon", "oslo", "cairo", "kyoto", "lima", "dakar", "quito", "riga", "hanoi", "perth", "tunis",
    "bergen", "malaga", "nairobi", "havana", "dublin", "samoa", "zagreb", "denver", "kerala", "bruges",
    "tahiti", "alaska", "sicily",
];

/// One thing that a caption can say of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attribute {
    /// Shape of the main object.
    Shape,
    /// Colour of the main object.
    Colour,
    /// Size of the main object.
    Size,
    /// Texture of the main object.
    Fill,
    /// Place of the main object.
    Place,
    /// Shape of one of the other objects.
    OtherShape,
    /// Colour of one of the other objects.
    OtherColour,
    /// Texture of the background.
    Pattern,
    /// Colour of the background.
    Ground,
}

/// Which details are named; shape and colour of the main object always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    size: bool,
    fill: bool,
    place: bool,
    others: bool,
    pattern: bool,
    ground: bool,
}

impl Named {
    const ALL: Self = Self { size: true, fill: true, place: true, others: true, pattern: true, ground: true };

    fn draw(rng: &mut Rng) -> Self {
        if rng.unit() >= TERSE {
            return Self::ALL;
        }
        let mut named = || rng.unit() >= OMITTED;
        Self {
            size: named(),
            fill: named(),
            place: named(),
            others: named(),
            pattern: named(),
            ground: named(),
        }
    }
}

/// Order and style of a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    /// "a large solid red star at the top left with a blue ring on a plain gray background"
    Sentence,
    /// "there is a ...", otherwise as [`Template::Sentence`].
    ThereIs,
    /// "picture of a ...", otherwise as [`Template::Sentence`].
    PictureOf,
    /// "a plain gray background with a large solid red star at the top left and a blue ring"
    GroundFirst,
    /// "large solid red star, top left, blue ring, plain gray background"
    Tags,
}

impl Template {
    const ALL: &'static [Self] =
        &[Self::Sentence, Self::ThereIs, Self::PictureOf, Self::GroundFirst, Self::Tags];
}

/// What one caption says: attributes, which of them are named, and in which style.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claims {
    pub(super) attributes: Attributes,
    named: Named,
    location: Option<&'static str>,
    template: Template,
    /// Says "big", "little" or "middle" where the plain caption says "large", "small", "center".
    loose: bool,
}

impl Claims {
    /// Everything there is to say, in the plain style: the caption that is the truth.
    pub(super) fn full(attributes: &Attributes) -> Self {
        Self {
            attributes: *attributes,
            named: Named::ALL,
            location: None,
            template: Template::Sentence,
            loose: false,
        }
    }

    /// A raw caption of a scene: any template, perhaps terse, perhaps with the place's name.
    pub(super) fn raw(attributes: &Attributes, rng: &mut Rng) -> Self {
        Self {
            attributes: *attributes,
            named: Named::draw(rng),
            location: (rng.unit() < LOCATED).then(|| location(attributes)),
            template: Template::ALL[rng.below(Template::ALL.len())],
            loose: rng.unit() < 0.3,
        }
    }

    /// Whether all that is named is true of a scene.
    pub(super) fn hold_for(&self, scene: &Attributes) -> bool {
        let (said, named) = (&self.attributes, &self.named);
        said.main == scene.main
            && (!named.size || said.size == scene.size)
            && (!named.fill || said.fill == scene.fill)
            && (!named.place || said.place == scene.place)
            && (!named.others || said.others().all(|o| scene.others.contains(&Some(o))))
            && (!named.pattern || said.pattern == scene.pattern)
            && (!named.ground || said.ground == scene.ground)
            && self.location.is_none_or(|l| l == location(scene))
    }

    /// Makes exactly one named attribute wrong, any of them with equal chance, and says which.
    /// The name of the place stays true.
    pub(super) fn corrupt(&mut self, rng: &mut Rng) -> Attribute {
        let named = &self.named;
        let mut choices = vec![Attribute::Shape, Attribute::Colour];
        let details = [
            (named.size, Attribute::Size),
            (named.fill, Attribute::Fill),
            (named.place, Attribute::Place),
            (named.pattern, Attribute::Pattern),
            (named.ground, Attribute::Ground),
        ];
        choices.extend(details.iter().filter(|(is_named, _)| *is_named).map(|(_, attribute)| *attribute));
        let others = self.attributes.others().count();
        if named.others && others > 0 {
            choices.extend([Attribute::OtherShape, Attribute::OtherColour]);
        }
        let wrong = choices[rng.below(choices.len())];
        let attributes = &mut self.attributes;
        match wrong {
            Attribute::Shape => attributes.main.shape = attributes.main.shape.other(rng),
            Attribute::Colour => attributes.main.colour = attributes.main.colour.other(rng),
            Attribute::Size => attributes.size = attributes.size.other(rng),
            Attribute::Fill => attributes.fill = attributes.fill.other(rng),
            Attribute::Place => attributes.place = attributes.place.other(rng),
            Attribute::Pattern => attributes.pattern = attributes.pattern.other(rng),
            Attribute::Ground => attributes.ground = attributes.ground.other(rng),
            Attribute::OtherShape | Attribute::OtherColour => {
                let index = rng.below(others);
                let present = attributes.others;
                if let Some(object) = &mut attributes.others[index] {
                    // Not the other lesser object: naming that one twice would be true.
                    let truth = *object;
                    while present.contains(&Some(*object)) {
                        *object = if wrong == Attribute::OtherShape {
                            Object { shape: truth.shape.other(rng), ..truth }
                        } else {
                            Object { colour: truth.colour.other(rng), ..truth }
                        };
                    }
                }
            }
        }
        wrong
    }

    /// The caption in words, without a line end.
    pub(super) fn text(&self) -> String {
        let place = self.named.place.then(|| self.place_word());
        let others: Vec<String> = if self.named.others {
            self.attributes.others().map(|o| format!("{} {}", o.colour.word(), o.shape.word())).collect()
        } else {
            Vec::new()
        };
        let mut text = match self.template {
            Template::Tags => {
                let mut tags = vec![self.main_phrase()];
                tags.extend(place.map(str::to_owned));
                tags.extend(others);
                tags.extend(self.ground_phrase());
                tags.extend(self.location.map(str::to_owned));
                return tags.join(", ");
            }
            Template::GroundFirst => match self.ground_phrase() {
                Some(ground) => {
                    let mut text = with_article(&ground);
                    text.push_str(" with ");
                    text.push_str(&self.main_in_place(place));
                    push_list(&mut text, " and ", &others);
                    text
                }
                None => self.sentence(place, &others),
            },
            Template::Sentence => self.sentence(place, &others),
            Template::ThereIs => format!("there is {}", self.sentence(place, &others)),
            Template::PictureOf => format!("picture of {}", self.sentence(place, &others)),
        };
        if let Some(location) = self.location {
            text.push_str(" in ");
            text.push_str(location);
        }
        text
    }

    fn sentence(&self, place: Option<&str>, others: &[String]) -> String {
        let mut text = self.main_in_place(place);
        push_list(&mut text, " with ", others);
        if let Some(ground) = self.ground_phrase() {
            text.push_str(" on ");
            text.push_str(&with_article(&ground));
        }
        text
    }

    /// "large solid red star"
    fn main_phrase(&self) -> String {
        let a = &self.attributes;
        let mut words = Vec::with_capacity(4);
        if self.named.size {
            words.push(match (a.size, self.loose) {
                (Size::Small, true) => "little",
                (Size::Large, true) => "big",
                (size, false) => size.word(),
            });
        }
        if self.named.fill {
            words.push(a.fill.word());
        }
        words.extend([a.main.colour.word(), a.main.shape.word()]);
        words.join(" ")
    }

    /// "a large solid red star at the top left"
    fn main_in_place(&self, place: Option<&str>) -> String {
        let mut text = with_article(&self.main_phrase());
        if let Some(place) = place {
            // Writing to a string cannot fail.
            let _ = write!(text, " at the {place}");
        }
        text
    }

    fn place_word(&self) -> &'static str {
        match self.attributes.place.word() {
            "center" if self.loose => "middle",
            word => word,
        }
    }

    /// "plain gray background", or none where neither is named.
    fn ground_phrase(&self) -> Option<String> {
        let pattern = self.named.pattern.then(|| self.attributes.pattern.word());
        let ground = self.named.ground.then(|| self.attributes.ground.word());
        let words: Vec<&str> = pattern.into_iter().chain(ground).collect();
        (!words.is_empty()).then(|| format!("{} background", words.join(" ")))
    }
}

/// The place name that belongs to a scene's background.
fn location(attributes: &Attributes) -> &'static str {
    LOCATIONS[attributes.pattern as usize * Ground::ALL.len() + attributes.ground as usize]
}

fn with_article(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {phrase}")
}

/// Appends " with a blue ring and a green cross".
fn push_list(text: &mut String, lead: &str, items: &[String]) {
    for (i, item) in items.iter().enumerate() {
        text.push_str(if i == 0 { lead } else { " and " });
        text.push_str(&with_article(item));
    }
}

/// A caption that says nothing of any picture.
pub(super) fn generic(rng: &mut Rng) -> String {
    let number = rng.below(10_000);
    match rng.below(8) {
        0 => format!("photo {number:04}.jpg"),
        1 => format!("img_{number:04}"),
        2 => format!("image {number} for sale"),
        3 => format!("stock photo no. {number}"),
        4 => format!("buy now, only {}.99", number % 100),
        5 => "image for sale".to_owned(),
        6 => "click to enlarge".to_owned(),
        _ => "untitled".to_owned(),
    }
}

// The vocabularies fit the tables above.
const _: () = assert!(LOCATIONS.len() == Pattern::ALL.len() * Ground::ALL.len());
const _: () = assert!(Shape::ALL.len() > 2 && Colour::ALL.len() > 2, "corrupt() needs a third value");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Fill, Place, SceneSource};
    use tldr_loader::hash::Purpose;

    fn scene() -> Attributes {
        Attributes {
            main: Object { shape: Shape::Star, colour: Colour::Orange },
            size: Size::Large,
            fill: Fill::Striped,
            place: Place::Center,
            others: [Some(Object { shape: Shape::Ring, colour: Colour::Blue }), None],
            pattern: Pattern::Dotted,
            ground: Ground::Gray,
        }
    }

    #[test]
    fn templates_read_as_stated() {
        let mut claims = Claims::full(&scene());
        claims.location = Some("lisbon");
        claims.loose = true;
        let expected = [
            "a big striped orange star at the middle with a blue ring on a dotted gray background in lisbon",
            "there is a big striped orange star at the middle with a blue ring on a dotted gray background in lisbon",
            "picture of a big striped orange star at the middle with a blue ring on a dotted gray background in lisbon",
            "a dotted gray background with a big striped orange star at the middle and a blue ring in lisbon",
            "big striped orange star, middle, blue ring, dotted gray background, lisbon",
        ];
        for (&template, expected) in Template::ALL.iter().zip(expected) {
            claims.template = template;
            assert_eq!(claims.text(), expected);
        }
    }

    #[test]
    fn nothing_but_the_object_needs_a_name() {
        let mut claims = Claims::full(&scene());
        claims.named =
            Named { size: false, fill: false, place: false, others: false, pattern: false, ground: false };
        for &template in Template::ALL {
            claims.template = template;
            let text = claims.text();
            assert!(text.ends_with("orange star"), "{text}");
            assert!(template == Template::Tags || text.ends_with("an orange star"), "{text}");
        }
    }

    #[test]
    fn full_captions_are_short_enough_for_32_tokens_and_name_no_place() {
        // 30 words is also where the paper cuts its captions.
        let source = SceneSource::new(0, 1.0);
        for id in 0..2_000 {
            let text = Claims::full(&source.scene(id).attributes).text();
            assert!(text.split(' ').count() <= 25, "{text}");
            assert!(!LOCATIONS.iter().any(|location| text.contains(location)), "{text}");
        }
    }

    #[test]
    fn some_raw_captions_are_terse_and_some_name_the_place() {
        // Binomial with n = 4,000; bounds at 5 sd, sd = sqrt(p (1 - p) / n). A terse caption
        // keeps all six details with probability 0.6^6.
        let mut rng = Rng::new(0, Purpose::Synth, 99);
        let n = 4_000;
        let raw: Vec<Claims> = (0..n).map(|_| Claims::raw(&scene(), &mut rng)).collect();
        let located = raw.iter().filter(|claims| claims.text().contains("nairobi")).count();
        let terse = raw.iter().filter(|claims| claims.named != Named::ALL).count();
        for (count, p) in [(located, LOCATED), (terse, TERSE * (1.0 - (1.0 - OMITTED).powi(6)))] {
            let (share, sd) = (count as f64 / f64::from(n), (p * (1.0 - p) / f64::from(n)).sqrt());
            assert!((share - p).abs() < 5.0 * sd, "{share}, expected {p} +- {sd}");
        }
    }

    #[test]
    fn a_missing_object_may_stay_unsaid_but_none_may_be_invented() {
        let with = scene();
        let without = Attributes { others: [None, None], ..with };
        assert!(Claims::full(&without).hold_for(&with));
        assert!(!Claims::full(&with).hold_for(&without));
    }
}
