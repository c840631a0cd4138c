"""How a model of transformers wants its pictures: read from its config, or left to its processor.

The config of an image processor says what is given to it; what it does besides is its class's own.
So only the classes in KINDS are read, and every other one prepares its pictures itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from curate.base.reasons import words
from curate.pictures.decode import PictureView, Pixels

_RESAMPLE = {2: "bilinear", 3: "bicubic"}
# Whether a size of one number means a square, and whether they crop unless told not to.
_KINDS = {
    "vit": (True, False),
    "deit": (True, True),
    "beit": (True, True),
    "clip": (False, True),
    "bit": (False, True),
    "siglip": (False, False),
    "convnext": (False, False),
}
# Steps of an image processor that are its own: reversed channels, a shifted range, padding.
_MORE = ("do_flip_channel_order", "rescale_offset", "do_pad")
_WARPED = 384  # pixels from which on ConvNeXT squashes pictures

Plain = tuple[PictureView, int, Sequence[float], Sequence[float]]


def plain_preparation(config: Mapping[str, Any], draft: bool) -> Plain | None:
    """How pictures are resized, the side of the centre crop, mean and deviation (0 to 1).

    None where it takes more than a square, bicubic or bilinear, its centre and that.

    Args:
        config: the image processor's.
    """
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", named).lower()
    if kind not in _KINDS:
        return None
    square, crops = _KINDS[kind]
    size = config.get("size", 0)
    if isinstance(size, int):
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    squash = not size.get("shortest_edge")
    side = int(size.get("height" if squash else "shortest_edge") or 0)
    crop = config.get("crop_size") or side
    crop = int(crop["height"] if isinstance(crop, Mapping) else crop)
    centred = config.get("do_center_crop")
    centred = crops if centred is None else centred
    if not centred:
        crop = side
    if kind == "convnext" and not squash:
        squash, centred = side >= _WARPED, True
        crop, side = side, side if squash else int(side / (config.get("crop_pct") or 224 / 256))
    resample = _RESAMPLE.get(config.get("resample", -1))
    fits = size.get("height") == size.get("width") if "height" in size else centred
    if not (fits and side and crop <= side and resample and config.get("do_resize", True)):
        return None
    if any(config.get(name) for name in _MORE) or not config.get("do_rescale", True):
        return None
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        return None
    mean, deviation = [0.0] * 3, [1.0] * 3
    if config.get("do_normalize", True):
        mean, deviation = config.get("image_mean") or [], config.get("image_std") or []
    if len(mean) != 3 or len(deviation) != 3:
        return None
    return PictureView(side, squash, resample, draft), crop, mean, deviation


def by_shape(
    processor: Any, pictures: Pixels, seen: Sequence[bool]
) -> tuple[list[tuple[list[int], dict[str, Any]]], list[str | None]]:
    """Rows whose prepared pictures are of one shape, each with the model's inputs; and errors.

    Each picture is prepared alone, so nothing hangs on its neighbours.

    Args:
        seen: which of the pictures there are; the others are in no group and have no error.
    """
    import torch

    errors: list[str | None] = [None] * len(seen)
    groups: dict[Any, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        if not seen[row]:
            continue
        try:
            made = processor(images=Image.fromarray(picture), return_tensors="pt")
        except Exception as error:  # image processors refuse pictures in their own ways
            errors[row] = words(error)
            continue
        tensors = {name: value for name, value in made.items() if hasattr(value, "shape")}
        shapes = tuple((name, tuple(value.shape)) for name, value in sorted(tensors.items()))
        groups[shapes].append((row, tensors))
    return [
        (
            [row for row, _ in group],
            {name: torch.cat([tensors[name] for _, tensors in group]) for name in group[0][1]},
        )
        for group in groups.values()
    ], errors
