"""The options `Images` that do what open_clip's transforms do, which torchvision makes, or timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tldr_loader._errors import ConfigError

__all__ = ["evaluation", "training"]

# Augmentations of `--aug-cfg` that the loader does not have, with what does nothing.
UNKNOWN = {
    "color_jitter": (None, 0),
    "color_jitter_prob": (None, 0),
    "gray_scale_prob": (None, 0),
    "re_prob": (None, 0),
    "re_count": (None, 0),
}
OPAQUE = {"MaybeConvertMode", "MaybeToTensor", "ToTensor", "_convert_to_rgb", "function"}
"""Steps that the loader's decoder does, too: to RGB, and to numbers in [0, 1]."""


def training(transform: Any, aug_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of `Images` for a random resized crop.

    Raises:
        ConfigError: A step, or an augmentation of `--aug-cfg`, that the loader does not have.
    """
    aug_cfg = aug_cfg or {}
    for name, nothing in UNKNOWN.items():
        value = aug_cfg.get(name)
        if value not in nothing:
            raise ConfigError(
                f"--aug-cfg {name}={value}: the loader crops, resizes and flips, and has no {name}. "
                "Leave it out, or apply it to the batch, on the GPU"
            )
    steps, found = _steps(transform, "preprocess_train")
    crop = steps.pop("RandomResizedCrop", None) or steps.pop("RandomResizedCropAndInterpolation", None)
    flip = steps.pop("RandomHorizontalFlip", None)
    if crop is None or steps:
        raise _unknown(
            "preprocess_train", steps, "a RandomResizedCrop, a RandomHorizontalFlip and a Normalize"
        )
    _check_bicubic("preprocess_train", crop)
    found["image_size"] = _square(crop.size)
    found["crop_scale"] = _floats(aug_cfg.get("scale") or crop.scale)
    # open_clip's own crop takes no ratio unless timm makes it; whoever gives one wants it.
    found["crop_ratio"] = _floats(aug_cfg.get("ratio") or crop.ratio)
    if flip is not None and flip.p:
        found["flip"] = float(flip.p)
    return found


def evaluation(transform: Any) -> dict[str, Any]:
    """The fields of `Images` for a resize, of the shortest side with a centre crop or of both.

    Raises:
        ConfigError: A step, resize mode or interpolation that the loader does not have.
    """
    steps, found = _steps(transform, "preprocess_val")
    resize, crop = steps.pop("Resize", None), steps.pop("CenterCrop", None)
    if "ResizeKeepRatio" in steps:
        _square(steps["ResizeKeepRatio"].size)
        raise ConfigError(
            "--image-resize-mode longest: the loader has no padding; expected shortest, which needs none"
        )
    if resize is None or steps:
        raise _unknown("preprocess_val", steps, "a Resize, a CenterCrop and a Normalize")
    if crop is not None:
        _check_bicubic("preprocess_val", resize)
        found["image_size"] = _square(crop.size)
        if _square(resize.size) != found["image_size"]:
            raise ConfigError(
                f"preprocess_val: it resizes to {resize.size} and crops {crop.size}; expected one size"
            )
        return found
    found["image_size"] = _square(resize.size)
    transforms = {"bilinear": "preview", "bicubic": "squash"}
    if _interpolation(resize) not in transforms:
        raise ConfigError(
            f"--image-resize-mode squash with interpolation {_interpolation(resize)}, for --val-data: "
            "expected bicubic or bilinear"
        )
    found["transform"] = transforms[_interpolation(resize)]
    return found


def _steps(transform: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The steps by their classes, but for those of every decoder; and what the Normalize says."""
    steps = {type(step).__name__: step for step in getattr(transform, "transforms", [transform])}
    normalize = steps.pop("Normalize", None)
    if normalize is None:
        raise _unknown(name, steps, "a Compose that ends with a Normalize")
    kept = {kind: step for kind, step in steps.items() if kind not in OPAQUE}
    return kept, {"mean": _colours(normalize.mean), "std": _colours(normalize.std)}


def _unknown(name: str, steps: Mapping[str, Any], expected: str) -> ConfigError:
    found = ", ".join(steps) or "nothing else"
    return ConfigError(f"{name}: expected {expected}, as open_clip makes them; found {found}")


def _square(size: Any) -> int:
    height, width = (size, size) if isinstance(size, int) else (tuple(size) * 2)[:2]
    if height != width:
        raise ConfigError(
            f"image_size=({height}, {width}): the loader's images are square. Give --force-image-size one "
            "number"
        )
    return int(height)


def _interpolation(step: Any) -> str:
    found = step.interpolation
    if isinstance(found, tuple):
        return "random"
    return str(getattr(found, "value", found))


def _check_bicubic(name: str, step: Any) -> None:
    found = _interpolation(step)
    if found != "bicubic":
        raise ConfigError(
            f"{name}: interpolation {found}: the loader's crops are bicubic. Give --image-interpolation "
            "bicubic"
        )


def _colours(values: Any) -> tuple[float, ...]:
    """One number for each colour; torchvision takes one for all."""
    found = _floats(values)
    return found * 3 if len(found) == 1 else found


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
