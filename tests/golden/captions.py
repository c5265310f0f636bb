"""Writes tests/golden/captions.jsonl: captions that are hard to tokenise, with open_clip's ids.

    .venv/bin/python tests/golden/captions.py [--number 400] [--out FILE] [--add FILE]

Each line is {"text", "ids"}: ids without padding, at most 77, from open_clip 3.3 (ftfy 6.3.1,
regex 2026.11). `--add` appends the lines of a text file (one JSON string each) before encoding.
"""

import argparse
import html
import json
import random
from pathlib import Path

import open_clip

WORDS = """a the of in on with and photo dog cat's grandmother's don't we'll they've I'm he'd you're
McDonald's iPhone 4K 1080p 3.14 2024-05-06 $1,299.00 100% #nofilter @home e-mail C++ rock'n'roll
e.g. U.S.A. naïve café Zürich façade São Paulo Ærøskøbing Łódź Škoda İstanbul ΟΔΥΣΣΕΥΣ ΣΊΣΥΦΟΣ Straße
Привет мир Україна שלום مرحبا نص नमस्ते สวัสดี 안녕하세요 日本語の写真 東京タワー 狐 ｶﾀｶﾅ ＡＢＣ１２３ Ⅷ ½ x² H₂O 10³ µm Å Ω K ſtop
ﬁne ﬂower oﬃce Ĳssel ǆ ŉ 👍 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ ☕ ★★★ → ≤ ± × ÷ ° ™ © ® € £ ¥ § ¶ • … – — ‐ ― « » ‹ ›""".split()  # noqa: SIM905

PIECES = [
    "“curly”", "‘single’", "it’s", "`tick`", "don´t", "''quoted''", '"', "'", "'s", "''s", "'S", "'LL",
    "&amp;", "&lt;b&gt;", "&quot;", "&#39;", "&#x2019;", "&nbsp;", "&eacute;", "&EACUTE;", "&hellip;", "&amp;amp;",
    "&amp;lt;", "&copy", "&notit;", "&ampersand", "&#128;", "&#0;", "&#xD800;", "&#1234567890;", "&unknown;", "&;",
    "&", "&#", "&#x", "<br>", "<b>", "</p>", "<start_of_text>", "<end_of_text>", "!<end_of_text>", "<|endoftext|>",
    "\t", "\n", "\r\n", "\r", "\u2028", "\u2029", "\u0085", "\u00a0", "\u3000", "\u200b", "\u200d", "\u202e", "\ufeff",
    "\u0000", "\u0007", "\u001b[31m", "\u001b[0m", "\u001f", "\u007f", "\u0080", "\u0092", "\u009d", "\ufffd", "\ufffc",
    "e\u0301", "A\u030a", "\u1100\u1161\u11a8", "q\u0323\u0307", "\u0345", "zalgo\u0300\u0301\u0302\u0303\u0304",
    "http://example.com/a_b?c=d&e=f#g", "user@example.org", "C:\\temp\\x", "snake_case", "camelCase", "a/b", "1/2",
    "0123456789", "١٢٣", "x" * 40, "aaaaaaaaaaaaaaaa", "!!!!!!!!", "?!?!", "....", ":-)", "(╯°□°)╯︵ ┻━┻", "¯\\_(ツ)_/¯",
]  # fmt: skip

PAGES = [
    "latin-1",
    "cp1252",
    "cp1251",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1257",
    "iso8859-2",
    "mac-roman",
    "cp437",
]


def garble(text: str, rng: random.Random) -> str:
    """Reads UTF-8 with a wrong code page, as the web does; sometimes twice, or with losses."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        page, bytes_ = rng.choice(PAGES[:2] * 4 + PAGES), text.encode()
        if page == "cp1252" and rng.random() < 0.5:
            text = "".join(bytes([b]).decode(page, errors="ignore") or chr(b) for b in bytes_)
        else:
            text = bytes_.decode(page, errors=rng.choice(["replace", "ignore"]))
    if rng.random() < 0.3:
        text = text.replace("\u00a0", " ")
    return text


def caption(rng: random.Random) -> str:
    length = rng.choice([1, 2, 3, 5, 8, 13, 20, 60, 200]) if rng.random() < 0.3 else rng.randint(2, 14)
    parts = [rng.choice(PIECES) if rng.random() < 0.2 else rng.choice(WORDS) for _ in range(length)]
    text = "".join(part + rng.choice([" ", " ", " ", "  ", "", ", ", ". ", "; "]) for part in parts)
    kind = rng.random()
    if kind < 0.25:
        start = rng.randint(0, len(text))
        text = text[:start] + garble(text[start : start + rng.randint(1, 60)], rng) + text[start + 60 :]
    elif kind < 0.35:
        text = garble(text, rng)
    elif kind < 0.45:
        text = html.escape(text)
    elif kind < 0.55:
        text = text.upper()
    elif kind < 0.6:
        text = "".join(
            chr(rng.choice([rng.randrange(0x20, 0x180), rng.randrange(0x20, 0x3000)])) for _ in range(length)
        )
    # Lone surrogates cannot be in a caption that was UTF-8.
    return text.encode("utf-8", errors="ignore").decode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "captions.jsonl")
    parser.add_argument("--add", type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    texts = ["", " ", *WORDS, *PIECES, *(caption(rng) for _ in range(args.number))]
    if args.add:
        texts += [json.loads(line) for line in args.add.open()]
    tokenizer = open_clip.SimpleTokenizer()
    with args.out.open("w") as out:
        for text in texts:
            ids = tokenizer(text)[0].tolist()
            while ids[-1] == 0:  # padding: the end token is not 0
                ids.pop()
            out.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
