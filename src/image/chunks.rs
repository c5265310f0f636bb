//! The chunks of PNG and WebP files, and what of them is mended so that the decoders give the picture that PIL gives.

use std::borrow::Cow;

use flate2::Crc;

/// Bytes before the first chunk of a PNG.
const PNG_SIGNATURE: usize = 8;

/// A chunk of a file: all of it, or what there is where the file is cut.
pub(super) struct Chunk<'a> {
    pub(super) kind: [u8; 4],
    /// Offset of its first byte: of its length in a PNG, of its kind in a WebP.
    pub(super) start: usize,
    pub(super) data: &'a [u8],
    pub(super) is_whole: bool,
}

/// The chunks of a PNG. Only the last may be cut; one of which not even the kind is there is none.
pub(super) fn of_png(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    of(bytes, PNG_SIGNATURE, |head| {
        let [a, b, c, d, kind @ ..] = *head;
        (kind, u32::from_be_bytes([a, b, c, d]) as usize, 4)
    })
}

/// The chunks of a WebP; likewise.
pub(super) fn of_webp(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    of(bytes, 12, |head| {
        let [kind @ .., a, b, c, d] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        (kind, length, length % 2)
    })
}

/// `read` gives kind, length, and how many bytes follow the data.
fn of(
    bytes: &[u8],
    first: usize,
    read: impl Fn(&[u8; 8]) -> ([u8; 4], usize, usize),
) -> impl Iterator<Item = Chunk<'_>> {
    let mut start = first;
    std::iter::from_fn(move || {
        let (head, rest) = bytes.get(start..)?.split_first_chunk()?;
        let (kind, length, tail) = read(head);
        let chunk = Chunk {
            kind,
            start,
            data: &rest[..length.min(rest.len())],
            is_whole: rest.len().checked_sub(length).is_some_and(|left| left >= tail),
        };
        // Beyond the end there is none.
        start = start.saturating_add(8).saturating_add(length).saturating_add(tail);
        Some(chunk)
    })
}

/// A PNG that is cut behind the start of its pixels, with its end put in place: where all pixels are there, it can be
/// decoded. `None` where it has its end.
pub(super) fn ended(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut end, mut pixels) = (PNG_SIGNATURE, None);
    let mut has_pixels = false;
    for chunk in of_png(bytes) {
        match &chunk.kind {
            b"IEND" if chunk.is_whole => return None,
            b"IDAT" => {
                has_pixels = true;
                pixels = (!chunk.is_whole).then_some(chunk.data);
            }
            _ => {}
        }
        if chunk.is_whole {
            // Length, kind and checksum.
            end = chunk.start + chunk.data.len() + 12;
        }
    }
    if !has_pixels {
        return None;
    }
    let mut whole = bytes[..end].to_vec();
    if let Some(data) = pixels {
        push(&mut whole, b"IDAT", data);
    }
    push(&mut whole, b"IEND", &[]);
    Some(whole)
}

/// Appends a chunk to a PNG.
pub(super) fn push(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut checksum = Crc::new();
    checksum.update(kind);
    checksum.update(data);
    // It is part of a chunk whose length fitted.
    png.extend((data.len() as u32).to_be_bytes());
    png.extend(kind);
    png.extend(data);
    png.extend(checksum.sum().to_be_bytes());
}

/// An animated WebP whose first picture is put on the canvas as it is, whatever it asks for: libwebp blends it with
/// nothing, and so what lies below transparent pixels stays.
pub(super) fn unblended(bytes: &[u8]) -> Cow<'_, [u8]> {
    /// Where in the data of a chunk the flags stand, and the one that says not to blend.
    const FLAGS: usize = 15;
    const AS_IT_IS: u8 = 0x02;
    let first = of_webp(bytes).find(|chunk| &chunk.kind == b"ANMF" && chunk.data.len() > FLAGS);
    match first {
        Some(chunk) if chunk.data[FLAGS] & AS_IT_IS == 0 => {
            let mut changed = bytes.to_vec();
            changed[chunk.start + 8 + FLAGS] |= AS_IT_IS;
            Cow::Owned(changed)
        }
        _ => Cow::Borrowed(bytes),
    }
}
