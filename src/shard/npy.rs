//! Reads tables of uids from numpy's `.npy` files (format versions 1 to 3, little-endian).
//!
//! DataComp publishes its subsets as `np.dtype("u8,u8")`, the two halves of each uid of 128 bits. Arrays of text (`<U32`,
//! `|S32`) hold uids as they are written. A structured array may have numbers beside one of these:
//! `np.dtype([("uid", "u8,u8"), ("clip_l14", "f4")])`.

use std::io::{self, Read};

use half::f16;

use crate::shard::join::{JoinBy, UID, of_halves};

/// What a file starts with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that is read: of one-dimensional arrays they have 128 bytes, and 20 more for each field.
const MAX_HEADER: usize = 1 << 16;

/// Longest text of an array, in bytes.
const MAX_ITEM: usize = 1 << 12;

/// Largest item of all fields, in bytes.
const MAX_RECORD: usize = 1 << 14;

/// Items that are read at a time.
const ITEMS: usize = 1024;

/// What a sample is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// Two u64.
    Halves,
    /// Bytes, padded with zeros, this many.
    Bytes(usize),
    /// Code points of four bytes each, padded with zeros, this many.
    Points(usize),
}

/// A number, by its letter in numpy and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Truth,
    Float(usize),
    Signed(usize),
    Unsigned(usize),
}

/// A type of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    Name(Name),
    Number(Number),
    /// Fields by name.
    Record(Vec<(String, Type)>),
}

impl Name {
    fn size(self) -> usize {
        match self {
            Self::Halves => 16,
            Self::Bytes(length) => length,
            Self::Points(length) => 4 * length,
        }
    }

    /// The name in `bytes` as a text; `None` where they are none.
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

    /// The hash of the name in `bytes`.
    fn hash(self, bytes: &[u8], by: JoinBy) -> Option<u64> {
        match self {
            Self::Halves => halves(bytes).map(|(high, low)| of_halves(high, low)),
            Self::Bytes(_) | Self::Points(_) => self.text(bytes).and_then(|text| by.of_text(&text)),
        }
    }
}

impl Number {
    fn size(self) -> usize {
        match self {
            Self::Truth => 1,
            Self::Float(size) | Self::Signed(size) | Self::Unsigned(size) => size,
        }
    }

    /// The number in `bytes`; not a number where there are too few.
    fn value(self, bytes: &[u8]) -> f64 {
        let mut eight = [0; 8];
        let size = self.size().min(bytes.len());
        eight[..size].copy_from_slice(&bytes[..size]);
        let bits = u64::from_le_bytes(eight);
        match self {
            Self::Truth => f64::from(bits != 0),
            Self::Float(2) => f16::from_bits(bits as u16).into(),
            Self::Float(4) => f32::from_bits(bits as u32).into(),
            Self::Float(_) => f64::from_bits(bits),
            Self::Unsigned(_) => bits as f64,
            Self::Signed(size) => {
                // The sign is moved to the top and back.
                let shift = 64 - 8 * size.clamp(1, 8) as u32;
                ((bits << shift) as i64 >> shift) as f64
            }
        }
    }
}

impl Type {
    /// Reads the type at the start of `text`, a header without white space; what follows it comes back, too. Of types in
    /// each other there are `depth` levels at most.
    fn read(text: &str, depth: usize) -> Option<(Self, &str)> {
        if let Some(mut rest) = text.strip_prefix('[').filter(|_| depth > 0) {
            let mut fields = vec![];
            while let Some(field) = rest.strip_prefix('(') {
                let (name, after) = quoted(field)?;
                let (own, after) = Self::read(after.strip_prefix(',')?, depth - 1)?;
                let (own, after) = match after.strip_prefix(",(2,)") {
                    Some(after) if own == Self::Number(Number::Unsigned(8)) => {
                        (Self::Name(Name::Halves), after)
                    }
                    _ => (own, after),
                };
                fields.push((name.to_owned(), own));
                rest = after.strip_prefix(')')?;
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            let is_half = |(_, own): &(String, Self)| *own == Self::Number(Number::Unsigned(8));
            let own = match &fields[..] {
                [first, second] if is_half(first) && is_half(second) => Self::Name(Name::Halves),
                _ => Self::Record(fields),
            };
            return Some((own, rest.strip_prefix(']')?));
        }
        let (descr, rest) = quoted(text)?;
        let size = descr.get(2..)?.parse().ok().filter(|&size: &usize| size > 0)?;
        let is_number = |sizes: &[usize]| sizes.contains(&size);
        let own = match descr.get(..2)? {
            "|S" | "<S" => Self::Name(Name::Bytes(size)),
            "<U" => Self::Name(Name::Points(size)),
            "|b" if size == 1 => Self::Number(Number::Truth),
            "<f" if is_number(&[2, 4, 8]) => Self::Number(Number::Float(size)),
            "<i" | "|i" if is_number(&[1, 2, 4, 8]) => Self::Number(Number::Signed(size)),
            "<u" | "|u" if is_number(&[1, 2, 4, 8]) => Self::Number(Number::Unsigned(size)),
            _ => return None,
        };
        (own.size() <= MAX_ITEM).then_some((own, rest))
    }

    fn size(&self) -> usize {
        match self {
            Self::Name(name) => name.size(),
            Self::Number(number) => number.size(),
            Self::Record(fields) => fields.iter().map(|(_, own)| own.size()).sum(),
        }
    }
}

/// The text in quotes that `text` starts with, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('\'')?.split_once('\'')
}

/// Where the parts of an item lie.
struct Layout {
    size: usize,
    by: JoinBy,
    /// Offset and type of the name.
    name: (usize, Name),
    /// Offsets and types of the numbers.
    numbers: Vec<(usize, Number)>,
    /// Names of the numbers.
    columns: Vec<String>,
}

impl Layout {
    /// `None` where no field is the name of a sample, or one is neither that nor a number.
    fn of(own: Type) -> Option<Self> {
        let fields = match own {
            Type::Record(fields) => fields,
            plain => vec![(UID.to_owned(), plain)],
        };
        let is_name = |(name, own): &&(String, Type)| {
            matches!(own, Type::Name(_)) && [UID, JoinBy::Key.name()].contains(&name.as_str())
        };
        let wanted = fields
            .iter()
            .find(is_name)
            .or_else(|| fields.iter().find(|(_, own)| matches!(own, Type::Name(_))));
        let wanted = wanted?.0.clone();
        let by = if wanted == JoinBy::Key.name() { JoinBy::Key } else { JoinBy::Uid };
        let (mut size, mut found, mut numbers, mut columns) = (0, None, vec![], vec![]);
        for (name, own) in fields {
            let at = size;
            size += own.size();
            match own {
                Type::Name(own) if name == wanted => found = Some((at, own)),
                Type::Name(_) => {}
                Type::Number(number) => {
                    numbers.push((at, number));
                    columns.push(name);
                }
                Type::Record(_) => return None,
            }
        }
        (size <= MAX_RECORD).then_some(Self { size, by, name: found?, numbers, columns })
    }
}

/// Two u64.
fn halves(bytes: &[u8]) -> Option<(u64, u64)> {
    let half = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some((half(0)?, half(8)?))
}

/// Takes the hash of a name, how to write it, and the numbers beside it.
pub(super) type EachItem<'a> = dyn FnMut(u64, &dyn Fn() -> String, &[f64]) -> Result<(), String> + 'a;

/// Hands every item of `file` to `each`; says what its names are, and which columns the numbers are of.
///
/// # Errors
/// What is wrong with the file, in words; what `each` says.
pub(super) fn items(mut file: impl Read, each: &mut EachItem<'_>) -> Result<(JoinBy, Vec<String>), String> {
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
    let (layout, mut left) = parse(&header).ok_or_else(|| format!("an array with the header {header}"))?;
    let mut bytes = vec![0; ITEMS * layout.size];
    let (at, name) = layout.name;
    let mut numbers = vec![0.0; layout.numbers.len()];
    while left > 0 {
        let items = left.min(ITEMS as u64);
        let some = &mut bytes[..items as usize * layout.size];
        file.read_exact(some).map_err(cut)?;
        for item in some.chunks_exact(layout.size) {
            let bytes = &item[at..at + name.size()];
            let hash = name.hash(bytes, layout.by).ok_or("an item that is no text")?;
            for (value, (at, number)) in numbers.iter_mut().zip(&layout.numbers) {
                *value = number.value(&item[*at..]);
            }
            each(hash, &|| name.text(bytes).unwrap_or_default(), &numbers)?;
        }
        left -= items;
    }
    match file.read(&mut [0; 1]) {
        Ok(0) => Ok((layout.by, layout.columns)),
        Ok(_) => Err("more than its header says".into()),
        Err(error) => Err(cut(error)),
    }
}

/// Layout and number of the items that a header without white space tells of; `None` where it is another's.
fn parse(header: &str) -> Option<(Layout, u64)> {
    let after = |name: &str| header.split_once(name).map(|(_, rest)| rest);
    // An item of fields, one of which is of two.
    let (own, _) = Type::read(after("'descr':")?, 2)?;
    let shape = after("'shape':(")?.split_once(')')?.0;
    let count = shape.strip_suffix(',')?.parse().ok()?;
    Some((Layout::of(own)?, count))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shard::join::of_uid;

    fn read(bytes: &[u8]) -> Result<Vec<u64>, String> {
        let mut found = vec![];
        items(bytes, &mut |uid, text, _| {
            assert_eq!(of_uid(&text()), uid);
            found.push(uid);
            Ok(())
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

    fn array(header: &str, items: &[u8]) -> Vec<u8> {
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), items].concat()
    }

    #[test]
    fn numbers_stand_beside_names_in_any_order() {
        let descr = "[('clip', '<f2'), ('uid', '<u8', (2,)), ('n', '<i2'), ('note', '<U1'), ('ok', '|b1'), ('x', '<f8')]";
        let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}");
        let mut bytes = vec![];
        for (clip, low, n, ok, x) in [(0.5_f32, 7_u64, -3_i16, 1_u8, 1e-9_f64), (-2.0, 8, 300, 0, f64::NAN)] {
            bytes.extend(f16::from_f32(clip).to_le_bytes());
            bytes.extend([0_u64, low].map(u64::to_le_bytes).concat());
            bytes.extend(n.to_le_bytes());
            bytes.extend(u32::from('a').to_le_bytes());
            bytes.push(ok);
            bytes.extend(x.to_le_bytes());
        }
        let mut found = vec![];
        let named = items(&array(&header, &bytes)[..], &mut |uid, _, numbers| {
            found.push((uid, numbers.to_vec()));
            Ok(())
        });
        let columns = ["clip", "n", "ok", "x"].map(str::to_owned).to_vec();
        assert_eq!(named, Ok((JoinBy::Uid, columns)));
        assert_eq!(found[0], (of_halves(0, 7), vec![0.5, -3.0, 1.0, 1e-9]));
        assert_eq!((found[1].0, &found[1].1[..3]), (of_halves(0, 8), &[-2.0, 300.0, 0.0][..]));
        assert!(found[1].1[3].is_nan());

        let keys = "{'descr': [('key', '|S3'), ('s', '|u1')], 'fortran_order': False, 'shape': (1,), }";
        let mut names = vec![];
        let named = items(&array(keys, b"ab\0\xff")[..], &mut |hash, text, numbers| {
            names.push((hash, text(), numbers[0]));
            Ok(())
        });
        assert_eq!(named, Ok((JoinBy::Key, vec!["s".to_owned()])));
        assert_eq!(names, [(crate::shard::join::of_key("ab"), "ab".to_owned(), 255.0)]);
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
