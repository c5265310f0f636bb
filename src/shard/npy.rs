//! Reads uids from numpy's `.npy` files (format versions 1 to 3, little-endian).
//!
//! DataComp publishes its subsets so: `np.dtype("u8,u8")`, the two halves of each uid of 128 bits. Arrays of
//! text (`<U32`, `|S32`) hold uids as they are written.

use std::io::{self, Read};

use crate::shard::join::{of_halves, of_uid};

/// What a file starts with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that is read: of one-dimensional arrays they have 128 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Longest text of an array, in bytes.
const MAX_ITEM: usize = 1 << 12;

/// Items that are read at a time.
const ITEMS: usize = 1024;

/// Types of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    /// Two u64.
    Halves,
    /// Bytes, padded with zeros, this many.
    Bytes(usize),
    /// Code points of four bytes each, padded with zeros, this many.
    Points(usize),
}

impl Item {
    fn size(self) -> usize {
        match self {
            Self::Halves => 16,
            Self::Bytes(length) => length,
            Self::Points(length) => 4 * length,
        }
    }

    /// The type of the `descr` of a header, written without white space.
    fn parse(descr: &str) -> Option<Self> {
        if let Some(fields) = descr.strip_prefix("[(").and_then(|rest| rest.strip_suffix(")]")) {
            let halves = fields.split("),(").filter(|field| field.ends_with(",'<u8'")).count();
            return (halves == 2 && fields.split("),(").count() == 2).then_some(Self::Halves);
        }
        let text = descr.strip_prefix('\'')?.strip_suffix('\'')?;
        let length = |digits: &str| digits.parse().ok().filter(|&n: &usize| n > 0);
        let item = match text.as_bytes().get(..2)? {
            b"|S" | b"<S" => Self::Bytes(length(&text[2..])?),
            b"<U" => Self::Points(length(&text[2..])?),
            _ => return None,
        };
        (item.size() <= MAX_ITEM).then_some(item)
    }

    /// The uid in `bytes`, an item, as a text; `None` where they are none.
    fn text(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Halves => {
                let (high, low) = halves(bytes)?;
                Some(format!("{high:016x}{low:016x}"))
            }
            Self::Bytes(_) => {
                let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                Some(std::str::from_utf8(&bytes[..end]).ok()?.to_owned())
            }
            Self::Points(_) => {
                let points = bytes.as_chunks().0.iter().map(|&point| u32::from_le_bytes(point));
                points.take_while(|&point| point != 0).map(char::from_u32).collect()
            }
        }
    }

    /// The hash of the uid in `bytes`.
    fn uid(self, bytes: &[u8]) -> Option<u64> {
        match self {
            Self::Halves => halves(bytes).map(|(high, low)| of_halves(high, low)),
            Self::Bytes(_) | Self::Points(_) => self.text(bytes).map(|text| of_uid(&text)),
        }
    }
}

/// Two u64.
fn halves(bytes: &[u8]) -> Option<(u64, u64)> {
    let half = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some((half(0)?, half(8)?))
}

/// Takes the hash of a uid, and how to write it.
pub(super) type EachUid<'a> = dyn FnMut(u64, &dyn Fn() -> String) + 'a;

/// Hands the hash of every uid in `file` to `each`.
///
/// # Errors
/// What is wrong with the file, in words.
pub(super) fn uids(mut file: impl Read, each: &mut EachUid<'_>) -> Result<(), String> {
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "a file that ends early".to_owned(),
        _ => error.to_string(),
    };
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(cut)?;
    if !start.starts_with(MAGIC) {
        return Err("no .npy file".into());
    }
    // Version 1 has two bytes for the length of the header, the others four.
    let length = match start[6] {
        1 => {
            let mut bytes = [0; 2];
            file.read_exact(&mut bytes).map_err(cut)?;
            usize::from(u16::from_le_bytes(bytes))
        }
        2 | 3 => {
            let mut bytes = [0; 4];
            file.read_exact(&mut bytes).map_err(cut)?;
            u32::from_le_bytes(bytes) as usize
        }
        version => return Err(format!("version {version} of the format")),
    };
    if length > MAX_HEADER {
        return Err(format!("a header of {length} bytes"));
    }
    let mut header = vec![0; length];
    file.read_exact(&mut header).map_err(cut)?;
    let header: String = String::from_utf8_lossy(&header).chars().filter(|c| !c.is_whitespace()).collect();
    let (item, mut left) = parse(&header).ok_or_else(|| format!("an array with the header {header}"))?;
    let mut bytes = vec![0; ITEMS * item.size()];
    while left > 0 {
        let items = left.min(ITEMS as u64);
        let some = &mut bytes[..items as usize * item.size()];
        file.read_exact(some).map_err(cut)?;
        for bytes in some.chunks_exact(item.size()) {
            let uid = item.uid(bytes).ok_or("an item that is no text")?;
            each(uid, &|| item.text(bytes).unwrap_or_default());
        }
        left -= items;
    }
    match file.read(&mut [0; 1]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("more than its header says".into()),
        Err(error) => Err(cut(error)),
    }
}

/// Type and number of the items that a header without white space tells of; `None` where it is another's.
fn parse(header: &str) -> Option<(Item, u64)> {
    let after = |name: &str| header.split_once(name).map(|(_, rest)| rest);
    let descr = after("'descr':")?;
    let end = if descr.starts_with('[') { descr.find(']')? + 1 } else { descr.find(',')? };
    let item = Item::parse(&descr[..end])?;
    let shape = after("'shape':(")?.split_once(')')?.0;
    let count = shape.strip_suffix(',')?.parse().ok()?;
    Some((item, count))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u64>, String> {
        let mut found = vec![];
        uids(bytes, &mut |uid, text| {
            assert_eq!(of_uid(&text()), uid);
            found.push(uid);
        })?;
        Ok(found)
    }

    /// Made by `tests/golden/subset.py`.
    const HALVES: &[u8] = include_bytes!("../../tests/golden/subset/halves.npy");
    const TEXT: &[u8] = include_bytes!("../../tests/golden/subset/text.npy");
    const BYTES: &[u8] = include_bytes!("../../tests/golden/subset/bytes.npy");
    const UIDS: &str = include_str!("../../tests/golden/subset/uids.txt");

    #[test]
    fn every_kind_of_array_holds_the_same_uids() {
        let expected: Vec<u64> = UIDS.lines().map(of_uid).collect();
        assert_eq!(expected.len(), 5);
        for (name, file) in [("u8,u8", HALVES), ("U32", TEXT), ("S32", BYTES)] {
            assert_eq!(read(file).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_such_array_is_refused_and_never_a_panic() {
        for cut in 0..HALVES.len() {
            assert!(read(&HALVES[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&[HALVES, b"x"].concat()).unwrap_err().contains("more than"));
        for at in 0..128 {
            let mut damaged = HALVES.to_vec();
            damaged[at] ^= 0x11;
            let _ = read(&damaged);
        }
        let header =
            |text: &str| [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        for (wrong, why) in [
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }", "<f8"),
            ("{'descr': [('f0', '<u8'), ('f1', '<u4')], 'fortran_order': False, 'shape': (0,), }", "<u4"),
            ("{'descr': [('f0', '>u8'), ('f1', '>u8')], 'fortran_order': False, 'shape': (0,), }", ">u8"),
            ("{'descr': '|S32', 'fortran_order': False, 'shape': (1, 1), }", "shape"),
            ("{}", "{}"),
        ] {
            let error = read(&header(wrong)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
