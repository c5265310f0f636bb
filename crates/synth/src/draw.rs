//! The rasteriser: a scene, seen through a view, as RGB pixels.
//!
//! Shapes are signed distance fields (after Inigo Quilez, "2D distance functions"); a pixel's
//! coverage is its distance to the edge, cut to half a pixel either way. Only additions,
//! products and square roots are used, so that the pixels are the same on every platform.

use crate::scene::{Colour, Fill, Ground, Layout, Pattern, Point, Pose, Scene, Shape};

/// How one copy sees its scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    /// Shift of the scene, as shares of the side.
    pub(super) shift: Point,
    /// Magnification about the centre of the picture.
    pub(super) zoom: f32,
    /// Factor on every channel.
    pub(super) gain: f32,
}

type Rgb = [f32; 3];

/// Width of the plain rim of a striped or spotted shape, in radii.
const RIM: f32 = 0.09;

/// Draws a scene as `[size, size, 3]` interleaved RGB. O(size^2).
pub(super) fn render(scene: &Scene, layout: &Layout, view: &View, size: u32) -> Vec<u8> {
    let attributes = &scene.attributes;
    let side = size as usize;
    let pixel = 1.0 / (size as f32 * view.zoom);
    let at = |column: usize, row: usize| Point {
        x: (column as f32 + 0.5 - size as f32 * 0.5) * pixel + 0.5 - view.shift.x,
        y: (row as f32 + 0.5 - size as f32 * 0.5) * pixel + 0.5 - view.shift.y,
    };

    let (ground, figure) = ground_tones(attributes.ground);
    let mut canvas: Vec<Rgb> = Vec::with_capacity(side * side);
    for row in 0..side {
        for column in 0..side {
            let amount = pattern_coverage(attributes.pattern, at(column, row), layout.phase, pixel);
            canvas.push(blend(ground, figure, amount));
        }
    }

    let objects = std::iter::once((attributes.main, attributes.fill, &layout.main))
        .chain(attributes.others().zip(&layout.others).map(|(object, pose)| (object, Fill::Solid, pose)));
    for ((object, fill, pose), tint) in objects.zip(&layout.tint) {
        let mut tone = object_tone(object.colour);
        for (channel, offset) in tone.iter_mut().zip(tint) {
            *channel += offset;
        }
        let second = second_tone(tone);
        let to_pixel = |value: f32, shift: f32| ((value + shift - 0.5) / pixel) + size as f32 * 0.5;
        let reach = pose.radius * 1.15 + 2.0 * pixel;
        let span = |centre: f32, shift: f32| {
            let first = to_pixel(centre - reach, shift).max(0.0) as usize;
            let last = to_pixel(centre + reach, shift).clamp(0.0, size as f32) as usize;
            first.min(last)..last
        };
        for row in span(pose.centre.y, view.shift.y) {
            for column in span(pose.centre.x, view.shift.x) {
                let local = to_local(at(column, row), pose);
                let unit = pixel / pose.radius;
                let depth = distance(object.shape, local);
                let inside = coverage(depth, unit);
                if inside > 0.0 {
                    // The rim stays plain: else stripes and spots would nibble at the outline.
                    let texture = fill_coverage(fill, local, unit) * coverage(depth + RIM, unit);
                    let colour = blend(tone, second, texture);
                    let target = &mut canvas[row * side + column];
                    *target = blend(*target, colour, inside);
                }
            }
        }
    }

    canvas.iter().flatten().map(|&channel| (channel * view.gain + 0.5).clamp(0.0, 255.0) as u8).collect()
}

/// Position relative to an object, turned upright, in units of its radius.
fn to_local(p: Point, pose: &Pose) -> Point {
    let (x, y) = ((p.x - pose.centre.x) / pose.radius, (p.y - pose.centre.y) / pose.radius);
    let (cos, sin) = pose.turn;
    Point { x: cos * x + sin * y, y: cos * y - sin * x }
}

/// Share of a pixel that lies inside an edge at signed distance `d` (negative inside).
fn coverage(d: f32, pixel: f32) -> f32 {
    (0.5 - d / pixel).clamp(0.0, 1.0)
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

fn box_distance(x: f32, y: f32, half_width: f32, half_height: f32) -> f32 {
    let (dx, dy) = (x.abs() - half_width, y.abs() - half_height);
    length(dx.max(0.0), dy.max(0.0)) + dx.max(dy).min(0.0)
}

/// Signed distance to a shape within the unit circle (a little less or more, so that the areas
/// are alike); y points down.
fn distance(shape: Shape, Point { x, y }: Point) -> f32 {
    match shape {
        Shape::Circle => length(x, y) - 0.9,
        Shape::Square => box_distance(x, y, 0.78, 0.78),
        Shape::Diamond => (x.abs() + y.abs() - 1.1) * std::f32::consts::FRAC_1_SQRT_2,
        Shape::Triangle => {
            // Three half-planes at the inradius; the centroid sits low, so the shape moves down.
            let y = y - 0.15;
            let slanted = 0.866_025_4 * x.abs() - 0.5 * y;
            slanted.max(y) - 0.58
        }
        Shape::Star => star_distance(x, -y),
        Shape::Ring => (length(x, y) - 0.7).abs() - 0.24,
        Shape::Cross => box_distance(x, y, 1.0, 0.33).min(box_distance(x, y, 0.33, 1.0)),
        Shape::Moon => (length(x, y) - 0.95).max(0.8 - length(x - 0.5, y + 0.1)),
    }
}

/// A five-pointed star with one point up (y points up).
fn star_distance(x: f32, y: f32) -> f32 {
    const RADIUS: f32 = 1.08;
    const INNER: f32 = 0.48;
    const COS: f32 = 0.809_017; // cos 36 degrees
    const SIN: f32 = 0.587_785_25;
    let (mut x, mut y) = (x.abs(), y);
    for side in [1.0, -1.0] {
        // Fold the plane along two mirrors, until one arm is left.
        let over = 2.0 * (side * COS * x - SIN * y).max(0.0);
        x -= over * side * COS;
        y += over * SIN;
    }
    let (x, y) = (x.abs(), y - RADIUS);
    let (bx, by) = (INNER * SIN, INNER * COS - 1.0);
    let along = ((x * bx + y * by) / (bx * bx + by * by)).clamp(0.0, RADIUS);
    length(x - bx * along, y - by * along) * (y * bx - x * by).signum()
}

/// Signed distance to the edge of stripes as wide as their gaps: negative inside.
fn stripes(position: f32, period: f32) -> f32 {
    let share = position / period;
    let phase = share - share.floor();
    ((phase - 0.5).abs() - 0.25) * period
}

/// Distance to the nearest point of a square grid, less `radius`.
fn grid_dots(x: f32, y: f32, period: f32, radius: f32) -> f32 {
    let centred = |v: f32| {
        let share = v / period;
        (share - share.floor() - 0.5) * period
    };
    length(centred(x), centred(y)) - radius
}

/// Share of the second tone at a point of the main object, in its own units.
fn fill_coverage(fill: Fill, Point { x, y }: Point, pixel: f32) -> f32 {
    match fill {
        Fill::Solid => 0.0,
        Fill::Striped => coverage(stripes(y, 0.62), pixel),
        Fill::Spotted => coverage(grid_dots(x, y, 0.56, 0.17), pixel),
    }
}

/// Share of the second tone at a point of the background. Periods are shares of the side that
/// still show at 32 pixels.
fn pattern_coverage(pattern: Pattern, p: Point, phase: Point, pixel: f32) -> f32 {
    match pattern {
        Pattern::Plain => 0.0,
        Pattern::Striped => coverage(stripes(p.x + phase.x * 0.2, 0.2), pixel),
        Pattern::Dotted => {
            coverage(grid_dots(p.x + phase.x * 0.18, p.y + phase.y * 0.18, 0.18, 0.045), pixel)
        }
        Pattern::Checkered => {
            let a = coverage(stripes(p.x + phase.x * 0.36, 0.36), pixel);
            let b = coverage(stripes(p.y + phase.y * 0.36, 0.36), pixel);
            a + b - 2.0 * a * b
        }
    }
}

fn blend(from: Rgb, to: Rgb, amount: f32) -> Rgb {
    std::array::from_fn(|i| from[i] + (to[i] - from[i]) * amount)
}

fn luminance([r, g, b]: Rgb) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn object_tone(colour: Colour) -> Rgb {
    match colour {
        Colour::Red => [215.0, 30.0, 35.0],
        Colour::Orange => [245.0, 130.0, 25.0],
        Colour::Yellow => [250.0, 222.0, 40.0],
        Colour::Green => [40.0, 155.0, 60.0],
        Colour::Cyan => [60.0, 200.0, 215.0],
        Colour::Blue => [35.0, 85.0, 215.0],
        Colour::Purple => [140.0, 60.0, 185.0],
        Colour::Pink => [245.0, 125.0, 185.0],
    }
}

/// The other tone of a striped or spotted object: darker for light colours, lighter for dark.
fn second_tone(tone: Rgb) -> Rgb {
    if luminance(tone) > 125.0 { blend(tone, [0.0; 3], 0.58) } else { blend(tone, [255.0; 3], 0.66) }
}

/// The background's tone and that of its pattern: close enough that the pattern of a shifted
/// copy changes the pixels less than another background would.
fn ground_tones(ground: Ground) -> (Rgb, Rgb) {
    let tone = match ground {
        Ground::White => [238.0, 238.0, 238.0],
        Ground::Gray => [140.0, 142.0, 145.0],
        Ground::Black => [22.0, 22.0, 24.0],
        Ground::Beige => [226.0, 205.0, 165.0],
        Ground::Brown => [108.0, 72.0, 44.0],
        Ground::Navy => [22.0, 32.0, 84.0],
    };
    let second =
        if luminance(tone) > 125.0 { blend(tone, [0.0; 3], 0.24) } else { blend(tone, [255.0; 3], 0.26) };
    (tone, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_inside_at_their_marks_and_outside_beyond_the_circle() {
        let p = |x, y| Point { x, y };
        let marks = [
            (Shape::Circle, p(0.0, 0.0)),
            (Shape::Square, p(0.7, 0.7)),
            (Shape::Diamond, p(0.0, 1.0)),
            (Shape::Triangle, p(0.0, -0.9)),
            (Shape::Star, p(0.0, -1.0)),
            (Shape::Ring, p(0.7, 0.0)),
            (Shape::Cross, p(0.0, -0.95)),
            (Shape::Moon, p(-0.6, 0.0)),
        ];
        for (shape, mark) in marks {
            assert!(distance(shape, mark) < 0.0, "{shape:?} misses its mark");
            for step in 0..16 {
                let angle = f64::from(step) / 16.0 * std::f64::consts::TAU;
                let far = p(1.2 * angle.cos() as f32, 1.2 * angle.sin() as f32);
                assert!(distance(shape, far) > 0.0, "{shape:?} reaches {far:?}");
            }
        }
        assert!(distance(Shape::Ring, p(0.0, 0.0)) > 0.0);
        assert!(distance(Shape::Moon, p(0.6, 0.0)) > 0.0);
        assert!(distance(Shape::Cross, p(0.6, 0.6)) > 0.0);
        assert!(distance(Shape::Star, p(0.0, 0.9)) > 0.0, "the star stands on two points");
    }

    #[test]
    fn stripes_cover_half() {
        let inside = (0..1000).filter(|i| stripes(*i as f32 * 0.01, 0.5) < 0.0).count();
        assert!((480..=520).contains(&inside), "{inside}");
    }
}
