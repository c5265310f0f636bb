"""Writes tests/golden/crops.json: how torchvision's RandomResizedCrop distributes its crops.

    .venv/bin/python tests/golden/crops.py

For each case, `draws` crops were drawn; `area` and `ratio` list [threshold, share of crops at or
below it], `left` and `top` the mean offset as a share of the room there was. torchvision 0.26.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import RandomResizedCrop

DRAWS = 20_000
CASES = [
    (640, 480, (0.9, 1.0), (3 / 4, 4 / 3)),
    (640, 480, (0.08, 1.0), (3 / 4, 4 / 3)),
    (300, 900, (0.9, 1.0), (3 / 4, 4 / 3)),
    (1000, 200, (0.2, 1.0), (3 / 4, 4 / 3)),
    (37, 29, (0.5, 0.8), (0.5, 2.0)),
]


def main() -> None:
    torch.manual_seed(0)
    cases = []
    for width, height, scale, ratio in CASES:
        image = torch.empty(3, height, width)
        crops = np.array(
            [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(DRAWS)],
            dtype=float,
        )
        top, left, h, w = crops.T

        def shares(values: np.ndarray) -> list[list[float]]:
            thresholds = np.linspace(values.min(), values.max(), 12)[1:-1] + 1e-6
            return [[float(t), float((values <= t).mean())] for t in thresholds]

        def offset(start: np.ndarray, room: np.ndarray) -> float:
            return float((start[room > 0] / room[room > 0]).mean()) if (room > 0).any() else 0.5

        cases.append(
            {
                "width": width,
                "height": height,
                "scale": scale,
                "ratio": ratio,
                "draws": DRAWS,
                "area": shares(w * h / (width * height)),
                "aspect": shares(w / h),
                "left": offset(left, width - w),
                "top": offset(top, height - h),
            }
        )
    (Path(__file__).parent / "crops.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
