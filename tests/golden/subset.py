"""Writes subset/: five uids as DataComp's .npy has them, as arrays of text, and as Parquet.

Made with numpy (2.4.6) and pyarrow (26.0.1).

    python tests/golden/subset.py
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

UIDS = [
    "000000000000000000000000000000ff",
    "0123456789abcdeffedcba9876543210",
    "7fffffffffffffff8000000000000000",
    "8000000000000000ffffffffffffffff",
    "ffffffffffffffff0000000000000001",
]

folder = Path(__file__).parent / "subset"
folder.mkdir(exist_ok=True)
(folder / "uids.txt").write_text("".join(f"{uid}\n" for uid in UIDS))
# As DataComp's own scripts write them.
halves = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in UIDS], np.dtype("u8,u8"))
np.save(folder / "halves.npy", halves)
np.save(folder / "text.npy", np.array(UIDS))
np.save(folder / "bytes.npy", np.array(UIDS, dtype="S32"))
# A row group for every two rows, a null, and columns that do not matter.
table = pa.table(
    {
        "url": [f"https://example.org/{i}.jpg" for i in range(6)],
        "uid": [*UIDS, None],
        "caption": ["a red kite", None, "snow\non a ridge", "", "é", "lost"],
        "score": [0.1 * i for i in range(6)],
    }
)
pq.write_table(table, folder / "captions.parquet", row_group_size=2)
