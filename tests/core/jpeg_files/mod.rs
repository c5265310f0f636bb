//! JPEGs for tests: what libjpeg-turbo's tools make with options of every kind, and hands that bend markers.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::process::Command;

use crate::support::wait;
use jpeg_encoder::{ColorType, Encoder};
use tldr_loader::hash::Rng;
use tldr_loader::image::RgbImage;

/// Whether libjpeg-turbo's tools are there; says so where they are not.
pub fn tools() -> bool {
    let found = ["cjpeg", "djpeg", "jpegtran"]
        .iter()
        .all(|tool| wait::started(Command::new(tool).arg("-version")).is_ok());
    if !found {
        println!("skipped: no cjpeg, djpeg and jpegtran here (Debian and Ubuntu: libjpeg-turbo-progs)");
    }
    found
}

/// A folder, and the tools run in it.
pub struct Bench(tempfile::TempDir);

impl Bench {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What `tool` writes of `input`; `None` where it writes nothing. With its complaints.
    pub fn run(&self, tool: &str, options: &[String], input: &[u8]) -> (Option<Vec<u8>>, String) {
        let (from, to) = (self.path("in"), self.path("out"));
        std::fs::write(&from, input).unwrap();
        let _ = std::fs::remove_file(&to);
        let mut command = Command::new(tool);
        command.args(options).arg("-outfile").arg(&to).arg(&from).current_dir(self.0.path());
        let ran = wait::output(&mut command);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let failed = !matches!(ran.status.code(), Some(0 | 2));
        (std::fs::read(&to).ok().filter(|out| !failed && !out.is_empty()), said)
    }

    pub fn cjpeg(&self, options: &[String], picture: &RgbImage) -> Option<Vec<u8>> {
        let mut input = format!("P6\n{} {}\n255\n", picture.width, picture.height).into_bytes();
        input.extend_from_slice(&picture.data);
        self.run("cjpeg", options, &input).0
    }

    /// djpeg's pixels, and what it complains of.
    pub fn djpeg(&self, options: &[&str], jpeg: &[u8]) -> (Option<RgbImage>, String) {
        let options: Vec<String> =
            ["-dct", "int", "-pnm"].iter().chain(options).map(ToString::to_string).collect();
        let (out, said) = self.run("djpeg", &options, jpeg);
        (out.and_then(|out| pnm(&out)), said)
    }
}

/// A binary PGM or PPM as RGB; `None` where it was cut.
fn pnm(bytes: &[u8]) -> Option<RgbImage> {
    let mut fields = vec![];
    let mut at = 2;
    while fields.len() < 3 {
        while bytes.get(at)?.is_ascii_whitespace() {
            at += 1;
        }
        let end = at + bytes[at..].iter().position(u8::is_ascii_whitespace)?;
        fields.push(std::str::from_utf8(&bytes[at..end]).ok()?.parse::<usize>().ok()?);
        at = end;
    }
    let (width, height, samples) = (fields[0], fields[1], &bytes[at + 1..]);
    let data: Vec<u8> = match &bytes[..2] {
        b"P5" => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        b"P6" => samples.to_vec(),
        _ => return None,
    };
    (data.len() == 3 * width * height).then_some(RgbImage { width, height, data })
}

/// Smooth parts, edges, noise, and a flat corner.
pub fn picture(width: usize, height: usize, rng: &mut Rng) -> RgbImage {
    let (a, b, noise) = (rng.range(3.0, 40.0), rng.range(3.0, 40.0), rng.range(0.0, 60.0));
    let mut image = RgbImage::new(width, height);
    for y in 0..height {
        for x in 0..width {
            let wave = 60.0 * (x as f64 / a).sin() + 50.0 * (y as f64 / b).cos();
            let edge = if (x + 2 * y) % 37 < 9 { 70.0 } else { 0.0 };
            let flat = 3 * x < width && 3 * y < height;
            for c in 0..3 {
                let value = 110.0 + wave * [1.0, 0.6, -0.8][c] + edge + rng.range(-noise, noise + 1e-9);
                image.data[3 * (y * width + x) + c] = if flat { 200 } else { value.clamp(0.0, 255.0) as u8 };
            }
        }
    }
    image
}

pub fn pick<'a, T: ?Sized>(rng: &mut Rng, choices: &[&'a T]) -> &'a T {
    choices[rng.below(choices.len())]
}

const SAMPLINGS: [&str; 16] = [
    "1x1",
    "2x1",
    "1x2",
    "2x2",
    "4x1",
    "4x2",
    "1x4",
    "3x1",
    "3x3,1x1,1x1",
    "2x2,2x1,2x1",
    "2x2,1x2,2x1",
    "1x1,2x1,2x1",
    "1x1,1x2,1x2",
    "1x1,2x2,2x2",
    "2x1,1x1,2x1",
    "3x2,1x2,1x1",
];

const SCRIPTS: [&str; 6] = [
    "0;\n1;\n2;\n",
    "0,1,2;\n",
    "0 1;\n2;\n",
    "2;\n0;\n1;\n",
    // Progressive: the usual one, and slices.
    "0,1,2: 0-0, 0, 1;\n0: 1-5, 0, 2;\n2: 1-63, 0, 1;\n1: 1-63, 0, 1;\n0: 6-63, 0, 2;\n0: 1-63, 2, 1;\n\
     0,1,2: 0-0, 1, 0;\n2: 1-63, 1, 0;\n1: 1-63, 1, 0;\n0: 1-63, 1, 0;\n",
    "0,1,2: 0-0, 0, 0;\n0: 1-2, 0, 0;\n0: 3-20, 0, 0;\n0: 21-63, 0, 0;\n1: 1-63, 0, 0;\n2: 1-63, 0, 0;\n",
];

/// Random options of cjpeg.
pub fn cjpeg_options(bench: &Bench, rng: &mut Rng) -> Vec<String> {
    let mut options = vec!["-quality".to_owned(), (1 + rng.below(100)).to_string()];
    let mut add = |words: &[&str]| options.extend(words.iter().map(ToString::to_string));
    let grey = rng.below(8) == 0;
    match rng.below(8) {
        _ if grey => add(&["-grayscale"]),
        0 => add(&["-rgb"]),
        _ => add(&["-sample", pick(rng, &SAMPLINGS)]),
    }
    match rng.below(6) {
        0 => add(&["-optimize"]),
        1 => add(&["-progressive"]),
        2 if !grey => {
            let script = pick(rng, &SCRIPTS);
            std::fs::write(bench.path("scans"), script).unwrap();
            add(&["-scans", "scans"]);
        }
        _ => {}
    }
    match rng.below(5) {
        0 => add(&["-restart", &(1 + rng.below(3)).to_string()]),
        1 => add(&["-restart", &format!("{}B", 1 + rng.below(20))]),
        _ => {}
    }
    if rng.below(6) == 0 {
        add(&["-arithmetic"]);
    }
    if rng.below(6) == 0 {
        add(&["-baseline"]);
    }
    if rng.below(6) == 0 {
        add(&["-smooth", "20"]);
    }
    add(&["-dct", pick(rng, &["int", "fast", "float"])]);
    options
}

pub fn jpegtran_options(rng: &mut Rng) -> Vec<String> {
    let mut options: Vec<String> = vec!["-copy".into(), "all".into()];
    let kinds: [&[&str]; 9] = [
        &["-rotate", "90"],
        &["-rotate", "180"],
        &["-flip", "horizontal"],
        &["-transpose"],
        &["-transverse", "-trim"],
        &["-grayscale"],
        &["-crop", "9x7+8+0"],
        &["-wipe", "16x8+0+0"],
        &[],
    ];
    options.extend(kinds[rng.below(kinds.len())].iter().map(ToString::to_string));
    let codings: [&[&str]; 6] = [
        &["-progressive"],
        &["-optimize"],
        &["-arithmetic"],
        &["-progressive", "-arithmetic"],
        &["-restart", "1"],
        &[],
    ];
    options.extend(codings[rng.below(codings.len())].iter().map(ToString::to_string));
    options
}

/// A file that cjpeg, and at times jpegtran, makes of a random picture; CMYK ones by another encoder.
pub fn made(bench: &Bench, rng: &mut Rng) -> Option<(Vec<u8>, String)> {
    const SIDES: [usize; 12] = [1, 2, 3, 7, 8, 9, 16, 17, 31, 48, 65, 130];
    let (width, height) = (SIDES[rng.below(SIDES.len())], SIDES[rng.below(SIDES.len())]);
    let drawn = picture(width, height, rng);
    if rng.below(12) == 0 {
        let kind = [ColorType::Cmyk, ColorType::CmykAsYcck][rng.below(2)];
        let mut jpeg = vec![];
        let mut encoder = Encoder::new(&mut jpeg, 1 + rng.below(100) as u8);
        encoder.set_progressive(rng.below(2) == 0);
        let cmyk: Vec<u8> = drawn.data.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], p[0] / 2]).collect();
        encoder.encode(&cmyk, width as u16, height as u16, kind).unwrap();
        return Some((jpeg, format!("{kind:?}, {width}x{height}")));
    }
    let options = cjpeg_options(bench, rng);
    let mut jpeg = bench.cjpeg(&options, &drawn)?;
    let mut how = format!("{width}x{height}: cjpeg {}", options.join(" "));
    if rng.below(3) == 0 {
        let options = jpegtran_options(rng);
        if let (Some(turned), _) = bench.run("jpegtran", &options, &jpeg) {
            how += &format!("; jpegtran {}", options.join(" "));
            jpeg = turned;
        }
    }
    Some((jpeg, how))
}

/// The marker segments in front of the first scan's data: where each starts and ends.
pub fn segments(jpeg: &[u8]) -> Vec<(usize, usize)> {
    let mut found = vec![];
    let mut at = 2;
    while at + 4 <= jpeg.len() && jpeg[at] == 0xFF {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        found.push((at, end.min(jpeg.len())));
        if jpeg[at + 1] == 0xDA {
            break;
        }
        at = end;
    }
    found
}

/// Where the coded data of the first scan start.
pub fn data_start(jpeg: &[u8]) -> usize {
    segments(jpeg).last().map_or(jpeg.len(), |&(_, end)| end)
}

/// Bends a file, as a hand with a hex editor would. Says how.
pub fn bend(jpeg: &mut Vec<u8>, rng: &mut Rng) -> String {
    let segments = segments(jpeg);
    let (start, end) = segments[rng.below(segments.len())];
    let insert =
        |jpeg: &mut Vec<u8>, at: usize, bytes: &[u8]| drop(jpeg.splice(at..at, bytes.iter().copied()));
    match rng.below(16) {
        0 | 1 => {
            let at = start + 2 + rng.below(end - start - 2);
            jpeg[at] = rng.next_u64() as u8;
            format!("byte {at} changed")
        }
        2 => {
            let at = start + 4 + rng.below((end - start).saturating_sub(4).max(1));
            let at = at.min(jpeg.len() - 1);
            jpeg[at] ^= 1 << rng.below(8);
            format!("a bit of byte {at} turned")
        }
        3 => {
            let marker = jpeg[start + 1];
            jpeg.drain(start..end);
            format!("segment {marker:02x} left out")
        }
        4 => {
            let copy = jpeg[start..end].to_vec();
            insert(jpeg, start, &copy);
            format!("segment {:02x} twice", copy[1])
        }
        5 => {
            let transform = rng.below(4) as u8;
            let mut app14 = b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0".to_vec();
            app14.push(transform);
            insert(jpeg, 2, &app14);
            format!("Adobe transform {transform}")
        }
        6 => {
            // Short and empty APPn; lengths 0 and 1 are not legal.
            let length = rng.below(9) as u8;
            let marker = [0xE0, 0xE1, 0xE2, 0xEE][rng.below(4)];
            let mut app = vec![0xFF, marker, 0, length];
            app.extend(std::iter::repeat_n(b'J', usize::from(length.saturating_sub(2))));
            insert(jpeg, 2, &app);
            format!("APP {marker:02x} of length {length}")
        }
        7 => {
            let garbage: Vec<u8> = (0..1 + rng.below(40)).map(|_| rng.below(255) as u8).collect();
            insert(jpeg, start, &garbage);
            format!("{} stray bytes before {:02x}", garbage.len(), jpeg[start + garbage.len() + 1])
        }
        8 => {
            insert(jpeg, start, &vec![0xFF; 1 + rng.below(5)]);
            "fill bytes".into()
        }
        9 => {
            let ids = [*b"RGB", [0, 1, 2], [1, 2, 3], [1, 34, 35], [2, 3, 1]][rng.below(5)];
            rename_components(jpeg, ids);
            format!("component ids {ids:?}")
        }
        10 => {
            let jfif = segments.iter().find(|(s, _)| jpeg[s + 1] == 0xE0);
            if let Some(&(s, e)) = jfif {
                jpeg.drain(s..e);
            }
            rename_components(jpeg, *b"RGB");
            "no JFIF, component ids RGB".into()
        }
        11 => {
            let keep = jpeg.len() * (30 + rng.below(66)) / 100;
            jpeg.truncate(keep.max(4));
            jpeg.extend([0xFF, 0xD9]);
            "cut, with an end marker".into()
        }
        12 => {
            let keep = rng.below(jpeg.len());
            jpeg.truncate(keep);
            "cut".into()
        }
        13 => {
            let data = data_start(jpeg);
            let at = data + rng.below((jpeg.len() - data).max(1));
            let at = at.min(jpeg.len() - 1);
            jpeg[at] ^= 1 << rng.below(8);
            format!("a bit of the data at {at} turned")
        }
        14 => {
            let restarts: Vec<usize> = (data_start(jpeg)..jpeg.len().saturating_sub(1))
                .filter(|&at| jpeg[at] == 0xFF && (0xD0..0xD8).contains(&jpeg[at + 1]))
                .collect();
            if restarts.is_empty() {
                insert(jpeg, 2, b"\xFF\xFE\0\x05odd");
                return "a comment".into();
            }
            let at = restarts[rng.below(restarts.len())];
            if rng.below(2) == 0 {
                jpeg.drain(at..at + 2);
                "a restart marker lost".into()
            } else {
                jpeg[at + 1] = 0xD0 + rng.below(8) as u8;
                "a restart marker renumbered".into()
            }
        }
        _ => {
            let padding = vec![0; 1 + rng.below(60)];
            let at = jpeg.len() - 2;
            insert(jpeg, at, &padding);
            format!("{} zero bytes before the end marker", padding.len())
        }
    }
}

/// Changes the ids of three components, in the frame header and in every scan header.
pub fn rename_components(jpeg: &mut [u8], ids: [u8; 3]) {
    let Some(&(frame, _)) =
        segments(jpeg).iter().find(|(s, _)| matches!(jpeg[s + 1], 0xC0..=0xC2 | 0xC9 | 0xCA))
    else {
        return;
    };
    if jpeg[frame + 9] != 3 {
        return;
    }
    let old: Vec<u8> = (0..3).map(|i| jpeg[frame + 10 + 3 * i]).collect();
    for (i, id) in ids.into_iter().enumerate() {
        jpeg[frame + 10 + 3 * i] = id;
    }
    for at in frame..jpeg.len() - 6 {
        if jpeg[at..at + 3] == [0xFF, 0xDA, 0] {
            for i in 0..usize::from(jpeg[at + 4].min(3)) {
                if let Some(id) = jpeg.get_mut(at + 5 + 2 * i) {
                    *id = old.iter().position(|o| o == id).map_or(*id, |place| ids[place]);
                }
            }
        }
    }
}
