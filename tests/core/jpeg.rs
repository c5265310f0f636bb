//! JPEGs are decoded to the pixels of libjpeg-turbo's own `djpeg`, or fail by name.
//!
//! The truth is Debian's `djpeg`, another version in another process than what is linked here. Files come
//! from `cjpeg` and `jpegtran` with options of every kind, and from hands that bend markers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // says why it skips, and what it counted

use std::collections::BTreeMap;
use std::path::Path;

use crate::jpeg_files::{
    Bench, bend, cjpeg_options, data_start, made, picture, rename_components, segments, tools,
};
use jpeg_encoder::{ColorType, Encoder};
use tldr_jpeg::{Jpeg, Limits, Region, Scale};
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::image::{DecodeOptions, RgbImage, decode};

const LIMITS: Limits = Limits { memory: 64 << 20, scans: 500 };

fn ours(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut image = RgbImage::default();
    decode(bytes, &DecodeOptions { max_pixels: 1 << 22, ..DecodeOptions::default() }, &mut image)
        .map(|()| image)
        .map_err(|error| error.detail)
}

/// What became of a file: a word for the tally.
fn compare(bench: &Bench, jpeg: &[u8], how: &str) -> &'static str {
    let (theirs, said) = bench.djpeg(&[], jpeg);
    match (ours(jpeg), theirs) {
        (Ok(own), Some(theirs)) => {
            assert_eq!((own.width, own.height), (theirs.width, theirs.height), "{how}");
            let largest = own.data.iter().zip(&theirs.data).map(|(a, b)| a.abs_diff(*b)).max();
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
            let ours_alone = [
                "no scan holds component",
                "the last scans are missing",
                "premature end of arithmetic-coded data",
                "expected JPEG",
            ];
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
    assert_eq!(sums[&(false, "the same pixels")], whole);
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
            let opened = Jpeg::open(&jpeg).unwrap();
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
            Jpeg::open(&jpeg).unwrap().decode(scale, all, &LIMITS, &mut whole).unwrap();
            for _ in 0..6 {
                let (left, top) = (rng.below(width as usize) as u32, rng.below(height as usize) as u32);
                let region = Region {
                    left,
                    top,
                    width: 1 + rng.below((width - left) as usize) as u32,
                    height: 1 + rng.below((height - top) as usize) as u32,
                };
                let mut out = vec![];
                let given = Jpeg::open(&jpeg).unwrap().decode(scale, region, &LIMITS, &mut out).unwrap();
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
fn a_progressive_jpeg_that_is_cut_between_two_scans_fails() {
    if !tools() {
        return;
    }
    let bench = Bench::new();
    let drawn = picture(64, 48, &mut Rng::new(6, Purpose::Synth, 1));
    for options in [&["-progressive"][..], &["-progressive", "-arithmetic"], &["-progressive", "-grayscale"]]
    {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let jpeg = bench.cjpeg(&options, &drawn).unwrap();
        ours(&jpeg).unwrap();
        let scans: Vec<usize> = (0..jpeg.len() - 1).filter(|&at| jpeg[at..at + 2] == [0xFF, 0xDA]).collect();
        assert!(scans.len() > 5, "{scans:?}");
        for &scan in &scans[1..] {
            let cut = [&jpeg[..scan], &[0xFF, 0xD9]].concat();
            let error = ours(&cut)
                .err()
                .unwrap_or_else(|| panic!("{options:?}, cut at {scan} of {scans:?}: decoded"));
            assert!(error.starts_with("JPEG: the last scans are missing: coefficient "), "{error}");
        }
    }
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
        Jpeg::open(jpeg).unwrap().decode(Scale::Full, all, &limits, &mut vec![]).map_err(|e| e.to_string())
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
