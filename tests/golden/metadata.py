"""Writes metadata.parquet, what img2dataset writes beside a shard, and copies of it in other codecs.

Made with pyarrow (26.0.1).

    python tests/golden/metadata.py

The columns are those of img2dataset, and two that a list of URLs may bring
along: `similarity` and `tags`.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    # key, status, caption, width, similarity, tags
    ("000000000", "success", "a red kite", 640, 0.31, ["bird"]),
    ("000000001", "failed_to_download", "gone", None, 0.25, []),
    ("000000002", "success", "snow\non a ridge", 333, 0.28, ["snow", "rock"]),
    ("000000003", "success", None, 512, None, None),
    ("000000004", "failed_to_resize", None, None, 0.2, []),
    ("000000005", "success", "", 100, 0.5, []),
]

schema = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("similarity", pa.float64()),
        ("tags", pa.list_(pa.string())),
    ]
)
rows = [
    {
        "url": f"https://example.org/{key}.jpg",
        "caption": caption,
        "key": key,
        "status": status,
        "error_message": None if status == "success" else "HTTP Error 404: Not Found",
        "width": width,
        "similarity": similarity,
        "tags": tags,
    }
    for key, status, caption, width, similarity, tags in ROWS
]
folder = Path(__file__).parent
# img2dataset writes a row group per buffer; small ones here, so that there are several.
table = pa.Table.from_pylist(rows, schema)
pq.write_table(table, folder / "metadata.parquet", row_group_size=4)
for codec in ("gzip", "zstd"):
    pq.write_table(table, folder / f"metadata.{codec}.parquet", row_group_size=4, compression=codec)
