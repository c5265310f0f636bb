//! Which way up a picture is, as its file says: by EXIF, else by XMP, from where PIL's `ImageOps.exif_transpose`
//! takes them.
//!
//! Looked at are APP1 segments of a JPEG; `eXIf`, the text `Raw profile type exif` and the text `XML:com.adobe.xmp`
//! of a PNG, wherever they stand; the chunks `EXIF` and `XMP ` of a WebP whose header announces them. What cannot be
//! read says nothing: the picture is whole without it.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::chunks;
use super::probe::ImageFormat;

/// Longest text of a PNG that is decompressed: PIL's limit.
const MAX_TEXT: u64 = 1 << 20;

/// What stands before EXIF data in a JPEG, and in some files of other formats.
const EXIF: &[u8] = b"Exif\0\0";

/// What stands before XMP in a JPEG.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// How a picture in a file of `format` has to be turned; `None` where it is upright, or nothing is said.
pub(super) fn orientation(bytes: &[u8], format: ImageFormat) -> Option<Orientation> {
    let said = match format {
        ImageFormat::Jpeg => of_jpeg(bytes),
        ImageFormat::Png => of_png(bytes),
        ImageFormat::Webp => of_webp(bytes),
    };
    let value = said.exif.as_deref().and_then(of_exif).or_else(|| of_xmp(said.xmp.as_deref()?))?;
    Orientation::from_exif(value).filter(|&orientation| orientation != Orientation::NoTransforms)
}

/// What a file holds that says an orientation.
#[derive(Default)]
struct Said {
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
}

fn of_jpeg(bytes: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = bytes.get(2..).unwrap_or_default();
    // As libjpeg goes from marker to marker: past stray bytes, to the first scan.
    while let Some(start) = rest.iter().position(|&byte| byte == 0xFF) {
        rest = &rest[start + 1..];
        let (marker, length) = match *rest {
            [0xDA | 0xD9, ..] => break,
            [0x00 | 0x01 | 0xD0..=0xD8 | 0xFF, ..] => continue,
            [marker, high, low, ..] => (marker, usize::from(u16::from_be_bytes([high, low]))),
            _ => break,
        };
        let Some(segment) = rest.get(3..1 + length) else { break };
        rest = &rest[1 + length..];
        if marker != 0xE1 {
            continue;
        }
        if let Some(part) = segment.strip_prefix(EXIF) {
            // More than fits a segment goes on in the next.
            said.exif.get_or_insert_default().extend_from_slice(part);
        } else if let Some(xmp) = segment.strip_prefix(XMP) {
            said.xmp = Some(xmp.to_vec());
        }
    }
    said
}

fn of_png(bytes: &[u8]) -> Said {
    let (mut said, mut profile, mut has_pixels) = (Said::default(), None, false);
    for chunk in chunks::of_png(bytes).take_while(|chunk| chunk.is_whole) {
        match &chunk.kind {
            // What follows belongs to the next picture of an animation.
            b"fcTL" if has_pixels => break,
            b"IEND" => break,
            b"IDAT" => has_pixels = true,
            b"eXIf" => said.exif = Some(chunk.data.to_vec()),
            kind @ (b"tEXt" | b"zTXt" | b"iTXt") => match text(kind, chunk.data) {
                Some((b"XML:com.adobe.xmp", value)) => said.xmp = Some(value),
                Some((b"Raw profile type exif", value)) => profile = Some(value),
                _ => {}
            },
            _ => {}
        }
    }
    said.exif = said.exif.or_else(|| raw_profile(&profile?));
    said
}

/// Keyword and value of a text chunk.
fn text<'a>(kind: &[u8; 4], chunk: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
    fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let zero = bytes.iter().position(|&byte| byte == 0)?;
        Some((&bytes[..zero], &bytes[zero + 1..]))
    }
    let (keyword, value) = split(chunk)?;
    let (is_packed, value) = match (kind, value) {
        (b"tEXt", _) => (false, value),
        (b"zTXt", [0, packed @ ..]) => (true, packed),
        // A language and a translated keyword stand before the text.
        (b"iTXt", [packed, 0, rest @ ..]) => (*packed != 0, split(split(rest)?.1)?.1),
        _ => return None,
    };
    if !is_packed {
        return Some((keyword, value.to_vec()));
    }
    let mut text = Vec::new();
    let read = ZlibDecoder::new(value).take(MAX_TEXT + 1).read_to_end(&mut text).ok()?;
    (read as u64 <= MAX_TEXT).then_some((keyword, text))
}

/// What ImageMagick writes: an empty line, the name, the length, then hexadecimal digits in lines.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3);
    let digits: Vec<u8> = lines.flatten().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let value = |digit: u8| char::from(digit).to_digit(16);
    // Two digits make no more than 255.
    digits.chunks(2).map(|pair| Some((value(*pair.first()?)? * 16 + value(*pair.get(1)?)?) as u8)).collect()
}

fn of_webp(bytes: &[u8]) -> Said {
    let mut said = Said::default();
    let mut chunks = chunks::of_webp(bytes).take_while(|chunk| chunk.is_whole);
    let Some(header) = chunks.next().filter(|chunk| &chunk.kind == b"VP8X") else { return said };
    let flags = header.data.first().copied().unwrap_or_default();
    for chunk in chunks {
        let place = match &chunk.kind {
            b"EXIF" if flags & 0x08 != 0 => &mut said.exif,
            b"XMP " if flags & 0x04 != 0 => &mut said.xmp,
            _ => continue,
        };
        place.get_or_insert_with(|| chunk.data.to_vec());
    }
    said
}

/// The orientation in EXIF data, 0 where what stands there is no number; `None` where none stands there.
fn of_exif(exif: &[u8]) -> Option<u8> {
    let exif = exif.strip_prefix(EXIF).unwrap_or(exif);
    let tiff = exif.strip_prefix(EXIF).unwrap_or(exif);
    // PIL takes a header with its bytes swapped, too.
    let big_endian = match tiff.get(..4)? {
        b"II*\0" | b"II\0*" => false,
        b"MM\0*" | b"MM*\0" => true,
        _ => return None,
    };
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = tiff.get(at..at.checked_add(length)?)?;
        let digit = |value: usize, byte: &u8| value << 8 | usize::from(*byte);
        Some(if big_endian { bytes.iter().fold(0, digit) } else { bytes.iter().rev().fold(0, digit) })
    };
    let directory = number(4, 4)?;
    for entry in 0..number(directory, 2)? {
        let at = directory.checked_add(2 + 12 * entry)?;
        let (tag, kind, count) = (number(at, 2)?, number(at + 2, 2)?, number(at + 4, 4)?);
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => 0,
        };
        let length = count.saturating_mul(size);
        if tag != 0x0112 || length == 0 {
            continue;
        }
        let value = if length > 4 { number(at + 8, 4)? } else { at + 8 };
        if tiff.get(value..value.saturating_add(length)).is_none() {
            continue;
        }
        let is_whole_number = matches!(kind, 3 | 4 | 6 | 8 | 9 | 13);
        return Some(if is_whole_number { u8::try_from(number(value, size)?).unwrap_or(0) } else { 0 });
    }
    None
}

/// The first digit that follows `tiff:Orientation`, as attribute or element.
fn of_xmp(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        match xmp[at + NAME.len()..] {
            [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(digit - b'0'),
            _ => None,
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// EXIF data with one tag.
    fn exif(kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let mut tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01".to_vec();
        tiff.extend(kind.to_le_bytes());
        tiff.extend(count.to_le_bytes());
        tiff.extend(value);
        tiff.extend([0; 4]);
        tiff
    }

    fn upright() -> Vec<u8> {
        exif(3, 1, [1, 0, 0, 0])
    }

    fn turned() -> Vec<u8> {
        exif(3, 1, [6, 0, 0, 0])
    }

    const XMP_6: &[u8] = b"<rdf:Description tiff:Orientation=\"6\"/>";

    #[test]
    fn tags_are_read_as_pillow_does() {
        // Right: what PIL 13's Exif.get(0x0112) says: 0 for what turns nothing, None for absent.
        let mut big_endian = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0".to_vec();
        let far = |count: u32, at: u8| [exif(3, count, [at, 0, 0, 0]), vec![8, 0, 6, 0, 3, 0]].concat();
        for (tiff, expected) in [
            (turned(), Some(6)),
            (exif(4, 1, [6, 0, 0, 0]), Some(6)),
            (exif(8, 1, [6, 0, 0, 0]), Some(6)),
            (exif(6, 1, [6, 0, 0, 0]), Some(6)),
            (exif(3, 2, [6, 0, 8, 0]), Some(6)),
            (far(3, 26), Some(8)),
            (far(4000, 26), None),
            (exif(1, 1, [6, 0, 0, 0]), Some(0)),
            (exif(2, 2, [b'6', 0, 0, 0]), Some(0)),
            (exif(99, 1, [6, 0, 0, 0]), None),
            (exif(3, 0, [6, 0, 0, 0]), None),
            (exif(3, 1, [9, 0, 0, 0]), Some(9)),
            (exif(4, 1, [6, 1, 0, 0]), Some(0)),
            (big_endian.clone(), Some(6)),
            ([EXIF, &turned()].concat(), Some(6)),
            ([EXIF, EXIF, &turned()].concat(), Some(6)),
            ([EXIF, EXIF, EXIF, &turned()].concat(), None),
            (turned()[..18].to_vec(), None),
            (b"II*\0\xFF\xFF\xFF\xFF".to_vec(), None),
            (vec![], None),
        ] {
            assert_eq!(of_exif(&tiff), expected, "{tiff:02x?}");
        }
        big_endian[2..4].reverse();
        assert_eq!(of_exif(&big_endian), Some(6));
    }

    #[test]
    fn xmp_is_an_attribute_or_an_element() {
        for (xmp, expected) in [
            (XMP_6, Some(6)),
            (b"<tiff:Orientation>8</tiff:Orientation>", Some(8)),
            (b"tiff:Orientation tiff:Orientation=\"3", Some(3)),
            (b"tiff:Orientation='6'", None),
            (b"tiff:Orientation=\"", None),
            (b"", None),
        ] {
            assert_eq!(of_xmp(xmp), expected);
        }
    }

    /// A PNG's chunks: `before` pixels, and `after`.
    fn png(before: &[(&[u8; 4], Vec<u8>)], after: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1A\n".to_vec();
        before.iter().for_each(|(kind, data)| chunks::push(&mut png, kind, data));
        chunks::push(&mut png, b"IDAT", b"pixels");
        after.iter().for_each(|(kind, data)| chunks::push(&mut png, kind, data));
        chunks::push(&mut png, b"IEND", b"");
        png
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn a_png_says_it_in_many_ways() {
        let (six, none) = (Some(Orientation::Rotate90), None);
        let xmp = |head: &[u8], text: &[u8]| [b"XML:com.adobe.xmp\0", head, text].concat();
        let hex: String = turned().iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, second) = hex.split_at(30);
        let raw = format!("Raw profile type exif\0\nexif\n      26\n{first}\n{second}\n").into_bytes();
        let long = [vec![b' '; 1 << 20], XMP_6.to_vec()].concat();
        for (before, after, expected) in [
            (vec![], vec![], none),
            (vec![(b"eXIf", turned())], vec![], six),
            (vec![], vec![(b"eXIf", turned())], six),
            (vec![], vec![(b"fcTL", vec![]), (b"eXIf", turned())], none),
            (vec![(b"iTXt", xmp(&[0, 0, 0, 0], XMP_6))], vec![], six),
            (vec![(b"iTXt", xmp(&[1, 0, 0, 0], &packed(XMP_6)))], vec![], six),
            (vec![(b"iTXt", xmp(&[1, 0, 0, 0], &packed(&long)))], vec![], none),
            (vec![(b"iTXt", xmp(&[1, 1, 0, 0], &packed(XMP_6)))], vec![], none),
            (vec![(b"tEXt", xmp(&[], XMP_6))], vec![], six),
            (vec![(b"tEXt", raw.clone())], vec![], six),
            (vec![(b"tEXt", raw), (b"eXIf", upright())], vec![], none),
            // EXIF comes first, whatever it says, unless it says nothing.
            (vec![(b"eXIf", upright()), (b"tEXt", xmp(&[], XMP_6))], vec![], none),
            (vec![(b"eXIf", exif(99, 1, [0; 4])), (b"tEXt", xmp(&[], XMP_6))], vec![], six),
        ] {
            let png = png(&before, &after);
            assert_eq!(orientation(&png, ImageFormat::Png), expected, "{before:02x?} {after:02x?}");
            // Cut anywhere, nothing panics.
            (0..png.len()).for_each(|cut| _ = orientation(&png[..cut], ImageFormat::Png));
        }
        let zipped = [b"Raw profile type exif\0\0", &packed(format!("\n\n\n{hex}").as_bytes())[..]].concat();
        assert_eq!(orientation(&png(&[(b"zTXt", zipped)], &[]), ImageFormat::Png), six);
    }

    #[test]
    fn a_webp_says_it_in_chunks_that_are_announced() {
        fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
            let mut chunk = [&kind[..], &(data.len() as u32).to_le_bytes(), data].concat();
            chunk.extend(vec![0; data.len() % 2]);
            chunk
        }
        for (flags, kind, data, is_turned) in [
            (0x08, b"EXIF", turned(), true),
            (0x08, b"EXIF", [EXIF, &turned()].concat(), true),
            (0x04, b"EXIF", turned(), false),
            (0x04, b"XMP ", XMP_6.to_vec(), true),
            (0x08, b"XMP ", XMP_6.to_vec(), false),
        ] {
            let header = chunk(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let webp =
                [b"RIFF\0\0\0\0WEBP", &header[..], &chunk(b"VP8L", b"odd"), &chunk(kind, &data)].concat();
            assert_eq!(orientation(&webp, ImageFormat::Webp).is_some(), is_turned, "{flags} {kind:?}");
            (0..webp.len()).for_each(|cut| _ = orientation(&webp[..cut], ImageFormat::Webp));
            let plain = [b"RIFF\0\0\0\0WEBP", &chunk(b"VP8L", b"odd")[..], &chunk(kind, &data)].concat();
            assert_eq!(orientation(&plain, ImageFormat::Webp), None);
        }
    }

    #[test]
    fn a_jpeg_says_it_in_segments_before_its_scan() {
        fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
            [&[0xFF, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat()
        }
        let exif = segment(0xE1, &[EXIF, &turned()].concat());
        let xmp = segment(0xE1, &[XMP, XMP_6].concat());
        let scan = segment(0xDA, b"");
        for (parts, is_turned) in [
            (vec![exif.clone()], true),
            (vec![xmp.clone()], true),
            (vec![b"stray \xFF\0\xFF".to_vec(), segment(0xE0, b"JFIF"), exif.clone()], true),
            (vec![segment(0xE1, &[EXIF, &upright()].concat()), xmp], false),
            // What does not fit one segment goes on in the next.
            (
                vec![
                    segment(0xE1, &[EXIF, &turned()[..12]].concat()),
                    segment(0xE1, &[EXIF, &turned()[12..]].concat()),
                ],
                true,
            ),
            (vec![scan, exif], false),
        ] {
            let jpeg = [&[0xFF, 0xD8][..], &parts.concat()].concat();
            assert_eq!(orientation(&jpeg, ImageFormat::Jpeg).is_some(), is_turned, "{parts:02x?}");
            (0..jpeg.len()).for_each(|cut| _ = orientation(&jpeg[..cut], ImageFormat::Jpeg));
        }
    }
}
