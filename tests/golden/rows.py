"""Writes rows.parquet, images in Parquet as Hugging Face datasets have them, and rows.json, what it holds.

Made with pyarrow (26.0.1).

    python tests/golden/rows.py

Row groups of 9 rows and pages of about 2 KB: reading has to cross both.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 30

HERE = Path(__file__).parent


def image(i: int) -> bytes | None:
    """Bytes that a decoder would refuse: only their way through the file is tested."""
    return None if i == 4 else bytes((i * 37 + at * at) % 251 for at in range(150 + 90 * i))


def row(i: int) -> dict[str, object]:
    return {
        "image": {"bytes": image(i), "path": f"{i}.jpg"} if i != 11 else None,
        "caption": [f"picture {i}", None, "  ", "voilà"][i % 4],
        "width": None if i % 5 == 3 else i * 10,
        "score": [0.25, float("nan"), float("inf"), -1.5][i % 4],
        "safe": i % 2 == 0,
        "captions": [f"first {i}", f"second {i}"],
        "of": {"name": f"n{i}", "tags": ["a", "b"][: i % 3]},
    }


schema = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("caption", pa.string()),
        ("width", pa.int64()),
        ("score", pa.float32()),
        ("safe", pa.bool_()),
        ("captions", pa.list_(pa.string())),
        ("of", pa.struct([("name", pa.string()), ("tags", pa.list_(pa.string()))])),
    ]
)
rows = [row(i) for i in range(ROWS)]
pq.write_table(
    pa.Table.from_pylist(rows, schema=schema),
    HERE / "rows.parquet",
    row_group_size=9,
    data_page_size=2048,
    write_batch_size=1,
    use_dictionary=["caption"],
    compression="snappy",
)
expected = []
for one in rows:
    bytes_ = (one["image"] or {}).get("bytes")
    rest = {name: value for name, value in one.items() if name != "image"}
    expected.append({"image": None if bytes_ is None else bytes_.hex(), "rest": rest})
(HERE / "rows.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")
