//! What a file is that should be a tar archive and is none, by its first bytes: for the refusal.

use crate::shard::store::ShardFormat;

/// What files of other formats start with, what they are, and what to do.
const FORMATS: [(&[u8], &str, &str); 15] = [
    (b"BZh", "compressed with bzip2", "decompress it with bunzip2; tar, tar.gz and tar.zst are read"),
    (b"\xFD7zXZ\0", "compressed with xz", "decompress it with unxz; tar, tar.gz and tar.zst are read"),
    (b"LZIP", "compressed with lzip", "decompress it with lzip -d; tar, tar.gz and tar.zst are read"),
    (
        b"\x04\x22\x4D\x18",
        "compressed with lz4",
        "decompress it with unlz4; tar, tar.gz and tar.zst are read",
    ),
    (
        b"\x1F\x9D",
        "compressed with compress",
        "decompress it with uncompress; tar, tar.gz and tar.zst are read",
    ),
    (b"\x1F\x8B", "compressed with gzip once more", "decompress it once with gunzip"),
    (b"\x28\xB5\x2F\xFD", "compressed with zstd once more", "decompress it once with unzstd"),
    (b"PK\x03\x04", "a zip archive", "unpack it with unzip, and pack its files with tar"),
    (b"PK\x05\x06", "an empty zip archive", "leave it out"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it with 7z x, and pack its files with tar"),
    (b"Rar!\x1A\x07", "a rar archive", "unpack it with unrar, and pack its files with tar"),
    (
        b"PAR1",
        "a Parquet file",
        "let its name end in .parquet if its rows hold images, else give the shards that it lies beside",
    ),
    (b"\xFF\xD8\xFF", "a JPEG", "pack images and captions with tar"),
    (b"\x89PNG\r\n\x1A\n", "a PNG", "pack images and captions with tar"),
    (b"%PDF-", "a PDF", "pack images and captions with tar"),
];

/// Files of text by what they start with, in lower case.
const TEXTS: [(&str, &str, &str); 6] = [
    (
        "version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS, and not the file that it stands for",
        "fetch it with git lfs pull",
    ),
    ("<!doctype html", "an HTML page", WEB_PAGE),
    ("<html", "an HTML page", WEB_PAGE),
    ("<", "XML or HTML", WEB_PAGE),
    ("{", "json", "give tar files, or a list of them in a .txt file"),
    ("[", "json", "give tar files, or a list of them in a .txt file"),
];

/// What a server says in the place of a file.
const WEB_PAGE: &str = "it may be a server's error message: look into it, and download the shard again";

/// Why a file that starts with `first` is refused, where that tells what it is: a block, or all of it, decompressed as
/// `format` says. `None` where it may be a tar file, or is nothing that is known.
pub(super) fn refusal(first: &[u8], format: ShardFormat) -> Option<String> {
    let (what, remedy) = kind(first)?;
    let what = match format {
        ShardFormat::Tar => format!("it is {what}"),
        _ => format!("decompressed with {}, it is {what}", format.name()),
    };
    Some(format!("it is not a tar file: {what}; {remedy}"))
}

fn kind(first: &[u8]) -> Option<(&'static str, &'static str)> {
    if let Some((_, what, remedy)) = FORMATS.iter().find(|(magic, ..)| first.starts_with(magic)) {
        // These letters may start a name too; what follows them in bzip2 may not.
        let is_name = first.starts_with(b"BZh") && first.get(4..10).is_some_and(|m| m != b"1AY&SY");
        return (!is_name).then_some((*what, *remedy));
    }
    if !is_text(first) {
        return None;
    }
    let text = String::from_utf8_lossy(first).to_lowercase();
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let known = TEXTS.iter().find(|(start, ..)| text.starts_with(start));
    Some(known.map_or(("text", "give tar files, or a list of them in a .txt file"), |(_, what, remedy)| {
        (*what, *remedy)
    }))
}

/// Whether the start of a file is text: without a zero, which ends the field of a name, and longer than that field,
/// or with what names of members do not have as a rule.
fn is_text(first: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    let is_foreign =
        |byte: &u8| matches!(byte, b'<' | b'>' | b'{' | b'}' | b'"') || byte.is_ascii_whitespace();
    first.iter().all(is_plain) && (first.len() > 100 || first.iter().any(is_foreign))
}

/// Whether `part`, less than a block, can be the start of a tar header: a name, filled up with zeros, then a mode. Of
/// less than the four bytes by which compressed data are known, nobody can tell.
pub(super) fn starts_header(part: &[u8]) -> bool {
    if part.len() < 4 {
        return true;
    }
    let (name, rest) = part.split_at(part.len().min(100));
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let mode = &rest[..rest.len().min(8)];
    end > 0
        && !name[..end].iter().any(u8::is_ascii_control)
        && name[end..].iter().all(|&byte| byte == 0)
        && mode.iter().all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_first_bytes() {
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
        for (first, expected) in [
            (&b"BZh91AY&SY\x01"[..], Some("bzip2")),
            (b"BZh9-photo.jpg\0\0", None),
            (b"PK\x03\x04\x14", Some("a zip archive")),
            (lfs.as_bytes(), Some("Git LFS")),
            (b"\xEF\xBB\xBF\n<!DOCTYPE HTML><p>", Some("an HTML page")),
            (b"<Error><Code>AccessDenied", Some("XML or HTML")),
            (b"{\"message\": \"Not Found\"}", Some("json")),
            (b"Access denied", Some("text")),
            ("Zugriff verweigert für Gäste".as_bytes(), Some("text")),
            (b"000000000.jpg", None),
            (b"000000000.jpg\0\0\0", None),
            (b"\x01\x02\x03", None),
        ] {
            let found = refusal(first, ShardFormat::Tar);
            assert_eq!(found.is_some(), expected.is_some(), "{first:?}: {found:?}");
            assert!(expected.is_none_or(|e| found.is_some_and(|found| found.contains(e))), "{first:?}");
        }
    }

    #[test]
    fn a_header_starts_with_a_name_and_zeros() {
        for (part, expected) in [
            (&b"000.jpg"[..], true),
            (b"000.jpg\0\0", true),
            (b"000.jpg\0x", false),
            (b"\0\0\0a", false),
            (b"a\x07bc", false),
            (b"\x1F", true),
        ] {
            assert_eq!(starts_header(part), expected, "{part:?}");
        }
        let mut long = [b'a'; 104];
        assert!(!starts_header(&long));
        long[100..].fill(b'0');
        assert!(starts_header(&long));
    }
}
