//! Line charts as PNG, one below the other: just what a loss curve needs.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::error::{Error, Result};

/// Colours of lines that most people can tell apart (Okabe and Ito's blue and vermilion).
pub(super) const BLUE: Rgb<u8> = Rgb([0, 114, 178]);
pub(super) const ORANGE: Rgb<u8> = Rgb([213, 94, 0]);
const INK: Rgb<u8> = Rgb([60, 60, 60]);
const GRID: Rgb<u8> = Rgb([225, 225, 225]);
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// Pixels of a panel, and of the margins around its plot.
const WIDTH: u32 = 900;
const HEIGHT: u32 = 300;
const LEFT: u32 = 70;
const RIGHT: u32 = 20;
const TOP: u32 = 34;
const BOTTOM: u32 = 30;
/// Pixels of a dot of the font.
const DOT: u32 = 2;
/// Ticks of an axis, about.
const TICKS: f64 = 5.0;
/// Points up to which each is marked.
const MARKED: usize = 60;

/// A line of a panel.
pub(super) struct Line {
    pub(super) colour: Rgb<u8>,
    /// Step and value, steps ascending.
    pub(super) points: Vec<(u64, f32)>,
}

/// A chart over steps.
pub(super) struct Panel {
    pub(super) title: String,
    /// Whether the axis of values starts at 0.
    pub(super) from_zero: bool,
    pub(super) lines: Vec<Line>,
}

/// Draws `panels` into the file `path`, aside first and then renamed. Values that are not finite are
/// left out; many steps are averaged by column.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn draw(panels: &[Panel], path: &Path) -> Result<()> {
    let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT * panels.len() as u32, PAPER);
    for (i, panel) in panels.iter().enumerate() {
        draw_panel(&mut picture, panel, i as u32 * HEIGHT);
    }
    let cannot = |e: std::io::Error| Error::io(format!("write {}", path.display()), e);
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = Path::new(&aside);
    picture.save_with_format(aside, image::ImageFormat::Png).map_err(|e| cannot(std::io::Error::other(e)))?;
    std::fs::rename(aside, path).map_err(cannot)
}

/// Where values lie on the paper.
struct Axes {
    last_step: f64,
    low: f64,
    high: f64,
    top: u32,
}

impl Axes {
    fn x(&self, step: f64) -> u32 {
        LEFT + (step / self.last_step * f64::from(WIDTH - LEFT - RIGHT)) as u32
    }

    fn y(&self, value: f64) -> u32 {
        let part = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.top + HEIGHT - BOTTOM - (part * f64::from(HEIGHT - TOP - BOTTOM)) as u32
    }
}

fn draw_panel(picture: &mut RgbImage, panel: &Panel, top: u32) {
    let points = || panel.lines.iter().flat_map(|line| &line.points).filter(|(_, v)| v.is_finite());
    text(picture, &panel.title, LEFT, top + 8);
    let values = || points().map(|(_, v)| f64::from(*v));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if !low.is_finite() {
        return;
    }
    let low = if panel.from_zero { low.min(0.0) } else { low };
    let step = tick((high - low).max(1e-6));
    let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    let last_step = points().map(|(s, _)| *s as f64).fold(1.0, f64::max);
    let axes = Axes { last_step, low, high: high.max(low + step), top };
    for k in 0..=((axes.high - axes.low) / step).round() as u32 {
        let value = axes.low + f64::from(k) * step;
        let y = axes.y(value);
        segment(picture, (LEFT, y), (WIDTH - RIGHT, y), GRID);
        let label = number(value, step);
        text(picture, &label, LEFT.saturating_sub(8 + width(&label)), y.saturating_sub(5));
    }
    let every = tick(last_step).max(1.0);
    for k in 0..=(last_step / every) as u32 {
        let label = number(f64::from(k) * every, every);
        let x = axes.x(f64::from(k) * every);
        text(picture, &label, x.saturating_sub(width(&label) / 2), top + HEIGHT - BOTTOM + 8);
    }
    for line in &panel.lines {
        draw_line(picture, line, &axes);
    }
}

fn draw_line(picture: &mut RgbImage, line: &Line, axes: &Axes) {
    // One point per column: the mean of the steps that fall into it.
    let mut columns: Vec<(u32, f64, u32)> = vec![];
    for &(step, value) in line.points.iter().filter(|(_, v)| v.is_finite()) {
        let x = axes.x(step as f64);
        match columns.last_mut() {
            Some(last) if last.0 == x => *last = (x, last.1 + f64::from(value), last.2 + 1),
            _ => columns.push((x, f64::from(value), 1)),
        }
    }
    let places: Vec<(u32, u32)> =
        columns.iter().map(|&(x, sum, count)| (x, axes.y(sum / f64::from(count)))).collect();
    for pair in places.windows(2) {
        segment(picture, pair[0], pair[1], line.colour);
        // Two pixels thick.
        segment(picture, (pair[0].0, pair[0].1 + 1), (pair[1].0, pair[1].1 + 1), line.colour);
    }
    if places.len() <= MARKED {
        for &(x, y) in &places {
            block(picture, x.saturating_sub(2), y.saturating_sub(2), 6, line.colour);
        }
    }
}

/// A round distance between ticks over a range.
fn tick(range: f64) -> f64 {
    let raw = range / TICKS;
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|&t| t >= raw * 0.999).unwrap_or(10.0 * power)
}

/// A value with the decimals that ticks `step` apart need.
fn number(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// A straight line between two pixels (Bresenham).
fn segment(picture: &mut RgbImage, (x0, y0): (u32, u32), (x1, y1): (u32, u32), colour: Rgb<u8>) {
    let (mut x, mut y, x1, y1) = (i64::from(x0), i64::from(y0), i64::from(x1), i64::from(y1));
    let (dx, dy) = ((x1 - x).abs(), -(y1 - y).abs());
    let (sx, sy) = ((x1 - x).signum(), (y1 - y).signum());
    let mut error = dx + dy;
    loop {
        block(picture, x as u32, y as u32, 1, colour);
        if (x, y) == (x1, y1) {
            return;
        }
        let twice = 2 * error;
        if twice >= dy {
            error += dy;
            x += sx;
        }
        if twice <= dx {
            error += dx;
            y += sy;
        }
    }
}

/// A square of pixels; what is beyond the paper is left out.
fn block(picture: &mut RgbImage, x: u32, y: u32, side: u32, colour: Rgb<u8>) {
    for (px, py) in (0..side).flat_map(|dy| (0..side).map(move |dx| (x + dx, y + dy))) {
        if px < picture.width() && py < picture.height() {
            picture.put_pixel(px, py, colour);
        }
    }
}

/// Pixels that a text is wide.
fn width(text: &str) -> u32 {
    text.chars().count() as u32 * 4 * DOT
}

fn text(picture: &mut RgbImage, text: &str, x: u32, y: u32) {
    for (i, c) in text.chars().enumerate() {
        let glyph = glyph(c);
        for dot in (0..15).filter(|dot| glyph >> (14 - dot) & 1 == 1) {
            let (column, row) = (dot % 3, dot / 3);
            block(picture, x + (i as u32 * 4 + column) * DOT, y + row * DOT, DOT, INK);
        }
    }
}

/// A character as 5 rows of 3 dots, an octal digit for each; blank where there is none.
fn glyph(c: char) -> u16 {
    match c.to_ascii_lowercase() {
        '0' => 0o75557,
        '1' => 0o26227,
        '2' => 0o71747,
        '3' => 0o71717,
        '4' => 0o55711,
        '5' => 0o74717,
        '6' => 0o74757,
        '7' => 0o71111,
        '8' => 0o75757,
        '9' => 0o75717,
        '.' => 0o00002,
        ',' => 0o00024,
        '-' => 0o00700,
        'a' => 0o25755,
        'b' => 0o65656,
        'c' => 0o34443,
        'd' => 0o65556,
        'e' => 0o74747,
        'f' => 0o74744,
        'g' => 0o34553,
        'h' => 0o55755,
        'i' => 0o72227,
        'j' => 0o11152,
        'k' => 0o55655,
        'l' => 0o44447,
        'm' => 0o57755,
        'n' => 0o65555,
        'o' => 0o25552,
        'p' => 0o65644,
        'q' => 0o25563,
        'r' => 0o65655,
        's' => 0o34216,
        't' => 0o72222,
        'u' => 0o55557,
        'v' => 0o55552,
        'w' => 0o55775,
        'x' => 0o55255,
        'y' => 0o55222,
        'z' => 0o71247,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn panel(points: Vec<(u64, f32)>) -> Panel {
        Panel { title: "loss".into(), from_zero: true, lines: vec![Line { colour: BLUE, points }] }
    }

    #[test]
    fn a_falling_line_falls() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        let points = (1..=1000).map(|s| (s, 10.0 - s as f32 / 100.0)).collect();
        draw(&[panel(points), panel(vec![])], &path).unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (WIDTH, 2 * HEIGHT));
        let heights: Vec<u32> = (LEFT + 5..WIDTH - RIGHT - 5)
            .map(|x| (0..HEIGHT).find(|&y| *picture.get_pixel(x, y) == BLUE).unwrap())
            .collect();
        assert!(heights.is_sorted(), "{heights:?}");
        assert!(heights.last().unwrap() - heights[0] > HEIGHT / 2);
    }

    #[test]
    fn odd_values_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        for points in [
            vec![],
            vec![(0, 0.0)],
            vec![(7, f32::NAN), (8, f32::INFINITY)],
            vec![(1, 5.0), (2, 5.0)],
            vec![(1, -1e30), (u64::MAX, 1e30)],
        ] {
            draw(&[panel(points)], &path).unwrap();
        }
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!([1.0, 4.0, 9.9, 0.3, 256.0].map(tick), [0.2, 1.0, 2.0, 0.1, 100.0]);
        assert_eq!([number(0.30000001, 0.1), number(200.0, 100.0)], ["0.3", "200"]);
    }
}
