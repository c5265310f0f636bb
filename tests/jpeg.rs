//! JPEGs are decoded to the pixels of libjpeg-turbo's own `djpeg`, or fail by name.
//!
//! The truth is Debian's `djpeg`, another version in another process than what is linked here. Files come
//! from `cjpeg` and `jpegtran` with options of every kind, and from hands that bend markers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // says why it skips, and what it counted

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use jpeg_encoder::{ColorType, Encoder};
use tldr_jpeg::{Jpeg, Limits, Region, Scale};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{DecodeOptions, RgbImage, decode};

const LIMITS: Limits = Limits { memory: 64 << 20, scans: 500 };

/// Whether libjpeg-turbo's tools are there; says so where they are not.
fn tools() -> bool {
    let found =
        ["cjpeg", "djpeg", "jpegtran"].iter().all(|tool| Command::new(tool).arg("-version").output().is_ok());
    if !found {
        println!("skipped: no cjpeg, djpeg and jpegtran here (Debian and Ubuntu: libjpeg-turbo-progs)");
    }
    found
}

/// A folder, and the tools run in it.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What `tool` writes of `input`; `None` where it writes nothing. With its complaints.
    fn run(&self, tool: &str, options: &[String], input: &[u8]) -> (Option<Vec<u8>>, String) {
        let (from, to) = (self.path("in"), self.path("out"));
        std::fs::write(&from, input).unwrap();
        let _ = std::fs::remove_file(&to);
        let mut command = Command::new(tool);
        command.args(options).arg("-outfile").arg(&to).arg(&from).current_dir(self.0.path());
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let failed = !matches!(ran.status.code(), Some(0 | 2));
        (std::fs::read(&to).ok().filter(|out| !failed && !out.is_empty()), said)
    }

    fn cjpeg(&self, options: &[String], picture: &RgbImage) -> Option<Vec<u8>> {
        let mut input = format!("P6\n{} {}\n255\n", picture.width, picture.height).into_bytes();
        input.extend_from_slice(&picture.data);
        self.run("cjpeg", options, &input).0
    }

    /// djpeg's pixels, and what it complains of.
    fn djpeg(&self, options: &[&str], jpeg: &[u8]) -> (Option<RgbImage>, String) {
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

fn ours(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut image = RgbImage::default();
    decode(bytes, &DecodeOptions { max_pixels: 1 << 22, ..DecodeOptions::default() }, &mut image)
        .map(|()| image)
        .map_err(|error| error.detail)
}

/// Smooth parts, edges, noise, and a flat corner.
fn picture(width: usize, height: usize, rng: &mut Rng) -> RgbImage {
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

fn pick<'a, T: ?Sized>(rng: &mut Rng, choices: &[&'a T]) -> &'a T {
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

const SCRIPTS: [&str; 8] = [
    "0;\n1;\n2;\n",
    "0,1,2;\n",
    "0 1;\n2;\n",
    "2;\n0;\n1;\n",
    // Progressive: the usual one, one that leaves the last refinement out, one of DC first only, and slices.
    "0,1,2: 0-0, 0, 1;\n0: 1-5, 0, 2;\n2: 1-63, 0, 1;\n1: 1-63, 0, 1;\n0: 6-63, 0, 2;\n0: 1-63, 2, 1;\n\
     0,1,2: 0-0, 1, 0;\n2: 1-63, 1, 0;\n1: 1-63, 1, 0;\n0: 1-63, 1, 0;\n",
    "0,1,2: 0-0, 0, 1;\n0: 1-63, 0, 2;\n1: 1-63, 0, 2;\n2: 1-63, 0, 2;\n",
    "0: 0-0, 0, 0;\n1: 0-0, 0, 0;\n2: 0-0, 0, 0;\n",
    "0,1,2: 0-0, 0, 0;\n0: 1-2, 0, 0;\n0: 3-20, 0, 0;\n0: 21-63, 0, 0;\n1: 1-63, 0, 0;\n2: 1-63, 0, 0;\n",
];

/// Random options of cjpeg.
fn cjpeg_options(bench: &Bench, rng: &mut Rng) -> Vec<String> {
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

fn jpegtran_options(rng: &mut Rng) -> Vec<String> {
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
fn made(bench: &Bench, rng: &mut Rng) -> Option<(Vec<u8>, String)> {
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
fn segments(jpeg: &[u8]) -> Vec<(usize, usize)> {
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
fn data_start(jpeg: &[u8]) -> usize {
    segments(jpeg).last().map_or(jpeg.len(), |&(_, end)| end)
}

/// Bends a file, as a hand with a hex editor would. Says how.
fn bend(jpeg: &mut Vec<u8>, rng: &mut Rng) -> String {
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
fn rename_components(jpeg: &mut [u8], ids: [u8; 3]) {
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

/// Whether a progressive JPEG leaves low frequencies unfinished. The library estimates them from the blocks around,
/// which version 3 does better than 2.
fn is_smoothed(jpeg: &[u8]) -> bool {
    let mut unfinished = BTreeMap::new();
    for at in 0..jpeg.len().saturating_sub(4) {
        if jpeg[at] != 0xFF || jpeg[at + 1] != 0xDA {
            continue;
        }
        let count = usize::from(jpeg[at + 4]);
        let Some(band) = jpeg.get(at + 5 + 2 * count..at + 8 + 2 * count) else { continue };
        for component in 0..count {
            for k in band[0]..=band[1].min(9) {
                unfinished.insert((jpeg[at + 5 + 2 * component], k), band[2] & 15);
            }
        }
    }
    let components: std::collections::BTreeSet<u8> =
        unfinished.keys().map(|&(component, _)| component).collect();
    components.iter().any(|&c| (0..10).any(|k| unfinished.get(&(c, k)).is_none_or(|&bits| bits > 0)))
}

/// What became of a file: a word for the tally.
fn compare(bench: &Bench, jpeg: &[u8], how: &str) -> &'static str {
    let (theirs, said) = bench.djpeg(&[], jpeg);
    match (ours(jpeg), theirs) {
        (Ok(own), Some(theirs)) => {
            assert_eq!((own.width, own.height), (theirs.width, theirs.height), "{how}");
            let largest = own.data.iter().zip(&theirs.data).map(|(a, b)| a.abs_diff(*b)).max();
            if largest != Some(0) && is_smoothed(jpeg) {
                return "smoothed, otherwise than djpeg 2";
            }
            assert_eq!(largest, Some(0), "{how}; djpeg: {said:?}");
            "the same pixels"
        }
        (Ok(_), None) => panic!("{how}: decoded, and djpeg fails: {said}"),
        (Err(error), None) => {
            assert!(!error.is_empty() && !error.contains("panicked"), "{how}: {error}");
            "failed, and in djpeg"
        }
        (Err(error), Some(_)) => {
            assert!(!error.is_empty() && !error.contains("panicked"), "{how}: {error}");
            // What is odd but whole is not refused: djpeg says why, in one of all its warnings, or the reason
            // is one that it does not look for.
            let (_, said) = bench.djpeg(&["-debug", "-debug", "-debug"], jpeg);
            let damage = [
                "remature end",
                "bad Huffman code",
                "bad arithmetic code",
                "Inconsistent progression",
                "instead of RST",
            ];
            let ours_alone =
                ["no scan holds component", "premature end of arithmetic-coded data", "expected JPEG"];
            assert!(
                damage.iter().any(|warning| said.contains(warning))
                    || ours_alone.iter().any(|reason| error.contains(reason)),
                "{how}: {error}; djpeg decodes it"
            );
            "failed, damaged for djpeg"
        }
    }
}

#[test]
fn jpegs_of_every_kind_are_decoded_as_djpeg_does_or_fail_by_name() {
    if !tools() {
        return;
    }
    let tally: Vec<BTreeMap<(bool, &str), usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2u64)
            .map(|thread| {
                scope.spawn(move || {
                    let bench = Bench::new();
                    let mut tally = BTreeMap::new();
                    let mut number = thread;
                    let mut made_so_far = 0;
                    while made_so_far < 1000 {
                        let mut rng = Rng::new(1, Purpose::Synth, number);
                        number += 2;
                        // Some options exclude each other.
                        let Some((mut jpeg, mut how)) = made(&bench, &mut rng) else { continue };
                        made_so_far += 1;
                        let bent = rng.below(2) == 0;
                        if bent {
                            for _ in 0..1 + rng.below(2) {
                                if segments(&jpeg).is_empty() {
                                    break;
                                }
                                how += &format!("; {}", bend(&mut jpeg, &mut rng));
                            }
                        }
                        let how = format!("number {}, {how}", number - 2);
                        *tally.entry((bent, compare(&bench, &jpeg, &how))).or_insert(0) += 1;
                    }
                    tally
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sums = BTreeMap::new();
    for (what, count) in tally.into_iter().flatten() {
        *sums.entry(what).or_insert(0) += count;
    }
    println!("(bent, outcome): {sums:?}");
    let whole: usize = sums.iter().filter(|((bent, _), _)| !bent).map(|(_, count)| count).sum();
    // Whatever cjpeg and jpegtran make is decoded, and half of what was bent a little too.
    let smoothed = sums.get(&(false, "smoothed, otherwise than djpeg 2")).copied().unwrap_or(0);
    assert_eq!(sums[&(false, "the same pixels")] + smoothed, whole);
    assert!(smoothed < 60, "{smoothed}");
    assert!(sums[&(true, "the same pixels")] > 400);
}

#[test]
fn scaled_pictures_are_djpegs() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let mut compared = 0;
    for number in 0..150 {
        let mut rng = Rng::new(2, Purpose::Synth, number);
        let Some((jpeg, how)) = made(&bench, &mut rng) else { continue };
        for (scale, name) in [(Scale::Half, "1/2"), (Scale::Quarter, "1/4"), (Scale::Eighth, "1/8")] {
            let Some(theirs) = bench.djpeg(&["-scale", name], &jpeg).0 else { continue };
            let opened = Jpeg::open(&jpeg, false).unwrap();
            let (width, height) = (scale.of(opened.width()), scale.of(opened.height()));
            assert_eq!((width as usize, height as usize), (theirs.width, theirs.height), "{how}, {name}");
            let mut out = vec![];
            opened.decode(scale, Region { left: 0, top: 0, width, height }, &LIMITS, &mut out).unwrap();
            assert!(out == theirs.data, "{how}, {name}");
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared}");
}

/// Rows and columns of a picture's region.
fn cut(data: &[u8], width: u32, region: Region) -> Vec<u8> {
    let rows = data.chunks_exact(3 * width as usize).skip(region.top as usize).take(region.height as usize);
    rows.flat_map(|row| &row[3 * region.left as usize..][..3 * region.width as usize]).copied().collect()
}

#[test]
fn a_region_has_the_pixels_of_the_whole() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let (mut parts, mut wholes) = (0, 0);
    for number in 0..250 {
        let mut rng = Rng::new(3, Purpose::Synth, number);
        let (width, height) = (40 + rng.below(300), 20 + rng.below(200));
        let options = cjpeg_options(&bench, &mut rng);
        let Some(jpeg) = bench.cjpeg(&options, &picture(width, height, &mut rng)) else { continue };
        let how = format!("number {number}, {width}x{height}: cjpeg {}", options.join(" "));
        for scale in Scale::SMALLEST_FIRST {
            let (width, height) = (scale.of(width as u32), scale.of(height as u32));
            let all = Region { left: 0, top: 0, width, height };
            let mut whole = vec![];
            Jpeg::open(&jpeg, false).unwrap().decode(scale, all, &LIMITS, &mut whole).unwrap();
            for _ in 0..6 {
                let (left, top) = (rng.below(width as usize) as u32, rng.below(height as usize) as u32);
                let region = Region {
                    left,
                    top,
                    width: 1 + rng.below((width - left) as usize) as u32,
                    height: 1 + rng.below((height - top) as usize) as u32,
                };
                let mut out = vec![];
                let given =
                    Jpeg::open(&jpeg, false).unwrap().decode(scale, region, &LIMITS, &mut out).unwrap();
                let inside = Region { left: left - given.left, top: top - given.top, ..region };
                assert!(
                    cut(&out, given.width, inside) == cut(&whole, width, region),
                    "{how}; {scale:?}, {region:?} in {given:?}"
                );
                if given == all { wholes += 1 } else { parts += 1 }
            }
        }
    }
    println!("{parts} in part, {wholes} whole");
    assert!(parts > 2000, "{parts} {wholes}");
}

#[test]
fn a_cut_or_holed_jpeg_fails() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let mut unnoticed = vec![];
    let mut tried = 0;
    for number in 0..120 {
        let mut rng = Rng::new(4, Purpose::Synth, number);
        let mut options = cjpeg_options(&bench, &mut rng);
        // Large enough for a hole.
        options[1] = (80 + rng.below(21)).to_string();
        let Some(jpeg) = bench.cjpeg(&options, &picture(320, 240, &mut rng)) else { continue };
        let data = data_start(&jpeg);
        if jpeg.len() < data + 12_000 {
            continue;
        }
        let mut check = |bytes: &[u8], what: String| {
            tried += 1;
            if ours(bytes).is_ok() {
                unnoticed.push(format!("number {number}, cjpeg {}: {what}", options.join(" ")));
            }
        };
        for percent in [30, 45, 60, 75, 90, 95] {
            let mut cut = jpeg[..jpeg.len() * percent / 100].to_vec();
            check(&cut, format!("cut at {percent}%"));
            cut.extend([0xFF, 0xD9]);
            check(&cut, format!("cut at {percent}%, with an end marker"));
            cut.truncate(cut.len() - 2);
            cut.resize(jpeg.len() - 2, 0);
            cut.extend([0xFF, 0xD9]);
            check(&cut, format!("zeros from {percent}% on"));
        }
        for _ in 0..6 {
            let at = data + rng.below(jpeg.len() - data - 4000);
            let mut holed = jpeg.clone();
            holed[at..at + 4000].fill(0);
            check(&holed, format!("4,000 zero bytes at {at} of {}", jpeg.len()));
            let mut longer = jpeg.clone();
            longer.splice(at..at, [0; 4000]);
            check(&longer, format!("4,000 more zero bytes at {at} of {}", jpeg.len()));
        }
    }
    println!("{tried} tried");
    assert!(unnoticed.is_empty() && tried > 2000, "{tried} tried:\n{}", unnoticed.join("\n"));
}

/// What zune-jpeg made garbage or nothing of.
#[test]
fn odd_but_whole_jpegs_are_decoded_as_djpeg_does() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let mut rng = Rng::new(5, Purpose::Synth, 0);
    let drawn = picture(157, 101, &mut rng);
    std::fs::write(bench.path("scans"), "0;\n1;\n2;\n").unwrap();
    let cjpeg = |options: &str| {
        let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        bench.cjpeg(&options, &drawn).unwrap_or_else(|| panic!("cjpeg {options:?}"))
    };
    let plain = cjpeg("-quality 85");
    let mut files = vec![
        ("2x2 in three scans", cjpeg("-sample 2x2 -scans scans")),
        ("1x2 in three scans", cjpeg("-sample 1x2 -scans scans")),
        ("chroma sampled more than luma", cjpeg("-sample 1x1,2x2,2x2")),
        ("sampling factor 3", cjpeg("-sample 3x1")),
        ("arithmetic coding", cjpeg("-arithmetic")),
        ("arithmetic coding, progressive", cjpeg("-arithmetic -progressive")),
    ];
    let with = |at: usize, bytes: &[u8]| {
        let mut jpeg = plain.clone();
        jpeg.splice(at..at, bytes.iter().copied());
        jpeg
    };
    files.push(("JFIF with Adobe transform 0", with(20, b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0\0")));
    files.push(("short APP1", with(20, b"\xFF\xE1\0\x04Ex")));
    files.push(("short APP14", with(20, b"\xFF\xEE\0\x07Adobe")));
    files.push(("APP2 of length 0", with(20, b"\xFF\xE2\0\0")));
    files.push(("APP2 of length 1", with(20, b"\xFF\xE2\0\x01")));
    let mut rgb = plain.clone();
    rgb.drain(2..20);
    rename_components(&mut rgb, *b"RGB");
    files.push(("component ids R G B", rgb));
    let mut untold = plain.clone();
    for (start, end) in segments(&plain).into_iter().rev() {
        if plain[start + 1] == 0xC4 {
            untold.drain(start..end);
        }
    }
    files.push(("no Huffman tables", untold));
    let cmyk: Vec<u8> = drawn.data.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 200]).collect();
    let mut jpeg = vec![];
    Encoder::new(&mut jpeg, 90).encode(&cmyk, 157, 101, ColorType::Cmyk).unwrap();
    let adobe = jpeg.windows(5).position(|w| w == b"Adobe").unwrap();
    jpeg[adobe + 11] = 1;
    files.push(("CMYK with transform 1", jpeg));
    for (what, jpeg) in files {
        assert_eq!(compare(&bench, &jpeg, what), "the same pixels", "{what}: {:?}", ours(&jpeg).err());
    }
}

#[test]
fn a_missing_scan_fails_by_its_component() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let drawn = picture(64, 48, &mut Rng::new(6, Purpose::Synth, 0));
    std::fs::write(bench.path("scans"), "0;\n1;\n2;\n").unwrap();
    let options: Vec<String> = ["-scans", "scans"].map(str::to_owned).to_vec();
    let mut jpeg = bench.cjpeg(&options, &drawn).unwrap();
    let last = jpeg.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
    jpeg.truncate(last);
    jpeg.extend([0xFF, 0xD9]);
    assert_eq!(ours(&jpeg).unwrap_err(), "JPEG: no scan holds component 3 of 3");
}

#[test]
fn scans_and_memory_are_bounded() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let drawn = picture(640, 480, &mut Rng::new(7, Purpose::Synth, 0));
    let jpeg = bench.cjpeg(&["-progressive".to_owned()], &drawn).unwrap();
    let all = Region { left: 0, top: 0, width: 640, height: 480 };
    let decoded = |jpeg: &[u8], limits: Limits| {
        Jpeg::open(jpeg, false)
            .unwrap()
            .decode(Scale::Full, all, &limits, &mut vec![])
            .map_err(|e| e.to_string())
    };
    decoded(&jpeg, LIMITS).unwrap();
    let error = decoded(&jpeg, Limits { scans: 9, ..LIMITS }).unwrap_err();
    assert_eq!(error, "more than 9 scans");
    let error = decoded(&jpeg, Limits { memory: 500_000, ..LIMITS }).unwrap_err();
    assert_eq!(error, "Memory limit exceeded");
    // A hostile one: its last scan a thousand times.
    let last = jpeg.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
    let mut hostile = jpeg[..last].to_vec();
    for _ in 0..1000 {
        hostile.extend_from_slice(&jpeg[last..jpeg.len() - 2]);
    }
    hostile.extend([0xFF, 0xD9]);
    let error = ours(&hostile).unwrap_err();
    assert!(error.contains("more than 500 scans") || error.contains("progression"), "{error}");
}

/// Golden files are decoded by PIL to the pixels beside them: see src/image/decode.rs. Here: that nothing of the
/// tools is needed to refuse what is cut.
#[test]
fn a_decoder_says_why() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/422-progressive.jpg");
    let jpeg = std::fs::read(golden).unwrap();
    for (bytes, expected) in [
        (&jpeg[..jpeg.len() / 2], "JPEG: Premature end of JPEG file"),
        (&jpeg[..3], "JPEG: Premature end of JPEG file"),
        (b"\xFF\xD8\xFF\xD9", "JPEG: JPEG datastream contains no image"),
    ] {
        assert_eq!(ours(bytes).unwrap_err(), expected);
    }
}
